//! Where everything stands: a title, below it for each format its name, legend,
//! axis and stacked bars, and one axis of time at the bottom.

use super::{
    font::Font,
    shape::{Anchor, Colour, Picture, Shape},
    ticks::{span, ticks},
};
use crate::demo::logs::timeline::{Panel, Timeline, scale, short};

const WIDTH: f32 = 1200.0;
const HEIGHT: f32 = 600.0;
/// Room for the numbers to the left of bars, and beside them.
const LEFT: f32 = 70.0;
const RIGHT: f32 = 28.0;
/// Where the first panel begins, and where the last one's bars end.
const TOP: f32 = 86.0;
const BOTTOM: f32 = 540.0;
/// Between two panels.
const GAP: f32 = 22.0;
/// The line above bars, with name and legend.
const HEAD: f32 = 30.0;

const GROUND: Colour = 0xffffff;
const INK: Colour = 0x1f2328;
const FAINT: Colour = 0x59636e;
const GRID: Colour = 0xe4e7eb;
const AXIS: Colour = 0x8c959f;

const TITLE: f32 = 24.0;
const NAME: f32 = 17.0;
const SMALL: f32 = 15.0;

/// Marks of the axis of time: each label has this much room, in pixels.
const TICK_ROOM: f32 = 140.0;
/// Marks of the other axis are at least so far apart, in pixels.
const MARK_ROOM: f32 = 34.0;
/// The square of a legend, and the room around it.
const SQUARE: f32 = 12.0;

/// The picture of a timeline.
pub(super) fn picture(timeline: Option<&Timeline>, rows: u64, font: &Font) -> Picture {
    let mut page = Page {
        font,
        shapes: Vec::new(),
    };
    let title = match rows {
        1 => "1 log row over time".to_owned(),
        rows => format!("{} log rows over time", thousands(rows)),
    };
    page.text((LEFT, 40.0), Anchor::Start, TITLE, INK, &title);
    match timeline {
        Some(timeline) => page.panels(timeline),
        None => page.text(
            (WIDTH / 2.0, HEIGHT / 2.0),
            Anchor::Middle,
            NAME,
            FAINT,
            "no row has a time",
        ),
    }
    Picture {
        width: WIDTH as u32,
        height: HEIGHT as u32,
        ground: GROUND,
        title,
        shapes: page.shapes,
    }
}

/// A picture in the making.
struct Page<'a> {
    font: &'a Font,
    shapes: Vec<Shape>,
}

impl Page<'_> {
    fn panels(&mut self, timeline: &Timeline) {
        let step = timeline.step;
        let what = format!(
            "rows in each {}, {}",
            step.name(),
            span(timeline.start, timeline.end(), step)
        );
        self.text((LEFT, 65.0), Anchor::Start, SMALL, FAINT, &what);
        let count = timeline.panels.len() as f32;
        let height = (BOTTOM - TOP - GAP * (count - 1.0)) / count;
        for (n, panel) in timeline.panels.iter().enumerate() {
            let top = TOP + n as f32 * (height + GAP);
            self.panel(panel, top, top + height);
        }
        self.time_axis(timeline);
    }

    fn panel(&mut self, panel: &Panel, top: f32, bottom: f32) {
        self.text((LEFT, top + 14.0), Anchor::Start, NAME, INK, panel.form.title);
        self.legend(panel, top + 14.0);
        let top = top + HEAD;
        let largest = panel.bars.iter().map(|bar| bar.iter().sum()).max().unwrap_or(0);
        let marks = (((bottom - top) / MARK_ROOM) as u64).clamp(1, 6);
        let (highest, apart) = scale(largest, marks);
        let y = |n: u64| bottom - (bottom - top) * (n as f64 / highest as f64) as f32;
        for mark in (apart..=highest).step_by(usize::try_from(apart).unwrap_or(usize::MAX)) {
            self.rect((LEFT, WIDTH - RIGHT), (y(mark) - 0.5, y(mark) + 0.5), GRID);
            self.text((LEFT - 9.0, y(mark) + 5.0), Anchor::End, SMALL, FAINT, &short(mark));
        }
        self.text((LEFT - 9.0, bottom + 5.0), Anchor::End, SMALL, FAINT, "0");
        let width = (WIDTH - RIGHT - LEFT) / panel.bars.len() as f32;
        // Bars stand apart where there is room.
        let gap = if width >= 5.0 {
            (width * 0.14).clamp(1.0, 6.0)
        } else {
            0.0
        };
        for (n, bar) in panel.bars.iter().enumerate() {
            let left = LEFT + n as f32 * width;
            let mut below = 0;
            for (class, rows) in bar.iter().enumerate().filter(|(_, rows)| **rows > 0) {
                let colour = panel.form.classes[class].1;
                self.rect(
                    (left + gap / 2.0, left + width - gap / 2.0),
                    (y(below + rows), y(below)),
                    colour,
                );
                below += rows;
            }
        }
        self.rect((LEFT, WIDTH - RIGHT), (bottom - 0.5, bottom + 0.5), AXIS);
    }

    /// Squares and words at the right, as many as there are classes with rows.
    fn legend(&mut self, panel: &Panel, y: f32) {
        let mut right = WIDTH - RIGHT;
        let classes = panel.form.classes.iter().zip(panel.classes);
        for ((label, colour), rows) in classes.rev().filter(|(_, rows)| *rows > 0) {
            let text = format!("{label} {}", short(rows));
            self.text((right, y), Anchor::End, SMALL, FAINT, &text);
            let left = right - self.font.width(&text, SMALL) - SQUARE - 8.0;
            self.rect((left, left + SQUARE), (y - SQUARE + 1.0, y + 1.0), *colour);
            right = left - 18.0;
        }
    }

    fn time_axis(&mut self, timeline: &Timeline) {
        let (start, end) = (timeline.start, timeline.end());
        let most = ((WIDTH - RIGHT - LEFT) / TICK_ROOM) as usize;
        for tick in ticks(start, end, most) {
            let part = (tick.at - start) as f64 / (end - start) as f64;
            let x = LEFT + (WIDTH - RIGHT - LEFT) * part as f32;
            self.rect((x - 0.5, x + 0.5), (BOTTOM, BOTTOM + 6.0), AXIS);
            self.text((x, BOTTOM + 23.0), Anchor::Middle, SMALL, INK, &tick.label);
            if let Some(below) = &tick.below {
                self.text((x, BOTTOM + 43.0), Anchor::Middle, SMALL, FAINT, below);
            }
        }
    }

    fn rect(&mut self, (left, right): (f32, f32), (top, bottom): (f32, f32), colour: Colour) {
        self.shapes.push(Shape::Rect {
            x: left,
            y: top,
            width: right - left,
            height: bottom - top,
            colour,
        });
    }

    /// A text, moved where it would leave the picture.
    fn text(&mut self, (x, y): (f32, f32), anchor: Anchor, size: f32, colour: Colour, text: &str) {
        let width = self.font.width(text, size);
        let x = match anchor {
            Anchor::Start => x.min(WIDTH - 4.0 - width),
            Anchor::Middle => x.clamp(4.0 + width / 2.0, WIDTH - 4.0 - width / 2.0),
            Anchor::End => x.max(4.0 + width),
        };
        self.shapes.push(Shape::Text {
            x,
            y,
            anchor,
            size,
            colour,
            text: text.to_owned(),
        });
    }
}

/// `1,234,567`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::logs::{row::Row, tally::Tallies};

    /// Rows of so many formats over so many seconds.
    fn tallies(formats: usize, seconds: i64) -> Tallies {
        let mut tallies = Tallies::default();
        for (n, format) in ["access", "nginx-error", "dpkg", "syslog"]
            .into_iter()
            .take(formats)
            .enumerate()
        {
            for i in 0..2_000 {
                let mut row = Row {
                    format: Some(format.to_owned()),
                    time: jiff::Timestamp::from_second(1_795_000_000 + seconds * i / 2000).ok(),
                    level: ["info", "warning", "error", "crit"]
                        .get(i as usize % 5)
                        .map(|level| (*level).to_owned()),
                    ..Row::default()
                };
                row.fields.status = Some(200 + 100 * (i as u64 % 4) + n as u64);
                row.fields.action = ["install", "upgrade", "status", "remove", "configure"]
                    .get(i as usize % 6)
                    .map(|action| (*action).to_owned());
                tallies.add(&row);
            }
        }
        tallies
    }

    /// Left, right, top and bottom of a text.
    fn bounds(font: &Font, shape: &Shape) -> Option<(f32, f32, f32, f32)> {
        let Shape::Text {
            x,
            y,
            anchor,
            size,
            text,
            ..
        } = shape
        else {
            return None;
        };
        let width = font.width(text, *size);
        let left = match anchor {
            Anchor::Start => *x,
            Anchor::Middle => x - width / 2.0,
            Anchor::End => x - width,
        };
        Some((left, left + width, y - 0.75 * size, y + 0.25 * size))
    }

    #[test]
    fn no_text_is_cut_off_or_overlaps_another() {
        let font = Font::load().unwrap();
        for formats in 1..=4 {
            for seconds in [0, 40, 3_000, 90_000, 3_000_000, 50_000_000, 2_000_000_000] {
                let tallies = tallies(formats, seconds);
                let timeline = Timeline::of(&tallies, super::super::BARS).unwrap();
                assert!((12..=120).contains(&timeline.bars), "{seconds}: {} bars", timeline.bars);
                let picture = picture(Some(&timeline), 123_456_789, &font);
                let texts: Vec<_> = picture
                    .shapes
                    .iter()
                    .filter_map(|shape| bounds(&font, shape).map(|bounds| (bounds, shape)))
                    .collect();
                for (n, ((left, right, top, bottom), text)) in texts.iter().enumerate() {
                    assert!(
                        *left >= 0.0 && *right <= WIDTH && *top >= 0.0 && *bottom <= HEIGHT,
                        "{text:?} is cut off"
                    );
                    for ((l, r, t, b), other) in &texts[..n] {
                        let apart = right < l || r < left || bottom < t || b < top;
                        assert!(apart, "{formats} {seconds}: {text:?} is over {other:?}");
                    }
                }
                let inside = |shape: &Shape| match shape {
                    Shape::Rect {
                        x, y, width, height, ..
                    } => {
                        *x >= 0.0
                            && *y >= 0.0
                            && *width > 0.0
                            && *height > 0.0
                            && x + width <= WIDTH
                            && y + height <= HEIGHT
                    }
                    Shape::Text { .. } => true,
                };
                assert!(picture.shapes.iter().all(inside));
            }
        }
    }

    #[test]
    fn a_bar_is_as_high_as_its_rows_are_many() {
        let font = Font::load().unwrap();
        let tallies = tallies(1, 0);
        let timeline = Timeline::of(&tallies, super::super::BARS).unwrap();
        let picture = picture(Some(&timeline), 2_000, &font);
        let height: f32 = picture
            .shapes
            .iter()
            .filter_map(|shape| match shape {
                Shape::Rect { x, height, colour, .. } if *x < LEFT + 10.0 && ![GRID, AXIS].contains(colour) => {
                    Some(*height)
                }
                _ => None,
            })
            .sum();
        assert!((height - (BOTTOM - TOP - HEAD)).abs() < 0.1, "{height}");
        assert_eq!(picture.title, "2,000 log rows over time");
    }

    #[test]
    fn rows_without_a_time_are_no_reason_to_fail() {
        let font = Font::load().unwrap();
        let picture = picture(None, 0, &font);
        assert!(
            picture
                .shapes
                .iter()
                .any(|shape| matches!(shape, Shape::Text { text, .. } if text == "no row has a time"))
        );
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
