//! One seed from beginning to end, and what to say if it fails.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use asynq_store::{MemoryStore, Store};
use asynq_tests::history::{Rule, Violation};

use super::bug::Bug;
use super::plan::{Fault, Plan};
use super::world::World;

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// A rule of the history was broken.
    Broken(Violation),
    /// The core, the store or the simulator itself found something impossible.
    Impossible(String),
}

impl Problem {
    pub(crate) fn rule(&self) -> Option<Rule> {
        match self {
            Self::Broken(violation) => Some(violation.rule),
            Self::Impossible(_) => None,
        }
    }

    /// In a few words.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Broken(violation) => violation.rule.to_string(),
            Self::Impossible(what) => what.lines().next().unwrap_or_default().to_owned(),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.rule() == other.rule()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(violation) => violation.fmt(f),
            Self::Impossible(what) => f.write_str(what),
        }
    }
}

/// What a run left.
pub(crate) struct Ran {
    pub(crate) problem: Option<Problem>,
    pub(crate) steps: u64,
    /// The whole trace, if one was wanted.
    pub(crate) trace: String,
}

/// Runs a plan on a store in memory.
pub(crate) fn run(plan: &Plan, bug: Option<Bug>, traced: bool) -> Ran {
    run_on(Box::new(MemoryStore::new()), plan, bug, traced)
}

/// Runs a plan on a store that is empty.
pub(crate) fn run_on(store: Box<dyn Store>, plan: &Plan, bug: Option<Bug>, traced: bool) -> Ran {
    let mut world = match World::new(plan.clone(), bug, store, traced) {
        Ok(world) => world,
        Err(error) => {
            return Ran {
                problem: Some(Problem::Impossible(error.to_string())),
                steps: 0,
                trace: String::new(),
            };
        }
    };
    let result = quietly(|| world.run());
    let problem = match result {
        Ok(Ok(())) => world.history().check().err().map(Problem::Broken),
        Ok(Err(error)) => Some(Problem::Impossible(format!("the store: {error}"))),
        Err(panic) => Some(Problem::Impossible(panic)),
    };
    Ran {
        problem,
        steps: world.steps,
        trace: std::mem::take(&mut world.env.trace.text),
    }
}

/// All there is to say of a plan that failed: what, the last of its trace, the
/// smallest plan that fails alike, and how to see it again.
pub(crate) fn report(plan: &Plan, problem: &Problem) -> String {
    const LAST: usize = 60;
    let small = shrink(plan, problem);
    let ran = run(&small, None, true);
    let problem = ran.problem.as_ref().unwrap_or(problem);
    let lines: Vec<&str> = ran.trace.lines().collect();
    let from = lines.len().saturating_sub(LAST);
    format!(
        "seed {} breaks a rule after {} steps\n  {problem}\n  {small}\nthe last of its trace:\n{}\n\
         see all of it with\n  {}\n",
        plan.seed,
        ran.steps,
        lines[from..].join("\n"),
        replay(&small),
    )
}

/// The command that runs the plan again, and prints everything.
fn replay(plan: &Plan) -> String {
    let full = Plan::of(plan.seed);
    let mut command = format!("ASYNQ_SIM_SEED={}", plan.seed);
    let off: Vec<&str> = full
        .faults
        .iter()
        .filter(|fault| !plan.has(**fault))
        .map(|f| f.word())
        .collect();
    if !off.is_empty() {
        command += &format!(" ASYNQ_SIM_OFF={}", off.join(","));
    }
    if plan.tasks != full.tasks {
        command += &format!(" ASYNQ_SIM_TASKS={}", plan.tasks);
    }
    command + " cargo test -p asynq-tests --test sim tiers::replay -- --exact --nocapture"
}

/// Turns off what the failure does not need.
fn shrink(plan: &Plan, problem: &Problem) -> Plan {
    let fails = |plan: &Plan| {
        run(plan, None, false)
            .problem
            .is_some_and(|other| other.is_like(problem))
    };
    let mut small = plan.clone();
    for fault in Fault::ALL {
        let fewer = small.without(fault);
        if fewer != small && fails(&fewer) {
            small = fewer;
        }
    }
    for tasks in 1..small.tasks {
        let fewer = Plan { tasks, ..small.clone() };
        if fails(&fewer) {
            return fewer;
        }
    }
    small
}

thread_local! {
    /// What a panic said, while panics are not to be printed.
    static QUIET: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something that may panic; gives what the panic said instead of printing it.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = QUIET.with_borrow_mut(|quiet| quiet.as_mut().map(|said| *said = info.to_string()).is_some());
            if !noted {
                before(info);
            }
        }));
    });
    QUIET.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(work));
    let said = QUIET.take().unwrap_or_default();
    result.map_err(|_| said)
}
