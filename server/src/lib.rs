//! The asynq broker's shell: it does what the core decides. Callers and
//! workers come in through `auth` and `api`, the loop in `broker` owns the core, and the
//! store remembers.

mod api;
mod auth;
mod broker;
pub mod clock;
pub mod commands;
pub mod config;
mod handshake;
pub mod health;
pub mod http;
pub mod limits;
mod line;
mod listener;
pub mod lock;
pub mod logging;
mod metrics;
pub mod notify;
pub mod process;
mod server;
mod trace;

pub use auth::{Access, AccessError, Role, TokensError};
pub use handshake::Transport;
pub use listener::TcpIncoming;
pub use metrics::Metrics;
pub use server::{Backing, Durability, Server, ServerError, run};
