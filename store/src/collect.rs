//! Mechanics of collection: marking by bits, condemning, sweeping. (Skeleton of the agreed interface.)
//!
//! It never knows what a snapshot means: the caller walks manifests and marks chunk ids.

use crate::Result;
use crate::ids::ChunkId;
use crate::repository::{Repository, RootName};

/// What a collection did or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Packs deleted.
    pub packs_removed: u64,
    /// Packs whose live records were copied to new packs.
    pub packs_rewritten: u64,
    /// Bytes returned to the storage.
    pub bytes_freed: u64,
    /// Packs condemned that wait for living sessions.
    pub packs_waiting: u64,
    /// Index fragments merged.
    pub fragments_merged: u64,
}

/// How to collect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CollectOptions {
    /// Rewrite a pack when less than this share of its bytes is live.
    pub rewrite_below_live_share: f64,
    /// Count only.
    pub dry_run: bool,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { rewrite_below_live_share: 0.75, dry_run: false }
    }
}

/// Marks chunks as live. Shared by threads.
pub trait Marker: Sync {
    /// Marks a chunk (and the base of its delta). `true` when it was not marked before: a node's children need a visit.
    /// A chunk that the index lacks is [`crate::Error::Missing`].
    fn mark(&self, id: &ChunkId) -> Result<bool>;
    /// Reads a node for the walk.
    fn read_node(&self, id: &ChunkId) -> Result<Vec<u8>>;
}

/// Walks from roots: the engine's part. It must mark every chunk reachable from the given roots.
pub trait Reachability: Sync {
    /// Marks all that the root reaches.
    fn mark_root(&self, root: &RootName, payload: &[u8], marker: &dyn Marker) -> Result<()>;
}

/// Collects: mark, rewrite, condemn, sweep what no living session can reach, merge the index.
/// [`crate::Error::Busy`] when another collection runs.
pub fn collect(
    _repository: &Repository,
    _reachability: &dyn Reachability,
    _options: CollectOptions,
) -> Result<CollectReport> {
    todo!()
}
