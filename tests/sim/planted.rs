//! Bugs that are planted, one at a time: each must be found within the quick
//! tier's seeds, and by a rule that names it.

use std::time::Duration;

use asynq_tests::history::Rule;

use crate::bug::Bug;
use crate::plan::{Fault, Plan};
use crate::run::run;
use crate::tiers::QUICK;

/// What the seed makes of the world. A fence is missed only where a worker is away
/// for a whole lease after a restart of the broker, which is seldom: its seeds have
/// no other faults, and are calm enough for a lease to pass. And a send comes late
/// only where it is still on its way when its task, sent again, is over: its seeds
/// have what holds it up.
fn plan(bug: Bug, seed: u64) -> Plan {
    let plan = Plan::of(seed);
    match bug {
        Bug::NoFence => Plan {
            faults: vec![Fault::Partition, Fault::BrokerCrash],
            trouble: Duration::from_secs(150),
            calm: Duration::from_secs(25),
            tasks: 6,
            ..plan
        },
        Bug::LateFirstSend => Plan {
            faults: vec![Fault::Delay, Fault::Partition, Fault::Pause],
            calm: Duration::from_millis(700),
            callers: 3,
            tasks: 6,
            ..plan
        },
        _ => plan,
    }
}

/// Looks for the first seed that shows the bug; it must break one of the rules.
#[track_caller]
fn is_found(bug: Bug, by: &[Rule]) {
    let shows = |seed| Some((seed, run(&plan(bug, seed), Some(bug), false).problem?));
    let Some((seed, problem)) = (0..QUICK).find_map(shows) else {
        panic!("{bug:?} was not found in {QUICK} seeds");
    };
    let named = problem.rule().is_some_and(|rule| by.contains(&rule));
    assert!(named, "seed {seed} shows {bug:?} as another thing: {problem}");
    println!("found by seed {seed}: {problem}");
}

/// One test for each bug, with the rules that may name it: most show in more than
/// one way.
macro_rules! planted {
    ($($name:ident: $bug:ident breaks $($rule:ident)+;)*) => {
        $(#[test]
        fn $name() {
            is_found(Bug::$bug, &[$(Rule::$rule),+]);
        })*
    };
}

planted! {
    answers_before_commit: AnswersBeforeCommit breaks StreamCut Lost SecondEnd GrantAfterEnd CancelLost BegunTwice;
    a_disk_that_lies: DiskLies breaks Lost SecondEnd GrantAfterEnd CancelLost ClaimLost RunAgain BegunTwice Stale;
    claims_that_are_not_written: ClaimsNotWritten breaks ClaimLost Differs BegunTwice;
    sessions_that_are_forgotten: SessionsForgotten breaks ClaimLost RunAgain Leak;
    an_epoch_that_stands: EpochStands breaks TokensFall SecondEnd Stale;
    a_clock_that_is_not_clamped: ClockNotClamped breaks Differs Lost GrantAfterEnd Stuck;
    heartbeats_nobody_hears: HeartbeatsUnheard breaks Overlap;
    runs_before_their_claim: RunsBeforeClaim breaks BegunTwice Stale GrantAfterEnd;
    what_has_begun_given_back: BegunReleased breaks BegunTwice;
    a_token_that_is_ignored: TokenIgnored breaks Stale SecondEnd WrongResult;
    a_worker_without_a_fence: NoFence breaks Overlap;
    outcomes_that_are_forgotten: OutcomesForgotten breaks Stuck;
    a_silent_stop: SilentStop breaks Stuck;
    every_send_a_first_send: AlwaysFirstSend breaks GrantAfterEnd SecondEnd TwoInOne;
    a_first_send_that_comes_late: LateFirstSend breaks GrantAfterEnd SecondEnd;
    credit_that_counts_twice: CreditDoubled breaks Overrun;
    items_handed_on_twice: ItemsTwice breaks StreamOrder;
    other_items_the_second_time: OtherItems breaks StreamContent;
    what_cannot_be_run_again_is: ReplayedAnyway breaks StreamContent StreamCut;
    items_that_are_dropped_when_sent: DroppedWhenSent breaks StreamCut BegunTwice;
    a_checkpoint_that_is_misplaced: CheckpointMisplaced breaks StreamContent;
    a_checkpoint_that_moves_on: CheckpointMovedOn breaks StreamContent StreamCut;
    tokens_that_are_mixed_up: TokensMixedUp breaks StreamContent;
    a_floor_that_is_forgotten: FloorForgotten breaks StreamOrder;
    a_tail_from_its_beginning: WholeTail breaks StreamOrder;
    a_cut_taken_for_a_stop: CutIsStop breaks StreamCut;
    a_reader_that_is_forgotten: ReaderForgotten breaks Stuck Leak;
    a_waiter_that_is_forgotten: WaiterForgotten breaks Answers;
    an_end_told_twice: ToldTwice breaks Answers;
    results_that_are_mixed_up: ResultsMixedUp breaks WrongResult SecondEnd CancelLost GrantAfterEnd;
    a_retry_that_forgets_attempts: AttemptsForgotten breaks TokensFall Stale GrantAfterEnd SecondEnd;
    ids_that_are_purged: IdsPurged breaks GrantAfterEnd SecondEnd;
    a_call_taken_for_an_enqueue: CallIsEnqueue breaks Stuck;
    callers_that_are_not_written: CallersNotWritten breaks Orphan;
    withdrawals_nobody_hears: WithdrawalsUnheard breaks Unwanted;
    calls_that_are_forgotten: CallsForgotten breaks Stuck;
    a_slot_that_is_not_lent: SlotKept breaks Stuck;
    calls_that_are_mixed_up: CallsMixedUp breaks WrongCall Stuck;
    what_is_spawned_apart: SpawnedApart breaks Spawned;
    spawned_tasks_that_are_forgotten: SpawnedForgotten breaks Spawned;
    keys_that_are_not_looked_up: KeysNotLookedUp breaks KeyTwice;
    a_key_that_is_enough: KeyIsEnough breaks KeyAnswer;
    extensions_nobody_hears: ExtensionsUnheard breaks TimeCut;
    extensions_that_are_not_written: ExtensionsNotWritten breaks TimeCut Differs;
    a_run_abandoned_in_silence: AbandonedUnsaid breaks Stuck;
    slots_that_are_leaked_for_ever: LeakedForEver breaks Leak Stuck;
    ids_that_are_not_looked_up: NoLookup breaks GrantAfterEnd Lost TwoInOne;
}
