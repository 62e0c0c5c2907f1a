//! Who gets in, and what they may do: certificates at the handshake, tokens on
//! every call, one table of which role may call what.

mod access;
mod complaints;
mod guard;
mod policy;
mod role;
mod tls;
mod tokens;

pub use access::{Access, AccessError};
pub(crate) use complaints::Complaints;
pub(crate) use guard::{Denied, Guard};
pub use role::Role;
pub(crate) use tls::explain;
pub use tokens::TokensError;
pub(crate) use tokens::{DEFAULT_NAMESPACE, check_name, hash};
