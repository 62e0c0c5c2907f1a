//! Where a broker is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

/// The port a broker listens on when nothing else is said.
pub const DEFAULT_PORT: u16 = 7740;

/// Where a broker is: `http://host:port`, or `https://host:port` where TLS is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    secure: bool,
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the address of a broker: {problem}")]
pub struct EndpointError {
    text: String,
    problem: &'static str,
}

impl Endpoint {
    /// The host name or address, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; [`DEFAULT_PORT`] if the address names none.
    pub const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether TLS is spoken: `https://`.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether this is surely the same machine: what is said stays on it.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse().map(|address: IpAddr| address.is_loopback());
        address.unwrap_or_else(|_| self.host.eq_ignore_ascii_case("localhost"))
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = |problem| EndpointError {
            text: text.to_owned(),
            problem,
        };
        let form = "write it as http://host:port, or https://host:port with TLS";
        let uri: Uri = text.parse().map_err(|_| error(form))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(error(form)),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(error("leave out what follows the port"));
        }
        let authority = uri.authority().ok_or_else(|| error("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(error("a user name has no meaning here"));
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(error("the host is missing"));
        }
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            None => DEFAULT_PORT,
            Some("") => return Err(error("the port is missing after the colon")),
            Some(port) => port.parse().map_err(|_| error("ports are 1 to 65535"))?,
        };
        if port == 0 {
            return Err(error("ports are 1 to 65535"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            secure,
            uri,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_understood() {
        for (text, host, port, shown) in [
            ("http://127.0.0.1:7740", "127.0.0.1", 7740, "http://127.0.0.1:7740"),
            ("http://broker", "broker", DEFAULT_PORT, "http://broker:7740"),
            ("http://broker.lan:80/", "broker.lan", 80, "http://broker.lan:80"),
            ("http://[::1]:9", "::1", 9, "http://[::1]:9"),
            ("https://broker", "broker", DEFAULT_PORT, "https://broker:7740"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port));
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.is_secure(), text.starts_with("https"));
        }
    }

    #[test]
    fn addresses_that_are_refused_say_why() {
        for (text, part) in [
            ("", "http://host:port"),
            ("127.0.0.1:7740", "http://host:port"),
            ("ftp://host", "http://host:port"),
            ("http://host:0", "1 to 65535"),
            ("http://host:99999", "1 to 65535"),
            ("http://host:", "port is missing"),
            ("http://host/path", "follows the port"),
            ("http://host?x=1", "follows the port"),
            ("http://me@host", "user name"),
        ] {
            let said = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(said.contains(part), "{text:?}: {said}");
        }
    }
}
