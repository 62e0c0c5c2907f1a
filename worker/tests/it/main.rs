//! The worker against a broker played by the test, message by message.

mod abandoned;
mod broker;
mod daemon;
mod drain;
mod exec;
mod payloads;
mod runs;
mod session;
mod streams;
