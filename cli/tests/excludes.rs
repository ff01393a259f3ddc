//! Goal: what is left out of a snapshot is what was meant (row D16): patterns are git's, whole paths name
//! what they name, and a pattern that does nothing is told. Method: the built program on real trees; what git
//! says to thousands of patterns is in `source/tests/gitignore.rs`.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use serde_json::json;
use support::World;
use support::guarded::{read, write};

/// The files that a create keeps of the source `s`.
#[track_caller]
fn check(world: &World, arguments: &[&str], kept: &[&str]) {
    let name = format!("n{}", world.json(&["list"]).as_array().unwrap().len());
    world.ok(&[&["create", &name][..], arguments].concat());
    let listed = world.json(&["ls", &name, "-R"]);
    let files = listed.as_array().unwrap().iter().filter(|entry| entry["kind"] != "folder");
    let files: Vec<&str> = files.map(|entry| entry["path"].as_str().unwrap()).collect();
    assert_eq!(files, kept, "{arguments:?}");
}

#[test]
fn d16_patterns_are_git_s() {
    let world = World::new();
    write(&world, &[("s/a", ""), ("s/{a}", ""), ("s/1", ""), ("s/x.log", ""), ("s/trail ", ""), ("s/d/trail", "")]);
    check(&world, &["s", "--exclude", "{a}"], &["1", "a", "d/trail", "trail ", "x.log"]);
    check(&world, &["s", "--exclude", "[[:alpha:]]"], &["1", "trail ", "x.log", "{a}"]);
    check(&world, &["s", "--exclude", r"trail\ "], &["1", "a", "d/trail", "x.log", "{a}"]);
    check(&world, &["s", "--exclude", "trail "], &["1", "a", "trail ", "x.log", "{a}"]);
    fs::write(world.path("rules"), "\u{feff}*.log\r\n# a comment\n\n  \n/d/\r\n!nothing\n").unwrap();
    check(&world, &["s", "--exclude-file", "rules"], &["1", "a", "trail ", "{a}"]);
    // What names nothing is a mistake, and is told as one.
    for bad in ["", "/", "#a"] {
        world.fails(&["create", "bad", "s", "--exclude", bad], 2, "bad-pattern");
    }
}

#[test]
fn d16_a_path_below_the_source_excludes_it() {
    let world = World::new();
    write(
        &world,
        &[("s/cache/a", ""), ("s/keep/cache/b", ""), ("s/x", ""), ("other/cache/c", ""), ("other/s/cache/d", "")],
    );
    let whole = world.text("s/cache");
    let kept = ["keep/cache/b", "x"];
    for pattern in [whole.as_str(), "s/cache", "s/cache/"] {
        check(&world, &["s", "--exclude", pattern], &kept);
    }
    check(&world, &["./s/", "--exclude", "./s/cache"], &kept);
    std::os::unix::fs::symlink(world.path("s"), world.path("link")).unwrap();
    check(&world, &["link", "--exclude", &whole], &kept);
    check(&world, &["s", "--exclude", "*", "--exclude", &format!("!{}", world.text("s/x"))], &["x"]);
    // A source that has a folder of its own name: the pattern is read from its root, as git does.
    write(&world, &[("s/s/cache/e", "")]);
    check(&world, &["s", "--exclude", "s/cache"], &["cache/a", "keep/cache/b", "x"]);
    // A deploy leaves in peace what was excluded so.
    world.ok(&["create", "mon", "other", "--exclude", &world.text("other/cache")]);
    write(&world, &[("other/cache/c", "newer"), ("other/more", "goes")]);
    world.ok(&["deploy", "mon", "other", "--yes"]);
    assert_eq!(read(&world, "other/cache/c"), "newer");
    assert!(!world.path("other/more").exists());
}

#[test]
fn d16_a_pattern_that_left_nothing_out_is_told_once() {
    let world = World::new();
    write(&world, &[("a/x.log", ""), ("b/y.tmp", "")]);
    let words = [
        "create",
        "mon",
        "a",
        "b",
        "--exclude",
        "*.log",
        "--exclude",
        "*.tmp",
        "--exclude",
        "*.obj",
        "--exclude",
        "!z",
    ];
    let run = world.run(&words);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.stderr.matches("nothing was left out by *.obj").count(), 1, "{run:?}");
    assert!(!run.stderr.contains("*.log") && !run.stderr.contains("!z"), "{run:?}");
    let created = world.json(&["create", "tue", "a", "--exclude", "/gone/", "--exclude", &world.text("b/y.tmp")]);
    assert_eq!(created["unmatched"], json!(["/gone/", world.text("b/y.tmp")]));
    let created = world.json(&["create", "wed", "a", "--exclude", "*.log"]);
    assert_eq!(created["unmatched"], json!([]));
}
