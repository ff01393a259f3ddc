//! Goal: the right snapshot is chosen, and kept as long as wanted, in a repository of several hosts and
//! sources (rows D13, U3, U4). Method: the built program, told by `COPAL_HOST` on which host it is; what is
//! dated wrongly is made by the engine with such a clock.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use daemon::Daemon;
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
    assert_eq!(listed(&["--path", "b/../a"]), listed(&["--path", "a"]), "one place has one path");
    assert_eq!(listed(&["--path", "gone/../a"]), [] as [&str; 0], "what is not there leads nowhere");
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

#[test]
fn u19_filters_choose_for_every_command_that_takes_latest() {
    let world = two_hosts();
    fs::write(world.path("a/file"), "new").unwrap();
    on_ok(&world, "birch", &["create", "birch-a-4", "a", "--tag", "ticket=1"]);
    let of_alder = ["--host", "alder", "--path", "a"];
    let old = noise(0, 2000);
    // What only reads takes --path.
    assert_eq!(world.run(&[&["dump", "latest", "file"][..], &of_alder].concat()).stdout, old);
    assert_eq!(world.ok(&["dump", "latest", "file", "--tag", "ticket=1"]), "new");
    assert_eq!(world.json(&[&["ls", "latest"][..], &of_alder].concat())[0]["size"], 2000);
    let diff = world.json(&[&["diff", "latest", "birch-a-4"][..], &of_alder].concat());
    assert_eq!(diff["changed"][0]["size_old"], 2000, "{diff}");
    let diff = world.json(&["diff", "alder-a-1", "latest", "--tag", "ticket=1"]);
    assert_eq!(diff["changed"][0]["size_new"], 3, "{diff}");
    fs::write(world.path("password"), "of the bundle\n").unwrap();
    let password = ["--bundle-password-file", "password"];
    world.ok(&[&["export", "latest", "bundle"][..], &of_alder, &password].concat());
    let held = world.json(&[&["verify", "bundle"][..], &password].concat());
    assert_eq!(held["names"], json!(["alder-a-3"]), "{held}");
    // What writes has another --path already: the part of the snapshot. There it is --source.
    let of_alder = ["--host", "alder", "--source", "a"];
    for command in ["deploy", "restore"] {
        world.ok(&[&[command, "latest", "out", "--yes"][..], &of_alder].concat());
        assert_eq!(fs::read(world.path("out/file")).unwrap(), old, "{command}");
        world.ok(&[command, "latest", "out", "--yes", "--tag", "ticket=1"]);
        assert_eq!(fs::read(world.path("out/file")).unwrap(), b"new", "{command}");
        world.ok(&[&[command, "latest", "part", "--path", "file"][..], &of_alder].concat());
        assert_eq!(fs::read(world.path("part")).unwrap(), old, "{command}");
        fs::remove_file(world.path("part")).unwrap();
        fs::remove_dir_all(world.path("out")).unwrap();
    }
    assert_eq!(world.json(&["list", "--source", "a"]), world.json(&["list", "--path", "a"]));
    world.ok(&["restore", "latest", "out", "--app", ""]);
    // They choose only among several.
    let exact = "alder-a-1";
    for words in [
        &["deploy", exact, "out", "--yes"][..],
        &["restore", exact, "out", "--yes"],
        &["ls", exact],
        &["dump", exact, "file"],
        &["diff", exact, "alder-a-2"],
        &["export", exact, "other"],
    ] {
        let run = world.run(&[words, &["--host", "alder"]].concat());
        assert_eq!(run.code, 2, "{words:?}: {run:?}");
    }
    for command in ["deploy", "restore"] {
        let run = world.run(&[command, "latest", "out", "--host", "elm", "--yes"]);
        assert!(run.code != 0 && run.stderr.contains("no snapshot matches"), "{run:?}");
    }
}

/// Runs a command on a host, without a terminal and without `--json`.
fn plain(world: &World, host: &str, line: &str) -> Run {
    on(world, host, &line.split(' ').collect::<Vec<_>>())
}

#[test]
fn u19_latest_of_another_source_is_no_answer_without_a_word() {
    let world = two_hosts();
    let (a, b) = (world.text("a"), world.text("b"));
    let standing = fs::read(world.path("a/file")).unwrap();
    // The newest of all is of b, and a has snapshots of its own.
    for command in ["deploy", "restore"] {
        fs::remove_dir_all(&a).unwrap();
        let refused = plain(&world, "birch", &format!("{command} latest {a}"));
        assert_eq!(refused.code, 2, "{command}: {refused:?}");
        for part in ["birch-b-3", "birch-a-3", &b, "--yes"] {
            assert!(refused.stderr.contains(part), "{refused:?} lacks {part}");
        }
        assert!(!world.path("a").exists(), "nothing was written");
        let dry = plain(&world, "birch", &format!("{command} latest {a} --dry-run"));
        assert!(dry.code == 0 && dry.stderr.contains("birch-a-3"), "{dry:?}");
        // Whoever says which one is never stopped.
        for line in [
            format!("{command} birch-b-1 {a}"),
            format!("{command} latest {a} --source {a} --yes"),
            format!("{command} latest:{a} {a} --yes"),
            format!("{command} latest {a} --host birch --yes"),
            format!("{command} latest {b} --yes"),
            format!("{command} latest {} --yes", world.text("new")),
        ] {
            let run = plain(&world, "birch", &line);
            assert_eq!(run.code, 0, "{line}: {run:?}");
            assert!(!run.stderr.contains("the latest snapshot is"), "{line}: {run:?}");
        }
        let agreed = plain(&world, "birch", &format!("{command} latest {a} --yes"));
        assert!(agreed.code == 0 && agreed.stderr.contains("birch-a-3"), "{agreed:?}");
    }
    // Another host's, where this one has its own; a new host has none.
    fs::remove_dir_all(&b).unwrap();
    let refused = plain(&world, "alder", &format!("restore latest {b}"));
    assert!(refused.code == 2 && refused.stderr.contains("alder-b-3"), "{refused:?}");
    assert_eq!(plain(&world, "elm", &format!("restore latest {b}")).code, 0);
    // A part goes where the part was.
    fs::remove_file(world.path("a/file")).unwrap();
    let part = plain(&world, "birch", &format!("restore latest {a}/file --path file"));
    assert!(part.code == 2 && part.stderr.contains("birch-a-3"), "{part:?}");
    assert_eq!(plain(&world, "birch", &format!("restore birch-a-3 {a}/file --path file")).code, 0);
    assert_eq!(fs::read(world.path("a/file")).unwrap(), standing);
    // At a terminal it is asked.
    fs::remove_dir_all(&a).unwrap();
    let no = at_terminal(&world, &format!("copal restore latest {a}"), &[], &[("Go on with", "n")]);
    assert!(no.code == 79 && !world.path("a").exists(), "{no:?}");
    let yes = at_terminal(&world, &format!("copal restore latest {a}"), &[], &[("Go on with", "y")]);
    assert!(yes.code == 0 && world.path("a").exists(), "{yes:?}");
}

#[test]
fn u19_latest_of_an_application_is_its_own_and_none_that_was_taken_before_a_deploy() {
    let world = World::new();
    let mut text = String::new();
    for app in ["shop", "hub"] {
        fs::create_dir(world.path(app)).unwrap();
        let path = world.text(app);
        text += &format!("[[app.{app}.source]]\nkind = \"tree\"\nlabel = \"goods\"\npath = {path:?}\n");
    }
    fs::write(world.path("copal.toml"), text).unwrap();
    let write = |app: &str, goods: &str| fs::write(world.path(app).join("goods"), goods).unwrap();
    let read = |app: &str| fs::read_to_string(world.path(app).join("goods")).unwrap();
    write("shop", "shop");
    write("hub", "hub");
    on_ok(&world, "alder", &["create", "one", "--app", "shop"]);
    on_ok(&world, "alder", &["create", "one", "--app", "hub"]);
    write("shop", "later");
    // The newest of all is the other's, and has the same label.
    on_ok(&world, "alder", &["deploy", "latest", "--app", "shop", "--yes"]);
    assert_eq!(read("shop"), "shop");
    // The newest of this one is what stood there before.
    write("shop", "drifted");
    on_ok(&world, "alder", &["deploy", "latest", "--app", "shop", "--yes"]);
    assert_eq!(read("shop"), "shop");
    assert_eq!(world.json(&["show", "latest"])["name"], "one");
    assert_eq!(world.json(&["show", "latest:shop"])["live"]["safety"], false);
    // Another host's latest is asked about where this one has its own, and chosen by a flag.
    write("shop", "birch");
    on_ok(&world, "birch", &["create", "two", "--app", "shop"]);
    let dry = plain(&world, "alder", "deploy latest --app shop --dry-run");
    assert!(dry.code == 0 && dry.stderr.contains("the latest snapshot is shop/two"), "{dry:?}");
    on_ok(&world, "alder", &["deploy", "latest", "--app", "shop", "--host", "alder", "--yes"]);
    assert_eq!(read("shop"), "shop");
    on_ok(&world, "alder", &["deploy", "latest", "--app", "shop", "--yes"]);
    assert_eq!(read("shop"), "birch");
    // A daemon has nobody to ask: it means its own host's.
    let mut command = world.command(&["serve", "--no-auth", "--rate", "0", "--listen", "127.0.0.1:0"]);
    command.env("COPAL_HOST", "alder");
    let daemon = Daemon::of(command);
    assert_eq!(daemon.json("/apps/shop/snapshots/latest")["name"], "one");
    let page = daemon.get("/").text().unwrap();
    assert_eq!((page.matches("created on birch").count(), page.matches("created on alder").count()), (1, 0), "{page}");
    let confirm = |name: &str| daemon.get(&format!("/ui/apps/shop/snapshots/{name}/deploy")).text().unwrap();
    assert!(confirm("two").contains("It was taken on") && !confirm("one").contains("It was taken on"));
    drop(daemon);
    let mut command = world.command(&["serve", "--no-auth", "--rate", "0", "--listen", "127.0.0.1:0"]);
    command.env("COPAL_HOST", "elm");
    assert_eq!(Daemon::of(command).json("/apps/shop/snapshots/latest")["name"], "two");
}
