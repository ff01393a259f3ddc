//! A snapshot's root: the versioned description that is sealed as one object.

use copal_store::{Result, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::entry::Timestamp;
use crate::tree::TreeRoot;

/// Version of the root's payload written here.
pub const SNAPSHOT_VERSION: u16 = 1;

/// Where a snapshot stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Whole.
    Completed,
    /// Some source files could not be read; `warnings` names them.
    PartiallyFailed,
}

/// How a snapshot came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// Taken here.
    Created,
    /// Brought by a bundle or a copy.
    Imported,
}

/// What kind a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceKind {
    /// A file tree.
    Tree,
    /// One file: the tree has one entry, the root, that is a file.
    File,
}

/// One captured source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Its label; empty for a single unlabelled source.
    pub label: String,
    /// Its kind.
    pub kind: SourceKind,
    /// The absolute path it was taken from, raw bytes.
    pub path: Vec<u8>,
    /// Its entries.
    pub tree: TreeRoot,
    /// Number of entries that are no folders.
    pub files: u64,
    /// Number of all entries.
    pub entries: u64,
    /// Logical bytes of all regular files (hard links once).
    pub bytes: u64,
    /// Device number at capture: evidence for "unchanged".
    pub device: u64,
    /// Files whose change time is at or after this may have changed in the same instant: they are read again.
    pub trusted_before: Timestamp,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SNAPSHOT_VERSION`] of the writer.
    pub version: u16,
    /// Identity.
    pub id: SnapshotId,
    /// Unique in its application.
    pub name: String,
    /// Application; empty for none.
    pub app: String,
    /// Begin of the capture.
    pub created: Timestamp,
    /// End of the capture.
    pub completed: Timestamp,
    /// Phase.
    pub phase: Phase,
    /// Origin.
    pub origin: Origin,
    /// Host it was taken on.
    pub host: String,
    /// Version of the program.
    pub program: String,
    /// Snapshot it was compared with.
    pub parent: Option<SnapshotId>,
    /// Sources, sorted by label.
    pub sources: Vec<SourceRecord>,
    /// Tags given at creation, sorted; labels written later override them.
    pub tags: Vec<(String, String)>,
    /// Pinned at creation.
    pub pinned: bool,
    /// Plaintext bytes read from the sources.
    pub bytes_read: u64,
    /// Plaintext bytes of new chunks.
    pub bytes_new: u64,
    /// Bytes by which the repository grew, before the root.
    pub stored_new: u64,
    /// New chunks.
    pub chunks_new: u64,
    /// What could not be read, or changed while it was read.
    pub warnings: Vec<String>,
}

impl Snapshot {
    /// The canonical payload; limits are checked.
    pub fn encode(&self) -> Result<Vec<u8>> {
        todo!()
    }
    /// Decodes and checks a payload; a higher version is `Unsupported`.
    pub fn decode(_object: &str, _payload: &[u8]) -> Result<Self> {
        todo!()
    }
    /// `APP/NAME`, or `NAME` without an application: what the name tag is computed over.
    #[must_use]
    pub fn full_name(app: &str, name: &str) -> String {
        if app.is_empty() { name.to_owned() } else { format!("{app}/{name}") }
    }
}

/// What may be changed after the commit: a label object's payload.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Label {
    /// Version of the payload, 1.
    pub version: u16,
    /// All tags, sorted.
    pub tags: Vec<(String, String)>,
    /// Protected from automatic removal.
    pub pinned: bool,
}

impl Label {
    /// The payload.
    pub fn encode(&self) -> Result<Vec<u8>> {
        todo!()
    }
    /// Decodes a payload.
    pub fn decode(_object: &str, _payload: &[u8]) -> Result<Self> {
        todo!()
    }
}
