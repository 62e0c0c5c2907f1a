//! The proofs with real processes: kills, stops, cuts, bad tasks, and what is said of them.
//!
//! Each test has a small size, which is run with all tests, and a large one for
//! `ASYNQ_TORTURE=1` (`make torture`). Each prints its seed, what it did and what became
//! of it; `ASYNQ_TORTURE_SEED` has the same faults again, as far as processes can.

mod answers;
mod bad;
mod credit;
mod crowd;
mod cuts;
mod died;
mod explain;
mod generator;
mod kills;
mod look_ahead;
mod many;
mod reruns;
mod stalled;
mod stopped;
mod stops;
mod streams;
mod without;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use asynq_client::TaskId;
use asynq_core::limits::LEASE;
use asynq_tests::dice::{Dice, mix};
use asynq_tests::journal::now;

/// The bound on the end of everything, from the last fault: what a dead worker had
/// claimed before the broker was restarted waits for a lease.
const ALL_DONE: Duration = LEASE.saturating_add(Duration::from_secs(30));

/// Whether this is the large size.
fn is_long() -> bool {
    std::env::var_os("ASYNQ_TORTURE").is_some_and(|yes| yes == "1")
}

/// Dice, and what they fall by: told, or any number.
fn dice(test: &str) -> Dice {
    let seed = match std::env::var("ASYNQ_TORTURE_SEED") {
        Ok(seed) => seed.parse().expect("ASYNQ_TORTURE_SEED is a number"),
        Err(_) => mix(now().as_nanos() as u64) >> 32,
    };
    println!("{test}: ASYNQ_TORTURE_SEED={seed}");
    Dice::new(seed)
}

/// The same id, in the words of the broker.
fn core_id(id: TaskId) -> asynq_core::TaskId {
    asynq_core::TaskId(*id.as_bytes())
}

/// Ports of all who are connected to a port of this machine: who connects anew has
/// another one.
fn connected(port: u16) -> BTreeSet<String> {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
    let to = format!(":{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| row.len() > 3 && row[2].ends_with(&to) && row[3] == ESTABLISHED);
    rows.map(|row| row[1].to_owned()).collect()
}

/// Some durations in short.
struct Spread(Vec<Duration>);

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort();
        let Some(last) = sorted.last() else {
            return f.write_str("none");
        };
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
        write!(
            f,
            "p50 {:.1?}, p99 {:.1?}, at most {last:.1?} (of {})",
            at(0.5),
            at(0.99),
            sorted.len()
        )
    }
}
