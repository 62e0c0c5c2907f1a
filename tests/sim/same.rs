//! The same seed does the same, byte for byte.

use std::collections::BTreeSet;
use std::process::Command;

use crate::dice::fingerprint;
use crate::plan::Plan;
use crate::run::run;

#[test]
fn the_same_seed_leaves_the_same_bytes() {
    for seed in 0..30 {
        let plan = Plan::of(seed);
        let (first, second) = (run(&plan, None, true), run(&plan, None, true));
        assert!(!first.trace.is_empty());
        assert!(first.trace == second.trace, "seed {seed} went two ways");
        assert_eq!(
            first.steps,
            run(&plan, None, false).steps,
            "seed {seed} minds being watched"
        );
    }
}

#[test]
fn different_seeds_do_not() {
    assert_ne!(run(&Plan::of(1), None, true).trace, run(&Plan::of(2), None, true).trace);
}

/// A simulator that has gone blind finds nothing: what it is for must happen.
#[test]
fn all_sorts_of_things_happen() {
    let mut wanted: BTreeSet<&str> = EVENTS.split_terminator('\n').map(str::trim).collect();
    for seed in 0..1_000 {
        let trace = run(&Plan::of(seed), None, true).trace;
        wanted.retain(|event| !trace.contains(event));
        if wanted.is_empty() {
            return;
        }
    }
    panic!("does not happen any more: {wanted:?}");
}

/// As the trace has them.
const EVENTS: &str = "LeaseOver(
    Claimed(
    GivenUp(
    state: Succeeded
    state: Cancelled
    state: Expired
    outcome: Dead(Error)
    outcome: Dead(Timeout)
    outcome: Dead(WorkerLost)
    cause: Cancelled
    cause: Timeout
    cause: Deadline
    cause: Stale
    verdict: Stale(None)
    verdict: Stale(Some(
    verdict: Accepted(Ready)
    verdict: Accepted(Scheduled)
    Refused(AlreadyExists(
    Refused(Invalid
    ByCore(NotFound(
    existed: true
    outcome: Stopping
    outcome: Cancelled
    > Blocked
    > Released
    > Ended
    > Flow
    > ReaderGone
    > Iterated
    > Draining
    how: Goodbye
    how: Reset
    how: Silent
    Crashed {
    the store fails
    stands still
    nothing passes to [Broker] of
    nothing passes to [Peer] of
    nothing passes to [Broker, Peer] of
    Strike(DoubleCrash)
    Strike(ClockJump)
    Transfer(
    Withdrawn(
    whole: true
    attach: true
    take_over: true
    how: Stopped
    > Call {
    > Withdraw {
    CallApart(
    again: true
    spec: None
    Heard {
    ReadAgain(
    Taken(
    > CompletedWith {
    Spawns {
    replaced_by
    Refused(KeyTaken(
    KeyAnswered(
    mode: Return
    > Extended {
    HasUntil(
    TookTooLong(
    > Abandoned {
    > Leaked {
    leaked: 1
    depth: 4
    StaleCall(
    whole: false";

/// What differs from process to process (addresses, the seeds of hash maps) does
/// not show.
#[test]
fn another_process_leaves_the_same_bytes() {
    for seed in [3, 17, 29] {
        let here = run(&Plan::of(seed), None, true);
        let expected = format!("trace {:016x}", fingerprint(here.trace.as_bytes()));
        let program = std::env::current_exe().expect("this program has a path");
        let mut replay = Command::new(program);
        replay.args(["tiers::replay", "--exact", "--nocapture"]);
        replay.env("ASYNQ_SIM_SEED", seed.to_string());
        let output = replay.output().expect("this program starts again");
        let there = String::from_utf8_lossy(&output.stdout);
        assert!(
            there.contains(&expected),
            "seed {seed}: no {expected:?} in another process"
        );
    }
}
