//! The switch of whole trees: renames of what a user named, each followed by a sync of the folders concerned.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::beneath::{RENAMING, parent_of};
use crate::stat::stat;
use crate::{Error, Result};

/// Exchanges two paths atomically and syncs both parents; both must exist on one filesystem. There is no
/// substitute where the filesystem can't: [`super::Capabilities::exchange`] tells beforehand.
pub fn exchange(a: &Path, b: &Path) -> Result<()> {
    let (first, second) = (Name::open(a)?, Name::open(b)?);
    rustix::fs::renameat_with(&first.parent, first.name, &second.parent, second.name, RenameFlags::EXCHANGE)
        .map_err(|error| Error::io(RENAMING, a, error))?;
    first.sync(a)?;
    second.sync(b)
}

/// Renames `from` to `to`, which must not exist, and syncs both parents.
pub fn rename_new(from: &Path, to: &Path) -> Result<()> {
    let (old, new) = (Name::open(from)?, Name::open(to)?);
    let failed = |error: Errno| Error::io(RENAMING, to, error);
    match rustix::fs::renameat_with(&old.parent, old.name, &new.parent, new.name, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        // Some network filesystems lack the flag: there a name that appears between the look and the rename
        // is lost.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let name = crate::beneath::c_string(to, new.name.as_encoded_bytes())?;
            match stat(&new.parent, &name) {
                Err(Errno::NOENT) => {}
                Ok(_) => return Err(failed(Errno::EXIST)),
                Err(error) => return Err(failed(error)),
            }
            rustix::fs::renameat(&old.parent, old.name, &new.parent, new.name).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    new.sync(to)?;
    old.sync(from)
}

/// A name in its open parent, which can be synced.
struct Name<'a> {
    parent: OwnedFd,
    name: &'a std::ffi::OsStr,
}

impl<'a> Name<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Error::refused(path, "has no name that could be changed"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(CWD, parent_of(path), flags, Mode::empty())
            .map_err(|error| Error::io("opening the folder of", path, error))?;
        Ok(Self { parent, name })
    }

    fn sync(&self, path: &Path) -> Result<()> {
        rustix::fs::fsync(&self.parent).map_err(|error| Error::io("syncing the folder of", path, error))
    }
}
