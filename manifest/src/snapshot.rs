//! A snapshot's root: the versioned description that is sealed as one object.

use copal_store::{Error, Result, SnapshotId, codec};
use serde::{Deserialize, Serialize};

use crate::entry::{PATH_BYTES_MAX, Timestamp};
use crate::tree::{HEIGHT_MAX, TreeRoot};

/// Version of the payloads written here.
pub const SNAPSHOT_VERSION: u16 = 1;
/// Longest name of a snapshot, an application, a source, a tag, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest value of a tag in bytes.
pub const TAG_VALUE_BYTES_MAX: usize = 4096;
/// Most tags.
pub const TAGS_MAX: usize = 256;
/// Most sources.
pub const SOURCES_MAX: usize = 1024;
/// Most warnings that are kept; the rest is counted in the last one.
pub const WARNINGS_MAX: usize = 1000;

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
    /// The canonical payload. What no reader would take is an [`Error::Limit`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        if let Some(what) = self.out_of_bounds() {
            return Err(Error::Limit { what: what.into(), limit: 0 });
        }
        codec::encode(self)
    }

    /// Decodes and checks a payload; a higher version is `Unsupported`, never damage.
    pub fn decode(object: &str, payload: &[u8]) -> Result<Self> {
        check_version(object, payload)?;
        let snapshot: Self = codec::decode(object, payload)?;
        match snapshot.out_of_bounds() {
            Some(what) => Err(Error::damaged(object, format!("{what} is out of bounds"))),
            None => Ok(snapshot),
        }
    }

    fn out_of_bounds(&self) -> Option<&'static str> {
        let labels_sorted = self.sources.windows(2).all(|pair| pair[0].label < pair[1].label);
        let sound_source = |source: &SourceRecord| {
            source.tree.height <= HEIGHT_MAX
                && source.path.len() <= PATH_BYTES_MAX
                && source.label.len() <= NAME_BYTES_MAX
        };
        match self {
            _ if !is_name(&self.name) => Some("the snapshot's name"),
            _ if !self.app.is_empty() && !is_name(&self.app) => Some("the application's name"),
            _ if self.sources.len() > SOURCES_MAX || !labels_sorted => Some("the list of sources"),
            _ if !self.sources.iter().all(sound_source) => Some("a source"),
            _ if !tags_are_sound(&self.tags) => Some("the tags"),
            _ if self.warnings.len() > WARNINGS_MAX => Some("the list of warnings"),
            _ => None,
        }
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
    /// The payload. What no reader would take is an [`Error::Limit`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        if !tags_are_sound(&self.tags) {
            return Err(Error::Limit { what: "the list of tags".into(), limit: TAGS_MAX as u64 });
        }
        codec::encode(self)
    }

    /// Decodes and checks a payload; a higher version is `Unsupported`.
    pub fn decode(object: &str, payload: &[u8]) -> Result<Self> {
        check_version(object, payload)?;
        let label: Self = codec::decode(object, payload)?;
        if tags_are_sound(&label.tags) { Ok(label) } else { Err(Error::damaged(object, "its tags are out of bounds")) }
    }
}

/// Payloads begin with their version: one byte, as long as it is below 251.
fn check_version(object: &str, payload: &[u8]) -> Result<()> {
    match payload.first() {
        Some(&version) if u16::from(version) > SNAPSHOT_VERSION => {
            Err(Error::Unsupported { what: object.into(), found: version.into(), supported: SNAPSHOT_VERSION.into() })
        }
        Some(0) | None => Err(Error::damaged(object, "it has no version")),
        Some(_) => Ok(()),
    }
}

/// Whether a text can be the name of a snapshot or an application: 1 to [`NAME_BYTES_MAX`] bytes without slash and control
/// characters, no space at its ends, and neither `latest` nor `latest:…`, which name snapshots by their age.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let length_fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    let means_an_age = text == "latest" || text.starts_with("latest:");
    length_fits && !text.contains('/') && !text.chars().any(char::is_control) && text.trim() == text && !means_an_age
}

/// Sorted, without doubles, named and bounded.
fn tags_are_sound(tags: &[(String, String)]) -> bool {
    let bounded = |(key, value): &(String, String)| {
        (1..=NAME_BYTES_MAX).contains(&key.len()) && value.len() <= TAG_VALUE_BYTES_MAX
    };
    tags.len() <= TAGS_MAX && tags.iter().all(bounded) && tags.windows(2).all(|pair| pair[0].0 < pair[1].0)
}
