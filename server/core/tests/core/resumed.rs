//! Streams that go on: readers, Emits, brokers and workers that go away and come back.

mod checkpoints;
mod restarts;
mod world;

use std::time::Duration;

use asynq_core::{
    Checkpoint, ConsumerId, Credit, DeadReason, EmitResume, Event, ItemBatch, LeaseToken, Left, Outcome, Place, Reader,
    Reason, Refusal, Reply, StateName, StopCause, Tail, TaskId, Verdict, limits,
};

use crate::shard::{Shard, failure, session};
use crate::streams::{READER, batch, credit, iterate_as, reader};

const WINDOW: Credit = Credit {
    acked: 0,
    limit_index: 4,
    limit_bytes: 1_000,
};

/// A worker of one slot that runs a stream which can be replayed.
fn replayed(credit: Credit) -> (Shard, LeaseToken) {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["replayed"]);
    iterate_as(&mut shard, "replayed", credit);
    let token = shard.assigned().token;
    (shard, token)
}

fn emit(shard: &mut Shard, n: u8, token: LeaseToken, batch: ItemBatch) {
    shard.apply(Event::Items {
        session: session(n),
        token,
        batch,
    });
}

fn mark(shard: &mut Shard, n: u8, token: LeaseToken, checkpoint: Checkpoint) {
    shard.apply(Event::Checkpoint {
        session: session(n),
        token,
        checkpoint,
    });
}

/// The checkpoint that the generators of these tests name before item `index`.
fn marked(index: u64) -> Checkpoint {
    let token = format!("row {index}").into();
    Checkpoint { index, token }
}

fn open(shard: &mut Shard, n: u8, token: LeaseToken, resume: Option<EmitResume>) {
    shard.apply(Event::EmitOpened {
        session: session(n),
        token,
        resume,
    });
}

fn cut(shard: &mut Shard, task: TaskId) {
    shard.apply(Event::ReaderGone {
        task,
        consumer: READER,
        open_seq: 0,
        how: Left::Cut,
    });
}

fn flow(shard: &mut Shard, task: TaskId, credit: Credit) {
    shard.apply(Event::Flow {
        task,
        consumer: READER,
        open_seq: 0,
        credit,
    });
}

fn end(shard: &mut Shard, n: u8, token: LeaseToken, place: Place) -> Verdict {
    shard.apply(Event::Iterated {
        session: session(n),
        token,
        count: place.index,
        digest: place.digest,
    });
    shard.verdict(token)
}

/// The place before item `index` of the stream that `batch` makes.
fn place(index: u64) -> Place {
    let mut place = Place::START;
    (0..index).for_each(|_| place.pass(b"00"));
    place
}

/// The same of another stream.
fn other_place(index: u64) -> Place {
    Place {
        digest: Some(7),
        ..place(index)
    }
}

fn resume(floor: u64, head: u64) -> Option<EmitResume> {
    Some(EmitResume {
        floor: place(floor),
        head,
        credit: credit(floor, floor + 4, 1_000),
    })
}

fn attached(shard: &mut Shard, task: TaskId, reader: Reader) -> Place {
    let Reply::Attached { at, existed: true, .. } = shard.attach(task, reader) else {
        panic!("not attached");
    };
    assert_eq!(shard.reading(), (task, at));
    at
}

#[test]
fn a_reader_that_comes_back_gets_what_it_has_not_had_and_no_more() {
    let (mut shard, token) = replayed(WINDOW);
    emit(&mut shard, 1, token, batch(0, 3));
    shard.items();
    cut(&mut shard, token.task);
    // The run goes on to the end of its window, and everything is kept.
    emit(&mut shard, 1, token, batch(3, 1));
    shard.quiet();
    let at = attached(&mut shard, token.task, reader(2, place(2), credit(2, 6, 100)));
    assert_eq!(at, place(2));
    assert_eq!(shard.credited().1, credit(2, 6, 1_000));
    assert_eq!((shard.items(), shard.items()), (batch(2, 1), batch(3, 1)));
    emit(&mut shard, 1, token, batch(4, 2));
    assert_eq!(shard.items(), batch(4, 2));
    let over = end(&mut shard, 1, token, place(6));
    assert_eq!(over, Verdict::Accepted(StateName::Succeeded));
    shard.finished();
}

#[test]
fn old_openings_other_readers_and_what_is_gone_are_refused() {
    let (mut shard, token) = replayed(WINDOW);
    let task = token.task;
    emit(&mut shard, 1, token, batch(0, 4));
    shard.items();
    flow(&mut shard, task, credit(2, 4, 1_000));
    let other = |from| Reader {
        consumer: ConsumerId([6; 16]),
        ..reader(1, from, WINDOW)
    };
    let refused = |shard: &mut Shard, reader| match shard.attach(task, reader) {
        Reply::Refused(refusal) => refusal,
        reply => panic!("{reply:?}"),
    };
    assert_eq!(
        refused(&mut shard, reader(1, place(3), WINDOW)),
        Refusal::StaleReader(task)
    );
    assert_eq!(refused(&mut shard, other(place(3))), Refusal::BeingRead(task));
    let gone = refused(&mut shard, reader(2, place(1), WINDOW));
    assert_eq!(gone, Refusal::BelowFloor { task, floor: 2 });
    assert!(gone.to_string().contains("items before 2"), "{gone}");
    let ahead = refused(&mut shard, reader(2, Place::at_index(9), WINDOW));
    assert_eq!(ahead, Refusal::BeyondHead { task, head: 4 });
    let mixed_up = refused(&mut shard, reader(2, other_place(3), WINDOW));
    assert_eq!(mixed_up, Refusal::ReadOtherItems { task, index: 3 });
    let taker = Reader {
        take_over: true,
        ..other(Place::at_index(3))
    };
    assert_eq!(
        attached(&mut shard, task, taker),
        place(3),
        "the broker knows the bytes"
    );
    shard.credited();
    assert_eq!(shard.items(), batch(3, 1));
    // Whom it was taken from neither goes on nor stops it.
    flow(&mut shard, task, credit(4, 99, 999));
    shard.apply(Event::ReaderGone {
        task,
        consumer: READER,
        open_seq: 1,
        how: Left::Stopped,
    });
    shard.quiet();
}

#[test]
fn who_does_not_come_back_within_the_grace_ends_the_stream() {
    let grace = Duration::from_secs(10);
    let for_ten = |open_seq| Reader {
        grace,
        ..reader(open_seq, Place::START, WINDOW)
    };
    let (mut shard, token) = replayed(WINDOW);
    attached(&mut shard, token.task, for_ten(2));
    cut(&mut shard, token.task);
    shard.advance(grace - Duration::from_secs(1));
    attached(&mut shard, token.task, for_ten(3));
    shard.advance(grace);
    shard.quiet();
    cut(&mut shard, token.task);
    shard.apply(Event::Heartbeat(session(1)));
    shard.advance(grace);
    assert_eq!(shard.stopped(), (token, StopCause::Cancelled));
    shard.ended(1, token);
    assert_eq!(shard.finished().outcome, Outcome::Cancelled);
}

#[test]
fn a_stream_that_nobody_reads_is_not_begun() {
    let (mut shard, token) = replayed(WINDOW);
    let waiting = iterate_as(&mut shard, "replayed", WINDOW);
    cut(&mut shard, waiting);
    let why = shard.core.explain(shard.now, waiting).expect("live");
    assert_eq!(why.reason, Reason::WaitingReader);
    assert!(why.message.contains("cancelled in 30"), "{}", why.message);
    end(&mut shard, 1, token, Place::START);
    shard.finished();
    shard.quiet(); // A slot is free, and it stays.
    attached(&mut shard, waiting, reader(2, Place::START, WINDOW));
    assert_eq!(shard.assigned().token.task, waiting);
    // No grace at all.
    let hasty = Reader {
        grace: Duration::ZERO,
        ..reader(3, Place::START, WINDOW)
    };
    attached(&mut shard, waiting, hasty);
    cut(&mut shard, waiting);
    shard.stopped();
}

#[test]
fn an_emit_that_breaks_goes_on_where_the_broker_is() {
    let (mut shard, token) = replayed(WINDOW);
    emit(&mut shard, 1, token, batch(0, 2));
    shard.items();
    open(&mut shard, 1, token, resume(0, 3));
    assert_eq!(shard.send_from(), 2);
    assert_eq!(shard.credited().1, WINDOW);
    emit(&mut shard, 1, token, batch(2, 1));
    assert_eq!(shard.items(), batch(2, 1));
    // One that cannot have what is due is no such worker.
    open(&mut shard, 1, token, resume(0, 1));
    assert_eq!(shard.stopped(), (token, StopCause::Stale));
    assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::Error));
}

#[test]
fn a_lost_run_is_replayed_from_where_the_broker_is() {
    let (mut shard, token) = replayed(WINDOW);
    emit(&mut shard, 1, token, batch(0, 3));
    shard.items();
    shard.disconnect(1);
    shard.connect(2, 1, &["replayed"]);
    shard.advance(limits::RESET_GRACE);
    let run = shard.assigned();
    let start = run.stream.expect("a stream");
    assert_eq!((start.start, start.credit), (place(3), WINDOW));
    emit(&mut shard, 2, run.token, batch(3, 1));
    assert_eq!(shard.items(), batch(3, 1), "nothing comes twice");
    end(&mut shard, 2, run.token, place(4));
    shard.finished();
    assert_eq!(shard.durable.record(token.task).counters.losses, 1);
}

#[test]
fn one_that_cannot_be_replayed_is_dead_and_says_how_far_it_came() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["rows"]);
    iterate_as(&mut shard, "rows", WINDOW);
    let token = shard.assigned().token;
    emit(&mut shard, 1, token, batch(0, 3));
    shard.items();
    shard.disconnect(1);
    shard.advance(limits::RESET_GRACE);
    let finished = shard.finished();
    assert_eq!(finished.outcome, Outcome::Dead(DeadReason::WorkerLost));
    let why = finished.failure.expect("why").message;
    assert_eq!(
        why,
        "its worker went away before the stream had ended; 3 items had come, and the iterator is not one that can be \
         run again"
    );
}

#[test]
fn a_generator_that_yields_something_else_is_found_out() {
    // By the worker, at the seam.
    let (mut shard, token) = replayed(WINDOW);
    let differs = asynq_core::Failure {
        kind: asynq_core::Failure::NON_DETERMINISTIC.into(),
        ..failure("item 2", false)
    };
    shard.fail(1, token, differs);
    assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::NonDeterministic));

    // By the broker, where the run passes the place a reader has read to.
    let (mut shard, token) = replayed(WINDOW);
    attached(&mut shard, token.task, reader(2, other_place(2), WINDOW));
    shard.credited();
    emit(&mut shard, 1, token, batch(0, 3));
    assert_eq!(shard.stopped(), (token, StopCause::Stale));
    let finished = shard.finished();
    assert_eq!(finished.outcome, Outcome::Dead(DeadReason::NonDeterministic));
    assert!(!shard.durable.has_result(token.task), "wrong items are not to be read");

    // By the broker, at the end.
    let (mut shard, token) = replayed(WINDOW);
    emit(&mut shard, 1, token, batch(0, 2));
    shard.items();
    end(&mut shard, 1, token, other_place(2));
    shard.stopped();
    assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::Error));
}

#[test]
fn what_nobody_has_taken_is_kept_with_the_end() {
    let (mut shard, token) = replayed(WINDOW);
    emit(&mut shard, 1, token, batch(0, 3));
    shard.items();
    flow(&mut shard, token.task, credit(1, 4, 1_000));
    cut(&mut shard, token.task);
    emit(&mut shard, 1, token, batch(3, 1));
    end(&mut shard, 1, token, place(4));
    assert_eq!(shard.finished().result, None, "items are no result");
    let kept = shard.durable.result(token.task).and_then(Tail::unpack);
    assert_eq!(kept.expect("it is kept").batches(), [batch(1, 2), batch(3, 1)]);

    let (mut shard, token) = replayed(WINDOW);
    emit(&mut shard, 1, token, batch(0, 2));
    shard.items();
    shard.fail(1, token, failure("broken", false));
    shard.finished();
    let kept = shard.durable.result(token.task).and_then(Tail::unpack);
    assert_eq!(
        kept.expect("it is kept").batches(),
        [batch(0, 2)],
        "before its failure come its items"
    );
}

#[test]
fn a_stream_that_fails_with_attempts_left_goes_on_where_it_was() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["replayed"]);
    let id = shard.new_id();
    let spec = crate::shard::spec("replayed").with(|options| options.max_attempts = Some(2));
    shard.try_iterate(id, &spec, Some(reader(1, Place::START, WINDOW)));
    shard.reading();
    let token = shard.assigned().token;
    emit(&mut shard, 1, token, batch(0, 2));
    shard.items();
    assert_eq!(
        shard.fail(1, token, failure("for now", true)),
        Verdict::Accepted(StateName::Scheduled)
    );
    shard.advance(limits::BACKOFF_BASE);
    assert_eq!(shard.assigned().stream.expect("a stream").start, place(2));
}

#[test]
fn one_that_cannot_be_replayed_is_claimed_before_it_begins() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["rows"]);
    let task = iterate_as(&mut shard, "rows", WINDOW);
    let run = shard.assigned();
    assert!(run.at_most_once, "it waits for its claim");
    assert_eq!(shard.durable.state(task), StateName::Running);
}

#[test]
fn an_emit_that_was_given_up_is_known_by_how_little_it_has() {
    let (mut shard, token) = replayed(WINDOW);
    emit(&mut shard, 1, token, batch(0, 3));
    shard.items();
    for (head, is_old) in [(2, true), (3, false), (4, false)] {
        let resume = resume(0, head).expect("where it stands");
        assert_eq!(shard.core.is_old_emit(token, &resume), is_old, "{head}");
    }
}
