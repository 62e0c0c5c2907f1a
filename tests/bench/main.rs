//! `make bench`: a first look at speed. Real processes on loopback, 100-byte
//! arguments, no-op tasks whose results the caller awaits, and a stream of
//! 100-byte items, yielded one by one; beside them the same without a queue, on
//! plain tonic. Every round measures every row once, so that a machine that
//! drifts drifts for all; medians and ranges are printed.
//!
//! `cargo bench -p asynq-tests -- [ROUNDS]`

mod cpu;
mod floor;
mod load;
mod redis;
mod relay;
mod setup;

use std::collections::BTreeMap;

use asynq_proto::Payload;
use load::Load;
use mimalloc::MiMalloc;
use setup::{Kind, Setup};

/// As the daemons, for asynq's side and for all it is measured against.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Rounds, unless the command says otherwise.
const ROUNDS: usize = 7;
/// Items that a reader reads before it stops for good …
const READ: u64 = 10;
/// … and how many it lets the worker be ahead, where it has a say.
const WINDOW: u32 = 100;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.first().map(String::as_str) {
        Some(floor::SERVE) => return floor::serve(),
        Some(redis::WORK) => return redis::work(&args[1]),
        Some(relay::SERVE) => return relay::serve(),
        Some(relay::PRODUCE) => return relay::produce(&args[1], args[2].parse().expect("a number")),
        _ => {}
    }
    let rounds = args.first().map_or(ROUNDS, |n| n.parse().expect("ROUNDS is a number"));
    // One thread, as the daemons on two cores.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(run(rounds));
}

async fn run(rounds: usize) {
    let payload = Payload::bytes("application/json", format!("\"{}\"", "x".repeat(98)));
    let floor = floor::Floor::start().await;
    let relay = relay::Relay::start().await;
    let durable = Setup::start(Kind::Durable).await;
    let memory = Setup::start(Kind::Memory).await;
    let mut peers = Vec::new();
    for kind in [redis::Kind::Always, redis::Kind::Memory] {
        match redis::Redis::start(kind).await {
            Ok(peer) => peers.push(peer),
            Err(why) => eprintln!("not measured: {} ({why}; install redis-server)", kind.name()),
        }
    }
    let mut figures = Figures::default();
    for round in 0..=rounds {
        // The first warms up.
        let figures = if round == 0 {
            &mut Figures::default()
        } else {
            &mut figures
        };
        let name = "unary call (tonic, no queue)";
        figures.add(name, floor.load(Load::many(20_000, 256), &payload).await);
        figures.add_latency(name, floor.load(Load::one_by_one(1_000), &payload).await);
        for setup in [&durable, &memory] {
            figures.add(setup.name(), setup.load(Load::many(60_000, 1_024), &payload).await);
            figures.add_latency(setup.name(), setup.load(Load::one_by_one(1_000), &payload).await);
        }
        for peer in &mut peers {
            figures.add(peer.name(), peer.load(200_000, 1_000, payload.data()));
        }
        figures.add_items(durable.name(), durable.items(1_000_000).await);
        figures.add_items(relay::NAME, relay.items(1_000_000).await);
        figures.add_ahead(durable.name(), durable.ahead(READ, WINDOW).await);
        figures.add_ahead(relay::NAME, relay.ahead(READ).await);
        eprintln!("round {round} of {rounds}");
    }
    figures.print();
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

    fn add_items(&mut self, row: &'static str, per_second: f64) {
        let row = self.rows.entry(row).or_default();
        row.entry("e items/s, one stream").or_default().push(per_second);
    }

    fn add_ahead(&mut self, row: &'static str, items: u64) {
        let row = self.rows.entry(row).or_default();
        row.entry("f items ahead of a stop").or_default().push(items as f64);
    }

    fn print(mut self) {
        println!("{:<30} {:<24} {:>10} {:>10} {:>10}", "", "", "median", "least", "most");
        for (row, columns) in &mut self.rows {
            for (column, values) in columns {
                values.sort_by(f64::total_cmp);
                let (least, most) = (values[0], values[values.len() - 1]);
                let median = values[values.len() / 2];
                println!(
                    "{row:<30} {:<24} {median:>10.1} {least:>10.1} {most:>10.1}",
                    &column[2..]
                );
            }
        }
    }
}
