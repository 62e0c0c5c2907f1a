//! What lines of output mean: items, and the last word of a program that yields some.

use asynq_proto::limits::MAX_CHECKPOINT_BYTES;
use asynq_worker::{Context, OnLoss, Payload, TaskError, Yield};
use futures_util::Stream;
use futures_util::future::{Either, ready};
use futures_util::stream;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Exec;
use super::failure::bad_output;
use super::program::Program;
use super::stdout::{Lines, too_long};
use crate::kinds::limits::MAX_OUTPUT_BYTES;

/// How a program writes its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Each line is one, a JSON string.
    Lines,
    /// Each line says what it is. With checkpoints, if the task is one that goes on
    /// from them.
    Jsonl { checkpoints: bool },
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Item(String),
    Result(String),
    /// It can begin again behind the items so far.
    Checkpoint(String),
}

/// A line of `stdout = "jsonl"`.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    #[serde(borrow)]
    Item(&'a RawValue),
    #[serde(borrow)]
    Result(&'a RawValue),
    #[serde(borrow)]
    Checkpoint(&'a RawValue),
    Progress(IgnoredAny),
}

impl Format {
    /// Reads a line; `None` if it says nothing.
    fn read(self, number: u64, line: &[u8]) -> Result<Option<Said>, TaskError> {
        let said = match self {
            Self::Lines => {
                let json = serde_json::to_string(&String::from_utf8_lossy(line));
                Said::Item(json.map_err(|error| bad_output(error.to_string()))?)
            }
            Self::Jsonl { .. } if line.trim_ascii().is_empty() => return Ok(None),
            Self::Jsonl { checkpoints } => match serde_json::from_slice(line) {
                Ok(Line::Item(item)) => Said::Item(item.get().into()),
                Ok(Line::Result(result)) => Said::Result(result.get().into()),
                Ok(Line::Checkpoint(token)) if checkpoints => Said::Checkpoint(token.get().into()),
                Ok(Line::Checkpoint(_)) => {
                    return Err(bad_output(format!(
                        "line {number} of stdout is {{\"checkpoint\":…}}, which is for on_loss = \"checkpoint\""
                    )));
                }
                Ok(Line::Progress(_)) => {
                    return Err(bad_output(format!(
                        "line {number} of stdout is {{\"progress\":…}}, which is not supported yet, only \"item\", \
                         \"checkpoint\" and \"result\""
                    )));
                }
                Err(error) => {
                    return Err(bad_output(format!(
                        "line {number} of stdout is none of {{\"item\":…}}, {{\"checkpoint\":…}} and {{\"result\":…}}: {error}"
                    )));
                }
            },
        };
        match &said {
            Said::Item(value) | Said::Result(value) if value.len() > MAX_OUTPUT_BYTES => Err(too_long(number)),
            Said::Checkpoint(token) if token.len() > MAX_CHECKPOINT_BYTES => Err(bad_output(format!(
                "line {number} of stdout is a checkpoint of {} bytes, at most {MAX_CHECKPOINT_BYTES} are allowed",
                token.len()
            ))),
            _ => Ok(Some(said)),
        }
    }
}

/// A program that yields items.
struct Generator {
    program: Program,
    lines: Lines,
    format: Format,
    /// An item has come before: of this run, or of one before it.
    has_items: bool,
    /// The number of the line that had the result.
    result: Option<u64>,
}

impl Generator {
    fn start(exec: &Exec, format: Format, context: &Context, payload: &Payload) -> Result<Self, TaskError> {
        let (program, stdout) = Program::start(exec, context, payload)?;
        Ok(Self {
            program,
            lines: Lines::of(stdout),
            format,
            has_items: exec.definition.on_loss == OnLoss::Checkpoint && context.start_index() > 0,
            result: None,
        })
    }

    /// The next thing it says; at the end of its output `None`.
    async fn next(&mut self) -> Result<Option<Said>, TaskError> {
        loop {
            let Some((number, line)) = self.lines.next().await? else {
                return Ok(None);
            };
            let Some(said) = self.format.read(number, line)? else {
                continue;
            };
            if let Some(result) = self.result {
                return Err(bad_output(format!(
                    "line {number} of stdout comes after the result in line {result}, which is the last word"
                )));
            }
            match &said {
                Said::Item(_) => self.has_items = true,
                Said::Result(_) => self.result = Some(number),
                Said::Checkpoint(_) if self.has_items => {}
                Said::Checkpoint(_) => {
                    return Err(bad_output(format!(
                        "line {number} of stdout is a checkpoint before the first item: one stands behind the items \
                         before it"
                    )));
                }
            }
            return Ok(Some(said));
        }
    }

    async fn next_yield(mut self) -> Result<Option<(Yield<Payload>, Self)>, TaskError> {
        loop {
            match self.next().await? {
                Some(Said::Item(item)) => return Ok(Some((Yield::item(json(item)), self))),
                Some(Said::Checkpoint(token)) => return Ok(Some((Yield::checkpoint_bytes(token), self))),
                Some(Said::Result(_)) => {} // for those who call
                None => return self.program.end().await.map(|_| None),
            }
        }
    }
}

/// The items, for who iterates the task.
pub(super) fn iterate(
    exec: &Exec,
    format: Format,
    context: &Context,
    payload: &Payload,
) -> impl Stream<Item = Result<Yield<Payload>, TaskError>> + Send + use<> {
    match Generator::start(exec, format, context, payload) {
        Ok(generator) => Either::Left(stream::try_unfold(generator, Generator::next_yield)),
        Err(error) => Either::Right(stream::once(ready(Err(error)))),
    }
}

/// The result, for who calls the task: the program's own, or all items as an array.
pub(super) async fn call(
    exec: &Exec,
    format: Format,
    context: &Context,
    payload: &Payload,
) -> Result<Payload, TaskError> {
    let mut generator = Generator::start(exec, format, context, payload)?;
    let mut items = String::from("[");
    let mut result = None;
    while let Some(said) = generator.next().await? {
        match said {
            Said::Item(item) => {
                items.extend([if items.len() > 1 { "," } else { "" }, &item]);
                // And the bracket to come.
                if items.len() >= MAX_OUTPUT_BYTES {
                    return Err(TaskError::terminal(format!(
                        "the items make a result of more than {MAX_OUTPUT_BYTES} bytes; \
                         iterate the task instead, which has no such limit"
                    )));
                }
            }
            Said::Result(value) => result = Some(value),
            Said::Checkpoint(_) => {} // for those who iterate
        }
    }
    generator.program.end().await?;
    items.push(']');
    Ok(json(result.unwrap_or(items)))
}

fn json(value: String) -> Payload {
    Payload::bytes(asynq_proto::JSON, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_strings() {
        for (line, item) in [
            (&b"plain"[..], r#""plain""#),
            (b"", r#""""#),
            (b"\"a\"\t\\", r#""\"a\"\t\\""#),
            (b"caf\xe9 \xff", "\"caf\u{fffd} \u{fffd}\""),
            (b"dos\r", r#""dos\r""#),
        ] {
            assert_eq!(Format::Lines.read(1, line), Ok(Some(Said::Item(item.into()))));
        }
        let error = Format::Lines.read(7, &[b'"'; MAX_OUTPUT_BYTES / 2]).unwrap_err();
        assert!(error.message.starts_with("line 7 "), "{}", error.message);
    }

    #[test]
    fn lines_of_json_say_what_they_are() {
        let [read, plain] =
            [true, false].map(|checkpoints| move |line: &str| Format::Jsonl { checkpoints }.read(3, line.as_bytes()));
        assert_eq!(
            read(r#"{"item": {"a" : 1.50} }"#),
            Ok(Some(Said::Item(r#"{"a" : 1.50}"#.into())))
        );
        assert_eq!(read(r#" {"result":null}"#), Ok(Some(Said::Result("null".into()))));
        let token = r#"{"row": 1.50}"#;
        assert_eq!(
            read(&format!(r#"{{"checkpoint":{token}}}"#)),
            Ok(Some(Said::Checkpoint(token.into())))
        );
        let long = |bytes: usize| format!("{{\"checkpoint\":\"{}\"}}", "x".repeat(bytes - 2));
        assert!(matches!(
            read(&long(MAX_CHECKPOINT_BYTES)),
            Ok(Some(Said::Checkpoint(_)))
        ));
        assert_eq!(read(" \t\r"), Ok(None));
        for (line, said) in [
            ("{\"item\":", "EOF"),
            ("plain", "none of"),
            ("7", "none of"),
            ("\"item\"", "none of"),
            (r#"{"itme":1}"#, "unknown variant `itme`"),
            (r#"{"item":1,"result":2}"#, "none of"),
            ("{}", "none of"),
            (r#"{"progress":0.5}"#, "{\"progress\":…}, which is not supported yet"),
            (r#"{"checkpoint":"#, "EOF"),
            (r#"{"item":1,"checkpoint":2}"#, "none of"),
            (
                &long(MAX_CHECKPOINT_BYTES + 1),
                "a checkpoint of 65537 bytes, at most 65536",
            ),
            (r#"{"checkpoint":"x"}"#, "which is for on_loss = \"checkpoint\""),
        ] {
            let is_plain = said.starts_with("which is for");
            let error = if is_plain { plain(line) } else { read(line) }.unwrap_err();
            assert!(
                error.message.starts_with("line 3 of stdout") && error.message.contains(said),
                "{}",
                error.message
            );
            assert_eq!((error.kind.as_str(), error.retryable), ("bad_output", false));
        }
    }
}
