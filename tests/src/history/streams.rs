//! What must hold of items on their way from a run to its reader.

use std::collections::BTreeMap;

use asynq_core::TaskId;

use super::{Entry, Judge, Record, Rule, Verdict, broken, show};

#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<TaskId, Stream>);

#[derive(Debug, Default)]
struct Stream {
    /// Room the reader has given, in items and in bytes.
    room: Option<(u64, u64)>,
    /// What was sent, by index: whichever run sends an item, it is the same one.
    sent: BTreeMap<u64, u64>,
    received: u64,
}

impl Judge for Streams {
    fn see(&mut self, entry: &Entry) -> Verdict {
        match entry.what {
            Record::Credit { task, items, bytes } => {
                let (most_items, most_bytes) = self.of(task).room.get_or_insert((0, 0));
                (*most_items, *most_bytes) = (items.max(*most_items), bytes.max(*most_bytes));
            }
            Record::Sent {
                token,
                index,
                end,
                value,
            } => {
                let stream = self.of(token.task);
                if stream.room.is_some_and(|(items, bytes)| index >= items || end > bytes) {
                    return broken(
                        Rule::Overrun,
                        format!(
                            "{} sent item {index}, to byte {end}, where there was room for {:?}",
                            show(token),
                            stream.room
                        ),
                    );
                }
                let before = stream.sent.insert(index, value);
                if before.is_some_and(|before| before != value) {
                    return broken(
                        Rule::StreamContent,
                        format!(
                            "{} sent item {index} as {value:x}, which was {before:x?} before",
                            show(token)
                        ),
                    );
                }
            }
            Record::Received { task, index, value } => {
                let stream = self.of(task);
                if index != stream.received {
                    return broken(
                        Rule::StreamOrder,
                        format!(
                            "item {index} of task {task} came where item {} was due",
                            stream.received
                        ),
                    );
                }
                stream.received += 1;
                let sent = stream.sent.get(&index);
                if sent != Some(&value) && !stream.sent.is_empty() {
                    return broken(
                        Rule::StreamContent,
                        format!("item {index} of task {task} came as {value:x}, and was sent as {sent:x?}"),
                    );
                }
            }
            Record::Whole { task, count } => {
                let received = self.of(task).received;
                if received != count {
                    return broken(
                        Rule::StreamOrder,
                        format!("the stream of task {task} has {count} items, of which {received} came"),
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Streams {
    fn of(&mut self, task: TaskId) -> &mut Stream {
        self.0.entry(task).or_default()
    }
}
