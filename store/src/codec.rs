//! The one door to the serialisation library: bounded, canonical, total.
//!
//! bincode accepts trailing bytes and non-canonical integers, so a decoded value is encoded again and compared.

use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::{Error, Result};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod independent;

/// Most bytes one decoded document may have (and claim).
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// Encodes a document (little endian, variable-length integers).
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, configuration())
        .map_err(|_| Error::Limit { what: "a document".into(), limit: DOCUMENT_BYTES_MAX as u64 })
}

/// Most bytes a document of secrets has.
const SECRET_BYTES_MAX: usize = 4 << 10;

/// Encodes what only memory that is zeroed may hold: the buffer never moves while it grows.
pub(crate) fn encode_secret<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; SECRET_BYTES_MAX]);
    let used = bincode::serde::encode_into_slice(value, &mut bytes, configuration())
        .map_err(|_| Error::Limit { what: "a document of secrets".into(), limit: SECRET_BYTES_MAX as u64 })?;
    bytes.truncate(used);
    Ok(bytes)
}

/// Decodes a document wholly; trailing bytes and second spellings are refused.
pub fn decode<T: Serialize + DeserializeOwned>(object: &str, bytes: &[u8]) -> Result<T> {
    let value = decode_by_bincode(object, bytes);
    #[cfg(any(test, feature = "fuzzing"))]
    independent::compare(bytes, &value);
    value
}

fn decode_by_bincode<T: Serialize + DeserializeOwned>(object: &str, bytes: &[u8]) -> Result<T> {
    let (value, used): (T, usize) = bincode::serde::decode_from_slice(bytes, configuration())
        .map_err(|error| Error::damaged(object, format!("undecodable document: {error}")))?;
    if used != bytes.len() {
        return Err(Error::damaged(object, "trailing bytes after the document"));
    }
    let mut canonical = Comparing { expected: bytes };
    match bincode::serde::encode_into_writer(&value, &mut canonical, configuration()) {
        Ok(()) if canonical.expected.is_empty() => Ok(value),
        _ => Err(Error::damaged(object, "the document is not in canonical form")),
    }
}

/// Takes exactly the bytes it expects, and keeps none.
struct Comparing<'a> {
    expected: &'a [u8],
}

impl Writer for Comparing<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.expected = self.expected.strip_prefix(bytes).ok_or(EncodeError::Other("other bytes"))?;
        Ok(())
    }
}

fn configuration() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DOCUMENT_BYTES_MAX>()
}
