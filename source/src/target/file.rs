//! A file being written, by descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FallocateFlags;
use rustix::io::{self, Errno};

use super::TargetMetadata;
use super::metadata::{self, Unset};
use crate::Result;
use crate::read::Opened;
use crate::scan::FileKind;

/// Below this a reservation costs more than the fragmentation that it avoids.
const ALLOCATE_BYTES_MIN: u64 = 128 * 1024;

/// What direct writes must be whole multiples of: no block of a device in use is larger.
const BLOCK_BYTES: usize = 4096;
/// A direct write waits for the device, which pays from this length on.
const DIRECT_WRITE_BYTES_MIN: usize = 256 * 1024;
/// Files of at least this length are written past the page cache: shorter ones are likely to be read soon,
/// and their writing out is over soon.
pub(super) const DIRECT_FILE_BYTES_MIN: u64 = 32 << 20;

/// Zeros written where a filesystem can't punch holes.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A file being written; shared by threads.
#[derive(Clone, Debug)]
pub struct TargetFile {
    file: Arc<Opened>,
    /// For writes past the page cache.
    direct: Option<Arc<Direct>>,
}

/// A second descriptor of the same file, opened with `O_DIRECT`.
#[derive(Debug)]
struct Direct {
    fd: OwnedFd,
    /// The filesystem took the flag and not the write.
    refused: AtomicBool,
}

impl TargetFile {
    pub(super) fn new(fd: OwnedFd, path: PathBuf) -> Self {
        Self { file: Arc::new(Opened { fd, path }), direct: None }
    }

    /// Has whole blocks written past the page cache: half the processor time of a large file goes into
    /// filling a cache that is then written out anyway. A filesystem that cannot is written to as ever.
    pub(super) fn with_direct(mut self, opened: io::Result<OwnedFd>) -> Self {
        self.direct = opened.ok().map(|fd| Arc::new(Direct { fd, refused: AtomicBool::new(false) }));
        self
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.file.fd
    }

    pub(super) fn kind(&self) -> Result<FileKind> {
        self.file.stat().map(|stat| stat.kind)
    }

    /// Reserves the space, so that a full disk is met before the first byte; where that is unsupported, sets
    /// the length.
    pub(super) fn allocate(&self, bytes: u64) -> Result<()> {
        if bytes >= ALLOCATE_BYTES_MIN {
            match rustix::fs::fallocate(&self.file.fd, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {}
                Err(error) => return Err(self.file.failed("reserving space for")(error)),
            }
        }
        self.set_bytes(bytes)
    }

    /// Writes all bytes at an offset; whole blocks of a large file that come in a [`WriteBuffer`] past the
    /// page cache.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut written = match &self.direct {
            Some(direct) => direct.write_blocks(offset, bytes).map_err(self.file.failed("writing"))?,
            None => 0,
        };
        while written < bytes.len() {
            match rustix::io::pwrite(&self.file.fd, &bytes[written..], offset + written as u64) {
                Ok(0) => return Err(self.file.failed("writing")(Errno::IO)),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.file.failed("writing")(error)),
            }
        }
        Ok(())
    }

    /// Whether whole blocks are written past the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Makes a hole (zeros), within the file's length.
    pub fn punch_hole(&self, offset: u64, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file.fd, flags, offset, bytes) {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP | Errno::NOSYS) => self.write_zeros(offset, bytes),
            Err(error) => Err(self.file.failed("making a hole in")(error)),
        }
    }

    fn write_zeros(&self, offset: u64, bytes: u64) -> Result<()> {
        let end = offset.saturating_add(bytes).min(self.file.stat()?.bytes);
        let mut position = offset;
        while position < end {
            let count = (end - position).min(ZEROS.len() as u64);
            self.write_at(position, &ZEROS[..count as usize])?;
            position += count;
        }
        Ok(())
    }

    /// Sets the length.
    pub fn set_bytes(&self, bytes: u64) -> Result<()> {
        rustix::fs::ftruncate(&self.file.fd, bytes).map_err(self.file.failed("setting the length of"))
    }

    /// Syncs content and metadata.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.file.fd).map_err(self.file.failed("syncing"))
    }

    /// Reads at an offset, for comparison; fewer bytes than asked only at the end of the file.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer)
    }

    /// Owner, mode, attributes, then times, by descriptor.
    pub fn set_metadata(&self, metadata: &TargetMetadata) -> Result<Vec<Unset>> {
        let found = self.file.stat()?;
        metadata::set(metadata::On::Open(self.file.fd.as_fd()), &self.file.path, &found, metadata)
    }
}

impl Direct {
    /// Writes the blocks at the front of `bytes`, as far as place, memory and length are whole blocks; gives
    /// how many bytes.
    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let whole = bytes.len() - bytes.len() % BLOCK_BYTES;
        let mut written = 0;
        while whole - written >= DIRECT_WRITE_BYTES_MIN && !self.refused.load(Ordering::Relaxed) {
            let at = offset + written as u64;
            if !at.is_multiple_of(BLOCK_BYTES as u64) || bytes[written..].as_ptr().align_offset(BLOCK_BYTES) != 0 {
                break;
            }
            match rustix::io::pwrite(&self.fd, &bytes[written..whole], at) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => self.refused.store(true, Ordering::Relaxed),
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}

/// Memory that begins at a block's border, as direct writes ask for.
#[derive(Debug, Default)]
pub struct WriteBuffer {
    memory: Vec<u8>,
}

impl WriteBuffer {
    /// So many bytes of it, whatever they hold.
    pub fn bytes(&mut self, count: usize) -> &mut [u8] {
        if self.memory.len() < count + BLOCK_BYTES {
            // A new vector: growing would copy bytes that nobody needs.
            self.memory = vec![0; count + BLOCK_BYTES];
        }
        let begin = self.memory.as_ptr().align_offset(BLOCK_BYTES);
        // The offset is unknown only where code is not really run; there alignment does not matter.
        let begin = if begin < BLOCK_BYTES { begin } else { 0 };
        &mut self.memory[begin..begin + count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_block() {
        let mut buffer = WriteBuffer::default();
        for count in [0, 1, 4095, 4096, 1 << 20, 17] {
            let bytes = buffer.bytes(count);
            assert_eq!(bytes.len(), count);
            assert_eq!(bytes.as_ptr().align_offset(BLOCK_BYTES), 0);
        }
    }
}
