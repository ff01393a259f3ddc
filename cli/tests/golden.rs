//! Goal: every repository of `testdata/repositories/` is read by this version, to the byte, and reading
//! alters nothing in it. Method: the built program on copies; what it deploys is compared with lists that
//! were made from the sources when the repositories were.
#![allow(clippy::unwrap_used)]

mod golden_look;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use golden_look::look;
use serde_json::{Value, json};
use support::{World, files_below};

const PASSWORD: &str = "golden";
/// What git does not keep when it is empty.
const FOLDERS: &[&str] = &["condemned", "index", "keys", "labels", "leases", "packs", "sessions", "snapshots", "tmp"];

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/repositories")
}

/// A world whose repository is a copy of a golden one.
fn copy_of(name: &str) -> World {
    let world = World::bare();
    let from = testdata().join(name);
    for folder in FOLDERS {
        fs::create_dir_all(world.repository().join(folder)).unwrap();
    }
    for file in files_below(&from) {
        let to = world.repository().join(file.strip_prefix(&from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
    fs::copy(testdata().join("v1-plain.key"), world.path("key")).unwrap();
    world
}

fn objects(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_below(folder).into_iter();
    files.map(|path| (path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

/// Only root can make a device.
fn without_devices(lines: &str) -> String {
    lines.lines().filter(|line| !line.contains(" device ")).map(|line| format!("{line}\n")).collect()
}

#[track_caller]
fn check_deployed(golden: &str, expectation: &str, target: &Path) {
    let expected = testdata().join(format!("{golden}.expected")).join(format!("{expectation}.txt"));
    let (mut wanted, mut found) = (fs::read_to_string(&expected).unwrap(), look(target));
    if !rustix::process::geteuid().is_root() {
        (wanted, found) = (without_devices(&wanted), without_devices(&found));
    }
    for (wanted, found) in wanted.lines().zip(found.lines()) {
        assert_eq!(wanted, found, "{golden}, {expectation}");
    }
    assert_eq!(wanted.lines().count(), found.lines().count(), "{golden}, {expectation}");
    assert!(wanted.lines().count() >= 1);
}

fn names(world: &World) -> Vec<String> {
    let listed = world.json(&["list"]);
    listed.as_array().unwrap().iter().map(|snapshot| snapshot["name"].as_str().unwrap().to_owned()).collect()
}

/// Deploys the snapshots one over the other, each way a target can be: absent, another snapshot's.
fn check_history(world: &World) {
    check_history_of(world, "v1-history");
}

fn check_history_of(world: &World, golden: &str) {
    for name in ["one", "two", "three", "one"] {
        world.ok(&["deploy", &format!("shop/{name}"), "target", "--yes"]);
        check_deployed(golden, &format!("{name}.db"), &world.path("target/db"));
        check_deployed(golden, &format!("{name}.files"), &world.path("target/files"));
    }
}

#[test]
fn the_plain_one_opens_by_password_and_by_key_file() {
    let world = copy_of("v1-plain");
    assert_eq!(names(&world), ["first"]);
    let mut by_password = world.command(&["list", "--json"]);
    let run =
        support::finish(by_password.env_remove("COPAL_KEY_FILE").env("COPAL_PASSWORD", PASSWORD).output().unwrap());
    assert_eq!(run.code, 0, "{run:#?}");
    let listed: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(listed[0]["tags"], json!({"season": "winter"}));
    let mut wrong = world.command(&["list"]);
    let run = support::finish(wrong.env_remove("COPAL_KEY_FILE").env("COPAL_PASSWORD", "other").output().unwrap());
    assert_eq!(run.code, 12, "{run:#?}");
}

#[test]
fn the_plain_one_deploys_as_it_was() {
    let world = copy_of("v1-plain");
    assert_eq!(world.json(&["verify"])["ok"], true);
    world.ok(&["deploy", "first", "target"]);
    check_deployed("v1-plain", "first", &world.path("target"));
}

#[test]
fn the_history_deploys_as_it_was() {
    let world = copy_of("v1-history");
    assert_eq!(names(&world), ["one", "two", "three"]);
    let verified = world.json(&["verify"]);
    assert_eq!((&verified["ok"], &verified["snapshots"]), (&json!(true), &json!(3)));
    check_history(&world);
}

#[test]
fn the_history_keeps_its_labels_and_its_differences() {
    let world = copy_of("v1-history");
    let listed = world.json(&["list"]);
    let labels = |at: usize| (listed[at]["pinned"].clone(), listed[at]["tags"].clone());
    assert_eq!(labels(0), (json!(true), json!({"reason": "before the upgrade"})));
    assert_eq!(labels(1), (json!(false), json!({"b": "2"})));
    assert_eq!(labels(2), (json!(false), json!({})));
    let diff = world.json(&["diff", "shop/one", "shop/two"]);
    let paths = |of: &str| -> Vec<String> {
        let list = diff[of].as_array().unwrap();
        list.iter().map(|item| item["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(paths("added"), ["files/comes"]);
    assert_eq!(paths("removed"), ["files/goes"]);
    assert_eq!(paths("changed"), ["db/database"]);
    world.fails(&["delete", "shop/one", "--yes"], 1, "pinned");
}

#[test]
fn the_rotated_one_deploys_from_both_epochs() {
    let world = copy_of("v2-rotated");
    assert_eq!(names(&world), ["before", "after"]);
    assert_eq!(world.json(&["verify"])["ok"], true);
    for name in ["before", "after", "before"] {
        world.ok(&["deploy", name, "target", "--yes"]);
        check_deployed("v2-rotated", name, &world.path("target"));
    }
    let versions: std::collections::BTreeSet<u8> =
        objects(&world.repository()).values().map(|bytes| bytes[7]).collect();
    assert_eq!(versions, [1, 2].into(), "objects of both versions");
}

#[test]
fn the_signed_ones_deploy_and_say_whose_they_are() {
    let world = copy_of("v3-rotated");
    assert_eq!(world.json(&["verify"])["ok"], true);
    for name in ["before", "after", "before"] {
        world.ok(&["deploy", name, "target", "--yes"]);
        check_deployed("v3-rotated", name, &world.path("target"));
        let key = world.json(&["show", name])["key"].clone();
        assert_eq!((&key["label"], &key["role"]), (&json!("owner"), &json!("full")));
    }
    assert_eq!(world.json(&["show", "after"])["pinned"], true);
    let keys = world.json(&["key", "list"]);
    let labels: Vec<_> = keys.as_array().unwrap().iter().map(|key| key["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["owner", "reader"]);
    let versions: std::collections::BTreeSet<u8> =
        objects(&world.repository()).values().map(|bytes| bytes[7]).collect();
    assert_eq!(versions, [1, 2, 3].into(), "packs of both kinds, and what is signed");
    let world = copy_of("v3-plain");
    world.ok(&["deploy", "first", "target"]);
    check_deployed("v3-plain", "first", &world.path("target"));
    let world = copy_of("v3-history");
    assert_eq!(names(&world), ["one", "two", "three"]);
    check_history_of(&world, "v3-history");
}

#[test]
fn one_whose_configuration_is_signed_needs_neither_of_its_copies_whole() {
    let world = copy_of("v3-config");
    assert_eq!(world.json(&["verify"])["ok"], true);
    for name in ["before", "after", "before"] {
        world.ok(&["deploy", name, "target", "--yes"]);
        check_deployed("v3-config", name, &world.path("target"));
    }
    let sound = objects(&world.repository());
    for name in ["config", "config-copy"] {
        support::flip(&world.repository().join(name), 100, 0);
    }
    world.ok(&["deploy", "after", "target", "--yes"]);
    world.ok(&["verify", "--repair"]);
    for name in ["config", "config-copy"] {
        assert_eq!(fs::read(world.repository().join(name)).unwrap(), sound[Path::new(name)]);
    }
}

#[test]
fn roots_of_each_version_are_read() {
    let world = copy_of("v3-roots");
    assert_eq!(names(&world), ["one", "four", "five"]);
    assert_eq!(world.json(&["verify"])["ok"], true);
    for (name, user) in [("one", ""), ("four", ""), ("five", "alice")] {
        assert_eq!(world.json(&["show", name])["user"], user);
        world.ok(&["deploy", name, "target", "--yes"]);
        check_deployed("v3-roots", name, &world.path("target"));
    }
    fs::write(world.path("target/cache/here"), "stays: the patterns say so\n").unwrap();
    for name in ["four", "five"] {
        world.ok(&["deploy", name, "target", "--yes"]);
        assert!(world.path("target/cache/here").is_file());
    }
    world.ok(&["deploy", "one", "target", "--yes"]);
    assert!(!world.path("target/cache/here").exists());
}

#[test]
fn rules_of_what_is_left_out_by_content_and_by_lists_are_read() {
    let world = copy_of("v3-left-out");
    assert_eq!(names(&world), ["content", "list"]);
    assert_eq!(world.json(&["verify"])["ok"], true);
    let write = |path: &str, content: &str| {
        fs::create_dir_all(world.path(path).parent().unwrap()).unwrap();
        fs::write(world.path(path), content).unwrap();
    };
    let check = |name: &str, stays: &[&str], goes: &[&str]| {
        let _ = fs::remove_dir_all(world.path("target"));
        for path in stays.iter().chain(goes) {
            write(&format!("target/{path}"), &"x".repeat(if *path == "large" { 5000 } else { 5 }));
        }
        write("target/new cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
        world.ok(&["deploy", name, "target", "--yes"]);
        assert_eq!(fs::read_to_string(world.path("target/file")).unwrap(), "kept\n");
        stays.iter().for_each(|path| assert!(world.path("target").join(path).exists(), "{name}: {path}"));
        goes.iter().for_each(|path| assert!(!world.path("target").join(path).exists(), "{name}: {path}"));
    };
    for name in ["content", "list"] {
        world.ok(&["deploy", name, name]);
        check_deployed("v3-left-out", name, &world.path(name));
    }
    check("content", &["large", "cache/a", "new cache/a", "marked/b"], &["other", "folder/c"]);
    check("list", &["large", "other", "cache/a"], &["folder/c"]);
}

#[test]
fn reading_alters_nothing() {
    for (golden, name) in [
        ("v1-plain", "first"),
        ("v1-history", "shop/two"),
        ("v2-rotated", "after"),
        ("v3-history", "shop/two"),
        ("v3-rotated", "after"),
        ("v3-roots", "five"),
        ("v3-left-out", "content"),
        ("v3-config", "after"),
    ] {
        let world = copy_of(golden);
        for command in [
            &["list"][..],
            &["show", name],
            &["ls", name, "--recursive"],
            &["diff", name, "latest"],
            &["find", "*e*"],
            &["stats"],
            &["key", "list"],
            &["gc", "--dry-run"],
            &["forget", "--keep-last", "1", "--dry-run"],
            &["verify"],
            &["verify", "--quick"],
            &["deploy", name, "target", "--dry-run"],
            &["deploy", name, "target", "--yes"],
            &["dump", name, "", "--tar"],
        ] {
            let run = world.run(command);
            assert_eq!(run.code, 0, "{command:?}: {run:#?}");
        }
        assert_eq!(objects(&world.repository()), objects(&testdata().join(golden)), "{golden}");
    }
}

#[test]
fn writing_goes_on_in_the_same_format() {
    let world = copy_of("v1-history");
    fs::create_dir(world.path("more")).unwrap();
    fs::write(world.path("more/file"), support::noise(5, 100_000)).unwrap();
    world.create("four", "more");
    assert_eq!(
        world.json(&["gc"])["packs_removed"].as_u64().map(|packs| packs > 0),
        Some(true),
        "the sentence is carried out"
    );
    let mut left = world.objects_in("condemned");
    left.retain(|path| !path.to_str().unwrap().ends_with("-retired"));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(world.json(&["verify"])["ok"], true);
    check_history(&world);
    world.ok(&["delete", "shop/two", "--yes"]);
    world.ok(&["gc"]);
    world.ok(&["deploy", "shop/three", "again"]);
    check_deployed("v1-history", "three.files", &world.path("again/files"));
    // What an older program of this format wrote and what this one writes stand side by side.
    for (path, bytes) in objects(&world.repository()) {
        assert_eq!((&bytes[..6], bytes[7]), (&b"COPAL\x1a"[..], 1), "{}", path.display());
    }
}

#[test]
fn each_golden_repository_is_small_and_tested() {
    let mut seen = 0;
    for entry in fs::read_dir(testdata()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.join("config").is_file() {
            seen += 1;
            let bytes: usize = objects(&path).values().map(Vec::len).sum();
            assert!(bytes < 200 << 10, "{name} has {bytes} bytes");
            assert!(include_str!("golden.rs").contains(&format!("copy_of(\"{name}\")")), "no test copies {name}");
            assert!(fs::read_dir(testdata().join(format!("{name}.expected"))).unwrap().count() > 0);
        }
    }
    assert!(seen >= 2);
}
