//! The tokens file: who has which token, as a hash, and what it is good for.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::role::{Role, Roles};
use crate::limits::MAX_TOKENS;

/// The only namespace there is so far.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

type Digest = [u8; SHA256_OUTPUT_LEN];

/// The hash of a secret, as the file has it: 64 hex digits.
pub(crate) fn hash(secret: &str) -> String {
    digest(&SHA256, secret.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Why a tokens file is of no use. Never repeats what stands in the file: it
/// may be a secret in the wrong place.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("cannot read the tokens file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("the tokens file {}, line {line}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// One of its tokens is not what it should be.
    #[error("the tokens file {}, token {n}: {problem}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        n: usize,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    namespace: String,
    roles: Vec<Role>,
}

/// One token and what it is good for.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) name: String,
    pub(crate) roles: Roles,
    /// Cancelled when a newer file does not have it any more, or gives it less.
    pub(crate) revoked: CancellationToken,
    digest: Digest,
}

/// All tokens.
#[derive(Debug)]
pub(crate) struct Tokens(Vec<Holder>);

impl Tokens {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self, TokensError> {
        let unreadable = |source| TokensError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let tokens = Self::parse(path, &text)?;
        if tokens.0.is_empty() {
            warn!(file = %path.display(), "the tokens file has no token: everybody is refused");
        }
        Ok(tokens)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, TokensError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            TokensError::Malformed {
                path: path.to_owned(),
                line: text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1,
                problem: error.message().to_owned(),
            }
        })?;
        let mut holders = Vec::<Holder>::with_capacity(file.token.len());
        for (entry, n) in file.token.into_iter().zip(1..) {
            let holder = entry
                .check()
                .and_then(|holder| match holders.iter().find(|h| h.is_like(&holder)) {
                    Some(other) => Err(format!(
                        "it has the name or the hash of {:?}, which came before",
                        other.name
                    )),
                    None if n > MAX_TOKENS => Err(format!("there may be no more than {MAX_TOKENS}")),
                    None => Ok(holder),
                });
            holders.push(holder.map_err(|problem| TokensError::Token {
                path: path.to_owned(),
                n,
                problem,
            })?);
        }
        Ok(Self(holders))
    }

    /// Whose secret this is. Takes the same time whether there is such a one or
    /// not, and however much of it is right.
    pub(crate) fn find(&self, secret: &[u8]) -> Option<&Holder> {
        let given = digest(&SHA256, secret);
        let mut found = None;
        for holder in &self.0 {
            if bool::from(holder.digest.ct_eq(given.as_ref())) {
                found = Some(holder);
            }
        }
        found
    }

    /// Takes over from an older file: what both have stays in force, what this
    /// one lacks is revoked.
    pub(crate) fn take_over(&mut self, older: &Self) {
        for old in &older.0 {
            let kept = self.0.iter_mut().find(|new| new.digest == old.digest);
            match kept.filter(|new| new.roles.covers(old.roles)) {
                Some(new) => new.revoked = old.revoked.clone(),
                None => old.revoked.cancel(),
            }
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }
}

impl Entry {
    fn check(self) -> Result<Holder, String> {
        check_name(&self.name)?;
        if self.namespace != DEFAULT_NAMESPACE {
            return Err(format!(
                "namespace {:?} is not supported yet: only \"default\" is",
                self.namespace
            ));
        }
        let roles = Roles::of(&self.roles);
        if roles.is_empty() {
            return Err("roles is empty: name at least one of caller, worker, admin".into());
        }
        let digest = parse_hash(&self.sha256).ok_or("sha256 must be 64 hex digits: the hash, not the secret")?;
        Ok(Holder {
            name: self.name,
            roles,
            revoked: CancellationToken::new(),
            digest,
        })
    }
}

impl Holder {
    fn is_like(&self, other: &Self) -> bool {
        self.name == other.name || self.digest == other.digest
    }
}

/// The name of a token is for people and logs.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    asynq_proto::check_name(name).map_err(|error| format!("name {name:?} {error}"))
}

fn parse_hash(text: &str) -> Option<Digest> {
    let mut digest = [0; SHA256_OUTPUT_LEN];
    if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, n) in digest.iter_mut().zip(0..) {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, secret: &str, rest: &str) -> String {
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{}\"\n{rest}\n", hash(secret))
    }

    fn parse(text: &str) -> Result<Tokens, String> {
        Tokens::parse(Path::new("t.toml"), text).map_err(|error| error.to_string())
    }

    const REST: &str = "namespace = \"default\"\nroles = [\"caller\"]";

    #[test]
    fn a_known_hash() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash("abc"), abc);
        assert_eq!(parse_hash(abc).unwrap()[..3], [0xba, 0x78, 0x16]);
    }

    #[test]
    fn a_secret_is_found_by_its_hash_alone() {
        let tokens = parse(&(entry("a", "one", REST) + &entry("b", "two", REST))).unwrap();
        assert_eq!(tokens.find(b"two").unwrap().name, "b");
        for wrong in [&b""[..], b"tw", b"two ", b"TWO", hash("two").as_bytes()] {
            assert!(tokens.find(wrong).is_none());
        }
    }

    #[test]
    fn a_bad_file_is_named_with_its_line_and_not_repeated() {
        let good = entry("a", "one", REST);
        let without = |key: &str| {
            good.lines()
                .filter(|l| !l.starts_with(key))
                .collect::<Vec<_>>()
                .join("\n")
        };
        for (text, said) in [
            (good.clone() + "secret = \"hunter2\"", "line 6: unknown field `secret`"),
            ("tokens = 1".into(), "line 1: unknown field `tokens`"),
            (without("sha256"), "missing field `sha256`"),
            (without("namespace"), "missing field `namespace`"),
            (good.replace("caller", "root"), "line 5: unknown variant `root`"),
            (good.replace("\"caller\"", ""), "token 1: roles is empty"),
            (
                good.replace("default", "other"),
                "token 1: namespace \"other\" is not supported yet",
            ),
            (
                good.replace(&hash("one"), "hunter2"),
                "token 1: sha256 must be 64 hex digits",
            ),
            (good.replace("\"a\"", "\"a b\""), "token 1: name \"a b\""),
            (good.clone() + &entry("a", "two", REST), "token 2: it has the name"),
            (
                good.clone() + &entry("b", "one", REST),
                "token 2: it has the name or the hash of \"a\"",
            ),
            ("[[token".into(), "line 1"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(
                error.starts_with("the tokens file t.toml, ") && error.contains(said),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        let many: String = (0..=MAX_TOKENS)
            .map(|n| entry(&format!("t{n}"), &n.to_string(), REST))
            .collect();
        assert!(parse(&many).unwrap_err().contains("no more than 1024"));
        assert_eq!(parse("").unwrap().len(), 0);
    }

    #[test]
    fn what_a_newer_file_lacks_is_revoked() {
        let old = parse(&(entry("a", "one", REST) + &entry("b", "two", REST) + &entry("c", "three", REST))).unwrap();
        let more = "namespace = \"default\"\nroles = [\"caller\", \"admin\"]";
        let other = "namespace = \"default\"\nroles = [\"worker\"]";
        let mut new = parse(&(entry("renamed", "one", more) + &entry("c", "three", other))).unwrap();
        new.take_over(&old);
        let revoked = |secret: &[u8]| old.find(secret).unwrap().revoked.is_cancelled();
        assert!(!revoked(b"one"), "it has its roles, under whatever name");
        assert!(revoked(b"two"), "it is gone");
        assert!(revoked(b"three"), "it has lost a role");
        assert!(!new.find(b"three").unwrap().revoked.is_cancelled());
        // What was taken over can be revoked later.
        parse("").unwrap().take_over(&new);
        assert!(revoked(b"one"));
    }
}
