//! The commit order as a chain of types: packs, sync, index, sync, root, sync. Each link consumes the one
//! before, so an unsynced pack cannot be indexed, and only a durable index lets a root be published.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::backend::{ObjectStat, publish_bytes};
use crate::ids::{ChunkId, PackId};
use crate::index::{Fragment, build_fragment, fragment_name};
use crate::location::Location;
use crate::mutants::Mutant;
use crate::parity::protect;
use crate::repository::RootName;
use crate::session::pool::SealedPack;
use crate::session::{Session, lock};
use crate::{Error, Result};

/// Full packs are published before the end, so that a killed create finds them again: when those that wait
/// are such a share of what is published already. So the first ones go one by one, and a long create makes no
/// fragment for each pack.
const CHECKPOINT_SHARE: u64 = 16;
/// However much is published already, no more packs than that wait.
pub(super) const CHECKPOINT_PACKS: usize = 16;
/// The same for chunks, whose entries wait in memory.
pub(super) const CHECKPOINT_CHUNKS: usize = 64 << 10;

/// Packs written and not yet durable.
#[must_use]
pub struct UnsyncedPacks<'s> {
    session: &'s Session,
    packs: Vec<SealedPack>,
}

/// Durable packs that no index names yet.
#[must_use]
pub struct DurablePacks<'s> {
    session: &'s Session,
    entries: Vec<(ChunkId, Location)>,
}

/// A durable index: a root may now be published.
#[must_use]
pub struct DurableIndex<'s> {
    session: &'s Session,
}

impl Session {
    /// Ends all open packs. First link of the commit chain. Nobody may be storing any more.
    pub fn seal_packs(&self) -> Result<UnsyncedPacks<'_>> {
        self.check_poison()?;
        if self.unstored.load(Ordering::Acquire) != 0 {
            return Err(self.poison(Error::Poisoned));
        }
        let mut packs = std::mem::take(&mut *lock(&self.sealed));
        for pool in [&self.data_packs, &self.node_packs] {
            packs.extend(pool.seal_all().map_err(|error| self.poison(error))?);
        }
        Ok(UnsyncedPacks { session: self, packs })
    }

    /// Publishes all packs and an index fragment, without a root: what an interrupted run stored is found
    /// again. Chunks reserved and never stored are no part of it.
    pub fn checkpoint(&self) -> Result<()> {
        self.check_poison()?;
        let mut packs = std::mem::take(&mut *lock(&self.sealed));
        for pool in [&self.data_packs, &self.node_packs] {
            packs.extend(pool.seal_all().map_err(|error| self.poison(error))?);
        }
        UnsyncedPacks { session: self, packs }.sync()?.publish_index().map(drop)
    }

    /// Keeps a full pack until the next publication, or makes that one now.
    pub(super) fn keep_sealed(&self, pack: SealedPack) -> Result<()> {
        let due = {
            let mut sealed = lock(&self.sealed);
            sealed.push(pack);
            let chunks: usize = sealed.iter().map(SealedPack::chunks).sum();
            let published = self.counters.packs_new.load(Ordering::Relaxed);
            let packs_max = (published / CHECKPOINT_SHARE).clamp(1, CHECKPOINT_PACKS as u64);
            let due = sealed.len() as u64 >= packs_max || chunks >= CHECKPOINT_CHUNKS;
            due.then(|| std::mem::take(&mut *sealed))
        };
        match due {
            None => Ok(()),
            Some(packs) => UnsyncedPacks { session: self, packs }.sync()?.publish_index().map(drop),
        }
    }

    /// Without its object nobody waits for this session. A collector that takes it for dead removes the
    /// object first, and lists roots after that: so a root that was published while the object stood is seen,
    /// and any other is not acknowledged.
    fn check_held(&self) -> Result<()> {
        match self.has_its_object() {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.poison(Error::SessionLost)),
            Err(error) => Err(self.poison(error)),
        }
    }

    fn has_its_object(&self) -> Result<bool> {
        if self.repository.is_mutant(Mutant::PublishesUnseen) {
            return Ok(true);
        }
        lock(&self.hold).as_ref().map_or(Ok(false), |hold| hold.is_current())
    }

    fn check_poison(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) { Err(Error::Poisoned) } else { Ok(()) }
    }

    /// After a failed write nobody knows what is durable: nothing more is acknowledged. Whoever took this
    /// session for dead has also removed what it was writing: then that is the error.
    fn poison(&self, error: Error) -> Error {
        self.poisoned.store(true, Ordering::Release);
        match (&error, self.has_its_object()) {
            (Error::Io { .. } | Error::Missing { .. }, Ok(false)) => Error::SessionLost,
            _ => error,
        }
    }
}

impl<'s> UnsyncedPacks<'s> {
    /// Publishes the packs in one batch, and then their parity where the repository has some.
    pub fn sync(self) -> Result<DurablePacks<'s>> {
        let session = self.session;
        session.check_poison()?;
        let packs: Vec<PackId> = self.packs.iter().map(|sealed| sealed.pack).collect();
        let mut objects = Vec::with_capacity(self.packs.len());
        let mut entries = Vec::new();
        let mut bytes = 0;
        for sealed in self.packs {
            entries.extend(sealed.trailer.entries(sealed.pack));
            bytes += sealed.object.bytes;
            objects.push(sealed.object);
        }
        let count = objects.len() as u64;
        if count > 0 {
            session.repository.backend().publish(objects).map_err(|error| session.poison(error))?;
            bytes += protect(&session.repository, &packs).map_err(|error| session.poison(error))?;
        }
        session.counters.bytes_stored.fetch_add(bytes, Ordering::Relaxed);
        session.counters.packs_new.fetch_add(count, Ordering::Relaxed);
        Ok(DurablePacks { session, entries })
    }
}

impl<'s> DurablePacks<'s> {
    /// Publishes the index fragment of the new packs.
    pub fn publish_index(mut self) -> Result<DurableIndex<'s>> {
        let session = self.session;
        session.check_poison()?;
        if self.entries.is_empty() {
            return Ok(DurableIndex { session });
        }
        let repository = &session.repository;
        if repository.is_mutant(Mutant::WritesWrongPlaces) {
            crate::mutants::misplace(&mut self.entries);
        }
        let mut publish = || -> Result<u64> {
            let id = repository.new_object_id()?;
            let name = fragment_name(id);
            let author = repository.keys().author_of_own();
            let object = build_fragment(repository.keys(), id, &mut self.entries, author)?;
            publish_bytes(&**repository.backend(), &name, &object)?;
            let bytes = object.len() as u64;
            session.adopt(&ObjectStat { name, bytes }, &self.entries)?;
            Ok(bytes)
        };
        let bytes = publish().map_err(|error| session.poison(error))?;
        session.counters.bytes_stored.fetch_add(bytes, Ordering::Relaxed);
        Ok(DurableIndex { session })
    }
}

impl DurableIndex<'_> {
    /// Publishes a root: the commit point; returns the bytes of its object. [`Error::NameTaken`] when a root
    /// with this tag exists; of two that appear at the same instant neither may stay, and never both.
    pub fn publish_root(self, root: RootName, payload: &[u8]) -> Result<u64> {
        self.publish_root_beside(root, payload, &|_| Ok(false))
    }

    /// The same beside roots with this tag that do not have the name: whoever may create can put one there
    /// whose snapshot is called otherwise. `is_other` tells, for who can open roots.
    pub fn publish_root_beside(
        self,
        root: RootName,
        payload: &[u8],
        is_other: &dyn Fn(&RootName) -> Result<bool>,
    ) -> Result<u64> {
        let session = self.session;
        session.check_poison()?;
        session.check_held()?;
        let repository = &session.repository;
        let taken = |roots: Vec<RootName>| -> Result<bool> {
            for other in roots.iter().filter(|other| other.tag == root.tag && **other != root) {
                if !is_other(other)? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        if taken(repository.roots()?)? {
            return Err(Error::NameTaken);
        }
        let bytes = repository.write_root(&root, payload).map_err(|error| session.poison(error))?;
        if !repository.is_mutant(Mutant::LooksForTheNameOnce) && taken(repository.roots()?)? {
            repository.withdraw_roots(&[root])?;
            return Err(Error::NameTaken);
        }
        if let Err(lost) = session.check_held() {
            repository.withdraw_roots(&[root])?;
            return Err(lost);
        }
        session.counters.bytes_stored.fetch_add(bytes, Ordering::Relaxed);
        Ok(bytes)
    }
}

impl Session {
    /// Opens a fragment that this session published, and forgets what it kept in its stead. Before the first
    /// lookup there is nothing to add to: the index will be listed with it.
    fn adopt(&self, listed: &ObjectStat, entries: &[(ChunkId, Location)]) -> Result<()> {
        let (Some(index), Some(present)) = (self.index.get(), self.present.get()) else { return Ok(()) };
        let packs = entries.iter().map(|(_, location)| location.pack);
        present.write().unwrap_or_else(PoisonError::into_inner).extend(packs);
        match Fragment::open(&**self.repository.backend(), self.repository.keys(), listed) {
            Ok(fragment) => index.add(fragment),
            // Another process has merged it already.
            Err(Error::Missing { .. }) => index.reload()?,
            Err(error) => return Err(error),
        }
        for (id, _) in entries {
            self.fresh.remove(id);
        }
        Ok(())
    }
}
