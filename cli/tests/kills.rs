//! Goal: whenever the program is killed, no completed snapshot is lost, nothing needs a repair by hand, the
//! next create and deploy work, and a target is wholly old or wholly new. Method: the built program on real
//! filesystems, ended by SIGKILL at random times from a printed seed; what stands is compared after each.
//! `cargo xtask kill --minutes N` goes on for longer.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use copal_sim::mounts::{Filesystem, Mounted};
use serde_json::json;
use support::kill::{Budget, run_and_kill};
use support::known::{Known, Spans, change, left_beside, old_and_new};
use support::{World, assert_same, finish, look, noise, plant};

/// Without a disk to wait for: more kills in the time, and more of them between any two writes.
#[test]
fn c08_a_create_delete_or_gc_that_is_killed_in_memory_loses_nothing() {
    let mounted = Mounted::new(Filesystem::Tmpfs, 1024).unwrap();
    kill_creates("create, delete, gc in memory", mounted.path());
}

#[test]
fn c08_a_create_delete_or_gc_that_is_killed_loses_nothing() {
    kill_creates("create, delete, gc", &std::env::temp_dir());
}

fn kill_creates(name: &'static str, folder: &Path) {
    let (mut budget, mut random) = Budget::new(name);
    let mut known = Known::beneath(folder);
    let mut spans = Spans::default();
    while budget.lasts() {
        let source = known.world.path("source");
        change(&source, &mut random);
        let tree = look(&source);
        let name = known.next_name();
        // One that nobody kills must work now, and says how long it takes.
        let begun = Instant::now();
        if known.snapshots.len() > 6 || (known.snapshots.len() > 2 && random.one_in(3)) {
            let gone = known.pick(&mut random).unwrap();
            let delete = known.world.command(&["delete", &gone, "--yes"]);
            let run = run_and_kill(delete, random.moment(spans.of("delete")));
            budget.count(&run);
            if let Some(tree) = known.snapshots.remove(&gone) {
                known.going.insert(gone.clone(), tree);
            }
            known.check(None);
            assert!(run.code != 0 || !known.going.contains_key(&gone), "deleted, and still there");
            let begun = Instant::now();
            if known.going.contains_key(&gone) {
                known.world.ok(&["delete", &gone, "--yes"]);
                spans.learn("delete", begun);
                known.going.clear();
            }
            for _ in 0..1 + random.below(3) {
                let run = run_and_kill(known.world.command(&["gc"]), random.moment(spans.of("gc")));
                budget.count(&run);
                assert!(run.was_killed() || run.code == 0, "{run:?}");
                known.check(None);
            }
            if random.one_in(2) {
                let begun = Instant::now();
                known.world.ok(&["gc"]);
                spans.learn("gc", begun);
                known.check(None);
            }
        } else if random.one_in(3) {
            known.world.ok(&["create", &name, "source"]);
            spans.learn("create", begun);
            known.snapshots.insert(name.clone(), tree);
            known.check(None);
            known.check_deploy(&name, &mut random);
        } else {
            let create = known.world.command(&["create", &name, "source"]);
            let run = run_and_kill(create, random.moment(spans.of("create")));
            budget.count(&run);
            assert!(run.was_killed() || run.code == 0, "{run:?}");
            known.check(Some((name.clone(), tree)));
            assert!(run.was_killed() || known.snapshots.contains_key(&name), "acknowledged, and not there");
            if let Some(name) = known.pick(&mut random) {
                known.check_deploy(&name, &mut random);
            }
        }
    }
    known.check_end();
}

/// A target between two snapshots, over and over.
fn kill_deploys(name: &'static str, filesystem: Option<Filesystem>, modes: &[&'static str]) {
    let (mut budget, mut random) = Budget::new(name);
    let mounted = filesystem.map(|filesystem| Mounted::new(filesystem, 512).unwrap());
    let folder = mounted.as_ref().map_or_else(std::env::temp_dir, |mounted| mounted.path().to_owned());
    let world = World::beneath(&folder);
    let [old, new] = old_and_new(&world, &mut random);
    world.ok(&["deploy", "old", "target"]);
    let mut spans = Spans::default();
    while budget.lasts() {
        let mode = *random.pick(modes);
        let stands = look(&world.path("target"));
        let (from, wanted) = if stands == old { ("old", "new") } else { ("new", "old") };
        let deploy = ["deploy", wanted, "target", "--yes", "--mode", mode];
        if random.one_in(4) {
            let begun = Instant::now();
            world.ok(&deploy);
            spans.learn(mode, begun);
        } else {
            let elsewhere = random.one_in(3);
            let at = |words: &[&str]| if elsewhere { world.elsewhere(words) } else { world.command(words) };
            let command = at(&deploy);
            let run = run_and_kill(command, random.moment(spans.of(mode)));
            budget.count(&run);
            assert!(run.was_killed() || run.code == 0, "{run:?}");
            // Auto may choose in place.
            if mode == "swap" || mode == "clone" {
                let found = look(&world.path("target"));
                assert!(found == old || found == new, "{mode}: neither old nor new at once, going from {from}");
            }
            // A deploy in place is finished or taken back by the next command where its state is known. A dry
            // run only says so.
            if random.one_in(2) {
                let stands = look(&world.path("target"));
                let dry = finish(at(&["deploy", wanted, "target", "--dry-run"]).output().unwrap());
                assert_eq!(dry.code, 0, "{dry:#?}");
                assert_same(&stands, &look(&world.path("target")));
            }
            let next = finish(at(&["list"]).output().unwrap());
            assert_eq!(next.code, 0, "{next:#?}");
            let found = look(&world.path("target"));
            if found != old {
                assert_same(&new, &found);
            }
            assert!(run.was_killed() || found == *(if wanted == "old" { &old } else { &new }), "acknowledged");
        }
        let left = left_beside(&world.path(""));
        assert!(left.is_empty(), "{left:?}");
    }
    world.ok(&["deploy", "new", "target", "--yes"]);
    assert_same(&new, &look(&world.path("target")));
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
    world.ok(&["deploy", "new", "another"]);
    let probes = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!probes.into_iter().any(|name| name.to_string_lossy().starts_with(".copal")), "a probe stays");
}

#[test]
fn h16_a_killed_deploy_leaves_old_or_new() {
    kill_deploys("deploy on the usual filesystem", None, &["auto", "swap", "in-place"]);
}

#[test]
fn h16_a_killed_deploy_leaves_old_or_new_without_reflinks() {
    kill_deploys("deploy on ext4", Some(Filesystem::Ext4), &["auto", "swap", "in-place"]);
}

#[test]
fn h16_a_killed_deploy_leaves_old_or_new_on_xfs() {
    kill_deploys("deploy on XFS", Some(Filesystem::Xfs), &["clone", "swap", "in-place"]);
}

#[test]
fn h16_a_killed_deploy_leaves_old_or_new_on_btrfs() {
    kill_deploys("deploy on btrfs", Some(Filesystem::Btrfs), &["clone", "swap", "in-place"]);
}

/// Two machines' worth of processes: those that live must not notice those that die.
#[test]
fn c05_processes_that_are_killed_side_by_side_harm_no_other() {
    let (mut budget, mut random) = Budget::new("side by side");
    let mounted = Mounted::new(Filesystem::Tmpfs, 1024).unwrap();
    let mut known = Known::beneath(mounted.path());
    for number in 0..3 {
        plant(&known.world.path(&format!("source {number}")));
    }
    while budget.lasts() {
        let mut children = Vec::new();
        let mut creates = Vec::new();
        for number in 0..3 {
            let source = format!("source {number}");
            change(&known.world.path(&source), &mut random);
            creates.push((known.next_name(), source.clone(), look(&known.world.path(&source))));
        }
        let going = known.pick(&mut random).filter(|_| known.snapshots.len() > 5);
        if let Some(name) = &going
            && let Some(tree) = known.snapshots.remove(name)
        {
            known.going.insert(name.clone(), tree);
        }
        let kept: Vec<String> = known.snapshots.keys().cloned().collect();
        let mut words: Vec<Vec<String>> =
            creates.iter().map(|(name, source, _)| vec!["create".to_owned(), name.clone(), source.clone()]).collect();
        words.push(vec!["gc".into()]);
        words.push(vec!["verify".into()]);
        words.extend(going.iter().map(|name| vec!["delete".into(), name.clone(), "--yes".into()]));
        if !kept.is_empty() {
            let name = random.pick(&kept).clone();
            words.push(vec!["deploy".into(), name, "deployed".into(), "--yes".into()]);
        }
        for (number, words) in words.iter().enumerate() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let command = if number % 2 == 0 { known.world.command(&words) } else { known.world.elsewhere(&words) };
            let after = random.one_in(2).then(|| random.moment(Duration::from_millis(250)));
            children.push(std::thread::spawn(move || match after {
                Some(after) => (run_and_kill(command, after), true),
                None => {
                    let mut command = command;
                    (finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()), false)
                }
            }));
        }
        let runs: Vec<_> = children.into_iter().map(|child| child.join().unwrap()).collect();
        for (words, (run, meant)) in words.iter().zip(&runs) {
            if *meant {
                budget.count(run);
            }
            // Two that delete, or two that collect, may meet; nobody else gives way to anybody.
            let allowed: &[i32] = if *meant { &[0, -1] } else { &[0] };
            assert!(allowed.contains(&run.code), "{words:?}, while {going:?} went: {run:#?}");
        }
        for ((name, _, tree), (run, _)) in creates.into_iter().zip(&runs) {
            let listed = known.listed().contains(&name);
            assert!(listed || run.code != 0, "acknowledged, and not there");
            if listed {
                known.snapshots.insert(name, tree);
            }
        }
        known.check(None);
        if let Some(name) = known.pick(&mut random) {
            known.check_deploy(&name, &mut random);
        }
        while known.snapshots.len() > 8 {
            let (name, _) = known.snapshots.pop_first().unwrap();
            known.world.ok(&["delete", &name, "--yes"]);
        }
    }
    known.check_end();
}

/// A repository is there or not; where it is not, it can be made.
#[test]
fn c08_an_init_that_is_killed_can_be_done_again() {
    let (mut budget, mut random) = Budget::new("init and keys");
    let mut spans = Spans::default();
    let (mut whole, mut again) = (0, 0);
    while budget.lasts() {
        let world = World::bare();
        fs::write(world.path("second key"), noise(5, 32)).unwrap();
        let run = run_and_kill(world.command(&["init"]), random.moment(spans.of("init")));
        budget.count(&run);
        let listed = world.run(&["list", "--json"]);
        if listed.code == 0 {
            whole += 1;
        } else {
            assert!(run.code != 0, "acknowledged, and not there: {listed:?}");
            assert_eq!((listed.code, listed.error()["code"].as_str()), (10, Some("no-repository")), "{listed:?}");
            again += 1;
            let begun = Instant::now();
            world.ok(&["init"]);
            spans.learn("init", begun);
        }
        let add = world.command(&["key", "add", "--label", "anna", "--new-key-file", "second key"]);
        let run = run_and_kill(add, random.moment(spans.of("init")));
        budget.count(&run);
        let slots = world.json(&["key", "list"]).as_array().unwrap().len();
        assert!(slots == 1 && run.code != 0 || slots == 2, "{slots} slots: {run:?}");
        let change = world.command(&["key", "change", "--new-key-file", "second key"]);
        let run = run_and_kill(change, random.moment(spans.of("init")));
        budget.count(&run);
        // One of the two keys opens it, whenever it died.
        let opens = |key: &str| world.run(&["verify", "--key-file", key]);
        let (one, other) = (opens("key"), opens("second key"));
        assert!(one.code == 0 || other.code == 0, "nobody gets in any more: {one:#?}, {other:#?}");
    }
    assert!(whole + again > 0);
}
