//! Verifies and mends. (Skeleton of the agreed interface.)

use crate::context::Context;
use crate::error::Result;

/// What to verify.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VerifyRequest {
    /// Snapshots; empty: everything in the repository.
    pub references: Vec<String>,
    /// Structure only: roots, manifests, trailers against the index.
    pub quick: bool,
    /// Mend what can be mended.
    pub repair: bool,
}

/// Something that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedItem {
    /// `pack`, `index`, `snapshot`, `chunk`, `node`, `key`, `config`.
    pub kind: String,
    /// Object name or chunk id.
    pub id: String,
    /// What does not hold.
    pub detail: String,
    /// Names of the snapshots that are hurt.
    pub snapshots: Vec<String>,
    /// Paths that are hurt (at most 1,000; the count is in `paths_total`).
    pub paths: Vec<String>,
    /// How many paths are hurt.
    pub paths_total: u64,
}

/// Outcome.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Snapshots checked.
    pub snapshots: u64,
    /// Packs checked.
    pub packs: u64,
    /// Chunks decoded and hashed.
    pub chunks: u64,
    /// Stored bytes read.
    pub bytes: u64,
    /// What is damaged; empty: all is well.
    pub damaged: Vec<DamagedItem>,
    /// What was mended, one sentence each.
    pub repaired: Vec<String>,
}

/// Verifies.
pub fn verify(_context: &Context, _request: &VerifyRequest) -> Result<VerifyReport> {
    todo!()
}
