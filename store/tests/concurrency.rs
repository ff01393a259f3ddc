//! Goal: collection beside creates never takes what a committed snapshot reaches (C5). Method: writers,
//! removers and a collector as threads on one memory disk, for many seeds. Writers reuse chunks in every way
//! that a create may: by lookup, from a parent, as bases of deltas; they commit, give up, or die after
//! a checkpoint. Every committed snapshot is read back while all this goes on, and at the end.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use copal_sim::{noise, text};
use copal_store::backend::ObjectKind;
use copal_store::collect::{CollectOptions, collect, merge_index};
use copal_store::repository::{Repository, RootName};
use copal_store::session::{Reservation, Session};
use copal_store::{ChunkId, Error};
use support::{Toy, changed, check_packs, commit, count, gc, ids, in_memory, read, store};

const WRITERS: u64 = 4;
const ROUNDS: u64 = 14;
const SEEDS: u64 = 12;
/// Different contents in the world: few, so that writers meet.
const CONTENTS: u64 = 48;

/// SplitMix64, as a stream of choices.
struct Choices(u64);

impl Choices {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// Content `number`: every third is near the one before, so that it becomes a delta where that one is known.
fn content(number: u64) -> (Vec<u8>, Option<Vec<u8>>) {
    if number % 3 == 2 {
        let base = content(number - 1).0;
        (changed(&base, number as usize), Some(base))
    } else if number % 3 == 1 {
        (noise(number + 1, 20_000 + 977 * number as usize), None)
    } else {
        (text(number + 1, 3000 + 611 * number as usize), None)
    }
}

struct World {
    repository: Repository,
    /// Committed and not removed.
    alive: Mutex<BTreeMap<RootName, Vec<ChunkId>>>,
    writing: AtomicU64,
    failed: AtomicBool,
}

impl World {
    fn alive(&self) -> BTreeMap<RootName, Vec<ChunkId>> {
        self.alive.lock().unwrap().clone()
    }

    /// Every chunk of a snapshot that nobody removed meanwhile reads back; the store checks the bytes against
    /// the id.
    fn check(&self, root: &RootName, what: &str) {
        if let Err(error) = read(&self.repository, root) {
            assert!(!self.alive().contains_key(root), "{what}: snapshot {} was lost: {error}", root.snapshot);
        }
    }

    fn write(&self, writer: u64, choices: &mut Choices) {
        for round in 0..ROUNDS {
            let session = Session::begin(&self.repository).unwrap();
            let mut chosen = Vec::new();
            let parent = session.roots().get(choices.below(8) as usize).copied();
            if let Some(parent) = parent {
                self.reuse(&session, &parent, choices, &mut chosen);
            }
            self.store_some(&session, choices, &mut chosen);
            if choices.one_in(6) {
                session.checkpoint().unwrap();
                self.store_some(&session, choices, &mut chosen);
            }
            if choices.one_in(6) {
                // Gives up; what was checkpointed may be found by others, or collected.
                drop(session);
                continue;
            }
            let root = commit(&session, &format!("{writer}-{round}"), &chosen).unwrap();
            self.alive.lock().unwrap().insert(root, chosen);
            session.end().unwrap();
            self.check(&root, "right after its commit");
            if choices.one_in(3) {
                merge_index(&self.repository).unwrap();
            }
            if choices.one_in(2) {
                self.remove_one(choices);
            }
            if let Some(root) = self.alive().keys().nth(choices.below(10) as usize) {
                self.check(root, "some time after its commit");
            }
        }
    }

    /// As a create reuses its parent: each chunk is looked up.
    fn reuse(&self, session: &Session, parent: &RootName, choices: &mut Choices, chosen: &mut Vec<ChunkId>) {
        let payload = match self.repository.read_root(parent) {
            Ok(payload) => payload,
            Err(Error::Missing { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        for id in ids(&payload) {
            if choices.one_in(2) && session.contains(&id).unwrap() {
                chosen.push(id);
            }
        }
    }

    fn store_some(&self, session: &Session, choices: &mut Choices, chosen: &mut Vec<ChunkId>) {
        for _ in 0..choices.below(8) {
            let (plain, base) = content(choices.below(CONTENTS));
            chosen.push(store(session, &plain, base.as_deref()).unwrap());
        }
        if choices.one_in(2) {
            let small: Vec<Vec<u8>> = (0..6).map(|_| text(1000 + choices.below(30), 300)).collect();
            let keys = self.repository.keys();
            let mut members = Vec::new();
            let mut plain = Vec::new();
            for chunk in &small {
                let id = keys.chunk_id(chunk);
                if session.reserve(&id).unwrap() == Reservation::Mine {
                    members.push((id, chunk.len() as u32));
                    plain.extend_from_slice(chunk);
                }
                chosen.push(id);
            }
            if !members.is_empty() {
                session.writer().unwrap().store_frame(&members, &plain).unwrap();
            }
        }
    }

    fn remove_one(&self, choices: &mut Choices) {
        let root = self.alive().keys().nth(choices.below(6) as usize).copied();
        if let Some(root) = root
            && self.alive.lock().unwrap().remove(&root).is_some()
        {
            self.repository.delete_roots(&[root]).unwrap();
        }
    }

    fn collect_until_done(&self) -> u64 {
        let mut removed = 0;
        while self.writing.load(Ordering::Acquire) > 0 {
            match collect(&self.repository, &Toy, CollectOptions::default()) {
                Ok(report) => removed += report.packs_removed,
                // A writer merges the index.
                Err(Error::Busy { .. }) => std::thread::yield_now(),
                Err(error) => panic!("collection beside writers: {error}"),
            }
        }
        removed
    }
}

/// Tells the collector that a writer is done, also when it panicked.
struct Done<'a>(&'a World);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.failed.fetch_or(std::thread::panicking(), Ordering::Relaxed);
        self.0.writing.fetch_sub(1, Ordering::Release);
    }
}

/// One world; returns how many packs went while it was written to.
fn check(seed: u64) -> u64 {
    let (_, repository) = in_memory(seed);
    let world = World { repository, alive: Mutex::default(), writing: WRITERS.into(), failed: false.into() };
    let removed = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let world = &world;
            scope.spawn(move || {
                let _done = Done(world);
                world.write(writer, &mut Choices(seed * 100 + writer));
            });
        }
        world.collect_until_done()
    });
    assert!(!world.failed.load(Ordering::Relaxed));
    let verify = |what: &str| {
        for (root, chosen) in world.alive() {
            assert_eq!(read(&world.repository, &root).expect(what).len(), chosen.len());
        }
        assert_eq!(check_packs(&world.repository).damaged, [], "{what}");
    };
    verify("when all writers are done");
    gc(&world.repository);
    gc(&world.repository);
    verify("after two more collections");
    assert_eq!(count(&world.repository, ObjectKind::Condemned), 0);
    assert_eq!(count(&world.repository, ObjectKind::Session), 0);
    assert_eq!(count(&world.repository, ObjectKind::Lease), 0);
    let roots: Vec<RootName> = world.alive().into_keys().collect();
    world.repository.delete_roots(&roots).unwrap();
    gc(&world.repository);
    assert_eq!(count(&world.repository, ObjectKind::Pack), 0, "what nothing reaches goes");
    assert_eq!(count(&world.repository, ObjectKind::Index), 0);
    removed
}

#[test]
fn c05_collection_beside_writers_takes_nothing_that_is_reached() {
    // Longer by hand: `COPAL_SEEDS=1000`.
    let seeds = std::env::var("COPAL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let removed: u64 = (1..=seeds).map(check).sum();
    assert!(removed > seeds * 4, "collection had little to take: {removed} packs");
}
