//! How far long work is: a bar where somebody looks, plain lines elsewhere. All on stderr.

use std::{
    cell::Cell,
    fmt::Write,
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
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

/// Whether it is time to tell of what is counted is asked once in so many.
const COUNT_LOOK: u64 = 64;

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
    /// What is counted beside it, without a known end.
    counted: Option<Counted>,
    begun: Instant,
    shown: Shown,
}

struct Counted {
    unit: &'static str,
    /// A bar reads it when it is drawn.
    count: Arc<AtomicU64>,
    /// When it was last told in a line.
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
            true => Shown::Bar(bar(total)),
            false => Shown::Lines {
                percent: Cell::new(0),
                at: Cell::new(begun),
            },
        };
        let progress = Self {
            name,
            unit,
            total,
            done: Cell::new(0),
            counted: None,
            begun,
            shown,
        };
        progress.word(move |name, state| Words::of(name, unit, state));
        progress
    }

    /// Counts something else, too, in its own unit, and tells how fast that is.
    pub(crate) fn counting(mut self, unit: &'static str) -> Self {
        let (of, count) = (self.unit, Arc::<AtomicU64>::default());
        let counted = Arc::clone(&count);
        self.word(move |name, state| Words::counting(name, of, state, unit, counted.load(Ordering::Relaxed)));
        self.counted = Some(Counted {
            unit,
            count,
            at: Cell::new(self.begun),
        });
        self
    }

    /// So many more of what is counted.
    pub(crate) fn count(&self, more: u64) {
        let Some(counted) = &self.counted else { return };
        let count = counted.count.fetch_add(more, Ordering::Relaxed) + more;
        // Not even the clock is looked at for each.
        if let Shown::Lines { .. } = &self.shown
            && count % COUNT_LOOK < more
            && counted.at.get().elapsed() >= PLAIN_EVERY
        {
            counted.at.set(Instant::now());
            note(&self.line(self.done.get() * 100 / self.total));
        }
    }

    /// What stands beside the bar, if there is one.
    fn word(&self, words: impl Fn(&str, &ProgressState) -> Words + Clone + Send + Sync + 'static) {
        let Shown::Bar(bar) = &self.shown else { return };
        // A template that is wrong fails the test below; the plain style still works.
        let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        let key = |pick: fn((String, String)) -> String| {
            let (name, words) = (self.name.clone(), words.clone());
            move |state: &ProgressState, out: &mut dyn Write| {
                let words = words(&name, state).fitting(terminal::size().0.into());
                // A string takes all that is written.
                let _taken = out.write_str(&pick(words));
            }
        };
        let style = style.with_key("before", key(|(before, _)| before));
        bar.set_style(style.with_key("after", key(|(_, after)| after)));
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
        if let Some(Counted { unit: what, count, .. }) = &self.counted {
            let count = count.load(Ordering::Relaxed);
            let rate = count as f64 / seconds;
            return format!("{name}: {done} of {total} {unit}, {count} {what}, {rate:.0} {what}/s");
        }
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

fn bar(total: u64) -> ProgressBar {
    let target = ProgressDrawTarget::term_like_with_hz(Box::<Terminal>::default(), DRAWN_PER_SECOND);
    let bar = ProgressBar::with_draw_target(Some(total), target);
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

    /// The same where the end is known of one thing and the speed of another.
    fn counting(name: &str, unit: &str, state: &ProgressState, what: &str, count: u64) -> Self {
        let (done, total) = (state.pos(), state.len().unwrap_or_default());
        let rate = count as f64 / state.elapsed().as_secs_f64();
        Self {
            name: format!("{name} "),
            percent: format!(" {done}/{total} {unit}"),
            count: format!(", {count} {what}"),
            speed: format!(", {rate:.0} {what}/s"),
            // Files end when they end.
            left: String::new(),
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
    fn what_is_counted_is_told_with_its_rate() {
        let mut progress = Progress::new("work".into(), "files", 4).counting("rows");
        progress.done.set(1);
        progress.count(5000);
        progress.begun = Instant::now() - Duration::from_secs(10);
        assert_eq!(progress.line(25), "work: 1 of 4 files, 5000 rows, 500 rows/s");
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
