//! Planted histories of enqueues under one key, as in `tests`.

use std::time::Duration;

use asynq_core::{Epoch, Grant, Key, LeaseToken, OnKey, SessionId, StateName, TaskId};

use super::{History, Keyed, Record, Rule};

const SESSION: SessionId = SessionId([2; 16]);
const FIRST: TaskId = TaskId([1; 16]);
const SECOND: TaskId = TaskId([2; 16]);
const WORDS: u64 = 7;

fn key() -> Key {
    Key::new("this").expect("this is a proper key")
}

fn token(attempt: u32) -> LeaseToken {
    let epoch = Epoch(u64::from(attempt.min(1)));
    LeaseToken {
        task: FIRST,
        grant: Grant { epoch, attempt },
    }
}

/// The second one asks, in these words.
fn asks(mode: OnKey, words: u64) -> Keyed {
    Keyed {
        task: SECOND,
        key: key(),
        mode,
        words,
        since: Duration::from_secs(5),
    }
}

/// Checks what follows where the first one has the key, a second apart.
fn check(rest: &[Record]) -> Option<Rule> {
    let mut history = History::default();
    let before = [
        Record::Asked(FIRST),
        Record::Asked(SECOND),
        Record::HasKey(FIRST, key(), WORDS),
        Record::Committed,
    ];
    for (second, record) in (0..).zip(before.iter().chain(rest)) {
        history.push(Duration::from_secs(second), record.clone());
    }
    history.check().err().map(|violation| violation.rule)
}

#[test]
fn a_key_has_one_task() {
    let second = Record::HasKey(SECOND, key(), WORDS);
    let ask = |mode| Record::AsksKey(asks(mode, WORDS));
    let replaced = Record::Closed(token(0), StateName::Cancelled);
    let had_begun = Record::Closed(token(1), StateName::Cancelled);
    let end = Record::Committed;
    let replaces = [ask(OnKey::Replace), replaced.clone(), second.clone(), end.clone()];
    assert_eq!(check(&replaces), None);
    for wrong in [
        // It is there still, was over before, had begun, or was not to be replaced.
        vec![ask(OnKey::Replace), second.clone(), end.clone()],
        vec![
            ask(OnKey::Replace),
            replaced.clone(),
            end.clone(),
            second.clone(),
            end.clone(),
        ],
        vec![ask(OnKey::Replace), had_begun, second.clone(), end.clone()],
        vec![ask(OnKey::Return), replaced, second, end],
    ] {
        assert_eq!(check(&wrong), Some(Rule::KeyTwice), "{wrong:?}");
    }
}

#[test]
fn who_comes_later_is_answered_by_the_rules() {
    let answer = |begun: bool, mode, words, refused| {
        let begun = begun.then(|| Record::Claimed(token(1), SESSION));
        let answer = Record::KeyAnswered(asks(mode, words), FIRST, refused);
        check(&begun.into_iter().chain([answer]).collect::<Vec<_>>())
    };
    let (same, other) = (WORDS, WORDS + 1);
    let wrong = Some(Rule::KeyAnswer);
    for (mode, words, refused, unstarted, started) in [
        (OnKey::Same, same, None, None, None),
        (OnKey::Same, other, None, wrong, wrong),
        (OnKey::Same, other, Some(false), None, None),
        (OnKey::Same, same, Some(true), wrong, wrong),
        // They are not alike.
        (OnKey::Same, other, Some(true), wrong, wrong),
        (OnKey::Return, other, None, None, wrong),
        (OnKey::Return, other, Some(false), wrong, None),
        (OnKey::Replace, other, None, wrong, wrong),
        (OnKey::Replace, other, Some(false), wrong, None),
        (OnKey::Replace, same, None, None, None),
        (OnKey::Refuse, same, Some(true), None, None),
        (OnKey::Refuse, same, None, wrong, wrong),
    ] {
        let case = (mode, words, refused);
        assert_eq!(answer(false, mode, words, refused), unstarted, "{case:?}, not started");
        assert_eq!(answer(true, mode, words, refused), started, "{case:?}, started");
    }
    // A task without that key.
    let answer = Record::KeyAnswered(asks(OnKey::Same, same), SECOND, None);
    assert_eq!(check(&[answer]), wrong);
}
