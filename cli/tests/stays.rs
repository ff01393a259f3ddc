//! Goal: a deploy leaves where it is what excludes, `-x` or a mount left out of the snapshot (row D2).
//! Method: the built program on real trees and mounts, in every mode; what must stay is compared as a whole.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::guarded::{MODES, MountedAt, configure_tree, read, write};
use support::{World, assert_same, finish, look, noise, plant};

/// A source of which much is left out, and what is left out of it.
fn plant_with_excludes(world: &World, root: &str) {
    plant(&world.path(root));
    let file = |name: &str| format!("{root}/{name}");
    for name in ["node_modules/a/b", "vm.img", "folder/deeper/x.tmp", "folder/node_modules/c", "only/cache/deep/d"] {
        write(world, &[(&file(name), name)]);
    }
    fs::hard_link(world.path(&file("vm.img")), world.path(&file("linked to vm"))).unwrap();
}

const LEFT_OUT: [&str; 5] =
    ["node_modules/a/b", "vm.img", "folder/deeper/x.tmp", "folder/node_modules/c", "only/cache/deep/d"];

const EXCLUDES: [&str; 8] =
    ["--exclude", "node_modules/", "--exclude", "vm.img", "--exclude", "*.tmp", "--exclude", "/only/cache/"];

#[test]
fn d02_what_excludes_left_out_stays_in_every_mode() {
    for mode in MODES {
        let world = World::new();
        plant_with_excludes(&world, "s");
        let source = world.path("s");
        world.ok(&[&["create", "mon", "s"][..], &EXCLUDES].concat());
        let stood = look(&source);
        // Everything else changes, and what was left out does so too: that stays as it is now.
        fs::write(source.join("small.txt"), b"other").unwrap();
        fs::write(source.join("extra"), b"goes").unwrap();
        fs::remove_dir_all(source.join("folder/deeper")).unwrap();
        write(
            &world,
            &[("s/folder/deeper/x.tmp", "newer"), ("s/new folder/y/z.tmp", "stays"), ("s/new folder/y/w", "goes")],
        );
        write(&world, &[("s/node_modules/more", "stays")]);
        let deployed = world.json(&["deploy", "mon", "s", "--yes", "--mode", mode]);
        assert_eq!(deployed["mode"], "in-place");
        for name in LEFT_OUT.iter().filter(|name| !name.ends_with("x.tmp")) {
            assert_eq!(read(&world, &format!("s/{name}")), *name, "{mode}");
        }
        assert_eq!(read(&world, "s/folder/deeper/x.tmp"), "newer");
        assert_eq!(
            (read(&world, "s/new folder/y/z.tmp"), read(&world, "s/node_modules/more")),
            ("stays".into(), "stays".into())
        );
        assert!(!source.join("new folder/y/w").exists() && !source.join("extra").exists());
        let stays = deployed["stays"].as_array().unwrap();
        let paths: Vec<&str> = stays.iter().map(|one| one["path"].as_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "folder/deeper/x.tmp",
                "folder/node_modules",
                "new folder/y/z.tmp",
                "node_modules",
                "only/cache",
                "vm.img"
            ]
        );
        // But for what came since, the tree is what it was, the link to the file that was left out included.
        for added in ["new folder", "node_modules/more"].map(|name| source.join(name)) {
            if added.is_dir() { fs::remove_dir_all(added).unwrap() } else { fs::remove_file(added).unwrap() }
        }
        let (mut stood, mut found) = (stood, look(&source));
        for name in ["folder/deeper/x.tmp", "node_modules", "", "vm.img"] {
            // Their times changed with what was done to them above.
            assert!(stood.remove(Path::new(name)).is_some() && found.remove(Path::new(name)).is_some(), "{name}");
        }
        assert_same(&stood, &found);
        world.ok(&["deploy", "mon", "s", "--yes", "--mode", mode, "--delete-excluded"]);
        assert!(
            !source.join("vm.img").exists()
                && !source.join("node_modules").exists()
                && !source.join("only/cache").exists()
        );
    }
}

#[test]
fn d02_rules_go_with_labels_parts_copies_and_bundles() {
    let world = World::new();
    write(&world, &[("a/keep", "1"), ("a/sub/f", "1"), ("b/f", "1")]);
    let words = ["create", "mon", "a=a", "b=b", "--exclude", "*.log", "--exclude", "/sub/own"];
    world.ok(&words);
    fs::write(world.path("bundle password"), "a horse of amber").unwrap();
    let password = ["--bundle-password-file", "bundle password"];
    world.ok(&[&["export", "mon", "mon.copal"][..], &password].concat());
    let other = world.text("other");
    world.ok(&["init", "--repo", &other]);
    world.ok(&["copy", "mon", "--to", &other, "--to-key-file", "key"]);
    let third = world.text("third");
    world.ok(&["init", "--repo", &third]);
    world.ok(&[&["import", "mon.copal", "--repo", &third][..], &password].concat());
    let check = |words: &[&str]| {
        let _ = fs::remove_dir_all(world.path("t"));
        write(
            &world,
            &[("t/a/x.log", "stays"), ("t/a/sub/own/y", "stays"), ("t/b/sub/own", "stays"), ("t/a/more", "goes")],
        );
        write(&world, &[("t/sub/own", "goes"), ("t/x.log", "goes")]);
        world.ok(&[words, &["t", "--yes"]].concat());
        for path in ["t/a/x.log", "t/a/sub/own/y", "t/b/sub/own"] {
            assert_eq!(read(&world, path), "stays");
        }
        for path in ["t/a/more", "t/sub", "t/x.log"] {
            assert!(!world.path(path).exists(), "{path}");
        }
        assert_eq!(read(&world, "t/a/keep"), "1");
    };
    check(&["deploy", "mon"]);
    check(&["deploy", "mon", "--repo", &third]);
    check(&["deploy", "mon", "--repo", &other]);
    // A part of a source has its source's rules.
    write(&world, &[("p/own", "stays"), ("p/z.log", "stays"), ("p/more", "goes"), ("p/sub/own", "goes")]);
    world.ok(&["deploy", "mon", "p", "--path", "a/sub", "--yes"]);
    assert_eq!((read(&world, "p/own"), read(&world, "p/z.log")), ("stays".into(), "stays".into()));
    assert!(!world.path("p/more").exists() && !world.path("p/sub").exists());
    // Through a link as the target.
    symlink(world.path("p"), world.path("link")).unwrap();
    world.ok(&["deploy", "mon", "link", "--path", "a/sub", "--yes"]);
    assert_eq!(read(&world, "p/own"), "stays");
}

#[test]
fn d02_an_application_gets_back_what_its_snapshots_left_out() {
    for is_mount_point in [false, true] {
        let world = World::new();
        fs::create_dir(world.path("data")).unwrap();
        let _mounted = is_mount_point.then(|| MountedAt::tmpfs(world.path("data")));
        plant(&world.path("data"));
        write(&world, &[("data/cache/a", "stays"), ("data/folder/cache/b", "stays"), ("data/.own", "stays")]);
        configure_tree(&world, "data");
        world.ok(&["create", "mon", "--app", "hub"]);
        fs::remove_dir_all(world.path("data/empty folder")).unwrap();
        write(&world, &[("data/small.txt", "newer"), ("data/new/deep/cache/c", "stays"), ("data/new/file", "goes")]);
        let before = look(&world.path("data"));
        // What fails is taken back, with what stays.
        write(&world, &[("refuse", "")]);
        world.fails(&["deploy", "hub/mon", "--app", "hub", "--yes"], 79, "hook");
        assert_same(&before, &look(&world.path("data")));
        fs::remove_file(world.path("refuse")).unwrap();
        world.ok(&["deploy", "hub/mon", "--app", "hub", "--yes"]);
        for path in ["data/cache/a", "data/folder/cache/b", "data/.own", "data/new/deep/cache/c"] {
            assert_eq!(read(&world, path), "stays", "{path}");
        }
        assert_eq!(read(&world, "data/small.txt"), "a few words\n");
        assert!(!world.path("data/new/file").exists() && world.path("data/empty folder").is_dir());
        // In the way: nothing is stopped or built for it.
        fs::remove_file(world.path("data/small.txt")).unwrap();
        write(&world, &[("data/small.txt/cache/d", "stays"), ("data/new/file", "still here")]);
        let error = world.fails(&["deploy", "hub/mon", "--app", "hub", "--yes"], 79, "unfit-target");
        assert!(error["message"].as_str().unwrap().contains("small.txt/cache"), "{error}");
        assert_eq!(read(&world, "data/new/file"), "still here");
    }
}

#[test]
fn d02_what_stays_in_the_way_is_refused_before_anything_is_touched() {
    let world = World::new();
    write(&world, &[("s/place", "a file"), ("s/other", "x"), ("s/build", "a file of that name")]);
    world.ok(&["create", "mon", "s", "--exclude", "*.tmp", "--exclude", "build/"]);
    fs::remove_file(world.path("s/place")).unwrap();
    write(&world, &[("s/place/deep/y.tmp", "stays"), ("s/other", "changed")]);
    let before = look(&world.path("s"));
    for mode in MODES {
        let error = world.fails(&["deploy", "mon", "s", "--yes", "--mode", mode], 79, "unfit-target");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("place/deep/y.tmp") && message.contains("--delete-excluded"), "{message}");
        assert_same(&before, &look(&world.path("s")));
    }
    fs::remove_dir_all(world.path("s/place")).unwrap();
    fs::remove_file(world.path("s/build")).unwrap();
    write(&world, &[("s/build/out", "a folder, which the rules leave out")]);
    let error = world.fails(&["deploy", "mon", "s", "--yes"], 79, "unfit-target");
    assert!(error["message"].as_str().unwrap().contains("build"), "{error}");
    world.ok(&["deploy", "mon", "s", "--yes", "--delete-excluded"]);
    assert_eq!((read(&world, "s/build"), read(&world, "s/other")), ("a file of that name".into(), "x".into()));
}

#[test]
fn d02_what_is_mounted_in_a_target_is_never_entered() {
    for mode in MODES {
        let world = World::new();
        write(&world, &[("s/f", "old"), ("s/m/x", ""), ("s/b/x", ""), ("elsewhere/e", "precious")]);
        for point in ["s/m", "s/b"] {
            fs::remove_file(world.path(point).join("x")).unwrap();
        }
        world.ok(&["create", "mon", "s"]);
        write(&world, &[("s/f", "new"), ("s/gone/deep/x", ""), ("s/gone/file", "goes")]);
        let _mounts = [
            MountedAt::tmpfs(world.path("s/m")),
            MountedAt::bind(&world.path("elsewhere"), world.path("s/b")),
            MountedAt::bind(&world.path("elsewhere"), world.path("s/gone/deep")),
        ];
        write(&world, &[("s/m/deep/p", "precious")]);
        let rehearsal = world.json(&["deploy", "mon", "s", "--dry-run", "--mode", mode]);
        let deployed = world.json(&["deploy", "mon", "s", "--yes", "--mode", mode]);
        assert_eq!(deployed["mode"], "in-place");
        let stays = ["b", "gone/deep", "m"].map(|path| json!({ "path": path, "why": "mounted" }));
        assert_eq!((&deployed["stays"], &rehearsal["stays"]), (&json!(stays), &json!(stays)));
        assert_eq!((read(&world, "s/f"), read(&world, "s/m/deep/p")), ("old".into(), "precious".into()));
        assert_eq!(
            (read(&world, "elsewhere/e"), read(&world, "s/gone/deep/e")),
            ("precious".into(), "precious".into())
        );
        assert!(!world.path("s/gone/file").exists());
        world.ok(&["deploy", "mon", "s", "--yes", "--mode", mode, "--delete-excluded"]);
        assert_eq!(read(&world, "s/m/deep/p"), "precious");
    }
}

#[test]
fn d02_what_x_left_out_stays_mounted_or_not() {
    let world = World::new();
    write(&world, &[("s/f", "old"), ("s/m/x", "")]);
    fs::remove_file(world.path("s/m/x")).unwrap();
    let mounted = MountedAt::tmpfs(world.path("s/m"));
    write(&world, &[("s/m/p", "precious")]);
    world.ok(&["create", "mon", "s", "-x"]);
    write(&world, &[("s/f", "new")]);
    world.ok(&["deploy", "mon", "s", "--yes"]);
    assert_eq!((read(&world, "s/f"), read(&world, "s/m/p")), ("old".into(), "precious".into()));
    drop(mounted);
    // The same files without the mount, here and in another tree.
    write(&world, &[("s/m/p", "below"), ("t/m/q", "elsewhere"), ("t/f", "new")]);
    for mode in MODES {
        world.ok(&["deploy", "mon", "s", "--yes", "--mode", mode]);
        world.ok(&["deploy", "mon", "t", "--yes", "--mode", mode]);
        assert_eq!((read(&world, "s/m/p"), read(&world, "t/m/q")), ("below".into(), "elsewhere".into()));
    }
    world.ok(&["deploy", "mon", "t", "--yes", "--delete-excluded"]);
    assert_eq!((read(&world, "t/f"), world.path("t/m/q").exists()), ("old".into(), false));
}

#[test]
fn d02_content_where_something_is_mounted_is_refused_before_anything_is_touched() {
    let world = World::new();
    write(
        &world,
        &[("s/a", "old"), ("s/file", "old"), ("s/folder/in", "old"), ("ext", "mounted"), ("other/o", "mounted")],
    );
    world.ok(&["create", "mon", "s"]);
    write(&world, &[("s/a", "new"), ("s/file", "new")]);
    let mounts = [
        MountedAt::bind(&world.path("ext"), world.path("s/file")),
        MountedAt::bind(&world.path("other"), world.path("s/folder")),
    ];
    for mode in MODES {
        let error = world.fails(&["deploy", "mon", "s", "--yes", "--mode", mode], 79, "unfit-target");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("mounted at file") && message.contains("mounted at folder"), "{message}");
        assert_eq!(
            (read(&world, "s/a"), read(&world, "ext"), read(&world, "other/o")),
            ("new".into(), "mounted".into(), "mounted".into())
        );
        // A file that is a mount point itself, and a folder with one that a file shall replace.
        world.fails(&["deploy", "mon", "s/file", "--path", "file", "--yes", "--mode", mode], 79, "unfit-target");
        world.fails(&["deploy", "mon", "s", "--path", "a", "--yes", "--replace", "--mode", mode], 79, "unfit-target");
    }
    assert!(
        fs::read_dir(world.path("")).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains(".copal-"))
    );
    drop(mounts);
    world.ok(&["deploy", "mon", "s", "--yes"]);
    assert_eq!(
        (read(&world, "s/a"), read(&world, "s/file"), read(&world, "s/folder/in")),
        ("old".into(), "old".into(), "old".into())
    );
}

#[test]
fn d02_a_file_with_a_name_among_what_stays_is_not_written_through() {
    let world = World::new();
    fs::create_dir_all(world.path("s/own")).unwrap();
    fs::write(world.path("s/big"), noise(1, 3 << 20)).unwrap();
    world.ok(&["create", "mon", "s", "--exclude", "own/"]);
    let mut changed = noise(1, 3 << 20);
    changed[1_500_000] ^= 1;
    fs::write(world.path("s/big"), &changed).unwrap();
    fs::hard_link(world.path("s/big"), world.path("s/own/same")).unwrap();
    world.ok(&["deploy", "mon", "s", "--yes", "--mode", "in-place"]);
    assert!(fs::read(world.path("s/big")).unwrap() == noise(1, 3 << 20));
    assert!(fs::read(world.path("s/own/same")).unwrap() == changed);
    assert_eq!(fs::metadata(world.path("s/own/same")).unwrap().nlink(), 1);
}

/// What could not be read when a snapshot was taken is in none: a deploy by whoever may leaves it.
#[test]
fn d02_what_could_not_be_read_stays() {
    for mode in MODES {
        let world = World::new();
        write(
            &world,
            &[("s/a", "a"), ("s/rootfile", "precious"), ("s/rootdir/x", "precious"), ("s/deep/secret", "precious")],
        );
        give(&world.path(""), 65534);
        for (name, mode) in [("s/rootfile", 0o600), ("s/rootdir", 0o700), ("s/deep/secret", 0o600)] {
            give(&world.path(name), 0);
            fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups", support::COPAL, "create", "one", "s"];
        let run = finish(world.command_of(Path::new("/usr/bin/setpriv"), &user).output().unwrap());
        assert_eq!(run.code, 3, "{run:#?}");
        write(&world, &[("s/a", "changed"), ("s/more", "goes"), ("s/rootdir/y", "came later")]);
        let report = world.json(&["deploy", "one", "s", "--yes", "--mode", mode]);
        for name in ["s/rootfile", "s/rootdir/x", "s/deep/secret"] {
            assert_eq!(read(&world, name), "precious", "{mode} {name}");
        }
        assert_eq!((read(&world, "s/a"), read(&world, "s/rootdir/y")), ("a".into(), "came later".into()));
        assert!(!world.path("s/more").exists());
        assert!(report["warnings"].to_string().contains("not whole"), "{report}");
        world.ok(&["restore", "one", "s", "--yes", "--delete"]);
        assert_eq!((read(&world, "s/rootfile"), read(&world, "s/rootdir/x")), ("precious".into(), "precious".into()));
        world.ok(&["deploy", "one", "s", "--yes", "--delete-excluded"]);
        assert!(!world.path("s/rootfile").exists() && !world.path("s/rootdir/x").exists());
    }
}

fn give(path: &Path, user: u32) {
    let status = Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(path).status().unwrap();
    assert!(status.success());
}

/// A log that the snapshot's rules left out stays where it is, and would be taken for that of what is put
/// back.
#[test]
fn d10_a_log_that_stays_is_emptied_before_its_database_is_put_back() {
    for rule in [&["--exclude", "*-wal", "--exclude", "*-shm"][..], &["--exclude-larger-than", "64KiB"]] {
        let world = World::new();
        for folder in ["s", "t"] {
            fs::create_dir(world.path(folder)).unwrap();
        }
        let database = rusqlite::Connection::open(world.path("s/a.db")).unwrap();
        let first =
            "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x); INSERT INTO t VALUES (1);";
        database.execute_batch(first).unwrap();
        world.ok(&[&["create", "mon", "s"][..], rule].concat());
        let more = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO t SELECT hex(zeroblob(50)) FROM n;";
        database.execute_batch(more).unwrap();
        // As a program that was killed leaves them.
        for name in ["a.db", "a.db-wal"] {
            fs::copy(world.path("s").join(name), world.path("t").join(name)).unwrap();
        }
        world.ok(&["deploy", "mon", "t", "--yes"]);
        let restored = rusqlite::Connection::open(world.path("t/a.db")).unwrap();
        let found: (i64, String) = restored
            .query_row("SELECT (SELECT count(*) FROM t), integrity_check FROM pragma_integrity_check", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(found, (1, "ok".into()), "{rule:?}");
    }
}
