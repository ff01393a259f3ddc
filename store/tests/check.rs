//! Goal: what can be made again is made again: the index from the packs, a pack's records without its
//! trailer, the configuration from its copy, a way out of a sentence that does not open; and what only one
//! object knew is absent without taking anything else along. Method: a repository in memory, objects of which
//! are spoilt one at a time.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use copal_sim::MemoryBackend;
use copal_store::Error;
use copal_store::backend::{Backend, ObjectKind, ObjectName};
use copal_store::check::{
    check_index, check_small_objects, lift_unreadable_sentences, packs, rebuild_index, restore_config,
};
use copal_store::collect::{CollectOptions, collect};
use copal_store::config::{config_name, config_names};
use copal_store::repository::{Repository, RootName};
use copal_store::session::{ChunkSource, Session};
use support::{Toy, changed, check_packs, chunks, commit, count, gc, in_memory, init, open, read, snapshot, store};

fn names(memory: &MemoryBackend, kind: ObjectKind) -> Vec<ObjectName> {
    memory.list(kind).unwrap().into_iter().map(|object| object.name).collect()
}

/// Changes the byte in the middle.
fn spoil(memory: &MemoryBackend, name: &ObjectName) {
    let middle = memory.stat(name).unwrap().bytes as usize / 2;
    memory.flip_byte(name, middle);
}

/// Two snapshots with packs and fragments of their own.
struct Two {
    memory: MemoryBackend,
    repository: Repository,
    first: RootName,
    second: RootName,
    /// The fragment of the first.
    fragment: ObjectName,
}

fn two() -> Two {
    let (memory, repository) = in_memory(1);
    let first = snapshot(&repository, "first", &chunks(0..5));
    let fragment = names(&memory, ObjectKind::Index).remove(0);
    let second = snapshot(&repository, "second", &chunks(10..15));
    Two { memory, repository, first, second, fragment }
}

#[test]
fn a_damaged_fragment_hides_only_what_it_alone_knew() {
    for in_directory in [false, true] {
        let two = two();
        let at = if in_directory { two.memory.stat(&two.fragment).unwrap().bytes - 100 } else { 40 };
        two.memory.flip_byte(&two.fragment, at as usize);
        assert_eq!(read(&two.repository, &two.second).unwrap(), chunks(10..15));
        let error = read(&two.repository, &two.first).unwrap_err();
        assert!(error.is_integrity() && error.to_string().contains("index/"), "{error}");
        assert_eq!(check_index(&two.repository).unwrap().len(), 1);
        let session = Session::begin(&two.repository).unwrap();
        // Stored again, because nobody knows where they are.
        store(&session, &chunks(0..1)[0], None).unwrap();
        assert_eq!(session.counters().chunks_new, 1);
        session.end().unwrap();
        let before = two.memory.list(ObjectKind::Pack).unwrap();
        assert!(collect(&two.repository, &Toy, CollectOptions::default()).unwrap_err().is_integrity());
        assert_eq!(two.memory.list(ObjectKind::Pack).unwrap(), before);
        assert_eq!(rebuild_index(&two.repository).unwrap(), 10);
        assert_eq!(check_index(&two.repository).unwrap(), []);
        assert_eq!(read(&two.repository, &two.first).unwrap(), chunks(0..5));
    }
}

#[test]
fn a_lost_index_is_made_again_from_the_packs() {
    let two = two();
    let session = Session::begin(&two.repository).unwrap();
    let base = &chunks(0..1)[0];
    let delta = store(&session, &changed(base, 17), Some(base)).unwrap();
    assert_eq!(session.counters().deltas_new, 1);
    let third = commit(&session, "third", &[delta]).unwrap();
    session.end().unwrap();
    for name in names(&two.memory, ObjectKind::Index) {
        two.memory.lose(&name);
    }
    assert!(matches!(read(&two.repository, &two.first), Err(Error::Missing { .. })));
    assert_eq!(rebuild_index(&two.repository).unwrap(), 11);
    for (root, expected) in [(&two.first, chunks(0..5)), (&two.second, chunks(10..15))] {
        assert_eq!(read(&two.repository, root).unwrap(), expected);
    }
    assert_eq!(read(&two.repository, &third).unwrap(), [changed(base, 17)]);
    assert_eq!(check_packs(&two.repository).damaged, []);
}

#[test]
fn records_are_saved_from_a_pack_without_trailer() {
    let two = two();
    for pack in packs(&two.repository).unwrap() {
        let name = copal_store::pack::pack_name(pack);
        let end = two.memory.stat(&name).unwrap().bytes as usize;
        two.memory.flip_byte(&name, end - 5);
    }
    let damaged = check_packs(&two.repository).damaged;
    assert!(!damaged.is_empty() && damaged.iter().all(|damage| damage.kind == "pack"), "{damaged:?}");
    assert_eq!(rebuild_index(&two.repository).unwrap(), 10);
    assert_eq!(check_packs(&two.repository).damaged, [], "nothing reads the damaged packs any more");
    assert_eq!(read(&two.repository, &two.first).unwrap(), chunks(0..5));
    assert_eq!(read(&two.repository, &two.second).unwrap(), chunks(10..15));
    let before = packs(&two.repository).unwrap().len();
    gc(&two.repository);
    assert!(packs(&two.repository).unwrap().len() < before, "and collection removes them");
    assert_eq!(read(&two.repository, &two.first).unwrap(), chunks(0..5));
}

#[test]
fn a_sentence_that_does_not_open_stops_nothing() {
    for suffix in ["", "-sessions"] {
        let two = two();
        let witness = Session::begin(&two.repository).unwrap();
        two.repository.delete_roots(&[two.second]).unwrap();
        assert!(gc(&two.repository).packs_waiting > 0);
        drop(witness);
        let sentence = names(&two.memory, ObjectKind::Condemned)
            .into_iter()
            .find(|name| name.name().ends_with("-sessions") != suffix.is_empty())
            .unwrap();
        spoil(&two.memory, &sentence);
        assert_eq!(read(&two.repository, &two.first).unwrap(), chunks(0..5));
        // What nobody can read condemns nothing: whoever may read it some day waits for this session.
        let session = Session::begin(&two.repository).unwrap();
        store(&session, &chunks(10..11)[0], None).unwrap();
        assert_eq!(session.counters().chunks_new == 0, suffix.is_empty());
        drop(session);
        assert_eq!(check_small_objects(&two.repository).unwrap().len(), 1);
        let report = gc(&two.repository);
        assert!(report.sentences_unread == u64::from(suffix.is_empty()) && report.packs_removed > 0, "{report:?}");
        // The list is for older programs, and goes with its sentence.
        let lifted: Vec<String> = suffix.is_empty().then(|| sentence.to_string()).into_iter().collect();
        assert_eq!(lift_unreadable_sentences(&two.repository).unwrap(), lifted);
        assert_eq!(check_small_objects(&two.repository).unwrap(), []);
        gc(&two.repository);
        assert_eq!(count(&two.repository, ObjectKind::Condemned), 0);
        assert_eq!(read(&two.repository, &two.first).unwrap(), chunks(0..5));
        assert_eq!(check_packs(&two.repository).chunks, 5, "what was condemned went in the end");
    }
}

#[test]
fn either_configuration_opens_the_repository_and_makes_the_other_again() {
    for name in config_names() {
        for missing in [false, true] {
            let two = two();
            if missing {
                two.memory.lose(&name)
            } else {
                spoil(&two.memory, &name)
            }
            let repository = open(Arc::new(two.memory.clone()), 2).unwrap();
            assert_eq!(read(&repository, &two.first).unwrap(), chunks(0..5));
            let damaged = check_small_objects(&repository).unwrap();
            assert_eq!(damaged.is_empty(), missing && name != config_name(), "{damaged:?}");
            assert_eq!(restore_config(&repository).unwrap(), [name.to_string()]);
            assert_eq!(restore_config(&repository).unwrap(), [""; 0]);
            let bytes = config_names().map(|name| two.memory.read(&name, 1 << 16).unwrap());
            assert_eq!(bytes[0], bytes[1]);
        }
    }
    let two = two();
    for name in config_names() {
        two.memory.flip_byte(&name, two.memory.stat(&name).unwrap().bytes as usize - 1);
    }
    // The owners' list of keys has it as well, as long as one of the two says the repository's id.
    let repository = open(Arc::new(two.memory.clone()), 2).unwrap();
    assert_eq!(read(&repository, &two.first).unwrap(), chunks(0..5));
    assert_eq!(check_small_objects(&repository).unwrap().len(), 2);
    assert_eq!(restore_config(&repository).unwrap(), config_names().map(|name| name.to_string()));
    assert_eq!(check_small_objects(&repository).unwrap(), []);
    for name in config_names() {
        two.memory.flip_byte(&name, 20);
    }
    assert!(open(Arc::new(two.memory.clone()), 2).unwrap_err().is_integrity());
    // That of another repository is none.
    let other = MemoryBackend::new();
    init(Arc::new(other.clone()), 77);
    for name in config_names() {
        two.memory.overwrite(&name, other.read(&name, 1 << 16).unwrap());
    }
    assert!(open(Arc::new(two.memory.clone()), 2).unwrap_err().is_integrity());
    config_names().iter().for_each(|name| two.memory.lose(name));
    assert!(matches!(open(Arc::new(two.memory.clone()), 2), Err(Error::NotARepository { .. })));
}

#[test]
fn what_stands_in_a_missing_pack_is_named_and_counts_as_absent() {
    let two = two();
    let session = Session::begin(&two.repository).unwrap();
    let id = two.repository.keys().chunk_id(&chunks(0..1)[0]);
    let pack = session.locate(&id).unwrap().unwrap().pack;
    assert_eq!(session.lost_pack(&id).unwrap(), None);
    session.end().unwrap();
    two.memory.lose(&copal_store::pack::pack_name(pack));
    let session = Session::begin(&two.repository).unwrap();
    assert_eq!(session.lost_pack(&id).unwrap(), Some(pack));
    assert!(!session.contains(&id).unwrap());
    assert!(session.read_chunk(&id).is_err());
}
