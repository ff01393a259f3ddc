//! Goal: whoever reads or writes is not disturbed by whoever maintains the index. Method: a session that
//! opened the index before others merged it away; two sessions that publish and merge in turn.
#![allow(clippy::unwrap_used)]

mod support;

use copal_store::backend::ObjectKind;
use copal_store::check::{check_pack, packs, rebuild_index};
use copal_store::collect::merge_index;
use copal_store::session::{ChunkSource, Session};
use support::{chunks, commit, count, gc, in_memory, read, snapshot, store};

#[test]
fn a_session_outlives_the_fragments_that_it_opened() {
    for maintain in ["merge", "collect", "rebuild"] {
        let (_, repository) = in_memory(7);
        let all = chunks(0..30);
        for (number, chunk) in all.iter().enumerate() {
            snapshot(&repository, &format!("s{number}"), std::slice::from_ref(chunk));
        }
        let session = Session::begin(&repository).unwrap();
        // The directories are read with the first lookup, the blocks not before they are needed.
        assert!(session.locate(&repository.keys().chunk_id(b"absent")).unwrap().is_none());
        let before = count(&repository, ObjectKind::Index);
        match maintain {
            "merge" => drop(merge_index(&repository).unwrap()),
            "collect" => drop(gc(&repository)),
            _ => drop(rebuild_index(&repository).unwrap()),
        }
        assert!(count(&repository, ObjectKind::Index) < before, "{maintain} leaves the index as it was");
        for chunk in &all {
            let id = repository.keys().chunk_id(chunk);
            assert!(session.contains(&id).unwrap(), "after {maintain}");
            assert_eq!(&session.read_chunk(&id).unwrap(), chunk, "after {maintain}");
        }
        for pack in packs(&repository).unwrap() {
            assert_eq!(check_pack(&session, pack).unwrap().damaged, []);
        }
        session.end().unwrap();
    }
}

#[test]
fn many_publish_and_merge_at_once() {
    let (_, repository) = in_memory(8);
    let roots: Vec<_> = std::thread::scope(|scope| {
        let work = |writer: u64| {
            let repository = &repository;
            move || {
                let mut roots = Vec::new();
                for round in 0..25u64 {
                    let session = Session::begin(repository).unwrap();
                    let own = chunks(writer * 1000 + round..writer * 1000 + round + 2);
                    // One of the two was stored by the round before.
                    let ids: Vec<_> = own.iter().map(|chunk| store(&session, chunk, None).unwrap()).collect();
                    assert_eq!(session.counters().chunks_new, if round == 0 { 2 } else { 1 });
                    session.checkpoint().unwrap();
                    let root = commit(&session, &format!("{writer}-{round}"), &ids).unwrap();
                    merge_index(repository).unwrap();
                    session.end().unwrap();
                    roots.push((root, own));
                }
                roots
            }
        };
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(work(writer))).collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(roots.len(), 100);
    for (root, chunks) in &roots {
        assert_eq!(&read(&repository, root).unwrap(), chunks);
    }
    assert!(count(&repository, ObjectKind::Index) < 20);
}
