//! How far long work is: a bar where somebody looks, plain lines elsewhere. All on stderr.

use std::{
    cell::Cell,
    fmt::Write,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::{
    failure::{note, say},
    terminal::{self, Terminal},
};

/// A plain line comes when so much has been done …
const PLAIN_PERCENT: u64 = 10;
/// … but not sooner after the last than this …
const PLAIN_AT_MOST_EVERY: Duration = Duration::from_millis(500);
/// … and in any case after this time.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// A bar is drawn so often while nothing comes, to keep its clock going.
const TICK: Duration = Duration::from_millis(200);

/// How often a second a bar is drawn at most.
const DRAWN_PER_SECOND: u8 = 20;

/// The words take what they need, the bar what is left.
const BAR: &str = "{before}{wide_bar}{after}";
/// Columns below which a bar tells nothing; then there are fewer words.
const LEAST_BAR: usize = 10;

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
    let target = ProgressDrawTarget::term_like_with_hz(Box::<Terminal>::default(), DRAWN_PER_SECOND);
    let bar = ProgressBar::with_draw_target(Some(total), target);
    // A template that is wrong fails the test below; the plain style still works.
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    let key = |pick: fn((String, String)) -> String| {
        let name = name.to_owned();
        move |state: &ProgressState, out: &mut dyn Write| {
            let words = Words::of(&name, unit, state).fitting(terminal::size().0.into());
            // A string takes all that is written.
            let _taken = out.write_str(&pick(words));
        }
    };
    let style = style.with_key("before", key(|(before, _)| before));
    bar.set_style(style.with_key("after", key(|(_, after)| after)));
    bar.enable_steady_tick(TICK);
    bar
}

/// What stands beside a bar.
struct Words {
    name: String,
    percent: String,
    count: String,
    speed: String,
    left: String,
}

impl Words {
    fn of(name: &str, unit: &str, state: &ProgressState) -> Self {
        let (done, total) = (state.pos(), state.len().unwrap_or_default());
        let begun = done > 0;
        Self {
            name: format!("{name} "),
            percent: format!(" {:>3} %", done * 100 / total.max(1)),
            count: format!(", {done}/{total} {unit}"),
            speed: match begun {
                true => format!(", {:.0}/s", state.per_sec()),
                false => String::new(),
            },
            left: match begun {
                true => format!(", {:.0} s left", state.eta().as_secs_f64()),
                false => ", waiting".to_owned(),
            },
        }
    }

    /// As many words before and after the bar as a terminal has room for.
    fn fitting(&self, columns: usize) -> (String, String) {
        let Self {
            name,
            percent,
            count,
            speed,
            left,
        } = self;
        let choices = [
            (name.as_str(), format!("{percent}{count}{speed}{left}")),
            ("", format!("{percent}{count}{speed}{left}")),
            ("", format!("{percent}{speed}{left}")),
            ("", format!("{percent}{left}")),
            ("", percent.clone()),
        ];
        let fits = |&(before, ref after): &(&str, String)| {
            let words = before.chars().count() + after.chars().count();
            words + LEAST_BAR <= columns
        };
        let chosen = choices.into_iter().find(fits);
        chosen.map_or_else(Default::default, |(before, after)| (before.to_owned(), after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_well_formed() {
        ProgressStyle::with_template(BAR).unwrap();
    }

    #[test]
    fn the_words_leave_room_for_the_bar() {
        let words = Words {
            name: "mandelbrot ".into(),
            percent: "  45 %".into(),
            count: ", 1234/2742 rows".into(),
            speed: ", 310/s".into(),
            left: ", 5 s left".into(),
        };
        for columns in 0..200 {
            let (before, after) = words.fitting(columns);
            let used = before.chars().count() + after.chars().count();
            assert!(used == 0 || used + LEAST_BAR <= columns, "{columns}: {before}…{after}");
        }
        let after = |columns| words.fitting(columns).1;
        assert_eq!(words.fitting(80), ("mandelbrot ".into(), after(79)));
        assert_eq!(after(79), "  45 %, 1234/2742 rows, 310/s, 5 s left");
        assert_eq!(words.fitting(50).0, "");
        assert_eq!(
            (after(40).as_str(), after(27).as_str()),
            ("  45 %, 310/s, 5 s left", "  45 %, 5 s left")
        );
        assert_eq!((after(16).as_str(), after(15).as_str()), ("  45 %", ""));
    }

    #[test]
    fn a_plain_line_says_how_far_how_fast_and_how_long() {
        let mut progress = Progress::new("work".into(), "rows", 200);
        progress.done.set(50);
        progress.begun = Instant::now() - Duration::from_secs(10);
        assert_eq!(progress.line(25), "work: 25 %, 50 of 200 rows, 5 rows/s, 30 s left");
    }
}
