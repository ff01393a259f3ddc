//! Goal: collection never removes what a create beside it uses again, and neither a create nor a deploy waits
//! for it. Method: the built program, many processes at once on a repository whose garbage comes back to life
//! all the time; on filesystems with and without reflinks.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use copal_sim::mounts::{Filesystem, Mounted};
use support::{World, look, noise};

/// How long each runs.
const SECONDS: u64 = 8;

/// One of a few states, so that what a snapshot needs was often garbage a moment ago.
fn plant(world: &World, folder: &str, state: u64) {
    let folder = world.path(folder);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("large"), noise(state % 3, 1 << 20)).unwrap();
    for number in 0..20 {
        fs::write(folder.join(format!("{number}")), noise(100 * (state % 4) + number, 20_000)).unwrap();
    }
}

fn check(filesystem: Filesystem) {
    let mounted = Mounted::new(filesystem, 700).unwrap();
    let world = World::beneath(mounted.path());
    world.ok(&["init"]);
    plant(&world, "base", 0);
    world.ok(&["create", "base", "base"]);
    let wanted = look(&world.path("base"));
    let (ended, collected, removed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let begun = Instant::now();
    let (created, deployed) = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // A create that merges its part of the index holds the lease for a moment.
                let run = world.run(&["gc", "--json"]);
                assert!(run.code == 0 || run.code == 11 && run.error()["code"] == "busy", "{run:#?}");
                if run.code == 0 {
                    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
                    removed.fetch_add(report["packs_removed"].as_u64().unwrap(), Ordering::Relaxed);
                    collected.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let creators: Vec<_> = (0..2u64)
            .map(|creator| {
                let world = &world;
                scope.spawn(move || {
                    let mut turn = 0;
                    while begun.elapsed() < Duration::from_secs(SECONDS) {
                        let (name, source) = (format!("s{creator}-{turn}"), format!("source {creator}"));
                        plant(world, &source, creator + turn);
                        world.ok(&["create", &name, &source]);
                        // Whole at once, whatever is collected meanwhile.
                        let copy = format!("copy {creator}");
                        world.ok(&["deploy", &name, &copy, "--yes"]);
                        assert!(look(&world.path(&copy)) == look(&world.path(&source)), "{name} came back as another");
                        if turn > 0 {
                            world.ok(&["delete", &format!("s{creator}-{}", turn - 1), "--yes"]);
                        }
                        turn += 1;
                    }
                    turn
                })
            })
            .collect();
        let deployer = scope.spawn(|| {
            let mut turn = 0;
            while begun.elapsed() < Duration::from_secs(SECONDS) {
                world.ok(&["deploy", "base", "target", "--yes", "--force-read"]);
                assert!(look(&world.path("target")) == wanted, "the deploy beside a collection gave another tree");
                turn += 1;
            }
            turn
        });
        let created: Vec<_> = creators.into_iter().map(|creator| creator.join()).collect();
        let deployed = deployer.join();
        ended.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        (created.into_iter().map(Result::unwrap).sum::<u64>(), deployed.unwrap())
    });
    let (collected, removed) = (collected.into_inner(), removed.into_inner());
    println!("{filesystem:?}: {created} creates, {deployed} deploys beside {collected} collections of {removed} packs");
    assert!(
        created > 3 && deployed > 1 && collected > 1,
        "{created} creates, {deployed} deploys, {collected} collections"
    );
    // With nobody beside it, the collection takes the rest; what is listed is whole.
    world.ok(&["gc"]);
    assert_eq!(world.json(&["verify"])["ok"], true);
    world.ok(&["deploy", "base", "at last"]);
    assert!(look(&world.path("at last")) == wanted);
}

#[test]
fn c5_collection_beside_creates_and_deploys_on_xfs() {
    check(Filesystem::Xfs);
}

#[test]
fn c5_collection_beside_creates_and_deploys_without_reflinks() {
    check(Filesystem::Ext4);
}
