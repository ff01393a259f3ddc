//! The one door to the serialisation library: bounded, canonical, total.
//!
//! bincode accepts trailing bytes and non-canonical integers, so a decoded value is encoded again and
//! compared.

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
    let (value, used) = decode_first(object, bytes)?;
    if used != bytes.len() {
        return Err(Error::damaged(object, TRAILING));
    }
    Ok(value)
}

/// Decodes a list as [`decode`] does, and hands on one element after the other: a list of tiny elements takes
/// no more memory than its document.
pub fn decode_each<T, E>(object: &str, bytes: &[u8], mut take: impl FnMut(T) -> Result<(), E>) -> Result<(), E>
where
    T: Serialize + DeserializeOwned,
    E: From<Error>,
{
    let (count, used): (u64, usize) = decode_first(object, bytes)?;
    let mut rest = &bytes[used..];
    for _ in 0..count {
        let (value, used) = decode_first(object, rest)?;
        #[cfg(any(test, feature = "fuzzing"))]
        independent::compare(&rest[..used], &decode_by_bincode::<T>(object, &rest[..used]));
        rest = &rest[used..];
        take(value)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(Error::damaged(object, TRAILING).into()) }
}

const TRAILING: &str = "trailing bytes after the document";

/// The value that bytes begin with, and how many it takes.
fn decode_first<T: Serialize + DeserializeOwned>(object: &str, bytes: &[u8]) -> Result<(T, usize)> {
    let (value, used): (T, usize) = bincode::serde::decode_from_slice(bytes, configuration())
        .map_err(|error| Error::damaged(object, format!("undecodable document: {error}")))?;
    let mut canonical = Comparing { expected: &bytes[..used] };
    match bincode::serde::encode_into_writer(&value, &mut canonical, configuration()) {
        Ok(()) if canonical.expected.is_empty() => Ok((value, used)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_handed_on_as_it_is_decoded_whole() {
        let each = |bytes: &[u8]| -> Result<Vec<(u8, String)>> {
            let mut all = Vec::new();
            decode_each("a list", bytes, |one| -> Result<()> {
                all.push(one);
                Ok(())
            })
            .map(|()| all)
        };
        for length in [0, 1, 250, 251, 70_000] {
            let list: Vec<(u8, String)> = (0..length).map(|number| (7, format!("{number}"))).collect();
            let bytes = encode(&list).unwrap();
            assert_eq!(each(&bytes).unwrap(), list);
            each(&[&bytes[..], b"\0"].concat()).unwrap_err();
            each(&bytes[..bytes.len() - 1]).unwrap_err();
        }
        // The same number, spelled longer.
        each(&[251, 1, 0, 7, 0]).unwrap_err();
        each(&[1, 7, 0]).unwrap();
    }
}
