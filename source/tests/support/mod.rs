//! What several test files here need: an unprivileged thread, real filesystems, a reading of a tree by other
//! means.
// Each test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use copal_sim::mounts::{Filesystem, Mounted};
use copal_source::scan::{ScanEntry, ScanOptions, ScanProblem, scan};
use rustix::process::{Gid, Uid};

/// The user `nobody` of Debian.
pub(crate) const NOBODY: u32 = 65534;

/// Runs on a thread that has no privilege: on Linux a thread has credentials of its own, and those that it
/// starts inherit them.
pub(crate) fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            rustix::thread::set_thread_groups(&[]).expect("tests run as root");
            rustix::thread::set_thread_res_gid(group, group, group).expect("tests run as root");
            rustix::thread::set_thread_res_uid(user, user, user).expect("tests run as root");
            work()
        });
        thread.join().expect("the unprivileged work does not panic")
    })
}

/// Runs a check in an empty folder of the temporary folder's filesystem, and of each kind that can be
/// mounted.
pub(crate) fn on_every_filesystem(check: impl Fn(&Path, Option<Filesystem>)) {
    let folder = tempfile::tempdir().unwrap();
    check(folder.path(), None);
    for filesystem in [Filesystem::Xfs, Filesystem::Btrfs, Filesystem::Ext4, Filesystem::Tmpfs] {
        let mounted = Mounted::new(filesystem, 64).unwrap();
        let folder = mounted.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        check(&folder, Some(filesystem));
    }
}

/// A temporary folder that everybody may use.
pub(crate) fn shared_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// A whole scan: entries, and problems as text.
pub(crate) fn scan_all(root: &Path, options: &ScanOptions) -> (Vec<ScanEntry>, Vec<ScanProblem>) {
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    for item in scan(root, options).unwrap() {
        match item {
            Ok(entry) => entries.push(entry),
            Err(problem) => problems.push(problem),
        }
    }
    (entries, problems)
}

/// Paths of a whole scan without problems, as text with replacement characters.
pub(crate) fn paths(root: &Path, options: &ScanOptions) -> Vec<String> {
    let (entries, problems) = scan_all(root, options);
    assert!(problems.is_empty(), "{problems:?}");
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

/// Every path below a folder, by the standard library, in the order of the names' bytes with folders before
/// what is in them.
pub(crate) fn walked(root: &Path) -> Vec<Vec<u8>> {
    fn enter(folder: &Path, root: &Path, found: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            found.insert(relative.iter().map(|&byte| if byte == b'/' { 0 } else { byte }).collect(), relative);
            if entry.file_type().unwrap().is_dir() {
                enter(&path, root, found);
            }
        }
    }
    let mut found = BTreeMap::from([(Vec::new(), Vec::new())]);
    enter(root, root, &mut found);
    found.into_values().collect()
}

/// Runs a program that must succeed; gives what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
