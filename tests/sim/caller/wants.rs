//! What callers want: tasks of all kinds, and what one does with tasks.

use std::time::Duration;

use asynq_core::{
    Finished, Key, Name, Niceness, OnKey, OnLoss, Options, Outcome, Payload, Placement, TaskId, TaskSpec, Timestamp,
};
use asynq_tests::history::Record;

use super::{Caller, Wake};
use crate::env::Env;
use crate::message::{INLINE_BYTES, Op};
use crate::net::ConnId;
use crate::plan::Fault;

/// Something done later about what was asked before.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Later {
    Wait(TaskId),
    Cancel(TaskId),
    Retry(TaskId),
    Purge(TaskId),
    Withdraw(u64),
    /// Leave a stream before its end.
    Leave(ConnId),
}

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

impl Caller {
    pub(super) fn want_soon(&mut self, env: &mut Env) {
        if self.wants > 0 {
            let pause = self.dice.long_tailed(MILLI..env.plan.trouble);
            self.wake_in(pause, Wake::Want, env);
        }
    }

    pub(super) fn want(&mut self, env: &mut Env) {
        let Some(now) = self.broker_now(env) else {
            // It has never met the broker.
            return self.wake_in(100 * MILLI, Wake::Want, env);
        };
        self.wants = self.wants.saturating_sub(1);
        match self.dice.int(0..100) {
            0..35 => self.call(now, env),
            35..55 => {
                let spec = self.spec(now, env);
                self.enqueue(spec, false, env);
            }
            55..80 => {
                let mut spec = self.spec(now, env);
                // Keys are for what is waited for.
                spec.options.key = None;
                self.open_reader(spec, env);
            }
            80..86 => self.enqueue_again(None, env),
            86..92 => self
                .some_task(env)
                .into_iter()
                .for_each(|task| _ = self.ask(Op::Wait(task), env)),
            92..96 => self
                .some_task(env)
                .into_iter()
                .for_each(|task| _ = self.ask(Op::Show(task), env)),
            _ => self.some_task(env).into_iter().for_each(|task| self.cancel(task, env)),
        }
        self.want_soon(env);
    }

    /// Enqueues a task and waits for its end, mostly.
    fn call(&mut self, now: Timestamp, env: &mut Env) {
        let spec = self.spec(now, env);
        let task = spec.id;
        let call = self.enqueue(spec, true, env);
        match self.dice.int(0..100) {
            0..12 => self.do_later(Later::Withdraw(call), 10 * SECOND, env),
            12..25 => self.do_later(Later::Cancel(task), 10 * SECOND, env),
            _ => {}
        }
    }

    fn enqueue(&mut self, spec: TaskSpec, wait: bool, env: &mut Env) -> u64 {
        // Plain clients vouch for nothing.
        let first_send = self.dice.chance(800);
        self.specs.push(spec.clone());
        env.asked_for(&spec);
        let op = Op::Enqueue {
            spec: Box::new(spec),
            first_send,
            wait,
            by: None,
        };
        self.ask(op, env)
    }

    /// The same again, or under the same id something else: of that task, or of one
    /// of all it has asked for.
    pub(super) fn enqueue_again(&mut self, task: Option<TaskId>, env: &mut Env) {
        let fits = |spec: &&TaskSpec| task.is_none_or(|task| spec.id == task);
        let specs: Vec<&TaskSpec> = self.specs.iter().filter(fits).collect();
        if specs.is_empty() {
            return;
        }
        let mut spec = specs[self.dice.index(specs.len())].clone();
        if self.dice.chance(200) {
            spec.payload.content_type = "text/plain".into();
        }
        let op = Op::Enqueue {
            spec: Box::new(spec),
            first_send: false,
            wait: self.dice.chance(500),
            by: None,
        };
        self.ask(op, env);
    }

    /// A task was taken that nobody waits for yet.
    pub(super) fn wait_later(&mut self, task: TaskId, env: &mut Env) {
        match self.dice.int(0..100) {
            0..60 => self.do_later(Later::Wait(task), 20 * SECOND, env),
            60..80 => self.do_later(Later::Cancel(task), 10 * SECOND, env),
            _ => {}
        }
    }

    /// A task has ended: now and then an operator looks at it.
    pub(super) fn operate_later(&mut self, end: &Finished, env: &mut Env) {
        let task = end.task;
        if matches!(end.outcome, Outcome::Dead(_)) && self.dice.chance(400) {
            self.do_later(Later::Retry(task), 10 * SECOND, env);
        } else if self.dice.chance(100) {
            self.do_later(Later::Purge(task), 10 * SECOND, env);
        }
    }

    pub(super) fn do_later(&mut self, what: Later, most: Duration, env: &mut Env) {
        self.later += 1;
        let pause = self.dice.long_tailed(MILLI..most);
        self.wake_in(pause, Wake::Later(what), env);
    }

    pub(super) fn follow_up(&mut self, what: Later, env: &mut Env) {
        self.later -= 1;
        match what {
            Later::Wait(task) => _ = self.ask(Op::Wait(task), env),
            Later::Cancel(task) => self.cancel(task, env),
            Later::Retry(task) => _ = self.ask(Op::Retry(task), env),
            Later::Purge(task) => _ = self.ask(Op::Purge(task), env),
            Later::Withdraw(call) => self.withdraw(call, env),
            Later::Leave(conn) => self.leave(conn, env),
        }
    }

    fn cancel(&mut self, task: TaskId, env: &mut Env) {
        env.record(Record::Stops(task));
        self.ask(Op::Cancel(task), env);
    }

    fn spec(&mut self, now: Timestamp, env: &Env) -> TaskSpec {
        let dice = &mut self.dice;
        let key = (env.plan.has(Fault::Keys) && dice.chance(500)).then(|| key(dice.index(KEYS.len())));
        // Mostly they ask for the same, and for later.
        let (alike, late) = (key.is_some() && dice.chance(600), key.is_some() && dice.chance(500));
        let mut seldom = |most: Duration| dice.chance(150).then(|| dice.long_tailed(100 * MILLI..most));
        let (start_in, start_within, deadline) = (seldom(10 * SECOND), seldom(30 * SECOND), seldom(40 * SECOND));
        let timeout = seldom(8 * SECOND);
        let start_in = start_in.or(late.then_some(5 * SECOND));
        let start_at = start_in.map(|after| now + after);
        // Not before the start.
        let after_start = |within: Duration| start_at.unwrap_or(now) + within;
        let large = env.plan.has(Fault::Large) && dice.chance(300);
        let options = Options {
            niceness: Niceness::new(dice.int(0..41) as i32 - 20).unwrap_or_default(),
            placement: match dice.int(0..10) {
                0 => Placement::Next,
                1 => Placement::Last,
                _ => Placement::Fair,
            },
            start_before: start_within.map(after_start),
            timeout,
            deadline: deadline.map(after_start),
            max_attempts: Some(dice.int(1..5) as u32),
            max_timeouts: Some(dice.int(1..4) as u32),
            // The core keeps to one try whatever the budgets say.
            at_most_once: dice.chance(150),
            result_ttl: dice.chance(50).then_some(Duration::ZERO),
            stream: false,
            key,
        };
        let on_key = [OnKey::Same, OnKey::Return, OnKey::Replace, OnKey::Refuse][dice.index(4)];
        let data = vec![TOP; if large && !alike { INLINE_BYTES + 1 } else { 4 }];
        TaskSpec {
            id: id(now, dice.bytes16()),
            name: name(if alike { 0 } else { dice.index(NAMES.len()) }),
            queue: text("default"),
            series: text(if alike { "" } else { ["", "a", "b"][dice.index(3)] }),
            options,
            start_at,
            on_key,
            payload: Payload {
                content_type: "".into(),
                data: data.into(),
            },
        }
    }
}

/// How the arguments begin of a task that a caller asks for; those of one that a run
/// calls begin with as much more as it is deep.
pub(crate) const TOP: u8 = b'0';

const NAMES: [&str; 3] = ["odd", "even", "marked"];

/// What becomes of an iterator of this name: the first yields the same each time it is
/// run, the second does not, and the third goes on from its checkpoints.
pub(crate) fn on_loss(name: &Name) -> OnLoss {
    match name.as_str() {
        "odd" => OnLoss::Replay,
        "marked" => OnLoss::Checkpoint,
        _ => OnLoss::Fail,
    }
}

/// The tasks there are.
pub(crate) fn names() -> Vec<Name> {
    (0..NAMES.len()).map(name).collect()
}

fn name(index: usize) -> Name {
    text(NAMES[index])
}

fn text(text: &str) -> Name {
    Name::or_empty(text).expect("these are proper names")
}

const KEYS: [&str; 2] = ["this", "that"];

fn key(index: usize) -> Key {
    Key::new(KEYS[index]).expect("these are proper keys")
}

/// A `UUIDv7`.
fn id(now: Timestamp, mut bytes: [u8; 16]) -> TaskId {
    bytes[..6].copy_from_slice(&now.as_millis().to_be_bytes()[2..]);
    bytes[6] = 0x70 | (bytes[6] & 0x0F);
    bytes[8] = 0x80 | (bytes[8] & 0x3F);
    TaskId(bytes)
}
