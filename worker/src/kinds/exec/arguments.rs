//! A task's arguments as text for a command line.

use std::borrow::Cow;
use std::collections::BTreeMap;

use asynq_worker::{Payload, TaskError};
use serde_json::value::RawValue;

/// The JSON value of a task, and its members if it is an object. Numbers keep
/// their digits.
pub(super) struct Arguments<'a> {
    whole: &'a RawValue,
    members: Option<BTreeMap<String, &'a RawValue>>,
}

/// Why arguments do not fit a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the arguments do not fit: {0}")]
    NotJson(String),
    #[error("the arguments are no JSON object, and the command needs their member {0:?}")]
    NoObject(String),
    #[error("the arguments have no member {0:?}, which the command needs")]
    Missing(String),
    #[error("{0} NUL, which no program's argument can")]
    Nul(String),
    #[error("{0} no text that a program could take: {1}")]
    NoText(String, String),
}

impl Unfit {
    /// No attempt could work with them.
    pub(super) fn rejected(self) -> TaskError {
        TaskError::rejected(self.to_string())
    }
}

impl<'a> Arguments<'a> {
    /// # Errors
    /// When the payload is not JSON.
    pub(super) fn of(payload: &'a Payload) -> Result<Self, Unfit> {
        if !payload.is_json() {
            return Err(Unfit::NotJson(format!(
                "they are {:?}, and the command needs JSON",
                payload.content_type()
            )));
        }
        let whole: &RawValue =
            serde_json::from_slice(payload.data()).map_err(|error| Unfit::NotJson(error.to_string()))?;
        Ok(Self {
            whole,
            members: serde_json::from_str(whole.get()).ok(),
        })
    }

    /// A member of the object.
    pub(super) fn member(&self, name: &str) -> Result<Cow<'a, str>, Unfit> {
        let members = self.members.as_ref().ok_or_else(|| Unfit::NoObject(name.into()))?;
        let value = members.get(name).ok_or_else(|| Unfit::Missing(name.into()))?;
        text(value, || format!("the member {name:?} holds"))
    }

    /// The whole value.
    pub(super) fn whole(&self) -> Result<Cow<'a, str>, Unfit> {
        text(self.whole, || "the arguments hold".into())
    }
}

/// A string as it is, any other value as compact JSON.
fn text(value: &RawValue, which: impl Fn() -> String) -> Result<Cow<'_, str>, Unfit> {
    let json = value.get();
    if !json.starts_with('"') {
        return Ok(Cow::Owned(compact(json)));
    }
    let text: String = serde_json::from_str(json).map_err(|error| Unfit::NoText(which(), error.to_string()))?;
    if text.contains('\0') {
        return Err(Unfit::Nul(format!("{} a", which())));
    }
    Ok(Cow::Owned(text))
}

/// Valid JSON without the space between its tokens.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let kept = |c: &char| {
        if in_string {
            in_string = *c != '"' || escaped;
            escaped = *c == '\\' && !escaped;
            return true;
        }
        in_string = *c == '"';
        !c.is_ascii_whitespace()
    };
    json.chars().filter(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_between_tokens_goes_and_space_in_strings_stays() {
        for (json, expected) in [
            ("[ 1 , 2 ]", "[1,2]"),
            (
                "{ \"a b\" :\n\t\"\\\" c \\\\\" , \"d\": [ ] }",
                "{\"a b\":\"\\\" c \\\\\",\"d\":[]}",
            ),
            ("-1.50e+3", "-1.50e+3"),
        ] {
            assert_eq!(compact(json), expected);
        }
    }

    #[test]
    fn bytes_that_are_not_json_are_refused() {
        let unfit = |payload: Payload| Arguments::of(&payload).err().map(|unfit| unfit.to_string());
        let said = unfit(Payload::bytes("application/octet-stream", "1")).unwrap();
        assert!(said.contains("octet-stream"), "{said}");
        let said = unfit(Payload::bytes("application/json", "{\"a\":")).unwrap();
        assert!(said.contains("do not fit"), "{said}");
        assert_eq!(unfit(Payload::bytes("application/json", " [1] ")), None);
        let error = Unfit::Missing("size".into()).rejected();
        assert_eq!((error.kind.as_str(), error.retryable), ("rejected", false));
    }

    #[test]
    fn of_two_members_of_a_name_the_last_counts() {
        let payload = Payload::bytes("application/json", r#"{"a":1,"a":2}"#);
        assert_eq!(Arguments::of(&payload).unwrap().member("a").unwrap(), "2");
    }
}
