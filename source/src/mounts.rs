//! What is mounted where: a mount point can neither be renamed nor exchanged, and a tree with one in it must
//! not be removed whole.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The table of mounts as this process sees them.
const TABLE: &str = "/proc/self/mountinfo";

/// The mount points at a path and below it; the path must be free of links.
pub fn mount_points_from(path: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read(TABLE).map_err(|error| Error::io("reading", Path::new(TABLE), error))?;
    Ok(mount_points(&table).filter(|point| point.starts_with(path)).collect())
}

/// A place as its filesystem knows it, whatever it is mounted as: two bind mounts of one folder give one
/// answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFilesystem {
    /// Major and minor number, as the table of mounts writes them.
    device: Vec<u8>,
    /// From the filesystem's own root.
    path: PathBuf,
}

impl InFilesystem {
    /// What is below another place, as the path from there; an empty one for the place itself.
    #[must_use]
    pub fn below(&self, other: &Self) -> Option<&Path> {
        if self.device == other.device { self.path.strip_prefix(&other.path).ok() } else { None }
    }
}

/// Where a path, free of links, is in its filesystem; none where the table of mounts does not tell.
#[must_use]
pub fn in_filesystem(path: &Path) -> Option<InFilesystem> {
    in_filesystem_by(&fs::read(TABLE).ok()?, path)
}

/// Of mounts at one point the last one is what is seen.
fn in_filesystem_by(table: &[u8], path: &Path) -> Option<InFilesystem> {
    let lines = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        Some((fields.next()?, as_path(fields.next()?), as_path(fields.next()?)))
    });
    let over = lines.filter(|(_, _, point)| path.starts_with(point));
    let (device, root, point) = over.max_by_key(|(_, _, point)| point.components().count())?;
    let below = path.strip_prefix(&point).ok()?;
    let path = if below.as_os_str().is_empty() { root } else { root.join(below) };
    Some(InFilesystem { device: device.to_vec(), path })
}

/// The fifth field of each line (`proc_pid_mountinfo(5)`).
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(as_path)
}

fn as_path(field: &[u8]) -> PathBuf {
    OsString::from_vec(unescaped(field)).into()
}

/// Blanks, tabs, ends of lines and backslashes stand as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code.filter(|_| *first == b'\\') {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_with_its_escapes() {
        let table = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n37 36 0:5 / /mnt2/a\\040b\\134c rw - tmpfs t rw\n";
        let found: Vec<PathBuf> = mount_points(table).collect();
        assert_eq!(found, [PathBuf::from("/mnt2"), PathBuf::from("/mnt2/a b\\c")]);
        assert!(mount_points_from(Path::new("/proc")).unwrap().contains(&PathBuf::from("/proc")));
    }

    #[test]
    fn two_mounts_of_one_folder_are_one_place() {
        let table =
            b"1 0 8:1 / / rw - ext4 d rw\n2 1 8:1 /srv/data /mnt rw - ext4 d rw\n3 1 8:2 / /srv/disk rw - xfs d rw\n";
        let place = |path: &str| in_filesystem_by(table, Path::new(path)).unwrap();
        assert_eq!(place("/mnt/a"), place("/srv/data/a"));
        assert_eq!(place("/mnt/a/b").below(&place("/srv")), Some(Path::new("data/a/b")));
        assert_eq!(place("/mnt").below(&place("/srv/data")), Some(Path::new("")));
        assert_eq!(place("/mnt").below(&place("/mnt/a")), None);
        assert_eq!(place("/srv/disk/x").below(&place("/srv")), None);
        assert!(in_filesystem(Path::new("/proc/self")).is_some());
    }
}
