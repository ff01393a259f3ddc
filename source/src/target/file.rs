//! A file being written, by descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::TargetMetadata;
use super::metadata;
use crate::Result;
use crate::read::Opened;
use crate::scan::FileKind;

/// Below this a reservation costs more than the fragmentation that it avoids.
const ALLOCATE_BYTES_MIN: u64 = 128 * 1024;

/// Zeros written where a filesystem can't punch holes.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A file being written; shared by threads.
#[derive(Clone, Debug)]
pub struct TargetFile {
    file: Arc<Opened>,
}

impl TargetFile {
    pub(super) fn new(fd: OwnedFd, path: PathBuf) -> Self {
        Self { file: Arc::new(Opened { fd, path }) }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.file.fd
    }

    pub(super) fn kind(&self) -> Result<FileKind> {
        self.file.stat().map(|stat| stat.kind)
    }

    /// Reserves the space, so that a full disk is met before the first byte; where that is unsupported, sets the length.
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

    /// Writes all bytes at an offset.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut written = 0;
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
    pub fn set_metadata(&self, metadata: &TargetMetadata) -> Result<Vec<String>> {
        let found = self.file.stat()?;
        metadata::set(metadata::On::Open(self.file.fd.as_fd()), &self.file.path, &found, metadata)
    }
}
