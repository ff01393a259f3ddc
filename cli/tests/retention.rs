//! Goal: what an application's rules keep stays and nothing else of it does; what was taken before deploys is
//! counted apart, and what is being deployed is there (issue point 21, rows D13, D14). Method: the built
//! program and its daemon; where dates matter the engine takes the snapshots with a clock that is set.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use copal_application::{self as application, CaptureRequest, Configuration, RestoreRequest, Tools, parse};
use copal_engine::context::{Clock, Context, SilentMonitor};
use copal_manifest::entry::Timestamp;
use copal_store::entropy::OsEntropy;
use copal_store::keys::Credential;
use copal_store::local::LocalBackend;
use copal_store::repository::Repository;
use daemon::{Daemon, PATIENCE};
use serde_json::{Value, json};
use support::{World, finish};
use zeroize::Zeroizing;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Monday, 2024-01-01.
const MONDAY: i64 = 1_704_067_200;

/// An application `shop` of one folder, with these lines of retention.
fn shop(rules: &str) -> World {
    let world = World::new();
    fs::create_dir(world.path("shop")).unwrap();
    fs::write(world.path("shop/goods"), "0").unwrap();
    configure(&world, rules);
    world
}

fn configure(world: &World, rules: &str) {
    let table = if rules.is_empty() { String::new() } else { format!("[app.shop.retention]\n{rules}\n") };
    let path = world.text("shop");
    let text = format!("{table}[[app.shop.source]]\nkind = \"tree\"\nlabel = \"goods\"\npath = {path:?}\n");
    fs::write(world.path("copal.toml"), text).unwrap();
}

/// Names, oldest first: of those that were asked for, or of those that were taken before deploys.
fn names(world: &World, safety: bool) -> Vec<String> {
    let listed = world.json(&["list"]);
    let chosen = listed.as_array().unwrap().iter().filter(|line| line["safety"] == safety);
    chosen.map(|line| line["name"].as_str().unwrap().to_owned()).collect()
}

fn asked(world: &World) -> Vec<String> {
    names(world, false)
}

fn change(world: &World, to: &str) {
    fs::write(world.path("shop/goods"), to).unwrap();
}

/// Deploys and returns the id of what stood there before.
#[track_caller]
fn deploy(world: &World, name: &str) -> String {
    world.json(&["deploy", name, "--app", "shop", "--yes"])["safety"].as_str().unwrap().to_owned()
}

#[test]
fn u21_rules_hold_after_each_create_of_the_application() {
    let world = shop("keep_last = 2\nkeep_tags = [\"ticket=1\"]");
    world.ok(&["create", "plain-1", "shop"]);
    world.ok(&["create", "plain-2", "shop"]);
    world.ok(&["create", "pinned", "--app", "shop", "--pin"]);
    world.ok(&["create", "tagged", "--app", "shop", "--tag", "ticket=1"]);
    world.ok(&["create", "other", "--app", "shop", "--tag", "ticket=2"]);
    let elsewhere = world.command(&["create", "birch", "--app", "shop"]).env("COPAL_HOST", "birch").output().unwrap();
    assert_eq!(finish(elsewhere).code, 0);
    for name in ["1", "2", "3"] {
        world.ok(&["create", name, "--app", "shop"]);
    }
    // Not those of no application, nor another host's, nor what is protected.
    assert_eq!(asked(&world), ["plain-1", "plain-2", "pinned", "tagged", "birch", "2", "3"]);
    // A table without a word of them lets all stay.
    configure(&world, "");
    for name in ["4", "5"] {
        world.ok(&["create", name, "--app", "shop"]);
    }
    assert_eq!(asked(&world).len(), 9);
}

#[test]
fn u21_safety_snapshots_have_a_count_of_their_own_and_stand_apart() {
    let world = shop("keep_last = 2\nsafety_keep = 2");
    for name in ["one", "two"] {
        world.ok(&["create", name, "--app", "shop"]);
    }
    let ways_back: Vec<String> = (0..4)
        .map(|turn| {
            change(&world, &turn.to_string());
            deploy(&world, "one")
        })
        .collect();
    assert_eq!(asked(&world), ["one", "two"], "they count in no rule of the others");
    let listed = world.json(&["list"]);
    let safety = listed.as_array().unwrap().iter().filter(|line| line["safety"] == true);
    let ids: Vec<&str> = safety.map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ways_back[2..]);
    world.ok(&["create", "three", "--app", "shop"]);
    assert_eq!((asked(&world).len(), names(&world, true).len()), (2, 2));
    let shown = world.ok(&["list"]);
    assert!(shown.starts_with("2 snapshots, and 2 snapshots taken before deploys\n"), "{shown}");
    let (above, below) = shown.split_once("before deploys:\n").unwrap();
    assert!(above.contains("shop/three") && !above.contains("shop/safety-"), "{shown}");
    assert!(below.contains("shop/safety-") && !below.contains("shop/three"), "{shown}");
    // Without a rule of their own they stay.
    configure(&world, "keep_last = 1");
    for _ in 0..3 {
        deploy(&world, "three");
    }
    world.ok(&["create", "four", "--app", "shop"]);
    assert_eq!((asked(&world), names(&world, true).len()), (vec!["four".to_owned()], 5));
}

#[test]
fn u21_what_is_being_deployed_is_there_until_the_end_and_after_it() {
    let world = shop("");
    for (name, goods) in [("old", "old"), ("new", "new")] {
        change(&world, goods);
        world.ok(&["create", name, "--app", "shop"]);
    }
    configure(&world, "keep_last = 1\nsafety_keep = 1");
    change(&world, "standing");
    let way_back = deploy(&world, "old");
    // By the rules it has no place.
    assert_eq!(asked(&world), ["old", "new"]);
    assert_eq!(fs::read_to_string(world.path("shop/goods")).unwrap(), "old");
    // One that was taken before a deploy is deployed itself: the next one like it does not push it out.
    let another = deploy(&world, &way_back);
    assert_eq!(fs::read_to_string(world.path("shop/goods")).unwrap(), "standing");
    let listed = world.json(&["list"]);
    let ids: Vec<&Value> =
        listed.as_array().unwrap().iter().filter(|line| line["safety"] == true).map(|line| &line["id"]).collect();
    assert_eq!(ids, [&json!(way_back), &json!(another)]);
    assert_eq!(asked(&world), ["new"], "nobody is at the other any more");
    deploy(&world, "new");
    assert_eq!(names(&world, true).len(), 1);
    // A deploy that fails keeps both, too.
    let hook = "[[app.shop.hook]]\nwhen = \"start\"\nargv = [\"/bin/false\"]\n";
    let text = fs::read_to_string(world.path("copal.toml")).unwrap();
    fs::write(world.path("copal.toml"), text + hook).unwrap();
    world.fails(&["deploy", "new", "--app", "shop", "--yes"], 79, "hook");
    assert_eq!((asked(&world), names(&world, true).len()), (vec!["new".to_owned()], 1));
}

#[test]
fn u21_a_tag_protects_from_a_forget_by_hand() {
    let world = shop("");
    for name in ["1", "2", "3"] {
        world.ok(&["create", name, "shop", "--tag", &format!("turn={name}")]);
    }
    world.fails(&["forget", "--keep-tag", "turn=1"], 2, "usage");
    let report = world.json(&["forget", "--keep-last", "1", "--keep-tag", "turn=1"]);
    assert_eq!(asked(&world), ["1", "3"]);
    assert_eq!(report["kept"][1]["rules"], json!(["tag"]), "{report:#}");
}

#[derive(Debug)]
struct Set(i64);

impl Clock for Set {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0, nanoseconds: 0 }
    }

    fn monotonic_nanoseconds(&self) -> u64 {
        0
    }
}

/// The engine at a time of its own.
struct Dated {
    world: World,
    context: Context,
    configuration: Configuration,
}

impl Dated {
    fn new(rules: &str) -> Self {
        let world = shop(rules);
        let bytes: [u8; 32] = fs::read(world.path("key")).unwrap().try_into().unwrap();
        let backend = Arc::new(LocalBackend::new(&world.repository()));
        let credential = Credential::KeyFile(Zeroizing::new(bytes));
        let context = Context {
            repository: Repository::open(backend, Arc::new(OsEntropy), &credential).unwrap(),
            clock: Arc::new(Set(0)),
            monitor: Arc::new(SilentMonitor),
            cache_folder: None,
            memory: None,
            state_folder: Some(world.path("engine")),
            own_places: Vec::new(),
            interrupt: Arc::default(),
            threads: 1,
            host: "alder".into(),
            user: String::new(),
            program: "copal test".into(),
        };
        let text = fs::read_to_string(world.path("copal.toml")).unwrap();
        let configuration = parse(Path::new("copal.toml"), &text).unwrap();
        Self { world, context, configuration }
    }

    fn at(&self, seconds: i64) -> Context {
        Context { clock: Arc::new(Set(seconds)), ..self.context.clone() }
    }

    fn create(&self, seconds: i64) {
        let request = CaptureRequest { name: format!("t{seconds}"), ..CaptureRequest::default() };
        let shop = &self.configuration.applications["shop"];
        application::create(&self.at(seconds), shop, &request, &Tools::default()).unwrap();
    }

    fn deploy(&self, reference: &str, seconds: i64) {
        let request = RestoreRequest { reference: reference.into(), safety: true, ..RestoreRequest::default() };
        let shop = &self.configuration.applications["shop"];
        application::restore(&self.at(seconds), shop, &request, &Tools::default()).unwrap();
    }
}

/// Rules, times of creates, and the times that stay.
#[track_caller]
fn check(rules: &str, times: &[i64], stay: &[i64]) {
    let dated = Dated::new(rules);
    times.iter().for_each(|&at| dated.create(at));
    let stay: Vec<String> = stay.iter().map(|at| format!("t{at}")).collect();
    assert_eq!(asked(&dated.world), stay, "{rules}");
}

#[test]
fn u21_each_rule_of_time_keeps_what_forget_would() {
    let at = |days: i64, hours: i64| MONDAY + days * DAY + hours * HOUR;
    check("keep_hourly = 2", &[at(0, 1), at(0, 1) + 60, at(0, 2), at(0, 5)], &[at(0, 2), at(0, 5)]);
    check("keep_daily = 2", &[at(0, 1), at(1, 1), at(1, 9), at(4, 1)], &[at(1, 9), at(4, 1)]);
    check("keep_weekly = 2", &[at(0, 1), at(7, 1), at(13, 1), at(14, 1)], &[at(13, 1), at(14, 1)]);
    check("keep_monthly = 2", &[at(0, 1), at(31, 1), at(40, 1), at(70, 1)], &[at(40, 1), at(70, 1)]);
    check("keep_yearly = 2", &[at(0, 1), at(366, 1), at(400, 1), at(800, 1)], &[at(400, 1), at(800, 1)]);
    check("keep_within = \"2d\"", &[at(0, 0), at(8, 0), at(9, 0), at(10, 0)], &[at(8, 0), at(9, 0), at(10, 0)]);
    // Any rule keeps.
    check("keep_last = 1\nkeep_yearly = 2", &[at(0, 1), at(300, 1), at(366, 1), at(400, 1)], &[at(300, 1), at(400, 1)]);
    // A clock that went back: what was just taken is there.
    check("keep_last = 1", &[at(5, 0), at(1, 0)], &[at(1, 0), at(5, 0)]);
}

#[test]
fn u21_safety_snapshots_have_an_age_of_their_own() {
    let dated = Dated::new("keep_last = 1\nsafety_within = \"14d\"");
    dated.create(MONDAY);
    for days in [1, 2, 10, 16, 17] {
        dated.deploy(&format!("t{MONDAY}"), MONDAY + days * DAY);
    }
    let name = |days: i64| format!("safety-{}-000000000", MONDAY + days * DAY);
    // Counted back from the newest of them: of the third day and before none is there.
    assert_eq!(names(&dated.world, true), [name(10), name(16), name(17)]);
    // However long ago the last deploy was, its way back stays.
    dated.create(MONDAY + 900 * DAY);
    assert_eq!(names(&dated.world, true), [name(10), name(16), name(17)]);
}

#[test]
fn u21_the_daemon_applies_the_rules_and_collects_by_button_and_by_route() {
    let world = shop("");
    let daemon = Daemon::start(&world, &[]);
    for name in ["1", "2", "3"] {
        fs::write(world.path("shop/goods"), support::noise(name.parse().unwrap(), 200_000)).unwrap();
        daemon.done(&format!("/apps/shop/snapshots/{name}"));
    }
    assert_eq!(daemon.json("/apps/shop")["retention"], Value::Null);
    assert!(!daemon.get("/").text().unwrap().contains("collect-retention"), "no application has a rule");
    daemon.end();
    configure(&world, "keep_last = 2\nsafety_keep = 1");
    let daemon = Daemon::start(&world, &[]);
    assert_eq!(daemon.json("/apps/shop")["retention"]["safety_keep"], 1);
    // By itself: nothing more than space.
    let collected = daemon.done("/repository/collect");
    assert_eq!((&collected["snapshots_removed"], asked(&world).len()), (&json!(0), 3));
    let response = daemon
        .request(reqwest::Method::POST, "/repository/collect?wait=true")
        .json(&json!({ "retention": true }))
        .send()
        .unwrap();
    let collected: Value = serde_json::from_str(&response.text().unwrap()).unwrap();
    assert_eq!(collected["removed"], json!(["shop/1"]), "{collected}");
    assert!(collected["bytes_freed"].as_u64().unwrap() > 100_000, "{collected}");
    assert_eq!(asked(&world), ["2", "3"]);
    daemon.done("/apps/shop/snapshots/4");
    assert_eq!(asked(&world), ["3", "4"]);
    for _ in 0..2 {
        daemon.done("/apps/shop/snapshots/3/deploy");
    }
    assert_eq!(names(&world, true).len(), 1);
    let page = daemon.get("/").text().unwrap();
    let (above, below) = page.split_once("Before deploys").unwrap();
    assert!(!above.contains("safety-1") && below.contains("safety-1"), "{page}");
    assert!(page.contains("Return unused space") && page.contains("collect-retention"), "{page}");
    // The button, and what came of it.
    world.ok(&["create", "more", "--app", "shop", "--tag", "a=b"]);
    for form in [&[][..], &[("retention", "true")]] {
        let pressed = daemon.request(reqwest::Method::POST, "/ui/collect").form(form).send().unwrap();
        assert_eq!(pressed.status(), 303);
        let place = pressed.headers()["location"].to_str().unwrap().to_owned();
        let id = place.rsplit('/').next().unwrap();
        daemon.json(&format!("/operations/{id}?wait=true"));
        let shown = daemon.get(&place).text().unwrap();
        assert!(shown.contains("Returned unused space") && shown.contains("Returned</dt>"), "{shown}");
    }
}

#[test]
fn u21_the_daemon_collects_by_its_schedule() {
    let world = shop("");
    for name in ["1", "2", "3"] {
        world.ok(&["create", name, "--app", "shop"]);
    }
    configure(&world, "keep_last = 1");
    let text = fs::read_to_string(world.path("copal.toml")).unwrap();
    fs::write(world.path("copal.toml"), format!("gc_schedule = \"* * * * * *\"\n{text}")).unwrap();
    let daemon = Daemon::start(&world, &[]);
    assert!(daemon.get("/").text().unwrap().contains("* * * * * *"));
    let begun = std::time::Instant::now();
    loop {
        let operations = daemon.json("/operations");
        let done = |one: &&Value| one["verb"] == "collect" && one["state"] == "succeeded" && one["actor"] == "schedule";
        let first = operations.as_array().unwrap().iter().rfind(|one| done(one));
        if let Some(first) = first {
            assert_eq!(first["result"]["removed"], json!(["shop/2", "shop/1"]), "{first}");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{operations}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(asked(&world), ["3"]);
    let audit = daemon.json("/audit");
    assert!(audit.as_array().unwrap().iter().any(|line| line["path"] == "/repository/collect"), "{audit}");
    daemon.end();
    fs::write(world.path("copal.toml"), "gc_schedule = \"every night\"\n").unwrap();
    let refused = world.run(&["serve", "--no-auth", "--listen", "127.0.0.1:0"]);
    assert!(refused.code != 0 && refused.stderr.contains("every night"), "{refused:?}");
}
