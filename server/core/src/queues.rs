//! What a queue is told to be: its settings. They outlive its tasks and restarts,
//! and are changed while it is in use.

use std::collections::BTreeMap;

use crate::change::Change;
use crate::core::{Core, Output};
use crate::effect::{Effect, Refusal, Reply};
use crate::event::RequestId;
use crate::ids::{Name, SessionId};
use crate::limits;
use crate::names::NameId;
use crate::sched::TaskKey;
use crate::time::Timestamp;
use crate::view::QueueView;

/// How a queue serves. The default is what a queue is that nobody has said anything of.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// What runs is given up at once where its worker's connection breaks, not after
    /// [`limits::RESET_GRACE`].
    pub fast_requeue: bool,
}

/// What is to be different from now on; `None` stays.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct QueueUpdate {
    /// See [`QueueSettings::fast_requeue`].
    pub fast_requeue: Option<bool>,
}

impl QueueSettings {
    /// These, with what is to be different.
    #[must_use]
    pub fn with(self, update: QueueUpdate) -> Self {
        Self {
            fast_requeue: update.fast_requeue.unwrap_or(self.fast_requeue),
        }
    }
}

impl Core {
    /// After a restart.
    pub(crate) fn restore_queues(&mut self, queues: BTreeMap<Name, QueueSettings>) {
        for (queue, settings) in queues {
            self.keep_settings(&queue, settings);
        }
    }

    pub(crate) fn on_set_queue(
        &mut self,
        now: Timestamp,
        request: RequestId,
        queue: Name,
        update: QueueUpdate,
        out: &mut Output,
    ) {
        let known = self.names.find(&queue);
        let before = known.map(|id| self.settings(id)).unwrap_or_default();
        let settings = before.with(update);
        let is_new = settings != QueueSettings::default() && !known.is_some_and(|id| self.settings.contains_key(&id));
        let reply = if is_new && self.settings.len() >= limits::MAX_QUEUES {
            Reply::Refused(Refusal::Exhausted {
                what: "queues with settings of their own",
                limit: limits::MAX_QUEUES as u64,
            })
        } else {
            if settings != before {
                self.keep_settings(&queue, settings);
                let queue = queue.clone();
                out.changes.push(Change::QueueSet { queue, settings });
            }
            Reply::QueueSet(Box::new(self.queue(now, &queue)))
        };
        out.effects.push(Effect::Reply(request, reply));
    }

    /// Those of a queue.
    pub(crate) fn settings(&self, queue: NameId) -> QueueSettings {
        self.settings.get(&queue).copied().unwrap_or_default()
    }

    /// Kept as long as they are not the default, by a use of the name of their own.
    fn keep_settings(&mut self, queue: &Name, settings: QueueSettings) {
        if settings == QueueSettings::default() {
            let known = self.names.find(queue);
            if let Some(id) = known.filter(|id| self.settings.remove(id).is_some()) {
                self.names.release(id);
            }
            return;
        }
        let id = self.names.acquire(queue);
        if self.settings.insert(id, settings).is_some() {
            self.names.release(id);
        }
    }

    /// Every queue that holds tasks or has settings of its own, by name.
    #[must_use]
    pub fn queues(&self, now: Timestamp) -> Vec<QueueView> {
        let mut oldest: BTreeMap<_, Timestamp> = BTreeMap::new();
        for (_, key) in self.sched.heads() {
            let task = self.live(key);
            let at = oldest.entry(task.queue).or_insert(Timestamp::MAX);
            *at = (*at).min(task.enqueued_at);
        }
        let bare = self.settings.keys().filter(|id| !self.queues.contains_key(id));
        let all = self.queues.keys().chain(bare);
        let mut queues: Vec<_> = all
            .map(|&id| QueueView {
                name: self.names.get(id).clone(),
                counts: self.queues.get(&id).copied().unwrap_or_default().iter().collect(),
                oldest_ready: oldest.get(&id).map(|&at| now.since(at)),
                settings: self.settings(id),
            })
            .collect();
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        queues
    }

    /// One of them, or what it would be.
    fn queue(&self, now: Timestamp, queue: &Name) -> QueueView {
        let found = self.queues(now).into_iter().find(|view| view.name == *queue);
        found.unwrap_or_else(|| QueueView {
            name: queue.clone(),
            counts: crate::counts::Counts::default().iter().collect(),
            oldest_ready: None,
            settings: QueueSettings::default(),
        })
    }

    /// The runs of a session that are not waited for where its connection breaks.
    pub(crate) fn given_up_at_once(&self, session: SessionId) -> Vec<TaskKey> {
        if self.settings.is_empty() {
            return Vec::new();
        }
        let at_once = |&key: &TaskKey| {
            let task = self.live(key);
            // What has one try would only be dead the sooner.
            self.settings(task.queue).fast_requeue && !task.has_one_try()
        };
        let held = self.sessions[&session].held_in_order();
        held.into_iter().filter(at_once).collect()
    }
}
