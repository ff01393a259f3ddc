//! Goal: the parameters of a repository are those of its owners, whoever seals a configuration: its key is
//! everybody's. Method: holders of keys in each role, and one whose key was removed, put configurations of
//! their own in the place of both; repositories of before the owners signed it go on.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use copal_store::config::{CutRule, Parameters};
use copal_store::fuzzing::seal_config;
use serde_json::json;
use support::forge::{add_key, hold, ok_with, with_roles, write_source};
use support::{World, files_below, flip};

const BOTH: [&str; 2] = ["config", "config-copy"];

/// Chunks of 64 to 256 bytes: a create of a megabyte makes tens of thousands.
fn tiny() -> Parameters {
    Parameters { chunk_bytes_min: 64, chunk_bytes_average: 256, chunk_bytes_max: 256, ..Parameters::default() }
}

fn put(world: &World, names: &[&str], bytes: &[u8]) {
    for name in names {
        let path = world.repository().join(name);
        fs::remove_file(&path).ok();
        fs::write(path, bytes).unwrap();
    }
}

fn parameters(world: &World) -> Parameters {
    hold(world, "key").config().parameters.clone()
}

/// Named by `verify`, passed over by everything else, and written back by an owner's repair.
#[track_caller]
fn check_passed_over(world: &World, names: &[&str], what: &str) {
    let sound = world.path("sound config");
    world.ok(&["list"]);
    world.ok(&["create", "taken later", "source"]);
    assert_ne!(parameters(world), tiny(), "{what}");
    assert_eq!(parameters(world).parity_percent, 0, "{what}");
    assert_eq!(parameters(world).cut_rule, CutRule::AesWindow, "{what}");
    let named = world.run(&["verify", "--json"]);
    assert_eq!(named.code, 69, "{what}: {named:#?}");
    let report: serde_json::Value = serde_json::from_slice(&named.stdout).unwrap();
    let found: Vec<&str> = report["damaged"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(found, names, "{what}");
    world.ok(&["verify", "--repair"]);
    world.ok(&["verify"]);
    for name in BOTH {
        assert_eq!(fs::read(world.repository().join(name)).unwrap(), fs::read(&sound).unwrap(), "{what}: {name}");
    }
    world.ok(&["delete", "taken later", "--yes"]);
}

fn with_thieves() -> World {
    let world = with_roles(&["create", "read", "maintain", "full"]);
    write_source(&world, "source", 1);
    fs::copy(world.repository().join("config"), world.path("sound config")).unwrap();
    world
}

#[test]
fn t02_a_configuration_that_another_key_seals_changes_nothing() {
    let world = with_thieves();
    for role in ["create", "read", "maintain", "full"] {
        let thief = hold(&world, role);
        if role == "full" {
            world.ok(&["key", "remove", "full"]);
        }
        let forged = seal_config(&thief, &tiny(), &[]).unwrap();
        for names in [&BOTH[..], &BOTH[..1], &BOTH[1..]] {
            put(&world, names, &forged);
            check_passed_over(&world, names, role);
        }
    }
    // Other keys go on as well.
    let forged = seal_config(&hold(&world, "create"), &tiny(), &[]).unwrap();
    put(&world, &BOTH, &forged);
    ok_with(&world, "create", &["create", "by create", "source"]);
    ok_with(&world, "read", &["list"]);
    ok_with(&world, "maintain", &["gc"]);
    world.ok(&["key", "rotate"]);
    ok_with(&world, "create", &["create", "more by create", "source"]);
}

#[test]
fn t02_parity_and_features_are_the_owners_too() {
    let world = with_thieves();
    let thief = hold(&world, "create");
    for forged in [
        seal_config(&thief, &Parameters { parity_percent: 100, ..Parameters::default() }, &[]),
        seal_config(&thief, &Parameters { chunk_bytes_average: 64, chunk_bytes_min: 64, ..tiny() }, &[]),
        seal_config(&thief, &Parameters { cut_rule: CutRule::FastCdc2020, ..Parameters::default() }, &[]),
        // As a newer program would write it.
        seal_config(&thief, &Parameters::default(), &["telepathy"]),
    ] {
        let forged = forged.unwrap();
        put(&world, &BOTH, &forged);
        check_passed_over(&world, &BOTH, "forged");
    }
    // Nobody could say what it is: both have one flipped bit, or end too early.
    for name in BOTH {
        flip(&world.repository().join(name), 100, 3);
    }
    check_passed_over(&world, &BOTH, "flipped");
    let sound = fs::read(world.path("sound config")).unwrap();
    put(&world, &BOTH, &sound[..90]);
    check_passed_over(&world, &BOTH, "cut off");
    // Without the repository's id nothing opens.
    put(&world, &BOTH, &sound[..20]);
    let run = world.run(&["list"]);
    assert_eq!(run.code, 69, "{run:#?}");
}

#[test]
fn t02_a_configuration_that_is_no_file_is_read_from_its_copy() {
    for name in BOTH {
        for planted in ["folder", "socket", "loop", "nothing", "empty"] {
            let world = World::new();
            write_source(&world, "source", 1);
            let path = world.repository().join(name);
            fs::remove_file(&path).unwrap();
            match planted {
                "folder" => fs::create_dir(&path).unwrap(),
                "socket" => drop(UnixListener::bind(&path).unwrap()),
                "loop" => symlink(Path::new(name), &path).unwrap(),
                "empty" => fs::write(&path, "").unwrap(),
                _ => {}
            }
            world.ok(&["list"]);
            world.ok(&["create", "monday", "source"]);
            let run = world.run(&["verify"]);
            let is_sound = planted == "nothing" && name == "config-copy";
            assert_eq!(run.code, if is_sound { 0 } else { 69 }, "{name} {planted}: {run:#?}");
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(is_sound || said.contains(name), "{name} {planted}: {run:#?}");
            world.ok(&["verify", "--repair"]);
            world.ok(&["verify"]);
            assert!(path.is_file(), "{name} {planted}");
        }
    }
}

/// A golden repository whose owners have not signed its configuration yet.
fn unsigned() -> World {
    let world = World::bare();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/repositories");
    for folder in ["condemned", "index", "keys", "labels", "leases", "packs", "sessions", "snapshots", "tmp"] {
        fs::create_dir_all(world.repository().join(folder)).unwrap();
    }
    for file in files_below(&from.join("v3-rotated")) {
        let to = world.repository().join(file.strip_prefix(from.join("v3-rotated")).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
    fs::copy(from.join("v1-plain.key"), world.path("key")).unwrap();
    write_source(&world, "source", 1);
    fs::copy(world.repository().join("config"), world.path("sound config")).unwrap();
    world
}

#[test]
fn t02_the_next_change_of_keys_signs_the_configuration_of_an_older_repository() {
    for change in [&["key", "rotate"][..], &["key", "add", "--label", "new", "--new-key-file", "new"]] {
        let world = unsigned();
        fs::write(world.path("new"), support::noise(9, 32)).unwrap();
        world.ok(&["verify"]);
        // Until then it counts as it stands.
        put(&world, &BOTH, &seal_config(&hold(&world, "key"), &tiny(), &[]).unwrap());
        assert_eq!(parameters(&world), tiny());
        put(&world, &BOTH, &fs::read(world.path("sound config")).unwrap());
        world.ok(change);
        add_key(&world, "thief", "read");
        put(&world, &BOTH, &seal_config(&hold(&world, "thief"), &tiny(), &[]).unwrap());
        check_passed_over(&world, &BOTH, "after a change of keys");
    }
}

#[test]
fn t02_a_repository_of_the_first_format_gets_its_signed_configuration_with_its_keys() {
    let world = World::of_the_first_format();
    write_source(&world, "source", 1);
    world.create("monday", "source");
    fs::copy(world.repository().join("config"), world.path("sound config")).unwrap();
    world.ok(&["key", "rotate"]);
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
    put(&world, &BOTH, &seal_config(&hold(&world, "key"), &tiny(), &[]).unwrap());
    check_passed_over(&world, &BOTH, "of the first format");
}
