//! The options of a task, as all that run tasks take them.

use std::time::{Duration, SystemTime};

use asynq_client::{Call, Enqueue, Iterate, Map, Payload};
use asynq_proto::duration;
use clap::ValueEnum;

use crate::time::instant;

/// How a task is to be run.
#[derive(Debug, clap::Args)]
pub(crate) struct TaskOptions {
    /// The queue to put it in [default: default].
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Its fair-share key inside the queue: series take turns.
    #[arg(long, value_name = "NAME")]
    series: Option<String>,
    /// -20 to 20, smaller sooner [default: 0].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=20))]
    niceness: Option<i32>,
    /// Run before all tasks that take fair turns.
    #[arg(long, conflicts_with = "last")]
    next: bool,
    /// Run only when nothing else can.
    #[arg(long)]
    last: bool,
    /// Start no sooner than after this time, such as 250ms, 30s, 5m, 1h30m.
    #[arg(long, value_name = "D", value_parser = duration::parse, conflicts_with = "at")]
    delay: Option<Duration>,
    /// Start no sooner than at this time, such as 2030-01-31T12:00:00Z.
    #[arg(long, value_name = "T", value_parser = instant)]
    at: Option<SystemTime>,
    /// Expire unless started by this time.
    #[arg(long, value_name = "T", value_parser = instant)]
    start_before: Option<SystemTime>,
    /// Longest time of one attempt [default: none].
    #[arg(long, value_name = "D", value_parser = duration::parse_nonzero)]
    timeout: Option<Duration>,
    /// Expire unless done within this time [default: none].
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    deadline: Option<Duration>,
    /// Try again up to this often, after failures and after timeouts [default: 0].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=999))]
    retries: Option<u32>,
    /// Never begin it twice: lost with its worker, or failed, it is dead.
    #[arg(long, conflicts_with = "retries")]
    at_most_once: bool,
    /// How long the broker keeps the result; 0 drops it at once [default: 1h].
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// Wait no longer than this; the task goes on [default: for ever].
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub(crate) wait: Option<Duration>,
}

/// The key of a task, as those take it that put one task in its queue.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyOptions {
    /// A name for what is to be done once. While a task of the queue with this key is
    /// remembered, it is the one that is meant, and another one is refused.
    #[arg(long, value_name = "K")]
    key: Option<String>,
    /// If another task has the key and has not started: return it whatever its
    /// arguments, or replace it. error: refuse the key even for the same arguments.
    #[arg(long, value_enum, value_name = "WHAT", requires = "key")]
    on_key: Option<OnKey>,
}

/// What becomes of a task whose key another one has.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnKey {
    Return,
    Replace,
    Error,
}

impl KeyOptions {
    pub(crate) const fn is_given(&self) -> bool {
        self.key.is_some()
    }

    pub(crate) fn for_enqueue(&self, mut enqueue: Enqueue<Payload>) -> Enqueue<Payload> {
        if let Some(key) = &self.key {
            enqueue = enqueue.key(key);
        }
        match self.on_key {
            None => enqueue,
            Some(OnKey::Return) => enqueue.on_key(asynq_client::OnKey::Return),
            Some(OnKey::Replace) => enqueue.on_key(asynq_client::OnKey::Replace),
            Some(OnKey::Error) => enqueue.on_key(asynq_client::OnKey::Error),
        }
    }
}

/// Sets each option that was given.
macro_rules! apply {
    ($options:expr, $task:expr) => {{
        let (options, mut task) = ($options, $task);
        if let Some(queue) = &options.queue {
            task = task.queue(queue);
        }
        if let Some(series) = &options.series {
            task = task.series(series);
        }
        if let Some(niceness) = options.niceness {
            task = task.niceness(niceness);
        }
        if options.next {
            task = task.next();
        }
        if options.last {
            task = task.last();
        }
        if let Some(delay) = options.delay {
            task = task.delay(delay);
        }
        if let Some(time) = options.at {
            task = task.start_at(time);
        }
        if let Some(time) = options.start_before {
            task = task.start_before(time);
        }
        if let Some(timeout) = options.timeout {
            task = task.timeout(timeout);
        }
        if let Some(deadline) = options.deadline {
            task = task.deadline(deadline);
        }
        if let Some(retries) = options.retries {
            task = task.retries(retries);
        }
        if options.at_most_once {
            task = task.at_most_once();
        }
        if let Some(ttl) = options.ttl {
            task = task.result_ttl(ttl);
        }
        task
    }};
}

impl TaskOptions {
    pub(crate) fn for_call(&self, call: Call<Payload>) -> Call<Payload> {
        apply!(self, call)
    }

    pub(crate) fn for_iterate(&self, iterate: Iterate<Payload>) -> Iterate<Payload> {
        apply!(self, iterate)
    }

    pub(crate) fn for_map(&self, map: Map<Payload>) -> Map<Payload> {
        apply!(self, map)
    }

    pub(crate) fn for_enqueue(&self, enqueue: Enqueue<Payload>) -> Enqueue<Payload> {
        apply!(self, enqueue)
    }
}
