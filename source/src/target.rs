//! Puts files back: every operation beneath an open root, never through a symbolic link.
//!
//! Nothing here decides what a target should look like; each call does one thing, and says what it could not
//! do.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, makedev};
use rustix::io::{self, Errno};

pub use self::capabilities::Capabilities;
pub use self::file::{TargetFile, WriteBuffer};
pub use self::metadata::Unset;
pub use self::obstacles::{Obstacles, Touch};
pub use self::own::{FolderLock, Removal};
pub use self::rename::{exchange, rename_new};
use crate::beneath::{LINKING, Place, RENAMING, Root, descriptor_path};
use crate::read::{Attribute, OpenFile, TreeReader};
use crate::scan::{FileKind, FileTime};
pub use crate::stat::Identity;
use crate::stat::stat;
use crate::{Error, Result};

mod capabilities;
mod file;
mod metadata;
mod obstacles;
mod own;
mod remove;
mod rename;

/// Of a folder or file until its metadata is set: nobody else sees half of it.
const PRIVATE_FOLDER: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

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

/// An open folder that is written to; shared by threads.
#[derive(Clone, Debug)]
pub struct TargetTree {
    root: Arc<Root>,
}

impl TargetTree {
    /// Opens an existing folder (never through a final symbolic link).
    pub fn open(root: &Path) -> Result<Self> {
        Root::open_folder(root).map(|root| Self { root: Arc::new(root) })
    }

    /// The same tree, beneath which nothing is reached that is mounted there, now or later: what leads there
    /// is refused.
    pub fn on_one_mount(&self) -> Result<Self> {
        Ok(Self { root: Arc::new(self.root.on_one_mount()?) })
    }

    /// Makes a folder, mode 0700, and opens it; it must not exist.
    pub fn create(root: &Path) -> Result<Self> {
        rustix::fs::mkdirat(CWD, root, PRIVATE_FOLDER).map_err(|error| Error::io("creating", root, error))?;
        Self::open(root)
    }

    /// The whole path of something in it, as errors and warnings name it.
    #[must_use]
    pub fn whole(&self, path: &[u8]) -> PathBuf {
        self.root.whole(path)
    }

    /// What can be told of the folder without touching it; nothing that needs a probe counts as possible.
    pub fn look(&self) -> Result<Capabilities> {
        capabilities::look(&self.root)
    }

    /// Probes, with real files that are removed again; the folder's modification time changes.
    pub fn capabilities(&self) -> Result<Capabilities> {
        capabilities::probe(&self.root)
    }

    /// Whether files in the folder can share extents (`FICLONE`, probed); the folder stays as it is wherever
    /// files need no name.
    pub fn shares_extents(&self) -> Result<bool> {
        capabilities::shares_extents(&self.root)
    }

    /// Makes a folder (0700 until [`Self::set_metadata`]).
    pub fn create_directory(&self, path: &[u8]) -> Result<()> {
        let place = self.named(path)?;
        rustix::fs::mkdirat(place.fd(), &place.name, PRIVATE_FOLDER).map_err(self.failed("creating", path))
    }

    /// Makes a new regular file (0600, `O_EXCL`) of a length, preallocated unless sparse.
    pub fn create_file(&self, path: &[u8], bytes: u64, sparse: bool) -> Result<TargetFile> {
        let (place, file) = self.create_empty(path)?;
        let sized = if sparse { file.set_bytes(bytes) } else { file.allocate(bytes) };
        let file = self.keep_or_remove(&place, sized.map(|()| file))?;
        if sparse || bytes < file::DIRECT_FILE_BYTES_MIN {
            return Ok(file);
        }
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(file.with_direct(rustix::fs::openat(place.fd(), &place.name, flags, Mode::empty())))
    }

    /// Opens an existing regular file for patching. One that is read-only to its unprivileged owner is made
    /// writable; its metadata is set afterwards anyway.
    pub fn open_file(&self, path: &[u8]) -> Result<TargetFile> {
        let place = self.named(path)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(place.fd(), &place.name, flags, Mode::empty());
        let opened = match open() {
            Err(Errno::ACCESS) => make_owner_writable(&place, PRIVATE_FILE).and_then(|()| open()),
            other => other,
        };
        let opened = opened.map_err(self.failed("opening", path))?;
        self.root.check_mount(&opened).map_err(self.failed("opening", path))?;
        let file = TargetFile::new(opened, self.root.whole(path));
        match file.kind()? {
            FileKind::File => Ok(file),
            _ => Err(Error::refused(self.root.whole(path), "is no regular file")),
        }
    }

    /// Makes a symbolic link.
    pub fn create_symlink(&self, path: &[u8], target: &[u8]) -> Result<()> {
        let place = self.named(path)?;
        let target = CString::new(target)
            .map_err(|_| Error::refused(self.root.whole(path), "a zero byte in the target of a link"))?;
        rustix::fs::symlinkat(target, place.fd(), &place.name).map_err(self.failed("creating the link", path))
    }

    /// Makes another name of `existing`.
    pub fn create_hard_link(&self, path: &[u8], existing: &[u8]) -> Result<()> {
        self.hard_link_from(path, self, existing)
    }

    /// Makes another name of a file of another tree on the same filesystem.
    pub fn hard_link_from(&self, path: &[u8], other: &TargetTree, existing: &[u8]) -> Result<()> {
        let (place, old) = (self.named(path)?, other.named(existing)?);
        rustix::fs::linkat(old.fd(), &old.name, place.fd(), &place.name, AtFlags::empty())
            .map_err(self.failed(LINKING, path))
    }

    /// Makes a FIFO, socket name or device.
    pub fn create_special(&self, path: &[u8], kind: FileKind, device: (u32, u32)) -> Result<()> {
        let file_type = match kind {
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Directory | FileKind::File | FileKind::Symlink => {
                return Err(Error::refused(self.root.whole(path), "is not a special file"));
            }
        };
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let device = if is_device { makedev(device.0, device.1) } else { 0 };
        let place = self.named(path)?;
        rustix::fs::mknodat(place.fd(), &place.name, file_type, PRIVATE_FILE, device)
            .map_err(self.failed("creating", path))
    }

    /// Makes a new file that shares the extents of another (FICLONE).
    pub fn clone_from(&self, path: &[u8], source: &OpenFile) -> Result<TargetFile> {
        let Some(source) = source.fd() else {
            return Err(Error::refused(self.root.whole(path), "would share extents with what is no file"));
        };
        let (place, file) = self.create_empty(path)?;
        let cloned = rustix::fs::ioctl_ficlone(file.fd(), source).map_err(self.failed("cloning to", path));
        self.keep_or_remove(&place, cloned.map(|()| file))
    }

    /// Sets owner, mode, attributes, then times; of a symbolic link what links can have. What an unprivileged
    /// user may not do is returned as a list of warnings.
    pub fn set_metadata(&self, path: &[u8], kind: FileKind, metadata: &TargetMetadata) -> Result<Vec<Unset>> {
        let place = self.root.place(path)?;
        let failed = self.failed("opening", path);
        let pinned = place.pin().map_err(failed)?;
        self.root.check_mount(&pinned).map_err(self.failed("opening", path))?;
        let found = stat(&pinned, c"").map_err(self.failed("looking at", path))?;
        if found.kind != kind {
            return Err(Error::refused(
                self.root.whole(path),
                format!("is {}, not {}", found.kind.name(), kind.name()),
            ));
        }
        metadata::set(metadata::On::Pinned(pinned.as_fd()), &self.root.whole(path), &found, metadata)
    }

    /// Removes a file or a whole folder, never following links and never entering another mount.
    pub fn remove(&self, path: &[u8]) -> Result<()> {
        let place = self.named(path)?;
        self.root.forget(path);
        remove::remove(&place, &self.root.whole(path))
    }

    /// Moves `from` of another tree on the same filesystem over `to` here, whatever stood there. A folder
    /// with something in it is first exchanged, so that there is no instant without the one or the other.
    pub fn replace_from(&self, to: &[u8], other: &TargetTree, from: &[u8]) -> Result<()> {
        let (new, old) = (self.named(to)?, other.named(from)?);
        self.root.forget(to);
        other.root.forget(from);
        match rustix::fs::renameat(old.fd(), &old.name, new.fd(), &new.name) {
            // Two names of one file: the system leaves both, a move does not.
            Ok(()) => match rustix::fs::unlinkat(old.fd(), &old.name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(other.root.failed("removing", from, error)),
            },
            Err(Errno::NOTDIR | Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                match rustix::fs::renameat_with(old.fd(), &old.name, new.fd(), &new.name, RenameFlags::EXCHANGE) {
                    Ok(()) => other.remove(from),
                    Err(Errno::INVAL | Errno::NOSYS) => {
                        self.remove(to)?;
                        rustix::fs::renameat(old.fd(), &old.name, new.fd(), &new.name)
                            .map_err(self.failed(RENAMING, to))
                    }
                    Err(error) => Err(self.root.failed(RENAMING, to, error)),
                }
            }
            Err(error) => Err(self.root.failed(RENAMING, to, error)),
        }
    }

    /// Syncs a folder's names.
    pub fn sync_directory(&self, path: &[u8]) -> Result<()> {
        let folder = self.open_for_sync(path)?;
        rustix::fs::fsync(folder).map_err(self.failed("syncing", path))
    }

    /// Syncs the whole filesystem (`syncfs`).
    pub fn sync_filesystem(&self) -> Result<()> {
        let folder = self.open_for_sync(&[])?;
        rustix::fs::syncfs(folder).map_err(self.failed("syncing the filesystem of", &[]))
    }

    /// A reading view of the same tree.
    #[must_use]
    pub fn reader(&self) -> TreeReader {
        TreeReader::of(self.root.clone())
    }

    fn open_for_sync(&self, path: &[u8]) -> Result<impl AsFd + use<>> {
        let place = self.root.place(path)?;
        let name = if place.name.is_empty() { c"." } else { place.name.as_c_str() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(place.fd(), name, flags, Mode::empty()).map_err(self.failed("opening", path))
    }

    /// The place of a path other than the root itself.
    fn named(&self, path: &[u8]) -> Result<Place> {
        if path.is_empty() {
            return Err(Error::refused(self.root.whole(path), "is the root of the target, which stays"));
        }
        self.root.place(path)
    }

    fn create_empty(&self, path: &[u8]) -> Result<(Place, TargetFile)> {
        let place = self.named(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(place.fd(), &place.name, flags, PRIVATE_FILE).map_err(self.failed("creating", path))?;
        Ok((place, TargetFile::new(fd, self.root.whole(path))))
    }

    /// Leaves no file behind that could not be completed.
    fn keep_or_remove(&self, place: &Place, result: Result<TargetFile>) -> Result<TargetFile> {
        if result.is_err() {
            // The error that is reported is the first one.
            let _ = rustix::fs::unlinkat(place.fd(), &place.name, AtFlags::empty());
        }
        result
    }

    fn failed<'a>(&'a self, action: &'static str, path: &'a [u8]) -> impl FnOnce(Errno) -> Error + 'a {
        move |error| self.root.failed(action, path, error)
    }
}

/// Adds permissions of the owner to the file or folder that is at a place, and no other.
fn make_owner_writable(place: &Place, added: Mode) -> io::Result<()> {
    let pinned = place.pin()?;
    let found = stat(&pinned, c"")?;
    if found.kind == FileKind::Symlink {
        return Err(Errno::LOOP);
    }
    rustix::fs::chmod(descriptor_path(&pinned, b""), Mode::from_raw_mode(found.mode) | added)
}
