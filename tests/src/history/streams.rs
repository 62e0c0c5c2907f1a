//! What must hold of items on their way from a run to its reader.

use std::collections::BTreeMap;

use asynq_core::{Grant, LeaseToken, TaskId};

use super::{Entry, Judge, Record, Rule, Verdict, broken, show};

#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<TaskId, Stream>);

#[derive(Debug, Default)]
struct Stream {
    /// Room the reader has given, in items and in bytes.
    room: Option<(u64, u64)>,
    /// What was sent, by index.
    sent: BTreeMap<u64, BTreeMap<Grant, u64>>,
    /// Its items are those of one run; else whichever run sends an item, it is the
    /// same one.
    one_run: bool,
    /// The items its reader has had, from the first on.
    received: Vec<u64>,
    /// The next item of this opening.
    due: u64,
}

impl Judge for Streams {
    fn see(&mut self, entry: &Entry) -> Verdict {
        match entry.what {
            Record::OneRun(task) => self.of(task).one_run = true,
            Record::Credit { task, items, bytes } => {
                let (most_items, most_bytes) = self.of(task).room.get_or_insert((0, 0));
                (*most_items, *most_bytes) = (items.max(*most_items), bytes.max(*most_bytes));
            }
            Record::Sent {
                token,
                index,
                end,
                value,
            } => return self.of(token.task).send(token, index, end, value),
            Record::Reads { task, index } => {
                let stream = self.of(task);
                if index > stream.received.len() as u64 {
                    let has = stream.received.len();
                    let message = format!("task {task} is read from item {index} on, and its reader has had {has}");
                    return broken(Rule::StreamOrder, message);
                }
                stream.due = index;
            }
            Record::Received { task, index, value } => return self.of(task).receive(task, index, value),
            Record::Over { task, count, whole } => {
                let stream = self.of(task);
                let has = stream.received.len() as u64;
                if stream.due != count || (whole && has != count) {
                    let due = stream.due;
                    return broken(
                        Rule::StreamOrder,
                        format!("the stream of task {task} has {count} items, of which {due} came, {has} in all"),
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Stream {
    fn send(&mut self, token: LeaseToken, index: u64, end: u64, value: u64) -> Verdict {
        if self.room.is_some_and(|(items, bytes)| index >= items || end > bytes) {
            return broken(
                Rule::Overrun,
                format!(
                    "{} sent item {index}, to byte {end}, where there was room for {:?}",
                    show(token),
                    self.room
                ),
            );
        }
        let before = self.sent.entry(index).or_default();
        let same_run = |grant: &Grant| !self.one_run || *grant == token.grant;
        let other = before.iter().find(|(grant, sent)| same_run(grant) && **sent != value);
        if let Some((_, before)) = other {
            return broken(
                Rule::StreamContent,
                format!(
                    "{} sent item {index} as {value:x}, which was {before:x} before",
                    show(token)
                ),
            );
        }
        before.insert(token.grant, value);
        Ok(())
    }

    fn receive(&mut self, task: TaskId, index: u64, value: u64) -> Verdict {
        if index != self.due {
            let due = self.due;
            return broken(
                Rule::StreamOrder,
                format!("item {index} of task {task} came where item {due} was due"),
            );
        }
        self.due += 1;
        match self.received.get(index as usize) {
            Some(before) if *before != value => {
                return broken(
                    Rule::StreamContent,
                    format!("item {index} of task {task} came as {value:x}, and as {before:x} before"),
                );
            }
            Some(_) => return Ok(()),
            None => self.received.push(value),
        }
        if self.sent.is_empty() || self.is_sent(index) {
            return Ok(());
        }
        let sent = self.sent.get(&index);
        broken(
            Rule::StreamContent,
            format!("item {index} of task {task} came as {value:x}, and was sent as {sent:x?}"),
        )
    }

    /// Whether the last item came as it was sent: where its items are those of one
    /// run, as a run sent it that sent all before it.
    fn is_sent(&self, index: u64) -> bool {
        let Some(sent) = self.sent.get(&index) else {
            return false;
        };
        let mut by = sent.keys();
        by.any(|grant| {
            let is_its = |(index, value): (usize, &u64)| {
                let sent = self.sent.get(&(index as u64)).and_then(|sent| sent.get(grant));
                sent == Some(value)
            };
            let from = if self.one_run { 0 } else { index as usize };
            self.received.iter().enumerate().skip(from).all(is_its)
        })
    }
}

impl Streams {
    fn of(&mut self, task: TaskId) -> &mut Stream {
        self.0.entry(task).or_default()
    }
}
