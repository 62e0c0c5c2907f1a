//! Rows over time as a small plot of characters, as wide as the terminal.

use std::io::stdout;

use super::{
    plot::ticks::ticks,
    tally::Tallies,
    timeline::{Timeline, scale, short},
};

/// Lines of bars.
const HEIGHT: usize = 8;
/// Columns for the numbers at the left.
const GUTTER: usize = 8;
/// Where nothing is known of the terminal, or none is there.
const USUAL_WIDTH: usize = 80;
/// Wider bars say no more.
const MAX_WIDTH: usize = 160;
const MIN_WIDTH: usize = 24;

/// Eighths of a character, from the bottom.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How wide the terminal is.
pub(super) fn width() -> usize {
    let asked = rustix::termios::tcgetwinsize(stdout()).map_or(0, |size| usize::from(size.ws_col));
    let width = if asked == 0 { USUAL_WIDTH } else { asked };
    width.clamp(MIN_WIDTH, MAX_WIDTH)
}

/// The plot; nothing if no row has a time. All formats are one here.
pub(super) fn plot(tallies: &Tallies, width: usize) -> String {
    let room = width - GUTTER - 1;
    let Some(timeline) = Timeline::of(tallies, room) else {
        return String::new();
    };
    let sum = |bar: usize| {
        timeline
            .panels
            .iter()
            .map(|panel| panel.bars[bar].iter().sum::<u64>())
            .sum::<u64>()
    };
    let bars: Vec<_> = (0..timeline.bars).map(sum).collect();
    // A bar is as many columns as fit for all.
    let columns = room / bars.len();
    let (highest, _) = scale(bars.iter().copied().max().unwrap_or(0), 4);
    let eighths = |rows: u64| (rows as f64 / highest as f64 * (8 * HEIGHT) as f64).ceil() as usize;
    let mut text = format!("\nrows in each {}\n", timeline.step.name());
    for line in (0..HEIGHT).rev() {
        let label = match line {
            line if line == HEIGHT - 1 => short(highest),
            line if line == HEIGHT / 2 - 1 && highest.is_multiple_of(2) => short(highest / 2),
            _ => String::new(),
        };
        let mut row = format!("{label:>width$} │", width = GUTTER - 2);
        for rows in &bars {
            let eighth = EIGHTHS[eighths(*rows).saturating_sub(8 * line).min(8)];
            row.extend(std::iter::repeat_n(eighth, columns));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text.push_str(&format!(
        "{:>width$} └{}\n",
        0,
        "─".repeat(columns * bars.len()),
        width = GUTTER - 2
    ));
    for line in axis(&timeline, columns * bars.len()) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The lines below the bars: times, and the days or years they are of.
fn axis(timeline: &Timeline, columns: usize) -> [String; 2] {
    let (start, end) = (timeline.start, timeline.end());
    let mut lines = [String::new(), String::new()];
    // The widest label below is `22 Nov 2026`.
    for tick in ticks(start, end, (columns / 14).max(1)) {
        let at = GUTTER + ((tick.at - start) as f64 / (end - start) as f64 * columns as f64) as usize;
        for (line, label) in lines.iter_mut().zip([Some(&tick.label), tick.below.as_ref()]) {
            let Some(label) = label else { continue };
            let at = at.min((GUTTER + columns).saturating_sub(label.len()));
            if at > line.len() || line.is_empty() {
                line.push_str(&" ".repeat(at.saturating_sub(line.len())));
                line.push_str(label);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::logs::row::Row;

    fn tallies(seconds: i64) -> Tallies {
        let mut tallies = Tallies::default();
        for i in 0..500 {
            tallies.add(&Row {
                format: Some("syslog".to_owned()),
                time: jiff::Timestamp::from_second(1_795_000_000 + seconds * i * i / 250_000).ok(),
                ..Row::default()
            });
        }
        tallies
    }

    #[test]
    fn the_plot_fits_every_width() {
        for seconds in [0, 7, 100, 3_000, 90_000, 50_000_000] {
            for width in [MIN_WIDTH, 40, 79, 80, MAX_WIDTH] {
                let text = plot(&tallies(seconds), width);
                assert!(
                    text.lines().all(|line| line.chars().count() <= width),
                    "{width} {seconds}\n{text}"
                );
                assert_eq!(text.lines().count(), HEIGHT + 5, "{text}");
                assert!(text.contains('█'), "{text}");
                // Ends with the times.
                assert!(
                    text.lines()
                        .nth(HEIGHT + 3)
                        .is_some_and(|times| !times.trim().is_empty())
                        || width == MIN_WIDTH,
                    "{text}"
                );
            }
        }
        assert_eq!(plot(&Tallies::default(), 80), "");
    }
}
