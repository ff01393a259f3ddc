//! Writes records into new packs outside any create: collection's copies.

use crate::Result;
use crate::collect::publish_fragment;
use crate::ids::{ChunkId, PackId};
use crate::location::{Encoding, RecordKind};
use crate::parity::protect;
use crate::repository::Repository;
use crate::session::commit::{CHECKPOINT_CHUNKS, CHECKPOINT_PACKS};
use crate::session::pool::{PackPool, Record, SealedPack};

pub(crate) struct PackCopier<'r> {
    repository: &'r Repository,
    data: PackPool,
    nodes: PackPool,
    sealed: Vec<SealedPack>,
    bytes: u64,
}

impl<'r> PackCopier<'r> {
    pub(crate) fn new(repository: &'r Repository) -> Self {
        let bytes_max = u64::from(repository.config().parameters.pack_bytes_max);
        let data = PackPool::new(RecordKind::Data, bytes_max, 2);
        Self { repository, data, nodes: PackPool::new(RecordKind::Node, bytes_max, 1), sealed: Vec::new(), bytes: 0 }
    }

    pub(crate) fn put(
        &mut self,
        kind: RecordKind,
        encoding: Encoding,
        members: &[(ChunkId, u32)],
        base: Option<ChunkId>,
        payload: &[u8],
    ) -> Result<()> {
        let pool = match kind {
            RecordKind::Data => &self.data,
            RecordKind::Node => &self.nodes,
        };
        let mut random = [0; 8];
        self.repository.entropy().fill(&mut random)?;
        let record = Record { encoding, members, base, payload };
        self.sealed.extend(pool.seal(self.repository, u64::from_le_bytes(random), &record)?);
        let chunks: usize = self.sealed.iter().map(SealedPack::chunks).sum();
        if self.sealed.len() >= CHECKPOINT_PACKS || chunks >= CHECKPOINT_CHUNKS {
            self.publish_sealed()
        } else {
            Ok(())
        }
    }

    /// Packs first, then their parity, then their index. Returns the bytes of packs and parity.
    pub(crate) fn publish(mut self) -> Result<u64> {
        for pool in [&self.data, &self.nodes] {
            self.sealed.extend(pool.seal_all()?);
        }
        self.publish_sealed()?;
        Ok(self.bytes)
    }

    fn publish_sealed(&mut self) -> Result<()> {
        let mut entries = Vec::new();
        let mut objects = Vec::new();
        let packs: Vec<PackId> = self.sealed.iter().map(|sealed| sealed.pack).collect();
        for sealed in self.sealed.drain(..) {
            entries.extend(sealed.trailer.entries(sealed.pack));
            self.bytes += sealed.object.bytes;
            objects.push(sealed.object);
        }
        self.repository.backend().publish(objects)?;
        self.bytes += protect(self.repository, &packs)?;
        // What a copier is given was hashed again: it is the copier's word from now on.
        publish_fragment(self.repository, &mut entries, self.repository.keys().author_of_own())
    }
}
