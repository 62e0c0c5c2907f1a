//! A task in the making: what calls and enqueues share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use asynq_proto::{Payload, v1};

use crate::{Error, TaskId, session::Session};

/// Name, arguments and options of a task that has not been sent.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) id: TaskId,
    /// Nobody has sent the id before.
    pub(crate) fresh: bool,
    pub(crate) name: String,
    pub(crate) payload: Result<Payload, Error>,
    pub(crate) options: v1::TaskOptions,
    pub(crate) deadline: Option<Duration>,
    pub(crate) patience: Option<Duration>,
}

impl Spec {
    pub(crate) fn new(session: &Session, name: &str, payload: Result<Payload, Error>) -> Self {
        Self {
            id: session.new_id(),
            fresh: true,
            name: name.to_owned(),
            payload,
            options: v1::TaskOptions::default(),
            deadline: None,
            patience: None,
        }
    }

    /// The message that asks for it, its relative times counted from `now` on the broker's clock.
    pub(crate) fn into_request(self, now: Duration, wait: bool) -> Result<v1::EnqueueRequest, Error> {
        let mut options = self.options;
        if let Some(deadline) = self.deadline {
            options.deadline_ms = ms(now.saturating_add(deadline));
        }
        Ok(v1::EnqueueRequest {
            id: self.id.to_wire(),
            name: self.name,
            payload: Some(self.payload?.into()),
            options: Some(options),
            first_send: self.fresh,
            wait,
        })
    }
}

/// Milliseconds, rounded up so that a short time is never "none".
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Milliseconds since the Unix epoch; a time before it becomes the first one
/// after it, which is as much in the past and not "none".
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(1, |since| ms(since).max(1))
}

/// The builder methods that all have in common who run tasks.
macro_rules! task_options {
    () => {
        /// The queue to put it in. Default: `default`.
        pub fn queue(mut self, queue: impl Into<String>) -> Self {
            self.spec.options.queue = queue.into();
            self
        }

        /// Its fair-share key inside the queue: series take turns, whoever has
        /// more tasks waiting. Default: `""`.
        pub fn series(mut self, series: impl Into<String>) -> Self {
            self.spec.options.series = series.into();
            self
        }

        /// −20 to 20, smaller sooner. At 10 a task gets half the share it gets at 0, the default.
        pub fn niceness(mut self, niceness: i32) -> Self {
            self.spec.options.niceness = niceness;
            self
        }

        /// Runs before all tasks that take fair turns.
        pub fn next(mut self) -> Self {
            self.spec.options.placement = asynq_proto::v1::Placement::Next.into();
            self
        }

        /// Runs only when nothing else can.
        pub fn last(mut self) -> Self {
            self.spec.options.placement = asynq_proto::v1::Placement::Last.into();
            self
        }

        /// Starts no sooner than this after the broker has accepted it. Replaces
        /// [`start_at`](Self::start_at).
        pub fn delay(mut self, delay: std::time::Duration) -> Self {
            self.spec.options.start_at_ms = 0;
            self.spec.options.delay_ms = crate::spec::ms(delay);
            self
        }

        /// Starts no sooner than at this time. Replaces [`delay`](Self::delay).
        pub fn start_at(mut self, time: std::time::SystemTime) -> Self {
            self.spec.options.delay_ms = 0;
            self.spec.options.start_at_ms = crate::spec::unix_ms(time);
            self
        }

        /// Expires unless it has started by this time.
        pub fn start_before(mut self, time: std::time::SystemTime) -> Self {
            self.spec.options.start_before_ms = crate::spec::unix_ms(time);
            self
        }

        /// How long one attempt may take. Default: for ever, or what the worker has declared.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.spec.options.timeout_ms = crate::spec::ms(timeout);
            self
        }

        /// Expires unless it has ended within this time from being sent. Default: never.
        pub fn deadline(mut self, deadline: std::time::Duration) -> Self {
            self.spec.deadline = Some(deadline);
            self
        }

        /// How often it is tried again, after failures and after timeouts: 0 to
        /// 999. Default: 0, or what the worker has declared.
        pub fn retries(mut self, retries: u32) -> Self {
            let attempts = retries.saturating_add(1);
            self.spec.options.max_attempts = Some(attempts);
            self.spec.options.max_timeouts = Some(attempts);
            self
        }

        /// Never begins twice, whatever happens: its attempt is on the broker's disk
        /// before it begins, and a worker that is lost with it, a failure or a timeout
        /// ends the task. So it may also not be run to its end. Excludes
        /// [`retries`](Self::retries); the broker needs a durable store. Costs one more
        /// write and its wait for each task.
        pub fn at_most_once(mut self) -> Self {
            self.spec.options.at_most_once = true;
            self
        }

        /// How long the broker keeps the result. Default: an hour. Zero drops it at
        /// once: only who waits already gets it.
        pub fn result_ttl(mut self, ttl: std::time::Duration) -> Self {
            self.spec.options.result_ttl_ms = Some(crate::spec::ms(ttl));
            self
        }
    };
}
pub(crate) use task_options;

/// What becomes of an enqueue whose key another task of its queue has. In short:
/// a task that has started, or is over, is returned if both ask for the same (name,
/// series and arguments) and else refuses the key; what has not started may be
/// returned or replaced whatever it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnKey {
    /// That task is returned, if it has not started.
    Return,
    /// That task is cancelled and this one takes its place, if it has not started.
    Replace,
    /// Refused, also if that task asks for the same.
    Error,
}

impl OnKey {
    pub(crate) const fn to_wire(self) -> i32 {
        let on_key = match self {
            Self::Return => v1::OnKey::Return,
            Self::Replace => v1::OnKey::Replace,
            Self::Error => v1::OnKey::Error,
        };
        on_key as i32
    }
}

/// The builder methods of those who put one task in its queue.
macro_rules! task_key {
    () => {
        /// A name of the caller's own for what is to be done once: 1 to 200 bytes
        /// without control characters. While a task of the same queue with this key
        /// is remembered (an hour after its end at least, and as long as its result),
        /// this becomes that task if both ask for the same, and is refused with
        /// [`Refusal::AlreadyExists`](crate::Refusal) if not. See
        /// [`on_key`](Self::on_key) for more.
        pub fn key(mut self, key: impl Into<String>) -> Self {
            self.spec.options.key = Some(key.into());
            self
        }

        /// What else is to become of it if another task has its key. Needs
        /// [`key`](Self::key).
        pub fn on_key(mut self, on_key: crate::OnKey) -> Self {
            self.spec.options.on_key = on_key.to_wire();
            self
        }
    };
}
pub(crate) use task_key;

/// The builder methods of those who run one task.
macro_rules! task_id {
    () => {
        /// Sends an id for a second time, after an error that
        /// [is indefinite](crate::Error::is_indefinite). Whatever became of the
        /// first, there is one task. Name, arguments, queue and series must be the same.
        pub fn id_again(mut self, id: crate::TaskId) -> Self {
            self.spec.id = id;
            self.spec.fresh = false;
            self
        }

        /// The id it will have; with a key, unless another task has that. It should be
        /// sent within 50 minutes from now: a broker takes no id that is older by the
        /// time it has to be sent again.
        pub const fn id(&self) -> crate::TaskId {
            self.spec.id
        }
    };
}
pub(crate) use task_id;
