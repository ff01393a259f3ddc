//! Sessions: every operation that reads or writes chunks.
//!
//! A session is an object that its process holds. It begins in this order: read what is condemned, hold an
//! object that says which sentences these were, read what has been condemned since, then list roots and
//! packs. A collection publishes a sentence first and lists sessions after, each time that it comes to it,
//! and waits for every one that does not say that it knows the sentence. So one of the two always sees the
//! other, also when a sentence was put back that had been carried out long ago.

mod commit;
pub(crate) mod copy;
mod fresh;
mod pool;
mod read;
mod write;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

pub use commit::{DurableIndex, DurablePacks, UnsyncedPacks};
pub use write::ChunkWriter;

use crate::backend::{Hold, ObjectKind, ObjectName};
use crate::collect::condemned::Condemned;
use crate::ids::{ChunkId, PackId};
use crate::index::{Index, LOAD_ATTEMPTS, Standing, is_fragment_missing, too_busy};
use crate::location::{Location, RecordKind};
use crate::mutants::Mutant;
use crate::repository::{Repository, RootName};
use crate::session::fresh::FreshChunks;
use crate::session::pool::{PackPool, SealedPack};
use crate::session::read::ReadCaches;
use crate::signing::SignerId;
use crate::{Error, Result};

/// Reads chunks by id: the one reading trait that the manifest crate sees.
pub trait ChunkSource: Send + Sync {
    /// The plaintext of a chunk, verified against its id.
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
    /// New chunks of file contents.
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

#[derive(Default)]
struct Counters {
    chunks_new: AtomicU64,
    bytes_new: AtomicU64,
    deltas_new: AtomicU64,
    bytes_stored: AtomicU64,
    packs_new: AtomicU64,
}

/// Which fragments are asked, by their standing.
type Which<'a> = dyn Fn(Standing) -> bool + 'a;

/// A registered operation on a repository: collection waits for it. Shared by threads by reference. Dropping
/// it lets go of its object as the death of the process would.
pub struct Session {
    repository: Repository,
    hold: Mutex<Option<Box<dyn Hold>>>,
    condemned: Condemned,
    roots: Vec<RootName>,
    /// Whose word is taken first, beside owners'.
    preferred: RwLock<Option<SignerId>>,
    index: OnceLock<Index>,
    present: OnceLock<RwLock<HashSet<PackId>>>,
    fresh: FreshChunks,
    data_packs: PackPool,
    node_packs: PackPool,
    sealed: Mutex<Vec<SealedPack>>,
    unstored: AtomicU64,
    poisoned: AtomicBool,
    stop: OnceLock<Arc<AtomicBool>>,
    counters: Counters,
    caches: ReadCaches,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session(of {:?})", self.repository.backend())
    }
}

impl Session {
    /// Registers (an object in `sessions/`, held), then reads what is condemned and lists the roots. The
    /// index and the list of packs are read when the first lookup needs them.
    pub fn begin(repository: &Repository) -> Result<Self> {
        let known = Self::known(repository)?;
        if repository.is_mutant(Mutant::BeginsUnregistered) {
            let tokens = known.tokens();
            let session = Self::held(repository, None, known)?;
            *lock(&session.hold) = Some(hold(repository, &tokens)?);
            return Ok(session);
        }
        let hold = hold(repository, &known.tokens())?;
        Self::held(repository, Some(hold), known)
    }

    /// The same for reading alone, where it also serves whoever may not write there: on a read-only medium,
    /// without the permission. No collection waits for a session that is not registered, so what it reads may
    /// be swept: then it misses a chunk, and never gets a wrong one.
    pub fn begin_reading(repository: &Repository) -> Result<Self> {
        let known = Self::known(repository)?;
        let hold = match hold(repository, &known.tokens()) {
            Ok(hold) => Some(hold),
            Err(error) if error.is_write_refused() => None,
            Err(error) => return Err(error),
        };
        let session = Self::held(repository, hold, known)?;
        // Nothing that it wrote could be relied on.
        session.poisoned.store(!session.is_registered(), Ordering::SeqCst);
        Ok(session)
    }

    /// For a look at what is there: it writes nothing, not even its own object, so no collection waits for
    /// it.
    pub fn begin_looking(repository: &Repository) -> Result<Self> {
        let session = Self::held(repository, None, Self::known(repository)?)?;
        session.poisoned.store(true, Ordering::SeqCst);
        Ok(session)
    }

    /// Whether collections wait for it.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        lock(&self.hold).is_some()
    }

    /// What is condemned before it registers. A process that lives long seals nothing under keys that were
    /// rotated away, and stops when its key was removed: whoever sees its object sees one that knows that.
    fn known(repository: &Repository) -> Result<Condemned> {
        repository.refresh_keys()?;
        Condemned::load(repository)
    }

    fn held(repository: &Repository, hold: Option<Box<dyn Hold>>, mut condemned: Condemned) -> Result<Self> {
        condemned.learn(repository)?;
        let roots = repository.roots()?;
        let parameters = &repository.config().parameters;
        let pack_bytes_max = u64::from(parameters.pack_bytes_max);
        Ok(Self {
            repository: repository.clone(),
            hold: Mutex::new(hold),
            condemned,
            roots,
            preferred: RwLock::default(),
            index: OnceLock::new(),
            present: OnceLock::new(),
            fresh: FreshChunks::default(),
            data_packs: PackPool::new(RecordKind::Data, pack_bytes_max, 2),
            node_packs: PackPool::new(RecordKind::Node, pack_bytes_max, 1),
            sealed: Mutex::default(),
            unstored: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            stop: OnceLock::new(),
            counters: Counters::default(),
            caches: ReadCaches::default(),
        })
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Roots as listed after registration.
    #[must_use]
    pub fn roots(&self) -> &[RootName] {
        &self.roots
    }

    /// From now on reading a chunk ends with [`Error::Interrupted`] once the flag is set. Nodes of manifests
    /// are chunks, so no walk goes past it, however long a snapshot makes itself.
    pub fn stop_when(&self, flag: &Arc<AtomicBool>) {
        self.stop.get_or_init(|| Arc::clone(flag));
    }

    fn check_stop(&self) -> Result<()> {
        match self.stop.get() {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    /// Whether a collection had condemned a pack when this session began: it may go at any time.
    #[must_use]
    pub fn is_condemned(&self, pack: &PackId) -> bool {
        self.condemned.contains(pack)
    }

    /// From now on chunks are read where the key that signed a snapshot says, and where owners say, before
    /// what other keys say: what they made up costs nobody else a snapshot.
    pub fn prefer(&self, signer: Option<SignerId>) {
        *self.preferred.write().unwrap_or_else(PoisonError::into_inner) = signer;
    }

    /// Asks first where chunks are read best, then everywhere.
    fn find_readable(&self, find: &dyn Fn(&Which<'_>) -> Result<Option<Location>>) -> Result<Option<Location>> {
        let preferred = *self.preferred.read().unwrap_or_else(PoisonError::into_inner);
        let best = |standing| match standing {
            Standing::Trusted => true,
            Standing::OfMember(signer) => preferred == Some(signer),
            Standing::Stranger => false,
        };
        match find(&best)? {
            None => find(&|_| true),
            found => Ok(found),
        }
    }

    /// Where a chunk stands, for reading: a place that lasts, or else one in a condemned pack; never in packs
    /// that this session has not published yet. A delta's place counts only while a whole place of its base
    /// is there. Where the index does not say and a part of it does not open, that is the error.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<Location>> {
        self.with_index(|index, present| {
            let lasts = |pack: &PackId| present.contains(pack) && !self.condemned.contains(pack);
            let found = match self.find_readable(&|which| find_decodable(index, id, which, &lasts))? {
                None if !self.condemned.is_empty() => {
                    self.find_readable(&|which| find_decodable(index, id, which, &|pack| present.contains(pack)))?
                }
                found => found,
            };
            or_unreadable(index, found)
        })
    }

    /// The pack that the index names for a chunk, or for the base of its delta, and that is gone; `None`
    /// where it names none, or one that is there.
    pub fn lost_pack(&self, id: &ChunkId) -> Result<Option<PackId>> {
        self.with_index(|index, present| {
            let gone = |id: &ChunkId| index.find(id, &mut |location| Ok(!present.contains(&location.pack)));
            if let Some(found) = gone(id)? {
                return Ok(Some(found.location.pack));
            }
            let delta = index.find(id, &mut |location| Ok(location.base.is_some()))?;
            let base = match delta.and_then(|found| found.location.base) {
                Some(base) if find_whole(index, &base, &|_| true, &|pack| present.contains(pack))?.is_none() => {
                    gone(&base)?
                }
                _ => None,
            };
            Ok(base.map(|found| found.location.pack))
        })
    }

    /// Whether a chunk counts as stored for deduplication.
    pub fn contains(&self, id: &ChunkId) -> Result<bool> {
        Ok(self.fresh.contains(id) || self.find_live(id)?.is_some())
    }

    /// Looks a chunk up and reserves it, so that two workers never store it twice. A reservation that is not
    /// followed by a store (because of an error) makes the session unable to commit.
    pub fn reserve(&self, id: &ChunkId) -> Result<Reservation> {
        if self.fresh.contains(id) || self.find_live(id)?.is_some() || !self.fresh.insert(*id) {
            return Ok(Reservation::Known);
        }
        self.unstored.fetch_add(1, Ordering::Relaxed);
        Ok(Reservation::Mine)
    }

    /// The id to use as base for a delta against `id`: itself, or its own base when it is a delta.
    pub fn delta_base(&self, id: &ChunkId) -> Result<Option<ChunkId>> {
        Ok(self.find_live(id)?.map(|location| location.base.unwrap_or(*id)))
    }

    /// Counters so far.
    #[must_use]
    pub fn counters(&self) -> WriteCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriteCounters {
            chunks_new: read(&self.counters.chunks_new),
            bytes_new: read(&self.counters.bytes_new),
            deltas_new: read(&self.counters.deltas_new),
            bytes_stored: read(&self.counters.bytes_stored),
            packs_new: read(&self.counters.packs_new),
        }
    }

    /// Ends the session and removes its object.
    pub fn end(self) -> Result<()> {
        match lock(&self.hold).take() {
            Some(hold) => hold.release(),
            None => Ok(()),
        }
    }

    pub(crate) fn index(&self) -> Result<&Index> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let index = Index::load(self.repository.backend(), self.repository.keys())?;
        Ok(self.index.get_or_init(|| index))
    }

    /// Packs that are there, listed after the index was: a pack that the index names and that is not there is
    /// absent. It may have been swept between the two, and its chunks stand where that index does not know:
    /// then both are read again, until the same packs are missing as before.
    fn present(&self) -> Result<RwLockReadGuard<'_, HashSet<PackId>>> {
        let present = match self.present.get() {
            Some(present) => present,
            None => {
                let index = self.index()?;
                let mut packs: HashSet<PackId> = crate::check::packs(&self.repository)?.into_iter().collect();
                let mut missing = missing_packs(index, &packs);
                for _ in 0..LOAD_ATTEMPTS {
                    if missing.is_empty() || self.repository.is_mutant(Mutant::ListsPacksOnce) {
                        break;
                    }
                    index.reload()?;
                    packs = crate::check::packs(&self.repository)?.into_iter().collect();
                    let still = missing_packs(index, &packs);
                    if still == missing {
                        break;
                    }
                    missing = still;
                }
                self.present.get_or_init(|| RwLock::new(packs))
            }
        };
        Ok(present.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the index and the list of packs again.
    pub(crate) fn refresh(&self) -> Result<()> {
        let (Some(index), Some(present)) = (self.index.get(), self.present.get()) else { return Ok(()) };
        index.reload()?;
        // A pack of its own that this session has published stays among them, also when the listing was
        // faster.
        let packs = crate::check::packs(&self.repository)?;
        present.write().unwrap_or_else(PoisonError::into_inner).extend(packs);
        Ok(())
    }

    /// Asks the index; once more after it was read again, when another process merged a fragment away
    /// meanwhile.
    fn with_index<T>(&self, ask: impl Fn(&Index, &HashSet<PackId>) -> Result<T>) -> Result<T> {
        for _ in 0..LOAD_ATTEMPTS {
            let index = self.index()?;
            let present = self.present()?;
            let answer = ask(index, &present);
            drop(present);
            match answer {
                Err(error) if is_fragment_missing(&error) => self.refresh()?,
                answer => return answer,
            }
        }
        Err(too_busy())
    }

    /// A place that no collection is about to take away.
    fn find_live(&self, id: &ChunkId) -> Result<Option<Location>> {
        let reuses = self.repository.is_mutant(Mutant::ReusesCondemnedChunks);
        let which = |standing| standing == Standing::Trusted;
        self.with_index(|index, present| {
            let lasts = |pack: &PackId| present.contains(pack) && (reuses || !self.condemned.contains(pack));
            find_decodable(index, id, &which, &lasts)
        })
    }

    /// Whether what counts as stored has a delta's base whole, in a place that lasts.
    pub(crate) fn has_trusted_base(&self, base: &ChunkId) -> Result<bool> {
        self.with_index(|index, present| {
            let lasts = |pack: &PackId| present.contains(pack) && !self.condemned.contains(pack);
            Ok(find_whole(index, base, &|standing| standing == Standing::Trusted, &lasts)?.is_some())
        })
    }

    /// The place at which a delta's base is read.
    pub(crate) fn locate_base(&self, base: &ChunkId) -> Result<Option<Location>> {
        self.with_index(|index, present| {
            let lasts = |pack: &PackId| present.contains(pack) && !self.condemned.contains(pack);
            let found = match self.find_readable(&|which| find_whole(index, base, which, &lasts))? {
                None if !self.condemned.is_empty() => {
                    self.find_readable(&|which| find_whole(index, base, which, &|pack| present.contains(pack)))?
                }
                found => found,
            };
            or_unreadable(index, found)
        })
    }
}

/// Packs that fragments name and that are not there.
fn missing_packs(index: &Index, present: &HashSet<PackId>) -> HashSet<PackId> {
    let fragments = index.fragments();
    let named = fragments.iter().flat_map(|fragment| fragment.packs()).map(|(pack, _)| *pack);
    named.filter(|pack| !present.contains(pack)).collect()
}

/// What is not found may be what a damaged fragment knew.
fn or_unreadable(index: &Index, found: Option<Location>) -> Result<Option<Location>> {
    match (found, index.unreadable()) {
        (None, Some(damage)) => Err(damage),
        (found, _) => Ok(found),
    }
}

/// A place in an accepted pack; of a delta only when its base has a whole place in one too. An index may keep
/// deltas that nothing reaches and whose base was collected: those are as good as absent.
fn find_decodable(
    index: &Index,
    id: &ChunkId,
    which: &dyn Fn(Standing) -> bool,
    accept: &dyn Fn(&PackId) -> bool,
) -> Result<Option<Location>> {
    let mut decodable = |location: &Location| {
        Ok(accept(&location.pack)
            && match location.base {
                None => true,
                Some(base) => find_whole(index, &base, which, accept)?.is_some(),
            })
    };
    Ok(index.find_in(id, which, &mut decodable)?.map(|found| found.location))
}

/// Registers a session that knows these sentences.
fn hold(repository: &Repository, known: &[u8]) -> Result<Box<dyn Hold>> {
    let id = repository.new_object_id()?;
    let name = ObjectName::new(ObjectKind::Session, id.to_string())
        .ok_or_else(|| Error::damaged("a session", "its name is none"))?;
    match repository.backend().hold(&name, known) {
        // It takes room on a full disk, where a collection is to give some back. Without it the session is
        // waited for as one that knows nothing.
        Err(error) if error.is_disk_full() && !known.is_empty() => repository.backend().hold(&name, b""),
        held => held,
    }
}

/// A place of a chunk that is no delta: only such a one can be a base. The same chunk may stand elsewhere as
/// a delta.
fn find_whole(
    index: &Index,
    id: &ChunkId,
    which: &dyn Fn(Standing) -> bool,
    accept: &dyn Fn(&PackId) -> bool,
) -> Result<Option<Location>> {
    let mut whole = |location: &Location| Ok(location.base.is_none() && accept(&location.pack));
    Ok(index.find_in(id, which, &mut whole)?.map(|found| found.location))
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(hold) = lock(&self.hold).take() {
            // An object left behind is removed by the next collection: nobody holds it.
            let _ = hold.release();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
