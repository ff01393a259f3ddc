//! Sessions: every operation that reads or writes chunks. (Skeleton of the agreed interface.)

use crate::ids::ChunkId;
use crate::location::{Location, RecordKind};
use crate::repository::{Repository, RootName};
use crate::{Error, Result};

/// Reads chunks by id: the one reading trait that the manifest crate sees.
pub trait ChunkSource: Send + Sync {
    /// The plaintext of a chunk.
    fn read_chunk(&self, id: &ChunkId) -> Result<Vec<u8>>;
}

/// What the caller holds for encoding a chunk as a delta.
#[derive(Clone, Copy)]
pub struct DeltaBase<'a> {
    /// Never itself stored as a delta: see [`Session::delta_base`].
    pub id: ChunkId,
    /// Its plaintext.
    pub plain: &'a [u8],
}

/// Answer of [`Session::reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// The repository (or this session) has it: nothing to store.
    Known,
    /// The caller must now store it; nobody else will.
    Mine,
}

/// Counters of a session's writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteCounters {
    /// New chunks.
    pub chunks_new: u64,
    /// Their plaintext in bytes.
    pub bytes_new: u64,
    /// Of these, chunks stored as deltas.
    pub deltas_new: u64,
    /// Bytes of all published objects so far.
    pub bytes_stored: u64,
    /// Packs so far.
    pub packs_new: u64,
}

/// A registered operation on a repository: collection waits for it. Shared by threads by reference.
pub struct Session {
    _private: (),
}

impl Session {
    /// Registers (an object in `sessions/`, held), then reads the condemned objects, the list of packs and the index.
    pub fn begin(_repository: &Repository) -> Result<Self> {
        todo!()
    }
    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        todo!()
    }
    /// Roots as listed after registration.
    #[must_use]
    pub fn roots(&self) -> &[RootName] {
        todo!()
    }
    /// Whether chunks reached from this root may be reused without a look at the index.
    #[must_use]
    pub fn trusts(&self, _root: &RootName) -> bool {
        todo!()
    }
    /// Where a chunk stands, for reading (also in condemned packs, also written by this session).
    pub fn locate(&self, _id: &ChunkId) -> Result<Option<Location>> {
        todo!()
    }
    /// Whether a chunk counts as stored for deduplication.
    pub fn contains(&self, _id: &ChunkId) -> Result<bool> {
        todo!()
    }
    /// Looks a chunk up and reserves it, so that two workers never store it twice. A reservation that is not
    /// followed by a store (because of an error) makes the session unable to commit.
    pub fn reserve(&self, _id: &ChunkId) -> Result<Reservation> {
        todo!()
    }
    /// The id to use as base for a delta against `id`: itself, or its own base when it is a delta.
    pub fn delta_base(&self, _id: &ChunkId) -> Result<Option<ChunkId>> {
        todo!()
    }
    /// Decodes a whole record (one chunk or a frame) at a location into `buffer`; for readers that sort by place.
    /// The buffer is cleared first. Deltas read their base through a small shared cache.
    pub fn read_record(&self, _location: &Location, _buffer: &mut Vec<u8>) -> Result<()> {
        todo!()
    }
    /// An encoder with reusable contexts and buffers; one for each worker.
    pub fn writer(&self) -> Result<ChunkWriter<'_>> {
        todo!()
    }
    /// Publishes full packs and an index fragment, without a root: what an interrupted run stored is found again.
    pub fn checkpoint(&self) -> Result<()> {
        todo!()
    }
    /// Ends all open packs. First link of the commit chain.
    pub fn seal_packs(&self) -> Result<UnsyncedPacks<'_>> {
        todo!()
    }
    /// Counters so far.
    #[must_use]
    pub fn counters(&self) -> WriteCounters {
        todo!()
    }
    /// Ends the session and removes its object.
    pub fn end(self) -> Result<()> {
        todo!()
    }
}

impl ChunkSource for Session {
    fn read_chunk(&self, _id: &ChunkId) -> Result<Vec<u8>> {
        todo!()
    }
}

/// Encodes and seals chunks into the session's open packs.
pub struct ChunkWriter<'s> {
    _session: &'s Session,
}

impl ChunkWriter<'_> {
    /// Stores one chunk that was reserved: as delta where a base is given and it pays, else zstd, else raw.
    pub fn store(
        &mut self,
        _kind: RecordKind,
        _id: &ChunkId,
        _plain: &[u8],
        _base: Option<DeltaBase<'_>>,
    ) -> Result<()> {
        todo!()
    }
    /// Stores small chunks that were reserved, as one frame: `plain` is their concatenation.
    pub fn store_frame(&mut self, _members: &[(ChunkId, u32)], _plain: &[u8]) -> Result<()> {
        todo!()
    }
    /// Hashes, reserves and stores a manifest node; returns its id.
    pub fn store_node(&mut self, _plain: &[u8]) -> Result<ChunkId> {
        todo!()
    }
}

/// Packs written and not yet durable.
#[must_use]
pub struct UnsyncedPacks<'s> {
    _session: &'s Session,
}

/// Durable packs that no index names yet.
#[must_use]
pub struct DurablePacks<'s> {
    _session: &'s Session,
}

/// A durable index: a root may now be published.
#[must_use]
pub struct DurableIndex<'s> {
    _session: &'s Session,
}

impl<'s> UnsyncedPacks<'s> {
    /// Publishes the packs in one batch.
    pub fn sync(self) -> Result<DurablePacks<'s>> {
        todo!()
    }
}

impl<'s> DurablePacks<'s> {
    /// Publishes the index fragment of the new packs.
    pub fn publish_index(self) -> Result<DurableIndex<'s>> {
        todo!()
    }
}

impl DurableIndex<'_> {
    /// Publishes a root: the commit point. [`Error::NameTaken`] when a root with this tag exists.
    pub fn publish_root(self, _root: RootName, _payload: &[u8]) -> Result<()> {
        Err(Error::NameTaken)
    }
}
