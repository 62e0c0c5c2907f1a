//! Tests of asynq as a whole: one binary, so that they link once.

mod bad_input;
mod demo;
mod drain;
mod exec;
mod kill;
mod link;
mod listing;
mod logs;
mod path;
mod secure;
mod speed;
mod streams;
mod tidy;
mod wire;
