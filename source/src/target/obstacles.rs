//! What keeps a path of a target from being changed: found by looking, before anything is changed.
//!
//! It foresees what a person can set and a program meets: attributes of files, mounts, running programs, swap
//! files, sticky folders. It is no promise that a change will succeed; a disk can fail at any time.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Access, AtFlags, Mode, OFlags, StatVfsMountFlags, StatxAttributes};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::TargetTree;
use crate::beneath::{Place, split};
use crate::scan::{FileKind, FileStat, ScanOptions, scan};
use crate::stat::{Mount, attributes, stat};
use crate::{Error, Result};

/// The bit of a folder in which only owners may remove or rename.
const STICKY: u32 = 0o1000;
const SWAPS: &str = "/proc/swaps";

/// What is to be done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It is made where nothing stands.
    Create,
    /// It is renamed over, or removed.
    Replace,
    /// Bytes in it are written.
    Write,
    /// Its metadata are set.
    Metadata,
}

/// Looks at one path of a tree after the other.
#[derive(Debug)]
pub struct Obstacles<'t> {
    tree: &'t TargetTree,
    mount: Mount,
    /// Filesystem and inode of files that the system swaps to.
    swapped_to: HashSet<(u64, u64)>,
    /// The folder that was looked at last, for what, and what was found.
    last: Option<(Vec<u8>, Touch, Option<&'static str>)>,
}

impl<'t> Obstacles<'t> {
    /// Of a tree that is open.
    pub fn of(tree: &'t TargetTree) -> Result<Self> {
        let place = tree.root.place(b"")?;
        let mount = Mount::of(place.fd(), c"").map_err(tree.failed("looking at", b""))?;
        // Without the table nothing is swapped to that could be told.
        let table = fs::read_to_string(SWAPS).unwrap_or_default();
        let names = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        let found = names.filter_map(|name| fs::metadata(name.replace("\\040", " ")).ok());
        let swapped_to = found.map(|found| (found.dev(), found.ino())).collect();
        Ok(Self { tree, mount, swapped_to, last: None })
    }

    /// What keeps a path from being touched so, in words; none: nothing that can be seen.
    pub fn to(&mut self, path: &[u8], touch: Touch) -> Result<Option<&'static str>> {
        let place = match self.tree.root.place(path) {
            // Its folder will be made, where perhaps something else stands now.
            Err(error) if is_no_folder(&error) => return Ok(None),
            other => other?,
        };
        if !path.is_empty() {
            let above = split(path).0;
            let found = match &self.last {
                Some((folder, looked, found)) if folder == above && *looked == touch => *found,
                _ => {
                    let found = self.of_folder(&place, touch).map_err(self.tree.failed("looking at", above))?;
                    self.last = Some((above.to_vec(), touch, found));
                    found
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        self.at(&place, touch).map_err(self.tree.failed("looking at", path))
    }

    fn at(&self, place: &Place, touch: Touch) -> rustix::io::Result<Option<&'static str>> {
        let found = match stat(place.fd(), &place.name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let (own, mount) = (attributes(place.fd(), &place.name)?, Mount::of(place.fd(), &place.name)?);
        Ok(if own.contains(StatxAttributes::IMMUTABLE) {
            Some("is immutable (chattr -i makes it changeable)")
        } else if own.contains(StatxAttributes::APPEND) {
            Some("is append-only (chattr -a makes it changeable)")
        } else if !mount.same_mount(self.mount) {
            Some("is a mount point")
        } else if self.is_swapped_to(&found) {
            Some("is in use as swap space (swapoff)")
        } else if touch == Touch::Write && is_running(place)? {
            Some("is a program that runs")
        } else if touch == Touch::Replace && is_kept_by_others(place, &found)? {
            Some("belongs to another user, in a folder where only owners may remove (sticky)")
        } else {
            None
        })
    }

    /// What keeps names in a folder from being changed, or what they name.
    fn of_folder(&self, place: &Place, touch: Touch) -> rustix::io::Result<Option<&'static str>> {
        let names = matches!(touch, Touch::Create | Touch::Replace);
        let own = attributes(place.fd(), c"")?;
        let read_only = || Ok(rustix::fs::fstatvfs(place.fd())?.f_flag.contains(StatVfsMountFlags::RDONLY));
        Ok(if names && own.contains(StatxAttributes::IMMUTABLE) {
            Some("is in an immutable folder (chattr -i makes it changeable)")
        } else if touch == Touch::Replace && own.contains(StatxAttributes::APPEND) {
            Some("is in an append-only folder (chattr -a makes it changeable)")
        } else if !Mount::of(place.fd(), c"")?.same_mount(self.mount) {
            Some("is on another mounted filesystem")
        } else if read_only()? {
            Some("is on a filesystem that is mounted read-only")
        } else if names && !may_change_names(place.fd())? {
            Some("is in a folder of another user that may not be written")
        } else {
            None
        })
    }

    /// What keeps a whole folder, or a file, from being removed: paths with reasons, at most so many.
    pub fn to_removal(&mut self, path: &[u8], most: usize) -> Result<Vec<(Vec<u8>, &'static str)>> {
        let whole = self.tree.root.whole(path);
        let mut found = Vec::new();
        for entry in scan(&whole, &ScanOptions::default())? {
            let Ok(entry) = entry else { continue };
            let below: Vec<u8> = match (path.is_empty(), entry.path.is_empty()) {
                (_, true) => path.to_vec(),
                (true, false) => entry.path.to_vec(),
                (false, false) => [path, b"/", &entry.path].concat(),
            };
            let touch = if below.is_empty() { Touch::Metadata } else { Touch::Replace };
            if let Some(obstacle) = self.to(&below, touch)? {
                found.push((below, obstacle));
                if found.len() >= most {
                    break;
                }
            }
        }
        Ok(found)
    }

    fn is_swapped_to(&self, found: &FileStat) -> bool {
        if self.swapped_to.is_empty() || found.kind != FileKind::File {
            return false;
        }
        let (major, minor) = ((found.device >> 32) as u32, found.device as u32);
        self.swapped_to.contains(&(rustix::fs::makedev(major, minor), found.inode))
    }
}

fn is_no_folder(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        // A link is where a folder will be.
        error => matches!(error, Error::Refused { .. }),
    }
}

/// Opening for writing changes nothing, and is what the system refuses for a program that runs.
fn is_running(place: &Place) -> rustix::io::Result<bool> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(matches!(rustix::fs::openat(place.fd(), &place.name, flags, Mode::empty()), Err(Errno::TXTBSY)))
}

/// An owner without the permission gives it to himself.
fn may_change_names(folder: impl AsFd) -> rustix::io::Result<bool> {
    let me = geteuid();
    if me.is_root() || stat(&folder, c"")?.uid == me.as_raw() {
        return Ok(true);
    }
    let access = rustix::fs::accessat(&folder, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    Ok(access.is_ok())
}

fn is_kept_by_others(place: &Place, found: &FileStat) -> rustix::io::Result<bool> {
    let me = geteuid();
    let folder = stat(place.fd(), c"")?;
    Ok(!me.is_root() && folder.mode & STICKY != 0 && ![folder.uid, found.uid].contains(&me.as_raw()))
}
