//! The content of a regular file: a list of pieces, inline when short, a tree of nodes when long.

use std::ops::Range;

use copal_store::session::ChunkSource;
use copal_store::{ChunkId, Error, Result};

use crate::build::Levels;
use crate::node::inner::PieceChild;
use crate::node::{MEMBERS_MAX, MEMBERS_MIN, check_size, is_boundary, pieces};
use crate::piece_cursor::{ChangedPieces, PieceIter};
use crate::total::total;
use crate::tree::{NodeSink, TreeRoot};
use crate::walk::Walk;

/// Most pieces that stand in the entry itself; longer lists are trees.
pub const INLINE_PIECES_MAX: usize = 16;
/// Longest chunk in bytes.
pub const PIECE_BYTES_MAX: u32 = 8 << 20;
/// Longest file in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 62;

/// A run of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A chunk.
    Chunk {
        /// Its id.
        id: ChunkId,
        /// Its length in bytes, 1 to 8 MiB.
        bytes: u32,
    },
    /// Zeros that are not allocated in the source.
    Hole {
        /// Its length in bytes.
        bytes: u64,
    },
}

impl Piece {
    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match *self {
            Self::Chunk { bytes, .. } => u64::from(bytes),
            Self::Hole { bytes } => bytes,
        }
    }
}

/// How a file was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cutting {
    /// One chunk, small enough for a frame.
    Small,
    /// By content.
    Content,
    /// At multiples of a length, in bytes.
    Fixed(u32),
}

/// The content of a regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    /// Length in bytes: the sum of the pieces.
    pub bytes: u64,
    /// How it was cut.
    pub cutting: Cutting,
    /// The pieces.
    pub pieces: Pieces,
}

/// The pieces of a file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// At most [`INLINE_PIECES_MAX`].
    Inline(Vec<Piece>),
    /// A tree of nodes keyed by offset.
    Tree(TreeRoot),
}

/// Builds the list of pieces of one file, in order. Memory: one unfinished node of each level.
pub struct PiecesBuilder {
    leaf: Vec<Piece>,
    levels: Levels<PieceChild>,
    /// The hole at the end, which may still grow.
    hole: u64,
    bytes: u64,
}

impl Default for PiecesBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PiecesBuilder {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        // Piece trees end their nodes by the ids of what is in them, which are keyed hashes: no key is
        // needed.
        Self { leaf: Vec::new(), levels: Levels::new([0; 32]), hole: 0, bytes: 0 }
    }

    /// Appends a piece; neighbouring holes become one. Pieces of no length or of more than
    /// [`PIECE_BYTES_MAX`], and files of more than [`FILE_BYTES_MAX`], are an [`Error::Limit`].
    pub fn push(&mut self, piece: Piece, sink: &mut dyn NodeSink) -> Result<()> {
        let limit = |limit: u64| Error::Limit { what: "a file or a piece of it".into(), limit };
        if piece.bytes() == 0 || matches!(piece, Piece::Chunk { bytes, .. } if bytes > PIECE_BYTES_MAX) {
            return Err(limit(PIECE_BYTES_MAX.into()));
        }
        self.bytes = self.bytes.checked_add(piece.bytes()).ok_or(limit(FILE_BYTES_MAX))?;
        if self.bytes > FILE_BYTES_MAX {
            return Err(limit(FILE_BYTES_MAX));
        }
        match piece {
            Piece::Hole { bytes } => self.hole += bytes,
            Piece::Chunk { .. } => {
                self.end_hole(sink)?;
                self.append(piece, sink)?;
            }
        }
        Ok(())
    }

    fn end_hole(&mut self, sink: &mut dyn NodeSink) -> Result<()> {
        match std::mem::take(&mut self.hole) {
            0 => Ok(()),
            bytes => self.append(Piece::Hole { bytes }, sink),
        }
    }

    /// A leaf ends *before* the piece that would overfill it, so that a short list is seen to be short before
    /// a node is stored.
    fn append(&mut self, piece: Piece, sink: &mut dyn NodeSink) -> Result<()> {
        let ends = match self.leaf.last() {
            Some(Piece::Chunk { id, .. }) => is_boundary(id.as_bytes()) && self.leaf.len() >= MEMBERS_MIN,
            _ => false,
        };
        if ends || self.leaf.len() >= MEMBERS_MAX {
            self.end_leaf(sink)?;
        }
        self.leaf.push(piece);
        Ok(())
    }

    fn end_leaf(&mut self, sink: &mut dyn NodeSink) -> Result<()> {
        let leaf = std::mem::take(&mut self.leaf);
        let node = pieces::encode(&leaf);
        check_size(&node)?;
        let id = sink.store_node(&node)?;
        self.levels.push(PieceChild { bytes: total(leaf.iter().map(Piece::bytes)), id }, sink)
    }

    /// Ends the list.
    pub fn finish(mut self, cutting: Cutting, sink: &mut dyn NodeSink) -> Result<FileContent> {
        self.end_hole(sink)?;
        let bytes = self.bytes;
        if self.levels.is_empty() && self.leaf.len() <= INLINE_PIECES_MAX {
            return Ok(FileContent { bytes, cutting, pieces: Pieces::Inline(self.leaf) });
        }
        if !self.leaf.is_empty() {
            self.end_leaf(sink)?;
        }
        Ok(FileContent { bytes, cutting, pieces: Pieces::Tree(self.levels.finish(sink)?) })
    }
}

/// A piece and the offset at which it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedPiece {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The piece.
    pub piece: Piece,
}

impl FileContent {
    /// The empty file.
    #[must_use]
    pub fn empty() -> Self {
        Self { bytes: 0, cutting: Cutting::Small, pieces: Pieces::Inline(Vec::new()) }
    }

    /// The pieces that overlap `from..to`, in order; nodes are read as the iteration goes. It ends after an
    /// error.
    pub fn pieces<'a>(
        &'a self,
        source: &'a dyn ChunkSource,
        from: u64,
        to: u64,
    ) -> Box<dyn Iterator<Item = Result<PlacedPiece>> + 'a> {
        self.pieces_of_ranges(source, std::iter::once(from..to))
    }

    /// The pieces that overlap any of some ranges, which ascend and do not overlap; each piece comes once. No
    /// node is read twice. It ends after an error.
    pub fn pieces_of_ranges<'a>(
        &'a self,
        source: &'a dyn ChunkSource,
        ranges: impl Iterator<Item = Range<u64>> + 'a,
    ) -> Box<dyn Iterator<Item = Result<PlacedPiece>> + 'a> {
        Box::new(Walk::new(PieceIter::new(self, source, ranges)))
    }

    /// The pieces of `self` that `other` does not have at the same offset; equal subtrees are skipped unread.
    /// It ends after an error.
    pub fn changed_pieces<'a>(
        &'a self,
        other: &'a FileContent,
        source: &'a dyn ChunkSource,
    ) -> Box<dyn Iterator<Item = Result<PlacedPiece>> + 'a> {
        Box::new(Walk::new(ChangedPieces::new(self, other, source)))
    }
}
