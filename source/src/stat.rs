//! Metadata of one path or descriptor, as the rest of Copal knows it.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags};
use rustix::io;

use crate::scan::{FileKind, FileStat, FileTime};

/// The bytes of a block in which the system counts allocated space, whatever the filesystem's own block.
const ALLOCATION_UNIT_BYTES: u64 = 512;

/// Metadata of a name in an open folder, of a link itself rather than what it points to; an empty name is the
/// descriptor's own file.
pub(crate) fn stat(folder: impl AsFd, name: &CStr) -> io::Result<FileStat> {
    statx(folder, name, StatxFlags::BASIC_STATS).map(|found| convert(&found))
}

/// Which file or folder something is, over renames and restarts: its inode, and when that was made where the
/// filesystem tells. An inode's number is given again once it is free; the time of its making cannot be set
/// by anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The inode.
    pub inode: u64,
    /// Seconds and nanoseconds of its making.
    pub born: Option<(i64, u32)>,
}

/// Of a name in an open folder, or of a link itself; an empty name is the descriptor's own file.
pub(crate) fn identity(folder: impl AsFd, name: &CStr) -> io::Result<Identity> {
    let found = statx(folder, name, StatxFlags::INO | StatxFlags::BTIME)?;
    let told = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    let born = told.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec));
    Ok(Identity { inode: found.stx_ino, born })
}

/// Metadata of a name, and whether something is mounted there; none from a kernel that does not tell.
pub(crate) fn stat_and_mount(folder: impl AsFd, name: &CStr) -> io::Result<(FileStat, Option<bool>)> {
    let found = statx(folder, name, StatxFlags::BASIC_STATS)?;
    let told = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    Ok((convert(&found), told.then(|| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))))
}

/// What the filesystem holds a path to: that it may not change, or only grow.
pub(crate) fn attributes(folder: impl AsFd, name: &CStr) -> io::Result<StatxAttributes> {
    statx(folder, name, StatxFlags::TYPE).map(|found| found.stx_attributes)
}

/// Which mount a path is on, to notice its borders: bind mounts and subvolumes included where the kernel
/// tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    id: u64,
    is_root: bool,
}

impl Mount {
    pub(crate) fn of(folder: impl AsFd, name: &CStr) -> io::Result<Self> {
        let found = statx(folder, name, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
        let told = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Ok(Self {
            id: if told { found.stx_mnt_id } else { device(&found) },
            is_root: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        })
    }

    /// Whether the path is where something is mounted.
    pub(crate) fn is_root(self) -> bool {
        self.is_root
    }

    pub(crate) fn same_mount(self, other: Self) -> bool {
        self.id == other.id
    }
}

fn statx(folder: impl AsFd, name: &CStr, wanted: StatxFlags) -> io::Result<Statx> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if name.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    rustix::fs::statx(folder, name, flags, wanted)
}

fn convert(found: &Statx) -> FileStat {
    let time = |stamp: rustix::fs::StatxTimestamp| FileTime { seconds: stamp.tv_sec, nanoseconds: stamp.tv_nsec };
    FileStat {
        kind: kind(FileType::from_raw_mode(found.stx_mode.into())).unwrap_or(FileKind::File),
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        bytes: found.stx_size,
        allocated_bytes: found.stx_blocks.saturating_mul(ALLOCATION_UNIT_BYTES),
        modified: time(found.stx_mtime),
        changed: time(found.stx_ctime),
        inode: found.stx_ino,
        links: found.stx_nlink,
        device: device(found),
        special: (found.stx_rdev_major, found.stx_rdev_minor),
    }
}

fn device(found: &Statx) -> u64 {
    u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor)
}

/// The kind that a directory entry or a mode names; none where the filesystem does not say.
pub(crate) fn kind(found: FileType) -> Option<FileKind> {
    Some(match found {
        FileType::Directory => FileKind::Directory,
        FileType::RegularFile => FileKind::File,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Unknown => return None,
    })
}
