//! Real filesystems for tests: made in a sparse image file, mounted by way of a loop device, unmounted when
//! dropped.
//!
//! Needs root, and `mkfs.xfs`, `xfs_io`, `mkfs.btrfs`, `mkfs.ext4`, which `cargo xtask setup` installs. Every
//! mount has its own temporary folder and its own loop device, so tests may run side by side. A process that
//! is killed leaves its mounts behind; nothing else depends on them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Loop devices are taken by whoever comes first; two mounts at one instant can want the same.
const ATTEMPTS_MAX: u32 = 20;

/// Which filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// XFS, with reflinks.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// ext4: no reflinks, small attributes.
    Ext4,
    /// Memory: no loop device, no reflinks, no `user.*` attributes on older kernels.
    Tmpfs,
}

impl Filesystem {
    /// The smallest image that its maker accepts, with some room.
    const fn mebibytes_min(self) -> u64 {
        match self {
            Self::Xfs => 320,
            Self::Btrfs => 160,
            Self::Ext4 => 16,
            Self::Tmpfs => 1,
        }
    }

    fn make(self, image: &Path) -> io::Result<()> {
        let (program, arguments): (&str, &[&str]) = match self {
            Self::Xfs => ("mkfs.xfs", &["-q", "-f", "-m", "reflink=1"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F"]),
            Self::Tmpfs => return Ok(()),
        };
        run(Command::new(program).args(arguments).arg(image))
    }
}

/// A mounted filesystem; its root is an empty folder (ext4: but for `lost+found`).
#[derive(Debug)]
pub struct Mounted {
    point: PathBuf,
    /// The image and the mount point; removed after the unmount.
    folder: tempfile::TempDir,
}

impl Mounted {
    /// Makes and mounts a filesystem of a size, or of the smallest possible one when that is larger.
    pub fn new(filesystem: Filesystem, mebibytes: u64) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("copal-mount-").tempdir()?;
        let point = folder.path().join("mount");
        std::fs::create_dir(&point)?;
        Self::mount(filesystem, mebibytes.max(filesystem.mebibytes_min()), folder.path(), &point)?;
        Ok(Self { point, folder })
    }

    /// Mounts over an existing folder, for tests of mount points within a tree.
    pub fn over(filesystem: Filesystem, mebibytes: u64, point: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("copal-mount-").tempdir()?;
        Self::mount(filesystem, mebibytes.max(filesystem.mebibytes_min()), folder.path(), point)?;
        Ok(Self { point: point.to_owned(), folder })
    }

    fn mount(filesystem: Filesystem, mebibytes: u64, folder: &Path, point: &Path) -> io::Result<()> {
        if filesystem == Filesystem::Tmpfs {
            let size = format!("size={mebibytes}m,mode=0755");
            return run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "copal-test"]).arg(point));
        }
        let image = folder.join("image");
        std::fs::File::create_new(&image)?.set_len(mebibytes << 20)?;
        filesystem.make(&image)?;
        repeat(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(point))
    }

    /// Takes the power away (XFS, ext4): from here on nothing more reaches the image, not even the log, and
    /// every operation fails.
    pub fn lose_power(&self) -> io::Result<()> {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.point))
    }

    /// Mounts again after a power failure, once nobody has anything open on it: what was not synced is gone.
    /// The filesystem has another number then, as it may after a restart.
    pub fn regain_power(&self) -> io::Result<()> {
        repeat(Command::new("umount").arg(&self.point))?;
        let _takes_the_number = LoopDevice::new(1)?;
        repeat(Command::new("mount").args(["-o", "loop"]).arg(self.folder.path().join("image")).arg(&self.point))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A descriptor that a failing test still holds must not keep the mount: it is taken away lazily then.
        if run(Command::new("umount").arg(&self.point)).is_err() {
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.point));
        }
    }
}

/// A folder with another one laid over it, as in a container; unmounted when dropped.
#[derive(Debug)]
pub struct Overlay {
    point: PathBuf,
    folder: PathBuf,
}

impl Overlay {
    /// In a new folder below this one, on whose filesystem everything of it stands.
    pub fn over(folder: &Path) -> io::Result<Self> {
        let folder = folder.join("overlay");
        for name in ["lower", "upper", "work", "mount"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let part = |name: &str| folder.join(name).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", part("lower"), part("upper"), part("work"));
        let point = folder.join("mount");
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&point))?;
        Ok(Self { point, folder })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// What is there before anything is written.
    #[must_use]
    pub fn lower(&self) -> PathBuf {
        self.folder.join("lower")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.point));
    }
}

/// A file as a block device.
#[derive(Debug)]
pub struct LoopDevice {
    device: PathBuf,
    _folder: tempfile::TempDir,
}

impl LoopDevice {
    /// Makes one of a size, full of zeros.
    pub fn new(mebibytes: u64) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("copal-device-").tempdir()?;
        let image = folder.path().join("image");
        std::fs::File::create_new(&image)?.set_len(mebibytes << 20)?;
        let mut attempt = 1;
        loop {
            let output = Command::new("losetup").args(["--find", "--show"]).arg(&image).output()?;
            if output.status.success() {
                let device = String::from_utf8_lossy(&output.stdout).trim().into();
                return Ok(Self { device, _folder: folder });
            }
            if attempt == ATTEMPTS_MAX {
                return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
            }
            attempt += 1;
        }
    }

    /// The device.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.device
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = run(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

/// Until it succeeds, a few times: others take loop devices, and look at mounts, at the same moment.
fn repeat(command: &mut Command) -> io::Result<()> {
    let mut attempt = 1;
    loop {
        match run(command) {
            Err(_) if attempt < ATTEMPTS_MAX => std::thread::sleep(std::time::Duration::from_millis(10)),
            done => return done,
        }
        attempt += 1;
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output().map_err(|error| io::Error::new(error.kind(), format!("{command:?}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{command:?}: {message}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_one_kind_live_side_by_side_and_go_away() {
        let mounts: Vec<Mounted> = (0..3).map(|_| Mounted::new(Filesystem::Btrfs, 0).unwrap()).collect();
        for (number, mounted) in mounts.iter().enumerate() {
            std::fs::write(mounted.path().join("own"), [number as u8]).unwrap();
        }
        for (number, mounted) in mounts.iter().enumerate() {
            assert_eq!(std::fs::read(mounted.path().join("own")).unwrap(), [number as u8]);
        }
        let points: Vec<PathBuf> = mounts.iter().map(|mounted| mounted.path().to_owned()).collect();
        drop(mounts);
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        for point in points {
            assert!(!point.exists() && !table.contains(point.to_str().unwrap()));
        }
    }
}
