//! Leaves of a file's tree of pieces, and the spelling of one piece.

use copal_store::ChunkId;

use super::columns::{Column, Decoded, Malformed, Reader};
use super::{header, open};
use crate::content::{FILE_BYTES_MAX, PIECE_BYTES_MAX, Piece};
use crate::tree::NodeShape;

/// Appends a piece: its length and whether it is a hole to one column, its id to another.
pub(crate) fn put(piece: &Piece, lengths: &mut Column, ids: &mut Column) {
    match piece {
        Piece::Chunk { id, bytes } => {
            lengths.number(u64::from(*bytes) << 1);
            ids.raw(id.as_bytes());
        }
        Piece::Hole { bytes } => lengths.number(bytes << 1 | 1),
    }
}

/// A piece whose id is still to come.
pub(crate) fn take_length(lengths: &mut Reader<'_>) -> Decoded<Piece> {
    let value = lengths.number()?;
    let bytes = value >> 1;
    match (value & 1, u32::try_from(bytes)) {
        (0, Ok(1..=PIECE_BYTES_MAX)) => Ok(Piece::Chunk { id: ChunkId([0; 32]), bytes: bytes as u32 }),
        (1, _) if (1..=FILE_BYTES_MAX).contains(&bytes) => Ok(Piece::Hole { bytes }),
        _ => Err(Malformed("a piece has an impossible length")),
    }
}

/// Fills in the id.
pub(crate) fn take_id(piece: &mut Piece, ids: &mut Reader<'_>) -> Decoded<()> {
    if let Piece::Chunk { id, .. } = piece {
        *id = ids.id()?;
    }
    Ok(())
}

/// The sum of the lengths; two holes in a row are one hole spelled wrongly.
pub(crate) fn total_bytes(pieces: &[Piece]) -> Decoded<u64> {
    let holes_apart = !pieces.windows(2).any(|pair| matches!(pair, [Piece::Hole { .. }, Piece::Hole { .. }]));
    pieces
        .iter()
        .try_fold(0u64, |sum, piece| sum.checked_add(piece.bytes()))
        .filter(|sum| holes_apart && *sum <= FILE_BYTES_MAX)
        .ok_or(Malformed("its pieces do not add up"))
}

/// The bytes of a leaf.
pub(crate) fn encode(pieces: &[Piece]) -> Vec<u8> {
    let mut node = header(NodeShape::Pieces(0), pieces.len());
    let mut ids = Column::default();
    for piece in pieces {
        put(piece, &mut node, &mut ids);
    }
    node.raw(ids.bytes());
    node.into_bytes()
}

/// Decodes a leaf.
pub(crate) fn decode(bytes: &[u8]) -> Decoded<Vec<Piece>> {
    let (mut reader, count) = open(bytes, NodeShape::Pieces(0))?;
    let mut pieces = (0..count).map(|_| take_length(&mut reader)).collect::<Decoded<Vec<_>>>()?;
    for piece in &mut pieces {
        take_id(piece, &mut reader)?;
    }
    reader.end()?;
    total_bytes(&pieces)?;
    Ok(pieces)
}
