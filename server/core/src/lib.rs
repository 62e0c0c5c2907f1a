//! The pure core of the asynq broker. It is told the time and what happened,
//! and answers what to remember and what to do: no clock, no I/O, no
//! randomness, so that every run can be replayed.

mod change;
mod core;
mod effect;
mod event;
mod ids;
pub mod limits;
mod task;
mod time;
mod view;

pub use crate::core::{Core, Output};
pub use change::{Change, SessionRecord};
pub use effect::{Assignment, CancelOutcome, Effect, Finished, Refusal, Reply, StopCause, Verdict};
pub use event::{Closed, Declaration, Event, Hello, RequestId};
pub use ids::{Epoch, Grant, LeaseToken, Name, NameError, Niceness, Seq, SessionId, TaskId};
pub use task::{
    Counters, DeadReason, Failure, Finish, Options, Outcome, Payload, Placement, ResultInfo, Run, State, StateName,
    StopIntent, TaskRecord, TaskSpec,
};
pub use time::Timestamp;
pub use view::{Explanation, QueueView, Reason, TaskView, WorkerState, WorkerView};
