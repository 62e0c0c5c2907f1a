//! How far long work is: a bar where somebody looks, plain lines elsewhere. All on stderr.

use std::{
    cell::Cell,
    fmt::Write,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::failure::{note, say};

/// A plain line comes when so much has been done …
const PLAIN_PERCENT: u64 = 10;
/// … but not sooner after the last than this …
const PLAIN_AT_MOST_EVERY: Duration = Duration::from_millis(500);
/// … and in any case after this time.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// A bar is drawn so often while nothing comes, to keep its clock going.
const TICK: Duration = Duration::from_millis(200);

/// Whether it is time to tell of what is counted is asked once in so many.
const COUNT_LOOK: u64 = 64;

const COUNTING_BAR: &str = "{prefix} {wide_bar} {pos}/{len} {msg}";
const BAR: &str = "{prefix} {wide_bar} {percent:>3} %, {pos}/{len} {msg}, {speed}";

/// Work of a known size, in progress.
pub(crate) struct Progress {
    name: String,
    unit: &'static str,
    total: u64,
    done: Cell<u64>,
    /// What is counted beside it, without a known end.
    counted: Option<Counted>,
    begun: Instant,
    shown: Shown,
}

struct Counted {
    unit: &'static str,
    count: Cell<u64>,
    /// When it was last told.
    at: Cell<Instant>,
}

enum Shown {
    Bar(ProgressBar),
    /// What the last line said, and when.
    Lines {
        percent: Cell<u64>,
        at: Cell<Instant>,
    },
}

impl Progress {
    pub(crate) fn new(name: String, unit: &'static str, total: u64) -> Self {
        let begun = Instant::now();
        let shown = match io::stderr().is_terminal() {
            true => Shown::Bar(bar(&name, unit, total)),
            false => Shown::Lines {
                percent: Cell::new(0),
                at: Cell::new(begun),
            },
        };
        Self {
            name,
            unit,
            total,
            done: Cell::new(0),
            counted: None,
            begun,
            shown,
        }
    }

    /// Counts something else, too, in its own unit, and tells how fast that is.
    pub(crate) fn counting(mut self, unit: &'static str) -> Self {
        if let Shown::Bar(bar) = &self.shown {
            // Files end when they end: nothing is said of the time left.
            bar.set_style(style(COUNTING_BAR));
        }
        self.counted = Some(Counted {
            unit,
            count: Cell::new(0),
            at: Cell::new(self.begun),
        });
        self
    }

    /// So many more of what is counted.
    pub(crate) fn count(&self, more: u64) {
        let Some(counted) = &self.counted else { return };
        counted.count.set(counted.count.get() + more);
        let every = match &self.shown {
            Shown::Bar(_) => TICK,
            Shown::Lines { .. } => PLAIN_EVERY,
        };
        // Not even the clock is looked at for each.
        if counted.count.get() % COUNT_LOOK < more && counted.at.get().elapsed() >= every {
            counted.at.set(Instant::now());
            match &self.shown {
                Shown::Bar(bar) => bar.set_message(self.how_fast(counted)),
                Shown::Lines { .. } => note(&self.line(self.done.get() * 100 / self.total)),
            }
        }
    }

    /// `files, 5000 rows, 1000 rows/s`.
    fn how_fast(&self, Counted { unit, count, .. }: &Counted) -> String {
        let rate = count.get() as f64 / self.begun.elapsed().as_secs_f64();
        format!("{}, {} {unit}, {rate:.0} {unit}/s", self.unit, count.get())
    }

    /// One more is done.
    pub(crate) fn step(&self) {
        let done = self.done.get() + 1;
        self.done.set(done);
        let done_percent = done * 100 / self.total;
        match &self.shown {
            Shown::Bar(bar) => bar.inc(1),
            Shown::Lines { percent, at } => {
                let since = at.get().elapsed();
                let far = done_percent >= percent.get() + PLAIN_PERCENT && since >= PLAIN_AT_MOST_EVERY;
                if far || since >= PLAIN_EVERY || done == self.total {
                    percent.set(done_percent);
                    at.set(Instant::now());
                    note(&self.line(done_percent));
                }
            }
        }
    }

    /// Tells something in between.
    pub(crate) fn say(&self, reason: &str, message: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| say(reason, message)),
            Shown::Lines { .. } => say(reason, message),
        }
    }

    /// Takes the bar away; how long it has taken.
    pub(crate) fn finish(&self) -> Duration {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
        self.begun.elapsed()
    }

    fn line(&self, percent: u64) -> String {
        let Self { name, unit, total, .. } = self;
        let done = self.done.get();
        if let Some(counted) = &self.counted {
            return format!("{name}: {done} of {total} {}", self.how_fast(counted));
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = done as f64 / seconds;
        let left = (total - done) as f64 / rate;
        format!("{name}: {percent} %, {done} of {total} {unit}, {rate:.0} {unit}/s, {left:.0} s left")
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar(name: &str, unit: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_style(
        style(BAR).with_key("speed", |state: &ProgressState, out: &mut dyn Write| {
            // A string takes all that is written.
            let _taken = match state.pos() {
                0 => write!(out, "waiting"),
                _ => write!(out, "{:.0}/s, {:.0} s left", state.per_sec(), state.eta().as_secs_f64()),
            };
        }),
    );
    bar.set_prefix(name.to_owned());
    bar.set_message(unit);
    bar.enable_steady_tick(TICK);
    bar
}

fn style(template: &str) -> ProgressStyle {
    // A template that is wrong fails the test below; the plain style still works.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_are_well_formed() {
        ProgressStyle::with_template(BAR).unwrap();
        ProgressStyle::with_template(COUNTING_BAR).unwrap();
    }

    #[test]
    fn what_is_counted_is_told_with_its_rate() {
        let mut progress = Progress::new("work".into(), "files", 4).counting("rows");
        progress.done.set(1);
        progress.count(5000);
        progress.begun = Instant::now() - Duration::from_secs(10);
        assert_eq!(progress.line(25), "work: 1 of 4 files, 5000 rows, 500 rows/s");
    }

    #[test]
    fn a_plain_line_says_how_far_how_fast_and_how_long() {
        let mut progress = Progress::new("work".into(), "rows", 200);
        progress.done.set(50);
        progress.begun = Instant::now() - Duration::from_secs(10);
        assert_eq!(progress.line(25), "work: 25 %, 50 of 200 rows, 5 rows/s, 30 s left");
    }
}
