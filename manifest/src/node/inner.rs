//! Inner nodes: children with their fences.

use copal_store::{ChunkId, Result};

use super::columns::{Column, Decoded, Malformed};
use super::{NODE_BYTES_SOFT, header, is_boundary, open};
use crate::entry::{EntryPath, PATH_BYTES_MAX};
use crate::total::total;
use crate::tree::{NodeShape, NodeSink};

/// A child of a tree of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryChild {
    /// Path of the last entry in it.
    pub(crate) last: EntryPath,
    /// Entries below it.
    pub(crate) entries: u64,
    /// The node.
    pub(crate) id: ChunkId,
}

/// A child of a tree of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PieceChild {
    /// Bytes of the file below it.
    pub(crate) bytes: u64,
    /// The node.
    pub(crate) id: ChunkId,
}

/// What the levels of both kinds of trees have in common.
pub(crate) trait Child: Sized {
    /// What stands for a node of these children.
    fn above(children: &[Self], id: ChunkId) -> Self;
    /// The node's bytes.
    fn encode(children: &[Self], height: u8) -> Vec<u8>;
    /// Stores those bytes.
    fn store(children: &[Self], bytes: &[u8], height: u8, sink: &mut dyn NodeSink) -> Result<ChunkId>;
    /// Whether the node at `height` ends with this child.
    fn ends_node(&self, height: u8, boundary_key: &[u8; 32]) -> bool;
    /// Most bytes it takes in a node.
    fn encoded_bytes_max(&self) -> usize;
    /// The node that it stands for.
    fn id(&self) -> ChunkId;
}

impl Child for EntryChild {
    fn above(children: &[Self], id: ChunkId) -> Self {
        let last = children.last().map(|child| child.last.clone()).unwrap_or_default();
        Self { last, entries: total(children.iter().map(|child| child.entries)), id }
    }
    fn encode(children: &[Self], height: u8) -> Vec<u8> {
        let mut node = header(NodeShape::Entries(height), children.len());
        let (mut shared_lengths, mut suffix_lengths, mut suffixes) = <(Column, Column, Column)>::default();
        let mut before: &[u8] = &[];
        for child in children {
            let shared = shared_prefix(before, child.last.key());
            shared_lengths.number(shared as u64);
            suffix_lengths.number((child.last.key().len() - shared) as u64);
            suffixes.raw(&child.last.key()[shared..]);
            before = child.last.key();
        }
        for column in [shared_lengths, suffix_lengths, suffixes] {
            node.raw(column.bytes());
        }
        children.iter().for_each(|child| node.number(child.entries));
        children.iter().for_each(|child| node.raw(child.id.as_bytes()));
        node.into_bytes()
    }
    fn store(children: &[Self], bytes: &[u8], height: u8, sink: &mut dyn NodeSink) -> Result<ChunkId> {
        match children.last() {
            Some(child) => sink.store_entries(bytes, height, &child.last),
            None => sink.store_node(bytes),
        }
    }
    fn ends_node(&self, height: u8, boundary_key: &[u8; 32]) -> bool {
        is_boundary(&entry_hash(boundary_key, height, &self.last))
    }
    fn encoded_bytes_max(&self) -> usize {
        self.last.key().len() + ChunkId::LEN + 16
    }
    fn id(&self) -> ChunkId {
        self.id
    }
}

/// The hash that decides whether a node at `height` ends after a path: of another value on each level.
pub(crate) fn entry_hash(boundary_key: &[u8; 32], height: u8, path: &EntryPath) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(boundary_key);
    hasher.update(&[height]).update(path.key());
    *hasher.finalize().as_bytes()
}

/// Bytes that two keys have in common at their beginning.
pub(crate) fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// Rebuilds strictly ascending paths from the columns of prefix lengths, suffix lengths and suffixes.
pub(crate) fn decode_paths(reader: &mut super::columns::Reader<'_>, count: usize) -> Decoded<Vec<EntryPath>> {
    let shared = reader.numbers(count)?;
    let suffix_lengths = reader.numbers(count)?;
    let mut paths: Vec<EntryPath> = Vec::with_capacity(count);
    for (shared, suffix_bytes) in shared.into_iter().zip(suffix_lengths) {
        if shared > PATH_BYTES_MAX as u64 || suffix_bytes > PATH_BYTES_MAX as u64 {
            return Err(Malformed("a path is too long"));
        }
        let suffix = reader.raw(suffix_bytes as usize)?;
        let before = paths.last().map_or(&[][..], EntryPath::key);
        let prefix = before.get(..shared as usize).ok_or(Malformed("a path shares more than there is"))?;
        let key = [prefix, suffix].concat();
        if !paths.is_empty() && key.as_slice() <= before {
            return Err(Malformed("its paths do not ascend"));
        }
        if shared_prefix(before, &key) != prefix.len() {
            return Err(Malformed("a path is not in its shortest form"));
        }
        paths.push(EntryPath::from_key(key).ok_or(Malformed("a path is none"))?);
    }
    Ok(paths)
}

/// Decodes an inner node of entries.
pub(crate) fn decode_entry_children(bytes: &[u8], height: u8) -> Decoded<Vec<EntryChild>> {
    let (mut reader, count) = open(bytes, NodeShape::Entries(height))?;
    let paths = decode_paths(&mut reader, count)?;
    let entries = reader.numbers(count)?;
    let children = paths
        .into_iter()
        .zip(entries)
        .map(|(last, entries)| Ok(EntryChild { last, entries, id: reader.id()? }))
        .collect::<Decoded<_>>()?;
    reader.end()?;
    Ok(children)
}

impl Child for PieceChild {
    fn above(children: &[Self], id: ChunkId) -> Self {
        Self { bytes: total(children.iter().map(|child| child.bytes)), id }
    }
    fn encode(children: &[Self], height: u8) -> Vec<u8> {
        let mut node = header(NodeShape::Pieces(height), children.len());
        children.iter().for_each(|child| node.number(child.bytes));
        children.iter().for_each(|child| node.raw(child.id.as_bytes()));
        node.into_bytes()
    }
    /// By the child's own id, a keyed hash already: a list that moves within its file keeps its nodes.
    fn store(_: &[Self], bytes: &[u8], _: u8, sink: &mut dyn NodeSink) -> Result<ChunkId> {
        sink.store_node(bytes)
    }
    fn ends_node(&self, _height: u8, _boundary_key: &[u8; 32]) -> bool {
        is_boundary(self.id.as_bytes())
    }
    fn encoded_bytes_max(&self) -> usize {
        ChunkId::LEN + 10
    }
    fn id(&self) -> ChunkId {
        self.id
    }
}

/// Decodes an inner node of pieces.
pub(crate) fn decode_piece_children(bytes: &[u8], height: u8) -> Decoded<Vec<PieceChild>> {
    let (mut reader, count) = open(bytes, NodeShape::Pieces(height))?;
    let lengths = reader.numbers(count)?;
    let mut total = 0u64;
    let children = lengths
        .into_iter()
        .map(|bytes| {
            total = total.checked_add(bytes).filter(|_| bytes > 0).ok_or(Malformed("its lengths do not add up"))?;
            Ok(PieceChild { bytes, id: reader.id()? })
        })
        .collect::<Decoded<_>>()?;
    reader.end()?;
    Ok(children)
}

/// Whether a node of so many bytes ends here.
pub(crate) fn is_full(encoded_bytes: usize) -> bool {
    encoded_bytes >= NODE_BYTES_SOFT
}
