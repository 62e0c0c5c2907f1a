//! What a task costs the core, from its enqueue to its end: one queue, one series, one worker, no I/O. Run it
//! under callgrind, as docs/benchmarks.md says; instructions do not depend on how busy the machine is.

use std::collections::VecDeque;
use std::time::Duration;

use asynq_core::{
    Core, Declaration, Effect, Epoch, Event, Hello, LeaseToken, Name, NameError, OnKey, OnLoss, Output, Payload,
    Recovered, RequestId, SessionId, TaskId, TaskSpec, Timestamp,
};

/// Tasks that have been accepted and have not ended.
const IN_FLIGHT: u64 = 1_024;
/// What the worker runs of them at a time.
const SLOTS: u32 = 256;
/// Events between two looks at what the core wants done, as many as a busy broker gathers for one commit.
const BATCH: u64 = 128;
/// Bytes of a task's arguments and of its result.
const PAYLOAD_BYTES: usize = 100;
/// Time that passes with a task.
const PER_TASK: Duration = Duration::from_micros(20);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tasks = match std::env::args().nth(1) {
        Some(number) => number.parse()?,
        None => 20_000,
    };
    let mut driver = Driver::new()?;
    driver.run(tasks)?;
    println!("{} tasks enqueued, {} of them ended", driver.enqueued, driver.finished);
    Ok(())
}

/// A shell that does nothing but ask, and answer for its one worker.
struct Driver {
    core: Core,
    out: Output,
    now: Timestamp,
    session: SessionId,
    running: VecDeque<LeaseToken>,
    enqueued: u64,
    finished: u64,
    data: bytes::Bytes,
}

impl Driver {
    fn new() -> Result<Self, NameError> {
        let mut driver = Self {
            core: Core::new(),
            out: Output::default(),
            now: Timestamp::from_millis(1_700_000_000_000),
            session: SessionId([9; 16]),
            running: VecDeque::new(),
            enqueued: 0,
            finished: 0,
            data: vec![b'x'; PAYLOAD_BYTES].into(),
        };
        let recovered = Recovered {
            epoch: Epoch(1),
            ..Recovered::default()
        };
        driver.core.start(driver.now, recovered, &mut driver.out);
        let hello = Hello {
            leaked: 0,
            session: driver.session,
            worker: Name::new("w1")?,
            slots: SLOTS,
            tasks: vec![Declaration {
                name: Name::new("echo")?,
                timeout: None,
                max_attempts: None,
                on_loss: OnLoss::Fail,
            }],
            held: Vec::new(),
        };
        driver.apply(Event::SessionOpened(Box::new(hello)));
        Ok(driver)
    }

    /// Has that many more tasks enqueued, and ends as many as the bound on those in flight asks for.
    fn run(&mut self, tasks: u64) -> Result<(), NameError> {
        let until = self.enqueued + tasks;
        while self.enqueued < until {
            for _ in 0..BATCH.min(until - self.enqueued) {
                self.enqueue()?;
            }
            while self.enqueued - self.finished > IN_FLIGHT {
                self.complete();
                if self.running.is_empty() {
                    self.drain();
                }
            }
            if self.core.next_wakeup().is_some_and(|at| at <= self.now) {
                self.apply(Event::Tick);
            }
            self.drain();
        }
        Ok(())
    }

    fn enqueue(&mut self) -> Result<(), NameError> {
        self.enqueued += 1;
        self.now = self.now + PER_TASK;
        let spec = TaskSpec {
            id: self.fresh_id(),
            name: Name::new("echo")?,
            queue: Name::new("default")?,
            series: Name::or_empty("")?,
            options: asynq_core::Options::default(),
            start_at: None,
            on_key: OnKey::default(),
            payload: self.payload(),
        };
        self.apply(Event::Enqueue {
            request: RequestId(self.enqueued),
            spec: Box::new(spec),
            reader: None,
        });
        Ok(())
    }

    fn complete(&mut self) {
        let Some(token) = self.running.pop_front() else { return };
        self.finished += 1;
        self.apply(Event::Completed {
            session: self.session,
            token,
            result: self.payload(),
        });
    }

    fn apply(&mut self, event: Event) {
        self.core.apply(self.now, event, &mut self.out);
    }

    /// Takes note of new runs; what else is to be remembered or done is dropped.
    fn drain(&mut self) {
        self.out.changes.clear();
        for effect in self.out.effects.drain(..) {
            if let Effect::Assign(assignment) = effect {
                self.running.push_back(assignment.token);
            }
        }
    }

    /// Milliseconds, then what is random in an id, from a counter: every run is the same.
    fn fresh_id(&self) -> TaskId {
        let random = self.enqueued.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = u128::from(self.now.as_millis()) << 80 | 0x7 << 76 | u128::from(random);
        TaskId(id.to_be_bytes())
    }

    fn payload(&self) -> Payload {
        Payload {
            content_type: Box::default(),
            data: self.data.clone(),
        }
    }
}
