//! Tests of asynq as a whole: one binary, so that they link once.

mod bad_input;
mod bulk;
mod calls;
mod demo;
mod disk;
mod drain;
mod examples;
mod exec;
mod keys;
mod kill;
mod link;
mod listing;
mod logs;
mod manual;
mod ops;
mod path;
mod python;
mod quick_start;
mod secure;
mod speed;
mod streams;
mod stuck;
mod tidy;
mod torture;
mod verbs;
mod wire;
