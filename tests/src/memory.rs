//! What memory a process has in use, as the kernel counts it.

/// Bytes of memory a process has in use.
///
/// # Panics
/// When it has ended.
#[must_use]
pub fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes.and_then(|n| n.parse().ok()).expect("a size");
    kilobytes * 1024
}
