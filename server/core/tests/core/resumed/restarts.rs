//! Streams and a broker that was killed: what is known again, and by whom.

use super::*;

#[test]
fn after_a_restart_the_run_says_where_it_stands_and_the_reader_goes_on() {
    for reader_first in [true, false] {
        let (mut shard, token) = replayed(WINDOW);
        emit(&mut shard, 1, token, batch(0, 4));
        shard.items();
        flow(&mut shard, token.task, credit(2, 6, 1_000));
        shard.credited();
        shard.advance(limits::CLAIM_AFTER);
        shard.restart();
        shard.resume(1, 1, &["replayed"], &[token]);
        let back = |shard: &mut Shard| {
            let at = attached(shard, token.task, reader(2, place(3), credit(2, 6, 994)));
            assert_eq!(at, place(3));
        };
        if reader_first {
            back(&mut shard);
            assert_eq!(shard.credited().1.limit_index, 6);
        }
        let by_index = Reader {
            consumer: ConsumerId([6; 16]),
            take_over: true,
            ..reader(1, Place::at_index(3), WINDOW)
        };
        let early = shard.attach(token.task, by_index);
        assert_eq!(early, Reply::Refused(Refusal::NotPlaced(token.task)));
        open(&mut shard, 1, token, resume(2, 5));
        assert_eq!(shard.send_from(), 2);
        shard.credited();
        if !reader_first {
            back(&mut shard);
            shard.quiet(); // The run knew the credit.
        }
        emit(&mut shard, 1, token, batch(2, 3));
        assert_eq!(shard.items(), batch(3, 2), "from the item it wants");
        end(&mut shard, 1, token, place(5));
        shard.finished();
        assert_eq!(shard.durable.state(token.task), StateName::Succeeded);
    }
}

#[test]
fn a_reader_that_wants_what_the_run_has_dropped_is_told() {
    let (mut shard, token) = replayed(WINDOW);
    shard.advance(limits::CLAIM_AFTER);
    shard.restart();
    shard.resume(1, 1, &["replayed"], &[token]);
    attached(&mut shard, token.task, reader(2, place(1), WINDOW));
    shard.credited();
    open(&mut shard, 1, token, resume(2, 4));
    let effects = shard.drain();
    let told = |effect: &asynq_core::Effect| matches!(effect, asynq_core::Effect::NotRead { floor: 2, .. });
    assert!(effects.iter().any(told), "{effects:?}");
}

#[test]
fn broker_and_worker_gone_the_reader_says_where_to_go_on() {
    for (name, replays) in [("replayed", true), ("rows", false)] {
        let mut shard = Shard::new();
        shard.connect(1, 1, &[name]);
        let task = iterate_as(&mut shard, name, WINDOW);
        let token = shard.assigned().token;
        emit(&mut shard, 1, token, batch(0, 3));
        shard.items();
        shard.restart(); // Before there was a claim.
        shard.connect(2, 1, &[name]);
        shard.advance(limits::LEASE);
        let why = shard.core.explain(shard.now, task);
        assert!(why.is_none_or(|why| why.reason == Reason::WaitingReader));
        shard.drain();
        if shard.durable.state(task).is_terminal() {
            continue; // The lease was longer than the grace.
        }
        attached(&mut shard, task, reader(2, place(3), credit(3, 9, 900)));
        if replays {
            let start = shard.assigned().stream.expect("a stream");
            assert_eq!((start.start, start.credit), (place(3), credit(3, 9, 906)));
        } else {
            assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::WorkerLost));
        }
    }
}

#[test]
fn a_run_that_had_sent_nothing_before_a_restart_begins_again() {
    let (mut shard, token) = replayed(WINDOW);
    shard.advance(limits::CLAIM_AFTER);
    shard.restart();
    shard.resume(1, 1, &["replayed"], &[token]);
    attached(&mut shard, token.task, reader(2, Place::START, WINDOW));
    shard.credited();
    // Its first Emit: nobody knows how far it may go.
    open(&mut shard, 1, token, None);
    assert_eq!(shard.stopped(), (token, StopCause::Stale));
    let run = shard.assigned();
    assert_eq!(run.stream.expect("a stream").start, Place::START);
    assert_eq!(shard.durable.record(token.task).counters.losses, 0);
}

#[test]
fn over_a_restart_a_run_is_what_its_worker_declares() {
    // One that cannot be replayed is not begun again when its worker does not come back.
    let mut shard = Shard::new();
    shard.connect(1, 1, &["rows"]);
    let task = iterate_as(&mut shard, "rows", WINDOW);
    shard.assigned();
    shard.advance(limits::CLAIM_AFTER);
    shard.restart();
    attached(&mut shard, task, reader(2, Place::START, WINDOW));
    shard.credited();
    shard.connect(2, 1, &["rows"]);
    shard.advance(limits::LEASE);
    let over = shard.drain();
    let ends = |effect: &asynq_core::Effect| matches!(effect, asynq_core::Effect::Finished(end) if end.outcome == Outcome::Dead(DeadReason::WorkerLost));
    assert!(over.iter().any(ends), "{over:?}");

    // One that can is, though its claim was never written.
    let (mut shard, token) = replayed(WINDOW);
    shard.restart();
    shard.resume(1, 1, &["replayed"], &[token]);
    attached(&mut shard, token.task, reader(2, Place::START, WINDOW));
    shard.credited();
    open(&mut shard, 1, token, resume(0, 0));
    shard.drain();
    shard.disconnect(1);
    shard.connect(2, 1, &["replayed"]);
    shard.advance(limits::RESET_GRACE);
    assert_eq!(shard.assigned().token.task, token.task);
}

#[test]
fn what_only_the_broker_had_is_yielded_again_to_whoever_wants_it() {
    for reader_first in [true, false] {
        let (mut shard, token) = replayed(WINDOW);
        let task = token.task;
        emit(&mut shard, 1, token, batch(0, 3));
        shard.items();
        shard.disconnect(1);
        shard.connect(2, 1, &["replayed"]);
        shard.advance(limits::RESET_GRACE);
        let run = shard.assigned();
        // It begins behind what the broker has, and the broker dies.
        let stands = EmitResume {
            floor: place(3),
            head: 3,
            credit: run.stream.expect("a stream").credit,
        };
        shard.advance(limits::CLAIM_AFTER);
        shard.restart();
        shard.resume(2, 1, &["replayed"], &[run.token]);
        if reader_first {
            attached(&mut shard, task, reader(2, place(1), WINDOW));
            shard.credited();
        }
        open(&mut shard, 2, run.token, Some(stands));
        assert_eq!(shard.stopped(), (run.token, StopCause::Stale));
        if !reader_first {
            // It must not end before its reader is back: who would have the first items?
            let why = shard.core.explain(shard.now, task).expect("live");
            assert_eq!(why.reason, Reason::WaitingReader);
            attached(&mut shard, task, reader(2, place(1), WINDOW));
        }
        assert_eq!(shard.assigned().stream.expect("a stream").start, place(1));
    }
}

#[test]
fn an_index_alone_is_believed_where_nobody_knows_better() {
    // Nobody runs it: the stream goes on there.
    let (mut shard, token) = replayed(WINDOW);
    shard.restart();
    shard.advance(limits::RESUME_GRACE);
    let by_index = |consumer, index| Reader {
        consumer: ConsumerId([consumer; 16]),
        take_over: true,
        ..reader(1, Place::at_index(index), WINDOW)
    };
    attached(&mut shard, token.task, by_index(6, 0));
    attached(&mut shard, token.task, by_index(7, 3));
    shard.connect(2, 1, &["replayed"]);
    let start = shard.drain().into_iter().find_map(|effect| match effect {
        asynq_core::Effect::Assign(run) => run.stream,
        _ => None,
    });
    assert_eq!(start.expect("it runs").start.index, 3);

    // Somebody does, and has not said how far it came.
    let (mut shard, token) = replayed(WINDOW);
    emit(&mut shard, 1, token, batch(0, 3));
    shard.items();
    shard.advance(limits::CLAIM_AFTER);
    shard.restart();
    shard.resume(1, 1, &["replayed"], &[token]);
    open(&mut shard, 1, token, resume(0, 3));
    shard.drain();
    let early = shard.attach(token.task, by_index(6, 2));
    assert_eq!(early, Reply::Refused(Refusal::NotPlaced(token.task)));
    let beyond = shard.attach(token.task, by_index(6, 99));
    assert_eq!(
        beyond,
        Reply::Refused(Refusal::BeyondHead {
            task: token.task,
            head: 0
        })
    );
}
