//! Idempotency keys: who has one, and what becomes of an enqueue that finds it taken.

use std::collections::BTreeMap;
use std::time::Duration;

use asynq_core::{
    CancelOutcome, DeadReason, Effect, Key, KeyError, OnKey, Outcome, Refusal, Reply, StateName, TaskId, answer_ended,
    limits,
};
use proptest::prelude::*;

use crate::shard::{Shard, Spec, failure, name, spec, task_spec};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn keyed(text: &str, arguments: &'static str, on_key: OnKey) -> Spec {
    Spec {
        arguments,
        on_key,
        ..spec("a").with(|o| o.key = Some(key(text)))
    }
}

/// Whose task an enqueue leads to.
fn try_enqueue(shard: &mut Shard, spec: &Spec) -> Result<(TaskId, bool), (TaskId, bool)> {
    let id = shard.new_id();
    match shard.try_enqueue(id, spec) {
        Reply::Enqueued { task, existed, .. } => {
            assert!(existed || task == id);
            Ok((task, existed))
        }
        Reply::Refused(Refusal::KeyTaken(taken)) => Err((taken.task, taken.same)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_bounded_text() {
    let longest = "ü".repeat(limits::MAX_KEY_BYTES / 2);
    for good in ["k", "order 4711/ä — ☃", "{\"a\":1}", &longest] {
        assert_eq!(Key::new(good).unwrap().as_str(), good);
    }
    let too_long = format!("{longest}x");
    for (bad, why) in [
        ("", KeyError::Empty),
        (&too_long, KeyError::TooLong(201)),
        ("a\nb", KeyError::Control('\n')),
        ("\u{7f}", KeyError::Control('\u{7f}')),
        ("\u{85}", KeyError::Control('\u{85}')),
    ] {
        assert_eq!(Key::new(bad), Err(why));
    }
}

/// The table of docs/guides/idempotency.md, line by line.
#[test]
fn what_becomes_of_a_second_one() {
    use OnKey::{Refuse, Replace, Return, Same};
    for started in [false, true] {
        for (on_key, arguments, expected) in [
            (Same, "1", "first"),
            (Same, "2", "refused"),
            (Return, "1", "first"),
            (Return, "2", if started { "refused" } else { "first" }),
            (Replace, "1", if started { "first" } else { "second" }),
            (Replace, "2", if started { "refused" } else { "second" }),
            (Refuse, "1", "refused"),
            (Refuse, "2", "refused"),
        ] {
            let mut shard = Shard::new();
            let (first, _) = try_enqueue(&mut shard, &keyed("k", "1", Same)).unwrap();
            if started {
                shard.connect(1, 1, &["a"]);
                shard.assigned();
            }
            let found = match try_enqueue(&mut shard, &keyed("k", arguments, on_key)) {
                Ok((task, true)) if task == first => "first",
                Ok((_, false)) => "second",
                Err((task, same)) => {
                    assert_eq!((task, same), (first, arguments == "1"));
                    "refused"
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{on_key:?} {arguments} started: {started}");
            let ends = usize::from(found == "second");
            assert_eq!(shard.drain().len(), ends, "only what is replaced ends");
            // Of one that is over the shell decides by the same table.
            let task = task_spec(TaskId([9; 16]), &keyed("k", arguments, on_key));
            if started {
                let digest = shard.durable.record(first).digest;
                let answered = answer_ended(&task, first, digest).is_ok();
                assert_eq!(answered, expected == "first", "{on_key:?} {arguments} after its end");
            }
        }
    }
}

/// The grant of before the restart was not written, and its worker may run it still.
#[test]
fn in_the_grace_after_a_restart_a_task_counts_as_started() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["a"]);
    let (first, _) = try_enqueue(&mut shard, &keyed("k", "1", OnKey::Same)).unwrap();
    let token = shard.assigned().token;
    shard.restart();
    for on_key in [OnKey::Replace, OnKey::Return] {
        let refused = try_enqueue(&mut shard, &keyed("k", "2", on_key));
        assert_eq!(refused, Err((first, false)), "{on_key:?}");
    }
    shard.resume(1, 1, &["a"], &[token]);
    shard.complete(1, token);
    shard.drain();
}

#[test]
fn what_is_replaced_is_cancelled_and_says_by_what() {
    let mut shard = Shard::new();
    let mut delayed = keyed("k", "1", OnKey::Replace);
    delayed.start_at = Some(shard.now + Duration::from_secs(5));
    let first = shard.enqueue(&delayed);
    shard.advance(Duration::from_secs(4));
    delayed.start_at = Some(shard.now + Duration::from_secs(5));
    // The same once more, later: so it waits from anew.
    let second = shard.enqueue(&delayed);
    let end = shard.finished();
    assert_eq!((end.task, &end.outcome), (first, &Outcome::Cancelled));
    let record = shard.durable.record(first).clone();
    let told = record.history(None).pop().unwrap();
    assert!(told.message.contains(&second.to_string()), "{told:?}");
    assert!(record.options.key.is_none(), "it has its key no more");
    // Sent again, the one that was replaced is itself, and replaces nothing.
    let Reply::Cancelled { outcome, .. } = shard.cancel(second) else {
        panic!("it lives")
    };
    assert_eq!(outcome, CancelOutcome::Cancelled);
    shard.finished();

    shard.connect(1, 1, &["a"]);
    let third = shard.enqueue(&keyed("k", "3", OnKey::Replace));
    let run = shard.assigned().token;
    assert_eq!(run.task, third);
    // It runs: what would replace it comes to nothing.
    assert_eq!(
        try_enqueue(&mut shard, &keyed("k", "4", OnKey::Replace)),
        Err((third, false))
    );
    // Nor after a failure, while it waits to be tried again.
    shard.fail(1, run, failure("no", true));
    assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::Error));
    shard.retry(third);
    assert_eq!(
        try_enqueue(&mut shard, &keyed("k", "4", OnKey::Replace)),
        Err((third, false))
    );
    shard.drain();
}

/// An id that is known is answered for, whatever its key leads to by now.
#[test]
fn a_resend_is_its_own_task() {
    let mut shard = Shard::new();
    let spec = keyed("k", "1", OnKey::Replace);
    let id = shard.new_id();
    for existed in [false, true, true] {
        let reply = shard.try_enqueue(id, &spec);
        assert!(matches!(reply, Reply::Enqueued { task, existed: e, .. } if task == id && e == existed));
    }
    let refused = keyed("k", "1", OnKey::Refuse);
    assert!(matches!(
        shard.try_enqueue(id, &refused),
        Reply::Enqueued { existed: true, .. }
    ));
    shard.quiet();
}

#[test]
fn keys_are_of_one_queue_and_outlive_restarts() {
    let mut shard = Shard::new();
    let in_queue = |queue| Spec {
        queue,
        ..keyed("k", "1", OnKey::Same)
    };
    let (one, other) = (shard.enqueue(&in_queue("one")), shard.enqueue(&in_queue("other")));
    for restarted in [false, true] {
        if restarted {
            shard.restart();
        }
        for (queue, task) in [("one", one), ("other", other)] {
            assert_eq!(shard.core.keyed(&name(queue), &key("k")), Some(task));
            assert_eq!(try_enqueue(&mut shard, &in_queue(queue)), Ok((task, true)));
        }
        assert_eq!(shard.core.keyed(&name("third"), &key("k")), None);
    }
    shard.cancel(one);
    assert_eq!(
        shard.core.keyed(&name("one"), &key("k")),
        None,
        "the store's, from here on"
    );
    shard.drain();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whoever comes, in whatever order: a key has one live task, and each enqueue
    /// is answered with that one, replaces it or is refused.
    #[test]
    fn a_key_has_one_live_task(
        steps in proptest::collection::vec((0..3_usize, 0..2_usize, 0..4_usize, 0..8_u8), 1..60),
    ) {
        let mut shard = Shard::new();
        shard.connect(1, 1, &["a"]);
        let mut holders: BTreeMap<usize, TaskId> = BTreeMap::new();
        for (k, arguments, on_key, then) in steps {
            let on_key = [OnKey::Same, OnKey::Return, OnKey::Replace, OnKey::Refuse][on_key];
            let text = ["x", "y", "z"][k];
            let before = holders.get(&k).copied();
            match try_enqueue(&mut shard, &keyed(text, ["1", "2"][arguments], on_key)) {
                Ok((task, true)) => prop_assert_eq!(Some(task), before),
                Ok((task, false)) => {
                    if let Some(before) = before {
                        prop_assert_eq!(on_key, OnKey::Replace);
                        prop_assert_eq!(shard.durable.state(before), StateName::Cancelled);
                    }
                    holders.insert(k, task);
                }
                Err((task, _)) => prop_assert_eq!(Some(task), before),
            }
            match then {
                0 => {
                    shard.restart();
                    shard.connect(1, 1, &["a"]);
                }
                1 => {
                    // Of a task that was cancelled meanwhile that is its end as well.
                    for effect in shard.drain() {
                        if let Effect::Assign(run) = effect {
                            shard.complete(1, run.token);
                        }
                    }
                }
                2 => if let Some(&task) = holders.values().next() {
                    shard.cancel(task);
                },
                _ => {}
            }
            holders.retain(|_, task| shard.core.is_live(*task));
            for (k, task) in &holders {
                prop_assert_eq!(shard.core.keyed(&name("default"), &key(["x", "y", "z"][*k])), Some(*task));
            }
        }
        shard.drain();
    }
}
