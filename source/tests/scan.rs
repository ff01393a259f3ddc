//! Goal: a scan gives exactly what is there, in path order, whatever the tree looks like and whatever happens
//! to it meanwhile. Method: real trees, compared with a plain walk by the standard library; a mount, a folder
//! that may not be read, and folders that others swap for links during the scan.
#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copal_sim::beside;
use copal_sim::mounts::{Filesystem, Mounted};
use copal_source::Error;
use copal_source::scan::{Excludes, FileKind, ScanOptions, scan};
use copal_source::target::exchange;
use support::{as_nobody, on_every_filesystem, paths, run, scan_all, shared_folder, walked};

fn with_threads(threads: usize) -> ScanOptions {
    ScanOptions { threads, ..ScanOptions::default() }
}

fn excluding(patterns: &[&str]) -> ScanOptions {
    let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    ScanOptions { exclude: Arc::new(Excludes::new(&patterns).unwrap()), ..ScanOptions::default() }
}

/// The scan of a tree is what a plain walk finds, in path order, with any number of threads.
#[track_caller]
fn check_same_as_walk(root: &Path) {
    let expected = walked(root);
    for threads in [1, 2, 7] {
        let (entries, problems) = scan_all(root, &with_threads(threads));
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(entries.len(), expected.len());
        for (entry, path) in entries.iter().zip(&expected) {
            assert_eq!(entry.path[..], path[..], "{threads} threads");
            let metadata = fs::symlink_metadata(root.join(OsStr::from_bytes(path))).unwrap();
            let stat = &entry.stat;
            assert_eq!((stat.inode, stat.bytes), (metadata.ino(), metadata.size()));
            assert_eq!((stat.mode, stat.uid, stat.gid), (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()));
            assert_eq!(
                (stat.modified.seconds, stat.modified.nanoseconds.into()),
                (metadata.mtime(), metadata.mtime_nsec())
            );
            assert_eq!(
                (stat.changed.seconds, stat.changed.nanoseconds.into()),
                (metadata.ctime(), metadata.ctime_nsec())
            );
            assert_eq!((u64::from(stat.links), stat.allocated_bytes), (metadata.nlink(), metadata.blocks() * 512));
            let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
            assert_eq!(stat.device, u64::from(device.0) << 32 | u64::from(device.1));
        }
    }
}

/// Names whose order is easily got wrong: before and after a slash, prefixes of each other, no text.
const NAMES: &[&[u8]] =
    &[b"a", b"a ", b"a-b", b"a.b", b"ab", b"a\x01", b"\xff\xfe", b"\xc3\xa4", b"\n", b"-", b"*", b"z"];

fn make_tree(folder: &Path, depth: u32, state: &mut u64) {
    for name in NAMES {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let path = folder.join(OsStr::from_bytes(name));
        match (*state >> 33) % 5 {
            0 | 1 if depth > 0 => {
                fs::create_dir(&path).unwrap();
                make_tree(&path, depth - 1, state);
            }
            2 => symlink("../loop", &path).unwrap(),
            3 => {}
            _ => fs::write(&path, vec![7; (*state >> 40) as usize % 9000]).unwrap(),
        }
    }
}

#[test]
fn any_tree_is_given_in_path_order() {
    for seed in 1..8 {
        let folder = tempfile::tempdir().unwrap();
        make_tree(folder.path(), 3, &mut seed.clone());
        check_same_as_walk(folder.path());
    }
}

#[test]
fn any_filesystem_is_read_the_same() {
    on_every_filesystem(|folder, _| {
        make_tree(folder, 3, &mut 9);
        check_same_as_walk(folder);
    });
}

#[test]
fn names_of_one_file_tell_that_they_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::write(folder.path().join("a"), b"one file").unwrap();
    fs::write(folder.path().join("alone"), b"one file").unwrap();
    for name in ["b", "d/c"] {
        fs::hard_link(folder.path().join("a"), folder.path().join(name)).unwrap();
    }
    let (entries, _) = scan_all(folder.path(), &with_threads(0));
    let links: Vec<_> = entries
        .iter()
        .filter(|entry| entry.stat.kind == FileKind::File)
        .map(|entry| (&entry.path[..], entry.stat.links, entry.stat.inode == entries[1].stat.inode))
        .collect();
    assert_eq!(links, [(&b"a"[..], 3, true), (b"alone", 1, false), (b"b", 3, true), (b"d/c", 3, true)]);
}

#[test]
fn what_vanishes_meanwhile_is_left_out_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..40 {
        let steady = folder.path().join(format!("steady-{number:02}"));
        fs::create_dir(&steady).unwrap();
        fs::write(steady.join("file"), b"").unwrap();
    }
    let passes = || {
        for number in 0..40 {
            let passing = folder.path().join(format!("steady-{number:02}/passing"));
            fs::create_dir(&passing).unwrap();
            fs::write(passing.join("file"), b"").unwrap();
            fs::remove_dir_all(&passing).unwrap();
        }
    };
    beside(passes, || {
        for _ in 0..200 {
            let mut steady = 0;
            for item in scan(folder.path(), &with_threads(3)).unwrap() {
                match item {
                    Ok(entry) => steady += usize::from(!entry.path.windows(7).any(|part| part == b"passing")),
                    Err(problem) => {
                        let path = problem.path().unwrap().to_str().unwrap();
                        assert!(path.contains("passing") && problem.is_not_found(), "{problem}");
                    }
                }
            }
            assert_eq!(steady, 81, "what stood still was missed");
        }
    });
}

#[test]
fn a_large_folder_is_shared_between_threads_and_stays_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..9000 {
        let path = folder.path().join(format!("{number:x}"));
        if number % 700 == 0 {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("inner"), b"").unwrap();
        } else {
            fs::write(path, b"").unwrap();
        }
    }
    check_same_as_walk(folder.path());
}

/// Whatever is read ahead of it: what is below a folder that is passed over is not delivered, and all else
/// is.
#[test]
fn what_is_passed_over_is_not_delivered_and_all_else_is() {
    let folder = tempfile::tempdir().unwrap();
    make_tree(folder.path(), 4, &mut 5);
    let crowded = folder.path().join("crowded");
    for number in 0..2500 {
        fs::create_dir_all(crowded.join(format!("{number}"))).unwrap();
    }
    let all = walked(folder.path());
    for threads in [1, 2, 7] {
        for nth in [1, 2, 3] {
            let mut found = scan(folder.path(), &with_threads(threads)).unwrap();
            let (mut delivered, mut passed) = (Vec::new(), Vec::<Vec<u8>>::new());
            let mut folders = 0;
            while let Some(entry) = found.next() {
                let entry = entry.unwrap();
                if entry.stat.kind == FileKind::Directory && !entry.path.is_empty() {
                    folders += 1;
                    if folders % nth == 0 {
                        found.pass_over();
                        passed.push([&entry.path[..], b"/"].concat());
                    }
                }
                delivered.push(entry.path.to_vec());
            }
            let passed_over = |path: &Vec<u8>| passed.iter().any(|folder| path.starts_with(folder));
            let expected: Vec<_> = all.iter().map(|path| path.to_vec()).filter(|path| !passed_over(path)).collect();
            assert!(delivered == expected && !passed.is_empty(), "{threads} threads, each {nth}");
        }
    }
}

#[test]
fn a_scan_can_be_dropped_at_any_point() {
    let folder = tempfile::tempdir().unwrap();
    make_tree(folder.path(), 3, &mut 77);
    for taken in [0, 1, 2, 50] {
        assert_eq!(scan(folder.path(), &with_threads(4)).unwrap().take(taken).filter(Result::is_ok).count(), taken);
    }
}

#[test]
fn every_kind_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let tree = copal_source::target::TargetTree::open(folder.path()).unwrap();
    tree.create_directory(b"d").unwrap();
    tree.create_file(b"f", 0, true).unwrap();
    tree.create_symlink(b"l", b"nowhere").unwrap();
    tree.create_special(b"p", FileKind::Fifo, (0, 0)).unwrap();
    tree.create_special(b"s", FileKind::Socket, (0, 0)).unwrap();
    tree.create_special(b"c", FileKind::CharDevice, (1, 300)).unwrap();
    tree.create_special(b"b", FileKind::BlockDevice, (259, 70_000)).unwrap();
    let (entries, _) = scan_all(folder.path(), &with_threads(0));
    let kinds: Vec<_> = entries.iter().map(|entry| (entry.stat.kind, entry.stat.special)).collect();
    use FileKind::{BlockDevice, CharDevice, Directory, Fifo, File, Socket, Symlink};
    let expected = [
        (Directory, (0, 0)),
        (BlockDevice, (259, 70_000)),
        (CharDevice, (1, 300)),
        (Directory, (0, 0)),
        (File, (0, 0)),
        (Symlink, (0, 0)),
        (Fifo, (0, 0)),
        (Socket, (0, 0)),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn a_root_may_be_a_file_or_lead_to_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("real")).unwrap();
    fs::write(at("real/file"), b"12345").unwrap();
    symlink("real", at("to-folder")).unwrap();
    symlink("real/file", at("to-file")).unwrap();
    symlink("missing", at("dangling")).unwrap();

    let (entries, _) = scan_all(&at("real/file"), &with_threads(0));
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].path[..], entries[0].stat.kind, entries[0].stat.bytes), (&b""[..], FileKind::File, 5));
    assert_eq!(paths(&at("to-folder"), &with_threads(0)), ["", "file"]);
    for link in ["to-file", "dangling"] {
        let (entries, _) = scan_all(&at(link), &with_threads(0));
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].stat.kind, FileKind::Symlink, "only a link to a folder is followed");
    }
    for missing in ["missing", "missing/x", "real/file/x"] {
        let error = scan(&at(missing), &with_threads(0)).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}

#[test]
fn what_is_excluded_is_not_entered() {
    let folder = shared_folder();
    for name in ["keep", "node_modules/deep", "src/node_modules", "src/cache"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    for name in ["keep/a.log", "keep/b.log", "node_modules/deep/x", "src/cache/y", "src/z", "cache"] {
        fs::write(folder.path().join(name), b"").unwrap();
    }
    let closed = folder.path().join("node_modules/deep");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let options = excluding(&["node_modules", "*.log", "!b.log", "/src/cache/"]);
    // As nobody: a folder that may not be read would be a problem if it were entered.
    let found = as_nobody(|| paths(folder.path(), &options));
    assert_eq!(found, ["", "cache", "keep", "keep/b.log", "src", "src/z"]);
}

#[test]
fn another_filesystem_is_entered_only_when_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let point = folder.path().join("mount");
    fs::create_dir(&point).unwrap();
    let mounted = Mounted::over(Filesystem::Tmpfs, 1, &point).unwrap();
    fs::write(point.join("inside"), b"").unwrap();
    fs::write(folder.path().join("z"), b"").unwrap();
    let options = ScanOptions { one_file_system: true, ..ScanOptions::default() };
    assert_eq!(paths(folder.path(), &options), ["", "mount", "z"]);
    assert_eq!(paths(folder.path(), &with_threads(0)), ["", "mount", "mount/inside", "z"]);
    // A source that is itself a mount is one filesystem.
    assert_eq!(paths(mounted.path(), &options), ["", "inside"]);
}

#[test]
fn a_subvolume_is_a_filesystem_of_its_own() {
    let mounted = Mounted::new(Filesystem::Btrfs, 0).unwrap();
    let subvolume = mounted.path().join("subvolume");
    run("btrfs", &["subvolume", "create", subvolume.to_str().unwrap()]);
    fs::write(subvolume.join("inside"), b"").unwrap();
    let options = ScanOptions { one_file_system: true, ..ScanOptions::default() };
    assert_eq!(paths(mounted.path(), &options), ["", "subvolume"]);
    assert_eq!(paths(mounted.path(), &with_threads(0)), ["", "subvolume", "subvolume/inside"]);
}

#[test]
fn a_folder_that_may_not_be_read_is_a_problem_and_the_scan_goes_on() {
    let folder = shared_folder();
    for name in ["a/x", "closed/hidden", "d/y"] {
        let path = folder.path().join(name);
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }
    let closed = folder.path().join("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let (entries, problems) = as_nobody(|| scan_all(folder.path(), &with_threads(2)));
    let found: Vec<_> = entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect();
    assert_eq!(found, ["", "a", "a/x", "closed", "d", "d/y"]);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].path(), Some(&*closed));
    assert!(problems[0].to_string().contains("Permission denied"), "{}", problems[0]);
}

#[test]
fn a_path_longer_than_the_system_takes_at_once_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let tree = copal_source::target::TargetTree::open(folder.path()).unwrap();
    let mut path = Vec::new();
    let mut made = vec![Vec::new()];
    for depth in 0..60 {
        if depth > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(format!("{depth:0200}").as_bytes());
        tree.create_directory(&path).unwrap();
        made.push(path.clone());
    }
    assert!(path.len() > 3 * 4096 - 300);
    let (entries, problems) = scan_all(folder.path(), &with_threads(3));
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(entries.iter().map(|entry| entry.path.to_vec()).collect::<Vec<_>>(), made);
    tree.remove(format!("{:0200}", 0).as_bytes()).unwrap();
    assert_eq!(paths(folder.path(), &with_threads(0)), [""]);
}

#[test]
fn a_folder_swapped_for_a_link_never_leads_outside() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret"), b"").unwrap();
    for number in 0..20 {
        fs::create_dir_all(root.join(format!("{number}/below"))).unwrap();
    }
    let swapped: PathBuf = root.join("5");
    symlink(&outside, root.join("link")).unwrap();
    let (mut as_folder, mut as_link) = (0, 0);
    let exchanges = || exchange(&swapped, &root.join("link")).unwrap();
    beside(exchanges, || {
        for _ in 0..400 {
            for item in scan(&root, &with_threads(2)).unwrap() {
                match item {
                    Ok(entry) => {
                        assert!(!entry.path.ends_with(b"secret"), "left the tree");
                        if &entry.path[..] == b"5" {
                            if entry.stat.kind == FileKind::Symlink { as_link += 1 } else { as_folder += 1 }
                        }
                    }
                    Err(problem) => assert!(matches!(problem, Error::Refused { .. }), "{problem}"),
                }
            }
        }
    });
    assert!(as_folder > 0 && as_link > 0, "the swap was not met: {as_folder} {as_link}");
}
