//! The content-defined B-tree (a prolly tree, as in Noms and Dolt): nodes end where a keyed hash of a key says so.
//! (Skeleton of the agreed interface.)

use copal_store::session::ChunkSource;
use copal_store::{ChunkId, Result};

use crate::entry::{Entry, EntryPath};

/// Takes nodes; equal nodes are stored once. `store_node` of a chunk writer is one.
pub trait NodeSink {
    /// Stores a node's bytes and returns its id.
    fn store_node(&mut self, bytes: &[u8]) -> Result<ChunkId>;
}

/// A tree: its top node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct TreeRoot {
    /// The top node.
    pub id: ChunkId,
    /// Levels above the leaves, at most 16.
    pub height: u8,
}

/// Builds the tree of a source's entries.
pub struct TreeBuilder {
    _private: (),
}

impl TreeBuilder {
    /// An empty tree.
    #[must_use]
    pub fn new(_boundary_key: &[u8; 32]) -> Self {
        todo!()
    }
    /// Appends an entry; paths must ascend strictly.
    pub fn push(&mut self, _entry: &Entry, _sink: &mut dyn NodeSink) -> Result<()> {
        todo!()
    }
    /// Ends the tree.
    pub fn finish(self, _sink: &mut dyn NodeSink) -> Result<TreeRoot> {
        todo!()
    }
}

/// Reads a tree of entries.
#[derive(Clone, Copy)]
pub struct TreeReader<'a> {
    #[allow(dead_code)]
    source: &'a dyn ChunkSource,
    #[allow(dead_code)]
    root: TreeRoot,
}

impl<'a> TreeReader<'a> {
    /// A reader; nothing is read yet.
    #[must_use]
    pub fn new(source: &'a dyn ChunkSource, root: TreeRoot) -> Self {
        Self { source, root }
    }
    /// The entry at a path, in O(log n) node reads.
    pub fn get(&self, _path: &EntryPath) -> Result<Option<Entry>> {
        todo!()
    }
    /// Entries in path order from the first at or after `from`.
    pub fn entries_from(&self, _from: &EntryPath) -> EntryIter<'a> {
        todo!()
    }
    /// All entries in path order.
    pub fn entries(&self) -> EntryIter<'a> {
        self.entries_from(&EntryPath::root())
    }
}

/// Entries in path order; at most one node of each level is in memory.
pub struct EntryIter<'a> {
    _source: &'a dyn ChunkSource,
}

impl EntryIter<'_> {
    /// Skips forward to the first entry at or after a path, without reading what lies between.
    pub fn seek(&mut self, _path: &EntryPath) -> Result<()> {
        todo!()
    }
}

impl Iterator for EntryIter<'_> {
    type Item = Result<Entry>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only in the second tree.
    Added(Entry),
    /// Only in the first tree.
    Removed(Entry),
    /// In both, not equal (inode and change time do not count).
    Changed {
        /// In the first tree.
        before: Entry,
        /// In the second tree.
        after: Entry,
    },
}

/// Differences in path order; equal subtrees are skipped unread, so the cost follows the changes.
pub fn diff<'a>(
    _source_a: &'a dyn ChunkSource,
    _a: TreeRoot,
    _source_b: &'a dyn ChunkSource,
    _b: TreeRoot,
) -> Box<dyn Iterator<Item = Result<Change>> + 'a> {
    todo!()
}

/// What a node refers to, for reachability and verification; `depth` 0 is the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Another node of this tree, or the top of a file's piece tree.
    Node {
        /// The node.
        id: ChunkId,
        /// How to read it: pass to [`references`].
        shape: NodeShape,
    },
    /// A data chunk and its length in bytes.
    Chunk(ChunkId, u32),
}

/// What kind of node is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeShape {
    /// Of a tree of entries, at this height.
    Entries(u8),
    /// Of a tree of pieces, at this height.
    Pieces(u8),
}

/// Calls `visit` for every reference of a node's bytes.
pub fn references(_bytes: &[u8], _shape: NodeShape, _visit: &mut dyn FnMut(Reference)) -> Result<()> {
    todo!()
}
