//! Goal: the right snapshot is chosen, and kept as long as wanted, in a repository of several hosts and
//! sources (rows D13, U3, U4). Method: the built program, told by `COPAL_HOST` on which host it is; what is
//! dated wrongly is made by the engine with such a clock.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::terminal::at_terminal;
use support::{COPAL, Run, World, finish, noise};

/// The program on another host.
fn on(world: &World, host: &str, words: &[&str]) -> Run {
    finish(world.command(words).env("COPAL_HOST", host).output().unwrap())
}

#[track_caller]
fn on_ok(world: &World, host: &str, words: &[&str]) -> Value {
    let run = on(world, host, &[words, &["--json"]].concat());
    assert_eq!(run.code, 0, "{words:?}: {run:?}");
    serde_json::from_slice(&run.stdout).unwrap()
}

fn names_of(list: &Value) -> Vec<String> {
    let mut names: Vec<String> =
        list.as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn names(world: &World) -> Vec<String> {
    names_of(&world.json(&["list"]))
}

/// Two hosts with two sources each, three snapshots of each: `alder-a-1` …
fn two_hosts() -> World {
    let world = World::new();
    for (number, source) in ["a", "b"].into_iter().enumerate() {
        fs::create_dir(world.path(source)).unwrap();
        fs::write(world.path(source).join("file"), noise(number as u64, 2000)).unwrap();
    }
    for turn in 1..=3 {
        for host in ["alder", "birch"] {
            for source in ["a", "b"] {
                on_ok(&world, host, &["create", &format!("{host}-{source}-{turn}"), source]);
            }
        }
    }
    world
}

#[test]
fn d13_each_host_and_source_is_kept_apart() {
    let world = two_hosts();
    let report = world.json(&["forget", "--keep-last", "1", "--dry-run"]);
    let groups = report["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4, "{report:#}");
    for group in groups {
        assert_eq!(group["removed"].as_array().unwrap().len(), 2, "{group:#}");
        assert!(["alder", "birch"].contains(&group["host"].as_str().unwrap()), "{group:#}");
        assert_eq!(group["paths"].as_array().unwrap().len(), 1, "{group:#}");
    }
    let shown = world.ok(&["forget", "--keep-last", "1", "--dry-run"]);
    assert!(shown.contains(&format!("{} on alder", world.text("a"))), "{shown}");
    world.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(names(&world), ["alder-a-3", "alder-b-3", "birch-a-3", "birch-b-3"]);
}

#[test]
fn d13_a_slash_at_the_end_of_a_source_makes_no_other_group() {
    let world = World::new();
    fs::create_dir(world.path("a")).unwrap();
    for (name, source) in [("one", "a"), ("two", "a/"), ("three", "./a/.")] {
        world.create(name, source);
    }
    world.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(names(&world), ["three"]);
}

#[test]
fn d13_what_is_grouped_by_can_be_said() {
    let world = two_hosts();
    let groups = |by: &str| {
        let report = world.json(&["forget", "--keep-last", "1", "--dry-run", "--group-by", by]);
        report["groups"].as_array().unwrap().len()
    };
    assert_eq!((groups("host"), groups("paths"), groups("none"), groups("host,paths,tags")), (2, 2, 1, 4));
    world.fails(&["forget", "--keep-last", "1", "--group-by", "moon"], 2, "usage");
    world.ok(&["forget", "--keep-last", "1", "--group-by", "none"]);
    assert_eq!(names(&world), ["birch-b-3"]);
}

#[test]
fn d13_u03_hosts_paths_and_tags_choose() {
    let world = two_hosts();
    world.ok(&["tag", "alder-a-1", "ticket=1"]);
    let listed = |words: &[&str]| names_of(&world.json(&[&["list"], words].concat()));
    assert_eq!(listed(&["--host", "alder", "--path", "a"]), ["alder-a-1", "alder-a-2", "alder-a-3"]);
    assert_eq!(listed(&["--host", "alder", "--host", "birch"]).len(), 12);
    assert_eq!(listed(&["--tag", "ticket=1"]), ["alder-a-1"]);
    assert_eq!(listed(&["--app", "shop"]), [] as [&str; 0]);
    assert_eq!(listed(&["--app", ""]).len(), 12);
    assert_eq!(listed(&["--path", "a/../a"]), [] as [&str; 0], "a path is taken as it is written");
    let line = &world.json(&["list", "--tag", "ticket=1"])[0];
    assert_eq!((&line["host"], &line["paths"]), (&json!("alder"), &json!([world.text("a")])));

    let shown = |words: &[&str]| world.json(&[&["show"], words].concat())["name"].clone();
    assert_eq!(shown(&["latest", "--host", "alder"]), "alder-b-3");
    assert_eq!(shown(&["latest", "--host", "alder", "--path", "a"]), "alder-a-3");
    assert_eq!(shown(&["latest", "--tag", "ticket=1"]), "alder-a-1");
    assert_eq!(shown(&[&format!("latest:{}", world.text("a"))]), "birch-a-3");
    world.fails(&["show", "latest", "--host", "elm"], 1, "no-such-snapshot");
    world.fails(&["show", "alder-a-1", "--host", "birch"], 2, "usage");

    let sizes = world.json(&["stats", "--host", "alder", "--path", "b"]);
    assert_eq!(names_of(&sizes["snapshots"]), ["alder-b-1", "alder-b-2", "alder-b-3"]);

    world.ok(&["forget", "--keep-last", "1", "--host", "alder", "--path", "a"]);
    assert_eq!(names(&world).len(), 10);
    assert_eq!(listed(&["--host", "alder", "--path", "a"]), ["alder-a-3"]);
}

#[test]
fn u19_each_snapshot_says_who_took_it() {
    let world = two_hosts();
    let me = finish(Command::new("id").arg("-un").output().unwrap());
    let me = String::from_utf8(me.stdout).unwrap().trim().to_owned();
    assert_eq!(world.json(&["show", "alder-a-1"])["user"], json!(me));
    assert_eq!(world.json(&["list"])[0]["user"], json!(me));
    assert!(world.ok(&["show", "alder-a-1"]).contains(&me));
    // Nobody has this number: the snapshot says the number.
    if me == "root" {
        let folder = world.path("");
        let owned = Command::new("chown").arg("-R").arg("47110").arg(&folder).status().unwrap();
        assert!(owned.success());
        let words = ["--reuid=47110", "--clear-groups", COPAL, "create", "numbered", "a"];
        let run = finish(world.command_of(Path::new("/usr/bin/setpriv"), &words).output().unwrap());
        assert_eq!(run.code, 0, "{run:?}");
        let shown = ["--reuid=47110", "--clear-groups", COPAL, "show", "numbered", "--json"];
        let run = finish(world.command_of(Path::new("/usr/bin/setpriv"), &shown).output().unwrap());
        assert!(String::from_utf8_lossy(&run.stdout).contains("\"user\": \"47110\""), "{run:?}");
    }
}

#[test]
fn d13_at_a_terminal_forget_shows_what_goes_and_asks() {
    let world = two_hosts();
    let no =
        at_terminal(&world, "copal forget --keep-last 2 --host alder --path a", &[], &[("Remove 1 snapshot?", "n")]);
    let screen = String::from_utf8_lossy(&no.stdout).into_owned();
    assert!(no.code == 1 && screen.contains("alder-a-1") && screen.contains("on alder"), "{screen}");
    assert_eq!(names(&world).len(), 12);
    let yes =
        at_terminal(&world, "copal forget --keep-last 2 --host alder --path a", &[], &[("Remove 1 snapshot?", "y")]);
    assert_eq!((yes.code, names(&world).len()), (0, 11), "{yes:?}");
    let unasked = at_terminal(&world, "copal forget --keep-last 1 --yes", &[], &[]);
    assert_eq!((unasked.code, names(&world).len()), (0, 4), "{unasked:?}");
}

#[test]
fn d13_e09_another_host_s_snapshots_do_not_go_for_this_one_s() {
    let world = World::new();
    fs::create_dir(world.path("shop")).unwrap();
    fs::write(world.path("shop/file"), noise(1, 1000)).unwrap();
    let source = format!("[[app.shop.source]]\nkind = \"tree\"\npath = {:?}\n", world.text("shop"));
    fs::write(world.path("copal.toml"), format!("[app.shop]\nmax_snapshots = 1\n{source}")).unwrap();
    for (host, name) in [("alder", "a1"), ("birch", "b1"), ("alder", "a2"), ("birch", "b2")] {
        on_ok(&world, host, &["create", name, "--app", "shop"]);
    }
    assert_eq!(names_of(&world.json(&["list"])), ["a2", "b2"]);
}
