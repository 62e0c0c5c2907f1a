//! The seeded simulator: broker, workers, callers, network and disk in one
//! thread and in virtual time, with faults; see docs/simulator.md.

mod broker;
mod bug;
mod caller;
mod disk;
mod env;
mod faults;
mod message;
mod net;
mod plan;
mod planted;
mod run;
mod same;
mod tiers;
mod worker;
mod world;

use asynq_tests::dice;
