//! Planted histories: for each rule one that breaks it, and one that is as close
//! to that as may be and does not.

use std::time::Duration;

use asynq_core::{DeadReason, Epoch, Grant, LeaseToken, SessionId, StateName, TaskId};

use super::{Asker, End, History, Record, Rule};

const TASK: TaskId = TaskId([1; 16]);
const SESSION: SessionId = SessionId([2; 16]);
const CALLER: Asker = Asker(3);

fn token(epoch: u64, attempt: u32) -> LeaseToken {
    let grant = Grant {
        epoch: Epoch(epoch),
        attempt,
    };
    LeaseToken { task: TASK, grant }
}

fn end(state: StateName, value: u64) -> End {
    End {
        state,
        value: Some(value),
    }
}

/// Checks entries a second apart.
fn check(records: &[Record]) -> Option<Rule> {
    let mut history = History::default();
    for (second, record) in (0..).zip(records) {
        history.push(Duration::from_secs(second), record.clone());
    }
    history.check().err().map(|violation| violation.rule)
}

/// What every life of [`TASK`] begins with.
fn accepted(rest: &[Record]) -> Vec<Record> {
    let mut records = vec![
        Record::Opened(Epoch(5)),
        Record::Asked(TASK),
        Record::Acknowledged(TASK, 0),
        Record::Granted(token(5, 1), SESSION),
    ];
    records.extend_from_slice(rest);
    records
}

fn sent(index: u64, end: u64, value: u64) -> Record {
    Record::Sent {
        token: token(5, 1),
        index,
        end,
        value,
    }
}

fn received(index: u64, value: u64) -> Record {
    Record::Received {
        task: TASK,
        index,
        value,
    }
}

#[test]
fn a_good_life_breaks_no_rule() {
    let succeeded = end(StateName::Succeeded, 7);
    let life = accepted(&[
        Record::Question(CALLER, 1),
        Record::Began(token(5, 1), SESSION),
        Record::Claimed(token(5, 1), SESSION),
        Record::Returned(token(5, 1), 7),
        Record::Quit(token(5, 1)),
        Record::Accepted(token(5, 1), StateName::Succeeded),
        Record::Ended(TASK, succeeded),
        Record::Told(TASK, succeeded),
        Record::Answer(CALLER, 1, false),
        Record::Answer(CALLER, 1, true),
        Record::Healed,
        Record::Found(TASK, Some(succeeded)),
        Record::Left {
            place: "slots",
            count: 0,
        },
    ]);
    assert_eq!(check(&life), None);
}

#[test]
fn what_was_acknowledged_and_is_not_known_is_lost() {
    let other = TaskId([9; 16]);
    let found_other = [Record::Asked(other), Record::Found(other, None)];
    assert_eq!(check(&accepted(&found_other)), Some(Rule::Lost));
    assert_eq!(check(&accepted(&[Record::Missing(TASK)])), Some(Rule::Lost));
    // Nobody promised anything.
    assert_eq!(check(&[Record::Asked(TASK), Record::Missing(TASK)]), None);
    // Nobody asked the broker in the end.
    assert_eq!(check(&accepted(&[])), None);
}

#[test]
fn what_nobody_asked_for_is_a_phantom() {
    for phantom in [
        Record::Acknowledged(TASK, 0),
        Record::Granted(token(5, 1), SESSION),
        Record::Found(TASK, None),
        Record::Told(TASK, end(StateName::Dead, 0)),
    ] {
        assert_eq!(
            check(std::slice::from_ref(&phantom)),
            Some(Rule::Phantom),
            "{phantom:?}"
        );
    }
}

#[test]
fn a_task_ends_once() {
    let (succeeded, cancelled) = (end(StateName::Succeeded, 7), end(StateName::Cancelled, 7));
    let told = |second| accepted(&[Record::Ended(TASK, succeeded), Record::Told(TASK, second)]);
    assert_eq!(check(&told(succeeded)), None);
    assert_eq!(
        check(&told(End {
            value: None,
            ..succeeded
        })),
        None
    );
    assert_eq!(check(&told(cancelled)), Some(Rule::SecondEnd));
    assert_eq!(check(&told(end(StateName::Succeeded, 8))), Some(Rule::SecondEnd));
    let lives = [Record::Ended(TASK, succeeded), Record::Found(TASK, None)];
    assert_eq!(check(&accepted(&lives)), Some(Rule::SecondEnd));
    let twice = [
        Record::Accepted(token(5, 1), StateName::Succeeded),
        Record::Granted(token(5, 2), SESSION),
        Record::Accepted(token(5, 2), StateName::Succeeded),
    ];
    assert_eq!(check(&accepted(&twice)), Some(Rule::SecondEnd));
    // The acknowledgement of a completion that was sent again.
    assert_eq!(check(&accepted(&[twice[0].clone(), twice[0].clone()])), None);
}

#[test]
fn only_a_dead_task_has_another_life() {
    let (dead, succeeded) = (end(StateName::Dead, 0), end(StateName::Succeeded, 7));
    let again = |first| {
        accepted(&[
            Record::Ended(TASK, first),
            Record::Revived(TASK),
            Record::Granted(token(5, 2), SESSION),
            Record::Ended(TASK, succeeded),
            // Late news of the life before.
            Record::Told(TASK, first),
            Record::Found(TASK, Some(succeeded)),
        ])
    };
    assert_eq!(check(&again(dead)), None);
    assert_eq!(check(&again(end(StateName::Cancelled, 0))), Some(Rule::GrantAfterEnd));
}

#[test]
fn what_must_not_begin_twice_begins_once_a_life() {
    let began = |attempt| Record::Began(token(5, attempt), SESSION);
    let granted = Record::Granted(token(5, 2), SESSION);
    let once = |rest: &[Record]| check(&[&[Record::Once(TASK)], &accepted(rest)[..]].concat());
    let twice = [began(1), granted.clone(), began(2)];
    assert_eq!(once(&twice), Some(Rule::BegunTwice));
    assert_eq!(check(&accepted(&twice)), None);
    // A worker may learn late that its run is of the life before.
    let revived = [Record::Revived(TASK), granted.clone(), began(1), began(2)];
    assert_eq!(once(&revived), None);
    let third = [&revived[..], &[Record::Granted(token(5, 3), SESSION), began(3)]].concat();
    assert_eq!(once(&third), Some(Rule::BegunTwice));
}

#[test]
fn no_grant_follows_the_end() {
    let again = [
        Record::Told(TASK, end(StateName::Cancelled, 0)),
        Record::Granted(token(5, 2), SESSION),
    ];
    assert_eq!(check(&accepted(&again)), Some(Rule::GrantAfterEnd));
}

#[test]
fn grants_rise() {
    let then = |next| check(&accepted(&[Record::Granted(next, SESSION)]));
    assert_eq!(then(token(5, 2)), None);
    assert_eq!(then(token(6, 1)), None);
    assert_eq!(then(token(5, 1)), Some(Rule::TokensFall));
    assert_eq!(then(token(4, 9)), Some(Rule::TokensFall));
}

#[test]
fn only_the_newest_grant_completes() {
    let completes = |middle: &[Record]| {
        let mut rest = vec![Record::Granted(token(5, 2), SESSION)];
        rest.extend_from_slice(middle);
        rest.push(Record::Accepted(token(5, 1), StateName::Succeeded));
        check(&accepted(&rest))
    };
    assert_eq!(completes(&[]), Some(Rule::Stale));
    // A restart forgot that it had granted again, and took the first up.
    assert_eq!(completes(&[Record::Opened(Epoch(6))]), None);
    // A later incarnation does not.
    let granted_between = [
        Record::Opened(Epoch(6)),
        Record::Granted(token(6, 3), SESSION),
        Record::Opened(Epoch(7)),
    ];
    assert_eq!(completes(&granted_between), Some(Rule::Stale));
    let granted_since = [Record::Opened(Epoch(6)), Record::Granted(token(6, 3), SESSION)];
    assert_eq!(completes(&granted_since), Some(Rule::Stale));
}

#[test]
fn the_result_is_what_the_accepted_run_returned() {
    let told = |value, by| {
        check(&accepted(&[
            Record::Returned(token(5, 1), 7),
            Record::Granted(token(5, 2), SESSION),
            Record::Returned(token(5, 2), 8),
            Record::Accepted(token(5, by), StateName::Succeeded),
            Record::Told(TASK, end(StateName::Succeeded, value)),
        ]))
    };
    assert_eq!(told(8, 2), None);
    assert_eq!(told(9, 2), Some(Rule::WrongResult));
    assert_eq!(told(7, 2), Some(Rule::WrongResult));
}

#[test]
fn no_run_outlives_the_lease_of_a_silent_worker() {
    let over = |before: &[Record]| {
        let mut rest = vec![Record::Began(token(5, 1), SESSION)];
        rest.extend_from_slice(before);
        rest.push(Record::LeaseOver(SESSION));
        check(&accepted(&rest))
    };
    assert_eq!(over(&[]), Some(Rule::Overlap));
    assert_eq!(over(&[Record::Quit(token(5, 1))]), None);
    // What stands still does not know how late it is.
    assert_eq!(over(&[Record::Stalled(SESSION)]), None);
}

#[test]
fn a_claimed_run_is_not_granted_again_at_a_restart() {
    let regranted = |middle: &[Record]| {
        let mut rest = vec![Record::Claimed(token(5, 1), SESSION), Record::Opened(Epoch(6))];
        rest.extend_from_slice(middle);
        rest.push(Record::Granted(token(6, 2), SESSION));
        check(&accepted(&rest))
    };
    assert_eq!(regranted(&[]), Some(Rule::ClaimLost));
    assert_eq!(regranted(&[Record::Resumed(SESSION, vec![])]), None);
    assert_eq!(regranted(&[Record::LeaseOver(SESSION)]), None);
    assert_eq!(regranted(&[Record::GivenUp(TASK)]), None);
    assert_eq!(regranted(&vec![Record::Healed; 40]), None, "a lease has passed");
}

#[test]
fn a_run_is_not_granted_again_while_its_session_may_come_back() {
    let regranted = |middle: &[Record]| {
        let mut rest = vec![
            Record::GivenUp(TASK),
            Record::Known(SESSION),
            Record::Began(token(5, 1), SESSION),
        ];
        rest.extend_from_slice(middle);
        rest.push(Record::Granted(token(6, 2), SESSION));
        check(&accepted(&rest))
    };
    let opened = || Record::Opened(Epoch(6));
    assert_eq!(regranted(&[opened()]), Some(Rule::RunAgain));
    assert_eq!(regranted(&[]), None, "the broker is what it was");
    assert_eq!(regranted(&[opened(), Record::Resumed(SESSION, vec![])]), None);
    assert_eq!(regranted(&[opened(), Record::Healed]), None, "the grace is over");
    assert_eq!(regranted(&[Record::Quit(token(5, 1)), opened()]), None);
    assert_eq!(regranted(&[Record::Forgotten(SESSION), opened()]), None);
}

#[test]
fn the_store_remembers_what_the_broker_knows() {
    assert_eq!(check(&accepted(&[Record::Differs(TASK)])), Some(Rule::Differs));
}

#[test]
fn one_id_is_one_task() {
    assert_eq!(check(&accepted(&[Record::Acknowledged(TASK, 0)])), None);
    assert_eq!(check(&accepted(&[Record::Acknowledged(TASK, 1)])), Some(Rule::TwoInOne));
}

#[test]
fn what_is_being_cancelled_does_not_succeed() {
    let ends = |state| {
        check(&accepted(&[
            Record::Cancelling(TASK),
            Record::Ended(TASK, end(state, 7)),
        ]))
    };
    assert_eq!(ends(StateName::Cancelled), None);
    assert_eq!(ends(StateName::Succeeded), Some(Rule::CancelLost));
}

#[test]
fn items_come_once_each_and_in_order() {
    let stream = |rest: &[Record]| {
        let mut records = vec![sent(0, 1, 70), sent(1, 2, 71), sent(2, 3, 72)];
        records.extend_from_slice(rest);
        check(&accepted(&records))
    };
    let over = |count, whole| Record::Over {
        task: TASK,
        count,
        whole,
    };
    assert_eq!(stream(&[received(0, 70), received(1, 71), over(2, true)]), None);
    assert_eq!(stream(&[received(0, 70), received(0, 70)]), Some(Rule::StreamOrder));
    assert_eq!(stream(&[received(0, 70), received(2, 72)]), Some(Rule::StreamOrder));
    assert_eq!(stream(&[received(0, 70), over(2, true)]), Some(Rule::StreamOrder));
    assert_eq!(stream(&[received(0, 71)]), Some(Rule::StreamContent));

    // Read again, from where the reader was done.
    let reads = |index| Record::Reads { task: TASK, index };
    let begun = |rest: &[Record]| {
        let mut records = vec![reads(0), received(0, 70), received(1, 71), reads(1)];
        records.extend_from_slice(rest);
        stream(&records)
    };
    assert_eq!(begun(&[received(1, 71), received(2, 72), over(3, true)]), None);
    assert_eq!(begun(&[received(0, 70)]), Some(Rule::StreamOrder));
    assert_eq!(begun(&[received(2, 72)]), Some(Rule::StreamOrder));
    assert_eq!(begun(&[received(1, 70)]), Some(Rule::StreamContent));
    assert_eq!(begun(&[over(1, false)]), None, "lost with its worker");
    assert_eq!(begun(&[over(1, true)]), Some(Rule::StreamOrder));
    assert_eq!(begun(&[reads(3)]), Some(Rule::StreamOrder));
}

#[test]
fn items_that_cannot_be_yielded_again_come_from_one_run() {
    let sends = |attempt, index, value| Record::Sent {
        token: token(1, attempt),
        index,
        end: index,
        value,
    };
    let stream = |is_one: bool, rest: &[Record]| {
        let mut records = accepted(&[]);
        records.extend(is_one.then_some(Record::OneRun(TASK)));
        records.extend([sends(1, 0, 70), sends(1, 1, 71), sends(2, 0, 80), sends(2, 1, 81)]);
        records.extend_from_slice(rest);
        check(&records)
    };
    assert_eq!(stream(true, &[received(0, 80), received(1, 81)]), None);
    assert_eq!(
        stream(true, &[received(0, 70), received(1, 81)]),
        Some(Rule::StreamContent)
    );
    assert_eq!(stream(false, &[]), Some(Rule::StreamContent), "sent as two things");
}

#[test]
fn a_stream_goes_on_whoever_is_lost() {
    let grace = Duration::from_secs(30);
    let mut at = Duration::ZERO;
    let mut stream = |rest: &[(u64, Record)]| {
        let mut history = History::default();
        for record in accepted(&[Record::Attached(TASK, grace)]) {
            history.push(at, record);
        }
        for (after, record) in rest {
            at += Duration::from_secs(*after);
            history.push(at, record.clone());
        }
        history.check().err().map(|violation| violation.rule)
    };
    let cut = Some(Rule::StreamCut);
    let over = Record::Ended(
        TASK,
        End {
            state: StateName::Cancelled,
            value: None,
        },
    );
    let (away, back) = (Record::Detached(TASK), Record::Attached(TASK, grace));
    assert_eq!(stream(&[(99, over.clone())]), cut, "it was read all the time");
    assert_eq!(stream(&[(1, away.clone()), (29, over.clone())]), cut);
    assert_eq!(stream(&[(1, away.clone()), (30, over.clone())]), None);
    assert_eq!(stream(&[(1, away.clone()), (29, back.clone()), (9, over.clone())]), cut);
    assert_eq!(
        stream(&[(1, away), (30, back), (1, over.clone())]),
        None,
        "it came too late"
    );
    let restart = Record::Opened(Epoch(6));
    assert_eq!(stream(&[(1, restart.clone()), (29, over.clone())]), cut);
    assert_eq!(stream(&[(1, restart), (30, over.clone())]), None);
    assert_eq!(stream(&[(1, Record::Stops(TASK)), (1, over)]), None);

    let told = Record::Broken {
        task: TASK,
        why: "no".into(),
    };
    assert_eq!(stream(&[(1, told.clone())]), cut);
    assert_eq!(stream(&[(1, Record::Purged(TASK)), (1, told)]), None);

    let died = |reason, kind: &str| Record::Died(TASK, reason, kind.into());
    assert_eq!(stream(&[(1, died(DeadReason::WorkerLost, "lost"))]), cut);
    assert_eq!(stream(&[(1, died(DeadReason::NonDeterministic, ""))]), cut);
    assert_eq!(stream(&[(1, died(DeadReason::Error, "protocol"))]), cut);
    assert_eq!(stream(&[(1, died(DeadReason::Error, "error"))]), None);
    let lost = died(DeadReason::WorkerLost, "lost");
    assert_eq!(stream(&[(1, Record::OneRun(TASK)), (1, lost)]), None);
}

#[test]
fn no_item_is_sent_beyond_the_credit() {
    let credit = Record::Credit {
        task: TASK,
        items: 2,
        bytes: 10,
    };
    let sends = |last| check(&accepted(&[credit.clone(), sent(0, 5, 0), last]));
    assert_eq!(sends(sent(1, 10, 0)), None);
    assert_eq!(sends(sent(1, 11, 0)), Some(Rule::Overrun));
    assert_eq!(sends(sent(2, 6, 0)), Some(Rule::Overrun));
}

#[test]
fn after_the_faults_every_task_ends() {
    let lives = Record::Found(TASK, None);
    assert_eq!(check(&accepted(std::slice::from_ref(&lives))), None);
    assert_eq!(check(&accepted(&[Record::Healed, lives])), Some(Rule::Stuck));
}

#[test]
fn every_question_is_answered_once() {
    let question = Record::Question(CALLER, 1);
    let answer = |last| Record::Answer(CALLER, 1, last);
    assert_eq!(
        check(&[question.clone(), answer(true), answer(true)]),
        Some(Rule::Answers)
    );
    assert_eq!(check(&[question.clone(), Record::Healed]), Some(Rule::Answers));
    assert_eq!(
        check(&[question.clone(), answer(false), Record::Healed]),
        Some(Rule::Answers)
    );
    assert_eq!(check(&[question.clone(), question.clone()]), Some(Rule::Answers));
    let crossing = [question.clone(), Record::Withdrawn(CALLER, 1), answer(false)];
    assert_eq!(check(&crossing), None);
    for excuse in [Record::Withdrawn(CALLER, 1), Record::Gone(CALLER)] {
        assert_eq!(check(&[question.clone(), excuse, Record::Healed]), None);
    }
}

#[test]
fn nothing_is_left_behind() {
    let left = |count| Record::Left {
        place: "streams",
        count,
    };
    assert_eq!(check(&[left(0)]), None);
    assert_eq!(check(&[left(1)]), Some(Rule::Leak));
}

#[test]
fn a_violation_names_the_entry_and_the_rule() {
    let mut history = History::default();
    history.push(Duration::ZERO, Record::Healed);
    history.push(Duration::ZERO, Record::Acknowledged(TASK, 0));
    let violation = history.check().expect_err("nobody asked");
    assert_eq!((violation.entry, violation.rule), (1, Rule::Phantom));
    assert!(
        violation.to_string().contains("nobody asked for task 01010101"),
        "{violation}"
    );
}
