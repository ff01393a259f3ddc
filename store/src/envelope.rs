//! The envelope: the first 32 bytes of every object, clear and frozen for all versions to come.
//!
//! Layout: magic (6) | kind (1) | format version (1) | cipher suite (1) | zeros (7) | object id (16).
//! A reader that meets a higher version says "unsupported", never "damaged": that is what the envelope is for.

use crate::backend::ObjectKind;
use crate::config::CipherSuite;
use crate::ids::ObjectId;
use crate::{Error, Result};

/// Length of the envelope in bytes.
pub const ENVELOPE_BYTES: usize = 32;
/// Every object begins with this.
pub const MAGIC: [u8; 6] = *b"COPAL\x1a";
/// The highest format version written and read here, of every kind.
pub const FORMAT_VERSION: u8 = 1;

/// An envelope, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Kind of the object.
    pub kind: ObjectKind,
    /// Its cipher.
    pub suite: CipherSuite,
    /// Its id, from which its key is derived.
    pub id: ObjectId,
}

impl Envelope {
    /// The 32 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        bytes[..6].copy_from_slice(&MAGIC);
        bytes[6] = self.kind as u8;
        bytes[7] = FORMAT_VERSION;
        bytes[8] = self.suite as u8;
        bytes[16..].copy_from_slice(self.id.as_bytes());
        bytes
    }

    /// Reads the envelope of an object of an expected kind; `object` names it in errors.
    pub fn decode(object: &str, kind: ObjectKind, bytes: &[u8]) -> Result<Self> {
        let head: &[u8; ENVELOPE_BYTES] =
            bytes.first_chunk().ok_or_else(|| Error::damaged(object, "it is shorter than its envelope"))?;
        if head[..6] != MAGIC {
            return Err(Error::damaged(object, "it does not begin as an object of Copal"));
        }
        if head[7] > FORMAT_VERSION {
            return Err(Error::Unsupported {
                what: object.to_owned(),
                found: u32::from(head[7]),
                supported: u32::from(FORMAT_VERSION),
            });
        }
        if head[6] != kind as u8 || head[7] == 0 || head[9..16] != [0; 7] {
            return Err(Error::damaged(object, "its envelope is not that of its kind"));
        }
        let suite = match head[8] {
            1 => CipherSuite::Aes256Gcm,
            2 => CipherSuite::ChaCha20Poly1305,
            _ => return Err(Error::damaged(object, "its envelope names no known cipher")),
        };
        let mut id = [0; 16];
        id.copy_from_slice(&head[16..]);
        Ok(Self { kind, suite, id: ObjectId(id) })
    }
}
