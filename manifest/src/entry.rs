//! Entries of a source: what a path is.

use std::fmt;

use crate::content::FileContent;

/// Longest path in bytes (Linux `PATH_MAX`), longest name 255 (`NAME_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;

/// A path below a source's root: names joined by 0x00, so that plain byte order is depth-first order with
/// siblings sorted by name. The empty path is the root itself. Never `.`, `..`, `/` or an empty name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryPath(Box<[u8]>);

impl EntryPath {
    /// The root of a source.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }
    /// From a slash-separated relative path; `None` for anything that could leave the root or is malformed.
    #[must_use]
    pub fn from_slashes(path: &[u8]) -> Option<Self> {
        if path.is_empty() {
            return Some(Self::root());
        }
        let key: Vec<u8> = path.iter().map(|&b| if b == b'/' { 0 } else { b }).collect();
        if path.contains(&0) { None } else { Self::from_key(key) }
    }
    /// From the stored key form, checked.
    #[must_use]
    pub fn from_key(key: Vec<u8>) -> Option<Self> {
        let sound = key.len() <= PATH_BYTES_MAX
            && (key.is_empty()
                || key.split(|&b| b == 0).all(|name| {
                    !name.is_empty() && name.len() <= 255 && name != b"." && name != b".." && !name.contains(&b'/')
                }));
        sound.then(|| Self(key.into_boxed_slice()))
    }
    /// The stored key form.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.0
    }
    /// With slashes, for the filesystem and for people.
    #[must_use]
    pub fn to_slashes(&self) -> Vec<u8> {
        self.0.iter().map(|&b| if b == 0 { b'/' } else { b }).collect()
    }
    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
    /// The names from the top.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == 0).filter(|name| !name.is_empty())
    }
    /// The last name; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.names().last()
    }
    /// The folder that holds it; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == 0).unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }
    /// A child; `None` for a name that is none.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Option<Self> {
        let mut key = self.0.to_vec();
        if !key.is_empty() {
            key.push(0);
        }
        key.extend_from_slice(name);
        if name.contains(&0) { None } else { Self::from_key(key) }
    }
    /// Whether `self` is `folder` or below it.
    #[must_use]
    pub fn is_within(&self, folder: &Self) -> bool {
        folder.is_root() || self == folder || (self.0.starts_with(&folder.0) && self.0.get(folder.0.len()) == Some(&0))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_slashes()))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryPath({self})")
    }
}

/// A point in time as filesystems keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds, below 10^9.
    pub nanoseconds: u32,
}

/// An extended attribute; POSIX ACLs are `system.posix_acl_*`, raw.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// Name with its namespace.
    pub name: Box<[u8]>,
    /// Value.
    pub value: Box<[u8]>,
}

/// What every entry has.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Permission bits, `07777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub modified: Timestamp,
    /// Last change of the inode at capture: evidence for "unchanged", never restored.
    pub changed: Timestamp,
    /// Inode number at capture: evidence for "unchanged", never restored.
    pub inode: u64,
    /// Sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Directory,
    /// A regular file.
    File(FileContent),
    /// A symbolic link and its target, uninterpreted.
    Symlink(Box<[u8]>),
    /// Another name of a file that stands earlier in path order.
    HardLink(EntryPath),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// One path of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub path: EntryPath,
    /// Owner, times, attributes.
    pub metadata: Metadata,
    /// What.
    pub node: Node,
}
