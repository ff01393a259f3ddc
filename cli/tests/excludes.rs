//! Goal: what is left out of a snapshot is what was meant (rows D16, U5): patterns are git's, whole paths
//! name what they name, a pattern that does nothing is told; caches, marked folders and large files are left
//! out, and a deploy leaves where it is what was (row D2). Method: the built program on real trees; what git
//! says to thousands of patterns is in `source/tests/gitignore.rs`.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use support::guarded::{MODES, configure_tree, read, write};
use support::{World, noise};

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
    symlink(world.path("s"), world.path("link")).unwrap();
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

/// What the mark of a cache begins with.
const MARK: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# what made it\n";

#[test]
fn u05_of_a_marked_folder_only_the_mark_is_taken() {
    let world = World::new();
    let files = [
        ("s/cache/CACHEDIR.TAG", MARK),
        ("s/cache/deep/a", "left out"),
        ("s/cache/b", "left out"),
        ("s/wrong/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc5X"),
        ("s/wrong/c", "kept"),
        ("s/short/CACHEDIR.TAG", "Signature:"),
        ("s/short/d", "kept"),
        ("s/link/e", "kept"),
        ("s/folder/CACHEDIR.TAG/f", "kept"),
        ("s/folder/g", "kept"),
        ("s/no/.nobackup", ""),
        ("s/no/h", "left out"),
        ("s/git/.git/config", "kept"),
        ("s/git/i", "left out"),
        ("s/said/skip", "skip this: all of it"),
        ("s/said/j", "left out"),
        ("s/unsaid/skip", "something else"),
        ("s/unsaid/k", "kept"),
    ];
    write(&world, &files);
    symlink("../cache/CACHEDIR.TAG", world.path("s/link/CACHEDIR.TAG")).unwrap();
    let status = std::process::Command::new("mkfifo").arg(world.path("s/unsaid/pipe")).status().unwrap();
    assert!(status.success());
    let kept = [
        "cache/CACHEDIR.TAG",
        "folder/CACHEDIR.TAG/f",
        "folder/g",
        "git/.git/config",
        "link/CACHEDIR.TAG",
        "link/e",
        "no/.nobackup",
        "said/skip",
        "short/CACHEDIR.TAG",
        "short/d",
        "unsaid/k",
        "unsaid/pipe",
        "unsaid/skip",
        "wrong/CACHEDIR.TAG",
        "wrong/c",
    ];
    let marks = [".nobackup", ".git", "skip:skip this", "pipe:x"];
    let marks = marks.map(|mark| ["--exclude-if-present", mark]).concat();
    check(&world, &[&["s", "--exclude-caches"][..], &marks].concat(), &kept);
    // The folder that is named itself, too; and without the flag nothing is looked at.
    check(&world, &["s/cache", "--exclude-caches"], &["CACHEDIR.TAG"]);
    check(&world, &["s/cache"], &["CACHEDIR.TAG", "b", "deep/a"]);
    let created = world.json(&["create", "told", "s/no", "--exclude-if-present", ".nobakcup", "--exclude-caches"]);
    assert_eq!(created["unmatched"], json!([".nobakcup"]));
    for bad in ["", ":x", "a/b", "..", ".:x"] {
        assert_eq!(world.run(&["create", "bad", "s", "--exclude-if-present", bad]).code, 2, "{bad:?}");
    }
}

#[test]
fn u05_files_past_a_size_are_left_out_with_what_is_part_of_them() {
    let world = World::new();
    write(&world, &[("s/small", "x"), ("s/exact", &"x".repeat(2048)), ("s/large", &"x".repeat(2049))]);
    // A log without its database is of no use; a name that only looks like one is a file.
    write(&world, &[("s/db", &"x".repeat(3000)), ("s/db-wal", "rows"), ("s/db-shm", ""), ("s/x-wal", "no log")]);
    fs::create_dir(world.path("s/folder")).unwrap();
    symlink("x".repeat(2500), world.path("s/folder/link")).unwrap();
    let kept = ["exact", "folder/link", "small", "x-wal"];
    check(&world, &["s", "--exclude-larger-than", "2KiB"], &kept);
    check(&world, &["s", "--exclude-larger-than", "2048"], &kept);
    check(&world, &["s/large", "--exclude-larger-than", "2KiB"], &["large"]);
    assert_eq!(world.run(&["create", "bad", "s", "--exclude-larger-than", "much"]).code, 2);
}

/// What no pattern names is left out of these.
const BY_CONTENT: [&str; 5] = ["--exclude-caches", "--exclude-if-present", ".no", "--exclude-larger-than", "1KiB"];

#[test]
fn u05_a_deploy_leaves_marked_folders_and_large_files_in_every_mode() {
    for mode in MODES {
        let world = World::new();
        let large = "L".repeat(2000);
        let files = [
            ("s/file", "old"),
            ("s/cache/CACHEDIR.TAG", MARK),
            ("s/cache/deep/a", "stays"),
            ("s/gone/CACHEDIR.TAG", MARK),
            ("s/gone/b", "stays"),
            ("s/no/.no", ""),
            ("s/no/c", "stays"),
            ("s/large", &large),
            ("s/later/d", "old"),
            ("s/grows", "old"),
        ];
        write(&world, &files);
        world.ok(&[&["create", "mon", "s"][..], &BY_CONTENT].concat());
        // What the snapshot could not have held has come, or has lost its mark; what it holds has changed.
        let files = [
            ("s/file", "new"),
            ("s/extra/goes", "goes"),
            ("s/extra/cache/CACHEDIR.TAG", MARK),
            ("s/extra/cache/deep/e", "stays"),
            ("s/extra/large", &large),
            ("s/no/inner/f", "stays"),
            ("s/later/d", "new"),
            ("s/later/more", "stays"),
            ("s/later/CACHEDIR.TAG", MARK),
            ("s/grows", &large),
        ];
        write(&world, &files);
        fs::remove_file(world.path("s/gone/CACHEDIR.TAG")).unwrap();
        let rehearsal = world.json(&["deploy", "mon", "s", "--dry-run", "--mode", mode]);
        let deployed = world.json(&["deploy", "mon", "s", "--yes", "--mode", mode]);
        assert_eq!(deployed["mode"], "in-place", "{mode}");
        let stays = [
            "cache/deep",
            "extra/cache/CACHEDIR.TAG",
            "extra/cache/deep",
            "extra/large",
            "gone/b",
            "large",
            "later/CACHEDIR.TAG",
            "later/more",
            "no/c",
            "no/inner",
        ];
        let stays = json!(stays.map(|path| json!({ "path": path, "why": "left out of the snapshot" })));
        assert_eq!((&deployed["stays"], &rehearsal["stays"]), (&stays, &stays), "{mode}");
        for path in ["cache/deep/a", "extra/cache/deep/e", "gone/b", "later/more", "no/c", "no/inner/f"] {
            assert_eq!(read(&world, &format!("s/{path}")), "stays", "{mode}: {path}");
        }
        for path in ["file", "later/d", "grows"] {
            assert_eq!(read(&world, &format!("s/{path}")), "old", "{mode}: {path}");
        }
        assert_eq!((read(&world, "s/large"), read(&world, "s/gone/CACHEDIR.TAG")), (large, MARK.into()));
        assert!(!world.path("s/extra/goes").exists());
        // A second deploy has nothing to do, and knows what stood.
        let again = world.json(&["deploy", "mon", "s", "--yes", "--mode", mode]);
        assert_eq!((&again["files_changed"], &again["stays"]), (&json!(0), &stays));
        world.ok(&["deploy", "mon", "s", "--yes", "--mode", mode, "--delete-excluded"]);
        for path in ["s/large", "s/extra", "s/cache/deep", "s/later/more", "s/gone/b", "s/no/c"] {
            assert!(!world.path(path).exists(), "{mode}: {path}");
        }
    }
}

#[test]
fn u05_such_rules_go_with_labels_parts_and_copies() {
    let world = World::new();
    write(&world, &[("a/x/keep", "1"), ("b/f", "1")]);
    world.ok(&[&["create", "mon", "a=a", "b=b"][..], &BY_CONTENT].concat());
    let other = world.text("other");
    world.ok(&["init", "--repo", &other]);
    world.ok(&["copy", "mon", "--to", &other, "--to-key-file", "key"]);
    let large = "L".repeat(2000);
    for repository in [world.text("repository"), other] {
        let files = [("t/a/c/CACHEDIR.TAG", MARK), ("t/a/c/d", "stays"), ("t/b/large", &large), ("t/b/more", "goes")];
        write(&world, &files);
        write(&world, &[("t/large", &large)]);
        world.ok(&["deploy", "mon", "t", "--yes", "--repo", &repository]);
        assert_eq!((read(&world, "t/a/c/d"), read(&world, "t/b/large")), ("stays".into(), large.clone()));
        assert!(!world.path("t/b/more").exists() && !world.path("t/large").exists());
        write(&world, &[("p/keep", "2"), ("p/c/CACHEDIR.TAG", MARK), ("p/c/d", "stays"), ("p/more", "goes")]);
        world.ok(&["deploy", "mon", "p", "--path", "a/x", "--yes", "--repo", &repository]);
        assert_eq!((read(&world, "p/keep"), read(&world, "p/c/d")), ("1".into(), "stays".into()));
        assert!(!world.path("p/more").exists());
    }
}

#[test]
fn u05_what_stays_in_the_way_is_refused_before_anything_is_touched() {
    let world = World::new();
    write(&world, &[("s/place", "a file"), ("s/other", "old")]);
    world.ok(&[&["create", "mon", "s"][..], &BY_CONTENT].concat());
    fs::remove_file(world.path("s/place")).unwrap();
    write(&world, &[("s/place/CACHEDIR.TAG", MARK), ("s/place/a", "stays"), ("s/other", "new")]);
    for mode in MODES {
        let error = world.fails(&["deploy", "mon", "s", "--yes", "--mode", mode], 79, "unfit-target");
        assert!(error["message"].as_str().unwrap().contains("place/a"), "{error}");
        assert_eq!((read(&world, "s/place/a"), read(&world, "s/other")), ("stays".into(), "new".into()));
    }
}

#[test]
fn u05_what_may_not_be_read_and_stays_hinders_nothing() {
    let world = World::new();
    write(&world, &[("s/file", "old"), ("s/cache/CACHEDIR.TAG", MARK), ("s/cache/closed/a", "stays")]);
    world.ok(&["create", "mon", "s", "--exclude-caches"]);
    write(&world, &[("s/file", "new")]);
    let closed = world.path("s/cache/closed");
    std::os::unix::fs::chown(&closed, Some(0), Some(0)).unwrap();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let as_user = |arguments: &[&str]| {
        let plain = world.command(arguments);
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(plain.get_program());
        command.args(plain.get_args()).env_clear().current_dir(world.path(""));
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        support::finish(command.output().unwrap())
    };
    let given = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(world.path("")).status().unwrap();
    assert!(given.success());
    std::os::unix::fs::chown(&closed, Some(0), Some(0)).unwrap();
    let run = as_user(&["deploy", "mon", "s", "--yes"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!((read(&world, "s/file"), read(&world, "s/cache/closed/a")), ("old".into(), "stays".into()));
}

#[test]
fn u05_an_application_leaves_out_what_its_configuration_says() {
    let world = World::new();
    let large = "L".repeat(5000);
    let files = [("data/file", "old"), ("data/c/CACHEDIR.TAG", MARK), ("data/c/a", "stays"), ("data/large", &large)];
    write(&world, &files);
    write(&world, &[("data/no/.no", ""), ("data/no/b", "stays")]);
    configure_tree(&world, "data");
    let text = read(&world, "copal.toml");
    let keys = "exclude_caches = true\nexclude_if_present = [\".no\"]\nexclude_larger_than = \"4KiB\"\n";
    fs::write(world.path("copal.toml"), text.replace("exclude = [\"cache/\", \".*\"]\n", keys)).unwrap();
    let created = world.json(&["create", "mon", "--app", "hub"]);
    assert_eq!(created["files"], 3, "{created}");
    write(&world, &[("data/file", "new"), ("data/new/.no", ""), ("data/new/c", "stays"), ("data/goes", "")]);
    world.ok(&["deploy", "hub/mon", "--app", "hub", "--yes"]);
    for path in ["data/c/a", "data/no/b", "data/new/c"] {
        assert_eq!(read(&world, path), "stays", "{path}");
    }
    assert_eq!((read(&world, "data/file"), read(&world, "data/large")), ("old".into(), large));
    assert!(!world.path("data/goes").exists() && world.path("data/new/.no").exists());
    for (key, wrong) in [("exclude_larger_than", "\"much\""), ("exclude_if_present", "[\"a/b\"]")] {
        let text = read(&world, "copal.toml");
        let lines =
            text.lines().map(|line| if line.starts_with(key) { format!("{key} = {wrong}") } else { line.into() });
        fs::write(world.path("wrong.toml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
        let run = world.run(&["create", "tue", "--app", "hub", "--config", "wrong.toml"]);
        assert!(run.code == 2 && run.stderr.contains("wrong.toml:"), "{key}: {run:?}");
    }
    // What flags say is said in the configuration for an application.
    assert_eq!(world.run(&["create", "tue", "--app", "hub", "--exclude-caches"]).code, 2);
}

#[test]
fn u05_nothing_is_taken_when_nothing_has_changed() {
    let world = World::new();
    fs::create_dir_all(world.path("s/folder")).unwrap();
    fs::write(world.path("s/large"), noise(1, 3 << 20)).unwrap();
    write(&world, &[("s/folder/small", "a few words"), ("s/x.tmp", "")]);
    std::thread::sleep(std::time::Duration::from_millis(30));
    let skip = ["--skip-if-unchanged", "--exclude", "*.tmp"];
    let first = world.json(&[&["create", "mon", "s"][..], &skip].concat());
    assert_eq!(first["skipped"], false);
    let stored = world.objects();
    for (name, more) in [("tue", None), ("wed", Some("--force-read"))] {
        let words = [&["create", name, "s", "--tag", "day=x"][..], &skip, more.as_slice()].concat();
        let second = world.json(&words);
        for field in ["id", "name", "created", "digest", "files", "bytes", "phase"] {
            assert_eq!(second[field], first[field], "{field}");
        }
        for field in ["bytes_new", "stored_new", "chunks_new"] {
            assert_eq!(second[field], 0, "{field}");
        }
        assert_eq!(second["skipped"], true);
        assert!(world.ok(&words).starts_with("nothing has changed since the snapshot mon"));
    }
    assert!(world.objects() == stored);
    // What is left out changes nothing; another rule does, and so do another source, a name, a mode.
    write(&world, &[("s/y.tmp", "")]);
    write(&world, &[("other", "")]);
    fs::create_dir(world.path("s/folder/new")).unwrap();
    fs::remove_dir(world.path("s/folder/new")).unwrap();
    let taken = |name: &str, words: &[&str]| {
        let created = world.json(&[&["create", name][..], words].concat());
        assert_eq!((&created["skipped"], &created["name"]), (&json!(false), &json!(name)), "{words:?}");
        std::thread::sleep(std::time::Duration::from_millis(30));
    };
    taken("touched", &[&["s"][..], &skip].concat());
    taken("rules", &["s", "--skip-if-unchanged", "--exclude", "y.tmp"]);
    taken("two", &["s=s", "o=other", "--skip-if-unchanged"]);
    fs::write(world.path("s/folder/small"), "other words").unwrap();
    taken("content", &["s=s", "o=other", "--skip-if-unchanged"]);
    let skipped = world.json(&["create", "again", "s=s", "o=other", "--skip-if-unchanged"]);
    assert_eq!((&skipped["skipped"], &skipped["name"]), (&json!(true), &json!("content")));
    // Against the one that is named.
    taken("parent", &["s=s", "o=other", "--skip-if-unchanged", "--parent", "two"]);
}

#[test]
fn u05_databases_and_applications_are_skipped_too() {
    let world = World::new();
    write(&world, &[("data/file", "x")]);
    configure_tree(&world, "data");
    world.ok(&["create", "mon", "--app", "hub"]);
    std::thread::sleep(std::time::Duration::from_millis(30));
    world.ok(&["create", "tue", "--app", "hub"]);
    let skipped = world.json(&["create", "wed", "--app", "hub", "--skip-if-unchanged"]);
    assert_eq!((&skipped["skipped"], &skipped["name"], &skipped["app"]), (&json!(true), &json!("tue"), &json!("hub")));
    assert_eq!(world.json(&["list"]).as_array().unwrap().len(), 2);
    write(&world, &[("data/file", "y")]);
    let created = world.json(&["create", "wed", "--app", "hub", "--skip-if-unchanged"]);
    assert_eq!((&created["skipped"], &created["name"]), (&json!(false), &json!("wed")));
    let database = rusqlite::Connection::open(world.path("a.db")).unwrap();
    database.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1);").unwrap();
    world.ok(&["create", "db", "sqlite:a.db"]);
    assert_eq!(world.json(&["create", "db 2", "sqlite:a.db", "--skip-if-unchanged"])["skipped"], true);
    database.execute_batch("INSERT INTO t VALUES (2);").unwrap();
    assert_eq!(world.json(&["create", "db 2", "sqlite:a.db", "--skip-if-unchanged"])["skipped"], false);
}
