//! Goal: a SQLite database is captured with the rows that are committed, whoever writes to it meanwhile;
//! files that say nothing of their length are read to their end. Method: the built program, writers in this
//! process, real databases.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use support::World;

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    connection
}

/// A database in WAL mode whose log holds rows, and a connection that keeps it so.
fn planted(path: &Path) -> Connection {
    let connection = open(path);
    connection
        .execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = off; PRAGMA wal_autocheckpoint = 0;
             CREATE TABLE one (n INTEGER); CREATE TABLE two (n INTEGER);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO one SELECT i FROM n; INSERT INTO two SELECT n FROM one;",
        )
        .unwrap();
    connection
}

/// What a snapshot holds of a database: its rows in both tables, which agree in every state that was
/// committed.
#[track_caller]
fn rows(world: &World, snapshot: &str, name: &str) -> [i64; 2] {
    let run = world.run(&["dump", snapshot, name]);
    assert_eq!(run.code, 0, "{run:#?}");
    let copy = world.path("copy.db");
    fs::write(&copy, &run.stdout).unwrap();
    let connection = open(&copy);
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    ["one", "two"]
        .map(|table| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap())
}

/// Who writes holds the lock of writers from the first row on, for as long as it likes.
#[test]
fn d11_a_writer_in_the_midst_of_a_transaction_holds_up_nothing() {
    let world = World::new();
    let writer = planted(&world.path("a.db"));
    writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO one VALUES (0);").unwrap();
    world.ok(&["create", "one", &format!("sqlite:{}", world.text("a.db"))]);
    assert_eq!(rows(&world, "one", ""), [500, 500]);
    writer.execute_batch("INSERT INTO two VALUES (0); COMMIT;").unwrap();
    world.ok(&["create", "two", &format!("sqlite:{}", world.text("a.db"))]);
    assert_eq!(rows(&world, "two", ""), [501, 501]);
}

/// Two writers that leave each other hardly a moment: each capture has one state, with as many readers as see
/// it.
#[test]
fn d11_busy_writers_hold_up_nothing() {
    let world = World::new();
    let path = world.path("a.db");
    let _log = planted(&path);
    check_beside_writers(&world, &path, 2, 8, &format!("sqlite:{}", world.text("a.db")), "");
}

/// A writer that was stopped in the midst of a transaction holds the lock for ever; two more wait for it. No
/// capture needs that lock.
#[test]
fn d11_a_stopped_process_that_writes_holds_up_nothing() {
    let world = World::new();
    let path = world.path("a.db");
    let _log = planted(&path);
    let mut stopped = Command::new("sqlite3").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = stopped.stdin.take().unwrap();
    input.write_all(b"BEGIN IMMEDIATE; INSERT INTO one VALUES (0);\n.print begun\n").unwrap();
    let mut line = String::new();
    BufReader::new(stopped.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    let pid = Pid::from_child(&stopped);
    kill_process(pid, Signal::STOP).unwrap();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || open(&path).execute_batch("BEGIN IMMEDIATE; COMMIT;").unwrap())
        })
        .collect();
    world.ok(&["create", "named", &format!("sqlite:{}", world.text("a.db"))]);
    assert_eq!(rows(&world, "named", ""), [500, 500]);
    world.ok(&["create", "plain", "a.db"]);
    assert_eq!(rows(&world, "plain", ""), [500, 500]);
    kill_process(pid, Signal::KILL).unwrap();
    stopped.wait().unwrap();
    waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
}

/// Captures a source while writers add a row to both tables again and again: each snapshot has one state of
/// the database at `part` of it.
fn check_beside_writers(world: &World, path: &Path, writers: usize, captures: usize, source: &str, part: &str) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                let writer = open(path);
                while !ended.load(Ordering::Relaxed) {
                    let both = "BEGIN IMMEDIATE; INSERT INTO one VALUES (1); INSERT INTO two VALUES (1); COMMIT;";
                    writer.execute_batch(both).unwrap();
                }
            });
        }
        let captured = (0..captures).map(|number| {
            let name = format!("busy-{number}");
            let run = world.run(&["create", &name, source]);
            (run.code == 0).then(|| rows(world, &name, part)).ok_or(run)
        });
        let captured: Vec<_> = captured.collect();
        ended.store(true, Ordering::Relaxed);
        for rows in captured {
            let [one, two] = rows.unwrap();
            assert!(one == two && one >= 500, "{one} and {two}");
        }
    });
}

/// A writer with a rollback journal waits for readers, and keeps new ones out: one reader is enough.
#[test]
fn d11_a_rollback_journal_is_no_trap() {
    let world = World::new();
    let path = world.path("a.db");
    planted(&path).execute_batch("PRAGMA journal_mode = delete").unwrap();
    let writer = open(&path);
    writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO one VALUES (0);").unwrap();
    world.ok(&["create", "one", &format!("sqlite:{}", world.text("a.db"))]);
    assert_eq!(rows(&world, "one", ""), [500, 500]);
    writer.execute_batch("ROLLBACK").unwrap();
}

/// The kernel makes such files up as they are read.
#[test]
fn a_file_that_says_it_is_empty_is_read_to_its_end() {
    let world = World::new();
    world.ok(&["create", "one", "/proc/version"]);
    assert_eq!(world.ok(&["dump", "one", ""]), fs::read_to_string("/proc/version").unwrap());
    world.ok(&["create", "two", "/proc/sys/kernel/random"]);
    assert_eq!(world.ok(&["dump", "two", "boot_id"]), fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap());
    // Again: what the parent has is no reason to skip it, nor a change.
    let again = world.json(&["create", "three", "/proc/version"]);
    assert_eq!((again["unread_files"].as_u64(), again["warnings"].as_array().unwrap().len()), (Some(0), 0), "{again}");
}

fn names(world: &World, snapshot: &str) -> Vec<String> {
    let listed = world.json(&["ls", "--recursive", snapshot]);
    let entries = listed.as_array().or_else(|| listed["entries"].as_array()).unwrap();
    entries.iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
}

/// In a tree, in a folder of it, and named alone: the rows of the log are in the one file, and the log is not
/// beside it.
#[test]
fn d10_a_database_in_a_tree_comes_with_the_rows_of_its_log() {
    let world = World::new();
    fs::create_dir_all(world.path("tree/deep")).unwrap();
    let paths = ["tree/a.db", "tree/deep/b.db"].map(|name| world.path(name));
    let _logs = paths.each_ref().map(|path| planted(path));
    fs::write(world.path("tree/plain-wal"), "a file like others").unwrap();
    fs::write(world.path("tree/plain"), "no database").unwrap();
    let report = world.json(&["create", "one", &world.text("tree")]);
    assert_eq!(report["unread_files"], 0, "{report}");
    assert_eq!([rows(&world, "one", "a.db"), rows(&world, "one", "deep/b.db")], [[500, 500]; 2]);
    let found = names(&world, "one");
    let ends = |end: &str| found.iter().filter(|name| name.ends_with(end)).count();
    assert_eq!((ends(".db"), ends(".db-wal"), ends(".db-shm"), ends("plain-wal")), (2, 0, 0, 1), "{found:?}");
    world.ok(&["create", "alone", &world.text("tree/a.db")]);
    assert_eq!(rows(&world, "alone", ""), [500, 500]);
    // More rows in the log alone: the main file does not move.
    let writer = open(&paths[0]);
    writer
        .execute_batch("PRAGMA wal_autocheckpoint = 0; INSERT INTO one VALUES (1); INSERT INTO two VALUES (1);")
        .unwrap();
    world.create("two", &world.text("tree"));
    assert_eq!(rows(&world, "two", "a.db"), [501, 501]);
    // It comes back as one file that SQLite opens.
    world.ok(&["deploy", "two", &world.text("target")]);
    let copy = open(&world.path("target/a.db"));
    assert_eq!(copy.query_row("SELECT count(*) FROM one", [], |row| row.get::<_, i64>(0)).unwrap(), 501);
}

/// A writer goes on while a tree with its database is captured.
#[test]
fn d10_a_database_in_a_tree_is_of_one_moment() {
    let world = World::new();
    fs::create_dir(world.path("tree")).unwrap();
    let path = world.path("tree/a.db");
    let _log = planted(&path);
    check_beside_writers(&world, &path, 1, 6, &world.text("tree"), "a.db");
}

/// A hot journal must be rolled back by who may write: a create reads, so it says what it could not do.
#[test]
fn d10_a_database_that_sqlite_cannot_be_asked_about_is_exit_3() {
    let world = World::new();
    fs::create_dir(world.path("tree")).unwrap();
    let path = world.path("tree/a.db");
    planted(&path).execute_batch("PRAGMA journal_mode = delete; PRAGMA cache_size = 1").unwrap();
    let writer = open(&path);
    let large = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                 INSERT INTO one SELECT i FROM n;";
    writer.execute_batch(&format!("PRAGMA cache_size = 1; BEGIN IMMEDIATE; {large}")).unwrap();
    // As after a crash: both files as they are, and nobody who holds them.
    let copy = world.path("crashed");
    fs::create_dir(&copy).unwrap();
    for name in ["a.db", "a.db-journal"] {
        fs::copy(world.path("tree").join(name), copy.join(name)).unwrap();
    }
    drop(writer);
    let run = world.run(&["create", "one", copy.to_str().unwrap(), "--json"]);
    assert_eq!(run.code, 3, "{run:#?}");
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(report["warnings"][0].as_str().unwrap().contains("a.db"), "{report}");
    assert_eq!(names(&world, "one").iter().filter(|name| name.contains("a.db")).count(), 2);
    // Through `sqlite:` it is what was committed.
    world.ok(&["create", "two", &format!("sqlite:{}", copy.join("a.db").display())]);
    assert_eq!(rows(&world, "two", ""), [500, 500]);
}

/// Who may write in a captured folder cannot make a create open another database, nor another file of the
/// same names.
#[test]
fn d10_links_in_place_of_a_log_or_a_database_lead_nowhere() {
    let world = World::new();
    fs::create_dir(world.path("tree")).unwrap();
    let _log = planted(&world.path("secret.db"));
    std::os::unix::fs::symlink(world.path("secret.db"), world.path("tree/a.db")).unwrap();
    fs::write(world.path("tree/a.db-wal"), "x").unwrap();
    let own = planted(&world.path("b.db"));
    for name in ["b.db", "b.db-wal"] {
        fs::copy(world.path(name), world.path("tree").join(name)).unwrap();
    }
    drop(own);
    let elsewhere = world.path("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, world.path("tree/b.db-shm")).unwrap();
    let run = world.run(&["create", "one", &world.text("tree")]);
    assert!(run.code == 3 && run.stderr.contains("b.db"), "{run:#?}");
    assert!(!elsewhere.exists());
    assert_eq!(names(&world, "one").iter().filter(|name| name.contains(".db")).count(), 5);
}
