//! Where HTTP is served, if anywhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;

use super::ConfigError;

/// The word for no port at all.
const NONE: &str = "none";

/// Where probes and Prometheus ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum HttpAddress {
    /// Nowhere.
    Nowhere,
    /// There.
    At(SocketAddr),
}

impl Default for HttpAddress {
    fn default() -> Self {
        Self::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7741))
    }
}

impl HttpAddress {
    /// Beyond this machine, only if somebody insists.
    pub(super) fn check(self, insecure: bool) -> Result<(), ConfigError> {
        match self {
            Self::At(address) if !address.ip().is_loopback() && !insecure => Err(ConfigError::HttpExposed(address)),
            Self::At(_) | Self::Nowhere => Ok(()),
        }
    }
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == NONE {
            return Ok(Self::Nowhere);
        }
        let address = text.parse().map(Self::At);
        address.map_err(|_| format!("{text:?} is neither an address with a port, such as 127.0.0.1:7741, nor `none`"))
    }
}

impl TryFrom<String> for HttpAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nowhere => f.write_str(NONE),
            Self::At(address) => address.fmt(f),
        }
    }
}
