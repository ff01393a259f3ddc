//! Block devices as targets: which one stands at a path, how long it is, and how an image is written to it.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::{Error, Result};

/// Bytes that are read, compared and written at a time.
const BLOCK_BYTES: usize = 1 << 20;
/// What the system says of a device that another one at the same number would not have; below
/// `/sys/dev/block/MAJOR:MINOR`.
const MARKS: [&str; 8] =
    ["size", "partition", "start", "dm/uuid", "loop/backing_file", "wwid", "device/wwid", "device/serial"];

/// A block device, held: nobody else has it mounted or held.
#[derive(Debug)]
pub struct BlockDevice {
    path: std::path::PathBuf,
    file: File,
    bytes: u64,
}

/// Which device stands at a path: its number, and what the system says of it. After a restart another one may
/// have the number.
pub fn device_identity(path: &Path) -> Result<String> {
    let found = fs::metadata(path).map_err(|error| Error::io("looking at", path, error))?;
    if !found.file_type().is_block_device() {
        return Err(Error::refused(path, "is no block device"));
    }
    let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    let mut identity = format!("{major}:{minor}");
    let folder = format!("/sys/dev/block/{major}:{minor}");
    for mark in MARKS {
        if let Ok(text) = fs::read_to_string(Path::new(&folder).join(mark)) {
            let _ = write!(identity, " {mark}={}", text.trim());
        }
    }
    Ok(identity)
}

/// Length of a block device in bytes.
pub fn device_bytes(path: &Path) -> Result<u64> {
    let io = |error| Error::io("looking at", path, error);
    File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0))).map_err(io)
}

impl BlockDevice {
    /// Opens it for writing, alone.
    pub fn hold(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let alone = OFlags::EXCL.bits().cast_signed();
        let mut file = options.read(true).write(true).custom_flags(alone).open(path).map_err(|error| {
            if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) {
                let detail = "it is mounted, or another program holds it: let the stop hook unmount it".to_owned();
                return Error::InUse { place: path.display().to_string(), detail };
            }
            Error::io("opening", path, error)
        })?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(|error| Error::io("looking at", path, error))?;
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// Copies what stands on it to a new private file, without blocks of zeros, durably.
    pub fn copy_to(&self, copy: &Path) -> Result<()> {
        let failed = |error| Error::io("writing", copy, error);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(copy).map_err(failed)?;
        file.set_len(self.bytes).map_err(failed)?;
        let mut buffer = vec![0; BLOCK_BYTES];
        let mut at = 0;
        while at < self.bytes {
            let block = self.block(&mut buffer, at, self.bytes);
            self.file.read_exact_at(block, at).map_err(|error| Error::io("reading", &self.path, error))?;
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, at).map_err(failed)?;
            }
            at += block.len() as u64;
        }
        file.sync_all().map_err(failed)
    }

    /// Makes its beginning equal to a file, durably; writes only what differs, and returns how much that was.
    /// What is behind the end of a shorter file stays.
    pub fn make_equal_to(&self, image: &Path) -> Result<u64> {
        let reading = |error| Error::io("reading", image, error);
        let file = File::open(image).map_err(reading)?;
        let bytes = file.metadata().map_err(reading)?.len();
        if bytes > self.bytes {
            let detail = format!("has {} bytes, and the image {bytes}", self.bytes);
            return Err(Error::refused(&self.path, detail));
        }
        let (mut wanted, mut found) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
        let (mut at, mut written) = (0, 0);
        while at < bytes {
            let wanted = self.block(&mut wanted, at, bytes);
            file.read_exact_at(wanted, at).map_err(reading)?;
            let found = &mut found[..wanted.len()];
            self.file.read_exact_at(found, at).map_err(|error| Error::io("reading", &self.path, error))?;
            if wanted != found {
                self.file.write_all_at(wanted, at).map_err(|error| Error::io("writing", &self.path, error))?;
                written += wanted.len() as u64;
            }
            at += wanted.len() as u64;
        }
        self.file.sync_all().map_err(|error| Error::io("syncing", &self.path, error))?;
        Ok(written)
    }

    fn block<'b>(&self, buffer: &'b mut [u8], at: u64, end: u64) -> &'b mut [u8] {
        let bytes = usize::try_from(end - at).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        &mut buffer[..bytes]
    }
}
