//! Goal: a SQLite database is captured with the rows that are committed, whoever writes to it meanwhile; files that say nothing of their
//! length are read to their end. Method: the built program, writers in this process, real databases.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
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

/// What a snapshot holds of a database: its rows in both tables, which agree in every state that was committed.
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

/// Two writers that leave each other hardly a moment: each capture has one state, with as many readers as see it.
#[test]
fn d11_busy_writers_hold_up_nothing() {
    let world = World::new();
    let path = world.path("a.db");
    let _log = planted(&path);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let writer = open(&path);
                while !ended.load(Ordering::Relaxed) {
                    let both = "BEGIN IMMEDIATE; INSERT INTO one VALUES (1); INSERT INTO two VALUES (1); COMMIT;";
                    writer.execute_batch(both).unwrap();
                }
            });
        }
        let captured = (0..8).map(|number| {
            let name = format!("busy-{number}");
            let run = world.run(&["create", &name, &format!("sqlite:{}", world.text("a.db"))]);
            (run.code == 0).then(|| rows(&world, &name, "")).ok_or(run)
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
