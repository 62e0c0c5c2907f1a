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
//! An iterator yields items, which stream back as fast as their reader takes them:
//!
//! ```
//! use asynq_worker::{Context, Iter, OnLoss, TaskError, Worker};
//! use futures_util::{Stream, stream};
//!
//! const SQUARES: Iter<u64, u64> = Iter::new("squares", OnLoss::Replay);
//!
//! fn squares(_: Context, up_to: u64) -> impl Stream<Item = Result<u64, TaskError>> {
//!     stream::iter((0..up_to).map(|n| Ok(n * n)))
//! }
//!
//! let worker = Worker::builder("http://127.0.0.1:7740").iter(SQUARES, squares).build()?;
//! # Ok::<(), asynq_worker::BuildError>(())
//! ```
//!
//! Rooms: `builder` puts a worker together from a `registry` of `handler`s;
//! `runtime` runs them, on `threads` where they block; `emit` sends up the
//! `items` of those that yield some, over the `data` connection; `session` speaks
//! to the broker from a thread of its own and keeps the `ledger` of what the two
//! owe each other, under a `lease`.

mod builder;
mod builtins;
mod calls;
mod context;
mod data;
mod emit;
mod error;
mod extend;
mod files;
mod handler;
mod items;
mod lease;
mod ledger;
mod limits;
mod registry;
mod runtime;
mod session;
mod stopping;
mod threads;
mod yields;

pub use asynq_proto::{
    Connector, Credentials, CredentialsError, DeadReason, Endpoint, Iter, NameError, OnLoss, Payload, Task, TaskError,
    Token, TokenError,
};
pub use builder::{Ready, Worker, WorkerBuilder};
pub use calls::{Call, CallError, CalledItems, CalledIter, Iterate, Spawn};
pub use context::{Context, LeaseToken, Linger, StopCause};
pub use error::{BuildError, RunError};
pub use registry::Declaration;
pub use yields::Yield;
