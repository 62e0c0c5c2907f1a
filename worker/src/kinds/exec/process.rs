//! A program's process and its process group: watched, signalled, reaped.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, test_kill_process_group, waitpgid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};

use crate::kinds::limits::{GROUP_LOOK, SETTLE};

/// A started program. It leads a process group of its own.
pub(super) struct Process {
    child: Child,
    group: Pid,
    /// Readable once the program has ended.
    end: AsyncFd<OwnedFd>,
    /// Its number may be another's from then on.
    reaped: bool,
    status: Option<ExitStatus>,
}

impl Process {
    /// Takes charge of a child that leads its process group.
    ///
    /// # Errors
    /// When it cannot be watched; it is killed then.
    pub(super) fn watch(mut child: Child) -> io::Result<Self> {
        let group = Pid::from_child(&child);
        let end = pidfd_open(group, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(readable_at_the_end);
        match end {
            Ok(end) => Ok(Self {
                child,
                group,
                end,
                reaped: false,
                status: None,
            }),
            Err(error) => {
                let _ = kill_process_group(group, Signal::KILL); // gone is gone
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Our ends of its pipes, taken out.
    ///
    /// # Errors
    /// When the runtime cannot have them.
    pub(super) fn pipes(&mut self) -> io::Result<Pipes> {
        let none = || io::Error::other("there is no pipe");
        let stdout = self.child.stdout.take().ok_or_else(none)?;
        let stderr = self.child.stderr.take().ok_or_else(none)?;
        let stdin = self.child.stdin.take().map(OwnedFd::from);
        Ok(Pipes {
            stdin: stdin.map(pipe::Sender::from_owned_fd).transpose()?,
            stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
            stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
        })
    }

    pub(super) fn group(&self) -> Pid {
        self.group
    }

    /// Waits for the program's end. It is not reaped by that, so that its
    /// number, which is its group's, is nobody else's.
    pub(super) async fn ended(&self) {
        // Fails only with the runtime, and this task with it.
        let _ = self.end.readable().await;
    }

    /// Sends a signal to all that is left of the group.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal); // gone is gone
    }

    fn reap(&mut self) {
        if !self.reaped {
            self.reaped = true;
            self.status = self.child.wait().ok(); // at once: it has ended
        }
    }

    /// Kills what is left of the group, and reaps the program.
    pub(super) fn clear(&mut self) {
        self.signal(Signal::KILL);
        self.reap();
    }

    /// Ends the program and all of its group, which has `grace` to do so itself.
    pub(super) async fn end(&mut self, grace: Duration) {
        if !grace.is_zero() {
            self.signal(Signal::TERM);
            if timeout(grace, self.all_gone()).await.is_ok() {
                return;
            }
        }
        self.signal(Signal::KILL);
        self.ended().await; // before it is reaped, which would wait for it
        self.reap();
    }

    /// How the program ended, once it is reaped.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// As the first process of a container the daemon inherits what programs
    /// leave behind. Elsewhere there is nothing to do.
    pub(super) async fn bury(&self) {
        let all = async {
            // An error says that none of the group is a child of ours.
            while let Ok(buried) = waitpgid(self.group, WaitOptions::NOHANG) {
                if buried.is_none() {
                    sleep(GROUP_LOOK).await;
                }
            }
        };
        let _ = timeout(SETTLE, all).await; // killed, it cannot take long
    }

    /// The program may be gone long before those it has started.
    async fn all_gone(&mut self) {
        self.ended().await;
        self.reap();
        while lives(self.group) {
            sleep(GROUP_LOOK).await;
        }
    }
}

/// Whether something of the group still runs. Dead processes are still of it
/// until somebody reaps them, and that may take init a while.
fn lives(group: Pid) -> bool {
    test_kill_process_group(group).is_ok()
        && fs::read_dir("/proc")
            .is_ok_and(|processes| processes.flatten().any(|process| runs_in(group, &process.path())))
}

/// Whether `process`, a folder of /proc, runs in the group.
fn runs_in(group: Pid, process: &Path) -> bool {
    let Ok(stat) = fs::read_to_string(process.join("stat")) else {
        return false; // no process, or not any more
    };
    // Its name, in parentheses, may hold anything: state, parent and group come after.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let dead = fields.next().is_none_or(|state| "ZX".contains(state));
    !dead
        && fields
            .nth(1)
            .is_some_and(|number| number.parse() == Ok(group.as_raw_pid()))
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe: the descriptor must stay open, as an OwnedFd sees to"
)]
fn readable_at_the_end(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// Only of one that was never supervised to its end.
impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.clear();
        }
    }
}

/// Our ends of a program's pipes.
pub(super) struct Pipes {
    pub(super) stdin: Option<pipe::Sender>,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
}
