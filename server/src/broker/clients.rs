//! Which connection of each caller is its latest one. What comes late on one before,
//! out of some buffer on the way, may have been sent again meanwhile, have run and
//! ended: it is not taken.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use foldhash::HashMap;

use super::caller::Caller;
use super::error::End;
use crate::limits::MAX_CLIENTS;

/// Clients that are passed over, because they are there, where one is to be forgotten.
const LOOKED_AT: usize = 64;

/// Sixteen random bytes by which a client names itself, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientId(pub(crate) [u8; 16]);

/// The latest connections, also of clients that have gone: what they have left behind
/// may still be on its way.
#[derive(Debug, Default)]
pub(super) struct Clients {
    latest: HashMap<ClientId, Latest>,
    /// In the order they came.
    order: VecDeque<ClientId>,
}

#[derive(Debug)]
struct Latest {
    connection: u64,
    caller: Weak<Caller>,
}

impl Clients {
    /// A client says hello, on its `connection`-th connection. All its other ones are
    /// over, or this one is if it is not the latest.
    pub(super) fn hello(&mut self, client: ClientId, connection: u64, caller: &Arc<Caller>) {
        let latest = Latest {
            connection,
            caller: Arc::downgrade(caller),
        };
        let before = match self.latest.get_mut(&client) {
            Some(known) if known.connection >= connection => return caller.outbox().end(End::Superseded),
            Some(known) => std::mem::replace(known, latest),
            None => return self.insert(client, latest),
        };
        if let Some(before) = before.caller.upgrade() {
            before.outbox().end(End::Superseded);
        }
    }

    /// The oldest of those that have gone; if none of some has, the oldest of all.
    fn forget_one(&mut self) {
        let is_there = |latest: &Latest| latest.caller.upgrade().is_some_and(|caller| !caller.outbox().is_over());
        for _ in 0..LOOKED_AT {
            let Some(oldest) = self.order.front() else { return };
            if !self.latest.get(oldest).is_some_and(is_there) {
                break;
            }
            self.order.rotate_left(1);
        }
        if let Some(forgotten) = self.order.pop_front() {
            self.latest.remove(&forgotten);
        }
    }

    fn insert(&mut self, client: ClientId, latest: Latest) {
        if self.order.len() >= MAX_CLIENTS {
            self.forget_one();
        }
        self.order.push_back(client);
        self.latest.insert(client, latest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: usize) -> ClientId {
        ClientId((n as u128).to_be_bytes())
    }

    #[test]
    fn only_the_latest_connection_of_a_client_goes_on() {
        let mut clients = Clients::default();
        let callers: Vec<_> = (0..4).map(|_| Caller::session()).collect();
        for (connection, caller) in [(1, 0), (3, 1), (2, 2), (3, 3)] {
            clients.hello(client(1), connection, &callers[caller]);
        }
        let over = callers.iter().map(|caller| caller.outbox().is_over());
        assert_eq!(over.collect::<Vec<_>>(), [true, false, true, true]);
    }

    #[test]
    fn so_many_are_remembered_and_the_oldest_that_have_gone_forgotten_first() {
        let mut clients = Clients::default();
        let here = Caller::session();
        clients.hello(client(0), 2, &here);
        for n in 1..MAX_CLIENTS + 10 {
            clients.hello(client(n), 2, &Caller::session());
        }
        assert_eq!((clients.latest.len(), clients.order.len()), (MAX_CLIENTS, MAX_CLIENTS));
        let late = |clients: &mut Clients, n| {
            let caller = Caller::session();
            clients.hello(client(n), 1, &caller);
            caller.outbox().is_over()
        };
        assert!(late(&mut clients, MAX_CLIENTS + 9) && late(&mut clients, 11) && late(&mut clients, 0));
        assert!(!late(&mut clients, 10));
    }
}
