//! What is counted and measured, and how it is told to Prometheus.
//!
//! The loop keeps plain numbers of its own and hands out a copy when asked: no
//! lock, no allocation and no label is made for a task. All else is read when
//! somebody asks.

mod calls;
mod histogram;
mod meters;
mod page;
mod process;
mod text;

pub(crate) use calls::Calls;
pub(crate) use meters::{Figures, Meters};
pub use page::Metrics;
