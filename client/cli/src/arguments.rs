//! The JSON argument of a task: given as such, as `@FILE`, or as `-` for stdin.

use std::{
    fs::File,
    io::{self, Read},
};

use asynq_client::{JSON, Payload};

use crate::{compact::compact, failure::Failure, limits::MAX_JSON_TEXT};

/// Reads it; without one it is `null`.
pub(crate) fn read(argument: Option<&str>) -> Result<Payload, Failure> {
    let (source, text) = match argument {
        None => return Ok(Payload::null()),
        Some("-") => ("stdin", bounded("stdin", io::stdin().lock())?),
        Some(argument) => match argument.strip_prefix('@') {
            Some(path) => {
                let file = File::open(path).map_err(|error| unreadable(path, &error))?;
                (path, bounded(path, file)?)
            }
            None => ("the argument", argument.to_owned()),
        },
    };
    let data = compact(&text).map_err(|error| Failure::usage(format!("{source} is not JSON: {error}")))?;
    Ok(Payload::bytes(JSON, data))
}

fn bounded(source: &str, reader: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = reader
        .take(MAX_JSON_TEXT + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(source, &error))?;
    if read as u64 > MAX_JSON_TEXT {
        return Err(Failure::new(
            2,
            "PAYLOAD_TOO_LARGE",
            format!("{source} is larger than {MAX_JSON_TEXT} bytes; arguments may have 4 MiB (4194304 bytes)"),
        ));
    }
    Ok(text)
}

fn unreadable(source: &str, error: &io::Error) -> Failure {
    Failure::usage(format!("failed to read {source}: {error}"))
}
