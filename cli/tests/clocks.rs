//! Goal: a snapshot that is dated in the future pushes nothing out and is not taken for the latest without a
//! word (row D13). Method: the engine makes it with a clock that is wrong, as a machine with an empty battery
//! would; the built program does the rest.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;
use std::sync::Arc;

use copal_engine::context::{Clock, Context, SilentMonitor};
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_manifest::entry::Timestamp;
use copal_store::entropy::OsEntropy;
use copal_store::keys::Credential;
use copal_store::local::LocalBackend;
use copal_store::repository::Repository;
use daemon::Daemon;
use serde_json::json;
use support::{World, noise};
use zeroize::Zeroizing;

/// 2036-01-01.
const WRONG: i64 = 2_082_758_400;

#[derive(Debug)]
struct Stopped(i64);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0, nanoseconds: 0 }
    }

    fn monotonic_nanoseconds(&self) -> u64 {
        0
    }
}

/// Takes `source` as on this host, at that time.
fn create_at(world: &World, name: &str, seconds: i64) {
    let bytes: [u8; 32] = fs::read(world.path("key")).unwrap().try_into().unwrap();
    let backend = Arc::new(LocalBackend::new(&world.repository()));
    let credential = Credential::KeyFile(Zeroizing::new(bytes));
    let host = world.json(&["show", "one"])["host"].as_str().unwrap().to_owned();
    let context = Context {
        repository: Repository::open(backend, Arc::new(OsEntropy), &credential).unwrap(),
        clock: Arc::new(Stopped(seconds)),
        monitor: Arc::new(SilentMonitor),
        cache_folder: None,
        memory: None,
        state_folder: None,
        own_places: Vec::new(),
        interrupt: Arc::default(),
        threads: 1,
        host,
        user: String::new(),
        program: "copal test".into(),
    };
    let sources = vec![SourceRequest { label: String::new(), path: world.path("source") }];
    create(&context, &CreateRequest { name: name.into(), sources, ..CreateRequest::default() }).unwrap();
}

fn world() -> World {
    let world = World::new();
    fs::create_dir(world.path("source")).unwrap();
    fs::write(world.path("source/file"), noise(1, 1000)).unwrap();
    for name in ["one", "two"] {
        world.create(name, "source");
    }
    create_at(&world, "future", WRONG);
    world
}

fn removed(world: &World, words: &[&str]) -> Vec<String> {
    let report = world.json(&[&["forget", "--dry-run"], words].concat());
    report["removed"].as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn d13_a_snapshot_of_the_future_pushes_nothing_out() {
    let world = world();
    assert_eq!(removed(&world, &["--keep-within", "7d"]), [] as [&str; 0]);
    assert_eq!(removed(&world, &["--keep-last", "1"]), ["one"], "the newest that is really there is kept");
    assert_eq!(removed(&world, &["--keep-last", "2"]), [] as [&str; 0]);
    assert_eq!(removed(&world, &["--keep-yearly", "1", "--keep-daily", "1"]), ["one"]);
    let report = world.json(&["forget", "--dry-run", "--keep-last", "1"]);
    let future = report["kept"].as_array().unwrap().iter().find(|kept| kept["snapshot"]["name"] == "future").unwrap();
    assert_eq!(future["rules"], json!(["future"]));
}

#[test]
fn d13_a_snapshot_of_the_future_is_not_the_latest_without_a_word() {
    let world = world();
    let run = world.run(&["show", "latest", "--json"]);
    assert!(run.code == 0 && String::from_utf8_lossy(&run.stdout).contains("\"two\""), "{run:?}");
    assert!(run.stderr.contains("future") && run.stderr.contains("2036-01-01"), "{run:?}");
    world.ok(&["delete", "one", "two", "--yes"]);
    let run = world.run(&["show", "latest", "--json"]);
    assert!(run.code == 0 && String::from_utf8_lossy(&run.stdout).contains("\"future\""), "there is no other: {run:?}");
    assert!(run.stderr.contains("is the clock of this machine right?"), "{run:?}");
}

#[test]
fn d13_the_page_says_what_is_dated_in_the_future() {
    let world = world();
    let daemon = Daemon::start(&world, &[]);
    let page = daemon.get("/").text().unwrap();
    assert_eq!(page.matches("dated in the future").count(), 1, "{page}");
}
