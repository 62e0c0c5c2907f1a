//! A caller: what it has asked and not been told, over any number of
//! connections. It does what `client/src/session` does: what is unanswered when a
//! connection is lost is sent again on the next, and given up after a while
//! without a broker.

mod reader;
mod wants;

use std::collections::BTreeMap;
use std::time::Duration;

use asynq_core::{Refusal, TaskId, TaskSpec, Timestamp};
use asynq_tests::history::{Asker, End, Keyed, Record};

use super::broker::end_of;
use super::bug::Bug;
use super::dice::Dice;
use super::env::{Env, Event};
use super::message::{Answer, Ask, Down, Op, Refused, Up};
use super::net::{ConnId, Peer, To};
use reader::{Bookmark, Reader};
pub(crate) use wants::{Later, TOP, names, on_loss};

/// What a caller waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wake {
    /// The process starts, or tries to connect again.
    Connect,
    /// No welcome has come over this connection.
    Unwelcome(ConnId),
    /// It wants something new.
    Want,
    /// It follows something up.
    Later(Later),
    /// Its patience with a call may be over.
    Patience(u64),
    /// A reader takes an item.
    Take(ConnId),
    /// Opens a stream again that broke.
    Reopen(ConnId),
    /// Goes on with streams that the process before it read.
    TakeUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Never,
    /// On a connection that was lost.
    Before,
    /// On this one.
    Now,
}

#[derive(Debug)]
struct Call {
    op: Op,
    sent: Sent,
    /// Since when there has been no broker that would answer it.
    dark_since: Option<Duration>,
    /// The task had been acknowledged to somebody when this was asked.
    acknowledged: bool,
    /// The fingerprint of what is asked for, if it is a task.
    words: u64,
    /// Under which key, if under one.
    keyed: Option<Keyed>,
    /// Nobody wants the answer any more.
    withdrawn: bool,
}

#[derive(Debug, Clone, Copy)]
enum Link {
    Down,
    Greeting(ConnId),
    Up(ConnId),
}

/// See the module.
pub(crate) struct Caller {
    index: usize,
    life: u32,
    dice: Dice,
    link: Link,
    tries: u32,
    calls: BTreeMap<u64, Call>,
    asked: u64,
    /// The broker's clock, as the last welcome told it, and when.
    clock: Option<(Timestamp, Duration)>,
    readers: BTreeMap<ConnId, Reader>,
    /// What outlives the process of the streams it read.
    bookmarks: Vec<Bookmark>,
    /// What it has asked for, to ask again.
    specs: Vec<TaskSpec>,
    wants: usize,
    /// Follow-ups to come.
    later: u32,
}

/// How long an operation goes without a broker, and how long a welcome may take.
const PATIENCE: Duration = Duration::from_secs(60);
const WELCOME: Duration = Duration::from_secs(2);

impl Caller {
    pub(crate) fn new(index: usize, wants: usize, dice: Dice) -> Self {
        Self {
            index,
            life: 0,
            dice,
            link: Link::Down,
            tries: 0,
            calls: BTreeMap::new(),
            asked: 0,
            clock: None,
            readers: BTreeMap::new(),
            bookmarks: Vec::new(),
            specs: Vec::new(),
            wants,
            later: 0,
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer::Caller(self.index)
    }

    fn asker(&self) -> Asker {
        Asker(1 << 32 | self.index as u64)
    }

    pub(crate) fn is_life(&self, life: u32) -> bool {
        self.life == life
    }

    /// It wants nothing more and waits for nothing.
    pub(crate) fn is_done(&self) -> bool {
        self.wants == 0
            && self.later == 0
            && self.calls.is_empty()
            && self.readers.is_empty()
            && self.bookmarks.is_empty()
    }

    /// Streams it reads.
    pub(crate) fn readers(&self) -> usize {
        self.readers.len()
    }

    /// The broker acknowledges items for that reader.
    pub(crate) fn is_auto(&self, conn: ConnId) -> bool {
        self.readers.get(&conn).is_some_and(Reader::is_auto)
    }

    pub(crate) fn start(&mut self, env: &mut Env) {
        self.wake_in(Duration::ZERO, Wake::Connect, env);
        self.want_soon(env);
    }

    fn wake_in(&self, after: Duration, wake: Wake, env: &mut Env) {
        env.schedule(after, Event::Caller(self.index, self.life, wake));
    }

    pub(crate) fn wake(&mut self, life: u32, wake: Wake, env: &mut Env) {
        if life != self.life {
            return;
        }
        match wake {
            Wake::Connect => self.connect(env),
            Wake::Unwelcome(conn) => {
                if matches!(self.link, Link::Greeting(now) if now == conn) {
                    env.close(conn, To::Peer);
                    self.disconnected(env);
                }
            }
            Wake::Want => self.want(env),
            Wake::Later(later) => self.follow_up(later, env),
            Wake::Patience(call) => self.lose_patience(call, env),
            Wake::Take(conn) => self.take(conn, env),
            Wake::Reopen(conn) => self.reopen(conn, env),
            Wake::TakeUp => self.take_up(env),
        }
    }

    /// The process is gone, with all it wanted to know; another takes its place.
    pub(crate) fn exit(&mut self, env: &mut Env) {
        for conn in env.net.open_at(To::Peer, Some(self.peer())) {
            env.close(conn, To::Peer);
        }
        env.record(Record::Gone(self.asker()));
        self.life += 1;
        (self.link, self.tries, self.later) = (Link::Down, 0, 0);
        self.calls.clear();
        self.leave_bookmarks(env);
        let pause = self.dice.long_tailed(Duration::from_millis(10)..Duration::from_secs(5));
        self.wake_in(pause, Wake::Connect, env);
        self.want_soon(env);
    }

    fn connect(&mut self, env: &mut Env) {
        let conn = env.connect(self.peer(), self.life);
        self.link = Link::Greeting(conn);
        env.up(conn, Up::Greet);
        self.wake_in(WELCOME, Wake::Unwelcome(conn), env);
    }

    fn disconnected(&mut self, env: &mut Env) {
        self.link = Link::Down;
        self.calls.retain(|_, call| !call.withdrawn);
        let mut dark = Vec::new();
        for (&number, call) in &mut self.calls {
            if call.sent == Sent::Now {
                call.sent = Sent::Before;
            }
            if call.dark_since.is_none() {
                call.dark_since = Some(env.now);
                dark.push(number);
            }
        }
        for number in dark {
            self.wake_in(PATIENCE, Wake::Patience(number), env);
        }
        let most = Duration::from_millis(50 << self.tries.min(4)).min(Duration::from_millis(500));
        self.tries += 1;
        let pause = self.dice.time(Duration::from_micros(1)..most);
        self.wake_in(pause, Wake::Connect, env);
    }

    /// A connection is gone.
    pub(crate) fn lost(&mut self, conn: ConnId, env: &mut Env) {
        if self.readers.contains_key(&conn) {
            return self.broken(conn, env);
        }
        match self.link {
            Link::Greeting(now) | Link::Up(now) if now == conn => self.disconnected(env),
            _ => {}
        }
    }

    /// A message arrives.
    pub(crate) fn arrives(&mut self, conn: ConnId, message: Down, env: &mut Env) {
        if self.readers.contains_key(&conn) {
            return self.reads(conn, message, env);
        }
        match (self.link, message) {
            (Link::Greeting(now), Down::Welcome(clock)) if now == conn => {
                self.clock = Some((clock, env.now));
                self.tries = 0;
                self.link = Link::Up(conn);
                self.send_all_again(conn, env);
            }
            (Link::Up(now), Down::Answer(call, answer, last)) if now == conn => {
                self.answered(call, answer, last, env);
            }
            _ => {}
        }
    }

    fn send_all_again(&mut self, conn: ConnId, env: &mut Env) {
        for call in self.calls.values_mut() {
            if matches!(call.op, Op::Wait(_)) {
                call.dark_since = None;
            }
        }
        let mut asks: Vec<Ask> = self.readers.values().filter_map(Reader::latest_flow).collect();
        let calls: Vec<u64> = self.calls.keys().copied().collect();
        asks.extend(calls.into_iter().filter_map(|call| self.next_send(call, env)));
        if !asks.is_empty() {
            env.up(conn, Up::Asks(asks));
        }
    }

    /// An operation as it goes on the wire now.
    fn next_send(&mut self, number: u64, env: &Env) -> Option<Ask> {
        let call = self.calls.get_mut(&number)?;
        let first = call.sent == Sent::Never || env.has_bug(Bug::AlwaysFirstSend);
        call.sent = Sent::Now;
        let mut op = call.op.clone();
        if let Op::Enqueue { first_send, .. } = &mut op {
            *first_send &= first;
        }
        Some(Ask { call: number, op })
    }

    /// Has an operation answered; gives its number.
    fn ask(&mut self, op: Op, env: &mut Env) -> u64 {
        self.asked += 1;
        let number = self.asked;
        let (mut words, mut keyed) = (0, None);
        if let Op::Enqueue { spec, .. } = &op {
            env.record(Record::Asked(spec.id));
            words = asynq_core::digest(spec);
            keyed = spec.options.key.clone().map(|key| Keyed {
                task: spec.id,
                key,
                mode: spec.on_key,
                words,
                since: env.now,
            });
            if let Some(keyed) = &keyed {
                env.record(Record::AsksKey(keyed.clone()));
            }
        }
        env.record(Record::Question(self.asker(), number));
        let acknowledged = op.task().is_some_and(|task| env.acknowledged.contains(&task));
        let call = Call {
            op,
            sent: Sent::Never,
            dark_since: None,
            acknowledged,
            words,
            keyed,
            withdrawn: false,
        };
        self.calls.insert(number, call);
        if let Link::Up(conn) = self.link {
            let ask = self.next_send(number, env);
            env.up(conn, Up::Asks(ask.into_iter().collect()));
        } else if let Some(call) = self.calls.get_mut(&number) {
            call.dark_since = Some(env.now);
            self.wake_in(PATIENCE, Wake::Patience(number), env);
        }
        number
    }

    fn answered(&mut self, number: u64, answer: Answer, last: bool, env: &mut Env) {
        let Some(call) = self.calls.get_mut(&number).filter(|call| call.sent == Sent::Now) else {
            return;
        };
        let (acknowledged, words) = (call.acknowledged, call.words);
        match answer {
            Answer::Enqueued(task) => {
                env.acknowledged.insert(task);
                match &call.keyed {
                    // Another task has the key.
                    Some(keyed) if keyed.task != task => {
                        env.record(Record::KeyAnswered(keyed.clone(), task, None));
                    }
                    _ => env.record(Record::Acknowledged(task, words)),
                }
                if !last {
                    // Should the connection be lost, only the wait is left to send.
                    call.op = Op::Wait(task);
                    call.dark_since = None;
                    return;
                }
                self.wait_later(task, env);
            }
            Answer::Finished(end) => {
                env.record(Record::Told(end.task, end_of(&end)));
                self.operate_later(&end, env);
            }
            Answer::Purged(task) => self.enqueue_again(Some(task), env),
            Answer::Retried(task) => self.wait_later(task, env),
            Answer::Refused(Refused::ByCore(Refusal::KeyTaken(taken))) => {
                if let Some(keyed) = call.keyed.clone() {
                    env.record(Record::KeyAnswered(keyed, taken.task, Some(taken.same)));
                }
            }
            Answer::Refused(Refused::ByCore(Refusal::NotFound(task))) if acknowledged => {
                env.record(Record::Missing(task));
            }
            Answer::Cancelled(task, state) if state.is_terminal() => {
                env.record(Record::Told(task, End { state, value: None }));
            }
            Answer::Cancelled(task, _) => env.record(Record::Cancelling(task)),
            Answer::Shown | Answer::Reading(..) | Answer::Refused(_) => {}
        }
        self.resolve(number, env);
    }

    fn resolve(&mut self, number: u64, env: &mut Env) {
        if self.calls.remove(&number).is_some_and(|call| !call.withdrawn) {
            env.record(Record::Answer(self.asker(), number, true));
        }
    }

    fn lose_patience(&mut self, number: u64, env: &mut Env) {
        let dark_since = self.calls.get(&number).and_then(|call| call.dark_since);
        if dark_since.is_some_and(|since| since + PATIENCE <= env.now) {
            self.resolve(number, env);
        }
    }

    /// Nobody waits for the answer any more.
    fn withdraw(&mut self, number: u64, env: &mut Env) {
        let Some(call) = self.calls.get_mut(&number).filter(|call| !call.withdrawn) else {
            return;
        };
        env.record(Record::Withdrawn(Asker(1 << 32 | self.index as u64), number));
        let waits = matches!(call.op, Op::Wait(_) | Op::Enqueue { wait: true, .. });
        match (call.sent, self.link) {
            (Sent::Now, Link::Up(conn)) if waits => {
                self.calls.remove(&number);
                let op = Op::Forget(number);
                env.up(conn, Up::Asks(vec![Ask { call: number, op }]));
            }
            (Sent::Now, _) => call.withdrawn = true,
            _ => _ = self.calls.remove(&number),
        }
    }

    /// What the broker's clock reads, as far as is known.
    fn broker_now(&self, env: &Env) -> Option<Timestamp> {
        self.clock.map(|(told, at)| told + (env.now - at))
    }

    fn some_task(&mut self, env: &Env) -> Option<TaskId> {
        let tasks = &env.tasks;
        (!tasks.is_empty()).then(|| tasks[self.dice.index(tasks.len())])
    }
}
