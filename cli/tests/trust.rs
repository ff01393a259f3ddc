//! Goal: no key harms what another stored, and none that was removed comes back (rows T2 to T4). Method: each
//! forgery is made with the store's own code, as the holder of that key could make it; what it costs is told
//! by the built program.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use copal_store::backend::{ObjectKind, ObjectName, publish_bytes};
use copal_store::check::packs;
use copal_store::codec;
use copal_store::fuzzing::seal_whole;
use copal_store::location::RecordKind;
use copal_store::repository::{Repository, RootName};
use copal_store::session::{Reservation, Session};
use copal_store::{ObjectId, SnapshotId};

use support::forge::{hold, with_key};
use support::{Run, World, finish, noise};

fn says(run: &Run, words: &str) -> bool {
    String::from_utf8_lossy(&run.stdout).contains(words)
}

/// A repository with keys of its own for each of the names, in the role.
fn with_keys(role: &str, names: &[&str]) -> World {
    let world = World::new();
    world.ok(&["key", "rotate", "--reseal"]);
    for (number, name) in names.iter().enumerate() {
        fs::write(world.path(name), noise(20 + number as u64, 32)).unwrap();
        world.ok(&["key", "add", "--role", role, "--label", name, "--new-key-file", name]);
    }
    world
}

fn write_source(world: &World, name: &str, seed: u64) {
    fs::create_dir_all(world.path(name)).unwrap();
    for file in 0..4 {
        fs::write(world.path(name).join(format!("file {file}")), noise(seed + file, 20_000)).unwrap();
    }
    fs::write(world.path(name).join("large"), noise(seed + 9, 700_000)).unwrap();
}

fn check_deployed(world: &World, key: &str, snapshot: &str, source: &str) {
    let target = format!("deployed {snapshot}");
    let run = with_key(world, key, &["deploy", snapshot, &target, "--yes"]);
    assert_eq!(run.code, 0, "{run:#?}");
    for entry in fs::read_dir(world.path(source)).unwrap() {
        let entry = entry.unwrap();
        let deployed = fs::read(world.path(&target).join(entry.file_name())).unwrap();
        assert!(deployed == fs::read(entry.path()).unwrap(), "{:?} differs", entry.path());
    }
    fs::remove_dir_all(world.path(&target)).unwrap();
}

fn all_snapshots(repository: &Repository) -> Vec<RootName> {
    repository.roots().unwrap()
}

/// All packs are condemned, all snapshots are said to have been marked, and no session lived.
fn plant_sentence(repository: &Repository, sessions: bool) {
    let id = "ab".repeat(16);
    let marked: Vec<SnapshotId> = all_snapshots(repository).iter().map(|root| root.snapshot).collect();
    let payload = codec::encode(&(packs(repository).unwrap(), marked)).unwrap();
    let mut objects = vec![(id.clone(), payload)];
    if sessions {
        objects.push((format!("{id}-sessions"), codec::encode(&Vec::<String>::new()).unwrap()));
    }
    for (name, payload) in objects {
        let name = ObjectName::new(ObjectKind::Condemned, name).unwrap();
        publish_bytes(&**repository.backend(), &name, &seal_whole(repository, &name, &payload).unwrap()).unwrap();
    }
}

#[test]
fn t02_a_forged_sentence_deletes_nothing() {
    for role in ["create", "read"] {
        for sessions in [false, true] {
            let world = with_keys(role, &["thief"]);
            write_source(&world, "source", 30);
            world.create("monday", "source");
            plant_sentence(&hold(&world, "thief"), sessions);
            let verdict = world.run(&["verify"]);
            assert!(verdict.code == 69 && says(&verdict, "may collect"), "{verdict:#?}");
            // A create beside it stores again what it cannot rely on, and loses nothing.
            write_source(&world, "other", 31);
            world.create("tuesday", "other");
            world.ok(&["gc"]);
            world.ok(&["gc"]);
            check_deployed(&world, "key", "monday", "source");
            check_deployed(&world, "key", "tuesday", "other");
            world.ok(&["verify"]);
        }
    }
}

#[test]
fn t02_a_forged_list_of_sessions_takes_no_living_one_for_dead() {
    let world = with_keys("create", &["thief"]);
    write_source(&world, "source", 40);
    world.create("monday", "source");
    let owner = hold(&world, "key");
    // A create that has begun, and relies on what monday stored.
    let living = Session::begin(&owner).unwrap();
    let plain = noise(40, 20_000);
    let id = owner.keys().chunk_id(&plain);
    assert_eq!(living.reserve(&id).unwrap(), Reservation::Known);
    world.ok(&["delete", "monday", "--yes"]);
    let waiting = world.json(&["gc"]);
    assert!(waiting["packs_waiting"].as_u64().unwrap() > 0, "{waiting}");
    // The list of sessions that the sentence waits for, in the thief's words: none.
    let thief = hold(&world, "thief");
    for listed in thief.backend().list(ObjectKind::Condemned).unwrap() {
        if listed.name.name().ends_with("-sessions") {
            let forged = seal_whole(&thief, &listed.name, &codec::encode(&Vec::<String>::new()).unwrap()).unwrap();
            thief.backend().delete(std::slice::from_ref(&listed.name)).unwrap();
            publish_bytes(&**thief.backend(), &listed.name, &forged).unwrap();
        }
    }
    let still = world.json(&["gc"]);
    assert!(still["packs_waiting"].as_u64().unwrap() > 0, "{still}");
    living.end().unwrap();
    assert_eq!(world.json(&["gc"])["packs_waiting"], 0);
}

#[test]
fn t02_labels_of_a_narrow_key_unpin_nothing() {
    for role in ["create", "read"] {
        let world = with_keys(role, &["thief"]);
        write_source(&world, "source", 50);
        world.create("monday", "source");
        world.ok(&["tag", "monday", "reason=keep"]);
        world.ok(&["pin", "monday"]);
        world.create("tuesday", "source");
        let thief = hold(&world, "thief");
        for listed in thief.backend().list(ObjectKind::Label).unwrap() {
            let (snapshot, _) = listed.name.name().split_once('-').unwrap();
            let name = ObjectName::new(ObjectKind::Label, format!("{snapshot}-{:016x}", 99)).unwrap();
            // {version, tags, pinned}
            let payload = codec::encode(&(1u16, Vec::<(String, String)>::new(), false)).unwrap();
            publish_bytes(&**thief.backend(), &name, &seal_whole(&thief, &name, &payload).unwrap()).unwrap();
        }
        let verdict = world.run(&["verify"]);
        assert!(verdict.code == 69 && says(&verdict, "may label"), "{verdict:#?}");
        world.ok(&["forget", "--keep-last", "1"]);
        check_deployed(&world, "key", "monday", "source");
        assert_eq!(world.json(&["show", "monday"])["tags"]["reason"], "keep");
        // The owner says again what holds, and the forged one is gone.
        world.ok(&["pin", "monday"]);
        world.ok(&["verify"]);
    }
}

#[test]
fn t02_a_key_that_creates_pushes_no_other_snapshot_out() {
    let world = with_keys("create", &["thief"]);
    write_source(&world, "source", 60);
    world.create("monday", "source");
    for name in ["a", "b", "c"] {
        assert_eq!(with_key(&world, "thief", &["create", name, "source"]).code, 0);
    }
    world.ok(&["forget", "--keep-last", "1"]);
    let listed = world.json(&["list"]);
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["monday", "c"]);
    let shown = world.json(&["show", "c"]);
    assert_eq!((&shown["key"]["label"], &shown["key"]["role"]), (&"thief".into(), &"create".into()), "{shown}");
}

/// Says of what the victim is about to store that it stands there already, and puts something else there.
fn poison(world: &World, key: &str, source: &str) {
    let thief = hold(world, key);
    let session = Session::begin(&thief).unwrap();
    let mut writer = session.writer().unwrap();
    for entry in fs::read_dir(world.path(source)).unwrap() {
        let plain = fs::read(entry.unwrap().path()).unwrap();
        let id = thief.keys().chunk_id(&plain);
        if plain.len() < 30_000 && session.reserve(&id).unwrap() == Reservation::Mine {
            writer.store(RecordKind::Data, &id, &vec![b'x'; plain.len()], None).unwrap();
        }
    }
    drop(writer);
    session.checkpoint().unwrap();
    session.end().unwrap();
}

#[test]
fn t04_a_poisoned_index_entry_harms_nobody_else() {
    let world = with_keys("create", &["thief", "robot"]);
    write_source(&world, "source", 70);
    poison(&world, "thief", "source");
    for (key, name) in [("robot", "of the robot"), ("key", "of the owner")] {
        let run = with_key(&world, key, &["create", name, "source"]);
        assert_eq!(run.code, 0, "{run:#?}");
    }
    for round in 0..3 {
        for name in ["of the robot", "of the owner"] {
            check_deployed(&world, "key", name, "source");
            let dumped = with_key(&world, "key", &["dump", name, "file 1"]);
            assert!(dumped.code == 0 && dumped.stdout == noise(71, 20_000), "{name} in round {round}");
        }
        world.ok(&["gc"]);
        if round == 1 {
            // What the owner stored goes; the robot's own copy is its own.
            world.ok(&["delete", "of the owner", "--yes"]);
            world.ok(&["gc"]);
            assert_eq!(with_key(&world, "key", &["create", "of the owner", "source"]).code, 0);
        }
    }
    // What was made up is named, with nobody's snapshot.
    let exported = world.run(&["export", "of the robot", "--output", "bundle", "--password-file", "key"]);
    assert!(exported.code == 0 || exported.code == 2, "{exported:#?}");
    world.ok(&["verify", "--repair"]);
    for name in ["of the robot", "of the owner"] {
        check_deployed(&world, "key", name, "source");
    }
    world.ok(&["verify"]);
}

#[test]
fn t04_poison_beside_what_stands_already_costs_nothing() {
    let world = with_keys("create", &["thief", "robot"]);
    write_source(&world, "source", 80);
    assert_eq!(with_key(&world, "robot", &["create", "monday", "source"]).code, 0);
    poison(&world, "thief", "source");
    world.ok(&["gc"]);
    check_deployed(&world, "key", "monday", "source");
    world.ok(&["delete", "monday", "--yes"]);
    world.ok(&["gc"]);
    assert_eq!(with_key(&world, "robot", &["create", "tuesday", "source"]).code, 0);
    check_deployed(&world, "key", "tuesday", "source");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

/// Whoever was removed goes on in a copy that was made before, where he is an owner still, and brings what he
/// makes there.
fn removed_owner(rotations: u32) -> World {
    let world = World::new();
    world.ok(&["key", "rotate"]);
    fs::write(world.path("bert"), noise(90, 32)).unwrap();
    world.ok(&["key", "add", "--label", "bert", "--new-key-file", "bert"]);
    write_source(&world, "before", 100);
    world.create("before", "before");
    copy(&world.repository(), &world.path("copy"));
    world.ok(&["key", "remove", "bert"]);
    world.ok(&["key", "rotate", "--reseal"]);
    for _ in 0..rotations {
        let mut command = world.elsewhere(&["key", "rotate"]);
        command.env("COPAL_REPO", world.path("copy")).env("COPAL_KEY_FILE", world.path("bert"));
        let run = finish(command.output().unwrap());
        assert_eq!(run.code, 0, "{run:#?}");
    }
    world
}

/// The thief's key opens nothing of what is stored now.
fn check_shut_out(world: &World) {
    write_source(world, "after", 110);
    world.create("after", "after");
    let bert = with_key(world, "bert", &["dump", "after", "file 0"]);
    assert!(bert.code != 0 && bert.stdout.is_empty(), "{bert:#?}");
    let repository = world.path("copy");
    for folder in ["packs", "index", "snapshots", "labels"] {
        fs::remove_dir_all(repository.join(folder)).unwrap();
        copy(&world.repository().join(folder), &repository.join(folder));
    }
    let mut command = world.elsewhere(&["dump", "after", "file 0"]);
    command.env("COPAL_REPO", repository).env("COPAL_KEY_FILE", world.path("bert"));
    let bert = finish(command.output().unwrap());
    assert!(bert.code != 0 && bert.stdout.is_empty(), "with the keys of his copy: {bert:#?}");
}

#[test]
fn t03_a_removed_owner_makes_no_epoch_grant_or_slot_that_counts() {
    let world = removed_owner(3);
    let keys = world.repository().join("keys");
    let mut planted = 0;
    for entry in fs::read_dir(world.path("copy/keys")).unwrap() {
        let entry = entry.unwrap();
        let place = keys.join(entry.file_name());
        if !place.exists() {
            fs::copy(entry.path(), place).unwrap();
            planted += 1;
        }
    }
    assert!(planted >= 6, "{planted}");
    assert_ne!(with_key(&world, "bert", &["list"]).code, 0);
    let listed = world.run(&["key", "list"]);
    assert!(listed.code == 0 && listed.stderr.contains("counts for nothing"), "{listed:#?}");
    // A machine that sees the repository for the first time cannot tell which is the true one, and takes
    // neither.
    let stranger = finish(world.elsewhere_new(&["list"]).output().unwrap());
    assert!(stranger.code == 69 && stranger.stderr.contains("former owner"), "{stranger:#?}");
    let verdict = world.run(&["verify"]);
    assert!(verdict.code == 69 && says(&verdict, "roster"), "{verdict:#?}");
    world.ok(&["key", "rotate"]);
    check_shut_out(&world);
}

#[test]
fn t03_an_earlier_state_of_the_keys_is_refused_where_the_newest_was_seen() {
    let world = removed_owner(2);
    fs::rename(world.repository().join("keys"), world.path("true keys")).unwrap();
    copy(&world.path("copy/keys"), &world.repository().join("keys"));
    for arguments in [&["list"][..], &["create", "more", "before"], &["key", "rotate"], &["gc"]] {
        let run = world.run(arguments);
        assert!(run.code == 69 && run.stderr.contains("put back"), "{arguments:?}: {run:#?}");
    }
    fs::remove_dir_all(world.repository().join("keys")).unwrap();
    fs::rename(world.path("true keys"), world.repository().join("keys")).unwrap();
    check_shut_out(&world);
}

#[test]
fn t03_a_planted_slot_is_given_nothing() {
    let world = World::new();
    world.ok(&["key", "rotate"]);
    fs::write(world.path("bert"), noise(91, 32)).unwrap();
    world.ok(&["key", "add", "--label", "bert", "--new-key-file", "bert"]);
    let before = fs::read_dir(world.repository().join("keys")).unwrap().count();
    copy(&world.repository(), &world.path("copy"));
    world.ok(&["key", "remove", "bert"]);
    // His own slot again, and its grants.
    for entry in fs::read_dir(world.path("copy/keys")).unwrap() {
        let entry = entry.unwrap();
        let place = world.repository().join("keys").join(entry.file_name());
        if !place.exists() {
            fs::copy(entry.path(), place).unwrap();
        }
    }
    assert!(fs::read_dir(world.repository().join("keys")).unwrap().count() >= before);
    assert_eq!(world.json(&["key", "rotate"])["slots"], 1);
    let refused = with_key(&world, "bert", &["list"]);
    assert!(refused.code == 1 && refused.stderr.contains("removed"), "{refused:#?}");
    // It can be cleared away by its whole id.
    let slots = fs::read_dir(world.repository().join("keys")).unwrap();
    let names: Vec<String> = slots.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let current = world.json(&["key", "list"])[0]["id"].as_str().unwrap().to_owned();
    let stray = names.iter().find(|name| ObjectId::from_hex(name).is_some() && **name != current).unwrap();
    world.ok(&["key", "remove", stray]);
    assert_eq!(with_key(&world, "bert", &["list"]).code, 12);
}

/// Files that are none of ours, and slots that look like some, beside the owner's: as many as a stranger
/// likes.
#[test]
fn t03_junk_among_the_keys_locks_nobody_out() {
    let world = World::new();
    let keys = world.repository().join("keys");
    for number in 0..200u32 {
        fs::write(keys.join(format!("{number:032x}")), noise(number.into(), 300)).unwrap();
        fs::write(keys.join(format!("roster-{number:08x}")), noise(number.into(), 300)).ok();
    }
    let listed = world.run(&["list"]);
    // Its own roster was overwritten; the copy stands.
    assert_eq!(listed.code, 0, "{listed:#?}");
}
