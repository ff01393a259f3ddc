//! Walks the manifests: every node opens, every entry has its folder, every chunk a place. Nodes that
//! snapshots share are read once.

use std::collections::HashSet;

use copal_manifest::tree::{Reference, references};
use copal_store::session::{ChunkSource, Session};
use copal_store::{ChunkId, Error as StoreError, PackId};

use crate::catalogue::Listed;
use crate::context::Context;
use crate::error::Result;
use crate::verify::findings::Findings;
use crate::verify::folders::Folders;
use crate::walk::PendingNode;

/// What the walk learned.
pub(super) struct Structure {
    /// Packs that hold what the snapshots reach, bases of deltas included.
    pub(super) packs: HashSet<PackId>,
}

pub(super) fn check(
    context: &Context,
    session: &Session,
    snapshots: &[&Listed],
    found: &mut Findings,
) -> Result<Structure> {
    let mut seen: HashSet<PendingNode> = HashSet::new();
    let mut packs = HashSet::new();
    let mut folders = Folders::default();
    for listed in snapshots {
        let tops = listed.snapshot.sources.iter().map(|source| PendingNode::top(source.tree));
        let mut pending: Vec<PendingNode> = tops.filter(|top| seen.insert(*top)).collect();
        while let Some(node) = pending.pop() {
            context.check_interrupt()?;
            let mut below = Vec::new();
            let read = session.read_chunk(&node.id).and_then(|bytes| {
                references(&bytes, node.shape, &mut |reference| below.push(reference))?;
                folders.learn(node, &bytes, &below)
            });
            match read {
                Ok(()) => note_packs(session, &node.id, &mut packs)?,
                Err(error) if tells_of_the_chunk(&error) => found.lose(session, "node", &node.id, &error)?,
                Err(error) => return Err(error.into()),
            }
            let mut chunks = Vec::new();
            for reference in below {
                match reference {
                    Reference::Node { id, shape } => {
                        let child = PendingNode { id, shape };
                        if seen.insert(child) {
                            pending.push(child);
                        }
                    }
                    Reference::Chunk(id, bytes) => chunks.push((id, bytes)),
                }
            }
            for (id, bytes) in chunks {
                let wrong = match session.locate(&id) {
                    Ok(Some(location)) if location.bytes == bytes => None,
                    // A deploy goes by the manifest, and finds it at another place.
                    Ok(Some(_)) if session.read_chunk(&id).is_ok_and(|plain| plain.len() == bytes as usize) => None,
                    Ok(Some(location)) => Some(StoreError::damaged(
                        format!("chunk {id}"),
                        format!("{} bytes are stored, the manifest says {bytes}", location.bytes),
                    )),
                    Ok(None) => Some(StoreError::Missing { object: format!("chunk {id}") }),
                    Err(error) if tells_of_the_chunk(&error) => Some(error),
                    Err(error) => return Err(error.into()),
                };
                match wrong {
                    None => note_packs(session, &id, &mut packs)?,
                    Some(error) => found.lose(session, "chunk", &id, &error)?,
                }
            }
        }
    }
    folders.judge(snapshots, found);
    Ok(Structure { packs })
}

/// Whether others may still be verified.
fn tells_of_the_chunk(error: &StoreError) -> bool {
    error.is_integrity() || error.is_unsupported()
}

/// What does not read, or has no place, is named where it is met.
fn note_packs(session: &Session, id: &ChunkId, packs: &mut HashSet<PackId>) -> Result<()> {
    let place = |id: &ChunkId| match session.locate(id) {
        Err(error) if tells_of_the_chunk(&error) => Ok(None),
        location => location,
    };
    if let Some(location) = place(id)? {
        packs.insert(location.pack);
        if let Some(base) = location.base
            && let Some(base) = place(&base)?
        {
            packs.insert(base.pack);
        }
    }
    Ok(())
}
