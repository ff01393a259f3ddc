//! Takes lost chunks again from live sources: a chunk is known by the hash of its bytes, wherever they are
//! read.

use std::path::{Path, PathBuf};

use copal_source::read::TreeReader;
use copal_store::location::RecordKind;
use copal_store::session::Reservation;

use crate::context::Context;
use crate::create::store_source;
use crate::error::{Error, Result};
use crate::verify::attribution::LostPiece;

/// Reads lost pieces at their old places below the given paths; returns how many were stored again.
pub(super) fn take_pieces_again(context: &Context, from: &[PathBuf], pieces: &[LostPiece]) -> Result<u64> {
    let session = context.session()?;
    let mut writer = session.writer()?;
    let mut stored = 0;
    for root in from {
        let reader = open(root)?;
        for piece in pieces {
            context.check_interrupt()?;
            let Some(plain) = read(&reader, piece) else { continue };
            if context.repository.keys().chunk_id(&plain) == piece.id
                && session.reserve(&piece.id)? == Reservation::Mine
            {
                writer.store(RecordKind::Data, &piece.id, &plain, None)?;
                stored += 1;
            }
        }
    }
    session.checkpoint()?;
    session.end()?;
    Ok(stored)
}

/// Stores what is below the given paths as a create would, without a root: what moved, and the nodes of the
/// manifests.
pub(super) fn take_everything_again(context: &Context, from: &[PathBuf]) -> Result<u64> {
    let session = context.session()?;
    for root in from {
        store_source(context, &session, root)?;
    }
    session.checkpoint()?;
    let stored = session.counters().chunks_new;
    session.end()?;
    Ok(stored)
}

fn open(root: &Path) -> Result<TreeReader> {
    let root = std::path::absolute(root).map_err(|error| Error::Usage(format!("{}: {error}", root.display())))?;
    Ok(TreeReader::open(&root)?)
}

/// A file that is not there, or not as long, has nothing to give.
fn read(reader: &TreeReader, piece: &LostPiece) -> Option<Vec<u8>> {
    let file = reader.open_file(&piece.path.to_slashes()).ok()?;
    let mut plain = vec![0; piece.bytes as usize];
    let filled = file.read_at(piece.offset, &mut plain).ok()?;
    (filled == plain.len()).then_some(plain)
}
