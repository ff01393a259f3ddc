//! Which chunk of the parent's file is likely to be like a new one, the base of its delta, and whether trying
//! pays.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use copal_manifest::content::{Cutting, FileContent, Piece, PlacedPiece};
use copal_store::ChunkId;
use copal_store::session::ChunkSource;

/// Pieces of the parent that are looked at before and behind an extent, in bytes: shifts up to this are
/// followed at once.
const MARGIN_BYTES: u64 = 2 << 20;
/// After so many deltas in a row that did not pay, most attempts are left out.
const FRUITLESS_MAX: u32 = 8;
/// One attempt in so many is still made then.
const PROBE_ONE_IN: u32 = 8;

/// What the parent has where an extent is read.
pub struct Bases {
    pieces: Vec<PlacedPiece>,
    /// Where each chunk stands among the pieces.
    places: HashMap<ChunkId, usize>,
    /// Of content cuts: the piece that should come next.
    next: usize,
    by_offset: bool,
    payoff: Arc<Payoff>,
}

/// Whether deltas have paid lately. Shared by who chooses bases and who tries them.
#[derive(Debug, Default)]
pub struct Payoff(AtomicU32);

impl Payoff {
    /// Whether a delta should be tried at all.
    pub(crate) fn is_worth_trying(&self) -> bool {
        let fruitless = self.0.load(Ordering::Relaxed);
        fruitless < FRUITLESS_MAX || fruitless.is_multiple_of(PROBE_ONE_IN) || {
            self.0.fetch_add(1, Ordering::Relaxed);
            false
        }
    }

    /// How the last attempt went.
    pub(crate) fn tried(&self, paid: bool) {
        if paid {
            self.0.store(0, Ordering::Relaxed);
        } else {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is known of a chunk before the index is asked.
pub enum Likeness {
    /// The parent has this very chunk.
    Same,
    /// The parent has this one in its place.
    Like(ChunkId),
    /// Nothing.
    None,
}

impl Bases {
    /// No parent.
    pub(crate) fn none() -> Self {
        Self { pieces: Vec::new(), places: HashMap::new(), next: 0, by_offset: false, payoff: Arc::default() }
    }

    /// The parent's pieces around an extent. A parent that cannot be read is none.
    pub(crate) fn around(parent: Option<&FileContent>, source: &dyn ChunkSource, from: u64, to: u64) -> Self {
        let Some(content) = parent else { return Self::none() };
        let by_offset = matches!(content.cutting, Cutting::Fixed(_));
        let margin = if by_offset { 0 } else { MARGIN_BYTES };
        let (first, end) = (from.saturating_sub(margin), to.saturating_add(margin));
        let pieces: Vec<PlacedPiece> = content.pieces(source, first, end).map_while(Result::ok).collect();
        let places = pieces
            .iter()
            .enumerate()
            .filter_map(|(place, piece)| match piece.piece {
                Piece::Chunk { id, .. } => Some((id, place)),
                Piece::Hole { .. } => None,
            })
            .collect();
        let next = pieces.partition_point(|piece| piece.offset + piece.piece.bytes() <= from);
        Self { pieces, places, next, by_offset, payoff: Arc::default() }
    }

    /// What the parent has for the chunk at `offset`; chunks are asked for in order.
    pub(crate) fn of(&mut self, offset: u64, id: &ChunkId) -> Likeness {
        if let Some(place) = self.places.get(id) {
            self.next = place + 1;
            return Likeness::Same;
        }
        let place = if self.by_offset {
            self.pieces.partition_point(|piece| piece.offset + piece.piece.bytes() <= offset)
        } else {
            self.next += 1;
            self.next - 1
        };
        match self.pieces.get(place) {
            Some(PlacedPiece { piece: Piece::Chunk { id, .. }, .. }) => Likeness::Like(*id),
            _ => Likeness::None,
        }
    }

    /// Whether deltas against these have paid.
    pub(crate) fn payoff(&self) -> &Arc<Payoff> {
        &self.payoff
    }
}
