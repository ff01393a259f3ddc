//! Goal: a deploy says beforehand what it would do to which path, and decides before it writes (row D4).
//! Method: rehearsals and questions of the built program, compared with what is done then.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use support::guarded::{MODES, read, write};
use support::terminal::at_terminal;
use support::{World, assert_same, look};

/// Everything is decided before anything is written, the log of a standing database too.
#[test]
fn a_deploy_that_is_refused_leaves_the_log_of_a_database_where_it_is() {
    let world = World::new();
    let rows = "PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES (1);";
    daemon::sql(&world.path("s.db"), rows);
    world.ok(&["create", "mon", "sqlite:s.db"]);
    let (from, to) = (world.text("s.db"), world.text("t.db"));
    // While it is open: the last one to close it empties its log.
    let copy = format!(".shell cp {from} {to}; cp {from}-wal {to}-wal");
    let copied = Command::new("sqlite3").args([&from, "INSERT INTO t VALUES (2);", &copy]).status().unwrap();
    assert!(copied.success());
    let log = fs::read(world.path("t.db-wal")).unwrap();
    assert!(!log.is_empty());
    let packs = world.objects_in("packs");
    fs::create_dir(world.path("aside")).unwrap();
    let aside = |path: &PathBuf| world.path("aside").join(path.file_name().unwrap());
    packs.iter().for_each(|path| fs::rename(path, aside(path)).unwrap());
    let refused = world.run(&["deploy", "mon", "t.db", "--yes"]);
    assert!(refused.code != 0, "{refused:#?}");
    assert!(fs::read(world.path("t.db-wal")).unwrap() == log);
    packs.iter().for_each(|path| fs::rename(aside(path), path).unwrap());
    world.ok(&["deploy", "mon", "t.db", "--yes"]);
    assert!(!world.path("t.db-wal").exists());
    assert_eq!(daemon::sql(&world.path("t.db"), "SELECT v FROM t").trim(), "1");
}

#[test]
fn d04_a_rehearsal_and_the_question_name_what_would_be_done() {
    let world = World::new();
    write(&world, &[("s/changes", "old"), ("s/missing", "old"), ("s/stays", "same"), ("s/becomes/file", "x")]);
    world.ok(&["create", "mon", "s", "--exclude", "*.tmp"]);
    fs::remove_file(world.path("s/missing")).unwrap();
    fs::remove_dir_all(world.path("s/becomes")).unwrap();
    write(
        &world,
        &[
            ("s/changes", "newer"),
            ("s/becomes", "a file"),
            ("s/x.tmp", "stays"),
            ("s/extra/a", "1"),
            ("s/extra/b/c", "2"),
        ],
    );
    fs::write(world.path("s/\x1b[2J"), "hostile").unwrap();
    for number in 0..30 {
        write(&world, &[(&format!("s/many {number:02}"), "goes")]);
    }
    let before = look(&world.path("s"));
    let document = world.json(&["deploy", "mon", "s", "--dry-run"]);
    let paths = |list: &str| -> Vec<String> {
        let list = document["changes"][list].as_array().unwrap();
        list.iter().map(|one| one["path"].as_str().unwrap().to_owned()).collect()
    };
    let mut removed: Vec<String> = (0..30).map(|number| format!("many {number:02}")).collect();
    removed.extend(["extra", "extra/a", "extra/b", "extra/b/c", "\x1b[2J"].map(str::to_owned));
    removed.sort();
    assert_eq!(paths("removed"), removed);
    assert_eq!(paths("replaced"), ["becomes", "changes"]);
    assert_eq!(paths("added"), ["becomes/file", "missing"]);
    assert_eq!(document["stays"], json!([{ "path": "x.tmp", "why": "left out of the snapshot" }]));
    let check = |text: &str| {
        for part in
            ["removed: 35 paths", "  many 10", "  and 15 more", "replaced: 2 paths", "  changes", "added: 2 paths"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("\\u{1b}[2J") && !text.contains("\x1b[2J") && !text.contains("many 29"), "{text}");
        assert!(text.contains("x.tmp"), "{text}");
    };
    let run = world.run(&["deploy", "mon", "s", "--dry-run"]);
    check(&format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr));
    let asked = at_terminal(&world, "copal deploy mon s", &[], &[("[y/N]", "n")]);
    check(&String::from_utf8_lossy(&asked.stdout).replace("\r\n", "\n"));
    assert_same(&before, &look(&world.path("s")));
    assert_eq!(world.json(&["deploy", "mon", "new", "--dry-run"])["changes"]["added"].as_array().unwrap().len(), 6);
    let done = world.json(&["deploy", "mon", "s", "--yes"]);
    assert_eq!(done["changes"], Value::Null);
    let again = world.json(&["deploy", "mon", "s", "--dry-run"]);
    assert_eq!(again["changes"], json!({ "removed": [], "replaced": [], "added": [], "metadata": [] }));
}

#[test]
fn d04_a_file_does_not_take_the_place_of_a_folder_unasked() {
    let world = World::new();
    write(&world, &[("s/f", "file"), ("s/d/g", "deeper"), ("t/x", "stays"), ("one", "a file")]);
    world.ok(&["create", "mon", "s"]);
    world.ok(&["create", "single", "one"]);
    let before = look(&world.path("t"));
    for mode in MODES {
        let words = ["deploy", "mon", "t", "--path", "f", "--yes", "--mode", mode];
        let error = world.fails(&words, 79, "unfit-target");
        assert!(error["message"].as_str().unwrap().contains("--replace"), "{error}");
        world.fails(&["deploy", "single", "t", "--yes", "--mode", mode], 79, "unfit-target");
        assert_same(&before, &look(&world.path("t")));
        world.fails(&["deploy", "mon", "one", "--yes", "--mode", mode], 79, "unfit-target");
        assert_eq!(read(&world, "one"), "a file");
    }
    // An empty folder gets the file inside.
    fs::create_dir(world.path("empty")).unwrap();
    world.ok(&["deploy", "mon", "empty", "--path", "d/g"]);
    assert_eq!(read(&world, "empty/g"), "deeper");
    fs::create_dir(world.path("empty too")).unwrap();
    world.ok(&["deploy", "single", "empty too"]);
    assert_eq!(read(&world, "empty too/one"), "a file");
    let rehearsal = world.json(&["deploy", "mon", "t", "--path", "f", "--replace", "--dry-run"]);
    assert_eq!(rehearsal["changes"]["removed"], json!([{ "path": "x" }]));
    world.ok(&["deploy", "mon", "t", "--path", "f", "--replace", "--yes"]);
    assert_eq!(read(&world, "t"), "file");
    world.ok(&["deploy", "mon", "t", "--replace", "--yes"]);
    assert_eq!(read(&world, "t/d/g"), "deeper");
}
