//! Goal: a pack damaged up to its share of parity costs nothing: it is read, copied to a new pack by repair,
//! and named until then; parity is published before anything refers to its pack, and goes with it. Without
//! the setting there is none. Method: a repository in memory with parity, packs spoilt shard by shard; a
//! crash at every effect of a create.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use copal_sim::fault::{FaultBackend, FaultMode};
use copal_sim::{MemoryBackend, SeededEntropy, noise};
use copal_store::PackId;
use copal_store::backend::{Backend, ObjectKind, ObjectName};
use copal_store::check::{rebuild_index, renew_parity};
use copal_store::collect::{CollectOptions, Marker, Reachability, collect};
use copal_store::config::{CipherSuite, Parameters};
use copal_store::describe::describe;
use copal_store::pack::pack_name;
use copal_store::parity::parity_name;
use copal_store::repository::{InitOptions, Repository, RootName};
use copal_store::session::Session;
use support::{Toy, changed, check_packs, chunks, commit, gc, key_file, open, options, read, snapshot, store};

fn with_parity(backend: Arc<dyn Backend>, percent: u8) -> Repository {
    let plain = options(CipherSuite::ChaCha20Poly1305);
    let parameters = Parameters { parity_percent: percent, ..plain.parameters.clone() };
    let options = InitOptions { parameters, ..plain };
    Repository::init(backend, Arc::new(SeededEntropy::new(5)), &key_file(), &options).unwrap()
}

struct World {
    memory: MemoryBackend,
    repository: Repository,
    root: RootName,
    /// A delta against a chunk of the root.
    delta: RootName,
}

fn world(percent: u8) -> World {
    let memory = MemoryBackend::new();
    let repository = with_parity(Arc::new(memory.clone()), percent);
    let root = snapshot(&repository, "root", &chunks(0..20));
    let session = Session::begin(&repository).unwrap();
    let base = &chunks(0..1)[0];
    let id = store(&session, &changed(base, 99), Some(base)).unwrap();
    assert_eq!(session.counters().deltas_new, 1);
    let delta = commit(&session, "delta", &[id]).unwrap();
    session.end().unwrap();
    World { memory, repository, root, delta }
}

fn names(memory: &MemoryBackend, kind: ObjectKind) -> Vec<ObjectName> {
    memory.list(kind).unwrap().into_iter().map(|object| object.name).collect()
}

fn packs(world: &World) -> Vec<PackId> {
    copal_store::check::packs(&world.repository).unwrap()
}

/// Everything reads back.
#[track_caller]
fn check(world: &World) {
    assert_eq!(read(&world.repository, &world.root).unwrap(), chunks(0..20));
    assert_eq!(read(&world.repository, &world.delta).unwrap(), [changed(&chunks(0..1)[0], 99)]);
}

/// Spoils so many percent of every pack, in one run from a place on, and of its parity.
fn spoil(world: &World, percent: usize, from_percent: usize) {
    for pack in packs(world) {
        let name = pack_name(pack);
        let mut bytes = world.memory.read(&name, u64::MAX).unwrap();
        let (begin, length) = (bytes.len() * from_percent / 100, bytes.len() * percent / 100);
        let end = (begin + length).min(bytes.len());
        bytes[begin..end].copy_from_slice(&noise(9, end - begin));
        world.memory.overwrite(&name, bytes);
    }
}

#[test]
fn without_the_setting_there_is_none() {
    let world = world(0);
    assert_eq!(names(&world.memory, ObjectKind::Parity), []);
    spoil(&world, 1, 10);
    assert!(read(&world.repository, &world.root).is_err());
}

#[test]
fn every_pack_has_its_parity_of_the_share_asked_for() {
    let world = world(10);
    let parity: u64 = world.memory.list(ObjectKind::Parity).unwrap().iter().map(|object| object.bytes).sum();
    let stored: u64 = world.memory.list(ObjectKind::Pack).unwrap().iter().map(|object| object.bytes).sum();
    assert!((stored / 10..stored / 6).contains(&parity), "{parity} of {stored}");
    for pack in packs(&world) {
        let fields = describe(&world.repository, &parity_name(pack)).unwrap().fields;
        let pack_bytes = world.memory.stat(&pack_name(pack)).unwrap().bytes;
        assert!(fields.contains(&("pack_bytes".into(), pack_bytes.to_string())));
    }
    let opened = open(Arc::new(world.memory.clone()), 7).unwrap();
    assert_eq!(opened.config().parameters.parity_percent, 10, "the setting is the repository's");
    assert_eq!(check_packs(&world.repository).damaged, []);
}

#[test]
fn damage_up_to_the_share_is_read_through_named_and_repaired() {
    for from in [0, 17, 55, 91] {
        let world = world(10);
        spoil(&world, 8, from);
        check(&world);
        let damaged = check_packs(&world.repository).damaged;
        assert_eq!(damaged.len(), packs(&world).len(), "{damaged:?}");
        for damage in &damaged {
            assert!(damage.kind == "pack" && damage.chunks.is_empty(), "nothing is lost: {damage:?}");
        }
        rebuild_index(&world.repository).unwrap();
        assert_eq!(check_packs(&world.repository).damaged, []);
        check(&world);
        // The damaged packs go, and with them their parity; what was copied has its own.
        gc(&world.repository);
        check(&world);
        let parity: Vec<String> = names(&world.memory, ObjectKind::Parity).iter().map(|n| n.name().into()).collect();
        assert_eq!(parity, packs(&world).iter().map(ToString::to_string).collect::<Vec<_>>());
        spoil(&world, 8, 30);
        check(&world);
    }
}

#[test]
fn more_damage_than_the_share_loses_what_it_hits_and_no_more() {
    let world = world(10);
    spoil(&world, 40, 0);
    assert!(read(&world.repository, &world.root).unwrap_err().is_integrity());
    let damaged = check_packs(&world.repository).damaged;
    assert!(damaged.iter().any(|damage| !damage.chunks.is_empty()), "{damaged:?}");
    let sound = rebuild_index(&world.repository).unwrap();
    assert!((8..20).contains(&sound), "{sound} of 22 chunks");
}

#[test]
fn a_lost_pack_comes_back_from_as_much_parity() {
    let world = world(100);
    for name in names(&world.memory, ObjectKind::Pack) {
        world.memory.lose(&name);
    }
    assert!(read(&world.repository, &world.root).is_err(), "a pack that is gone is absent");
    rebuild_index(&world.repository).unwrap();
    check(&world);
}

#[test]
fn parity_that_is_gone_or_damaged_is_named_and_made_again() {
    let world = world(10);
    let parity = names(&world.memory, ObjectKind::Parity);
    world.memory.lose(&parity[0]);
    let length = world.memory.stat(&parity[1]).unwrap().bytes as usize;
    world.memory.flip_byte(&parity[1], length / 2);
    let damaged = check_packs(&world.repository).damaged;
    assert_eq!(damaged.iter().map(|damage| damage.kind).collect::<Vec<_>>(), ["parity", "parity"]);
    assert_eq!(renew_parity(&world.repository).unwrap(), 2);
    assert_eq!(check_packs(&world.repository).damaged, []);
    assert_eq!(renew_parity(&world.repository).unwrap(), 0);
    // Never of a pack that does not verify: that would make the damage last.
    world.memory.lose(&parity[0]);
    let pack = pack_name(PackId::from_hex(parity[0].name()).unwrap());
    world.memory.flip_byte(&pack, 40);
    assert_eq!(renew_parity(&world.repository).unwrap(), 0);
}

#[test]
fn another_packs_parity_heals_nothing_and_harms_nothing() {
    let world = world(100);
    let parity = names(&world.memory, ObjectKind::Parity);
    let bytes: Vec<Vec<u8>> = parity.iter().map(|name| world.memory.read(name, u64::MAX).unwrap()).collect();
    for (number, name) in parity.iter().enumerate() {
        world.memory.overwrite(name, bytes[(number + 1) % bytes.len()].clone());
    }
    check(&world);
    rebuild_index(&world.repository).unwrap();
    check(&world);
}

#[test]
fn nothing_refers_to_a_pack_before_its_parity_is_durable() {
    for mode in [FaultMode::CrashBefore, FaultMode::CrashTorn, FaultMode::CrashAfter] {
        for nth in 1.. {
            let memory = MemoryBackend::new();
            let faults = FaultBackend::new(Arc::new(memory.clone()));
            let repository = with_parity(Arc::new(faults.clone()), 20);
            faults.plan(None, nth, mode);
            let session = Session::begin(&repository);
            let outcome = session.and_then(|session| {
                let id = store(&session, &noise(1, 40_000), None)?;
                commit(&session, "s", &[id])
            });
            let fired = faults.has_fired();
            faults.plan(None, u64::MAX, mode);
            memory.kill_processes();
            let parity = names(&memory, ObjectKind::Parity).len();
            if !names(&memory, ObjectKind::Index).is_empty() {
                assert_eq!(parity, names(&memory, ObjectKind::Pack).len(), "{mode:?} {nth}");
            }
            gc(&open(Arc::new(memory.clone()), 8).unwrap());
            if outcome.is_err() && names(&memory, ObjectKind::Root).is_empty() {
                assert_eq!(names(&memory, ObjectKind::Parity), [], "{mode:?} {nth}: collection takes what was left");
            }
            if !fired {
                assert!(nth > 4);
                break;
            }
        }
    }
}

/// `COPAL_PARITY_MIB=1024` for the figures in `docs/format/parity.md`, in a release build.
#[test]
fn parity_costs_its_share_of_space() {
    let mib = std::env::var("COPAL_PARITY_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(24u64);
    for percent in [0, 5, 10] {
        let memory = MemoryBackend::new();
        let plain = options(CipherSuite::Aes256Gcm);
        let parameters = Parameters { pack_bytes_max: 64 << 20, parity_percent: percent, ..Parameters::default() };
        let options = InitOptions { parameters, ..plain };
        let entropy = Arc::new(SeededEntropy::new(5));
        let repository = Repository::init(Arc::new(memory.clone()), entropy, &key_file(), &options).unwrap();
        let plain: Vec<Vec<u8>> = (0..mib).map(|seed| noise(seed, 1 << 20)).collect();
        let begun = Instant::now();
        let root = snapshot(&repository, "s", &plain);
        let stored = begun.elapsed();
        let bytes = |kind| memory.list(kind).unwrap().iter().map(|object| object.bytes).sum::<u64>();
        let (packs, parity) = (bytes(ObjectKind::Pack), bytes(ObjectKind::Parity));
        let share = parity as f64 / packs as f64;
        let wanted = f64::from(percent) / 100.0;
        assert!(share >= wanted && share <= wanted * 1.02 + if percent > 0 { 0.002 } else { 0.0 }, "{share}");
        for name in names(&memory, ObjectKind::Pack).into_iter().filter(|_| percent > 0) {
            let middle = memory.stat(&name).unwrap().bytes as usize / 2;
            memory.flip_byte(&name, middle);
        }
        let begun = Instant::now();
        assert_eq!(read(&repository, &root).unwrap(), plain);
        println!(
            "{percent}%: {mib} MiB stored in {stored:?}, read back in {:?}, {share:.4} of parity",
            begun.elapsed()
        );
    }
}

/// Stores something the moment it is asked what a root reaches.
struct Meddling<'a>(&'a Repository, AtomicBool);

impl Reachability for Meddling<'_> {
    fn mark_root(&self, root: &RootName, payload: &[u8], marker: &dyn Marker) -> copal_store::Result<()> {
        if !self.1.swap(true, Ordering::Relaxed) {
            snapshot(self.0, "meanwhile", &chunks(100..130));
        }
        Toy.mark_root(root, payload, marker)
    }
}

#[test]
fn what_collection_frees_is_counted_exactly_whatever_others_store_meanwhile() {
    for percent in [0, 10] {
        let memory = MemoryBackend::new();
        let repository = with_parity(Arc::new(memory.clone()), percent);
        snapshot(&repository, "kept", &chunks(0..8));
        let kept = memory.objects();
        let gone = snapshot(&repository, "gone", &chunks(40..60));
        let is_stored = |kind| [ObjectKind::Pack, ObjectKind::Parity].contains(&kind);
        let new = memory.objects().into_iter().filter(|object| is_stored(object.name.kind()) && !kept.contains(object));
        let expected: u64 = new.map(|object| object.bytes).sum();
        repository.delete_roots(&[gone]).unwrap();
        let dry = CollectOptions { dry_run: true, ..CollectOptions::default() };
        assert_eq!(collect(&repository, &Toy, dry).unwrap().bytes_freed, expected);
        let meddling = Meddling(&repository, AtomicBool::new(false));
        let report = collect(&repository, &meddling, CollectOptions::default()).unwrap();
        assert_eq!(report.bytes_freed, expected, "{report:?}");
    }
}
