//! The ledger's own tests: every way a run can end and be acknowledged.

use asynq_proto::{Connector, Credentials};
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

use super::*;
use crate::data::Data;

fn token(n: u128) -> LeaseToken {
    LeaseToken {
        task_id: Uuid::from_u128(n),
        epoch: 1,
        attempt: 1,
    }
}

fn gathered(ledger: &mut Ledger) -> v1::WorkRequest {
    let mut request = v1::WorkRequest::default();
    ledger.gather(&mut request);
    request
}

fn payload(bytes: usize) -> Payload {
    Payload::bytes("x", vec![0; bytes])
}

#[test]
fn an_outcome_is_kept_until_acknowledged_and_sent_again_after_a_cut() {
    let mut ledger = Ledger::default();
    ledger.going(token(1));
    ledger.over(token(1), Outcome::Completed(payload(3)));
    ledger.over(token(1), Outcome::Ended); // the first counts
    assert_eq!(gathered(&mut ledger).completions.len(), 1);
    assert_eq!(gathered(&mut ledger), v1::WorkRequest::default());

    assert_eq!(ledger.held(), [token(1).to_wire()]);
    ledger.reconnected();
    assert_eq!(gathered(&mut ledger).completions.len(), 1);

    ledger.acknowledged(token(1), false);
    assert!(ledger.is_empty());
    ledger.reconnected();
    assert_eq!(gathered(&mut ledger), v1::WorkRequest::default());
    assert_eq!((ledger.unacked, ledger.unacked_bytes), (0, 0));
}

#[test]
fn each_outcome_has_its_own_field() {
    let mut ledger = Ledger::default();
    for n in 1..=4 {
        ledger.going(token(n));
    }
    ledger.over(token(1), Outcome::Completed(payload(1)));
    ledger.over(token(2), Outcome::Failed(TaskError::terminal("m")));
    ledger.over(token(3), Outcome::Released);
    ledger.over(token(4), Outcome::Ended);
    let request = gathered(&mut ledger);
    assert_eq!(request.completions[0].token, Some(token(1).to_wire()));
    assert_eq!(request.failures[0].token, Some(token(2).to_wire()));
    assert_eq!(request.failures[0].failure.as_ref().unwrap().message, "m");
    assert_eq!(request.released, [token(3).to_wire()]);
    assert_eq!(request.ended, [token(4).to_wire()]);
}

#[test]
fn a_stop_reaches_the_run_and_one_for_nothing_is_answered() {
    let mut ledger = Ledger::default();
    let control = ledger.going(token(1));
    ledger.stop(token(1), StopCause::Timeout);
    assert_eq!(control.cause(), Some(StopCause::Timeout));
    assert_eq!(gathered(&mut ledger), v1::WorkRequest::default()); // it has not ended yet

    ledger.stop(token(2), StopCause::Cancelled);
    assert_eq!(gathered(&mut ledger).ended, [token(2).to_wire()]);
    ledger.acknowledged(token(2), true);
    assert_eq!(ledger.held(), [token(1).to_wire()]);
}

#[test]
fn a_stale_run_is_stopped_and_never_spoken_of_again() {
    let mut ledger = Ledger::default();
    let stopped = ledger.going(token(1));
    let refused = ledger.going(token(2));
    ledger.stop(token(1), StopCause::LeaseLost);
    ledger.acknowledged(token(2), true);
    for control in [stopped, refused] {
        assert_eq!(control.cause(), Some(StopCause::LeaseLost));
    }
    ledger.over(token(1), Outcome::Ended);
    ledger.over(token(2), Outcome::Completed(payload(1)));
    assert!(ledger.is_empty());
    assert_eq!(gathered(&mut ledger), v1::WorkRequest::default());
}

#[test]
fn arguments_that_arrive_too_late_start_nothing() {
    let mut ledger = Ledger::default();
    for n in 1..=3 {
        ledger.fetching(token(n), v1::Assignment::default());
    }
    ledger.stop(token(1), StopCause::Cancelled);
    assert_eq!(ledger.next_fetch(), Some(token(2)));
    assert!(ledger.fetched(token(1)).is_none());
    assert!(ledger.fetched(token(2)).is_some());
    assert!(ledger.fetched(token(2)).is_none());

    ledger.reconnected();
    assert_eq!(ledger.next_fetch(), Some(token(3)));
    ledger.release_unstarted();
    let request = gathered(&mut ledger);
    assert_eq!(
        (request.ended, request.released),
        (vec![token(1).to_wire()], vec![token(3).to_wire()])
    );
    assert_eq!(ledger.unfinished(), 1);
}

#[test]
fn large_results_take_the_other_way() {
    let mut ledger = Ledger::default();
    ledger.going(token(1));
    ledger.over(token(1), Outcome::Completed(payload(INLINE_BYTES + 1)));
    assert_eq!(gathered(&mut ledger), v1::WorkRequest::default());
    assert_eq!(
        ledger.next_upload(),
        Some((token(1), completion(token(1), &payload(INLINE_BYTES + 1), &[])))
    );
    assert_eq!(ledger.next_upload(), None);

    ledger.refused(token(1), TaskError::terminal("no"));
    assert_eq!(gathered(&mut ledger).failures.len(), 1);
    assert_eq!(ledger.unacked, 1);
}

#[test]
fn messages_are_bounded_by_number_and_by_bytes() {
    let mut ledger = Ledger::default();
    for n in 0..600 {
        ledger.going(token(n));
        ledger.over(token(n), Outcome::Ended);
    }
    assert_eq!(gathered(&mut ledger).ended.len(), MAX_BATCH_OPS);
    assert_eq!(gathered(&mut ledger).ended.len(), 600 - MAX_BATCH_OPS);

    let mut ledger = Ledger::default();
    for n in 0..10 {
        ledger.going(token(n));
        ledger.over(token(n), Outcome::Completed(payload(INLINE_BYTES)));
    }
    assert_eq!(gathered(&mut ledger).completions.len(), MAX_BATCH_BYTES / INLINE_BYTES);
}

#[test]
fn a_lost_lease_clears_everything() {
    let mut ledger = Ledger::default();
    let control = ledger.going(token(1));
    ledger.going(token(2));
    ledger.over(token(2), Outcome::Completed(payload(1)));
    assert_eq!(ledger.drop_all(), 1);
    assert_eq!(control.cause(), Some(StopCause::LeaseLost));
    assert!(ledger.is_empty() && !ledger.has_unsent());
    assert_eq!(ledger.unacked_bytes, 0);
}

#[test]
fn the_end_of_a_drain_gives_everything_back() {
    let mut ledger = Ledger::default();
    let control = ledger.going(token(1));
    ledger.going(token(2));
    ledger.over(token(2), Outcome::Completed(payload(1)));
    ledger.release_all();
    ledger.over(token(1), Outcome::Completed(payload(1))); // too late
    let request = gathered(&mut ledger);
    assert_eq!((request.released.len(), request.completions.len()), (1, 1));
    assert_eq!(control.cause(), Some(StopCause::Shutdown));
}

#[test]
fn a_number_acknowledges_all_that_its_message_and_those_before_told() {
    let mut ledger = Ledger::default();
    let over = |ledger: &mut Ledger, n| {
        let _ = ledger.going(token(n));
        ledger.over(token(n), Outcome::Released);
    };
    over(&mut ledger, 1);
    over(&mut ledger, 2);
    assert_eq!(gathered(&mut ledger).number, 1);
    over(&mut ledger, 3);
    assert_eq!(gathered(&mut ledger).number, 2);
    over(&mut ledger, 4);
    assert_eq!(gathered(&mut ledger).number, 3);
    ledger.acknowledged(token(3), true); // refused by name
    ledger.all_acknowledged(2);
    let held: Vec<_> = (1..=4).map(|n| ledger.contains(token(n))).collect();
    assert_eq!(held, [false, false, false, true]);
    ledger.all_acknowledged(2);
    // A new connection counts anew, and owes what was not acknowledged.
    ledger.reconnected();
    ledger.all_acknowledged(3);
    assert!(ledger.contains(token(4)));
    assert_eq!(gathered(&mut ledger).number, 1);
    ledger.all_acknowledged(1);
    assert!(ledger.is_empty());
    assert_eq!(gathered(&mut ledger).number, 0, "nothing is told");
}

#[test]
fn a_broker_that_acknowledges_run_by_run_leaves_nothing_behind() {
    let mut ledger = Ledger::default();
    for n in 1..100 {
        let _ = ledger.going(token(n));
        ledger.over(token(n), Outcome::Released);
        assert_eq!(gathered(&mut ledger).number, n as u64);
        ledger.acknowledged(token(n), false);
        assert!(ledger.told.len() <= 1);
    }
}

#[test]
fn unacknowledged_bytes_are_bounded() {
    let mut ledger = Ledger::default();
    ledger.going(token(1));
    ledger.over(token(1), Outcome::Completed(payload(MAX_UNACKED_BYTES)));
    assert!(!ledger.has_room());
    ledger.acknowledged(token(1), false);
    assert!(ledger.has_room());
}

#[test]
fn what_the_broker_acknowledged_elsewhere_is_forgotten() {
    let mut ledger = Ledger::default();
    ledger.going(token(1));
    ledger.returned(token(1), None);
    assert!(ledger.is_empty());

    // Unless something was said of it before: that is answered as well.
    ledger.going(token(2));
    ledger.over(token(2), Outcome::Ended);
    ledger.returned(token(2), None);
    assert_eq!(gathered(&mut ledger).ended, [token(2).to_wire()]);
    ledger.acknowledged(token(2), true);
    assert!(ledger.is_empty());
    assert_eq!(ledger.unacked, 0);
}

#[test]
fn a_run_whose_items_went_out_is_not_given_back() {
    let mut ledger = Ledger::default();
    for n in 1..=2 {
        ledger.going(token(n));
    }
    ledger.bind(token(2));
    ledger.release_all();
    let request = gathered(&mut ledger);
    assert_eq!(request.released, [token(1).to_wire()]);
    assert_eq!(request.ended, [token(2).to_wire()]);
}

#[test]
fn a_run_that_does_not_stop_is_abandoned_and_its_slot_leaked() {
    let mut ledger = Ledger::default(); // no grace at all
    ledger.going(token(1));
    ledger.going(token(2));
    ledger.stop(token(1), StopCause::Timeout);
    ledger.stop(token(1), StopCause::Cancelled); // its time runs from the first
    ledger.stop(token(2), StopCause::Timeout);
    ledger.returned(token(2), Some(Outcome::Ended)); // in time
    assert_eq!(ledger.leaked(), 0);
    ledger.abandon(Instant::now());
    assert_eq!((ledger.leaked(), ledger.unfinished()), (1, 0));
    let request = gathered(&mut ledger);
    assert_eq!(request.ended, [token(2).to_wire()]);
    assert_eq!(request.abandoned, [token(1).to_wire()]);
    ledger.all_acknowledged(request.number);
    assert!(ledger.is_empty());
    assert_eq!(ledger.leaked(), 1, "its thread goes on");
    ledger.returned(token(1), Some(Outcome::Ended));
    assert_eq!(ledger.leaked(), 0);
    assert!(
        !ledger.has_unsent() && ledger.abandons_at().is_none(),
        "nobody asks any more"
    );
}

#[test]
fn runs_of_a_lost_lease_leak_if_they_go_on() {
    let mut ledger = Ledger::new(Duration::from_secs(60));
    ledger.going(token(1));
    ledger.going(token(2));
    let lent = ledger.going(token(3));
    lent.give_up_slot();
    ledger.fetching(token(4), v1::Assignment::default()); // has not begun
    assert_eq!(ledger.drop_all(), 4);
    ledger.abandon(Instant::now());
    assert_eq!(ledger.leaked(), 0, "they have a while");
    ledger.returned(token(1), Some(Outcome::Ended));
    let at = ledger.abandons_at().unwrap();
    ledger.abandon(at + Duration::from_secs(1));
    assert_eq!(ledger.leaked(), 1, "the second; the third has no slot");
    assert!(ledger.is_empty() && ledger.stopping.ghosts() == 2);
}

#[test]
fn calls_go_with_their_run() {
    let (asks, _asked) = mpsc::channel(1);
    let connector = Connector::tcp("http://127.0.0.1:1".parse().unwrap(), &Credentials::default()).unwrap();
    let data = Data::start(&connector).unwrap();
    let reading = calls::Reading::new(connector, data.line());
    let shared = calls::Shared::new(Arc::new(Semaphore::new(1)), asks, reading);
    let mut ledger = Ledger::default();
    for (n, ends) in [(1, true), (2, false)] {
        ledger.going(token(n));
        let (reply, answer) = oneshot::channel();
        let request = v1::RunCall {
            call: n as u64,
            token: Some(token(n).to_wire()),
            n: 1,
            ..v1::RunCall::default()
        };
        let asked = calls::Asked {
            token: token(n),
            request: Box::new(request),
            reply,
            enqueued: None,
        };
        ledger.call(&shared, asked);
        gathered(&mut ledger);
        assert_eq!(ledger.calls.open(), 1);
        if ends {
            ledger.over(token(n), Outcome::Ended);
        } else {
            ledger.stop(token(n), StopCause::LeaseLost);
        }
        assert_eq!(ledger.calls.open(), 0, "nobody waits for the answer");
        drop(answer);
        // It may still come.
        ledger.answered(v1::CallAnswer {
            call: n as u64,
            of: None,
        });
    }
}
