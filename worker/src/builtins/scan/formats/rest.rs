//! What is left of a line while it is taken apart from left to right.

use crate::builtins::scan::row::Value;

/// The rest of a line. What does not fit leaves it as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest<'a>(pub(super) &'a str);

impl<'a> Rest<'a> {
    /// Takes a text that must come next.
    pub(super) fn skip(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    /// Takes what comes before `end`, and `end`.
    pub(super) fn until(&mut self, end: &str) -> Option<&'a str> {
        let (before, after) = self.0.split_once(end)?;
        self.0 = after;
        Some(before)
    }

    /// Takes a word, and the space after it unless the line ends.
    pub(super) fn word(&mut self) -> Option<&'a str> {
        let (word, after) = self.0.split_once(' ').unwrap_or((self.0, ""));
        if word.is_empty() {
            return None;
        }
        self.0 = after;
        Some(word)
    }

    /// Takes what stands in quotes, where a backslash keeps a quote from ending it.
    pub(super) fn quoted(&mut self) -> Option<&'a str> {
        let inner = self.0.strip_prefix('"')?;
        let mut escaped = false;
        let end = inner.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        self.0 = &inner[end + 1..];
        Some(&inner[..end])
    }
}

/// A number written in digits and nothing else.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A text where `-` means that there is none.
pub(super) fn or_none(text: &str) -> Value {
    match text {
        "-" => Value::None,
        text => Value::from(text),
    }
}
