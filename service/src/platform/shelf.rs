//! The catalogue as the daemon keeps it in memory: one reading serves every request until something changes.
//!
//! Invariants: what this process changed is seen by the next request; what another process changed is seen
//! within [`FRESH_FOR`]. The repository stays the truth: a shelf is only ever made from a reading of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use copal_engine::catalogue::{Catalogue, Listed};
use copal_engine::{Context, known_keys};
use copal_manifest::snapshot::Snapshot;
use copal_store::SnapshotId;
use copal_store::repository::{Repository, RootName};
use copal_store::roster::Anchor;

use crate::platform::views::{SnapshotView, UnreadableView};
use crate::problem::{Problem, Result};

/// Requests within this time share one look at the repository: a listing of 10,000 roots costs some
/// milliseconds.
pub(crate) const FRESH_FOR: Duration = Duration::from_millis(250);

/// One reading of the catalogue.
#[derive(Debug)]
pub struct Shelf {
    /// Counts readings that differed from the one before.
    pub generation: u64,
    /// The engine's own listing, oldest first.
    pub catalogue: Catalogue,
    /// The same as clients see it, newest first.
    pub lines: Vec<Line>,
    /// Roots that cannot be opened.
    pub unreadable: Vec<UnreadableView>,
    /// The whole list as JSON, made for the first who asks.
    json: OnceLock<Bytes>,
    evidence: Evidence,
}

/// A snapshot as clients see it. Readings share the lines of what did not change between them.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its fields.
    pub view: Arc<SnapshotView>,
    /// The same as JSON.
    json: Arc<[u8]>,
    /// What it was made of.
    of: Arc<Snapshot>,
}

/// What tells that a listing is the same as before: the names of roots and labels, which are written once,
/// and which keys count.
#[derive(Debug, PartialEq, Eq)]
struct Evidence {
    keys: Option<Anchor>,
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
        if before.as_ref().is_none_or(|(_, shelf)| shelf.evidence.keys != evidence.keys) {
            // The next daemon, or command, here takes no earlier state of the keys for the newest.
            known_keys::remember(context.state_folder.as_deref(), &context.repository);
        }
        let shelf = match before {
            Some((_, shelf)) if shelf.evidence == evidence => shelf,
            before => {
                Arc::new(Shelf::new(before.map(|(_, shelf)| shelf).as_deref(), Catalogue::load(context)?, evidence)?)
            }
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
        // A folder that is not there has no snapshots: a repository that was unmounted must not look like an
        // empty one.
        let there = Repository::peek_id(&**context.repository.backend())?;
        if there != context.repository.config().repository {
            let place = context.repository.backend().place();
            return Err(copal_store::Error::NotARepository { place }.into());
        }
        // A key that was removed beside this process counts no more, whether or not a snapshot came or went.
        context.repository.refresh_keys()?;
        let mut roots = context.repository.roots()?;
        roots.sort_unstable();
        Ok(Self { keys: context.repository.keys().anchor(), roots, labels: context.repository.labels()? })
    }
}

impl Shelf {
    fn new(before: Option<&Self>, catalogue: Catalogue, evidence: Evidence) -> Result<Self> {
        let known: HashMap<SnapshotId, &Line> =
            before.map(|shelf| shelf.lines.iter().map(|line| (line.of.id, line)).collect()).unwrap_or_default();
        let line = |listed: &Listed| match known.get(&listed.snapshot.id) {
            Some(line) if Arc::ptr_eq(&line.of, &listed.snapshot) => Ok((*line).clone()),
            _ => Line::new(listed),
        };
        let lines = catalogue.snapshots.iter().rev().map(line).collect::<Result<_>>()?;
        let unreadable = catalogue.unreadable.iter().map(UnreadableView::new).collect();
        let generation = before.map_or(1, |shelf| shelf.generation + 1);
        Ok(Self { generation, catalogue, lines, unreadable, json: OnceLock::new(), evidence })
    }

    /// The whole list as JSON.
    #[must_use]
    pub fn json(&self) -> Bytes {
        self.json.get_or_init(|| json_of(self.lines.iter())).clone()
    }

    /// Snapshots, newest first.
    pub fn snapshots(&self) -> impl Iterator<Item = &SnapshotView> {
        self.lines.iter().map(|line| &*line.view)
    }

    /// How many snapshots each application has.
    #[must_use]
    pub fn counts(&self) -> HashMap<&str, u64> {
        let mut counts = HashMap::new();
        for snapshot in self.snapshots() {
            *counts.entry(snapshot.app.as_str()).or_default() += 1;
        }
        counts
    }
}

impl Line {
    fn new(listed: &Listed) -> Result<Self> {
        let view = Arc::new(SnapshotView::new(listed));
        let json = serde_json::to_vec(&*view).map_err(|error| Problem::internal(error.to_string()))?;
        Ok(Self { view, json: json.into(), of: Arc::clone(&listed.snapshot) })
    }
}

/// An array of lines.
#[must_use]
pub fn json_of<'l>(lines: impl Iterator<Item = &'l Line> + Clone) -> Bytes {
    let bytes: usize = lines.clone().map(|line| line.json.len() + 1).sum();
    let mut json = Vec::with_capacity(bytes + 2);
    json.push(b'[');
    for line in lines {
        if json.len() > 1 {
            json.push(b',');
        }
        json.extend_from_slice(&line.json);
    }
    json.push(b']');
    json.into()
}
