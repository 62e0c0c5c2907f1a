//! Runs that read the items of a task they have called.

use asynq_core::Place;

use super::*;
use crate::shard::Spec;
use crate::streams::{credit, reader};

fn stream(name: &'static str) -> Spec {
    spec(name).with(|options| options.stream = true)
}

fn read(shard: &mut Shard, id: TaskId) {
    let reply = shard.attach(id, reader(1, Place::START, credit(0, 4, 100)));
    assert!(matches!(reply, Reply::Attached { existed: true, .. }), "{reply:?}");
    assert_eq!(shard.reading(), (id, Place::START));
}

/// A run that has called a stream, on a worker with one slot.
fn parent_of_a_stream() -> (Shard, LeaseToken, TaskId) {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["parent", "rows"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    let id = called(&shard.call(1, parent, 1, &stream("rows")));
    (shard, parent, id)
}

#[test]
fn a_called_stream_waits_for_its_reader_and_has_the_slot_of_its_caller() {
    let (mut shard, parent, id) = parent_of_a_stream();
    shard.quiet();
    assert_eq!(shard.core.explain(shard.now, id).unwrap().reason, Reason::WaitingReader);
    read(&mut shard, id);
    let rows = shard.assigned();
    assert_eq!(rows.token.task, parent.child(1));
    assert!(rows.stream.is_some());
    // The slot is lent once, not twice.
    let next = shard.enqueue(&spec("parent"));
    shard.quiet();
    shard.apply(Event::Iterated {
        session: session(1),
        token: rows.token,
        count: 0,
        digest: None,
    });
    assert_eq!(shard.verdict(rows.token), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
    shard.quiet();
    shard.complete(1, parent);
    shard.finished();
    assert_eq!(shard.assigned().token.task, next);
}

#[test]
fn a_called_stream_that_nobody_reads_is_cancelled_and_its_caller_goes_on() {
    let (mut shard, parent, id) = parent_of_a_stream();
    for _ in 0..2 {
        shard.apply(Event::Heartbeat(session(1)));
        shard.advance(limits::DETACH_GRACE / 2);
    }
    assert_eq!(finished(&shard.drain()), [(id, Outcome::Cancelled)]);
    assert_eq!(shard.complete(1, parent), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
}

#[test]
fn the_end_of_a_run_ends_the_stream_it_reads() {
    let (mut shard, parent, id) = parent_of_a_stream();
    read(&mut shard, id);
    let rows = shard.assigned().token;
    shard.complete(1, parent);
    assert_eq!(stops(&shard.drain()), [(rows, StopCause::Cancelled)]);
}

#[test]
fn a_call_that_is_said_again_is_the_same_stream() {
    let (mut shard, parent, id) = parent_of_a_stream();
    let again = shard.call(1, parent, 1, &stream("rows"));
    let is_known = matches!(again, Reply::Enqueued { task, existed: true, .. } if task == id);
    assert!(is_known, "{again:?}");
}

#[test]
fn a_called_stream_outlives_a_restart_with_the_run_that_reads_it() {
    let (mut shard, parent, id) = parent_of_a_stream();
    read(&mut shard, id);
    let rows = shard.assigned().token;
    shard.restart();
    shard.resume(1, 1, &["parent", "rows"], &[parent, rows]);
    let reply = shard.attach(id, reader(2, Place::START, credit(0, 4, 100)));
    assert!(matches!(reply, Reply::Attached { .. }), "{reply:?}");
    shard.drain();
    shard.complete(1, parent);
    assert_eq!(stops(&shard.drain()), [(rows, StopCause::Cancelled)]);
}
