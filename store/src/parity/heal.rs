//! A storage in which one pack is as it was written: everything that reads packs reads the healed one without
//! knowing.

use crate::backend::{Backend, FinishedObject, Hold, ObjectKind, ObjectName, ObjectStat, ObjectWriter};
use crate::{Error, Result};

/// Forwards everything but reads of one pack.
pub(crate) struct HealedPack {
    inner: std::sync::Arc<dyn Backend>,
    name: ObjectName,
    bytes: Vec<u8>,
}

impl HealedPack {
    pub(super) fn new(inner: std::sync::Arc<dyn Backend>, name: ObjectName, bytes: Vec<u8>) -> Self {
        Self { inner, name, bytes }
    }
}

impl std::fmt::Debug for HealedPack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} with {} healed", self.inner, self.name)
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for HealedPack {
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
        self.inner.publish(objects)
    }

    fn read_range(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if *name != self.name {
            return self.inner.read_range(name, offset, buffer);
        }
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = begin.checked_add(buffer.len()).and_then(|end| self.bytes.get(begin..end));
        buffer.copy_from_slice(range.ok_or_else(|| Error::damaged(name, "it ends before the range that is read"))?);
        Ok(())
    }

    fn read(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>> {
        if *name == self.name { Ok(self.bytes.clone()) } else { self.inner.read(name, bytes_max) }
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectStat> {
        if *name == self.name {
            return Ok(ObjectStat { name: name.clone(), bytes: self.bytes.len() as u64 });
        }
        self.inner.stat(name)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<ObjectStat>> {
        self.inner.list(kind)
    }

    fn names(&self, kind: ObjectKind) -> Result<Vec<ObjectName>> {
        self.inner.names(kind)
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
