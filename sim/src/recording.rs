//! A decorator that counts operations and bytes by kind of object: for tests that bound the cost of an
//! operation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use copal_store::Result;
use copal_store::backend::{Backend, FinishedObject, Hold, ObjectKind, ObjectName, ObjectStat, ObjectWriter};

/// The operations of a backend and of what it hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Backend::prepare`]
    Prepare,
    /// [`Backend::create`]
    Create,
    /// [`ObjectWriter::append`]
    Append,
    /// [`ObjectWriter::finish`]
    Finish,
    /// [`Backend::publish`], counted for each object
    Publish,
    /// [`Backend::read_range`]
    ReadRange,
    /// [`Backend::read`]
    Read,
    /// [`Backend::stat`]
    Stat,
    /// [`Backend::list`]
    List,
    /// [`Backend::delete`], counted for each object
    Delete,
    /// [`Backend::hold`]
    Hold,
    /// [`Hold::is_current`]
    IsCurrent,
    /// [`Hold::release`]
    Release,
    /// [`Backend::is_held`]
    IsHeld,
    /// [`Backend::free_bytes`]
    FreeBytes,
}

/// How often, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations.
    pub count: u64,
    /// Bytes that went through them.
    pub bytes: u64,
}

type Tallies = Arc<Mutex<BTreeMap<(Operation, Option<ObjectKind>), Tally>>>;

/// Counts, and forwards everything.
#[derive(Clone, Debug)]
pub struct RecordingBackend {
    inner: Arc<dyn Backend>,
    tallies: Tallies,
}

impl RecordingBackend {
    /// Counts what reaches `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, tallies: Tallies::default() }
    }

    /// What one operation did to objects of one kind.
    #[must_use]
    pub fn tally(&self, operation: Operation, kind: ObjectKind) -> Tally {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.get(&(operation, Some(kind))).copied().unwrap_or_default()
    }

    /// What one operation did to objects of all kinds.
    #[must_use]
    pub fn total(&self, operation: Operation) -> Tally {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let of_operation = tallies.iter().filter(|((counted, _), _)| *counted == operation);
        of_operation.fold(Tally::default(), |sum, (_, tally)| Tally {
            count: sum.count + tally.count,
            bytes: sum.bytes + tally.bytes,
        })
    }

    /// Starts again at zero.
    pub fn reset(&self) {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn count(tallies: &Tallies, operation: Operation, kind: Option<ObjectKind>, bytes: u64) {
    let mut tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner);
    let tally = tallies.entry((operation, kind)).or_default();
    tally.count += 1;
    tally.bytes += bytes;
}

struct RecordingWriter {
    inner: Box<dyn ObjectWriter>,
    tallies: Tallies,
    kind: ObjectKind,
}

#[deny(clippy::missing_trait_methods)]
impl ObjectWriter for RecordingWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        count(&self.tallies, Operation::Append, Some(self.kind), bytes.len() as u64);
        self.inner.append(bytes)
    }

    fn finish(self: Box<Self>) -> Result<FinishedObject> {
        count(&self.tallies, Operation::Finish, Some(self.kind), 0);
        self.inner.finish()
    }
}

struct RecordingHold {
    inner: Box<dyn Hold>,
    tallies: Tallies,
}

#[deny(clippy::missing_trait_methods)]
impl Hold for RecordingHold {
    fn name(&self) -> &ObjectName {
        self.inner.name()
    }

    fn is_current(&self) -> Result<bool> {
        count(&self.tallies, Operation::IsCurrent, Some(self.inner.name().kind()), 0);
        self.inner.is_current()
    }

    fn release(self: Box<Self>) -> Result<()> {
        count(&self.tallies, Operation::Release, Some(self.inner.name().kind()), 0);
        self.inner.release()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for RecordingBackend {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn prepare(&self) -> Result<()> {
        count(&self.tallies, Operation::Prepare, None, 0);
        self.inner.prepare()
    }

    fn create(&self, name: &ObjectName, bytes_hint: u64) -> Result<Box<dyn ObjectWriter>> {
        count(&self.tallies, Operation::Create, Some(name.kind()), 0);
        let inner = self.inner.create(name, bytes_hint)?;
        Ok(Box::new(RecordingWriter { inner, tallies: Arc::clone(&self.tallies), kind: name.kind() }))
    }

    fn publish(&self, objects: Vec<FinishedObject>) -> Result<()> {
        for object in &objects {
            count(&self.tallies, Operation::Publish, Some(object.name.kind()), object.bytes);
        }
        self.inner.publish(objects)
    }

    fn read_range(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<()> {
        count(&self.tallies, Operation::ReadRange, Some(name.kind()), buffer.len() as u64);
        self.inner.read_range(name, offset, buffer)
    }

    fn read(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>> {
        let read = self.inner.read(name, bytes_max);
        count(&self.tallies, Operation::Read, Some(name.kind()), read.as_ref().map_or(0, |bytes| bytes.len() as u64));
        read
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectStat> {
        count(&self.tallies, Operation::Stat, Some(name.kind()), 0);
        self.inner.stat(name)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<ObjectStat>> {
        count(&self.tallies, Operation::List, Some(kind), 0);
        self.inner.list(kind)
    }

    fn names(&self, kind: ObjectKind) -> Result<Vec<ObjectName>> {
        count(&self.tallies, Operation::List, Some(kind), 0);
        self.inner.names(kind)
    }

    fn delete(&self, names: &[ObjectName]) -> Result<()> {
        for name in names {
            count(&self.tallies, Operation::Delete, Some(name.kind()), 0);
        }
        self.inner.delete(names)
    }

    fn hold(&self, name: &ObjectName, bytes: &[u8]) -> Result<Box<dyn Hold>> {
        count(&self.tallies, Operation::Hold, Some(name.kind()), bytes.len() as u64);
        let inner = self.inner.hold(name, bytes)?;
        Ok(Box::new(RecordingHold { inner, tallies: Arc::clone(&self.tallies) }))
    }

    fn is_held(&self, name: &ObjectName) -> Result<bool> {
        count(&self.tallies, Operation::IsHeld, Some(name.kind()), 0);
        self.inner.is_held(name)
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        count(&self.tallies, Operation::FreeBytes, None, 0);
        self.inner.free_bytes()
    }
}
