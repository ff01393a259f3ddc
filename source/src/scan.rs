//! Scans a file tree in path order, in parallel, with bounded memory.

use std::path::Path;

use crate::Result;

/// Time as the filesystem has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds below 10^9.
    pub nanoseconds: u32,
}

/// What kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Directory.
    Directory,
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// One `statx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Kind.
    pub kind: FileKind,
    /// Permission bits, `07777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub bytes: u64,
    /// Allocated bytes (fewer than `bytes`: sparse).
    pub allocated_bytes: u64,
    /// Last change of the content.
    pub modified: FileTime,
    /// Last change of the inode.
    pub changed: FileTime,
    /// Inode number.
    pub inode: u64,
    /// Number of names.
    pub links: u32,
    /// Device of the filesystem (major << 32 | minor).
    pub device: u64,
    /// Of a device file: major, minor.
    pub special: (u32, u32),
}

/// A path found by a scan, relative to the root, slash-separated raw bytes; the root is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanEntry {
    /// Relative path.
    pub path: Box<[u8]>,
    /// Its metadata.
    pub stat: FileStat,
}

/// What a scan leaves out.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// Globs against the relative path or, without a slash, against the last name (as `.gitignore` reads them; a
    /// leading `!` takes back). A folder left out is not entered.
    pub exclude: Vec<String>,
    /// Do not enter other filesystems (the mount point itself is kept as an empty folder).
    pub one_file_system: bool,
    /// Threads; 0: as many as cores.
    pub threads: usize,
}

/// A path that could not be read; the scan goes on.
pub type ScanProblem = crate::Error;

/// Scans `root` (a folder, or one file) in depth-first order with siblings sorted by name bytes.
/// Memory is bounded by the largest folders in flight, not by the tree. A missing root is an error at once.
pub fn scan(_root: &Path, _options: &ScanOptions) -> Result<Scan> {
    todo!()
}

/// A scan under way: batches in order.
pub struct Scan {
    _private: (),
}

impl Iterator for Scan {
    type Item = Result<ScanEntry, ScanProblem>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
