//! Why a worker cannot be built, and why one ends unasked.

use std::io;
use std::path::PathBuf;

use asynq_proto::limits::{MAX_DECLARATIONS, MAX_SLOTS};
use asynq_proto::{CredentialsError, EndpointError, NameError, TokenError};

/// Why a worker cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The broker's address is malformed.
    #[error(transparent)]
    Broker(#[from] EndpointError),
    /// What is to secure the connection is of no use.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The token is malformed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The worker's name is malformed.
    #[error("the worker's name {name:?} {source}")]
    WorkerName {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// A task's name is malformed.
    #[error("the task name {name:?} {source}")]
    TaskName {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// Two handlers share a name.
    #[error("the task {name:?} has two handlers; give one of them another name")]
    DuplicateTask {
        /// The name.
        name: String,
    },
    /// A default timeout is out of range.
    #[error("the timeout of task {name:?} must be 1 ms to 10 years")]
    Timeout {
        /// The task's name.
        name: String,
    },
    /// A default number of attempts is out of range.
    #[error("max_attempts of task {name:?} must be 1 to 1000")]
    MaxAttempts {
        /// The task's name.
        name: String,
    },
    /// There are more tasks than a worker may register.
    #[error("a worker registers at most {} tasks", MAX_DECLARATIONS)]
    TooManyTasks,
    /// There is nothing to run.
    #[error("the worker has no tasks; register at least one")]
    NoTasks,
    /// The folder that builtins may read files from cannot be used.
    #[error("the folder of files {folder:?} cannot be used: {message}")]
    Files {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The number of slots is out of range.
    #[error("slots must be 1 to {MAX_SLOTS}, not {0}")]
    Slots(u32),
}

/// Why a worker ended without being asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The broker does not take this worker as it is; trying again would not help.
    #[error("the broker refused this worker: {message}")]
    Refused {
        /// The broker's words.
        message: String,
    },
    /// The broker's certificate is not to be trusted, or only one end speaks
    /// TLS; trying again would not help.
    #[error("{message}")]
    Tls {
        /// Where, and what to set right.
        message: String,
    },
    /// The thread of the wire could not be had.
    #[error("failed to start the thread of the wire: {0}")]
    Thread(#[source] io::Error),
    /// The thread of the wire died, which is a defect of this library.
    #[error("the thread of the wire died; please report it")]
    WireDied,
}
