//! What a file holds: text as it is, or compressed by gzip, or something else.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::limits::{SCAN_READ_BYTES, TEXT_CHECK_BYTES};

/// The first bytes of a file compressed by gzip, whatever its name.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The text of a file, decompressed where need be. Files that were compressed
/// one by one and put together are one text.
pub(super) fn of(file: File) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(SCAN_READ_BYTES, file);
    Ok(match file.fill_buf()?.starts_with(&GZIP) {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    })
}

/// Whether what begins so is no text. Bytes that are not UTF-8 are no sign of
/// that in a log, a NUL is.
pub(super) fn is_binary(head: &[u8]) -> bool {
    head[..head.len().min(TEXT_CHECK_BYTES)].contains(&0)
}
