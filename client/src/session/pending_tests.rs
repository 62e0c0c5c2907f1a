//! Pending operations through lost streams, silent brokers and callers who leave.

use std::time::Duration;

use asynq_proto::Payload;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::*;

type Answered = oneshot::Receiver<Result<Of, Error>>;

const ID: [u8; 16] = [1; 16];

struct Asker {
    pending: Pending,
    now: Instant,
    next_call: u64,
}

impl Asker {
    fn new(max_outstanding: u32) -> Self {
        let mut pending = Pending::new("http://broker:7740".to_owned());
        pending.connected(max_outstanding);
        Self {
            pending,
            now: Instant::now(),
            next_call: 1,
        }
    }

    fn ask(&mut self, op: Op) -> (u64, Answered) {
        let (reply, answered) = oneshot::channel();
        let call = self.next_call;
        self.next_call += 1;
        self.pending.insert(Request {
            call,
            op,
            since: self.now,
            reply,
        });
        (call, answered)
    }

    /// The next message: call numbers, forgets negative.
    fn sent(&mut self) -> Vec<i64> {
        let mut batch = Vec::new();
        self.pending.fill(&mut batch);
        let batch = batch.into_iter().map(|operation| {
            let call = i64::try_from(operation.call).unwrap();
            if matches!(operation.op, Some(WireOp::Forget(_))) {
                -call
            } else {
                call
            }
        });
        batch.collect()
    }

    fn answer(&mut self, call: u64, of: Of) {
        self.pending.answered(vec![v1::Answer { call, of: Some(of) }], self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.pending.next_timer().is_some_and(|timer| timer <= self.now) {
            self.pending.tick(self.now);
        }
    }

    fn lose(&mut self) {
        self.pending.disconnected(self.now);
    }
}

fn enqueue(wait: bool, bytes: usize) -> Op {
    Op::Enqueue(Box::new(v1::EnqueueRequest {
        id: ID.to_vec().into(),
        payload: Some(Payload::bytes("x", vec![0; bytes]).into()),
        first_send: true,
        wait,
        ..v1::EnqueueRequest::default()
    }))
}

fn wait() -> Op {
    Op::Wait(TaskId::from_wire(&ID).unwrap())
}

fn show() -> Op {
    Op::Show(TaskId::from_wire(&ID).unwrap())
}

fn enqueued() -> Of {
    Of::Enqueued(v1::Enqueued {
        id: ID.to_vec().into(),
        ..v1::Enqueued::default()
    })
}

fn no_broker_error(answered: &mut Answered) -> Option<bool> {
    match answered.try_recv() {
        Ok(Err(Error::NoBroker { indefinite, .. })) => Some(indefinite),
        Err(TryRecvError::Empty) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_are_bounded_by_operations_and_by_bytes() {
    let mut asker = Asker::new(10_000);
    let _small: Vec<_> = (0..600).map(|_| asker.ask(show())).collect();
    assert_eq!(asker.sent().len(), MAX_BATCH_OPS);
    assert_eq!(asker.sent().len(), 600 - MAX_BATCH_OPS);
    assert!(!asker.pending.has_work());

    let _large: Vec<_> = (0..10).map(|_| asker.ask(enqueue(false, 60_000))).collect();
    assert_eq!((asker.sent().len(), asker.sent().len()), (5, 5));
}

#[test]
fn room_is_kept_and_a_forget_makes_it() {
    let mut asker = Asker::new(2);
    let (first, _waiting) = asker.ask(wait());
    let (second, _waiting_too) = asker.ask(wait());
    assert_eq!(asker.pending.free(), 0);
    assert_eq!(asker.sent(), [1, 2]);
    asker.pending.forget(first);
    assert_eq!(asker.pending.free(), 1);
    let (_, _third) = asker.ask(show());
    // The forget goes first: what takes its room comes after it.
    assert_eq!(asker.sent(), [-1, 3]);
    // The answer to what was forgotten crosses the forget.
    asker.answer(first, Of::Finished(v1::Finished::default()));
    asker.answer(second, Of::Finished(v1::Finished::default()));
    assert_eq!(asker.pending.free(), 1);
}

#[test]
fn a_forgotten_question_keeps_its_room_until_answered() {
    let mut asker = Asker::new(1);
    let (call, _answered) = asker.ask(show());
    assert_eq!(asker.sent(), [1]);
    asker.pending.forget(call);
    assert_eq!(asker.pending.free(), 0);
    asker.answer(call, Of::Shown(v1::TaskInfo::default()));
    assert_eq!(asker.pending.free(), 1);
}

#[test]
fn what_was_forgotten_unsent_is_never_sent() {
    let mut asker = Asker::new(4);
    let (call, _answered) = asker.ask(enqueue(true, 1));
    asker.pending.forget(call);
    assert!(asker.sent().is_empty());
}

#[test]
fn a_new_stream_gets_everything_unanswered_in_order() {
    let mut asker = Asker::new(100);
    let (acked, _a) = asker.ask(enqueue(true, 1));
    let (answered, _b) = asker.ask(show());
    let _rest = [asker.ask(enqueue(true, 1)), asker.ask(wait())];
    assert_eq!(asker.sent(), [1, 2, 3, 4]);
    asker.answer(acked, enqueued());
    asker.answer(answered, Of::Shown(v1::TaskInfo::default()));
    asker.lose();
    let _late = asker.ask(enqueue(false, 1));
    asker.pending.connected(100);

    let mut again = Vec::new();
    asker.pending.fill(&mut again);
    let sent: Vec<_> = again
        .iter()
        .map(|operation| match operation.op.as_ref().unwrap() {
            WireOp::Wait(_) => (operation.call, "wait"),
            WireOp::Enqueue(request) if request.first_send => (operation.call, "first"),
            WireOp::Enqueue(_) => (operation.call, "again"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, [(1, "wait"), (3, "again"), (4, "wait"), (5, "first")]);
}

#[test]
fn a_smaller_broker_is_not_flooded() {
    let mut asker = Asker::new(100);
    let _asked: Vec<_> = (0..10).map(|_| asker.ask(wait())).collect();
    assert_eq!(asker.sent().len(), 10);
    asker.lose();
    asker.pending.connected(3);
    assert_eq!(asker.sent(), [1, 2, 3]);
    assert!(!asker.pending.has_work());
    asker.answer(2, Of::Finished(v1::Finished::default()));
    assert_eq!(asker.sent(), [4]);
}

#[test]
fn patience_ends_and_says_whether_anything_may_have_happened() {
    let mut asker = Asker::new(100);
    let (_, mut sent) = asker.ask(enqueue(false, 1));
    let (_, mut waiting) = asker.ask(wait());
    asker.sent();
    asker.pass(PATIENCE * 2);
    assert_eq!(no_broker_error(&mut sent), None, "with a broker there is no hurry");

    asker.lose();
    asker.pass(PATIENCE / 2);
    let (_, mut unsent) = asker.ask(enqueue(false, 1));
    asker.pass(PATIENCE / 2 - Duration::from_millis(1));
    assert_eq!(no_broker_error(&mut sent), None);
    asker.pass(Duration::from_millis(1));
    assert_eq!(no_broker_error(&mut sent), Some(true));
    assert_eq!(no_broker_error(&mut waiting), Some(false));
    assert_eq!(no_broker_error(&mut unsent), None);
    asker.pass(PATIENCE / 2);
    assert_eq!(no_broker_error(&mut unsent), Some(false));
    assert_eq!(asker.pending.next_timer(), None);
}

#[test]
fn a_wait_starts_afresh_with_each_stream_and_an_enqueue_does_not() {
    let mut asker = Asker::new(100);
    let (_, mut waiting) = asker.ask(wait());
    let (_, mut enqueuing) = asker.ask(enqueue(false, 1));
    for _ in 0..4 {
        asker.sent();
        asker.lose();
        asker.pass(PATIENCE / 4);
        asker.pending.connected(100);
    }
    assert_eq!(no_broker_error(&mut enqueuing), Some(true));
    asker.pass(PATIENCE * 2);
    assert_eq!(no_broker_error(&mut waiting), None);
}

#[test]
fn not_now_is_sent_again_later_but_not_for_ever() {
    let mut asker = Asker::new(100);
    let (call, mut answered) = asker.ask(enqueue(false, 1));
    let not_now = || {
        Of::Error(v1::OperationError {
            code: Code::Unavailable as i32,
            reason: "STORE_FAILED".to_owned(),
            message: "the store failed".to_owned(),
            retry_after_ms: 0,
        })
    };
    for _ in 0..PATIENCE.as_millis() / RESEND_PAUSE.as_millis() {
        assert_eq!(asker.sent(), [1]);
        asker.answer(call, not_now());
        assert!(asker.sent().is_empty());
        asker.pass(RESEND_PAUSE);
    }
    match answered.try_recv() {
        Ok(Err(Error::NoBroker {
            message,
            indefinite: true,
            ..
        })) => assert!(message.ends_with("the store failed")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_broker_says_how_long_to_wait() {
    let mut asker = Asker::new(100);
    let mut not_now = |ms| {
        let (call, answered) = asker.ask(enqueue(false, 1));
        assert_eq!(asker.sent().len(), 1);
        let error = v1::OperationError {
            code: Code::Unavailable as i32,
            retry_after_ms: ms,
            ..Default::default()
        };
        asker.answer(call, Of::Error(error));
        answered
    };
    let _unanswered = (not_now(3_000), not_now(200));
    asker.pass(Duration::from_millis(200));
    assert_eq!(asker.sent(), [2]);
    asker.pass(Duration::from_millis(2_799));
    assert!(asker.sent().is_empty());
    asker.pass(Duration::from_millis(1));
    assert_eq!(asker.sent(), [1]);
}
