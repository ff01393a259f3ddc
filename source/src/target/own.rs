//! What this program itself has put somewhere, told from what others put under the same name.
//!
//! A name proves nothing: whoever may write in the folder can give it to anything. An [`Identity`] holds over
//! restarts (numbers of filesystems do not); owner and mode are looked at through an open descriptor, so that
//! nothing changes between look and use.

use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::geteuid;

use super::{TargetTree, remove};
use crate::beneath::Root;
use crate::scan::{FileKind, FileStat};
use crate::stat::{Identity, identity, stat};
use crate::{Error, Result};

/// Write permission of anybody but the owner.
const OTHERS_MAY_WRITE: u32 = 0o022;

/// What is made for a moment to see whose it is.
const OWNERS: &[u8] = b"owner";

/// What became of a removal that names what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, or was gone already.
    Gone,
    /// Something else has the name, and was left alone.
    Other,
}

/// A lock on a folder; the system lets go when the process dies.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl TargetTree {
    /// Opens a folder by an absolute path in which no component may be a link.
    pub fn open_real(path: &Path) -> Result<Self> {
        let mut below = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => {
                    let separator: &[u8] = if below.is_empty() { b"" } else { b"/" };
                    below.extend_from_slice(separator);
                    below.extend_from_slice(name.as_encoded_bytes());
                }
                _ => return Err(Error::refused(path, "is no whole path")),
            }
        }
        let top = Self::open(Path::new("/"))?;
        if below.is_empty() { Ok(top) } else { top.folder(&below) }
    }

    /// Opens a folder in this one, never through a link.
    pub fn folder(&self, path: &[u8]) -> Result<Self> {
        let place = self.named(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(place.fd(), &place.name, flags, Mode::empty());
        let fd = fd.map_err(self.failed("opening", path))?;
        Ok(Self { root: Arc::new(Root::of_folder(fd, &self.root.whole(path))) })
    }

    /// Makes a folder (0700) in this one and opens it.
    pub fn new_folder(&self, path: &[u8]) -> Result<Self> {
        self.create_directory(path)?;
        let made = self.folder(path)?;
        // Whoever may write here could have put another one in its place.
        match made.check_own() {
            Err(error) if made.keeps_owners()? => Err(error),
            _ => Ok(made),
        }
    }

    /// Whether files that are made here are their maker's alone: not on a filesystem that knows no owners, or
    /// gives all files to one.
    fn keeps_owners(&self) -> Result<bool> {
        let file = self.create_file(OWNERS, 0, true)?;
        let found = stat(file.fd(), c"").map_err(self.failed("looking at", OWNERS));
        self.remove(OWNERS)?;
        Ok(check_own(&found?).is_ok())
    }

    /// Which file or folder a path is.
    pub fn identity(&self, path: &[u8]) -> Result<Identity> {
        let place = self.root.place(path)?;
        identity(place.fd(), &place.name).map_err(self.failed("looking at", path))
    }

    /// That this folder is of whoever runs this, and that nobody else may write in it.
    pub fn check_own(&self) -> Result<()> {
        let found = self.reader().stat(b"")?;
        check_own(&found).map_err(|detail| Error::refused(self.root.whole(b""), detail))
    }

    /// Opens a file of whoever runs this, which nobody else may write and which has at most so many bytes. No
    /// link is followed, no pipe waited for.
    pub fn open_own_file(&self, path: &[u8], bytes_max: u64) -> Result<File> {
        self.open_checked(path, |found| match found.bytes {
            bytes if bytes > bytes_max => Err("is too long".into()),
            _ => check_own(found),
        })
    }

    fn open_checked(&self, path: &[u8], check: impl Fn(&FileStat) -> std::result::Result<(), String>) -> Result<File> {
        let place = self.named(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let failed = |error| self.root.failed("opening", path, error);
        let fd = rustix::fs::openat(place.fd(), &place.name, flags, Mode::empty()).map_err(failed)?;
        let found = stat(&fd, c"").map_err(failed)?;
        let checked = if found.kind == FileKind::File { check(&found) } else { Err("is no regular file".into()) };
        checked.map_err(|detail| Error::refused(self.root.whole(path), detail))?;
        Ok(fd.into())
    }

    /// Opens a regular file for reading, whosever it is.
    pub fn open_regular(&self, path: &[u8]) -> Result<File> {
        self.open_checked(path, |_| Ok(()))
    }

    /// Locks this folder; none where somebody else has.
    pub fn try_lock(&self) -> Result<Option<FolderLock>> {
        let file = File::from(self.readable()?);
        match file.try_lock() {
            Ok(()) => Ok(Some(FolderLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("locking", self.root.whole(b""), error)),
        }
    }

    /// Removes what has a name in this folder, with all below it, if it is one of these; never a link's end,
    /// never another mount.
    pub fn remove_known(&self, name: &[u8], known: &[Identity]) -> Result<Removal> {
        let place = self.named(name)?;
        self.root.forget(name);
        remove::remove_known(&place, known, &self.root.whole(name))
    }

    /// Removes a folder of whoever runs this that has nothing in it; true when it is gone.
    pub fn remove_empty_own(&self, name: &[u8]) -> Result<bool> {
        match self.folder(name).and_then(|folder| folder.check_own()) {
            Err(error) if error.is_not_found() => return Ok(true),
            Err(_) => return Ok(false),
            Ok(()) => {}
        }
        let place = self.named(name)?;
        self.root.forget(name);
        Ok(rustix::fs::unlinkat(place.fd(), &place.name, AtFlags::REMOVEDIR).is_ok())
    }

    fn readable(&self) -> Result<OwnedFd> {
        let place = self.root.place(b"")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(place.fd().as_fd(), c".", flags, Mode::empty()).map_err(self.failed("opening", b""))
    }
}

fn check_own(found: &FileStat) -> std::result::Result<(), String> {
    let me = geteuid().as_raw();
    if found.uid != me {
        return Err(format!("belongs to user {}, not to user {me}, who runs this", found.uid));
    }
    if found.mode & OTHERS_MAY_WRITE != 0 {
        return Err(format!("can be written by others (mode {:o})", found.mode));
    }
    Ok(())
}
