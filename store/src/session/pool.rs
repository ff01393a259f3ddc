//! Open packs. Records go to one of at least two at random, so that neighbours of a file do not stand
//! together (eprint 2025/532); a pack that another worker is sealing into is passed by, and more are opened
//! only when all are busy.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::Result;
use crate::backend::{FinishedObject, ObjectWriter};
use crate::ids::{ChunkId, PackId};
use crate::location::{Encoding, RecordKind};
use crate::pack::{PackSealer, PackTrailer, pack_name};
use crate::padding::on_grid;
use crate::repository::Repository;

/// Sealed bytes collected before they are written away.
const BUFFER_BYTES: usize = 1 << 20;
/// Most packs open at once of one kind.
const OPEN_MAX: usize = 16;
/// A pack ends at so many chunks, however short they are: what is known of each waits in memory until the
/// pack is published. Its trailer alone makes such a pack too long to count as a small one, which a
/// collection would put together with others.
const PACK_CHUNKS_MAX: usize = 128 << 10;
/// From this share below its limit on, a pack ends where it fits the grid of lengths.
const TRAILER_SHARE: u64 = 16;
/// Padding that is little, as a share of the pack.
const PADDING_SHARE: u64 = 512;
/// From this share below its limit on, a pack ends wherever it is: one more record may not fit.
const LAST_SHARE: u64 = 32;

/// A pack wholly written and not yet published.
pub(super) struct SealedPack {
    pub(super) object: FinishedObject,
    pub(super) pack: PackId,
    pub(super) trailer: PackTrailer,
}

impl SealedPack {
    /// Chunks in it.
    pub(super) fn chunks(&self) -> usize {
        self.trailer.records.iter().map(|record| record.members.len()).sum()
    }
}

/// One record, encoded and ready to be sealed.
pub(super) struct Record<'a> {
    pub(super) encoding: Encoding,
    pub(super) members: &'a [(ChunkId, u32)],
    pub(super) base: Option<ChunkId>,
    pub(super) payload: &'a [u8],
}

struct OpenPack {
    sealer: PackSealer,
    buffer: Vec<u8>,
    writer: Box<dyn ObjectWriter>,
}

pub(super) struct PackPool {
    kind: RecordKind,
    pack_bytes_max: u64,
    slots: Vec<Mutex<Option<OpenPack>>>,
    active: AtomicUsize,
}

impl PackPool {
    pub(super) fn new(kind: RecordKind, pack_bytes_max: u64, open: usize) -> Self {
        let slots = (0..OPEN_MAX).map(|_| Mutex::new(None)).collect();
        Self { kind, pack_bytes_max, slots, active: AtomicUsize::new(open) }
    }

    /// Seals a record into some open pack. A pack that became full is returned.
    pub(super) fn seal(&self, repository: &Repository, random: u64, record: &Record<'_>) -> Result<Option<SealedPack>> {
        let mut slot = self.choose(random);
        let mut open = match slot.take() {
            Some(open) => open,
            None => self.open(repository)?,
        };
        open.sealer.seal_record(record.encoding, record.members, record.base, record.payload, &mut open.buffer)?;
        if open.buffer.len() >= BUFFER_BYTES {
            open.writer.append(&open.buffer)?;
            open.buffer.clear();
        }
        if self.is_full(&open.sealer) {
            return open.seal().map(Some);
        }
        *slot = Some(open);
        Ok(None)
    }

    /// A pack ends near its limit, where little padding is needed.
    fn is_full(&self, sealer: &PackSealer) -> bool {
        let max = self.pack_bytes_max;
        let bytes = sealer.bytes_with_trailer();
        let fits_the_grid = on_grid(bytes) - bytes <= bytes / PADDING_SHARE;
        sealer.chunks() >= PACK_CHUNKS_MAX
            || bytes >= max - max / TRAILER_SHARE && fits_the_grid
            || bytes >= max - max / LAST_SHARE
    }

    /// Ends every open pack.
    pub(super) fn seal_all(&self) -> Result<Vec<SealedPack>> {
        let mut sealed = Vec::new();
        for slot in &self.slots {
            let open = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            match open {
                Some(open) if !open.sealer.is_empty() => sealed.push(open.seal()?),
                _ => {}
            }
        }
        Ok(sealed)
    }

    fn choose(&self, random: u64) -> MutexGuard<'_, Option<OpenPack>> {
        let active = self.active.load(Ordering::Relaxed);
        let first = (random % active as u64) as usize;
        for step in 0..active {
            match self.slots[(first + step) % active].try_lock() {
                Ok(slot) => return slot,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        if active < OPEN_MAX {
            // Two workers may both raise it by one: no harm.
            self.active.fetch_max(active + 1, Ordering::Relaxed);
            return self.slots[active].lock().unwrap_or_else(PoisonError::into_inner);
        }
        self.slots[first].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, repository: &Repository) -> Result<OpenPack> {
        let pack = PackId(repository.new_object_id()?.0);
        let writer = repository.backend().create(&pack_name(pack), self.pack_bytes_max)?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + (256 << 10));
        let sealer = PackSealer::new(repository.keys(), pack, self.kind, &mut buffer)?;
        Ok(OpenPack { sealer, buffer, writer })
    }
}

impl OpenPack {
    fn seal(mut self) -> Result<SealedPack> {
        let pack = self.sealer.pack();
        let (trailer, _) = self.sealer.finish(&mut self.buffer)?;
        self.writer.append(&self.buffer)?;
        Ok(SealedPack { object: self.writer.finish()?, pack, trailer })
    }
}
