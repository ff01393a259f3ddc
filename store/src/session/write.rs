//! Encodes chunks and seals them into the session's open packs.

use std::sync::atomic::Ordering;

use crate::Result;
use crate::encoding::Encoder;
use crate::ids::ChunkId;
use crate::location::{Encoding, RecordKind};
use crate::roles::Action;
use crate::session::pool::Record;
use crate::session::{DeltaBase, Reservation, Session};

/// Level for manifest nodes: they are read by every operation, and are few.
const NODE_LEVEL: i32 = 3;

/// Encodes and seals chunks into the session's open packs; one for each worker.
pub struct ChunkWriter<'s> {
    session: &'s Session,
    data_encoder: Encoder,
    node_encoder: Encoder,
    payload: Vec<u8>,
    random: u64,
    deltas_stored: u64,
}

impl Session {
    /// An encoder with reusable contexts and buffers; one for each worker.
    pub fn writer(&self) -> Result<ChunkWriter<'_>> {
        self.repository.keys().role().require(Action::Store)?;
        let mut seed = [0; 8];
        self.repository.entropy().fill(&mut seed)?;
        Ok(ChunkWriter {
            session: self,
            data_encoder: Encoder::new(self.repository.config().parameters.compression_level)?,
            node_encoder: Encoder::new(NODE_LEVEL)?,
            payload: Vec::new(),
            random: u64::from_le_bytes(seed) | 1,
            deltas_stored: 0,
        })
    }
}

impl ChunkWriter<'_> {
    /// Stores one chunk that was reserved: as delta where a base is given and it pays, else zstd, else raw.
    pub fn store(&mut self, kind: RecordKind, id: &ChunkId, plain: &[u8], base: Option<DeltaBase<'_>>) -> Result<()> {
        let encoder = match kind {
            RecordKind::Data => &mut self.data_encoder,
            RecordKind::Node => &mut self.node_encoder,
        };
        let encoding = encoder.encode(plain, base.map(|base| base.plain), &mut self.payload)?;
        let base = base.filter(|_| encoding == Encoding::Delta).map(|base| base.id);
        self.seal(kind, encoding, &[(*id, plain.len() as u32)], base)
    }

    /// Stores small chunks that were reserved, as one frame: `plain` is their concatenation.
    pub fn store_frame(&mut self, members: &[(ChunkId, u32)], plain: &[u8]) -> Result<()> {
        let encoding = self.data_encoder.encode(plain, None, &mut self.payload)?;
        self.seal(RecordKind::Data, encoding, members, None)
    }

    /// Hashes, reserves and stores a manifest node; returns its id. A new one is a delta against the chunk
    /// and plaintext that `base` finds, where it pays; that chunk is never itself a delta: see
    /// [`Session::delta_base`].
    pub fn store_node(&mut self, plain: &[u8], base: impl FnOnce() -> Option<(ChunkId, Vec<u8>)>) -> Result<ChunkId> {
        let id = self.session.repository.keys().chunk_id(plain);
        if self.session.reserve(&id)? == Reservation::Mine {
            let base = base();
            let base = base.as_ref().map(|(id, plain)| DeltaBase { id: *id, plain });
            self.store(RecordKind::Node, &id, plain, base)?;
        }
        Ok(id)
    }

    /// How many chunks this writer stored as deltas: tells whether a base paid.
    #[must_use]
    pub fn deltas_stored(&self) -> u64 {
        self.deltas_stored
    }

    fn seal(
        &mut self,
        kind: RecordKind,
        encoding: Encoding,
        members: &[(ChunkId, u32)],
        base: Option<ChunkId>,
    ) -> Result<()> {
        let session = self.session;
        let pool = match kind {
            RecordKind::Data => &session.data_packs,
            RecordKind::Node => &session.node_packs,
        };
        let record = Record { encoding, members, base, payload: &self.payload };
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let full = pool.seal(&session.repository, self.random, &record)?;
        let count = members.len() as u64;
        let deltas = u64::from(encoding == Encoding::Delta);
        self.deltas_stored += deltas;
        session.unstored.fetch_sub(count, Ordering::Relaxed);
        if kind == RecordKind::Data {
            let bytes = members.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
            session.counters.chunks_new.fetch_add(count, Ordering::Relaxed);
            session.counters.bytes_new.fetch_add(bytes, Ordering::Relaxed);
            session.counters.deltas_new.fetch_add(deltas, Ordering::Relaxed);
        }
        match full {
            Some(pack) => session.keep_sealed(pack),
            None => Ok(()),
        }
    }
}
