//! Goal: what one key stores takes no more memory of others than a sum that is bounded, and what exceeds it
//! costs that key alone. Method: many index fragments and many snapshots with long texts by keys that
//! create, beside an owner's and another such key's; the kernel says how much memory the built program had.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::path::PathBuf;

use copal_manifest::snapshot::{Snapshot, WARNING_BYTES_MAX, WARNINGS_MAX};
use copal_store::SnapshotId;
use copal_store::backend::{ObjectKind, ObjectName};
use copal_store::fuzzing::index_within;
use copal_store::repository::RootName;
use support::forge::{add_key, check_deployed, hold, plant, store, with_roles, write_source};
use support::{World, noise};
use wait4::Wait4;

fn stored_by(world: &World, key: &str, fragments: u64) -> Vec<String> {
    let by = hold(world, key);
    let before = world.objects_in("index");
    // Nobody stores what an owner has.
    let seed = key.bytes().fold(1000, |sum: u64, byte| sum * 31 + u64::from(byte));
    for number in 0..fragments {
        // One chunk in one pack: each fragment takes as much as another.
        store(&by, &[noise(seed + number, 5000)]);
    }
    let is_new = |path: &PathBuf| !before.contains(path);
    let name = |path: PathBuf| format!("index/{}", path.file_name().unwrap().to_string_lossy());
    world.objects_in("index").into_iter().filter(is_new).map(name).collect()
}

#[test]
fn t12_the_index_of_a_narrow_key_is_bounded_in_sum_and_costs_that_key_alone() {
    let world = with_roles(&["create"]);
    add_key(&world, "anna", "create");
    let owners = stored_by(&world, "key", 6);
    let bert = stored_by(&world, "create", 6);
    let anna = stored_by(&world, "anna", 1);
    let owner = hold(&world, "key");
    let one = {
        // As much as one fragment takes: with less nothing of it is read.
        let takes = |bytes: &u64| anna.iter().all(|name| index_within(&owner, *bytes).unwrap().0.contains(name));
        (1..4096).find(takes).unwrap()
    };
    for (bytes, of_bert) in [(one - 1, 0), (one, 1), (3 * one, 3), (5 * one + one / 2, 5), (6 * one, 6)] {
        let (names, unreadable) = index_within(&owner, bytes).unwrap();
        assert!(owners.iter().all(|name| names.contains(name)), "{bytes}: an owner's is not read");
        assert_eq!(bert.iter().filter(|name| names.contains(name)).count(), of_bert, "{bytes}");
        assert_eq!(anna.iter().all(|name| names.contains(name)), bytes >= one, "{bytes}");
        assert_eq!(unreadable.is_some(), of_bert < 6, "{bytes}");
        assert!(unreadable.is_none_or(|error| error.to_string().contains("more index than is read")));
    }
    // The same for the narrow key itself: its own is its own.
    let (names, _) = index_within(&hold(&world, "create"), one).unwrap();
    assert!(bert.iter().chain(&owners).all(|name| names.contains(name)));
}

#[test]
fn t12_snapshots_of_a_narrow_key_are_bounded_in_sum_and_cost_that_key_alone() {
    let world = with_roles(&["create"]);
    write_source(&world, "source", 1);
    add_key(&world, "anna", "create");
    world.create("monday", "source");
    support::forge::ok_with(&world, "anna", &["create", "hers", "source"]);
    let (owner, thief) = (hold(&world, "key"), hold(&world, "create"));
    let tag = owner.keys().name_tag(b"monday");
    let root = owner.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap();
    let like = Snapshot::decode("a root", &owner.read_root(&root).unwrap()).unwrap();
    let number = 24;
    for number in 0..number {
        let mut forged = like.clone();
        forged.id = SnapshotId([number + 1; 16]);
        forged.name = format!("long {number}");
        forged.warnings = vec!["w".repeat(WARNING_BYTES_MAX); WARNINGS_MAX];
        let root = RootName { tag: owner.keys().name_tag(forged.name.as_bytes()), snapshot: forged.id };
        let name = ObjectName::new(ObjectKind::Root, root.object_name()).unwrap();
        plant(&thief, &name, &forged.encode().unwrap());
    }
    let mut command = world.command(&["list", "--json"]);
    let listed = File::create(world.path("listed")).unwrap();
    let log = File::create(world.path("log")).unwrap();
    let used = command.stdout(listed).stderr(log).spawn().unwrap().wait4().unwrap();
    let said = fs::read_to_string(world.path("log")).unwrap();
    assert_eq!(used.status.code(), Some(69), "{said:.2000}");
    assert!(said.contains("more memory than those of one key may"), "{said:.2000}");
    // The sum, one more that is being looked at, and the program.
    assert!(used.rusage.maxrss < 320 << 20, "it took {} MiB", used.rusage.maxrss >> 20);
    let text = fs::read_to_string(world.path("listed")).unwrap();
    assert!(text.contains("\"monday\"") && text.contains("\"hers\""), "{text:.2000}");
    let long = text.matches("\"long ").count();
    assert!((8..20).contains(&long), "{long} of {number} are listed");
    check_deployed(&world, "monday", "source");
    world.create("tuesday", "source");
    check_deployed(&world, "hers", "source");
}
