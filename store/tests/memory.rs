//! Goal: memory does not grow with the number of chunks (C6). Method: a repository of many chunks is written,
//! found again and collected while this process, which does nothing else, watches its own peak memory.
//! `COPAL_LONG=1` does it with a million chunks.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use copal_store::ChunkId;
use copal_store::collect::{CollectOptions, collect, merge_index};
use copal_store::local::LocalBackend;
use copal_store::repository::Repository;
use copal_store::session::{ChunkSource, Reservation, Session};
use support::{Toy, commit, init};

/// Peak memory of this process in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Chunks of one frame.
const FRAME: u64 = 1000;

fn store_many(repository: &Repository, from: u64, count: u64) -> Vec<ChunkId> {
    let session = Session::begin(repository).unwrap();
    let mut writer = session.writer().unwrap();
    let mut firsts = Vec::new();
    for frame in from / FRAME..(from + count) / FRAME {
        let plain: Vec<u8> = (0..FRAME).flat_map(|number| (frame * FRAME + number).to_le_bytes()).collect();
        let mut members = Vec::new();
        for chunk in plain.chunks(8) {
            let id = repository.keys().chunk_id(chunk);
            assert_eq!(session.reserve(&id).unwrap(), Reservation::Mine);
            members.push((id, 8));
        }
        firsts.push(members[0].0);
        writer.store_frame(&members, &plain).unwrap();
    }
    commit(&session, &format!("from {from}"), &firsts).unwrap();
    session.end().unwrap();
    merge_index(repository).unwrap();
    firsts
}

#[test]
fn memory_is_bounded_with_many_chunks() {
    let long = std::env::var_os("COPAL_LONG").is_some();
    let count: u64 = if long { 1_000_000 } else { 200_000 };
    // What waits for a checkpoint (256 Ki chunks at most), one merge, caches of fixed size; beyond that one
    // bit an entry for marking.
    let limit: u64 = if long { 256 << 20 } else { 96 << 20 };
    let folder = tempfile::tempdir().unwrap();
    let repository = init(Arc::new(LocalBackend::new(&folder.path().join("repository"))), 1);
    let before = peak();
    let mut firsts = Vec::new();
    for part in 0..4 {
        firsts.extend(store_many(&repository, part * count / 4, count / 4));
    }
    let stored = peak() - before;
    let session = Session::begin(&repository).unwrap();
    for number in (0..count).step_by(97) {
        let id = repository.keys().chunk_id(&number.to_le_bytes());
        assert_eq!(session.reserve(&id).unwrap(), Reservation::Known, "chunk {number} is found again");
    }
    assert_eq!(session.read_chunk(&firsts[1]).unwrap(), FRAME.to_le_bytes());
    session.end().unwrap();
    let looked_up = peak() - before;
    // One chunk in a thousand is reached, and what a deleted snapshot alone reached goes: the index forgets
    // it.
    repository.delete_roots(&repository.roots().unwrap()[..1]).unwrap();
    let report = collect(&repository, &Toy, CollectOptions::default()).unwrap();
    assert!(report.packs_removed > 0, "{report:?}");
    let collected = peak() - before;
    println!("{count} chunks: {stored} bytes to store, {looked_up} to look up, {collected} to collect");
    assert!(
        collected < limit,
        "{count} chunks: {stored} bytes to store, {looked_up} to look up, {collected} to collect"
    );
}
