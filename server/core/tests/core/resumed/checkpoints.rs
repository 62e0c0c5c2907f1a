//! Streams that go on from a checkpoint: where a run begins, and what is written.

use super::*;

fn streaming(window: Credit) -> (Shard, LeaseToken) {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["marked"]);
    iterate_as(&mut shard, "marked", window);
    let run = shard.assigned();
    assert!(!run.at_most_once, "it may run again");
    let start = run.stream.expect("a stream");
    assert_eq!(start.checkpoint, Some(Checkpoint::default()), "at the beginning");
    (shard, run.token)
}

/// The next run, by worker `n`: where its items begin and where its generator.
fn next_run(shard: &mut Shard, n: u8) -> (LeaseToken, Place, Checkpoint) {
    shard.disconnect(n - 1);
    shard.connect(n, 1, &["marked"]);
    shard.advance(limits::RESET_GRACE);
    let run = shard.assigned();
    let start = run.stream.expect("a stream");
    (run.token, start.start, start.checkpoint.expect("it has checkpoints"))
}

fn written(shard: &Shard, task: TaskId) -> Option<Checkpoint> {
    shard.durable.record(task).checkpoint.clone().map(|it| *it)
}

#[test]
fn a_lost_run_goes_on_from_the_last_checkpoint() {
    let (mut shard, token) = streaming(WINDOW);
    emit(&mut shard, 1, token, batch(0, 2));
    mark(&mut shard, 1, token, marked(2));
    emit(&mut shard, 1, token, batch(2, 2));
    assert_eq!((shard.items(), shard.items()), (batch(0, 2), batch(2, 2)));
    let (token, start, checkpoint) = next_run(&mut shard, 2);
    assert_eq!((start, checkpoint), (place(4), marked(2)));
    flow(&mut shard, token.task, credit(4, 8, 1_000));
    shard.credited();
    // What it yields is not what it would have been, and nobody minds.
    let mut other = batch(4, 2);
    other.data = "xxyy".into();
    emit(&mut shard, 2, token, other.clone());
    assert_eq!(shard.items(), other, "nothing comes twice");
    mark(&mut shard, 2, token, marked(5));
    let (token, start, checkpoint) = next_run(&mut shard, 3);
    assert_eq!((start.index, checkpoint), (6, marked(5)));
    let over = end(&mut shard, 3, token, start);
    assert_eq!(over, Verdict::Accepted(StateName::Succeeded));
    shard.finished();
    assert_eq!(written(&shard, token.task), None, "nobody needs it any more");
}

#[test]
fn without_a_checkpoint_it_begins_at_the_beginning() {
    let (mut shard, token) = streaming(WINDOW);
    emit(&mut shard, 1, token, batch(0, 3));
    shard.items();
    let (_, start, checkpoint) = next_run(&mut shard, 2);
    assert_eq!((start, checkpoint), (place(3), Checkpoint::default()));
}

#[test]
fn only_what_is_acknowledged_is_written_and_not_for_each_item() {
    let (mut shard, token) = streaming(WINDOW);
    let task = token.task;
    shard.advance(limits::CLAIM_AFTER);
    emit(&mut shard, 1, token, batch(0, 4));
    shard.items();
    (1..=3).for_each(|index| mark(&mut shard, 1, token, marked(index)));
    shard.advance(limits::CHECKPOINT_EVERY);
    assert_eq!(written(&shard, task), None, "nothing is acknowledged");
    let writes = shard.durable.changes;
    flow(&mut shard, task, credit(1, 5, 1_000));
    shard.credited();
    shard.advance(limits::CHECKPOINT_EVERY / 2);
    flow(&mut shard, task, credit(2, 6, 1_000));
    shard.credited();
    assert_eq!((written(&shard, task), shard.durable.changes), (None, writes));
    shard.advance(limits::CHECKPOINT_EVERY / 2);
    assert_eq!(
        (written(&shard, task), shard.durable.changes),
        (Some(marked(2)), writes + 1)
    );
    shard.advance(limits::LEASE_MARGIN);
    assert_eq!(shard.durable.changes, writes + 1, "not again");
}

#[test]
fn broker_and_worker_gone_it_goes_on_from_what_was_written() {
    let (mut shard, token) = streaming(WINDOW);
    let task = token.task;
    emit(&mut shard, 1, token, batch(0, 4));
    shard.items();
    (1..=4).for_each(|index| mark(&mut shard, 1, token, marked(index)));
    flow(&mut shard, task, credit(2, 4, 1_000));
    shard.advance(limits::CHECKPOINT_EVERY);
    shard.restart();
    let gone = shard.attach(task, reader(2, place(1), WINDOW));
    assert_eq!(gone, Reply::Refused(Refusal::BelowFloor { task, floor: 2 }));
    // It had been handed three, of which it had acknowledged two.
    attached(&mut shard, task, reader(3, place(3), credit(3, 9, 900)));
    shard.credited();
    shard.connect(2, 1, &["marked"]);
    shard.advance(limits::LEASE / 2);
    shard.apply(Event::Heartbeat(session(2)));
    shard.advance(limits::LEASE / 2);
    let run = shard.drain().into_iter().find_map(|effect| match effect {
        asynq_core::Effect::Assign(run) => Some(run),
        _ => None,
    });
    let start = run.expect("it runs").stream.expect("a stream");
    assert_eq!((start.start, start.checkpoint), (place(3), Some(marked(2))));
}

#[test]
fn a_run_that_outlives_the_broker_says_its_checkpoints_again() {
    let (mut shard, token) = streaming(WINDOW);
    let task = token.task;
    emit(&mut shard, 1, token, batch(0, 4));
    shard.items();
    mark(&mut shard, 1, token, marked(2));
    shard.advance(limits::CLAIM_AFTER);
    shard.restart();
    shard.resume(1, 1, &["marked"], &[token]);
    // The reader has had three, and its acknowledgements were lost with the broker.
    attached(&mut shard, task, reader(2, place(3), credit(3, 9, 900)));
    shard.credited();
    open(&mut shard, 1, token, resume(0, 4));
    shard.drain();
    emit(&mut shard, 1, token, batch(0, 2));
    mark(&mut shard, 1, token, marked(2));
    shard.quiet();
    // Now it is lost, and the broker has less than the reader.
    let (_, start, checkpoint) = next_run(&mut shard, 2);
    assert_eq!((start, checkpoint), (place(3), marked(2)));
}

#[test]
fn what_was_only_handed_on_does_not_become_what_is_written() {
    // A run that begins behind what the reader has taken, and outlives the broker.
    let (mut shard, token) = streaming(WINDOW);
    let task = token.task;
    emit(&mut shard, 1, token, batch(0, 4));
    shard.items();
    mark(&mut shard, 1, token, marked(1));
    flow(&mut shard, task, credit(1, 5, 1_000));
    shard.credited();
    shard.advance(limits::CHECKPOINT_EVERY);
    let (token, start, checkpoint) = next_run(&mut shard, 2);
    assert_eq!((start, checkpoint), (place(4), marked(1)));
    mark(&mut shard, 2, token, marked(4));
    shard.advance(limits::CLAIM_AFTER);
    shard.restart();
    shard.resume(2, 1, &["marked"], &[token]);
    let stands = EmitResume {
        floor: place(4),
        head: 4,
        credit: credit(1, 5, 1_000),
    };
    attached(&mut shard, task, reader(2, place(1), credit(1, 5, 1_000)));
    shard.credited();
    open(&mut shard, 2, token, Some(stands));
    assert_eq!(shard.stopped(), (token, StopCause::Stale));
    mark(&mut shard, 2, token, marked(4)); // too late
    let start = shard.assigned().stream.expect("a stream");
    assert_eq!((start.start, start.checkpoint), (place(1), Some(marked(1))));
}

#[test]
fn one_who_breaks_the_rules_is_told() {
    for (name, index, said) in [
        ("marked", 3, "a checkpoint before item 3 was sent where item 2 was due"),
        ("replayed", 2, "by an iterator that is declared to have none"),
    ] {
        let mut shard = Shard::new();
        shard.connect(1, 1, &[name]);
        iterate_as(&mut shard, name, WINDOW);
        let token = shard.assigned().token;
        emit(&mut shard, 1, token, batch(0, 2));
        shard.items();
        mark(&mut shard, 1, token, marked(index));
        assert_eq!(shard.stopped(), (token, StopCause::Stale));
        let finished = shard.finished();
        assert_eq!(finished.outcome, Outcome::Dead(DeadReason::Error));
        let why = finished.failure.expect("why").message;
        assert!(why.contains(said), "{why}");
    }
}
