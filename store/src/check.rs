//! Verification of objects, by decoding every byte. (Skeleton of the agreed interface.)

use crate::Result;
use crate::ids::{ChunkId, PackId};
use crate::repository::Repository;

/// Something that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// `pack`, `index`, `snapshot`, `key`, `config`, `chunk`.
    pub kind: &'static str,
    /// Object name or chunk id.
    pub id: String,
    /// What does not hold.
    pub detail: String,
    /// Chunks lost by it, where known.
    pub chunks: Vec<ChunkId>,
}

/// Figures of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Packs read.
    pub packs: u64,
    /// Chunks decoded and hashed.
    pub chunks: u64,
    /// Stored bytes read.
    pub bytes: u64,
    /// What does not verify.
    pub damaged: Vec<Damage>,
}

/// Checks one pack: envelope, footer, trailer, every record decoded, every chunk hashed again; the trailer and the index agree.
pub fn check_pack(_session: &crate::session::Session, _pack: PackId) -> Result<CheckReport> {
    todo!()
}

/// All packs, by name.
pub fn packs(_repository: &Repository) -> Result<Vec<PackId>> {
    todo!()
}

/// Makes index fragments again from the packs' trailers, dropping what is damaged or missing.
pub fn rebuild_index(_repository: &Repository) -> Result<u64> {
    todo!()
}
