//! Goal: of whatever a key's holder puts into the storage, what does not hold is named, costs nothing
//! else, and does not outlive a repair; and a repair goes on beside what nobody here can judge (rows T4,
//! T5, T7, T8). Method: packs, lists of records, index entries and objects of each kind are forged by the
//! holders of each role with the store's own code; the program says what it thinks, and deploys are the
//! proof.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::PathBuf;

use copal_manifest::content::{Cutting, FileContent, Piece, Pieces};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node};
use copal_manifest::snapshot::Snapshot;
use copal_manifest::tree::TreeBuilder;
use copal_store::backend::{ObjectKind, ObjectName, publish_bytes};
use copal_store::codec;
use copal_store::fuzzing::{ForgedRecord, seal_fragment, seal_pack, seal_pack_parts};
use copal_store::location::{Encoding, Location, RecordKind};
use copal_store::pack::pack_name;
use copal_store::repository::{Repository, RootName};
use copal_store::session::{ChunkSource, Reservation, Session};
use copal_store::{ChunkId, ObjectId, PackId, SnapshotId};
use serde_json::{Value, json};

use support::forge::{add_key, anew, check_deployed, hold, ok_with, plant, store, with_roles, write_source};
use support::{World, finish, noise};

fn report(world: &World, arguments: &[&str]) -> (i32, Value) {
    let run = anew(world, &[arguments, &["--json"]].concat());
    (run.code, serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:#?}")))
}

/// Publishes a fragment that says these places.
fn publish_places(by: &Repository, number: u8, entries: &[(ChunkId, Location)]) {
    let author = by.keys().signer().unwrap();
    let (name, bytes) = seal_fragment(by, ObjectId([number; 16]), entries, author).unwrap();
    publish_bytes(&**by.backend(), &name, &bytes).unwrap();
}

fn publish_pack(by: &Repository, pack: PackId, records: &[ForgedRecord<'_>]) -> Vec<(ChunkId, Location)> {
    let (bytes, entries) = seal_pack(by, pack, RecordKind::Data, records).unwrap();
    publish_bytes(&**by.backend(), &pack_name(pack), &bytes).unwrap();
    entries
}

/// A snapshot of one file for each chunk, by a key that creates.
fn publish_snapshot(world: &World, by: &Repository, name: &str, chunks: &[(ChunkId, u32)]) {
    let session = Session::begin(by).unwrap();
    publish_in(&session, &like_sound(world), name, chunks);
    session.end().unwrap();
}

/// What the snapshot `sound` says, for others to be made like it.
fn like_sound(world: &World) -> Snapshot {
    let owner = hold(world, "key");
    let tag = owner.keys().name_tag(b"sound");
    let root = owner.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap();
    Snapshot::decode("sound", &owner.read_root(&root).unwrap()).unwrap()
}

/// The same in a session, always with the same id.
fn publish_in(session: &Session, like: &Snapshot, name: &str, chunks: &[(ChunkId, u32)]) {
    let (mut snapshot, keys) = (like.clone(), session.repository().keys());
    let mut writer = session.writer().unwrap();
    let mut tree = TreeBuilder::new(&keys.tree_boundary_key());
    let metadata = Metadata { mode: 0o755, ..Metadata::default() };
    let mut push = |path: String, node| {
        let path = EntryPath::from_slashes(path.as_bytes()).unwrap();
        tree.push(&Entry { path, metadata: metadata.clone(), node }, &mut writer).unwrap();
    };
    push(String::new(), Node::Directory);
    for (number, (id, bytes)) in chunks.iter().enumerate() {
        let pieces = Pieces::Inline(vec![Piece::Chunk { id: *id, bytes: *bytes }]);
        push(
            format!("{number}"),
            Node::File(FileContent { bytes: (*bytes).into(), cutting: Cutting::Content, pieces }),
        );
    }
    snapshot.sources[0].tree = tree.finish(&mut writer).unwrap();
    drop(writer);
    (snapshot.id, snapshot.name) = (SnapshotId([7; 16]), name.into());
    let root = RootName { tag: keys.name_tag(name.as_bytes()), snapshot: snapshot.id };
    let durable = session.seal_packs().unwrap().sync().unwrap().publish_index().unwrap();
    durable.publish_root(root, &snapshot.encode().unwrap()).unwrap();
}

/// That a snapshot was marked says nothing of another one with its id.
#[test]
fn t02_a_mark_is_of_one_root_and_of_no_other_with_its_id() {
    let world = with_roles(&["create"]);
    write_source(&world, "source", 10);
    write_source(&world, "other", 20);
    world.create("sound", "other");
    world.create("monday", "source");
    let (owner, thief) = (hold(&world, "key"), hold(&world, "create"));
    // A copy that keeps ids has begun, and relies on what monday stored.
    let living = Session::begin(&owner).unwrap();
    let id = owner.keys().chunk_id(&noise(10, 20_000));
    assert_eq!(living.reserve(&id).unwrap(), Reservation::Known);
    // Its id is known, and is taken before it.
    let places = store(&thief, &[noise(7, 5000)]);
    publish_snapshot(&world, &thief, "planted", &[(places[0].0, 5000)]);
    world.ok(&["delete", "monday", "--yes"]);
    assert!(world.json(&["gc"])["packs_waiting"].as_u64().unwrap() > 0);
    let tag = owner.keys().name_tag(b"planted");
    let planted = owner.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap();
    let planted = ObjectName::new(ObjectKind::Root, planted.object_name()).unwrap();
    publish_in(&living, &like_sound(&world), "copied", &[(id, 20_000)]);
    thief.backend().delete(&[planted]).unwrap();
    living.end().unwrap();
    for _ in 0..2 {
        world.ok(&["gc"]);
        let dumped = anew(&world, &["dump", "copied", "0"]);
        assert!(dumped.code == 0 && dumped.stdout == noise(10, 20_000), "{dumped:#?}");
    }
}

const LENGTH: u32 = 20_000;

/// A forgery: what it puts there, and the chunks that it says stand there.
type Forgery = fn(&Repository, &[ChunkId]) -> Vec<ChunkId>;

/// Plaintext that is none of the victim's.
fn other() -> Vec<u8> {
    noise(999, LENGTH as usize)
}

fn record<'a>(members: &'a [(ChunkId, u32)], base: Option<ChunkId>, payload: &'a [u8]) -> ForgedRecord<'a> {
    let encoding = if base.is_some() { Encoding::Delta } else { Encoding::Raw };
    ForgedRecord { encoding, members, base, payload }
}

const PACK: PackId = PackId([0xaa; 16]);

const FORGERIES: [(&str, Forgery); 9] = [
    ("a list of records with others' chunks", |by, victim| {
        let other = other();
        let members: Vec<[(ChunkId, u32); 1]> = victim.iter().map(|id| [(*id, LENGTH)]).collect();
        let records: Vec<_> = members.iter().map(|members| record(members, None, &other)).collect();
        publish_places(by, 1, &publish_pack(by, PACK, &records));
        victim.to_vec()
    }),
    ("a frame with others' chunks", |by, victim| {
        let members: Vec<(ChunkId, u32)> = victim.iter().map(|id| (*id, 1000)).collect();
        let plain = noise(998, 1000 * victim.len());
        publish_places(by, 1, &publish_pack(by, PACK, &[record(&members, None, &plain)]));
        victim.to_vec()
    }),
    ("a list of records that cannot be", |by, victim| {
        // A length that is none; and a record of another length than the one that is there.
        for (number, stored) in [(1, u32::MAX), (2, 5000)] {
            let pack = PackId([0xa0 + number; 16]);
            let records = vec![(stored, 0u8, None::<ChunkId>, vec![(victim[0], LENGTH)])];
            let directory = codec::encode(&(RecordKind::Data as u8, records)).unwrap();
            let bytes = seal_pack_parts(by, pack, &other(), &directory).unwrap();
            publish_bytes(&**by.backend(), &pack_name(pack), &bytes).unwrap();
            publish_places(by, number, &[(victim[0], place(pack, None))]);
        }
        vec![victim[0]]
    }),
    ("a list of records that is none", |by, victim| {
        let bytes = seal_pack_parts(by, PACK, &other(), b"no list").unwrap();
        publish_bytes(&**by.backend(), &pack_name(PACK), &bytes).unwrap();
        publish_places(by, 1, &[(victim[0], place(PACK, None))]);
        vec![victim[0]]
    }),
    ("a delta whose base is nowhere", |by, _| {
        let id = by.keys().chunk_id(b"no such thing");
        let (members, base) = ([(id, LENGTH)], ChunkId([3; 32]));
        publish_places(by, 1, &publish_pack(by, PACK, &[record(&members, Some(base), &other())]));
        vec![id]
    }),
    ("deltas against others' chunks", |by, victim| {
        let ids: Vec<ChunkId> = (0..2u8).map(|number| by.keys().chunk_id(&[number])).collect();
        let members = [[(ids[0], LENGTH)], [(ids[1], LENGTH)], [(victim[2], LENGTH)]];
        let other = other();
        let records: Vec<_> = members.iter().map(|members| record(members, Some(victim[1]), &other)).collect();
        publish_places(by, 1, &publish_pack(by, PACK, &records));
        vec![ids[0], ids[1], victim[2]]
    }),
    ("deltas against each other and themselves", |by, _| {
        let ids: Vec<ChunkId> = (0..3u8).map(|number| by.keys().chunk_id(&[number])).collect();
        let members = [[(ids[0], LENGTH)], [(ids[1], LENGTH)], [(ids[2], LENGTH)]];
        let other = other();
        let bases = [ids[1], ids[0], ids[2]];
        let records: Vec<_> =
            members.iter().zip(bases).map(|(members, base)| record(members, Some(base), &other)).collect();
        publish_places(by, 1, &publish_pack(by, PACK, &records));
        ids
    }),
    ("places in others' packs", |by, victim| {
        let packs = copal_store::check::packs(by).unwrap();
        let entries: Vec<_> =
            victim.iter().zip(packs.iter().cycle()).map(|(id, pack)| (*id, place(*pack, None))).collect();
        publish_places(by, 1, &entries);
        victim.to_vec()
    }),
    ("places in packs that are not there, and as deltas of all", |by, victim| {
        publish_places(by, 1, &[(victim[0], place(PACK, None)), (victim[1], place(PACK, Some(victim[0])))]);
        let packs = copal_store::check::packs(by).unwrap();
        publish_places(by, 2, &[(victim[2], place(packs[0], Some(victim[3])))]);
        victim.to_vec()
    }),
];

/// A place as somebody makes it up.
fn place(pack: PackId, base: Option<ChunkId>) -> Location {
    Location {
        pack,
        kind: RecordKind::Data,
        record_offset: 64,
        record_stored_bytes: LENGTH + 16,
        record_plain_bytes: LENGTH,
        inner_offset: 0,
        bytes: LENGTH,
        encoding: if base.is_some() { Encoding::Delta } else { Encoding::Raw },
        base,
    }
}

#[test]
fn t05_forged_packs_lists_and_bases_are_named_and_harm_nobody_else() {
    for role in ["create", "full"] {
        for (what, forge) in FORGERIES {
            let world = with_roles(&[role]);
            add_key(&world, "robot", "create");
            write_source(&world, "source", 10);
            write_source(&world, "narrow", 20);
            world.create("sound", "source");
            ok_with(&world, "robot", &["create", "narrow", "narrow"]);
            let forger = hold(&world, role);
            // Of an owner's snapshot, and of one that another narrow key made or will make.
            let victim: Vec<ChunkId> =
                [10, 11, 20, 30].map(|seed| forger.keys().chunk_id(&noise(seed, LENGTH as usize))).to_vec();
            let chunks: Vec<(ChunkId, u32)> = forge(&forger, &victim).into_iter().map(|id| (id, LENGTH)).collect();
            let needs_forged = chunks.iter().any(|(id, _)| !victim[..3].contains(id));
            if needs_forged {
                publish_snapshot(&world, &forger, "forged", &chunks);
            }
            if role == "full" {
                // Owners trust each other while they are owners.
                world.ok(&["key", "remove", "full"]);
            }
            let (code, said) = report(&world, &["verify"]);
            let hurt = said["damaged"].to_string() + &said["not_verified"].to_string();
            if needs_forged {
                assert!(code == 69 && hurt.contains("\"forged\""), "{role}, {what}: {said}");
                let refused = anew(&world, &["deploy", "forged", "refused", "--yes"]);
                assert!(refused.code == 69 && !world.path("refused").exists(), "{role}, {what}: {refused:#?}");
            }
            for name in ["sound", "narrow"] {
                assert!(!hurt.contains(&format!("\"{name}\"")), "{role}, {what}: {said}");
                check_deployed(&world, name, if name == "sound" { "source" } else { name });
            }
            if role == "full" {
                // What an owner said was built on; a repair looks at it.
                anew(&world, &["verify", "--repair"]);
            }
            // Whoever stores the same from now on stores it.
            write_source(&world, "later", 30);
            world.create("later", "later");
            check_deployed(&world, "later", "later");
            for step in [&["gc"][..], &["verify", "--repair"], &["gc"]] {
                let run = anew(&world, step);
                assert!(run.code == 0 || (run.code == 69 && needs_forged), "{role}, {what}, {step:?}: {run:#?}");
            }
            for (name, source) in [("sound", "source"), ("narrow", "narrow"), ("later", "later")] {
                check_deployed(&world, name, source);
            }
            if needs_forged {
                world.ok(&["delete", "forged", "--yes"]);
                world.ok(&["gc"]);
            }
            let (code, said) = report(&world, &["verify"]);
            assert_eq!(code, 0, "{role}, {what}: {said}");
        }
    }
}

/// Objects of each kind with a content that opens and means nothing, or nothing that this key may say.
fn put_everywhere(by: &Repository) {
    let backend = &**by.backend();
    let id = "ab".repeat(16);
    let object = |kind, name: String| ObjectName::new(kind, name).unwrap();
    for (number, payload) in [Vec::new(), [&[0][..], &noise(2, 300)].concat(), vec![0; 5000]].into_iter().enumerate() {
        let id = format!("{number:02x}{}", &id[2..]);
        plant(by, &object(ObjectKind::Root, format!("{id}-{id}")), &payload);
        plant(by, &object(ObjectKind::Label, format!("{id}-{:016x}", 3)), &payload);
        plant(by, &object(ObjectKind::Condemned, id.clone()), &payload);
        plant(by, &object(ObjectKind::Condemned, format!("{id}-sessions")), &payload);
        for (kind, name) in [
            (ObjectKind::Session, id.clone()),
            (ObjectKind::KeySlot, id.clone()),
            (ObjectKind::KeySlot, format!("{id}-00000001")),
            (ObjectKind::KeySlot, format!("roster-{:08x}", 90 + number)),
            (ObjectKind::Index, id.clone()),
            (ObjectKind::Parity, id.clone()),
            (ObjectKind::Lease, format!("of-nobody-{number}")),
        ] {
            publish_bytes(backend, &object(kind, name), &payload).unwrap();
        }
        let pack = PackId([number as u8; 16]);
        publish_bytes(backend, &pack_name(pack), &seal_pack_parts(by, pack, &payload, &payload).unwrap()).unwrap();
    }
}

#[test]
fn t05_what_a_narrow_key_puts_anywhere_costs_nothing_else() {
    for role in ["create", "read", "maintain", "full"] {
        let world = with_roles(&[role]);
        write_source(&world, "source", 10);
        world.create("sound", "source");
        world.ok(&["tag", "sound", "reason=keep"]);
        let holder = hold(&world, role);
        if role == "full" {
            world.ok(&["key", "remove", "full"]);
        }
        put_everywhere(&holder);
        let (code, said) = report(&world, &["verify"]);
        assert_eq!((code, &said["ok"]), (69, &false.into()), "{role}: {said}");
        let named: Vec<&str> =
            said["damaged"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
        for kind in ["snapshot", "label", "condemned", "key", "index"] {
            assert!(named.contains(&kind), "{role}: no {kind} in {said}");
        }
        assert!(!said["damaged"].to_string().contains("\"sound\""), "{role}: {said}");
        check_deployed(&world, "sound", "source");
        let (_, said) = report(&world, &["verify", "--repair"]);
        let left: Vec<&str> =
            said["damaged"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
        // Snapshots and labels are removed by people.
        assert!(left.iter().all(|kind| ["snapshot", "label"].contains(kind)), "{role}: {said}");
        check_deployed(&world, "sound", "source");
        for listed in fs::read_dir(world.repository().join("snapshots")).unwrap() {
            let name = listed.unwrap().file_name().into_string().unwrap();
            let (_, id) = name.split_once('-').unwrap();
            if id.ends_with(&"ab".repeat(15)) {
                world.ok(&["delete", id, "--yes"]);
            }
        }
        write_source(&world, "later", 30);
        world.create("later", "later");
        for _ in 0..2 {
            let collected = anew(&world, &["gc"]);
            assert_eq!(collected.code, 0, "{role}: {collected:#?}");
        }
        assert_eq!(world.json(&["show", "sound"])["tags"]["reason"], "keep");
        check_deployed(&world, "sound", "source");
        check_deployed(&world, "later", "later");
        let (code, said) = report(&world, &["verify"]);
        assert_eq!(code, 0, "{role}: {said}");
    }
}

/// A pack whose list is lost is saved by what the index says of it, whatever others say of the same records.
#[test]
fn t05_a_repair_tries_all_that_is_said_of_a_record() {
    for victim in ["key", "create"] {
        let world = with_roles(&["create", "read"]);
        write_source(&world, "source", 40);
        fs::write(world.path("source/large"), noise(49, 700_000)).unwrap();
        let run = support::forge::with_key(&world, victim, &["create", "monday", "source"]);
        assert_eq!(run.code, 0, "{run:#?}");
        let (owner, thief) = (hold(&world, "key"), hold(&world, "read"));
        let session = Session::begin(&owner).unwrap();
        let ids = (0..4).map(|file| owner.keys().chunk_id(&noise(40 + file, 20_000)));
        let places: Vec<(ChunkId, Location)> = ids.map(|id| (id, session.locate(&id).unwrap().unwrap())).collect();
        session.end().unwrap();
        for number in 0..12u8 {
            let lie = |(chunk, place): &(ChunkId, Location)| {
                let mut place = *place;
                match number % 4 {
                    0 => place.record_plain_bytes += 1,
                    1 => place.record_stored_bytes -= 1,
                    2 => (place.inner_offset, place.bytes) = (place.inner_offset + 5, place.bytes - 5),
                    _ => return (thief.keys().chunk_id(&[number]), place),
                }
                (*chunk, place)
            };
            let lies: Vec<_> = places.iter().map(lie).collect();
            publish_places(&thief, number * 20, &lies);
        }
        let mut packs: Vec<PackId> = places.iter().map(|(_, place)| place.pack).collect();
        packs.dedup();
        for pack in packs {
            let path = world.repository().join(pack_name(pack).to_string());
            let bytes = fs::metadata(&path).unwrap().len();
            support::flip(&path, bytes - 5, 3);
        }
        assert_eq!(report(&world, &["verify"]).0, 69);
        let (code, said) = report(&world, &["verify", "--repair"]);
        assert_eq!((code, &said["damaged"]), (0, &json!([])), "{said}");
        check_deployed(&world, "monday", "source");
        let collected = anew(&world, &["gc"]);
        assert_eq!(collected.code, 0, "{collected:#?}");
        check_deployed(&world, "monday", "source");
    }
}

/// A version of the far future, and back.
fn turn_version(path: &PathBuf) {
    let mut bytes = fs::read(path).unwrap();
    bytes[7] ^= 0x40;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn t08_a_repair_beside_what_a_newer_version_wrote_mends_the_rest() {
    for folder in ["index", "packs", "snapshots", "labels", "condemned", "parity"] {
        let world = World::bare();
        world.ok(&["init", "--parity", if folder == "parity" { "10" } else { "0" }]);
        world.ok(&["key", "rotate"]);
        write_source(&world, "apart", 50);
        world.create("sound", "apart");
        let before = world.objects_in(folder);
        let index_of_sound = world.objects_in("index");
        write_source(&world, "source", 60);
        fs::write(world.path("source/large"), noise(69, 400_000)).unwrap();
        world.create("newer", "source");
        world.ok(&["pin", "newer"]);
        if folder == "condemned" {
            let owner = hold(&world, "key");
            let name = ObjectName::new(ObjectKind::Condemned, "cd".repeat(16)).unwrap();
            let nothing = (Vec::<PackId>::new(), Vec::<SnapshotId>::new());
            plant(&owner, &name, &codec::encode(&nothing).unwrap());
        }
        let newer: Vec<PathBuf> = world.objects_in(folder).into_iter().filter(|path| !before.contains(path)).collect();
        assert!(!newer.is_empty());
        newer.iter().for_each(turn_version);
        let as_written: Vec<Vec<u8>> = newer.iter().map(|path| fs::read(path).unwrap()).collect();
        // What a repair mends: the index of a snapshot is gone.
        index_of_sound.iter().for_each(|path| fs::remove_file(path).unwrap());
        let (code, said) = report(&world, &["verify"]);
        // Where a fragment is of a newer version, nobody here can tell what it knows.
        let hurt = &said[if folder == "index" { "not_verified" } else { "damaged" }];
        assert!([69, 13].contains(&code) && hurt.to_string().contains("\"sound\""), "{folder}: {said}");
        let repaired = anew(&world, &["verify", "--repair", "--json"]);
        let said: Value =
            serde_json::from_slice(&repaired.stdout).unwrap_or_else(|error| panic!("{error}: {repaired:#?}"));
        assert_ne!(said["not_verified"], json!([]), "{folder}: {said}");
        for (path, bytes) in newer.iter().zip(&as_written) {
            assert!(fs::read(path).unwrap() == *bytes, "{folder}: {path:?} was changed");
        }
        assert_eq!((repaired.code, &said["damaged"]), (13, &json!([])), "{folder}: {said}");
        check_deployed(&world, "sound", "apart");
        // The program that wrote it finds all that it had.
        newer.iter().for_each(turn_version);
        let (code, said) = report(&world, &["verify", "--repair"]);
        assert_eq!(code, 0, "{folder}: {said}");
        for (name, source) in [("sound", "apart"), ("newer", "source")] {
            check_deployed(&world, name, source);
        }
        let collected = anew(&world, &["gc"]);
        assert_eq!(collected.code, 0, "{folder}: {collected:#?}");
        check_deployed(&world, "newer", "source");
    }
}

/// A parity that says it is of a newer version brings nothing back, and stops nothing.
#[test]
fn t08_a_parity_of_a_newer_version_stops_no_reader() {
    let world = World::bare();
    world.ok(&["init", "--parity", "10"]);
    write_source(&world, "source", 70);
    world.create("monday", "source");
    world.objects_in("parity").iter().for_each(turn_version);
    let (code, said) = report(&world, &["verify"]);
    assert_eq!((code, &said["ok"], &said["damaged"]), (13, &false.into(), &json!([])), "{said}");
    check_deployed(&world, "monday", "source");
    let owner = hold(&world, "key");
    let session = Session::begin(&owner).unwrap();
    let id = owner.keys().chunk_id(&noise(70, 20_000));
    let place = session.locate(&id).unwrap().unwrap();
    let path = world.repository().join(pack_name(place.pack).to_string());
    support::flip(&path, u64::from(place.record_offset) + 3, 1);
    assert!(session.read_chunk(&id).is_err_and(|error| error.is_integrity()));
    session.end().unwrap();
    let (code, said) = report(&world, &["verify"]);
    assert!(code == 69 && said["damaged"].to_string().contains("monday"), "{said}");
    // With its parity it is read all the same.
    world.objects_in("parity").iter().for_each(turn_version);
    check_deployed(&world, "monday", "source");
}

/// What another key has put under the id of a snapshot that arrives is not that snapshot.
#[test]
fn t04_a_copy_is_not_taken_for_done_by_what_another_key_put_there() {
    let world = with_roles(&["create"]);
    let source = World::new();
    write_source(&source, "source", 80);
    for name in ["monday", "tuesday"] {
        source.create(name, "source");
    }
    write_source(&world, "other", 90);
    world.create("sound", "other");
    let thief = hold(&world, "create");
    store(&thief, &[noise(7, 5000)]);
    let chunk = thief.keys().chunk_id(&noise(7, 5000));
    publish_snapshot(&world, &thief, "planted", &[(chunk, 5000)]);
    // The planted one is moved to the id of tuesday, under a name of its own.
    let owner = hold(&world, "key");
    let tag = owner.keys().name_tag(b"planted");
    let root = owner.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap();
    let mut planted = Snapshot::decode("planted", &owner.read_root(&root).unwrap()).unwrap();
    let id = source.json(&["show", "tuesday"])["id"].as_str().unwrap().replace('-', "");
    planted.id = SnapshotId::from_hex(&id).unwrap();
    let name = ObjectName::new(ObjectKind::Root, RootName { tag, snapshot: planted.id }.object_name()).unwrap();
    plant(&thief, &name, &planted.encode().unwrap());
    let copy = |arguments: &[&str]| {
        let mut command =
            source.command(&[&["copy", "--to", world.repository().to_str().unwrap()], arguments].concat());
        command.env("COPAL_TO_KEY_FILE", world.path("key"));
        finish(command.output().unwrap())
    };
    let copied = copy(&["--json"]);
    assert_eq!(copied.code, 0, "{copied:#?}");
    let said: Value = serde_json::from_slice(&copied.stdout).unwrap();
    for snapshot in said["snapshots"].as_array().unwrap() {
        assert_eq!(snapshot["was_here"], false, "{said}");
    }
    for name in ["monday", "tuesday"] {
        let run = anew(&world, &["deploy", name, "deployed", "--yes"]);
        assert_eq!(run.code, 0, "{run:#?}");
        assert!(fs::read(world.path("deployed/file 3")).unwrap() == noise(83, 20_000));
        fs::remove_dir_all(world.path("deployed")).unwrap();
    }
    // And from now on they are there.
    let again: Value = serde_json::from_slice(&copy(&["--json"]).stdout).unwrap();
    for snapshot in again["snapshots"].as_array().unwrap() {
        assert_eq!(snapshot["was_here"], true, "{again}");
    }
}
