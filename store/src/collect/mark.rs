//! Marking: one bit for each index entry, one count of live bytes for each pack.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::collect::Marker;
use crate::ids::{ChunkId, PackId};
use crate::index::{Found, Index};
use crate::location::Location;
use crate::mutants::Mutant;
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
    /// Nodes marked: their number is a small share of that of all chunks.
    nodes: Mutex<HashSet<ChunkId>>,
    /// Packs that a sentence names, also the one that is carried out now.
    condemned: HashSet<PackId>,
}

/// Chunks of some packs that are reached, in 16 bytes each: by the number of the pack and the head of the id. One that nothing reaches
/// and whose head is another's would be copied too, which does no harm.
#[derive(Default)]
pub(super) struct LiveChunks {
    numbers: HashMap<PackId, u32>,
    keys: Vec<(u32, u64)>,
}

impl LiveChunks {
    pub(super) fn contains(&self, pack: &PackId, id: &ChunkId) -> bool {
        let number = self.numbers.get(pack);
        number.is_some_and(|number| self.keys.binary_search(&(*number, head_of(id))).is_ok())
    }
}

fn head_of(id: &ChunkId) -> u64 {
    u64::from_le_bytes(*id.as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

impl<'a> Marks<'a> {
    pub(super) fn new(
        session: &'a Session,
        index: &'a Index,
        present: HashSet<PackId>,
        condemned: HashSet<PackId>,
    ) -> Self {
        let words = |entries: u64| (0..entries.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let bits = index.fragments().iter().map(|fragment| words(fragment.entries())).collect();
        let live_bytes = present.iter().map(|pack| (*pack, AtomicU64::new(0))).collect();
        Self { session, index, bits, live_bytes, present, nodes: Mutex::default(), condemned }
    }

    /// Stored bytes of a pack that are reached.
    pub(super) fn live_bytes(&self, pack: &PackId) -> u64 {
        self.live_bytes.get(pack).map_or(0, |bytes| bytes.load(Ordering::Relaxed))
    }

    /// The chunks reached that stand in the given packs.
    pub(super) fn live_in(&self, packs: &HashSet<PackId>) -> Result<LiveChunks> {
        let numbers: HashMap<PackId, u32> = packs.iter().copied().zip(0..).collect();
        let mut keys = Vec::new();
        self.index.for_each(|fragment, ordinal, id, location| {
            if let Some(number) = numbers.get(&location.pack)
                && self.is_marked(fragment, ordinal)
            {
                keys.push((*number, head_of(&id)));
            }
            Ok(())
        })?;
        keys.sort_unstable();
        Ok(LiveChunks { numbers, keys })
    }

    fn is_marked(&self, fragment: usize, ordinal: u64) -> bool {
        let word = self.bits.get(fragment).and_then(|bits| bits.get((ordinal / 64) as usize));
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (ordinal % 64)) != 0)
    }

    /// A place of a chunk away from all that is condemned; of a delta with such a place of its base.
    fn find_lasting(&self, id: &ChunkId) -> Result<Option<(Found, Option<Found>)>> {
        let lasts = |pack: &PackId| self.present.contains(pack) && !self.condemned.contains(pack);
        let mut base_place = None;
        let mut decodable = |location: &Location| {
            base_place = None;
            if !lasts(&location.pack) {
                return Ok(false);
            }
            let Some(base) = location.base else { return Ok(true) };
            let mut whole = |location: &Location| Ok(location.base.is_none() && lasts(&location.pack));
            base_place = self.index.find(&base, &mut whole)?;
            Ok(base_place.is_some())
        };
        let found = self.index.find(id, &mut decodable)?;
        Ok(found.map(|found| (found, base_place)))
    }

    /// Marks every place of a chunk that has none that lasts, and every place of the bases: it hangs on a pardon, and which of its
    /// places are pardoned depends on sentences that are not carried out yet.
    fn mark_everywhere(&self, id: &ChunkId) -> Result<()> {
        let mut known = false;
        for found in self.find_all(id)? {
            match found.location.base {
                None => {}
                Some(base) => {
                    let whole = self.find_all(&base)?.into_iter().filter(|found| found.location.base.is_none());
                    let mut readable = false;
                    for base in whole {
                        readable = true;
                        if !self.forgets_bases() {
                            self.mark_place(&base)?;
                        }
                    }
                    if !readable {
                        continue;
                    }
                }
            }
            known = true;
            self.mark_place(&found)?;
        }
        if known {
            return Ok(());
        }
        Err(self.index.unreadable().unwrap_or_else(|| Error::Missing { object: format!("chunk {id}") }))
    }

    fn forgets_bases(&self) -> bool {
        self.session.repository().is_mutant(Mutant::ForgetsBases)
    }

    fn find_all(&self, id: &ChunkId) -> Result<Vec<Found>> {
        let mut all = self.index.find_all(id)?;
        all.retain(|found| self.present.contains(&found.location.pack));
        Ok(all)
    }

    fn mark_place(&self, found: &Found) -> Result<()> {
        let bit = 1 << (found.ordinal % 64);
        let word = self.bits.get(found.fragment).and_then(|bits| bits.get((found.ordinal / 64) as usize));
        let word = word.ok_or_else(|| Error::damaged("the index", "an entry beyond its count"))?;
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let location = &found.location;
        let whole = u64::from(location.record_plain_bytes).max(1);
        let share = (u64::from(location.record_stored_bytes) * u64::from(location.bytes)).div_ceil(whole);
        if let Some(bytes) = self.live_bytes.get(&location.pack) {
            bytes.fetch_add(share.max(1), Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Marker for Marks<'_> {
    fn mark(&self, id: &ChunkId) -> Result<()> {
        let Some((found, base)) = self.find_lasting(id)? else { return self.mark_everywhere(id) };
        if let Some(base) = base
            && !self.forgets_bases()
        {
            self.mark_place(&base)?;
        }
        self.mark_place(&found)
    }

    fn mark_node(&self, id: &ChunkId) -> Result<bool> {
        if !self.nodes.lock().unwrap_or_else(PoisonError::into_inner).insert(*id) {
            return Ok(false);
        }
        self.mark(id).map(|()| true)
    }

    fn read_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        crate::session::ChunkSource::read_chunk(self.session, id)
    }
}

/// Packs that are there.
pub(super) fn present(repository: &Repository) -> Result<HashSet<PackId>> {
    Ok(crate::check::packs(repository)?.into_iter().collect())
}
