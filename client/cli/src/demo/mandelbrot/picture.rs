//! The file: a PNG that grows row by row.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use png::{BitDepth, ColorType, Encoder, EncodingError, SrgbRenderingIntent, StreamWriter};

use super::view::View;
use crate::{demo::part::Part, failure::Failure};

/// A picture under way. Dropping it leaves no file.
pub(super) struct Picture {
    part: Part,
    pixels: StreamWriter<'static, BufWriter<File>>,
}

impl Picture {
    pub(super) fn create(path: &Path, view: &View) -> Result<Self, Failure> {
        let (part, file) = Part::create(path)?;
        let pixels = begin(file, view).map_err(|error| part.failed(error))?;
        Ok(Self { part, pixels })
    }

    /// Adds rows below those that are there.
    pub(super) fn append(&mut self, rows: &[u8]) -> Result<(), Failure> {
        self.pixels.write_all(rows).map_err(|error| self.part.failed(error))
    }

    /// Ends the picture and gives it its name.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Self { part, pixels } = self;
        pixels.finish().map_err(|error| part.failed(error))?;
        part.finish()
    }
}

fn begin(file: File, view: &View) -> Result<StreamWriter<'static, BufWriter<File>>, EncodingError> {
    let mut encoder = Encoder::new(BufWriter::new(file), view.width, view.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_source_srgb(SrgbRenderingIntent::Perceptual);
    encoder.add_text_chunk("Software".into(), "asynq".into())?;
    encoder.write_header()?.into_stream_writer()
}
