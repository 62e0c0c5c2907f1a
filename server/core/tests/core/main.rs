//! Tests of the core from outside: events in, every change and effect accounted for.

mod abandoned;
mod alone;
mod calls;
mod clocks;
mod explain;
mod extended;
mod fairness;
mod history;
mod keys;
mod lifecycle;
mod listing;
mod model;
mod once;
mod operators;
mod queues;
mod restart;
mod resumed;
mod shard;
mod stops;
mod streams;
mod workers;
