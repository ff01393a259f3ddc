//! Goal: removal takes what was named and nothing else, is durable when it returns, and space comes back only
//! from what nothing reaches. Method: roots committed to a repository in memory, with trees of their own
//! where collection matters; retention against a second, naive reading of the rules, over random histories.
#![allow(clippy::unwrap_used)]

mod catalogue_support;

use std::collections::BTreeMap;
use std::sync::Arc;

use catalogue_support::{World, snapshot};
use copal_engine::catalogue::{Catalogue, Filter, relabel};
use copal_engine::removal::{ForgetRequest, KeepRules, collect_garbage, delete, forget};
use copal_engine::{Context, Error};
use copal_manifest::snapshot::{Label, Snapshot};
use copal_sim::fault::FaultMode;
use copal_sim::seeded::noise;
use copal_store::Error as StoreError;
use copal_store::backend::{Backend, ObjectKind};

fn names(context: &Context) -> Vec<String> {
    let listed = Catalogue::load(context).unwrap().snapshots;
    listed.into_iter().map(|listed| Snapshot::full_name(&listed.snapshot.app, &listed.snapshot.name)).collect()
}

fn references(references: &[&str]) -> Vec<String> {
    references.iter().map(|&reference| reference.to_owned()).collect()
}

/// Deletes `named` and finds `left`.
#[track_caller]
fn check(world: &World, named: &[&str], left: &[&str]) -> Vec<String> {
    world.notices.take();
    let removed = delete(&world.context, &references(named)).unwrap();
    assert_eq!(names(&world.context), left);
    let roots = world.memory.list(ObjectKind::Root).unwrap();
    for listed in removed {
        assert!(roots.iter().all(|object| object.name.name() != listed.root.object_name()), "its root is gone");
    }
    world.notices.take()
}

/// Deleting `named` fails, and nothing goes.
#[track_caller]
fn check_refused(world: &World, named: &[&str]) -> Error {
    let before = world.memory.objects();
    let error = delete(&world.context, &references(named)).unwrap_err();
    assert_eq!(world.memory.objects(), before, "all is resolved before anything goes");
    error
}

fn some() -> World {
    let world = World::new();
    assert_eq!(names(&world.context), Vec::<String>::new());
    for (app, name, at) in [("", "one", 1), ("", "two", 2), ("hub", "one", 3), ("hub", "two", 4)] {
        world.commit(app, name, at);
    }
    world
}

#[test]
fn deletion_takes_what_is_named_and_nothing_else() {
    let world = some();
    relabel(&world.context, "two", &[("a".into(), "1".into())], &[], None).unwrap();
    relabel(&world.context, "hub/one", &[("a".into(), "1".into())], &[], None).unwrap();
    let two = snapshot("", "two", 2).id;
    check(&world, &["two", "hub/two", &two.to_string()], &["one", "hub/one"]);
    let labels = world.memory.list(ObjectKind::Label).unwrap();
    assert_eq!(labels.len(), 1, "labels go with their snapshots");
    assert!(!labels[0].name.name().starts_with(&two.to_string()));
}

#[test]
fn a_name_that_is_none_stops_all() {
    let world = some();
    assert!(matches!(check_refused(&world, &["one", "three"]), Error::NoSuchSnapshot(_)));
    assert!(matches!(check_refused(&world, &["one", "0000"]), Error::Ambiguous { count: 4, .. }));
}

#[test]
fn a_pinned_snapshot_stops_all() {
    let world = some();
    relabel(&world.context, "hub/one", &[], &[], Some(true)).unwrap();
    let error = check_refused(&world, &["one", "hub/one"]);
    assert!(matches!(&error, Error::Pinned(name) if name == "hub/one"), "the whole name: {error}");
    relabel(&world.context, "hub/one", &[], &[], Some(false)).unwrap();
    check(&world, &["one", "hub/one"], &["two", "hub/two"]);
}

#[test]
fn deleting_again_by_id_is_no_error() {
    let world = some();
    let id = snapshot("", "one", 1).id.to_string();
    assert_eq!(check(&world, &[&id], &["two", "hub/one", "hub/two"]), Vec::<String>::new());
    let notices = check(&world, &[&id], &["two", "hub/one", "hub/two"]);
    assert!(notices.len() == 1 && notices[0].contains("already gone"), "{notices:?}");
}

#[test]
fn what_cannot_be_read_goes_by_its_whole_name_or_id() {
    let world = some();
    let (damaged, newer) = (snapshot("", "one", 1), snapshot("hub", "two", 4));
    world.memory.flip_byte(&world.root_object(&damaged), 99);
    world.make_newer(&world.root_object(&newer));
    let prefix = newer.id.to_string()[..13].to_owned();
    let error = check_refused(&world, &["two", &prefix]);
    assert!(matches!(error, Error::Store(StoreError::Unsupported { .. })), "{error}");
    let label = Label { version: 1, tags: Vec::new(), pinned: true }.encode().unwrap();
    world.repository().write_label(damaged.id, &label).unwrap();
    assert!(matches!(check_refused(&world, &["one"]), Error::Pinned(_)), "it is never taken for hub/one");
    world.repository().delete_labels(damaged.id).unwrap();
    let notices = check(&world, &["one", &newer.id.to_string()], &["two", "hub/one"]);
    assert_eq!(notices.iter().filter(|notice| notice.contains("cannot be read")).count(), 2, "{notices:?}");
}

#[test]
fn a_deletion_killed_anywhere_is_finished_by_deleting_again() {
    for mode in [FaultMode::CrashBefore, FaultMode::CrashTorn, FaultMode::CrashAfter] {
        for nth in 1.. {
            let world = some();
            for name in ["two", "hub/one"] {
                relabel(&world.context, name, &[("a".into(), "1".into())], &[], None).unwrap();
            }
            let ids = [snapshot("", "two", 2).id, snapshot("hub", "one", 3).id].map(|id| id.to_string());
            world.faults.plan(None, nth, mode);
            let outcome = delete(&world.context, &ids);
            if !world.faults.has_fired() {
                outcome.unwrap();
                assert!(nth > 2, "roots and labels are removed apart");
                break;
            }
            assert!(outcome.is_err());
            world.faults.plan(None, u64::MAX, mode);
            world.memory.kill_processes();
            let left = names(&world.context);
            assert!(left.contains(&"one".into()) && left.contains(&"hub/two".into()));
            delete(&world.context, &ids).unwrap();
            assert_eq!(names(&world.context), ["one", "hub/two"]);
            collect_garbage(&world.context, false).unwrap();
            assert_eq!(world.memory.list(ObjectKind::Label).unwrap(), [], "{mode:?} {nth}");
        }
    }
}

fn last(app: Option<&str>) -> ForgetRequest {
    let filter = Filter { apps: app.map(str::to_owned).into_iter().collect(), ..Filter::default() };
    ForgetRequest { filter, rules: KeepRules { last: 1, ..KeepRules::default() }, ..ForgetRequest::default() }
}

#[test]
fn forgetting_removes_by_rule_in_each_application() {
    let world = some();
    let dry = forget(&world.context, &last(None), true).unwrap();
    assert_eq!(names(&world.context).len(), 4, "a dry run removes nothing");
    let report = forget(&world.context, &last(None), false).unwrap();
    assert_eq!(report, dry);
    assert_eq!(names(&world.context), ["two", "hub/two"]);
    assert_eq!(report.removed().count(), 2);
    assert_eq!(forget(&world.context, &last(None), false).unwrap().removed().count(), 0);
}

#[test]
fn forgetting_in_one_application_leaves_the_others() {
    let world = some();
    forget(&world.context, &last(Some("hub")), false).unwrap();
    assert_eq!(names(&world.context), ["one", "two", "hub/two"]);
    forget(&world.context, &last(Some("")), false).unwrap();
    assert_eq!(names(&world.context), ["two", "hub/two"]);
}

#[test]
fn forgetting_leaves_the_pinned_and_the_unreadable() {
    let mut world = some();
    relabel(&world.context, "one", &[], &[], Some(true)).unwrap();
    world.memory.flip_byte(&world.root_object(&snapshot("hub", "one", 3)), 99);
    world.context.cache_folder = None;
    let report = forget(&world.context, &last(None), false).unwrap();
    assert_eq!(report.removed().count(), 0);
    let why = |name: &str| report.kept().find(|(listed, _)| listed.snapshot.name == name).unwrap().1.clone();
    assert_eq!(why("one"), ["pinned"]);
    assert_eq!(world.memory.list(ObjectKind::Root).unwrap().len(), 4);

    // A pin that cannot be read may be a pin.
    let world = some();
    relabel(&world.context, "one", &[("a".into(), "1".into())], &[], None).unwrap();
    world.memory.flip_byte(&world.memory.list(ObjectKind::Label).unwrap()[0].name, 99);
    forget(&world.context, &last(None), false).unwrap();
    assert_eq!(names(&world.context), ["one", "two", "hub/two"]);
}

fn stored(world: &World) -> u64 {
    world.memory.list(ObjectKind::Pack).unwrap().iter().map(|object| object.bytes).sum()
}

fn files(seeds: &[u64]) -> Vec<(String, Vec<u8>)> {
    seeds.iter().map(|&seed| (format!("folder {}/file {seed}", seed % 3), noise(seed, 300_000))).collect()
}

fn store(world: &World, name: &str, at: i64, seeds: &[u64]) -> BTreeMap<String, Vec<u8>> {
    let files = files(seeds);
    let named: Vec<(&str, Vec<u8>)> = files.iter().map(|(path, content)| (path.as_str(), content.clone())).collect();
    world.store("", name, at, &named);
    files.into_iter().collect()
}

#[test]
fn space_comes_back_and_what_others_share_stays() {
    let world = World::seeded(2);
    let one = store(&world, "one", 1, &[1, 2, 3, 4]);
    store(&world, "two", 2, &[3, 4, 5, 6, 7, 8]);
    let three = store(&world, "three", 3, &[4, 8, 9]);
    let before = stored(&world);
    assert_eq!(collect_garbage(&world.context, false).unwrap().bytes_freed, 0, "nothing is garbage");
    delete(&world.context, &references(&["two"])).unwrap();
    assert_eq!(stored(&world), before, "deletion returns no space");
    let forecast = collect_garbage(&world.context, true).unwrap();
    assert_eq!(stored(&world), before, "a dry run removes nothing");
    assert!(forecast.bytes_freed > 800_000, "{forecast:?}");
    let report = collect_garbage(&world.context, false).unwrap();
    assert_eq!(report.bytes_freed, before - stored(&world));
    assert!(report.bytes_freed > 800_000, "three files of 300 kB went: {report:?}");
    assert_eq!(world.read_back("one"), one);
    assert_eq!(world.read_back("three"), three);
    delete(&world.context, &references(&["one", "three"])).unwrap();
    collect_garbage(&world.context, false).unwrap();
    assert_eq!(stored(&world), 0);
    assert_eq!(world.memory.list(ObjectKind::Session).unwrap(), []);
}

#[test]
fn what_a_root_that_does_not_open_may_reach_stays() {
    for newer in [false, true] {
        let world = World::new();
        let context = Context { state_folder: Some(world.folder.path().join("state")), ..world.context.clone() };
        let kept = store(&world, "kept", 1, &[1, 2]);
        store(&world, "gone", 2, &[3, 4]);
        store(&world, "hurt", 3, &[5, 6]);
        let hurt = world.root_object(&snapshot("", "hurt", 3));
        let sound = world.memory.read(&hurt, 1 << 20).unwrap();
        if newer {
            world.make_newer(&hurt)
        } else {
            world.memory.flip_byte(&hurt, 99)
        }
        delete(&world.context, &references(&["gone"])).unwrap();
        let before = stored(&world);
        let report = collect_garbage(&context, false).unwrap();
        assert_eq!((report.roots_unread.len(), report.packs_removed), (1, 0), "{report:?}");
        assert_eq!(stored(&world), before);
        assert_eq!(world.read_back("kept"), kept);
        // What came since cannot be what it reaches.
        store(&world, "later", 4, &[7, 8]);
        delete(&world.context, &references(&["later"])).unwrap();
        let report = collect_garbage(&context, false).unwrap();
        assert!(report.roots_unread.len() == 1 && report.packs_removed > 0, "{report:?}");
        world.memory.lose(&hurt);
        copal_store::backend::publish_bytes(&world.memory, &hurt, &sound).unwrap();
        collect_garbage(&context, false).unwrap();
        assert!(stored(&world) < before);
        assert_eq!(world.read_back("hurt").len(), 2);
    }
}

#[test]
fn collection_killed_anywhere_loses_nothing() {
    for mode in [FaultMode::CrashBefore, FaultMode::CrashTorn, FaultMode::CrashAfter] {
        for nth in 1.. {
            let world = World::new();
            let one = store(&world, "one", 1, &[1, 2, 3, 4]);
            store(&world, "two", 2, &[3, 4, 5, 6, 7, 8]);
            delete(&world.context, &references(&["two"])).unwrap();
            world.faults.plan(None, nth, mode);
            let outcome = collect_garbage(&world.context, false);
            let fired = world.faults.has_fired();
            world.faults.plan(None, u64::MAX, mode);
            world.memory.kill_processes();
            let fresh = Context { monitor: Arc::clone(&world.context.monitor), ..world.context.clone() };
            assert_eq!(names(&fresh), ["one"]);
            assert_eq!(world.read_back("one"), one, "{mode:?} {nth}");
            if !fired {
                outcome.unwrap();
                assert!(nth > 10, "a collection has many steps");
                break;
            }
            collect_garbage(&world.context, false).unwrap();
            collect_garbage(&world.context, false).unwrap();
            assert_eq!(world.read_back("one"), one, "{mode:?} {nth}");
            assert!(stored(&world) < 1_700_000, "{mode:?} {nth}: {} bytes are left", stored(&world));
            for kind in [ObjectKind::Condemned, ObjectKind::Session] {
                let mut left = world.memory.names(kind).unwrap();
                left.retain(|name| !name.name().ends_with("-retired"));
                assert_eq!(left, [], "{mode:?} {nth}");
            }
        }
    }
}

#[test]
fn labels_without_a_snapshot_are_collected() {
    let world = some();
    let label = Label { version: 1, tags: Vec::new(), pinned: true }.encode().unwrap();
    world.repository().write_label(snapshot("", "never", 9).id, &label).unwrap();
    relabel(&world.context, "two", &[], &[], Some(true)).unwrap();
    collect_garbage(&world.context, true).unwrap();
    assert_eq!(world.memory.list(ObjectKind::Label).unwrap().len(), 2);
    collect_garbage(&world.context, false).unwrap();
    assert_eq!(world.memory.list(ObjectKind::Label).unwrap().len(), 1);
    assert!(Catalogue::load(&world.context).unwrap().find("two").unwrap().snapshot.pinned);
}
