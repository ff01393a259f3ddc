//! The documents of a native bundle: pages of `docs/format/bundle.md` in code. Pure values; no files, no
//! keys.
//!
//! The plaintext of the stream is a row of blocks: contents, items, the end of the index, records, the end,
//! and zeros to the grid.

use std::fmt;

use copal_manifest::content::{Cutting, FILE_BYTES_MAX};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp, Xattr};
use copal_store::{Error, Result, SnapshotId};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Version of the documents written here.
pub(crate) const BUNDLE_VERSION: u16 = 1;
/// Name in errors.
pub(crate) const OBJECT: &str = "the bundle";
/// Plaintext of one block of items in bytes, when it is written.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;
/// Most plaintext of a block that a reader takes: one item may be longer than a block should be.
pub(crate) const BLOCK_BYTES_MAX: usize = 16 << 20;
/// Length of a block's head: kind, encoding, stored bytes, plain bytes.
pub(crate) const BLOCK_HEAD_BYTES: usize = 10;
/// Most snapshots of one bundle.
pub(crate) const SNAPSHOTS_MAX: usize = 1 << 16;
/// Runs of one item: so a large file's list comes in parts.
pub(crate) const RUNS_PER_ITEM: usize = 1024;
/// Longest text that stands in the index itself, in bytes: an unwrapped secret.
pub(crate) const INLINE_BYTES_MAX: usize = copal_store::secret::SECRET_BYTES_MAX;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BlockKind {
    /// [`Contents`].
    Contents = 1,
    /// A list of [`Item`]s.
    Items = 2,
    /// Nothing: the index ends.
    EndOfIndex = 3,
    /// A [`RecordHeader`] and its payload.
    Record = 4,
    /// Nothing: all that follows is padding.
    End = 5,
}

impl BlockKind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        let all = [Self::Contents, Self::Items, Self::EndOfIndex, Self::Record, Self::End];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The first block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) version: u16,
    /// The program that wrote it.
    pub(crate) program: String,
    /// A keyed hash of the secret and the sizes that cut content: who has the same keeps the cuts.
    pub(crate) cuts: [u8; 16],
    /// What the receiver must have.
    pub(crate) since: Option<KnownSnapshot>,
    pub(crate) snapshots: Vec<BundledSnapshot>,
}

/// A snapshot that does not travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownSnapshot {
    pub(crate) id: SnapshotId,
    /// `APP/NAME`, for people.
    pub(crate) name: String,
}

/// A snapshot that travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BundledSnapshot {
    /// The root's payload; its tree roots mean nothing elsewhere.
    pub(crate) payload: Vec<u8>,
    /// SHA-256 of the root's payload where it was committed.
    pub(crate) digest: String,
    /// What its items are relative to.
    pub(crate) base: BaseSnapshot,
}

/// What items are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BaseSnapshot {
    /// Nothing: every entry stands there.
    None,
    /// The snapshot that the receiver has.
    Since,
    /// An earlier one of this bundle.
    Bundled(u32),
}

/// One step of rebuilding the sources of a snapshot, in path order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Item {
    /// Begins the source of this number.
    Source(u32),
    /// An entry. Of a file, [`Item::Runs`] follow until its length is reached.
    Put(EntryDocument),
    /// The next runs of the file.
    Runs(#[serde(deserialize_with = "few_runs")] Vec<Run>),
    /// The base has this path and the snapshot has it not.
    Remove(Vec<u8>),
    /// Ends the snapshot.
    EndSnapshot,
}

/// At most [`RUNS_PER_ITEM`], refused while they are read: each is far shorter in the document than in
/// memory.
fn few_runs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Run>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
        type Value = Vec<Run>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "at most {RUNS_PER_ITEM} runs")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut listed: A) -> Result<Self::Value, A::Error> {
            let mut runs = Vec::new();
            while let Some(run) = listed.next_element()? {
                if runs.len() == RUNS_PER_ITEM {
                    return Err(A::Error::custom("more runs in one item than there may be"));
                }
                runs.push(run);
            }
            Ok(runs)
        }
    }

    deserializer.deserialize_seq(Few)
}

/// A run of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Run {
    /// A chunk of the bundle.
    Chunk {
        ordinal: u32,
        bytes: u32,
    },
    Hole {
        bytes: u64,
    },
    /// Bytes of a file of the base snapshot; without a path, of the same path. `source` is the place of its
    /// label there.
    Base {
        source: u32,
        path: Option<Vec<u8>>,
        offset: u64,
        bytes: u64,
    },
    /// The bytes themselves, unwrapped: they are wrapped again where they arrive.
    Secret(Vec<u8>),
}

impl Run {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Chunk { bytes, .. } => u64::from(*bytes),
            Self::Hole { bytes } | Self::Base { bytes, .. } => *bytes,
            Self::Secret(bytes) => bytes.len() as u64,
        }
    }
}

/// The head of a record block, before its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordHeader {
    /// As in packs: 0 raw, 1 zstd, 2 delta.
    pub(crate) encoding: u8,
    /// The chunk that a delta is against: of an earlier record.
    pub(crate) base: Option<u32>,
    pub(crate) members: Vec<Member>,
}

/// A chunk of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) ordinal: u32,
    pub(crate) bytes: u32,
    /// Keyed hash of its plaintext.
    pub(crate) check: [u8; 16],
}

/// An entry, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryDocument {
    path: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    modified: Timestamp,
    changed: Timestamp,
    inode: u64,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) node: NodeDocument,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NodeDocument {
    Directory,
    File { bytes: u64, cutting: CuttingDocument },
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Fifo,
    Socket,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

/// How a file was cut where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CuttingDocument {
    Small,
    Content,
    Fixed(u32),
}

impl From<Cutting> for CuttingDocument {
    fn from(cutting: Cutting) -> Self {
        match cutting {
            Cutting::Small => Self::Small,
            Cutting::Content => Self::Content,
            Cutting::Fixed(bytes) => Self::Fixed(bytes),
        }
    }
}

impl EntryDocument {
    pub(crate) fn new(entry: &Entry) -> Self {
        let Metadata { mode, uid, gid, modified, changed, inode, xattrs } = &entry.metadata;
        let node = match &entry.node {
            Node::Directory => NodeDocument::Directory,
            Node::File(content) => NodeDocument::File { bytes: content.bytes, cutting: content.cutting.into() },
            Node::Symlink(target) => NodeDocument::Symlink(target.to_vec()),
            Node::HardLink(path) => NodeDocument::HardLink(path.key().to_vec()),
            Node::Fifo => NodeDocument::Fifo,
            Node::Socket => NodeDocument::Socket,
            Node::CharDevice { major, minor } => NodeDocument::CharDevice(*major, *minor),
            Node::BlockDevice { major, minor } => NodeDocument::BlockDevice(*major, *minor),
        };
        Self {
            path: entry.path.key().to_vec(),
            mode: *mode,
            uid: *uid,
            gid: *gid,
            modified: *modified,
            changed: *changed,
            inode: *inode,
            xattrs: xattrs.iter().map(|xattr| (xattr.name.to_vec(), xattr.value.to_vec())).collect(),
            node,
        }
    }

    /// The path, checked.
    pub(crate) fn path(&self) -> Result<EntryPath> {
        path(&self.path)
    }

    pub(crate) fn metadata(&self) -> Metadata {
        let xattr = |(name, value): &(Vec<u8>, Vec<u8>)| Xattr { name: name[..].into(), value: value[..].into() };
        Metadata {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            modified: self.modified,
            changed: self.changed,
            inode: self.inode,
            xattrs: self.xattrs.iter().map(xattr).collect(),
        }
    }

    /// What it is; `None` for a file, whose content comes with its runs.
    pub(crate) fn node(&self) -> Result<Option<Node>> {
        Ok(Some(match &self.node {
            NodeDocument::Directory => Node::Directory,
            NodeDocument::File { bytes, .. } if *bytes > FILE_BYTES_MAX => return Err(damaged("a file without end")),
            NodeDocument::File { .. } => return Ok(None),
            NodeDocument::Symlink(target) => Node::Symlink(target[..].into()),
            NodeDocument::HardLink(target) => Node::HardLink(path(target)?),
            NodeDocument::Fifo => Node::Fifo,
            NodeDocument::Socket => Node::Socket,
            NodeDocument::CharDevice(major, minor) => Node::CharDevice { major: *major, minor: *minor },
            NodeDocument::BlockDevice(major, minor) => Node::BlockDevice { major: *major, minor: *minor },
        }))
    }
}

/// A path from its stored form.
pub(crate) fn path(key: &[u8]) -> Result<EntryPath> {
    EntryPath::from_key(key.to_vec()).ok_or_else(|| damaged("a path that is none"))
}

pub(crate) fn damaged(detail: impl ToString) -> Error {
    Error::damaged(OBJECT, detail)
}
