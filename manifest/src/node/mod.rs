//! Nodes of trees, as bytes. Decoding is total, bounded by the bytes given, and accepts one spelling only.
//!
//! Every node begins with its format version, its shape, its height and the number of its members; then the
//! members stand column by column, so that what is alike lies together for compression.
//! `docs/format/manifest-node.md` has the table.

pub(crate) mod columns;
pub(crate) mod entries;
pub(crate) mod inner;
pub(crate) mod pieces;

use copal_store::{ChunkId, Error, Result};

use crate::tree::{HEIGHT_MAX, NodeShape};
use columns::{Column, Decoded, Malformed, Reader};

/// Version of the nodes written here.
const NODE_VERSION: u8 = 1;
/// A node ends at the first boundary after so many members.
pub(crate) const MEMBERS_MIN: usize = 32;
/// A node ends after so many members, boundary or not.
pub(crate) const MEMBERS_MAX: usize = 1024;
/// A node ends when so many bytes are in it, before compression.
pub(crate) const NODE_BYTES_SOFT: usize = 256 << 10;
/// No node is larger: one entry with all its attributes fits.
pub(crate) const NODE_BYTES_MAX: usize = 8 << 20;
/// One member in so many ends a node.
const BOUNDARY_ONE_IN: u32 = 256;

/// Whether a hash says that a node ends here.
pub(crate) fn is_boundary(hash: &[u8; 32]) -> bool {
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]).is_multiple_of(BOUNDARY_ONE_IN)
}

fn shape_byte(shape: NodeShape) -> (u8, u8) {
    match shape {
        NodeShape::Entries(height) => (b'E', height),
        NodeShape::Pieces(height) => (b'P', height),
    }
}

/// The beginning of a node.
fn header(shape: NodeShape, members: usize) -> Column {
    let (kind, height) = shape_byte(shape);
    let mut column = Column::default();
    column.raw(&[NODE_VERSION, kind, height]);
    column.number(members as u64);
    column
}

/// Checks the beginning of a node and returns the number of its members.
fn open<'b>(bytes: &'b [u8], shape: NodeShape) -> Decoded<(Reader<'b>, usize)> {
    if bytes.len() > NODE_BYTES_MAX {
        return Err(Malformed("it is too large"));
    }
    let mut reader = Reader::new(bytes);
    if reader.byte()? != NODE_VERSION {
        return Err(Malformed("its version is unknown"));
    }
    let (kind, height) = (reader.byte()?, reader.byte()?);
    if (kind, height) != shape_byte(shape) || height > HEIGHT_MAX {
        return Err(Malformed("it is of another shape than its parent says"));
    }
    let members = reader.number_to(MEMBERS_MAX as u64)? as usize;
    if members == 0 && height > 0 {
        return Err(Malformed("it has no children"));
    }
    Ok((reader, members))
}

/// The error of a node that does not decode. A node of a newer version is no damage.
pub(crate) fn damaged(id: &ChunkId, bytes: &[u8], malformed: Malformed) -> Error {
    match bytes.first() {
        Some(&version) if version > NODE_VERSION => Error::Unsupported {
            what: format!("manifest node {id}"),
            found: version.into(),
            supported: NODE_VERSION.into(),
        },
        _ => Error::damaged(format!("manifest node {id}"), malformed.0),
    }
}

/// Refuses to write a node that nobody could read.
pub(crate) fn check_size(bytes: &[u8]) -> Result<()> {
    if bytes.len() > NODE_BYTES_MAX {
        return Err(Error::Limit { what: "an entry with its attributes".into(), limit: NODE_BYTES_MAX as u64 });
    }
    Ok(())
}
