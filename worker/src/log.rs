//! Log lines on standard error. A line that a run writes says whose it is; that
//! is put in words only when there is a line, not for each run: a span costs a
//! run that does nothing half again its processor time.

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};

use asynq_worker::Context;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// Starts logging, filtered by `RUST_LOG`.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => logs
            .with_ansi(io::stderr().is_terminal())
            .map_event_format(|lines| OfRuns {
                // Said to the lines themselves, too: they are written into memory first.
                lines: lines.with_ansi(io::stderr().is_terminal()),
                add: in_text,
            })
            .init(),
        LogFormat::Json => logs
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .map_event_format(|lines| OfRuns { lines, add: in_json })
            .init(),
    }
}

/// Lines, with the run that writes them.
struct OfRuns<L> {
    lines: L,
    add: fn(&mut String, &Context) -> fmt::Result,
}

impl<S, N, L> FormatEvent<S, N> for OfRuns<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    L: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(run) = Context::current() else {
            return self.lines.format_event(ctx, writer, event);
        };
        let mut line = String::new();
        self.lines.format_event(ctx, Writer::new(&mut line), event)?;
        line.truncate(line.trim_end().len());
        (self.add)(&mut line, &run)?;
        writeln!(writer, "{line}")
    }
}

fn in_text(line: &mut String, run: &Context) -> fmt::Result {
    let (id, name, token) = (run.task_id(), run.name(), run.token());
    write!(
        line,
        " task={id} task_name={name} attempt={} epoch={}",
        token.attempt, token.epoch
    )
}

/// As the last member of the object. A name holds nothing that JSON would escape.
fn in_json(line: &mut String, run: &Context) -> fmt::Result {
    let (id, name, token) = (run.task_id(), run.name(), run.token());
    if line.pop() != Some('}') {
        return Err(fmt::Error);
    }
    write!(
        line,
        r#","spans":[{{"name":"run","task":"{id}","task_name":"{name}","attempt":{},"epoch":{}}}]}}"#,
        token.attempt, token.epoch
    )
}
