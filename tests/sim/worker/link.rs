//! A worker on a live connection: what it says, what it hears.

use std::time::Duration;

use asynq_core::{LeaseToken, StopCause, Verdict, limits};

use super::ledger::Phase;
use super::{GOODBYE, Link, Wake, Worker};
use crate::env::Env;
use crate::message::{Down, Up, Work};
use crate::net::{ConnId, To};

impl Worker {
    /// A message arrives.
    pub(crate) fn arrives(&mut self, conn: ConnId, message: Down, env: &mut Env) {
        if let Some(&token) = self.side.get(&conn) {
            self.hears_aside(conn, token, message, env);
            return self.say(env);
        }
        if let Some(&call) = self.apart.get(&conn) {
            self.hears_of_call(conn, call, message, env);
            return self.say(env);
        }
        if self.reads.contains_key(&conn) {
            self.hears_of_stream(conn, message, env);
            return self.say(env);
        }
        match (&mut self.link, message) {
            (Link::Greeting { conn: now, .. }, Down::WorkerWelcome(session)) if *now == conn => {
                self.welcomed(conn, session, env);
            }
            (Link::Up { conn: now, .. }, message) if *now == conn => self.hears(message, env),
            _ => {}
        }
        self.say(env);
    }

    fn hears(&mut self, message: Down, env: &mut Env) {
        match message {
            Down::HeartbeatAck(beat) => self.acknowledged_beat(beat, env),
            Down::Ack(token, verdict) => self.acknowledged(token, matches!(verdict, Verdict::Stale(_)), env),
            Down::Assign(run, payload) => self.assigned(*run, payload, env),
            Down::Stop(token, cause) => self.stop(token, cause, env),
            Down::Answer(call, answer, _) => self.call_answered(call, answer, env),
            _ => {}
        }
    }

    /// On a connection apart from the session's.
    fn hears_aside(&mut self, conn: ConnId, token: LeaseToken, message: Down, env: &mut Env) {
        match message {
            Down::Credit(credit) => self.more_credit(token, credit, env),
            Down::SendFrom(from) => self.send_from(token, from, env),
            Down::Verdict(verdict) => {
                self.side.remove(&conn);
                env.close(conn, To::Peer);
                let stale = matches!(verdict, Verdict::Stale(_));
                if self.is_streaming(token, conn) {
                    self.settled(token, env);
                } else {
                    self.acknowledged(token, stale, env);
                }
            }
            Down::Arguments(payload) => {
                self.side.remove(&conn);
                env.close(conn, To::Peer);
                self.fetched(token, payload, env);
            }
            _ => {}
        }
    }

    /// A connection is gone.
    pub(crate) fn lost(&mut self, conn: ConnId, env: &mut Env) {
        if let Some(token) = self.side.remove(&conn) {
            self.lost_aside(conn, token, env);
            return self.say(env);
        }
        if let Some(call) = self.apart.remove(&conn) {
            return self.call_lost(call, env);
        }
        if self.reads.contains_key(&conn) {
            return self.read_lost(conn, env);
        }
        let current = match self.link {
            Link::Down => false,
            Link::Greeting { conn: now, .. } | Link::Up { conn: now, .. } => now == conn,
        };
        if current {
            self.disconnected(env);
        }
    }

    pub(super) fn beat(&mut self, conn: ConnId, env: &mut Env) {
        if !matches!(self.link, Link::Up { conn: now, .. } if now == conn) || self.goodbye {
            return;
        }
        let heartbeat = self.next_beat(env.now);
        let work = Work {
            heartbeat,
            ..Work::default()
        };
        env.up(conn, Up::Work(work));
        self.wake_in(limits::HEARTBEAT, Wake::Beat(conn), env);
    }

    fn next_beat(&mut self, now: Duration) -> Option<u64> {
        let lease = self.lease.as_mut()?;
        lease.last_beat += 1;
        lease.beats.push_back((lease.last_beat, now));
        Some(lease.last_beat)
    }

    fn acknowledged_beat(&mut self, beat: u64, env: &mut Env) {
        let Some(lease) = &mut self.lease else { return };
        while let Some(&(number, sent)) = lease.beats.front().filter(|(number, _)| *number <= beat) {
            (lease.last_acked, lease.counts_from) = (number, sent);
            lease.beats.pop_front();
        }
        self.watch_the_lease(env);
    }

    /// Says all there is to say now.
    pub(super) fn say(&mut self, env: &mut Env) {
        let Link::Up { conn, drain_told } = self.link else {
            return;
        };
        if self.goodbye {
            return;
        }
        let mut work = Work::default();
        let mut large = Vec::new();
        for (&token, run) in &mut self.runs {
            if let Phase::Over { report, sent } = &mut run.phase
                && !std::mem::replace(sent, true)
            {
                if report.is_large() {
                    large.push(token);
                } else {
                    work.reports.push((token, report.clone()));
                }
            }
        }
        large.into_iter().for_each(|token| self.transfer(token, env));
        if self.draining && drain_told.is_none() {
            work.heartbeat = self.next_beat(env.now);
            work.draining = true;
            self.link = Link::Up {
                conn,
                drain_told: work.heartbeat,
            };
        }
        (work.leaked, work.extensions) = (self.gather_leaked(), self.gather_extensions(env));
        (work.withdrawn, work.calls) = self.gather_calls(env);
        let says_time = work.leaked.is_some() || !work.extensions.is_empty();
        let says_calls = !work.withdrawn.is_empty() || !work.calls.is_empty();
        if work.draining || !work.reports.is_empty() || says_time || says_calls {
            env.up(conn, Up::Work(work));
        }
        let acked = self.lease.as_ref().map_or(0, |lease| lease.last_acked);
        if self.runs.is_empty() && drain_told.is_some_and(|beat| acked >= beat) {
            self.goodbye = true;
            env.up(conn, Up::End(true));
            self.wake_in(GOODBYE, Wake::GiveUp, env);
        }
    }

    fn stop(&mut self, token: LeaseToken, cause: StopCause, env: &mut Env) {
        if cause == StopCause::Stale {
            self.forget(token, env);
        } else {
            self.wanted_stopped(token, env);
        }
    }
}
