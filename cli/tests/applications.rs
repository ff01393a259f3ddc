//! Goal: databases and running applications are captured and put back as one unit, whatever is killed when.
//! Method: the built program and a real application, the shop of `examples/shop`, which writes all the time.
#![allow(clippy::unwrap_used)]

#[path = "../../examples/shop/server.rs"]
mod server;
mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;
use support::kill::{Budget, run_and_kill};
use support::known::left_beside;
use support::shop::{SHOP_FOLDER, Shop, assert_agreement, configuration};
use support::{World, noise};

/// No test of its own: the other tests start this program once more to be the shop.
#[test]
fn the_shop_as_a_process() {
    if let Some(folder) = std::env::var_os(SHOP_FOLDER) {
        server::serve(folder.as_ref()).unwrap();
    }
}

fn configure(world: &World, top: &str, more: &str) {
    fs::write(world.path("copal.toml"), configuration(&world.path("shop"), top, more)).unwrap();
}

/// A command as a hook.
fn hook(when: &str, script: &str) -> String {
    format!("[[app.shop.hook]]\nwhen = \"{when}\"\nargv = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout = \"2s\"\n")
}

fn status(world: &World) -> Vec<Value> {
    world.json(&["status", "shop"]).as_array().unwrap().clone()
}

/// A database with rows of noise, all of them in one file.
fn plant_database(path: &Path, rows: u64, version: i64) {
    let mut database = Connection::open(path).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database.pragma_update(None, "user_version", version).unwrap();
    database.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v BLOB)").unwrap();
    let transaction = database.transaction().unwrap();
    for row in 0..rows {
        transaction.execute("INSERT INTO t (v) VALUES (?1)", [noise(row, 1000)]).unwrap();
    }
    transaction.commit().unwrap();
}

fn count(path: &Path) -> i64 {
    Connection::open(path).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

#[test]
fn h14_rows_that_are_still_in_the_log_are_captured() {
    let world = World::new();
    let path = world.path("hub.db");
    plant_database(&path, 10, 7);
    let writer = Connection::open(&path).unwrap();
    writer.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    let before = fs::read(&path).unwrap();
    for _ in 0..500 {
        writer.execute("INSERT INTO t (v) VALUES (zeroblob(900))", []).unwrap();
    }
    let report = world.json(&["create", "one", &format!("sqlite:{}", path.display())]);
    assert_eq!(report["phase"], "completed");
    assert_eq!(fs::read(&path).unwrap(), before, "the capture wrote to the database");
    assert!(world.path("hub.db-wal").metadata().unwrap().len() > 400_000, "the capture emptied the log");
    world.ok(&["deploy", "one", &world.text("out.db")]);
    assert_eq!(count(&world.path("out.db")), 510);
    // A stale log beside the target would be taken for the new database's.
    let stale = Connection::open(world.path("out.db")).unwrap();
    stale.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    stale.execute("DELETE FROM t", []).unwrap();
    let in_use = world.fails(&["deploy", "one", &world.text("out.db"), "--yes"], 11, "in-use");
    assert!(in_use["message"].as_str().unwrap().contains("out.db"), "{in_use}");
    drop(stale);
    world.ok(&["deploy", "one", &world.text("out.db"), "--yes"]);
    assert_eq!(count(&world.path("out.db")), 510);
}

#[test]
fn rows_that_stand_in_the_log_of_the_target_are_undone() {
    let world = World::new();
    let path = world.path("hub.db");
    plant_database(&path, 300, 7);
    world.ok(&["create", "one", &format!("sqlite:{}", path.display())]);
    for mode in ["auto", "in-place", "swap"] {
        let target = world.path(&format!("{mode}.db"));
        let log = world.path(&format!("{mode}.db-wal"));
        world.ok(&["deploy", "one", target.to_str().unwrap()]);
        let file = fs::read(&target).unwrap();
        // What a killed writer leaves: the file as it was deployed, and beside it a log.
        let writer = Connection::open(&target).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        writer.execute("UPDATE t SET v = x'00' WHERE id = 150", []).unwrap();
        writer.execute("DELETE FROM t WHERE id > 290", []).unwrap();
        let (drifted, rows) = (fs::read(&target).unwrap(), fs::read(&log).unwrap());
        drop(writer);
        fs::write(&target, &drifted).unwrap();
        fs::write(&log, &rows).unwrap();
        let dry = ["deploy", "one", target.to_str().unwrap(), "--yes", "--mode", mode, "--dry-run"];
        assert_eq!(drifted, file, "{mode}: the file alone shows the drift");
        let rehearsed = world.json(&dry);
        assert!(rehearsed["warnings"][0].as_str().unwrap().contains("-wal"), "{rehearsed}");
        assert_eq!(fs::read(&log).unwrap(), rows, "{mode}: a rehearsal wrote");
        world.ok(&dry[..6]);
        assert_eq!(count(&target), 300, "{mode}");
        assert_eq!(fs::read(&target).unwrap(), file, "{mode}");
    }
}

#[test]
fn rows_that_stand_in_the_log_of_an_application_are_undone() {
    let world = standing_still("", 5);
    let (path, log) = (world.path("shop/shop.db"), world.path("shop/shop.db-wal"));
    world.ok(&["deploy", "shop/good", "--app", "shop", "--yes"]);
    let writer = Connection::open(&path).unwrap();
    writer.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    writer.execute("DELETE FROM t WHERE id > 2", []).unwrap();
    let (file, rows) = (fs::read(&path).unwrap(), fs::read(&log).unwrap());
    drop(writer);
    fs::write(&path, &file).unwrap();
    fs::write(&log, &rows).unwrap();
    world.ok(&["deploy", "shop/good", "--app", "shop", "--yes"]);
    assert_stands(&world, 5, 1);
}

#[test]
fn h14_rows_that_came_to_the_log_since_the_last_snapshot_are_captured() {
    for (app, class) in [("", ""), ("shop", "class = \"direct\""), ("shop", "")] {
        let world = World::new();
        fs::create_dir_all(world.path("shop/bucket")).unwrap();
        let path = world.path("shop/shop.db");
        plant_database(&path, 3000, 7);
        let config = configuration(&world.path("shop"), class, "").replace("while [ ! -e", "while false && [ ! -e");
        fs::write(world.path("copal.toml"), config).unwrap();
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        let source = format!("shop.db=sqlite:{}", path.display());
        let taken = |name: &str| match app {
            "" => world.ok(&["create", name, &source]),
            app => world.ok(&["create", name, "--app", app]),
        };
        taken("one");
        let file = fs::metadata(&path).unwrap().modified().unwrap();
        // The same pages: neither the file's length nor its time tells.
        writer.execute("UPDATE t SET v = ?1 WHERE id = 1500", [noise(9_999_999, 1000)]).unwrap();
        sleep(Duration::from_millis(50));
        taken("two");
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), file, "the log was not what was tested");
        let name = if app.is_empty() { "two" } else { "shop/two" };
        world.ok(&["deploy", name, &world.text("out"), "--path", "shop.db"]);
        let found: Vec<u8> = Connection::open(world.path("out"))
            .unwrap()
            .query_row("SELECT v FROM t WHERE id = 1500", [], |row| row.get(0))
            .unwrap();
        assert!(found == noise(9_999_999, 1000), "{app:?} {class:?}: a committed row is not in the snapshot");
    }
}

#[test]
fn h14_a_corrupt_database_is_never_a_snapshot() {
    let world = World::new();
    let path = world.path("hub.db");
    plant_database(&path, 2000, 1);
    Connection::open(&path).unwrap().pragma_update(None, "journal_mode", "delete").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    let source = format!("sqlite:{}", path.display());
    world.fails(&["create", "one", &source], 69, "source-damaged");
    bytes[..4096].fill(0);
    fs::write(&path, &bytes).unwrap();
    world.fails(&["create", "one", &source], 69, "source-damaged");
    assert_eq!(world.json(&["list"]), serde_json::json!([]));
}

#[test]
fn c1_one_percent_of_the_rows_changed_adds_little() {
    let world = World::new();
    let path = world.path("hub.db");
    plant_database(&path, 8000, 1);
    let source = format!("sqlite:{}", path.display());
    let first = world.json(&["create", "one", &source]);
    let writer = Connection::open(&path).unwrap();
    writer.execute("UPDATE t SET v = zeroblob(1000) WHERE id % 100 = 0", []).unwrap();
    let second = world.json(&["create", "two", &source]);
    let grown = |report: &Value| report["stored_new"].as_u64().unwrap();
    assert!(grown(&second) * 10 < grown(&first), "{} after {}", grown(&second), grown(&first));
}

#[test]
fn h15_v2_rows_and_objects_agree_after_a_capture_under_writes() {
    let world = World::new();
    let shop = Shop::open(&world.path("shop"));
    configure(&world, "max_snapshots = 3", "");
    for round in 0..3 {
        shop.wait_for_orders(40);
        let report = world.json(&["create", &format!("s{round}"), "--app", "shop"]);
        assert_eq!(report["phase"], "completed");
        assert_eq!(report["warnings"], serde_json::json!([]));
        assert!(!shop.is_paused());
        shop.wait_for_orders(1);
    }
    shop.end();
    let mut seen = Vec::new();
    for round in [1, 0, 2] {
        let name = format!("shop/s{round}");
        world.ok(&["deploy", &name, "--app", "shop", "--yes", "--no-safety"]);
        seen.push(assert_agreement(&world.path("shop/shop.db"), &world.path("shop/bucket")));
    }
    // Short-lived: the application was held while the sources were pinned, not while they were stored.
    let shown = world.json(&["show", "shop/s2"]);
    assert_eq!(shown["app"], "shop", "{shown}");
    assert_eq!(seen.len(), 3);
}

#[test]
fn h12_v8_a_killed_capture_is_failed_and_the_application_goes_on() {
    let world = World::new();
    let shop = Shop::open(&world.path("shop"));
    // A source that never ends holds the capture open.
    let slow = "[[app.shop.source]]\nkind = \"command\"\nlabel = \"slow\"\nargv = [\"/bin/sleep\", \"60\"]\n";
    configure(&world, "", slow);
    let mut child =
        world.command(&["create", "one", "--app", "shop"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !shop.is_paused() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the shop was never paused");
        sleep(Duration::from_millis(5));
    }
    sleep(Duration::from_millis(200));
    assert!(shop.is_paused());
    child.kill().unwrap();
    child.wait().unwrap();
    // The watchdog, not the next command: nothing else runs.
    shop.wait_for_orders(5);
    let found = status(&world);
    assert_eq!((found[0]["phase"].as_str(), found[0]["error"]["code"].as_str()), (Some("failed"), Some("killed")));
    assert_eq!(world.json(&["list"])[0]["phase"], "failed");
    world.fails(&["deploy", "shop/one", "--app", "shop", "--yes"], 79, "not-ready");
    configure(&world, "", "");
    world.ok(&["create", "one", "--app", "shop"]);
    assert_eq!(status(&world), Vec::<Value>::new());
}

#[test]
fn v8_a_capture_past_its_deadline_is_failed_and_the_application_goes_on() {
    let world = World::new();
    let shop = Shop::open(&world.path("shop"));
    let slow = "[[app.shop.source]]\nkind = \"command\"\nlabel = \"slow\"\nargv = [\"/bin/sleep\", \"5\"]\n";
    configure(&world, "", &slow.replace("\"5\"", "\"4\""));
    let text = fs::read_to_string(world.path("copal.toml")).unwrap();
    let text = text.replace("freeze_max = \"5s\"", "freeze_max = \"1s\"");
    // What pre hooks may take counts before the freeze.
    let text = text.replace("done\"]\n", "done\"]\ntimeout = \"1s\"\n");
    fs::write(world.path("copal.toml"), text).unwrap();
    let child = world.command(&["create", "one", "--app", "shop", "--json"]).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !shop.is_paused() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the shop was never paused");
        sleep(Duration::from_millis(5));
    }
    let paused = Instant::now();
    shop.wait_for_orders(3);
    assert!(paused.elapsed() < Duration::from_secs(4), "nobody let the shop go on before the capture ended");
    let run = support::finish(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.error()["code"].as_str()), (86, Some("freeze-broken")), "{run:#?}");
}

#[test]
fn v7_v8_hooks_have_deadlines_and_post_hooks_always_run() {
    let world = World::new();
    let shop = Shop::open(&world.path("shop"));
    let log = world.text("log");
    let note = |word: &str| format!("echo {word} >> {log}");
    configure(&world, "", &(hook("pre", &format!("{}; exit 3", note("pre"))) + &hook("post", &note("post"))));
    let error = world.fails(&["create", "one", "--app", "shop"], 86, "hook");
    assert!(error["message"].as_str().unwrap().contains("ended with 3"), "{error}");
    shop.wait_for_orders(2);
    assert!(fs::read_to_string(&log).unwrap().ends_with("pre\npost\n"));
    let late = hook("pre", "sleep 60").replace("\"2s\"", "\"300ms\"");
    configure(&world, "", &late);
    let begun = Instant::now();
    let error = world.fails(&["create", "one", "--app", "shop"], 86, "hook");
    assert!(error["message"].as_str().unwrap().contains("deadline"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    // A failure that does not count, and one that makes it a crash-consistent snapshot.
    configure(&world, "", &late.replace("timeout", "on_error = \"continue\"\ntimeout"));
    world.ok(&["create", "one", "--app", "shop"]);
    configure(&world, "consistency = \"crash\"", &late);
    world.ok(&["create", "two", "--app", "shop"]);
    shop.wait_for_orders(2);
}

#[test]
fn h11_an_application_that_holds_a_lock_past_the_deadline_is_no_snapshot() {
    let world = World::new();
    fs::create_dir_all(world.path("shop/bucket")).unwrap();
    plant_database(&world.path("shop/shop.db"), 3, 1);
    let log = world.text("log");
    // What holds a lock that keeps readers out, from the moment in which it should have held still: a writer
    // with a rollback journal.
    let database = Connection::open(world.path("shop/shop.db")).unwrap();
    database.pragma_update(None, "journal_mode", "delete").unwrap();
    drop(database);
    let holds = "rm -f held released
        (printf 'BEGIN EXCLUSIVE;\n.shell touch held\n'; while [ ! -e released ]; do sleep 0.01; done) |
            sqlite3 shop/shop.db > /dev/null 2>&1 &
        while [ ! -e held ]; do sleep 0.01; done";
    let calm = configuration(&world.path("shop"), "", "")
        .replace("freeze_max = \"5s\"", "freeze_max = \"1s\"")
        .replace("while [ ! -e", "while false && [ ! -e");
    let at = |script: &str| format!("cd {} && {script}", world.text(""));
    let config =
        calm.clone() + &hook("pre", &at(holds)) + &hook("post", &at(&format!("touch released && echo post >> {log}")));
    fs::write(world.path("copal.toml"), config).unwrap();
    world.fails(&["create", "one", "--app", "shop"], 11, "in-use");
    assert!(fs::read_to_string(&log).unwrap().contains("post"));
    assert_eq!(status(&world)[0]["error"]["code"], "in-use");
    fs::write(world.path("copal.toml"), calm).unwrap();
    world.ok(&["create", "one", "--app", "shop"]);
}

/// An upload that was killed when half of it had been made to last and before its root stood, and what its
/// packs took at that moment. `None`: the kill came too late.
fn upload_killed_at_half(rows: u64) -> Option<(World, u64)> {
    let world = World::new();
    fs::create_dir_all(world.path("shop/bucket")).unwrap();
    plant_database(&world.path("shop/shop.db"), rows, 1);
    let config = configuration(&world.path("shop"), "", "").replace("while [ ! -e", "while false && [ ! -e");
    fs::write(world.path("copal.toml"), config).unwrap();
    let mut child = world
        .command(&["create", "one", "--app", "shop", "--threads", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let mut wait_until = |done: &dyn Fn() -> bool| {
        while !done() && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing was made to last");
            sleep(Duration::from_millis(2));
        }
    };
    wait_until(&|| packs_bytes(&world) >= rows * 1000 / 2);
    let lasting = world.objects_in("index").len();
    wait_until(&|| world.objects_in("index").len() > lasting);
    child.kill().unwrap();
    let killed = !child.wait().unwrap().success();
    let sent = packs_bytes(&world);
    (killed && world.objects_in("snapshots").is_empty()).then_some((world, sent))
}

/// What all packs take together.
fn packs_bytes(world: &World) -> u64 {
    world.objects_in("packs").iter().filter_map(|pack| Some(pack.metadata().ok()?.len())).sum()
}

#[test]
fn v9_an_upload_killed_at_half_goes_on_and_sends_under_60_percent() {
    let rows: u64 = 160_000;
    let (world, sent) = (0..20).find_map(|_| upload_killed_at_half(rows)).expect("of twenty kills one comes in time");
    let found = status(&world);
    assert_eq!((found[0]["phase"].as_str(), found[0]["resumable"].as_bool()), (Some("uploading"), Some(true)));
    world.fails(&["deploy", "shop/one", "--app", "shop", "--yes"], 79, "not-ready");
    // What comes after the capture is no part of it.
    let writer = Connection::open(world.path("shop/shop.db")).unwrap();
    writer.execute("DELETE FROM t WHERE id > 10", []).unwrap();
    drop(writer);
    let report = world.json(&["create", "one", "--app", "shop"]);
    let (bytes, new) = (report["bytes"].as_u64().unwrap(), report["bytes_new"].as_u64().unwrap());
    assert!(new * 10 < bytes * 6, "{new} of {bytes} bytes were sent again");
    let grown = packs_bytes(&world) - sent;
    assert!(grown * 10 < bytes * 6, "the repository has grown by {grown} of {bytes} bytes");
    assert!(world.fails(&["create", "one", "--app", "shop"], 86, "name-taken")["message"].is_string());
    world.ok(&["deploy", "shop/one", "--app", "shop", "--yes"]);
    assert_eq!(count(&world.path("shop/shop.db")), rows as i64);
    assert_eq!(status(&world).iter().filter(|record| record["phase"] != "failed").count(), 0);
}

#[test]
fn e9_e10_the_oldest_goes_after_the_new_one_is_there_and_pinned_ones_stay() {
    let world = World::new();
    let shop = Shop::open(&world.path("shop"));
    configure(&world, "max_snapshots = 1", "");
    let names = || -> Vec<String> {
        let listed = world.json(&["list"]);
        let completed = listed.as_array().unwrap().iter().filter(|one| one["phase"] == "completed");
        completed.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    world.ok(&["create", "s1", "--app", "shop"]);
    configure(&world, "max_snapshots = 1", &hook("pre", "exit 1"));
    world.fails(&["create", "s2", "--app", "shop"], 86, "hook");
    assert_eq!(names(), ["s1"]);
    configure(&world, "max_snapshots = 1", "");
    world.ok(&["create", "s2", "--app", "shop"]);
    assert_eq!(names(), ["s2"]);
    world.ok(&["pin", "shop/s2"]);
    world.ok(&["create", "s3", "--app", "shop"]);
    world.ok(&["create", "s4", "--app", "shop"]);
    assert_eq!(names(), ["s2", "s4"]);
    shop.end();
    world.ok(&["deploy", "shop/s4", "--app", "shop", "--yes"]);
    assert_eq!(names().len(), 3, "a safety snapshot does not count");
}

/// A shop that stands still, with a snapshot `good` of 5 rows at schema version 5, and now 9 rows at
/// `version`.
fn standing_still(more: &str, version: i64) -> World {
    let world = World::new();
    fs::create_dir_all(world.path("shop/bucket")).unwrap();
    fs::write(world.path("shop/bucket/a"), b"old").unwrap();
    plant_database(&world.path("shop/shop.db"), 5, 5);
    let config = configuration(&world.path("shop"), "", more).replace("while [ ! -e", "while false && [ ! -e");
    fs::write(world.path("copal.toml"), config).unwrap();
    world.ok(&["create", "good", "--app", "shop"]);
    plant_database(&world.path("shop/shop.db"), 4, version);
    fs::write(world.path("shop/bucket/a"), b"newer").unwrap();
    fs::write(world.path("shop/bucket/b"), b"new").unwrap();
    world
}

#[track_caller]
fn assert_stands(world: &World, rows: i64, objects: usize) {
    assert_eq!(count(&world.path("shop/shop.db")), rows);
    assert_eq!(fs::read_dir(world.path("shop/bucket")).unwrap().count(), objects);
    let left = left_beside(&world.path("shop"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn h9_a_newer_schema_is_refused_and_an_older_one_migrated() {
    let newer = standing_still("", 4);
    let standing = || (fs::read(newer.path("shop/shop.db")).unwrap(), support::look(&newer.path("shop/bucket")));
    let before = standing();
    newer.fails(&["deploy", "shop/good", "--app", "shop", "--yes"], 79, "schema-newer");
    assert!(standing() == before, "the refusal touched something");
    let log = "migrated";
    let migrate = hook(
        "migrate",
        &format!("echo $COPAL_SCHEMA_FROM $COPAL_SCHEMA_TO > {log}; sqlite3 shop/shop.db 'PRAGMA user_version = 6'"),
    );
    let older = standing_still(&migrate, 6);
    let digest = older.json(&["show", "shop/good"])["digest"].clone();
    let report = older.json(&["deploy", "shop/good", "--app", "shop", "--yes"]);
    assert_eq!(report["migrated"], true);
    assert_eq!(fs::read_to_string(older.path(log)).unwrap(), "5 6\n");
    assert_stands(&older, 5, 1);
    assert_eq!(older.json(&["show", "shop/good"])["digest"], digest, "the snapshot was altered");
    // What stood there is a snapshot now.
    older.ok(&["deploy", report["safety"].as_str().unwrap(), "--app", "shop", "--yes"]);
    assert_stands(&older, 9, 2);
}

#[test]
fn h15_paths_are_rewritten_by_a_hook() {
    let rewrite = hook("rewrite", "echo $COPAL_OLD_BUCKET $COPAL_NEW_BUCKET > rewritten");
    let world = standing_still(&rewrite, 5);
    world.ok(&["deploy", "shop/good", "--app", "shop", "--yes"]);
    let bucket = world.text("shop/bucket");
    assert_eq!(fs::read_to_string(world.path("rewritten")).unwrap(), format!("{bucket} {bucket}\n"));
}

#[test]
fn e12_an_unhealthy_deploy_is_rolled_back() {
    for (when, script) in [("health", "exit 1"), ("rewrite", "exit 2")] {
        let world = standing_still(&(hook("stop", "echo stop >> log") + &hook(when, script)), 5);
        let error = world.fails(&["deploy", "shop/good", "--app", "shop", "--yes", "--no-safety"], 79, "hook");
        assert!(error["message"].as_str().unwrap().contains("stands there again"), "{error}");
        assert_stands(&world, 9, 2);
        let stops = fs::read_to_string(world.path("log")).unwrap().lines().count();
        assert!(stops >= 2, "{when}: stopped {stops} times");
    }
    let world = standing_still(&hook("start", "if [ -e started ]; then exit 0; fi; touch started; exit 1"), 5);
    let run = world.run(&["deploy", "shop/good", "--app", "shop", "--yes"]);
    assert_eq!(run.code, 79, "{run:#?}");
    assert_stands(&world, 9, 2);
}

#[test]
fn h13_a_damaged_database_is_replaced() {
    let world = standing_still("", 5);
    let path = world.path("shop/shop.db");
    fs::write(&path, vec![0; 100_000]).unwrap();
    world.json(&["list"]);
    let report = world.json(&["deploy", "shop/good", "--app", "shop", "--yes"]);
    assert!(!report["warnings"].as_array().unwrap().is_empty(), "{report}");
    assert_stands(&world, 5, 1);
    fs::write(&path, vec![0; 100_000]).unwrap();
    world.ok(&["deploy", "good", &world.text("elsewhere"), "--yes"]);
    assert_eq!(count(&world.path("elsewhere/shop.db")), 5);
}

#[test]
fn h16_a_killed_deploy_is_wholly_old_or_wholly_new() {
    let world = standing_still(&(hook("stop", "sleep 0.02") + &hook("start", "sleep 0.02")), 5);
    world.ok(&["create", "other", "--app", "shop"]);
    let (mut budget, mut random) = Budget::new("deploy of an application");
    let mut turn = 0;
    while budget.lasts() {
        turn += 1;
        let (name, rows) = if turn % 2 == 0 { ("good", 5) } else { ("other", 9) };
        let before = count(&world.path("shop/shop.db"));
        let deploy = world.command(&["deploy", name, "--app", "shop", "--yes", "--no-safety"]);
        let run = run_and_kill(deploy, Duration::from_millis(random.below(400)));
        budget.count(&run);
        world.json(&["status"]);
        let now = count(&world.path("shop/shop.db"));
        assert!(now == before || now == rows, "{now} rows are neither {before} nor {rows}");
        assert_stands(&world, now, if now == 5 { 1 } else { 2 });
    }
}

#[test]
fn a_secret_is_sealed_once_more_and_put_back() {
    let world = World::new();
    fs::write(world.path("token"), b"very secret words").unwrap();
    let path = world.text("token");
    let config = format!("[app.a]\n[[app.a.source]]\nkind = \"secret\"\nlabel = \"token\"\npath = {path:?}\n");
    fs::write(world.path("copal.toml"), config).unwrap();
    world.ok(&["create", "one", "--app", "a"]);
    // What is stored is the wrapped form, longer by its head and its tag.
    assert_eq!(world.json(&["show", "a/one"])["sources"][0]["bytes"], 17 + 53);
    fs::write(world.path("token"), b"others").unwrap();
    world.ok(&["deploy", "a/one", "--app", "a", "--yes", "--no-safety"]);
    assert_eq!(fs::read(world.path("token")).unwrap(), b"very secret words");
}

#[test]
fn a7_commands_images_and_trees_with_include_are_sources() {
    let world = World::new();
    fs::create_dir_all(world.path("tree")).unwrap();
    for name in ["one.txt", "two.txt", "three.log"] {
        fs::write(world.path("tree").join(name), name).unwrap();
    }
    let image = fs::File::create(world.path("disk")).unwrap();
    image.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&image, &noise(1, 200_000), 3 << 20).unwrap();
    let config = format!(
        "[app.a]\n[[app.a.source]]\nkind = \"tree\"\npath = {:?}\nexclude = [\"*\"]\ninclude = [\"one.txt\"]\n\
         [[app.a.source]]\nkind = \"image\"\npath = {:?}\n\
         [[app.a.source]]\nkind = \"command\"\nargv = [\"/bin/echo\", \"hello\"]\nrestore = [\"/usr/bin/tee\", {:?}]\n",
        world.text("tree"),
        world.text("disk"),
        world.text("fed")
    );
    fs::write(world.path("copal.toml"), config).unwrap();
    let report = world.json(&["create", "one", "--app", "a"]);
    assert_eq!(report["files"], 3, "{report}");
    assert_eq!(world.ok(&["dump", "a/one", "command"]), "hello\n");
    world.ok(&["deploy", "a/one", &world.text("out")]);
    let restored = fs::read(world.path("out/disk")).unwrap();
    assert_eq!(restored, fs::read(world.path("disk")).unwrap());
    let blocks = std::os::unix::fs::MetadataExt::blocks(&world.path("out/disk").metadata().unwrap());
    assert!(blocks * 512 < 1 << 20, "holes were filled: {blocks} blocks");
    world.ok(&["deploy", "a/one", "--app", "a", "--yes"]);
    assert_eq!(fs::read_to_string(world.path("fed")).unwrap(), "hello\n");
    // What the rules left out is not in the snapshot, and stays where it is.
    assert_eq!(fs::read_dir(world.path("out/tree")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(world.path("tree")).unwrap().count(), 3);
}

#[test]
fn e15_a_tree_on_xfs_is_cloned_under_the_freeze() {
    let mounted = copal_sim::mounts::Mounted::new(copal_sim::mounts::Filesystem::Xfs, 400).unwrap();
    let world = World::beneath(mounted.path());
    world.ok(&["init"]);
    let shop = Shop::open(&world.path("shop"));
    fs::write(world.path("shop/bucket/large"), noise(5, 20 << 20)).unwrap();
    configure(&world, "", "");
    world.ok(&["create", "one", "--app", "shop"]);
    shop.wait_for_orders(30);
    world.ok(&["create", "two", "--app", "shop"]);
    shop.wait_for_orders(1);
    shop.end();
    let shown = world.json(&["show", "shop/two"]);
    assert!(shown.to_string().contains("\"clone\""), "{shown}");
    fs::remove_file(world.path("shop/bucket/large")).unwrap();
    let report = world.json(&["deploy", "shop/two", "--app", "shop", "--yes"]);
    fs::remove_file(world.path("shop/bucket/large")).unwrap();
    assert_agreement(&world.path("shop/shop.db"), &world.path("shop/bucket"));
    assert!(report["down_ms"].is_u64());
}
