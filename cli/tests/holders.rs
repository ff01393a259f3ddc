//! Goal: nobody goes on writing into a database that was replaced, no log outlives the database that it
//! belongs to, and a link in the place of a database leads nowhere (rows D7, D1). Method: the built program,
//! beside processes that have databases open.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rusqlite::Connection;
use support::{World, assert_same, look};

/// A process that has a file open and holds no lock, until it is dropped.
struct Holding(Child);

impl Holding {
    fn of(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        Self(Command::new("/bin/sleep").arg("600").stdin(Stdio::from(file)).spawn().unwrap())
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn database(path: &Path, rows: u32) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER)").unwrap();
    for row in 0..rows {
        connection.execute("INSERT INTO t VALUES (?1)", [row]).unwrap();
    }
}

fn rows(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

/// A database and its log with rows, as a process leaves them that is killed.
fn with_log(at: &Path, rows: u32) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (n INTEGER)")
        .unwrap();
    for row in 0..rows {
        connection.execute("INSERT INTO t VALUES (?1)", [row]).unwrap();
    }
    fs::copy(&path, at).unwrap();
    fs::copy(folder.path().join("d-wal"), with(at, "-wal")).unwrap();
}

fn with(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[test]
fn d07_a_database_that_a_process_has_open_is_not_replaced() {
    let world = World::new();
    fs::create_dir(world.path("t")).unwrap();
    database(&world.path("t/app.db"), 3);
    fs::write(world.path("t/notes"), "old").unwrap();
    world.create("tree", "t");
    world.ok(&["create", "one", &format!("sqlite:{}", world.text("t/app.db"))]);
    world.ok(&["deploy", "one", "single.db"]);
    for (snapshot, target, path) in [("tree", "t", "t/app.db"), ("one", "single.db", "single.db")] {
        database(&world.path(path), 2);
        fs::write(world.path("t/notes"), "new").unwrap();
        let before = look(&world.path(target));
        let holding = Holding::of(&world.path(path));
        for (mode, last) in [("swap", "--dry-run"), ("swap", "--yes"), ("in-place", "--yes")] {
            let error = world.fails(&["deploy", snapshot, target, "--mode", mode, last], 11, "in-use");
            let message = error["message"].as_str().unwrap();
            let named = format!("process {} (sleep)", holding.0.id());
            assert!(message.contains(&named) && message.contains(path), "{mode} {last}: {message}");
        }
        assert_same(&before, &look(&world.path(target)));
        drop(holding);
        world.ok(&["deploy", snapshot, target, "--yes"]);
        assert_eq!(rows(&world.path(path)), 3);
    }
    // What is not touched may be open.
    fs::write(world.path("t/notes"), "new").unwrap();
    let _holding = Holding::of(&world.path("t/app.db"));
    world.ok(&["deploy", "tree", "t", "--yes", "--mode", "in-place"]);
    assert_eq!(fs::read_to_string(world.path("t/notes")).unwrap(), "old");
}

#[test]
fn d07_an_application_is_stopped_before_its_database_is_replaced_or_nothing_is() {
    let world = World::new();
    database(&world.path("app.db"), 3);
    let configure = |stop: &str| {
        let source =
            format!("[[app.hub.source]]\nkind = \"sqlite\"\nlabel = \"db\"\npath = {:?}\n", world.text("app.db"));
        fs::write(world.path("copal.toml"), format!("[app.hub]\ndefault = true\n{source}{stop}")).unwrap();
    };
    configure("");
    world.ok(&["create", "one", "--app", "hub"]);
    database(&world.path("app.db"), 2);
    let holding = Holding::of(&world.path("app.db"));
    let named = format!("process {} (sleep)", holding.0.id());
    let hook = |script: &str| format!("[[app.hub.hook]]\nwhen = \"stop\"\nargv = [\"/bin/sh\", \"-c\", {script:?}]\n");
    for stop in [String::new(), hook("true")] {
        configure(&stop);
        let run = world.run(&["deploy", "hub/one", "--app", "hub", "--yes"]);
        assert!(run.code == 11 && run.stderr.contains(&named), "{run:#?}");
        assert_eq!(rows(&world.path("app.db")), 5);
    }
    configure(&hook(&format!("kill {} 2>/dev/null || true", holding.0.id())));
    let run = world.run(&["deploy", "hub/one", "--app", "hub", "--yes"]);
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(rows(&world.path("app.db")), 3);
}

#[test]
fn d07_a_log_of_another_database_does_not_outlive_it() {
    let world = World::new();
    fs::create_dir_all(world.path("s")).unwrap();
    database(&world.path("s/app.db"), 3);
    world.create("tree", "s");
    world.ok(&["create", "one", &format!("sqlite:{}", world.text("s/app.db"))]);
    for words in [
        &["deploy", "one", "t/app.db", "--yes"][..],
        &["deploy", "tree", "t/app.db", "--path", "app.db", "--yes"],
        &["restore", "tree", "t", "--yes"],
    ] {
        for stands in [true, false] {
            let _ = fs::remove_dir_all(world.path("t"));
            fs::create_dir(world.path("t")).unwrap();
            with_log(&world.path("t/app.db"), 50);
            if !stands {
                fs::remove_file(world.path("t/app.db")).unwrap();
            }
            fs::write(world.path("t/app.db-walnut"), "stays").unwrap();
            world.ok(words);
            let left: Vec<_> = ["-wal", "-shm", "-journal"]
                .into_iter()
                .filter(|suffix| with(&world.path("t/app.db"), suffix).exists())
                .collect();
            assert_eq!(left, [] as [&str; 0], "{words:?} {stands}");
            assert_eq!(rows(&world.path("t/app.db")), 3, "{words:?} {stands}");
            assert!(world.path("t/app.db-walnut").exists());
        }
    }
}

#[test]
fn d01_a_link_in_the_place_of_a_database_leads_nowhere() {
    let world = World::new();
    fs::create_dir(world.path("victim")).unwrap();
    database(&world.path("app.db"), 3);
    world.ok(&["create", "one", &format!("sqlite:{}", world.text("app.db"))]);
    world.ok(&["create", "labelled", &format!("db=sqlite:{}", world.text("app.db"))]);
    let source = format!("[[app.hub.source]]\nkind = \"sqlite\"\nlabel = \"db\"\npath = {:?}\n", world.text("app.db"));
    fs::write(world.path("copal.toml"), format!("[app.hub]\ndefault = true\n{source}")).unwrap();
    world.ok(&["create", "app", "--app", "hub"]);
    with_log(&world.path("victim/v.db"), 50);
    let victim = look(&world.path("victim"));
    fs::create_dir(world.path("t")).unwrap();
    fs::remove_file(world.path("app.db")).unwrap();
    for link in ["t/db", "app.db"] {
        symlink(world.path("victim/v.db"), world.path(link)).unwrap();
        fs::copy(world.path("victim/v.db-wal"), with(&world.path(link), "-wal")).unwrap();
        // Whoever may put it there.
        lchown(world.path(link), Some(1), Some(1)).unwrap();
    }
    // One's own link leads to another's, and that one no further.
    symlink(world.path("app.db"), world.path("led.db")).unwrap();
    fs::write(
        world.path("led.toml"),
        fs::read_to_string(world.path("copal.toml")).unwrap().replace("app.db", "led.db"),
    )
    .unwrap();
    world.fails(&["--config", "led.toml", "deploy", "hub/app", "--app", "hub", "--yes"], 79, "unfit-target");
    for last in ["--dry-run", "--yes"] {
        world.ok(&["deploy", "labelled", "t", last]);
        world.run(&["deploy", "hub/app", "--app", "hub", last]);
        assert_same(&victim, &look(&world.path("victim")));
    }
    assert_eq!(rows(&world.path("t/db")), 3);
    assert!(fs::symlink_metadata(world.path("app.db")).unwrap().is_symlink(), "which is refused as a target");
}

#[test]
fn d01_a_rehearsal_asks_a_database_without_writing() {
    for has_log in [true, false] {
        let world = World::new();
        fs::create_dir(world.path("d")).unwrap();
        with_log(&world.path("d/app.db"), 5);
        let source =
            format!("[[app.hub.source]]\nkind = \"sqlite\"\nlabel = \"db\"\npath = {:?}\n", world.text("d/app.db"));
        fs::write(world.path("copal.toml"), format!("[app.hub]\ndefault = true\n{source}")).unwrap();
        world.ok(&["create", "app", "--app", "hub"]);
        if !has_log {
            assert_eq!(rows(&world.path("d/app.db")), 5);
        } else {
            let _ = fs::remove_file(world.path("d/app.db-shm"));
        }
        let before = look(&world.path("d"));
        world.ok(&["deploy", "hub/app", "--app", "hub", "--dry-run"]);
        assert_same(&before, &look(&world.path("d")));
    }
}
