//! Goal: every command of `docs/guide/reference.md` for a local repository does what the page says. Method:
//! small worlds, the built program, its JSON.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;

use copal_sim::mounts::{Filesystem, Mounted};
use serde_json::{Value, json};
use support::{World, assert_same, finish, look, noise, number, plant};

/// One field of each element.
fn each(list: &Value, field: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
}

fn names(world: &World) -> Vec<String> {
    each(&world.json(&["list"]), "name")
}

fn paths(world: &World, snapshot: &str) -> BTreeSet<String> {
    each(&world.json(&["ls", snapshot, "--recursive"]), "path").into_iter().collect()
}

#[test]
fn a_repository_is_named_before_or_after_the_command_or_by_a_variable() {
    let world = World::new();
    let place = world.text("repository");
    for words in [
        vec!["list", "--repo", &place],
        vec!["--repo", &place, "list"],
        vec!["-r", &place, "list"],
        vec!["list", "-r", "repository"],
        vec!["list", "-r", "./repository/"],
    ] {
        let mut command = world.command(&words);
        let run = finish(command.env_remove("COPAL_REPO").output().unwrap());
        assert_eq!(run.code, 0, "{words:?}: {run:?}");
    }
    let url = format!("file://{place}");
    let run = finish(world.command(&["list"]).env("COPAL_REPO", &url).output().unwrap());
    assert_eq!(run.code, 0, "{run:?}");
    // The flag weighs more than the variable.
    let run = finish(world.command(&["list", "-r", "repository"]).env("COPAL_REPO", "/nowhere").output().unwrap());
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn without_a_command_the_help_is_shown() {
    let world = World::bare();
    let run = world.run(&[]);
    assert_eq!(run.code, 2);
    for part in ["Usage: copal", "create", "deploy", "Examples:", "Exit codes:"] {
        assert!(run.stderr.contains(part), "{part}: {run:?}");
    }
    let run = world.run(&["creat", "x", "y"]);
    assert!(run.code == 2 && run.stderr.contains("'create'"), "a slip of the finger is understood: {run:?}");
}

#[test]
fn a07_includes_and_excludes_choose_what_is_taken() {
    let world = World::new();
    let source = world.path("source");
    for path in ["a.txt", "b.tmp", "cache/x", "deep/cache/y", "deep/b.tmp", "deep/keep.tmp", "deep/z.txt"] {
        fs::create_dir_all(source.join(path).parent().unwrap()).unwrap();
        fs::write(source.join(path), path).unwrap();
    }
    let take = |name: &str, words: &[&str]| {
        world.ok(&[&["create", name, "source"], words].concat());
        let mut paths = paths(&world, name);
        paths.retain(|path| source.join(path).is_file());
        paths.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(take("tmp", &["--exclude", "*.tmp"]), ["a.txt", "cache/x", "deep/cache/y", "deep/z.txt"]);
    assert_eq!(
        take("top", &["--exclude", "/cache/"]),
        ["a.txt", "b.tmp", "deep/b.tmp", "deep/cache/y", "deep/keep.tmp", "deep/z.txt"]
    );
    assert_eq!(take("both", &["--exclude", "cache", "--exclude", "*.txt"]), ["b.tmp", "deep/b.tmp", "deep/keep.tmp"]);
    fs::write(world.path("patterns"), "# what nobody needs\n*.tmp\n!keep.tmp\n\ncache/\n").unwrap();
    assert_eq!(take("file", &["--exclude-file", "patterns"]), ["a.txt", "deep/keep.tmp", "deep/z.txt"]);
    // One file alone.
    assert_eq!(take("one", &["--exclude", "*", "--exclude", "!/a.txt"]), ["a.txt"]);
    world.fails(&["create", "x", "source", "--exclude-file", "absent"], 86, "files");
}

#[test]
fn sources_have_labels_and_one_file_is_a_source() {
    let world = World::new();
    plant(&world.path("tree"));
    fs::write(world.path("hub.db"), noise(1, 300_000)).unwrap();
    world.ok(&["create", "labelled", "db=hub.db", "files=tree"]);
    world.ok(&["create", "unlabelled", "hub.db", "tree"]);
    world.ok(&["create", "file", "hub.db"]);
    world.ok(&["deploy", "labelled", "target"]);
    assert_same(&look(&world.path("tree")), &look(&world.path("target/files")));
    assert_eq!(fs::read(world.path("target/db")).unwrap(), noise(1, 300_000));
    world.ok(&["deploy", "unlabelled", "target", "--yes"]);
    assert_eq!(fs::read_dir(world.path("target")).unwrap().count(), 2);
    assert_same(&look(&world.path("tree")), &look(&world.path("target/tree")));
    world.ok(&["deploy", "file", "copy.db"]);
    assert_eq!(fs::read(world.path("copy.db")).unwrap(), noise(1, 300_000));
    world.ok(&["deploy", "labelled", "part", "--path", "files/folder/deeper"]);
    assert_same(&look(&world.path("tree/folder/deeper")), &look(&world.path("part")));
}

#[test]
fn one_filesystem_alone_is_taken_when_asked() {
    let world = World::new();
    plant(&world.path("source"));
    fs::create_dir(world.path("source/mounted")).unwrap();
    let mounted = Mounted::over(Filesystem::Tmpfs, 8, &world.path("source/mounted")).unwrap();
    fs::write(mounted.path().join("elsewhere"), b"x").unwrap();
    world.ok(&["create", "all", "source"]);
    world.ok(&["create", "one", "source", "--one-file-system"]);
    assert!(paths(&world, "all").contains("mounted/elsewhere"));
    let one = paths(&world, "one");
    assert!(one.contains("mounted") && !one.contains("mounted/elsewhere"), "the place stays, as a folder");
    drop(mounted);
}

#[test]
fn a_snapshot_is_named_in_every_way() {
    let world = World::new();
    plant(&world.path("source"));
    let one = world.create("one", "source");
    let two = world.create("two", "source");
    let id = one["id"].as_str().unwrap();
    let shown = |reference: &str| world.json(&["show", reference])["id"].clone();
    let plain = id.replace('-', "");
    for reference in ["one", id, &id[..30], &plain, &id.to_uppercase()] {
        assert_eq!(shown(reference), one["id"], "{reference}");
    }
    assert_eq!(shown("latest"), two["id"]);
    world.fails(&["show", "latest:nobody"], 1, "no-such-snapshot");
    world.ok(&["delete", "two", "--yes"]);
    assert_eq!(shown("latest"), one["id"]);
}

#[test]
fn labels_are_set_changed_removed_and_listed_by() {
    let world = World::new();
    plant(&world.path("source"));
    world.json(&["create", "one", "source", "--tag", "a=1", "--tag", "b=x=y"]);
    world.create("two", "source");
    assert_eq!(world.json(&["tag", "one", "c=3", "a=2", "--remove", "b"])["tags"], json!({ "a": "2", "c": "3" }));
    assert_eq!(world.json(&["tag", "one"])["tags"], json!({ "a": "2", "c": "3" }));
    assert_eq!(each(&world.json(&["list", "--tag", "a=2"]), "name"), ["one"]);
    assert_eq!(world.json(&["list", "--tag", "a=1"]), json!([]));
    assert!(world.ok(&["list"]).contains("a=2 c=3"));
}

#[test]
fn what_is_pinned_stays_until_it_is_not() {
    let world = World::new();
    plant(&world.path("source"));
    for name in ["one", "two", "three"] {
        world.create(name, "source");
    }
    world.ok(&["pin", "one"]);
    world.fails(&["delete", "one", "--yes"], 1, "pinned");
    world.fails(&["delete", "two", "one", "--yes"], 1, "pinned");
    assert_eq!(names(&world), ["one", "two", "three"], "all or none");
    let forgotten = world.json(&["forget", "--keep-last", "1"]);
    assert_eq!(each(&forgotten["removed"], "name"), ["two"]);
    assert_eq!(names(&world), ["one", "three"]);
    world.ok(&["pin", "one", "--remove"]);
    world.ok(&["delete", "one", "--yes"]);
    assert_eq!(names(&world), ["three"]);
}

#[test]
fn rules_forget_and_a_rehearsal_forgets_nothing() {
    let world = World::new();
    plant(&world.path("source"));
    for number in 0..5 {
        world.create(&format!("s{number}"), "source");
    }
    let rehearsed = world.json(&["forget", "--keep-last", "2", "--dry-run"]);
    assert_eq!((each(&rehearsed["removed"], "name").len(), names(&world).len()), (3, 5));
    let kept = world.json(&["forget", "--keep-daily", "7", "--keep-yearly", "1", "--dry-run"]);
    assert_eq!(each(&kept["removed"], "name"), ["s3", "s2", "s1", "s0"], "all are of one day: the newest stays");
    assert_eq!(world.json(&["forget", "--keep-within", "1d"])["removed"], json!([]));
    let done = world.json(&["forget", "--keep-last", "2"]);
    assert_eq!(each(&done["removed"], "name"), each(&rehearsed["removed"], "name"));
    assert_eq!(names(&world), ["s3", "s4"]);
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
}

#[test]
fn a_path_is_found_in_all_snapshots_with_its_versions() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    world.create("one", "source");
    world.create("same", "source");
    fs::write(source.join("small.txt"), b"other words").unwrap();
    world.create("other", "source");
    fs::remove_file(source.join("small.txt")).unwrap();
    world.create("gone", "source");
    for pattern in ["small.txt", "small", "*.txt", "sm?ll.*"] {
        let found = world.json(&["find", pattern]);
        assert_eq!(each(&found, "snapshot"), ["one", "same", "other"], "{pattern}");
        let versions: Vec<u64> = found.as_array().unwrap().iter().map(|item| number(item, "version")).collect();
        assert_eq!(versions, [1, 1, 2], "{pattern}");
    }
    assert_eq!(world.json(&["find", "folder/**/file 007"]).as_array().unwrap().len(), 4);
    assert_eq!(world.json(&["find", "nothing like it"]), json!([]));
}

#[test]
fn c06_a_deploy_writes_what_the_target_lacks() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    fs::write(source.join("database"), noise(3, 16 << 20)).unwrap();
    world.create("one", "source");
    world.ok(&["deploy", "one", "target"]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    let report = world.json(&["deploy", "one", "target", "--yes"]);
    assert_eq!((number(&report, "files_changed"), number(&report, "bytes_written")), (0, 0), "{report}");
    let file = fs::File::options().write(true).open(world.path("target/database")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"drift", 9_000_000).unwrap();
    drop(file);
    fs::write(world.path("target/extra"), b"goes").unwrap();
    let planned = world.json(&["deploy", "one", "target", "--dry-run"]);
    assert_eq!(planned["dry_run"], json!(true));
    assert!(world.path("target/extra").exists());
    let report = world.json(&["deploy", "one", "target", "--yes"]);
    assert_eq!(number(&report, "files_changed"), 2, "{report}");
    assert!(number(&report, "bytes_written") <= 256 << 10, "{report}");
    assert_same(&look(&source), &look(&world.path("target")));
}

#[test]
fn a_deploy_that_is_asked_for_what_cannot_be_says_why() {
    let world = World::new();
    plant(&world.path("source"));
    world.create("one", "source");
    let error = world.fails(&["deploy", "one", "/"], 2, "usage");
    assert!(error["message"].as_str().unwrap().contains("root"), "{error}");
    std::os::unix::fs::symlink("/nowhere", world.path("dangling")).unwrap();
    world.fails(&["deploy", "one", "dangling"], 2, "usage");
    let mounted = Mounted::new(Filesystem::Ext4, 64).unwrap();
    let place = mounted.path().to_str().unwrap();
    let error = world.fails(&["deploy", "one", place, "--yes", "--mode", "swap"], 79, "mode-unavailable");
    assert!(error["message"].as_str().unwrap().contains("mount point"), "{error}");
    let error = world.fails(&["deploy", "one", place, "--yes", "--mode", "clone"], 79, "mode-unavailable");
    assert!(error["hint"].as_str().unwrap().contains("auto"), "{error}");
    world.ok(&["deploy", "one", place, "--yes"]);
    assert_same(&look(&world.path("source")), &look(mounted.path()));
}

#[test]
fn figures_of_the_repository_add_up() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    fs::write(source.join("text"), "words that compress well\n".repeat(40_000)).unwrap();
    let one = world.create("one", "source");
    world.create("two", "source");
    let stats = world.json(&["stats"]);
    assert_eq!(number(&stats, "logical"), 2 * number(&one, "bytes"));
    assert!(number(&stats, "saved_by_deduplication") >= number(&one, "bytes"));
    assert!(number(&stats, "saved_by_compression") > 500_000, "{stats:#}");
    let on_disk: u64 = world.objects_in("packs").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(number(&stats, "stored") >= on_disk, "{stats:#}, {on_disk} in packs");
    let unique: Vec<u64> =
        stats["snapshots"].as_array().unwrap().iter().map(|one| number(one, "unique_stored")).collect();
    assert!(unique.iter().all(|bytes| *bytes < 20_000), "they share everything: {unique:?}");
}
