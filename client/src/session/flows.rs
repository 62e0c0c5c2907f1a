//! Credit on its way to the broker: of each stream the latest word, once.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use asynq_proto::v1::{Credit, FlowRequest, Operation, operation::Op};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::TaskId;

/// Names a reader to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConsumerId([u8; 16]);

impl ConsumerId {
    pub(crate) fn random() -> Self {
        Self(fastrand::u128(..).to_be_bytes())
    }

    pub(crate) fn to_wire(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

/// The latest credit of each open stream. A lost session may have lost it on
/// the way, so it is kept and told to the next one again: totals do no harm twice.
#[derive(Default)]
pub(super) struct Flows {
    inner: Mutex<Inner>,
    some: Notify,
}

#[derive(Default)]
struct Inner {
    streams: HashMap<ConsumerId, Stream>,
    /// To be told, in this order. May name streams that are gone.
    due: VecDeque<ConsumerId>,
}

struct Stream {
    task: TaskId,
    /// Which opening it is for.
    open_seq: u64,
    credit: Credit,
    due: bool,
}

impl Flows {
    pub(super) fn set(&self, task: TaskId, consumer: ConsumerId, open_seq: u64, credit: Credit) {
        let mut inner = self.lock();
        let stream = inner.streams.entry(consumer).or_insert(Stream {
            task,
            open_seq,
            credit,
            due: false,
        });
        (stream.open_seq, stream.credit) = (open_seq, credit);
        if !std::mem::replace(&mut stream.due, true) {
            inner.due.push_back(consumer);
            self.some.notify_one();
        }
    }

    /// The stream has ended, or is to be opened again.
    pub(super) fn remove(&self, consumer: ConsumerId) {
        let mut inner = self.lock();
        if inner.streams.remove(&consumer).is_some_and(|stream| stream.due) {
            inner.due.retain(|due| *due != consumer);
        }
    }

    /// A new session: all is to be told again.
    pub(super) fn resend(&self) {
        let mut inner = self.lock();
        let Inner { streams, due } = &mut *inner;
        due.clear();
        for (consumer, stream) in streams {
            stream.due = true;
            due.push_back(*consumer);
        }
    }

    pub(super) fn any(&self) -> bool {
        !self.lock().due.is_empty()
    }

    /// Waits until there may be some.
    pub(super) async fn some(&self) {
        self.some.notified().await;
    }

    /// Takes up to `most`.
    pub(super) fn take(&self, most: usize) -> Vec<Operation> {
        let mut inner = self.lock();
        let Inner { streams, due } = &mut *inner;
        let most = most.min(due.len());
        let flows = due.drain(..most).filter_map(|consumer| {
            let stream = streams.get_mut(&consumer)?;
            stream.due = false;
            Some(FlowRequest {
                id: stream.task.to_wire(),
                consumer_id: consumer.to_wire(),
                credit: Some(stream.credit),
                open_seq: stream.open_seq,
            })
        });
        // Unanswered, so the call number means nothing.
        flows
            .map(|flow| Operation {
                call: 0,
                op: Some(Op::Flow(flow)),
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1";

    fn credit(limit_index: u64) -> Credit {
        Credit {
            limit_index,
            ..Credit::default()
        }
    }

    fn taken(flows: &Flows, most: usize) -> Vec<u64> {
        let limit = |operation: Operation| match operation.op {
            Some(Op::Flow(flow)) => flow.credit.map(|credit| credit.limit_index),
            _ => None,
        };
        flows.take(most).into_iter().filter_map(limit).collect()
    }

    #[test]
    fn only_the_latest_word_of_each_stream_is_told() {
        let (flows, task) = (Flows::default(), TASK.parse().unwrap());
        let [a, b] = [ConsumerId([1; 16]), ConsumerId([2; 16])];
        for (consumer, limit) in [(a, 1), (b, 10), (a, 2), (a, 3)] {
            flows.set(task, consumer, 1, credit(limit));
        }
        assert_eq!(taken(&flows, 9), [3, 10]);
        assert!(!flows.any());
        flows.set(task, b, 1, credit(11));
        flows.set(task, a, 1, credit(4));
        assert_eq!((taken(&flows, 1), taken(&flows, 1)), (vec![11], vec![4]));
    }

    #[test]
    fn a_new_session_is_told_all_that_still_holds() {
        let (flows, task) = (Flows::default(), TASK.parse().unwrap());
        let [a, b] = [ConsumerId([1; 16]), ConsumerId([2; 16])];
        flows.set(task, a, 1, credit(1));
        flows.set(task, b, 1, credit(2));
        assert_eq!(taken(&flows, 1), [1]);
        flows.resend();
        let mut all = taken(&flows, 9);
        all.sort_unstable();
        assert_eq!(all, [1, 2]);

        flows.set(task, a, 1, credit(3));
        flows.remove(a);
        assert!(!flows.any());
        flows.resend();
        assert_eq!(taken(&flows, 9), [2]);
    }

    #[test]
    fn a_word_names_the_opening_it_is_for() {
        let (flows, task) = (Flows::default(), TASK.parse().unwrap());
        let consumer = ConsumerId([1; 16]);
        flows.set(task, consumer, 1, credit(1));
        flows.set(task, consumer, 2, credit(1));
        let operation = flows.take(1).remove(0);
        assert!(matches!(operation.op, Some(Op::Flow(FlowRequest { open_seq: 2, .. }))));
    }
}
