//! What the filesystem of a target can do, found out by doing it: mount options, kernels and overlays differ too much
//! for a table of filesystems.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags, RenameFlags};
use rustix::io::Errno;

use super::PRIVATE_FILE;
use crate::Result;
use crate::beneath::{Place, Root};
use crate::stat::Mount;

/// Names that a probe tries, should others probe the same folder at the time.
const PROBES_MAX: u32 = 1000;

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

pub(super) fn probe(root: &Root) -> Result<Capabilities> {
    let failed = |action| move |error: Errno| root.failed(action, &[], error);
    let place = root.place(&[])?;
    let mount = Mount::of(place.fd(), c"").map_err(failed("looking at"))?;
    let space = rustix::fs::fstatvfs(place.fd()).map_err(failed("looking at the space of"))?;
    let a = Probe::create(&place).map_err(failed("writing to"))?;
    let b = Probe::create(&place).map_err(failed("writing to"))?;
    // A clone of nothing succeeds everywhere that has the call: there must be an extent to share.
    rustix::io::pwrite(&a.fd, &[1; 4096], 0).map_err(failed("writing to"))?;
    let reflink = rustix::fs::ioctl_ficlone(&b.fd, &a.fd).is_ok();
    let folder = place.fd();
    let exchange = rustix::fs::renameat_with(folder, &a.name, folder, &b.name, RenameFlags::EXCHANGE).is_ok();
    Ok(Capabilities {
        reflink,
        exchange,
        mount_point: mount.is_root(),
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
    })
}

/// A file that is gone when it is dropped.
struct Probe<'a> {
    folder: &'a Place,
    name: CString,
    fd: OwnedFd,
}

impl<'a> Probe<'a> {
    fn create(folder: &'a Place) -> rustix::io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for number in 0..PROBES_MAX {
            let name = CString::new(format!(".copal-probe-{number}")).unwrap_or_default();
            match rustix::fs::openat(folder.fd(), &name, flags, PRIVATE_FILE) {
                Ok(fd) => return Ok(Self { folder, name, fd }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        // An empty file with a telling name at worst.
        let _ = rustix::fs::unlinkat(self.folder.folder.as_fd(), &self.name, AtFlags::empty());
    }
}
