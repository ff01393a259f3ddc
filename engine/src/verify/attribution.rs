//! Says which snapshots and paths a damage hurts. Runs only when there is damage.

use copal_manifest::content::{FileContent, Piece, Pieces};
use copal_manifest::entry::Node;
use copal_manifest::snapshot::SourceRecord;
use copal_manifest::tree::TreeReader;
use copal_store::session::Session;

use crate::catalogue::Listed;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::verify::Findings;

pub(super) fn name_what_is_hurt(
    context: &Context,
    session: &Session,
    snapshots: &[&Listed],
    found: &mut Findings,
) -> Result<()> {
    if found.lost.is_empty() {
        return Ok(());
    }
    add_deltas_of_lost_bases(session, snapshots, found)?;
    for listed in snapshots {
        for source in &listed.snapshot.sources {
            context.check_interrupt()?;
            name_in_source(session, &listed.snapshot.name, source, found)?;
        }
    }
    Ok(())
}

fn name_in_source(session: &Session, snapshot: &str, source: &SourceRecord, found: &mut Findings) -> Result<()> {
    found.hurt(&source.tree.id, snapshot, || shown(source, "", "the manifest"));
    for entry in TreeReader::new(session, source.tree).entries() {
        let entry = match entry {
            Ok(entry) => entry,
            // The node is named already; the entries behind it cannot be.
            Err(error) if error.is_integrity() => {
                let lost: Vec<_> = found.lost.keys().copied().collect();
                let message = error.to_string();
                for id in lost.iter().filter(|id| message.contains(&id.to_string())) {
                    found.hurt(id, snapshot, || shown(source, "", "a part of the manifest"));
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if let Node::File(content) = &entry.node {
            name_in_file(session, snapshot, source, &entry.path.to_string(), content, found)?;
        }
    }
    Ok(())
}

fn name_in_file(
    session: &Session,
    snapshot: &str,
    source: &SourceRecord,
    path: &str,
    content: &FileContent,
    found: &mut Findings,
) -> Result<()> {
    if let Pieces::Tree(tree) = &content.pieces {
        found.hurt(&tree.id, snapshot, || shown(source, path, ""));
    }
    for placed in content.pieces(session, 0, content.bytes) {
        match placed {
            Ok(placed) => {
                if let Piece::Chunk { id, .. } = placed.piece {
                    found.hurt(&id, snapshot, || shown(source, path, ""));
                }
            }
            Err(error) if error.is_integrity() => return Ok(()),
            Err(error) => return Err(Error::from(error)),
        }
    }
    Ok(())
}

/// A delta is lost with its base.
fn add_deltas_of_lost_bases(session: &Session, snapshots: &[&Listed], found: &mut Findings) -> Result<()> {
    let mut dependent = Vec::new();
    for source in snapshots.iter().flat_map(|listed| &listed.snapshot.sources) {
        for entry in TreeReader::new(session, source.tree).entries() {
            let Ok(entry) = entry else { break };
            let Node::File(content) = &entry.node else { continue };
            for placed in content.pieces(session, 0, content.bytes) {
                let Ok(placed) = placed else { break };
                let Piece::Chunk { id, .. } = placed.piece else { continue };
                if let Some(base) = session.locate(&id)?.and_then(|location| location.base)
                    && let Some(items) = found.lost.get(&base)
                {
                    dependent.push((id, items.clone()));
                }
            }
        }
    }
    for (id, items) in dependent {
        let costs = found.lost.entry(id).or_default();
        for item in items {
            if !costs.contains(&item) {
                costs.push(item);
            }
        }
    }
    Ok(())
}

fn shown(source: &SourceRecord, path: &str, what: &str) -> String {
    let parts = [source.label.as_str(), path, what];
    let named: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if named.is_empty() { String::from_utf8_lossy(&source.path).into_owned() } else { named.join("/") }
}
