//! Goal: a daemon that is killed in the middle of a create, an upload, a deploy, an import or a deletion
//! leaves nothing half done, and the next one goes on. Method: the built program, SIGKILL, what stands on
//! disk looked at before and after the next start.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use daemon::{Daemon, PATIENCE, sql};
use reqwest::blocking::multipart::Form;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::World;
use support::kill::{Budget, Random};

/// A database and a bucket; `more` are further lines of the configuration.
fn hub(more: &str) -> World {
    let world = World::new();
    fs::create_dir_all(world.path("hub/bucket")).unwrap();
    fs::write(
        world.path("copal.toml"),
        format!(
            "[app.hub]\ndefault = true\n\
             [[app.hub.source]]\nkind = \"sqlite\"\nlabel = \"hub.db\"\npath = \"hub/hub.db\"\n\
             [[app.hub.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = \"hub/bucket\"\n{more}"
        ),
    )
    .unwrap();
    world
}

fn fill(world: &World, rows: u64) {
    let statement = format!(
        "pragma journal_mode = wal; drop table if exists t; create table t (id integer primary key, v blob); \
         with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows}) \
         insert into t select i, randomblob(1000) from n;"
    );
    sql(&world.path("hub/hub.db"), &statement);
    let _ = fs::remove_dir_all(world.path("hub/bucket"));
    fs::create_dir_all(world.path("hub/bucket")).unwrap();
    for object in 0..rows.min(9) {
        fs::write(world.path(&format!("hub/bucket/{object}")), format!("{object} of {rows}")).unwrap();
    }
}

fn rows(world: &World) -> u64 {
    let database = Connection::open(world.path("hub/hub.db")).unwrap();
    let rows: i64 = database.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    rows.unsigned_abs()
}

/// Database and bucket are of one snapshot; of how many rows.
#[track_caller]
fn whole(world: &World) -> u64 {
    let rows = rows(world);
    let objects = fs::read_dir(world.path("hub/bucket")).unwrap().count() as u64;
    assert_eq!(objects, rows.min(9), "the bucket is of another snapshot than the database");
    for object in 0..objects {
        let content = fs::read_to_string(world.path(&format!("hub/bucket/{object}"))).unwrap();
        assert_eq!(content, format!("{object} of {rows}"));
    }
    rows
}

fn operation_of(response: &reqwest::blocking::Response) -> String {
    response.headers()["x-operation"].to_str().unwrap().to_owned()
}

#[track_caller]
fn succeeds(daemon: &Daemon, id: &str) -> Value {
    let ended = daemon.json(&format!("/operations/{id}?wait=60"));
    assert_eq!(ended["state"], "succeeded", "{ended}");
    ended
}

#[test]
fn h14_rows_of_the_log_come_back_and_a_damaged_database_is_never_completed() {
    let world = hub("");
    fill(&world, 12);
    let writer = Connection::open(world.path("hub/hub.db")).unwrap();
    writer.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    for _ in 0..500 {
        writer.execute("INSERT INTO t (v) VALUES (zeroblob(900))", []).unwrap();
    }
    assert!(world.path("hub/hub.db-wal").metadata().unwrap().len() > 400_000);
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/good");
    drop(writer);
    let bytes = fs::read(world.path("hub/hub.db")).unwrap();
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2..][..8192].fill(0x5a);
    for content in [damaged, vec![0; bytes.len()]] {
        fs::write(world.path("hub/hub.db"), content).unwrap();
        let refused = daemon.post("/snapshots/bad?wait=true");
        let problem: Value = refused.json().unwrap();
        assert_eq!((&problem["code"], &problem["exit_code"]), (&json!("source-damaged"), &json!(69)), "{problem}");
        assert_eq!(daemon.json("/snapshots").as_array().unwrap().len(), 1);
    }
    daemon.done("/snapshots/good/deploy");
    assert_eq!(rows(&world), 512);
    assert_eq!(sql(&world.path("hub/hub.db"), "pragma integrity_check"), "ok");
}

#[test]
fn rows_that_stand_in_the_log_alone_are_no_reason_to_say_that_nothing_will_change() {
    // With a hook that would stop whoever has the database open: without one the deploy is refused, and the
    // page with it.
    let world = hub("[[app.hub.hook]]\nwhen = \"stop\"\nargv = [\"/bin/true\"]\n");
    fill(&world, 12);
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/good");
    let preview = daemon.json("/snapshots/good/diff");
    assert_eq!((&preview["changed"], &preview["uncompared"]), (&json!([]), &json!([])));
    let writer = Connection::open(world.path("hub/hub.db")).unwrap();
    writer.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    writer.execute("UPDATE t SET v = x'00'", []).unwrap();
    let preview = daemon.json("/snapshots/good/diff");
    assert_eq!((&preview["changed"], &preview["uncompared"]), (&json!([]), &json!(["hub.db"])), "{preview}");
    let page = daemon.get("/ui/apps/hub/snapshots/good/deploy").text().unwrap();
    assert!(page.contains("without a comparison: hub.db.") && !page.contains("Nothing will change"), "{page}");
    assert!(!page.contains("This will change"), "{page}");
}

#[test]
fn h16_a_deploy_whose_daemon_is_killed_is_wholly_old_or_wholly_new_and_then_done() {
    let hook = |when: &str| format!("[[app.hub.hook]]\nwhen = \"{when}\"\nargv = [\"/bin/sleep\", \"0.02\"]\n");
    let world = hub(&(hook("stop") + &hook("start")));
    let mut daemon = Daemon::start(&world, &[]);
    let snapshots = [("small", 5), ("large", 3000)];
    for (name, rows) in snapshots {
        fill(&world, rows);
        daemon.done(&format!("/snapshots/{name}"));
    }
    let (mut budget, mut random) = Budget::new("deploy by the daemon");
    let mut span = Duration::from_millis(400);
    for turn in 0.. {
        if !budget.lasts() {
            break;
        }
        let (name, wanted) = snapshots[turn % 2];
        let before = whole(&world);
        let begun = Instant::now();
        let id = operation_of(&daemon.post(&format!("/snapshots/{name}/deploy")));
        std::thread::sleep(random.moment(span));
        let ended = daemon.json(&format!("/operations/{id}"))["state"] == "succeeded";
        daemon.kill();
        budget.note(!ended);
        if ended {
            // Later kills come earlier: they are meant to meet something.
            span = span.min(begun.elapsed());
        }
        // Whoever comes first ends what was begun: here the program.
        world.json(&["status"]);
        let now = whole(&world);
        assert!(now == before || now == wanted, "{now} rows are neither {before} nor {wanted}");
        daemon = Daemon::start(&world, &[]);
        succeeds(&daemon, &id);
        assert_eq!(whole(&world), wanted);
    }
    assert!(budget.killed > 0, "no kill met a deploy");
}

#[test]
fn v09_an_upload_whose_daemon_is_killed_at_one_half_goes_on_and_sends_less_than_sixty_percent() {
    // With a hook that holds the application still: then the bucket is stored by itself, and the upload is
    // the database's.
    let world = hub("[[app.hub.hook]]\nwhen = \"pre\"\nargv = [\"/bin/true\"]\n");
    fill(&world, 200_000);
    let bytes = world.path("hub/hub.db").metadata().unwrap().len();
    let mut sent = None;
    for attempt in 0..5 {
        let daemon = Daemon::start(&world, &["--threads", "1"]);
        let name = format!("upload-{attempt}");
        // Nothing of it is known from an attempt before.
        sql(&world.path("hub/hub.db"), "update t set v = randomblob(1000)");
        let id = operation_of(&daemon.post(&format!("/snapshots/{name}")));
        let reached = wait_for_half(&daemon, &id, bytes);
        daemon.kill();
        let daemon = Daemon::start(&world, &[]);
        let ended = succeeds(&daemon, &id);
        if !reached || ended["attempts"] == 1 {
            continue;
        }
        // What comes after the capture is no part of it.
        let result = &ended["result"];
        assert_eq!(result["snapshot"]["name"], name, "{ended}");
        let again = result["bytes_new"].as_u64().unwrap();
        println!("killed at one half of {bytes} bytes: {} percent were sent again", again * 100 / bytes);
        assert!(again < bytes, "everything was sent again");
        if again * 100 >= bytes * 60 {
            // A disk that others keep busy had not made the half last yet.
            continue;
        }
        sent = Some(again);
        sql(&world.path("hub/hub.db"), "delete from t where id > 10");
        daemon.done(&format!("/snapshots/{name}/deploy"));
        assert_eq!(rows(&world), 200_000);
        assert_eq!(daemon.json("/apps/hub/captures"), json!([]));
        break;
    }
    assert!(sent.is_some(), "of five kills none came in time and sent less than sixty percent again");
}

/// Until one half of the upload is done; whether it was still under way.
fn wait_for_half(daemon: &Daemon, id: &str, bytes: u64) -> bool {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE);
        let now = daemon.json(&format!("/operations/{id}"));
        let progress = &now["progress"];
        let number = |field: &str| progress[field].as_u64().unwrap_or(0);
        if now["state"] != "running" && now["state"] != "queued" {
            return false;
        }
        // The bucket is stored by itself, before.
        if progress["phase"] == "storing" && number("bytes_done") * 2 >= bytes {
            return true;
        }
    }
}

#[test]
fn h12_imports_and_deletions_of_a_killed_daemon_are_ended_by_the_next() {
    let world = hub("");
    fill(&world, 20_000);
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/first");
    let body = json!({ "password": "p", "format": "native" });
    let bundle = daemon.request(reqwest::Method::POST, "/snapshots/first/export").json(&body).send().unwrap();
    fs::write(world.path("bundle"), bundle.bytes().unwrap()).unwrap();
    drop(daemon);
    let mut random = Random(7);
    let mut imported = 0;
    for round in 0..4u64 {
        let daemon = Daemon::start(&world, &[]);
        let name = format!("import-{round}");
        let form = Form::new().text("password", "p").file("file", world.path("bundle")).unwrap();
        let path = format!("/snapshots/import/{name}?wait=0");
        let accepted = daemon.request(reqwest::Method::POST, &path).multipart(form).send().unwrap();
        assert_eq!(accepted.status(), 202);
        let import = operation_of(&accepted);
        std::thread::sleep(Duration::from_millis(random.below(60)));
        daemon.kill();
        let daemon = Daemon::start(&world, &[]);
        let ended = daemon.json(&format!("/operations/{import}?wait=60"));
        let there = daemon.get(&format!("/snapshots/{name}")).status() == 200;
        if ended["state"] == "succeeded" {
            assert!(there, "{ended}");
            imported += 1;
        } else {
            assert_eq!(ended["error"]["code"], "interrupted", "{ended}");
            assert!(!there, "a bundle that was to be sent again is there: {ended}");
        }
        assert!(uploads(&world).is_empty(), "an upload stays behind");
        if there {
            let path = format!("/snapshots/{name}?wait=0");
            let deletion = operation_of(&daemon.request(reqwest::Method::DELETE, &path).send().unwrap());
            daemon.kill();
            let daemon = Daemon::start(&world, &[]);
            succeeds(&daemon, &deletion);
            assert_eq!(daemon.get(&format!("/snapshots/{name}")).status(), 404);
        }
    }
    println!("{imported} of 4 imports came before their kill");
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/repository/verify");
    daemon.done("/snapshots/first/deploy");
    assert_eq!(rows(&world), 20_000);
}

fn uploads(world: &World) -> Vec<std::ffi::OsString> {
    let serve = world.path("state/copal/serve");
    let state = fs::read_dir(serve).unwrap().next().unwrap().unwrap().path();
    names(&state.join("uploads"))
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn v11_what_is_canceled_ends_and_earlier_snapshots_verify() {
    let world = hub("");
    fill(&world, 60_000);
    let daemon = Daemon::start(&world, &["--threads", "1"]);
    daemon.done("/snapshots/before");
    sql(&world.path("hub/hub.db"), "update t set v = randomblob(1000)");
    // Two behind it: they know their places, and one of them is called off while it waits.
    let first = operation_of(&daemon.post("/snapshots/first"));
    let second = daemon.post("/snapshots/second");
    let third = daemon.post("/snapshots/third");
    let position = |id: &str| daemon.json(&format!("/operations/{id}"))["position"].clone();
    let (second, third) = (operation_of(&second), operation_of(&third));
    assert_eq!((position(&second), position(&third)), (json!(1), json!(2)));
    let canceled = |id: &str| daemon.post(&format!("/operations/{id}/cancel")).json::<Value>().unwrap();
    assert_eq!(canceled(&second)["state"], "canceled");
    assert_eq!(position(&third), json!(1));
    canceled(&first);
    let ended = daemon.json(&format!("/operations/{first}?wait=60"));
    assert_eq!((&ended["state"], &ended["error"]["exit_code"]), (&json!("canceled"), &json!(130)), "{ended}");
    succeeds(&daemon, &third);
    let listed = daemon.json("/snapshots");
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["third", "before"]);
    daemon.done("/repository/verify");
    // What was refused for its name is free again.
    daemon.done("/snapshots/first");
}
