//! Goal: of what a snapshot reaches, a place stays, whichever sentence is carried out first (C5). Method:
//! each race that the swarm or the threads of `concurrency.rs` once found, replayed step by step.
#![allow(clippy::unwrap_used)]

mod support;

use copal_sim::{noise, text};
use copal_store::backend::ObjectKind;
use copal_store::collect::{CollectOptions, Marker, Reachability, collect, merge_index};
use copal_store::repository::{Repository, RootName};
use copal_store::session::Session;
use copal_store::{ChunkId, Result};
use support::{changed, chunks, commit, count, gc, in_memory, new_root, read, snapshot, store};

fn publish(session: &Session, name: &str, ids: &[ChunkId]) -> RootName {
    commit(session, name, ids).unwrap()
}

/// A delta whose base waits in one sentence is rewritten by a second: a third took the copy for dead, because
/// the walk found the first place and stopped there.
#[test]
fn a_copy_of_a_delta_lasts_while_its_base_waits() {
    let (_, repository) = in_memory(3);
    let (base, kept) = (noise(1, 40_000), noise(2, 90_000));
    let delta = changed(&base, 7);
    let witness = Session::begin(&repository).unwrap();
    let of_base = snapshot(&repository, "base", std::slice::from_ref(&base));
    let session = Session::begin(&repository).unwrap();
    let ids = [store(&session, &delta, Some(&base)).unwrap(), store(&session, &kept, None).unwrap()];
    assert_eq!(session.counters().deltas_new, 1);
    let of_both = publish(&session, "both", &ids);
    session.end().unwrap();
    let of_kept = snapshot(&repository, "kept", std::slice::from_ref(&kept));

    let late = Session::begin(&repository).unwrap();
    assert!(late.contains(&ids[0]).unwrap());
    repository.delete_roots(&[of_base, of_both]).unwrap();
    assert_eq!(gc(&repository).packs_waiting, 1, "the base is condemned, the pack of the delta is not");
    let of_delta = publish(&late, "delta", &ids[..1]);
    repository.delete_roots(&[of_kept]).unwrap();
    assert_eq!(gc(&repository).packs_rewritten, 1, "the pack of the delta is rewritten");
    gc(&repository);
    late.end().unwrap();
    witness.end().unwrap();
    gc(&repository);
    gc(&repository);
    assert_eq!(read(&repository, &of_delta).unwrap(), [delta]);
}

/// A pack that no index named yet was condemned beside an older sentence; a merge kept of a chunk's two
/// condemned places the wrong one.
#[test]
fn a_merge_keeps_every_condemned_place() {
    for seed in 1..=8 {
        let (_, repository) = in_memory(seed);
        let chunk = noise(1, 40_000);
        let witness = Session::begin(&repository).unwrap();
        let first = snapshot(&repository, "first", std::slice::from_ref(&chunk));
        let late = Session::begin(&repository).unwrap();
        repository.delete_roots(&[first]).unwrap();
        assert_eq!(gc(&repository).packs_waiting, 1);
        let reached = publish(&late, "reached", &[repository.keys().chunk_id(&chunk)]);
        // Stores the chunk again, and is overtaken by a collection between its packs and its index.
        let again = Session::begin(&repository).unwrap();
        store(&again, &chunk, None).unwrap();
        let packs = again.seal_packs().unwrap().sync().unwrap();
        assert_eq!(gc(&repository).packs_waiting, 2);
        drop(packs.publish_index().unwrap());
        again.end().unwrap();
        for number in 0..12 {
            snapshot(&repository, &format!("filler {number}"), &[text(100 + number, 3000)]);
        }
        assert!(merge_index(&repository).unwrap() > 0);
        late.end().unwrap();
        witness.end().unwrap();
        gc(&repository);
        gc(&repository);
        assert_eq!(read(&repository, &reached).unwrap(), std::slice::from_ref(&chunk), "seed {seed}");
    }
}

/// A root is a node; the node lists what it reaches.
struct Nodes;

impl Reachability for Nodes {
    fn mark_root(&self, _root: &RootName, payload: &[u8], marker: &dyn Marker) -> Result<()> {
        for id in support::ids(payload) {
            if marker.mark_node(&id)? {
                let node = marker.read_node(&id)?;
                support::ids(&node).try_for_each(|id| marker.mark(&id))?;
            }
        }
        Ok(())
    }
}

fn node_of(repository: &Repository, chunks: &[Vec<u8>]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| repository.keys().chunk_id(chunk).0).collect()
}

/// A chunk can be node and content at once, or node and base of another: marked as the one, it still has to
/// be visited as the other.
#[test]
fn a_node_that_was_marked_as_something_else_is_still_visited() {
    let (_, repository) = in_memory(3);
    let all = chunks(0..40);
    let node = node_of(&repository, &all);
    let near = node_of(&repository, &all[1..]);
    let session = Session::begin(&repository).unwrap();
    for chunk in &all {
        store(&session, chunk, None).unwrap();
    }
    let id = session.writer().unwrap().store_node(&node, || None).unwrap();
    session.checkpoint().unwrap();
    // A delta against the node, and a node that lists the first one as if it were a file's content.
    let base = || Some((id, node.clone()));
    let near_id = session.writer().unwrap().store_node(&near, base).unwrap();
    let lists_id = session.writer().unwrap().store_node(&id.0, || None).unwrap();
    let root = new_root(&repository, "root");
    let payload = [near_id.0, lists_id.0, id.0].concat();
    session.seal_packs().unwrap().sync().unwrap().publish_index().unwrap().publish_root(root, &payload).unwrap();
    assert_eq!(session.locate(&near_id).unwrap().unwrap().base, Some(id));
    session.end().unwrap();
    for _ in 0..2 {
        collect(&repository, &Nodes, CollectOptions::default()).unwrap();
    }
    let session = Session::begin(&repository).unwrap();
    for chunk in &all {
        let id = repository.keys().chunk_id(chunk);
        assert!(session.contains(&id).unwrap(), "only the node that was a base and a content reaches the first chunk");
    }
    assert_eq!(count(&repository, ObjectKind::Condemned), 0);
}
