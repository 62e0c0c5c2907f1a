//! The task names a worker can run, each with its defaults and its handler.

use std::collections::BTreeMap;
use std::time::Duration;

use asynq_proto::limits::{MAX_BUDGET, MAX_DECLARATIONS, MAX_DURATION};
use asynq_proto::{Iter, OnLoss, Task, check_name, v1};

use crate::error::BuildError;
use crate::handler::Handler;

/// A task name and the defaults its worker declares for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    name: String,
    timeout: Option<Duration>,
    max_attempts: Option<u32>,
    /// It yields items …
    iterator: bool,
    /// … and this becomes of them when the worker is lost.
    on_loss: OnLoss,
}

impl Declaration {
    /// A name without defaults of its own.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            timeout: None,
            max_attempts: None,
            on_loss: OnLoss::Fail,
            iterator: false,
        }
    }

    /// Longest time of one attempt, for tasks that say nothing themselves.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Failures allowed, 1…1000, for tasks that say nothing themselves.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// What becomes of an iterator whose worker is lost after its first items, or
    /// that fails then and has attempts left. Default: [`OnLoss::Fail`]. A task that
    /// does not yield items has no use for it.
    ///
    /// ```
    /// use asynq_worker::{Declaration, OnLoss, Payload, Worker};
    /// use futures_util::stream;
    ///
    /// let twice = Declaration::new("twice").on_loss(OnLoss::Replay);
    /// let worker = Worker::builder("http://127.0.0.1:7740")
    ///     .raw_iter(twice, |_, args: Payload| stream::iter([Ok(args.clone()), Ok(args)]))
    ///     .build()?;
    /// # Ok::<(), asynq_worker::BuildError>(())
    /// ```
    #[must_use]
    pub fn on_loss(mut self, on_loss: OnLoss) -> Self {
        self.on_loss = on_loss;
        self
    }

    /// It yields items.
    pub(crate) fn yielding(mut self) -> Self {
        self.iterator = true;
        self
    }

    fn check(&self) -> Result<(), BuildError> {
        let name = || self.name.clone();
        check_name(&self.name).map_err(|source| BuildError::TaskName { name: name(), source })?;
        if self
            .timeout
            .is_some_and(|t| t < Duration::from_millis(1) || t > MAX_DURATION)
        {
            return Err(BuildError::Timeout { name: name() });
        }
        if self.max_attempts.is_some_and(|n| !(1..=MAX_BUDGET).contains(&n)) {
            return Err(BuildError::MaxAttempts { name: name() });
        }
        Ok(())
    }

    fn to_wire(&self) -> v1::TaskDeclaration {
        v1::TaskDeclaration {
            name: self.name.clone(),
            // MAX_DURATION in milliseconds is far below 2⁶⁴.
            timeout_ms: self.timeout.map_or(0, |t| t.as_millis() as u64),
            max_attempts: self.max_attempts.unwrap_or(0),
            iterator: self.iterator,
            on_loss: match self.iterator {
                true => self.on_loss.to_wire().into(),
                false => 0,
            },
        }
    }
}

impl From<&str> for Declaration {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Declaration {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl<A, R> From<Task<A, R>> for Declaration {
    fn from(task: Task<A, R>) -> Self {
        Self {
            name: task.name().into(),
            timeout: task.default_timeout(),
            max_attempts: task.default_max_attempts(),
            on_loss: OnLoss::Fail,
            iterator: false,
        }
    }
}

impl<A, T> From<Iter<A, T>> for Declaration {
    fn from(iter: Iter<A, T>) -> Self {
        Self {
            name: iter.name().into(),
            timeout: iter.default_timeout(),
            max_attempts: iter.default_max_attempts(),
            on_loss: iter.on_loss(),
            iterator: true,
        }
    }
}

/// What a worker can run.
#[derive(Default)]
pub(crate) struct Registry {
    entries: BTreeMap<String, (Declaration, Handler)>,
}

impl Registry {
    pub(crate) fn add(&mut self, declaration: Declaration, handler: Handler) -> Result<(), BuildError> {
        declaration.check()?;
        if self.entries.len() == MAX_DECLARATIONS {
            return Err(BuildError::TooManyTasks);
        }
        let name = declaration.name.clone();
        match self.entries.insert(name.clone(), (declaration, handler)) {
            Some(_) => Err(BuildError::DuplicateTask { name }),
            None => Ok(()),
        }
    }

    pub(crate) fn handler(&self, name: &str) -> Option<&Handler> {
        self.entries.get(name).map(|(_, handler)| handler)
    }

    pub(crate) fn declarations(&self) -> Vec<v1::TaskDeclaration> {
        self.entries
            .values()
            .map(|(declaration, _)| declaration.to_wire())
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
