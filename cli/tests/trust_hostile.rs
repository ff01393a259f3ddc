//! Goal: what the holder of a key, or whoever can write into the folder, puts there stops nobody else, costs
//! nobody else memory, and keeps no key in force (rows T2, T3, T8, T12). Method: objects that open and say
//! nothing, or too much, sealed with the store's own code by keys of each role; their cost is told by the
//! built program.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::{Rule, Snapshot, SourceRules};
use copal_store::backend::{ObjectKind, ObjectName, publish_bytes};
use copal_store::fuzzing::{BLOCK, seal_signed_parts, seal_whole};
use copal_store::repository::{Repository, RootName};
use copal_store::{ChunkId, ObjectId, SnapshotId, codec};

use support::forge::{hold, ok_with, with_key};
use support::{World, finish, flip, noise};

/// A repository with another key in that role, and the snapshot `monday` of an owner.
fn with_bert(role: &str) -> World {
    let world = World::new();
    world.ok(&["key", "rotate", "--reseal"]);
    add_key(&world, "bert", role, 20);
    fs::create_dir_all(world.path("source")).unwrap();
    for number in 0..4 {
        fs::write(world.path("source").join(format!("file {number}")), noise(number, 20_000)).unwrap();
    }
    world.create("monday", "source");
    world
}

fn add_key(world: &World, name: &str, role: &str, seed: u64) {
    fs::write(world.path(name), noise(seed, 32)).unwrap();
    world.ok(&["key", "add", "--role", role, "--label", name, "--new-key-file", name]);
}

fn read_snapshot(owner: &Repository, name: &str) -> (RootName, Snapshot) {
    let tag = owner.keys().name_tag(name.as_bytes());
    let root = owner.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap();
    (root, Snapshot::decode("a root", &owner.read_root(&root).unwrap()).unwrap())
}

fn plant(by: &Repository, kind: ObjectKind, name: &str, payload: &[u8]) {
    let name = ObjectName::new(kind, name).unwrap();
    publish_bytes(&**by.backend(), &name, &seal_whole(by, &name, payload).unwrap()).unwrap();
}

/// A snapshot like `monday`, changed, by another key.
fn plant_root(world: &World, by: &str, name: &str, change: &dyn Fn(&mut Snapshot)) {
    let (owner, by) = (hold(world, "key"), hold(world, by));
    let (_, mut snapshot) = read_snapshot(&owner, "monday");
    let hash = blake3::hash(name.as_bytes());
    snapshot.id = SnapshotId(hash.as_bytes()[..16].try_into().unwrap());
    snapshot.name = name.into();
    change(&mut snapshot);
    let root = RootName { tag: owner.keys().name_tag(name.as_bytes()), snapshot: snapshot.id };
    plant(&by, ObjectKind::Root, &root.object_name(), &snapshot.encode().unwrap());
}

#[test]
fn t03_a_changed_id_in_the_configuration_makes_no_machine_forget_what_it_has_seen() {
    for objects in [&["config"][..], &["config-copy"], &["config", "config-copy"]] {
        let world = with_bert("full");
        let old: Vec<_> = world.objects_in("keys").into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
        world.ok(&["key", "remove", "bert"]);
        world.ok(&["key", "rotate"]);
        world.ok(&["list"]);
        fs::remove_dir_all(world.repository().join("keys")).unwrap();
        fs::create_dir(world.repository().join("keys")).unwrap();
        for (bytes, path) in &old {
            fs::write(path, bytes).unwrap();
        }
        for object in objects {
            flip(&world.repository().join(object), 20, 0);
        }
        for command in [&["list"][..], &["key", "list"], &["create", "secret", "source"]] {
            let run = world.run(command);
            assert_eq!(run.code, 69, "{objects:?} {command:?}: {run:#?}");
        }
        // The true keys with the changed configuration: the other one of the two serves.
        assert_eq!(world.objects_in("snapshots").len(), 1);
    }
}

#[test]
fn t03_a_changed_id_in_the_configuration_locks_nobody_out() {
    for object in ["config", "config-copy"] {
        let world = with_bert("create");
        // Also where the other id is one that this machine knows.
        flip(&world.repository().join(object), 20, 0);
        world.ok(&["list"]);
        world.ok(&["create", "tuesday", "source"]);
        world.ok(&["key", "rotate"]);
        world.ok(&["verify", "--repair"]);
        world.ok(&["verify"]);
    }
}

fn label_name(root: RootName, seq: u64) -> String {
    format!("{}-{seq:016x}", root.snapshot)
}

fn label() -> Vec<u8> {
    codec::encode(&(1u16, Vec::<(String, String)>::new(), false)).unwrap()
}

#[test]
fn t02_a_label_with_the_last_numbers_stops_nothing() {
    for role in ["create", "maintain", "full"] {
        for seq in [u64::MAX, u64::MAX - 1] {
            let world = with_bert(role);
            let (root, _) = read_snapshot(&hold(&world, "key"), "monday");
            plant(&hold(&world, "bert"), ObjectKind::Label, &label_name(root, seq), &label());
            for tag in ["a=1", "b=2", "c=3"] {
                world.ok(&["tag", "monday", tag]);
            }
            world.ok(&["pin", "monday"]);
            let listed = world.json(&["list"]);
            assert_eq!((listed[0]["pinned"].clone(), listed[0]["tags"]["c"].clone()), (true.into(), "3".into()));
            world.ok(&["unpin", "monday"]);
            world.ok(&["key", "rotate", "--reseal"]);
            let listed = world.json(&["list"]);
            assert_eq!((listed[0]["pinned"].clone(), listed[0]["tags"]["a"].clone()), (false.into(), "1".into()));
            assert_eq!(world.objects_in("labels").len(), 1, "{role} {seq}");
            world.ok(&["verify"]);
        }
    }
}

#[test]
fn t03_a_label_with_the_last_number_keeps_no_key_in_force() {
    for role in ["maintain", "full"] {
        let world = with_bert(role);
        let (root, _) = read_snapshot(&hold(&world, "key"), "monday");
        let pinned = codec::encode(&(1u16, vec![("by".to_owned(), "bert".to_owned())], true)).unwrap();
        plant(&hold(&world, "bert"), ObjectKind::Label, &label_name(root, u64::MAX), &pinned);
        world.ok(&["key", "remove", "bert"]);
        assert_ne!(with_key(&world, "bert", &["list"]).code, 0);
        // What he had set is in force still, as an owner's word.
        let listed = world.json(&["list"]);
        assert_eq!((listed[0]["pinned"].clone(), listed[0]["tags"]["by"].clone()), (true.into(), "bert".into()));
        world.ok(&["unpin", "monday"]);
        world.ok(&["verify"]);
    }
}

/// What the directory of a fragment says, and its blocks.
struct Forged {
    rows: Vec<u8>,
    entries: u32,
    filter_bytes: usize,
    padding: usize,
    is_cut: bool,
}

const SOUND: Forged = Forged { rows: Vec::new(), entries: 1, filter_bytes: 8, padding: 0, is_cut: false };

/// A fragment that opens, signed by whoever holds a key.
fn plant_fragment(by: &Repository, number: u8, forged: &Forged) {
    let id = ChunkId([number; 32]);
    let mut block = 1u32.to_le_bytes().to_vec();
    block.extend_from_slice(&id.0);
    block.extend_from_slice(&(forged.rows.len() as u32).to_le_bytes());
    block.extend_from_slice(&forged.rows);
    block.resize(block.len() + forged.padding, 0);
    let name = ObjectName::new(ObjectKind::Index, ObjectId([number; 16]).to_string()).unwrap();
    let blocks = vec![(id.0, block.len() as u32 + 16, *blake3::hash(&block).as_bytes())];
    let packs = Vec::<([u8; 16], u8)>::new();
    let author = by.keys().signer().unwrap();
    let directory = (packs, blocks, forged.entries, forged.filter_bytes as u64, author);
    let mut plain = codec::encode(&directory).unwrap();
    let document_bytes = plain.len() as u32;
    plain.resize(plain.len() + forged.filter_bytes, 0xff);
    if !forged.is_cut {
        plain.extend_from_slice(&document_bytes.to_le_bytes());
    }
    let bytes = seal_signed_parts(by, &name, &[(BLOCK, &block)], &plain).unwrap();
    publish_bytes(&**by.backend(), &name, &bytes).unwrap();
}

#[test]
fn t02_a_fragment_that_says_nothing_stops_nothing_and_keeps_no_key_in_force() {
    let kinds: [(&str, Forged); 6] = [
        ("no row", Forged { ..SOUND }),
        ("a row that cannot be", Forged { rows: vec![0x7f; 40], ..SOUND }),
        ("another number of entries", Forged { entries: 7, filter_bytes: 9, ..SOUND }),
        ("a filter of 8 MiB", Forged { filter_bytes: 8 << 20, ..SOUND }),
        ("a block of 1 MiB", Forged { padding: 1 << 20, ..SOUND }),
        ("no length", Forged { is_cut: true, ..SOUND }),
    ];
    for role in ["create", "maintain", "full"] {
        for (kind, forged) in &kinds {
            let world = with_bert(role);
            let bert = hold(&world, "bert");
            for number in [1, 0xee] {
                plant_fragment(&bert, number, forged);
            }
            world.ok(&["create", "tuesday", "source"]);
            world.ok(&["delete", "tuesday", "--yes"]);
            world.ok(&["gc"]);
            let verdict = world.run(&["verify"]);
            assert!(verdict.code == 69 || role != "create", "{role}, {kind}: {verdict:#?}");
            world.ok(&["key", "remove", "bert"]);
            world.ok(&["key", "rotate", "--reseal"]);
            world.ok(&["verify", "--repair"]);
            world.ok(&["verify"]);
            world.ok(&["deploy", "monday", "target", "--yes"]);
        }
    }
}

#[test]
fn t02_a_sentence_that_says_nothing_stops_nobody() {
    let world = with_bert("create");
    add_key(&world, "robot", "create", 21);
    let bert = hold(&world, "bert");
    let id = "aa".repeat(16);
    plant(&bert, ObjectKind::Condemned, &id, b"rubbish");
    plant(&bert, ObjectKind::Condemned, &format!("{id}-sessions"), b"rubbish");
    ok_with(&world, "robot", &["create", "of the robot", "source"]);
    world.ok(&["create", "tuesday", "source"]);
    world.ok(&["gc"]);
    world.ok(&["key", "rotate", "--reseal"]);
    assert_eq!(world.run(&["verify"]).code, 69);
    world.ok(&["verify", "--repair"]);
    world.ok(&["verify"]);
}

#[test]
fn t12_rules_of_a_snapshot_stand_for_no_more_than_is_needed() {
    let world = with_bert("create");
    let many = Rule::Exclude(format!("{}{}", "x".repeat(1000), "{a,b}".repeat(12)));
    let few = Rule::Exclude("*.{jpg,png}".into());
    for (name, rules) in [("few", vec![few; 100]), ("many", vec![many; 100])] {
        plant_root(&world, "bert", name, &|snapshot| {
            snapshot.version = 3;
            snapshot.user = String::new();
            snapshot.rules = vec![SourceRules { label: snapshot.sources[0].label.clone(), rules: rules.clone() }];
        });
    }
    fs::create_dir_all(world.path("target")).unwrap();
    world.ok(&["deploy", "few", "target", "--yes", "--dry-run"]);
    let run = world.run(&["deploy", "many", "target", "--yes", "--dry-run"]);
    assert!(run.code != 0 && run.stderr.contains("more than any snapshot needs"), "{run:#?}");
    world.ok(&["show", "many"]);
}

#[test]
fn t12_numbers_of_a_snapshot_overflow_nowhere() {
    let world = with_bert("create");
    let largest = |snapshot: &mut Snapshot| {
        let mut other = snapshot.sources[0].clone();
        other.label = "z".into();
        snapshot.sources.push(other);
        for source in &mut snapshot.sources {
            (source.files, source.bytes, source.entries, source.device) = (u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        }
        (snapshot.bytes_read, snapshot.bytes_new) = (u64::MAX, u64::MAX);
        (snapshot.stored_new, snapshot.chunks_new) = (u64::MAX, u64::MAX);
    };
    let at = |seconds| Timestamp { seconds, nanoseconds: 999_999_999 };
    plant_root(&world, "bert", "one", &|snapshot| largest(snapshot));
    plant_root(&world, "bert", "two", &|snapshot| {
        largest(snapshot);
        (snapshot.created, snapshot.completed) = (at(i64::MIN), at(i64::MAX));
    });
    plant_root(&world, "bert", "three", &|snapshot| {
        (snapshot.created, snapshot.completed) = (at(i64::MAX), at(i64::MIN));
    });
    let listed = world.json(&["list"]);
    let one = listed.as_array().unwrap().iter().find(|line| line["name"] == "one").unwrap();
    assert_eq!((one["files"].as_u64(), one["bytes"].as_u64()), (Some(u64::MAX), Some(u64::MAX)));
    assert_eq!(world.json(&["stats"])["logical"].as_u64(), Some(u64::MAX));
    for name in ["one", "two", "three"] {
        world.ok(&["show", name]);
        world.ok(&["diff", "monday", name]);
    }
    for command in [
        &["list"][..],
        &["stats"],
        &["gc"],
        &["forget", "--keep-last", "1", "--keep-daily", "3", "--keep-within", "1h", "--dry-run"],
        &["create", "tuesday", "source"],
    ] {
        world.ok(command);
    }
}

#[test]
fn t12_texts_of_a_snapshot_are_bounded() {
    let world = with_bert("create");
    let (owner, bert) = (hold(&world, "key"), hold(&world, "bert"));
    let (_, snapshot) = read_snapshot(&owner, "monday");
    let forged = [
        Snapshot { host: "h".repeat(2000), ..snapshot.clone() },
        Snapshot { program: "p".repeat(2000), ..snapshot.clone() },
        Snapshot { warnings: vec!["w".repeat(40_000); 1000], ..snapshot.clone() },
        Snapshot {
            rules: vec![SourceRules {
                label: snapshot.sources[0].label.clone(),
                rules: vec![Rule::Exclude("x".repeat(4000)); 2000],
            }],
            ..snapshot
        },
    ];
    for (number, mut forged) in forged.into_iter().enumerate() {
        assert!(forged.encode().is_err(), "{number}");
        forged.id = SnapshotId([number as u8; 16]);
        forged.name = format!("n{number}");
        // As a program without bounds encodes version 5.
        let payload = codec::encode(&(&forged, &forged.live, &forged.rules, &forged.user)).unwrap();
        let root = RootName { tag: owner.keys().name_tag(forged.name.as_bytes()), snapshot: forged.id };
        plant(&bert, ObjectKind::Root, &root.object_name(), &payload);
    }
    let run = world.run(&["list"]);
    assert!(run.code == 69 && run.stdout.len() + run.stderr.len() < 20_000, "{run:#?}");
    world.ok(&["show", "monday"]);
    world.ok(&["deploy", "monday", "target", "--yes"]);
    world.ok(&["create", "tuesday", "source"]);
    // Whoever may remove snapshots does.
    world.ok(&["delete", "n0", "n1", "n2", "n3", "--yes"]);
    world.ok(&["gc"]);
    world.ok(&["verify"]);
}

#[test]
fn t03_copies_of_a_roster_lock_nobody_out() {
    let world = with_bert("create");
    let roster = world.objects_in("keys").into_iter().find(|path| path.to_string_lossy().contains("roster")).unwrap();
    let bytes = fs::read(roster).unwrap();
    for number in 100..600 {
        fs::write(world.repository().join(format!("keys/roster-{number:08x}")), &bytes).unwrap();
    }
    world.ok(&["list"]);
    ok_with(&world, "bert", &["create", "tuesday", "source"]);
    world.ok(&["key", "rotate"]);
    world.ok(&["list"]);
}

/// Another repository whose snapshots claim the same host and place and are younger, as one bundle.
fn import_from_elsewhere(world: &World, names: &[&str], create: &[&str]) {
    fs::write(world.path("password"), "travel").unwrap();
    let there = world.text("away");
    let away = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        let run = finish(command.env("COPAL_REPO", &there).output().unwrap());
        assert_eq!(run.code, 0, "{arguments:?}: {run:#?}");
    };
    away(&["init"]);
    for name in names {
        away(&[&["create", name][..], create].concat());
    }
    let secret = ["--bundle-password-file", "password"];
    away(&[&["export"][..], names, &["bundle"], &secret].concat());
    world.ok(&[&["import", "bundle"][..], &secret].concat());
}

#[test]
fn t02_what_is_imported_pushes_out_nothing_and_is_not_the_latest() {
    let world = with_bert("create");
    world.create("tuesday", "source");
    import_from_elsewhere(&world, &["bad1", "bad2", "bad3"], &["source"]);
    let removed = world.json(&["forget", "--keep-last", "2"])["removed"].clone();
    let removed: Vec<_> = removed.as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(removed, ["bad1"], "{removed:?}");
    let run = world.run(&["show", "latest", "--json"]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&run.stdout).unwrap()["name"], "tuesday", "{run:#?}");
    assert!(run.stderr.contains("bad3 was imported"), "{run:#?}");
    // Where nothing was taken here, the newest that was imported is the latest.
    world.ok(&["delete", "monday", "tuesday", "--yes"]);
    assert_eq!(world.json(&["show", "latest"])["name"], "bad3");
}

#[test]
fn t02_what_is_imported_takes_no_place_of_an_application() {
    let world = with_bert("create");
    let source = format!("[[app.shop.source]]\nkind = \"tree\"\npath = {:?}\n", world.text("source"));
    fs::write(world.path("copal.toml"), format!("[app.shop]\nmax_snapshots = 2\n{source}")).unwrap();
    for name in ["mine1", "mine2"] {
        world.ok(&["create", name, "--app", "shop"]);
    }
    import_from_elsewhere(&world, &["bad1", "bad2"], &["--app", "shop", "--pin"]);
    world.ok(&["create", "mine3", "--app", "shop"]);
    let listed = world.json(&["list"]);
    let mut names: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["bad1", "bad2", "mine2", "mine3", "monday"]);
}
