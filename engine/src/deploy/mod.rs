//! Makes a target equal to a snapshot: entirely, or not at all.
//!
//! First everything is decided without writing: `desired` says what shall stand, `compare` what stands,
//! `check` that every chunk is at hand and that there is room. A standing SQLite database with a log is then
//! brought into its one file, and compared again. Then either a whole tree is built beside the target and
//! exchanged with it (`build`), or all new bytes are staged in a redo journal beside it and then applied
//! (`stage`, `apply`). A crash leaves the target wholly old, or a committed journal that the next command
//! finishes. No link in the target is ever followed.

mod act;
mod apply;
mod attributes;
mod blocks;
mod build;
mod check;
mod compare;
mod databases;
mod desired;
pub(crate) mod evidence;
mod execute;
mod fetch;
mod fit;
mod hash;
mod job;
mod journal;
mod kept;
mod memory;
mod obstacles;
mod outline;
mod pending;
mod place;
mod plan;
mod recovery;
mod run;
mod select;
mod stage;
mod stays;
pub(crate) mod times;

use std::path::{Path, PathBuf};

use copal_store::SnapshotId;

use crate::catalogue::Catalogue;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::own;
pub use databases::refuse_holders as databases_held;
use desired::Desired;
pub use fit::{Top, refuse_mounts};
pub use outline::{Outline, Stayed};
use place::{Place, Standing};
pub use place::{failed, private_folder, remove_whole};
use run::Steps;
#[doc(hidden)]
pub use run::{CrashPoints, NoCrash};
use stays::Stays;

/// How to deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeployMode {
    /// The fastest that fits.
    #[default]
    Auto,
    /// By reflink from a kept materialisation, made now when there is none.
    Clone,
    /// Built beside and exchanged.
    Swap,
    /// Patched in place under a redo journal.
    InPlace,
}

impl DeployMode {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Clone => "clone",
            Self::Swap => "swap",
            Self::InPlace => "in-place",
        }
    }
}

/// Patterns that choose entries, read as lines of `.gitignore` from the root of each source.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selection {
    /// Only what matches one of these, and what is below it; empty: everything.
    pub include: Vec<String>,
    /// Not what matches these, nor what is below it.
    pub exclude: Vec<String>,
}

/// What to deploy where.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DeployRequest {
    /// Which snapshot.
    pub reference: String,
    /// Where to: with one unlabelled source TARGET is that source (a folder or a file); with labelled sources
    /// each is TARGET/label.
    pub target: PathBuf,
    /// Only this path of the snapshot (and what is below it); TARGET becomes it.
    pub path: Option<Vec<u8>>,
    /// Mode.
    pub mode: DeployMode,
    /// Whether a target that is not empty may be replaced.
    pub replace: bool,
    /// Only what these patterns choose, of the snapshot and of the target.
    pub selection: Selection,
    /// Whether what the snapshot lacks stays where it is: nothing is removed then.
    pub keep_others: bool,
    /// Whether a folder may be replaced by a file, or a file by a folder.
    pub replace_kind: bool,
    /// Whether what the snapshot's rules left out goes as well; without it that stays where it is.
    pub delete_excluded: bool,
    /// Plan only.
    pub dry_run: bool,
    /// Leave out devices that whoever runs this may not make, and report them.
    pub skip_devices: bool,
    /// Compare every byte of the target instead of believing its metadata.
    pub force_read: bool,
    /// Whether the caller ends who has a database open before anything is replaced: of a check only.
    pub stops_holders: bool,
}

/// What was done, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The target.
    pub target: PathBuf,
    /// The mode taken.
    pub mode: DeployMode,
    /// Entries of the snapshot that are no folders.
    pub files_total: u64,
    /// Created, rewritten, patched or removed.
    pub files_changed: u64,
    /// Logical bytes of the snapshot.
    pub bytes_total: u64,
    /// Bytes written to the target.
    pub bytes_written: u64,
    /// Bytes that stood there already.
    pub bytes_kept: u64,
    /// Milliseconds.
    pub duration_ms: u64,
    /// What could not be set (owners without privilege …).
    pub warnings: Vec<String>,
    /// Devices that were left out, as paths of the snapshot.
    pub skipped: Vec<PathBuf>,
    /// What stays where it is although the snapshot lacks it.
    pub stays: Vec<Stayed>,
    /// Of a rehearsal: what would be done to each path.
    pub outline: Option<Outline>,
}

/// Deploys. Finishes or takes back an interrupted deploy of the same target first.
pub fn deploy(context: &Context, request: &DeployRequest) -> Result<DeployReport> {
    deploy_until(context, request, &NoCrash)
}

/// [`deploy`], which a test may end at any step as a crash would.
#[doc(hidden)]
pub fn deploy_until(context: &Context, request: &DeployRequest, points: &dyn CrashPoints) -> Result<DeployReport> {
    if request.keep_others {
        own::refuse_within(context, &request.target)?;
    } else {
        own::refuse(context, &request.target)?;
    }
    execute::execute(context, request, None, points)
}

/// [`deploy`] to where Copal itself keeps something: its state folder, most of all.
pub fn deploy_within(context: &Context, request: &DeployRequest) -> Result<DeployReport> {
    execute::execute(context, request, None, &NoCrash)
}

/// Builds what `request` wants of its target in a new place beside it, durably, and switches nothing. Extents
/// are shared with what stands at the target where the filesystem can: that must hold still meanwhile.
/// `staged` is an empty folder that the caller has made, or of one file a free name in one.
pub fn stage_beside(context: &Context, request: &DeployRequest, staged: &Path) -> Result<DeployReport> {
    execute::execute(context, request, Some(staged), &NoCrash)
}

/// The paths of a folder that stay where they are, whatever becomes of it; refused where the snapshot has
/// something in their place.
pub fn what_stays(context: &Context, request: &DeployRequest) -> Result<Vec<Vec<u8>>> {
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_in(context, &session)?;
    let listed = catalogue.find(&request.reference)?;
    session.prefer(listed.signer);
    let snapshot = &listed.snapshot;
    let desired = Desired::new(&session, snapshot, request.path.as_deref())?;
    let stays = std::sync::Arc::new(Stays::of(desired.parts(), snapshot)?);
    let found = stays::find(&desired, &stays, &Place::resolve(&request.target)?)?;
    session.end()?;
    Ok(found)
}

/// Whether a target has something that a deploy would replace.
pub fn target_is_occupied(target: &Path) -> Result<bool> {
    let place = Place::resolve(target)?;
    Ok(matches!(place.standing, Standing::Folder | Standing::File | Standing::Other))
}

/// Finishes or takes back every interrupted deploy that the state folder knows of; needs no repository.
/// Returns one sentence for each. Every command calls it before its own work.
pub fn recover(state_folder: &Path) -> Result<Vec<String>> {
    recover_until(state_folder, &NoCrash)
}

/// [`recover`], which a test may end at any step as a crash would.
#[doc(hidden)]
pub fn recover_until(state_folder: &Path, points: &dyn CrashPoints) -> Result<Vec<String>> {
    recovery::recover_all(state_folder, &Steps::new(points))
}

/// Gives an interrupted deploy to a target up, when it can be neither finished nor taken back: removes what
/// it left beside the target, and its note. Returns one sentence for each; none: no such deploy is known.
pub fn abandon(state_folder: &Path, target: &Path) -> Result<Vec<String>> {
    recovery::abandon(state_folder, &Place::resolve(target)?)
}

/// What would keep what stands at a target from being removed once another state has its place.
pub fn obstacle_to_exchange(target: &Path) -> Result<Option<String>> {
    let place = Place::resolve(target)?;
    if place.standing == Standing::Absent { Ok(None) } else { obstacles::to_exchange(&place) }
}

/// What [`recover`] would do, one sentence for each: for a dry run, which writes nothing.
pub fn outlook(state_folder: &Path) -> Result<Vec<String>> {
    recovery::outlook_of_all(state_folder)
}

fn unavailable(place: &Place, mode: DeployMode, detail: &str) -> Error {
    Error::ModeUnavailable { target: place.path.clone(), mode: mode.name(), detail: detail.into() }
}
