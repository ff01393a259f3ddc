//! Goal: what a repository once held and holds no more, put back by whoever may add files, makes nobody lose
//! anything. Method: a real repository; its own objects are kept, removed by its own commands, and written
//! back under their own names.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::PathBuf;

use copal_manifest::content::{Cutting, FileContent, Piece, Pieces};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node};
use copal_manifest::snapshot::Snapshot;
use copal_manifest::tree::TreeBuilder;
use copal_store::backend::{ObjectKind, ObjectName};
use copal_store::repository::RootName;
use copal_store::session::Session;
use copal_store::{ChunkId, SnapshotId};

use support::forge::{add_key, hold, plant};
use support::{World, look, noise};

const FILE_BYTES: usize = 20_000;

fn kept(mut paths: Vec<PathBuf>) -> Vec<(PathBuf, Vec<u8>)> {
    paths.retain(|path| !path.to_str().unwrap().ends_with("-retired"));
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn put_back(objects: &[(PathBuf, Vec<u8>)]) {
    for (path, bytes) in objects.iter().filter(|(path, _)| !path.exists()) {
        fs::write(path, bytes).unwrap();
    }
}

/// A create is compared with a snapshot that was deleted, whose chunks a collection has taken.
#[test]
fn t04_a_deleted_root_that_is_put_back_is_a_parent_without_chunks() {
    for rotated in [false, true] {
        let world = World::new();
        if rotated {
            world.ok(&["key", "rotate"]);
        }
        fs::create_dir(world.path("source")).unwrap();
        for number in 0..600u64 {
            fs::write(world.path("source").join(format!("f{number}")), noise(number, 300)).unwrap();
        }
        fs::write(world.path("source/large"), noise(9_000, 3_000_000)).unwrap();
        fs::write(world.path("source/small"), noise(9_001, 30_000)).unwrap();
        world.create("b", "source");
        world.ok(&["create", "a", "source", "--exclude", "large", "--exclude", "small"]);
        world.create("again", "source");
        let roots = kept(world.objects_in("snapshots"));
        world.ok(&["delete", "b", "again", "--yes"]);
        world.ok(&["gc"]);
        world.ok(&["gc"]);
        let gone: Vec<_> = roots.iter().filter(|(path, _)| !path.exists()).cloned().collect();
        assert_eq!(gone.len(), 2);
        put_back(&gone);

        world.create("next", "source");
        for (path, _) in &gone {
            fs::remove_file(path).unwrap();
        }
        world.ok(&["deploy", "next", "deployed"]);
        assert!(look(&world.path("source")) == look(&world.path("deployed")), "rotated: {rotated}");
        world.ok(&["verify"]);
    }
}

/// A bundle is relative to a snapshot whose chunks a collection has taken.
#[test]
fn t04_a_deleted_root_that_is_put_back_is_a_base_without_chunks() {
    let world = World::new();
    fs::write(world.path("password"), "of the bundle").unwrap();
    fs::create_dir(world.path("source")).unwrap();
    for number in 0..600u64 {
        fs::write(world.path("source").join(format!("f{number}")), noise(number, 300)).unwrap();
    }
    fs::write(world.path("source/large"), noise(9_000, 3_000_000)).unwrap();
    world.create("b", "source");
    world.ok(&["create", "a", "source", "--exclude", "large"]);
    fs::write(world.path("source/f0"), b"changed").unwrap();
    world.create("c", "source");
    let password = ["--bundle-password-file", "password"];
    world.ok(&[&["export", "c", "bundle", "--since", "b"][..], &password].concat());
    let roots = kept(world.objects_in("snapshots"));
    world.ok(&["delete", "c", "--yes"]);
    let of_c: Vec<PathBuf> = roots.iter().map(|(path, _)| path.clone()).filter(|path| !path.exists()).collect();
    world.ok(&["delete", "b", "--yes"]);
    world.ok(&["gc"]);
    world.ok(&["gc"]);
    put_back(&roots.into_iter().filter(|(path, _)| !of_c.contains(path)).collect::<Vec<_>>());

    let import = world.run(&[&["import", "bundle"][..], &password].concat());
    assert!(import.code != 0 && import.stderr.contains("is missing"), "{import:#?}");
    let listed = world.json(&["list"]);
    assert!(listed.as_array().unwrap().iter().all(|one| one["name"] != "c"), "{listed}");
}

fn entry(path: &str, node: Node) -> Entry {
    let mode = if matches!(node, Node::Directory) { 0o755 } else { 0o644 };
    let path = EntryPath::from_slashes(path.as_bytes()).unwrap();
    Entry { path, metadata: Metadata { mode, ..Metadata::default() }, node }
}

/// Publishes, in a session that lives already, a snapshot of this name that reaches these chunks.
fn reach(world: &World, session: &Session, like: &str, name: &str, ids: &[ChunkId]) {
    let owner = hold(world, "key");
    let tag = owner.keys().name_tag(like.as_bytes());
    let root = owner.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap();
    let mut snapshot = Snapshot::decode("a root", &owner.read_root(&root).unwrap()).unwrap();
    let mut writer = session.writer().unwrap();
    let mut builder = TreeBuilder::new(&owner.keys().tree_boundary_key());
    builder.push(&entry("", Node::Directory), &mut writer).unwrap();
    for (number, id) in ids.iter().enumerate() {
        let pieces = Pieces::Inline(vec![Piece::Chunk { id: *id, bytes: FILE_BYTES as u32 }]);
        let content = FileContent { bytes: FILE_BYTES as u64, cutting: Cutting::Content, pieces };
        builder.push(&entry(&format!("g{number:03}"), Node::File(content)), &mut writer).unwrap();
    }
    snapshot.sources[0].tree = builder.finish(&mut writer).unwrap();
    drop(writer);
    snapshot.id = SnapshotId([name.len() as u8; 16]);
    snapshot.name = name.into();
    let root = RootName { tag: owner.keys().name_tag(snapshot.name.as_bytes()), snapshot: snapshot.id };
    let durable = session.seal_packs().unwrap().sync().unwrap().publish_index().unwrap();
    durable.publish_root(root, &snapshot.encode().unwrap()).unwrap();
}

/// A collection copies what lives in a pack and condemns it; the pack is pardoned; the copies are dead then,
/// and go. The sentence, put back, knew every snapshot that there is, and must condemn nothing.
#[test]
fn t02_a_sentence_that_is_put_back_is_proved_again() {
    let world = World::new();
    world.ok(&["key", "rotate", "--reseal"]);
    fs::write(world.path("other"), noise(77, 32)).unwrap();
    world.ok(&["key", "add", "--role", "create", "--label", "other", "--new-key-file", "other"]);
    for (name, range) in [("both", 0..60u64), ("part", 0..12)] {
        fs::create_dir(world.path(name)).unwrap();
        for number in range {
            fs::write(world.path(name).join(format!("f{number}")), noise(5000 + number, FILE_BYTES)).unwrap();
        }
        world.create(name, name);
    }
    let (owner, other) = (hold(&world, "key"), hold(&world, "other"));
    let dead: Vec<ChunkId> = (12..60).map(|number| owner.keys().chunk_id(&noise(5000 + number, FILE_BYTES))).collect();
    world.ok(&["delete", "both", "--yes"]);
    let session = Session::begin(&other).unwrap();
    world.ok(&["gc"]);
    let sentence = kept(world.objects_in("condemned"));
    assert!(!sentence.is_empty(), "the collection waits for the session");
    reach(&world, &session, "part", "of the other", &dead);
    session.end().unwrap();
    world.ok(&["gc"]);
    world.ok(&["gc"]);
    world.ok(&["delete", "of the other", "--yes"]);
    put_back(&sentence);
    for _ in 0..3 {
        world.ok(&["gc"]);
    }
    world.ok(&["deploy", "part", "deployed"]);
    assert!(look(&world.path("part")) == look(&world.path("deployed")));
    world.ok(&["verify"]);
}

/// A create finds chunks stored, and has published nothing yet. A sentence about their pack, which was
/// carried out or lifted long ago, is put back: its list of sessions is as old, and none of them lives.
#[test]
fn t02_a_sentence_that_is_put_back_waits_for_who_began_before_it() {
    for squatted in [false, true] {
        let world = World::new();
        world.ok(&["key", "rotate", "--reseal"]);
        add_key(&world, "create", "create");
        for (name, range) in [("dead", 0..20u64), ("kept", 50..60)] {
            fs::create_dir(world.path(name)).unwrap();
            for number in range {
                fs::write(world.path(name).join(format!("f{number}")), noise(5000 + number, FILE_BYTES)).unwrap();
            }
            world.create(name, name);
        }
        let owner = hold(&world, "key");
        let dead: Vec<ChunkId> =
            (0..20).map(|number| owner.keys().chunk_id(&noise(5000 + number, FILE_BYTES))).collect();
        let witness = Session::begin(&owner).unwrap();
        world.ok(&["delete", "dead", "--yes"]);
        world.ok(&["gc"]);
        let sentence = kept(world.objects_in("condemned"));
        assert!(!sentence.is_empty(), "the collection waits for the session");
        reach(&world, &witness, "kept", "pardoned", &dead);
        witness.end().unwrap();
        world.ok(&["gc"]);
        assert!(sentence.iter().all(|(path, _)| !path.exists()), "what is reached is pardoned");
        world.ok(&["delete", "pardoned", "--yes"]);

        if squatted {
            // Another one has the name when the create begins: it knows the name, and not the sentence.
            let (path, _) = sentence.iter().find(|(path, _)| !path.to_str().unwrap().ends_with("-sessions")).unwrap();
            let id = path.file_name().unwrap().to_str().unwrap();
            plant(&hold(&world, "create"), &ObjectName::new(ObjectKind::Condemned, id).unwrap(), &[0, 0]);
        }
        let create = Session::begin(&owner).unwrap();
        assert!(dead.iter().all(|id| create.contains(id).unwrap()));
        sentence.iter().for_each(|(path, _)| drop(fs::remove_file(path)));
        put_back(&sentence);
        for _ in 0..3 {
            world.ok(&["gc"]);
        }
        reach(&world, &create, "kept", "next", &dead);
        create.end().unwrap();
        for _ in 0..2 {
            world.ok(&["gc"]);
        }
        world.ok(&["deploy", "next", "deployed"]);
        world.ok(&["verify"]);
    }
}

/// An owner's fragment says that chunks stand where they are damaged by now: a repair has taken them out of
/// the index, or a collection has removed the pack, and somebody has put it back as well, with another byte
/// in it.
#[test]
fn t04_a_fragment_that_is_put_back_is_not_believed() {
    for by_repair in [true, false] {
        for rotated in [false, true] {
            let what = format!("by a repair: {by_repair}, rotated: {rotated}");
            let world = World::new();
            if rotated {
                world.ok(&["key", "rotate"]);
            }
            fs::create_dir(world.path("source")).unwrap();
            for number in 0..30u64 {
                fs::write(world.path("source").join(format!("f{number}")), noise(number, FILE_BYTES)).unwrap();
            }
            world.create("monday", "source");
            let index = kept(world.objects_in("index"));
            let mut packs = kept(world.objects_in("packs"));
            // In a record of contents: the packs of nodes are small.
            packs.retain(|(_, bytes)| bytes.len() > 100_000);
            packs.iter_mut().for_each(|(_, bytes)| bytes[50_000] ^= 1);
            if by_repair {
                for (path, bytes) in &packs {
                    fs::remove_file(path).unwrap();
                    fs::write(path, bytes).unwrap();
                }
                assert_eq!(world.run(&["verify", "--repair"]).code, 69, "{what}");
            } else {
                world.ok(&["delete", "monday", "--yes"]);
                world.ok(&["gc"]);
                world.ok(&["gc"]);
                assert!(packs.iter().all(|(path, _)| !path.exists()), "{what}");
                for (path, bytes) in &packs {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, bytes).unwrap();
                }
            }
            assert!(index.iter().all(|(path, _)| !path.exists()), "{what}");
            put_back(&index);
            world.create("tuesday", "source");
            world.ok(&["deploy", "tuesday", "deployed"]);
            assert!(look(&world.path("source")) == look(&world.path("deployed")), "{what}");
            // A collection clears it away, and a change of the keys does not bring it back.
            world.ok(&["gc"]);
            assert!(index.iter().all(|(path, _)| !path.exists()), "{what}");
            world.ok(&["key", "rotate", "--reseal"]);
            // It opens all that it has to.
            add_key(&world, "create", "create");
            put_back(&index);
            world.create("wednesday", "source");
            world.ok(&["deploy", "wednesday", "deployed", "--yes"]);
            assert!(look(&world.path("source")) == look(&world.path("deployed")), "{what}");
        }
    }
}
