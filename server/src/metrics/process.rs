//! What the system says of this process. A figure it does not tell is left out.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::text::{Kind, Text};

/// When this process started, on the wall clock.
pub(super) fn now() -> Duration {
    read(ClockId::Realtime)
}

/// The figures every Prometheus client tells under these names.
pub(super) fn write(text: &mut Text, started: Duration) {
    text.single(
        "process_start_time_seconds",
        Kind::Gauge,
        "When the broker started, seconds since the Unix epoch.",
        started.as_secs_f64(),
    );
    text.single(
        "process_cpu_seconds_total",
        Kind::Counter,
        "Processor time the broker has used.",
        read(ClockId::ProcessCPUTime).as_secs_f64(),
    );
    if let Some(bytes) = resident_bytes() {
        let help = "Memory the broker has in RAM.";
        text.single("process_resident_memory_bytes", Kind::Gauge, help, bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Reading the folder opens one.
        let help = "Files and connections the broker has open.";
        text.single("process_open_fds", Kind::Gauge, help, open.count().saturating_sub(1));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        let help = "Files and connections the broker may have open.";
        text.single("process_max_fds", Kind::Gauge, help, most);
    }
}

/// Bytes of the files of a folder that has no folders.
pub(super) fn bytes_in(folder: &Path) -> Option<u64> {
    let sizes = fs::read_dir(folder).ok()?.map(|entry| entry?.metadata());
    // A file may have gone in between.
    Some(sizes.filter_map(Result::ok).map(|file| file.len()).sum())
}

fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
