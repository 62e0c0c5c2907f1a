//! The asynq client: run tasks on a broker's workers and get their results.
//!
//! ```no_run
//! use asynq_client::{Client, Task};
//! use std::time::Duration;
//!
//! const ECHO: Task<String, String> = Task::new("echo");
//!
//! # async fn example() -> Result<(), asynq_client::Error> {
//! let client = Client::connect("http://127.0.0.1:7740").await?;
//! let said = client.call(ECHO, &"hello".to_owned()).timeout(Duration::from_secs(30)).await?;
//! assert_eq!(said, "hello");
//! # Ok(()) }
//! ```
//!
//! One [`Client`] serves a whole program: clone it freely. All that is asked of
//! it rides on one stream, many operations to a message. Large values and the
//! items of iterated tasks have a connection of their own, where they hold up
//! nothing else.

mod builder;
mod call;
mod client;
mod data;
mod enqueue;
mod error;
mod id;
mod info;
mod iterate;
mod limits;
mod listing;
mod many;
mod map;
mod session;
mod spec;
mod state;

pub use asynq_proto::{
    Credentials, CredentialsError, DeadReason, Iter, JSON, OCTET_STREAM, OnLoss, Payload, Task, Token, connect,
};
pub use builder::ClientBuilder;
pub use call::{BoxFuture, Call};
pub use client::Client;
pub use enqueue::{Enqueue, Handle};
pub use error::{Error, Refusal};
pub use id::{ParseIdError, TaskId};
pub use info::{
    CallStats, CancelOutcome, Cancellation, Explanation, QueueInfo, QueueUpdate, TaskInfo, Transition, WorkerInfo,
};
pub use iterate::{Items, Iterate, Resume};
pub use limits::{FIRST_CONNECT, PATIENCE};
pub use listing::{ListTasks, TaskPage};
pub use many::{Retry, Tally};
pub use map::Map;
pub use spec::OnKey;
pub use state::{Failure, ParseStateError, State};
