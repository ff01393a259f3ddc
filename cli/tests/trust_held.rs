//! Goal: what somebody holds, takes or fills up beforehand stops no owner, or only until the owner says so.
//! Method: leases held by other users and by processes that do not let go, names taken by roots of another
//! key, folders full of sessions of nobody, an image of a dying process.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use copal_manifest::snapshot::Snapshot;
use copal_store::SnapshotId;
use copal_store::backend::{ObjectKind, ObjectName};
use copal_store::repository::{Repository, RootName};
use rustix::fs::{FlockOperation, flock};
use support::forge::{add_key, check_deployed, hold, ok_with, plant, with_roles, write_source};
use support::{COPAL, World};

fn lease(world: &World, name: &str) -> std::path::PathBuf {
    world.repository().join("leases").join(name)
}

/// Held until it is dropped.
fn held(path: &Path) -> File {
    fs::write(path, "").unwrap();
    let file = File::open(path).unwrap();
    flock(&file, FlockOperation::NonBlockingLockShared).unwrap();
    file
}

#[test]
fn t03_a_lease_that_another_user_put_there_holds_up_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for name in ["keys", "maintenance"] {
        for mode in [0o666, 0o000] {
            let world = with_roles(&["maintain"]);
            let holder = held(&lease(&world, name));
            chown(lease(&world, name), Some(54_321), None).unwrap();
            fs::set_permissions(lease(&world, name), Permissions::from_mode(mode)).unwrap();
            world.ok(&["gc"]);
            world.ok(&["key", "remove", "maintain"]);
            world.ok(&["key", "rotate"]);
            drop(holder);
        }
    }
}

#[test]
fn t03_what_is_no_file_in_the_place_of_a_lease_holds_up_nothing() {
    for name in ["keys", "maintenance"] {
        for planted in ["folder", "link", "pipe"] {
            let world = with_roles(&["maintain"]);
            let path = lease(&world, name);
            match planted {
                "folder" => fs::create_dir(&path).unwrap(),
                "link" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
                _ => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
            }
            world.ok(&["key", "remove", "maintain"]);
            world.ok(&["gc"]);
        }
    }
}

#[test]
fn t03_a_lease_that_is_never_let_go_is_taken_over_when_an_owner_says_so() {
    for name in ["keys", "maintenance"] {
        let world = with_roles(&["maintain"]);
        let holder = held(&lease(&world, name));
        let refused = world.run(&["key", "remove", "maintain"]);
        assert_eq!(refused.code, 11, "{refused:#?}");
        assert!(refused.stderr.contains("--take-over"), "{refused:#?}");
        let taken = world.run(&["key", "remove", "maintain", "--take-over"]);
        assert_eq!(taken.code, 0, "{taken:#?}");
        assert!(taken.stderr.contains(&format!("leases/{name}")), "{taken:#?}");
        assert_eq!(world.json(&["key", "list"]).as_array().unwrap().len(), 1);
        drop(holder);
        world.ok(&["key", "rotate", "--reseal"]);
        world.ok(&["verify"]);
        assert!(world.objects_in("leases").is_empty());
    }
    // Nobody but owners.
    let world = with_roles(&["maintain"]);
    let _holder = held(&lease(&world, "keys"));
    let refused = support::forge::with_key(&world, "maintain", &["key", "rotate", "--take-over"]);
    assert_eq!(refused.code, 68, "{refused:#?}");
}

/// A root under the tag of one name whose snapshot has another.
fn squat(owner: &Repository, thief: &Repository, like: &str, tag_of: &str, name: &str) -> SnapshotId {
    let root = owner.roots().unwrap().into_iter().find(|root| root.tag == owner.keys().name_tag(like.as_bytes()));
    let mut snapshot = Snapshot::decode("a root", &owner.read_root(&root.unwrap()).unwrap()).unwrap();
    snapshot.id = SnapshotId(blake3::hash(name.as_bytes()).as_bytes()[..16].try_into().unwrap());
    snapshot.name = name.into();
    let root = RootName { tag: owner.keys().name_tag(tag_of.as_bytes()), snapshot: snapshot.id };
    let name = ObjectName::new(ObjectKind::Root, root.object_name()).unwrap();
    plant(thief, &name, &snapshot.encode().unwrap());
    snapshot.id
}

#[test]
fn t02_a_name_that_is_taken_by_its_tag_alone_is_free() {
    let world = with_roles(&["create"]);
    write_source(&world, "source", 1);
    world.create("monday", "source");
    let squatter = squat(&hold(&world, "key"), &hold(&world, "create"), "monday", "tuesday", "something");
    // The truth is said of it, whatever it is called by.
    let shown = world.run(&["show", "tuesday"]);
    assert_eq!(shown.code, 69, "{shown:#?}");
    world.create("tuesday", "source");
    assert_eq!(world.json(&["show", "tuesday"])["name"], "tuesday");
    check_deployed(&world, "tuesday", "source");
    let named = world.run(&["verify"]);
    assert_eq!(named.code, 69, "{named:#?}");
    assert!(String::from_utf8_lossy(&named.stdout).contains(&squatter.to_string()), "{named:#?}");
    // Twice is once too often all the same.
    let again = world.run(&["create", "tuesday", "source"]);
    assert_eq!(again.code, 86, "{again:#?}");
    world.ok(&["delete", &squatter.to_string(), "--yes"]);
    world.ok(&["verify"]);
    world.ok(&["gc"]);
    check_deployed(&world, "tuesday", "source");
}

#[test]
fn t02_who_has_taken_a_name_is_said_and_can_be_deleted_by_it() {
    let world = with_roles(&["create"]);
    write_source(&world, "source", 1);
    ok_with(&world, "create", &["create", "tuesday", "source"]);
    let refused = world.run(&["create", "tuesday", "source"]);
    assert_eq!(refused.code, 86, "{refused:#?}");
    assert!(refused.stderr.contains("signed by the key create"), "{refused:#?}");
    world.ok(&["delete", "tuesday", "--yes"]);
    // Bytes that are nothing, under the tag of a name.
    let tag = hold(&world, "key").keys().name_tag(b"tuesday");
    let root = RootName { tag, snapshot: SnapshotId([7; 16]) };
    fs::write(world.repository().join("snapshots").join(root.object_name()), "nothing").unwrap();
    let refused = world.run(&["create", "tuesday", "source"]);
    assert_eq!(refused.code, 86, "{refused:#?}");
    assert!(refused.stderr.contains("cannot be read"), "{refused:#?}");
    world.ok(&["delete", "tuesday", "--yes"]);
    world.create("tuesday", "source");
    // And one that is called otherwise, where nothing else has the name.
    squat(&hold(&world, "key"), &hold(&world, "create"), "tuesday", "wednesday", "other");
    world.ok(&["delete", "wednesday", "--yes"]);
    world.ok(&["verify"]);
}

#[test]
fn t02_sessions_of_nobody_are_removed_at_once() {
    let world = World::new();
    write_source(&world, "source", 1);
    world.create("monday", "source");
    let trace = world.path("trace");
    for number in 0..2000 {
        fs::write(world.repository().join("sessions").join(format!("{number:032x}")), "").unwrap();
    }
    let traced = Command::new("strace")
        .args(["-f", "-e", "trace=fsync,fdatasync,syncfs,unlink,unlinkat", "-o"])
        .arg(&trace)
        .arg(COPAL)
        .args(["gc"])
        .env("COPAL_REPO", world.repository())
        .env("COPAL_KEY_FILE", world.path("key"))
        .env("XDG_STATE_HOME", world.path("state"))
        .env("XDG_CACHE_HOME", world.path("cache"))
        .output()
        .unwrap();
    assert!(traced.status.success(), "{traced:?}");
    let calls = fs::read_to_string(&trace).unwrap();
    let syncs = calls.lines().filter(|line| line.contains("sync(")).count();
    let removals = calls.lines().filter(|line| line.contains("unlink")).count();
    assert!(removals >= 2000 && syncs < 40, "{removals} removals, {syncs} syncs");
    assert!(world.objects_in("sessions").is_empty());
}

#[test]
fn t11_no_image_of_a_dying_process_is_written() {
    let world = World::new();
    add_key(&world, "other", "full");
    fs::create_dir(world.path("served")).unwrap();
    // It waits for its password, with the limit that a person has set.
    let script = format!("ulimit -c unlimited; exec {COPAL} list --password-command 'exec sleep 20'");
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .current_dir(world.path("served"))
        .env("COPAL_REPO", world.repository())
        .env("XDG_STATE_HOME", world.path("state"))
        .env("XDG_CACHE_HOME", world.path("cache"))
        .env_remove("COPAL_KEY_FILE")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let limits = format!("/proc/{}/limits", child.id());
    let lowered = (0..600).any(|_| {
        sleep(Duration::from_millis(10));
        let text = fs::read_to_string(&limits).unwrap_or_default();
        let core = text.lines().find(|line| line.starts_with("Max core file size"));
        core.is_some_and(|line| line.split_whitespace().nth(4) == Some("1"))
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::ABORT).unwrap();
    child.wait().unwrap();
    assert!(lowered, "the limit of its image stayed");
    assert_eq!(fs::read_dir(world.path("served")).unwrap().count(), 0);
}
