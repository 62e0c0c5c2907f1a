//! The pure core of the asynq broker. It is told the time and what happened,
//! and answers what to remember and what to do: no clock, no I/O, no
//! randomness, so that every run can be replayed.
//!
//! ```
//! use asynq_core::{Core, Epoch, Event, Name, Output, Payload, Recovered, RequestId, TaskId, TaskSpec, Timestamp};
//!
//! let (now, mut out) = (Timestamp::from_millis(1), Output::default());
//! let mut core = Core::new();
//! core.start(now, Recovered { epoch: Epoch(1), ..Recovered::default() }, &mut out);
//! let spec = TaskSpec {
//!     id: TaskId([7; 16]),
//!     name: Name::new("resize")?,
//!     queue: Name::new("default")?,
//!     series: Name::or_empty("")?,
//!     options: Default::default(),
//!     start_at: None,
//!     on_key: Default::default(),
//!     payload: Payload { content_type: "".into(), data: "{}".into() },
//! };
//! core.apply(now, Event::Enqueue { request: RequestId(1), spec: Box::new(spec), reader: None }, &mut out);
//! assert_eq!((out.changes.len(), out.effects.len()), (1, 1)); // one insert, one reply
//! # Ok::<(), asynq_core::NameError>(())
//! ```

mod alone;
mod by_id;
mod callers;
mod calls;
mod change;
mod check;
mod core;
mod counts;
mod effect;
mod event;
mod explain;
mod filter;
mod finish;
mod history;
mod ids;
mod keys;
pub mod lifecycle;
pub mod limits;
mod listing;
mod live;
mod names;
mod operators;
mod queues;
mod recovery;
mod runs;
mod sched;
mod sessions;
mod streams;
mod task;
mod time;
mod timers;
mod view;

pub use crate::core::{Core, Output};
pub use callers::digest;
pub use change::{Change, SessionRecord};
pub use effect::{Assignment, CancelOutcome, Effect, Finished, Refusal, Reply, StopCause, StreamStart, Verdict};
pub use event::{Call, Closed, Declaration, Event, Hello, RequestId};
pub use filter::{StateSet, TaskFilter};
pub use history::{Cause, Note, Notes, Step, Transition};
pub use ids::{ConsumerId, Epoch, Grant, LeaseToken, Name, NameError, Niceness, Seq, SessionId, TaskId};
pub use keys::{Key, KeyError, KeyTaken, OnKey, answer_ended};
pub use queues::{QueueSettings, QueueUpdate};
pub use recovery::Recovered;
pub use streams::{Checkpoint, Credit, EmitResume, ITEMS, ItemBatch, Left, Place, Reader, Tail};
pub use task::{
    CalledBy, Counters, DeadReason, Failure, Finish, OnLoss, Options, Outcome, Payload, Placement, ResultInfo, Run,
    State, StateName, StopIntent, Tally, TaskRecord, TaskSpec,
};
pub use time::Timestamp;
pub use view::{Explanation, QueueView, Reason, TaskView, WorkerState, WorkerView};
