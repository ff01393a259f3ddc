//! The one door to the serialisation library: bounded, canonical, total.
//!
//! bincode accepts trailing bytes and non-canonical integers, so a decoded value is encoded again and compared.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// Most bytes one decoded document may have (and claim).
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// Encodes a document (little endian, variable-length integers).
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, configuration())
        .map_err(|_| Error::Limit { what: "a document".into(), limit: DOCUMENT_BYTES_MAX as u64 })
}

/// Decodes a document wholly; trailing bytes and second spellings are refused.
pub fn decode<T: Serialize + DeserializeOwned>(object: &str, bytes: &[u8]) -> Result<T> {
    let (value, used): (T, usize) = bincode::serde::decode_from_slice(bytes, configuration())
        .map_err(|error| Error::damaged(object, format!("undecodable document: {error}")))?;
    if used != bytes.len() {
        return Err(Error::damaged(object, "trailing bytes after the document"));
    }
    if encode(&value)? != bytes {
        return Err(Error::damaged(object, "the document is not in canonical form"));
    }
    Ok(value)
}

fn configuration() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DOCUMENT_BYTES_MAX>()
}
