//! Chunks that this session reserved and no published index lists yet. Sharded, so that workers seldom meet.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::ChunkId;

const SHARDS: usize = 64;

pub(super) struct FreshChunks {
    shards: [Mutex<HashSet<ChunkId>>; SHARDS],
}

impl Default for FreshChunks {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl FreshChunks {
    fn shard(&self, id: &ChunkId) -> MutexGuard<'_, HashSet<ChunkId>> {
        self.shards[usize::from(id.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn contains(&self, id: &ChunkId) -> bool {
        self.shard(id).contains(id)
    }

    /// `false` when it was there: somebody else stores it.
    pub(super) fn insert(&self, id: ChunkId) -> bool {
        self.shard(&id).insert(id)
    }

    /// A published index lists it now.
    pub(super) fn remove(&self, id: &ChunkId) {
        self.shard(id).remove(id);
    }
}
