//! Marking: one bit for each index entry, one count of live bytes for each pack.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::collect::Marker;
use crate::ids::{ChunkId, PackId};
use crate::index::{Found, Index};
use crate::location::Location;
use crate::repository::Repository;
use crate::session::Session;
use crate::{Error, Result};

/// The bits of one run over an index. Shared by threads.
pub(super) struct Marks<'a> {
    session: &'a Session,
    index: &'a Index,
    bits: Vec<Vec<AtomicU64>>,
    live_bytes: HashMap<PackId, AtomicU64>,
    present: HashSet<PackId>,
    avoided: Avoided,
}

/// Packs to keep away from where another copy of a chunk stands.
#[derive(Default)]
pub(super) struct Avoided {
    /// Condemned by the sentence that is carried out now: what is marked in them is pardoned.
    pub(super) doomed: HashSet<PackId>,
    /// Condemned by sentences that wait: they may have been passed without knowing that a root reaches into them by now.
    pub(super) waiting: HashSet<PackId>,
}

/// Which packs a place may be in.
type Accept<'a> = &'a dyn Fn(&PackId) -> bool;

impl<'a> Marks<'a> {
    pub(super) fn new(session: &'a Session, index: &'a Index, present: HashSet<PackId>, avoided: Avoided) -> Self {
        let words = |entries: u64| (0..entries.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let bits = index.fragments().iter().map(|fragment| words(fragment.entries())).collect();
        let live_bytes = present.iter().map(|pack| (*pack, AtomicU64::new(0))).collect();
        Self { session, index, bits, live_bytes, present, avoided }
    }

    /// Stored bytes of a pack that are reached.
    pub(super) fn live_bytes(&self, pack: &PackId) -> u64 {
        self.live_bytes.get(pack).map_or(0, |bytes| bytes.load(Ordering::Relaxed))
    }

    /// The chunks reached that stand in the given packs.
    pub(super) fn live_in(&self, packs: &HashSet<PackId>) -> Result<HashSet<(PackId, ChunkId)>> {
        let mut live = HashSet::new();
        self.index.for_each(|fragment, ordinal, id, location| {
            if packs.contains(&location.pack) && self.is_marked(fragment, ordinal) {
                live.insert((location.pack, id));
            }
            Ok(())
        })?;
        Ok(live)
    }

    fn is_marked(&self, fragment: usize, ordinal: u64) -> bool {
        let word = self.bits.get(fragment).and_then(|bits| bits.get((ordinal / 64) as usize));
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (ordinal % 64)) != 0)
    }

    /// A place of a chunk, away from condemned packs where there is one. A delta's counts only with a whole place of its base.
    fn find(&self, id: &ChunkId) -> Result<Option<Found>> {
        self.avoiding(&|accept| {
            let mut decodable = |location: &Location| {
                Ok(accept(&location.pack)
                    && match location.base {
                        None => true,
                        Some(base) => self.find_whole(&base, accept)?.is_some(),
                    })
            };
            self.index.find(id, &mut decodable)
        })
    }

    fn find_whole(&self, id: &ChunkId, accept: Accept<'_>) -> Result<Option<Found>> {
        let mut whole = |location: &Location| Ok(location.base.is_none() && accept(&location.pack));
        self.index.find(id, &mut whole)
    }

    /// Asks among the packs that last, then among those that can be pardoned, then among all.
    fn avoiding(&self, ask: &dyn Fn(Accept<'_>) -> Result<Option<Found>>) -> Result<Option<Found>> {
        let Avoided { doomed, waiting } = &self.avoided;
        let lasting = ask(&|pack| self.present.contains(pack) && !doomed.contains(pack) && !waiting.contains(pack))?;
        if lasting.is_some() || (doomed.is_empty() && waiting.is_empty()) {
            return Ok(lasting);
        }
        match ask(&|pack| self.present.contains(pack) && !waiting.contains(pack))? {
            None => ask(&|pack| self.present.contains(pack)),
            found => Ok(found),
        }
    }

    /// `true` when the place was not marked before.
    fn mark_place(&self, found: &Found) -> Result<bool> {
        let bit = 1 << (found.ordinal % 64);
        let word = self.bits.get(found.fragment).and_then(|bits| bits.get((found.ordinal / 64) as usize));
        let word = word.ok_or_else(|| Error::damaged("the index", "an entry beyond its count"))?;
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return Ok(false);
        }
        let location = &found.location;
        let whole = u64::from(location.record_plain_bytes).max(1);
        let share = (u64::from(location.record_stored_bytes) * u64::from(location.bytes)).div_ceil(whole);
        if let Some(bytes) = self.live_bytes.get(&location.pack) {
            bytes.fetch_add(share.max(1), Ordering::Relaxed);
        }
        Ok(true)
    }
}

impl Marker for Marks<'_> {
    fn mark(&self, id: &ChunkId) -> Result<bool> {
        let missing =
            |id: &ChunkId| self.index.unreadable().unwrap_or_else(|| Error::Missing { object: format!("chunk {id}") });
        let found = self.find(id)?.ok_or_else(|| missing(id))?;
        if !self.mark_place(&found)? {
            return Ok(false);
        }
        if let Some(base) = found.location.base {
            let base_place = self.avoiding(&|accept| self.find_whole(&base, accept))?.ok_or_else(|| missing(&base))?;
            self.mark_place(&base_place)?;
        }
        Ok(true)
    }

    fn read_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        crate::session::ChunkSource::read_chunk(self.session, id)
    }
}

/// Packs that are there.
pub(super) fn present(repository: &Repository) -> Result<HashSet<PackId>> {
    Ok(crate::check::packs(repository)?.into_iter().collect())
}
