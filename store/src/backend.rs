//! The one door to storage: write-once objects by kind and name.
//!
//! A backend never interprets bytes. Implementations: [`crate::local::LocalBackend`], the test world's memory
//! disk, S3 later. One conformance suite runs over all of them.

use std::any::Any;
use std::fmt;

use crate::{Error, Result};

/// The kinds of objects, each a folder of its own. The number is the kind byte of the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// `config`, and `config-copy`
    Config = 1,
    /// `keys/`
    KeySlot = 2,
    /// `packs/xx/`
    Pack = 3,
    /// `index/`
    Index = 4,
    /// `snapshots/`
    Root = 5,
    /// `labels/`
    Label = 6,
    /// `condemned/`
    Condemned = 7,
    /// `sessions/`
    Session = 8,
    /// `leases/`
    Lease = 9,
    /// `parity/`
    Parity = 10,
}

impl ObjectKind {
    /// The folder of the kind.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Config => "",
            Self::KeySlot => "keys",
            Self::Pack => "packs",
            Self::Index => "index",
            Self::Root => "snapshots",
            Self::Label => "labels",
            Self::Condemned => "condemned",
            Self::Session => "sessions",
            Self::Lease => "leases",
            Self::Parity => "parity",
        }
    }
}

/// Longest name of an object, in bytes.
pub const OBJECT_NAME_BYTES_MAX: usize = 96;

/// An object's kind and name: 1 to [`OBJECT_NAME_BYTES_MAX`] of `[a-z0-9-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    kind: ObjectKind,
    name: String,
}

impl ObjectName {
    /// `None` for a name outside the alphabet or the limit.
    #[must_use]
    pub fn new(kind: ObjectKind, name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let sound = !name.is_empty()
            && name.len() <= OBJECT_NAME_BYTES_MAX
            // Without an early end it takes many bytes at a time.
            && name.bytes().fold(true, |sound, b| sound & (b.is_ascii_lowercase() | b.is_ascii_digit() | (b == b'-')));
        sound.then_some(Self { kind, name })
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// The name without its folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ObjectName {
    /// The path below the repository: `packs/ab/ab…`, `index/…`, `config`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        let folder = self.kind.folder();
        match self.kind {
            ObjectKind::Config => write!(f, "{name}"),
            ObjectKind::Pack => write!(f, "{folder}/{}/{name}", name.get(..2).unwrap_or("00")),
            _ => write!(f, "{folder}/{name}"),
        }
    }
}

/// An object as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStat {
    /// Kind and name.
    pub name: ObjectName,
    /// Length in bytes.
    pub bytes: u64,
}

/// An object wholly written and not yet visible. Dropping it abandons it.
pub struct FinishedObject {
    /// Its name.
    pub name: ObjectName,
    /// Its length in bytes.
    pub bytes: u64,
    /// What the backend needs to publish it.
    pub token: Box<dyn Any + Send>,
}

impl fmt::Debug for FinishedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FinishedObject({}, {} bytes)", self.name, self.bytes)
    }
}

/// Writes one object from front to back. Dropping it abandons the object and leaves nothing visible.
pub trait ObjectWriter: Send {
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
    /// Ends the object. It is neither visible nor durable before [`Backend::publish`].
    fn finish(self: Box<Self>) -> Result<FinishedObject>;
}

/// Keeps an object locked until dropped; the operating system drops it when the process dies.
pub trait Hold: Send + Sync {
    /// The object held.
    fn name(&self) -> &ObjectName;
    /// Whether its name still has this very object. Not so when somebody removed it, by hand or from a
    /// machine that locks do not reach: whoever looks for it then takes the holder for dead.
    fn is_current(&self) -> Result<bool>;
    /// Removes the object and lets go.
    fn release(self: Box<Self>) -> Result<()>;
}

/// Storage of write-once objects.
pub trait Backend: Send + Sync + fmt::Debug {
    /// For messages: a path or a URL, without secrets.
    fn place(&self) -> String;
    /// Makes the place ready for a new repository; [`crate::Error::NotEmpty`] where something stands.
    fn prepare(&self) -> Result<()>;
    /// Starts an object. `bytes_hint` is a preallocation hint (0: unknown).
    fn create(&self, name: &ObjectName, bytes_hint: u64) -> Result<Box<dyn ObjectWriter>>;
    /// Makes objects visible and durable, in one batch: contents are synced before any name appears, names
    /// are synced before it returns. An existing object of the same name is an error.
    fn publish(&self, objects: Vec<FinishedObject>) -> Result<()>;
    /// Reads exactly `buffer.len()` bytes at `offset`; a shorter object is [`crate::Error::Damaged`].
    fn read_range(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Reads a whole object of at most `bytes_max`.
    fn read(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>>;
    /// Length of an object in bytes.
    fn stat(&self, name: &ObjectName) -> Result<ObjectStat>;
    /// All objects of a kind, in any order. Foreign files are passed over.
    fn list(&self, kind: ObjectKind) -> Result<Vec<ObjectStat>>;
    /// The names of the same, for who needs no lengths: where there are ten thousand, these cost more than
    /// all else.
    fn names(&self, kind: ObjectKind) -> Result<Vec<ObjectName>>;
    /// Removes objects, durably when it returns; one that is missing is no error.
    fn delete(&self, names: &[ObjectName]) -> Result<()>;
    /// Publishes an object and holds it ([`Error::Busy`] when held elsewhere). Used for sessions and
    /// leases. A lease that nobody holds is taken over.
    fn hold(&self, name: &ObjectName, bytes: &[u8]) -> Result<Box<dyn Hold>>;
    /// Whether some living process holds the object; `false` where it does not exist.
    fn is_held(&self, name: &ObjectName) -> Result<bool>;
    /// Free bytes where the storage knows it.
    fn free_bytes(&self) -> Result<Option<u64>>;
}

/// Writes and publishes one whole object.
pub fn publish_bytes(backend: &dyn Backend, name: &ObjectName, bytes: &[u8]) -> Result<()> {
    let publish = || {
        let mut writer = backend.create(name, bytes.len() as u64)?;
        writer.append(bytes)?;
        backend.publish(vec![writer.finish()?])
    };
    publish().map_err(|error| match (error.is_disk_full(), error) {
        // Whoever has to make room is told how much.
        (true, Error::Io { action, source, .. }) => {
            Error::io(action, format!("{name} ({} bytes)", bytes.len()), source)
        }
        (_, error) => error,
    })
}
