//! The index: immutable sorted fragments, read in place. A lookup costs a filter, a search of fences, and one
//! block.
//!
//! It is what the repository holds, not a cache: a fragment names the packs whose chunks it lists, and a pack
//! that is not there makes its entries absent.

mod block;
mod filter;
mod fragment;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub(crate) use block::Block;
pub(crate) use fragment::{Fragment, Standing, build_fragment, fragment_name};

use crate::backend::{Backend, ObjectKind};
use crate::collect::Retired;
use crate::error::Unreadable;
use crate::ids::ChunkId;
use crate::keys::Keys;
use crate::location::Location;
use crate::roles::Role;
use crate::{Error, Result};

/// Memory for opened blocks in bytes.
const BLOCK_CACHE_BYTES: usize = 48 << 20;
/// Memory for the directories and filters of one key that is no owner's, in bytes: those of a hundred million
/// chunks. What it stores beyond is as if it were not there, which costs that key alone.
const BYTES_OF_ONE_KEY_MAX: u64 = 192 << 20;
/// A fragment that was merged away while it was being opened: list again, so often.
pub(crate) const LOAD_ATTEMPTS: usize = 8;

/// The fragments of a repository, open. Shared by threads.
///
/// A fragment that does not verify, is of a newer version, or is not for the key in use, is passed over, and
/// makes what only it knows absent: a writer stores such a chunk again, a reader says [`Index::unreadable`]
/// where it finds nothing. Nothing that removes fragments goes on beside such a one.
pub(crate) struct Index {
    fragments: RwLock<Fragments>,
    unreadable: Mutex<Option<Unreadable>>,
    cache: Mutex<BlockCache>,
    backend: Arc<dyn Backend>,
    keys: Keys,
    uses: AtomicU64,
}

type Fragments = Arc<Vec<Arc<Fragment>>>;

#[derive(Default)]
struct BlockCache {
    blocks: HashMap<(crate::ids::ObjectId, u32), (Arc<Block>, u64)>,
    bytes: usize,
}

/// An entry that was asked for: its fragment's place in [`Index::fragments`], its number there, and what it
/// says.
pub(crate) struct Found {
    pub(crate) fragment: usize,
    pub(crate) ordinal: u64,
    pub(crate) location: Location,
}

impl Index {
    /// Opens every fragment.
    pub(crate) fn load(backend: &Arc<dyn Backend>, keys: &Keys) -> Result<Self> {
        let opened = open_all(&**backend, keys)?;
        Ok(Self {
            fragments: RwLock::new(Arc::new(opened.fragments)),
            unreadable: Mutex::new(opened.unreadable),
            cache: Mutex::default(),
            backend: Arc::clone(backend),
            keys: keys.clone(),
            uses: AtomicU64::new(0),
        })
    }

    /// Opens every fragment again: those known were merged away, or a new one was merged before it was added.
    pub(crate) fn reload(&self) -> Result<()> {
        let opened = open_all(&*self.backend, &self.keys)?;
        *self.fragments.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(opened.fragments);
        *self.lock_unreadable() = opened.unreadable;
        Ok(())
    }

    /// The damage of some fragment: what is not found may be what it knew.
    pub(crate) fn unreadable(&self) -> Option<Error> {
        self.lock_unreadable().as_ref().map(Error::from)
    }

    fn lock_unreadable(&self) -> std::sync::MutexGuard<'_, Option<Unreadable>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fragment just published.
    pub(crate) fn add(&self, fragment: Fragment) {
        let mut fragments = self.fragments.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut fragments).push(Arc::new(fragment));
    }

    pub(crate) fn fragments(&self) -> Fragments {
        Arc::clone(&self.fragments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first place of a chunk that `accept` takes; it may ask the index itself. What counts as stored
    /// comes first. An error that [`is_fragment_missing`] names means that the index must be loaded again:
    /// another process merged a fragment away.
    pub(crate) fn find(
        &self,
        id: &ChunkId,
        accept: &mut dyn FnMut(&Location) -> Result<bool>,
    ) -> Result<Option<Found>> {
        self.find_in(id, &|_| true, accept)
    }

    /// The same in fragments of some standing alone.
    pub(crate) fn find_in(
        &self,
        id: &ChunkId,
        which: &dyn Fn(Standing) -> bool,
        accept: &mut dyn FnMut(&Location) -> Result<bool>,
    ) -> Result<Option<Found>> {
        for (number, fragment) in self.fragments().iter().enumerate() {
            if !which(fragment.standing()) {
                continue;
            }
            if let Some((ordinal, location)) = self.passing_over_damage(self.look_up(fragment, id))?
                && accept(&location)?
            {
                return Ok(Some(Found { fragment: number, ordinal, location }));
            }
        }
        Ok(None)
    }

    /// What one fragment says of a chunk, with the entry's number there.
    fn look_up(&self, fragment: &Fragment, id: &ChunkId) -> Result<Option<(u64, Location)>> {
        let Some(number) = fragment.block_of(id) else { return Ok(None) };
        let block = self.block(fragment, number)?;
        let found = block.find(id, fragment.packs()).map_err(|error| fragment.named(error))?;
        Ok(found.map(|(row, location)| (fragment.ordinal(number, row), location)))
    }

    /// A block that does not open, or a row that cannot be, says nothing, and costs no other fragment's
    /// answer.
    fn passing_over_damage<T>(&self, looked_up: Result<Option<T>>) -> Result<Option<T>> {
        match looked_up {
            Err(Error::Damaged { object, detail }) => {
                *self.lock_unreadable() = Some(Unreadable::Damaged { object, detail });
                Ok(None)
            }
            looked_up => looked_up,
        }
    }

    /// The standings of its fragments, each once.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let mut standings = Vec::new();
        for fragment in self.fragments().iter() {
            if !standings.contains(&fragment.standing()) {
                standings.push(fragment.standing());
            }
        }
        standings
    }

    /// The places of a chunk that can be read, for whoever tries one after the other. See [`Self::find`] for
    /// errors.
    pub(crate) fn find_readable(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let mut all = Vec::new();
        for fragment in self.fragments().iter() {
            let found = self.passing_over_damage(self.look_up(fragment, id))?;
            all.extend(found.map(|(_, location)| location));
        }
        Ok(all)
    }

    /// Every place of a chunk: collection gives up what is not among them, so damage is an error. See
    /// [`Self::find`] for others.
    pub(crate) fn find_all(&self, id: &ChunkId) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for (number, fragment) in self.fragments().iter().enumerate() {
            if let Some((ordinal, location)) = self.look_up(fragment, id)? {
                all.push(Found { fragment: number, ordinal, location });
            }
        }
        Ok(all)
    }

    /// Every entry, fragment by fragment, in order. [`Error::Missing`] when a fragment was merged away
    /// meanwhile, which the maintenance lease prevents.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(usize, u64, ChunkId, Location) -> Result<()>) -> Result<()> {
        for (number, fragment) in self.fragments().iter().enumerate() {
            fragment.for_each(&*self.backend, &mut |ordinal, id, location| visit(number, ordinal, id, location))?;
        }
        Ok(())
    }

    /// Every entry of the blocks that open.
    pub(crate) fn for_each_readable(&self, mut visit: impl FnMut(ChunkId, Location)) -> Result<()> {
        for fragment in self.fragments().iter() {
            fragment.for_each_readable(&*self.backend, &mut visit)?;
        }
        Ok(())
    }

    fn block(&self, fragment: &Fragment, number: u32) -> Result<Arc<Block>> {
        let key = (fragment.id(), number);
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        if let Some((block, last)) = self.lock_cache().blocks.get_mut(&key) {
            *last = used;
            return Ok(Arc::clone(block));
        }
        let block = Arc::new(fragment.read_block(&*self.backend, number)?);
        let mut cache = self.lock_cache();
        cache.bytes += block.bytes();
        cache.blocks.insert(key, (Arc::clone(&block), used));
        if cache.bytes > BLOCK_CACHE_BYTES {
            cache.make_room();
        }
        Ok(block)
    }

    fn lock_cache(&self) -> std::sync::MutexGuard<'_, BlockCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fragments that open, and the damage of one that does not.
struct Opened {
    fragments: Vec<Arc<Fragment>>,
    unreadable: Option<Unreadable>,
}

/// Opens what is listed. What counts as stored first, and of that large ones: most lookups that hit anything
/// hit there.
fn open_all(backend: &dyn Backend, keys: &Keys) -> Result<Opened> {
    open_within(backend, keys, BYTES_OF_ONE_KEY_MAX)
}

fn open_within(backend: &dyn Backend, keys: &Keys, bytes_of_one_key_max: u64) -> Result<Opened> {
    for _ in 0..LOAD_ATTEMPTS {
        let retired = Retired::load(backend, keys)?;
        let mut fragments = Vec::new();
        let mut unreadable = None;
        let mut vanished = false;
        let mut taken: HashMap<Standing, u64> = HashMap::new();
        for listed in backend.list(ObjectKind::Index)? {
            match Fragment::open(backend, keys, &listed) {
                // Replaced, and put back.
                Ok(_) if retired.contains(&listed.name) => {}
                Ok(fragment) => {
                    let bytes = taken.entry(fragment.standing()).or_default();
                    *bytes = bytes.saturating_add(fragment.memory_bytes());
                    if fragment.is_trusted() || *bytes <= bytes_of_one_key_max {
                        fragments.push(Arc::new(fragment));
                    } else {
                        let error = Error::damaged(fragment.name(), "its key has stored more index than is read");
                        unreadable = Some(Unreadable::of(error)?);
                    }
                }
                Err(Error::Missing { .. }) => vanished = true,
                Err(_) if retired.contains(&listed.name) => {}
                // Of an epoch that a creating key was not given: what only it knows is stored again.
                Err(Error::NotPermitted { role: Role::Create, .. }) => {}
                Err(error) => unreadable = Some(Unreadable::of(error)?),
            }
        }
        if !vanished {
            fragments.sort_by_key(|fragment| (!fragment.is_trusted(), std::cmp::Reverse(fragment.entries())));
            return Ok(Opened { fragments, unreadable });
        }
    }
    Err(too_busy())
}

/// Names of the fragments that are read with so much memory for each key that is no owner's, and what is said
/// of the others.
#[cfg(feature = "fuzzing")]
pub(crate) fn names_within(backend: &dyn Backend, keys: &Keys, bytes: u64) -> Result<(Vec<String>, Option<Error>)> {
    let opened = open_within(backend, keys, bytes)?;
    let names = opened.fragments.iter().map(|fragment| fragment.name().to_string()).collect();
    Ok((names, opened.unreadable.as_ref().map(Error::from)))
}

/// Whether a fragment is gone.
pub(crate) fn is_fragment_missing(error: &Error) -> bool {
    matches!(error, Error::Missing { object } if object.starts_with(ObjectKind::Index.folder()))
}

pub(crate) fn too_busy() -> Error {
    Error::Busy { what: "the index, which other processes keep merging,".into() }
}

impl BlockCache {
    /// Drops the half used longest ago: seldom, so that its cost is spread.
    fn make_room(&mut self) {
        let mut uses: Vec<u64> = self.blocks.values().map(|(_, used)| *used).collect();
        let middle = uses.len() / 2;
        let (_, median, _) = uses.select_nth_unstable(middle);
        let median = *median;
        self.blocks.retain(|_, (_, used)| *used >= median);
        self.bytes = self.blocks.values().map(|(block, _)| block.bytes()).sum();
    }
}
