//! What a check found, and how that is told.

use serde::Serialize;

use crate::{cli::Format, failure::Failure, output};

const SKIPPED: &str = "skipped";

/// The outcome of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All is well.
    Ok(String),
    /// It works, and somebody should look at it.
    Warn(Finding),
    /// It does not work.
    Fail(Finding),
    /// Something before it failed.
    Skipped,
}

/// What is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    found: String,
    advice: String,
}

impl Verdict {
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self::Ok(found.into())
    }

    pub(super) fn warn(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Warn(Finding {
            found: found.into(),
            advice: advice.into(),
        })
    }

    pub(super) fn fail(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Fail(Finding {
            found: found.into(),
            advice: advice.into(),
        })
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Ok(_) => "ok",
            Self::Warn(_) => "warn",
            Self::Fail(_) => "fail",
            Self::Skipped => SKIPPED,
        }
    }

    fn row(self, check: &'static str) -> Row {
        let verdict = self.word();
        let (found, advice) = match self {
            Self::Ok(found) => (found, None),
            Self::Warn(finding) | Self::Fail(finding) => (finding.found, Some(finding.advice)),
            Self::Skipped => ("it needs what failed".to_owned(), None),
        };
        Row {
            check,
            verdict,
            found,
            advice,
        }
    }
}

/// A check as it is printed. The names are stable.
#[derive(Debug, Serialize)]
struct Row {
    check: &'static str,
    verdict: &'static str,
    found: String,
    advice: Option<String>,
}

impl Row {
    fn line(&self) -> String {
        let word = match self.verdict {
            "fail" => "FAIL",
            word => word,
        };
        let advice = self.advice.as_ref().map(|advice| format!("; {advice}"));
        format!(
            "{word:<4}  {:<10}  {}{}",
            self.check,
            self.found,
            advice.unwrap_or_default()
        )
    }
}

/// All checks so far.
pub(super) struct Report {
    format: Format,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Whole {
    ok: bool,
    checks: Vec<Row>,
}

impl Report {
    pub(super) const fn new(format: Format) -> Self {
        Self {
            format,
            rows: Vec::new(),
        }
    }

    /// For people each line is printed when it is known: the next may take seconds.
    pub(super) fn add(&mut self, check: &'static str, verdict: Verdict) -> Result<(), Failure> {
        let row = verdict.row(check);
        if self.format == Format::Text && row.verdict != SKIPPED {
            output::line(&row.line())?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// For people those that are skipped share a line.
    pub(super) fn skip(&mut self, checks: &[&'static str]) -> Result<(), Failure> {
        checks.iter().try_for_each(|check| self.add(check, Verdict::Skipped))
    }

    /// Prints what is left, and fails if a check has.
    pub(super) fn end(self) -> Result<(), Failure> {
        let skipped = self.rows.iter().filter(|row| row.verdict == SKIPPED);
        let skipped: Vec<_> = skipped.map(|row| row.check).collect();
        if self.format == Format::Text && !skipped.is_empty() {
            output::line(&format!(
                "-     not checked, for it needs what failed: {}",
                skipped.join(", ")
            ))?;
        }
        let ok = !self.rows.iter().any(|row| row.verdict == "fail");
        if self.format == Format::Json {
            output::json(&Whole { ok, checks: self.rows })?;
        }
        if ok { Ok(()) } else { Err(Failure::silent(1)) }
    }
}
