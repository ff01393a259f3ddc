//! Copies snapshots to another repository: only what it lacks, with the same names, ids and times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::walk::{Travelling, walk};
use copal_engine::catalogue::{Catalogue, Listed, name_taken};
use copal_engine::context::{Context, Progress};
use copal_engine::create::creation::tidy_index;
use copal_manifest::snapshot::Snapshot;
use copal_store::SnapshotId;
use copal_store::session::{ChunkSource, Session};

use crate::error::{Error, Result};
use crate::import::{Evidence, Imported, Parts, has_name, of_id, receive_one};
use crate::native::format::Item;
use crate::receive::ChunkContents;
use crate::{are_related, cuts_of, name_of};

/// What to copy.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CopyRequest {
    /// Snapshots; empty: all that the other repository lacks.
    pub references: Vec<String>,
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CopyReport {
    /// The snapshots, oldest first.
    pub snapshots: Vec<Imported>,
    /// Plaintext that was read here, in bytes.
    pub bytes_read: u64,
    /// Plaintext of chunks that the other repository lacked.
    pub bytes_new: u64,
    /// What the other repository grew by.
    pub stored_new: u64,
    /// Chunks that it lacked.
    pub chunks_new: u64,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// Copies from the repository of `from` to that of `to`. Each snapshot is committed by itself, oldest first;
/// those that are there are passed over. The cost follows the changes against the newest earlier snapshot
/// that both have.
pub fn copy(from: &Context, to: &Context, request: &CopyRequest) -> Result<CopyReport> {
    let begun = from.clock.monotonic_nanoseconds();
    if from.repository.config().repository == to.repository.config().repository {
        return Err(Error::usage("both are the same repository"));
    }
    let (here, there) = (from.reading_session()?, to.session()?);
    let outcome = run(from, to, request, &here, &there);
    if matches!(&outcome, Err(error) if error.is_interrupted()) {
        there.checkpoint()?;
    }
    let mut report = outcome?;
    let counters = there.counters();
    (report.bytes_new, report.chunks_new, report.stored_new) =
        (counters.bytes_new, counters.chunks_new, counters.bytes_stored);
    here.end()?;
    there.end()?;
    tidy_index(to);
    report.duration_ms = from.clock.monotonic_nanoseconds().saturating_sub(begun) / 1_000_000;
    Ok(report)
}

fn run(from: &Context, to: &Context, request: &CopyRequest, here: &Session, there: &Session) -> Result<CopyReport> {
    let source = Catalogue::load_in(from, here)?;
    let target = Catalogue::load_in(to, there)?;
    let mut chosen: Vec<&Listed> = Vec::new();
    if request.references.is_empty() {
        chosen.extend(source.snapshots.iter());
    }
    for reference in &request.references {
        let listed = source.find(reference)?;
        if !chosen.iter().any(|other| other.root == listed.root) {
            chosen.push(listed);
        }
    }
    chosen.sort_by_key(|listed| (listed.snapshot.created, listed.snapshot.id));
    for listed in &chosen {
        if of_id(to, &target, listed.snapshot.id).is_none() && has_name(there, &listed.snapshot)? {
            return Err(name_taken(to, name_of(&listed.snapshot)).into());
        }
    }
    let same_cuts = cuts_of(here) == cuts_of(there);
    // What is copied is built on no snapshot of another key, whatever id that has.
    let mut bases: HashMap<SnapshotId, Snapshot> = HashMap::new();
    for listed in target.snapshots.iter().filter(|listed| to.repository.keys().builds_on(listed.signer)) {
        bases.insert(listed.snapshot.id, (*listed.snapshot).clone());
    }
    let mut of_former_owners = 0;
    to.monitor.phase("copying");
    let mut report = CopyReport::default();
    let mut known = HashMap::new();
    let contents = Contents { session: here, travelling: Mutex::default() };
    for listed in chosen {
        let snapshot = &listed.snapshot;
        if let Some(here) = of_id(to, &target, snapshot.id) {
            of_former_owners += u64::from(!bases.contains_key(&snapshot.id));
            report.snapshots.push(Imported {
                snapshot: (*here.snapshot).clone(),
                digest: here.digest.clone(),
                digest_there: listed.digest.clone(),
                was_here: true,
            });
            continue;
        }
        let base = source.snapshots.iter().rev().find(|other| {
            let before = (other.snapshot.created, other.snapshot.id) < (snapshot.created, snapshot.id);
            before && bases.contains_key(&other.snapshot.id) && are_related(snapshot, &other.snapshot)
        });
        let base_there = base.and_then(|base| bases.get(&base.snapshot.id)).cloned();
        let already = report.bytes_read;
        let feed = |take: &mut dyn FnMut(Item, u64) -> Result<u64>| -> Result<()> {
            let mut taken = 0;
            let mut own = contents.take();
            walk(from, here, snapshot, base.map(|base| &*base.snapshot), &mut own, &mut |item, travelling| {
                contents.show(travelling);
                taken = take(item, taken)?;
                let progress = Progress { bytes_done: already + taken, ..Progress::default() };
                to.monitor.progress(progress);
                Ok(to.check_interrupt()?)
            })?;
            contents.keep(own);
            Ok(())
        };
        let parts = Parts {
            context: to,
            session: there,
            contents: &contents,
            base: base_there.as_ref(),
            same_cuts,
            known: &mut known,
        };
        let (copied, digest, bytes) = receive_one(parts, (**snapshot).clone(), Evidence::Kept, &feed)?;
        report.bytes_read = report.bytes_read.saturating_add(bytes);
        bases.insert(copied.id, copied.clone());
        report.snapshots.push(Imported {
            snapshot: copied,
            digest,
            digest_there: listed.digest.clone(),
            was_here: false,
        });
    }
    if of_former_owners > 0 {
        to.monitor.notice(&format!(
            "{of_former_owners} of the snapshots were taken for copied already because of what owners' keys signed there \
             that were removed since; one that you delete there is copied again"
        ));
    }
    Ok(report)
}

/// Chunks of the repository that is copied from, by the ordinals that the walk gives them.
struct Contents<'c> {
    session: &'c Session,
    travelling: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    kept: Travelling,
    ids: Vec<copal_store::ChunkId>,
}

impl Contents<'_> {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.travelling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Travelling {
        std::mem::take(&mut self.seen().kept)
    }

    fn keep(&self, travelling: Travelling) {
        self.seen().kept = travelling;
    }

    /// Learns the ids of ordinals given since the last time.
    fn show(&self, travelling: &Travelling) {
        let mut seen = self.seen();
        let known = seen.ids.len();
        seen.ids.extend(travelling.order()[known.min(travelling.order().len())..].iter().map(|(id, _)| *id));
    }

    fn id(&self, ordinal: u32) -> Option<copal_store::ChunkId> {
        self.seen().ids.get(ordinal as usize).copied()
    }
}

impl ChunkContents for Contents<'_> {
    fn chunk(&self, ordinal: u32) -> Result<Arc<Vec<u8>>> {
        let id = self.id(ordinal).ok_or_else(|| Error::internal("a chunk that was not met"))?;
        Ok(Arc::new(self.session.read_chunk(&id)?))
    }

    fn base_of(&self, _ordinal: u32) -> Option<u32> {
        // The receiver looks for a base at the same place of the snapshot before.
        None
    }
}
