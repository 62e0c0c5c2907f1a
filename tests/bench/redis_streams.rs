//! A peer of streams: a Redis stream, in memory. A process adds items, each by a command
//! of its own, 100 commands a pipeline; the reader is here and takes up to 512 at a time.
//! Nothing holds the one back when the other is slow.

use std::net::TcpStream;
use std::time::Instant;

use asynq_proto::limits::MAX_BATCH_OPS;
use asynq_tests::Process;

use crate::redis::{BATCH, Connection, Kind, Redis};

/// The argument that makes this program the one that adds.
pub(crate) const ADD: &str = "add-to-redis";
pub(crate) const NAME: &str = "redis stream, memory";
const KEY: &str = "items";
const BYTES: usize = 100;

pub(crate) struct Streams(Redis);

impl Streams {
    pub(crate) async fn start() -> Result<Self, String> {
        Redis::start(Kind::Memory).await.map(Self)
    }

    /// Items per second, from the first to the last.
    pub(crate) async fn items(&mut self, count: u64) -> f64 {
        let me = std::env::current_exe().expect("a running program has a path");
        let args = [ADD, &self.0.address().to_string(), &count.to_string()];
        let log = self.0.folder().join("adder.log");
        let adder = Process::start_at(&me, args, log).await;
        let _adder = adder.unwrap_or_else(|said| panic!("who adds to redis: {said}"));
        let most = MAX_BATCH_OPS.to_string();
        let (mut last, mut seen, mut begun) = (b"0".to_vec(), 0, None);
        let connection = self.0.connection();
        while seen < count {
            let read = [b"XREAD", &b"COUNT"[..], most.as_bytes(), b"BLOCK", b"0", b"STREAMS"];
            connection.command(&[&read[..], &[KEY.as_bytes(), &last]].concat());
            connection.flush();
            seen += entries(connection, &mut last);
            begun.get_or_insert_with(Instant::now);
        }
        let rate = seen as f64 / begun.expect("there was an item").elapsed().as_secs_f64();
        connection.command(&[b"DEL", KEY.as_bytes()]);
        connection.flush();
        assert_eq!(connection.answer(), 1, "one stream was there");
        rate
    }
}

/// How many entries have come; and the id of the last one.
fn entries(connection: &mut Connection, last: &mut Vec<u8>) -> u64 {
    // One stream, of a name and entries; an entry of an id and a name and a value.
    let mut value = Vec::new();
    connection.array(1);
    connection.array(2);
    connection.bulk(&mut value);
    let (_, count) = connection.head();
    for _ in 0..count {
        connection.array(2);
        connection.bulk(last);
        connection.array(2);
        connection.bulk(&mut value);
        connection.bulk(&mut value);
        assert_eq!(value.len(), BYTES, "the item that was added");
    }
    count as u64
}

/// Adds so many items.
pub(crate) fn add(address: &str, count: u64) {
    let mut connection = Connection::new(TcpStream::connect(address).expect("redis listens"));
    println!("adding");
    let item = [b'x'; BYTES];
    let mut added = 0;
    while added < count {
        let batch = (count - added).min(BATCH as u64);
        for _ in 0..batch {
            connection.command(&[b"XADD", KEY.as_bytes(), b"*", b"d", &item]);
        }
        connection.flush();
        let mut id = Vec::new();
        for _ in 0..batch {
            connection.bulk(&mut id);
        }
        added += batch;
    }
}
