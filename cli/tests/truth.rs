//! Goal: `verify` is true: what it passes can be deployed, what it does not pass it names, and what a newer
//! version wrote is never "ok". Method: objects are forged by the store's own code, as a holder of the key
//! could, in fresh and in rotated repositories; the program says what it thinks, and is believed only if
//! deploys agree.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use copal_engine::context::SilentMonitor;
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_engine::{Clock, Context};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp};
use copal_manifest::snapshot::Snapshot;
use copal_manifest::tree::TreeBuilder;
use copal_store::SnapshotId;
use copal_store::entropy::OsEntropy;
use copal_store::keys::Credential;
use copal_store::local::LocalBackend;
use copal_store::mutants::Mutant;
use copal_store::repository::{Repository, RootName};
use copal_store::session::Session;
use serde_json::Value;
use support::{Run, World, noise};

#[derive(Debug)]
struct NewYear;

impl Clock for NewYear {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: 1_767_225_600, nanoseconds: 0 }
    }
    fn monotonic_nanoseconds(&self) -> u64 {
        0
    }
}

/// Fresh, and after a rotation.
const ROTATIONS: [bool; 2] = [false, true];

/// With the snapshot `sound` of a tree of its own.
fn world(rotated: bool) -> World {
    let world = World::new();
    if rotated {
        world.ok(&["key", "rotate"]);
    }
    plant(&world.path("apart"), 100);
    world.create("sound", "apart");
    world
}

fn plant(folder: &Path, seed: u64) {
    fs::create_dir(folder).unwrap();
    for number in 0..6 {
        fs::write(folder.join(format!("large {number}")), noise(seed + number, 300_000)).unwrap();
        fs::write(folder.join(format!("small {number}")), noise(seed + 50 + number, 2_000)).unwrap();
    }
}

fn opened(world: &World) -> Repository {
    let mut key = [0; 32];
    key.copy_from_slice(&fs::read(world.path("key")).unwrap());
    let credential = Credential::KeyFile(zeroize::Zeroizing::new(key));
    Repository::open(Arc::new(LocalBackend::new(&world.repository())), Arc::new(OsEntropy), &credential).unwrap()
}

fn context(repository: Repository) -> Context {
    Context {
        repository,
        clock: Arc::new(NewYear),
        monitor: Arc::new(SilentMonitor),
        cache_folder: None,
        memory: None,
        state_folder: None,
        own_places: Vec::new(),
        interrupt: Arc::new(AtomicBool::new(false)),
        threads: 1,
        host: "here".into(),
        user: "tester".into(),
        program: "a forger".into(),
    }
}

/// What `verify` says, and how it ends.
fn verify(world: &World, more: &[&str]) -> (Run, Value) {
    let run = world.run(&[&["verify", "--json"], more].concat());
    let document = serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:#?}"));
    (run, document)
}

fn of_kind<'v>(report: &'v Value, list: &str, kind: &str) -> Vec<&'v Value> {
    report[list].as_array().unwrap().iter().filter(|item| item["kind"] == kind).collect()
}

#[track_caller]
fn check_deployed(world: &World, name: &str, source: &Path) {
    let target = world.path(&format!("target of {name}"));
    world.ok(&["deploy", name, target.to_str().unwrap(), "--yes"]);
    let bytes = |folder: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let files = support::files_below(folder).into_iter();
        files.map(|path| (path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap())).collect()
    };
    assert!(bytes(&target) == bytes(source), "{name} has other bytes");
}

#[test]
fn t05_wrong_places_in_the_index_are_damage_and_made_right_from_the_packs() {
    for rotated in ROTATIONS {
        let world = world(rotated);
        plant(&world.path("source"), 1);
        let mut repository = opened(&world);
        repository.mutate(Some(Mutant::WritesWrongPlaces));
        let sources = vec![SourceRequest { label: String::new(), path: world.path("source") }];
        let request = CreateRequest { name: "forged".into(), sources, ..CreateRequest::default() };
        create(&context(repository), &request).unwrap();

        let (run, report) = verify(&world, &[]);
        assert_eq!((run.code, &report["ok"]), (69, &false.into()), "{report}");
        let chunks = of_kind(&report, "damaged", "chunk");
        assert!(chunks.len() >= 12, "{report}");
        for chunk in chunks {
            assert!(chunk["detail"].as_str().unwrap().contains("the pack's own list does not"), "{chunk}");
            assert_eq!(chunk["snapshots"], serde_json::json!(["forged"]), "{chunk}");
            assert!(chunk["paths_total"].as_u64().unwrap() > 0, "{chunk}");
        }
        let refused = world.run(&["deploy", "forged", &world.text("refused"), "--yes"]);
        assert_eq!(refused.code, 69, "{refused:#?}");
        check_deployed(&world, "sound", &world.path("apart"));

        let (run, report) = verify(&world, &["--repair"]);
        assert_eq!((run.code, &report["ok"]), (0, &true.into()), "{report}");
        assert_eq!(verify(&world, &[]).0.code, 0);
        check_deployed(&world, "forged", &world.path("source"));
    }
}

/// Stores `folder/inside` and no `folder`, as a snapshot like `sound`.
fn forge_orphan(world: &World, folder: Option<Node>) {
    let repository = opened(world);
    let session = Session::begin(&repository).unwrap();
    let root = *session.roots().first().unwrap();
    let mut snapshot = Snapshot::decode("sound", &repository.read_root(&root).unwrap()).unwrap();
    let mut tree = TreeBuilder::of_loose_entries(&repository.keys().tree_boundary_key());
    let mut writer = session.writer().unwrap();
    let entry = |path: &str, node| Entry {
        path: EntryPath::from_slashes(path.as_bytes()).unwrap(),
        metadata: Metadata { mode: 0o755, ..Metadata::default() },
        node,
    };
    tree.push(&entry("", Node::Directory), &mut writer).unwrap();
    if let Some(folder) = folder {
        tree.push(&entry("folder", folder), &mut writer).unwrap();
    }
    tree.push(&entry("folder/inside", Node::Fifo), &mut writer).unwrap();
    snapshot.sources[0].tree = tree.finish(&mut writer).unwrap();
    drop(writer);
    (snapshot.id, snapshot.name) = (SnapshotId([7; 16]), "forged".into());
    let tag = repository.keys().name_tag(Snapshot::full_name(&snapshot.app, &snapshot.name).as_bytes());
    let durable = session.seal_packs().unwrap().sync().unwrap().publish_index().unwrap();
    durable.publish_root(RootName { tag, snapshot: snapshot.id }, &snapshot.encode().unwrap()).unwrap();
    session.end().unwrap();
}

#[test]
fn t05_an_entry_that_stands_in_no_folder_is_damage() {
    for (rotated, folder) in [(false, None), (true, None), (false, Some(Node::Fifo))] {
        let world = world(rotated);
        forge_orphan(&world, folder);
        for how in [&[][..], &["--quick"]] {
            let (run, report) = verify(&world, how);
            assert_eq!((run.code, &report["ok"]), (69, &false.into()), "{report}");
            let hurt = of_kind(&report, "damaged", "snapshot");
            assert!(hurt.len() == 1 && hurt[0]["detail"].as_str().unwrap().contains("folder"), "{report}");
            assert_eq!(hurt[0]["snapshots"], serde_json::json!(["forged"]), "{report}");
        }
        check_deployed(&world, "sound", &world.path("apart"));
    }
}

/// Puts a version of the far future into the envelope of an object.
fn make_newer(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[7] = 200;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn t08_what_a_newer_version_wrote_is_listed_as_not_verified_and_never_ok() {
    for (folder, kind) in
        [("snapshots", "snapshot"), ("labels", "label"), ("packs", "pack"), ("index", "index"), ("keys", "key")]
    {
        for rotated in ROTATIONS {
            let world = world(rotated);
            plant(&world.path("source"), 1);
            let before = world.objects_in(folder);
            world.create("newer", "source");
            world.ok(&["pin", "newer"]);
            if folder == "keys" {
                fs::write(world.path("second key"), noise(9, 32)).unwrap();
                let mut second = world.command(&["key", "add", "--new-key-file", &world.text("second key")]);
                let added = support::finish(second.output().unwrap());
                assert_eq!(added.code, 0, "{added:#?}");
            }
            let fresh = world.objects_in(folder).into_iter().filter(|path| !before.contains(path));
            for path in fresh.filter(|path| !is_key_list(path)) {
                make_newer(&path);
            }
            let (run, report) = verify(&world, &[]);
            assert_eq!((run.code, &report["ok"]), (13, &false.into()), "{folder}: {run:#?}");
            assert!(!of_kind(&report, "not_verified", kind).is_empty(), "{folder}: {report}");
            assert_eq!(report["damaged"], serde_json::json!([]), "{folder}: {report}");
            assert_eq!(run.error()["code"], "newer-format");
            check_deployed(&world, "sound", &world.path("apart"));
        }
    }
}

/// Lists of keys, grants and marks have no version byte of their own there, or decide about every other
/// object.
fn is_key_list(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.parent().unwrap().ends_with("keys") && name.contains('-')
}

#[test]
fn t05_a_snapshot_that_is_gone_without_having_been_deleted_here_is_told_once() {
    let world = world(false);
    plant(&world.path("source"), 1);
    for name in ["here", "elsewhere", "lost"] {
        world.create(name, "source");
    }
    world.ok(&["list"]);
    world.ok(&["delete", "here", "--yes"]);
    let deleted = support::finish(world.elsewhere(&["delete", "elsewhere", "--yes"]).output().unwrap());
    assert_eq!(deleted.code, 0, "{deleted:#?}");
    let kept = world.json(&["list"]);
    let (run, report) = verify(&world, &[]);
    assert_eq!((run.code, &report["ok"]), (0, &true.into()), "{report}");
    let names: Vec<&str> =
        report["gone"].as_array().unwrap().iter().map(|gone| gone["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["elsewhere"], "{report} {kept}");
    assert_eq!(verify(&world, &[]).1["gone"], serde_json::json!([]), "it is told once");
}
