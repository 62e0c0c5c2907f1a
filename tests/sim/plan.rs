//! What a seed decides before anything happens: how large the world is and which
//! faults it knows. Swarm testing: a run with few kinds of faults, each often,
//! reaches corners that one with all of them, each seldom, does not.

use std::fmt;
use std::time::Duration;

use super::dice::Dice;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Some messages take up to two seconds.
    Delay,
    /// A connection breaks; what was on its way is lost from some point on.
    Cut,
    /// Nothing passes between the broker and one peer, for a while.
    Partition,
    /// The same, in one direction only.
    OneWay,
    /// The broker is killed, and started again.
    BrokerCrash,
    /// It is killed again before it has settled.
    DoubleCrash,
    /// A commit fails: nothing is known of it, and the broker exits.
    StoreFailure,
    /// Some commits take up to a second.
    SlowDisk,
    /// A worker is killed, and another started.
    WorkerCrash,
    /// A worker is asked to drain, and another started.
    Drain,
    /// A caller is killed, with all it wanted to know.
    CallerCrash,
    /// A process stands still for a while, its connections open.
    Pause,
    /// The wall clock is set.
    ClockJump,
    /// Results are large: they travel on connections of their own.
    Large,
    /// Handlers call other tasks. No fault in itself, nor are those below; but turned
    /// off like one.
    Calls,
    /// They leave tasks behind with their results.
    Spawns,
    /// Callers ask for tasks under keys that others use too.
    Keys,
    /// Handlers ask for more time than they have.
    Extends,
    /// Runs that do not stop when they are told to are abandoned.
    Abandons,
}

impl Fault {
    pub(crate) const ALL: [Self; 19] = [
        Self::Delay,
        Self::Cut,
        Self::Partition,
        Self::OneWay,
        Self::BrokerCrash,
        Self::DoubleCrash,
        Self::StoreFailure,
        Self::SlowDisk,
        Self::WorkerCrash,
        Self::Drain,
        Self::CallerCrash,
        Self::Pause,
        Self::ClockJump,
        Self::Large,
        Self::Calls,
        Self::Spawns,
        Self::Keys,
        Self::Extends,
        Self::Abandons,
    ];

    /// The word it is turned off by.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Cut => "cut",
            Self::Partition => "partition",
            Self::OneWay => "one_way",
            Self::BrokerCrash => "broker_crash",
            Self::DoubleCrash => "double_crash",
            Self::StoreFailure => "store_failure",
            Self::SlowDisk => "slow_disk",
            Self::WorkerCrash => "worker_crash",
            Self::Drain => "drain",
            Self::CallerCrash => "caller_crash",
            Self::Pause => "pause",
            Self::ClockJump => "clock_jump",
            Self::Large => "large",
            Self::Calls => "calls",
            Self::Spawns => "spawns",
            Self::Keys => "keys",
            Self::Extends => "extends",
            Self::Abandons => "abandons",
        }
    }

    /// Whether it strikes at times, and is not a state of the world.
    pub(crate) const fn strikes(self) -> bool {
        let is_state = matches!(self, Self::Delay | Self::SlowDisk | Self::Large | Self::DoubleCrash);
        !is_state && !self.is_habit()
    }

    /// Whether it is no fault, but what handlers and callers do.
    pub(crate) const fn is_habit(self) -> bool {
        matches!(
            self,
            Self::Calls | Self::Spawns | Self::Keys | Self::Extends | Self::Abandons
        )
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Fault>,
    /// How long faults strike.
    pub(crate) trouble: Duration,
    /// The mean time between two strikes.
    pub(crate) calm: Duration,
    pub(crate) workers: usize,
    pub(crate) callers: usize,
    /// Tasks each caller wants run.
    pub(crate) tasks: usize,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x517C_C1B7_2722_0A95);
        // From almost none to almost all.
        let share = [150, 300, 500, 800][dice.index(4)];
        let mut is_on = |fault: &Fault| dice.chance(if fault.is_habit() { 500 } else { share });
        let faults = Fault::ALL.into_iter().filter(|fault| is_on(fault)).collect();
        Self {
            seed,
            faults,
            trouble: dice.time(Duration::from_secs(5)..Duration::from_secs(60)),
            calm: dice.long_tailed(Duration::from_millis(300)..Duration::from_secs(20)),
            workers: dice.int(1..4) as usize,
            callers: dice.int(1..4) as usize,
            tasks: dice.int(1..7) as usize,
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// The same without a fault.
    pub(crate) fn without(&self, fault: Fault) -> Self {
        let mut plan = self.clone();
        plan.faults.retain(|&other| other != fault);
        plan
    }

    /// Reads `off` (words) and `tasks`, as a replay gives them.
    ///
    /// # Errors
    /// Names a word that is no fault, or a number that is none.
    pub(crate) fn narrowed(mut self, off: &str, tasks: Option<&str>) -> Result<Self, String> {
        for word in off.split(',').filter(|word| !word.is_empty()) {
            let fault = Fault::ALL.into_iter().find(|fault| fault.word() == word);
            let fault = fault.ok_or_else(|| format!("ASYNQ_SIM_OFF names {word:?}, which is no fault"))?;
            self = self.without(fault);
        }
        if let Some(tasks) = tasks {
            let problem = || format!("ASYNQ_SIM_TASKS is {tasks:?}; give a number");
            self.tasks = tasks.parse().map_err(|_| problem())?;
        }
        Ok(self)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<&str> = self.faults.iter().map(|fault| fault.word()).collect();
        write!(
            f,
            "seed {}: {} workers, {} callers, {} tasks each, trouble for {:?}, a strike each {:?}, faults: {}",
            self.seed,
            self.workers,
            self.callers,
            self.tasks,
            self.trouble,
            self.calm,
            faults.join(" ")
        )
    }
}
