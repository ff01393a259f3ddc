//! Marking: one bit for each index entry, one count of live bytes for each pack.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::collect::Marker;
use crate::ids::{ChunkId, PackId};
use crate::index::{Found, Index, Standing};
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
    nodes: Mutex<Nodes>,
    /// Packs that a sentence names, also the one that is carried out now.
    condemned: HashSet<PackId>,
    standings: Vec<Standing>,
}

/// Nodes that a walk has come to, or will.
#[derive(Default)]
struct Nodes {
    marked: HashSet<ChunkId>,
    /// Those of the walk that goes on now.
    of_this_walk: Vec<ChunkId>,
}

/// What a key stores is built on its own and on what owners stored.
fn builds_on(standing: Standing, base: Standing) -> bool {
    base == standing || base == Standing::Trusted
}

/// Chunks of some packs that are reached, in 16 bytes each: by the number of the pack and the head of the id.
/// One that nothing reaches and whose head is another's would be copied too, which does no harm.
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
        let standings = index.standings();
        Self { session, index, bits, live_bytes, present, nodes: Mutex::default(), condemned, standings }
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

    /// Walks from one root. What a walk that ended early had come to counts as marked no more: what is below
    /// it was not visited, and another root may reach it.
    pub(super) fn walk(&self, walk: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.nodes().of_this_walk.clear();
        let walked = walk(self);
        if walked.is_err() {
            let mut nodes = self.nodes();
            for id in std::mem::take(&mut nodes.of_this_walk) {
                nodes.marked.remove(&id);
            }
        }
        walked
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index(&self) -> &Index {
        self.index
    }

    /// Whether a chunk is reached, and no owner's place of it away from a pack was marked: then what the pack
    /// holds of it is needed.
    pub(super) fn needs(&self, id: &ChunkId, pack: &PackId) -> Result<bool> {
        let fragments = self.index.fragments();
        let (mut is_reached, mut stands_elsewhere) = (false, false);
        for found in self.index.find_all(id)? {
            if !self.is_marked(found.fragment, found.ordinal) {
                continue;
            }
            is_reached = true;
            let place = &found.location.pack;
            let lasts = place != pack && self.present.contains(place) && !self.condemned.contains(place);
            let trusted = fragments.get(found.fragment).is_some_and(|fragment| fragment.is_trusted());
            stands_elsewhere |= lasts && trusted;
        }
        Ok(is_reached && !stands_elsewhere)
    }

    fn is_marked(&self, fragment: usize, ordinal: u64) -> bool {
        let word = self.bits.get(fragment).and_then(|bits| bits.get((ordinal / 64) as usize));
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (ordinal % 64)) != 0)
    }

    /// A place of a chunk away from all that is condemned, in fragments of one standing; of a delta with such
    /// a place of its base.
    fn find_lasting(&self, id: &ChunkId, standing: Standing) -> Result<Option<(Found, Option<Found>)>> {
        let lasts = |pack: &PackId| self.present.contains(pack) && !self.condemned.contains(pack);
        let mut base_place = None;
        let mut decodable = |location: &Location| {
            base_place = None;
            if !lasts(&location.pack) {
                return Ok(false);
            }
            let Some(base) = location.base else { return Ok(true) };
            let mut whole = |location: &Location| Ok(location.base.is_none() && lasts(&location.pack));
            base_place = self.index.find_in(&base, &|other| builds_on(standing, other), &mut whole)?;
            Ok(base_place.is_some())
        };
        let found = self.index.find_in(id, &|other| other == standing, &mut decodable)?;
        Ok(found.map(|found| (found, base_place)))
    }

    /// Marks every place, in fragments of one standing, of a chunk that has none that lasts, and every place
    /// of the bases: it hangs on a pardon, and which of its places are pardoned depends on sentences that are
    /// not carried out yet. Whether there is any.
    fn mark_everywhere(&self, id: &ChunkId, standing: Standing) -> Result<bool> {
        let mut known = false;
        for found in self.find_all(id, standing)? {
            match found.location.base {
                None => {}
                Some(base) => {
                    let mut readable = false;
                    for base in self.find_bases(&base, standing)? {
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
        Ok(known)
    }

    /// Marks what one standing has of a chunk. Whether it has any. Strangers are many, and one of them must
    /// not be the reason to give up what another stored: every place stays.
    fn mark_of(&self, id: &ChunkId, standing: Standing) -> Result<bool> {
        if standing == Standing::Stranger {
            return self.mark_everywhere(id, standing);
        }
        let Some((found, base)) = self.find_lasting(id, standing)? else {
            return self.mark_everywhere(id, standing);
        };
        if let Some(base) = base
            && !self.forgets_bases()
        {
            self.mark_place(&base)?;
        }
        self.mark_place(&found)?;
        Ok(true)
    }

    fn forgets_bases(&self) -> bool {
        self.session.repository().is_mutant(Mutant::ForgetsBases)
    }

    fn find_all(&self, id: &ChunkId, standing: Standing) -> Result<Vec<Found>> {
        self.find_places(id, &|other| other == standing)
    }

    fn find_bases(&self, base: &ChunkId, standing: Standing) -> Result<Vec<Found>> {
        let mut whole = self.find_places(base, &|other| builds_on(standing, other))?;
        whole.retain(|found| found.location.base.is_none());
        Ok(whole)
    }

    fn find_places(&self, id: &ChunkId, which: &dyn Fn(Standing) -> bool) -> Result<Vec<Found>> {
        let fragments = self.index.fragments();
        let mut all = self.index.find_all(id)?;
        all.retain(|found| {
            self.present.contains(&found.location.pack)
                && fragments.get(found.fragment).is_some_and(|fragment| which(fragment.standing()))
        });
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
        // An owner's place that lasts is proof enough. Without one each key's word is kept apart from the
        // others', because one that was made up must not be what a pack of another key is given up for.
        let lasts = self.find_lasting(id, Standing::Trusted)?.is_some();
        let mut known = lasts && self.mark_of(id, Standing::Trusted)?;
        if !lasts {
            for standing in &self.standings {
                known |= self.mark_of(id, *standing)?;
            }
        }
        if known {
            return Ok(());
        }
        Err(self.index.unreadable().unwrap_or_else(|| Error::Missing { object: format!("chunk {id}") }))
    }

    fn mark_node(&self, id: &ChunkId) -> Result<bool> {
        let mut nodes = self.nodes();
        if !nodes.marked.insert(*id) {
            return Ok(false);
        }
        nodes.of_this_walk.push(*id);
        drop(nodes);
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
