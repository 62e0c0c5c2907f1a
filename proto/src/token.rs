//! The secret that says who somebody is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::HeaderValue;
use serde::{Deserialize, Deserializer, de};

/// A bearer token: the secret that says who somebody is. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(HeaderValue);

/// Why a text is no [`Token`]. Never repeats the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing there.
    #[error("the token is empty")]
    Empty,
    /// Not fit for a header.
    #[error("the token holds something else than printable ASCII without spaces")]
    NotPrintable,
    /// `@FILE` cannot be read.
    #[error("failed to read the token from {}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
}

impl Token {
    /// Takes the secret itself.
    ///
    /// # Errors
    /// If it is empty or cannot travel in a header.
    pub fn new(secret: &str) -> Result<Self, TokenError> {
        if secret.is_empty() {
            return Err(TokenError::Empty);
        }
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::NotPrintable);
        }
        let mut header: HeaderValue = format!("Bearer {secret}")
            .parse()
            .map_err(|_| TokenError::NotPrintable)?;
        // Keeps it out of logs, and out of the tables of header compression.
        header.set_sensitive(true);
        Ok(Self(header))
    }

    /// The value of the `authorization` header.
    pub(crate) const fn header(&self) -> &HeaderValue {
        &self.0
    }
}

/// The secret, or `@FILE` for a file that holds it.
impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let Some(path) = text.strip_prefix('@') else {
            return Self::new(text);
        };
        let read = std::fs::read_to_string(path).map_err(|error| TokenError::Unreadable {
            path: path.into(),
            problem: error.to_string(),
        });
        Self::new(read?.trim())
    }
}

/// As [`FromStr`] reads it.
impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credentials;

    #[test]
    fn a_token_is_read_checked_and_never_shown() {
        let folder = std::env::temp_dir().join(format!("asynq-token-{}", std::process::id()));
        std::fs::write(&folder, "s3cret\n").unwrap();
        let token: Token = format!("@{}", folder.display()).parse().unwrap();
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(token, Token::new("s3cret").unwrap());
        let credentials = Credentials {
            token: Some(token),
            ..Credentials::default()
        };
        assert!(!format!("{credentials:?}").contains("s3cret"));
        for (text, said) in [
            ("", "empty"),
            ("a b", "printable"),
            ("ä", "printable"),
            ("@/no/such", "/no/such"),
        ] {
            let error = text.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
