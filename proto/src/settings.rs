//! What a daemon goes by, and who said so: `config print` of both daemons.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Stands for a value that is secret.
const SECRET: &str = "(set, not shown)";

/// Who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// A variable of the environment, by its name.
    Environment(String),
    /// A file, with the line where that is found, counted from 1.
    File(PathBuf, Option<usize>),
    /// Nobody.
    Default,
}

/// One setting as it takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The name of its flag, without dashes before it.
    pub name: String,
    /// As it would be written; `None`: there is none.
    pub value: Option<String>,
    /// Who said so.
    pub origin: Origin,
}

impl Setting {
    /// The same without its value.
    #[must_use]
    pub fn hidden(self) -> Self {
        let value = self.value.map(|_| SECRET.to_owned());
        Self { value, ..self }
    }
}

impl Origin {
    /// The kind in one word, and what names it.
    fn words(&self, name: &str) -> (&'static str, Option<String>) {
        match self {
            Self::Flag => ("flag", Some(format!("--{name}"))),
            Self::Environment(variable) => ("environment", Some(variable.clone())),
            Self::File(path, Some(line)) => ("file", Some(format!("{}:{line}", path.display()))),
            Self::File(path, None) => ("file", Some(path.display().to_string())),
            Self::Default => ("default", None),
        }
    }

    /// A key of a TOML file: the file, and its line if that is easily found.
    #[must_use]
    pub fn of_key(path: &Path, text: &str, key: &str) -> Self {
        let is_it = |line: &str| {
            let rest = line.trim_start().strip_prefix(key);
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        // Settings stand before the first table.
        let mut top = text.lines().take_while(|line| !line.trim_start().starts_with('['));
        Self::File(path.to_owned(), top.position(is_it).map(|index| index + 1))
    }
}

/// A line for each, for people.
#[must_use]
pub fn table(settings: &[Setting]) -> String {
    let rows = settings.iter().map(|setting| {
        let (kind, source) = setting.origin.words(&setting.name);
        let value = setting.value.clone().unwrap_or_else(|| "-".to_owned());
        [setting.name.clone(), value, source.unwrap_or_else(|| kind.to_owned())]
    });
    let rows: Vec<[String; 3]> = [["NAME", "VALUE", "FROM"].map(str::to_owned)]
        .into_iter()
        .chain(rows)
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (name, value) = (width(0), width(1));
    let line = |row: &[String; 3]| format!("{:name$}  {:value$}  {}\n", row[0], row[1], row[2]);
    rows.iter().map(line).collect()
}

/// The JSON names, in this order.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    value: Option<&'a str>,
    origin: &'static str,
    source: Option<String>,
}

/// An array of `{"name", "value", "origin", "source"}`, on one line.
#[must_use]
pub fn json(settings: &[Setting]) -> String {
    let lines = settings.iter().map(|setting| {
        let (origin, source) = setting.origin.words(&setting.name);
        Line {
            name: &setting.name,
            value: setting.value.as_deref(),
            origin,
            source,
        }
    });
    let json = serde_json::to_string(&lines.collect::<Vec<_>>());
    format!("{}\n", json.expect("text has a JSON form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: Option<&str>, origin: Origin) -> Setting {
        Setting {
            name: name.into(),
            value: value.map(Into::into),
            origin,
        }
    }

    #[test]
    fn each_value_stands_beside_who_said_so() {
        let settings = [
            setting("listen", Some("[::1]:1"), Origin::Flag),
            setting("token", Some("secret"), Origin::Environment("ASYNQ_TOKEN".into())).hidden(),
            setting(
                "log",
                Some("json"),
                Origin::of_key(Path::new("a.toml"), "x = 1\n log= 2\n", "log"),
            ),
            setting("tokens", None, Origin::Default).hidden(),
        ];
        assert_eq!(
            table(&settings),
            "NAME    VALUE             FROM\n\
             listen  [::1]:1           --listen\n\
             token   (set, not shown)  ASYNQ_TOKEN\n\
             log     json              a.toml:2\n\
             tokens  -                 default\n"
        );
        let json = json(&settings);
        assert!(!json.contains("\"secret\""), "{json}");
        assert!(
            json.contains(r#"{"name":"listen","value":"[::1]:1","origin":"flag","source":"--listen"}"#),
            "{json}"
        );
        assert!(
            json.contains(r#"{"name":"tokens","value":null,"origin":"default","source":null}"#),
            "{json}"
        );
    }

    #[test]
    fn a_key_is_found_where_it_stands() {
        let path = Path::new("f");
        let at = |text, key| match Origin::of_key(path, text, key) {
            Origin::File(_, line) => line,
            other => panic!("{other:?}"),
        };
        assert_eq!(at("log_x = 1\nlog = 2", "log"), Some(2));
        assert_eq!(at("# log = 1\n[task.a]\nlog = 2", "log"), None);
        assert_eq!(at("\"log\" = 1", "log"), None, "the file alone is named");
    }
}
