//! Reads files of a tree by descriptor, never following links.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::attributes::At;
use crate::beneath::{Place, Root, descriptor_path, without_atime};
use crate::scan::{FileKind, FileStat};
use crate::stat::stat;
use crate::{Error, Result};

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
    root: Arc<Root>,
}

impl TreeReader {
    /// Opens the root: a folder, or one file (then every path is empty). A link that leads to a folder is followed.
    pub fn open(root: &Path) -> Result<Self> {
        Root::open(root).map(|root| Self::of(Arc::new(root)))
    }

    pub(crate) fn of(root: Arc<Root>) -> Self {
        Self { root }
    }

    /// Opens a regular file for reading: `O_NOFOLLOW|O_NONBLOCK|O_NOATIME` where permitted, beneath the root.
    pub fn open_file(&self, path: &[u8]) -> Result<OpenFile> {
        let place = self.root.place(path)?;
        let fd = open_regular(&place).map_err(|error| self.root.failed("opening", path, error))?;
        let file = OpenFile { file: Arc::new(Opened { fd, path: self.root.whole(path) }) };
        match file.stat()?.kind {
            FileKind::File => Ok(file),
            _ => Err(Error::refused(self.root.whole(path), "is no regular file (any more)")),
        }
    }

    /// Current metadata, not following a link.
    pub fn stat(&self, path: &[u8]) -> Result<FileStat> {
        let place = self.root.place(path)?;
        stat(place.fd(), &place.name).map_err(|error| self.root.failed("looking at", path, error))
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let place = self.root.place(path)?;
        rustix::fs::readlinkat(place.fd(), &place.name, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|error| self.root.failed("reading the link", path, error))
    }

    /// Extended attributes, ACLs among them, sorted by name; what the filesystem does not support is none.
    /// Works on every kind (through the descriptor or `/proc/self/fd`).
    pub fn attributes(&self, path: &[u8]) -> Result<Vec<Attribute>> {
        let place = self.root.place(path)?;
        let at = At::Name(place.fd(), &place.name);
        at.read().map_err(|error| self.root.failed("reading the attributes of", path, error))
    }
}

fn open_regular(place: &Place) -> rustix::io::Result<OwnedFd> {
    // Without O_NONBLOCK a FIFO that took the file's place would block for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = without_atime(flags, |flags| rustix::fs::openat(place.fd(), &place.name, flags, Mode::empty()));
    match opened {
        // Another process holds a lease (a file server does): wait until the kernel has broken it, on the pinned
        // file, so that nothing else can be in its place.
        Err(Errno::AGAIN) => {
            let pinned = place.pin()?;
            if stat(&pinned, c"")?.kind != FileKind::File {
                return Err(Errno::AGAIN);
            }
            let path = descriptor_path(&pinned, b"");
            let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, path, flags, Mode::empty())
        }
        other => other,
    }
}

/// An open regular file; shared by threads.
#[derive(Clone, Debug)]
pub struct OpenFile {
    file: Arc<Opened>,
}

/// A descriptor and its path for messages.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
}

impl Opened {
    pub(crate) fn failed(&self, action: &'static str) -> impl FnOnce(Errno) -> Error + '_ {
        move |error| Error::io(action, &self.path, error)
    }

    pub(crate) fn stat(&self) -> Result<FileStat> {
        stat(&self.fd, c"").map_err(self.failed("looking at"))
    }

    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(&self.fd, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed("reading")(error)),
            }
        }
        Ok(filled)
    }
}

impl OpenFile {
    /// Metadata by descriptor.
    pub fn stat(&self) -> Result<FileStat> {
        self.file.stat()
    }

    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer)
    }

    /// Data ranges by `SEEK_DATA`/`SEEK_HOLE` from `offset` on; one range for the whole file where unsupported.
    pub fn data_ranges(&self, offset: u64) -> Result<Vec<DataRange>> {
        let end = self.stat()?.bytes;
        let mut ranges = Vec::new();
        let mut position = offset;
        while position < end {
            let start = match rustix::fs::seek(&self.file.fd, SeekFrom::Data(position)) {
                Ok(start) => start.max(position),
                // Only a hole up to the end; or the file was cut meanwhile.
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::NOTSUP) => position,
                Err(error) => return Err(self.file.failed("looking for data in")(error)),
            };
            let stop = match rustix::fs::seek(&self.file.fd, SeekFrom::Hole(start)) {
                Ok(stop) => stop.min(end),
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::NOTSUP) => end,
                Err(error) => return Err(self.file.failed("looking for holes in")(error)),
            };
            if stop <= start {
                break;
            }
            ranges.push(DataRange { offset: start, bytes: stop - start });
            position = stop;
        }
        Ok(ranges)
    }

    /// Extended attributes by descriptor.
    pub fn attributes(&self) -> Result<Vec<Attribute>> {
        At::Open(self.file.fd.as_fd()).read().map_err(self.file.failed("reading the attributes of"))
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.file.fd
    }
}
