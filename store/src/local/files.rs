//! What a local repository asks of a filesystem, and no more: one trait, so that the very code that runs on a
//! real disk also runs on the test world's, which forgets what was not synced.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

/// What stands in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderEntry {
    /// Its name.
    pub name: OsString,
    /// A folder, a file, or neither.
    pub kind: EntryKind,
}

/// Kinds of entries that a repository tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A file of so many bytes.
    File(u64),
    /// Anything else: none of ours.
    Other,
}

/// How an open file is locked. A lock belongs to the open file and goes with it, also when the process is
/// killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Many may have it.
    Shared,
    /// One may have it.
    Exclusive,
}

/// A filesystem.
pub trait Files: Send + Sync + fmt::Debug {
    /// Makes a folder in one that exists.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// A new file without a name on the folder's filesystem; [`io::ErrorKind::Unsupported`] where there are
    /// none.
    fn create_unnamed(&self, folder: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// A new file with a name that nothing has.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Opens a regular file for reading and locking, without waiting; [`io::ErrorKind::InvalidData`] for
    /// anything else.
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Length of a regular file in bytes; [`io::ErrorKind::InvalidData`] for anything else.
    fn file_bytes(&self, path: &Path) -> io::Result<u64>;
    /// All entries of a folder; what vanishes meanwhile may be left out.
    fn entries(&self, folder: &Path) -> io::Result<Vec<FolderEntry>>;
    /// The names of the files among them.
    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let files = self.entries(folder)?.into_iter().filter(|entry| matches!(entry.kind, EntryKind::File(_)));
        Ok(files.map(|entry| entry.name).collect())
    }
    /// Whether what stands at a path is of a user who has no part in the repository: neither the one who
    /// runs this, nor root, nor the one whose folder it is.
    fn is_foreign(&self, path: &Path) -> io::Result<bool>;
    /// Removes a file's name, or an empty folder that somebody has put there.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes the bytes of files durable, as many at a time as the device likes.
    fn sync_files(&self, files: &[&dyn OpenFile]) -> Vec<io::Result<()>>;
    /// Free bytes for a user without privileges.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// An open file. Dropping it closes it.
pub trait OpenFile: Send + Sync {
    /// Writes some bytes at the end; says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Reads some bytes; 0 only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Asks for bytes to be written out soon, without waiting: the sync at the end has less left to do. A
    /// hint.
    fn write_out(&self, offset: u64, bytes: u64);
    /// Makes its bytes durable.
    fn sync(&self) -> io::Result<()>;
    /// Gives it a (further) name, which nothing may have. `from` is a name that it has already, if it has
    /// one.
    fn link(&self, from: Option<&Path>, to: &Path) -> io::Result<()>;
    /// Locks it without waiting; `false` when another open file has a lock that excludes this one.
    fn try_lock(&self, kind: LockKind) -> io::Result<bool>;
    /// Whether a path names this very file.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
}
