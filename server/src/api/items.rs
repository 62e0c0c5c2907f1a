//! Items and the credit for them, from the wire and to it.

use std::time::Duration;

use asynq_core::limits::{DETACH_GRACE, MAX_DETACH_GRACE};
use asynq_core::{Checkpoint, ConsumerId, Credit, EmitResume, ItemBatch, Place, Reader, SessionId, TaskId, Timestamp};
use asynq_proto::limits::{MAX_CHECKPOINT_BYTES, MAX_PAYLOAD_BYTES};
use asynq_proto::v1;
use asynq_proto::v1::emit_frame::Frame as EmitFrame;
use asynq_proto::v1::stream_frame::Frame as Wire;

use super::{convert, render};
use crate::broker::{Consumer, Control, Emission, EmitRun, Error, Frame, Iterate};
use crate::limits::{MAX_CONTENT_TYPE_BYTES, MAX_ITEM_BATCH_BYTES, MAX_ITEMS_PER_BATCH};

pub(super) fn iterate(request: v1::IterateRequest, now: Timestamp) -> Result<Iterate, Error> {
    let id = consumer_id(&request.consumer_id)?;
    let open_seq = request.open_seq.max(1);
    let consumer = match request.credit {
        _ if request.auto_ack => Consumer::auto_ack(id, open_seq),
        Some(asked) => Consumer::new((id, open_seq), credit(asked), request.detach_on_reset),
        None => {
            let problem = "is missing: say what you have room for, or set auto_ack";
            return Err(convert::invalid("credit", problem));
        }
    };
    let reader = Reader {
        consumer: id,
        open_seq,
        credit: Credit::default(),
        from: from(&request)?,
        take_over: request.take_over,
        grace: grace(request.detach_grace_ms)?,
    };
    let task = request.task.ok_or_else(|| convert::invalid("task", "is missing"))?;
    if request.attach {
        return Ok(Iterate {
            task: convert::task_id("task.id", &task.id)?,
            spec: None,
            is_fresh: false,
            is_new: false,
            reader,
            consumer,
        });
    }
    let is_fresh = task.first_send;
    let task = v1::EnqueueRequest {
        first_send: false,
        ..task
    };
    let enqueue = convert::enqueue(task, now)?;
    if enqueue.spec.options.key.is_some() {
        let problem = "has no meaning here: a stream has one reader and is not read again";
        return Err(convert::invalid("options.key", problem));
    }
    Ok(Iterate {
        task: enqueue.spec.id,
        spec: Some(enqueue.spec),
        is_fresh,
        is_new: enqueue.first_send,
        reader,
        consumer,
    })
}

/// Where the reader begins.
fn from(request: &v1::IterateRequest) -> Result<Place, Error> {
    let Some(from) = request.from else {
        return Ok(Place::at_index(request.from_index));
    };
    let from = place(from);
    match from.index == request.from_index {
        true => Ok(from),
        false => Err(convert::invalid("from.index", "is another than from_index")),
    }
}

fn grace(asked: Option<u64>) -> Result<Duration, Error> {
    let grace = asked.map_or(DETACH_GRACE, Duration::from_millis);
    if grace > MAX_DETACH_GRACE {
        let problem = format!("is {grace:?}, at most {MAX_DETACH_GRACE:?} are allowed");
        return Err(convert::invalid("detach_grace_ms", problem));
    }
    Ok(grace)
}

const fn place(wire: v1::StreamPosition) -> Place {
    Place {
        index: wire.index,
        byte: wire.byte,
        digest: wire.digest,
        before: wire.digest_before_last,
    }
}

pub(super) const fn render_place(place: Place) -> v1::StreamPosition {
    v1::StreamPosition {
        index: place.index,
        byte: place.byte,
        digest: place.digest,
        digest_before_last: place.before,
    }
}

/// The first frame of a stream.
pub(super) fn render_opened(opened: v1::Enqueued, at: Place) -> v1::StreamFrame {
    v1::StreamFrame {
        frame: Some(Wire::Opened(opened)),
        at: Some(render_place(at)),
    }
}

pub(super) fn flow(request: v1::FlowRequest) -> Result<(TaskId, ConsumerId, u64, Credit), Error> {
    let asked = request.credit.ok_or_else(|| convert::invalid("credit", "is missing"))?;
    Ok((
        convert::task_id("id", &request.id)?,
        consumer_id(&request.consumer_id)?,
        request.open_seq,
        credit(asked),
    ))
}

pub(super) fn stop(request: &v1::StopRequest) -> Result<(TaskId, ConsumerId), Error> {
    Ok((convert::task_id("id", &request.id)?, consumer_id(&request.consumer_id)?))
}

fn consumer_id(bytes: &[u8]) -> Result<ConsumerId, Error> {
    sixteen("consumer_id", bytes).map(ConsumerId)
}

pub(super) fn sixteen(field: &'static str, bytes: &[u8]) -> Result<[u8; 16], Error> {
    let problem = || {
        convert::invalid(
            field,
            format!("is {} bytes long, 16 random ones are expected", bytes.len()),
        )
    };
    bytes.try_into().map_err(|_| problem())
}

/// What the first frame of an Emit stream says besides items.
pub(super) fn emit_run(frame: &mut v1::EmitFrame) -> Result<EmitRun, Error> {
    Ok(EmitRun {
        token: convert::token(frame.token.take())?,
        session: sixteen("session", &frame.session).map(SessionId)?,
    })
}

/// Where the run stands, if it had an Emit before.
pub(super) fn emit_resume(resume: v1::EmitResume) -> Result<EmitResume, Error> {
    let floor = resume.floor.map(place);
    let floor = floor.ok_or_else(|| convert::invalid("resume.floor", "is missing"))?;
    if resume.head < floor.index {
        return Err(convert::invalid("resume.head", "lies before resume.floor"));
    }
    Ok(EmitResume {
        floor,
        head: resume.head,
        credit: resume.credit.map(credit).unwrap_or_default(),
    })
}

/// A frame of an Emit stream; `None` if there is nothing in it, as may be in
/// the first.
pub(super) fn emission(frame: v1::EmitFrame) -> Result<Option<Emission>, Error> {
    let emission = match frame.frame {
        Some(EmitFrame::Items(items)) => Emission::Items(batch(items)?),
        Some(EmitFrame::Checkpoint(at)) => Emission::Checkpoint(checkpoint(at)?),
        Some(EmitFrame::Blocked(used_up)) => Emission::Blocked(credit(used_up)),
        Some(EmitFrame::End(end)) => Emission::End(end.count, end.digest),
        Some(EmitFrame::Failure(failure)) if failure.crashed => Emission::Crashed(convert::task_failure(failure)),
        Some(EmitFrame::Failure(failure)) => Emission::Failed(convert::task_failure(failure)),
        None => return Ok(None),
    };
    Ok(Some(emission))
}

fn checkpoint(v1::Checkpoint { index, token }: v1::Checkpoint) -> Result<Checkpoint, Error> {
    if index == 0 {
        return Err(convert::invalid("checkpoint.index", "is 0: one stands behind an item"));
    }
    let bytes = token.len();
    if bytes > MAX_CHECKPOINT_BYTES {
        let problem = format!(
            "is {bytes} bytes long at item {index}, at most {MAX_CHECKPOINT_BYTES} (MAX_CHECKPOINT_BYTES) are allowed"
        );
        return Err(convert::invalid("checkpoint.token", problem));
    }
    Ok(Checkpoint { index, token })
}

pub(super) fn render_checkpoint(Checkpoint { index, token }: Checkpoint) -> v1::Checkpoint {
    v1::Checkpoint { index, token }
}

fn batch(items: v1::ItemBatch) -> Result<ItemBatch, Error> {
    let (count, bytes) = (items.lengths.len(), items.data.len());
    if !(1..=MAX_ITEMS_PER_BATCH).contains(&count) {
        let problem = format!("are {count}, allowed are 1 to {MAX_ITEMS_PER_BATCH}");
        return Err(convert::invalid("items.lengths", problem));
    }
    let sum: u64 = items.lengths.iter().copied().map(u64::from).sum();
    if sum != bytes as u64 {
        let problem = format!("is {bytes} bytes long, the lengths add up to {sum}");
        return Err(convert::invalid("items.data", problem));
    }
    if count == 1 && bytes > MAX_PAYLOAD_BYTES {
        return Err(Error::PayloadTooLarge { field: "items", bytes });
    }
    if count > 1 && bytes > MAX_ITEM_BATCH_BYTES {
        let problem = format!("is {bytes} bytes long, {MAX_ITEM_BATCH_BYTES} are allowed to more than one item");
        return Err(convert::invalid("items.data", problem));
    }
    if items.content_type.len() > MAX_CONTENT_TYPE_BYTES {
        let problem = format!("is longer than {MAX_CONTENT_TYPE_BYTES} bytes");
        return Err(convert::invalid("items.content_type", problem));
    }
    let too_far = |first: u64, more: u64| first.checked_add(more).is_none();
    if too_far(items.first_index, count as u64) || too_far(items.first_byte, sum) {
        return Err(convert::invalid("items.first_index", "or first_byte is out of range"));
    }
    Ok(ItemBatch {
        first_index: items.first_index,
        first_byte: items.first_byte,
        lengths: items.lengths,
        data: items.data,
        content_type: items.content_type.into(),
    })
}

const fn credit(credit: v1::Credit) -> Credit {
    Credit {
        acked: credit.acked,
        limit_index: credit.limit_index,
        limit_bytes: credit.limit_bytes,
    }
}

pub(super) const fn render_credit(credit: Credit) -> v1::Credit {
    v1::Credit {
        acked: credit.acked,
        limit_index: credit.limit_index,
        limit_bytes: credit.limit_bytes,
    }
}

pub(super) fn render_frame(frame: Frame) -> v1::StreamFrame {
    let frame = match frame {
        Frame::Items(batch) => Wire::Items(v1::ItemBatch {
            first_index: batch.first_index,
            first_byte: batch.first_byte,
            lengths: batch.lengths,
            data: batch.data,
            content_type: batch.content_type.into(),
        }),
        Frame::End { count, end } => Wire::End(v1::StreamEnd {
            count,
            finished: Some(render::finished(&end, false)),
        }),
    };
    v1::StreamFrame {
        frame: Some(frame),
        at: None,
    }
}

pub(super) fn render_control(run: EmitRun, control: Control) -> v1::EmitControl {
    v1::EmitControl {
        credit: control.credit.map(render_credit),
        ack: control.verdict.map(|verdict| render::run_ack(run.token, verdict)),
        from: control.from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(lengths: &[u32], bytes: usize) -> v1::ItemBatch {
        v1::ItemBatch {
            lengths: lengths.to_vec(),
            data: vec![b'1'; bytes].into(),
            ..Default::default()
        }
    }

    #[test]
    fn batches_that_do_not_add_up_are_refused() {
        let many = vec![0; MAX_ITEMS_PER_BATCH + 1];
        let half = MAX_ITEM_BATCH_BYTES as u32 / 2;
        let type_of = |len| v1::ItemBatch {
            content_type: "t".repeat(len),
            ..items(&[1], 1)
        };
        let far = v1::ItemBatch {
            first_byte: u64::MAX,
            ..items(&[1], 1)
        };
        for (bad, part) in [
            (items(&[], 0), "1 to 512"),
            (items(&many, 0), "1 to 512"),
            (items(&[1, 2], 4), "add up to 3"),
            (items(&[u32::MAX, u32::MAX], 4), "add up to 8589934590"),
            (items(&[half, half + 1], MAX_ITEM_BATCH_BYTES + 1), "more than one item"),
            (
                items(&[MAX_PAYLOAD_BYTES as u32 + 1], MAX_PAYLOAD_BYTES + 1),
                "MAX_PAYLOAD_BYTES",
            ),
            (type_of(MAX_CONTENT_TYPE_BYTES + 1), "content_type"),
            (far, "first_byte"),
        ] {
            let message = batch(bad).expect_err(part).to_string();
            assert!(message.contains(part), "{part}: {message}");
        }
        for good in [
            items(&[0], 0),
            items(&[half, half], MAX_ITEM_BATCH_BYTES),
            items(&[MAX_PAYLOAD_BYTES as u32], MAX_PAYLOAD_BYTES),
            type_of(MAX_CONTENT_TYPE_BYTES),
        ] {
            batch(good).unwrap();
        }
    }

    #[test]
    fn checkpoints_stand_behind_an_item_and_are_small() {
        let read = |index, bytes| {
            let token = vec![7; bytes].into();
            checkpoint(v1::Checkpoint { index, token }).map_err(|error| error.to_string())
        };
        assert_eq!(read(1, MAX_CHECKPOINT_BYTES).map(|it| it.index), Ok(1));
        let long = read(9, MAX_CHECKPOINT_BYTES + 1).unwrap_err();
        assert!(
            long.contains("checkpoint.token is 65537 bytes long at item 9"),
            "{long}"
        );
        assert!(long.contains("at most 65536 (MAX_CHECKPOINT_BYTES)"), "{long}");
        let none = read(0, 1).unwrap_err();
        assert!(none.contains("checkpoint.index is 0"), "{none}");
    }

    #[test]
    fn a_consumer_says_who_it_is_and_what_it_has_room_for() {
        let good = v1::IterateRequest {
            task: Some(v1::EnqueueRequest {
                name: "rows".into(),
                ..Default::default()
            }),
            consumer_id: vec![1; 16].into(),
            credit: Some(v1::Credit::default()),
            ..Default::default()
        };
        let now = Timestamp::from_millis(1_700_000_000_000);
        assert!(iterate(good.clone(), now).unwrap().is_new, "its id is made here");
        let auto = v1::IterateRequest {
            credit: None,
            auto_ack: true,
            ..good.clone()
        };
        iterate(auto, now).unwrap();
        let named = v1::EnqueueRequest {
            id: iterate(good.clone(), now).unwrap().task.0.to_vec().into(),
            first_send: true,
            ..good.task.clone().unwrap()
        };
        let named = v1::IterateRequest {
            task: Some(named),
            ..good.clone()
        };
        assert!(
            !iterate(named, now).unwrap().is_new,
            "first_send spares no look into the past here"
        );
        for (bad, part) in [
            (
                v1::IterateRequest {
                    consumer_id: vec![1; 15].into(),
                    ..good.clone()
                },
                "consumer_id is 15",
            ),
            (
                v1::IterateRequest {
                    credit: None,
                    ..good.clone()
                },
                "credit is missing",
            ),
            (
                v1::IterateRequest {
                    task: None,
                    ..good.clone()
                },
                "task is missing",
            ),
        ] {
            let message = iterate(bad, now).expect_err(part).to_string();
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    /// The broker's digest and that of callers and workers are two pieces of code: the
    /// core stands on no wire.
    #[test]
    fn broker_and_peers_reckon_digests_alike() {
        let (mut ours, mut theirs) = (Place::START, asynq_proto::Place::START);
        for length in [0, 1, 9, 200, 300, 70_000] {
            let item: Vec<u8> = (0..length).map(|i| (i * 31) as u8).collect();
            ours.pass(&item);
            theirs.pass(&item);
            assert_eq!(render_place(ours), theirs.into());
        }
    }
}
