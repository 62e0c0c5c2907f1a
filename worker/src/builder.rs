//! Putting a worker together: broker, name, slots, tasks.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use asynq_proto::limits::MAX_SLOTS;
use asynq_proto::{Connector, Credentials, Endpoint, Iter, Payload, Task, TaskError, Token, check_name};
use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builtins;
use crate::context::Context;
use crate::error::{BuildError, RunError};
use crate::files::Files;
use crate::handler::Handler;
use crate::limits::{DRAIN_TIMEOUT, KILL_GRACE, MIN_KILL_GRACE};
use crate::registry::{Declaration, Registry};
use crate::runtime;
use crate::yields::Yield;

/// Collects what a worker is made of. The first mistake is reported by
/// [`build`](Self::build) or [`run_until`](Self::run_until).
#[must_use = "a builder does nothing until it is run"]
pub struct WorkerBuilder {
    broker: Result<Broker, BuildError>,
    credentials: Credentials,
    name: Option<String>,
    slots: Option<u32>,
    drain_timeout: Duration,
    kill_grace: Duration,
    exit_when_idle: bool,
    registry: Registry,
    mistake: Option<BuildError>,
    on_ready: Option<OnReady>,
}

/// How the broker is reached.
enum Broker {
    At(Endpoint),
    By(Connector),
}

pub(crate) type OnReady = Box<dyn FnOnce(&Ready) + Send>;

/// What a worker knows once it is registered for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// How many task names it registered.
    pub tasks: usize,
    /// With which broker.
    pub broker: String,
}

impl WorkerBuilder {
    fn new(broker: Result<Broker, BuildError>) -> Self {
        Self {
            broker,
            credentials: Credentials::default(),
            name: None,
            slots: None,
            drain_timeout: DRAIN_TIMEOUT,
            kill_grace: KILL_GRACE,
            exit_when_idle: false,
            registry: Registry::default(),
            mistake: None,
            on_ready: None,
        }
    }

    /// The name operators see. Default: `<host>-<4 hex digits>`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Trusts the CAs of this PEM file, and no others. Default: the CAs this
    /// system trusts. For a broker at an `https://` address.
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.credentials.ca = Some(file.into());
        self
    }

    /// Shows this certificate to the broker. Both files are PEM.
    pub fn cert(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.credentials.cert = Some(cert.into());
        self.credentials.key = Some(key.into());
        self
    }

    /// Sends this token with every call: the secret itself, or `@FILE`. It is
    /// never sent in clear beyond this machine.
    pub fn token(mut self, token: &str) -> Self {
        match token.parse::<Token>() {
            Ok(token) => self.credentials.token = Some(token),
            Err(error) => self.mistake = self.mistake.or(Some(error.into())),
        }
        self
    }

    /// Uses these credentials instead of all that were given before.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// How many tasks run at a time, 1…65536. Default: the number of CPUs.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = Some(slots);
        self
    }

    /// How long a drain takes at most. Runs that have not finished shortly
    /// before are dropped and given back. Default: 30 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// How long a run that was told to stop may go on, 10 ms or more. One that still
    /// does then, on a thread that nobody can end, is abandoned: its task goes on
    /// without it, nothing it returns counts, and its slot is lost, which `asynq worker
    /// ls` shows as leaked, until it returns after all. Default: 6 s.
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.kill_grace = grace.max(MIN_KILL_GRACE);
        self
    }

    /// Ends the worker once it is connected and has had nothing to do for one
    /// second. For batch jobs: the allocation ends when the work does.
    pub fn exit_when_idle(mut self, yes: bool) -> Self {
        self.exit_when_idle = yes;
        self
    }

    /// Called once, when the worker is registered for the first time.
    pub fn on_ready(mut self, then: impl FnOnce(&Ready) + Send + 'static) -> Self {
        self.on_ready = Some(Box::new(then));
        self
    }

    /// Runs a task with an async function. It is dropped at its await point
    /// when the run is to stop. It must not block its thread; that is what
    /// [`blocking`](Self::blocking) is for.
    pub fn task<A, R, F, Fut>(self, task: Task<A, R>, handler: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize,
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
    {
        self.add(task.into(), Handler::typed(handler))
    }

    /// Runs a task with a plain function, on a thread of its own. Nobody can
    /// interrupt it: it should look at [`Context::is_stopped`] between steps.
    pub fn blocking<A, R, F>(self, task: Task<A, R>, handler: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(Context, A) -> Result<R, TaskError> + Send + Sync + 'static,
    {
        self.add(task.into(), Handler::blocking(handler))
    }

    /// Runs a task whose name and types are known only at run time: the handler
    /// takes and returns payloads as they are.
    pub fn raw<F, Fut>(self, task: impl Into<Declaration>, handler: F) -> Self
    where
        F: Fn(Context, Payload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Payload, TaskError>> + Send + 'static,
    {
        self.add(task.into(), Handler::raw(handler))
    }

    /// Runs an iterator with a function that returns a stream. The stream is
    /// polled for an item only when its reader has room for it, and dropped at
    /// its await point when the run is to stop. It must not block its thread.
    ///
    /// Called instead of iterated, it returns its items as one JSON array.
    pub fn iter<A, T, F, S>(self, iter: Iter<A, T>, handler: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(Context, A) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<T, TaskError>> + Send + 'static,
    {
        self.add(iter.into(), Handler::iter(handler))
    }

    /// Runs an iterator with a plain one, on a thread of its own, which sleeps
    /// while the reader has no room. It is dropped at its next item when the run
    /// is to stop; one that takes long over an item should look at
    /// [`Context::is_stopped`].
    pub fn blocking_iter<A, T, F, I>(self, iter: Iter<A, T>, handler: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(Context, A) -> I + Send + Sync + 'static,
        I: Iterator<Item = Result<T, TaskError>> + 'static,
    {
        self.add(iter.into(), Handler::blocking_iter(handler))
    }

    /// Runs an iterator with [`OnLoss::Checkpoint`](crate::OnLoss::Checkpoint) with an
    /// async generator, which yields items and checkpoints; [`Yield`] has an example. In
    /// all else as [`iter`](Self::iter).
    pub fn iter_with_checkpoints<A, T, F, S>(self, iter: Iter<A, T>, handler: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(Context, A) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<Yield<T>, TaskError>> + Send + 'static,
    {
        self.add(iter.into(), Handler::marked_iter(handler))
    }

    /// The same with a plain iterator, on a thread of its own as with
    /// [`blocking_iter`](Self::blocking_iter); [`Yield`] has an example of that, too.
    pub fn blocking_iter_with_checkpoints<A, T, F, I>(self, iter: Iter<A, T>, handler: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(Context, A) -> I + Send + Sync + 'static,
        I: Iterator<Item = Result<Yield<T>, TaskError>> + 'static,
    {
        self.add(iter.into(), Handler::marked_blocking_iter(handler))
    }

    /// Runs an iterator whose name and types are known only at run time: the
    /// handler takes a payload and yields payloads, sent as they are. With
    /// [`OnLoss::Checkpoint`](crate::OnLoss::Checkpoint) it may yield [`Yield`]s of them.
    pub fn raw_iter<F, S, Y>(self, iter: impl Into<Declaration>, handler: F) -> Self
    where
        F: Fn(Context, Payload) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<Y, TaskError>> + Send + 'static,
        Y: Into<Yield<Payload>>,
    {
        self.add(iter.into().yielding(), Handler::raw_iter(handler))
    }

    /// Runs an iterator that answers a plain call in a way of its own: who
    /// iterates it gets the payloads of `iter`, who calls it the one of `call`
    /// instead of an array of the items.
    pub fn raw_iter_or_call<I, S, Y, C, Fut>(self, task: impl Into<Declaration>, iter: I, call: C) -> Self
    where
        I: Fn(Context, Payload) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<Y, TaskError>> + Send + 'static,
        Y: Into<Yield<Payload>>,
        C: Fn(Context, Payload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Payload, TaskError>> + Send + 'static,
    {
        self.add(task.into().yielding(), Handler::raw_either(call, iter))
    }

    /// Adds what every worker can offer: the tasks `echo`, `sleep`, `fail` and
    /// `sha256`, and the iterators `count`, `mandelbrot` and `scan`. Those that
    /// read files read those under the working directory; is that `/`, the worker
    /// is refused: callers could read the whole machine.
    pub fn builtins(mut self) -> Self {
        if Path::new(".").canonicalize().is_ok_and(|here| here == Path::new("/")) {
            let mistake = BuildError::Files {
                folder: "/".into(),
                message: "callers could read this whole machine. Say what they may read, or start the worker elsewhere"
                    .to_owned(),
            };
            self.mistake = self.mistake.take().or(Some(mistake));
            return self;
        }
        self.builtins_reading(".")
    }

    /// The same, and they read the files under this folder instead, and no
    /// others: a path is taken relative to it, links are followed within it.
    pub fn builtins_reading(mut self, folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        match Files::under(folder) {
            Ok(files) => builtins::register(self, files),
            Err(error) => {
                let mistake = BuildError::Files {
                    folder: folder.to_owned(),
                    message: error.to_string(),
                };
                self.mistake = self.mistake.take().or(Some(mistake));
                self
            }
        }
    }

    fn add(mut self, declaration: Declaration, handler: Handler) -> Self {
        let added = self.registry.add(declaration, handler);
        self.mistake = self.mistake.take().or(added.err());
        self
    }

    /// Checks it all.
    ///
    /// # Errors
    /// Names the first thing that is wrong.
    pub fn build(self) -> Result<Worker, BuildError> {
        let broker = self.broker?;
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        if self.registry.len() == 0 {
            return Err(BuildError::NoTasks);
        }
        let name = self.name.unwrap_or_else(default_name);
        if let Err(source) = check_name(&name) {
            return Err(BuildError::WorkerName { name, source });
        }
        let slots = self.slots.unwrap_or_else(default_slots);
        if !(1..=MAX_SLOTS).contains(&slots) {
            return Err(BuildError::Slots(slots));
        }
        let connector = match broker {
            Broker::At(endpoint) => Connector::tcp(endpoint, &self.credentials)?,
            // It may have been secured before.
            Broker::By(connector) if self.credentials == Credentials::default() => connector,
            Broker::By(connector) => connector.secured(&self.credentials)?,
        };
        Ok(Worker {
            connector,
            name,
            slots,
            drain_timeout: self.drain_timeout,
            kill_grace: self.kill_grace,
            exit_when_idle: self.exit_when_idle,
            registry: self.registry,
            on_ready: self.on_ready,
        })
    }

    /// [Builds](Self::build) the worker and [runs](Worker::run_until) it.
    ///
    /// # Errors
    /// As either of them.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        self.build()?.run_until(shutdown).await
    }
}

/// A worker, ready to run.
pub struct Worker {
    pub(crate) connector: Connector,
    pub(crate) name: String,
    pub(crate) slots: u32,
    pub(crate) drain_timeout: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) exit_when_idle: bool,
    pub(crate) registry: Registry,
    pub(crate) on_ready: Option<OnReady>,
}

impl Worker {
    /// Begins a worker for the broker at `http://host:port`, or at
    /// `https://host:port` where it speaks TLS.
    pub fn builder(broker: &str) -> WorkerBuilder {
        WorkerBuilder::new(broker.parse().map(Broker::At).map_err(BuildError::from))
    }

    /// Begins a worker that reaches its broker some other way.
    pub fn with_connector(connector: Connector) -> WorkerBuilder {
        WorkerBuilder::new(Ok(Broker::By(connector)))
    }

    /// The worker's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes tasks and runs them on the current tokio runtime until `shutdown`
    /// resolves, then drains: takes nothing new, gives back what has not
    /// started, lets the rest finish within the drain timeout, and gives back
    /// what did not.
    ///
    /// A broker that cannot be reached is tried for ever. The connection and
    /// its heartbeats live on a thread of their own, which no handler can stall.
    /// Dropping the future ends the worker at once, without a drain. Either
    /// way, a blocking handler that does not return leaves its thread behind.
    ///
    /// # Errors
    /// When the broker refuses the worker as it is, or no thread can be had.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        runtime::run(self, shutdown).await
    }
}

fn default_slots() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(MAX_SLOTS).min(MAX_SLOTS))
}

/// `<host>-<4 hex>`: a host may run several workers, and names are for people.
fn default_name() -> String {
    let system = rustix::system::uname();
    let host: String = system
        .nodename()
        .to_string_lossy()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(100)
        .collect();
    let host = if host.is_empty() { "worker" } else { &host };
    format!("{host}-{:04x}", fastrand::u16(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKER: &str = "http://127.0.0.1:7740";

    async fn echo(_: Context, args: Payload) -> Result<Payload, TaskError> {
        Ok(args)
    }

    fn mistake(builder: WorkerBuilder) -> String {
        builder.build().err().expect("a mistake").to_string()
    }

    #[test]
    fn mistakes_are_named() {
        let builder = || Worker::builder(BROKER).raw("echo", echo);
        for (builder, said) in [
            (
                Worker::builder("nowhere").raw("echo", echo),
                "\"nowhere\" is not the address of a broker",
            ),
            (Worker::builder(BROKER), "no tasks"),
            (builder().raw("echo", echo), "\"echo\" has two handlers"),
            (builder().raw("a b", echo).raw("echo", echo), "\"a b\" holds ' '"),
            (builder().token(""), "the token is empty"),
            (builder().ca("ca.pem"), "--ca has no meaning for http://127.0.0.1:7740"),
            (
                builder().builtins_reading("/no/such"),
                "the folder of files \"/no/such\" cannot be used: No such file",
            ),
            (builder().name(""), "the worker's name \"\" must not be empty"),
            (builder().slots(0), "slots must be 1 to 65536, not 0"),
            (builder().slots(65_537), "not 65537"),
            (
                builder().raw(Declaration::new("t").timeout(Duration::ZERO), echo),
                "timeout of task \"t\"",
            ),
            (
                builder().raw(Declaration::new("t").max_attempts(0), echo),
                "max_attempts of task \"t\"",
            ),
        ] {
            let error = mistake(builder);
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn defaults_fit() {
        let worker = Worker::builder(BROKER).builtins().build().expect("defaults are right");
        assert!(worker.slots >= 1);
        let (_, hex) = worker.name().rsplit_once('-').expect("a dash");
        assert!(hex.len() == 4 && hex.chars().all(|c| c.is_ascii_hexdigit()), "{hex}");
    }

    #[test]
    fn a_tasks_own_defaults_are_declared() {
        const TASK: Task<(), ()> = Task::new("t").timeout(Duration::from_secs(2)).max_attempts(3);
        let worker = Worker::builder(BROKER)
            .task(TASK, async |_, ()| Ok(()))
            .build()
            .expect("right");
        let declared = &worker.registry.declarations()[0];
        assert_eq!(
            (declared.name.as_str(), declared.timeout_ms, declared.max_attempts),
            ("t", 2000, 3)
        );
    }
}
