//! Reads files of a tree by descriptor, never following links.

use std::fmt::Debug;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::attributes::At;
pub use crate::attributes::Attribute;
use crate::beneath::{Place, Root, descriptor_path, without_atime};
use crate::scan::{FileKind, FileStat};
use crate::stat::stat;
use crate::{Error, Result};

/// A range of a file that is data (not a hole).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataRange {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Bytes that are no file of the system, and that read the same as long as they are held: pages that a
/// transaction pins.
pub trait PinnedBytes: Send + Sync + Debug {
    /// What the file that they make would look like. Neither inode nor change time: nothing may take it for a
    /// file on disk.
    fn stat(&self) -> FileStat;
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;
    /// Extended attributes, sorted by name.
    fn attributes(&self) -> Result<Vec<Attribute>>;
}

/// The root of a tree, open; shared by threads. Small cache of open parent folders inside.
#[derive(Clone, Debug)]
pub struct TreeReader {
    of: Of,
}

#[derive(Clone, Debug)]
enum Of {
    Tree(Arc<Root>),
    Pinned(Arc<dyn PinnedBytes>, Box<[u8]>),
}

impl TreeReader {
    /// Opens the root: a folder, or one file (then every path is empty). A link that leads to a folder is
    /// followed.
    pub fn open(root: &Path) -> Result<Self> {
        Root::open(root).map(|root| Self::of(Arc::new(root)))
    }

    pub(crate) fn of(root: Arc<Root>) -> Self {
        Self { of: Of::Tree(root) }
    }

    /// A tree of one file, the root, that is these bytes.
    #[must_use]
    pub fn of_pinned(bytes: Arc<dyn PinnedBytes>) -> Self {
        Self::of_pinned_at(bytes, &[])
    }

    /// A tree of which only one file can be read, at a path, that is these bytes.
    #[must_use]
    pub fn of_pinned_at(bytes: Arc<dyn PinnedBytes>, path: &[u8]) -> Self {
        Self { of: Of::Pinned(bytes, path.into()) }
    }

    fn root(&self, path: &[u8]) -> Result<&Root> {
        match &self.of {
            Of::Tree(root) => Ok(root),
            Of::Pinned(..) => {
                let path = String::from_utf8_lossy(path).into_owned();
                Err(Error::refused(path, "is not part of a source that is one file"))
            }
        }
    }

    fn pinned(&self, path: &[u8]) -> Option<&Arc<dyn PinnedBytes>> {
        match &self.of {
            Of::Pinned(bytes, at) if path == &**at => Some(bytes),
            _ => None,
        }
    }

    /// Opens a regular file for reading: `O_NOFOLLOW|O_NONBLOCK|O_NOATIME` where permitted, beneath the root.
    pub fn open_file(&self, path: &[u8]) -> Result<OpenFile> {
        if let Some(bytes) = self.pinned(path) {
            return Ok(OpenFile { file: Content::Pinned(Arc::clone(bytes)), stands_for: None });
        }
        let root = self.root(path)?;
        let place = root.place(path)?;
        let fd = open_regular(&place).map_err(|error| root.failed("opening", path, error))?;
        let content = Content::File(Arc::new(Opened { fd, path: root.whole(path) }));
        let file = OpenFile { file: content, stands_for: None };
        match file.stat()?.kind {
            FileKind::File => Ok(file),
            _ => Err(Error::refused(root.whole(path), "is no regular file (any more)")),
        }
    }

    /// Current metadata, not following a link.
    pub fn stat(&self, path: &[u8]) -> Result<FileStat> {
        if let Some(bytes) = self.pinned(path) {
            return Ok(bytes.stat());
        }
        let root = self.root(path)?;
        let place = root.place(path)?;
        stat(place.fd(), &place.name).map_err(|error| root.failed("looking at", path, error))
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let root = self.root(path)?;
        let place = root.place(path)?;
        rustix::fs::readlinkat(place.fd(), &place.name, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|error| root.failed("reading the link", path, error))
    }

    /// Extended attributes, ACLs among them, sorted by name; what the filesystem does not support is none.
    /// Works on every kind (through the descriptor or `/proc/self/fd`).
    pub fn attributes(&self, path: &[u8]) -> Result<Vec<Attribute>> {
        if let Some(bytes) = self.pinned(path) {
            return bytes.attributes();
        }
        let root = self.root(path)?;
        let place = root.place(path)?;
        let at = At::Name(place.fd(), &place.name);
        at.read().map_err(|error| root.failed("reading the attributes of", path, error))
    }
}

fn open_regular(place: &Place) -> rustix::io::Result<OwnedFd> {
    // Without O_NONBLOCK a FIFO that took the file's place would block for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = without_atime(flags, |flags| rustix::fs::openat(place.fd(), &place.name, flags, Mode::empty()));
    match opened {
        // Another process holds a lease (a file server does): wait until the kernel has broken it, on the
        // pinned file, so that nothing else can be in its place.
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
    file: Content,
    /// The file that this one is a clone of.
    stands_for: Option<FileStat>,
}

#[derive(Clone, Debug)]
enum Content {
    File(Arc<Opened>),
    Pinned(Arc<dyn PinnedBytes>),
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
    /// The same file, with the metadata of the one that it is a clone of.
    #[must_use]
    pub fn standing_for(self, stat: FileStat) -> Self {
        Self { stands_for: Some(stat), ..self }
    }

    pub(crate) fn is_clone(&self) -> bool {
        self.stands_for.is_some()
    }

    /// Metadata by descriptor.
    pub fn stat(&self) -> Result<FileStat> {
        if let Some(stat) = self.stands_for {
            return Ok(stat);
        }
        match &self.file {
            Content::File(file) => file.stat(),
            Content::Pinned(bytes) => Ok(bytes.stat()),
        }
    }

    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match &self.file {
            Content::File(file) => file.read_at(offset, buffer),
            Content::Pinned(bytes) => bytes.read_at(offset, buffer),
        }
    }

    /// Data ranges by `SEEK_DATA`/`SEEK_HOLE` from `offset` on; one range for the whole file where
    /// unsupported.
    pub fn data_ranges(&self, offset: u64) -> Result<Vec<DataRange>> {
        let end = self.stat()?.bytes;
        let Content::File(file) = &self.file else {
            let whole = DataRange { offset, bytes: end.saturating_sub(offset) };
            return Ok((whole.bytes > 0).then_some(whole).into_iter().collect());
        };
        let mut ranges = Vec::new();
        let mut position = offset;
        while position < end {
            let start = match rustix::fs::seek(&file.fd, SeekFrom::Data(position)) {
                Ok(start) => start.max(position),
                // Only a hole up to the end; or the file was cut meanwhile.
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::NOTSUP) => position,
                Err(error) => return Err(file.failed("looking for data in")(error)),
            };
            let stop = match rustix::fs::seek(&file.fd, SeekFrom::Hole(start)) {
                Ok(stop) => stop.min(end),
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::NOTSUP) => end,
                Err(error) => return Err(file.failed("looking for holes in")(error)),
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
        match &self.file {
            Content::File(file) => At::Open(file.fd.as_fd()).read().map_err(file.failed("reading the attributes of")),
            Content::Pinned(bytes) => bytes.attributes(),
        }
    }

    /// A file of the system.
    pub(crate) fn opened(&self) -> Option<&Opened> {
        match &self.file {
            Content::File(file) => Some(file),
            Content::Pinned(_) => None,
        }
    }

    /// Metadata by descriptor, whatever it stands for.
    pub fn own_stat(&self) -> Result<FileStat> {
        match &self.file {
            Content::File(file) => file.stat(),
            Content::Pinned(bytes) => Ok(bytes.stat()),
        }
    }

    /// The descriptor of a file of the system.
    pub(crate) fn fd(&self) -> Option<&OwnedFd> {
        match &self.file {
            Content::File(file) => Some(&file.fd),
            Content::Pinned(_) => None,
        }
    }
}
