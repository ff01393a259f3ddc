//! A disk in memory. Stricter than a real one: what was not written here, or was published before, is refused
//! loudly.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use copal_store::backend::{Backend, FinishedObject, Hold, ObjectKind, ObjectName, ObjectStat, ObjectWriter};
use copal_store::{Error, Result};

#[derive(Debug, Default)]
struct Disk {
    prepared: bool,
    objects: BTreeMap<ObjectName, Arc<Vec<u8>>>,
    /// Object → number of the hold that has it.
    held: BTreeMap<ObjectName, u64>,
    holds_made: u64,
    /// Numbers of finished objects that wait for publication.
    finished: BTreeSet<u64>,
    finished_made: u64,
}

type Shared = Arc<Mutex<Disk>>;

fn lock(disk: &Shared) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Objects in memory. Clones share them: each may play another process.
#[derive(Clone, Default)]
pub struct MemoryBackend {
    disk: Shared,
}

impl std::fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryBackend({} objects)", lock(&self.disk).objects.len())
    }
}

impl MemoryBackend {
    /// An empty place.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What happens when every process dies: all holds are let go, their objects stay, unpublished objects
    /// are gone.
    pub fn kill_processes(&self) {
        let mut disk = lock(&self.disk);
        disk.held.clear();
        disk.finished.clear();
    }

    /// Changes one stored byte, as a failing disk would. Panics when there is no such byte.
    pub fn flip_byte(&self, name: &ObjectName, offset: usize) {
        let mut disk = lock(&self.disk);
        let object = disk.objects.get_mut(name).expect("the object to damage is there");
        Arc::make_mut(object)[offset] ^= 0x01;
    }

    /// Puts other bytes under a name, as a failing disk or a hand would. The object need not be there.
    pub fn overwrite(&self, name: &ObjectName, bytes: Vec<u8>) {
        lock(&self.disk).objects.insert(name.clone(), Arc::new(bytes));
    }

    /// Another disk with the same objects, as a copy made while no process lived.
    #[must_use]
    pub fn fork(&self) -> Self {
        let disk = lock(&self.disk);
        let copy = Disk { prepared: disk.prepared, objects: disk.objects.clone(), ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(copy)) }
    }

    /// Loses an object without a trace.
    pub fn lose(&self, name: &ObjectName) {
        lock(&self.disk).objects.remove(name).expect("the object to lose is there");
    }

    /// Every object with its length, for comparing states.
    #[must_use]
    pub fn objects(&self) -> Vec<ObjectStat> {
        let disk = lock(&self.disk);
        disk.objects.iter().map(|(name, bytes)| ObjectStat { name: name.clone(), bytes: bytes.len() as u64 }).collect()
    }

    fn object(&self, name: &ObjectName) -> Result<Arc<Vec<u8>>> {
        let found = lock(&self.disk).objects.get(name).cloned();
        found.ok_or_else(|| Error::Missing { object: name.to_string() })
    }
}

struct MemoryWriter {
    disk: Shared,
    name: ObjectName,
    bytes: Vec<u8>,
}

struct MemoryToken {
    disk: Shared,
    number: u64,
    bytes: Vec<u8>,
}

#[deny(clippy::missing_trait_methods)]
impl ObjectWriter for MemoryWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<FinishedObject> {
        let number = {
            let mut disk = lock(&self.disk);
            disk.finished_made += 1;
            let number = disk.finished_made;
            disk.finished.insert(number);
            number
        };
        let bytes = self.bytes.len() as u64;
        let token = Box::new(MemoryToken { disk: self.disk, number, bytes: self.bytes });
        Ok(FinishedObject { name: self.name, bytes, token })
    }
}

struct MemoryHold {
    disk: Shared,
    name: ObjectName,
    number: u64,
}

#[deny(clippy::missing_trait_methods)]
impl Hold for MemoryHold {
    fn name(&self) -> &ObjectName {
        &self.name
    }

    fn is_current(&self) -> Result<bool> {
        let disk = lock(&self.disk);
        Ok(disk.held.get(&self.name) == Some(&self.number) && disk.objects.contains_key(&self.name))
    }

    fn release(self: Box<Self>) -> Result<()> {
        let mut disk = lock(&self.disk);
        if disk.held.get(&self.name) == Some(&self.number) {
            disk.objects.remove(&self.name);
        }
        Ok(())
    }
}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        let mut disk = lock(&self.disk);
        if disk.held.get(&self.name) == Some(&self.number) {
            disk.held.remove(&self.name);
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for MemoryBackend {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn prepare(&self) -> Result<()> {
        let mut disk = lock(&self.disk);
        if !disk.objects.is_empty() {
            return Err(Error::NotEmpty { place: self.place() });
        }
        disk.prepared = true;
        Ok(())
    }

    fn create(&self, name: &ObjectName, _bytes_hint: u64) -> Result<Box<dyn ObjectWriter>> {
        assert!(lock(&self.disk).prepared, "{name} is written before the place was prepared");
        Ok(Box::new(MemoryWriter { disk: Arc::clone(&self.disk), name: name.clone(), bytes: Vec::new() }))
    }

    fn publish(&self, objects: Vec<FinishedObject>) -> Result<()> {
        let mut named = BTreeMap::new();
        for object in objects {
            let token: Box<MemoryToken> = object.token.downcast().expect("the object was finished by a memory disk");
            assert!(Arc::ptr_eq(&token.disk, &self.disk), "{} was written to another disk", object.name);
            assert_eq!(token.bytes.len() as u64, object.bytes, "{} has another length than it says", object.name);
            let twice = named.insert(object.name.clone(), *token).is_some();
            assert!(!twice, "{} stands twice in one batch", object.name);
        }
        let mut disk = lock(&self.disk);
        if let Some(taken) = named.keys().find(|name| disk.objects.contains_key(*name)) {
            return Err(Error::io("naming", taken, io::Error::from(io::ErrorKind::AlreadyExists)));
        }
        for (name, token) in named {
            assert!(disk.finished.remove(&token.number), "{name} was published before, or its process is dead");
            disk.objects.insert(name, Arc::new(token.bytes));
        }
        Ok(())
    }

    fn read_range(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let object = self.object(name)?;
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = begin.checked_add(buffer.len()).and_then(|end| object.get(begin..end));
        let range = range.ok_or_else(|| Error::damaged(name, "it ends before the range that is read"))?;
        buffer.copy_from_slice(range);
        Ok(())
    }

    fn read(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>> {
        let object = self.object(name)?;
        if object.len() as u64 > bytes_max {
            return Err(Error::damaged(name, "it is longer than its kind may be"));
        }
        Ok(object.to_vec())
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectStat> {
        Ok(ObjectStat { name: name.clone(), bytes: self.object(name)?.len() as u64 })
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<ObjectStat>> {
        Ok(self.objects().into_iter().filter(|object| object.name.kind() == kind).collect())
    }

    fn names(&self, kind: ObjectKind) -> Result<Vec<ObjectName>> {
        Ok(self.list(kind)?.into_iter().map(|object| object.name).collect())
    }

    fn delete(&self, names: &[ObjectName]) -> Result<()> {
        let mut disk = lock(&self.disk);
        for name in names {
            disk.objects.remove(name);
        }
        Ok(())
    }

    fn hold(&self, name: &ObjectName, bytes: &[u8]) -> Result<Box<dyn Hold>> {
        let mut disk = lock(&self.disk);
        assert!(disk.prepared, "{name} is held before the place was prepared");
        if disk.held.contains_key(name) {
            return Err(Error::Busy { what: name.to_string() });
        }
        disk.holds_made += 1;
        let number = disk.holds_made;
        disk.held.insert(name.clone(), number);
        disk.objects.insert(name.clone(), Arc::new(bytes.to_vec()));
        Ok(Box::new(MemoryHold { disk: Arc::clone(&self.disk), name: name.clone(), number }))
    }

    fn is_held(&self, name: &ObjectName) -> Result<bool> {
        Ok(lock(&self.disk).held.contains_key(name))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}
