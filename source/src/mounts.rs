//! What is mounted where: a mount point can neither be renamed nor exchanged, and a tree with one in it must not be removed whole.

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

/// The fifth field of each line (`proc_pid_mountinfo(5)`).
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    let lines = table.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| OsString::from_vec(unescaped(field)).into())
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
}
