//! A broker, workers, and callers of it.

use std::process::{Output, Stdio};

use asynq_client::{Client, State, TaskId};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::process::send;
use crate::wait::{PATIENCE, eventually, within};
use crate::{Broker, Process, Signal, program};

/// A broker and what it takes to use it.
#[derive(Debug)]
pub struct Cluster {
    /// The broker.
    pub broker: Broker,
    workers: usize,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` if a signal killed it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub out: String,
    /// What it wrote to stderr.
    pub err: String,
}

impl Cluster {
    /// A broker without workers.
    pub async fn start() -> Self {
        Self {
            broker: Broker::start().await,
            workers: 0,
        }
    }

    /// A broker with one worker that offers the builtins.
    pub async fn with_worker(slots: u32) -> (Self, Process) {
        let mut cluster = Self::start().await;
        let worker = cluster.worker(slots).await;
        (cluster, worker)
    }

    /// Adds a worker that offers the builtins; it is named `worker-1`, `worker-2`, ….
    pub async fn worker(&mut self, slots: u32) -> Process {
        let url = self.broker.url();
        self.worker_by(&url, slots).await
    }

    /// Adds a worker that takes another way to the broker.
    ///
    /// # Panics
    /// When it does not register.
    pub async fn worker_by(&mut self, url: &str, slots: u32) -> Process {
        self.workers += 1;
        let (name, slots) = (format!("worker-{}", self.workers), slots.to_string());
        let args = ["--broker", url, "--name", &name, "--slots", &slots, "--builtins"];
        let log = self.broker.folder().join(format!("{name}.log"));
        let worker = Process::start("asynq-worker", args, log).await;
        worker.unwrap_or_else(|said| panic!("asynq-worker: {said}"))
    }

    /// A client of its own connection.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn client(&self) -> Client {
        Client::connect(&self.broker.url()).await.expect("the broker is there")
    }

    /// The command, begun.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(&self, args: &[&str]) -> Child {
        Command::new(program("asynq"))
            .args(args)
            .env_clear()
            .env("ASYNQ_BROKER", self.broker.url())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("asynq starts")
    }

    /// Runs the command to its end.
    pub async fn run(&self, args: &[&str]) -> Ended {
        end(self.spawn(args)).await
    }

    /// Runs a command that must go well and say nothing on stderr; gives its
    /// output without the last newline.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ok(&self, args: &[&str]) -> String {
        let Ended { code, mut out, err } = self.run(args).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "asynq {args:?}");
        assert_eq!(out.pop(), Some('\n'), "asynq {args:?}");
        out
    }

    /// The same with `-o json`, read.
    ///
    /// # Panics
    /// When it prints anything else.
    pub async fn json(&self, args: &[&str]) -> Value {
        let out = self.ok(&[args, &["-o", "json"]].concat()).await;
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Waits until a task is in a state.
    ///
    /// # Panics
    /// When the broker does not know it, or it does not get there.
    pub async fn reaches(&self, client: &Client, id: TaskId, state: State) {
        eventually(&format!("{id} to be {state}"), PATIENCE, || async {
            let shown = client.show(id).await.expect("the task is known");
            (shown.state == state).then_some(())
        })
        .await;
    }

    /// Waits until the only worker is in a state, as `asynq worker ls` tells it.
    pub async fn worker_becomes(&self, client: &Client, state: &str) {
        eventually(&format!("the worker to be {state}"), PATIENCE, || async {
            let workers = client.workers().await.ok()?;
            matches!(&workers[..], [worker] if worker.state == state).then_some(())
        })
        .await;
    }
}

/// Runs a program that is to end by itself, with nothing of this process's
/// environment.
///
/// # Panics
/// When it does not end.
pub async fn run(name: &str, args: &[&str]) -> Ended {
    let child = Command::new(program(name))
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    end(child.unwrap_or_else(|error| panic!("{name} does not start: {error}"))).await
}

/// Presses Ctrl-C on a command.
///
/// # Panics
/// When it has ended.
pub fn interrupt(command: &Child) {
    send(command, Signal::INT).expect("the command goes on");
}

async fn end(child: Child) -> Ended {
    let output = within("the end of asynq", PATIENCE, child.wait_with_output()).await;
    let Output { status, stdout, stderr } = output.expect("it is our child");
    let text = |bytes| String::from_utf8(bytes).expect("it is text");
    Ended {
        code: status.code(),
        out: text(stdout),
        err: text(stderr),
    }
}

impl Ended {
    /// Waits for the end of a command that was [spawned](Cluster::spawn).
    pub async fn of(child: Child) -> Self {
        end(child).await
    }
}
