//! Goal: a daemon knows within a moment which keys count: what is added, rotated and removed beside it, on
//! this machine or another one. Method: the built program; keys changed by commands while the daemon runs,
//! from a machine with folders of its own; nothing comes or goes in the repository meanwhile but keys.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use daemon::{Daemon, PATIENCE};
use reqwest::Method;
use serde_json::{Value, json};
use support::{World, files_below, finish, noise};

fn application() -> World {
    let world = World::new();
    fs::create_dir(world.path("data")).unwrap();
    fs::write(world.path("data/f"), b"one").unwrap();
    let source = "[[app.a.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = \"data\"\n";
    fs::write(world.path("copal.toml"), format!("[app.a]\ndefault = true\n{source}")).unwrap();
    fs::write(world.path("robot"), noise(7, 32)).unwrap();
    // Creating keys need an epoch of their own kind.
    world.ok(&["key", "rotate"]);
    world
}

/// On another machine: only what stands in the repository tells the daemon.
fn elsewhere(world: &World, words: &[&str]) {
    let run = finish(world.elsewhere(words).output().unwrap());
    assert_eq!(run.code, 0, "{words:?}: {run:#?}");
}

/// Asks until the answer is the wanted one: what another process changes is seen within a moment.
#[track_caller]
fn within_a_moment(what: &str, asked: impl Fn() -> Value, wanted: &Value) {
    let begun = Instant::now();
    let mut last = asked();
    while last != *wanted && begun.elapsed() < PATIENCE {
        sleep(Duration::from_millis(50));
        last = asked();
    }
    assert_eq!(last, *wanted, "{what}");
}

/// What this machine remembers of the keys.
fn remembered(world: &World) -> Vec<Vec<u8>> {
    let folder = world.path("state").join("copal/known-keys");
    files_below(&folder).iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn t03_a_removed_key_is_not_the_latest_for_a_daemon_that_runs() {
    let world = application();
    world.create("mine", "--app=a");
    elsewhere(&world, &["key", "add", "--label", "robot", "--role", "create", "--new-key-file", "robot"]);
    let daemon = Daemon::start(&world, &[]);
    let latest = || daemon.json("/snapshots/latest")["name"].clone();
    assert_eq!(latest(), "mine");
    let as_robot = ["create", "newest", "--app", "a", "--key-file", "robot"];
    elsewhere(&world, &as_robot);
    within_a_moment("a creating key's is the latest", latest, &json!("newest"));
    let before = remembered(&world);
    // Nothing but the keys changes, and no operation runs in the daemon.
    elsewhere(&world, &["key", "remove", "robot"]);
    within_a_moment("a removed key's is not", latest, &json!("mine"));
    assert_ne!(remembered(&world), before, "what the daemon has learnt is not remembered");
    // By its name it is still to be had, and a deploy of the latest is of the owner's.
    assert_eq!(daemon.json("/snapshots/newest")["name"], "newest");
    fs::write(world.path("data/f"), b"changed").unwrap();
    let done = daemon.done("/snapshots/latest/deploy");
    assert!(done.to_string().contains("mine"), "{done}");
    assert_eq!(fs::read(world.path("data/f")).unwrap(), b"one");
}

#[test]
fn t03_a_daemon_takes_up_new_keys_and_seals_with_them() {
    let world = application();
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/before");
    elsewhere(&world, &["key", "add", "--label", "robot", "--role", "create", "--new-key-file", "robot"]);
    elsewhere(&world, &["key", "rotate"]);
    elsewhere(&world, &["create", "robot", "--app", "a", "--key-file", "robot"]);
    within_a_moment("what another key takes is listed", || json!(names(&daemon)), &json!(["before", "robot"]));
    fs::write(world.path("data/f"), b"two").unwrap();
    daemon.done("/snapshots/after");
    // All of it is sealed with the newest keys: sealing again finds nothing of the daemon's to do.
    elsewhere(&world, &["key", "remove", "robot"]);
    elsewhere(&world, &["key", "rotate", "--reseal"]);
    daemon.done("/snapshots/last");
    assert_eq!(names(&daemon), ["before", "robot", "after", "last"]);
    let resealed: Value =
        serde_json::from_slice(&finish(world.elsewhere(&["key", "reseal", "--json"]).output().unwrap()).stdout)
            .unwrap();
    assert_eq!((&resealed["roots"], &resealed["packs"]), (&json!(0), &json!(0)), "{resealed}");
    // Search, verification and retention go on, too.
    assert_eq!(daemon.get("/snapshots/after/entries?path=data").status(), 200);
    daemon.done("/repository/verify");
    world.ok(&["verify"]);
    world.ok(&["deploy", "a/last", &world.text("out")]);
    assert_eq!(fs::read(world.path("out/data/f")).unwrap(), b"two");
}

#[test]
fn t03_a_daemon_whose_own_key_was_removed_serves_nothing_more() {
    let world = application();
    elsewhere(&world, &["key", "add", "--label", "daemon", "--new-key-file", "robot"]);
    let mut command = world.command(&["serve", "--no-auth", "--rate", "0", "--listen", "127.0.0.1:0"]);
    command.env("COPAL_KEY_FILE", world.path("robot"));
    let daemon = Daemon::of(command);
    daemon.done("/snapshots/one");
    elsewhere(&world, &["key", "remove", "daemon"]);
    within_a_moment("it has no key any more", || json!(daemon.get("/snapshots").status().as_u16()), &json!(409));
    let problem: Value = daemon.get("/snapshots").json().unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("was removed"), "{problem}");
    assert_ne!(daemon.post("/snapshots/two?wait=true").status(), 201);
    assert_eq!(world.json(&["list"]).as_array().unwrap().len(), 1);
}

/// What can be asked of a daemon without changing anything, and the status of each answer.
fn asked(daemon: &Daemon) -> Vec<(&'static str, u16)> {
    let paths = [
        "/snapshots",
        "/snapshots?name=e",
        "/snapshots/one",
        "/snapshots/one/entries?path=data",
        "/snapshots/one/content?path=data/f",
        "/snapshots/one/diff",
        "/stats",
    ];
    paths.into_iter().map(|path| (path, daemon.get(path).status().as_u16())).collect()
}

#[test]
fn t03_all_that_a_daemon_answers_goes_on_beside_changes_of_keys_and_ends_with_its_own() {
    let world = application();
    elsewhere(&world, &["key", "add", "--label", "daemon", "--new-key-file", "robot"]);
    fs::write(world.path("bert"), noise(8, 32)).unwrap();
    elsewhere(&world, &["key", "add", "--label", "bert", "--role", "create", "--new-key-file", "bert"]);
    let mut command = world.command(&["serve", "--no-auth", "--rate", "0", "--listen", "127.0.0.1:0"]);
    command.env("COPAL_KEY_FILE", world.path("robot"));
    let daemon = Daemon::of(command);
    daemon.done("/snapshots/one");
    for change in [
        &["key", "rotate"][..],
        &["key", "rotate", "--reseal"],
        &["key", "remove", "bert"],
        &["key", "rotate", "--reseal"],
        &["verify", "--repair"],
    ] {
        elsewhere(&world, change);
        let failed: Vec<_> = asked(&daemon).into_iter().filter(|(_, status)| *status != 200).collect();
        assert!(failed.is_empty(), "after {change:?}: {failed:?}");
    }
    elsewhere(&world, &["key", "remove", "daemon"]);
    let own = || json!(asked(&daemon).iter().all(|(_, status)| *status == 409));
    within_a_moment("nothing of the repository is answered", own, &json!(true));
    for what in ["/snapshots/one/deploy", "/repository/collect", "/repository/verify", "/snapshots/two"] {
        let status = daemon.post(&format!("{what}?wait=true")).status();
        assert!(status.is_client_error(), "{what}: {status}");
    }
    assert_eq!(daemon.get("/healthz").status(), 503);
}

#[test]
fn t02_retention_of_a_daemon_counts_what_a_removed_key_signed_for_nothing() {
    let world = application();
    let config = fs::read_to_string(world.path("copal.toml")).unwrap();
    fs::write(world.path("copal.toml"), format!("{config}[app.a.retention]\nkeep_last = 2\n")).unwrap();
    elsewhere(&world, &["key", "add", "--label", "bert", "--role", "create", "--new-key-file", "robot"]);
    for name in ["mine 1", "mine 2"] {
        world.ok(&["create", name, "--app=a"]);
    }
    let daemon = Daemon::start(&world, &[]);
    for number in 1..4 {
        elsewhere(&world, &["create", &format!("theirs {number}"), "--app=a", "--key-file", "robot"]);
    }
    assert_eq!(names(&daemon).len(), 5);
    elsewhere(&world, &["key", "remove", "bert"]);
    // The daemon has listed them while the key counted, and applies the rules now.
    let body = json!({ "retention": true });
    let collected = daemon.request(Method::POST, "/repository/collect?wait=true").json(&body).send().unwrap();
    assert_eq!(collected.status(), 200);
    assert_eq!(names(&daemon), ["mine 1", "mine 2", "theirs 1", "theirs 2", "theirs 3"]);
    daemon.done("/snapshots/mine3");
    let collected = daemon.request(Method::POST, "/repository/collect?wait=true").json(&body).send().unwrap();
    assert_eq!(collected.status(), 200);
    assert_eq!(names(&daemon), ["mine 2", "theirs 1", "theirs 2", "theirs 3", "mine3"]);
}

/// As they were taken.
fn names(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.json("/snapshots");
    let mut listed: Vec<(String, String)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["created"].as_str().unwrap().to_owned(), one["name"].as_str().unwrap().to_owned()))
        .collect();
    listed.sort();
    listed.into_iter().map(|(_, name)| name).collect()
}
