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
pub mod limits;
mod listener;
pub mod lock;
pub mod logging;
pub mod process;
mod server;

pub use auth::{Access, AccessError, Role, TokensError};
pub use handshake::Transport;
pub use listener::TcpIncoming;
pub use server::{Backing, Durability, Server, ServerError, run};
