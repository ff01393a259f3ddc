//! Goal: what other programs make of our archives is what was captured: ACLs by `tar --acls`, and what a
//! snapshot left out is left where it is by a deploy of its hub-tar. Method: the system's own `tar`,
//! `setfacl` and `getfacl`; bundles as they are, and packed again by hand.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use support::World;

/// A command of the shell in the world's folder; its output.
#[track_caller]
fn shell(world: &World, script: &str) -> String {
    let output = Command::new("/bin/sh").args(["-c", script]).current_dir(world.path("")).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn d20_an_archive_brings_acls_back_as_tar_does() {
    let world = World::new();
    fs::create_dir_all(world.path("s/d")).unwrap();
    fs::write(world.path("s/f"), "content").unwrap();
    fs::write(world.path("s/d/plain"), "content").unwrap();
    shell(
        &world,
        "chmod 640 s/f && setfacl -m u:1000:rwx,g:2000:x s/f && setfacl -m u:3000:rx,d:u:1000:rwx,d:g::- s/d && \
         setfattr -n user.colour -v amber s/f",
    );
    // Only root may: the kernel looks at what is in it.
    let capability = "0x0100000200200000000000000000000000000000";
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        shell(&world, &format!("setfattr -n security.capability -v {capability} s/f"));
    }
    world.create("one", "s");
    let archive = world.command(&["dump", "one", "/", "--tar"]).output().unwrap();
    fs::write(world.path("all.tar"), &archive.stdout).unwrap();
    let acls = |folder: &str| shell(&world, &format!("cd {folder} && getfacl -Rpn ."));
    for (number, options) in
        ["--acls", "--acls --xattrs --xattrs-include='*'", "--xattrs --xattrs-include='*'"].into_iter().enumerate()
    {
        shell(&world, &format!("mkdir x{number} && tar {options} -xpf all.tar -C x{number}"));
        assert_eq!(acls(&format!("x{number}")), acls("s"), "{options}");
        if number > 0 {
            let colour = shell(&world, &format!("getfattr --only-values -n user.colour x{number}/f"));
            assert_eq!(colour, "amber", "{options}");
        }
        if number > 0 && is_root {
            let found = shell(&world, &format!("getfattr -e hex -n security.capability x{number}/f"));
            assert!(found.contains(capability), "{options}: {found}");
        }
    }
    // What the system's own archive of the same has: the same records, whatever else.
    shell(&world, "tar --acls --format=posix -cf own.tar -C s . && mkdir own && tar --acls -xpf own.tar -C own");
    assert_eq!(acls("own"), acls("x0"));
}

/// One folder with a database, a bucket, and more.
fn hub(world: &World, folder: &str) {
    let folder = world.path(folder);
    fs::create_dir_all(folder.join("bucket/sub")).unwrap();
    Connection::open(folder.join("hub.db")).unwrap().execute_batch("CREATE TABLE t (i)").unwrap();
    fs::write(folder.join("bucket/o"), "object").unwrap();
}

/// Files that no snapshot of the hub has.
fn leave_out(world: &World, paths: &[&str]) {
    for path in paths {
        let path = world.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "left out").unwrap();
    }
}

#[track_caller]
fn check(sources: &[&str], excludes: &[&str], left: &[&str]) {
    let world = World::new();
    hub(&world, "hub");
    leave_out(&world, left);
    let mut words = vec!["create", "one"];
    words.extend(sources);
    for exclude in excludes {
        words.extend(["--exclude", exclude]);
    }
    world.ok(&words);
    world.ok(&["export", "one", "one.tgz", "--format", "hub-tar"]);
    world.ok(&["import", "one.tgz", "two"]);
    fs::write(world.path("hub/bucket/new"), "goes").unwrap();
    for mode in ["swap", "in-place"] {
        world.ok(&["deploy", "two", "hub", "--yes", "--mode", mode]);
        assert!(!world.path("hub/bucket/new").exists());
        for path in left {
            assert!(world.path(path).exists(), "{sources:?} {excludes:?} {mode}: {path}");
        }
    }
    world.ok(&["deploy", "two", "hub", "--yes", "--delete-excluded"]);
    for path in left {
        assert!(!world.path(path).exists(), "{path}");
    }
}

#[test]
fn d02_what_was_left_out_stays_when_a_hub_tar_is_deployed() {
    let apart = ["hub.db=hub/hub.db", "bucket=hub/bucket"];
    check(&apart, &["cache/"], &["hub/bucket/cache/c", "hub/bucket/sub/cache/c"]);
    check(&apart, &["/sub/*", "!/sub/keep"], &["hub/bucket/sub/c"]);
    // One folder has both: the rules count from there.
    check(&["hub"], &["cache/"], &["hub/bucket/cache/c", "hub/bucket/sub/cache/c"]);
    check(&["hub"], &["/bucket/sub/*.tmp", "b*/cache"], &["hub/bucket/sub/x.tmp", "hub/bucket/cache/c"]);
    check(&["hub"], &["**/cache"], &["hub/bucket/sub/cache/c"]);
}

/// What was left out for what it is or stands beside, or was not named, stays as well.
#[test]
fn d02_other_rules_travel_with_a_hub_tar_too() {
    for sources in [&["hub"][..], &["hub.db=hub/hub.db", "bucket=hub/bucket"]] {
        let world = World::new();
        hub(&world, "hub");
        leave_out(&world, &["hub/bucket/cache/c", "hub/bucket/marked/m"]);
        fs::write(world.path("hub/bucket/cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n")
            .unwrap();
        fs::write(world.path("hub/bucket/marked/.leave"), "").unwrap();
        fs::write(world.path("hub/bucket/large"), vec![7; 100_000]).unwrap();
        let mut words = vec!["create", "one"];
        words.extend(sources);
        words.extend(["--exclude-caches", "--exclude-if-present", ".leave", "--exclude-larger-than", "50000"]);
        world.ok(&words);
        world.ok(&["export", "one", "one.tgz", "--format", "hub-tar"]);
        world.ok(&["import", "one.tgz", "two"]);
        world.ok(&["deploy", "two", "hub", "--yes"]);
        for path in ["cache/c", "marked/m", "large"] {
            assert!(world.path("hub/bucket").join(path).exists(), "{sources:?}: {path}");
        }
    }
    let world = World::new();
    hub(&world, "hub");
    leave_out(&world, &["hub/bucket/other", "hub/bucket/sub/part"]);
    fs::write(world.path("list"), "hub.db\nbucket/sub\n").unwrap();
    world.ok(&["create", "one", "hub", "--files-from", "list"]);
    world.ok(&["export", "one", "one.tgz", "--format", "hub-tar"]);
    world.ok(&["import", "one.tgz", "two"]);
    fs::write(world.path("hub/bucket/sub/new"), "goes").unwrap();
    world.ok(&["deploy", "two", "hub", "--yes"]);
    assert!(world.path("hub/bucket/other").exists() && world.path("hub/bucket/o").exists());
    assert!(world.path("hub/bucket/sub/part").exists() && !world.path("hub/bucket/sub/new").exists());
}

#[test]
fn d02_a_bucket_that_was_left_out_whole_stays() {
    let world = World::new();
    hub(&world, "hub");
    world.ok(&["create", "one", "hub", "--exclude", "/bucket/"]);
    world.ok(&["export", "one", "one.tgz", "--format", "hub-tar"]);
    world.ok(&["import", "one.tgz", "two"]);
    world.ok(&["deploy", "two", "hub", "--yes"]);
    assert_eq!(fs::read(world.path("hub/bucket/o")).unwrap(), b"object");
}

#[test]
fn d02_an_export_says_that_what_stands_beside_does_not_travel() {
    let world = World::new();
    hub(&world, "hub");
    let export = |name: &str| world.run(&["export", name, &format!("{name}.tgz"), "--format", "hub-tar"]).stderr;
    world.create("plain", "hub");
    assert_eq!(export("plain"), "");
    world.ok(&["create", "ruled", "hub", "--exclude", "/logs/"]);
    assert!(export("ruled").contains("beside them"), "{}", export("ruled"));
    fs::write(world.path("hub/zone"), "content").unwrap();
    world.create("more", "hub");
    assert!(export("more").contains("not zone"), "{}", export("more"));
}

/// The bundle packed again with another `left_out`.
fn repacked(world: &World, rules: &str) {
    let folder = world.path("x");
    let _ = fs::remove_dir_all(&folder);
    shell(
        world,
        "mkdir x && tar xzf one.tgz -C x && sed -i '/^left_out:/,/^[a-z]/{/^left_out:/d;/^[- ]/d}' x/snapshot.yaml",
    );
    let manifest = fs::read_to_string(folder.join("snapshot.yaml")).unwrap();
    assert!(!manifest.contains("cache"), "{manifest}");
    fs::write(folder.join("snapshot.yaml"), format!("{manifest}\n{rules}")).unwrap();
    shell(world, "tar czf hostile.tgz -C x snapshot.yaml hub.db bucket");
}

#[test]
fn h10_rules_of_a_bundle_are_judged_before_anything_is_stored() {
    let world = World::new();
    hub(&world, "hub");
    world.ok(&["create", "one", "hub.db=hub/hub.db", "bucket=hub/bucket", "--exclude", "cache"]);
    world.ok(&["export", "one", "one.tgz", "--format", "hub-tar"]);
    let many = format!("left_out:\n{}", "- exclude: a\n".repeat(70_000));
    let long = format!("left_out:\n- exclude: {}\n", "a".repeat(5000));
    let before = world.objects();
    for rules in [
        "left_out:\n- exclude: ''\n",
        "left_out:\n- exclude: '# x'\n",
        "left_out:\n- path: ../x\n",
        "left_out:\n- path: /etc\n",
        "left_out:\n- mount_point: ''\n",
        "left_out:\n- path_hex: 2e2e2f78\n",
        "left_out:\n- path_hex: zz\n",
        "left_out:\n- command: x\n",
        "left_out: all\n",
        &many,
        &long,
    ] {
        repacked(&world, rules);
        let run = world.run(&["import", "hostile.tgz", "two"]);
        assert_ne!(run.code, 0, "{}", rules.get(..60).unwrap_or(rules));
        assert!(run.stderr.contains("snapshot.yaml"), "{run:?}");
        assert_eq!(world.objects(), before);
    }
    // Without them, and with those of a program that knows more fields.
    for (name, rules) in [("none", ""), ("more", "colour: amber\n"), ("empty", "left_out: []\n")] {
        repacked(&world, rules);
        world.ok(&["import", "hostile.tgz", name]);
        leave_out(&world, &["hub/bucket/cache"]);
        world.ok(&["deploy", name, "hub", "--yes"]);
        assert!(!world.path("hub/bucket/cache").exists(), "{name}");
    }
    // Names that are no text.
    repacked(&world, "left_out:\n- path_hex: ff\n- one_file_system: true\n");
    world.ok(&["import", "hostile.tgz", "hex"]);
    let odd = world
        .path("hub/bucket")
        .join(Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff")));
    fs::write(&odd, "left out").unwrap();
    world.ok(&["deploy", "hex", "hub", "--yes"]);
    assert!(odd.exists());
}

/// A hub-tar has no ACLs: without one the group must not get what the mask lets others have.
#[test]
fn d20_a_hub_tar_gives_the_group_no_more_than_the_acl_did() {
    let world = World::new();
    hub(&world, "hub");
    shell(&world, "chmod 640 hub/bucket/o && setfacl -m u:1000:rwx hub/bucket/o");
    world.create("one", "hub");
    world.ok(&["export", "one", "one.tgz", "--format", "hub-tar"]);
    shell(&world, "mkdir y && tar xzpf one.tgz -C y");
    let mode = fs::metadata(world.path("y/bucket/o")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "{mode:o}");
}
