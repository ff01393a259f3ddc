//! Goal: whenever the power goes, nothing that was acknowledged is lost, nothing needs a repair by hand, and
//! a target is wholly old or wholly new. Method: the built program on XFS and ext4, whose disk is taken away
//! at random times from a printed seed; what was not synced is gone when it is mounted again.
//! `cargo xtask kill --minutes N` goes on for longer.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use copal_sim::mounts::{Filesystem, Mounted};
use rusqlite::Connection;
use serde_json::json;
use support::kill::{Budget, Random};
use support::known::{Known, Spans, change, left_beside, old_and_new};
use support::shop::{assert_agreement, configuration};
use support::{Run, World, assert_same, finish, look, noise};

/// A disk, the runs on it, and how often it went away.
struct Plug {
    mounted: Mounted,
    budget: Budget,
    random: Random,
    spans: Spans,
}

impl Plug {
    fn new(name: &'static str, filesystem: Filesystem) -> Self {
        let (budget, random) = Budget::new(name);
        Self { mounted: Mounted::new(filesystem, 768).unwrap(), budget, random, spans: Spans::default() }
    }

    /// What stands so far is on the disk.
    fn sync(&self) {
        rustix::fs::syncfs(File::open(self.mounted.path()).unwrap()).unwrap();
    }

    /// Runs a command, which loses its power after a time; it may have ended before, and then loses nothing
    /// but what it owes.
    fn run(&mut self, kind: &'static str, mut command: Command) -> Run {
        self.sync();
        // Now and then the moment after the end, which tells how long it takes as well.
        let after = match self.random.one_in(5) {
            true => Duration::from_secs(60),
            false => self.random.moment(self.spans.of(kind)),
        };
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ended = false;
        while !ended && begun.elapsed() < after {
            sleep(Duration::from_millis(1));
            ended = child.try_wait().unwrap().is_some();
        }
        if ended {
            self.spans.learn(kind, begun);
        }
        self.mounted.lose_power().unwrap();
        // One that waits for something would wait for ever: it was started by nobody any more.
        let _ = child.kill();
        let run = finish(child.wait_with_output().unwrap());
        self.mounted.regain_power().unwrap();
        self.budget.note(!ended);
        run
    }
}

fn creates_without_power(name: &'static str, filesystem: Filesystem) {
    let mut plug = Plug::new(name, filesystem);
    let mut known = Known::beneath(plug.mounted.path());
    while plug.budget.lasts() {
        let source = known.world.path("source");
        change(&source, &mut plug.random);
        let tree = look(&source);
        let name = known.next_name();
        let run = plug.run("create", known.world.command(&["create", &name, "source"]));
        assert_same(&tree, &look(&source));
        let acknowledged = run.code == 0;
        known.check(Some((name.clone(), tree)));
        assert!(!acknowledged || known.snapshots.contains_key(&name), "acknowledged, and not there");
        if let Some(name) = known.pick(&mut plug.random) {
            known.check_deploy(&name, &mut plug.random);
        }
        if known.snapshots.len() > 3 {
            let gone = known.pick(&mut plug.random).unwrap();
            if let Some(tree) = known.snapshots.remove(&gone) {
                known.going.insert(gone.clone(), tree);
            }
            let run = plug.run("delete", known.world.command(&["delete", &gone, "--yes"]));
            known.check(None);
            assert!(run.code != 0 || !known.going.contains_key(&gone), "deleted, and still there");
            if known.going.contains_key(&gone) {
                known.world.ok(&["delete", &gone, "--yes"]);
                known.going.clear();
            }
            plug.run("gc", known.world.command(&["gc"]));
            known.check(None);
        }
    }
    known.check_end();
}

fn deploys_without_power(name: &'static str, filesystem: Filesystem, modes: &[&'static str]) {
    let mut plug = Plug::new(name, filesystem);
    let world = World::beneath(plug.mounted.path());
    let [old, new] = old_and_new(&world, &mut plug.random);
    world.ok(&["deploy", "old", "target"]);
    while plug.budget.lasts() {
        let mode = *plug.random.pick(modes);
        let stands = look(&world.path("target"));
        let (wanted, becomes) = if stands == old { ("new", &new) } else { ("old", &old) };
        let run = plug.run(mode, world.command(&["deploy", wanted, "target", "--yes", "--mode", mode]));
        if mode == "swap" || mode == "clone" {
            let found = look(&world.path("target"));
            assert!(found == old || found == new, "{mode}: neither old nor new at once");
        }
        let listed = world.run(&["list"]);
        assert_eq!(listed.code, 0, "{listed:#?}");
        let found = look(&world.path("target"));
        if found != old {
            assert_same(&new, &found);
        }
        assert!(run.code != 0 || found == *becomes, "{mode}: acknowledged, and not there");
        let left = left_beside(&world.path(""));
        assert!(left.is_empty(), "{mode}: {left:?}: {run:#?} {listed:#?}");
    }
    world.ok(&["deploy", "new", "target", "--yes"]);
    assert_same(&new, &look(&world.path("target")));
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
}

/// A shop that stands still, with rows in a database and objects in a bucket.
fn stock(shop: &Path, orders: i64) {
    fs::create_dir_all(shop.join("bucket")).unwrap();
    let database = Connection::open(shop.join("shop.db")).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database
        .execute_batch("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, object TEXT, digest TEXT)")
        .unwrap();
    for order in 1..=orders {
        let content = noise(order as u64, 9000);
        let (object, digest) = (format!("{order:08}"), blake3::hash(&content).to_hex().to_string());
        fs::write(shop.join("bucket").join(&object), content).unwrap();
        database.execute("INSERT OR REPLACE INTO orders VALUES (?1, ?2, ?3)", (order, object, digest)).unwrap();
    }
}

fn deploys_of_an_application_without_power(name: &'static str, filesystem: Filesystem) {
    let mut plug = Plug::new(name, filesystem);
    let world = World::beneath(plug.mounted.path());
    world.ok(&["init"]);
    let shop = world.path("shop");
    let hook = |when: &str| format!("[[app.shop.hook]]\nwhen = \"{when}\"\nargv = [\"/bin/sleep\", \"0.01\"]\n");
    let config = configuration(&shop, "", &(hook("stop") + &hook("start")));
    fs::write(world.path("copal.toml"), config.replace("while [ ! -e", "while false && [ ! -e")).unwrap();
    stock(&shop, 5);
    world.ok(&["create", "few", "--app", "shop"]);
    stock(&shop, 60);
    world.ok(&["create", "many", "--app", "shop"]);
    while plug.budget.lasts() {
        let (wanted, orders) = *plug.random.pick(&[("shop/few", 5), ("shop/many", 60)]);
        let mut words = vec!["deploy", wanted, "--app", "shop", "--yes"];
        if plug.random.one_in(2) {
            words.push("--no-safety");
        }
        let run = plug.run("deploy", world.command(&words));
        let status = world.json(&["status"]);
        let stands = assert_agreement(&shop.join("shop.db"), &shop.join("bucket"));
        assert!([5, 60].contains(&stands), "{stands} orders: {run:#?} {status:#}");
        assert!(run.code != 0 || stands == orders, "acknowledged, and not there");
        let left = left_beside(&shop);
        assert!(left.is_empty(), "{left:?}: {run:#?} {status:#}");
    }
    world.ok(&["deploy", "shop/few", "--app", "shop", "--yes"]);
    assert_eq!(assert_agreement(&shop.join("shop.db"), &shop.join("bucket")), 5);
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
}

#[test]
fn h16_a_deploy_of_an_application_that_loses_power_leaves_old_or_new_on_xfs() {
    deploys_of_an_application_without_power("deploy of an application without power on XFS", Filesystem::Xfs);
}

#[test]
fn h16_a_deploy_of_an_application_that_loses_power_leaves_old_or_new_on_ext4() {
    deploys_of_an_application_without_power("deploy of an application without power on ext4", Filesystem::Ext4);
}

#[test]
fn c08_a_create_delete_or_gc_that_loses_power_loses_nothing_on_xfs() {
    creates_without_power("create, delete, gc without power on XFS", Filesystem::Xfs);
}

#[test]
fn c08_a_create_delete_or_gc_that_loses_power_loses_nothing_on_ext4() {
    creates_without_power("create, delete, gc without power on ext4", Filesystem::Ext4);
}

#[test]
fn h16_a_deploy_that_loses_power_leaves_old_or_new_on_xfs() {
    deploys_without_power("deploy without power on XFS", Filesystem::Xfs, &["clone", "swap", "in-place"]);
}

#[test]
fn h16_a_deploy_that_loses_power_leaves_old_or_new_on_ext4() {
    deploys_without_power("deploy without power on ext4", Filesystem::Ext4, &["auto", "swap", "in-place"]);
}
