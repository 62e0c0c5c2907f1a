//! A core with a clock to turn, a memory for its changes, and short ways to say
//! what happens. Asserts every invariant after each step, and that each effect
//! is looked at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use asynq_core::{
    Assignment, Call, Change, Closed, Core, Credit, Declaration, Effect, Epoch, Event, Failure, Finished, Hello,
    ItemBatch, LeaseToken, Name, Niceness, OnKey, OnLoss, Options, Output, Payload, Place, QueueSettings, QueueUpdate,
    QueueView, Reader, Recovered, Reply, RequestId, Seq, SessionId, SessionRecord, StateName, StateSet, StopCause,
    TaskId, TaskRecord, TaskSpec, Timestamp, Verdict,
};

pub(crate) struct Shard {
    pub(crate) core: Core,
    pub(crate) now: Timestamp,
    /// What a store would hold.
    pub(crate) durable: Durable,
    pub(crate) check_each_step: bool,
    effects: VecDeque<Effect>,
    next_id: u128,
    next_request: u64,
    epoch: u64,
}

/// The store in small: it applies changes and decides nothing.
#[derive(Debug, Default, Clone)]
pub(crate) struct Durable {
    pub(crate) tasks: BTreeMap<Seq, TaskRecord>,
    pub(crate) sessions: BTreeMap<SessionId, SessionRecord>,
    pub(crate) queues: BTreeMap<Name, QueueSettings>,
    results: BTreeMap<TaskId, Payload>,
    /// How many there were.
    pub(crate) changes: usize,
}

impl Durable {
    fn take(&mut self, change: Change) {
        self.changes += 1;
        match change {
            Change::Insert { seq, record, .. } => {
                assert!(self.tasks.insert(seq, *record).is_none(), "{seq:?} is used twice");
            }
            Change::Update { seq, record } => {
                let old = self.tasks.insert(seq, *record).expect("only what is there is updated");
                let ended = old.state.name().is_terminal() && old.state.name() != StateName::Dead;
                assert!(!ended, "{seq:?} had ended");
            }
            Change::Finish {
                seq, record, result, ..
            } => {
                self.results.extend(result.map(|result| (record.id, result)));
                assert!(record.state.name().is_terminal());
                let old = self.tasks.insert(seq, *record).expect("only what is there ends");
                assert!(!old.state.name().is_terminal(), "{seq:?} ends twice");
            }
            Change::Purge { seq, record, .. } => {
                let id = record.id;
                let old = self.tasks.insert(seq, *record).expect("only what is there is purged");
                assert!(old.id == id && old.state.name().is_terminal(), "{seq:?} lives");
                self.results.remove(&id);
            }
            Change::QueueSet { queue, settings } => {
                self.queues.insert(queue, settings);
                self.queues.retain(|_, settings| *settings != QueueSettings::default());
            }
            Change::SessionOpened(session) => {
                self.sessions.insert(session.id, session);
            }
            Change::SessionClosed(id) => {
                self.sessions.remove(&id);
            }
        }
    }

    pub(crate) fn record(&self, id: TaskId) -> &TaskRecord {
        self.tasks
            .values()
            .find(|record| record.id == id)
            .expect("the task is remembered")
    }

    fn found(&self, id: TaskId) -> (Seq, Box<TaskRecord>) {
        let mut tasks = self.tasks.iter();
        let (seq, record) = tasks
            .find(|(_, record)| record.id == id)
            .expect("the task is remembered");
        (*seq, Box::new(record.clone()))
    }

    pub(crate) fn has_result(&self, id: TaskId) -> bool {
        self.results.contains_key(&id)
    }

    pub(crate) fn result(&self, id: TaskId) -> Option<&Payload> {
        self.results.get(&id)
    }

    pub(crate) fn state(&self, id: TaskId) -> StateName {
        self.record(id).state.name()
    }
}

/// What to enqueue, by default the plainest task.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) queue: &'static str,
    pub(crate) series: String,
    pub(crate) start_at: Option<Timestamp>,
    pub(crate) options: Options,
    pub(crate) on_key: OnKey,
    pub(crate) arguments: &'static str,
}

pub(crate) fn spec(name: &'static str) -> Spec {
    Spec {
        name,
        queue: "default",
        series: String::new(),
        start_at: None,
        options: Options::default(),
        on_key: OnKey::default(),
        arguments: "{}",
    }
}

impl Spec {
    pub(crate) fn series(mut self, series: impl Into<String>) -> Self {
        self.series = series.into();
        self
    }

    pub(crate) fn niceness(mut self, n: i32) -> Self {
        self.options.niceness = Niceness::new(n).expect("in range");
        self
    }

    pub(crate) fn with(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut self.options);
        self
    }
}

pub(crate) fn session(n: u8) -> SessionId {
    SessionId([n; 16])
}

pub(crate) fn name(text: &str) -> Name {
    Name::or_empty(text).expect("a good name")
}

pub(crate) fn payload(text: &'static str) -> Payload {
    Payload {
        content_type: "".into(),
        data: text.into(),
    }
}

pub(crate) fn task_spec(id: TaskId, spec: &Spec) -> TaskSpec {
    TaskSpec {
        id,
        name: name(spec.name),
        queue: name(spec.queue),
        series: name(&spec.series),
        options: spec.options.clone(),
        start_at: spec.start_at,
        on_key: spec.on_key,
        payload: payload(spec.arguments),
    }
}

pub(crate) fn failure(message: &str, retryable: bool) -> Failure {
    Failure {
        kind: "error".into(),
        message: message.into(),
        trace: String::new(),
        retryable,
    }
}

pub(crate) fn hello(n: u8, slots: u32, tasks: &[&str], held: &[LeaseToken]) -> Hello {
    let declaration = |task: &&str| Declaration {
        name: name(task),
        timeout: None,
        max_attempts: None,
        // By their names, so that tests can have both.
        on_loss: match *task {
            task if task.starts_with("replayed") => OnLoss::Replay,
            task if task.starts_with("marked") => OnLoss::Checkpoint,
            _ => OnLoss::Fail,
        },
    };
    Hello {
        session: session(n),
        worker: name(&format!("worker-{n}")),
        slots,
        tasks: tasks.iter().map(declaration).collect(),
        held: held.to_vec(),
        leaked: 0,
    }
}

impl Shard {
    pub(crate) fn new() -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let mut core = Core::new();
        let mut out = Output::default();
        core.start(
            now,
            Recovered {
                epoch: Epoch(1),
                ..Recovered::default()
            },
            &mut out,
        );
        assert!(out.changes.is_empty() && out.effects.is_empty());
        Self {
            core,
            now,
            durable: Durable::default(),
            check_each_step: true,
            effects: VecDeque::new(),
            next_id: 1,
            next_request: 1,
            epoch: 1,
        }
    }

    pub(crate) fn apply(&mut self, event: Event) {
        let mut out = Output::default();
        self.core.apply(self.now, event, &mut out);
        if self.check_each_step {
            self.core.check();
        }
        self.take(out);
    }

    fn take(&mut self, out: Output) {
        out.changes.into_iter().for_each(|change| self.durable.take(change));
        self.effects.extend(out.effects);
    }

    /// The broker dies and comes back on what is durable.
    pub(crate) fn restart(&mut self) {
        self.restart_by(false);
    }

    /// The same, perhaps by a clock that is not believed.
    pub(crate) fn restart_by(&mut self, doubted: bool) {
        self.epoch += 1;
        self.effects.clear();
        self.core = Core::new();
        if doubted {
            self.core.doubt_clock(self.now);
        }
        let next = self.durable.tasks.last_key_value().map_or(1, |(seq, _)| seq.0 + 1);
        let mut finished = BTreeMap::new();
        for (&seq, record) in &self.durable.tasks {
            if record.is_purged() {
                continue;
            }
            if record.state.name().is_terminal() {
                *finished.entry((record.queue.clone(), record.state.name())).or_default() += 1;
            } else {
                self.core.restore(seq, record.clone());
            }
        }
        let sessions = self.durable.sessions.values().cloned().collect();
        let mut out = Output::default();
        let previous = Epoch(self.epoch - 1);
        let recovered = Recovered {
            epoch: Epoch(self.epoch),
            previous,
            next_seq: Seq(next),
            sessions,
            finished,
            queues: self.durable.queues.clone(),
        };
        self.core.start(self.now, recovered, &mut out);
        self.core.check();
        self.take(out);
    }

    /// Lets time pass, stopping at every timer on the way.
    pub(crate) fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(at) = self.core.next_wakeup().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.apply(Event::Tick);
        }
        self.now = until;
    }

    pub(crate) fn new_id(&mut self) -> TaskId {
        self.next_id += 1;
        TaskId(self.next_id.to_be_bytes())
    }

    pub(crate) fn try_enqueue(&mut self, id: TaskId, spec: &Spec) -> Reply {
        self.try_iterate(id, spec, None)
    }

    pub(crate) fn try_iterate(&mut self, id: TaskId, spec: &Spec, reader: Option<Reader>) -> Reply {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.apply(Event::Enqueue {
            request,
            spec: Box::new(task_spec(id, spec)),
            reader,
        });
        self.reply(request)
    }

    /// A run of session `n` calls its `k`-th task.
    pub(crate) fn call(&mut self, n: u8, token: LeaseToken, k: u32, spec: &Spec) -> Reply {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.apply(Event::Call {
            request,
            session: session(n),
            call: Call { token, n: k },
            spec: Box::new(task_spec(token.child(k), spec)),
        });
        self.reply(request)
    }

    pub(crate) fn enqueue(&mut self, spec: &Spec) -> TaskId {
        let id = self.new_id();
        let reply = self.try_enqueue(id, spec);
        assert!(matches!(reply, Reply::Enqueued { existed: false, .. }), "{reply:?}");
        id
    }

    pub(crate) fn cancel(&mut self, task: TaskId) -> Reply {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.apply(Event::Cancel { request, task });
        self.reply(request)
    }

    /// As the shell does: the record is looked up first.
    pub(crate) fn retry(&mut self, task: TaskId) -> Reply {
        self.next_request += 1;
        let (request, (seq, record)) = (RequestId(self.next_request), self.durable.found(task));
        self.apply(Event::Retry { request, seq, record });
        self.reply(request)
    }

    pub(crate) fn purge(&mut self, task: TaskId, states: StateSet) -> Reply {
        self.next_request += 1;
        let (request, (seq, record)) = (RequestId(self.next_request), self.durable.found(task));
        self.apply(Event::Purge {
            request,
            seq,
            record,
            states,
        });
        self.reply(request)
    }

    /// A request is answered exactly once, in the step that made it.
    fn reply(&mut self, request: RequestId) -> Reply {
        let at = self
            .effects
            .iter()
            .position(|effect| matches!(effect, Effect::Reply(r, _) if *r == request));
        match at.and_then(|at| self.effects.remove(at)) {
            Some(Effect::Reply(_, reply)) => reply,
            _ => panic!("{request:?} got no reply"),
        }
    }

    pub(crate) fn set_queue(&mut self, queue: &'static str, update: QueueUpdate) -> QueueView {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.apply(Event::SetQueue {
            request,
            queue: name(queue),
            update,
        });
        match self.reply(request) {
            Reply::QueueSet(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn connect(&mut self, n: u8, slots: u32, tasks: &[&str]) {
        self.apply(Event::SessionOpened(Box::new(hello(n, slots, tasks, &[]))));
    }

    pub(crate) fn resume(&mut self, n: u8, slots: u32, tasks: &[&str], held: &[LeaseToken]) {
        self.apply(Event::SessionOpened(Box::new(hello(n, slots, tasks, held))));
    }

    pub(crate) fn disconnect(&mut self, n: u8) {
        self.close(n, Closed::Reset);
    }

    pub(crate) fn close(&mut self, n: u8, how: Closed) {
        self.apply(Event::SessionClosed {
            session: session(n),
            how,
        });
    }

    pub(crate) fn complete(&mut self, n: u8, token: LeaseToken) -> Verdict {
        self.apply(Event::Completed {
            session: session(n),
            token,
            result: payload("1"),
        });
        self.verdict(token)
    }

    pub(crate) fn fail(&mut self, n: u8, token: LeaseToken, failure: Failure) -> Verdict {
        self.apply(Event::Failed {
            session: session(n),
            token,
            failure,
            min_attempts: 0,
        });
        self.verdict(token)
    }

    pub(crate) fn crash(&mut self, n: u8, token: LeaseToken, failure: Failure) -> Verdict {
        self.apply(Event::Crashed {
            session: session(n),
            token,
            failure,
        });
        self.verdict(token)
    }

    pub(crate) fn release(&mut self, n: u8, token: LeaseToken) -> Verdict {
        self.apply(Event::Released {
            session: session(n),
            token,
        });
        self.verdict(token)
    }

    pub(crate) fn ended(&mut self, n: u8, token: LeaseToken) -> Verdict {
        self.apply(Event::Ended {
            session: session(n),
            token,
        });
        self.verdict(token)
    }

    pub(crate) fn abandon(&mut self, n: u8, token: LeaseToken) -> Verdict {
        self.apply(Event::Abandoned {
            session: session(n),
            token,
        });
        self.verdict(token)
    }

    pub(crate) fn leak(&mut self, n: u8, slots: u32) {
        self.apply(Event::Leaked {
            session: session(n),
            slots,
        });
    }

    /// What a worker says of a run is answered exactly once, in the same step.
    pub(crate) fn verdict(&mut self, token: LeaseToken) -> Verdict {
        let at = self
            .effects
            .iter()
            .position(|effect| matches!(effect, Effect::Ack { token: t, .. } if *t == token));
        match at.and_then(|at| self.effects.remove(at)) {
            Some(Effect::Ack { verdict, .. }) => verdict,
            _ => panic!("{token:?} got no answer"),
        }
    }

    /// The next effect, which is to be a new run.
    pub(crate) fn assigned(&mut self) -> Assignment {
        match self.effects.pop_front() {
            Some(Effect::Assign(assignment)) => *assignment,
            other => panic!("no run was assigned but {other:?}"),
        }
    }

    /// The next effect, which is to be the end of a task.
    pub(crate) fn finished(&mut self) -> Finished {
        match self.effects.pop_front() {
            Some(Effect::Finished(finished)) => *finished,
            other => panic!("no task has ended but {other:?}"),
        }
    }

    /// The next effect, which is to be a stop.
    pub(crate) fn stopped(&mut self) -> (LeaseToken, StopCause) {
        match self.effects.pop_front() {
            Some(Effect::Stop { token, cause, .. }) => (token, cause),
            other => panic!("no run was stopped but {other:?}"),
        }
    }

    /// A caller reads a stream that is there.
    pub(crate) fn attach(&mut self, task: TaskId, reader: Reader) -> Reply {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.apply(Event::Attach { request, task, reader });
        self.reply(request)
    }

    /// The next effect, which is to be that a reader reads from here on.
    pub(crate) fn reading(&mut self) -> (TaskId, Place) {
        match self.effects.pop_front() {
            Some(Effect::Reading { task, at }) => (task, at),
            other => panic!("nobody reads but {other:?}"),
        }
    }

    /// The next effect, which is to be where an Emit goes on.
    pub(crate) fn send_from(&mut self) -> u64 {
        match self.effects.pop_front() {
            Some(Effect::SendFrom { from, .. }) => from,
            other => panic!("no Emit goes on but {other:?}"),
        }
    }

    /// The next effect, which is to be items.
    pub(crate) fn items(&mut self) -> ItemBatch {
        match self.effects.pop_front() {
            Some(Effect::Items { batch, .. }) => batch,
            other => panic!("no items but {other:?}"),
        }
    }

    /// The next effect, which is to be credit for a run.
    pub(crate) fn credited(&mut self) -> (LeaseToken, Credit) {
        match self.effects.pop_front() {
            Some(Effect::Credit { token, credit, .. }) => (token, credit),
            other => panic!("no credit but {other:?}"),
        }
    }

    /// The next effect, which is to be the end of a session.
    pub(crate) fn session_ended(&mut self) -> SessionId {
        match self.effects.pop_front() {
            Some(Effect::SessionEnded(id)) => id,
            other => panic!("no session has ended but {other:?}"),
        }
    }

    /// Nothing has happened that was not looked at.
    pub(crate) fn quiet(&self) {
        assert!(self.effects.is_empty(), "unexpected: {:?}", self.effects);
    }

    pub(crate) fn drain(&mut self) -> Vec<Effect> {
        self.effects.drain(..).collect()
    }

    /// Completes one run after the other on a one-slot worker and says whose
    /// turn it was each time.
    pub(crate) fn turns(&mut self, n: u8, count: usize) -> Vec<TaskId> {
        (0..count)
            .map_while(|_| {
                let run = self.drain().into_iter().find_map(|effect| match effect {
                    Effect::Assign(run) => Some(run),
                    _ => None,
                })?;
                assert_eq!(self.complete(n, run.token), Verdict::Accepted(StateName::Succeeded));
                Some(run.token.task)
            })
            .collect()
    }

    pub(crate) fn ids_known(&self) -> BTreeSet<TaskId> {
        self.durable.tasks.values().map(|record| record.id).collect()
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.quiet();
        }
    }
}
