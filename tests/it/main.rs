//! Tests of asynq as a whole: one binary, so that they link once.

mod bad_input;
mod drain;
mod exec;
mod kill;
mod link;
mod path;
mod streams;
mod tidy;
mod wire;
