//! The worker of asynq: registers handlers with a broker and runs tasks.
//!
//! ```no_run
//! use asynq_worker::{Context, Task, TaskError, Worker};
//!
//! const LENGTH: Task<String, usize> = Task::new("text.length");
//!
//! async fn length(_: Context, text: String) -> Result<usize, TaskError> {
//!     Ok(text.len())
//! }
//!
//! # async fn example() -> Result<(), asynq_worker::RunError> {
//! Worker::builder("http://127.0.0.1:7740")
//!     .slots(8)
//!     .task(LENGTH, length)
//!     .run_until(async { drop(tokio::signal::ctrl_c().await) })
//!     .await
//! # }
//! ```
//!
//! Rooms: `builder` puts a worker together from a `registry` of `handler`s;
//! `runtime` runs them, on `threads` where they block; `session` speaks to the
//! broker from a thread of its own and keeps the `ledger` of what the two owe
//! each other, under a `lease`.

mod builder;
mod builtins;
mod context;
mod error;
mod handler;
mod lease;
mod ledger;
mod limits;
mod registry;
mod runtime;
mod session;
mod threads;

pub use asynq_proto::{Connector, Endpoint, NameError, Payload, Task, TaskError};
pub use builder::{Ready, Worker, WorkerBuilder};
pub use context::{Context, LeaseToken, StopCause};
pub use error::{BuildError, RunError};
pub use registry::Declaration;
