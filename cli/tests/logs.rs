//! Goal: a SQLite database and its logs stay together: what keeps the one keeps the others, and what writes
//! the one removes the others (rows D2, D7). Method: the built program on databases as a killed process
//! leaves them, in every mode, plain and as an application.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use support::World;
use support::guarded::{MODES, write};

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Adds rows as a process does that is killed: they are in the log.
fn add(at: &Path, rows: std::ops::Range<u32>) {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_to(at, folder.path());
    let connection = Connection::open(&copy).unwrap();
    let begin = "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; CREATE TABLE IF NOT EXISTS t (i INTEGER)";
    connection.execute_batch(begin).unwrap();
    for row in rows {
        connection.execute("INSERT INTO t VALUES (?1)", [row]).unwrap();
    }
    for suffix in ["", "-wal", "-shm"] {
        fs::copy(with(&copy, suffix), with(at, suffix)).unwrap();
    }
}

fn copy_to(at: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join("d");
    for suffix in ["", "-wal"] {
        if with(at, suffix).exists() {
            fs::copy(with(at, suffix), with(&copy, suffix)).unwrap();
        }
    }
    copy
}

/// The rows, as SQLite finds them with what stands beside.
fn rows(at: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let connection = Connection::open(copy_to(at, folder.path())).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    connection.query_row("SELECT group_concat(i, '') FROM (SELECT i FROM t ORDER BY i)", [], |row| row.get(0)).unwrap()
}

/// An application of one tree with these patterns.
fn configure(world: &World, exclude: &str) {
    let source = "[[app.hub.source]]\nkind = \"tree\"\nlabel = \"data\"";
    let text = format!("[app.hub]\ndefault = true\n{source}\nexclude = [{exclude}]\npath = \"{}\"\n", world.text("s"));
    fs::write(world.path("copal.toml"), text).unwrap();
}

#[test]
fn d02_the_log_of_a_database_that_is_left_out_stays_with_it() {
    for mode in MODES {
        let world = World::new();
        let (live, other) = (world.path("s/live.db"), world.path("s/deep/other.db"));
        write(&world, &[("s/x", "x"), ("s/deep/y", "y"), ("s/plain.db-walnut", "plain")]);
        let words = ["s", "--exclude", "*.db"];
        world.ok(&[&["create", "without"][..], &words].concat());
        add(&live, 1..4);
        add(&other, 1..3);
        world.ok(&[&["create", "with"][..], &words].concat());
        let listed = world.ok(&["ls", "--recursive", "with"]);
        let has = |end: &str| listed.lines().any(|line| line.ends_with(end));
        assert!(!has(".db-wal") && !has(".db-shm") && has(".db-walnut"), "{listed}");
        add(&live, 4..6);
        for name in ["without", "with"] {
            write(&world, &[("s/x", "changed")]);
            let report = world.json(&["deploy", name, "s", "--yes", "--mode", mode]);
            assert_eq!((rows(&live).as_str(), rows(&other).as_str()), ("12345", "12"), "{name} {mode} {report}");
            let stays: Vec<&str> =
                report["stays"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
            assert!(stays.contains(&"live.db-wal") && stays.contains(&"deep/other.db-wal"), "{report}");
            world.ok(&["restore", name, "s", "--yes"]);
            assert_eq!(rows(&live), "12345");
        }
    }
}

#[test]
fn d02_patterns_of_a_restore_keep_a_database_with_its_log() {
    let world = World::new();
    let live = world.path("s/live.db");
    write(&world, &[("s/x", "x")]);
    add(&live, 1..4);
    world.ok(&["create", "two", "s"]);
    add(&live, 4..6);
    for more in [&["--exclude", "*.db"][..], &["--exclude", "/live.db"], &["--include", "x"]] {
        world.ok(&[&["restore", "two", "s", "--yes", "--delete"][..], more].concat());
        assert_eq!(rows(&live), "12345", "{more:?}");
    }
    // What writes the database, or would, removes the log, whatever is said of that.
    for more in [&["--exclude", "*-wal"][..], &["--include", "*.db"], &[]] {
        add(&live, 7..9);
        world.ok(&[&["restore", "two", "s", "--yes", "--delete"][..], more].concat());
        assert_eq!(rows(&live), "123", "{more:?}");
    }
}

#[test]
fn d02_a_log_goes_when_its_database_is_written_whatever_the_rules_say() {
    for mode in MODES {
        let world = World::new();
        let live = world.path("s/live.db");
        write(&world, &[("s/x", "x"), ("s/mine", "no database"), ("s/mine-wal", "stays"), ("s/alone-wal", "stays")]);
        add(&live, 1..4);
        let words = ["create", "one", "s", "--exclude", "*-wal", "--exclude", "*-shm", "--exclude", "*-journal"];
        world.ok(&words);
        add(&live, 4..9);
        let report = world.json(&["deploy", "one", "s", "--yes", "--mode", mode]);
        assert_eq!(rows(&live), "123", "{mode} {report}");
        // The log alone, when its database was removed.
        add(&live, 4..9);
        fs::remove_file(&live).unwrap();
        world.ok(&["deploy", "one", "s", "--yes", "--mode", mode]);
        assert_eq!(rows(&live), "123", "{mode}");
        for name in ["s/mine-wal", "s/alone-wal"] {
            assert_eq!(fs::read_to_string(world.path(name)).unwrap(), "stays", "{mode} {name}");
        }
    }
}

#[test]
fn d02_an_application_keeps_databases_and_logs_together() {
    let world = World::new();
    let live = world.path("s/live.db");
    write(&world, &[("s/x", "x")]);
    add(&live, 1..4);
    configure(&world, "\"*.db\"");
    world.ok(&["create", "kept", "--app", "hub"]);
    add(&live, 4..6);
    world.ok(&["deploy", "hub/kept", "--app", "hub", "--yes"]);
    assert_eq!(rows(&live), "12345");
    configure(&world, "\"*-wal\", \"*-shm\"");
    world.ok(&["create", "logs", "--app", "hub"]);
    add(&live, 6..9);
    world.ok(&["deploy", "hub/logs", "--app", "hub", "--yes"]);
    assert_eq!(rows(&live), "12345");
}

#[test]
fn d09_a_database_in_a_tree_of_its_application_is_deployed_in_either_order() {
    for (tree_first, exclude) in [(true, "\"app.db*\""), (false, "\"app.db*\""), (true, ""), (false, "")] {
        let world = World::new();
        let app = world.path("srv/app.db");
        write(&world, &[("srv/x", "x"), ("refuse/no", "")]);
        add(&app, 1..4);
        let tree = format!("kind = \"tree\"\nlabel = \"all\"\npath = \"srv\"\nexclude = [{exclude}]\n");
        let database = "kind = \"sqlite\"\nlabel = \"db\"\npath = \"srv/app.db\"\n".to_owned();
        let sources = if tree_first { [tree, database] } else { [database, tree] };
        let start = "[[app.shop.hook]]\nwhen = \"start\"\nargv = [\"/usr/bin/test\", \"!\", \"-e\", \"REFUSE\"]\n";
        let sources = sources.map(|source| format!("[[app.shop.source]]\n{source}")).concat();
        let start = start.replace("REFUSE", &world.text("refuse"));
        fs::write(world.path("copal.toml"), format!("[app.shop]\n{sources}{start}")).unwrap();
        fs::remove_dir_all(world.path("refuse")).unwrap();
        world.ok(&["create", "one", "--app", "shop"]);
        write(&world, &[("srv/x", "changed"), ("refuse/no", "")]);
        add(&app, 4..6);
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(world.path("srv")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = (rows(&app), names());
        // What fails is taken back, and leaves nothing.
        let deploy = ["deploy", "shop/one", "--app", "shop", "--yes"];
        world.fails(&deploy, 79, "hook");
        assert_eq!((rows(&app), names()), before, "{tree_first} {exclude}");
        fs::remove_dir_all(world.path("refuse")).unwrap();
        world.ok(&deploy);
        assert_eq!(rows(&app), "123", "{tree_first} {exclude}");
        assert_eq!(fs::read_to_string(world.path("srv/x")).unwrap(), "x");
        assert!(names().iter().all(|name| !name.to_string_lossy().contains("copal")), "{:?}", names());
    }
}

#[test]
fn d09_what_a_deploy_builds_beside_targets_is_in_no_snapshot_and_stays() {
    let world = World::new();
    let (left, other) = (".app.db.copal-unit-0123456789ab", ".app.db.copal-unit-mine");
    write(&world, &[("srv/x", "x"), (&format!("srv/{left}/new"), "old"), (&format!("srv/{other}/f"), "own")]);
    write(&world, &[("srv/a/.copal-unit-0123456789ab.old/f", "old")]);
    fs::write(world.path("copal.toml"), "[app.shop]\n[[app.shop.source]]\nkind = \"tree\"\npath = \"srv\"\n").unwrap();
    world.ok(&["create", "plain", "srv"]);
    world.ok(&["create", "one", "--app", "shop"]);
    for name in ["plain", "shop/one"] {
        let listed = world.ok(&["ls", name, "--recursive"]);
        assert!(!listed.contains("copal-unit-0123456789ab"), "{listed}");
        assert!(listed.contains("copal-unit-mine/f"), "{listed}");
    }
    write(&world, &[("srv/x", "changed")]);
    world.ok(&["deploy", "shop/one", "--app", "shop", "--yes"]);
    write(&world, &[("srv/x", "changed")]);
    world.ok(&["deploy", "plain", &world.text("srv"), "--yes"]);
    assert_eq!(fs::read_to_string(world.path("srv/x")).unwrap(), "x");
    assert_eq!(fs::read_to_string(world.path("srv").join(left).join("new")).unwrap(), "old");
    assert!(world.path("srv/a/.copal-unit-0123456789ab.old/f").exists());
}

#[test]
fn d02_a_database_that_stays_for_what_it_is_keeps_its_log() {
    for mode in MODES {
        for rule in [
            &["--exclude-larger-than", "1KiB"][..],
            &["--files-from", "list"],
            &["--exclude-if-present", ".nobackup"],
            &["--exclude-caches"],
        ] {
            let world = World::new();
            let live = world.path("s/d/live.db");
            let cache = "Signature: 8a477f597d28d172789f06886806bc55";
            write(&world, &[("s/x", "x"), ("s/d/y", "y"), ("list", "x\n")]);
            match rule[0] {
                "--exclude-if-present" => write(&world, &[("s/d/.nobackup", "")]),
                "--exclude-caches" => write(&world, &[("s/d/CACHEDIR.TAG", cache)]),
                _ => {}
            }
            add(&live, 1..4);
            world.ok(&[&["create", "one", "s"][..], rule].concat());
            assert!(!world.ok(&["ls", "--recursive", "one"]).contains("live.db"), "{rule:?}");
            add(&live, 4..6);
            let report = world.json(&["deploy", "one", "s", "--yes", "--mode", mode]);
            assert_eq!(rows(&live), "12345", "{rule:?} {mode} {report}");
            world.ok(&["restore", "one", "s", "--yes", "--delete"]);
            assert_eq!(rows(&live), "12345", "{rule:?} {mode}");
        }
    }
}

#[test]
fn d09_what_a_source_in_a_tree_had_comes_back_where_nothing_stands() {
    for (exclude, gone) in
        [("\"*.db*\"", "srv"), ("\"*.db*\"", "srv/app.db"), ("\"*.db*\", \"/data/\"", "srv/data"), ("\"*.big\"", "")]
    {
        for order in [[0, 1, 2], [2, 1, 0]] {
            let world = World::new();
            let app = world.path("srv/app.db");
            write(&world, &[("srv/x", "x"), ("srv/data/a.big", "one"), ("srv/data/f", "one")]);
            add(&app, 1..4);
            let sources = [
                format!("kind = \"tree\"\nlabel = \"all\"\npath = \"srv\"\nexclude = [{exclude}]\n"),
                "kind = \"sqlite\"\nlabel = \"db\"\npath = \"srv/app.db\"\n".to_owned(),
                "kind = \"tree\"\nlabel = \"data\"\npath = \"srv/data\"\n".to_owned(),
            ];
            let sources = order.map(|number| format!("[[app.shop.source]]\n{}", sources[number])).concat();
            fs::write(world.path("copal.toml"), format!("[app.shop]\n{sources}")).unwrap();
            world.ok(&["create", "one", "--app", "shop"]);
            write(&world, &[("srv/x", "changed"), ("srv/data/a.big", "two"), ("srv/data/f", "two")]);
            match gone {
                "srv/app.db" => {
                    ["", "-wal", "-shm"].into_iter().for_each(|suffix| drop(fs::remove_file(with(&app, suffix))))
                }
                "" => {}
                folder => fs::remove_dir_all(world.path(folder)).unwrap(),
            }
            world.ok(&["deploy", "shop/one", "--app", "shop", "--yes"]);
            let read = |path: &str| fs::read_to_string(world.path(path)).unwrap();
            let found = (rows(&app), read("srv/x"), read("srv/data/a.big"), read("srv/data/f"));
            assert_eq!(found, ("123".into(), "x".into(), "one".into(), "one".into()), "{exclude} {gone} {order:?}");
            world.ok(&["create", "two", "--app", "shop"]);
        }
    }
}
