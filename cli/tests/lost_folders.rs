//! Goal: a repository whose empty folders were not kept (by git, an object store, an archiver) is one.
//! Method: copies without them, also on a filesystem mounted read-only; each command of the program.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::{World, assert_same, look, noise, plant};

/// Removes each empty folder of the repository; returns how many.
fn lose_folders(repository: &Path) -> usize {
    let mut lost = 0;
    for entry in fs::read_dir(repository).unwrap() {
        let path = entry.unwrap().path();
        lost += usize::from(path.is_dir() && fs::remove_dir(path).is_ok());
    }
    lost
}

fn world() -> World {
    let world = World::new();
    plant(&world.path("s"));
    world.create("one", "s");
    fs::write(world.path("s/more"), noise(5, 300_000)).unwrap();
    world.create("two", "s");
    world
}

#[track_caller]
fn check(words: &[&str]) {
    let world = world();
    for round in 0..2 {
        assert!(lose_folders(&world.repository()) >= 4 || round > 0);
        let run = world.run(words);
        assert_eq!(run.code, 0, "{words:?}: {run:?}");
    }
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
}

#[test]
fn d03_what_writes_makes_lost_folders_again() {
    check(&["create", "--tag", "a=b", "s"]);
    check(&["tag", "one", "a=b"]);
    check(&["pin", "one"]);
    check(&["forget", "--keep-last", "1"]);
    check(&["gc"]);
    check(&["verify", "--repair"]);
    check(&["deploy", "one", "t", "--yes"]);
    check(&["export", "one", "one.copal", "--format", "hub-tar", "--help"]);
    check(&["key", "list"]);
    check(&["stats"]);
    let world = world();
    lose_folders(&world.repository());
    world.ok(&["delete", "one", "--yes"]);
    lose_folders(&world.repository());
    world.ok(&["gc"]);
    lose_folders(&world.repository());
    world.ok(&["delete", "two", "--yes"]);
    world.ok(&["gc"]);
    // Now the folders of packs, roots and index are empty too.
    assert!(lose_folders(&world.repository()) >= 6);
    assert_eq!(world.json(&["list"]), json!([]));
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
    lose_folders(&world.repository());
    world.create("three", "s");
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
}

#[test]
fn d03_what_reads_works_without_them_on_a_medium_that_cannot_be_written() {
    let world = world();
    let wanted = look(&world.path("s"));
    world.ok(&["init", "--repo", "other"]);
    lose_folders(&world.repository());
    let repository = world.text("repository");
    let mount =
        |words: &[&str]| assert!(Command::new("mount").args(words).arg(&repository).status().unwrap().success());
    mount(&["--bind", &repository]);
    mount(&["-o", "remount,ro,bind"]);
    fs::write(world.path("password"), "of the bundle").unwrap();
    let all = [
        &["list"][..],
        &["show", "two"],
        &["ls", "two"],
        &["stats"],
        &["find", "more"],
        &["diff", "one", "two"],
        &["dump", "two", "more"],
        &["dump", "two", "/", "--tar"],
        &["verify"],
        &["verify", "--quick"],
        &["key", "list"],
        &["deploy", "two", "t", "--yes"],
        &["restore", "two", "r"],
        &["gc", "--dry-run"],
        &["forget", "--keep-last", "1", "--dry-run"],
        &["create", "three", "s", "--dry-run"],
        &["export", "two", "two.copal", "--bundle-password-file", "password"],
        &["copy", "two", "--to", "other", "--to-key-file", "key"],
    ];
    let runs: Vec<_> = all.iter().map(|words| (words, world.run(words))).collect();
    let refused = world.run(&["create", "three", "s", "--json"]);
    assert!(Command::new("umount").arg(&repository).status().unwrap().success());
    for (words, run) in runs {
        assert_eq!(run.code, 0, "{words:?}: {run:?}");
    }
    assert_same(&wanted, &look(&world.path("t")));
    assert_eq!(refused.error()["code"], "read-only", "{refused:?}");
    world.create("three", "s");
}

/// What is no repository does not become one.
#[test]
fn d03_a_place_without_a_configuration_is_no_repository() {
    let world = world();
    for entry in fs::read_dir(world.repository()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::rename(&path, world.path("").join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::remove_dir(world.path("repository/tmp")).unwrap();
    world.fails(&["create", "three", "s"], 10, "no-repository");
    assert!(!world.path("repository/tmp").exists());
}
