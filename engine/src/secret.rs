//! Secrets that a snapshot carries wrapped by the repository's key.

use copal_manifest::content::{FileContent, Piece};
use copal_store::session::{ChunkSource, Session};

use crate::error::Result;

/// The plaintext of a wrapped secret; `None` for one that is stored as it is.
pub fn unwrapped(session: &Session, content: &FileContent) -> Result<Option<Vec<u8>>> {
    let bytes = read_small(session, content)?;
    match session.repository().unwrap_secret(copal_store::secret::INSTANCE_KEY, &bytes) {
        Ok(secret) => Ok(Some(secret.to_vec())),
        Err(copal_store::Error::Damaged { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A small file's bytes; longer ones are no secrets.
fn read_small(session: &Session, content: &FileContent) -> Result<Vec<u8>> {
    let limit = (copal_store::secret::SECRET_BYTES_MAX + copal_store::secret::WRAPPING_BYTES) as u64;
    let mut bytes = Vec::new();
    if content.bytes > limit {
        return Ok(bytes);
    }
    for placed in content.pieces(session, 0, content.bytes) {
        match placed?.piece {
            Piece::Chunk { id, .. } => bytes.extend(session.read_chunk(&id)?),
            Piece::Hole { bytes: more } => bytes.resize(bytes.len() + more as usize, 0),
        }
    }
    Ok(bytes)
}
