//! Copies that outlive the process: what a transaction or a command gave, as files of a spool, and small
//! values.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::read::{Attribute, PinnedBytes};
use crate::scan::{FileKind, FileStat, FileTime};
use crate::{Error, Result};

/// Longest small value in bytes.
pub const VALUE_BYTES_MAX: u64 = 48 << 10;
/// Bytes copied at a time.
const COPY_BYTES: u64 = 4 << 20;

/// Metadata that a kept copy stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stands {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub modified: FileTime,
}

impl Stands {
    /// Those of a file.
    pub fn of(path: &Path) -> Result<Self> {
        let found = fs::metadata(path).map_err(|error| Error::io("looking at", path, error))?;
        Ok(Self::of_metadata(&found))
    }

    fn of_metadata(found: &fs::Metadata) -> Self {
        let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or_default();
        let modified = FileTime { seconds: found.mtime(), nanoseconds };
        Self { mode: found.mode() & 0o7777, uid: found.uid(), gid: found.gid(), modified }
    }

    /// A file with these metadata and without a place: nothing takes it for one that stands anywhere.
    fn stat(self, bytes: u64) -> FileStat {
        FileStat {
            kind: FileKind::File,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            bytes,
            allocated_bytes: bytes,
            modified: self.modified,
            changed: FileTime::default(),
            inode: 0,
            links: 1,
            device: 0,
            special: (0, 0),
        }
    }
}

/// A file or a device, read as one file.
#[derive(Debug)]
pub struct KeptFile {
    path: PathBuf,
    file: File,
    stat: FileStat,
}

impl KeptFile {
    /// Opens a copy that stands for something else, or a block device that stands for itself.
    pub fn open(path: &Path, stands: Stands) -> Result<Self> {
        let failed = |error| Error::io("opening", path, error);
        let mut file = File::open(path).map_err(failed)?;
        // A device has a length only by its end.
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, stat: stands.stat(bytes) })
    }

    /// Opens a block device, which becomes a file that its owner may read and write.
    pub fn device(path: &Path) -> Result<Self> {
        let stands = Stands::of(path)?;
        Self::open(path, Stands { mode: 0o600, ..stands })
    }
}

/// Whether a path is a block device.
pub fn is_block_device(path: &Path) -> Result<bool> {
    let found = fs::metadata(path).map_err(|error| Error::io("looking at", path, error))?;
    Ok(found.file_type().is_block_device())
}

impl PinnedBytes for KeptFile {
    fn stat(&self) -> FileStat {
        self.stat
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("reading", &self.path, error)),
            }
        }
        Ok(filled)
    }

    fn attributes(&self) -> Result<Vec<Attribute>> {
        Ok(Vec::new())
    }
}

/// A small value.
#[derive(Debug)]
pub struct KeptValue {
    bytes: Vec<u8>,
    stat: FileStat,
}

impl KeptValue {
    /// Reads a small file whole.
    pub fn read(path: &Path) -> Result<(Vec<u8>, Stands)> {
        let failed = |error| Error::io("reading", path, error);
        let file = File::open(path).map_err(failed)?;
        let stands = Stands::of_metadata(&file.metadata().map_err(failed)?);
        let mut bytes = Vec::new();
        file.take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > VALUE_BYTES_MAX {
            return Err(Error::refused(path, format!("is longer than a small value ({VALUE_BYTES_MAX} bytes)")));
        }
        Ok((bytes, stands))
    }

    /// A value that stands for a file.
    #[must_use]
    pub fn new(bytes: Vec<u8>, stands: Stands) -> Self {
        let stat = stands.stat(bytes.len() as u64);
        Self { bytes, stat }
    }
}

impl PinnedBytes for KeptValue {
    fn stat(&self) -> FileStat {
        self.stat
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let read = buffer.len().min(self.bytes.len() - from);
        buffer[..read].copy_from_slice(&self.bytes[from..from + read]);
        Ok(read)
    }

    fn attributes(&self) -> Result<Vec<Attribute>> {
        Ok(Vec::new())
    }
}

/// Copies pinned bytes to a new private file, by several threads, and makes it durable. `stop` is asked now
/// and then.
pub fn copy(from: &dyn PinnedBytes, to: &Path, threads: usize, stop: &(dyn Fn() -> bool + Sync)) -> Result<()> {
    let failed = |error| Error::io("writing", to, error);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let bytes = from.stat().bytes;
    file.set_len(bytes).map_err(failed)?;
    let next = std::sync::atomic::AtomicU64::new(0);
    let work = || -> Result<()> {
        let mut buffer = vec![0; usize::try_from(COPY_BYTES.min(bytes)).unwrap_or_default()];
        loop {
            let at = next.fetch_add(COPY_BYTES, std::sync::atomic::Ordering::Relaxed);
            if at >= bytes {
                return Ok(());
            }
            if stop() {
                return Err(Error::io("writing", to, std::io::Error::from(std::io::ErrorKind::Interrupted)));
            }
            let wanted = usize::try_from(COPY_BYTES.min(bytes - at)).unwrap_or_default();
            let read = from.read_at(at, &mut buffer[..wanted])?;
            file.write_all_at(&buffer[..read], at).map_err(failed)?;
            if read < wanted {
                return Err(Error::refused(to, "would be shorter than what it is a copy of"));
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(Error::refused(to, "was not copied: a worker died")))
        })
    })?;
    file.sync_all().map_err(failed)
}
