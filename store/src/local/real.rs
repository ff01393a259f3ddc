//! The filesystem of this machine, beneath a repository's folder.
//!
//! Whoever may write into that folder may put anything there: a link in the place of a folder, a pipe in the
//! place of a file. So every path is walked from the root, folder by folder, and no link is followed (the
//! root itself may be one, or lie behind one: it is the user's own word); nothing is waited for; and only a
//! regular file is opened.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Component, Path};
use std::sync::Arc;

use rayon::prelude::*;
use rustix::fs::{
    Advice, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, fadvise, flock, linkat, mkdirat, openat,
    readlinkat, statat, statvfs, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::local::files::{EntryKind, Files, FolderEntry, LockKind, OpenFile};

/// On the way: a folder, never through a link. It is a name only, and needs no right to read.
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What is opened is looked at before it is read: a pipe must not be waited for.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The files beneath one folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RealFiles {
    root: Arc<Path>,
}

impl RealFiles {
    /// The files beneath `root`, which need not exist yet.
    #[must_use]
    pub fn beneath(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The open folder that a path beneath the root is in, and its last name.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.folder(path.parent().unwrap_or(Path::new("")), STEP)?, name))
    }

    /// Opens a folder at or beneath the root; only the root may be reached through links.
    fn folder(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let Ok(beneath) = path.strip_prefix(&self.root) else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut steps = beneath.components().peekable();
        let of = |last: bool| if last { flags } else { STEP };
        let root = if self.root.as_os_str().is_empty() { Path::new(".") } else { &self.root };
        let mut folder = openat(CWD, root, of(steps.peek().is_none()) - OFlags::NOFOLLOW, Mode::empty())?;
        while let Some(step) = steps.next() {
            let Component::Normal(name) = step else { return Err(io::ErrorKind::InvalidInput.into()) };
            folder = openat(&folder, name, of(steps.peek().is_none()), Mode::empty())
                .map_err(|error| refused(&folder, name, error))?;
        }
        Ok(folder)
    }

    /// What `see` makes of each entry of a folder; what is removed meanwhile is left out.
    fn listed<T>(
        &self,
        folder: &Path,
        see: impl Fn(&OwnedFd, &OsStr, FileType) -> io::Result<Option<T>>,
    ) -> io::Result<Vec<T>> {
        let folder = self.folder(folder, LISTED)?;
        let mut found = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            match see(&folder, name, entry.file_type()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                seen => found.extend(seen?),
            }
        }
        Ok(found)
    }

    /// A path that is the root itself, or lies above it, is the user's.
    fn is_beneath(&self, path: &Path) -> bool {
        path != &*self.root && path.starts_with(&self.root)
    }
}

/// Says in words that a link stands where a repository has none.
fn refused(folder: impl AsFd, name: &OsStr, error: Errno) -> io::Error {
    if matches!(error, Errno::NOTDIR | Errno::LOOP) && readlinkat(folder, name, Vec::new()).is_ok() {
        let text = format!("{} is a link; a repository holds none, and none is followed", name.display());
        return io::Error::other(text);
    }
    error.into()
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no regular file")
}

/// What `openat` says of a link, and of a socket or a device that nobody serves.
fn of_opening(error: Errno) -> io::Error {
    if matches!(error, Errno::LOOP | Errno::NXIO) { no_file() } else { error.into() }
}

fn kind_of(folder: impl AsFd, name: &OsStr) -> io::Result<EntryKind> {
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File(u64::try_from(stat.st_size).unwrap_or(0)),
        FileType::Directory => EntryKind::Folder,
        _ => EntryKind::Other,
    })
}

impl Files for RealFiles {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        if !self.is_beneath(path) {
            return DirBuilder::new().mode(0o700).create(path);
        }
        let (folder, name) = self.place(path)?;
        match mkdirat(&folder, name, Mode::RWXU) {
            // A link is no folder that was there before.
            Err(Errno::EXIST) if kind_of(&folder, name)? == EntryKind::Other => {
                Err(refused(&folder, name, Errno::NOTDIR))
            }
            made => Ok(made?),
        }
    }

    fn create_unnamed(&self, folder: &Path) -> io::Result<Box<dyn OpenFile>> {
        let folder = self.folder(folder, STEP)?;
        match openat(&folder, ".", OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, PRIVATE_FILE) {
            Ok(file) => Ok(self.opened(file)),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let (folder, name) = self.place(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(self.opened(openat(&folder, name, flags, PRIVATE_FILE)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let (folder, name) = self.place(path)?;
        let file = openat(&folder, name, READ, Mode::empty()).map_err(of_opening)?;
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(self.opened(file)),
            _ => Err(no_file()),
        }
    }

    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        let (folder, name) = self.place(path)?;
        match kind_of(folder, name)? {
            EntryKind::File(bytes) => Ok(bytes),
            _ => Err(no_file()),
        }
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<FolderEntry>> {
        self.listed(folder, |folder, name, _| {
            Ok(Some(FolderEntry { name: name.to_owned(), kind: kind_of(folder, name)? }))
        })
    }

    /// The folder says itself what is a file, on most filesystems: nothing is asked for each name.
    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.listed(folder, |folder, name, said| {
            let is_file = match said {
                FileType::Unknown => matches!(kind_of(folder, name)?, EntryKind::File(_)),
                said => said == FileType::RegularFile,
            };
            Ok(is_file.then(|| name.to_owned()))
        })
    }

    fn is_foreign(&self, path: &Path) -> io::Result<bool> {
        let (folder, name) = self.place(path)?;
        let owner = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_uid;
        let of_folder = rustix::fs::fstat(self.folder(&self.root, STEP)?)?.st_uid;
        Ok(owner != 0 && owner != of_folder && owner != geteuid().as_raw())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        match unlinkat(&folder, name, AtFlags::empty()) {
            // A folder that somebody put in a file's place, if nothing is in it.
            Err(Errno::ISDIR) => Ok(unlinkat(&folder, name, AtFlags::REMOVEDIR)?),
            removed => Ok(removed?),
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if !self.is_beneath(folder) {
            return File::open(folder)?.sync_all();
        }
        File::from(self.folder(folder, LISTED)?).sync_all()
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

impl RealFiles {
    fn opened(&self, file: OwnedFd) -> Box<dyn OpenFile> {
        Box::new(RealFile { file: file.into(), files: self.clone() })
    }
}

/// An open file, and where its further names may be.
struct RealFile {
    file: File,
    files: RealFiles,
}

impl OpenFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The advice has Linux begin to write what is dirty; only pages that are clean already leave the cache,
    /// and none of these is.
    fn write_out(&self, offset: u64, bytes: u64) {
        let _ = fadvise(&self.file, offset, NonZeroU64::new(bytes), Advice::DontNeed);
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn link(&self, from: Option<&Path>, to: &Path) -> io::Result<()> {
        let (folder, name) = self.files.place(to)?;
        match from {
            Some(from) => {
                let (old_folder, old_name) = self.files.place(from)?;
                linkat(old_folder, old_name, folder, name, AtFlags::empty())?;
            }
            None => {
                let opened = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, opened, folder, name, AtFlags::SYMLINK_FOLLOW)?;
            }
        }
        Ok(())
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let operation = match kind {
            LockKind::Shared => FlockOperation::NonBlockingLockShared,
            LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(&self.file, operation) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (folder, name) = self.files.place(path)?;
        let (ours, named) = (self.file.metadata()?, statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?);
        Ok((ours.dev(), ours.ino()) == (named.st_dev, named.st_ino))
    }
}
