//! Programs that say where they can begin again.

use asynq_proto::Place;
use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::{Assignment, Checkpoint, OnLoss};

use super::{Daemon, read, shell};
use crate::broker::{Emit, end_of};

const MARKED: &str = "stdout = \"jsonl\"\non_loss = \"checkpoint\"";

/// Numbers below five, with a checkpoint behind each.
const COUNT: &str = r#"n=${ASYNQ_CHECKPOINT:-0}
[ "$ASYNQ_START_INDEX" = "$n" ] || exit 64
while [ $n -lt 5 ]; do
  echo "{\"item\":$n}"; n=$((n + 1)); echo "{\"checkpoint\":$n}"
done"#;

fn numbers() -> [String; 5] {
    [0, 1, 2, 3, 4].map(|n: u8| n.to_string())
}

fn behind(count: usize) -> Place {
    let mut place = Place::START;
    numbers()[..count].iter().for_each(|item| place.pass(item.as_bytes()));
    place
}

fn run(n: u8, name: &str, head: usize, checkpoint: u64) -> Assignment {
    let token = match checkpoint {
        0 => Vec::new(),
        index => index.to_string().into_bytes(),
    };
    Assignment {
        start: Some(behind(head).into()),
        checkpoint: Some(Checkpoint {
            index: checkpoint,
            token: token.into(),
        }),
        ..read(n, name, "null", 10)
    }
}

/// Reads to the end; gives the items and the last checkpoint.
async fn all(emit: &mut Emit) -> (Vec<String>, Option<Checkpoint>) {
    let (mut items, mut last) = (Vec::new(), None);
    loop {
        match emit.next().await {
            Some(Frame::Items(batch)) => {
                let mut rest = &batch.data[..];
                for length in batch.lengths {
                    let (item, behind) = rest.split_at(length as usize);
                    items.push(String::from_utf8(item.to_vec()).unwrap());
                    rest = behind;
                }
            }
            Some(Frame::Checkpoint(checkpoint)) => last = Some(checkpoint),
            end => {
                assert_eq!(end, end_of(numbers()));
                return (items, last);
            }
        }
    }
}

#[tokio::test]
async fn a_program_begins_at_its_checkpoint_and_what_was_sent_is_left_out() {
    let mut daemon = Daemon::start(&shell("counts", MARKED, COUNT)).await;
    let declared = |task: &&asynq_proto::v1::TaskDeclaration| task.name == "counts";
    let task = daemon.link.hello.tasks.iter().find(declared).unwrap();
    assert_eq!((task.iterator, task.on_loss()), (true, OnLoss::Checkpoint));
    for (n, head, checkpoint) in [(1, 0, 0), (2, 3, 0), (3, 3, 2), (4, 3, 3), (5, 5, 5)] {
        daemon.link.assign(run(n, "counts", head, checkpoint)).await;
        let mut emit = daemon.broker.emit().await;
        let (items, last) = all(&mut emit).await;
        assert_eq!(items, numbers()[head..], "{head}, {checkpoint}");
        // Behind the last item it may not have been sent any more: the end came.
        assert!(last.is_none_or(|last| last.index > head as u64 && last.token == last.index.to_string()));
        emit.ack().await;
    }
    // For who calls, it is a program without checkpoints.
    assert_eq!(daemon.result(6, "counts", "null").await, b"[0,1,2,3,4]");
}

#[tokio::test]
async fn a_program_has_said_its_checkpoint_when_it_fails() {
    let fails = r#"echo '{"item":0}'; echo '{"checkpoint":{"row": 1.50}}'; exit 75"#;
    let mut daemon = Daemon::start(&shell("fails", MARKED, fails)).await;
    daemon.link.assign(run(1, "fails", 0, 0)).await;
    let mut emit = daemon.broker.emit().await;
    assert!(matches!(emit.next().await, Some(Frame::Items(_))));
    let as_written = Checkpoint {
        index: 1,
        token: r#"{"row": 1.50}"#.into(),
    };
    assert_eq!(emit.next().await, Some(Frame::Checkpoint(as_written)));
    assert!(matches!(emit.next().await, Some(Frame::Failure(failure)) if failure.retryable));
    emit.ack().await;
}

#[tokio::test]
async fn a_bad_checkpoint_is_bad_output_and_the_line_is_named() {
    let long = r#"echo '{"item":0}'; printf '{"checkpoint":"'; head -c 65536 /dev/zero | tr '\0' x; echo '"}'"#;
    let tasks = [
        shell("long", MARKED, long),
        shell("early", MARKED, r#"echo; echo '{"checkpoint":1}'; echo '{"item":0}'"#),
        shell("broken", MARKED, r#"echo '{"item":0}'; echo '{"checkpoint":}'"#),
        shell(
            "late",
            MARKED,
            r#"echo '{"item":0}'; echo '{"result":1}'; echo '{"checkpoint":1}'"#,
        ),
        shell(
            "plain",
            "stdout = \"jsonl\"\non_loss = \"replay\"",
            r#"echo '{"item":0}'; echo '{"checkpoint":1}'"#,
        ),
    ];
    let mut daemon = Daemon::start(&tasks.concat()).await;
    for (n, name, said) in [
        (
            1,
            "long",
            "line 2 of stdout is a checkpoint of 65538 bytes, at most 65536 are allowed",
        ),
        (2, "early", "line 2 of stdout is a checkpoint before the first item"),
        (3, "broken", "line 2 of stdout is none of"),
        (4, "late", "line 3 of stdout comes after the result in line 2"),
        (
            5,
            "plain",
            "line 2 of stdout is {\"checkpoint\":…}, which is for on_loss = \"checkpoint\"",
        ),
    ] {
        daemon.link.assign(run(n, name, 0, 0)).await;
        let mut emit = daemon.broker.emit().await;
        let failure = loop {
            match emit.next().await {
                Some(Frame::Items(_)) => {}
                Some(Frame::Failure(failure)) => break failure,
                other => panic!("{name}: {other:?}"),
            }
        };
        assert_eq!(
            (failure.kind.as_str(), failure.retryable),
            ("bad_output", false),
            "{name}"
        );
        assert!(failure.message.starts_with(said), "{}", failure.message);
        emit.ack().await;
    }
}
