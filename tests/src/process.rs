//! A process of ours: its first line, its signals, its end, its log.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::program;
use crate::wait::{PATIENCE, within};

/// A daemon. Dropped, it is killed; if its test fails, what it logged is shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ready: String,
}

impl Process {
    /// Starts a program and waits for its first line, which says that it is
    /// ready. It gets nothing of this process's environment but PATH.
    ///
    /// # Errors
    /// What it logged, if it ends without that line.
    pub async fn start(
        name: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        log: PathBuf,
    ) -> Result<Self, String> {
        Self::start_at(&program(name), args, log).await
    }

    /// The same, with something in its environment.
    ///
    /// # Errors
    /// What it logged, if it ends without that line.
    pub async fn start_with_env(
        name: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        env: &[(&str, &OsStr)],
        log: PathBuf,
    ) -> Result<Self, String> {
        Self::begin(&program(name), args, env, log).await
    }

    /// The same, for any program.
    ///
    /// # Errors
    /// What it logged, if it ends without that line.
    pub async fn start_at(
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        log: PathBuf,
    ) -> Result<Self, String> {
        Self::begin(program, args, &[], log).await
    }

    async fn begin(
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        env: &[(&str, &OsStr)],
        log: PathBuf,
    ) -> Result<Self, String> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = File::options().append(true).create(true).open(&log);
        let mut child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file.expect("the log can be written"))
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let mut stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut ready = String::new();
        let read = within("the ready line", PATIENCE, stdout.read_line(&mut ready)).await;
        // Neither daemon writes a second line, so nobody misses the pipe.
        if read.expect("a pipe can be read") == 0 {
            let status = within("the end", PATIENCE, child.wait())
                .await
                .expect("it is our child");
            return Err(format!("{status}\n{}", read_log(&log)));
        }
        Ok(Self {
            name,
            child,
            log,
            ready: ready.trim_end().to_owned(),
        })
    }

    /// Its first line.
    #[must_use]
    pub fn ready(&self) -> &str {
        &self.ready
    }

    /// Its number.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    /// Sends a signal to this process and no other.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        send(&self.child, signal).unwrap_or_else(|| panic!("{} has ended", self.name));
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub async fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.end(PATIENCE).await;
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended by then.
    pub async fn end(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let ended = within(&what, deadline, self.child.wait()).await;
        ended.expect("it is our child")
    }

    /// Asks it to stop with SIGTERM.
    ///
    /// # Panics
    /// When it does not exit with 0 in time.
    pub async fn stop(&mut self, deadline: Duration) {
        self.signal(Signal::TERM);
        let status = self.end(deadline).await;
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of {}, {}\n{}", self.name, self.ready, self.log());
        }
    }
}

/// Sends a signal to a child; `None` if it has ended.
pub(crate) fn send(child: &Child, signal: Signal) -> Option<()> {
    let pid = Pid::from_raw(i32::try_from(child.id()?).ok()?)?;
    kill_process(pid, signal).ok()
}

fn read_log(path: &PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
