//! What a file holds: text as it is, or compressed by gzip, or something else.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;

use crate::limits::{GZIP_RATIO_FROM, MAX_GZIP_RATIO, SCAN_READ_BYTES, TEXT_CHECK_BYTES};

/// The first bytes of a file compressed by gzip, whatever its name.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The text of a file, decompressed where need be. Files that were compressed
/// one by one and put together are one text.
pub(super) fn of(file: File) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(SCAN_READ_BYTES, Counted { file, read: 0 });
    Ok(match file.fill_buf()?.starts_with(&GZIP) {
        true => Box::new(Gunzip {
            decoder: MultiGzDecoder::new(file),
            given: 0,
        }),
        false => Box::new(file),
    })
}

/// Compressed text, that may not be much more than its file.
struct Gunzip {
    decoder: MultiGzDecoder<BufReader<Counted>>,
    given: u64,
}

impl Read for Gunzip {
    /// Fails with [`ErrorKind::FileTooLarge`] if it is.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(into)?;
        self.given += read as u64;
        let compressed = self.decoder.get_ref().get_ref().read;
        if self.given > GZIP_RATIO_FROM && self.given / MAX_GZIP_RATIO > compressed {
            return Err(ErrorKind::FileTooLarge.into());
        }
        Ok(read)
    }
}

/// Counts what is read.
struct Counted {
    file: File,
    read: u64,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// Whether what begins so is no text. Bytes that are not UTF-8 are no sign of
/// that in a log, a NUL is.
pub(super) fn is_binary(head: &[u8]) -> bool {
    head[..head.len().min(TEXT_CHECK_BYTES)].contains(&0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// `bytes` of a text that says the same again and again, compressed.
    fn read_all(bytes: u64, line: &[u8]) -> io::Result<u64> {
        let mut file = tempfile::tempfile().unwrap();
        let mut encoder = GzEncoder::new(&mut file, Compression::best());
        (0..bytes / line.len() as u64).for_each(|_| encoder.write_all(line).unwrap());
        encoder.finish().unwrap();
        io::Seek::rewind(&mut file).unwrap();
        io::copy(&mut of(file).unwrap(), &mut io::sink())
    }

    #[test]
    fn a_file_that_is_mostly_air_is_given_up() {
        let line = [b'\n'; 4096];
        let error = read_all(4 * GZIP_RATIO_FROM, &line).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert_eq!(read_all(GZIP_RATIO_FROM, &line).unwrap(), GZIP_RATIO_FROM);
    }
}
