//! What every part of the world shares: time, the events to come, the network,
//! what is on record.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::time::Duration;

use asynq_core::{TaskId, TaskSpec, Timestamp};
use asynq_tests::history::{History, Record};

use super::bug::Bug;
use super::dice::Dice;
use super::message::{Down, Up};
use super::net::{ConnId, Net, Peer, To};
use super::plan::{Fault, Plan};
use super::{broker, caller, worker};

/// Something that will happen.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A message arrives.
    Arrive(ConnId, To),
    /// A side learns that its connection is gone.
    Lost(ConnId, To),
    /// A side's ping has gone unanswered for as long as it waits, unless the
    /// peer can answer again.
    Unanswered(ConnId, To),
    /// For the broker's process of that life.
    Broker(u32, broker::Wake),
    /// For a worker's.
    Worker(usize, u32, worker::Wake),
    /// For a caller's.
    Caller(usize, u32, caller::Wake),
    /// A fault strikes.
    Strike(Fault),
    /// All faults are over.
    Heal,
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Broker,
    Peer(Peer),
}

#[derive(Debug)]
struct Due {
    at: Duration,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A log of all that happens, if one is wanted.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) on: bool,
    pub(crate) text: String,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Env {
    /// Since the beginning.
    pub(crate) now: Duration,
    pub(crate) plan: Plan,
    pub(crate) bug: Option<Bug>,
    pub(crate) net: Net,
    pub(crate) history: History,
    pub(crate) trace: Trace,
    /// Faults that are states of the world are over.
    pub(crate) healed: bool,
    pub(crate) broker_up: bool,
    /// How far the wall clock has been set, in microseconds.
    pub(crate) wall_offset: i64,
    pub(crate) dice: Dice,
    /// Every task anybody has asked for.
    pub(crate) tasks: Vec<TaskId>,
    /// Those somebody was told are accepted.
    pub(crate) acknowledged: BTreeSet<TaskId>,
    stalled: BTreeMap<Who, Duration>,
    /// Since when the broker stands still, or stood.
    broker_stood: Option<Duration>,
    due: BinaryHeap<Reverse<Due>>,
    scheduled: u64,
}

/// What the wall clock reads at the beginning.
const WALL_AT_START: u64 = 1_800_000_000_000_000;

const MICRO: Duration = Duration::from_micros(1);
const SECOND: Duration = Duration::from_secs(1);

impl Env {
    pub(crate) fn new(plan: Plan, bug: Option<Bug>, traced: bool, dice: Dice) -> Self {
        Self {
            now: Duration::ZERO,
            plan,
            bug,
            net: Net::default(),
            history: History::default(),
            trace: Trace {
                on: traced,
                text: String::new(),
            },
            healed: false,
            broker_up: false,
            wall_offset: 0,
            dice,
            tasks: Vec::new(),
            acknowledged: BTreeSet::new(),
            stalled: BTreeMap::new(),
            broker_stood: None,
            due: BinaryHeap::new(),
            scheduled: 0,
        }
    }

    pub(crate) fn has_bug(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether a fault that is a state of the world is at work.
    pub(crate) fn has_fault(&self, fault: Fault) -> bool {
        !self.healed && self.plan.has(fault)
    }

    pub(crate) fn say(&mut self, what: fmt::Arguments<'_>) {
        use fmt::Write;
        if self.trace.on {
            // Writing to a string does not fail.
            let _ = writeln!(self.trace.text, "{:>12.6} {what}", self.now.as_secs_f64());
        }
    }

    /// Somebody asks for a task.
    pub(crate) fn asked_for(&mut self, spec: &TaskSpec) {
        self.tasks.push(spec.id);
        if spec.options.at_most_once {
            self.record(Record::Once(spec.id));
        }
    }

    pub(crate) fn record(&mut self, what: Record) {
        self.say(format_args!("* {what:?}"));
        self.history.push(self.now, what);
    }

    /// What the wall clock reads.
    pub(crate) fn wall(&self) -> Timestamp {
        let since_start = self.now.as_micros() as u64;
        Timestamp::from_micros((WALL_AT_START + since_start).saturating_add_signed(self.wall_offset))
    }

    pub(crate) fn schedule(&mut self, after: Duration, event: Event) {
        self.schedule_at(self.now + after, event);
    }

    fn schedule_at(&mut self, at: Duration, event: Event) {
        self.scheduled += 1;
        self.due.push(Reverse(Due {
            at,
            order: self.scheduled,
            event,
        }));
    }

    /// The next event, at whose time it is then.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse(due) = self.due.pop()?;
        self.now = due.at;
        Some(due.event)
    }

    /// A process stands still until then.
    pub(crate) fn stall(&mut self, who: Who, until: Duration) {
        if who == Who::Broker {
            self.broker_stood.get_or_insert(self.now);
        }
        let stalled = self.stalled.entry(who).or_default();
        *stalled = until.max(*stalled);
    }

    /// A process that stood still is gone.
    pub(crate) fn unstall(&mut self, who: Who) {
        self.stalled.remove(&who);
        if who == Who::Broker {
            self.broker_stood = None;
        }
    }

    /// How long the broker, which goes on, has stood still since it was asked last.
    pub(crate) fn take_gap(&mut self) -> Option<Duration> {
        self.broker_stood.take().map(|since| self.now - since)
    }

    /// Whether a process stands still; then the event happens when it goes on.
    pub(crate) fn put_off(&mut self, who: Who, event: &Event) -> bool {
        let Some(until) = self.stalled_until(who) else {
            return false;
        };
        self.schedule_at(until, event.clone());
        true
    }

    pub(crate) fn stalled_until(&self, who: Who) -> Option<Duration> {
        self.stalled.get(&who).copied().filter(|&until| until > self.now)
    }

    /// Nobody stands still any more, and nothing is barred.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.stalled.clear();
        self.net.heal();
    }

    /// How long a message takes.
    pub(crate) fn latency(&mut self) -> Duration {
        if self.has_fault(Fault::Delay) && self.dice.chance(60) {
            return self.dice.long_tailed(Duration::from_millis(1)..2 * SECOND);
        }
        self.dice.time(Duration::from_micros(30)..Duration::from_micros(2_000))
    }

    /// Opens a connection to the broker; whether there is one shows later.
    pub(crate) fn connect(&mut self, peer: Peer, life: u32) -> ConnId {
        let id = self.net.open(peer, life);
        if !self.broker_up || self.net.barred(peer, To::Broker, self.now).is_some() {
            self.net.shut(id, To::Broker);
            let refused = if self.broker_up { SECOND } else { self.latency() };
            self.schedule(refused, Event::Lost(id, To::Peer));
        }
        id
    }

    pub(crate) fn up(&mut self, id: ConnId, message: Up) {
        self.say(format_args!("{id:?} up: {message:?}"));
        let at = self.now + self.latency();
        if let Some(at) = self.net.send_up(id, message, at) {
            self.schedule_at(at, Event::Arrive(id, To::Broker));
        }
    }

    pub(crate) fn down(&mut self, id: ConnId, messages: Vec<Down>) {
        self.say(format_args!("{id:?} down: {messages:?}"));
        let at = self.now + self.latency();
        if let Some(at) = self.net.send_down(id, messages, at) {
            self.schedule_at(at, Event::Arrive(id, To::Peer));
        }
    }

    /// One side closes the connection; the other learns of it after all that was
    /// sent before.
    pub(crate) fn close(&mut self, id: ConnId, side: To) {
        if self.net.shut(id, side) {
            match side {
                To::Broker => self.down(id, vec![Down::End]),
                To::Peer => self.up(id, Up::End(false)),
            }
        }
    }

    /// The connection breaks: both sides learn of it soon, and what has not
    /// arrived by then is lost.
    pub(crate) fn cut(&mut self, id: ConnId) {
        for side in [To::Broker, To::Peer] {
            let soon = self.dice.long_tailed(MICRO..SECOND);
            self.schedule(soon, Event::Lost(id, side));
        }
    }

    /// Pings over these connections are not answered; who waits for that on
    /// `side` gives up in two to three seconds.
    pub(crate) fn stop_answering(&mut self, conns: &[ConnId], side: To) {
        for &id in conns {
            let patience = self.dice.time(2 * SECOND..3 * SECOND);
            self.schedule(patience, Event::Unanswered(id, side));
        }
    }
}
