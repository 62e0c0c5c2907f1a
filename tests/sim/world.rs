//! The world: it takes the next event and hands it to whom it concerns, until
//! everybody is content or time is up.

use std::time::Duration;

use asynq_core::{Name, State};
use asynq_store::{Store, StoreError};
use asynq_tests::history::{End, History, Record};

use super::broker::Broker;
use super::bug::Bug;
use super::caller::{self, Caller};
use super::dice::{Dice, fingerprint};
use super::disk::Disk;
use super::env::{Env, Event, Who};
use super::message::{Down, Up};
use super::net::{ConnId, Hangup, Peer, To};
use super::plan::Plan;
use super::worker::Worker;

/// How long all that was asked may take once the faults are over.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// A seed that takes more steps than this goes round in circles.
const MAX_STEPS: u64 = 2_000_000;

/// See the module.
pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) broker: Broker,
    pub(crate) workers: Vec<Worker>,
    pub(crate) callers: Vec<Caller>,
    /// What strikes where.
    pub(crate) fate: Dice,
    pub(crate) steps: u64,
}

impl World {
    /// # Errors
    /// If the store cannot be read.
    pub(crate) fn new(plan: Plan, bug: Option<Bug>, store: Box<dyn Store>, traced: bool) -> Result<Self, StoreError> {
        let mut dice = Dice::new(plan.seed);
        let broker = Broker::new(Disk::new(store, bug)?);
        let worker = |index, dice: &mut Dice| Worker::new(index, names(index, dice), dice.fork());
        let workers = (0..plan.workers).map(|index| worker(index, &mut dice)).collect();
        let caller = |index, dice: &mut Dice| Caller::new(index, plan.tasks, dice.fork());
        let callers = (0..plan.callers).map(|index| caller(index, &mut dice)).collect();
        let fate = dice.fork();
        Ok(Self {
            env: Env::new(plan, bug, traced, dice),
            broker,
            workers,
            callers,
            fate,
            steps: 0,
        })
    }

    /// Runs to the end, and puts on record what is there then.
    ///
    /// # Errors
    /// If the store does what it must not.
    pub(crate) fn run(&mut self) -> Result<(), StoreError> {
        let env = &mut self.env;
        let plan = env.plan.to_string();
        env.say(format_args!("{plan}"));
        self.broker.start_in(Duration::from_millis(1), env);
        self.workers
            .iter_mut()
            .for_each(|worker| worker.start_in(Duration::from_millis(2), env));
        self.callers.iter_mut().for_each(|caller| caller.start(env));
        env.schedule(env.plan.trouble, Event::Heal);
        self.begin_trouble();
        let end = self.env.plan.trouble + PATIENCE;
        while let Some(event) = self.env.next() {
            self.steps += 1;
            self.happens(event)?;
            if self.is_over() || self.env.now > end || self.steps > MAX_STEPS {
                break;
            }
        }
        self.take_stock()
    }

    /// Everybody has what they wanted.
    fn is_over(&self) -> bool {
        self.env.healed
            && self.callers.iter().all(Caller::is_done)
            && self.workers.iter().all(Worker::is_idle)
            && self.broker.is_settled()
            && self.broker.live_tasks() == Some(0)
            && self.broker.leaked() == Some(0)
    }

    fn happens(&mut self, event: Event) -> Result<(), StoreError> {
        if let Some(who) = self.concerns(&event)
            && self.env.put_off(who, &event)
        {
            return Ok(());
        }
        self.env.say(format_args!("{event:?}"));
        let env = &mut self.env;
        match event {
            Event::Arrive(id, to) => self.arrives(id, to),
            Event::Lost(id, side) => self.lost(id, side, Hangup::Reset),
            Event::Unanswered(id, side) => {
                if self.is_unanswered(id, side) {
                    self.lost(id, side, Hangup::Silent);
                }
            }
            Event::Broker(life, wake) => return self.broker.wake(life, wake, env),
            Event::Worker(index, life, wake) => self.workers[index].wake(life, wake, env),
            Event::Caller(index, life, wake) => self.callers[index].wake(life, wake, env),
            Event::Strike(fault) => return self.strike(fault),
            Event::Heal => {
                env.heal();
                env.record(Record::Healed);
            }
        }
        Ok(())
    }

    /// The process an event is for, which may stand still.
    fn concerns(&self, event: &Event) -> Option<Who> {
        match event {
            Event::Arrive(id, To::Peer) | Event::Lost(id, To::Peer) | Event::Unanswered(id, To::Peer) => {
                self.env.net.peer(*id).map(|(peer, _)| Who::Peer(peer))
            }
            Event::Arrive(..) | Event::Lost(..) | Event::Unanswered(..) | Event::Broker(..) => Some(Who::Broker),
            Event::Worker(index, ..) => Some(Who::Peer(Peer::Worker(*index))),
            Event::Caller(index, ..) => Some(Who::Peer(Peer::Caller(*index))),
            Event::Strike(_) | Event::Heal => None,
        }
    }

    fn arrives(&mut self, id: ConnId, to: To) {
        let Some((peer, life)) = self.env.net.peer(id) else {
            return;
        };
        if let Some(until) = self.env.net.barred(peer, to, self.env.now) {
            let after = until - self.env.now + self.env.latency();
            return self.env.schedule(after, Event::Arrive(id, to));
        }
        match to {
            To::Broker => match self.env.net.take_up(id) {
                Some(Up::End(clean)) => {
                    if !clean {
                        self.lost(id, To::Broker, Hangup::Reset);
                    } else if self.env.net.is_open(id, To::Broker) {
                        self.broker.lost(id, Hangup::Clean, &mut self.env);
                    }
                }
                Some(message) if self.is_too_late(id, &message) => self.lost(id, To::Broker, Hangup::Reset),
                Some(message) => self.broker.arrives(id, message, &mut self.env),
                None => {}
            },
            To::Peer => {
                for message in self.env.net.take_down(id).into_iter().flatten() {
                    self.hands_over(id, (peer, life), message);
                }
            }
        }
    }

    /// What a caller vouches for must not arrive after it has given the
    /// connection up, and sent the same over another: docs/adr/0003 has the gap.
    fn is_too_late(&mut self, id: ConnId, message: &Up) -> bool {
        let given_up = !self.env.net.is_open(id, To::Peer);
        given_up && message.vouches() && !self.env.has_bug(Bug::LateFirstSend)
    }

    fn hands_over(&mut self, id: ConnId, (peer, life): (Peer, u32), message: Down) {
        if !self.env.net.is_open(id, To::Peer) {
            return;
        }
        if matches!(message, Down::End) {
            return self.lost(id, To::Peer, Hangup::Reset);
        }
        let env = &mut self.env;
        match peer {
            Peer::Worker(index) if self.workers[index].is_life(life) => self.workers[index].arrives(id, message, env),
            Peer::Caller(index) if self.callers[index].is_life(life) => {
                let auto = self.callers[index].is_auto(id);
                if let Down::Items(batch) = &message
                    && auto
                {
                    let (items, bytes) = (batch.lengths.len() as u64, batch.data.len() as u64);
                    self.broker.wrote(id, items, bytes, env);
                }
                self.callers[index].arrives(id, message, env);
            }
            Peer::Worker(_) | Peer::Caller(_) => {}
        }
    }

    /// One side learns that a connection is gone.
    fn lost(&mut self, id: ConnId, side: To, how: Hangup) {
        let Some((peer, life)) = self.env.net.peer(id) else {
            return;
        };
        if !self.env.net.is_open(id, side) {
            return;
        }
        // Whoever gives a connection up closes it: the other side may hear of that.
        self.env.close(id, side);
        let env = &mut self.env;
        match (side, peer) {
            (To::Broker, _) => self.broker.lost(id, how, env),
            (To::Peer, Peer::Worker(index)) if self.workers[index].is_life(life) => self.workers[index].lost(id, env),
            (To::Peer, Peer::Caller(index)) if self.callers[index].is_life(life) => self.callers[index].lost(id, env),
            (To::Peer, _) => {}
        }
    }

    /// Whether a ping over the connection would still go unanswered.
    fn is_unanswered(&self, id: ConnId, side: To) -> bool {
        let Some((peer, _)) = self.env.net.peer(id) else {
            return false;
        };
        let other = match side {
            To::Broker => Who::Peer(peer),
            To::Peer => Who::Broker,
        };
        !self.env.net.passes(peer, self.env.now) || self.env.stalled_until(other).is_some()
    }

    /// The end: what the broker knows, and what is left.
    fn take_stock(&mut self) -> Result<(), StoreError> {
        let mut tasks = self.env.tasks.clone();
        tasks.sort_unstable();
        tasks.dedup();
        for task in tasks {
            let Some((seq, record)) = self.broker.disk.task(task)? else {
                continue;
            };
            let end = match record.state {
                State::Finished(finish) => Some(End {
                    state: finish.outcome.state_name(),
                    value: self.broker.disk.result(seq)?.map(|result| fingerprint(&result.data)),
                }),
                _ => None,
            };
            self.env.record(Record::Found(task, end));
        }
        self.env.record(Record::Left {
            place: "readers who wait",
            count: self.callers.iter().map(|caller| caller.readers() as u64).sum(),
        });
        self.broker.record_leftovers(&mut self.env)
    }

    pub(crate) fn history(&self) -> &History {
        &self.env.history
    }
}

/// What a worker can run: the first can run all there is.
fn names(index: usize, dice: &mut Dice) -> Vec<Name> {
    let mut names = caller::names();
    if index > 0 && dice.chance(300) {
        names.truncate(1);
    }
    names
}
