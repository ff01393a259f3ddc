//! Goal: a file is read as it is or not at all: the right bytes, every attribute, the holes; never through a
//! link, never outside the root, and never without a sign that it changed meanwhile. Method: real files on
//! every filesystem that can be mounted, changed and swapped by other means while they are read.
#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use copal_sim::beside;
use copal_sim::mounts::Filesystem;
use copal_source::Error;
use copal_source::read::{DataRange, TreeReader};
use copal_source::scan::FileKind;
use copal_source::target::{TargetTree, exchange};
use support::{on_every_filesystem, run};

const BLOCK: u64 = 64 << 10;

fn names(reader: &TreeReader, path: &[u8]) -> Vec<String> {
    let attributes = reader.attributes(path).unwrap();
    attributes.iter().map(|attribute| String::from_utf8_lossy(&attribute.name).into_owned()).collect()
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn only_a_regular_file_is_opened_and_nothing_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let tree = TargetTree::open(folder.path()).unwrap();
    fs::write(folder.path().join("file"), b"content").unwrap();
    tree.create_directory(b"folder").unwrap();
    tree.create_symlink(b"link", b"file").unwrap();
    tree.create_special(b"pipe", FileKind::Fifo, (0, 0)).unwrap();
    tree.create_special(b"socket", FileKind::Socket, (0, 0)).unwrap();
    tree.create_special(b"zero", FileKind::CharDevice, (1, 5)).unwrap();
    let reader = TreeReader::open(folder.path()).unwrap();
    let mut buffer = [0; 100];
    let file = reader.open_file(b"file").unwrap();
    assert_eq!(file.read_at(0, &mut buffer).unwrap(), 7, "shorter only at the end");
    assert_eq!(file.read_at(3, &mut buffer).unwrap(), 4);
    assert_eq!(file.read_at(7, &mut buffer).unwrap(), 0);
    for other in ["folder", "link", "pipe", "socket", "zero"] {
        let error = reader.open_file(other.as_bytes()).unwrap_err();
        assert!(!error.is_not_found() && error.path().unwrap().ends_with(other), "{error}");
    }
    assert!(reader.open_file(b"missing").unwrap_err().is_not_found());
    assert_eq!(reader.read_link(b"link").unwrap(), b"file");
    assert!(reader.read_link(b"file").is_err());
}

#[test]
fn no_path_leaves_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(folder.path().join("secret"), b"secret").unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink(folder.path(), root.join("a/away")).unwrap();
    symlink(root.join("a"), root.join("within")).unwrap();
    fs::write(root.join("a/file"), b"").unwrap();
    let reader = TreeReader::open(&root).unwrap();
    let hostile: &[&[u8]] = &[
        b"..",
        b"../secret",
        b"a/../../secret",
        b"/etc/passwd",
        b"a//file",
        b"a/",
        b"./a/file",
        b"a/./file",
        b"up/secret",
        b"a/away/secret",
        b"within/file",
        b"a/file/x",
        b"a\0b",
    ];
    for path in hostile {
        let shown = String::from_utf8_lossy(path);
        for outcome in [
            reader.open_file(path).map(drop),
            reader.stat(path).map(drop),
            reader.read_link(path).map(drop),
            reader.attributes(path).map(drop),
        ] {
            let error = outcome.expect_err(&shown);
            assert!(!error.is_not_found(), "{shown}: {error}");
        }
    }
    reader.open_file(b"a/file").unwrap();
}

#[test]
fn a_root_that_is_one_file_has_the_empty_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("database");
    fs::write(&path, b"rows").unwrap();
    set_attribute(&path, "user.note", b"x");
    let reader = TreeReader::open(&path).unwrap();
    let mut buffer = [0; 4];
    reader.open_file(b"").unwrap().read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"rows");
    assert_eq!(names(&reader, b""), ["user.note"]);
    assert!(matches!(reader.open_file(b"x"), Err(Error::Refused { .. })));
}

#[test]
fn a_path_longer_than_the_system_takes_at_once_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let tree = TargetTree::open(folder.path()).unwrap();
    let mut path = Vec::new();
    for depth in 0..45 {
        path.extend_from_slice(format!("{depth:0200}").as_bytes());
        tree.create_directory(&path).unwrap();
        path.push(b'/');
    }
    path.extend_from_slice(b"file");
    tree.create_file(&path, 0, true).unwrap().write_at(0, b"deep").unwrap();
    // A reader of its own: nothing of the way there is open already.
    let reader = TreeReader::open(folder.path()).unwrap();
    let mut buffer = [0; 4];
    reader.open_file(&path).unwrap().read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"deep");
    tree.remove(format!("{:0200}", 0).as_bytes()).unwrap();
}

#[test]
fn a_change_during_the_reading_shows() {
    on_every_filesystem(|folder, filesystem| {
        let reader = TreeReader::open(folder).unwrap();
        let path = folder.join("file");
        let change = |what: &str, act: &dyn Fn()| {
            fs::write(&path, [1; 5000]).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let file = reader.open_file(b"file").unwrap();
            let before = file.stat().unwrap();
            assert_eq!(before, reader.stat(b"file").unwrap(), "the descriptor and the path are one file");
            act();
            let after = (file.stat().unwrap(), reader.stat(b"file").ok());
            assert!(after.0 != before || after.1 != Some(before), "{what} on {filesystem:?} leaves no sign");
        };
        let open = || File::options().write(true).open(&path).unwrap();
        change("bytes of the same length", &|| open().write_all_at(b"x", 100).unwrap());
        change("a longer file", &|| open().write_all_at(b"x", 5000).unwrap());
        change("a shorter file", &|| open().set_len(10).unwrap());
        change("a change that sets the time back", &|| {
            let file = open();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.write_all_at(b"x", 100).unwrap();
            file.set_times(FileTimes::new().set_modified(modified)).unwrap();
        });
        change("another file in its place", &|| {
            let other = folder.join("other");
            fs::write(&other, [2; 5000]).unwrap();
            fs::rename(&other, &path).unwrap();
        });
        change("no file in its place", &|| fs::remove_file(&path).unwrap());
    });
}

#[test]
fn a_file_cut_short_gives_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), [7; 100_000]).unwrap();
    let file = TreeReader::open(folder.path()).unwrap().open_file(b"file").unwrap();
    File::options().write(true).open(folder.path().join("file")).unwrap().set_len(70_000).unwrap();
    let mut buffer = vec![0; 100_000];
    assert_eq!(file.read_at(0, &mut buffer).unwrap(), 70_000);
    assert_eq!(file.data_ranges(80_000).unwrap(), []);
}

#[test]
fn reading_leaves_the_access_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, b"content").unwrap();
    // Older than the last change: a reading by ordinary means updates it on every mount but `noatime`.
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(&path).unwrap().set_times(FileTimes::new().set_accessed(old)).unwrap();
    let file = TreeReader::open(folder.path()).unwrap().open_file(b"file").unwrap();
    file.read_at(0, &mut [0; 7]).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().atime(), 1_000_000_000);
}

/// Makes a file with data at some blocks, and checks that the ranges given hold all of it and not much more.
#[track_caller]
fn check_ranges(folder: &Path, data_blocks: &[u64], blocks: u64, sparse: bool) {
    let path = folder.join("sparse");
    let file = File::create(&path).unwrap();
    file.set_len(blocks * BLOCK).unwrap();
    for block in data_blocks {
        file.write_all_at(&[9; BLOCK as usize], block * BLOCK).unwrap();
    }
    file.sync_all().unwrap();
    let ranges = TreeReader::open(folder).unwrap().open_file(b"sparse").unwrap().data_ranges(0).unwrap();
    let mut end = 0;
    for range in &ranges {
        assert!(range.bytes > 0 && range.offset >= end, "{ranges:?} are in order and apart");
        end = range.offset + range.bytes;
    }
    assert!(end <= blocks * BLOCK);
    let within = |block: u64| {
        ranges.iter().any(|range| range.offset <= block * BLOCK && (block + 1) * BLOCK <= range.offset + range.bytes)
    };
    assert!(data_blocks.iter().all(|block| within(*block)), "{ranges:?} lack data of {data_blocks:?}");
    if sparse {
        let bytes: u64 = ranges.iter().map(|range| range.bytes).sum();
        assert_eq!(bytes, data_blocks.len() as u64 * BLOCK, "{ranges:?} for {data_blocks:?}");
    }
    let from_middle = TreeReader::open(folder).unwrap().open_file(b"sparse").unwrap().data_ranges(BLOCK / 2).unwrap();
    assert!(from_middle.iter().all(|range| range.offset >= BLOCK / 2), "{from_middle:?}");
    fs::remove_file(&path).unwrap();
}

#[test]
fn holes_are_told_from_data() {
    on_every_filesystem(|folder, filesystem| {
        // What stands below the temporary folder is not known; the others keep holes.
        let sparse = filesystem.is_some();
        check_ranges(folder, &[], 0, sparse);
        check_ranges(folder, &[], 40, sparse);
        check_ranges(folder, &[0], 1, sparse);
        check_ranges(folder, &[0], 40, sparse);
        check_ranges(folder, &[39], 40, sparse);
        check_ranges(folder, &[3, 4, 17, 30], 40, sparse);
        check_ranges(folder, &(0..40).collect::<Vec<_>>(), 40, sparse);
    });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plain"), [1; 12345]).unwrap();
    let file = TreeReader::open(folder.path()).unwrap().open_file(b"plain").unwrap();
    assert_eq!(file.data_ranges(0).unwrap(), [DataRange { offset: 0, bytes: 12345 }]);
    assert_eq!(file.data_ranges(12000).unwrap(), [DataRange { offset: 12000, bytes: 345 }]);
    assert_eq!(file.data_ranges(u64::MAX).unwrap(), []);
}

#[test]
fn attributes_of_every_kind_are_read_in_order() {
    on_every_filesystem(|folder, filesystem| {
        // A small ext4 keeps all attributes of a file in one block of 1 KiB.
        let long = vec![0; if filesystem == Some(Filesystem::Ext4) { 300 } else { 2000 }];
        let tree = TargetTree::open(folder).unwrap();
        tree.create_directory(b"folder").unwrap();
        tree.create_file(b"file", 0, true).unwrap();
        tree.create_symlink(b"link", b"file").unwrap();
        tree.create_special(b"pipe", FileKind::Fifo, (0, 0)).unwrap();
        for name in ["folder", "file"] {
            set_attribute(&folder.join(name), "user.zz", b"");
            set_attribute(&folder.join(name), "user.a", &long);
        }
        for name in ["folder", "file", "link", "pipe"] {
            set_attribute(&folder.join(name), "trusted.copal", name.as_bytes());
        }
        let binary = OsStr::from_bytes(b"user.\xff\xfe");
        rustix::fs::lsetxattr(folder.join("file"), binary, b"x", rustix::fs::XattrFlags::empty()).unwrap();
        run("setfacl", &["-m", "u:daemon:rw", folder.join("file").to_str().unwrap()]);
        run("setfacl", &["-d", "-m", "u:daemon:rwx", folder.join("folder").to_str().unwrap()]);
        let reader = tree.reader();
        let of_file = ["system.posix_acl_access", "trusted.copal", "user.a", "user.zz", "user.\u{fffd}\u{fffd}"];
        assert_eq!(names(&reader, b"file"), of_file, "{filesystem:?}");
        let of_folder = ["system.posix_acl_default", "trusted.copal", "user.a", "user.zz"];
        assert_eq!(names(&reader, b"folder"), of_folder, "{filesystem:?}");
        for name in ["link", "pipe"] {
            let attributes = reader.attributes(name.as_bytes()).unwrap();
            assert_eq!((attributes.len(), &attributes[0].value[..]), (1, name.as_bytes()), "{filesystem:?}");
        }
        let by_descriptor = reader.open_file(b"file").unwrap().attributes().unwrap();
        assert_eq!(by_descriptor, reader.attributes(b"file").unwrap());
        assert_eq!(by_descriptor[2].value, long);
        if matches!(filesystem, Some(Filesystem::Xfs)) {
            // The largest that the kernel takes.
            set_attribute(&folder.join("file"), "user.large", &[5; 65536]);
            assert!(reader.attributes(b"file").unwrap().iter().any(|attribute| attribute.value == [5; 65536]));
        }
    });
}

#[test]
fn a_folder_swapped_for_a_link_is_never_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
    fs::create_dir_all(root.join("swapped/deep")).unwrap();
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(root.join("swapped/deep/file"), b"inside").unwrap();
    fs::write(outside.join("deep/file"), b"outside").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    let (mut read, mut refused) = (0, 0);
    let exchanges = || exchange(&root.join("swapped"), &root.join("link")).unwrap();
    beside(exchanges, || {
        for _ in 0..4000 {
            // A new reader each time: an open folder of before would be the sound one for ever.
            match TreeReader::open(&root).unwrap().open_file(b"swapped/deep/file") {
                Ok(file) => {
                    let mut buffer = [0; 10];
                    let bytes = file.read_at(0, &mut buffer).unwrap();
                    assert_eq!(&buffer[..bytes], b"inside", "left the tree");
                    read += 1;
                }
                Err(error) => {
                    assert!(!error.is_not_found(), "{error}");
                    refused += 1;
                }
            }
        }
    });
    assert!(read > 0 && refused > 0, "the swap was not met: {read} {refused}");
}
