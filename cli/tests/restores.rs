//! Goal: a restore writes what is missing or differs and removes nothing unless asked (row D5). Method: the
//! built program on trees in which much stands that the snapshot lacks; every path is compared before and
//! after.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::json;
use support::guarded::{read, write};
use support::terminal::at_terminal;
use support::{World, assert_same, look, plant};

#[test]
fn d05_a_restore_removes_nothing_unless_asked() {
    let world = World::new();
    plant(&world.path("s"));
    world.ok(&["create", "mon", "s"]);
    let source = look(&world.path("s"));
    let copied = std::process::Command::new("cp").args(["-a", "s", "t"]).current_dir(world.path("")).status().unwrap();
    assert!(copied.success());
    fs::remove_dir_all(world.path("t/folder/deeper")).unwrap();
    write(&world, &[("t/small.txt", "another"), ("t/mine", "stays"), ("t/folder/mine/too", "stays")]);
    fs::set_permissions(world.path("t/folder/program"), fs::Permissions::from_mode(0o600)).unwrap();
    let before = look(&world.path("t"));
    let rehearsal = world.json(&["restore", "mon", "t", "--dry-run"]);
    assert_eq!(rehearsal["changes"]["removed"], json!([]));
    assert_eq!(rehearsal["changes"]["replaced"], json!([{ "path": "small.txt" }]));
    assert_same(&before, &look(&world.path("t")));
    let report = world.json(&["restore", "mon", "t"]);
    assert_eq!((&report["mode"], &report["dry_run"]), (&json!("in-place"), &json!(false)));
    let mut found = look(&world.path("t"));
    for mine in ["mine", "folder/mine", "folder/mine/too"] {
        let mine = Path::new(mine);
        assert_eq!(before.get(mine), found.remove(mine).as_ref(), "{}", mine.display());
    }
    assert_same(&source, &found);
    // With the flag it is as exact as a deploy; nobody is there to be asked.
    world.fails(&["restore", "mon", "t", "--delete"], 2, "usage");
    assert_eq!(read(&world, "t/mine"), "stays");
    world.ok(&["restore", "mon", "t", "--delete", "--yes"]);
    assert_same(&source, &look(&world.path("t")));
    // To where nothing is, it is all of it.
    world.ok(&["restore", "mon", "new/place"]);
    assert_same(&source, &look(&world.path("new/place")));
}

#[test]
fn d05_patterns_choose_what_is_restored_and_what_is_removed() {
    let world = World::new();
    write(
        &world,
        &[("s/a/x.txt", "1"), ("s/a/y.log", "1"), ("s/b/deep/z.txt", "1"), ("s/b/deep/w.log", "1"), ("s/top.txt", "1")],
    );
    fs::set_permissions(world.path("s/b"), fs::Permissions::from_mode(0o710)).unwrap();
    fs::create_dir(world.path("s/empty")).unwrap();
    fs::hard_link(world.path("s/a/y.log"), world.path("s/b/same.txt")).unwrap();
    world.ok(&["create", "mon", "s"]);
    let files = |root: &str| -> Vec<String> {
        let paths = look(&world.path(root)).into_keys().filter(|path| !path.as_os_str().is_empty());
        paths.map(|path| path.to_str().unwrap().to_owned()).collect()
    };
    world.ok(&["restore", "mon", "t", "--include", "*.txt"]);
    assert_eq!(files("t"), ["a", "a/x.txt", "b", "b/deep", "b/deep/z.txt", "b/same.txt", "top.txt"]);
    assert_eq!(fs::metadata(world.path("t/b")).unwrap().mode() & 0o777, 0o710);
    assert_eq!(read(&world, "t/b/same.txt"), "1");
    world.ok(&["restore", "mon", "u", "--include", "/b", "--exclude", "*.log"]);
    assert_eq!(files("u"), ["b", "b/deep", "b/deep/z.txt", "b/same.txt"]);
    world.ok(&["restore", "mon", "v", "--exclude", "/b/", "--exclude", "empty"]);
    assert_eq!(files("v"), ["a", "a/x.txt", "a/y.log", "top.txt"]);
    // From a part, patterns count from the source's root as well.
    world.ok(&["restore", "mon", "w", "--path", "b", "--exclude", "/b/deep"]);
    assert_eq!(files("w"), ["same.txt"]);
    // What is not chosen is neither written nor removed; folders that only lead there are left as they are.
    write(
        &world,
        &[
            ("t/a/x.txt", "mine"),
            ("t/a/y.log", "mine"),
            ("t/a/more.txt", "goes"),
            ("t/q/more.txt", "goes"),
            ("t/q/r", "mine"),
        ],
    );
    fs::set_permissions(world.path("t/b"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(world.path("t/b/deep/z.txt")).unwrap();
    world.ok(&["restore", "mon", "t", "--include", "*.txt", "--delete", "--yes"]);
    assert_eq!(
        (read(&world, "t/a/x.txt"), read(&world, "t/a/y.log"), read(&world, "t/q/r")),
        ("1".into(), "mine".into(), "mine".into())
    );
    assert_eq!(read(&world, "t/b/deep/z.txt"), "1");
    assert_eq!(fs::metadata(world.path("t/b")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(
        files("t"),
        ["a", "a/x.txt", "a/y.log", "b", "b/deep", "b/deep/z.txt", "b/same.txt", "q", "q/r", "top.txt"]
    );
    world.fails(&["restore", "mon", "t", "--include", "nothing"], 2, "usage");
    world.fails(&["restore", "mon", "t/top.txt", "--path", "top.txt", "--include", "*"], 2, "usage");
    world.fails(&["restore", "mon", "t", "--include", "/"], 2, "bad-pattern");
}

#[test]
fn d05_sources_with_labels_and_single_files_are_restored() {
    let world = World::new();
    write(&world, &[("a/f", "1"), ("a/g.log", "1"), ("b/f", "1"), ("one", "single")]);
    world.ok(&["create", "mon", "a=a", "b=b"]);
    world.ok(&["create", "single", "one"]);
    write(&world, &[("t/a/mine", "stays"), ("t/mine", "stays"), ("t/a/f", "other")]);
    world.ok(&["restore", "mon", "t", "--exclude", "*.log"]);
    assert_eq!(
        (read(&world, "t/a/f"), read(&world, "t/b/f"), read(&world, "t/mine")),
        ("1".into(), "1".into(), "stays".into())
    );
    assert!(!world.path("t/a/g.log").exists() && world.path("t/a/mine").exists());
    fs::write(world.path("one"), "changed").unwrap();
    world.ok(&["restore", "single", "one"]);
    assert_eq!(read(&world, "one"), "single");
    fs::create_dir(world.path("empty")).unwrap();
    world.ok(&["restore", "mon", "empty", "--path", "a/f"]);
    assert_eq!(read(&world, "empty/f"), "1");
    world.fails(&["restore", "mon", "t", "--path", "a/f"], 79, "unfit-target");
}

#[test]
fn d05_what_would_have_to_go_is_refused_before_anything_is_touched() {
    let world = World::new();
    write(&world, &[("s/x", "a file"), ("s/y/z", "in a folder"), ("s/w", "1")]);
    world.ok(&["create", "mon", "s"]);
    write(&world, &[("t/x/mine", "stays"), ("t/y", "mine"), ("t/w", "2")]);
    let before = look(&world.path("t"));
    let error = world.fails(&["restore", "mon", "t"], 79, "unfit-target");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("x is") && message.contains("y is") && message.contains("--delete"), "{message}");
    assert_same(&before, &look(&world.path("t")));
    world.ok(&["restore", "mon", "t", "--include", "w"]);
    assert_eq!((read(&world, "t/w"), read(&world, "t/x/mine")), ("1".into(), "stays".into()));
    world.ok(&["restore", "mon", "t", "--delete", "--yes"]);
    assert_eq!((read(&world, "t/x"), read(&world, "t/y/z")), ("a file".into(), "in a folder".into()));
}

#[test]
fn d05_a_restore_leaves_alone_what_copal_lives_by() {
    let world = World::bare();
    write(&world, &[("h/docs/f", "old"), ("h/plain", "old")]);
    let flags = ["--repo", &world.text("h/backup")].map(str::to_owned);
    let with =
        |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).chain(flags.clone()).collect() };
    let ok = |words: &[&str]| world.ok(&with(words).iter().map(String::as_str).collect::<Vec<_>>());
    ok(&["init"]);
    ok(&["create", "mon", "h"]);
    write(&world, &[("h/docs/f", "new"), ("h/mine", "stays")]);
    ok(&["restore", "mon", "h"]);
    assert_eq!((read(&world, "h/docs/f"), read(&world, "h/mine")), ("old".into(), "stays".into()));
    ok(&["verify"]);
    let fails = |words: &[&str], exit: i32, code: &str| {
        world.fails(&with(words).iter().map(String::as_str).collect::<Vec<_>>(), exit, code)
    };
    fails(&["restore", "mon", "h", "--delete", "--yes"], 79, "own-place");
    fails(&["restore", "mon", "h/backup"], 79, "own-place");
    fails(&["restore", "mon", "h/backup/packs"], 79, "own-place");
    // A snapshot that has something there does not write over it.
    write(&world, &[("other/backup/config", "rubbish"), ("other/docs/f", "other")]);
    ok(&["create", "tue", "other"]);
    let error = fails(&["restore", "tue", "h"], 79, "unfit-target");
    assert!(error["message"].as_str().unwrap().contains("backup"), "{error}");
    assert_eq!(read(&world, "h/docs/f"), "old");
    ok(&["verify"]);
}

#[test]
fn d05_at_a_terminal_what_would_be_replaced_is_asked_for() {
    let world = World::new();
    write(&world, &[("s/f", "old"), ("s/g", "old")]);
    world.ok(&["create", "mon", "s"]);
    write(&world, &[("s/f", "newer")]);
    let asked = at_terminal(&world, "copal restore mon s", &[], &[("[y/N]", "n")]);
    let shown = String::from_utf8_lossy(&asked.stdout);
    assert!(shown.contains("replaced: 1 path") && shown.contains("  f"), "{shown}");
    assert_eq!(read(&world, "s/f"), "newer");
    at_terminal(&world, "copal restore mon s", &[], &[("[y/N]", "y")]);
    assert_eq!(read(&world, "s/f"), "old");
    // Nothing would be lost: nobody is asked.
    fs::remove_file(world.path("s/g")).unwrap();
    let run = at_terminal(&world, "copal restore mon s", &[], &[]);
    assert_eq!((run.code, read(&world, "s/g")), (0, "old".into()));
}
