//! What a task went through. The ordinary way is told from its record; what is
//! out of the ordinary is noted as it happens, and kept in the record.

use crate::core::Core;
use crate::ids::Name;
use crate::limits;
use crate::sched::TaskKey;
use crate::task::{DeadReason, Failure, Finish, Outcome, State, StateName, StopIntent, TaskRecord};
use crate::time::Timestamp;

/// Why a task went from one state to another. docs/lifecycle.md explains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A caller asked for it.
    Enqueued,
    /// Its time has come.
    Due,
    /// A free slot took it.
    Granted,
    /// Its worker has returned a result, or all its items.
    Completed,
    /// Its run failed.
    Failed,
    /// Its attempt took longer than its timeout.
    TimedOut,
    /// Its worker's session ended under it.
    Lost,
    /// Its worker gave it back unstarted.
    Released,
    /// A caller does not want it any more.
    Cancelled,
    /// Its deadline, or its time to start, passed.
    Expired,
    /// A worker that came back after a restart of the broker has it still.
    Adopted,
    /// A worker did not come back after a restart of the broker.
    NotResumed,
    /// Its worker returned a result after it had been told to stop.
    TooLate,
    /// An operator has it run again.
    Retried,
    /// Stands for what was noted here and is not kept.
    LeftOut,
    /// The process of its run died.
    Crashed,
}

impl Cause {
    /// All of them, as they are numbered.
    pub const ALL: [Self; 16] = [
        Self::Enqueued,
        Self::Due,
        Self::Granted,
        Self::Completed,
        Self::Failed,
        Self::TimedOut,
        Self::Lost,
        Self::Released,
        Self::Cancelled,
        Self::Expired,
        Self::Adopted,
        Self::NotResumed,
        Self::TooLate,
        Self::Retried,
        Self::LeftOut,
        Self::Crashed,
    ];

    /// The word users see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enqueued => "enqueued",
            Self::Due => "due",
            Self::Granted => "granted",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Released => "released",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Adopted => "adopted",
            Self::NotResumed => "not_resumed",
            Self::TooLate => "too_late",
            Self::Retried => "retried",
            Self::LeftOut => "left_out",
            Self::Crashed => "crashed",
        }
    }
}

impl From<StopIntent> for Cause {
    fn from(intent: StopIntent) -> Self {
        match intent {
            StopIntent::Timeout => Self::TimedOut,
            StopIntent::Deadline => Self::Expired,
            StopIntent::Cancel => Self::Cancelled,
        }
    }
}

/// A step of a task's life, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Timestamp,
    /// Where it stood; none before it was enqueued.
    pub from: Option<StateName>,
    /// Where it stands since.
    pub to: StateName,
    /// The attempt this was about, 0 before the first.
    pub attempt: u32,
    /// The worker this was about.
    pub worker: Option<Name>,
    /// Why, in one word.
    pub cause: Cause,
    /// What more there is to say, for people; may be empty.
    pub message: Box<str>,
    /// For how many that are not kept this stands.
    pub left_out: u32,
}

/// What was noted of one task: the first few and the latest, at most
/// [`limits::MAX_NOTES`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes(Vec<Note>);

/// One step that the record would not tell by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What happened.
    pub step: Step,
    /// The attempt it was about.
    pub attempt: u32,
    /// The worker it was about.
    pub worker: Option<Name>,
    /// When the run began that it was about.
    pub started_at: Option<Timestamp>,
    /// At most [`limits::MAX_NOTE_BYTES`].
    pub message: Box<str>,
    /// For how many this stands, with [`Cause::LeftOut`].
    pub left_out: u32,
}

/// From where to where, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// Where it stood.
    pub from: StateName,
    /// Where it stands since.
    pub to: StateName,
    /// Until when, where that was known: scheduled tasks.
    pub until: Option<Timestamp>,
    /// Why.
    pub cause: Cause,
}

impl Notes {
    /// These, as they were kept.
    #[must_use]
    pub fn new(notes: Vec<Note>) -> Self {
        Self(notes)
    }

    /// In the order in which they were made.
    #[must_use]
    pub fn as_slice(&self) -> &[Note] {
        &self.0
    }

    /// Bytes they take on the disk, about.
    pub(crate) fn text_bytes(&self) -> usize {
        let of_one = |note: &Note| {
            let worker = note.worker.as_ref().map_or(0, |worker| worker.as_str().len());
            size_of::<Step>() + note.message.len() + worker
        };
        self.0.iter().map(of_one).sum()
    }

    /// Where there is no room left, one note stands for those between the first
    /// few and the latest.
    fn push(&mut self, note: Note) {
        const GAP: usize = limits::FIRST_NOTES;
        if self.0.len() >= limits::MAX_NOTES {
            let next = self.0.remove(GAP + 1);
            let gap = &mut self.0[GAP];
            let stood_for = gap.left_out.max(1);
            *gap = Note {
                step: Step {
                    from: gap.step.from,
                    cause: Cause::LeftOut,
                    ..next.step
                },
                started_at: None,
                message: Box::default(),
                left_out: stood_for.saturating_add(1),
                ..next
            };
        }
        self.0.push(note);
    }
}

impl Core {
    /// Notes what is about to happen to a live task: that it goes to `to` because
    /// of `cause`. The next record that is written has it.
    pub(crate) fn note(&mut self, now: Timestamp, key: TaskKey, to: StateName, cause: Cause) {
        self.note_until(now, key, to, cause, None);
    }

    /// [`Core::note`] of a task that will be scheduled until then.
    pub(crate) fn note_until(
        &mut self,
        now: Timestamp,
        key: TaskKey,
        to: StateName,
        cause: Cause,
        until: Option<Timestamp>,
    ) {
        let task = self.live(key);
        let held = task.held();
        // What a run ended with that is tried again. Else it is of a run before.
        let failure = task.extra.as_ref().and_then(|extra| extra.failure.as_deref());
        let told = to == StateName::Scheduled || cause == Cause::Crashed;
        let message = failure.filter(|_| told).map(brief);
        let note = Note {
            step: Step {
                at: now,
                from: task.state_name(),
                to,
                until,
                cause,
            },
            attempt: task.grant.attempt,
            worker: held.map(|held| self.sessions[&held.session].worker.clone()),
            started_at: held.map(|held| held.started_at),
            message: message.unwrap_or_default(),
            left_out: 0,
        };
        self.push_note(key, note);
    }

    /// Notes that a worker which came back after a restart has an attempt still.
    pub(crate) fn note_adopted(&mut self, now: Timestamp, key: TaskKey, attempt: u32, worker: Name) {
        let note = Note {
            step: Step {
                at: now,
                from: self.live(key).state_name(),
                to: StateName::Running,
                until: None,
                cause: Cause::Adopted,
            },
            attempt,
            worker: Some(worker),
            started_at: self.live(key).held().map(|held| held.started_at),
            message: Box::default(),
            left_out: 0,
        };
        self.push_note(key, note);
    }

    fn push_note(&mut self, key: TaskKey, note: Note) {
        let notes = &mut self.tasks[key.index()].extra_mut().notes;
        notes.get_or_insert_default().push(note);
    }
}

impl TaskRecord {
    /// Every step the task went through, as far as it was kept; `worker` is the one
    /// that has it now.
    #[must_use]
    pub fn history(&self, worker: Option<&Name>) -> Vec<Transition> {
        let delayed = self.start_at.filter(|&at| at > self.enqueued_at);
        let mut story = Story {
            state: StateName::Ready,
            due: delayed,
            told: Vec::new(),
        };
        if delayed.is_some() {
            story.state = StateName::Scheduled;
        }
        story.told.push(Transition {
            at: self.enqueued_at,
            from: None,
            to: story.state,
            attempt: 0,
            worker: None,
            cause: Cause::Enqueued,
            message: Box::default(),
            left_out: 0,
        });
        self.notes().iter().for_each(|note| story.note(note));
        let attempt = self.grant.attempt;
        match &self.state {
            State::Scheduled { .. } => {}
            State::Ready => story.come_due(attempt),
            State::Running(run) | State::Stopping(run, _) => story.begin(run.started_at, attempt, worker),
            State::Finished(finish) => story.note(&self.end(finish)),
        }
        story.told
    }

    /// The worker that had a task which has ended.
    #[must_use]
    pub fn last_worker(&self) -> Option<&Name> {
        let of_end = match &self.state {
            State::Finished(finish) => finish.worker.as_ref(),
            _ => None,
        };
        of_end.or_else(|| self.notes().iter().rev().find_map(|note| note.worker.as_ref()))
    }

    /// Notes that an operator has a dead task run again, and how it had died: the
    /// record's own end is about to go. Does nothing to a task that has not ended.
    pub fn note_retry(&mut self, now: Timestamp) {
        let State::Finished(finish) = &self.state else { return };
        let end = self.end(finish);
        let again = Note {
            step: Step {
                at: now,
                from: end.step.to,
                to: StateName::Ready,
                until: None,
                cause: Cause::Retried,
            },
            worker: None,
            started_at: None,
            message: Box::default(),
            ..end
        };
        let notes = self.notes.get_or_insert_default();
        notes.push(end);
        notes.push(again);
    }

    fn notes(&self) -> &[Note] {
        self.notes.as_deref().map_or(&[], Notes::as_slice)
    }

    /// The end as a note of it would be.
    fn end(&self, finish: &Finish) -> Note {
        let cause = match finish.outcome {
            Outcome::Succeeded => Cause::Completed,
            Outcome::Dead(DeadReason::Error | DeadReason::Rejected | DeadReason::NonDeterministic) => Cause::Failed,
            Outcome::Dead(DeadReason::Timeout) => Cause::TimedOut,
            Outcome::Dead(DeadReason::Poison) if self.counters.crashes >= limits::MAX_CRASHES => Cause::Crashed,
            // Such a task has one try: it crashed or was lost.
            Outcome::Dead(DeadReason::WorkerLost) if self.counters.crashes > 0 => Cause::Crashed,
            Outcome::Dead(DeadReason::Poison | DeadReason::WorkerLost) => Cause::Lost,
            Outcome::Cancelled => Cause::Cancelled,
            Outcome::Expired => Cause::Expired,
        };
        let failure = self.failure.as_deref();
        let of_end = failure.filter(|_| matches!(finish.outcome, Outcome::Dead(_)));
        let last = self.notes().last().map(|note| note.step);
        let due = last.map_or(self.start_at, |last| last.until);
        Note {
            step: Step {
                at: finish.at,
                from: match finish.started_at {
                    Some(_) if last.is_some_and(|last| last.to == StateName::Stopping) => StateName::Stopping,
                    Some(_) => StateName::Running,
                    None if due > Some(finish.at) => StateName::Scheduled,
                    None => StateName::Ready,
                },
                to: finish.outcome.state_name(),
                until: None,
                cause,
            },
            attempt: self.grant.attempt,
            worker: finish.worker.clone(),
            started_at: finish.started_at,
            message: match &finish.replaced_by {
                Some(by) => format!("replaced by {by}, which has its key").into(),
                None => of_end.map(brief).unwrap_or_default(),
            },
            left_out: 0,
        }
    }
}

/// A history as far as it is told.
struct Story {
    state: StateName,
    /// Until when it is scheduled.
    due: Option<Timestamp>,
    told: Vec<Transition>,
}

impl Story {
    fn note(&mut self, note: &Note) {
        let Step {
            at,
            from,
            to,
            until,
            cause,
        } = note.step;
        if cause != Cause::LeftOut {
            if let Some(started_at) = note.started_at {
                self.begin(started_at, note.attempt, note.worker.as_ref());
            } else if from != StateName::Scheduled {
                self.come_due(note.attempt);
            }
        }
        self.told.push(Transition {
            at,
            from: Some(self.state),
            to,
            attempt: note.attempt,
            worker: note.worker.clone(),
            cause,
            message: note.message.clone(),
            left_out: note.left_out,
        });
        (self.state, self.due) = (to, until);
    }

    /// If it was scheduled, it is ready.
    fn come_due(&mut self, attempt: u32) {
        if self.state == StateName::Scheduled {
            let at = self.due.take().unwrap_or_default();
            self.step(at, StateName::Ready, attempt, None, Cause::Due);
        }
    }

    /// If it did not run, it does.
    fn begin(&mut self, at: Timestamp, attempt: u32, worker: Option<&Name>) {
        self.come_due(attempt.saturating_sub(1));
        if self.state == StateName::Ready {
            self.step(at, StateName::Running, attempt, worker, Cause::Granted);
        }
    }

    fn step(&mut self, at: Timestamp, to: StateName, attempt: u32, worker: Option<&Name>, cause: Cause) {
        self.told.push(Transition {
            at,
            from: Some(self.state),
            to,
            attempt,
            worker: worker.cloned(),
            cause,
            message: Box::default(),
            left_out: 0,
        });
        self.state = to;
    }
}

/// A failure in at most [`limits::MAX_NOTE_BYTES`].
pub(crate) fn brief(failure: &Failure) -> Box<str> {
    let mut text = format!("{}: {}", failure.kind, failure.message);
    text.truncate(text.floor_char_boundary(limits::MAX_NOTE_BYTES));
    text.into()
}
