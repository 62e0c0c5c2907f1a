//! A cluster of real processes to test asynq with, the harness of `it/`; and the
//! checker of what was seen to happen, for `it/` and `sim/`.
//!
//! Nothing here builds anything: the programs must be there already. `make test`
//! sees to that; by hand it is `cargo build --workspace --bins`.

/// The blocks of the guide, compiled, and run where they need no broker.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/rust-sdk.md")]
pub mod rust_sdk_guide {}

mod broker;
mod cluster;
pub mod dice;
pub mod history;
mod http;
pub mod journal;
mod memory;
mod nginx;
mod process;
mod programs;
mod proxy;
mod relay;
mod wait;
mod worker;

pub use broker::Broker;
pub use cluster::{Cluster, Ended, interrupt, run};
pub use http::get;
pub use memory::memory;
pub use nginx::Nginx;
pub use process::Process;
pub use programs::{example, program};
pub use proxy::{Fault, Proxy};
pub use relay::{Relay, RelayClient};
pub use rustix::process::Signal;
pub use wait::{PATIENCE, eventually, within};
pub use worker::WorkerHere;
