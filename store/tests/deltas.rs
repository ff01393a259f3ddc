//! Goal: a delta that counts as stored can be decoded, whatever collection did to its base, and wherever else
//! its base or it stands. Method: toy snapshots in a memory disk; the order of creates, removals, collections
//! and merges that once lost data.
#![allow(clippy::unwrap_used)]

mod support;

use copal_sim::noise;
use copal_store::backend::ObjectKind;
use copal_store::collect::merge_index;
use copal_store::location::Encoding;
use copal_store::repository::{Repository, RootName};
use copal_store::session::Session;
use support::{changed, check_packs, chunks, commit, count, gc, in_memory, read, snapshot, store};

/// A snapshot of a base; then one of a delta against it and of so much else that its pack stays when only the
/// else is kept.
fn delta_among_others(repository: &Repository) -> (RootName, RootName, RootName) {
    let base = noise(500, 60_000);
    let first = snapshot(repository, "base", std::slice::from_ref(&base));
    let session = Session::begin(repository).unwrap();
    let delta = store(&session, &changed(&base, 100), Some(&base)).unwrap();
    let others: Vec<_> = chunks(0..20).iter().map(|plain| store(&session, plain, None).unwrap()).collect();
    let second = commit(&session, "delta", &[delta]).unwrap();
    let root = support::new_root(repository, "others");
    let payload: Vec<u8> = others.iter().flat_map(|id| id.0).collect();
    session.seal_packs().unwrap().sync().unwrap().publish_index().unwrap().publish_root(root, &payload).unwrap();
    session.end().unwrap();
    let session = Session::begin(repository).unwrap();
    assert_eq!(session.locate(&delta).unwrap().unwrap().encoding, Encoding::Delta);
    session.end().unwrap();
    (first, second, root)
}

#[test]
fn a_delta_whose_base_was_collected_is_stored_again() {
    let (_, repository) = in_memory(1);
    let (first, second, others) = delta_among_others(&repository);
    repository.delete_roots(&[first, second]).unwrap();
    assert!(gc(&repository).packs_removed > 0);
    let delta = changed(&noise(500, 60_000), 100);
    let session = Session::begin(&repository).unwrap();
    let id = repository.keys().chunk_id(&delta);
    assert!(!session.contains(&id).unwrap() && session.locate(&id).unwrap().is_none());
    session.end().unwrap();
    assert_eq!(check_packs(&repository).damaged, [], "a dead delta without its base is no damage");
    let again = snapshot(&repository, "again", std::slice::from_ref(&delta));
    assert_eq!(read(&repository, &again).unwrap(), [delta]);
    gc(&repository);
    assert_eq!(read(&repository, &again).unwrap().len(), 1);
    assert_eq!(read(&repository, &others).unwrap(), chunks(0..20));
    assert_eq!(check_packs(&repository).damaged, []);
}

#[test]
fn a_delta_whose_base_is_condemned_is_stored_again() {
    let (_, repository) = in_memory(2);
    let (first, second, others) = delta_among_others(&repository);
    let witness = Session::begin(&repository).unwrap();
    repository.delete_roots(&[first, second]).unwrap();
    assert!(gc(&repository).packs_waiting > 0);
    let creator = Session::begin(&repository).unwrap();
    let delta = changed(&noise(500, 60_000), 100);
    let id = store(&creator, &delta, None).unwrap();
    assert_eq!(creator.counters().chunks_new, 1);
    witness.end().unwrap();
    assert!(gc(&repository).packs_removed > 0);
    let again = commit(&creator, "again", &[id]).unwrap();
    creator.end().unwrap();
    gc(&repository);
    assert_eq!(read(&repository, &again).unwrap(), [delta]);
    assert_eq!(read(&repository, &others).unwrap(), chunks(0..20));
}

#[test]
fn a_base_that_was_stored_again_as_a_delta_stays_a_base() {
    let (_, repository) = in_memory(3);
    let base = noise(500, 60_000);
    let near = changed(&base, 50_000);
    let (first, second, others) = delta_among_others(&repository);
    let earlier = Session::begin(&repository).unwrap();
    assert!(earlier.locate(&repository.keys().chunk_id(&base)).unwrap().is_some());
    repository.delete_roots(&[first, second]).unwrap();
    assert!(gc(&repository).packs_waiting > 0, "the base is condemned");

    // A session that knows so stores the base anew, as a delta of something else.
    let later = Session::begin(&repository).unwrap();
    let near_id = store(&later, &near, None).unwrap();
    later.checkpoint().unwrap();
    let base_id = store(&later, &base, Some(&near)).unwrap();
    let third = commit(&later, "third", &[near_id, base_id]).unwrap();
    assert_eq!(later.counters().deltas_new, 1);
    later.end().unwrap();

    // The session that does not know reuses the old delta, whose base must then be pardoned.
    let delta = changed(&base, 100);
    let id = store(&earlier, &delta, None).unwrap();
    assert_eq!(earlier.counters().chunks_new, 0);
    let fourth = commit(&earlier, "fourth", &[id]).unwrap();
    earlier.end().unwrap();
    let check = |what: &str| {
        assert_eq!(read(&repository, &fourth).expect(what), std::slice::from_ref(&delta));
        assert_eq!(read(&repository, &third).expect(what), [near.clone(), base.clone()]);
        assert_eq!(read(&repository, &others).expect(what), chunks(0..20));
        assert_eq!(check_packs(&repository).damaged, [], "{what}");
    };
    check("before the merge");
    for number in 0..8 {
        snapshot(&repository, &format!("s{number}"), &chunks(1000 + number..1001 + number));
    }
    assert!(merge_index(&repository).unwrap() >= 8);
    check("after the merge");
    gc(&repository);
    check("after the collection");
    gc(&repository);
    assert_eq!(count(&repository, ObjectKind::Condemned), 0);
    check("after another collection");
    copal_store::check::rebuild_index(&repository).unwrap();
    check("after the index was made again");
}

#[test]
fn a_chunk_that_stands_whole_beside_a_dead_delta_is_found_whole() {
    let (_, repository) = in_memory(4);
    let (first, second, _) = delta_among_others(&repository);
    repository.delete_roots(&[first, second]).unwrap();
    gc(&repository);
    let delta = changed(&noise(500, 60_000), 100);
    let again = snapshot(&repository, "again", std::slice::from_ref(&delta));
    for number in 0..8 {
        snapshot(&repository, &format!("s{number}"), &chunks(1000 + number..1001 + number));
    }
    merge_index(&repository).unwrap();
    for _ in 0..2 {
        assert_eq!(read(&repository, &again).unwrap(), std::slice::from_ref(&delta));
        gc(&repository);
    }
}
