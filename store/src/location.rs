//! Where a chunk stands, and how it was encoded.

use crate::ids::{ChunkId, PackId};

/// Longest chunk in bytes.
pub const CHUNK_BYTES_MAX: u32 = 8 << 20;
/// Most plaintext of one frame in bytes.
pub const FRAME_BYTES_MAX: u32 = 4 << 20;
/// Longest record as stored in bytes: what does not compress is stored as it is, with a tag.
pub const RECORD_STORED_BYTES_MAX: u32 = CHUNK_BYTES_MAX + (64 << 10);

/// What records of a pack hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// File contents.
    Data = 1,
    /// Nodes of manifest trees; they stand in packs of their own.
    Node = 2,
}

/// How a record's plaintext became its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// As it is.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
    /// The blocks that differ from the base, as `delta` encodes them.
    Delta = 2,
}

impl RecordKind {
    /// From its stored byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Data, Self::Node].into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl Encoding {
    /// From its stored byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd, Self::Delta].into_iter().find(|encoding| *encoding as u8 == byte)
    }
}

/// A chunk's place. Several chunks of one frame share the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// What the record holds.
    pub kind: RecordKind,
    /// Offset of the sealed record in the pack, in bytes.
    pub record_offset: u32,
    /// Length of the sealed record, tag included, in bytes.
    pub record_stored_bytes: u32,
    /// Length of the record's plaintext in bytes.
    pub record_plain_bytes: u32,
    /// Offset of the chunk in the record's plaintext, in bytes.
    pub inner_offset: u32,
    /// Length of the chunk in bytes.
    pub bytes: u32,
    /// The record's encoding.
    pub encoding: Encoding,
    /// The base of a delta.
    pub base: Option<ChunkId>,
}
