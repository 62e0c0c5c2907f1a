//! What a token is good for.

use std::fmt;

use clap::ValueEnum;
use serde::Deserialize;

/// What its holder may do; docs/guides/security.md has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Enqueues tasks, reads their results, looks at queues and workers.
    Caller,
    /// Takes tasks and runs them.
    Worker,
    /// All a caller may, and what operators do.
    Admin,
}

impl Role {
    /// The word in the tokens file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Worker => "worker",
            Self::Admin => "admin",
        }
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles(u8);

impl Roles {
    pub(crate) const fn of(roles: &[Role]) -> Self {
        let (mut bits, mut n) = (0, 0);
        while n < roles.len() {
            bits |= 1 << roles[n] as u8;
            n += 1;
        }
        Self(bits)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Everything `other` has.
    pub(crate) const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// `caller or admin`.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = |role: &&Role| self.covers(Self::of(&[**role]));
        for (n, role) in Role::value_variants().iter().filter(ours).enumerate() {
            let or = if n == 0 { "" } else { " or " };
            write!(f, "{or}{}", role.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_meet_cover_and_are_shown() {
        let both = Roles::of(&[Role::Admin, Role::Caller]);
        let (worker, admin) = (Roles::of(&[Role::Worker]), Roles::of(&[Role::Admin]));
        assert!(both.meets(admin) && both.covers(admin) && !admin.covers(both) && !both.meets(worker));
        assert!(Roles::of(&[]).is_empty() && !worker.is_empty());
        assert_eq!(both.to_string(), "caller or admin");
        assert_eq!(worker.to_string(), "worker");
    }
}
