//! Goal: who was removed takes nothing with him, and nothing he makes is taken for an owner's (rows T2 to
//! T4). Method: his keys are held from before he was removed, and with them snapshots are signed as he could
//! sign them with a copy; what they cost is told by the built program.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use copal_manifest::snapshot::Snapshot;
use copal_store::SnapshotId;
use copal_store::backend::{ObjectKind, ObjectName, publish_bytes};
use copal_store::fuzzing::seal_whole;
use copal_store::repository::{Repository, RootName};
use serde_json::Value;

use support::forge::{anew, hold, with_key};
use support::{Run, World, noise};

/// A repository with another key in that role.
fn with_key_of(role: &str) -> World {
    let world = World::new();
    world.ok(&["key", "rotate", "--reseal"]);
    fs::write(world.path("bert"), noise(20, 32)).unwrap();
    world.ok(&["key", "add", "--role", role, "--label", "bert", "--new-key-file", "bert"]);
    fs::create_dir_all(world.path("source")).unwrap();
    fs::write(world.path("source/file"), noise(1, 20_000)).unwrap();
    world
}

#[track_caller]
fn create(world: &World, key: &str, name: &str) {
    let run = with_key(world, key, &["create", name, "source"]);
    assert_eq!(run.code, 0, "{run:#?}");
}

/// Signs snapshots that say the same as one that is there, and are so many seconds younger.
fn plant(owner: &Repository, by: &Repository, like: &str, names: &[(&str, i64)]) {
    let tag = owner.keys().name_tag(like.as_bytes());
    let root = owner.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap();
    let snapshot = Snapshot::decode("a root", &owner.read_root(&root).unwrap()).unwrap();
    for (number, (name, seconds)) in names.iter().enumerate() {
        let id = SnapshotId([100 + number as u8; 16]);
        let mut planted = Snapshot { id, name: (*name).into(), ..snapshot.clone() };
        planted.created.seconds += seconds;
        let root = RootName { tag: owner.keys().name_tag(name.as_bytes()), snapshot: id };
        let object = ObjectName::new(ObjectKind::Root, root.object_name()).unwrap();
        let sealed = seal_whole(by, &object, &planted.encode().unwrap()).unwrap();
        publish_bytes(&**by.backend(), &object, &sealed).unwrap();
    }
}

fn names(listed: &Value) -> Vec<&str> {
    listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn t02_a_removed_key_pushes_out_nothing_not_even_its_own() {
    for role in ["create", "full"] {
        let world = with_key_of(role);
        create(&world, "bert", "of bert");
        create(&world, "key", "monday");
        let berts = hold(&world, "bert");
        world.ok(&["key", "remove", "bert"]);
        plant(&hold(&world, "key"), &berts, "monday", &[("p1", 10), ("p2", 20), ("p3", 30)]);
        world.ok(&["forget", "--keep-last", "2", "--keep-within", "1h"]);
        let listed = world.json(&["list"]);
        assert_eq!(names(&listed), ["of bert", "monday", "p1", "p2", "p3"], "{role}");
        let report = world.json(&["forget", "--keep-last", "1", "--dry-run"]);
        let kept = report["kept"].as_array().unwrap();
        let of_bert = kept.iter().find(|one| one["snapshot"]["name"] == "of bert");
        match role {
            "create" => assert_eq!(of_bert.unwrap()["rules"][0], "its key was removed", "{report}"),
            // Of an owner as rules would have it: monday is newer.
            _ => assert!(of_bert.is_none(), "{report}"),
        }
        // Whoever may remove does it by name.
        world.ok(&["delete", "p1", "p2", "p3", "of bert", "--yes"]);
        assert_eq!(names(&world.json(&["list"])), ["monday"]);
    }
}

#[test]
fn t02_what_a_changed_key_signed_goes_by_the_rules_as_before() {
    let world = with_key_of("full");
    for name in ["one", "two", "three"] {
        create(&world, "key", name);
    }
    fs::write(world.path("new"), noise(30, 32)).unwrap();
    world.ok(&["key", "change", "--new-key-file", "new"]);
    let forget = || with_key(&world, "new", &["forget", "--keep-last", "2", "--json"]);
    let run = forget();
    let removed = |run: &Run| -> Value { serde_json::from_slice::<Value>(&run.stdout).unwrap()["removed"].clone() };
    assert_eq!(names(&removed(&run)), ["one"]);
    for name in ["four", "five"] {
        create(&world, "new", name);
    }
    let mut gone: Vec<String> = names(&removed(&forget())).into_iter().map(str::to_owned).collect();
    gone.sort();
    assert_eq!(gone, ["three", "two"]);
}

#[test]
fn t04_latest_is_of_a_key_that_may_create_now() {
    for role in ["create", "full"] {
        let world = with_key_of(role);
        create(&world, "key", "monday");
        let berts = hold(&world, "bert");
        world.ok(&["key", "remove", "bert"]);
        plant(&hold(&world, "key"), &berts, "monday", &[("planted", 10)]);
        assert_eq!(names(&world.json(&["list"])), ["monday", "planted"]);
        assert_eq!(world.json(&["show", "latest"])["name"], "monday");
        assert_eq!(world.json(&["show", "latest:"])["name"], "monday");
        world.ok(&["delete", "monday", "--yes"]);
        let error = world.fails(&["deploy", "latest", "target", "--yes"], 79, "only-former-keys");
        assert!(error["message"].as_str().unwrap().contains("its key was removed"), "{error}");
        assert!(!world.path("target").exists());
        assert_eq!(world.json(&["show", "planted"])["name"], "planted");
    }
}

/// What an interrupted reseal leaves, in the instant in which the root's own name is free, when another key's
/// holder takes that name: the snapshot of the folder `other` stands there.
fn take_name(world: &World, by: &str, of: &str) -> [ObjectName; 2] {
    let (owner, signer, thief) = (hold(world, "key"), hold(world, of), hold(world, by));
    let read = |name: &str| {
        let tag = owner.keys().name_tag(name.as_bytes());
        let root = owner.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap();
        let payload = owner.read_root(&root).unwrap();
        (root, Snapshot::decode("a root", &payload).unwrap(), payload)
    };
    let ((root, snapshot, payload), (_, of_thief, _)) = (read("monday"), read("of the thief"));
    let own = ObjectName::new(ObjectKind::Root, root.object_name()).unwrap();
    let way = format!("{}-{:08x}", root.object_name(), owner.keys().epoch());
    let way = ObjectName::new(ObjectKind::Root, way).unwrap();
    publish_bytes(&**owner.backend(), &way, &seal_whole(&signer, &way, &payload).unwrap()).unwrap();
    owner.backend().delete(std::slice::from_ref(&own)).unwrap();
    let forged = Snapshot { sources: of_thief.sources, ..snapshot }.encode().unwrap();
    publish_bytes(&**owner.backend(), &own, &seal_whole(&thief, &own, &forged).unwrap()).unwrap();
    [own, way]
}

#[test]
fn t02_who_takes_a_roots_name_in_the_instant_in_which_it_is_free_gains_nothing() {
    let world = with_key_of("create");
    fs::create_dir_all(world.path("other")).unwrap();
    fs::write(world.path("other/file"), noise(2, 20_000)).unwrap();
    create(&world, "key", "monday");
    assert_eq!(with_key(&world, "bert", &["create", "of the thief", "other"]).code, 0);
    take_name(&world, "bert", "key");
    world.ok(&["delete", "of the thief", "--yes"]);
    for step in [&["gc"][..], &["gc"], &["key", "reseal"], &["gc"], &["verify"]] {
        let run = anew(&world, step);
        assert_eq!(run.code, 0, "{step:?}: {run:#?}");
        let dumped = anew(&world, &["dump", "monday", "file"]);
        assert!(dumped.stdout == noise(1, 20_000), "after {step:?}: {dumped:#?}");
    }
    assert_eq!(world.objects_in("snapshots").len(), 1);
}

#[test]
fn t02_of_two_that_nobody_trusts_none_is_removed() {
    let world = with_key_of("create");
    fs::write(world.path("robot"), noise(21, 32)).unwrap();
    world.ok(&["key", "add", "--role", "create", "--label", "robot", "--new-key-file", "robot"]);
    fs::create_dir_all(world.path("other")).unwrap();
    fs::write(world.path("other/file"), noise(2, 20_000)).unwrap();
    create(&world, "robot", "monday");
    assert_eq!(with_key(&world, "bert", &["create", "of the thief", "other"]).code, 0);
    let objects = take_name(&world, "bert", "robot");
    for step in [&["gc"][..], &["gc"], &["key", "rotate", "--reseal"], &["gc"], &["gc"]] {
        let run = anew(&world, step);
        assert_eq!(run.code, 0, "{step:?}: {run:#?}");
    }
    let owner = hold(&world, "key");
    owner.backend().delete(&objects[..1]).unwrap();
    // Whoever sees which one was planted removes it, and finds the other whole.
    let dumped = anew(&world, &["dump", "monday", "file"]);
    assert!(dumped.stdout == noise(1, 20_000), "{dumped:#?}");
}
