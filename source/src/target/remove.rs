//! Removal of a whole tree: by descriptors, never through a link, never into another mount, to any depth.
//!
//! Only the folders nearest to the one being emptied stay open. On the way back up from a very deep place the
//! parent is opened as `..`, and accepted only when it is the very folder that was left.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::{self, Errno};

use super::{Removal, make_owner_writable};
use crate::beneath::Place;
use crate::scan::FileKind;
use crate::stat::{Identity, Mount, identity, kind, stat};
use crate::{Error, Result};

/// Ancestors that stay open; deeper trees open them again.
const OPEN_ANCESTORS_MAX: usize = 32;

const NAMES_BUFFER_BYTES: usize = 32 * 1024;

const LISTING: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes what is at a place.
pub(super) fn remove(place: &Place, path: &Path) -> Result<()> {
    let failed = |error: Errno| Error::io("removing", path, error);
    match unlink(place.fd(), &place.name) {
        Ok(()) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(failed(error)),
    }
    if stat(place.fd(), &place.name).map_err(failed)?.kind != FileKind::Directory {
        return Err(failed(Errno::PERM));
    }
    remove_folder(place, &[]).map_err(|error| refusal(error, path))
}

/// Removes what is at a place if it is one of these. A folder is looked at through the descriptor by which it
/// is emptied: what is renamed meanwhile stays.
pub(super) fn remove_known(place: &Place, known: &[Identity], path: &Path) -> Result<Removal> {
    let removed = match identity(place.fd(), &place.name) {
        Ok(found) if !known.contains(&found) => return Ok(Removal::Other),
        Ok(_) => match stat(place.fd(), &place.name) {
            Ok(found) if found.kind == FileKind::Directory => remove_folder(place, known),
            Ok(_) => unlink(place.fd(), &place.name),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(Removal::Gone),
        Err(Errno::STALE) => Ok(Removal::Other),
        Err(error) => Err(refusal(error, path)),
    }
}

/// `STALE`: it is none of the known ones, of which there is at least one.
fn remove_folder(place: &Place, known: &[Identity]) -> io::Result<()> {
    let mount = Mount::of(place.fd(), c"")?;
    let top = Folder::enter(place, mount, known)?;
    Emptying { mount, open: VecDeque::new(), ancestors: Vec::new() }.empty(top)?;
    rustix::fs::unlinkat(place.fd(), &place.name, AtFlags::REMOVEDIR)
}

/// A folder that is being emptied: open, with the subfolders that are left.
struct Folder {
    fd: OwnedFd,
    subfolders: Vec<CString>,
}

impl Folder {
    /// Opens a folder and removes everything in it that is no folder.
    fn enter(place: &Place, mount: Mount, known: &[Identity]) -> io::Result<Self> {
        Self::enter_at(&place.folder, &place.name, mount, known)
    }

    fn enter_at(parent: &OwnedFd, name: &CStr, mount: Mount, known: &[Identity]) -> io::Result<Self> {
        let open = || rustix::fs::openat(parent, name, LISTING, Mode::empty());
        let fd = match open() {
            Err(Errno::ACCESS) => {
                unlock(parent, name)?;
                open()?
            }
            other => other?,
        };
        if !known.is_empty() && !known.contains(&identity(&fd, c"")?) {
            return Err(Errno::STALE);
        }
        if !Mount::of(&fd, c"")?.same_mount(mount) {
            return Err(Errno::XDEV);
        }
        let mut folder = Self { fd, subfolders: Vec::new() };
        match folder.remove_files() {
            // A folder of one's own without permission to write.
            Err(Errno::ACCESS) => {
                unlock(parent, name)?;
                folder.remove_files()?;
            }
            other => other?,
        }
        Ok(folder)
    }

    fn remove_files(&mut self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(NAMES_BUFFER_BYTES);
        rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0))?;
        self.subfolders.clear();
        let mut files = Vec::new();
        let mut listing = RawDir::new(&self.fd, buffer.spare_capacity_mut());
        while let Some(found) = listing.next() {
            let found = found?;
            if matches!(found.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match kind(found.file_type()) {
                Some(kind) => kind,
                None => stat(&self.fd, found.file_name())?.kind,
            };
            let list = if kind == FileKind::Directory { &mut self.subfolders } else { &mut files };
            list.push(found.file_name().to_owned());
        }
        for name in files {
            match unlink(&self.fd, &name) {
                Ok(()) | Err(Errno::NOENT) => {}
                // It became a folder since its name was read.
                Err(Errno::ISDIR) => self.subfolders.push(name),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct Emptying {
    mount: Mount,
    /// The nearest ancestors of the current folder, the parent last.
    open: VecDeque<OwnedFd>,
    /// Every ancestor, the parent last.
    ancestors: Vec<Ancestor>,
}

struct Ancestor {
    identity: Identity,
    subfolders: Vec<CString>,
    /// The name in it of the folder that was entered.
    entered: CString,
}

impl Emptying {
    fn empty(&mut self, top: Folder) -> io::Result<()> {
        let mut current = top;
        loop {
            if let Some(name) = current.subfolders.pop() {
                let below = match Folder::enter_at(&current.fd, &name, self.mount, &[]) {
                    Ok(below) => below,
                    Err(Errno::NOENT) => continue,
                    // It became a file or a link: that is removed, not followed.
                    Err(Errno::NOTDIR | Errno::LOOP) => {
                        unlink(&current.fd, &name)?;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let identity = identity(&current.fd, c"")?;
                self.ancestors.push(Ancestor { identity, subfolders: current.subfolders, entered: name });
                self.open.push_back(current.fd);
                if self.open.len() > OPEN_ANCESTORS_MAX {
                    self.open.pop_front();
                }
                current = below;
            } else {
                let Some(Ancestor { identity: left, subfolders, entered }) = self.ancestors.pop() else {
                    return Ok(());
                };
                let parent = match self.open.pop_back() {
                    Some(parent) => parent,
                    None => {
                        let parent = rustix::fs::openat(&current.fd, c"..", LISTING, Mode::empty())?;
                        if identity(&parent, c"")? != left {
                            return Err(Errno::XDEV);
                        }
                        parent
                    }
                };
                match rustix::fs::unlinkat(&parent, &entered, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
                current = Folder { fd: parent, subfolders };
            }
        }
    }
}

fn unlink(folder: impl std::os::fd::AsFd, name: &CStr) -> io::Result<()> {
    rustix::fs::unlinkat(folder, name, AtFlags::empty())
}

fn unlock(parent: &OwnedFd, name: &CStr) -> io::Result<()> {
    let folder = std::sync::Arc::new(parent.try_clone().map_err(|_| Errno::MFILE)?);
    make_owner_writable(&Place { folder, name: name.to_owned() }, Mode::RWXU)
}

fn refusal(error: Errno, path: &Path) -> Error {
    if error == Errno::XDEV {
        return Error::refused(path, "another filesystem is mounted in it, or it was moved meanwhile");
    }
    Error::io("removing", path, error)
}
