//! Walks the pieces of files, from left to right, with their offsets.

use std::ops::Range;

use copal_store::session::ChunkSource;
use copal_store::{ChunkId, Error, Result};

use crate::content::{FileContent, Piece, Pieces, PlacedPiece};
use crate::node::inner::decode_piece_children;
use crate::node::{damaged, pieces};
use crate::total::total;
use crate::walk::Advance;

/// What stands at a place.
#[derive(Clone, Copy)]
enum Front {
    Node { id: ChunkId, height: u8, bytes: u64 },
    Piece(Piece),
    End,
}

impl Front {
    fn bytes(self) -> u64 {
        match self {
            Self::Node { bytes, .. } => bytes,
            Self::Piece(piece) => piece.bytes(),
            Self::End => 0,
        }
    }
}

/// A place in a list of pieces.
struct Cursor<'a> {
    source: &'a dyn ChunkSource,
    offset: u64,
    /// What is to come, the next last.
    ahead: Vec<Front>,
}

impl<'a> Cursor<'a> {
    fn new(content: &FileContent, source: &'a dyn ChunkSource) -> Self {
        let ahead = match &content.pieces {
            Pieces::Inline(list) => list.iter().rev().map(|piece| Front::Piece(*piece)).collect(),
            Pieces::Tree(tree) => vec![Front::Node { id: tree.id, height: tree.height, bytes: content.bytes }],
        };
        Self { source, offset: 0, ahead }
    }

    fn front(&self) -> Front {
        self.ahead.last().copied().unwrap_or(Front::End)
    }

    /// Where the front ends.
    fn front_end(&self) -> u64 {
        self.offset.saturating_add(self.front().bytes())
    }

    fn skip(&mut self) {
        self.offset = self.front_end();
        self.ahead.pop();
    }

    /// Replaces a node at the front by what is in it. The lengths must add up to what its parent said.
    fn open(&mut self) -> Result<()> {
        let Front::Node { id, height, bytes } = self.front() else { return Ok(()) };
        let node = self.source.read_chunk(&id)?;
        let malformed = |malformed| damaged(&id, &node, malformed);
        let inside: Vec<Front> = if height == 0 {
            pieces::decode(&node).map_err(malformed)?.into_iter().map(Front::Piece).collect()
        } else {
            let children = decode_piece_children(&node, height).map_err(malformed)?;
            children
                .into_iter()
                .map(|child| Front::Node { id: child.id, height: height - 1, bytes: child.bytes })
                .collect()
        };
        if total(inside.iter().map(|front| front.bytes())) != bytes {
            return Err(Error::damaged(format!("manifest node {id}"), "its length is not what its parent says"));
        }
        self.ahead.pop();
        self.ahead.extend(inside.into_iter().rev());
        Ok(())
    }
}

/// The pieces that overlap ranges.
pub(crate) struct PieceIter<'a, R> {
    cursor: Cursor<'a>,
    range: Range<u64>,
    /// Those to come, ascending.
    ranges: R,
}

impl<'a, R: Iterator<Item = Range<u64>>> PieceIter<'a, R> {
    pub(crate) fn new(content: &FileContent, source: &'a dyn ChunkSource, ranges: R) -> Self {
        Self { cursor: Cursor::new(content, source), range: 0..0, ranges }
    }
}

impl<R: Iterator<Item = Range<u64>>> Advance for PieceIter<'_, R> {
    type Item = PlacedPiece;

    fn advance(&mut self) -> Result<Option<PlacedPiece>> {
        loop {
            let offset = self.cursor.offset;
            if offset >= self.range.end {
                match self.ranges.next() {
                    Some(range) => self.range = range,
                    None => return Ok(None),
                }
                continue;
            }
            match self.cursor.front() {
                Front::End => return Ok(None),
                _ if self.cursor.front_end() <= self.range.start => self.cursor.skip(),
                Front::Node { .. } => self.cursor.open()?,
                Front::Piece(piece) => {
                    self.cursor.skip();
                    return Ok(Some(PlacedPiece { offset, piece }));
                }
            }
        }
    }
}

/// The pieces of one content that another does not have at the same offset.
pub(crate) struct ChangedPieces<'a> {
    new: Cursor<'a>,
    old: Cursor<'a>,
}

impl<'a> ChangedPieces<'a> {
    pub(crate) fn new(new: &FileContent, old: &FileContent, source: &'a dyn ChunkSource) -> Self {
        Self { new: Cursor::new(new, source), old: Cursor::new(old, source) }
    }
}

impl Advance for ChangedPieces<'_> {
    type Item = PlacedPiece;

    fn advance(&mut self) -> Result<Option<PlacedPiece>> {
        loop {
            // What the old one has before this place matches nothing any more.
            while !matches!(self.old.front(), Front::End) && self.old.front_end() <= self.new.offset {
                self.old.skip();
            }
            let aligned = self.new.offset == self.old.offset;
            match (self.new.front(), self.old.front()) {
                (Front::End, _) => return Ok(None),
                (Front::Node { id, height, .. }, Front::Node { id: old_id, height: old_height, .. }) => {
                    if aligned && (id, height) == (old_id, old_height) {
                        self.new.skip();
                        self.old.skip();
                    } else if height > old_height || (height == old_height && self.old.offset > self.new.offset) {
                        self.new.open()?;
                    } else if height == old_height && aligned {
                        self.new.open()?;
                        self.old.open()?;
                    } else {
                        self.old.open()?;
                    }
                }
                (Front::Node { .. }, _) => self.new.open()?,
                (Front::Piece(_), Front::Node { .. }) if self.old.offset <= self.new.offset => self.old.open()?,
                (Front::Piece(piece), old) => {
                    let offset = self.new.offset;
                    self.new.skip();
                    if !(aligned && matches!(old, Front::Piece(old) if old == piece)) {
                        return Ok(Some(PlacedPiece { offset, piece }));
                    }
                }
            }
        }
    }
}
