//! Processor time of processes, as the kernel counts it.

use std::time::Duration;

/// User and system time a process has used so far.
pub(crate) fn used(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // Fields 14 and 15; the second is a name in parentheses that may hold spaces.
    let after_name = stat.rsplit_once(')').expect("a stat line").1;
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().expect("ticks"))
        .sum();
    // USER_HZ is 100 on every Linux.
    Duration::from_millis(ticks * 10)
}
