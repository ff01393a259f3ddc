//! What a local repository asks of a filesystem, and no more: one trait, so that the very code that runs on a
//! real disk also runs on the test world's, which forgets what was not synced.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{Advice, AtFlags, CWD, FlockOperation, OFlags, fadvise, flock, linkat, statvfs};
use rustix::io::Errno;

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
    /// Opens a file for reading and locking.
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Length of a file in bytes.
    fn file_bytes(&self, path: &Path) -> io::Result<u64>;
    /// All entries of a folder; what vanishes meanwhile may be left out.
    fn entries(&self, folder: &Path) -> io::Result<Vec<FolderEntry>>;
    /// The names of the files among them.
    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let files = self.entries(folder)?.into_iter().filter(|entry| matches!(entry.kind, EntryKind::File(_)));
        Ok(files.map(|entry| entry.name).collect())
    }
    /// Removes a file's name.
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

/// The filesystem of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

impl Files for RealFiles {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    fn create_unnamed(&self, folder: &Path) -> io::Result<Box<dyn OpenFile>> {
        let flags = OFlags::TMPFILE.bits() as i32;
        match OpenOptions::new().write(true).mode(0o600).custom_flags(flags).open(folder) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) if lacks_unnamed_files(&error) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error),
        }
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<FolderEntry>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = match entry.metadata() {
                Ok(metadata) if metadata.is_file() => EntryKind::File(metadata.len()),
                Ok(metadata) if metadata.is_dir() => EntryKind::Folder,
                Ok(_) => EntryKind::Other,
                // Removed while listing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            found.push(FolderEntry { name: entry.file_name(), kind });
        }
        Ok(found)
    }

    /// The folder says itself what is a file: nothing is asked for each name.
    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type() {
                Ok(kind) if kind.is_file() => found.push(entry.file_name()),
                // On filesystems that do not say, it may have been removed meanwhile.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(found)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    /// Each sync waits for the device: side by side they share its queue.
    fn sync_files(&self, files: &[&dyn OpenFile]) -> Vec<io::Result<()>> {
        files.par_iter().map(|file| file.sync()).collect()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let stat = statvfs(folder)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl OpenFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    /// The advice has Linux begin to write what is dirty; only pages that are clean already leave the cache,
    /// and none of these is.
    fn write_out(&self, offset: u64, bytes: u64) {
        let _ = fadvise(self, offset, NonZeroU64::new(bytes), Advice::DontNeed);
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn link(&self, from: Option<&Path>, to: &Path) -> io::Result<()> {
        match from {
            Some(from) => linkat(CWD, from, CWD, to, AtFlags::empty())?,
            None => linkat(CWD, format!("/proc/self/fd/{}", self.as_raw_fd()), CWD, to, AtFlags::SYMLINK_FOLLOW)?,
        }
        Ok(())
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let operation = match kind {
            LockKind::Shared => FlockOperation::NonBlockingLockShared,
            LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(self, operation) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (ours, named) = (self.metadata()?, fs::metadata(path)?);
        Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino()))
    }
}

fn lacks_unnamed_files(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::OPNOTSUPP, Errno::ISDIR, Errno::INVAL].iter().any(|errno| code == Some(errno.raw_os_error()))
}
