//! Goal: whatever was captured can be put back: every kind of file, every piece of metadata, to the
//! nanosecond, and what can't be is said. Method: the same operations on every filesystem that can be
//! mounted, looked at by the standard library, `getfacl` and a reader; as root and as a user without
//! privilege.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use copal_sim::mounts::{Filesystem, Mounted};
use copal_source::Error;
use copal_source::read::{Attribute, TreeReader};
use copal_source::scan::{FileKind, FileTime};
use copal_source::target::{Capabilities, TargetMetadata, TargetTree, WriteBuffer, exchange, rename_new};
use support::{NOBODY, as_nobody, on_every_filesystem, run, shared_folder};

const KINDS: [(&[u8], FileKind); 7] = [
    (b"folder", FileKind::Directory),
    (b"file", FileKind::File),
    (b"link", FileKind::Symlink),
    (b"pipe", FileKind::Fifo),
    (b"socket", FileKind::Socket),
    (b"character", FileKind::CharDevice),
    (b"block", FileKind::BlockDevice),
];

fn make(tree: &TargetTree, path: &[u8], kind: FileKind) {
    match kind {
        FileKind::Directory => tree.create_directory(path).unwrap(),
        FileKind::File => drop(tree.create_file(path, 0, true).unwrap()),
        FileKind::Symlink => tree.create_symlink(path, b"no/where").unwrap(),
        special => tree.create_special(path, special, (7, 9)).unwrap(),
    }
}

fn metadata(mode: u32, seconds: i64, nanoseconds: u32) -> TargetMetadata {
    let modified = FileTime { seconds, nanoseconds };
    TargetMetadata { mode, uid: 0, gid: 0, modified, attributes: Vec::new() }
}

fn attribute(name: &str, value: &[u8]) -> Attribute {
    Attribute { name: name.into(), value: value.to_vec() }
}

fn io_kind(error: &Error) -> Option<ErrorKind> {
    if let Error::Io { source, .. } = error { Some(source.kind()) } else { None }
}

#[test]
fn every_kind_is_made_private_and_gets_its_metadata() {
    on_every_filesystem(|folder, filesystem| {
        let tree = TargetTree::open(folder).unwrap();
        for (number, (path, kind)) in KINDS.into_iter().enumerate() {
            make(&tree, path, kind);
            let at = folder.join(std::str::from_utf8(path).unwrap());
            let found = fs::symlink_metadata(&at).unwrap();
            if kind != FileKind::Symlink {
                assert_eq!(found.mode() & 0o077, 0, "{kind:?} is for nobody else to see yet");
            }
            let mut wanted = metadata(0o6754, 1_700_000_000 + number as i64, 123_456_789);
            (wanted.uid, wanted.gid) = (1234, 5678);
            assert!(tree.set_metadata(path, kind, &wanted).unwrap().is_empty(), "{kind:?} on {filesystem:?}");
            let found = fs::symlink_metadata(&at).unwrap();
            let file_type = found.file_type();
            let sound = match kind {
                FileKind::Directory => file_type.is_dir(),
                FileKind::File => file_type.is_file(),
                FileKind::Symlink => fs::read_link(&at).unwrap() == Path::new("no/where"),
                FileKind::Fifo => file_type.is_fifo(),
                FileKind::Socket => file_type.is_socket(),
                FileKind::CharDevice => file_type.is_char_device(),
                FileKind::BlockDevice => file_type.is_block_device(),
            };
            assert!(sound, "{kind:?} became {file_type:?}");
            if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) {
                assert_eq!((rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev())), (7, 9));
            }
            assert_eq!((found.uid(), found.gid()), (1234, 5678));
            assert_eq!((found.mtime(), found.mtime_nsec()), (1_700_000_000 + number as i64, 123_456_789));
            if kind != FileKind::Symlink {
                assert_eq!(found.mode() & 0o7777, 0o6754, "the owner is set before the set-id bits");
            }
        }
    });
}

#[test]
fn times_are_exact_before_and_after_the_usual() {
    on_every_filesystem(|folder, filesystem| {
        let tree = TargetTree::open(folder).unwrap();
        for (number, (seconds, nanoseconds)) in
            [(0, 1), (-5, 999_999_999), (4_000_000_000, 7), (951_782_400, 0)].into_iter().enumerate()
        {
            for (kind, name) in [(FileKind::File, "f"), (FileKind::Directory, "d"), (FileKind::Symlink, "l")] {
                let path = format!("{name}{number}");
                make(&tree, path.as_bytes(), kind);
                tree.set_metadata(path.as_bytes(), kind, &metadata(0o700, seconds, nanoseconds)).unwrap();
                let found = fs::symlink_metadata(folder.join(path)).unwrap();
                let expected = (seconds, i64::from(nanoseconds));
                assert_eq!((found.mtime(), found.mtime_nsec()), expected, "{kind:?} on {filesystem:?}");
            }
        }
    });
}

fn acl(path: &Path) -> String {
    run("getfacl", &["--absolute-names", "--omit-header", "--numeric", path.to_str().unwrap()])
}

#[test]
fn access_lists_come_back_as_they_were() {
    on_every_filesystem(|folder, filesystem| {
        let tree = TargetTree::open(folder).unwrap();
        for (kind, rules) in [
            (FileKind::File, &["u:1:rw", "g:2:r", "m::r"][..]),
            (FileKind::File, &["u:1:rwx", "o::-"]),
            (FileKind::Directory, &["u:1:rwx", "d:u:3:rx", "d:g:4:rwx", "d:m::rx"]),
            (FileKind::Directory, &["d:u:3:rx"]),
        ] {
            make(&tree, b"from", kind);
            let from = folder.join("from");
            for rule in rules {
                run("setfacl", &["-m", rule, from.to_str().unwrap()]);
            }
            let reader = tree.reader();
            let stat = reader.stat(b"from").unwrap();
            let mut wanted = metadata(stat.mode, 17, 17);
            wanted.attributes = reader.attributes(b"from").unwrap();
            make(&tree, b"to", kind);
            // Another access list, which must go.
            run("setfacl", &["-m", "u:99:rwx", folder.join("to").to_str().unwrap()]);
            assert!(tree.set_metadata(b"to", kind, &wanted).unwrap().is_empty());
            assert_eq!(acl(&folder.join("to")), acl(&from), "{kind:?} {rules:?} on {filesystem:?}");
            assert_eq!(tree.reader().stat(b"to").unwrap().mode, stat.mode);
            assert_eq!(tree.reader().stat(b"to").unwrap().modified, FileTime { seconds: 17, nanoseconds: 17 });
            for path in [&b"from"[..], b"to"] {
                tree.remove(path).unwrap();
            }
        }
    });
}

/// `cap_net_bind_service=ep` as the kernel keeps it (version 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn attributes_are_those_wanted_and_no_others() {
    on_every_filesystem(|folder, filesystem| {
        let tree = TargetTree::open(folder).unwrap();
        let file = tree.create_file(b"file", 0, true).unwrap();
        let mut first = metadata(0o4755, 1, 1);
        (first.uid, first.gid) = (1000, 1000);
        first.attributes = vec![
            attribute("security.capability", &CAPABILITY),
            attribute("trusted.copal", b"t"),
            attribute("user.gone", b"x"),
            attribute("user.kept", b"before"),
        ];
        assert!(file.set_metadata(&first).unwrap().is_empty(), "{filesystem:?}");
        assert_eq!(tree.reader().attributes(b"file").unwrap(), first.attributes, "{filesystem:?}");
        let mut second = metadata(0o400, 2, 2);
        second.attributes = vec![attribute("user.kept", b"after"), attribute("user.new", b"")];
        for _ in 0..2 {
            assert!(tree.set_metadata(b"file", FileKind::File, &second).unwrap().is_empty());
            assert_eq!(tree.reader().attributes(b"file").unwrap(), second.attributes, "{filesystem:?}");
        }
        // What follows a content written afterwards: times are set by the last call.
        file.write_at(0, b"content").unwrap();
        file.set_metadata(&second).unwrap();
        assert_eq!(tree.reader().stat(b"file").unwrap().modified, FileTime { seconds: 2, nanoseconds: 2 });
        let error = tree.set_metadata(b"file", FileKind::Directory, &second).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "metadata of another kind: {error}");
    });
}

#[test]
fn what_a_user_without_privilege_cannot_do_is_said() {
    let folder = shared_folder();
    as_nobody(|| {
        let tree = TargetTree::create(&folder.path().join("own")).unwrap();
        tree.create_file(b"file", 0, true).unwrap();
        let mut wanted = metadata(0o6755, 5, 5);
        wanted.attributes = vec![attribute("trusted.copal", b"t"), attribute("user.note", b"n")];
        let warnings = tree.set_metadata(b"file", FileKind::File, &wanted).unwrap();
        let said =
            |what: &str| warnings.iter().any(|unset| unset.what.contains(what) && unset.path.ends_with("own/file"));
        assert!(said("owner stays 65534, not 0") && said("set-id") && said("trusted.copal"), "{warnings:?}");
        let stat = tree.reader().stat(b"file").unwrap();
        assert_eq!((stat.mode, stat.uid, stat.modified.seconds), (0o755, NOBODY, 5), "never setuid for another owner");
        // A file that its owner may not write gets its attributes all the same, and is patched.
        wanted = metadata(0o400, 6, 6);
        (wanted.uid, wanted.gid) = (NOBODY, NOBODY);
        wanted.attributes = vec![attribute("user.note", b"again")];
        for _ in 0..2 {
            assert!(tree.set_metadata(b"file", FileKind::File, &wanted).unwrap().is_empty());
        }
        assert_eq!(tree.reader().attributes(b"file").unwrap(), wanted.attributes);
        let file = tree.open_file(b"file").unwrap();
        file.write_at(0, b"patched").unwrap();
        file.set_metadata(&wanted).unwrap();
        assert_eq!(tree.reader().stat(b"file").unwrap().mode, 0o400);
        let error = tree.create_special(b"device", FileKind::CharDevice, (1, 3)).unwrap_err();
        assert_eq!(io_kind(&error), Some(ErrorKind::PermissionDenied));
    });
}

#[test]
fn content_is_written_where_it_belongs_and_holes_are_holes() {
    on_every_filesystem(|folder, filesystem| {
        let tree = TargetTree::open(folder).unwrap();
        let file = tree.create_file(b"file", 1 << 20, false).unwrap();
        file.write_at(300_000, &[7; 200_000]).unwrap();
        file.punch_hole(350_000, 100_000).unwrap();
        file.sync().unwrap();
        let content = fs::read(folder.join("file")).unwrap();
        let expected = |at: usize| u8::from((300_000..350_000).contains(&at) || (450_000..500_000).contains(&at)) * 7;
        assert_eq!(content.len(), 1 << 20);
        assert!(content.iter().enumerate().all(|(at, byte)| *byte == expected(at)), "{filesystem:?}");
        let mut buffer = [1; 100];
        assert_eq!(file.read_at(349_950, &mut buffer).unwrap(), 100);
        assert_eq!((buffer[49], buffer[50]), (7, 0));
        file.set_bytes(10).unwrap();
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 10);
        file.punch_hole(0, 0).unwrap();
        let sparse = tree.create_file(b"sparse", 1 << 30, true).unwrap();
        sparse.write_at(1 << 29, b"middle").unwrap();
        sparse.sync().unwrap();
        let found = fs::metadata(folder.join("sparse")).unwrap();
        assert!(found.len() == 1 << 30 && found.blocks() * 512 < 1 << 20, "{filesystem:?}: {}", found.blocks());
        let again = tree.create_file(b"sparse", 5, true).unwrap_err();
        assert_eq!(io_kind(&again), Some(ErrorKind::AlreadyExists), "nothing is ever written over");
    });
}

#[test]
fn a_large_file_is_whole_whatever_borders_its_writes_have() {
    const BYTES: usize = (32 << 20) + 12_345;
    on_every_filesystem(|folder, filesystem| {
        let tree = TargetTree::open(folder).unwrap();
        let Ok(file) = tree.create_file(b"large", BYTES as u64, false) else {
            // Too small a filesystem: what it says then is another test's.
            return;
        };
        let wanted: Vec<u8> = (0..BYTES as u32).map(|place| (place ^ (place >> 8) ^ (place >> 16)) as u8).collect();
        let mut buffer = WriteBuffer::default();
        let mut offset = 0;
        // Whole blocks, a length that is none, a place that is none, and an end in the middle of a block.
        for length in [4 << 20, (4 << 20) + 1, 3 << 20, 4096, 1 << 19].into_iter().cycle() {
            let length = length.min(BYTES - offset);
            let bytes = buffer.bytes(length);
            bytes.copy_from_slice(&wanted[offset..offset + length]);
            file.write_at(offset as u64, bytes).unwrap();
            offset += length;
            if offset == BYTES {
                break;
            }
        }
        file.sync().unwrap();
        assert!(fs::read(folder.join("large")).unwrap() == wanted, "on {filesystem:?}");
        fs::remove_file(folder.join("large")).unwrap();
    });
}

#[test]
fn a_full_disk_is_met_before_the_first_byte_and_leaves_nothing() {
    for filesystem in [Filesystem::Xfs, Filesystem::Ext4, Filesystem::Tmpfs, Filesystem::Btrfs] {
        let mounted = Mounted::new(filesystem, 16).unwrap();
        let tree = TargetTree::open(mounted.path()).unwrap();
        let free = tree.capabilities().unwrap().free_bytes;
        assert!(free > 0 && free < 400 << 20);
        let error = tree.create_file(b"large", free + (8 << 20), false).unwrap_err();
        assert_eq!(io_kind(&error), Some(ErrorKind::StorageFull), "{filesystem:?}: {error}");
        assert!(!mounted.path().join("large").exists(), "{filesystem:?}");
        // What was just given back can be had once the journal of the filesystem has it.
        tree.sync_filesystem().unwrap();
        let small = tree.create_file(b"small", 1 << 16, false).unwrap();
        small.write_at(0, &[1; 1 << 16]).unwrap();
    }
}

#[test]
fn capabilities_are_those_of_the_filesystem() {
    for (filesystem, reflink) in
        [(Filesystem::Xfs, true), (Filesystem::Btrfs, true), (Filesystem::Ext4, false), (Filesystem::Tmpfs, false)]
    {
        let mounted = Mounted::new(filesystem, 16).unwrap();
        fs::create_dir(mounted.path().join("folder")).unwrap();
        let of = |path: &Path| TargetTree::open(path).unwrap().capabilities().unwrap();
        let Capabilities { reflink: found, exchange, mount_point, free_bytes } = of(mounted.path());
        assert_eq!((found, exchange, mount_point), (reflink, true, true), "{filesystem:?}");
        assert!(free_bytes > 0);
        let touched = || fs::metadata(mounted.path()).unwrap().modified().unwrap();
        let before = touched();
        assert_eq!(TargetTree::open(mounted.path()).unwrap().shares_extents().unwrap(), reflink, "{filesystem:?}");
        assert_eq!(touched(), before, "{filesystem:?}: the folder was written to");
        assert!(!of(&mounted.path().join("folder")).mount_point);
        assert_eq!(fs::read_dir(mounted.path().join("folder")).unwrap().count(), 0, "probes are gone");
    }
}

#[test]
fn a_clone_is_equal_and_apart_or_refused_and_gone() {
    on_every_filesystem(|folder, filesystem| {
        let tree = TargetTree::open(folder).unwrap();
        tree.create_file(b"from", 0, true).unwrap().write_at(0, &[3; 100_000]).unwrap();
        let reader = TreeReader::open(folder).unwrap();
        let source = reader.open_file(b"from").unwrap();
        let cloned = tree.clone_from(b"to", &source);
        if tree.capabilities().unwrap().reflink {
            cloned.unwrap().write_at(50_000, b"changed").unwrap();
            assert_eq!(fs::read(folder.join("from")).unwrap(), [3; 100_000]);
            let mut expected = vec![3; 100_000];
            expected[50_000..50_007].copy_from_slice(b"changed");
            assert_eq!(fs::read(folder.join("to")).unwrap(), expected);
        } else {
            assert!(cloned.is_err() && !folder.join("to").exists(), "{filesystem:?}");
        }
    });
}

#[test]
fn another_name_is_the_same_file_and_of_a_link_the_link() {
    on_every_filesystem(|folder, filesystem| {
        let tree = TargetTree::open(folder).unwrap();
        let other = TargetTree::create(&folder.join("other")).unwrap();
        make(&other, b"file", FileKind::File);
        make(&other, b"link", FileKind::Symlink);
        for path in [&b"file"[..], b"link"] {
            tree.hard_link_from(path, &other, path).unwrap();
            let found = (tree.reader().stat(path).unwrap(), other.reader().stat(path).unwrap());
            assert_eq!(found.0, found.1, "{filesystem:?}");
            assert_eq!(found.0.links, 2);
        }
        tree.create_hard_link(b"third", b"file").unwrap();
        let error = tree.create_hard_link(b"third", b"file").unwrap_err();
        assert_eq!(io_kind(&error), Some(ErrorKind::AlreadyExists));
    });
}

/// What stands at a path, in a word.
fn shown(path: &Path) -> String {
    match fs::symlink_metadata(path) {
        Err(_) => "nothing".into(),
        Ok(found) if found.is_dir() => format!("folder of {}", fs::read_dir(path).unwrap().count()),
        Ok(found) if found.is_symlink() => format!("link to {}", fs::read_link(path).unwrap().display()),
        Ok(_) => fs::read_to_string(path).unwrap(),
    }
}

#[test]
fn anything_replaces_anything() {
    on_every_filesystem(|folder, filesystem| {
        let kinds = ["file", "link", "empty", "full"];
        let put = |tree: &TargetTree, path: &[u8], kind: &str, mark: &str| match kind {
            "file" => tree.create_file(path, 0, true).unwrap().write_at(0, mark.as_bytes()).unwrap(),
            "link" => tree.create_symlink(path, mark.as_bytes()).unwrap(),
            kind => {
                tree.create_directory(path).unwrap();
                let inner = if kind == "full" { mark.len() } else { 0 };
                for number in 0..inner {
                    make(tree, &[path, format!("/{number}").as_bytes()].concat(), FileKind::Directory);
                }
            }
        };
        let (here, there) = (folder.join("here"), folder.join("there"));
        let (target, staged) = (TargetTree::create(&here).unwrap(), TargetTree::create(&there).unwrap());
        for old in kinds.into_iter().chain(["none"]) {
            for new in kinds {
                if old != "none" {
                    put(&target, b"name", old, "old");
                }
                put(&staged, b"staged", new, "newer");
                let expected = shown(&there.join("staged"));
                target.replace_from(b"name", &staged, b"staged").unwrap();
                assert_eq!(shown(&here.join("name")), expected, "{new} over {old} on {filesystem:?}");
                assert_eq!(shown(&there.join("staged")), "nothing", "{new} over {old} on {filesystem:?}");
                target.remove(b"name").unwrap();
            }
        }
        // Two names of one file: a rename alone would leave both.
        put(&target, b"name", "file", "one");
        staged.hard_link_from(b"staged", &target, b"name").unwrap();
        target.replace_from(b"name", &staged, b"staged").unwrap();
        assert_eq!((shown(&here.join("name")), shown(&there.join("staged"))), ("one".into(), "nothing".into()));
    });
}

#[test]
fn whole_trees_are_exchanged_and_never_lost() {
    on_every_filesystem(|folder, _| {
        let at = |name: &str| folder.join(name);
        for name in ["a", "b"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("mark"), name).unwrap();
        }
        let mark = |name: &str| fs::read_to_string(at(name).join("mark")).unwrap();
        exchange(&at("a"), &at("b")).unwrap();
        assert_eq!((mark("a"), mark("b")), ("b".into(), "a".into()));
        assert!(exchange(&at("a"), &at("missing")).unwrap_err().is_not_found());
        let error = rename_new(&at("a"), &at("b")).unwrap_err();
        assert_eq!(io_kind(&error), Some(ErrorKind::AlreadyExists));
        assert_eq!((mark("a"), mark("b")), ("b".into(), "a".into()));
        rename_new(&at("a"), &at("c")).unwrap();
        assert!(mark("c") == "b" && !at("a").exists());
        assert!(rename_new(&at("a"), &at("d")).unwrap_err().is_not_found());
    });
}

#[test]
fn a_new_root_is_private_and_new() {
    let folder = tempfile::tempdir().unwrap();
    let tree = TargetTree::create(&folder.path().join("new")).unwrap();
    assert_eq!(fs::metadata(folder.path().join("new")).unwrap().permissions().mode() & 0o7777, 0o700);
    let error = TargetTree::create(&folder.path().join("new")).unwrap_err();
    assert_eq!(io_kind(&error), Some(ErrorKind::AlreadyExists));
    // The root's own metadata has the empty path; nothing else may be done to it.
    tree.set_metadata(b"", FileKind::Directory, &metadata(0o750, 9, 9)).unwrap();
    assert_eq!(fs::metadata(folder.path().join("new")).unwrap().mtime(), 9);
    tree.sync_directory(b"").unwrap();
    tree.sync_filesystem().unwrap();
    for outcome in [tree.remove(b""), tree.create_directory(b""), tree.create_symlink(b"", b"x")] {
        assert!(matches!(outcome, Err(Error::Refused { .. })), "{outcome:?}");
    }
}
