//! What must hold of the time that runs ask for.

use std::collections::BTreeMap;

use asynq_core::LeaseToken;

use super::{Entry, Judge, Record, Rule, Verdict, broken, show};

/// Until when runs have time, by the broker's clock: as it has heard, and durably.
#[derive(Debug, Default)]
pub(super) struct Time {
    heard: BTreeMap<LeaseToken, u64>,
    durable: BTreeMap<LeaseToken, u64>,
}

impl Judge for Time {
    fn see(&mut self, entry: &Entry) -> Verdict {
        match &entry.what {
            Record::Extended(token, until) => longer(&mut self.heard, *token, *until),
            Record::HasUntil(token, until) => longer(&mut self.durable, *token, *until),
            // What was not on the disk it knows no more.
            Record::Opened(_) => self.heard = self.durable.clone(),
            // Said once more it need not be true: a clock may have been set back meanwhile.
            Record::Stopping(task) => {
                for known in [&mut self.heard, &mut self.durable] {
                    known.retain(|token, _| token.task != *task);
                }
            }
            Record::TookTooLong(token, now) => {
                let until = self.heard.get(token).max(self.durable.get(token));
                if let Some(until) = until.filter(|until| *until > now) {
                    let message = format!(
                        "{} was stopped {} us before its time was over",
                        show(*token),
                        until - now
                    );
                    return broken(Rule::TimeCut, message);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn longer(of: &mut BTreeMap<LeaseToken, u64>, token: LeaseToken, until: u64) {
    let known = of.entry(token).or_default();
    *known = until.max(*known);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use asynq_core::{Epoch, Grant, TaskId};

    use super::super::History;
    use super::*;

    fn run(attempt: u32) -> LeaseToken {
        LeaseToken {
            task: TaskId([1; 16]),
            grant: Grant {
                epoch: Epoch(5),
                attempt,
            },
        }
    }

    fn check(records: &[Record]) -> Option<Rule> {
        let mut history = History::default();
        for record in records {
            history.push(Duration::ZERO, record.clone());
        }
        history.check().err().map(|violation| violation.rule)
    }

    #[test]
    fn a_run_is_not_stopped_before_its_time() {
        let heard = Record::Extended(run(1), 20);
        let stopped = |attempt, now| Record::TookTooLong(run(attempt), now);
        let cut = Some(Rule::TimeCut);
        assert_eq!(check(&[heard.clone(), stopped(1, 19)]), cut);
        assert_eq!(check(&[heard.clone(), stopped(1, 20)]), None);
        // It is for that attempt, and the longest that was asked for counts.
        assert_eq!(check(&[heard.clone(), stopped(2, 19)]), None);
        assert_eq!(
            check(&[heard.clone(), Record::Extended(run(1), 10), stopped(1, 19)]),
            cut
        );
        let again = Record::Opened(Epoch(6));
        assert_eq!(check(&[heard.clone(), again.clone(), stopped(1, 19)]), None);
        let written = Record::HasUntil(run(1), 20);
        assert_eq!(check(&[heard, written.clone(), again, stopped(1, 19)]), cut);
        // What was decided, and is written, may be said again.
        let decided = Record::Stopping(run(1).task);
        assert_eq!(check(&[written, stopped(1, 20), decided, stopped(1, 19)]), None);
    }
}
