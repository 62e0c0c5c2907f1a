//! The order of dispatch: the bounds of semantics §4 as stated, and the
//! scenarios that broke simpler rules. One worker with one slot shows the order:
//! each completion is followed by the next choice.

use std::collections::BTreeMap;

use asynq_core::{Niceness, Placement, StateName, TaskId, Verdict};
use proptest::prelude::*;

use crate::shard::{Shard, Spec, spec};

/// A shard whose runs are completed one by one; remembers whose turn it was.
struct Line {
    shard: Shard,
    series: BTreeMap<TaskId, String>,
    log: Vec<String>,
}

impl Line {
    fn new() -> Self {
        let mut shard = Shard::new();
        // Each check walks the whole backlog: once at the end will do.
        shard.check_each_step = false;
        Self {
            shard,
            series: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    fn add(&mut self, spec: &Spec, count: usize) {
        for _ in 0..count {
            let id = self.shard.enqueue(spec);
            self.series.insert(id, spec.series.clone());
        }
    }

    /// The next `count` tasks that worker `n` gets.
    fn serve(&mut self, n: u8, count: usize) {
        for id in self.shard.turns(n, count) {
            self.log.push(self.series[&id].clone());
        }
    }

    fn served(&self, series: &str, from: usize) -> usize {
        self.log[from..].iter().filter(|s| *s == series).count()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.shard.core.check();
        }
        self.shard.drain();
    }
}

fn cost(n: i32) -> i64 {
    Niceness::new(n).expect("in range").cost() as i64
}

/// The largest |cost dispatched to a − cost dispatched to b| over any interval.
fn worst_gap(log: &[String], (a, na): (&str, i32), (b, nb): (&str, i32)) -> i64 {
    let (mut sum, mut low, mut high) = (0, 0, 0);
    for served in log {
        sum += if served == a {
            cost(na)
        } else if served == b {
            -cost(nb)
        } else {
            0
        };
        (low, high) = (low.min(sum), high.max(sum));
    }
    high - low
}

#[test]
fn costs_are_asynqueues_weights() {
    assert_eq!([-20, 0, 10, 20].map(cost), [100, 500, 1000, 1700]);
}

#[test]
fn niceness_0_gets_twice_what_niceness_10_gets() {
    let mut line = Line::new();
    line.add(&spec("t").series("a"), 700);
    line.add(&spec("t").series("b").niceness(10), 700);
    line.shard.connect(1, 1, &["t"]);
    line.serve(1, 900);
    assert!((599..=601).contains(&line.served("a", 0)), "{}", line.served("a", 0));
    assert!(worst_gap(&line.log, ("a", 0), ("b", 10)) <= cost(0) + cost(10));
}

#[test]
fn the_same_holds_between_nicenesses_of_one_series() {
    let mut line = Line::new();
    let mut ids = BTreeMap::new();
    for n in [0, 10] {
        for _ in 0..400 {
            ids.insert(line.shard.enqueue(&spec("t").niceness(n)), n);
        }
    }
    line.shard.connect(1, 1, &["t"]);
    let nice = line.shard.turns(1, 300).iter().filter(|id| ids[id] == 0).count();
    assert!((199..=201).contains(&nice), "{nice}");
}

#[test]
fn queues_share_like_series() {
    let mut line = Line::new();
    for (queue, count) in [("bulk", 600), ("web", 300)] {
        let mut one = spec("t").series(queue);
        one.queue = queue;
        line.add(&one, count);
    }
    line.shard.connect(1, 1, &["t"]);
    line.serve(1, 400);
    assert!(
        (199..=201).contains(&line.served("web", 0)),
        "{}",
        line.served("web", 0)
    );
}

/// Start-time tags starve an old series when every call opens a new one.
#[test]
fn five_callers_that_open_a_series_with_each_call_do_not_starve_an_old_one() {
    let mut line = Line::new();
    line.add(&spec("t").series("old"), 800);
    for n in 0..5 {
        line.add(&spec("t").series(format!("new{n}")), 1);
    }
    line.shard.connect(1, 1, &["t"]);
    // One of the five is always in the worker's slot: four and the old one wait.
    for n in 5..1505 {
        line.serve(1, 1);
        if line.log.last().is_some_and(|served| served != "old") {
            line.add(&spec("t").series(format!("new{n}")), 1);
        }
    }
    let old = line.served("old", 0);
    assert!((290..=310).contains(&old), "a fifth of 1500 is 300, got {old}");
}

/// A series that nobody could run for a long time does not catch up at the
/// others' expense.
#[test]
fn a_series_that_was_unrunnable_for_10_000_dispatches_does_not_take_over() {
    let mut line = Line::new();
    line.add(&spec("rare").series("x"), 1_000);
    line.add(&spec("common").series("y"), 12_000);
    line.shard.connect(1, 1, &["common"]);
    line.serve(1, 10_000);
    assert_eq!(line.served("x", 0), 0);
    line.shard.apply(asynq_core::Event::Draining(crate::shard::session(1)));
    line.serve(1, 1);
    line.shard.connect(2, 1, &["rare", "common"]);
    let from = line.log.len();
    line.serve(2, 1_000);
    let x = line.served("x", from);
    assert!((499..=501).contains(&x), "half of 1000 is 500, got {x}");
}

/// The same where the worker that can run it joins beside a busy one.
#[test]
fn nor_when_its_worker_joins_beside_a_busy_one() {
    let mut line = Line::new();
    line.add(&spec("rare").series("x"), 2_000);
    line.add(&spec("common").series("y"), 12_000);
    line.shard.connect(1, 1, &["common"]);
    line.serve(1, 5_000);
    // Both slots of the new worker are its own class: x and y share it.
    line.shard.connect(2, 1, &["rare", "common"]);
    let mut mine = Vec::new();
    let mut busy = None;
    for _ in 0..2_000 {
        for effect in line.shard.drain() {
            if let asynq_core::Effect::Assign(run) = effect {
                if run.session == crate::shard::session(2) {
                    mine.push(run.token);
                } else {
                    busy = Some(run.token);
                }
            }
        }
        line.shard.complete(2, *mine.last().expect("it has work"));
    }
    let x = mine.iter().filter(|token| line.series[&token.task] == "x").count();
    assert!(
        (mine.len() / 2 - 5..=mine.len() / 2 + 5).contains(&x),
        "{x} of {}",
        mine.len()
    );
    assert!(busy.is_none() || line.log.len() == 5_000);
}

#[test]
fn a_late_third_series_is_served_within_its_waiting_bound() {
    let mut line = Line::new();
    line.add(&spec("t").series("a"), 3_000);
    line.add(&spec("t").series("b").niceness(10), 3_000);
    line.shard.connect(1, 1, &["t"]);
    line.serve(1, 2_000);
    let from = line.log.len();
    line.add(&spec("t").series("late"), 8);
    // The one assigned already was chosen before it came.
    line.serve(1, 1);
    let from = from + 1;
    for k in 1..=8_i64 {
        while line.served("late", from) < k as usize {
            line.serve(1, 1);
        }
        for (other, c) in [("a", cost(0)), ("b", cost(10))] {
            let waited = line.served(other, from) as i64;
            assert!(waited <= k * cost(0) / c + 1, "task {k} waited for {waited} of {other}");
        }
    }
}

/// A slow pool beside a busy one: the series of the slow pool still share 2:1.
#[test]
fn two_pools_one_busy_one_slow() {
    let mut line = Line::new();
    line.add(&spec("r").series("a"), 700);
    line.add(&spec("r").series("b").niceness(10), 700);
    line.add(&spec("x").series("x"), 5_000);
    line.shard.connect(1, 1, &["r"]);
    line.shard.connect(2, 1, &["x"]);
    let (mut slow, mut busy) = (Vec::new(), Vec::new());
    for turn in 0..600_usize {
        for _ in 0..=turn % 7 {
            collect(&mut line, &mut slow, &mut busy);
            line.shard.complete(2, *busy.last().expect("busy"));
        }
        collect(&mut line, &mut slow, &mut busy);
        line.shard.complete(1, *slow.last().expect("slow"));
    }
    let log: Vec<String> = slow.iter().map(|token| line.series[&token.task].clone()).collect();
    assert!(worst_gap(&log, ("a", 0), ("b", 10)) <= cost(0) + cost(10));
    let a = log.iter().filter(|s| *s == "a").count();
    assert!((399..=401).contains(&a), "{a} of 600");
}

fn collect(line: &mut Line, slow: &mut Vec<asynq_core::LeaseToken>, busy: &mut Vec<asynq_core::LeaseToken>) {
    for effect in line.shard.drain() {
        if let asynq_core::Effect::Assign(run) = effect {
            if run.session == crate::shard::session(1) {
                slow.push(run.token);
            } else {
                busy.push(run.token);
            }
        }
    }
}

/// Two workers: one can run everything, one only `r`. A series that the second
/// has served for long is not overtaken by a new one when the first, long busy
/// with something slow, takes over: its virtual time has not kept up.
#[test]
fn a_class_long_busy_does_not_starve_those_served_meanwhile() {
    for second_goes_on in [false, true] {
        let mut line = Line::new();
        let mut pools = Pools::new(&mut line, &[&["r", "slow"], &["r"]]);
        line.add(&spec("slow").series("slow"), 1);
        pools.collect(&mut line);
        line.add(&spec("r").series("i"), 8_000);
        for _ in 0..3_000 {
            pools.turn(&mut line, 2);
        }
        line.add(&spec("r").series("j"), 4_000);
        // The slow task ends; what the second worker holds was chosen before.
        pools.turn(&mut line, 1);
        let from = line.log.len();
        for _ in 0..600 {
            pools.turn(&mut line, 1);
            if second_goes_on {
                pools.turn(&mut line, 2);
            }
        }
        let log = &line.log[from..];
        assert!(
            worst_gap(log, ("i", 0), ("j", 0)) <= 2 * cost(0) + 2 * cost(0),
            "both slots count: {second_goes_on}"
        );
    }
}

/// Workers with one slot each, completed one at a time.
struct Pools {
    runs: BTreeMap<u8, asynq_core::LeaseToken>,
}

impl Pools {
    fn new(line: &mut Line, workers: &[&[&str]]) -> Self {
        for (n, names) in (1..).zip(workers) {
            line.shard.connect(n, 1, names);
        }
        Self { runs: BTreeMap::new() }
    }

    /// Takes note of new runs, in the order they were granted.
    fn collect(&mut self, line: &mut Line) {
        for effect in line.shard.drain() {
            if let asynq_core::Effect::Assign(run) = effect {
                line.log.push(line.series[&run.token.task].clone());
                self.runs.insert(run.session.0[0], run.token);
            }
        }
    }

    /// Worker `n` completes what it has, and gets the next.
    fn turn(&mut self, line: &mut Line, n: u8) {
        self.collect(line);
        if let Some(token) = self.runs.remove(&n) {
            line.shard.complete(n, token);
        }
        self.collect(line);
    }
}

#[test]
fn next_comes_before_all_and_last_after_all() {
    let mut line = Line::new();
    line.add(&spec("t").series("last").with(|o| o.placement = Placement::Last), 2);
    line.add(&spec("t").series("fair").niceness(-20), 2);
    line.add(
        &spec("t")
            .series("next")
            .niceness(20)
            .with(|o| o.placement = Placement::Next),
        1,
    );
    line.add(&spec("t").series("next2").with(|o| o.placement = Placement::Next), 1);
    line.shard.connect(1, 1, &["t"]);
    line.serve(1, 6);
    assert_eq!(line.log, ["next", "next2", "fair", "fair", "last", "last"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The k-th task of a series of constant cost c waits for at most
    /// ⌊k·c/c_j⌋ + 1 tasks of each other series, later arrivals included.
    #[test]
    fn waiting_bound(
        nice in proptest::collection::vec(-20..=20_i32, 2..8),
        before in proptest::collection::vec((0_usize..8, 1_usize..40), 1..10),
        during in proptest::collection::vec((0_usize..8, 1_usize..8), 0..60),
        warmup in 0_usize..80,
    ) {
        let others = &nice[1..];
        let series = |j: usize| spec("t").series(format!("s{}", j % others.len())).niceness(others[j % others.len()]);
        let mut line = Line::new();
        for (j, count) in before {
            line.add(&series(j), count);
        }
        line.shard.connect(1, 1, &["t"]);
        line.serve(1, warmup);
        line.add(&spec("t").series("mine").niceness(nice[0]), 12);
        // What has been granted already was chosen before.
        line.serve(1, 1);
        let from = line.log.len() - usize::from(line.log.last().is_some_and(|s| s == "mine"));
        let mut arrivals = during.into_iter();
        for k in 1..=12_i64 {
            while line.served("mine", from) < k as usize {
                if let Some((j, count)) = arrivals.next() {
                    line.add(&series(j), count);
                }
                line.serve(1, 1);
            }
            for (j, &n) in others.iter().enumerate() {
                let waited = line.served(&format!("s{j}"), from) as i64;
                prop_assert!(waited <= k * cost(nice[0]) / cost(n) + 1, "task {} waited for {} of s{}", k, waited, j);
            }
        }
    }

    /// Two backlogged series never differ by more than the sum of their costs,
    /// over any interval, whatever a third does.
    #[test]
    fn fairness_bound(
        na in -20..=20_i32,
        nb in -20..=20_i32,
        third in proptest::collection::vec((0_usize..5, -20..=20_i32), 200),
    ) {
        let mut line = Line::new();
        line.add(&spec("t").series("c"), 20);
        line.add(&spec("t").series("a").niceness(na), 500);
        line.add(&spec("t").series("b").niceness(nb), 500);
        line.shard.connect(1, 1, &["t"]);
        for (chance, n) in third {
            line.serve(1, 2);
            if chance == 0 {
                line.add(&spec("t").series("c").niceness(n), 2);
            }
        }
        let gap = worst_gap(&line.log, ("a", na), ("b", nb));
        prop_assert!(gap <= cost(na) + cost(nb), "{} > {} + {}", gap, cost(na), cost(nb));
    }

    /// The fairness bound with two kinds of workers, busy and idle in turns, for
    /// two series that both may run at all times; counted in dispatches, to
    /// whichever worker.
    #[test]
    fn fairness_bound_with_two_kinds_of_workers(
        na in -20..=20_i32,
        nb in -20..=20_i32,
        before in 0_usize..200,
        turns in proptest::collection::vec((1_u8..=2, 1_usize..30), 1..30),
    ) {
        let mut line = Line::new();
        let mut pools = Pools::new(&mut line, &[&["r", "slow"], &["r"]]);
        line.add(&spec("slow").series("slow"), 1);
        pools.collect(&mut line);
        line.add(&spec("r").series("a").niceness(na), 1_500);
        for _ in 0..before {
            pools.turn(&mut line, 2);
        }
        line.add(&spec("r").series("b").niceness(nb), 1_500);
        let from = line.log.len();
        for (worker, count) in turns {
            for _ in 0..count {
                pools.turn(&mut line, worker);
            }
        }
        let gap = worst_gap(&line.log[from..], ("a", na), ("b", nb));
        prop_assert!(gap <= cost(na) + cost(nb), "{} > {} + {}", gap, cost(na), cost(nb));
    }

    /// First in, first out per (series, niceness, route), also for those that
    /// come back.
    #[test]
    fn fifo_per_series_niceness_and_route(
        tasks in proptest::collection::vec((0_u8..3, -1..=1_i32, 0_usize..2), 1..80),
        release in proptest::collection::vec(any::<bool>(), 80),
    ) {
        const ROUTES: [&str; 2] = ["t", "u"];
        let mut shard = Shard::new();
        let mut lanes = BTreeMap::new();
        for (series, niceness, route) in tasks {
            let id = shard.enqueue(&spec(ROUTES[route]).series(series.to_string()).niceness(niceness));
            lanes.insert(id, (series, niceness, route));
        }
        shard.connect(1, 1, &ROUTES);
        let mut last: BTreeMap<_, TaskId> = BTreeMap::new();
        let mut release = release.into_iter();
        while shard.core.workers()[0].busy > 0 {
            let run = shard.drain().into_iter().find_map(|effect| match effect {
                asynq_core::Effect::Assign(run) => Some(run.token),
                _ => None,
            }).expect("a run");
            if release.next() == Some(true) {
                shard.release(1, run);
                continue;
            }
            prop_assert_eq!(shard.complete(1, run), Verdict::Accepted(StateName::Succeeded));
            if let Some(before) = last.insert(lanes[&run.task], run.task) {
                prop_assert!(before < run.task, "{} overtook {}", run.task, before);
            }
        }
        shard.drain();
        prop_assert_eq!(shard.core.queues(shard.now)[0].counts[&StateName::Ready], 0);
    }
}
