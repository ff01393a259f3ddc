//! Goal: a disk that fills costs nothing that was there, is called by its name, and everything works again
//! once there is space. Method: small real filesystems on loop devices, filled to the last block.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use copal_sim::mounts::{Filesystem, Mounted};
use serde_json::json;
use support::{World, assert_same, look, noise, number, plant};

/// Takes every block and every byte that is left.
fn fill(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("filler");
    let mut file = File::create(&path).unwrap();
    for bytes in [1 << 20, 64 << 10, 4096, 64] {
        let block = noise(9, bytes);
        while file.write_all(&block).is_ok() {}
    }
    file.sync_all().unwrap();
    path
}

/// Gives 4096 bytes back.
fn leave_one_block(filler: &Path) {
    let file = File::options().write(true).open(filler).unwrap();
    // The last block of the filler may be begun.
    file.set_len((file.metadata().unwrap().len() - 4096) / 4096 * 4096).unwrap();
    file.sync_all().unwrap();
}

/// A repository on a small filesystem; sources and targets elsewhere.
fn on_small_disk(filesystem: Filesystem, mebibytes: u64) -> (Mounted, World) {
    let mounted = Mounted::new(filesystem, mebibytes).unwrap();
    let world = World::bare();
    fs::create_dir(mounted.path().join("repository")).unwrap();
    std::os::unix::fs::symlink(mounted.path().join("repository"), world.repository()).unwrap();
    world.ok(&["init"]);
    (mounted, world)
}

fn check_create_and_gc(filesystem: Filesystem, mebibytes: u64) {
    let (mounted, world) = on_small_disk(filesystem, mebibytes);
    let source = world.path("source");
    plant(&source);
    let tree = look(&source);
    world.create("one", "source");
    // Too much, more than one pack of it.
    let big = world.path("big");
    fs::create_dir(&big).unwrap();
    for file in 0..10 {
        fs::write(big.join(format!("{file}")), noise(100 + file, (mebibytes as usize) << 18)).unwrap();
    }
    for _ in 0..2 {
        let error = world.fails(&["create", "two", "big"], 86, "disk-full");
        assert!(error["hint"].as_str().unwrap().contains("free some space"), "{error}");
    }
    let list = world.json(&["list"]);
    assert_eq!((list.as_array().unwrap().len(), &list[0]["name"]), (1, &json!("one")), "nothing half-made is listed");
    assert_eq!(world.json(&["verify"])["ok"], json!(true));

    // What is stored can be put back, and what is not needed can be given back, with no block left.
    let filler = fill(mounted.path());
    world.ok(&["list"]);
    world.ok(&["deploy", "one", "deployed"]);
    assert_same(&tree, &look(&world.path("deployed")));
    fs::write(source.join("small.txt"), noise(3, 100_000)).unwrap();
    world.fails(&["create", "three", "source"], 86, "disk-full");
    world.fails(&["tag", "one", "a=b"], 1, "disk-full");
    let run = world.run(&["gc", "--json"]);
    assert!(run.code == 0 || (run.code == 1 && run.error()["code"] == "disk-full"), "{run:?}");
    assert_eq!(world.json(&["verify"])["ok"], json!(true));

    // Some of the space comes back: enough to collect what the failed creates had stored, and then for
    // everything.
    fs::remove_file(filler).unwrap();
    world.ok(&["gc"]);
    let report = world.create("three", "source");
    assert_eq!(report["phase"], "completed");
    fs::remove_file(big.join("0")).unwrap();
    for file in 2..10 {
        fs::remove_file(big.join(format!("{file}"))).unwrap();
    }
    world.create("two", "big");
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
    for (name, source) in [("two", "big"), ("three", "source")] {
        world.ok(&["deploy", name, "deployed", "--yes"]);
        assert_same(&look(&world.path(source)), &look(&world.path("deployed")));
    }
    world.ok(&["delete", "two", "--yes"]);
    assert!(number(&world.json(&["gc"]), "bytes_freed") > 1 << 20);
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
}

#[test]
fn c08_a_create_that_fills_the_disk_loses_nothing() {
    check_create_and_gc(Filesystem::Ext4, 48);
}

#[test]
fn c08_a_create_that_fills_memory_loses_nothing() {
    check_create_and_gc(Filesystem::Tmpfs, 32);
}

/// What is dead goes although there is no room for copies of what is not, nor for a new index of it.
fn check_gc_on_a_full_disk(filesystem: Filesystem, mebibytes: u64) {
    let (mounted, world) = on_small_disk(filesystem, mebibytes);
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    for file in 0..4 {
        fs::write(source.join(format!("{file}")), noise(file, 400_000)).unwrap();
    }
    world.create("one", "source");
    // A part of this is needed by another: its pack is worth copying, and the index of it is a new one.
    let mixed = world.path("mixed");
    fs::create_dir(&mixed).unwrap();
    for file in 0..4 {
        fs::write(mixed.join(format!("{file}")), noise(100 + file, 400_000)).unwrap();
    }
    world.create("mixed", "mixed");
    for file in 1..4 {
        fs::remove_file(mixed.join(format!("{file}"))).unwrap();
    }
    world.create("part", "mixed");
    let part = look(&mixed);
    world.ok(&["tag", "one", "a=b"]);
    world.ok(&["delete", "one", "mixed", "--yes"]);
    let filler = fill(mounted.path());
    leave_one_block(&filler);
    let run = world.run(&["gc", "--json"]);
    assert_eq!(run.code, 0, "{run:?}");
    let report = serde_json::from_slice(&run.stdout).unwrap();
    assert!(number(&report, "bytes_freed") > 1_600_000, "{report}");
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
    world.ok(&["deploy", "part", "deployed", "--yes"]);
    assert_same(&part, &look(&world.path("deployed")));
    world.ok(&["gc"]);
    fs::remove_file(filler).unwrap();
    world.ok(&["gc"]);
    assert_eq!(number(&world.json(&["gc"]), "bytes_freed"), 0);
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
}

#[test]
fn c08_a_collection_on_a_full_disk_gives_back_what_is_dead() {
    check_gc_on_a_full_disk(Filesystem::Tmpfs, 8);
    check_gc_on_a_full_disk(Filesystem::Ext4, 24);
}

/// Where not even the first word can be written, it is said how little is missing, and nothing is changed.
#[test]
fn c08_a_collection_says_how_much_room_it_needs() {
    let (mounted, world) = on_small_disk(Filesystem::Tmpfs, 8);
    fs::write(world.path("source"), noise(1, 400_000)).unwrap();
    world.create("one", "source");
    world.ok(&["delete", "one", "--yes"]);
    let filler = fill(mounted.path());
    for _ in 0..2 {
        let error = world.fails(&["gc"], 1, "disk-full");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("(4096 bytes), all that is needed to begin with the removal"), "{message}");
    }
    // That much, to the byte, is enough.
    leave_one_block(&filler);
    assert!(number(&world.json(&["gc"]), "bytes_freed") > 400_000);
}

/// Space comes back by deleting and collecting alone.
#[test]
fn c08_a_full_repository_is_emptied_by_its_own_commands() {
    let (mounted, world) = on_small_disk(Filesystem::Ext4, 64);
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    let mut taken = Vec::new();
    for round in 0.. {
        for file in 0..8 {
            fs::write(source.join(format!("{file}")), noise(round * 8 + file, 1 << 20)).unwrap();
        }
        let run = world.run(&["create", &format!("round-{round}"), "source", "--json"]);
        if run.code != 0 {
            assert_eq!((run.code, run.error()["code"].as_str()), (86, Some("disk-full")), "{run:?}");
            break;
        }
        taken.push(look(&source));
    }
    assert!(taken.len() >= 4, "{}", taken.len());
    fill(mounted.path());
    world.ok(&["delete", "round-0", "round-1", "--yes"]);
    let report = world.json(&["gc"]);
    assert!(number(&report, "bytes_freed") > 16 << 20, "{report}");
    world.create("again", "source");
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
    for (round, tree) in taken.iter().enumerate().skip(2) {
        world.ok(&["deploy", &format!("round-{round}"), "deployed", "--yes"]);
        assert_same(tree, &look(&world.path("deployed")));
    }
}

/// Bytes are few, blocks are many: no look at the free bytes can foresee it.
#[test]
fn a18_a_deploy_that_fills_the_disk_leaves_the_target_as_it_was() {
    let mounted = Mounted::new(Filesystem::Ext4, 24).unwrap();
    let world = World::new();
    let source = world.path("source");
    for folder in 0..40 {
        fs::create_dir_all(source.join(format!("{folder}"))).unwrap();
        for file in 0..300 {
            fs::write(source.join(format!("{folder}/{file}")), [file as u8; 400]).unwrap();
        }
    }
    world.create("many", "source");
    fs::remove_dir_all(&source).unwrap();
    fs::create_dir(&source).unwrap();
    fs::write(source.join("large"), noise(1, 60 << 20)).unwrap();
    world.create("large", "source");

    let target = mounted.path().join("target");
    let words = target.to_str().unwrap();
    plant(&target);
    let before = look(&target);
    for mode in ["swap", "in-place"] {
        let error = world.fails(&["deploy", "large", words, "--yes", "--mode", mode], 79, "no-space");
        assert!(error["message"].as_str().unwrap().contains("MiB"), "{error}");
        assert_same(&before, &look(&target));
        world.fails(&["deploy", "many", words, "--yes", "--mode", mode], 79, "disk-full");
        assert_same(&before, &look(&target));
        let left = fs::read_dir(mounted.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("copal")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    world.fails(&["deploy", "many", mounted.path().join("fresh").to_str().unwrap()], 79, "disk-full");
    assert!(!mounted.path().join("fresh").exists());
    // What fits still comes.
    world.ok(&["deploy", "many", words, "--yes", "--path", "7"]);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 300);
}

/// Caches and the memory of deploys save time, and nothing depends on their place.
#[test]
fn a_full_cache_or_state_folder_stops_nothing() {
    let world = World::new();
    plant(&world.path("source"));
    world.create("one", "source");
    let mounted = Mounted::new(Filesystem::Ext4, 16).unwrap();
    fill(mounted.path());
    for (number, name) in ["XDG_CACHE_HOME", "XDG_STATE_HOME"].into_iter().enumerate() {
        let snapshot = format!("snapshot-{number}");
        for words in [
            &["create", &snapshot, "source"][..],
            &["list"],
            &["deploy", "one", "deployed", "--yes"],
            &["deploy", &snapshot, "deployed", "--yes", "--mode", "in-place"],
            &["gc"],
            &["verify"],
        ] {
            let mut command = world.command(words);
            let run = support::finish(command.env(name, mounted.path().join("below")).output().unwrap());
            assert_eq!(run.code, 0, "{name} {words:?}: {run:?}");
        }
        assert_same(&look(&world.path("source")), &look(&world.path("deployed")));
    }
}

#[test]
fn t07_a_rotation_on_a_full_disk_says_which_keys_are_in_force() {
    let (mounted, world) = on_small_disk(Filesystem::Tmpfs, 4);
    plant(&world.path("source"));
    world.create("one", "source");
    let filler = fill(mounted.path());
    let error = world.fails(&["key", "rotate"], 1, "disk-full");
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("the keys were not rotated, and those in use stay in force: writing keys/"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("free some space"), "{error}");
    world.ok(&["list"]);
    fs::remove_file(filler).unwrap();
    assert_eq!(world.json(&["key", "rotate"])["epoch"], json!(1));
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
}
