//! Metadata of one open file, in the only order that works.
//!
//! 1. The owner, since a change of owner clears the setuid bits and `security.capability`.
//! 2. `user.*` and `trusted.*`, since an unprivileged owner may not write them once the file is read-only.
//! 3. The mode.
//! 4. ACLs and `security.*`: an ACL holds the group bits of the mode, and a change of mode would alter the
//!    ACL.
//! 5. The times, since every other change could touch them.
//!
//! What the system denies to an unprivileged user, or what the filesystem can't hold, is a warning. One thing
//! is never given up for convenience: a file whose owner could not be set does not get the setuid bit.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::{self, Errno};

use super::TargetMetadata;
use crate::attributes::{ACL_PREFIX, At};
use crate::beneath::descriptor_path;
use crate::scan::{FileKind, FileStat};
use crate::{Error, Result};

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const OWNER_WRITE: u32 = 0o200;

/// How the file is held.
#[derive(Clone, Copy)]
pub(super) enum On<'a> {
    Open(BorrowedFd<'a>),
    /// By `O_PATH`: works for every kind, by way of `/proc/self/fd`.
    Pinned(BorrowedFd<'a>),
}

impl On<'_> {
    fn set_owner(self, owner: Option<u32>, group: Option<u32>) -> io::Result<()> {
        let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
        match self {
            On::Open(fd) => rustix::fs::fchown(fd, owner, group),
            On::Pinned(fd) => rustix::fs::chownat(fd, c"", owner, group, AtFlags::EMPTY_PATH),
        }
    }

    fn set_mode(self, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            On::Open(fd) => rustix::fs::fchmod(fd, mode),
            On::Pinned(fd) => rustix::fs::chmod(descriptor_path(fd, b""), mode),
        }
    }

    fn set_times(self, times: &Timestamps) -> io::Result<()> {
        match self {
            On::Open(fd) => rustix::fs::futimens(fd, times),
            On::Pinned(fd) => rustix::fs::utimensat(CWD, descriptor_path(fd, b""), times, AtFlags::empty()),
        }
    }
}

/// What of a file's metadata could not be set: this place does not hold it, or whoever runs this may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unset {
    /// The file.
    pub path: PathBuf,
    /// What, and why.
    pub what: String,
}

/// Sets all of it; `found` is the metadata before.
pub(super) fn set(on: On<'_>, path: &Path, found: &FileStat, wanted: &TargetMetadata) -> Result<Vec<Unset>> {
    let mut setting = Setting { on, path, warnings: Vec::new() };
    let mode_has_no_meaning = found.kind == FileKind::Symlink;
    let (owner_changed, mut mode) = setting.owner(found, wanted)?;
    let at = match on {
        On::Open(fd) => At::Open(fd),
        On::Pinned(fd) => At::Pinned(fd),
    };
    let existing = setting.existing(at)?;
    let changes = Changes::between(&existing, wanted);
    let mut mode_now = if owner_changed { None } else { Some(found.mode) };
    if !changes.early.is_empty() && !mode_has_no_meaning && found.mode & OWNER_WRITE == 0 {
        // Denied only to an unprivileged user that is not the owner, who then gets warnings for the
        // attributes.
        let _ = on.set_mode((found.mode | OWNER_WRITE) & 0o777);
        mode_now = None;
    }
    setting.apply(at, &changes.early)?;
    if !mode_has_no_meaning {
        mode &= 0o7777;
        if mode_now != Some(mode) {
            let result = on.set_mode(mode);
            setting.warn_or_fail("the mode", "setting the mode of", result)?;
        }
    }
    setting.apply(at, &changes.late)?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: wanted.modified.seconds, tv_nsec: wanted.modified.nanoseconds.into() },
    };
    let result = on.set_times(&times);
    setting.warn_or_fail("the time", "setting the time of", result)?;
    if !(0..=i64::from(i32::MAX)).contains(&wanted.modified.seconds) {
        setting.tell_of_time(wanted.modified.seconds);
    }
    Ok(setting.warnings)
}

/// What is to be done to the attributes, before and after the mode; no value: remove.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes<'a> {
    early: Vec<(&'a [u8], Option<&'a [u8]>)>,
    late: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl<'a> Changes<'a> {
    fn between(existing: &'a BTreeMap<Vec<u8>, Vec<u8>>, wanted: &'a TargetMetadata) -> Self {
        let mut changes = Self::default();
        let mut add = |name: &'a [u8], value: Option<&'a [u8]>| {
            let late = name.starts_with(ACL_PREFIX) || name.starts_with(b"security.");
            if late { changes.late.push((name, value)) } else { changes.early.push((name, value)) }
        };
        for name in existing.keys() {
            // A label that the system itself gave to the new file is its business.
            let given = name.starts_with(b"security.") && name != b"security.capability";
            if !given && !wanted.attributes.iter().any(|attribute| attribute.name == *name) {
                add(name, None);
            }
        }
        for attribute in &wanted.attributes {
            let same = existing.get(&attribute.name) == Some(&attribute.value);
            // A change of mode alters an access ACL that is there: it is set again after.
            if !same || attribute.name.starts_with(ACL_PREFIX) {
                add(&attribute.name, Some(&attribute.value));
            }
        }
        changes
    }
}

struct Setting<'a> {
    on: On<'a>,
    path: &'a Path,
    warnings: Vec<Unset>,
}

impl Setting<'_> {
    /// Sets owner and group as far as permitted; gives whether they changed, and the mode that may be set
    /// then.
    fn owner(&mut self, found: &FileStat, wanted: &TargetMetadata) -> Result<(bool, u32)> {
        if (found.uid, found.gid) == (wanted.uid, wanted.gid) {
            return Ok((false, wanted.mode));
        }
        match self.on.set_owner(Some(wanted.uid), Some(wanted.gid)) {
            Ok(()) => return Ok((true, wanted.mode)),
            Err(error) if is_denied(error) => {}
            Err(error) => return Err(Error::io("setting the owner of", self.path, error)),
        }
        let mut mode = wanted.mode;
        if found.uid != wanted.uid {
            self.warn(&format!("the owner stays {}, not {}", found.uid, wanted.uid));
            mode &= !SET_USER_ID;
        }
        // An owner may give a file to any group of its own.
        if found.gid != wanted.gid && self.on.set_owner(None, Some(wanted.gid)).is_err() {
            self.warn(&format!("the group stays {}, not {}", found.gid, wanted.gid));
            if found.kind != FileKind::Directory {
                mode &= !SET_GROUP_ID;
            }
        }
        if mode != wanted.mode && found.kind != FileKind::Symlink {
            self.warn("left without its set-id bits, since the owner is another");
        }
        Ok((true, mode))
    }

    fn existing(&self, at: At<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let found = at.read().map_err(|error| Error::io("reading the attributes of", self.path, error))?;
        Ok(found.into_iter().map(|attribute| (attribute.name, attribute.value)).collect())
    }

    fn apply(&mut self, at: At<'_>, changes: &[(&[u8], Option<&[u8]>)]) -> Result<()> {
        for &(name, value) in changes {
            let shown = String::from_utf8_lossy(name).into_owned();
            let result = CString::new(name).map_err(|_| Errno::INVAL).and_then(|name| match value {
                Some(value) => at.set(&name, value),
                None => match at.remove(&name) {
                    Err(Errno::NODATA) => Ok(()),
                    other => other,
                },
            });
            self.warn_or_fail(&format!("the attribute {shown}"), "setting an attribute of", result)?;
        }
        Ok(())
    }

    /// The kernel takes the nearest time that the filesystem can hold, without a word.
    fn tell_of_time(&mut self, wanted_seconds: i64) {
        let (On::Open(fd) | On::Pinned(fd)) = self.on;
        let Ok(found) = rustix::fs::fstat(fd) else { return };
        let found = i128::from(found.st_mtime);
        if found != i128::from(wanted_seconds) {
            let which = if found > i128::from(wanted_seconds) { "early" } else { "late" };
            self.warn(&format!("this filesystem holds no time so {which}: the file has the nearest that it can"));
        }
    }

    fn warn_or_fail(&mut self, what: &str, action: &'static str, result: io::Result<()>) -> Result<()> {
        match result {
            Ok(()) => Ok(()),
            Err(error) if is_denied(error) || is_not_held(error) => {
                self.warn(&format!("{what} could not be set: {}", std::io::Error::from(error)));
                Ok(())
            }
            Err(error) => Err(Error::io(action, self.path, error)),
        }
    }

    fn warn(&mut self, what: &str) {
        self.warnings.push(Unset { path: self.path.to_owned(), what: what.to_owned() });
    }
}

/// An id that the user namespace does not have counts as denied.
fn is_denied(error: Errno) -> bool {
    matches!(error, Errno::PERM | Errno::ACCESS | Errno::INVAL)
}

/// What another filesystem held and this one has no room or no word for. NOSPC is ext4's answer to attributes
/// larger than a block; a full disk is noticed when content is written.
fn is_not_held(error: Errno) -> bool {
    matches!(error, Errno::NOTSUP | Errno::NOSPC | Errno::TOOBIG | Errno::RANGE)
}
