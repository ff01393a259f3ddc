//! Goal: verify reads what it says it reads, finds every damage, and names the snapshots and paths that it
//! costs and no others; a repair brings back what any source still has. Method: snapshots made by hand and by
//! creates, objects spoilt one at a time, counted reads. Every kind of damage against every operation is
//! `damage.rs`.
#![allow(clippy::unwrap_used)]

mod catalogue_support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use catalogue_support::{World, snapshot};
use copal_engine::Error;
use copal_engine::context::{Monitor, Progress};
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_engine::removal::delete;
use copal_engine::verify::{DamagedItem, VerifyReport, VerifyRequest, verify};
use copal_sim::recording::Operation;
use copal_sim::seeded::noise;
use copal_store::backend::{Backend, ObjectKind, ObjectName};
use copal_store::check::rebuild_index;
use copal_store::pack::pack_name;
use copal_store::session::Session;

fn two() -> World {
    let world = World::new();
    let shared = ("shared", noise(1, 150_000));
    world.store("", "one", 1, &[shared.clone(), ("own/one", noise(2, 60_000))]);
    world.store("app", "two", 2, &[shared, ("own/two", noise(3, 60_000)), ("own/three", noise(4, 10))]);
    world
}

fn checked(world: &World, request: &VerifyRequest) -> VerifyReport {
    verify(&world.context, request).unwrap()
}

/// The pack and offset of a chunk.
fn place(world: &World, chunk: &[u8]) -> (ObjectName, usize) {
    let session = Session::begin(world.repository()).unwrap();
    let location = session.locate(&world.repository().keys().chunk_id(chunk)).unwrap().unwrap();
    session.end().unwrap();
    (pack_name(location.pack), location.record_offset as usize)
}

fn spoil(world: &World, chunk: &[u8]) {
    let (pack, offset) = place(world, chunk);
    world.memory.flip_byte(&pack, offset + 3);
}

fn request(repair: bool, from: &[&Path]) -> VerifyRequest {
    VerifyRequest { repair, from: from.iter().map(|path| PathBuf::from(*path)).collect(), ..VerifyRequest::default() }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

/// Does something once, when a phase begins.
struct At<F>(&'static str, Mutex<Option<F>>);

impl<F: FnOnce() + Send> Monitor for At<F> {
    fn phase(&self, name: &'static str) {
        let act = if name == self.0 { self.1.lock().unwrap().take() } else { None };
        if let Some(act) = act {
            act();
        }
    }
    fn progress(&self, _progress: Progress) {}
    fn notice(&self, _message: &str) {}
}

#[test]
fn what_a_snapshot_needed_that_was_deleted_meanwhile_is_no_damage() {
    for deleted in [true, false] {
        let mut world = two();
        let (pack, _) = place(&world, &noise(3, 60_000));
        let (context, memory) = (world.context.clone(), world.memory.clone());
        // As a collection does that was decided before the look began.
        let sweep = move || {
            if deleted {
                delete(&context, &["app/two".to_owned()]).unwrap();
            }
            memory.delete(&[pack]).unwrap();
            rebuild_index(&context.repository).unwrap();
        };
        world.context.monitor = Arc::new(At("checking the manifests", Mutex::new(Some(sweep))));
        let report = checked(&world, &VerifyRequest::default());
        if deleted {
            assert_eq!((report.damaged.len(), report.snapshots), (0, 1), "{:?}", report.damaged);
        } else {
            assert!(report.damaged.iter().any(|item| item.snapshots == ["app/two"]), "{:?}", report.damaged);
        }
    }
}

#[test]
fn all_is_read_and_counted() {
    let world = two();
    world.recording.reset();
    let report = checked(&world, &VerifyRequest::default());
    assert_eq!((report.damaged, report.repaired), (vec![], vec![]));
    assert_eq!(report.snapshots, 2);
    let packs = world.memory.list(ObjectKind::Pack).unwrap();
    assert_eq!(report.packs, packs.len() as u64);
    assert_eq!(report.bytes, packs.iter().map(|pack| pack.bytes).sum::<u64>());
    // Three pieces of the shared file, one of each other, and one node of each manifest.
    assert_eq!(report.chunks, 3 + 3 + 2);
    assert_eq!(world.recording.total(Operation::Publish).count, 0);
}

#[test]
fn a_quick_look_reads_manifests_only() {
    let world = two();
    world.recording.reset();
    let report = checked(&world, &VerifyRequest { quick: true, ..VerifyRequest::default() });
    assert_eq!((report.packs, report.chunks, report.bytes), (0, 0, 0));
    assert_eq!(world.recording.tally(Operation::ReadRange, ObjectKind::Pack).count, 2, "the two nodes");
    spoil(&world, &noise(1, 150_000)[..65_536]);
    assert_eq!(checked(&world, &VerifyRequest { quick: true, ..VerifyRequest::default() }).damaged, []);
    world.memory.lose(&place(&world, &noise(1, 150_000)[..65_536]).0);
    let damaged = checked(&world, &VerifyRequest { quick: true, ..VerifyRequest::default() }).damaged;
    assert_eq!(damaged.len(), 1, "a pack that is gone: {damaged:?}");
    assert_eq!(damaged[0].kind, "pack");
}

#[test]
fn one_snapshot_needs_only_its_packs() {
    let world = two();
    spoil(&world, &noise(2, 60_000));
    let of = |name: &str| checked(&world, &VerifyRequest { references: vec![name.into()], ..VerifyRequest::default() });
    assert_eq!(of("app/two").snapshots, 1);
    assert!(of("one").damaged.len() == 1);
    assert!(matches!(
        verify(&world.context, &VerifyRequest { references: vec!["three".into()], ..VerifyRequest::default() }),
        Err(Error::NoSuchSnapshot(_))
    ));
}

#[track_caller]
fn check_names(item: &DamagedItem, kind: &str, snapshots: &[&str], paths: &[&str]) {
    assert_eq!(item.kind, kind, "{item:?}");
    assert_eq!(item.snapshots, strings(snapshots), "{item:?}");
    assert_eq!(item.paths, strings(paths), "{item:?}");
    assert_eq!(item.paths_total, paths.len() as u64, "{item:?}");
}

#[test]
fn a_damage_is_named_with_what_it_costs() {
    let world = two();
    spoil(&world, &noise(3, 60_000));
    let report = checked(&world, &VerifyRequest::default());
    assert_eq!(report.damaged.len(), 1);
    check_names(&report.damaged[0], "chunk", &["app/two"], &["own/two"]);
    assert_eq!(report.damaged[0].id, world.repository().keys().chunk_id(&noise(3, 60_000)).to_string());
    assert!(report.damaged[0].detail.contains("in pack "), "{:?}", report.damaged[0]);

    let world = two();
    spoil(&world, &noise(1, 150_000)[65_536..131_072]);
    let report = checked(&world, &VerifyRequest::default());
    check_names(&report.damaged[0], "chunk", &["one", "app/two"], &["shared"]);
}

#[test]
fn a_newer_snapshot_is_no_damage() {
    let world = two();
    world.make_newer(&world.root_object(&snapshot("", "one", 1)));
    world.notices.take();
    let report = checked(&world, &request(true, &[]));
    assert_eq!(report.damaged, []);
    assert_eq!(report.snapshots, 1);
    assert!(
        report.not_verified.len() == 1 && report.not_verified[0].kind == "snapshot" && !report.is_ok(),
        "{report:?}"
    );
    assert_eq!(world.memory.list(ObjectKind::Root).unwrap().len(), 2, "no repair removes a root");
}

#[test]
fn a_manifest_that_does_not_open_hurts_its_snapshot_alone() {
    let world = two();
    let catalogue = copal_engine::catalogue::Catalogue::load(&world.context).unwrap();
    let node = catalogue.find("one").unwrap().snapshot.sources[0].tree.id;
    let session = Session::begin(world.repository()).unwrap();
    let location = session.locate(&node).unwrap().unwrap();
    session.end().unwrap();
    world.memory.flip_byte(&pack_name(location.pack), location.record_offset as usize + 1);
    let report = checked(&world, &VerifyRequest::default());
    assert_eq!(report.damaged.len(), 1, "{:?}", report.damaged);
    check_names(&report.damaged[0], "node", &["one"], &["a part of the manifest"]);
}

/// A tree that is snapshot by a create.
fn taken(world: &World) -> PathBuf {
    let tree = world.folder.path().join("tree");
    fs::create_dir_all(tree.join("folder")).unwrap();
    fs::write(tree.join("large"), noise(10, 700_000)).unwrap();
    fs::write(tree.join("folder/small"), noise(11, 20_000)).unwrap();
    world.set_time(1_000_000_000_000);
    let sources = vec![SourceRequest { label: "tree".into(), path: tree.clone() }];
    create(&world.context, &CreateRequest { name: "taken".into(), sources, ..CreateRequest::default() }).unwrap();
    tree
}

fn lose_every_pack(world: &World, data_only: bool) {
    for pack in world.memory.list(ObjectKind::Pack).unwrap() {
        let description = copal_store::describe::describe(world.repository(), &pack.name).unwrap();
        let is_data = description.fields.contains(&("record kind".into(), "Data".into()));
        if is_data || !data_only {
            world.memory.lose(&pack.name);
        }
    }
}

#[test]
fn a_live_source_gives_back_what_it_still_has() {
    for data_only in [true, false] {
        let world = World::new();
        let tree = taken(&world);
        lose_every_pack(&world, data_only);
        assert!(!checked(&world, &request(true, &[])).damaged.is_empty(), "nothing to take it from");
        let report = checked(&world, &request(true, &[&tree]));
        assert_eq!(report.damaged, [], "data only: {data_only}");
        assert!(report.repaired.iter().any(|said| said.contains("stored again")), "{:?}", report.repaired);
        assert_eq!(world.read_back("taken")["tree/large"], noise(10, 700_000));
        assert_eq!(world.read_back("taken")["tree/folder/small"], noise(11, 20_000));
    }
}

#[test]
fn a_source_that_moved_or_changed_gives_what_is_the_same() {
    let world = World::new();
    let tree = taken(&world);
    lose_every_pack(&world, true);
    let elsewhere = world.folder.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("another/place")).unwrap();
    let mut large = noise(10, 700_000);
    large[650_000] ^= 1;
    fs::write(elsewhere.join("another/place/renamed"), &large).unwrap();
    fs::rename(tree.join("folder/small"), elsewhere.join("little")).unwrap();
    let report = checked(&world, &request(true, &[&elsewhere]));
    assert_eq!(report.damaged.len(), 1, "one chunk is nowhere: {:?}", report.damaged);
    check_names(&report.damaged[0], "chunk", &["taken"], &["tree/large"]);
    // Where it stood, and from a single file.
    let report = checked(&world, &request(true, &[&elsewhere, &tree.join("large")]));
    assert_eq!(report.damaged, []);
    assert_eq!(world.read_back("taken")["tree/large"], noise(10, 700_000));
}

#[test]
fn sources_are_for_repairs_and_must_be_there() {
    let world = World::new();
    let tree = taken(&world);
    assert!(matches!(verify(&world.context, &request(false, &[&tree])), Err(Error::Usage(_))));
    lose_every_pack(&world, true);
    let error = verify(&world.context, &request(true, &[&tree.join("nowhere")])).unwrap_err();
    assert!(matches!(error, Error::Source(_)), "{error}");
}

#[test]
fn a_repair_of_what_is_whole_changes_nothing() {
    let world = two();
    let before = world.memory.objects();
    let report = checked(&world, &request(true, &[]));
    assert_eq!((report.damaged, report.repaired), (vec![], vec![]));
    assert_eq!(world.memory.objects(), before);
}

#[test]
fn many_paths_are_counted_and_few_named() {
    let world = World::new();
    let content = noise(1, 500);
    let files: Vec<(String, Vec<u8>)> = (0..1500).map(|n| (format!("copy {n:04}"), content.clone())).collect();
    let named: Vec<(&str, Vec<u8>)> = files.iter().map(|(path, content)| (path.as_str(), content.clone())).collect();
    world.store("", "s", 1, &named);
    spoil(&world, &content);
    let report = checked(&world, &VerifyRequest::default());
    let item = &report.damaged[0];
    assert_eq!((item.paths.len(), item.paths_total), (1000, 1500));
    assert_eq!(item.paths.iter().collect::<BTreeSet<_>>().len(), 1000);
}
