//! Puts files back: every operation beneath an open root, never through a symbolic link.

use std::path::Path;
use std::sync::Arc;

use crate::Result;
use crate::read::{Attribute, OpenFile};
use crate::scan::{FileKind, FileTime};

/// Metadata to put on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetMetadata {
    /// Permission bits, `07777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub modified: FileTime,
    /// Extended attributes to have; others are removed.
    pub attributes: Vec<Attribute>,
}

/// What the filesystem of a target can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// `FICLONE` works (probed with a real file).
    pub reflink: bool,
    /// `renameat2(EXCHANGE)` works (probed).
    pub exchange: bool,
    /// The folder is a mount point, so it cannot be renamed.
    pub mount_point: bool,
    /// Free bytes.
    pub free_bytes: u64,
}

/// An open folder that is written to; shared by threads.
#[derive(Clone, Debug)]
pub struct TargetTree {
    _root: Arc<()>,
}

impl TargetTree {
    /// Opens an existing folder (never through a final symbolic link).
    pub fn open(_root: &Path) -> Result<Self> {
        todo!()
    }
    /// Makes a folder, mode 0700, and opens it; it must not exist.
    pub fn create(_root: &Path) -> Result<Self> {
        todo!()
    }
    /// Probes.
    pub fn capabilities(&self) -> Result<Capabilities> {
        todo!()
    }
    /// Makes a folder (0700 until [`Self::set_metadata`]).
    pub fn create_directory(&self, _path: &[u8]) -> Result<()> {
        todo!()
    }
    /// Makes a new regular file (0600, `O_EXCL`) of a length, preallocated unless sparse.
    pub fn create_file(&self, _path: &[u8], _bytes: u64, _sparse: bool) -> Result<TargetFile> {
        todo!()
    }
    /// Opens an existing regular file for patching.
    pub fn open_file(&self, _path: &[u8]) -> Result<TargetFile> {
        todo!()
    }
    /// Makes a symbolic link.
    pub fn create_symlink(&self, _path: &[u8], _target: &[u8]) -> Result<()> {
        todo!()
    }
    /// Makes another name of `existing`.
    pub fn create_hard_link(&self, _path: &[u8], _existing: &[u8]) -> Result<()> {
        todo!()
    }
    /// Makes another name of a file of another tree on the same filesystem.
    pub fn hard_link_from(&self, _path: &[u8], _other: &TargetTree, _existing: &[u8]) -> Result<()> {
        todo!()
    }
    /// Makes a FIFO, socket name or device.
    pub fn create_special(&self, _path: &[u8], _kind: FileKind, _device: (u32, u32)) -> Result<()> {
        todo!()
    }
    /// Makes a new file that shares the extents of another (FICLONE).
    pub fn clone_from(&self, _path: &[u8], _source: &OpenFile) -> Result<TargetFile> {
        todo!()
    }
    /// Sets owner, mode, attributes, then times; of a symbolic link what links can have. What an unprivileged user may not do is
    /// returned as a list of warnings.
    pub fn set_metadata(&self, _path: &[u8], _kind: FileKind, _metadata: &TargetMetadata) -> Result<Vec<String>> {
        todo!()
    }
    /// Removes a file or a whole folder, never following links.
    pub fn remove(&self, _path: &[u8]) -> Result<()> {
        todo!()
    }
    /// Moves `from` of another tree on the same filesystem over `to` here.
    pub fn replace_from(&self, _to: &[u8], _other: &TargetTree, _from: &[u8]) -> Result<()> {
        todo!()
    }
    /// Syncs a folder's names.
    pub fn sync_directory(&self, _path: &[u8]) -> Result<()> {
        todo!()
    }
    /// Syncs the whole filesystem (`syncfs`).
    pub fn sync_filesystem(&self) -> Result<()> {
        todo!()
    }
    /// A reading view of the same tree.
    #[must_use]
    pub fn reader(&self) -> crate::read::TreeReader {
        todo!()
    }
}

/// A file being written; shared by threads.
#[derive(Clone, Debug)]
pub struct TargetFile {
    _file: Arc<()>,
}

impl TargetFile {
    /// Writes all bytes at an offset.
    pub fn write_at(&self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        todo!()
    }
    /// Makes a hole (zeros).
    pub fn punch_hole(&self, _offset: u64, _bytes: u64) -> Result<()> {
        todo!()
    }
    /// Sets the length.
    pub fn set_bytes(&self, _bytes: u64) -> Result<()> {
        todo!()
    }
    /// Syncs content and metadata.
    pub fn sync(&self) -> Result<()> {
        todo!()
    }
    /// Reads at an offset, for comparison.
    pub fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> Result<usize> {
        todo!()
    }
    /// Owner, mode, attributes, then times, by descriptor.
    pub fn set_metadata(&self, _metadata: &TargetMetadata) -> Result<Vec<String>> {
        todo!()
    }
}

/// Exchanges two paths atomically and syncs both parents; both must exist on one filesystem.
pub fn exchange(_a: &Path, _b: &Path) -> Result<()> {
    todo!()
}

/// Renames `from` to `to`, which must not exist, and syncs both parents.
pub fn rename_new(_from: &Path, _to: &Path) -> Result<()> {
    todo!()
}
