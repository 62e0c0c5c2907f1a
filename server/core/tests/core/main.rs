//! Tests of the core from outside: events in, every change and effect accounted for.

mod calls;
mod explain;
mod fairness;
mod history;
mod lifecycle;
mod listing;
mod model;
mod once;
mod operators;
mod restart;
mod shard;
mod stops;
mod streams;
mod workers;
