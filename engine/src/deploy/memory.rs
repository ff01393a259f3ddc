//! The memory of deploys: which snapshot was put where, and the inode and change time that each path had
//! then.
//!
//! One file for each target in the state folder, with a checksum. It can be lost at any time: then the next
//! deploy reads the target instead. A file that changes after the memory was written has another change time,
//! so an old memory is never wrong: what the deploy compared it read after its pages had been written out,
//! and what it made nobody had mapped. Where the filesystem's times do not tell of every write there is no
//! memory ([`copal_source::settle`]).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copal_manifest::entry::{EntryPath, Timestamp};
use copal_source::scan::{FileStat, Keep, ScanOptions, scan};
use copal_source::settle::times_tell_of_writes;
use copal_store::{RepositoryId, SnapshotId};
use serde::{Deserialize, Serialize};

use super::desired::Desired;
use super::place::{failed, private_folder};
use super::stays::Stays;
use crate::context::Context;
use crate::create::{is_past, timestamp, trusted_before};
use crate::error::Result;

/// Of version 1 nothing is known to have been written out before it was looked at.
const VERSION: u16 = 2;
/// A memory past this is not written: some 10 bytes an entry.
const MEMORY_BYTES_MAX: usize = 48 << 20;

/// One deploy, remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    version: u16,
    pub(super) repository: RepositoryId,
    pub(super) snapshot: SnapshotId,
    /// The part of the snapshot that was deployed.
    pub(super) part: Option<Vec<u8>>,
    target: Vec<u8>,
    pub(super) device: u64,
    /// For each entry in path order: zigzag deltas of inode, seconds, nanoseconds; see [`MemoryReader`].
    seen: Vec<u8>,
}

impl Memory {
    /// Reads what is remembered of a target; anything unsound is forgotten.
    pub(super) fn load(state_folder: &Path, target: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        let file = File::open(path_of(state_folder, target)).ok()?;
        file.take(MEMORY_BYTES_MAX as u64 + (1 << 16)).read_to_end(&mut bytes).ok()?;
        let (sum, body) = bytes.split_at_checked(32)?;
        if blake3::hash(body).as_bytes() != sum {
            return None;
        }
        let memory: Self = copal_store::codec::decode("the memory of a deploy", body).ok()?;
        let fits = memory.version == VERSION && memory.target == target.as_os_str().as_bytes();
        (fits && times_tell_of_writes(target)).then_some(memory)
    }

    /// Looks at the target as it stands after a deploy of `desired`, and remembers it.
    pub(super) fn keep(
        context: &Context,
        state_folder: &Path,
        target: &Path,
        snapshot: SnapshotId,
        part: Option<&[u8]>,
        desired: &Desired<'_>,
        stays: &Arc<Stays>,
    ) -> Result<()> {
        if !times_tell_of_writes(target) {
            return Ok(());
        }
        let trusted = trusted_before(context.clock.now());
        let mut writer = MemoryWriter::default();
        let mut device = None;
        let borders = Some(Arc::clone(stays) as Arc<dyn Keep>);
        let options = ScanOptions { threads: context.threads, borders, ..ScanOptions::default() };
        let mut found = scan(target, &options)?;
        let mut standing = found.next().transpose()?;
        for item in desired.items() {
            let item = item?;
            context.check_interrupt()?;
            let path = item.entry.path.to_slashes();
            // Both ascend; what is not wanted was removed, or stays, so the two run side by side.
            while let Some(before) = standing.as_ref().map(|found| key_of(&found.path))
                && before.as_slice() < item.entry.path.key()
            {
                if EntryPath::from_key(before).is_some_and(|before| !item.entry.path.is_within(&before)) {
                    found.pass_over();
                }
                standing = found.next().transpose()?;
            }
            let stat = standing.as_ref().filter(|found| found.path.as_ref() == path).map(|found| &found.stat);
            if device.is_none() {
                device = stat.map(|stat| stat.device);
            }
            let sure = |stat: &FileStat| is_past(timestamp(stat.modified), timestamp(stat.changed), trusted);
            writer.push(stat.filter(|stat| sure(stat) && Some(stat.device) == device));
        }
        let memory = Self {
            version: VERSION,
            repository: context.repository.config().repository,
            snapshot,
            part: part.map(<[u8]>::to_vec),
            target: target.as_os_str().as_bytes().to_vec(),
            device: device.unwrap_or(0),
            seen: writer.bytes,
        };
        if memory.seen.len() > MEMORY_BYTES_MAX {
            return Ok(());
        }
        memory.write(&path_of(state_folder, target))
    }

    fn write(&self, path: &Path) -> Result<()> {
        let body = copal_store::codec::encode(self)?;
        let folder = path.parent().unwrap_or(path);
        private_folder(folder)?;
        let temporary = path.with_extension("new");
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(blake3::hash(&body).as_bytes())?;
            file.write_all(&body)
        });
        written.and_then(|()| fs::rename(&temporary, path)).map_err(|error| failed("writing", path, error))
    }

    pub(super) fn reader(&self) -> MemoryReader<'_> {
        MemoryReader { rest: &self.seen, inode: 0, seconds: 0 }
    }
}

fn path_of(state_folder: &Path, target: &Path) -> PathBuf {
    let name = blake3::hash(target.as_os_str().as_bytes()).to_hex();
    state_folder.join("deployed").join(&name.as_str()[..32])
}

fn key_of(path: &[u8]) -> Vec<u8> {
    path.iter().map(|&b| if b == b'/' { 0 } else { b }).collect()
}

#[derive(Default)]
struct MemoryWriter {
    bytes: Vec<u8>,
    inode: u64,
    seconds: i64,
}

impl MemoryWriter {
    /// `None` is written as inode 0, which no filesystem gives to a file.
    fn push(&mut self, stat: Option<&FileStat>) {
        let Some(stat) = stat else {
            self.number(0u64.wrapping_sub(self.inode) as i64);
            self.inode = 0;
            return;
        };
        self.number(stat.inode.wrapping_sub(self.inode) as i64);
        self.number(stat.changed.seconds.wrapping_sub(self.seconds));
        self.number(i64::from(stat.changed.nanoseconds));
        (self.inode, self.seconds) = (stat.inode, stat.changed.seconds);
    }

    fn number(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }
}

/// Inode and change time of each entry in path order; `None` for one that was not seen surely.
pub(super) struct MemoryReader<'m> {
    rest: &'m [u8],
    inode: u64,
    seconds: i64,
}

impl MemoryReader<'_> {
    fn number(&mut self) -> Option<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }
}

impl Iterator for MemoryReader<'_> {
    type Item = Option<(u64, Timestamp)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.inode = self.inode.wrapping_add(self.number()? as u64);
        if self.inode == 0 {
            return Some(None);
        }
        self.seconds = self.seconds.wrapping_add(self.number()?);
        let nanoseconds = u32::try_from(self.number()?).ok()?;
        Some(Some((self.inode, Timestamp { seconds: self.seconds, nanoseconds })))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use copal_source::scan::{FileKind, FileTime};

    use super::*;

    /// A file, last changed when it was last modified.
    pub(in crate::deploy) fn stat(inode: u64, seconds: i64, nanoseconds: u32) -> FileStat {
        let time = FileTime { seconds, nanoseconds };
        FileStat {
            kind: FileKind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            bytes: 0,
            allocated_bytes: 0,
            modified: time,
            changed: time,
            inode,
            links: 1,
            device: 1,
            special: (0, 0),
        }
    }

    #[test]
    fn what_was_seen_is_read_back() {
        let seen = [stat(5, -3, 999_999_999), stat(u64::MAX, i64::MAX, 0), stat(1, i64::MIN, 1), stat(2, 7, 7)];
        let mut writer = MemoryWriter::default();
        writer.push(Some(&seen[0]));
        writer.push(None);
        seen[1..].iter().for_each(|stat| writer.push(Some(stat)));
        let reader = MemoryReader { rest: &writer.bytes, inode: 0, seconds: 0 };
        let mut wanted: Vec<_> = seen.iter().map(|stat| Some((stat.inode, timestamp(stat.changed)))).collect();
        wanted.insert(1, None);
        assert_eq!(reader.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        for length in 0..40 {
            let bytes = vec![0xff; length];
            assert!(MemoryReader { rest: &bytes, inode: 0, seconds: 0 }.count() <= length);
        }
    }
}
