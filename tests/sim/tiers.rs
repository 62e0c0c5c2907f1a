//! How many seeds: some in each test run, many in `make torture`, one to see it
//! again.

use std::collections::BTreeMap;
use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::plan::Plan;
use crate::run::{Problem, report, run, run_on};

/// Seeds of the quick tier.
pub(crate) const QUICK: u64 = 10_000;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is {value:?}; give a number")),
    )
}

/// All seeds of a range, on all cores. Fails with the report of the first that
/// breaks a rule; with ASYNQ_SIM_KEEP_GOING it goes through all of them, and tells
/// how many break which rule.
#[test]
fn seeds_are_clean() {
    let first = number("ASYNQ_SIM_FROM").unwrap_or(0);
    let count = number("ASYNQ_SIM_SEEDS").unwrap_or(QUICK);
    let keep_going = number("ASYNQ_SIM_KEEP_GOING").is_some();
    let (next, steps) = (AtomicU64::new(first), AtomicU64::new(0));
    let failed = Mutex::new(BTreeMap::<String, Vec<(u64, Problem)>>::new());
    let note = |seed, problem: Problem| {
        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.entry(problem.kind()).or_default().push((seed, problem));
    };
    let is_clean = || failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while keep_going || is_clean() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let ran = run(&Plan::of(seed), None, false);
                    steps.fetch_add(ran.steps, Ordering::Relaxed);
                    ran.problem.into_iter().for_each(|problem| note(seed, problem));
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (kind, seeds) in &failed {
        println!("{} of {count} seeds: {kind}", seeds.len());
        for (seed, problem) in seeds.iter().take(10) {
            println!("  seed {seed}: {problem}");
        }
    }
    if let Some((seed, problem)) = failed.values().next().and_then(|seeds| seeds.first()) {
        panic!("{}", report(&Plan::of(*seed), problem));
    }
    println!("{count} seeds from {first}, {} steps: clean", steps.into_inner());
}

/// One seed with all that happens in it: the one in ASYNQ_SIM_SEED, or the first.
#[test]
fn replay() {
    let off = env::var("ASYNQ_SIM_OFF").unwrap_or_default();
    let tasks = env::var("ASYNQ_SIM_TASKS").ok();
    let plan = Plan::of(number("ASYNQ_SIM_SEED").unwrap_or(0))
        .narrowed(&off, tasks.as_deref())
        .unwrap_or_else(|problem| panic!("{problem}"));
    let ran = run(&plan, None, true);
    println!("{}", ran.trace);
    println!(
        "{plan}\n{} steps, trace {:016x}",
        ran.steps,
        crate::dice::fingerprint(ran.trace.as_bytes())
    );
    if let Some(problem) = ran.problem {
        panic!("{problem}");
    }
}

/// The store that is shipped, on a few seeds: each commit is a real one.
#[test]
fn seeds_are_clean_on_sqlite() {
    for seed in 0..8 {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let store = asynq_store::SqliteStore::create_or_open(dir.path()).expect("a new store opens");
        let plan = Plan::of(seed);
        let ran = run_on(Box::new(store), &plan, None, false);
        assert_eq!(ran.problem, None, "on SQLite: {plan}");
    }
}
