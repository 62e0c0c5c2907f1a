//! Planted histories of runs that call and spawn, as in `tests`.

use std::time::Duration;

use asynq_core::{Epoch, Grant, LeaseToken, SessionId, StateName, TaskId};

use super::{History, Record, Rule};

const SESSION: SessionId = SessionId([2; 16]);

/// An attempt of the task that calls.
fn run(attempt: u32) -> LeaseToken {
    LeaseToken {
        task: TaskId([1; 16]),
        grant: Grant {
            epoch: Epoch(5),
            attempt,
        },
    }
}

/// The end of a task that never ran.
fn closed(task: TaskId) -> Record {
    let grant = Grant::default();
    Record::Closed(LeaseToken { task, grant }, StateName::Cancelled)
}

/// Checks what follows where the first attempt has called a task.
fn check(rest: &[Record]) -> Option<Rule> {
    let mut history = History::default();
    let before = [
        Record::Asked(run(1).task),
        Record::Asked(run(1).child(1)),
        Record::Claimed(run(1), SESSION),
        Record::Called(run(1).child(1), run(1)),
        Record::Committed,
    ];
    for record in before.iter().chain(rest) {
        history.push(Duration::ZERO, record.clone());
    }
    history.check().err().map(|violation| violation.rule)
}

#[test]
fn a_called_task_ends_in_the_commit_that_ends_its_attempt() {
    let child = run(1).child(1);
    let ends: [&[Record]; 4] = [
        &[Record::GivenUp(run(1).task)],
        &[Record::Stopping(run(1).task)],
        &[Record::Closed(run(1), StateName::Succeeded)],
        &[Record::GivenUp(run(1).task), Record::Claimed(run(2), SESSION)],
    ];
    for end in ends {
        let with = |more: &[Record]| check(&[end, more, &[Record::Committed]].concat());
        assert_eq!(with(&[]), Some(Rule::Orphan), "{end:?}");
        assert_eq!(with(&[closed(child)]), None, "{end:?}");
        assert_eq!(with(&[Record::Stopping(child)]), None, "{end:?}");
        // A commit later is too late.
        assert_eq!(with(&[Record::Committed, closed(child)]), Some(Rule::Orphan), "{end:?}");
    }
    assert_eq!(check(&[Record::Claimed(run(1), SESSION), Record::Committed]), None);
}

#[test]
fn a_run_hears_of_what_it_has_called() {
    let heard = |n, task| check(&[Record::Heard { token: run(1), n, task }]);
    assert_eq!(heard(1, run(1).child(1)), None);
    assert_eq!(heard(2, run(1).child(1)), Some(Rule::WrongCall));
    assert_eq!(heard(1, run(2).child(1)), Some(Rule::WrongCall));
}

#[test]
fn what_a_run_wants_no_more_does_not_succeed() {
    let child = |attempt| LeaseToken {
        task: run(1).child(1),
        ..run(attempt)
    };
    let withdrew = Record::Withdrew(run(1).child(1));
    let succeeds = Record::Closed(child(1), StateName::Succeeded);
    let unwanted = Some(Rule::Unwanted);
    assert_eq!(check(&[withdrew.clone(), succeeds.clone()]), unwanted);
    assert_eq!(check(&[withdrew.clone(), closed(run(1).child(1))]), None);
    assert_eq!(check(&[succeeds.clone(), withdrew.clone()]), None);
    // A broker that did not come to write it forgets it.
    let again = Record::Opened(Epoch(6));
    assert_eq!(check(&[withdrew, again, succeeds]), None);
}

#[test]
fn what_is_spawned_comes_with_a_success_and_once() {
    let tasks = [run(1).child(2), run(1).child(3)];
    let spawns = |rest: &[Record]| {
        let mut history = History::default();
        let before = [
            Record::Asked(run(1).task),
            Record::Spawns {
                token: run(1),
                tasks: tasks.to_vec(),
            },
        ];
        for record in before.iter().chain(rest) {
            history.push(Duration::ZERO, record.clone());
        }
        history.check().err().map(|violation| violation.rule)
    };
    let made = tasks.map(Record::Made);
    let success = Record::Closed(run(1), StateName::Succeeded);
    let failure = Record::Closed(run(1), StateName::Dead);
    let other = Record::Closed(run(2), StateName::Succeeded);
    let [first, second] = made.clone();
    let end = Record::Committed;
    let all = [success.clone(), first.clone(), second.clone(), end.clone()];
    assert_eq!(spawns(&all), None);
    assert_eq!(spawns(&[failure.clone(), end.clone()]), None);
    assert_eq!(spawns(&[other.clone(), end.clone()]), None);
    for wrong in [
        vec![success.clone(), first.clone(), end.clone()],
        vec![first.clone(), second.clone(), end.clone(), success, end.clone()],
        vec![failure, first.clone(), second.clone(), end.clone()],
        vec![other, first.clone(), second, end.clone()],
        [&all[..], &[first, end]].concat(),
    ] {
        assert_eq!(spawns(&wrong), Some(Rule::Spawned), "{wrong:?}");
    }
}
