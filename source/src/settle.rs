//! What makes the times of a file tell of every later write.
//!
//! A program that has mapped a file writes into it without a call. The kernel sees such a write only at the
//! page fault that makes a page writable, and moves the times then; until the page is written out and
//! protected again, further writes move nothing. So a look at a file vouches for later only if its dirty
//! pages were written out *before* the look: then the next write, however it is made, faults, and moves the
//! times after it.
//!
//! FIEMAP with its flag to synchronise writes the pages of one file out and waits, without the flush of the
//! disk that `fdatasync` costs, and waits for writes that are being made. `sync_file_range` would do nothing
//! on overlayfs, whose pages belong to the file beneath.

use std::io::ErrorKind;
use std::path::Path;

use fiemap::{Fiemap, FiemapFlags};
use rustix::fs::StatFs;

use crate::read::{OpenFile, Opened};
use crate::scan::FileStat;
use crate::{Error, Result};

/// `f_type` of the filesystems of which this was tried: `t10_…` in `cli/tests/maps.rs`. On others (memory,
/// networks, FUSE, FAT) pages stay writable for ever, or somebody else's kernel gives the times: no look at a
/// file vouches for anything there.
const FILESYSTEMS: [u32; 3] = [0xef53, 0x5846_5342, 0x9123_683e];
/// Its pages and times are those of a file beneath, which is asked by FIEMAP: memory beneath refuses.
const OVERLAYFS: u32 = 0x794c_7630;
/// A file that is written to meanwhile is settled so often.
const ATTEMPTS: usize = 3;

/// A look at a file whose pages were written out before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What was seen.
    pub stat: FileStat,
    /// Whether every write after this look moves the times.
    pub vouches: bool,
    /// Somebody went on writing: what is read after this look may be of several moments.
    pub moving: bool,
}

impl Settled {
    /// The metadata to be remembered: without an inode where they vouch for nothing, as those of what is no
    /// file on disk.
    #[must_use]
    pub fn evidence(&self) -> FileStat {
        FileStat { inode: if self.vouches { self.stat.inode } else { 0 }, ..self.stat }
    }
}

impl OpenFile {
    /// Writes out what programs have changed by memory maps, and looks at the file.
    pub fn settle(&self) -> Result<Settled> {
        let Some(opened) = self.opened() else {
            return Ok(Settled { stat: self.stat()?, vouches: false, moving: false });
        };
        if self.is_clone() {
            // What it stands for was settled when it was cloned, on the same filesystem.
            return Ok(Settled { stat: self.stat()?, vouches: tells_of_writes(opened)?, moving: false });
        }
        let mut before = opened.stat()?;
        if !tells_of_writes(opened)? {
            return Ok(Settled { stat: before, vouches: false, moving: false });
        }
        let mut settled = Settled { stat: before, vouches: false, moving: true };
        for _ in 0..ATTEMPTS {
            settled.vouches = matches!(write_out(opened), Ok(true));
            settled.stat = opened.stat()?;
            settled.moving = (before.modified, before.changed) != (settled.stat.modified, settled.stat.changed);
            if !settled.moving {
                break;
            }
            before = settled.stat;
        }
        Ok(settled)
    }

    /// Only the first half: what is read from here on is newer than every write that moves no time. Where
    /// that cannot be had nothing is done; an error is one of the disk.
    pub fn write_out(&self) -> Result<()> {
        match self.opened() {
            Some(opened) if tells_of_writes(opened)? => write_out(opened).map(|_| ()),
            _ => Ok(()),
        }
    }
}

/// Whether times of files tell of every write once they were settled, on the filesystem of a folder. Of
/// overlayfs no folder can say.
#[must_use]
pub fn times_tell_of_writes(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|found| FILESYSTEMS.contains(&kind(&found)))
}

fn tells_of_writes(opened: &Opened) -> Result<bool> {
    let found = rustix::fs::fstatfs(&opened.fd).map_err(opened.failed("looking at the filesystem of"))?;
    Ok(FILESYSTEMS.contains(&kind(&found)) || kind(&found) == OVERLAYFS)
}

/// The type of the field differs between targets.
fn kind(found: &StatFs) -> u32 {
    found.f_type as u32
}

/// False where the file's own filesystem does not know of it.
fn write_out(opened: &Opened) -> Result<bool> {
    match Fiemap::with_flags(&opened.fd, FiemapFlags::SYNC).next() {
        None | Some(Ok(_)) => Ok(true),
        Some(Err(error)) if error.kind() == ErrorKind::Unsupported => Ok(false),
        Some(Err(error)) => Err(Error::io("writing out the pages of", &opened.path, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::read::TreeReader;

    #[test]
    fn a_settled_file_vouches_where_the_filesystem_is_known() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), b"content").unwrap();
        let file = TreeReader::open(folder.path()).unwrap().open_file(b"f").unwrap();
        let settled = file.settle().unwrap();
        assert_eq!(settled.stat, file.stat().unwrap());
        assert!(!settled.moving);
        assert_eq!(settled.vouches, times_tell_of_writes(folder.path()));
        assert_eq!(settled.evidence().inode != 0, settled.vouches);
    }

    #[test]
    fn nothing_vouches_for_a_file_in_memory() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::write(folder.path().join("f"), b"content").unwrap();
        let file = TreeReader::open(folder.path()).unwrap().open_file(b"f").unwrap();
        let settled = file.settle().unwrap();
        assert!(!settled.vouches && settled.stat.inode != 0);
        assert_eq!(settled.evidence().inode, 0);
        assert!(!times_tell_of_writes(folder.path()));
    }
}
