//! The envelope: the first 32 bytes of every object, clear and frozen for all versions to come.
//!
//! Layout: magic (6) | kind (1) | format version (1) | cipher suite (1) | 7 bytes | object id (16). The 7
//! bytes are zeros in version 1; from version 2 on they are the key epoch (4, little endian), the sealing
//! (1), zeros (2). Version 3 says that who wrote the object has signed it. A reader that meets a higher
//! version says "unsupported", never "damaged": that is what the envelope is for.

use crate::backend::ObjectKind;
use crate::config::CipherSuite;
use crate::ids::ObjectId;
use crate::{Error, Result};

/// Length of the envelope in bytes.
pub const ENVELOPE_BYTES: usize = 32;
/// Every object begins with this.
pub const MAGIC: [u8; 6] = *b"COPAL\x1a";
/// The highest format version written and read here, of any kind.
pub const FORMAT_VERSION: u8 = 3;
/// The version of objects that a key epoch seals and nobody signs.
pub const EPOCH_VERSION: u8 = 2;
/// The version of objects that their writer has signed.
pub const SIGNED_VERSION: u8 = 3;
/// The version of objects whose key comes from the master key: those of epoch 0.
pub const FIRST_VERSION: u8 = 1;

/// How the key of an object is found, in version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Sealing {
    /// Derived from a secret.
    Derived = 0,
    /// Encapsulated for the public key of manifests: the encapsulation stands behind the envelope.
    ForManifests = 1,
    /// Encapsulated for the public key of file contents.
    ForData = 2,
}

/// An envelope, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Kind of the object.
    pub kind: ObjectKind,
    /// Its cipher.
    pub suite: CipherSuite,
    /// Its id, from which its key is derived.
    pub id: ObjectId,
    /// Its format version.
    pub version: u8,
    /// Which keys seal it; 0: those of the master key.
    pub epoch: u32,
    /// How its key is found.
    pub sealing: Sealing,
}

impl Envelope {
    /// Of version 1: its key comes from the master key, or from a credential.
    #[must_use]
    pub fn first(kind: ObjectKind, suite: CipherSuite, id: ObjectId) -> Self {
        Self { kind, suite, id, version: FIRST_VERSION, epoch: 0, sealing: Sealing::Derived }
    }

    /// Of version 2.
    #[must_use]
    pub fn of_epoch(kind: ObjectKind, suite: CipherSuite, id: ObjectId, epoch: u32, sealing: Sealing) -> Self {
        Self { kind, suite, id, version: EPOCH_VERSION, epoch, sealing }
    }

    /// The same of what its writer signs, in epoch 0 too.
    #[must_use]
    pub fn as_signed(self) -> Self {
        Self { version: SIGNED_VERSION, ..self }
    }

    /// A slot or roster of version 3.
    pub(crate) fn signed_slot(id: ObjectId) -> Self {
        Self::first(ObjectKind::KeySlot, CipherSuite::ChaCha20Poly1305, id).as_signed()
    }

    /// The 32 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        bytes[..6].copy_from_slice(&MAGIC);
        bytes[6] = self.kind as u8;
        bytes[7] = self.version;
        bytes[8] = self.suite as u8;
        bytes[9..13].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[13] = self.sealing as u8;
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
        let (version, highest) = (head[7], highest_version(kind));
        if version > highest {
            let (found, supported) = (u32::from(version), u32::from(highest));
            return Err(Error::Unsupported { what: object.to_owned(), found, supported });
        }
        let (mut epoch, mut sealing) = (0, Sealing::Derived);
        if version > FIRST_VERSION {
            epoch = u32::from_le_bytes([head[9], head[10], head[11], head[12]]);
            let sealings = [Sealing::Derived, Sealing::ForManifests, Sealing::ForData];
            sealing = sealings.into_iter().find(|known| *known as u8 == head[13]).unwrap_or(Sealing::Derived);
        }
        let known = Self { kind, suite: CipherSuite::Aes256Gcm, id: ObjectId([0; 16]), version, epoch, sealing };
        if version == 0 || head[6] != kind as u8 || known.encode()[9..16] != head[9..16] {
            return Err(Error::damaged(object, "its envelope is not that of its kind"));
        }
        let suite = match head[8] {
            1 => CipherSuite::Aes256Gcm,
            2 => CipherSuite::ChaCha20Poly1305,
            _ => return Err(Error::damaged(object, "its envelope names no known cipher")),
        };
        let mut id = [0; 16];
        id.copy_from_slice(&head[16..]);
        Ok(Self { suite, id: ObjectId(id), ..known })
    }
}

/// The configuration is what every program must be able to read first: it stays as it is. What packs and
/// parity hold is known by its hash and needs no signature.
fn highest_version(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::Config => FIRST_VERSION,
        ObjectKind::Pack | ObjectKind::Parity => EPOCH_VERSION,
        _ => FORMAT_VERSION,
    }
}
