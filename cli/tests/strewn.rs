//! Goal: what somebody strews into the folders of a repository harms itself alone (T2, T7): others create,
//! deploy and collect. Method: in each folder a file that is no object, one that says it is of a newer
//! version, and one that this user may not read; then the commands.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use copal_manifest::snapshot::Snapshot;
use copal_store::backend::{ObjectKind, ObjectName};
use copal_store::repository::RootName;
use copal_store::{ChunkId, SnapshotId};
use serde_json::Value;

use support::forge::{add_key, check_deployed, hold, plant, write_source};
use support::{Run, World, files_below, finish, number};

/// The user for whom the commands run, when root runs the tests: root may read everything.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives the world to who runs its commands, but for one file.
fn hand_over(world: &World, but: &Path) {
    if !is_root() {
        return;
    }
    let home = world.path("");
    let files = files_below(&home).into_iter().filter(|path| path != but);
    files.chain(folders_below(&home)).for_each(|path| chown(path, Some(NOBODY), Some(NOBODY)).unwrap());
}

fn folders_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(folders_below(&entry.path()));
        }
    }
    found
}

fn run(world: &World, arguments: &[&str]) -> Run {
    let mut command: Command = world.command(arguments);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    finish(command.output().unwrap())
}

/// What is strewn, by its name in a folder.
fn name_in(folder: &str) -> String {
    let id = "ab".repeat(16);
    match folder {
        "packs" => format!("ab/{id}"),
        "snapshots" => format!("{id}-{id}"),
        "labels" => format!("{id}-{}", "00".repeat(8)),
        _ => id,
    }
}

fn strew(world: &World, folder: &str, kind: &str, like: &[u8]) -> PathBuf {
    let path = world.repository().join(folder).join(name_in(folder));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut bytes = like.to_vec();
    match kind {
        "junk" => bytes = b"rubbish".to_vec(),
        "newer" => bytes[7] ^= 0x40,
        _ => {}
    }
    fs::write(&path, bytes).unwrap();
    if kind == "closed" {
        fs::set_permissions(&path, Permissions::from_mode(if is_root() { 0o600 } else { 0 })).unwrap();
    }
    path
}

#[test]
fn t02_what_is_strewn_into_a_folder_stops_nobody() {
    for folder in ["condemned", "index", "snapshots", "labels", "packs", "parity"] {
        for kind in ["junk", "newer", "closed"] {
            let what = format!("{kind} in {folder}");
            let world = World::new();
            world.ok(&["key", "rotate", "--reseal"]);
            write_source(&world, "source", 10);
            write_source(&world, "other", 20);
            world.create("monday", "source");
            world.create("gone", "other");
            world.ok(&["delete", "gone", "--yes"]);
            let like = fs::read(world.objects_in("snapshots").pop().unwrap()).unwrap();
            let strewn = strew(&world, folder, kind, &like);
            hand_over(&world, &strewn);
            let ok = |arguments: &[&str]| {
                let run = run(&world, arguments);
                assert_eq!(run.code, 0, "{what}: {arguments:?}: {run:#?}");
                serde_json::from_slice::<Value>(&run.stdout).unwrap_or_default()
            };
            ok(&["create", "tuesday", "source"]);
            let collected = ok(&["gc", "--json"]);
            // What could be that snapshot's stays.
            assert_eq!(number(&collected, "packs_removed") > 0, folder != "snapshots", "{what}: {collected}");
            write_source(&world, "later", 30);
            hand_over(&world, &strewn);
            ok(&["create", "later", "later"]);
            ok(&["delete", "later", "--yes"]);
            let collected = ok(&["gc", "--json"]);
            assert!(number(&collected, "packs_removed") > 0, "{what}: {collected}");
            // It names what it cannot read.
            let listed = run(&world, &["list"]);
            assert!(
                [0, 13, 69].contains(&listed.code) && String::from_utf8_lossy(&listed.stdout).contains("tuesday"),
                "{what}: {listed:#?}"
            );
            ok(&["deploy", "tuesday", "deployed"]);
            let verified = run(&world, &["verify"]);
            assert_ne!(verified.code, 1, "{what}: {verified:#?}");
            // A collection may have taken it for what it is.
            fs::remove_file(&strewn).ok();
            ok(&["verify"]);
        }
    }
}

/// A root that a creating key has signed, of a version that nobody knows.
#[test]
fn t02_a_snapshot_of_a_newer_version_by_a_narrow_key_stops_no_collection() {
    let world = World::new();
    world.ok(&["key", "rotate", "--reseal"]);
    add_key(&world, "create", "create");
    write_source(&world, "source", 10);
    world.create("monday", "source");
    let thief = hold(&world, "create");
    let owner = hold(&world, "key");
    let root = owner.roots().unwrap()[0];
    let mut payload = owner.read_root(&root).unwrap();
    let snapshot = Snapshot::decode("a root", &payload).unwrap();
    // A document begins with its version.
    payload[0] = 250;
    let newer = RootName { tag: [7; 16], snapshot: SnapshotId([7; 16]) };
    plant(&thief, &ObjectName::new(ObjectKind::Root, newer.object_name()).unwrap(), &payload);
    write_source(&world, "other", 20);
    world.create("tuesday", "other");
    world.ok(&["delete", "tuesday", "--yes"]);
    // It may be that one's.
    let first = world.run(&["gc"]);
    assert!(first.code == 0 && first.stderr.contains(&newer.snapshot.to_string()), "{first:#?}");
    let kept = world.objects_in("packs");
    write_source(&world, "later", 30);
    world.create("later", "later");
    world.ok(&["delete", "later", "--yes"]);
    assert!(number(&world.json(&["gc"]), "packs_removed") > 0);
    assert!(kept.iter().all(|pack| pack.exists()));
    check_deployed(&world, &snapshot.name, "source");
    world.ok(&["delete", &newer.snapshot.to_string(), "--yes"]);
    assert!(number(&world.json(&["gc"]), "packs_removed") > 0);
    check_deployed(&world, "monday", "source");
}

/// Beside each owner's root another one stands, which reaches the trees of all snapshots and then a node that
/// is not there: the walk ends before it has come to what is below those trees.
#[test]
fn t02_a_walk_that_ends_early_hides_nothing_from_the_next() {
    let world = World::new();
    world.ok(&["key", "rotate", "--reseal"]);
    add_key(&world, "create", "create");
    let names = ["one", "two", "three"];
    for (number, name) in names.iter().enumerate() {
        write_source(&world, name, 100 * number as u64);
        world.create(name, name);
    }
    let (owner, thief) = (hold(&world, "key"), hold(&world, "create"));
    let read = |root: &RootName| Snapshot::decode("a root", &owner.read_root(root).unwrap()).unwrap();
    let roots = owner.roots().unwrap();
    let mut sources: Vec<_> = roots.iter().map(|root| read(root).sources[0].clone()).collect();
    let mut missing = sources[0].clone();
    missing.tree.id = ChunkId([9; 32]);
    sources.push(missing);
    sources.iter_mut().zip(["a", "b", "c", "d"]).for_each(|(source, label)| source.label = label.into());
    for root in &roots {
        let forged = Snapshot { sources: sources.clone(), ..read(root) }.encode().unwrap();
        let beside = ObjectName::new(ObjectKind::Root, format!("{}-{:08x}", root.object_name(), 1)).unwrap();
        plant(&thief, &beside, &forged);
    }
    for _ in 0..2 {
        world.ok(&["gc"]);
    }
    for name in names {
        check_deployed(&world, name, name);
    }
}
