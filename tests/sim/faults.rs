//! Faults that strike at times: where, and for how long.

use std::time::Duration;

use asynq_store::StoreError;
use asynq_tests::history::Record;

use super::env::{Event, Who};
use super::net::{Peer, To};
use super::plan::Fault;
use super::world::World;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// No unanswered ping is noticed sooner.
const NOTICED: Duration = Duration::from_secs(2);

impl World {
    /// Each kind of fault strikes for the first time somewhen.
    pub(crate) fn begin_trouble(&mut self) {
        let strikes: Vec<Fault> = self.env.plan.faults.iter().copied().filter(|f| f.strikes()).collect();
        for fault in strikes {
            self.strike_again(fault);
        }
    }

    fn strike_again(&mut self, fault: Fault) {
        let pause = self.fate.time(MILLI..2 * self.env.plan.calm);
        self.env.schedule(pause, Event::Strike(fault));
    }

    /// # Errors
    /// If the store does what it must not.
    pub(crate) fn strike(&mut self, fault: Fault) -> Result<(), StoreError> {
        if self.env.healed {
            return Ok(());
        }
        if fault.strikes() {
            self.strike_again(fault);
        }
        let env = &mut self.env;
        match fault {
            Fault::Cut => {
                // Where something is on its way it does most harm.
                let busy = env.net.busy();
                let some = if busy.is_empty() || self.fate.chance(300) {
                    env.net.open_at(To::Peer, None)
                } else {
                    busy
                };
                if !some.is_empty() {
                    env.cut(some[self.fate.index(some.len())]);
                }
            }
            Fault::Partition => {
                let (peer, until) = (self.some_peer(), self.for_a_while());
                self.bar(peer, &[To::Broker, To::Peer], until);
            }
            Fault::OneWay => {
                let (peer, until) = (self.some_peer(), self.for_a_while());
                let way = if self.fate.chance(500) { To::Broker } else { To::Peer };
                self.bar(peer, &[way], until);
            }
            Fault::BrokerCrash | Fault::DoubleCrash => {
                if env.broker_up {
                    env.unstall(Who::Broker);
                    let whole = self.fate.chance(500);
                    self.broker.crash(whole, env)?;
                }
                if fault == Fault::BrokerCrash && self.env.plan.has(Fault::DoubleCrash) {
                    let soon = self.fate.long_tailed(MILLI..5 * SECOND);
                    self.env.schedule(soon, Event::Strike(Fault::DoubleCrash));
                }
            }
            Fault::StoreFailure => self.broker.fail_the_store(),
            Fault::WorkerCrash => {
                let worker = self.fate.index(self.workers.len());
                env.unstall(Who::Peer(Peer::Worker(worker)));
                self.workers[worker].exit(env);
            }
            Fault::Drain => {
                let worker = self.fate.index(self.workers.len());
                self.workers[worker].drain(env);
            }
            Fault::CallerCrash => {
                let caller = self.fate.index(self.callers.len());
                env.unstall(Who::Peer(Peer::Caller(caller)));
                self.callers[caller].exit(env);
            }
            Fault::Pause => self.pause(),
            Fault::ClockJump => {
                const HOUR: i64 = 3_600_000_000;
                // Not so far ahead that what ended is forgotten, or that what was
                // planned then is due only when nobody waits any more.
                let offsets = [0, HOUR / 30, -HOUR, 1_000_000, -1_000_000, -10 * 366 * 24 * HOUR];
                env.wall_offset = offsets[self.fate.index(offsets.len())];
            }
            // States of the world, and habits.
            _ => {}
        }
        Ok(())
    }

    fn some_peer(&mut self) -> Peer {
        let peer = self.fate.index(self.workers.len() + self.callers.len());
        match peer.checked_sub(self.workers.len()) {
            None => self.workers[peer].peer(),
            Some(caller) => self.callers[caller].peer(),
        }
    }

    fn for_a_while(&mut self) -> Duration {
        self.env.now + self.fate.long_tailed(50 * MILLI..60 * SECOND)
    }

    /// Nothing passes; who waits for pings to be answered notices.
    fn bar(&mut self, peer: Peer, ways: &[To], until: Duration) {
        let env = &mut self.env;
        env.say(format_args!("nothing passes to {ways:?} of {peer:?} until {until:?}"));
        for &way in ways {
            env.net.bar(peer, way, until);
        }
        if until - env.now >= NOTICED {
            for side in [To::Broker, To::Peer] {
                let conns = env.net.open_at(side, Some(peer));
                env.stop_answering(&conns, side);
            }
        }
    }

    /// A process stands still.
    fn pause(&mut self) {
        let until = self.for_a_while();
        let who = if self.fate.chance(300) {
            Who::Broker
        } else {
            Who::Peer(self.some_peer())
        };
        let env = &mut self.env;
        env.say(format_args!("{who:?} stands still until {until:?}"));
        env.stall(who, until);
        let (of, side) = match who {
            Who::Broker => (None, To::Peer),
            Who::Peer(peer) => (Some(peer), To::Broker),
        };
        if let Who::Peer(Peer::Worker(worker)) = who
            && let Some(session) = self.workers[worker].session()
        {
            env.record(Record::Stalled(session));
        }
        if until - env.now >= NOTICED {
            let conns = env.net.open_at(side, of);
            env.stop_answering(&conns, side);
        }
    }
}
