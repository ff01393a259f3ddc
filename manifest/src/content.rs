//! The content of a regular file: a list of pieces, inline when short, a tree of nodes when long.

use copal_store::session::ChunkSource;
use copal_store::{ChunkId, Result};

use crate::tree::{NodeSink, TreeRoot};

/// Most pieces that stand in the entry itself; longer lists are trees.
pub const INLINE_PIECES_MAX: usize = 16;

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

/// Builds the list of pieces of one file, in order, with bounded memory.
pub struct PiecesBuilder {
    _private: (),
}

impl PiecesBuilder {
    /// An empty list.
    #[must_use]
    pub fn new(_boundary_key: &[u8; 32]) -> Self {
        todo!()
    }
    /// Appends a piece; neighbouring holes become one.
    pub fn push(&mut self, _piece: Piece, _sink: &mut dyn NodeSink) -> Result<()> {
        todo!()
    }
    /// Ends the list.
    pub fn finish(self, _cutting: Cutting, _sink: &mut dyn NodeSink) -> Result<FileContent> {
        todo!()
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
    /// The pieces that overlap `from..to`, in order; nodes are read as the iteration goes.
    pub fn pieces<'a>(
        &'a self,
        _source: &'a dyn ChunkSource,
        _from: u64,
        _to: u64,
    ) -> Box<dyn Iterator<Item = Result<PlacedPiece>> + 'a> {
        todo!()
    }
    /// Ranges in which two contents differ by chunk id, at equal offsets: equal subtrees are skipped unread.
    /// Each item is a piece of `self` that `other` does not have at the same offset.
    pub fn changed_pieces<'a>(
        &'a self,
        _other: &'a FileContent,
        _source: &'a dyn ChunkSource,
    ) -> Box<dyn Iterator<Item = Result<PlacedPiece>> + 'a> {
        todo!()
    }
}
