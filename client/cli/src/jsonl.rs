//! JSON Lines from a file or stdin, one argument each, read as they are asked for.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use asynq_client::{Error, JSON, Payload};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    compact::compact,
    failure::Failure,
    limits::{LINES_READ_AHEAD, MAX_JSON_TEXT},
};

/// The lines, up to the first one that is none.
pub(crate) struct JsonLines {
    pub(crate) lines: ReceiverStream<Payload>,
    /// What is wrong with the line after the last one, if anything.
    pub(crate) problem: oneshot::Receiver<Failure>,
}

/// Opens a file, or stdin for `-`.
pub(crate) fn open(source: &str) -> Result<JsonLines, Failure> {
    let reader: Box<dyn BufRead + Send> = match source {
        "-" => Box::new(BufReader::new(io::stdin())),
        path => Box::new(BufReader::new(
            File::open(path).map_err(|error| unreadable(path, &error))?,
        )),
    };
    let name = if source == "-" { "stdin" } else { source }.to_owned();
    let (sender, lines) = mpsc::channel(LINES_READ_AHEAD);
    let (trouble, problem) = oneshot::channel();
    // Reading may block for as long as the other end of a pipe likes.
    spawn_blocking(move || {
        if let Err(failure) = read(&name, reader, &sender) {
            // Said before the lines end, which happens when the sender is dropped.
            let _nobody_asks = trouble.send(failure);
        }
    });
    Ok(JsonLines {
        lines: ReceiverStream::new(lines),
        problem,
    })
}

fn read(name: &str, mut reader: impl BufRead, lines: &mpsc::Sender<Payload>) -> Result<(), Failure> {
    for number in 1_u64.. {
        let mut text = Vec::new();
        let mut line = reader.by_ref().take(MAX_JSON_TEXT + 1);
        let read = line
            .read_until(b'\n', &mut text)
            .map_err(|error| unreadable(name, &error))?;
        if read == 0 {
            break;
        }
        let payload = parse(text).map_err(|failure| failure.at(&format!("line {number} of {name}")))?;
        if lines.blocking_send(payload).is_err() {
            break; // Enough was read.
        }
    }
    Ok(())
}

fn parse(text: Vec<u8>) -> Result<Payload, Failure> {
    if text.len() as u64 > MAX_JSON_TEXT {
        let message = format!("longer than {MAX_JSON_TEXT} bytes; arguments may have 4 MiB (4194304 bytes)");
        return Err(Failure::new(2, "PAYLOAD_TOO_LARGE", message));
    }
    let text = String::from_utf8(text).map_err(|_| Failure::usage("not UTF-8"))?;
    let data = compact(&text).map_err(|error| Failure::usage(format!("not JSON: {error}")))?;
    let payload = Payload::bytes(JSON, data).checked();
    payload.map_err(|error| Error::from(error).into())
}

fn unreadable(source: &str, error: &io::Error) -> Failure {
    Failure::usage(format!("failed to read {source}: {error}"))
}
