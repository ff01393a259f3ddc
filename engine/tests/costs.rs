//! Goal: what an operation costs grows with the change, not with the number of snapshots that stand beside
//! it. Method: the same operation beside 2 snapshots and beside 1,000, on a backend that counts; the
//! catalogue's cache is warm, as it is after any command.
#![allow(clippy::unwrap_used)]

mod catalogue_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use catalogue_support::{World, snapshot};
use copal_engine::catalogue::Catalogue;
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_engine::inspect::diff;
use copal_engine::removal::{ForgetRequest, KeepRules, collect_garbage, delete, forget};
use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::Snapshot;
use copal_sim::recording::Operation;
use copal_sim::seeded::noise;
use copal_store::backend::ObjectKind;

const KINDS: [ObjectKind; 10] = [
    ObjectKind::Config,
    ObjectKind::KeySlot,
    ObjectKind::Pack,
    ObjectKind::Index,
    ObjectKind::Root,
    ObjectKind::Label,
    ObjectKind::Condemned,
    ObjectKind::Session,
    ObjectKind::Lease,
    ObjectKind::Parity,
];

/// Operations on single objects: everything but listings, which are one call whatever they return.
const ON_OBJECTS: [Operation; 8] = [
    Operation::Create,
    Operation::Publish,
    Operation::ReadRange,
    Operation::Read,
    Operation::Stat,
    Operation::Delete,
    Operation::Hold,
    Operation::IsHeld,
];

/// Which chunks share a pack is chance, and with it what a collection rewrites. Something done for each
/// snapshot would be done 998 times more.
const BY_CHANCE: u64 = 60;

type Counts = BTreeMap<String, u64>;

/// What `act` did to objects, by operation and kind; and the listings that it made.
fn counted<T>(world: &World, act: impl FnOnce() -> T) -> (T, Counts) {
    world.recording.reset();
    let done = act();
    let mut counts = Counts::new();
    for operation in ON_OBJECTS.into_iter().chain([Operation::List]) {
        for kind in KINDS {
            let count = world.recording.tally(operation, kind).count;
            if count > 0 {
                counts.insert(format!("{operation:?} {kind:?}"), count);
            }
        }
    }
    (done, counts)
}

struct Populated {
    world: World,
    source: PathBuf,
    newest: String,
}

/// `count` snapshots of one tree: the first is taken, the others are roots with the same manifest, as creates
/// of an unchanged tree leave them.
fn populated(count: usize) -> Populated {
    let world = World::new();
    let source = world.folder.path().join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..200u64 {
        fs::write(source.join(format!("file {number}")), noise(number, 700)).unwrap();
    }
    fs::write(source.join("large"), noise(1000, 1_500_000)).unwrap();
    let elsewhere = world.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("waste"), noise(2000, 800_000)).unwrap();
    world.set_time(1_000_000_000_000);
    take(&world, "taken", &source);
    take(&world, "waste", &elsewhere);
    let taken = Catalogue::load(&world.context).unwrap().find("taken").unwrap().snapshot.clone();
    for number in 2..count {
        let name = format!("s{number}");
        let like = snapshot("", &name, 1_000_000_000_001 + number as i64);
        let copy = Snapshot { name, id: like.id, created: like.created, completed: like.completed, ..(*taken).clone() };
        world.publish(&copy).unwrap();
    }
    world.set_time(1_000_000_000_001 + count as i64);
    Catalogue::load(&world.context).unwrap();
    let newest = if count > 2 { format!("s{}", count - 1) } else { "taken".into() };
    Populated { world, source, newest }
}

fn take(world: &World, name: &str, source: &Path) {
    let sources = vec![SourceRequest { label: String::new(), path: source.to_owned() }];
    let request = CreateRequest { name: name.into(), sources, ..CreateRequest::default() };
    create(&world.context, &request).unwrap();
}

/// The operations in one order, with what each did.
fn costs(count: usize) -> Vec<(&'static str, Counts)> {
    let Populated { world, source, newest } = populated(count);
    let context = &world.context;
    let mut costs = Vec::new();
    let mut cost = |what, act: &dyn Fn()| costs.push((what, counted(&world, act).1));
    cost("list", &|| drop(Catalogue::load(context).unwrap()));
    cost("create of an unchanged tree", &|| take(&world, "unchanged", &source));
    fs::write(source.join("file 7"), noise(7777, 900)).unwrap();
    cost("create of a changed tree", &|| take(&world, "changed", &source));
    cost("list after creates", &|| drop(Catalogue::load(context).unwrap()));
    cost("diff", &|| drop(diff(context, &newest, "changed").unwrap()));
    cost("delete", &|| drop(delete(context, &["waste".into()]).unwrap()));
    let rules = KeepRules { last: u32::MAX, ..KeepRules::default() };
    let request = ForgetRequest { rules, ..ForgetRequest::default() };
    cost("forget nothing", &|| assert!(forget(context, &request, false).unwrap().removed().count() == 0));
    cost("gc", &|| assert!(collect_garbage(context, false).unwrap().bytes_freed > 700_000));
    cost("gc of nothing", &|| assert_eq!(collect_garbage(context, false).unwrap().bytes_freed, 0));
    costs
}

#[test]
fn beside_a_thousand_snapshots_everything_costs_what_it_costs_beside_two() {
    let (few, many) = (costs(2), costs(1000));
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        for (operation, count) in &many {
            let beside_two = few.get(operation).copied().unwrap_or_default();
            assert!(
                *count <= beside_two + BY_CHANCE,
                "{what}: {operation} {beside_two} times, and {count} times beside 1,000"
            );
        }
    }
}

#[test]
fn a_list_reads_nothing_that_the_cache_knows() {
    let Populated { world, .. } = populated(100);
    let (_, counts) = counted(&world, || Catalogue::load(&world.context).unwrap());
    assert_eq!(counts, Counts::from([("List Label".into(), 1), ("List Root".into(), 1)]));
    // Without a cache each root is read once, and nothing else.
    let bare = copal_engine::Context { cache_folder: None, ..world.context.clone() };
    let (_, counts) = counted(&world, || Catalogue::load(&bare).unwrap());
    assert_eq!(counts, Counts::from([("List Label".into(), 1), ("List Root".into(), 1), ("Read Root".into(), 100)]));
}

/// `COPAL_SNAPSHOTS=10000` for a figure at that size.
#[test]
fn a_list_of_many_snapshots_is_fast() {
    let count = std::env::var("COPAL_SNAPSHOTS").ok().and_then(|count| count.parse().ok()).unwrap_or(2000);
    let world = World::new();
    let mut last = None;
    for number in 0..count {
        last = Some(world.commit("app", &format!("s{number}"), 1_000_000 + number));
    }
    let cold = Instant::now();
    Catalogue::load(&world.context).unwrap();
    let cold = cold.elapsed();
    let warm = Instant::now();
    let catalogue = Catalogue::load(&world.context).unwrap();
    let warm = warm.elapsed();
    assert_eq!(catalogue.snapshots.len() as i64, count);
    assert_eq!(catalogue.find("latest").unwrap().snapshot.id, last.unwrap().id);
    println!("{count} snapshots: {cold:?} when every root is read, {warm:?} from the cache");
    // Generous: what is asserted is that nothing in it is quadratic.
    assert!(warm < Duration::from_millis(200 + count as u64), "{warm:?}");
    assert_eq!(catalogue.snapshots[0].snapshot.created, Timestamp { seconds: 1_000_000, nanoseconds: 0 });
}
