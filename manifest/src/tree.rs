//! The content-defined B-tree of a source's entries: nodes end where a keyed hash of a path says so (a prolly
//! tree, as in Noms and Dolt). The same entries give the same tree, however they came about, and a change
//! rewrites only the nodes above it.

use copal_store::session::{ChunkSource, ChunkWriter};
use copal_store::{ChunkId, Error, Result};

use crate::build::Levels;
use crate::content::{Piece, Pieces};
use crate::cursor::{Cursor, Front};
use crate::entry::{Entry, EntryPath, Node};
use crate::folders::OpenFolders;
use crate::node::columns::Malformed;
use crate::node::inner::{EntryChild, decode_entry_children, decode_piece_children, entry_hash, is_full};
use crate::node::{MEMBERS_MAX, MEMBERS_MIN, check_size, entries, is_boundary, pieces};
use crate::walk::{Advance, Walk};

pub use crate::diff::{Change, diff};
pub use crate::folders::Outline;

/// Most levels above the leaves.
pub const HEIGHT_MAX: u8 = 16;

/// Takes nodes; equal nodes are stored once.
pub trait NodeSink {
    /// Stores a node's bytes and returns its id.
    fn store_node(&mut self, bytes: &[u8]) -> Result<ChunkId>;

    /// The same for a node of entries: at a height, the last of them at a path.
    fn store_entries(&mut self, bytes: &[u8], height: u8, last: &EntryPath) -> Result<ChunkId> {
        let _ = (height, last);
        self.store_node(bytes)
    }
}

impl NodeSink for ChunkWriter<'_> {
    fn store_node(&mut self, bytes: &[u8]) -> Result<ChunkId> {
        ChunkWriter::store_node(self, bytes, || None)
    }
}

/// A tree: its top node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct TreeRoot {
    /// The top node.
    pub id: ChunkId,
    /// Levels above the leaves, at most [`HEIGHT_MAX`].
    pub height: u8,
}

/// Builds the tree of a source's entries. Memory: one unfinished node of each level.
pub struct TreeBuilder {
    leaf: entries::Leaf,
    levels: Levels<EntryChild>,
    last: Option<EntryPath>,
    /// `None`: of loose entries.
    folders: Option<OpenFolders>,
}

impl TreeBuilder {
    /// An empty tree, whose boundaries the key decides.
    #[must_use]
    pub fn new(boundary_key: &[u8; 32]) -> Self {
        Self { folders: Some(OpenFolders::default()), ..Self::of_loose_entries(boundary_key) }
    }

    /// The same of entries that need no folders: of trees by themselves, which are never deployed.
    #[must_use]
    pub fn of_loose_entries(boundary_key: &[u8; 32]) -> Self {
        Self { leaf: entries::Leaf::default(), levels: Levels::new(*boundary_key), last: None, folders: None }
    }

    /// Appends an entry; paths must ascend strictly, and folders come before what stands in them. An entry
    /// that no reader would take is an [`Error::Limit`].
    pub fn push(&mut self, entry: &Entry, sink: &mut dyn NodeSink) -> Result<()> {
        let unwritable = match &self.last {
            Some(last) if *last >= entry.path => Some("its path does not follow the one before"),
            _ if self.folders.as_ref().is_some_and(|folders| !folders.hold(&entry.path)) => {
                Some("the folder that holds it is missing")
            }
            _ => entries::why_unwritable(entry),
        };
        if let Some(why) = unwritable {
            return Err(Error::Limit { what: format!("the entry {}: {why}, which", entry.path), limit: 0 });
        }
        self.leaf.push(entry);
        self.last = Some(entry.path.clone());
        if let Some(folders) = &mut self.folders {
            folders.enter(entry);
        }
        let members = self.leaf.count();
        let boundary = is_boundary(&entry_hash(self.levels.boundary_key(), 0, &entry.path));
        if members >= MEMBERS_MAX || is_full(self.leaf.bytes()) || (boundary && members >= MEMBERS_MIN) {
            self.end_leaf(sink)?;
        }
        Ok(())
    }

    fn end_leaf(&mut self, sink: &mut dyn NodeSink) -> Result<()> {
        let leaf = std::mem::take(&mut self.leaf);
        let (last, entries) = (leaf.last().clone(), leaf.count() as u64);
        let bytes = leaf.into_bytes();
        check_size(&bytes)?;
        let id = sink.store_entries(&bytes, 0, &last)?;
        self.levels.push(EntryChild { last, entries, id }, sink)
    }

    /// Ends the tree.
    pub fn finish(mut self, sink: &mut dyn NodeSink) -> Result<TreeRoot> {
        if self.leaf.count() > 0 || self.levels.is_empty() {
            self.end_leaf(sink)?;
        }
        self.levels.finish(sink)
    }
}

/// Reads a tree of entries.
#[derive(Clone, Copy)]
pub struct TreeReader<'a> {
    source: &'a dyn ChunkSource,
    root: TreeRoot,
}

impl<'a> TreeReader<'a> {
    /// A reader; nothing is read yet.
    #[must_use]
    pub fn new(source: &'a dyn ChunkSource, root: TreeRoot) -> Self {
        Self { source, root }
    }

    /// The entry at a path, in O(log n) node reads.
    pub fn get(&self, path: &EntryPath) -> Result<Option<Entry>> {
        match self.entries_from(path).next() {
            Some(Ok(entry)) if entry.path == *path => Ok(Some(entry)),
            Some(Err(error)) => Err(error),
            _ => Ok(None),
        }
    }

    /// Entries in path order from the first at or after `from`.
    #[must_use]
    pub fn entries_from(&self, from: &EntryPath) -> EntryIter<'a> {
        let start = (!from.is_root()).then(|| from.clone());
        EntryIter { walk: Walk::new(Entries { cursor: Cursor::new(self.source, self.root), start }) }
    }

    /// All entries in path order.
    #[must_use]
    pub fn entries(&self) -> EntryIter<'a> {
        self.entries_from(&EntryPath::root())
    }
}

/// Entries in path order; at most one node of each level is in memory. It ends after an error.
pub struct EntryIter<'a> {
    walk: Walk<Entries<'a>>,
}

struct Entries<'a> {
    cursor: Cursor<'a>,
    start: Option<EntryPath>,
}

impl EntryIter<'_> {
    /// Skips forward to the first entry at or after a path, without reading what lies between.
    pub fn seek(&mut self, path: &EntryPath) -> Result<()> {
        self.walk.inner.start = None;
        self.walk.inner.cursor.seek(path)
    }
}

impl Advance for Entries<'_> {
    type Item = Entry;

    fn advance(&mut self) -> Result<Option<Entry>> {
        if let Some(start) = self.start.take() {
            self.cursor.seek(&start)?;
        }
        loop {
            match self.cursor.front() {
                Front::Entry(_) => return Ok(self.cursor.take_entry()),
                Front::Node { .. } => self.cursor.open_node()?,
                Front::End => return Ok(None),
            }
        }
    }
}

impl Iterator for EntryIter<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next()
    }
}

/// What a node refers to, for reachability and verification.
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
pub fn references(bytes: &[u8], shape: NodeShape, visit: &mut dyn FnMut(Reference)) -> Result<()> {
    let malformed = |Malformed(detail)| Error::damaged("a manifest node", detail);
    match shape {
        NodeShape::Pieces(0) => visit_pieces(&pieces::decode(bytes).map_err(malformed)?, visit),
        NodeShape::Pieces(height) => {
            for child in decode_piece_children(bytes, height).map_err(malformed)? {
                visit(Reference::Node { id: child.id, shape: NodeShape::Pieces(height - 1) });
            }
        }
        NodeShape::Entries(0) => {
            for entry in entries::decode(bytes).map_err(malformed)? {
                let Node::File(content) = entry.node else { continue };
                match content.pieces {
                    Pieces::Inline(list) => visit_pieces(&list, visit),
                    Pieces::Tree(tree) => visit(Reference::Node { id: tree.id, shape: NodeShape::Pieces(tree.height) }),
                }
            }
        }
        NodeShape::Entries(height) => {
            for child in decode_entry_children(bytes, height).map_err(malformed)? {
                visit(Reference::Node { id: child.id, shape: NodeShape::Entries(height - 1) });
            }
        }
    }
    Ok(())
}

fn visit_pieces(list: &[Piece], visit: &mut dyn FnMut(Reference)) {
    for piece in list {
        if let Piece::Chunk { id, bytes } = piece {
            visit(Reference::Chunk(*id, *bytes));
        }
    }
}
