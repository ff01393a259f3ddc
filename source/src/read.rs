//! Reads files of a tree by descriptor, never following links.

use std::path::Path;
use std::sync::Arc;

use crate::Result;
use crate::scan::FileStat;

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Name with its namespace.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// A range of a file that is data (not a hole).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataRange {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// The root of a tree, open; shared by threads. Small cache of open parent folders inside.
#[derive(Clone, Debug)]
pub struct TreeReader {
    _root: Arc<()>,
}

impl TreeReader {
    /// Opens the root: a folder, or one file (then every path is empty).
    pub fn open(_root: &Path) -> Result<Self> {
        todo!()
    }
    /// Opens a regular file for reading: `O_NOFOLLOW|O_NONBLOCK|O_NOATIME` where permitted, beneath the root.
    pub fn open_file(&self, _path: &[u8]) -> Result<OpenFile> {
        todo!()
    }
    /// Current metadata, not following a link.
    pub fn stat(&self, _path: &[u8]) -> Result<FileStat> {
        todo!()
    }
    /// Target of a symbolic link.
    pub fn read_link(&self, _path: &[u8]) -> Result<Vec<u8>> {
        todo!()
    }
    /// Extended attributes, ACLs among them, sorted by name; what the filesystem does not support is none.
    /// Works on every kind (through the descriptor or `/proc/self/fd`).
    pub fn attributes(&self, _path: &[u8]) -> Result<Vec<Attribute>> {
        todo!()
    }
}

/// An open regular file; shared by threads.
#[derive(Clone, Debug)]
pub struct OpenFile {
    _file: Arc<()>,
}

impl OpenFile {
    /// Metadata by descriptor.
    pub fn stat(&self) -> Result<FileStat> {
        todo!()
    }
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    pub fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> Result<usize> {
        todo!()
    }
    /// Data ranges by `SEEK_DATA`/`SEEK_HOLE` from `offset` on; one range for the whole file where unsupported.
    pub fn data_ranges(&self, _offset: u64) -> Result<Vec<DataRange>> {
        todo!()
    }
    /// Extended attributes by descriptor.
    pub fn attributes(&self) -> Result<Vec<Attribute>> {
        todo!()
    }
}
