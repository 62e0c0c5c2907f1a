//! What a table `[task.NAME]` of worker.toml says, checked as it is read, so
//! that a mistake is named with its line.

use std::collections::BTreeMap;
use std::time::Duration;

use asynq_worker::OnLoss;
use serde::Deserialize;

use super::template::Template;
use crate::config::a_duration;

/// A task that runs a program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Table")]
pub(crate) struct Definition {
    pub(super) cmd: CommandLine,
    pub(super) stdin: Stdin,
    pub(super) stdout: Stdout,
    pub(super) env: BTreeMap<String, String>,
    /// Longest time of one attempt.
    pub(super) timeout: Option<Duration>,
    /// Failures allowed, for tasks that say nothing themselves.
    pub(super) max_attempts: Option<u32>,
    /// What becomes of its items when the worker is lost.
    pub(super) on_loss: OnLoss,
    /// Run again, it begins where it is told to.
    pub(super) seeks: bool,
}

/// What the program reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stdin {
    /// Nothing: /dev/null.
    #[default]
    None,
    /// The task's arguments.
    Json,
}

/// What its output is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stdout {
    /// One JSON value, the result.
    #[default]
    Json,
    /// Bytes, the result.
    Raw,
    /// Lines of text, each an item.
    Lines,
    /// Lines of JSON, each of which says what it is.
    Jsonl,
}

impl Stdout {
    pub(super) fn yields(self) -> bool {
        matches!(self, Self::Lines | Self::Jsonl)
    }
}

/// A program, which callers cannot choose, and words they may have a part in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Template>")]
pub(super) struct CommandLine {
    pub(super) program: String,
    pub(super) args: Vec<Template>,
}

/// Why a table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mistake {
    #[error("kind {0:?} is not supported yet, only \"exec\"")]
    Kind(String),
    #[error("on_loss is \"fail\", \"replay\" or \"checkpoint\", not {0:?}")]
    OnLoss(String),
    #[error("on_loss is for tasks that yield items: stdout = \"lines\" or \"jsonl\"")]
    OnLossOfPlain,
    #[error("on_loss = \"checkpoint\" is for programs that can say one: stdout = \"jsonl\"")]
    CheckpointOfLines,
    #[error("seeks is for tasks that are run again: on_loss = \"replay\"")]
    SeeksForNothing,
    #[error("cmd is empty; its first word is the program")]
    NoProgram,
    #[error("the first word of cmd is the program, and takes no placeholder: callers must not choose it")]
    ProgramChosen,
    #[error("{0:?} is no name of an environment variable")]
    EnvName(String),
    #[error("the variables ASYNQ_… are the worker's, and env cannot set {0:?}")]
    EnvOurs(String),
    #[error("the value of {0:?} in env holds a NUL, which no variable can")]
    EnvNul(String),
}

impl TryFrom<Vec<Template>> for CommandLine {
    type Error = Mistake;

    fn try_from(words: Vec<Template>) -> Result<Self, Mistake> {
        let mut args = words.into_iter();
        let program = args.next().ok_or(Mistake::NoProgram)?;
        let program = program.literal().ok_or(Mistake::ProgramChosen)?;
        if program.is_empty() {
            return Err(Mistake::NoProgram);
        }
        Ok(Self {
            program: program.into(),
            args: args.collect(),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Kind;

impl TryFrom<String> for Kind {
    type Error = Mistake;

    fn try_from(kind: String) -> Result<Self, Mistake> {
        if kind == "exec" {
            Ok(Self)
        } else {
            Err(Mistake::Kind(kind))
        }
    }
}

/// What becomes of a task whose worker dies in the middle of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Policy(OnLoss);

impl TryFrom<String> for Policy {
    type Error = Mistake;

    fn try_from(policy: String) -> Result<Self, Mistake> {
        match policy.as_str() {
            "fail" => Ok(Self(OnLoss::Fail)),
            "replay" => Ok(Self(OnLoss::Replay)),
            "checkpoint" => Ok(Self(OnLoss::Checkpoint)),
            _ => Err(Mistake::OnLoss(policy)),
        }
    }
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "kind")]
    _kind: Kind,
    cmd: CommandLine,
    #[serde(default)]
    stdin: Stdin,
    #[serde(default)]
    stdout: Stdout,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "a_duration")]
    timeout: Option<Duration>,
    max_attempts: Option<u32>,
    on_loss: Option<Policy>,
    #[serde(default)]
    seeks: bool,
}

impl TryFrom<Table> for Definition {
    type Error = Mistake;

    fn try_from(table: Table) -> Result<Self, Mistake> {
        if table.on_loss.is_some() && !table.stdout.yields() {
            return Err(Mistake::OnLossOfPlain);
        }
        let on_loss = table.on_loss.map_or(OnLoss::Fail, |Policy(on_loss)| on_loss);
        if on_loss == OnLoss::Checkpoint && table.stdout != Stdout::Jsonl {
            return Err(Mistake::CheckpointOfLines);
        }
        if table.seeks && on_loss != OnLoss::Replay {
            return Err(Mistake::SeeksForNothing);
        }
        for (name, value) in &table.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(Mistake::EnvName(name.clone()));
            }
            if name.starts_with("ASYNQ_") {
                return Err(Mistake::EnvOurs(name.clone()));
            }
            if value.contains('\0') {
                return Err(Mistake::EnvNul(name.clone()));
            }
        }
        Ok(Self {
            cmd: table.cmd,
            stdin: table.stdin,
            stdout: table.stdout,
            env: table.env,
            timeout: table.timeout,
            max_attempts: table.max_attempts,
            on_loss,
            seeks: table.seeks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Definition, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_is_read_and_its_defaults_are_as_documented() {
        let least = read("kind = \"exec\"\ncmd = [\"true\"]").unwrap();
        assert_eq!((least.stdin, least.stdout), (Stdin::None, Stdout::Json));
        assert_eq!((least.timeout, least.max_attempts), (None, None));
        assert_eq!((least.on_loss, least.seeks), (OnLoss::Fail, false));
        let all = read(
            "kind = \"exec\"\ncmd = [\"./etl\", \"{a}\", \"-v\"]\nstdin = \"json\"\nstdout = \"jsonl\"\n\
             timeout = \"5m\"\nmax_attempts = 3\non_loss = \"replay\"\nseeks = true\nenv = { MODE = \"fast\" }",
        )
        .unwrap();
        assert_eq!((all.cmd.program.as_str(), all.cmd.args.len()), ("./etl", 2));
        assert_eq!((all.stdin, all.stdout), (Stdin::Json, Stdout::Jsonl));
        assert_eq!((all.timeout, all.max_attempts), (Some(Duration::from_mins(5)), Some(3)));
        assert_eq!((all.on_loss, all.seeks), (OnLoss::Replay, true));
        assert_eq!(all.env["MODE"], "fast");
        let marked = read("kind = \"exec\"\ncmd = [\"x\"]\nstdout = \"jsonl\"\non_loss = \"checkpoint\"").unwrap();
        assert_eq!((marked.on_loss, marked.seeks), (OnLoss::Checkpoint, false));
    }

    #[test]
    fn mistakes_are_named() {
        let task = |more: &str| format!("kind = \"exec\"\ncmd = [\"true\"]\n{more}");
        for (text, said) in [
            ("cmd = [\"true\"]".into(), "missing field `kind`"),
            ("kind = \"exec\"".into(), "missing field `cmd`"),
            (
                "kind = \"pool\"\ncmd = [\"true\"]".into(),
                "kind \"pool\" is not supported yet, only \"exec\"",
            ),
            (
                "kind = \"http\"\ncmd = [\"true\"]".into(),
                "kind \"http\" is not supported yet",
            ),
            ("kind = \"exec\"\ncmd = []".into(), "cmd is empty"),
            ("kind = \"exec\"\ncmd = [\"\"]".into(), "cmd is empty"),
            ("kind = \"exec\"\ncmd = \"ls -l\"".into(), "invalid type: string"),
            (
                "kind = \"exec\"\ncmd = [\"{program}\"]".into(),
                "callers must not choose it",
            ),
            ("kind = \"exec\"\ncmd = [\"ls\", \"{\"]".into(), "a { without its }"),
            (task("cwd = \"/\""), "unknown field `cwd`"),
            (task("checkpoint = true"), "unknown field `checkpoint`"),
            (
                task("stdin = \"lines\""),
                "unknown variant `lines`, expected `none` or `json`",
            ),
            (task("stdout = \"jsonlines\""), "unknown variant `jsonlines`"),
            (
                task("stdout = \"lines\"\non_loss = \"retry\""),
                "on_loss is \"fail\", \"replay\" or \"checkpoint\", not \"retry\"",
            ),
            (task("stdout = \"lines\"\non_loss = true"), "invalid type: boolean"),
            (
                task("stdout = \"lines\"\nseeks = true"),
                "seeks is for tasks that are run again: on_loss = \"replay\"",
            ),
            (
                task("stdout = \"lines\"\non_loss = \"fail\"\nseeks = true"),
                "seeks is for tasks that are run again",
            ),
            (
                task("stdout = \"lines\"\non_loss = \"checkpoint\""),
                "on_loss = \"checkpoint\" is for programs that can say one: stdout = \"jsonl\"",
            ),
            (
                task("stdout = \"jsonl\"\non_loss = \"checkpoint\"\nseeks = true"),
                "seeks is for tasks that are run again: on_loss = \"replay\"",
            ),
            (
                task("on_loss = \"checkpoint\""),
                "on_loss is for tasks that yield items",
            ),
            (task("on_loss = \"fail\""), "on_loss is for tasks that yield items"),
            (task("timeout = \"soon\""), "\"soon\" is no duration"),
            (task("env = { \"A=B\" = \"1\" }"), "\"A=B\" is no name"),
            (task("env = { ASYNQ_EPOCH = \"1\" }"), "ASYNQ_"),
            (task("env = { A = \"\\u0000\" }"), "holds a NUL"),
            (task("env = { A = 1 }"), "invalid type: integer"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
