//! The self-describing payload codec: CBOR (RFC 8949) with field names, so that a reader that never heard of a kind can
//! still print its state.
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::{Serialize, de::DeserializeOwned};

/// Largest payload that is decoded, in bytes. Bulk content (pages, file contents) never travels in a payload.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Why bytes are not a valid payload. Carries the decoder's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed payload: {}", self.0)
    }
}

impl core::error::Error for Malformed {}

/// Encodes a state as CBOR.
///
/// # Errors
/// Only when the value cannot be represented (a map with unrepresentable keys); no type of this workspace can.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    encode_to(value, &mut out)?;
    Ok(out)
}

/// As [`encode`], behind what is in `out` already.
///
/// # Errors
/// As [`encode`].
pub fn encode_to<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), Malformed> {
    ciborium::into_writer(value, out).map_err(|error| Malformed(error.to_string()))
}

/// Decodes a state; the whole input must be consumed.
///
/// # Errors
/// Any input that is not exactly one well-formed value of type `T`, or longer than [`PAYLOAD_BYTES_MAX`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Malformed("longer than the limit of 64 MiB".to_string()));
    }
    let mut rest = bytes;
    let value = ciborium::from_reader(&mut rest).map_err(|error| Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(Malformed("bytes after the end of the value".to_string()));
    }
    Ok(value)
}

/// Any payload as a generic value, for printing kinds that this build does not know.
pub type Value = ciborium::Value;
