//! Iterators that go on from a checkpoint, over the wire.

use asynq_proto::Place;
use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::{Assignment, Checkpoint};
use asynq_worker::{Context, Iter, OnLoss, Payload, TaskError, Worker, WorkerBuilder, Yield};
use futures_util::{StreamExt, stream};

use crate::broker::{self, Broker, end_of};
use crate::streams::{read, runs_on};

const ASYNC: Iter<u64, u64> = Iter::new("async", OnLoss::Checkpoint);
const BLOCKING: Iter<u64, u64> = Iter::new("blocking", OnLoss::Checkpoint);

const ALL: [&str; 3] = ["async", "blocking", "raw"];

/// Numbers, with a checkpoint behind each tenth.
fn numbers(context: &Context, count: u64) -> impl Iterator<Item = Result<Yield<u64>, TaskError>> + Send + use<> {
    let start = context.start_checkpoint::<u64>().expect("a number").unwrap_or(0);
    (start..count).map(|n| match n % 10 {
        9 => Yield::item(n).then_checkpoint(&(n + 1)),
        _ => Ok(Yield::item(n)),
    })
}

fn counting(broker: &Broker) -> WorkerBuilder {
    let raw = asynq_worker::Declaration::new("raw").on_loss(OnLoss::Checkpoint);
    Worker::builder(&broker.url())
        .slots(1)
        .builtins()
        .iter_with_checkpoints(ASYNC, |context: Context, n| {
            stream::once(async move { stream::iter(numbers(&context, n)) }).flatten()
        })
        .blocking_iter_with_checkpoints(BLOCKING, |context: Context, n| numbers(&context, n))
        .raw_iter(raw, |context: Context, args: Payload| {
            let start = context.start_checkpoint_bytes();
            let start = start.map_or(0, |token| String::from_utf8_lossy(&token).parse().expect("a number"));
            let count: u64 = args.decode().expect("a number");
            stream::iter((start..count).flat_map(|n| {
                let item = Ok(Yield::item(Payload::json(&n).expect("a number")));
                let checkpoint = Ok(Yield::checkpoint_bytes((n + 1).to_string()));
                [Some(item), (n % 10 == 9).then_some(checkpoint)].into_iter().flatten()
            }))
        })
}

fn behind(n: u64) -> Place {
    let mut place = Place::START;
    (0..n).for_each(|i| place.pass(i.to_string().as_bytes()));
    place
}

#[tokio::test]
async fn a_run_goes_on_from_its_checkpoint_and_says_further_ones() {
    let mut broker = Broker::start().await;
    let _running = broker::run(counting(&broker));
    let mut link = broker.accept().await;
    let mut run = 0;
    for name in ALL {
        let declared = link
            .hello
            .tasks
            .iter()
            .find(|task| task.name == name)
            .expect("declared");
        assert_eq!((declared.iterator, declared.on_loss), (true, 2), "{name}");
        for (head, index) in [(0, 0), (25, 0), (25, 20), (20, 20)] {
            run += 1;
            let token = if index == 0 { String::new() } else { index.to_string() };
            let again = Assignment {
                start: Some(behind(head).into()),
                checkpoint: Some(Checkpoint {
                    index,
                    token: token.into(),
                }),
                ..read(run, name, "100", 1_000)
            };
            link.assign(again).await;
            let mut emit = broker.emit().await;
            let (mut at, mut last) = (head, 0);
            let end = loop {
                match emit.next().await {
                    Some(Frame::Items(batch)) => {
                        assert_eq!(batch.first_index, at, "{name}");
                        let expected = (at..at + batch.lengths.len() as u64).map(|n| n.to_string());
                        at += batch.lengths.len() as u64;
                        assert_eq!(batch.data, expected.collect::<String>(), "{name}");
                    }
                    Some(Frame::Checkpoint(Checkpoint { index, token })) => {
                        assert!(
                            index > last && index <= at && token == index.to_string(),
                            "{name}: {index}"
                        );
                        last = index;
                    }
                    end => break end,
                }
            };
            assert_eq!(end, end_of((0..100).map(|n| n.to_string())), "{name}");
            emit.ack().await;
            runs_on(&mut link).await;
        }
    }
}
