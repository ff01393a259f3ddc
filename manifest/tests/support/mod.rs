//! A store of nodes in memory that counts what is read, and entries made from seeds.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use copal_manifest::content::{Cutting, FileContent, Piece, PiecesBuilder};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp, Xattr};
use copal_manifest::tree::{NodeSink, TreeBuilder, TreeRoot};
use copal_store::session::ChunkSource;
use copal_store::{ChunkId, Error, Result};

pub(crate) const BOUNDARY_KEY: [u8; 32] = [7; 32];

#[derive(Default)]
pub(crate) struct Nodes {
    nodes: Mutex<HashMap<ChunkId, Vec<u8>>>,
    pub(crate) reads: AtomicUsize,
}

impl Nodes {
    pub(crate) fn reads_of<T>(&self, act: impl FnOnce() -> T) -> (T, usize) {
        let before = self.reads.load(Ordering::SeqCst);
        let value = act();
        (value, self.reads.load(Ordering::SeqCst) - before)
    }
    pub(crate) fn count(&self) -> usize {
        self.nodes.lock().unwrap().len()
    }
    pub(crate) fn all(&self) -> Vec<(ChunkId, Vec<u8>)> {
        self.nodes.lock().unwrap().iter().map(|(id, bytes)| (*id, bytes.clone())).collect()
    }
    pub(crate) fn replace(&self, id: ChunkId, bytes: Vec<u8>) {
        self.nodes.lock().unwrap().insert(id, bytes);
    }
    pub(crate) fn remove(&self, id: &ChunkId) {
        self.nodes.lock().unwrap().remove(id);
    }
}

impl ChunkSource for Nodes {
    fn read_chunk(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.nodes.lock().unwrap().get(id).cloned().ok_or_else(|| Error::Missing { object: id.to_string() })
    }
}

impl NodeSink for &Nodes {
    fn store_node(&mut self, bytes: &[u8]) -> Result<ChunkId> {
        let id = ChunkId(*blake3::keyed_hash(&[9; 32], bytes).as_bytes());
        self.nodes.lock().unwrap().insert(id, bytes.to_vec());
        Ok(id)
    }
}

pub(crate) fn path(text: &str) -> EntryPath {
    EntryPath::from_slashes(text.as_bytes()).unwrap()
}

pub(crate) fn chunk(number: u64) -> Piece {
    Piece::Chunk { id: ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes()), bytes: 65536 }
}

/// A regular file whose content and metadata follow from a number.
pub(crate) fn file(name: &str, version: u64) -> Entry {
    let piece = Piece::Chunk { id: ChunkId(*blake3::hash(&version.to_le_bytes()).as_bytes()), bytes: 100 };
    let content = FileContent {
        bytes: 100,
        cutting: Cutting::Small,
        pieces: copal_manifest::content::Pieces::Inline(vec![piece]),
    };
    Entry { path: path(name), metadata: metadata(version), node: Node::File(content) }
}

pub(crate) fn metadata(number: u64) -> Metadata {
    let xattrs = match number % 3 {
        0 => vec![Xattr { name: b"user.kind"[..].into(), value: number.to_le_bytes()[..1].into() }],
        _ => Vec::new(),
    };
    Metadata {
        mode: 0o644,
        uid: 1000,
        gid: (number % 5) as u32,
        modified: Timestamp {
            seconds: 1_700_000_000i64.wrapping_sub(number as i64),
            nanoseconds: (number % 1_000_000_000) as u32,
        },
        changed: Timestamp { seconds: 1_700_000_100, nanoseconds: 5 },
        inode: number.wrapping_mul(7),
        xattrs,
    }
}

pub(crate) fn build(nodes: &Nodes, entries: &[Entry]) -> TreeRoot {
    let mut sink = nodes;
    let mut builder = TreeBuilder::of_loose_entries(&BOUNDARY_KEY);
    for entry in entries {
        builder.push(entry, &mut sink).unwrap();
    }
    builder.finish(&mut sink).unwrap()
}

pub(crate) fn list(nodes: &Nodes, pieces: &[Piece]) -> FileContent {
    let mut sink = nodes;
    let mut builder = PiecesBuilder::new();
    for piece in pieces {
        builder.push(*piece, &mut sink).unwrap();
    }
    builder.finish(Cutting::Content, &mut sink).unwrap()
}
