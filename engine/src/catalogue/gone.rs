//! Snapshots that this machine has seen and that are there no more.
//!
//! A deletion leaves no record in the repository, so nobody can tell another machine's deletion from a root
//! that a disk or a hand lost. What can be known is that this machine did not delete it: its own deletions
//! are forgotten at once. What is gone stays in the cache until a verification has told it.

use std::collections::BTreeSet;

use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::Snapshot;
use copal_store::SnapshotId;
use copal_store::repository::RootName;

use crate::catalogue::cache::{self, CacheState, Entries};
use crate::catalogue::object_of;
use crate::context::Context;
use crate::error::Result;

/// Most that are kept to be told.
const GONE_MAX: usize = 1000;

/// A snapshot that is there no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its id.
    pub id: SnapshotId,
    /// `APP/NAME`, or the name.
    pub name: String,
    /// When it was taken.
    pub created: Timestamp,
}

/// Splits what the cache knows and the repository has no more: what is to be told stays, labels go.
pub(super) fn keep_what_is_to_be_told(unclaimed: Entries) -> Entries {
    let (roots, mut dropped): (Entries, Entries) =
        unclaimed.into_iter().partition(|(object, _)| object.starts_with(ROOTS));
    if roots.len() > GONE_MAX {
        dropped.extend(roots);
    }
    dropped
}

const ROOTS: &str = "snapshots/";

/// What is gone, oldest first; it is told once.
pub(crate) fn tell_what_is_gone(context: &Context) -> Result<Vec<Gone>> {
    if context.cache_folder.is_none() {
        return Ok(Vec::new());
    }
    let cached = cache::read(context, false);
    let standing: BTreeSet<String> = context.repository.roots()?.iter().map(object_of).collect();
    let mut entries = cached.entries;
    entries.retain(|object, _| object.starts_with(ROOTS) && !standing.contains(object));
    let mut gone: Vec<Gone> = entries
        .iter()
        .filter_map(|(object, cached)| Snapshot::decode(object, &cached.payload).ok())
        .map(|snapshot| Gone {
            id: snapshot.id,
            name: Snapshot::full_name(&snapshot.app, &snapshot.name),
            created: snapshot.created,
        })
        .collect();
    gone.sort_by_key(|gone| (gone.created, gone.id));
    if !entries.is_empty() {
        cache::keep(context, cached.state, &Entries::new(), &entries);
    }
    Ok(gone)
}

/// After a deletion by this machine: nothing is to be told of it.
pub(crate) fn forget_deleted(context: &Context, roots: &[RootName]) {
    if roots.is_empty() || context.cache_folder.is_none() {
        return;
    }
    let cached = cache::read(context, false);
    let deleted: BTreeSet<String> = roots.iter().map(object_of).collect();
    let entries: Entries = cached.entries.into_iter().filter(|(object, _)| deleted.contains(object)).collect();
    if cached.state != CacheState::Absent && !entries.is_empty() {
        cache::keep(context, cached.state, &Entries::new(), &entries);
    }
}
