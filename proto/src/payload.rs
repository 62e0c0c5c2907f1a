//! Values on the wire: bytes with a media type, JSON unless said otherwise.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::MAX_PAYLOAD_BYTES;
use crate::v1;

/// The media type of a value that says nothing else.
pub const JSON: &str = "application/json";
/// The media type of plain bytes.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// A value: the arguments of a task, or its result. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    content_type: String, // as on the wire: empty for JSON
    data: Bytes,
}

/// A value could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It has no JSON form.
    #[error("cannot be written as JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// It is too large.
    #[error("is {bytes} bytes long, at most {MAX_PAYLOAD_BYTES} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// A value could not be read as the type asked for.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not JSON, or JSON of another shape.
    #[error("{0}")]
    Json(#[source] serde_json::Error),
    /// It is not JSON at all by its media type.
    #[error("is {0:?}, not {JSON:?}")]
    NotJson(String),
}

impl Payload {
    /// Writes a value as JSON.
    ///
    /// # Errors
    /// When the value has no JSON form, such as a map whose keys are no
    /// strings, or is larger than [`MAX_PAYLOAD_BYTES`].
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, EncodeError> {
        let data = serde_json::to_vec(value).map_err(EncodeError::Json)?;
        Self {
            content_type: String::new(),
            data: data.into(),
        }
        .checked()
    }

    /// Takes bytes as they are.
    #[must_use]
    pub fn bytes(content_type: impl Into<String>, data: impl Into<Bytes>) -> Self {
        let mut content_type = content_type.into();
        if content_type == JSON {
            content_type.clear();
        }
        Self {
            content_type,
            data: data.into(),
        }
    }

    /// JSON's `null`: no arguments, or no result.
    #[must_use]
    pub const fn null() -> Self {
        Self {
            content_type: String::new(),
            data: Bytes::from_static(b"null"),
        }
    }

    /// Reads a JSON value.
    ///
    /// # Errors
    /// When the payload has another media type, or another shape; the message
    /// names field and place as far as they are known.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        if !self.is_json() {
            return Err(DecodeError::NotJson(self.content_type.clone()));
        }
        serde_json::from_slice(&self.data).map_err(DecodeError::Json)
    }

    /// The same, if it fits.
    ///
    /// # Errors
    /// When it is larger than [`MAX_PAYLOAD_BYTES`].
    pub fn checked(self) -> Result<Self, EncodeError> {
        match self.len() {
            bytes if bytes > MAX_PAYLOAD_BYTES => Err(EncodeError::TooLarge { bytes }),
            _ => Ok(self),
        }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(&self) -> &str {
        if self.content_type.is_empty() {
            JSON
        } else {
            &self.content_type
        }
    }

    /// Whether it is JSON, by its media type.
    #[must_use]
    pub fn is_json(&self) -> bool {
        let essence = self.content_type().split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(JSON)
    }

    /// Its bytes.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Its bytes, taken out.
    #[must_use]
    pub fn into_data(self) -> Bytes {
        self.data
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it has no bytes at all, which no JSON value is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

impl From<v1::Payload> for Payload {
    fn from(wire: v1::Payload) -> Self {
        Self::bytes(wire.content_type, wire.data)
    }
}

impl From<Payload> for v1::Payload {
    fn from(payload: Payload) -> Self {
        Self {
            content_type: payload.content_type,
            data: payload.data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_round_and_is_unnamed_on_the_wire() {
        let payload = Payload::json(&vec![1, 2]).unwrap();
        assert_eq!(payload.content_type(), JSON);
        let wire = v1::Payload::from(payload.clone());
        assert_eq!((wire.content_type.as_str(), &wire.data[..]), ("", &b"[1,2]"[..]));
        assert_eq!(Payload::from(wire), payload);
        assert_eq!(payload.decode::<Vec<u8>>().unwrap(), [1, 2]);
        assert_eq!(Payload::bytes(JSON, payload.data().clone()), payload);
        Payload::null().decode::<()>().unwrap();
    }

    #[test]
    fn other_media_types_are_kept_and_not_read_as_json() {
        let payload = Payload::bytes(OCTET_STREAM, &b"1"[..]);
        assert_eq!(Payload::from(v1::Payload::from(payload.clone())), payload);
        let error = payload.decode::<u8>().unwrap_err().to_string();
        assert!(error.contains("application/octet-stream"), "{error}");
        assert_eq!(
            Payload::bytes("Application/JSON; charset=utf-8", &b"1"[..])
                .decode::<u8>()
                .unwrap(),
            1
        );
    }

    #[test]
    fn refusals_say_why() {
        let error = Payload::json(&"x".repeat(MAX_PAYLOAD_BYTES)).unwrap_err().to_string();
        assert_eq!(error, "is 4194306 bytes long, at most 4194304 are allowed");
        assert!(Payload::json(&"x".repeat(MAX_PAYLOAD_BYTES - 2)).is_ok());
        let error = Payload::null().decode::<u8>().unwrap_err().to_string();
        assert!(error.starts_with("invalid type: null, expected u8"), "{error}");
    }
}
