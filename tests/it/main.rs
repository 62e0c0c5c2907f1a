//! Tests of asynq as a whole: one binary, so that they link once.

mod bad_input;
mod drain;
mod kill;
mod link;
mod path;
mod secure;
mod streams;
mod tidy;
mod wire;
