//! The page Prometheus reads. docs/guides/operating.md explains each figure, and
//! a test holds the two together.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use asynq_core::{DeadReason, QueueView, StateName, WorkerState};

use super::calls::Calls;
use super::meters::Figures;
use super::process;
use super::text::{Kind, Text};
use crate::auth::Access;
use crate::broker::{Broker, Error};
use crate::config::StoreKind;
use crate::limits::MAX_QUEUE_LABELS;

/// Stands for the queues there is no room to name; no queue can be called so.
const OTHER_QUEUES: &str = "(other)";

/// Microseconds of a second.
const MICROS: f64 = 1e6;

/// What is told besides what the loop knows.
#[derive(Debug)]
pub struct Metrics {
    started: Duration,
    store: &'static str,
    /// Where the store keeps its files, if it has any.
    dir: Option<PathBuf>,
    calls: Calls,
}

impl Metrics {
    /// For the broker of this process, which has just started.
    #[must_use]
    pub fn new(store: StoreKind, dir: Option<PathBuf>, access: &Access) -> Self {
        Self {
            started: process::now(),
            store: store.as_str(),
            dir,
            calls: access.calls().clone(),
        }
    }

    /// All of it.
    pub(crate) async fn page(&self, broker: &Broker) -> Result<String, Error> {
        let figures = broker.figures().await?;
        let mut text = Text::default();
        text.family("asynqd_build_info", Kind::Gauge, "Always 1; the labels say what runs.");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("store", self.store)];
        text.sample("asynqd_build_info", &labels, 1);
        tasks(&mut text, &figures);
        streams(&mut text, &figures);
        store(&mut text, &figures, self.dir.as_deref().and_then(process::bytes_in));
        queues(&mut text, figures.queues);
        sessions(&mut text, &figures.workers, figures.callers);
        text.family(
            "asynq_rpc_errors_total",
            Kind::Counter,
            "Calls that ended with another code than OK, by code and reason.",
        );
        for ((code, reason), count) in self.calls.counts() {
            text.sample("asynq_rpc_errors_total", &[("code", code), ("reason", &reason)], count);
        }
        process::write(&mut text, self.started);
        Ok(text.finish())
    }
}

fn tasks(text: &mut Text, figures: &Figures) {
    let (meters, tally) = (&figures.meters, figures.tally);
    let name = "asynq_tasks_total";
    text.family(name, Kind::Counter, "Tasks accepted, and tasks ended, by outcome.");
    let dead: u64 = meters.dead.iter().sum();
    for (outcome, count) in [
        ("enqueued", meters.enqueued),
        ("succeeded", meters.succeeded),
        ("dead", dead),
        ("cancelled", meters.cancelled),
        ("expired", meters.expired),
    ] {
        text.sample(name, &[("outcome", outcome)], count);
    }
    let name = "asynq_dead_tasks_total";
    text.family(name, Kind::Counter, "Tasks that ended dead, by reason.");
    for reason in DeadReason::ALL {
        text.sample(name, &[("reason", reason.as_str())], meters.dead[reason as usize]);
    }
    let help = "Runs handed to workers; a task that is retried has several.";
    text.single("asynq_runs_total", Kind::Counter, help, meters.runs);
    let name = "asynq_run_setbacks_total";
    text.family(
        name,
        Kind::Counter,
        "Runs that did not bring their task to its end, by kind.",
    );
    for (kind, count) in [
        ("failure", tally.failures),
        ("timeout", tally.timeouts),
        ("crash", tally.crashes),
        ("loss", tally.losses),
        ("release", tally.releases),
    ] {
        text.sample(name, &[("kind", kind)], count);
    }
    let help = "Tasks put off to run again after a failure or a timeout.";
    text.single("asynq_retries_total", Kind::Counter, help, tally.retries);
    let help = "From the acceptance of a task to its first run; a delay it was given counts.";
    text.histogram("asynq_task_wait_seconds", help, &meters.wait, MICROS);
    let help = "The last run of tasks that ended, from its grant on.";
    text.histogram("asynq_task_run_seconds", help, &meters.run, MICROS);
}

fn streams(text: &mut Text, figures: &Figures) {
    let meters = &figures.meters;
    text.single(
        "asynq_items_total",
        Kind::Counter,
        "Items taken from iterators.",
        meters.items,
    );
    let help = "Bytes of these items.";
    text.single("asynq_item_bytes_total", Kind::Counter, help, meters.item_bytes);
    let help = "Streams of items that have not ended.";
    text.single("asynq_streams_open", Kind::Gauge, help, figures.streams);
}

fn store(text: &mut Text, figures: &Figures, bytes: Option<u64>) {
    let meters = &figures.meters;
    let help = "From handing a batch of changes to the store to knowing it durable.";
    text.histogram("asynq_commit_seconds", help, &meters.commit, MICROS);
    let help = "Changes of a batch.";
    text.histogram("asynq_commit_changes", help, &meters.commit_changes, 1.0);
    let help = "One turn of the loop: no message is looked at sooner than the turn before ends.";
    text.histogram("asynq_loop_turn_seconds", help, &meters.turn, MICROS);
    let help = "Size of the data directory; 0 for a store in memory.";
    text.single("asynq_store_bytes", Kind::Gauge, help, bytes.unwrap_or(0));
    if let Some(room) = figures.room {
        let help = "Free on the disk of the data directory, beside what is put by; not there for a store in memory.";
        text.single("asynq_store_free_bytes", Kind::Gauge, help, room.free);
    }
    let help = "1 while new tasks are refused because the disk is full.";
    text.single("asynq_store_full", Kind::Gauge, help, u8::from(figures.disk_full));
    let help = "1 while nothing expires and nothing is forgotten, because the clock is not believed (--trust-clock).";
    text.single(
        "asynq_clock_doubted",
        Kind::Gauge,
        help,
        u8::from(figures.clock_doubted),
    );
}

fn queues(text: &mut Text, mut queues: Vec<QueueView>) {
    let help = "Queues there are; see the metrics by queue for how many are named.";
    text.single("asynq_queues", Kind::Gauge, help, queues.len());
    let rest = fold_rest(&mut queues);
    let name = "asynq_queue_tasks";
    text.family(name, Kind::Gauge, "Tasks that have not ended, by queue and state.");
    let all = || {
        let named = queues.iter().map(|queue| (queue.name.as_str(), &queue.counts));
        named.chain(rest.iter().map(|(counts, _)| (OTHER_QUEUES, counts)))
    };
    for (queue, counts) in all() {
        for state in live_states() {
            let count = counts.get(&state).copied().unwrap_or(0);
            text.sample(name, &[("queue", queue), ("state", state.as_str())], count);
        }
    }
    let name = "asynq_queue_oldest_ready_seconds";
    let help = "How long the oldest ready task of the queue has been there; 0 without one.";
    text.family(name, Kind::Gauge, help);
    let ages = queues.iter().map(|queue| (queue.name.as_str(), queue.oldest_ready));
    for (queue, age) in ages.chain(rest.iter().map(|&(_, age)| (OTHER_QUEUES, age))) {
        text.sample(name, &[("queue", queue)], age.unwrap_or_default().as_secs_f64());
    }
}

/// Leaves the queues with the most live tasks; the rest is added up.
fn fold_rest(queues: &mut Vec<QueueView>) -> Option<(BTreeMap<StateName, u64>, Option<Duration>)> {
    if queues.len() <= MAX_QUEUE_LABELS {
        return None;
    }
    let live = |queue: &QueueView| -> u64 { live_states().filter_map(|state| queue.counts.get(&state)).sum() };
    queues.sort_by_key(|queue| Reverse(live(queue)));
    let rest = queues.split_off(MAX_QUEUE_LABELS);
    let oldest = rest.iter().filter_map(|queue| queue.oldest_ready).max();
    let mut counts = BTreeMap::new();
    for (state, count) in rest.into_iter().flat_map(|queue| queue.counts) {
        *counts.entry(state).or_default() += count;
    }
    Some((counts, oldest))
}

fn live_states() -> impl Iterator<Item = StateName> {
    StateName::ALL.into_iter().filter(|state| !state.is_terminal())
}

fn sessions(text: &mut Text, workers: &[asynq_core::WorkerView], callers: usize) {
    let name = "asynq_workers";
    let help = "Worker sessions, by state; a lost one has no connection, but its lease still runs.";
    text.family(name, Kind::Gauge, help);
    for (word, state) in [
        ("active", WorkerState::Active),
        ("draining", WorkerState::Draining),
        ("lost", WorkerState::Lost),
    ] {
        let count = workers.iter().filter(|worker| worker.state == state).count();
        text.sample(name, &[("state", word)], count);
    }
    let active = || workers.iter().filter(|worker| worker.state == WorkerState::Active);
    let slots: u64 = active().map(|worker| u64::from(worker.slots)).sum();
    text.single("asynq_slots", Kind::Gauge, "Slots of active workers.", slots);
    let busy: u64 = active().map(|worker| u64::from(worker.busy)).sum();
    text.single("asynq_slots_busy", Kind::Gauge, "Of these, those taken.", busy);
    let help = "Sessions of callers.";
    text.single("asynq_caller_sessions", Kind::Gauge, help, callers);
}

#[cfg(test)]
mod tests {
    use asynq_core::Name;

    use super::*;

    fn queue(name: &str, ready: u64) -> QueueView {
        QueueView {
            name: Name::new(name).unwrap(),
            counts: BTreeMap::from([(StateName::Ready, ready), (StateName::Dead, 7)]),
            oldest_ready: (ready > 0).then_some(Duration::from_millis(500)),
            settings: asynq_core::QueueSettings::default(),
        }
    }

    #[test]
    fn queues_beyond_the_cap_are_told_as_one() {
        let many = (0..MAX_QUEUE_LABELS + 3).map(|n| queue(&format!("q{n}"), n as u64));
        let mut text = Text::default();
        queues(&mut text, many.collect());
        let page = text.finish();
        assert!(
            page.contains("asynq_queue_tasks{queue=\"q3\",state=\"ready\"} 3\n"),
            "{page}"
        );
        assert!(!page.contains("\"q2\""), "{page}");
        // 0 + 1 + 2
        assert!(
            page.contains("asynq_queue_tasks{queue=\"(other)\",state=\"ready\"} 3\n"),
            "{page}"
        );
        assert!(
            page.contains("asynq_queue_oldest_ready_seconds{queue=\"(other)\"} 0.5\n"),
            "{page}"
        );
        assert!(!page.contains("dead") && page.contains("asynq_queues 103\n"), "{page}");
        let mut text = Text::default();
        queues(&mut text, vec![queue("a", 1)]);
        assert!(!text.finish().contains(OTHER_QUEUES));
    }
}
