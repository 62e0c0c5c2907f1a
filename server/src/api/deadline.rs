//! The caller's own deadline, which HTTP/2 carries and tonic's server does not
//! enforce for us.

use std::time::Duration;

use tonic::metadata::MetadataMap;

use crate::broker::Error;

/// Runs a call for as long as its caller gives it.
pub(super) async fn within<T>(
    metadata: &MetadataMap,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match timeout(metadata) {
        Some(limit) => tokio::time::timeout(limit, call)
            .await
            .unwrap_or(Err(Error::DeadlineExceeded)),
        None => call.await,
    }
}

/// `grpc-timeout`: up to 8 digits and a unit. A malformed one is passed over.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_apart_and_nonsense_is_no_deadline() {
        let parse = |value: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", value.parse().unwrap());
            timeout(&metadata)
        };
        assert_eq!(parse("2H"), Some(Duration::from_hours(2)));
        assert_eq!(parse("3M"), Some(Duration::from_mins(3)));
        assert_eq!(parse("4S"), Some(Duration::from_secs(4)));
        assert_eq!(parse("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(parse("5u"), Some(Duration::from_micros(5)));
        assert_eq!(parse("6n"), Some(Duration::from_nanos(6)));
        for nonsense in ["", "S", "1", "1s", "+1S", "123456789S", "1.5S"] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
