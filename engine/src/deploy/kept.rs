//! Kept materialisations: whole snapshots in the state folder, from which targets are cloned by reflink.
//!
//! Nothing depends on them: a file of a kept tree that was touched since is found out by its memory and is
//! not shared.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copal_manifest::snapshot::Snapshot;
use copal_source::target::TargetTree;

use super::DeployRequest;
use super::build::Syncing;
use super::check::{Fetched, locate_all, room};
use super::compare::{How, compare};
use super::evidence::{MemoryWitness, Witness};
use super::job::Job;
use super::memory::Memory;
use super::place::{Place, Standing, failed, private_folder, remove_whole};
use super::plan::Plan;
use super::run::{NoCrash, Run};
use crate::error::{Error, Result};

/// Trees kept for one repository; the oldest go first.
const KEPT_MAX: usize = 4;

/// A kept tree, compared with what it shall be.
pub(super) struct Kept {
    pub(super) path: PathBuf,
    pub(super) plan: Plan,
}

/// Why a target cannot be cloned.
pub(super) fn reason_against(job: &Job<'_>, request: &DeployRequest) -> Option<String> {
    let Some(state) = job.run.context.state_folder.as_deref() else {
        return Some("there is no state folder to keep a tree in".into());
    };
    if request.path.is_some() {
        return Some("only whole snapshots are kept".into());
    }
    if !job.capabilities.reflink {
        return Some("its filesystem cannot share extents (reflink)".into());
    }
    let device = |path: &Path| nearest(path).and_then(|path| fs::metadata(path).ok()).map(|found| found.dev());
    let same = device(state) == device(&job.place.parent);
    (!same).then(|| format!("the state folder {} is on another filesystem", state.display()))
}

fn nearest(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.exists())
}

/// The kept tree of a snapshot, built now when there is none.
pub(super) fn kept_tree(job: &Job<'_>, snapshot: &Snapshot) -> Result<Kept> {
    let context = job.run.context;
    let state = context.state_folder.as_deref().ok_or_else(|| Error::Internal("no state folder".into()))?;
    let folder = state.join("kept").join(context.repository.config().repository.to_string());
    private_folder(&folder)?;
    let place = Place::resolve(&folder.join(snapshot.id.to_string()))?;
    // It has counters and crash points of its own: what is written here is not written to the target.
    let run = Run::new(context, &NoCrash);
    if place.standing == Standing::Absent {
        let capabilities = TargetTree::open(&folder)?.capabilities()?;
        let (desired, single) = (job.desired, job.single);
        let (ledger, hidden, how) = (job.ledger, job.hidden, How::default());
        let building =
            Job { run: &run, desired, place: &place, single, capabilities, ledger, hidden, staged: None, how };
        // Holes take no room.
        let needed = locate_all(&run, desired, &Plan::default(), Fetched::Everything)?;
        room(&place, capabilities.free_bytes, needed)?;
        building.beside(None, Syncing::Filesystem)?;
        Memory::keep(context, state, &place.path, snapshot.id, None, job.desired, &Arc::default())?;
        forget_oldest(&folder, &place.path)?;
    }
    let memory = Memory::load(state, &place.path);
    let mut witnesses = Vec::new();
    if let Some(memory) = &memory {
        witnesses.push(Witness::Memory(Box::new(MemoryWitness::new(job.desired, memory))));
    }
    let plan = compare(&run, job.desired, &place.path, &[], &mut witnesses, &How::default())?;
    Ok(Kept { path: place.path, plan })
}

fn forget_oldest(folder: &Path, newest: &Path) -> Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed("listing", folder, error))? {
        let entry = entry.map_err(|error| failed("listing", folder, error))?;
        let found = entry.metadata().map_err(|error| failed("looking at", &entry.path(), error))?;
        if entry.path() != newest {
            kept.push(((found.ctime(), found.ctime_nsec()), entry.path()));
        }
    }
    kept.sort();
    for (_, path) in kept.iter().take((kept.len() + 1).saturating_sub(KEPT_MAX)) {
        remove_whole(path)?;
    }
    Ok(())
}
