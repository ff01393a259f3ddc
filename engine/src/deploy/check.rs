//! What is checked before the first byte is written: every chunk that will be read is located, and there is
//! room.

use copal_manifest::content::{FileContent, Piece};
use copal_manifest::entry::Node;

use super::desired::Desired;
use super::fetch::locate;
use super::place::Place;
use super::plan::{Action, Plan, Range};
use super::run::Run;
use crate::error::{Error, Result};

/// What will be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// Every file.
    Everything,
    /// What the plan creates, and ranges of what it patches.
    Changes,
    /// Every file that the plan names, whole.
    ChangedFiles,
}

/// Locates all that will be fetched; returns its bytes.
pub(super) fn locate_all(run: &Run<'_>, desired: &Desired<'_>, plan: &Plan, fetched: Fetched) -> Result<u64> {
    let mut bytes = 0_u64;
    if fetched == Fetched::Everything {
        for item in desired.items() {
            run.context.check_interrupt()?;
            if let Node::File(content) = item?.entry.node {
                bytes = bytes.saturating_add(locate_ranges(desired, &content, &[Range::whole(content.bytes)])?);
            }
        }
        return Ok(bytes);
    }
    for change in &plan.changes {
        run.context.check_interrupt()?;
        let read_again;
        let node = match (&change.entry, &change.action) {
            (_, Action::Remove) => continue,
            (Some(entry), _) => &entry.node,
            (None, _) => {
                read_again = desired.get(&change.path)?;
                let Some(item) = &read_again else { continue };
                &item.entry.node
            }
        };
        let Node::File(content) = node else { continue };
        bytes += match (&change.action, fetched) {
            (Action::Metadata, Fetched::Changes) => 0,
            (Action::Patch { ranges, .. }, Fetched::Changes) => locate_ranges(desired, content, ranges)?,
            _ => locate_ranges(desired, content, &[Range::whole(content.bytes)])?,
        };
    }
    Ok(bytes)
}

fn locate_ranges(desired: &Desired<'_>, content: &FileContent, ranges: &[Range]) -> Result<u64> {
    let mut located = 0;
    for placed in content.pieces_of_ranges(desired.session(), ranges.iter().map(|range| range.offset..range.end())) {
        if let Piece::Chunk { id, bytes } = placed?.piece {
            locate(desired.session(), &id)?;
            located += u64::from(bytes);
        }
    }
    Ok(located)
}

/// Whether so many bytes can be written.
pub(super) fn room(place: &Place, free: u64, needed: u64) -> Result<()> {
    if needed > free {
        return Err(Error::NoSpace { place: place.path.clone(), free, needed });
    }
    Ok(())
}
