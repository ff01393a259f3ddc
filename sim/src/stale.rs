//! A decorator whose listings lag, as those of some object stores do: what was deleted lately may still be
//! listed, and packs and index fragments that were published lately may be missing.
//!
//! Roots, sessions and condemned objects are never missing: collection rests on that, and a storage that
//! cannot promise it cannot hold a repository.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use copal_store::Result;
use copal_store::backend::{Backend, FinishedObject, Hold, ObjectKind, ObjectName, ObjectStat, ObjectWriter};

use crate::seeded::Choices;

/// One in so many listings lags.
const LAGS: u64 = 6;

#[derive(Debug, Default)]
struct Memory {
    choices: Choices,
    /// What the last listing of each kind gave.
    before: Vec<(ObjectKind, Vec<ObjectStat>)>,
    own: Vec<ObjectName>,
}

/// Lists what was there a while ago.
#[derive(Debug)]
pub struct StaleBackend {
    inner: Arc<dyn Backend>,
    memory: Mutex<Memory>,
    /// One in so many listings lags.
    lags: u64,
}

impl StaleBackend {
    /// A seed decides which listings lag.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, seed: u64) -> Self {
        Self { inner, memory: Mutex::new(Memory { choices: Choices::new(seed), ..Memory::default() }), lags: LAGS }
    }

    /// Remembers, and never lags: for the suite that every decorator passes.
    #[must_use]
    pub fn without_lag(inner: Arc<dyn Backend>) -> Self {
        Self { lags: u64::MAX, ..Self::new(inner, 0) }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for StaleBackend {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn prepare(&self) -> Result<()> {
        self.inner.prepare()
    }

    fn create(&self, name: &ObjectName, bytes_hint: u64) -> Result<Box<dyn ObjectWriter>> {
        self.inner.create(name, bytes_hint)
    }

    fn publish(&self, objects: Vec<FinishedObject>) -> Result<()> {
        let names: Vec<ObjectName> = objects.iter().map(|object| object.name.clone()).collect();
        self.inner.publish(objects)?;
        self.memory().own.extend(names);
        Ok(())
    }

    fn read_range(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.inner.read_range(name, offset, buffer)
    }

    fn read(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>> {
        self.inner.read(name, bytes_max)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectStat> {
        self.inner.stat(name)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<ObjectStat>> {
        let mut now = self.inner.list(kind)?;
        let mut memory = self.memory();
        let before = memory.before.iter().position(|(listed, _)| *listed == kind);
        let before = before.map(|at| memory.before.swap_remove(at).1);
        memory.before.push((kind, now.clone()));
        let Some(before) = before else { return Ok(now) };
        if memory.choices.one_in(self.lags) {
            // Nobody misses what it wrote itself.
            let forgetful = matches!(kind, ObjectKind::Pack | ObjectKind::Index);
            now.retain(|object| !forgetful || memory.own.contains(&object.name) || before.contains(object));
            // Held objects are asked about by name, so that a ghost among them is known for one.
            let ghosts: Vec<ObjectStat> = before.into_iter().filter(|object| !now.contains(object)).collect();
            now.extend(ghosts);
        }
        Ok(now)
    }

    fn names(&self, kind: ObjectKind) -> Result<Vec<ObjectName>> {
        Ok(self.list(kind)?.into_iter().map(|object| object.name).collect())
    }

    fn delete(&self, names: &[ObjectName]) -> Result<()> {
        self.inner.delete(names)
    }

    fn hold(&self, name: &ObjectName, bytes: &[u8]) -> Result<Box<dyn Hold>> {
        self.inner.hold(name, bytes)
    }

    fn is_held(&self, name: &ObjectName) -> Result<bool> {
        self.inner.is_held(name)
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        self.inner.free_bytes()
    }
}
