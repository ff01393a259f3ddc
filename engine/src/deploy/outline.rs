//! What a deploy would do to each path: for a rehearsal, and for the question before a deploy.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use copal_manifest::entry::EntryPath;
use copal_source::scan::{Border, ScanOptions, scan};

use super::job::Job;
use super::place::Standing;
use super::plan::{Action, Over, Plan};
use super::stays::Stay;
use crate::error::Result;

/// Paths below the target, each list in path order; the target itself is ".".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The snapshot has nothing there.
    pub removed: Vec<PathBuf>,
    /// Something else stands there: another content, or another kind.
    pub replaced: Vec<PathBuf>,
    /// Nothing stands there.
    pub added: Vec<PathBuf>,
    /// Only owner, mode, time or attributes differ.
    pub metadata: Vec<PathBuf>,
}

/// Something that a deploy leaves where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stayed {
    /// Its path below the target.
    pub path: PathBuf,
    /// Whether something is mounted there; else the snapshot's rules left it out.
    pub is_mount_point: bool,
}

impl Stayed {
    pub(super) fn of(stay: &Stay) -> Self {
        Self { path: shown(&stay.path), is_mount_point: stay.border == Border::MountPoint }
    }
}

/// Of a plan that was made for this target.
pub(super) fn outline(job: &Job<'_>, plan: &Plan) -> Result<Outline> {
    let mut outline = if job.is_fresh() { of_fresh(job)? } else { of_changes(plan) };
    for list in [&mut outline.removed, &mut outline.replaced, &mut outline.added, &mut outline.metadata] {
        list.sort_unstable();
    }
    Ok(outline)
}

fn of_changes(plan: &Plan) -> Outline {
    let mut outline = Outline::default();
    for change in &plan.changes {
        let list = match change.action {
            Action::Remove => &mut outline.removed,
            Action::Create { over: Over::Nothing } => &mut outline.added,
            Action::Create { .. } | Action::Patch { .. } => &mut outline.replaced,
            Action::Metadata => &mut outline.metadata,
        };
        list.push(shown(&change.path));
    }
    outline.removed.extend(plan.removed_below.iter().map(shown));
    let mut cursor = 0;
    let differing = plan.folders.iter().filter(|folder| folder.differs);
    for folder in differing {
        if plan.change_at(&mut cursor, &folder.path).is_none() {
            outline.metadata.push(shown(&folder.path));
        }
    }
    outline
}

/// Everything is made, whatever stands there goes.
fn of_fresh(job: &Job<'_>) -> Result<Outline> {
    let mut outline = Outline::default();
    match job.place.standing {
        Standing::Absent | Standing::EmptyFolder => {}
        Standing::File | Standing::Other => outline.replaced.push(".".into()),
        Standing::Folder => {
            outline.replaced.push(".".into());
            for found in scan(&job.place.path, &ScanOptions::default())? {
                let path = found?.path;
                if !path.is_empty() {
                    outline.removed.push(PathBuf::from(OsStr::from_bytes(&path)));
                }
            }
        }
    }
    for item in job.desired.items() {
        let path = item?.entry.path;
        if !path.is_root() || job.place.standing == Standing::Absent {
            outline.added.push(shown(&path));
        }
    }
    Ok(outline)
}

fn shown(path: &EntryPath) -> PathBuf {
    if path.is_root() { ".".into() } else { PathBuf::from(OsStr::from_bytes(&path.to_slashes())) }
}
