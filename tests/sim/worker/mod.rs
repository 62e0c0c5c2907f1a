//! A worker: its session with the broker over any number of connections, its
//! lease, its drain. It does what `worker/src/session` does.

mod calls;
mod ledger;
mod link;
mod reads;
mod runs;
mod stream;
mod time;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use asynq_core::{Declaration, Hello, LeaseToken, Name, OnLoss, Place, SessionId, limits};
use asynq_tests::history::Record;

use super::bug::Bug;
use super::caller::on_loss;
use super::dice::Dice;
use super::env::{Env, Event};
use super::message::Up;
use super::net::{ConnId, Peer, To};
use ledger::{Phase, Run};
use reads::Read;

/// What a worker waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wake {
    /// The process starts.
    Start,
    /// It tries to connect.
    Connect,
    /// No welcome has come over this connection.
    Unwelcome(ConnId),
    /// A heartbeat is due on this connection.
    Beat(ConnId),
    /// The lease may be over.
    Lease,
    /// A handler returns.
    Returns(LeaseToken),
    /// A handler that was told to stop has stopped.
    Stopped(LeaseToken),
    /// A generator yields.
    Yields(LeaseToken),
    /// A generator has waited for credit, of so many items and bytes in all.
    Blocked(LeaseToken, u64, u64),
    /// A handler asks for more time.
    Extends(LeaseToken),
    /// A run that was told to stop has had its time to do so.
    Overdue(LeaseToken),
    /// One that was abandoned comes to its end.
    Returned(LeaseToken),
    /// A handler calls.
    Calls(LeaseToken),
    /// It waits for one call no longer.
    Withdraws(LeaseToken, u64),
    /// A call on a connection of its own is said again.
    CallAgain(u64),
    /// A run is done with items it reads, up to there.
    Taken(ConnId, Place),
    /// It opens a stream again that broke.
    ReadAgain(ConnId),
    /// A transfer is tried again.
    Transfer(LeaseToken),
    /// Another Emit connection, after one broke.
    EmitAgain(LeaseToken),
    /// A drain has lasted long enough: what goes on is given back.
    Release,
    /// Even that has lasted long enough.
    GiveUp,
}

/// The lease, counted from when the last acknowledged heartbeat was sent.
#[derive(Debug)]
struct Lease {
    counts_from: Duration,
    beats: VecDeque<(u64, Duration)>,
    last_beat: u64,
    last_acked: u64,
}

impl Lease {
    fn over_at(&self) -> Duration {
        self.counts_from + (limits::LEASE - limits::LEASE_MARGIN)
    }
}

#[derive(Debug)]
enum Link {
    Down,
    /// Hello was sent, at that time; `fenced`: the lease ran out since.
    Greeting {
        conn: ConnId,
        sent: Duration,
        fenced: bool,
    },
    Up {
        conn: ConnId,
        /// The heartbeat that went with the news of the drain.
        drain_told: Option<u64>,
    },
}

/// See the module.
pub(crate) struct Worker {
    index: usize,
    life: u32,
    dice: Dice,
    up: bool,
    slots: u32,
    names: Vec<Name>,
    session: Option<SessionId>,
    lease: Option<Lease>,
    link: Link,
    tries: u32,
    draining: bool,
    goodbye: bool,
    runs: BTreeMap<LeaseToken, Run>,
    /// Connections apart from the session's, and the runs they are for.
    side: BTreeMap<ConnId, LeaseToken>,
    /// Those of calls, and which they are for.
    apart: BTreeMap<ConnId, u64>,
    /// Streams that runs read.
    reads: BTreeMap<ConnId, Read>,
    /// Runs that were abandoned, and go on.
    ghosts: BTreeSet<LeaseToken>,
    leaked_told: u32,
    /// Calls of all runs so far.
    asked: u64,
}

/// How long a drain waits for runs to finish, and for the rest after that.
const DRAIN: (Duration, Duration) = (Duration::from_secs(9), Duration::from_secs(10));
/// How long a welcome may take, and a goodbye.
const WELCOME: Duration = Duration::from_secs(5);
const GOODBYE: Duration = Duration::from_secs(1);

impl Worker {
    pub(crate) fn new(index: usize, names: Vec<Name>, mut dice: Dice) -> Self {
        Self {
            index,
            life: 0,
            slots: dice.int(1..4) as u32,
            dice,
            up: false,
            names,
            session: None,
            lease: None,
            link: Link::Down,
            tries: 0,
            draining: false,
            goodbye: false,
            runs: BTreeMap::new(),
            side: BTreeMap::new(),
            apart: BTreeMap::new(),
            reads: BTreeMap::new(),
            ghosts: BTreeSet::new(),
            leaked_told: 0,
            asked: 0,
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer::Worker(self.index)
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Nothing is held and nothing is owed, and nobody is on the way out.
    pub(crate) fn is_idle(&self) -> bool {
        self.runs.is_empty()
            && self.ghosts.is_empty()
            && self.up
            && !self.draining
            && matches!(self.link, Link::Up { .. })
    }

    pub(crate) fn is_life(&self, life: u32) -> bool {
        self.life == life
    }

    pub(crate) fn start_in(&mut self, after: Duration, env: &mut Env) {
        self.wake_in(after, Wake::Start, env);
    }

    fn wake_in(&self, after: Duration, wake: Wake, env: &mut Env) {
        env.schedule(after, Event::Worker(self.index, self.life, wake));
    }

    pub(crate) fn wake(&mut self, life: u32, wake: Wake, env: &mut Env) {
        if life != self.life || (!self.up && !matches!(wake, Wake::Start)) {
            return;
        }
        match wake {
            Wake::Start => {
                self.up = true;
                self.connect(env);
            }
            Wake::Connect => self.connect(env),
            Wake::Unwelcome(conn) => {
                if matches!(self.link, Link::Greeting { conn: now, .. } if now == conn) {
                    env.close(conn, To::Peer);
                    self.disconnected(env);
                }
            }
            Wake::Beat(conn) => self.beat(conn, env),
            Wake::Lease => self.look_at_the_lease(env),
            Wake::Returns(token) => self.returns(token, env),
            Wake::Stopped(token) => self.stopped(token, env),
            Wake::Yields(token) => self.yields(token, env),
            Wake::Blocked(token, items, bytes) => self.blocked(token, (items, bytes), env),
            Wake::Extends(token) => self.extends(token, env),
            Wake::Overdue(token) => self.abandon(token, env),
            Wake::Returned(token) => _ = self.ghosts.remove(&token),
            Wake::Calls(token) => self.calls(token, env),
            Wake::Withdraws(token, call) => self.withdraws(token, call, env),
            Wake::CallAgain(call) => self.call_again(call),
            Wake::Taken(conn, upto) => self.taken(conn, upto, env),
            Wake::ReadAgain(conn) => self.read_again(conn, env),
            Wake::Transfer(token) => self.transfer(token, env),
            Wake::EmitAgain(token) => self.emit_again(token, env),
            Wake::Release => self.release_all(env),
            Wake::GiveUp => return self.exit(env),
        }
        self.say(env);
    }

    /// The process is gone, and another takes its place after a while.
    pub(crate) fn exit(&mut self, env: &mut Env) {
        for token in std::mem::take(&mut self.runs).into_iter().filter_map(ledger::going) {
            env.record(Record::Quit(token));
        }
        for conn in env.net.open_at(To::Peer, Some(self.peer())) {
            env.close(conn, To::Peer);
        }
        self.life += 1;
        (self.session, self.lease, self.link) = (None, None, Link::Down);
        (self.up, self.draining, self.goodbye, self.tries) = (false, false, false, 0);
        self.side.clear();
        self.apart.clear();
        self.reads.clear();
        self.ghosts.clear();
        let pause = self.dice.long_tailed(Duration::from_millis(10)..Duration::from_secs(5));
        self.start_in(pause, env);
    }

    /// SIGTERM.
    pub(crate) fn drain(&mut self, env: &mut Env) {
        if !self.up || std::mem::replace(&mut self.draining, true) {
            return;
        }
        self.wake_in(DRAIN.0, Wake::Release, env);
        self.wake_in(DRAIN.1, Wake::GiveUp, env);
        self.release_unstarted();
        self.say(env);
    }

    fn connect(&mut self, env: &mut Env) {
        if self.draining && self.runs.is_empty() {
            return self.exit(env);
        }
        let conn = env.connect(self.peer(), self.life);
        self.link = Link::Greeting {
            conn,
            sent: env.now,
            fenced: false,
        };
        let declare = |name: &Name| Declaration {
            name: name.clone(),
            timeout: None,
            max_attempts: None,
            on_loss: match on_loss(name) {
                OnLoss::Fail if env.has_bug(Bug::ReplayedAnyway) => OnLoss::Replay,
                policy => policy,
            },
        };
        let hello = Hello {
            leaked: self.leaked(),
            session: self.session.unwrap_or(SessionId([0; 16])),
            worker: self.names[0].clone(),
            slots: self.slots,
            tasks: self.names.iter().map(declare).collect(),
            held: self.runs.keys().copied().collect(),
        };
        self.leaked_told = hello.leaked;
        let resume = self.session.is_some();
        let hello = Box::new(hello);
        env.up(conn, Up::Hello { hello, resume });
        self.wake_in(WELCOME, Wake::Unwelcome(conn), env);
    }

    /// There is no connection any more: try again, with jitter.
    fn disconnected(&mut self, env: &mut Env) {
        self.link = Link::Down;
        if self.goodbye {
            return self.exit(env);
        }
        // Transfers go with the connection; streams have their own fate.
        let calls = std::mem::take(&mut self.apart).into_keys();
        for conn in self.transfers().into_iter().chain(calls) {
            self.side.remove(&conn);
            env.close(conn, To::Peer);
        }
        let most = Duration::from_millis(50 << self.tries.min(4)).min(Duration::from_millis(500));
        self.tries += 1;
        let pause = self.dice.time(Duration::from_micros(1)..most);
        self.wake_in(pause, Wake::Connect, env);
    }

    fn welcomed(&mut self, conn: ConnId, session: SessionId, env: &mut Env) {
        let Link::Greeting { sent, fenced, .. } = self.link else {
            return;
        };
        if fenced {
            env.close(conn, To::Peer);
            return self.disconnected(env);
        }
        self.session = Some(session);
        self.lease = Some(Lease {
            counts_from: sent,
            beats: VecDeque::new(),
            last_beat: 0,
            last_acked: 0,
        });
        self.tries = 0;
        self.link = Link::Up { conn, drain_told: None };
        if !env.has_bug(Bug::OutcomesForgotten) {
            self.owe_all_again();
        }
        self.extend_all_again();
        self.call_all_again(env);
        self.redo_transfers(env);
        self.wake_in(limits::HEARTBEAT, Wake::Beat(conn), env);
        self.watch_the_lease(env);
    }

    fn watch_the_lease(&self, env: &mut Env) {
        if let Some(lease) = &self.lease {
            self.wake_in(lease.over_at().saturating_sub(env.now), Wake::Lease, env);
        }
    }

    fn look_at_the_lease(&mut self, env: &mut Env) {
        let Some(lease) = &self.lease else { return };
        if env.now < lease.over_at() || env.has_bug(Bug::NoFence) {
            return;
        }
        // The broker may by now have given our tasks to others.
        for token in std::mem::take(&mut self.runs).into_iter().filter_map(ledger::going) {
            env.record(Record::Quit(token));
        }
        let calls = std::mem::take(&mut self.apart).into_keys();
        let reads = std::mem::take(&mut self.reads).into_keys();
        for conn in std::mem::take(&mut self.side).into_keys().chain(calls).chain(reads) {
            env.close(conn, To::Peer);
        }
        (self.lease, self.session) = (None, None);
        match &mut self.link {
            Link::Up { conn, .. } => {
                let conn = *conn;
                env.close(conn, To::Peer);
                self.disconnected(env);
            }
            Link::Greeting { fenced, .. } => *fenced = true,
            Link::Down => {}
        }
    }

    /// Unfinished runs, and those of them that go on without a slot.
    fn has_slot(&self, env: &Env) -> bool {
        let lends = !env.has_bug(Bug::SlotKept);
        let unfinished = self
            .runs
            .values()
            .filter(|run| !matches!(run.phase, Phase::Over { .. }));
        let (mut going, mut slotless) = (self.leaked(), 0);
        for run in unfinished {
            going += 1;
            slotless += u32::from(run.slotless || (run.calls.wait() && lends));
        }
        going < self.slots + slotless
    }
}
