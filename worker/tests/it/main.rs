//! The worker against a broker played by the test, message by message.

mod abandoned;
mod broker;
mod calls;
mod checkpoints;
mod daemon;
mod drain;
mod exec;
mod payloads;
mod reruns;
mod resumed;
mod runs;
mod session;
mod streams;
