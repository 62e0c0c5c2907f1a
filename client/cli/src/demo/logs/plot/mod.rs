//! The picture of rows over time: laid out once, written as SVG or painted as PNG.

mod font;
mod layout;
mod png;
mod shape;
mod svg;
pub(super) mod ticks;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use self::font::Font;
use super::timeline::Timeline;
use crate::{demo::part::Part, failure::Failure};

/// The most bars side by side: some pixels each.
pub(super) const BARS: usize = 120;

/// A picture that is to be. Dropping it leaves no file.
pub(super) struct Plot {
    path: PathBuf,
    kind: Kind,
    part: Part,
    file: BufWriter<File>,
    font: Font,
}

#[derive(Clone, Copy)]
enum Kind {
    Svg,
    Png,
}

impl Plot {
    /// Begins the file, whose name says how it is written.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let kind = match path.extension().and_then(|ending| ending.to_str()) {
            Some(ending) if ending.eq_ignore_ascii_case("svg") => Kind::Svg,
            Some(ending) if ending.eq_ignore_ascii_case("png") => Kind::Png,
            _ => {
                let message = format!("{} must end in .svg or .png, which says what is drawn", path.display());
                return Err(Failure::usage(message));
            }
        };
        let font = Font::load().map_err(|error| Failure::new(1, "OUTPUT", format!("the font is damaged: {error}")))?;
        let (part, file) = Part::create(path)?;
        Ok(Self {
            path: path.to_owned(),
            kind,
            part,
            file: BufWriter::new(file),
            font,
        })
    }

    /// Draws the rows that have a time, of all there were, and gives the file its name.
    pub(super) fn draw(self, timeline: Option<&Timeline>, rows: u64) -> Result<String, Failure> {
        let Self {
            path,
            kind,
            part,
            mut file,
            font,
        } = self;
        let picture = layout::picture(timeline, rows, &font);
        let written = match kind {
            Kind::Svg => svg::write(&picture, &font, &mut file),
            Kind::Png => png::write(&picture, &font, &mut file),
        };
        written
            .and_then(|()| file.flush())
            .map_err(|error| part.failed(error))?;
        part.finish()?;
        Ok(path.display().to_string())
    }
}
