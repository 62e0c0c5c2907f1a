//! The guard: a process of our own that outlives the daemon by a moment. However
//! the daemon ends, also by SIGKILL, the guard then kills the programs it left.
//!
//! The daemon tells it each process group that begins and ends, over a socket.
//! The end of the socket is the end of the daemon. What this does not reach: a
//! program started in the instant before the daemon's death, before the guard
//! was told; and a process that has left the group of the program it began in.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

use super::limits::GUARD_BEGINS;
use crate::signals;

/// What the guard is called, to itself and in `ps`.
const NAME: &str = "asynq-worker-guard";
/// The daemon's own program, also after it was replaced by a newer one.
const OURSELVES: &str = "/proc/self/exe";
/// What the guard says first, and only once: from here on signals do not end it.
const READY: &[u8; 1] = b"!";

/// Whether this process is to be a guard.
pub(crate) fn is_guard() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// What a guard does: to wait for the daemon's end, and to kill what is left.
pub(crate) fn guard_programs() -> io::Result<()> {
    // Whoever stops the daemon with all its processes must not stop us first.
    let _deaf = signals::ignore()?;
    rustix::io::write(io::stdin(), READY)?;
    let mut groups = BTreeSet::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let (begun, group) = match line.split_at_checked(1) {
            Some(("+", group)) => (true, group),
            Some(("-", group)) => (false, group),
            _ => continue,
        };
        match group.parse::<i32>() {
            Ok(group) if begun => groups.insert(group),
            Ok(group) => groups.remove(&group),
            Err(_) => continue,
        };
    }
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        // It may be gone by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok(())
}

/// Waits until the guard at the other end has begun.
fn begun(line: &mut UnixStream) -> io::Result<()> {
    line.set_read_timeout(Some(GUARD_BEGINS))?;
    line.read_exact(&mut [0; READY.len()])?;
    // From now on it reads at once. If it does not, nobody is to wait for it.
    line.set_nonblocking(true)
}

/// The daemon's end of it.
#[derive(Debug)]
pub(super) struct Guard(Mutex<State>);

#[derive(Debug)]
struct State {
    groups: BTreeSet<i32>,
    process: Process,
}

#[derive(Debug)]
struct Process {
    child: Child,
    line: UnixStream,
}

impl Guard {
    pub(super) fn start() -> io::Result<Self> {
        let (groups, process) = (BTreeSet::new(), Process::start()?);
        Ok(Self(Mutex::new(State { groups, process })))
    }

    /// Has a process group killed if the daemon ends before the value is dropped.
    pub(super) fn watch(self: &Arc<Self>, group: Pid) -> Watched {
        let group = group.as_raw_nonzero().get();
        let mut state = self.lock();
        state.groups.insert(group);
        state.tell('+', group);
        drop(state);
        Watched {
            guard: self.clone(),
            group,
        }
    }

    // No code that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process group that does not outlive the daemon.
#[derive(Debug)]
pub(super) struct Watched {
    guard: Arc<Guard>,
    group: i32,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut state = self.guard.lock();
        state.groups.remove(&self.group);
        state.tell('-', self.group);
    }
}

impl State {
    fn tell(&mut self, what: char, group: i32) {
        if self.process.say(&format!("{what}{group}\n")).is_ok() {
            return;
        }
        // Somebody has killed or stopped it: another one learns all from the beginning.
        tracing::warn!("the guard of programs does not listen; starting another");
        let again = Process::start().and_then(|mut process| {
            let all: String = self.groups.iter().map(|group| format!("+{group}\n")).collect();
            process.say(&all)?;
            Ok(process)
        });
        match again {
            Ok(process) => std::mem::replace(&mut self.process, process).end(),
            Err(error) => tracing::error!(%error, "failed to start a guard: programs may outlive a killed daemon"),
        }
    }
}

impl Process {
    fn start() -> io::Result<Self> {
        let (mut line, theirs) = UnixStream::pair()?;
        let mut child = Command::new(OURSELVES)
            .arg0(NAME)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the daemon.
            .process_group(0)
            .spawn()?;
        if let Err(error) = begun(&mut line) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok(Self { child, line })
    }

    fn say(&mut self, lines: &str) -> io::Result<()> {
        self.line.write_all(lines.as_bytes())
    }

    /// Ends one that does not listen, before the end of its line tells it that
    /// the daemon is gone.
    fn end(mut self) {
        let _ = self.child.kill(); // dead, or as good as that
        let _ = self.child.wait();
    }
}
