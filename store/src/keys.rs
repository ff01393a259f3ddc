//! Key slots and derived keys. (Skeleton of the agreed interface.)

use std::fmt;

use crate::ids::{ChunkId, ObjectId};

/// What opens a key slot.
#[derive(Clone)]
pub enum Credential {
    /// Stretched by Argon2id.
    Password(zeroize::Zeroizing<Vec<u8>>),
    /// 32 random bytes, not stretched.
    KeyFile(zeroize::Zeroizing<[u8; 32]>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::KeyFile(_) => f.write_str("KeyFile(…)"),
        }
    }
}

/// One key slot, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySlotInfo {
    /// Name of the slot's object.
    pub id: ObjectId,
    /// What people call it.
    pub label: String,
    /// `true`: a key file; `false`: a password.
    pub key_file: bool,
    /// Seconds since 1970-01-01 UTC at which it was made.
    pub created_seconds: i64,
    /// Whether this slot opened the repository just now.
    pub current: bool,
}

/// Cost of Argon2id. The default is RFC 9106's second recommended profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StretchCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for StretchCost {
    fn default() -> Self {
        Self {
            memory_kib: 64 << 10,
            passes: 3,
            lanes: 4,
        }
    }
}

/// The keys of an open repository. Zeroed when dropped, never printed.
#[derive(Clone)]
pub struct Keys {
    _private: (),
}

impl Keys {
    /// The id of a chunk: BLAKE3 keyed, over the plaintext.
    #[must_use]
    pub fn chunk_id(&self, _plain: &[u8]) -> ChunkId {
        todo!()
    }
    /// The secret of the content cutter (128 bits of AES key, and material for a gear table).
    #[must_use]
    pub fn cutter_secret(&self) -> zeroize::Zeroizing<[u8; 32]> {
        todo!()
    }
    /// The key for the boundaries of manifest trees.
    #[must_use]
    pub fn tree_boundary_key(&self) -> zeroize::Zeroizing<[u8; 32]> {
        todo!()
    }
    /// Tag of a snapshot's full name, for the name of its root object.
    #[must_use]
    pub fn name_tag(&self, _full_name: &[u8]) -> [u8; 16] {
        todo!()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}
