//! Goal: every kind of entry comes back as it was, through the built program, on every filesystem and by
//! every way. Method: one of each, with all metadata that the system keeps, compared to the nanosecond.
#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use copal_sim::mounts::{Filesystem, Mounted};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Timespec, Timestamps, Uid, chown, makedev, mknodat, utimensat};
use serde_json::json;
use support::guarded::MountedAt;
use support::terminal::in_shell;
use support::{World, assert_same, look, noise, number, plant};

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn run(program: &str, arguments: &[&OsStr]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {done:?}");
}

/// One of everything, by root.
fn plant_everything(root: &Path) {
    plant(root);
    let node = |name: &str, kind, mode: u32, device| mknodat(CWD, root.join(name), kind, mode.into(), device).unwrap();
    node("pipe", FileType::Fifo, 0o640, 0);
    node("null", FileType::CharacterDevice, 0o666, makedev(1, 3));
    node("block device", FileType::BlockDevice, 0o600, makedev(7, 200));
    drop(UnixListener::bind(root.join("socket")).unwrap());
    symlink("x".repeat(1000), root.join("a long link")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\n"), root.join("an odd link")).unwrap();
    for name in [&b"\xff\xfe"[..], b" leading", b"trailing ", b"-rf", b"new\nline", b"*", b"\x01", "späť 🦀".as_bytes()]
    {
        fs::write(root.join("folder").join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(root.join("n".repeat(255)), b"a name as long as names get").unwrap();
    let mut deep = root.to_owned();
    for level in 0..40 {
        deep.push(format!("level {level} of many that make a path longer than most programs expect"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("at the bottom"), b"deep").unwrap();

    chown(root.join("small.txt"), Some(Uid::from_raw(1234)), Some(Gid::from_raw(4321))).unwrap();
    fs::set_permissions(root.join("folder"), fs::Permissions::from_mode(0o3775)).unwrap();
    fs::set_permissions(root.join("folder/large"), fs::Permissions::from_mode(0o000)).unwrap();
    for (name, value) in [("user.colour", &b"amber"[..]), ("user.empty", b""), ("user.bytes", b"\0\xff\n")] {
        xattr::set(root.join("small.txt"), name, value).unwrap();
    }
    xattr::set(root.join("folder"), "user.of a folder", noise(8, 1500).as_slice()).unwrap();
    xattr::set(root.join("folder/program"), "trusted.kept", b"by root").unwrap();
    run("setfacl", &[OsStr::new("-m"), OsStr::new("u:1234:rw,g:4321:r,m::rw"), root.join("small.txt").as_os_str()]);
    run(
        "setfacl",
        &[OsStr::new("-d"), OsStr::new("-m"), OsStr::new("u:1234:rwx"), root.join("folder/deeper").as_os_str()],
    );

    let all_hole = File::create(root.join("all hole")).unwrap();
    all_hole.set_len(64 << 20).unwrap();
    let holes = File::create(root.join("hole at both ends")).unwrap();
    holes.write_all_at(&noise(6, 200_000), 10 << 20).unwrap();
    holes.set_len(20 << 20).unwrap();
    fs::write(root.join("zeros"), vec![0; 1 << 20]).unwrap();

    set_time(&root.join("small.txt"), 1_000_000_000, 123_456_789);
    set_time(&root.join("link"), 999, 1);
    set_time(&root.join("pipe"), 5, 999_999_999);
    set_time(&root.join("folder/dangling"), -86_400, 500);
    set_time(&root.join("folder/deeper"), 4_000_000_000, 7);
    set_time(root, 1_234_567, 8);
}

fn check(filesystem: Option<Filesystem>, modes: &[&str]) {
    let mounted = filesystem.map(|filesystem| Mounted::new(filesystem, 512).unwrap());
    let folder = mounted.as_ref().map_or_else(std::env::temp_dir, |mounted| mounted.path().to_owned());
    let world = World::beneath(&folder);
    world.ok(&["init"]);
    let source = world.path("source");
    plant_everything(&source);
    let wanted = look(&source);
    let report = world.create("all", "source");
    assert_eq!((&report["phase"], number(&report, "unread_files")), (&json!("completed"), 0), "{report:#}");
    assert_same(&wanted, &look(&source));
    for (number, mode) in modes.iter().enumerate() {
        // To nothing, and over something else entirely.
        let target = format!("target {number}");
        let report = world.json(&["deploy", "all", &target, "--mode", mode]);
        assert_eq!(report["warnings"], json!([]), "{mode}");
        assert_same(&wanted, &look(&world.path(&target)));
        spoil(&world.path(&target));
        world.json(&["deploy", "all", &target, "--yes", "--mode", mode]);
        assert_same(&wanted, &look(&world.path(&target)));
        let sparse = fs::metadata(world.path(&target).join("all hole")).unwrap();
        assert!(sparse.size() == 64 << 20 && sparse.blocks() < 1000, "holes stay holes");
        assert!(fs::metadata(world.path(&target).join("zeros")).unwrap().size() == 1 << 20);
    }
    // Nothing changed: nothing is read, nothing grows.
    let again = world.create("again", "source");
    assert_eq!((number(&again, "bytes_read"), number(&again, "chunks_new")), (0, 0), "{again:#}");
    let forced = world.json(&["create", "forced", "source", "--force-read"]);
    assert!(number(&forced, "bytes_read") > 0 && number(&forced, "bytes_new") == 0, "{forced:#}");
    assert_eq!(world.json(&["diff", "all", "forced"]), json!({ "added": [], "removed": [], "changed": [] }));
    assert_eq!(world.json(&["diff", "all", "source"]), json!({ "added": [], "removed": [], "changed": [] }));
}

/// Another kind at the place of each kind.
fn spoil(root: &Path) {
    let gone = |name: &str| {
        let path = root.join(name);
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    };
    gone("pipe");
    fs::create_dir(root.join("pipe")).unwrap();
    gone("null");
    fs::write(root.join("null"), b"a file where a device was").unwrap();
    gone("socket");
    gone("a long link");
    fs::write(root.join("a long link"), b"x").unwrap();
    gone("folder/deeper");
    symlink("/etc", root.join("folder/deeper")).unwrap();
    gone("small.txt");
    symlink("/etc/passwd", root.join("small.txt")).unwrap();
    gone("all hole");
    fs::write(root.join("all hole"), noise(3, 100_000)).unwrap();
    xattr::set(root.join("folder"), "user.extra", b"goes").unwrap();
    xattr::remove(root.join("folder"), "user.of a folder").unwrap();
    fs::set_permissions(root.join("folder"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir_all(root.join("extra/deep")).unwrap();
}

#[test]
fn every_kind_comes_back() {
    check(None, &["auto", "swap", "in-place"]);
}

#[test]
fn every_kind_comes_back_on_xfs() {
    check(Some(Filesystem::Xfs), &["clone", "swap", "in-place"]);
}

#[test]
fn every_kind_comes_back_on_btrfs() {
    check(Some(Filesystem::Btrfs), &["clone", "swap", "in-place"]);
}

#[test]
fn an_archive_of_a_snapshot_is_unpacked_by_tar() {
    let world = World::new();
    let source = world.path("source");
    plant_everything(&source);
    fs::remove_file(source.join("socket")).unwrap();
    // The archive has holes as zeros.
    fs::remove_file(source.join("all hole")).unwrap();
    world.create("all", "source");
    fs::create_dir(world.path("unpacked")).unwrap();
    let run = in_shell(
        &world,
        "copal dump all / --tar | tar --extract --numeric-owner -p --xattrs --xattrs-include='user.*' -C unpacked",
    );
    assert_eq!(run.code, 0, "{run:?}");
    let (wanted, found) = (look(&source), look(&world.path("unpacked")));
    assert_eq!(wanted.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for (path, seen) in &wanted {
        assert!(seen.is_as_archived(&found[path]), "{path:?}: {seen:?} {:?}", found[path]);
    }
    let one = world.run(&["dump", "all", "folder/program"]);
    assert_eq!(one.stdout, fs::read(source.join("folder/program")).unwrap());
    let part = in_shell(&world, "copal dump all folder --tar | tar --list");
    assert!(part.code == 0 && String::from_utf8_lossy(&part.stdout).contains("program"), "{part:?}");
}

/// The names of each inode below a folder that has several.
fn links(root: &Path) -> Vec<Vec<String>> {
    let mut names: std::collections::BTreeMap<u64, Vec<String>> = std::collections::BTreeMap::new();
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        let stat = fs::symlink_metadata(entry.path()).unwrap();
        names.entry(stat.ino()).or_default().push(entry.file_name().into_string().unwrap());
    }
    let mut several: Vec<Vec<String>> = names.into_values().filter(|names| names.len() > 1).collect();
    several.iter_mut().for_each(|names| names.sort());
    several.sort();
    several
}

/// Device files by root only; the rest as anybody.
fn plant_links(root: &Path) {
    fs::create_dir_all(root).unwrap();
    mknodat(CWD, root.join("pipe"), FileType::Fifo, 0o640.into(), 0).unwrap();
    drop(UnixListener::bind(root.join("socket")).unwrap());
    symlink("nowhere", root.join("link")).unwrap();
    fs::write(root.join("regular"), b"content").unwrap();
    let mut planted = vec!["pipe", "socket", "link", "regular"];
    if rustix::process::geteuid().is_root() {
        mknodat(CWD, root.join("null"), FileType::CharacterDevice, 0o666.into(), makedev(1, 3)).unwrap();
        mknodat(CWD, root.join("block"), FileType::BlockDevice, 0o600.into(), makedev(7, 200)).unwrap();
        planted.extend(["null", "block"]);
    }
    for name in planted {
        for more in ["second", "third"] {
            fs::hard_link(root.join(name), root.join(format!("{name} {more}"))).unwrap();
        }
        set_time(&root.join(name), 1_000_000_000, 5);
    }
}

#[test]
fn d20_names_of_links_pipes_sockets_and_devices_come_back_as_names_of_one() {
    let world = World::new();
    let (source, target) = (world.path("s"), world.path("t"));
    plant_links(&source);
    world.create("mon", "s");
    let wanted = links(&source);
    assert!(wanted.len() >= 4, "{wanted:?}");
    for mode in ["auto", "swap", "in-place"] {
        let _ = fs::remove_dir_all(&target);
        world.ok(&["deploy", "mon", "t", "--yes"]);
        assert_eq!(links(&target), wanted);
        assert_eq!(world.json(&["deploy", "mon", "t", "--yes", "--mode", mode])["files_changed"], 0, "{mode}");
        // Names of their own, another kind in the place of one, one that is gone.
        for name in ["link second", "pipe third", "socket", "regular third"] {
            fs::remove_file(target.join(name)).unwrap();
        }
        symlink("nowhere", target.join("link second")).unwrap();
        mknodat(CWD, target.join("pipe third"), FileType::Fifo, 0o640.into(), 0).unwrap();
        fs::create_dir_all(target.join("regular third/deep")).unwrap();
        world.ok(&["deploy", "mon", "t", "--yes", "--mode", mode]);
        assert_eq!(links(&target), wanted, "{mode}");
        assert_same(&look(&source), &look(&target));
    }
    // Another name outside the target keeps what it had.
    fs::hard_link(target.join("pipe"), world.path("outside")).unwrap();
    fs::set_permissions(target.join("pipe"), fs::Permissions::from_mode(0o600)).unwrap();
    world.ok(&["deploy", "mon", "t", "--yes", "--mode", "in-place"]);
    assert_eq!(links(&target), wanted);
    assert_eq!(fs::symlink_metadata(world.path("outside")).unwrap().mode() & 0o777, 0o600);
    // Nothing changed: a second snapshot says the same, and so does the folder on disk.
    world.create("tue", "s");
    for other in ["tue", "s"] {
        let same = world.json(&["diff", "mon", other]);
        assert_eq!(
            (&same["added"], &same["removed"], &same["changed"]),
            (&json!([]), &json!([]), &json!([])),
            "{other}"
        );
    }
    world.ok(&["verify"]);
    let archive = world.command(&["dump", "mon", "/", "--tar"]).output().unwrap();
    fs::write(world.path("all.tar"), &archive.stdout).unwrap();
    fs::create_dir(world.path("u")).unwrap();
    run("tar", &[OsStr::new("-xf"), world.path("all.tar").as_os_str(), OsStr::new("-C"), world.path("u").as_os_str()]);
    // An archive cannot hold a socket.
    let archived: Vec<_> = wanted.into_iter().filter(|names| !names[0].starts_with("socket")).collect();
    assert_eq!(links(&world.path("u")), archived);
}

#[test]
fn d20_two_names_in_a_part_are_names_of_one_whatever_their_first_is() {
    let world = World::new();
    fs::create_dir_all(world.path("s/part")).unwrap();
    fs::write(world.path("s/a"), b"content").unwrap();
    symlink("nowhere", world.path("s/b")).unwrap();
    for (name, more) in [("a", "x"), ("a", "y"), ("b", "z"), ("b", "zz")] {
        fs::hard_link(world.path("s").join(name), world.path("s/part").join(more)).unwrap();
    }
    world.create("mon", "s");
    let wanted = links(&world.path("s/part"));
    assert_eq!(wanted, [["x", "y"], ["z", "zz"]]);
    world.ok(&["deploy", "mon", "t", "--path", "part", "--yes"]);
    assert_eq!(links(&world.path("t")), wanted);
    let archive = world.command(&["dump", "mon", "part", "--tar"]).output().unwrap();
    fs::write(world.path("part.tar"), &archive.stdout).unwrap();
    run("tar", &[OsStr::new("-xf"), world.path("part.tar").as_os_str(), OsStr::new("-C"), world.path("").as_os_str()]);
    assert_eq!(links(&world.path("part")), wanted);
    assert_eq!(fs::read(world.path("part/y")).unwrap(), b"content");
}

#[test]
fn d20_times_that_a_filesystem_cannot_hold_are_told_once() {
    let world = World::new();
    let point = world.path("narrow");
    fs::create_dir(&point).unwrap();
    // Root: an ext4 with small inodes, for 32 bits of seconds and nothing below; as anybody the test's own
    // filesystem.
    let image = world.path("image");
    let is_root = rustix::process::geteuid().is_root();
    let mounted = is_root.then(|| {
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-I", "128", image.to_str().unwrap()].map(OsStr::new));
        run("mount", &[OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), point.as_os_str()]);
        Unmounted(point.clone())
    });
    let source = world.path("s");
    fs::create_dir(&source).unwrap();
    // Memory holds every time.
    let _wide = is_root.then(|| MountedAt::tmpfs(source.clone()));
    for (name, seconds, nanoseconds) in [("late", 1 << 40, 7), ("early", -(1 << 40), 7), ("plain", 1_000_000_000, 7)] {
        fs::write(source.join(name), name).unwrap();
        set_time(&source.join(name), seconds, nanoseconds);
    }
    world.create("mon", "s");
    let deploy = |verb: &str| world.json(&[verb, "mon", "narrow/t", "--yes"]);
    let first = deploy("deploy");
    let warnings = first["warnings"].as_array().unwrap();
    let told = warnings.iter().filter(|line| line.as_str().unwrap().contains("holds no time")).count();
    // What the filesystem of the source held not either stands there as the narrow one has it.
    assert!(mounted.is_none() || told == 2 || !holds(&source), "{first}");
    for verb in ["deploy", "restore", "deploy"] {
        let again = deploy(verb);
        assert_eq!((&again["files_changed"], &again["warnings"]), (&json!(0), &json!([])), "{verb} {again}");
    }
    let forced = world.json(&["deploy", "mon", "narrow/t", "--yes", "--force-read"]);
    assert_eq!(forced["files_changed"], 0, "{forced}");
    let same = world.json(&["diff", "mon", "narrow/t"]);
    assert_eq!(same["changed"], json!([]), "{same}");
}

fn holds(source: &Path) -> bool {
    fs::metadata(source.join("late")).unwrap().mtime() == 1 << 40
}

struct Unmounted(std::path::PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn d20_far_years_are_listed() {
    let world = World::new();
    fs::create_dir(world.path("s")).unwrap();
    let _wide = rustix::process::geteuid().is_root().then(|| MountedAt::tmpfs(world.path("s")));
    for (name, seconds) in [("a", 1 << 40), ("b", -(1 << 40))] {
        fs::write(world.path("s").join(name), name).unwrap();
        set_time(&world.path("s").join(name), seconds, 0);
    }
    world.create("mon", "s");
    let listed = world.json(&["ls", "mon"]);
    let shown = |name: &str| {
        let entry = listed.as_array().unwrap().iter().find(|entry| entry["path"] == name).unwrap();
        entry["modified"].as_str().unwrap().to_owned()
    };
    for (name, expected) in [("a", "+036812-02-20T00:36:16Z"), ("b", "-032873-11-12T23:23:44Z")] {
        // A filesystem that holds no such time has made another of it.
        let held = fs::metadata(world.path("s").join(name)).unwrap().mtime().abs() == 1 << 40;
        assert!(!held || shown(name) == expected, "{}", shown(name));
    }
}
