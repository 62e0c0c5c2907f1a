//! From here to the broker: its address, the way there, what is shown on either side.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use asynq_client::{
    Credentials, Error, Refusal,
    connect::{Connector, Endpoint},
};
use clap::parser::ValueSource;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{certificate::Certificate, own, verdict::Verdict};
use crate::limits::DOCTOR_CONNECT;

/// Which broker, and who says so.
pub(super) fn address(url: &str, origin: Option<ValueSource>) -> (Verdict, Option<Endpoint>) {
    let says = match origin {
        Some(ValueSource::CommandLine) => "from --broker",
        Some(ValueSource::EnvVariable) => "from ASYNQ_BROKER",
        _ => "the default; --broker or ASYNQ_BROKER name another",
    };
    match url.parse::<Endpoint>() {
        Ok(endpoint) => (Verdict::ok(format!("{endpoint}, {says}")), Some(endpoint)),
        Err(error) => (Verdict::fail(error.to_string(), format!("it is {says}")), None),
    }
}

/// The addresses the host's name stands for.
pub(super) async fn name(endpoint: &Endpoint) -> (Verdict, Option<Vec<SocketAddr>>) {
    let host = endpoint.host();
    if let Ok(address) = host.parse::<IpAddr>() {
        let at = SocketAddr::new(address, endpoint.port());
        return (Verdict::ok("an address, no name to look up"), Some(vec![at]));
    }
    let advice = format!("is {host} spelt right? Does `getent hosts {host}` know it?");
    match timeout(DOCTOR_CONNECT, lookup_host((host, endpoint.port()))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses.collect();
            let texts: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            match texts.is_empty() {
                true => (Verdict::fail(format!("{host} has no address"), advice), None),
                false => (Verdict::ok(format!("{host} is {}", texts.join(", "))), Some(addresses)),
            }
        }
        Ok(Err(error)) => (Verdict::fail(format!("{host} has no address: {error}"), advice), None),
        Err(_) => {
            let found = format!("no word about {host} from the name server");
            (
                Verdict::fail(found, "is this machine's network up? See /etc/resolv.conf"),
                None,
            )
        }
    }
}

/// Whether one of the addresses takes a connection.
pub(super) async fn connection(addresses: &[SocketAddr]) -> (Verdict, bool) {
    let mut last = Verdict::Skipped;
    for address in addresses {
        let begun = Instant::now();
        let error = match timeout(DOCTOR_CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                let took = begun.elapsed().as_secs_f64() * 1e3;
                return (Verdict::ok(format!("{address} answers in {took:.1} ms")), true);
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        last = unreachable(*address, error.as_ref().map(std::io::Error::kind));
    }
    (last, false)
}

/// The likely causes, the likeliest first. No error means no answer at all.
fn unreachable(address: SocketAddr, error: Option<ErrorKind>) -> Verdict {
    let (found, advice) = match error {
        Some(ErrorKind::ConnectionRefused) => (
            format!("nothing listens at {address}"),
            "likely: (1) the broker is not running: start asynqd there; (2) it has another port or address: its first \
             line says which, --listen sets it; (3) a firewall refuses",
        ),
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => (
            format!("there is no way to {address}"),
            "likely: (1) the address is wrong; (2) this machine's network or VPN is down",
        ),
        Some(kind) => (
            format!("no connection to {address}: {kind}"),
            "likely: (1) the address is wrong; (2) a firewall interferes",
        ),
        None => (
            format!("{address} does not answer in {} s", DOCTOR_CONNECT.as_secs()),
            "likely: (1) the address is wrong; (2) a firewall drops what is sent; (3) the machine is down",
        ),
    };
    Verdict::fail(found, advice)
}

/// Whether the two ends trust each other, as far as that shows in a handshake.
pub(super) async fn tls(endpoint: Endpoint, credentials: &Credentials) -> (Verdict, Option<Connector>) {
    let (secure, loopback) = (endpoint.is_secure(), endpoint.is_loopback());
    let connector = match Connector::tcp(endpoint, credentials) {
        Ok(connector) => connector,
        Err(error) => {
            return (
                Verdict::fail("what is to be shown is of no use", error.to_string()),
                None,
            );
        }
    };
    if !secure {
        return (in_clear(loopback), Some(connector));
    }
    match timeout(DOCTOR_CONNECT, connector.certificate()).await {
        Ok(Ok(der)) => match der.as_deref().and_then(Certificate::read) {
            Some(certificate) => (certificate.judge(own::now()), Some(connector)),
            None => (Verdict::ok("a certificate that is trusted"), Some(connector)),
        },
        // It names both what is wrong and what to do.
        Ok(Err(error)) => (Verdict::fail("no handshake", error.to_string()), None),
        Err(_) => {
            let found = format!("no end of the handshake in {} s", DOCTOR_CONNECT.as_secs());
            (Verdict::fail(found, "is it asynqd that listens there?"), None)
        }
    }
}

fn in_clear(loopback: bool) -> Verdict {
    match loopback {
        true => Verdict::ok("not used; nothing leaves this machine"),
        false => Verdict::warn(
            "not used: who is on the way can read and change everything",
            "have certificates made with `asynqd tls init`, then write https://",
        ),
    }
}

/// The broker has let us in.
pub(super) fn let_in(with_token: bool) -> Verdict {
    Verdict::ok(match with_token {
        true => "the broker takes the token, for role caller or admin",
        false => "the broker lets callers in without a token",
    })
}

/// It has not.
pub(super) fn kept_out(error: &Error) -> Verdict {
    let advice = match error {
        Error::Refused { reason, .. } => match reason.as_str() {
            "TOKEN_MISSING" => "show one with --token @FILE or ASYNQ_TOKEN",
            "TOKEN_UNKNOWN" => "have a new one made: asynqd token new",
            "ROLE_MISSING" => "use a token that has the role caller",
            "CERTIFICATE_REFUSED" => {
                "show a certificate with --cert and --tls-key that the broker's --client-ca signed"
            }
            _ => "docs/errors.md says what the reason means",
        },
        Error::NoBroker { .. } => "is it asynqd that listens there, and does its log say why it does not answer?",
        _ => "docs/errors.md says what the reason means",
    };
    let found = match error {
        Error::Refused {
            kind: Refusal::Unexpected,
            ..
        } => format!("not understood: {error}"),
        Error::Refused { .. } => format!("refused: {}: {error}", error.reason()),
        error => error.to_string(),
    };
    Verdict::fail(found, advice)
}

/// It says nothing at all.
pub(super) fn no_welcome() -> Verdict {
    let advice = "is it asynqd that listens there, and does its log say why it does not answer?";
    Verdict::fail("connected, but no welcome", advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_says_where_it_comes_from() {
        for (origin, word) in [
            (Some(ValueSource::CommandLine), "from --broker"),
            (Some(ValueSource::EnvVariable), "from ASYNQ_BROKER"),
            (Some(ValueSource::DefaultValue), "the default"),
        ] {
            let (Verdict::Ok(found), Some(_)) = address("http://broker", origin) else {
                panic!("{origin:?}");
            };
            assert!(
                found.starts_with("http://broker:7740, ") && found.contains(word),
                "{found}"
            );
        }
        let (Verdict::Fail(_), None) = address("broker", None) else {
            panic!("it has no scheme");
        };
    }

    #[test]
    fn causes_are_named_in_order() {
        let at = SocketAddr::from(([127, 0, 0, 1], 7740));
        for (kind, found) in [
            (Some(ErrorKind::ConnectionRefused), "nothing listens at 127.0.0.1:7740"),
            (Some(ErrorKind::NetworkUnreachable), "there is no way to 127.0.0.1:7740"),
            (Some(ErrorKind::PermissionDenied), "no connection to 127.0.0.1:7740"),
            (None, "127.0.0.1:7740 does not answer in 3 s"),
        ] {
            let told = format!("{:?}", unreachable(at, kind));
            assert!(told.contains(found) && told.contains("likely: (1)"), "{told}");
        }
    }

    #[test]
    fn in_clear_is_fine_within_a_machine() {
        assert!(matches!(in_clear(true), Verdict::Ok(_)));
        assert!(matches!(in_clear(false), Verdict::Warn(_)));
    }
}
