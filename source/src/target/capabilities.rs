//! What the filesystem of a target can do, found out by doing it: mount options, kernels and overlays differ
//! too much for a table of filesystems.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::PRIVATE_FILE;
use crate::Result;
use crate::beneath::{Place, Root};
use crate::stat::Mount;

/// Names that a probe tries, should others probe the same folder at the time.
const PROBES_MAX: u32 = 1000;
/// Names at which abandoned probes are sought: several processes at once leave more than two.
const PROBES_SOUGHT: u32 = 16;
/// What a probe writes: an extent that can be shared.
const PROBE_BYTES: usize = 4096;

/// What the filesystem of a target can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// `FICLONE` works (probed with a real file).
    pub reflink: bool,
    /// `renameat2(EXCHANGE)` works (probed).
    pub exchange: bool,
    /// The folder is a mount point, so it cannot be renamed.
    pub mount_point: bool,
    /// Free bytes.
    pub free_bytes: u64,
}

/// What can be told by looking alone; nothing that needs a probe counts as possible.
pub(super) fn look(root: &Root) -> Result<Capabilities> {
    let failed = |action| move |error: Errno| root.failed(action, &[], error);
    let place = root.place(&[])?;
    let mount = Mount::of(place.fd(), c"").map_err(failed("looking at"))?;
    let space = rustix::fs::fstatvfs(place.fd()).map_err(failed("looking at the space of"))?;
    Ok(Capabilities {
        reflink: false,
        exchange: false,
        mount_point: mount.is_root(),
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
    })
}

pub(super) fn probe(root: &Root) -> Result<Capabilities> {
    let failed = |action| move |error: Errno| root.failed(action, &[], error);
    let place = root.place(&[])?;
    for number in 0..PROBES_SOUGHT {
        remove_abandoned(&place, &Probe::name(number));
    }
    let a = Probe::create(&place).map_err(failed("writing to"))?;
    let b = Probe::create(&place).map_err(failed("writing to"))?;
    let folder = place.fd();
    let exchange = rustix::fs::renameat_with(folder, &a.name, folder, &b.name, RenameFlags::EXCHANGE).is_ok();
    let reflink = match unnamed_share(&place) {
        Some(shared) => shared,
        None => share(&a.fd, &b.fd).map_err(failed("writing to"))?,
    };
    Ok(Capabilities { reflink, exchange, ..look(root)? })
}

/// Whether files in the folder can share extents: found out without a name in it, where its filesystem has
/// files without names.
pub(super) fn shares_extents(root: &Root) -> Result<bool> {
    match unnamed_share(&root.place(&[])?) {
        Some(shared) => Ok(shared),
        None => Ok(probe(root)?.reflink),
    }
}

/// `None` where there are no files without names.
fn unnamed_share(folder: &Place) -> Option<bool> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let unnamed = || rustix::fs::openat(folder.fd(), c".", flags, PRIVATE_FILE).ok();
    share(&unnamed()?, &unnamed()?).ok()
}

/// A clone of nothing succeeds everywhere that has the call: there must be an extent to share.
fn share(a: &OwnedFd, b: &OwnedFd) -> rustix::io::Result<bool> {
    rustix::io::pwrite(a, &[1; PROBE_BYTES], 0)?;
    Ok(rustix::fs::ioctl_ficlone(b, a).is_ok())
}

/// A file that is gone when it is dropped. Its maker holds a lock on it: one that nobody holds was left by a
/// process that was killed, and the next probe takes it away.
struct Probe<'a> {
    folder: &'a Place,
    name: CString,
    fd: OwnedFd,
}

impl<'a> Probe<'a> {
    fn create(folder: &'a Place) -> rustix::io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for number in 0..PROBES_MAX {
            let name = Self::name(number);
            match rustix::fs::openat(folder.fd(), &name, flags, PRIVATE_FILE) {
                Ok(fd) => {
                    let probe = Self { folder, name, fd };
                    if probe.is_ours() {
                        return Ok(probe);
                    }
                    // Somebody took it for abandoned before it was locked: the name is theirs.
                    std::mem::forget(probe);
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }

    fn name(number: u32) -> CString {
        CString::new(format!(".copal-probe-{number}")).unwrap_or_default()
    }

    fn is_ours(&self) -> bool {
        rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive).is_ok()
            && rustix::fs::fstat(&self.fd).is_ok_and(|found| found.st_nlink == 1)
    }
}

/// Only who holds the lock of a probe removes its name, so the name stays with the file that was looked at.
fn remove_abandoned(folder: &Place, name: &CStr) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat(folder.fd(), name, flags, Mode::empty()) else { return };
    if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let named = rustix::fs::statat(folder.fd(), name, AtFlags::SYMLINK_NOFOLLOW);
    if let (Ok(held), Ok(named)) = (rustix::fs::fstat(&fd), named)
        && (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
        && is_probe(&fd, &held)
    {
        let _ = rustix::fs::unlinkat(folder.fd(), name, AtFlags::empty());
    }
}

/// Whether a file says nothing that a probe does not say, and is of whoever runs this: anybody may give a
/// file such a name.
fn is_probe(fd: &OwnedFd, held: &rustix::fs::Stat) -> bool {
    let bytes = usize::try_from(held.st_size).unwrap_or(usize::MAX);
    if held.st_uid != rustix::process::geteuid().as_raw() || ![0, PROBE_BYTES].contains(&bytes) {
        return false;
    }
    let mut content = [0; PROBE_BYTES];
    rustix::io::pread(fd, &mut content[..], 0)
        .is_ok_and(|read| read == bytes && content[..read].iter().all(|&b| b == 1))
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        // An empty file with a telling name at worst.
        let _ = rustix::fs::unlinkat(self.folder.folder.as_fd(), &self.name, AtFlags::empty());
    }
}
