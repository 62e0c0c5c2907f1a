//! Records survive the way to bytes and back; anything else is refused.

use asynq_core::State;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::conformance::START;
use crate::conformance::samples::{any_end, any_session, any_task, id, task, value};

fn any_record() -> impl Strategy<Value = TaskRecord> {
    let end = proptest::option::of((any_end(), any::<bool>()));
    (any_task(), end).prop_map(|((mut record, _), end)| {
        if let Some(((mut finish, _), purged)) = end {
            finish.purged = purged;
            record.state = State::Finished(finish);
        }
        record
    })
}

/// Any body in a frame that is right.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut record = vec![FORMAT, 0, 0, 0, 0];
    record.extend_from_slice(&[7; 24]);
    record.extend_from_slice(body);
    let sum = checksum(&record[CHECKED_FROM..]);
    record[1..CHECKED_FROM].copy_from_slice(&sum);
    record
}

proptest! {
    /// One encoder and one decoder for all: nothing of one record gets into the next.
    #[test]
    fn tasks_come_back(records in vec(any_record(), 1..8)) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for record in records {
            let bytes = encoder.task(&record);
            prop_assert_eq!(head(bytes), Ok(Head { id: record.id.0, at: record.enqueued_at }));
            prop_assert_eq!(payload_type(bytes), Ok(record.content_type.clone()));
            if let State::Finished(finish) = &record.state {
                let expected = finish.result.as_ref().map(|result| result.content_type.clone());
                prop_assert_eq!(result_type(bytes), Ok(expected.unwrap_or_default()));
            }
            prop_assert_eq!(decoder.task(bytes), Ok(record));
        }
    }

    /// What is written by hand is what prost would write.
    #[test]
    fn bodies_are_written_as_prost_does(record in any_record()) {
        let mut encoder = Encoder::default();
        let body = &encoder.task(&record)[HEAD_BYTES..];
        let read = body::Task::decode(body).expect("it is a protocol buffer");
        prop_assert_eq!(read.encode_to_vec(), body);
    }

    #[test]
    fn sessions_come_back(session in any_session()) {
        let mut encoder = Encoder::default();
        prop_assert_eq!(Decoder::default().session(encoder.session(&session)), Ok(session));
    }

    #[test]
    fn a_cut_record_is_refused(record in any_record(), cut in any::<proptest::sample::Index>()) {
        let mut encoder = Encoder::default();
        let bytes = encoder.task(&record);
        let cut = &bytes[..cut.index(bytes.len())];
        prop_assert!(matches!(Decoder::default().task(cut), Err(CodecError::Short(_) | CodecError::Checksum)));
    }

    #[test]
    fn a_changed_byte_is_noticed(record in any_record(), at in any::<proptest::sample::Index>(), by in 1_u8..) {
        let mut bytes = Encoder::default().task(&record).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        let error = if at == 0 { CodecError::Version(bytes[0]) } else { CodecError::Checksum };
        prop_assert_eq!(Decoder::default().task(&bytes), Err(error.clone()));
        prop_assert_eq!(head(&bytes), Err(error));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Decoder::default().task(&bytes);
        let framed = framed(&bytes);
        let _ = (Decoder::default().task(&framed), Decoder::default().session(&framed));
        let _ = (payload_type(&framed), result_type(&framed));
    }

    /// What a later version of the same format adds is skipped.
    #[test]
    fn unknown_fields_are_skipped(record in any_record(), number in 200_u32..1_000, text in vec(any::<u8>(), 0..50)) {
        let mut bytes = Encoder::default().task(&record).to_vec();
        prost::encoding::bytes::encode(number, &text, &mut bytes);
        let sum = checksum(&bytes[CHECKED_FROM..]);
        bytes[1..CHECKED_FROM].copy_from_slice(&sum);
        prop_assert_eq!(Decoder::default().task(&bytes), Ok(record));
    }
}

#[test]
fn a_record_of_a_newer_version_says_what_to_do() {
    let mut bytes = Encoder::default().task(&task(id(START, 1), START, &value(1))).to_vec();
    bytes[0] = FORMAT + 1;
    let error = Decoder::default().task(&bytes).expect_err("the version is unknown");
    assert!(
        matches!(StoreError::from(error), StoreError::Incompatible(what) if what.contains("start the newer asynqd"))
    );
}

#[test]
fn a_field_out_of_range_is_named() {
    let cases: [(&[u8], &str); 4] = [
        (&[0x0a, 1, b'!'], "name"),
        (&[0x50, 42], "niceness"),
        (&[0x58, 9], "placement"),
        (&[], "state"),
    ];
    for (body, field) in cases {
        assert_eq!(Decoder::default().task(&framed(body)), Err(CodecError::Field(field)));
    }
}

/// Or pages would be split in every commit.
#[test]
fn an_end_finds_room() {
    for key in [None, Some("order 4711")] {
        end_finds_room(key.map(|key| asynq_core::Key::new(key).expect("a key")));
    }
}

fn end_finds_room(key: Option<asynq_core::Key>) {
    let mut record = task(id(START, 1), START, &value(1));
    record.options.key = key;
    let mut encoder = Encoder::default();
    let new = encoder.new_task(&record).to_vec();
    assert_eq!(Decoder::default().task(&new), Ok(record.clone()));
    record.grant = asynq_core::Grant {
        epoch: asynq_core::Epoch(START.as_micros()),
        attempt: 1,
    };
    record.state = State::Finished(asynq_core::Finish {
        outcome: asynq_core::Outcome::Succeeded,
        at: START,
        started_at: Some(START),
        worker: Some(Name::new("node-17.example-0a1b").expect("a name")),
        result: Some(asynq_core::ResultInfo {
            bytes: record.payload_bytes,
            content_type: "".into(),
            until: START,
        }),
        replaced_by: None,
        purged: false,
    });
    // Beside the record, two times get a value.
    let grown = encoder.task(&record).len() + 16;
    assert!(grown <= new.len(), "{grown} bytes do not fit into {}", new.len());
    // A result may be shorter than the arguments were, too.
    for grown in [-40, -1, 0, 1, 16] {
        let ended = encoder.ended_task(&record, grown);
        assert_eq!(
            ended.len().checked_add_signed(grown),
            Some(new.len()),
            "grown by {grown}"
        );
        assert_eq!(Decoder::default().task(ended), Ok(record.clone()));
    }
    for impossible in [-1_000, 100] {
        let ended = encoder.ended_task(&record, impossible).to_vec();
        assert_eq!(ended, encoder.task(&record), "no room is made");
    }
}

/// These bytes are on disks.
#[test]
fn the_format_stands() {
    let mut record = task(id(START, 1), START, &value(1));
    record.grant.attempt = 2;
    let bytes: String = Encoder::default()
        .task(&record)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        bytes,
        concat!(
            "01037b96ad01a3185c500070009e3779b97f4a7c1500809828176506000a06726573697a65120764656661756c74",
            "22106170706c69636174696f6e2f6a736f6e2801310700000000000000a00102f80102"
        )
    );
}
