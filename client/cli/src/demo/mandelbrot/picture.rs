//! The file: a PNG that grows row by row and has its name only once it is whole.

use std::{
    fs::{File, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use png::{BitDepth, ColorType, Encoder, EncodingError, SrgbRenderingIntent, StreamWriter};
use tempfile::{Builder, NamedTempFile, TempPath};

use super::view::View;
use crate::failure::Failure;

/// A picture under way. Dropping it leaves no file.
pub(super) struct Picture {
    path: PathBuf,
    /// Where it is until it is whole: in the same folder, so that it can be renamed.
    part: TempPath,
    pixels: StreamWriter<'static, BufWriter<File>>,
}

impl Picture {
    pub(super) fn create(path: &Path, view: &View) -> Result<Self, Failure> {
        // Through links: what is renamed over must be a file, or nothing.
        let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if path.exists() && !path.is_file() {
            let message = format!("{} is there and is no file; name another", path.display());
            return Err(Failure::usage(message));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let part = Builder::new()
            .prefix(".mandelbrot-")
            .suffix(".part")
            // As of any file one makes: the umask takes its part off.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(|error| failed(path, error))?;
        let (file, part) = NamedTempFile::into_parts(part);
        let pixels = begin(file, view).map_err(|error| failed(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            part,
            pixels,
        })
    }

    /// Adds rows below those that are there.
    pub(super) fn append(&mut self, rows: &[u8]) -> Result<(), Failure> {
        self.pixels.write_all(rows).map_err(|error| failed(&self.path, error))
    }

    /// Ends the picture and gives it its name.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Self { path, part, pixels } = self;
        pixels.finish().map_err(|error| failed(&path, error))?;
        part.persist(&path).map_err(|error| failed(&path, error.error))
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

fn failed(path: &Path, error: impl Into<io::Error>) -> Failure {
    // Its kind, because its text may name the part.
    let why = error.into().kind();
    Failure::new(1, "OUTPUT", format!("{} cannot be written: {why}", path.display()))
}
