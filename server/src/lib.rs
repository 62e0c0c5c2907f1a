//! The asynq broker's shell: it does what the core decides. Callers and
//! workers come in through `api`, the loop in `broker` owns the core, and the
//! store remembers.

mod api;
mod broker;
pub mod clock;
pub mod config;
pub mod limits;
mod listener;
pub mod lock;
pub mod logging;
pub mod process;
mod server;

pub use listener::{TcpIncoming, Transport};
pub use server::{Backing, Durability, Server, ServerError, run};
