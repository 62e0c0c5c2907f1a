//! Runs that call: what they have called and not been answered; see
//! `worker/src/calls`.
//!
//! A handler that calls does so in rounds: it calls some tasks, waits for all of them,
//! then goes on. The first byte of its arguments says how deep it is itself.

use std::collections::BTreeMap;
use std::time::Duration;

use asynq_core::{
    Assignment, Call, LeaseToken, Name, Niceness, OnKey, OnLoss, Options, Payload, TaskId, TaskSpec, Timestamp,
};
use asynq_tests::history::Record;

use super::ledger::{Phase, Run};
use super::{Wake, Worker};
use crate::broker::end_of;
use crate::bug::Bug;
use crate::caller;
use crate::env::Env;
use crate::message::{Answer, Down, INLINE_BYTES, RunCall, Up};
use crate::net::{ConnId, To};
use crate::plan::Fault;

/// Runs that call within runs that were called, at most.
const MAX_DEPTH: u8 = 4;

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Said on no connection.
    Unsaid,
    /// Said on this one or one before.
    Said,
    /// On a connection of its own.
    Uploading,
    /// The broker has it; its end is to be asked for.
    Enqueued,
}

#[derive(Debug)]
struct Open {
    n: u32,
    spec: Box<TaskSpec>,
    way: Way,
    /// It is to be said on the connection there is.
    due: bool,
    /// The handler has gone on without it.
    withdrawn: bool,
    /// That is to be said, too.
    withdrawal_due: bool,
}

/// What a run has called, and is yet to call.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: BTreeMap<u64, Open>,
    /// Tasks made so far.
    made: u32,
    /// Rounds to come.
    rounds: u32,
    depth: u8,
    /// Its task: what it calls is asked for as that was.
    queue: Option<Name>,
    enqueued_at: Timestamp,
}

impl Calls {
    /// Its slot is lent.
    pub(super) fn wait(&self) -> bool {
        !self.open.is_empty()
    }

    /// That call has no answer yet.
    pub(super) fn has(&self, number: u64) -> bool {
        self.open.contains_key(&number)
    }

    fn waits_for_any(&self) -> bool {
        self.open.values().any(|open| !open.withdrawn)
    }
}

/// How deep the task is that has these arguments.
fn depth(payload: &Payload) -> u8 {
    payload.data.first().map_or(0, |byte| byte.wrapping_sub(caller::TOP))
}

impl Worker {
    /// Whether the handler will call, and how often.
    pub(super) fn calls_of(&mut self, assignment: &Assignment, payload: &Payload, env: &Env) -> Calls {
        let depth = depth(payload);
        let calls = env.plan.has(Fault::Calls) && depth < MAX_DEPTH && self.dice.chance(450);
        Calls {
            rounds: if calls { self.dice.int(1..3) as u32 } else { 0 },
            depth,
            queue: Some(assignment.queue.clone()),
            enqueued_at: assignment.enqueued_at,
            ..Calls::default()
        }
    }

    /// The handler begins to call, or returns after a while.
    pub(super) fn go_on(&mut self, token: LeaseToken, time: Duration, env: &mut Env) {
        let Some(run) = self.runs.get(&token) else { return };
        let wake = if run.calls.rounds > 0 {
            Wake::Calls(token)
        } else {
            Wake::Returns(token)
        };
        self.wake_in(time, wake, env);
    }

    /// A run that may call.
    fn caller(&mut self, token: LeaseToken) -> Option<&mut Run> {
        let goes_on = |run: &&mut Run| matches!(run.phase, Phase::Going);
        self.runs.get_mut(&token).filter(goes_on)
    }

    /// The handler calls.
    pub(super) fn calls(&mut self, token: LeaseToken, env: &mut Env) {
        let Some(run) = self.caller(token) else { return };
        run.calls.rounds = run.calls.rounds.saturating_sub(1);
        if run.stopping {
            // Whoever is to stop calls nothing.
            run.calls.rounds = 0;
            return self.returns(token, env);
        }
        for _ in 0..self.dice.int(1..4) {
            self.call(token, env);
        }
        // Some have better things to do than to wait.
        if self.dice.chance(150) {
            let soon = self.dice.long_tailed(Duration::from_millis(1)..Duration::from_secs(3));
            self.wake_in(soon, Wake::Returns(token), env);
        }
    }

    fn call(&mut self, token: LeaseToken, env: &mut Env) {
        let Some(run) = self.runs.get_mut(&token) else { return };
        run.calls.made += 1;
        let (n, depth, at) = (run.calls.made, run.calls.depth, run.calls.enqueued_at);
        let queue = run.calls.queue.clone();
        let Some(queue) = queue else { return };
        let spec = self.called_spec(token.child(n), (queue, depth + 1, at), env);
        env.record(Record::Asked(spec.id));
        if spec.options.stream && caller::on_loss(&spec.name) == OnLoss::Fail {
            env.record(Record::OneRun(spec.id));
        }
        env.asked_for(&spec);
        self.asked += 1;
        let number = self.asked;
        let open = Open {
            n,
            spec: Box::new(spec),
            way: Way::Unsaid,
            due: true,
            withdrawn: false,
            withdrawal_due: false,
        };
        if let Some(run) = self.runs.get_mut(&token) {
            run.calls.open.insert(number, open);
        }
        if self.dice.chance(120) {
            let later = self.dice.long_tailed(Duration::from_micros(50)..Duration::from_secs(8));
            self.wake_in(later, Wake::Withdraws(token, number), env);
        }
    }

    fn called_spec(&mut self, id: TaskId, (queue, depth, at): (Name, u8, Timestamp), env: &Env) -> TaskSpec {
        let dice = &mut self.dice;
        let names = caller::names();
        let large = env.plan.has(Fault::Large) && dice.chance(200);
        let mut data = vec![caller::TOP + depth; if large { INLINE_BYTES + 1 } else { 4 }];
        data[1..4].copy_from_slice(&id.0[13..]);
        let mut seldom = |most: Duration| {
            dice.chance(80)
                .then(|| dice.long_tailed(Duration::from_millis(100)..most))
        };
        let (start_in, deadline) = (seldom(Duration::from_secs(10)), seldom(Duration::from_secs(60)));
        let timeout = seldom(Duration::from_secs(10));
        let start_at = start_in.map(|after| at + after);
        let options = Options {
            niceness: Niceness::new(dice.int(0..41) as i32 - 20).unwrap_or_default(),
            timeout,
            deadline: deadline.map(|within| start_at.unwrap_or(at) + within),
            max_attempts: Some(dice.int(1..4) as u32),
            at_most_once: dice.chance(80),
            stream: dice.chance(250),
            ..Options::default()
        };
        TaskSpec {
            id,
            name: names[dice.index(names.len())].clone(),
            queue,
            series: Name::or_empty("").expect("no name is a proper one"),
            options,
            start_at,
            on_key: OnKey::default(),
            payload: Payload {
                content_type: "".into(),
                data: data.into(),
            },
        }
    }

    /// What the handler leaves behind with its result.
    pub(super) fn spawns(&mut self, token: LeaseToken, env: &mut Env) -> Vec<TaskSpec> {
        let Some(run) = self.runs.get_mut(&token) else {
            return Vec::new();
        };
        let Calls {
            made,
            depth,
            ref queue,
            enqueued_at,
            ..
        } = run.calls;
        let Some(queue) = queue.clone() else { return Vec::new() };
        if !env.plan.has(Fault::Spawns) || depth >= MAX_DEPTH || self.dice.chance(600) {
            return Vec::new();
        }
        let last = made + self.dice.int(1..4) as u32;
        let mut spawned = Vec::new();
        for n in made + 1..=last {
            let mut spec = self.called_spec(token.child(n), (queue.clone(), depth + 1, enqueued_at), env);
            // Nobody could read it.
            spec.options.stream = false;
            spawned.push(spec);
        }
        for spec in &spawned {
            env.record(Record::Asked(spec.id));
            env.asked_for(spec);
        }
        let tasks = spawned.iter().map(|spec| spec.id).collect();
        env.record(Record::Spawns { token, tasks });
        spawned
    }

    /// The handler waits no longer for one call.
    pub(super) fn withdraws(&mut self, token: LeaseToken, number: u64, env: &mut Env) {
        let Some(run) = self.caller(token) else { return };
        let Some(open) = run.calls.open.get_mut(&number).filter(|open| !open.withdrawn) else {
            return;
        };
        env.record(Record::Stops(open.spec.id));
        open.withdrawn = true;
        match open.way {
            Way::Unsaid => _ = run.calls.open.remove(&number),
            // Once it is there.
            Way::Uploading => {}
            Way::Said | Way::Enqueued => open.withdrawal_due = true,
        }
        self.drop_reads(token, Some(number), env);
        self.has_been_told(token, env);
    }

    /// The handler goes on, unless it waits for more.
    pub(super) fn has_been_told(&mut self, token: LeaseToken, env: &mut Env) {
        let Some(run) = self.caller(token) else { return };
        if !run.calls.waits_for_any() && !self.is_reading(token) {
            let pause = self.dice.long_tailed(Duration::from_millis(1)..Duration::from_secs(2));
            self.go_on(token, pause, env);
        }
    }

    /// A call is answered. Of acceptance nobody is told.
    pub(super) fn call_answered(&mut self, number: u64, answer: Answer, env: &mut Env) {
        if matches!(answer, Answer::Enqueued(_)) {
            return;
        }
        let Some((token, number)) = self.run_of(number, env) else {
            return;
        };
        let run = self.runs.get_mut(&token);
        let Some(open) = run.and_then(|run| run.calls.open.remove(&number)) else {
            return;
        };
        if let Answer::Finished(end) = &answer {
            env.record(Record::Heard {
                token,
                n: open.n,
                task: end.task,
            });
            env.record(Record::Told(end.task, end_of(end)));
        }
        if !open.withdrawn {
            self.has_been_told(token, env);
        }
    }

    /// Whose a call is.
    fn run_of(&self, number: u64, env: &Env) -> Option<(LeaseToken, u64)> {
        let has = |run: &&Run| run.calls.has(number);
        let (token, run) = self.runs.iter().find(|(_, run)| has(run))?;
        let first = run.calls.open.keys().next().copied();
        let mixed_up = first.filter(|_| env.has_bug(Bug::CallsMixedUp));
        Some((*token, mixed_up.unwrap_or(number)))
    }

    /// A new connection: all that is not answered is to be said again.
    pub(super) fn call_all_again(&mut self, env: &mut Env) {
        for conn in std::mem::take(&mut self.apart).into_keys() {
            env.close(conn, To::Peer);
        }
        if env.has_bug(Bug::CallsForgotten) {
            return;
        }
        for open in self.runs.values_mut().flat_map(|run| run.calls.open.values_mut()) {
            if open.withdrawn && open.way == Way::Said {
                // Whether it arrived or not: it is not wanted any more.
                open.way = Way::Enqueued;
            }
            open.due = true;
            open.withdrawal_due = open.withdrawn && open.way == Way::Enqueued;
        }
    }

    /// What there is to be said of calls.
    pub(super) fn gather_calls(&mut self, env: &mut Env) -> (Vec<Call>, Vec<RunCall>) {
        let (mut withdrawn, mut calls, mut apart) = (Vec::new(), Vec::new(), Vec::new());
        for (&token, run) in self.runs.iter_mut().filter(|(_, run)| run.calls.wait()) {
            for (&number, open) in &mut run.calls.open {
                let call = Call { token, n: open.n };
                let is_due = std::mem::replace(&mut open.due, false);
                match open.way {
                    Way::Unsaid | Way::Uploading if is_due && goes_apart(&open.spec) => {
                        open.way = Way::Uploading;
                        apart.push((number, call, open.spec.clone()));
                    }
                    Way::Unsaid | Way::Said | Way::Enqueued if is_due => {
                        calls.push(RunCall {
                            number,
                            call,
                            spec: (open.way != Way::Enqueued).then(|| open.spec.clone()),
                            again: open.way == Way::Said,
                        });
                        if open.way == Way::Unsaid {
                            open.way = Way::Said;
                        }
                    }
                    _ => {}
                }
                if std::mem::replace(&mut open.withdrawal_due, false) {
                    withdrawn.push(call);
                }
            }
        }
        for (number, call, spec) in apart {
            let conn = env.connect(self.peer(), self.life);
            self.apart.insert(conn, number);
            env.up(conn, Up::CallApart(call, spec));
        }
        (withdrawn, calls)
    }

    /// On the connection of one call.
    pub(super) fn hears_of_call(&mut self, conn: ConnId, number: u64, message: Down, env: &mut Env) {
        let Down::Answer(_, answer, _) = message else { return };
        self.apart.remove(&conn);
        env.close(conn, To::Peer);
        let Answer::Enqueued(_) = answer else {
            return self.call_answered(number, answer, env);
        };
        let mut runs = self.runs.iter_mut();
        let Some((&token, open)) = runs.find_map(|(token, run)| Some((token, run.calls.open.get_mut(&number)?))) else {
            return;
        };
        open.way = Way::Enqueued;
        open.due = true;
        open.withdrawal_due = open.withdrawn;
        let task = open.spec.id;
        env.acknowledged.insert(task);
        env.record(Record::Acknowledged(task, asynq_core::digest(&open.spec)));
        if open.spec.options.stream && !open.withdrawn {
            let spec = open.spec.clone();
            self.read(token, number, spec, env);
        }
    }

    /// The connection of one call is gone: it is said again.
    pub(super) fn call_lost(&mut self, number: u64, env: &mut Env) {
        let pause = self.dice.time(Duration::from_millis(1)..Duration::from_millis(500));
        self.wake_in(pause, Wake::CallAgain(number), env);
    }

    pub(super) fn call_again(&mut self, number: u64) {
        let runs = self.runs.values_mut();
        let open = runs.filter_map(|run| run.calls.open.get_mut(&number)).next();
        if let Some(open) = open.filter(|open| open.way == Way::Uploading) {
            open.due = !self.apart.values().any(|other| *other == number);
        }
    }

    /// A run is over, and its calls with it: the broker cancels what it has called.
    pub(super) fn drop_calls(&mut self, token: LeaseToken, env: &mut Env) {
        self.drop_reads(token, None, env);
        let Some(run) = self.runs.get_mut(&token) else { return };
        for number in std::mem::take(&mut run.calls.open).into_keys() {
            let conns = self.apart.iter().filter(|(_, other)| **other == number);
            let conns: Vec<ConnId> = conns.map(|(conn, _)| *conn).collect();
            for conn in conns {
                self.apart.remove(&conn);
                env.close(conn, To::Peer);
            }
        }
    }
}

/// Whether it goes on a connection of its own.
fn goes_apart(spec: &TaskSpec) -> bool {
    spec.options.stream || spec.payload.data.len() > INLINE_BYTES
}
