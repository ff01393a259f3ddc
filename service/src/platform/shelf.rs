//! The catalogue as the daemon keeps it in memory: one reading serves every request until something changes.
//!
//! Invariants: what this process changed is seen by the next request; what another process changed is seen within [`FRESH_FOR`].
//! The repository stays the truth: a shelf is only ever made from a reading of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use copal_engine::Context;
use copal_engine::catalogue::Catalogue;
use copal_store::SnapshotId;
use copal_store::repository::RootName;

use crate::platform::views::{SnapshotView, UnreadableView};
use crate::problem::{Problem, Result};

/// Requests within this time share one look at the repository: a listing of 10,000 roots costs some milliseconds.
pub(crate) const FRESH_FOR: Duration = Duration::from_millis(250);

/// One reading of the catalogue.
#[derive(Debug)]
pub struct Shelf {
    /// Counts readings that differed from the one before.
    pub generation: u64,
    /// The engine's own listing, oldest first.
    pub catalogue: Catalogue,
    /// The same as clients see it, newest first.
    pub snapshots: Vec<Arc<SnapshotView>>,
    /// Roots that cannot be opened.
    pub unreadable: Vec<UnreadableView>,
    /// The whole list as JSON.
    pub json: Bytes,
    evidence: Evidence,
}

/// What tells that a listing is the same as before: the names of roots and labels, which are written once.
#[derive(Debug, PartialEq, Eq)]
struct Evidence {
    roots: Vec<RootName>,
    labels: Vec<(SnapshotId, u64)>,
}

/// Keeps the newest shelf.
#[derive(Debug, Default)]
pub(crate) struct Shelves {
    newest: Mutex<Option<(Instant, Arc<Shelf>)>>,
    /// Held while the repository is read, so that a hundred clients cause one reading.
    reading: Mutex<()>,
}

impl Shelves {
    /// The newest shelf, if it needs no look at the repository: never blocks.
    pub(crate) fn at_hand(&self) -> Option<Arc<Shelf>> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.as_ref().filter(|(read, _)| read.elapsed() < FRESH_FOR).map(|(_, shelf)| Arc::clone(shelf))
    }

    /// The newest shelf, read anew when it is due. Blocks.
    pub(crate) fn read(&self, context: &Context) -> Result<Arc<Shelf>> {
        if let Some(shelf) = self.at_hand() {
            return Ok(shelf);
        }
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = self.at_hand() {
            return Ok(shelf);
        }
        let before = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let begun = Instant::now();
        let evidence = Evidence::gather(context)?;
        let shelf = match before {
            Some((_, shelf)) if shelf.evidence == evidence => shelf,
            before => Arc::new(Shelf::new(
                before.map_or(1, |(_, shelf)| shelf.generation + 1),
                Catalogue::load(context)?,
                evidence,
            )?),
        };
        // The time before the reading: what changed while it went on is seen by the next.
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((begun, Arc::clone(&shelf)));
        Ok(shelf)
    }

    /// The next request looks at the repository.
    pub(crate) fn expire(&self) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, _)) = newest.as_mut()
            && let Some(long_ago) = read.checked_sub(FRESH_FOR)
        {
            *read = long_ago;
        }
    }
}

impl Evidence {
    fn gather(context: &Context) -> Result<Self> {
        let mut roots = context.repository.roots()?;
        roots.sort_unstable();
        Ok(Self { roots, labels: context.repository.labels()? })
    }
}

impl Shelf {
    fn new(generation: u64, catalogue: Catalogue, evidence: Evidence) -> Result<Self> {
        let snapshots: Vec<Arc<SnapshotView>> =
            catalogue.snapshots.iter().rev().map(|listed| Arc::new(SnapshotView::new(listed))).collect();
        let lines: Vec<&SnapshotView> = snapshots.iter().map(AsRef::as_ref).collect();
        let json = serde_json::to_vec(&lines).map_err(|error| Problem::internal(error.to_string()))?;
        let unreadable = catalogue.unreadable.iter().map(UnreadableView::new).collect();
        Ok(Self { generation, catalogue, snapshots, unreadable, json: json.into(), evidence })
    }

    /// How many snapshots each application has.
    #[must_use]
    pub fn counts(&self) -> HashMap<&str, u64> {
        let mut counts = HashMap::new();
        for snapshot in &self.snapshots {
            *counts.entry(snapshot.app.as_str()).or_default() += 1;
        }
        counts
    }
}
