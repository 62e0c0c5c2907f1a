//! `make bench`: a first look at speed. Real processes on loopback, 100-byte
//! arguments, no-op tasks whose results the caller awaits, and streams of
//! 100-byte items; beside them the same without a queue, on plain tonic. Every
//! round measures every row once, so that a machine that drifts drifts for all;
//! medians and ranges are printed.
//!
//! `cargo bench -p asynq-tests -- [ROUNDS] [items]`; with `items` streams only

mod cpu;
mod floor;
mod items;
mod load;
mod redis;
mod redis_streams;
mod relay;
mod setup;
mod source;

use std::collections::BTreeMap;
use std::time::Duration;

use asynq_proto::{Payload, v1};
use load::Load;
use mimalloc::MiMalloc;
use relay::Relay;
use setup::{Kind, Setup};
use source::Source;

/// As the daemons, for asynq's side and for all it is measured against.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Rounds, unless the command says otherwise.
const ROUNDS: usize = 7;
/// Items that a reader reads before it stops for good …
const READ: u64 = 10;
/// … and how many it lets the worker be ahead, where it has a say.
const WINDOW: u32 = 100;
/// Items of a stream; a peer gets a fifth of that.
const ITEMS: u64 = 2_000_000;
/// Items of a stream that is idle.
const IDLE_ITEMS: usize = 400;
const BATCHED: &str = "relay (tonic), batches";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.first().map(String::as_str) {
        Some(floor::SERVE) => return floor::serve(),
        Some(redis::WORK) => return redis::work(&args[1]),
        Some(redis_streams::ADD) => return redis_streams::add(&args[1], args[2].parse().expect("a number")),
        Some(items::WORK) => return items::work(&args[1]),
        Some(relay::SERVE) => return relay::serve(&args[1]),
        Some(relay::PRODUCE) => {
            let count = args[4].parse().expect("a number");
            return relay::produce(&args[1], &args[2], Source::named(&args[3]), count);
        }
        _ => {}
    }
    let (only, numbers): (Vec<_>, Vec<_>) = args.iter().partition(|arg| *arg == "items");
    let rounds = numbers
        .first()
        .map_or(ROUNDS, |n| n.parse().expect("ROUNDS is a number"));
    let only_items = !only.is_empty();
    // One thread, as the daemons on two cores.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(run(rounds, only_items));
}

async fn run(rounds: usize, only_items: bool) {
    let mut tasks = match only_items {
        true => None,
        false => Some(Tasks::start().await),
    };
    let mut items = Items::start().await;
    let mut figures = Figures::default();
    for round in 0..=rounds {
        // The first warms up.
        let figures = if round == 0 {
            &mut Figures::default()
        } else {
            &mut figures
        };
        if let Some(tasks) = &mut tasks {
            tasks.round(figures).await;
        }
        items.round(figures).await;
        eprintln!("round {round} of {rounds}");
    }
    figures.print();
}

/// What does tasks.
struct Tasks {
    payload: Payload,
    floor: floor::Floor,
    setups: [Setup; 2],
    peers: Vec<redis::Redis>,
}

impl Tasks {
    async fn start() -> Self {
        let mut peers = Vec::new();
        for kind in [redis::Kind::Always, redis::Kind::Memory] {
            match redis::Redis::start(kind).await {
                Ok(peer) => peers.push(peer),
                Err(why) => not_measured(kind.name(), &why),
            }
        }
        Self {
            payload: Payload::bytes("application/json", format!("\"{}\"", "x".repeat(98))),
            floor: floor::Floor::start().await,
            setups: [Setup::start(Kind::Durable).await, Setup::start(Kind::Memory).await],
            peers,
        }
    }

    async fn round(&mut self, figures: &mut Figures) {
        let (floor, payload) = (&self.floor, &self.payload);
        let name = "unary call (tonic, no queue)";
        figures.add(name, floor.load(Load::many(20_000, 256), payload).await);
        figures.add_latency(name, floor.load(Load::one_by_one(1_000), payload).await);
        for setup in &self.setups {
            figures.add(setup.name(), setup.load(Load::many(60_000, 1_024), payload).await);
            figures.add_latency(setup.name(), setup.load(Load::one_by_one(1_000), payload).await);
        }
        for peer in &mut self.peers {
            figures.add(peer.name(), peer.load(200_000, 1_000, payload.data()));
        }
    }
}

/// What does streams.
struct Items {
    setup: Setup,
    streams: items::Streams,
    relay: Relay<v1::Payload>,
    batched: Relay<v1::ItemBatch>,
    peer: Option<redis_streams::Streams>,
}

impl Items {
    async fn start() -> Self {
        let peer = redis_streams::Streams::start().await;
        Self {
            setup: Setup::start(Kind::Durable).await,
            streams: items::Streams::start().await,
            relay: Relay::start().await,
            batched: Relay::start().await,
            peer: peer.map_err(|why| not_measured(redis_streams::NAME, &why)).ok(),
        }
    }

    async fn round(&mut self, figures: &mut Figures) {
        let asynq = self.setup.name();
        figures.add_items("e items/s, counted", asynq, self.setup.items(ITEMS).await);
        let relayed = self.relay.items(Source::Counted, ITEMS).await;
        figures.add_items("e items/s, counted", relay::NAME, relayed);
        for (column, source) in [
            ("f items/s, prebuilt", Source::Prebuilt),
            ("g items/s, one by one", Source::OneByOne),
        ] {
            let (ours, floor) = (
                self.streams.items(source, ITEMS).await,
                self.batched.items(source, ITEMS).await,
            );
            figures.add_items(column, asynq, ours);
            figures.add_items(column, BATCHED, floor);
            figures.add_items(column, "asynq, share of the relay's", ours / floor);
        }
        figures.add_idle(asynq, &self.streams.latency(IDLE_ITEMS).await);
        figures.add_idle(relay::NAME, &items::latency(&self.relay, IDLE_ITEMS).await);
        figures.add_ahead(asynq, self.setup.ahead(READ, WINDOW).await);
        figures.add_ahead(relay::NAME, self.relay.ahead(READ).await);
        if let Some(peer) = &mut self.peer {
            let items = peer.items(ITEMS / 5).await;
            figures.add_items("g items/s, one by one", redis_streams::NAME, items);
        }
    }
}

fn not_measured(name: &str, why: &str) {
    eprintln!("not measured: {name} ({why}; install redis-server)");
}

/// What one load gave.
#[derive(Debug)]
struct Figure {
    per_second: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
}

#[derive(Debug, Default)]
struct Figures {
    rows: BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>,
}

impl Figures {
    fn add(&mut self, row: &'static str, figure: Figure) {
        let row = self.rows.entry(row).or_default();
        row.entry("a tasks/s").or_default().push(figure.per_second);
        row.entry("b CPU µs/task").or_default().push(figure.cpu_us);
    }

    fn add_latency(&mut self, row: &'static str, figure: Figure) {
        let row = self.rows.entry(row).or_default();
        row.entry("c p50 µs, one in flight").or_default().push(figure.p50_us);
        row.entry("d p99 µs, one in flight").or_default().push(figure.p99_us);
    }

    fn add_items(&mut self, column: &'static str, row: &'static str, figure: f64) {
        let row = self.rows.entry(row).or_default();
        row.entry(column).or_default().push(figure);
    }

    fn add_idle(&mut self, row: &'static str, sorted: &[Duration]) {
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        self.add_items("h p50 µs, idle stream", row, at(0.5));
        self.add_items("i p99 µs, idle stream", row, at(0.99));
    }

    fn add_ahead(&mut self, row: &'static str, (items, bytes): (u64, u64)) {
        self.add_items("j items ahead of a stop", row, items as f64);
        self.add_items("k KiB held between", row, bytes as f64 / 1024.0);
    }

    fn print(mut self) {
        println!("{:<30} {:<24} {:>10} {:>10} {:>10}", "", "", "median", "least", "most");
        for (row, columns) in &mut self.rows {
            for (column, values) in columns {
                values.sort_by(f64::total_cmp);
                let (least, most) = (values[0], values[values.len() - 1]);
                let median = values[values.len() / 2];
                println!(
                    "{row:<30} {:<24} {median:>10.2} {least:>10.2} {most:>10.2}",
                    &column[2..]
                );
            }
        }
    }
}
