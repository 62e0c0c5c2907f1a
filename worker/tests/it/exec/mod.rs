//! Tasks of worker.toml, run by the daemon as it is installed.

mod checkpoints;
mod ends;
mod failures;
mod items;
mod results;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use asynq_proto::v1::{Assignment, Credit, TaskFailure, WorkRequest};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::broker::{Broker, Link, assignment, until, within};

/// A daemon with a worker.toml, and the broker it is connected to.
struct Daemon {
    broker: Broker,
    link: Link,
    child: Child,
    folder: TempDir,
}

impl Daemon {
    /// Starts one whose worker.toml holds these tasks.
    async fn start(tasks: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), tasks).await
    }

    /// The same in a folder where the programs lie already.
    async fn start_in(folder: TempDir, tasks: &str) -> Self {
        let mut broker = Broker::start().await;
        let file = folder.path().join("worker.toml");
        std::fs::write(
            &file,
            format!("slots = 4\nbuiltins = true\ndrain_timeout = \"4s\"\n{tasks}"),
        )
        .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_asynq-worker"))
            .args([
                "--broker".as_ref(),
                broker.url().as_ref(),
                "--config".as_ref(),
                file.as_os_str(),
            ])
            .env_clear()
            .envs([
                ("PATH", "/usr/local/bin:/usr/bin:/bin"),
                ("LANG", "C.UTF-8"),
                ("SECRET", "x"),
            ])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let link = broker.accept().await;
        Self {
            broker,
            link,
            child,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid_of(self.child.id().unwrap()), signal).unwrap();
    }

    /// Runs a task to its end; gives what the worker said.
    async fn run(&mut self, n: u8, name: &str, args: &str) -> WorkRequest {
        self.link.assign(assignment(n, name, args)).await;
        self.over(n).await
    }

    /// The end of a run.
    async fn over(&mut self, n: u8) -> WorkRequest {
        let said = self.link.next().await;
        self.link.ack(n).await;
        said
    }

    async fn result(&mut self, n: u8, name: &str, args: &str) -> Vec<u8> {
        let said = self.run(n, name, args).await;
        match &said.completions[..] {
            [completion] => completion.result.clone().unwrap().data.to_vec(),
            _ => panic!("{name}: {said:?}"),
        }
    }

    async fn failure(&mut self, n: u8, name: &str, args: &str) -> TaskFailure {
        let said = self.run(n, name, args).await;
        match &said.failures[..] {
            [failure] => failure.failure.clone().unwrap(),
            _ => panic!("{name}: {said:?}"),
        }
    }

    /// Numbers and command lines of the daemon's children, dead ones that nobody
    /// has reaped among them.
    fn children(&self) -> Vec<(u32, String)> {
        let ours = self.child.id().unwrap().to_string();
        let numbers = std::fs::read_dir("/proc").unwrap().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let children = numbers.filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(')').next().unwrap().split_whitespace().nth(1) == Some(&ours)
        });
        let command = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        children.map(|pid| (pid, command(pid))).collect()
    }

    /// The number a program has written to this file.
    async fn pid(&self, file: &str) -> Pid {
        let path = self.path(file);
        let read = || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'));
        until(|| read().is_some()).await;
        pid_of(read().unwrap().trim().parse().unwrap())
    }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// There is no such process, not even a dead one that nobody has reaped.
fn gone(pid: Pid) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// It does not run any more, whoever is to reap it.
fn dead(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.ok()
        .is_none_or(|stat| stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// An assignment somebody reads.
fn read(n: u8, name: &str, args: &str, limit_index: u64) -> Assignment {
    Assignment {
        stream: Some(credit(limit_index)),
        ..assignment(n, name, args)
    }
}

fn credit(limit_index: u64) -> Credit {
    Credit {
        acked: 0,
        limit_index,
        limit_bytes: 1 << 40,
    }
}

/// A shell script as a word of TOML; braces are doubled.
fn script(text: &str) -> String {
    let text = text.replace('{', "{{").replace('}', "}}");
    format!("cmd = [\"sh\", \"-c\", '''{text}''']")
}

/// A task that runs a shell script.
fn shell(name: &str, more: &str, text: &str) -> String {
    format!("[task.{name}]\nkind = \"exec\"\n{}\n{more}\n", script(text))
}

async fn ended(mut child: Child) -> Option<i32> {
    within(child.wait()).await.unwrap().code()
}
