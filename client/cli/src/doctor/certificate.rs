//! What stands in the broker's certificate: for whom it is, and for how long.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use super::verdict::Verdict;

/// A certificate is worth a warning when it has less than this left.
const SOON: Duration = Duration::from_hours(14 * 24);
const DAY: u64 = 24 * 60 * 60;

/// A certificate that has been found trustworthy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    names: Vec<String>,
    expires: SystemTime,
}

impl Certificate {
    /// Reads it from DER; `None` if it makes no sense.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let named = certificate.subject_alternative_name().ok()?;
        let names = named.map(|named| named.value.general_names.iter().filter_map(name).collect());
        let expires = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
        Some(Self {
            names: names.unwrap_or_default(),
            expires: UNIX_EPOCH + Duration::from_secs(expires),
        })
    }

    /// The handshake went well, so what is left to judge is how long it will.
    pub(super) fn judge(&self, now: SystemTime) -> Verdict {
        let left = self.expires.duration_since(now).unwrap_or_default();
        let days = left.as_secs() / DAY;
        let found = format!("a certificate for {}, good for {days} days", self.names.join(", "));
        match left < SOON {
            true => Verdict::warn(found, "have a new one made, then send the broker SIGHUP"),
            false => Verdict::ok(found),
        }
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_is_warned_of() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let certificate = |left| Certificate {
            names: vec!["localhost".into(), "127.0.0.1".into()],
            expires: now + Duration::from_secs(left),
        };
        let found = |days| format!("a certificate for localhost, 127.0.0.1, good for {days} days");
        assert_eq!(certificate(90 * DAY).judge(now), Verdict::ok(found(90)));
        let advice = "have a new one made, then send the broker SIGHUP";
        assert_eq!(certificate(DAY + 1).judge(now), Verdict::warn(found(1), advice));
        assert_eq!(Certificate::read(b"no certificate"), None);
    }
}
