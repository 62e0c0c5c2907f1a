//! What is kept of the rows while they pass: counts, and nothing that grows with them.

use jiff::Timestamp;

use super::{
    forms::{FORMS, Form, MAX_CLASSES},
    histogram::Histogram,
    row::Row,
    top::Top,
};

/// What there is to say of one file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: String,
    /// The format of its first row that has one.
    pub(super) format: Option<String>,
    pub(super) rows: u64,
    pub(super) unparsed: u64,
    /// Rows whose line was too long.
    pub(super) cut: u64,
    /// The earliest and the latest time.
    pub(super) span: Option<(Timestamp, Timestamp)>,
    /// In a word, why it could not be read to its end, and in a sentence.
    pub(super) failed: Option<(String, String)>,
}

impl File {
    pub(super) fn new(path: String) -> Self {
        Self {
            path,
            format: None,
            rows: 0,
            unparsed: 0,
            cut: 0,
            span: None,
            failed: None,
        }
    }

    pub(super) fn add(&mut self, row: &Row) {
        self.rows += 1;
        self.unparsed += u64::from(row.format.is_none());
        self.cut += u64::from(row.cut);
        if self.format.is_none() {
            self.format.clone_from(&row.format);
        }
        if let Some(time) = row.time {
            let (first, last) = self.span.unwrap_or((time, time));
            self.span = Some((first.min(time), last.max(time)));
        }
    }
}

/// What there is to say of all rows of one format.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rows: u64,
    pub(super) times: Histogram,
    /// Rows of each class.
    pub(super) classes: [u64; MAX_CLASSES],
    /// As many as its form has.
    pub(super) tops: Vec<Top>,
}

/// One for each of the [`FORMS`].
#[derive(Debug, Default)]
pub(super) struct Tallies([Tally; FORMS.len()]);

impl Tallies {
    pub(super) fn add(&mut self, row: &Row) {
        // A format that this version does not know is counted with its file.
        let Some(at) = row.format.as_deref().and_then(Form::index) else {
            return;
        };
        let (form, tally) = (&FORMS[at], &mut self.0[at]);
        let class = form.class(row);
        tally.rows += 1;
        tally.classes[class] += 1;
        if let Some(time) = row.time {
            tally.times.add(time.as_second(), class);
        }
        tally.tops.resize_with(form.tops.len(), Top::default);
        for ((_, pick), top) in form.tops.iter().zip(&mut tally.tops) {
            if let Some(value) = pick(row) {
                top.add(&value);
            }
        }
    }

    /// Those of which there are rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Form, &Tally)> {
        FORMS.iter().zip(&self.0).filter(|(_, tally)| tally.rows > 0)
    }
}
