//! The network: connections that keep the order of what travels on them, as TCP
//! does, and otherwise do what networks do.
//!
//! A message is delayed, never reordered within its connection; between
//! connections anything goes. A connection that is cut loses a suffix of what was
//! under way in each direction, and each side learns of it in its own time.
//! During a partition messages wait, and both sides' pings go unanswered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::message::{Down, Up};

/// Names a connection; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId(pub(crate) u64);

/// A process other than the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Worker(usize),
    Caller(usize),
}

/// A direction, named by who receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    Broker,
    Peer,
}

/// How one side learns that a connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// The other side closed it.
    Clean,
    /// It broke.
    Reset,
    /// Pings went unanswered.
    Silent,
}

#[derive(Debug)]
struct Lane<M> {
    queue: VecDeque<M>,
    /// When the last message arrives.
    last: Duration,
    /// The receiving side still listens.
    open: bool,
}

impl<M> Default for Lane<M> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            last: Duration::ZERO,
            open: true,
        }
    }
}

#[derive(Debug)]
struct Conn {
    peer: Peer,
    /// Which life of the peer opened it.
    life: u32,
    up: Lane<Up>,
    down: Lane<Vec<Down>>,
}

impl Conn {
    fn open(&mut self, to: To) -> &mut bool {
        match to {
            To::Broker => &mut self.up.open,
            To::Peer => &mut self.down.open,
        }
    }
}

/// How long nothing passes, each way.
#[derive(Debug, Default, Clone, Copy)]
struct Barrier {
    to_broker: Duration,
    to_peer: Duration,
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Net {
    conns: BTreeMap<ConnId, Conn>,
    barriers: BTreeMap<Peer, Barrier>,
    opened: u64,
}

impl Net {
    pub(crate) fn open(&mut self, peer: Peer, life: u32) -> ConnId {
        self.opened += 1;
        let id = ConnId(self.opened);
        let conn = Conn {
            peer,
            life,
            up: Lane::default(),
            down: Lane::default(),
        };
        self.conns.insert(id, conn);
        id
    }

    /// Puts a message on its way; says when it arrives.
    pub(crate) fn send_up(&mut self, id: ConnId, message: Up, at: Duration) -> Option<Duration> {
        let lane = &mut self.conns.get_mut(&id)?.up;
        lane.open.then(|| lane.put(message, at))
    }

    /// The same the other way.
    pub(crate) fn send_down(&mut self, id: ConnId, messages: Vec<Down>, at: Duration) -> Option<Duration> {
        let lane = &mut self.conns.get_mut(&id)?.down;
        lane.open.then(|| lane.put(messages, at))
    }

    pub(crate) fn take_up(&mut self, id: ConnId) -> Option<Up> {
        self.conns.get_mut(&id)?.up.queue.pop_front()
    }

    pub(crate) fn take_down(&mut self, id: ConnId) -> Option<Vec<Down>> {
        self.conns.get_mut(&id)?.down.queue.pop_front()
    }

    /// A side listens no more. Says whether it did.
    pub(crate) fn shut(&mut self, id: ConnId, side: To) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else {
            return false;
        };
        let was_open = std::mem::replace(conn.open(side), false);
        match side {
            To::Broker => conn.up.queue.clear(),
            To::Peer => conn.down.queue.clear(),
        }
        if !conn.up.open && !conn.down.open {
            self.conns.remove(&id);
        }
        was_open
    }

    pub(crate) fn is_open(&mut self, id: ConnId, side: To) -> bool {
        self.conns.get_mut(&id).is_some_and(|conn| *conn.open(side))
    }

    pub(crate) fn peer(&self, id: ConnId) -> Option<(Peer, u32)> {
        self.conns.get(&id).map(|conn| (conn.peer, conn.life))
    }

    /// Connections of which that side is open, in order.
    pub(crate) fn open_at(&mut self, side: To, of: Option<Peer>) -> Vec<ConnId> {
        let conns = self.conns.iter_mut();
        conns
            .filter(|(_, conn)| of.is_none_or(|peer| conn.peer == peer))
            .filter_map(|(id, conn)| conn.open(side).then_some(*id))
            .collect()
    }

    /// Connections with messages on their way, in order.
    pub(crate) fn busy(&self) -> Vec<ConnId> {
        let is_busy = |conn: &Conn| !conn.up.queue.is_empty() || !conn.down.queue.is_empty();
        let conns = self.conns.iter();
        conns.filter_map(|(id, conn)| is_busy(conn).then_some(*id)).collect()
    }

    /// Nothing passes between the broker and the peer, one way, until then.
    pub(crate) fn bar(&mut self, peer: Peer, to: To, until: Duration) {
        let barrier = self.barriers.entry(peer).or_default();
        let way = match to {
            To::Broker => &mut barrier.to_broker,
            To::Peer => &mut barrier.to_peer,
        };
        *way = until.max(*way);
    }

    /// Until when nothing passes, if so.
    pub(crate) fn barred(&self, peer: Peer, to: To, now: Duration) -> Option<Duration> {
        let barrier = self.barriers.get(&peer)?;
        let until = match to {
            To::Broker => barrier.to_broker,
            To::Peer => barrier.to_peer,
        };
        (until > now).then_some(until)
    }

    /// Whether a ping there and back would be answered.
    pub(crate) fn passes(&self, peer: Peer, now: Duration) -> bool {
        self.barred(peer, To::Broker, now).is_none() && self.barred(peer, To::Peer, now).is_none()
    }

    /// All barriers fall.
    pub(crate) fn heal(&mut self) {
        self.barriers.clear();
    }
}

impl<M> Lane<M> {
    fn put(&mut self, message: M, at: Duration) -> Duration {
        self.queue.push_back(message);
        self.last = self.last.max(at);
        self.last
    }
}
