//! Goal: changes of keys lose nothing and let nobody in, whatever is interrupted, overtaken or planted
//! (rows T2 to T4). Method: storages that fail or let others pass in the midst of a change, and objects
//! planted beside one's own; what counts afterwards is told by the built program.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt;
use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};

use copal_sim::fault::{FaultBackend, FaultMode};
use copal_store::backend::{Backend, FinishedObject, Hold, ObjectKind, ObjectName, ObjectStat, ObjectWriter};
use copal_store::codec;
use copal_store::keys::StretchCost;
use copal_store::local::LocalBackend;
use copal_store::roles::Role;
use copal_store::{Error, Result};
use serde_json::Value;

use support::forge::{
    add_key, anew, credential, hold, hold_through, ok_with, plant, with_key, with_roles, write_source,
};
use support::{Run, World, finish, noise};

/// What happens once, before an object of some name is begun.
type Once = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// Lets others pass before the first object in `keys/` that `is_meant` is begun. It forwards all else.
struct Between {
    inner: Arc<dyn Backend>,
    is_meant: fn(&str) -> bool,
    others: Once,
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Between(…)")
    }
}

impl Backend for Between {
    fn place(&self) -> String {
        self.inner.place()
    }
    fn prepare(&self) -> Result<()> {
        self.inner.prepare()
    }
    fn create(&self, name: &ObjectName, bytes_hint: u64) -> Result<Box<dyn ObjectWriter>> {
        if name.kind() == ObjectKind::KeySlot && (self.is_meant)(name.name()) {
            let others = self.others.lock().unwrap().take();
            others.into_iter().for_each(|others| others());
        }
        self.inner.create(name, bytes_hint)
    }
    fn publish(&self, objects: Vec<FinishedObject>) -> Result<()> {
        self.inner.publish(objects)
    }
    fn read_range(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.inner.read_range(name, offset, buffer)
    }
    fn read(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>> {
        self.inner.read(name, bytes_max)
    }
    fn stat(&self, name: &ObjectName) -> Result<ObjectStat> {
        self.inner.stat(name)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<ObjectStat>> {
        self.inner.list(kind)
    }
    fn names(&self, kind: ObjectKind) -> Result<Vec<ObjectName>> {
        self.inner.names(kind)
    }
    fn delete(&self, names: &[ObjectName]) -> Result<()> {
        self.inner.delete(names)
    }
    fn hold(&self, name: &ObjectName, bytes: &[u8]) -> Result<Box<dyn Hold>> {
        self.inner.hold(name, bytes)
    }
    fn is_held(&self, name: &ObjectName) -> Result<bool> {
        self.inner.is_held(name)
    }
    fn free_bytes(&self) -> Result<Option<u64>> {
        self.inner.free_bytes()
    }
}

const CHEAP: StretchCost = StretchCost { memory_kib: 8, passes: 1, lanes: 1 };

/// Two owners on machines that do not see each other's locks: of two changes that meet one counts, and the
/// other one says so.
#[test]
fn t03_of_two_changes_of_keys_that_meet_none_is_lost() {
    // Before the slot is written, and in the very instant before the roster is.
    let moments: [fn(&str) -> bool; 2] = [|name| !name.contains('-'), |name| name.starts_with("roster-")];
    for is_meant in moments {
        let world = World::new();
        world.ok(&["key", "rotate"]);
        add_key(&world, "anna", "full");
        for name in ["bert", "carl"] {
            fs::write(world.path(name), noise(name.len() as u64 + u64::from(name.as_bytes()[0]), 32)).unwrap();
        }
        let mut command = world.elsewhere_new(&["key", "add", "--label", "bert", "--new-key-file", "bert"]);
        command.env("COPAL_KEY_FILE", world.path("anna"));
        let lease = world.repository().join("leases/keys");
        let others = Box::new(move || {
            fs::remove_file(&lease).unwrap();
            let run = finish(command.output().unwrap());
            assert_eq!(run.code, 0, "{run:#?}");
        });
        let inner = Arc::new(LocalBackend::new(&world.repository()));
        let between = Between { inner, is_meant, others: Mutex::new(Some(others)) };
        let owner = hold_through(Arc::new(between), &world, "key");
        let added = owner.add_role_slot(&credential(&world, "carl"), "carl", Role::Full, CHEAP, 1);
        assert!(matches!(added, Err(Error::Busy { .. })), "{added:?}");
        assert_eq!(labels_of(&world.json(&["key", "list"])), ["anna", "bert", "first"]);
        for key in ["key", "anna", "bert"] {
            ok_with(&world, key, &["list"]);
        }
        assert_ne!(with_key(&world, "carl", &["list"]).code, 0);
        // It is tried again, and done.
        owner.add_role_slot(&credential(&world, "carl"), "carl", Role::Full, CHEAP, 1).unwrap();
        assert_eq!(labels_of(&world.json(&["key", "list"])), ["anna", "bert", "carl", "first"]);
        let verdict = anew(&world, &["verify"]);
        assert_eq!(verdict.code, 0, "{verdict:#?}");
    }
}

fn labels_of(listed: &Value) -> Vec<&str> {
    let mut labels: Vec<&str> = listed.as_array().unwrap().iter().map(|key| key["label"].as_str().unwrap()).collect();
    labels.sort_unstable();
    labels
}

/// Whatever change of keys comes first after a step to format 3 that was killed: what was there before
/// counts as an owner's.
#[test]
fn t03_an_interrupted_step_to_signed_keys_is_ended_by_the_next_change_of_keys() {
    let mut interrupted = 0;
    for after in (1..).step_by(3) {
        let world = World::of_the_first_format();
        let faults = FaultBackend::new(Arc::new(LocalBackend::new(&world.repository())));
        let owner = hold_through(Arc::new(faults.clone()), &world, "key");
        faults.plan(None, after, FaultMode::CrashBefore);
        let rotated = owner.rotate_keys(&credential(&world, "key"), CHEAP, 1);
        if !faults.has_fired() {
            rotated.unwrap();
            break;
        }
        drop(owner);
        fs::write(world.path("anna"), noise(5, 32)).unwrap();
        let add = ["key", "add", "--label", "anna", "--new-key-file", "anna"];
        let added = world.run(&add);
        if added.code != 0 {
            // Its roster was not there yet.
            assert!(added.stderr.contains("key rotate"), "{added:#?}");
            world.ok(&["key", "rotate"]);
            world.ok(&add);
        } else {
            interrupted += 1;
        }
        for snapshot in world.json(&["list"]).as_array().unwrap() {
            let shown = world.json(&["show", snapshot["id"].as_str().unwrap()]);
            assert_eq!(shown["key"]["role"], "full", "after {after} steps: {shown}");
        }
        ok_with(&world, "anna", &["show", "latest"]);
        let verdict = anew(&world, &["verify"]);
        assert_eq!(verdict.code, 0, "after {after} steps: {verdict:#?}");
    }
    assert!(interrupted > 3, "{interrupted}");
}

fn with_password(world: &World, how: impl Fn(&World, &[&str]) -> Command, arguments: &[&str]) -> Run {
    let mut command = how(world, arguments);
    command.env_remove("COPAL_KEY_FILE").env("COPAL_PASSWORD", "a password");
    finish(command.output().unwrap())
}

/// Copies of the only slot under other ids, which cost a stretching each. `cost`: where its memory and
/// passes stand in the object, what to write there.
fn plant_slots(world: &World, number: u32, cost: Option<&[u8]>) {
    let keys = world.repository().join("keys");
    let names = fs::read_dir(&keys).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let slot = names.into_iter().find(|name| !name.contains('-')).unwrap();
    let bytes = fs::read(keys.join(slot)).unwrap();
    for number in 0..number {
        let id = u128::from(number).to_be_bytes();
        let mut copied = bytes.clone();
        copied[16..32].copy_from_slice(&id);
        if let Some(cost) = cost {
            // Behind the envelope and the kind of stretching.
            copied[33..33 + cost.len()].copy_from_slice(cost);
        }
        let name: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(keys.join(name), copied).unwrap();
    }
}

#[test]
fn t03_planted_slots_keep_no_password_out() {
    let world = World::bare();
    let here = |world: &World, arguments: &[&str]| world.command(arguments);
    let made = with_password(&world, here, &["init"]);
    assert_eq!(made.code, 0, "{made:#?}");
    // More than anybody waits for: this machine knows its own, and clears the others away.
    plant_slots(&world, 400, None);
    for arguments in [&["list"][..], &["verify", "--repair"], &["verify"]] {
        let run = with_password(&world, here, arguments);
        assert_eq!(run.code, 0, "{run:#?}");
    }
    let elsewhere = with_password(&world, World::elsewhere_new, &["list"]);
    assert_eq!(elsewhere.code, 0, "{elsewhere:#?}");
    // 1 GiB and 64 passes each: a machine that knows none tries the cheap ones first.
    plant_slots(&world, 100, Some(&[0xfc, 0, 0, 0x10, 0, 64]));
    fs::remove_dir_all(world.path("new state")).unwrap();
    let elsewhere = with_password(&world, World::elsewhere_new, &["list"]);
    assert_eq!(elsewhere.code, 0, "{elsewhere:#?}");
}

/// The label of a key that is removed stays in force, whatever somebody has put above it.
#[test]
fn t02_labels_below_junk_outlive_the_key_that_signed_them() {
    for (is_forged, pinned) in [(true, true), (true, false), (false, true)] {
        let world = with_roles(&["create", "maintain"]);
        write_source(&world, "source", 30);
        world.create("monday", "source");
        ok_with(&world, "maintain", &["tag", "monday", "reason=keep"]);
        if pinned {
            ok_with(&world, "maintain", &["pin", "monday"]);
        }
        let thief = hold(&world, "create");
        let label = thief.backend().list(ObjectKind::Label).unwrap().remove(0).name;
        let (snapshot, _) = label.name().split_once('-').unwrap();
        let junk = ObjectName::new(ObjectKind::Label, format!("{snapshot}-{:016x}", 99)).unwrap();
        if is_forged {
            plant(&thief, &junk, &codec::encode(&(1u16, Vec::<(String, String)>::new(), false)).unwrap());
        } else {
            fs::write(world.repository().join(junk.to_string()), noise(3, 4096)).unwrap();
        }
        world.ok(&["key", "remove", "maintain"]);
        let shown = anew(&world, &["show", "monday", "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!((&shown["tags"]["reason"], &shown["pinned"]), (&"keep".into(), &pinned.into()), "{shown}");
        let verdict = anew(&world, &["verify"]);
        // What may have been a label stays named until somebody says what holds.
        assert_eq!(verdict.code, if is_forged { 0 } else { 69 }, "{verdict:#?}");
        world.ok(&["pin", "monday"]);
        assert_eq!(anew(&world, &["verify"]).code, 0);
    }
}

#[test]
fn t04_latest_and_retention_go_on_after_a_change_of_the_key() {
    let world = World::new();
    write_source(&world, "source", 40);
    for name in ["one", "two", "three"] {
        world.create(name, "source");
    }
    world.ok(&["pin", "one"]);
    // What this machine has cached of the snapshots says who signed them before.
    world.ok(&["list"]);
    let mut key = "key".to_owned();
    for round in 0..2 {
        for arguments in [&["key", "rotate"][..], &["key", "rotate", "--reseal"]] {
            ok_with(&world, &key, arguments);
            assert!(ok_with(&world, &key, &["show", "latest"]).contains("three"));
        }
        let new = format!("new {round}");
        fs::write(world.path(&new), noise(50 + round, 32)).unwrap();
        let changed = ok_with(&world, &key, &["key", "change", "--new-key-file", &new, "--json"]);
        let changed: Value = serde_json::from_str(&changed).unwrap();
        assert_eq!(changed["snapshots_signed_again"], 3, "{changed}");
        key = new;
        assert!(ok_with(&world, &key, &["show", "latest"]).contains("three"));
        let mut elsewhere = world.elsewhere_new(&["deploy", "latest", "target", "--yes"]);
        let deployed = finish(elsewhere.env("COPAL_KEY_FILE", world.path(&key)).output().unwrap());
        assert_eq!(deployed.code, 0, "{deployed:#?}");
        assert!(fs::read(world.path("target/file 2")).unwrap() == noise(42, 20_000));
        ok_with(&world, &key, &["verify"]);
    }
    ok_with(&world, &key, &["forget", "--keep-last", "1"]);
    let listed: Value = serde_json::from_str(&ok_with(&world, &key, &["list", "--json"])).unwrap();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "three"]);
    // The next one is built on them.
    ok_with(&world, &key, &["create", "four", "source"]);
    let shown: Value = serde_json::from_str(&ok_with(&world, &key, &["show", "four", "--json"])).unwrap();
    assert_eq!(shown["parent"], listed[1]["id"]);
}

/// A process that was opened before its key was removed undoes nothing that counts.
#[test]
fn t03_a_process_that_missed_its_removal_replaces_nothing() {
    let world = with_roles(&["full", "maintain"]);
    write_source(&world, "source", 60);
    world.create("monday", "source");
    world.ok(&["tag", "monday", "reason=keep"]);
    let processes = ["full", "maintain"].map(|key| hold(&world, key));
    for key in ["full", "maintain"] {
        world.ok(&["key", "remove", key]);
    }
    for process in processes {
        let (snapshot, seq) = process.labels().unwrap()[0];
        let label = codec::encode(&(1u16, Vec::<(String, String)>::new(), false)).unwrap();
        assert!(matches!(process.replace_label(snapshot, Some(seq), &label), Err(Error::KeySlot { .. })));
        assert!(matches!(process.delete_roots(&process.roots().unwrap()), Err(Error::KeySlot { .. })));
        let lifted = copal_store::check::lift_unreadable_sentences(&process);
        assert!(matches!(lifted, Err(Error::KeySlot { .. })), "{lifted:?}");
    }
    assert_eq!(world.json(&["show", "monday"])["tags"]["reason"], "keep");
    assert_eq!(anew(&world, &["verify"]).code, 0);
    world.ok(&["gc"]);
}
