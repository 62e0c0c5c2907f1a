//! A whole broker in this process, driven by plain gRPC clients over TCP.

mod callers;
mod calls;
mod certs;
mod conventions;
mod deadlines;
mod harness;
mod health;
mod history;
mod hostile;
mod listing;
mod listing_meanwhile;
mod operators;
mod raw;
mod reflection;
mod refusals;
mod restart;
mod results;
mod sessions;
mod stores;
mod streaming;
mod streams;
mod streams_bad;
mod tls;
mod tokens;
mod workers;
