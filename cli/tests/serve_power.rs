//! Goal: a daemon whose power goes in the middle of a create or a deploy leaves nothing half done, keeps what
//! it said was done, and the next one goes on. Method: the built program on XFS and ext4, whose disk is taken
//! away at random times from a printed seed.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::time::Instant;

use copal_sim::mounts::{Filesystem, Mounted};
use daemon::{Daemon, sql};
use serde_json::json;
use support::World;
use support::kill::Budget;
use support::known::{Spans, left_beside};
use support::shop::assert_agreement;

/// Orders, each a row and an object; those beyond go.
fn stock(world: &World, orders: u64) {
    let bucket = world.path("shop/bucket");
    let _ = fs::remove_dir_all(&bucket);
    fs::create_dir_all(&bucket).unwrap();
    let mut statement =
        "pragma journal_mode = wal; create table if not exists orders (id integer primary key, object text, \
                         digest text); begin; delete from orders;"
            .to_owned();
    for order in 0..orders {
        let content = support::noise(1000 * orders + order, 5000);
        fs::write(bucket.join(order.to_string()), &content).unwrap();
        let digest = blake3::hash(&content).to_hex();
        statement.push_str(&format!("insert into orders values ({order}, '{order}', '{digest}');"));
    }
    sql(&world.path("shop/shop.db"), &(statement + "commit;"));
}

fn orders(world: &World) -> u64 {
    assert_agreement(&world.path("shop/shop.db"), &world.path("shop/bucket")) as u64
}

fn lose_power(name: &'static str, filesystem: Filesystem) {
    let (mut budget, mut random) = Budget::new(name);
    let mounted = Mounted::new(filesystem, 768).unwrap();
    let world = World::beneath(mounted.path());
    world.ok(&["init"]);
    let hook = |when: &str| format!("[[app.shop.hook]]\nwhen = \"{when}\"\nargv = [\"/bin/sleep\", \"0.01\"]\n");
    let source = "[[app.shop.source]]\nkind = \"sqlite\"\nlabel = \"shop.db\"\npath = \"shop/shop.db\"\n\
                  [[app.shop.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = \"shop/bucket\"\n";
    let config = format!("[app.shop]\ndefault = true\n{source}{}{}", hook("stop"), hook("start"));
    fs::write(world.path("copal.toml"), config).unwrap();
    let mut daemon = Daemon::start(&world, &[]);
    let mut taken = BTreeSet::new();
    for (name, orders) in [("few", 5), ("many", 60)] {
        stock(&world, orders);
        daemon.done(&format!("/snapshots/{name}"));
        taken.insert(name.to_owned());
    }
    let mut spans = Spans::default();
    let mut turn = 0;
    while budget.lasts() {
        turn += 1;
        let before = orders(&world);
        let (path, name, wanted) = match random.below(3) {
            0 => (format!("/snapshots/new-{turn}"), format!("new-{turn}"), before),
            1 => ("/snapshots/few/deploy".into(), "few".into(), 5),
            _ => ("/snapshots/many/deploy".into(), "many".into(), 60),
        };
        rustix::fs::syncfs(File::open(mounted.path()).unwrap()).unwrap();
        let begun = Instant::now();
        let accepted = daemon.post(&path);
        assert_eq!(accepted.status(), 202);
        let id = accepted.headers()["x-operation"].to_str().unwrap().to_owned();
        let told = if random.one_in(4) {
            let told = daemon.json(&format!("/operations/{id}?wait=60"));
            spans.learn("an operation", begun);
            told
        } else {
            std::thread::sleep(random.moment(spans.of("an operation")));
            daemon.json(&format!("/operations/{id}"))
        };
        let done = told["state"] == "succeeded";
        mounted.lose_power().unwrap();
        daemon.kill();
        mounted.regain_power().unwrap();
        budget.note(!done);

        daemon = Daemon::start(&world, &[]);
        let ended = daemon.json(&format!("/operations/{id}?wait=60"));
        let succeeded = ended["state"] == "succeeded";
        assert!(!done || succeeded, "it was told as done: {ended}");
        let stands = orders(&world);
        assert!(stands == before || stands == wanted, "{stands} orders are neither {before} nor {wanted}: {ended}");
        assert!(!succeeded || stands == wanted, "{stands} orders, and {wanted} were told: {ended}");
        let listed: BTreeSet<String> = daemon
            .json("/snapshots")
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|line| {
                let name = line["name"].as_str().unwrap();
                (!name.starts_with("safety-")).then(|| name.to_owned())
            })
            .collect();
        assert!(listed.is_superset(&taken), "{taken:?} were taken, and there are {listed:?}");
        assert!(!succeeded || listed.contains(&name), "{name} was told as done, and is not there");
        taken = listed;
    }
    drop(daemon);
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
    let left = left_beside(&world.path("shop"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn h12_h16_a_daemon_that_loses_power_leaves_nothing_half_done_on_xfs() {
    lose_power("daemon without power on XFS", Filesystem::Xfs);
}

#[test]
fn h12_h16_a_daemon_that_loses_power_leaves_nothing_half_done_on_ext4() {
    lose_power("daemon without power on ext4", Filesystem::Ext4);
}
