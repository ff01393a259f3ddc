//! Goal: a snapshot is never named, nor a source left out, by a guess: a name is made where none is given,
//! what could be both is refused, and a taken name says who has it (issue point 22). Method: the built
//! program and its daemon.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use daemon::Daemon;
use serde_json::{Value, json};
use support::{World, finish};

/// A world with folders `docs` and `photos`.
fn planted() -> World {
    let world = World::new();
    for folder in ["docs", "photos"] {
        fs::create_dir(world.path(folder)).unwrap();
        fs::write(world.path(folder).join("file"), folder).unwrap();
    }
    world
}

fn on_alder(world: &World, words: &[&str]) -> Value {
    let run = finish(world.command(&[words, &["--json"]].concat()).env("COPAL_HOST", "alder").output().unwrap());
    assert_eq!(run.code, 0, "{words:?}: {run:?}");
    serde_json::from_slice(&run.stdout).unwrap()
}

#[track_caller]
fn name(report: &Value, begin: &str) -> String {
    let name = report["name"].as_str().unwrap();
    let time = name.strip_prefix(begin).unwrap_or_else(|| panic!("{name} does not begin with {begin}"));
    assert_eq!((time.len(), &time[8..9], &time[time.len() - 1..]), (23, "T", "Z"), "{name}");
    name.to_owned()
}

fn sources(world: &World, name: &str) -> Vec<(String, String)> {
    let shown = world.json(&["show", name]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    shown["sources"].as_array().unwrap().iter().map(|one| (text(&one["label"]), text(&one["path"]))).collect()
}

#[test]
fn u22_a_name_is_made_of_host_source_and_time() {
    let world = planted();
    let docs = world.text("docs");
    for words in [&["create", "docs"][..], &["create", "./docs"], &["create", &docs], &["create", "docs/"]] {
        let made = name(&on_alder(&world, words), "alder-docs-");
        assert_eq!(world.json(&["show", &made])["sources"][0]["label"], "");
    }
    let both = name(&on_alder(&world, &["create", "./docs", "photos"]), "alder-docs+1-");
    let wanted = [("docs".to_owned(), docs.clone()), ("photos".to_owned(), world.text("photos"))];
    assert_eq!(sources(&world, &both), wanted);
    let labelled = name(&on_alder(&world, &["create", "a=docs", "b=photos"]), "alder-docs+1-");
    assert_eq!(sources(&world, &labelled), [("a".to_owned(), docs), ("b".to_owned(), world.text("photos"))]);
    name(&on_alder(&world, &["create", "command:/bin/true"]), "alder-command-");
    name(&on_alder(&world, &["create", "c=command:/bin/true"]), "alder-c-");
    // Printed for people, too, and it is the name.
    let said = world.ok(&["create", "docs"]);
    let made = said.lines().next().unwrap().strip_prefix("took the snapshot ").unwrap().to_owned();
    world.ok(&["deploy", &made, "target"]);
    // A host's name that no name can have.
    let odd = finish(world.command(&["create", "docs", "--json"]).env("COPAL_HOST", "a/b\u{202e}\n").output().unwrap());
    let odd: Value = serde_json::from_slice(&odd.stdout).unwrap();
    name(&odd, "a-b-docs-");
}

#[test]
fn u22_creates_that_begin_in_one_second_have_names_of_their_own() {
    let world = planted();
    let begin = || world.command(&["create", "docs", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let running: Vec<_> = (0..6).map(|_| begin()).collect();
    let names: BTreeSet<String> = running
        .into_iter()
        .map(|child| {
            let run = finish(child.wait_with_output().unwrap());
            assert_eq!(run.code, 0, "{run:?}");
            let report: Value = serde_json::from_slice(&run.stdout).unwrap();
            report["name"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!((names.len(), world.json(&["list"]).as_array().unwrap().len()), (6, 6));
}

#[test]
fn u22_the_first_of_several_words_is_the_name_and_what_could_be_both_is_refused() {
    let world = planted();
    world.ok(&["create", "monday", "docs", "photos"]);
    assert_eq!(sources(&world, "monday").len(), 2);
    for words in [&["create", "docs", "photos"][..], &["create", "photos", "/nowhere"]] {
        let error = world.fails(words, 2, "usage");
        let (message, hint) = (error["message"].as_str().unwrap(), error["hint"].as_str().unwrap());
        assert!(message.contains(words[1]) && message.contains("as well"), "{error}");
        assert!(hint.contains(&format!("./{}", words[1])) && hint.contains("--name"), "{error}");
    }
    let error = world.fails(&["create", "tuesday"], 2, "usage");
    assert!(error["message"].as_str().unwrap().contains("no file or folder tuesday"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("create tuesday SOURCE"), "{error}");
    world.fails(&["create"], 2, "usage");
    assert_eq!(world.json(&["list"]).as_array().unwrap().len(), 1);
    // Said as such, a name is a name.
    world.ok(&["create", "--name", "docs", "photos"]);
    world.ok(&["create", "docs", "photos", "--name", "all"]);
    assert_eq!((sources(&world, "docs").len(), sources(&world, "all").len()), (1, 2));
    world.ok(&["create", "2026-11-28 05:00", "docs"]);
    // The name of its own source: nobody takes the same twice.
    world.ok(&["create", "photos", "photos"]);
    assert_eq!(sources(&world, "photos").len(), 1);
    let help = world.ok(&["create", "--help"]);
    assert!(help.contains("[NAME] SOURCE") && help.contains("word alone is a SOURCE"), "{help}");
}

#[test]
fn u22_a_taken_name_says_which_snapshot_has_it() {
    let world = planted();
    let taken = on_alder(&world, &["create", "monday", "docs"]);
    let error = world.fails(&["create", "monday", "photos"], 86, "name-taken");
    let message = error["message"].as_str().unwrap();
    let time = taken["created"].as_str().unwrap()[..19].replace('T', " ");
    for part in [taken["id"].as_str().unwrap(), &time, "on alder", &world.text("docs")] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("leave it away") && hint.contains("copal delete"), "{hint}");
    // Of an application, and from elsewhere.
    let source = format!("[[app.shop.source]]\nkind = \"tree\"\npath = {:?}\n", world.text("docs"));
    fs::write(world.path("copal.toml"), source).unwrap();
    let shop = on_alder(&world, &["create", "monday", "--app", "shop"]);
    let error = world.fails(&["create", "monday", "--app", "shop"], 86, "name-taken");
    assert!(error["message"].as_str().unwrap().contains(shop["id"].as_str().unwrap()), "{error}");
    fs::write(world.path("password"), "of the bundle\n").unwrap();
    let password = ["--bundle-password-file", "password"];
    world.ok(&[&["export", "monday", "bundle"][..], &password].concat());
    world.ok(&["delete", "monday", "--yes"]);
    let other = on_alder(&world, &["create", "monday", "photos"]);
    let error = world.fails(&[&["import", "bundle"][..], &password].concat(), 1, "name-taken");
    assert!(error["message"].as_str().unwrap().contains(other["id"].as_str().unwrap()), "{error}");
    let daemon = Daemon::start(&world, &[]);
    let refused = daemon.post("/apps/shop/snapshots/monday");
    assert_eq!(refused.status(), 409);
    let problem: Value = serde_json::from_str(&refused.text().unwrap()).unwrap();
    assert_eq!(problem["code"], "name-taken");
    assert!(problem["detail"].as_str().unwrap().contains(shop["id"].as_str().unwrap()), "{problem}");
}

#[test]
fn u22_an_application_and_the_daemon_make_names_too() {
    let world = planted();
    let source = format!("[[app.shop.source]]\nkind = \"tree\"\npath = {:?}\n", world.text("docs"));
    fs::write(world.path("copal.toml"), source).unwrap();
    name(&on_alder(&world, &["create", "--app", "shop"]), "alder-");
    assert_eq!(on_alder(&world, &["create", "--app", "shop", "--name", "one"])["name"], "one");
    assert_eq!(on_alder(&world, &["create", "two", "--app", "shop"])["name"], "two");
    world.fails(&["create", "three", "docs", "--app", "shop"], 2, "usage");
    let detached = on_alder(&world, &["create", "--app", "shop", "--detach"]);
    name(&detached, "alder-");
    let mut command = world.command(&["serve", "--no-auth", "--rate", "0", "--listen", "127.0.0.1:0"]);
    command.env("COPAL_HOST", "alder");
    let daemon = Daemon::of(command);
    for route in ["/snapshots", "/apps/shop/snapshots"] {
        let made = daemon.done(route);
        name(&made, "alder-");
        assert_eq!(daemon.json(&format!("/snapshots/{}", made["name"].as_str().unwrap()))["id"], made["id"]);
    }
    let tagged = daemon
        .request(reqwest::Method::POST, "/snapshots?wait=true")
        .json(&json!({ "tags": { "a": "b" } }))
        .send()
        .unwrap();
    assert_eq!(tagged.status(), 201);
    // The page's form with nothing in it.
    let pressed =
        daemon.request(reqwest::Method::POST, "/ui/create").form(&[("app", "shop"), ("name", " ")]).send().unwrap();
    assert_eq!(pressed.status(), 303);
    let id = pressed.headers()["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let operation = daemon.json(&format!("/operations/{id}?wait=true"));
    assert_eq!(operation["state"], "succeeded", "{operation}");
    name(&json!({ "name": operation["subject"] }), "alder-");
}
