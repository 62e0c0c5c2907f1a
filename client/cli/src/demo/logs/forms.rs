//! What there is to know of each format of a log: the classes its bars are
//! stacked of, and what of it is worth counting.

use std::borrow::Cow;

use super::row::Row;

/// The most classes a format has.
pub(super) const MAX_CLASSES: usize = 7;

/// Rows of one sort, in a colour that people who see few colours can tell from
/// its neighbours (after Okabe and Ito).
pub(super) type Class = (&'static str, u32);

/// A value of a row that is worth counting; `None` if the row has none.
type Pick = fn(&Row) -> Option<Cow<'_, str>>;

/// A format.
pub(super) struct Form {
    /// As workers call it.
    pub(super) name: &'static str,
    /// What the plot of it says.
    pub(super) title: &'static str,
    /// From the bottom of a bar to its top.
    pub(super) classes: &'static [Class],
    class: fn(&Row) -> usize,
    /// The values whose most frequent are told.
    pub(super) tops: &'static [(&'static str, Pick)],
}

impl Form {
    /// Which of the classes a row belongs to.
    pub(super) fn class(&self, row: &Row) -> usize {
        (self.class)(row).min(self.classes.len() - 1)
    }

    /// Where the format of this name stands in [`FORMS`].
    pub(super) fn index(name: &str) -> Option<usize> {
        FORMS.iter().position(|form| form.name == name)
    }
}

const GREY: u32 = 0xb4b4b4;
const BLUE: u32 = 0x0072b2;
const SKY: u32 = 0x56b4e9;
const GREEN: u32 = 0x009e73;
const YELLOW: u32 = 0xf0e442;
const ORANGE: u32 = 0xe69f00;
const RED: u32 = 0xd55e00;
const PURPLE: u32 = 0x882255;

const LEVELS: [Class; 7] = [
    ("no level", GREY),
    ("debug", YELLOW),
    ("info", SKY),
    ("notice", BLUE),
    ("warning", ORANGE),
    ("error", RED),
    ("worse", PURPLE),
];

pub(super) const FORMS: [Form; 4] = [
    Form {
        name: "access",
        title: "Requests by status",
        classes: &[
            ("other", GREY),
            ("2xx", BLUE),
            ("3xx", SKY),
            ("4xx", ORANGE),
            ("5xx", RED),
        ],
        class: |row| match row.fields.status {
            Some(status @ 200..=599) => usize::try_from(status / 100 - 1).unwrap_or(0),
            _ => 0,
        },
        tops: &[
            ("status", |row| Some(row.fields.status?.to_string().into())),
            ("path", |row| Some(row.fields.path.as_deref()?.into())),
            ("client", |row| Some(row.fields.client.as_deref()?.into())),
        ],
    },
    Form {
        name: "nginx-error",
        title: "Messages of nginx by level",
        classes: &LEVELS,
        class: level,
        tops: &[
            ("level", |row| Some(row.level.as_deref()?.into())),
            ("path", |row| Some(row.fields.path.as_deref()?.into())),
            ("client", |row| Some(row.fields.client.as_deref()?.into())),
        ],
    },
    Form {
        name: "dpkg",
        title: "Work of dpkg by action",
        classes: &[
            ("status", GREY),
            ("configure", SKY),
            ("upgrade", BLUE),
            ("install", GREEN),
            ("remove", RED),
            ("other", YELLOW),
        ],
        class: |row| match row.fields.action.as_deref() {
            Some("status") => 0,
            Some("configure") => 1,
            Some("upgrade") => 2,
            Some("install") => 3,
            Some("remove" | "purge" | "disappear") => 4,
            _ => 5,
        },
        tops: &[
            ("action", |row| Some(row.fields.action.as_deref()?.into())),
            ("package", |row| Some(row.fields.package.as_deref()?.into())),
        ],
    },
    Form {
        name: "syslog",
        title: "Syslog by level",
        classes: &LEVELS,
        class: level,
        tops: &[
            ("level", |row| Some(row.level.as_deref()?.into())),
            ("program", |row| Some(row.fields.program.as_deref()?.into())),
            ("host", |row| Some(row.fields.host.as_deref()?.into())),
        ],
    },
];

fn level(row: &Row) -> usize {
    match row.level.as_deref() {
        None => 0,
        Some("debug") => 1,
        Some("info") => 2,
        Some("notice") => 3,
        Some("warning") => 4,
        Some("error") => 5,
        Some(_) => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_class() {
        for form in &FORMS {
            assert!((1..=MAX_CLASSES).contains(&form.classes.len()), "{}", form.name);
            assert!(form.class(&Row::default()) < form.classes.len());
            assert_eq!(Form::index(form.name).map(|at| FORMS[at].name), Some(form.name));
        }
        let class = |status| {
            let mut row = Row::default();
            row.fields.status = Some(status);
            FORMS[0].classes[FORMS[0].class(&row)].0
        };
        assert_eq!(
            [101, 204, 302, 499, 599, 600].map(class),
            ["other", "2xx", "3xx", "4xx", "5xx", "other"]
        );
    }
}
