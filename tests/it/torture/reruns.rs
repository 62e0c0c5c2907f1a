//! Which runs may be run again after a kill of the broker, and which may not.

use std::collections::BTreeMap;
use std::time::Duration;

use asynq_core::limits::CLAIM_AFTER;
use asynq_core::{LeaseToken, TaskId};
use asynq_tests::journal::{Deed, Line};

/// What was on its way when a process was killed is begun no later than this after it.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// The life of a worker's process.
pub(super) struct Life {
    /// When it was killed, not earlier than this; none if it goes on.
    pub(super) killed: Option<Duration>,
    /// It was registered before the first task was enqueued, and is known to the broker for certain.
    pub(super) steady: bool,
    /// What its runs did.
    pub(super) journal: Vec<Line>,
}

/// A kill of the broker.
pub(super) struct Kill {
    /// When, not later than this.
    pub(super) at: Duration,
    /// The steady worker had resumed its session within the grace.
    pub(super) back_in_grace: bool,
}

/// An acknowledged enqueue.
pub(super) struct Acked {
    pub(super) task: TaskId,
    pub(super) sent: Duration,
    pub(super) acked: Duration,
}

/// What a task was run again for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Its worker was killed.
    pub(super) worker_killed: u64,
    /// Its broker was killed, and it was too young for a claim, and its worker not back in the grace.
    pub(super) too_young: u64,
    /// It had failed, and was tried again.
    pub(super) retried: u64,
    /// Runs that had a claim or a worker back in the grace, and outlived a kill of the broker.
    pub(super) outlived: u64,
}

struct Run {
    token: LeaseToken,
    began: Duration,
    ended: Option<(Duration, Deed)>,
    life: usize,
}

/// Counts what was run again, and finds what must not have been.
pub(super) fn judge(lives: &[Life], kills: &[Kill], acked: &[Acked]) -> (Tally, Vec<String>) {
    let durable = Durable::new(acked);
    let acked: BTreeMap<_, _> = acked.iter().map(|ack| (ack.task, ack.acked)).collect();
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for (task, runs) in runs(lives) {
        for (n, run) in runs.iter().enumerate() {
            let next = runs.get(n + 1);
            // Of the kills of the broker that may have to do with it, the first.
            let until = next.map_or_else(|| run.ended.map_or(Duration::MAX, |(at, _)| at), |next| next.began);
            let under = |kill: &&Kill| kill.at + ON_ITS_WAY > run.began && kill.at < until;
            let mut under = kills.iter().filter(under).peekable();
            let first_kill = under.peek().map(|kill| kill.at);
            let claimed = first_kill.is_some_and(|kill| durable.claim_of(run.began) < kill);
            let accepted = acked.get(&task).copied().unwrap_or(Duration::MAX);
            let resumed = lives[run.life].steady && under.all(|kill| kill.back_in_grace && accepted < kill.at);
            let Some(next) = next else {
                tally.outlived += u64::from(first_kill.is_some_and(|kill| kill > run.began) && (claimed || resumed));
                continue;
            };
            if matches!(run.ended, Some((_, Deed::Failed))) {
                tally.retried += 1;
            } else if lives[run.life].killed.is_some_and(|killed| killed < next.began) {
                tally.worker_killed += 1;
            } else if first_kill.is_none() || claimed || resumed {
                wrong.push(format!(
                    "task {task}: attempt {} began at {:?} and ({:?}) was run again at {:?} as attempt {}, though its worker \
                     was there{}{}; the broker was killed at {first_kill:?}",
                    run.token.grant.attempt,
                    run.began,
                    run.ended,
                    next.began,
                    next.token.grant.attempt,
                    if claimed { ", it was claimed" } else { "" },
                    if resumed { ", its worker was back in the grace" } else { "" },
                ));
            } else {
                tally.too_young += 1;
            }
        }
    }
    (tally, wrong)
}

/// The runs of each task, in the order in which they began.
fn runs(lives: &[Life]) -> BTreeMap<TaskId, Vec<Run>> {
    let mut by_task: BTreeMap<TaskId, Vec<Run>> = BTreeMap::new();
    for (life, Life { journal, .. }) in lives.iter().enumerate() {
        let mut of_life: BTreeMap<LeaseToken, Run> = BTreeMap::new();
        for line in journal {
            let run = of_life.entry(line.token).or_insert(Run {
                token: line.token,
                began: line.at,
                ended: None,
                life,
            });
            if line.deed != Deed::Began {
                run.ended = Some((line.at, line.deed));
            }
        }
        for (token, run) in of_life {
            by_task.entry(token.task).or_default().push(run);
        }
    }
    by_task
        .values_mut()
        .for_each(|runs| runs.sort_by_key(|run| (run.began, run.token)));
    by_task
}

/// From when on things are certain to be on the disk, by what callers were told.
struct Durable(Vec<(Duration, Duration)>);

impl Durable {
    fn new(acked: &[Acked]) -> Self {
        let mut sent: Vec<_> = acked.iter().map(|ack| (ack.sent, ack.acked)).collect();
        sent.sort();
        // Of all that were sent later, the one that was answered first.
        let mut first = Duration::MAX;
        for (_, answered) in sent.iter_mut().rev() {
            first = first.min(*answered);
            *answered = first;
        }
        Self(sent)
    }

    /// When an enqueue was answered that was sent after this.
    fn answered_after(&self, time: Duration) -> Duration {
        let next = self.0.partition_point(|(sent, _)| *sent < time);
        self.0.get(next).map_or(Duration::MAX, |(_, answered)| *answered)
    }

    /// When the claim of a run that began then was durable, if it still ran. The broker
    /// took up the first enqueue that was sent when the run was old enough; when it had
    /// written that, it claimed the run, if not before; and wrote that before it answered the second.
    fn claim_of(&self, began: Duration) -> Duration {
        let first = self.answered_after(began.saturating_add(CLAIM_AFTER));
        self.answered_after(first)
    }
}

#[cfg(test)]
mod tests {
    use asynq_core::{Epoch, Grant};

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(10_000 + ms)
    }

    fn line(at: u64, attempt: u32, deed: Deed) -> Line {
        let grant = Grant {
            epoch: Epoch(1),
            attempt,
        };
        let task = TaskId([1; 16]);
        Line {
            at: ms(at),
            token: LeaseToken { task, grant },
            deed,
        }
    }

    fn life(steady: bool, killed: Option<u64>, journal: &[Line]) -> Life {
        Life {
            killed: killed.map(ms),
            steady,
            journal: journal.to_vec(),
        }
    }

    fn acked(task: u8, sent: u64, acked: u64) -> Acked {
        Acked {
            task: TaskId([task; 16]),
            sent: ms(sent),
            acked: ms(acked),
        }
    }

    const KILL: [Kill; 1] = [Kill {
        at: ms(500),
        back_in_grace: true,
    }];

    #[test]
    fn each_sort_of_run_is_told_apart() {
        let all = [acked(1, 0, 90), acked(2, 160, 170), acked(3, 180, 190)];
        let again = [line(2_000, 2, Deed::Began), line(2_100, 2, Deed::Returned(1))];
        let went_on = [line(100, 1, Deed::Began), line(900, 1, Deed::Returned(1))];
        let verdict = |steady, killed, first: &[Line], acked: &[Acked], kills: &[Kill]| {
            let (tally, wrong) = judge(&[life(steady, killed, first), life(false, None, &again)], kills, acked);
            (tally.worker_killed, tally.too_young, tally.retried, wrong.len())
        };
        assert_eq!(
            verdict(false, None, &went_on, &all, &KILL),
            (0, 0, 0, 1),
            "it was claimed"
        );
        assert_eq!(
            verdict(false, None, &went_on, &all[..2], &KILL),
            (0, 1, 0, 0),
            "it was not"
        );
        assert_eq!(
            verdict(true, None, &went_on, &all[..2], &KILL),
            (0, 0, 0, 1),
            "it was resumed"
        );
        let late = [Kill {
            back_in_grace: false,
            ..KILL[0]
        }];
        assert_eq!(
            verdict(true, None, &went_on, &all[..2], &late),
            (0, 1, 0, 0),
            "too late"
        );
        let unanswered = [acked(1, 0, 600)];
        assert_eq!(
            verdict(true, None, &went_on, &unanswered, &KILL),
            (0, 1, 0, 0),
            "a new one"
        );
        assert_eq!(verdict(true, None, &went_on, &all, &[]), (0, 0, 0, 1), "for no reason");
        assert_eq!(verdict(false, Some(700), &went_on, &all, &KILL), (1, 0, 0, 0));
        let failed = [line(100, 1, Deed::Began), line(900, 1, Deed::Failed)];
        assert_eq!(verdict(false, None, &failed, &all, &KILL), (0, 0, 1, 0));
        let (tally, wrong) = judge(&[life(false, None, &went_on)], &KILL, &all);
        assert_eq!((tally.outlived, wrong.len()), (1, 0));
    }

    #[test]
    fn a_claim_is_certain_after_the_second_answer() {
        let all = [
            acked(1, 0, 90),
            acked(2, 160, 200),
            acked(3, 180, 195),
            acked(4, 196, 230),
        ];
        let durable = Durable::new(&all);
        assert_eq!(durable.claim_of(ms(100)), ms(230));
        assert_eq!(durable.claim_of(ms(147)), Duration::MAX);
    }
}
