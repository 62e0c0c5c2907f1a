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

const BAR: &str = "{prefix} {wide_bar} {percent:>3} %, {pos}/{len} {msg}, {speed}";

/// Work of a known size, in progress.
pub(crate) struct Progress {
    name: String,
    unit: &'static str,
    total: u64,
    done: Cell<u64>,
    begun: Instant,
    shown: Shown,
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
            begun,
            shown,
        }
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
    // A template that is wrong fails the test below; the plain style still works.
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.with_key("speed", |state: &ProgressState, out: &mut dyn Write| {
        // A string takes all that is written.
        let _taken = match state.pos() {
            0 => write!(out, "waiting"),
            _ => write!(out, "{:.0}/s, {:.0} s left", state.per_sec(), state.eta().as_secs_f64()),
        };
    }));
    bar.set_prefix(name.to_owned());
    bar.set_message(unit);
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_well_formed() {
        ProgressStyle::with_template(BAR).unwrap();
    }

    #[test]
    fn a_plain_line_says_how_far_how_fast_and_how_long() {
        let mut progress = Progress::new("work".into(), "rows", 200);
        progress.done.set(50);
        progress.begun = Instant::now() - Duration::from_secs(10);
        assert_eq!(progress.line(25), "work: 25 %, 50 of 200 rows, 5 rows/s, 30 s left");
    }
}
