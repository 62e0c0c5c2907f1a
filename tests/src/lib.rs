//! A cluster of real processes to test asynq with, the harness of `it/`; and the
//! checker of what was seen to happen, for `it/` and `sim/`.
//!
//! Nothing here builds anything: the programs must be there already. `make test`
//! sees to that; by hand it is `cargo build --workspace --bins`.

mod broker;
mod cluster;
pub mod history;
mod nginx;
mod process;
mod programs;
mod proxy;
mod wait;
mod worker;

pub use broker::Broker;
pub use cluster::{Cluster, Ended, interrupt, run};
pub use nginx::Nginx;
pub use process::Process;
pub use programs::program;
pub use proxy::Proxy;
pub use rustix::process::Signal;
pub use wait::{PATIENCE, eventually, within};
pub use worker::WorkerHere;
