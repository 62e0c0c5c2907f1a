//! What must hold of questions and answers, and of what is left in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asker, Entry, Judge, Record, Rule, Verdict, broken};

#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Questions to be answered, by who asked.
    open: BTreeMap<Asker, BTreeSet<u64>>,
    /// Questions whose answers may have crossed the news that nobody wants them.
    withdrawn: BTreeSet<(Asker, u64)>,
    healed: bool,
}

impl Judge for Answers {
    fn see(&mut self, entry: &Entry) -> Verdict {
        match &entry.what {
            Record::Question(asker, number) => return self.asked(*asker, *number),
            Record::Answer(asker, number, last) => {
                let Some(open) = self.open.get_mut(asker) else {
                    return Ok(());
                };
                if !open.contains(number) && !self.withdrawn.contains(&(*asker, *number)) {
                    return broken(
                        Rule::Answers,
                        format!("question {number} of {asker:?} is answered, but it was not open"),
                    );
                }
                if *last {
                    open.remove(number);
                }
            }
            Record::Withdrawn(asker, number) => {
                if let Some(open) = self.open.get_mut(asker) {
                    open.remove(number);
                }
                self.withdrawn.insert((*asker, *number));
            }
            Record::Gone(asker) => _ = self.open.remove(asker),
            Record::Healed => self.healed = true,
            Record::Left { place, count } if *count > 0 => {
                return broken(Rule::Leak, format!("{count} left in the end: {place}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self) -> Verdict {
        let open = self
            .open
            .iter()
            .find_map(|(asker, open)| open.first().map(|number| (asker, number)));
        match open.filter(|_| self.healed) {
            Some((asker, number)) => broken(
                Rule::Answers,
                format!("question {number} of {asker:?} was never answered"),
            ),
            None => Ok(()),
        }
    }
}

impl Answers {
    fn asked(&mut self, asker: Asker, number: u64) -> Verdict {
        if self.open.entry(asker).or_default().insert(number) {
            return Ok(());
        }
        broken(Rule::Answers, format!("{asker:?} asks {number} twice"))
    }
}
