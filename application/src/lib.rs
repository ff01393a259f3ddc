//! Applications: several sources captured at one instant and put back as one unit, with the application held
//! still as shortly as the platform allows.
//!
//! A capture has two stages. [`capture`] is short: pre hooks, a pin of every source, post hooks.
//! [`Captured::upload`] is long, and the application runs meanwhile. What is under way is recorded in the
//! state folder ([`records`]), so that a killed capture is found failed and its application let go on
//! ([`recover`]), and a killed upload goes on ([`resume`]). A deploy is all or nothing for all sources
//! ([`restore`]).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod capture;
pub mod config;
mod error;
mod hooks;
mod record;
mod recover;
mod restore;
mod retain;
mod state;
mod watchdog;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use copal_manifest::snapshot::{Consistency, HookRecord};
use copal_store::SnapshotId;

pub use config::{Application, Configuration, Mistake, parse};
pub use error::{Error, Result};
pub use record::{CapturePhase, CaptureRecord, ComponentState, KeptMetadata, RecordedError, ResumeAction, ResumeStep};

use crate::capture::Component;
use crate::state::{AppFolder, CaptureFolder, Held};
use copal_engine::catalogue::Listed;
use copal_engine::context::Context;
use copal_engine::create::{CreateReport, Creation};
use copal_engine::deploy::{Outline, Stayed};

/// The trigger of what is taken before a deploy.
pub const SAFETY: &str = "safety";

/// What an operation on an application needs of the program around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    /// A command that runs [`watchdog`], without more arguments: `["/usr/bin/copal", "watchdog"]`. None:
    /// nobody lets the application go on when this process is killed, but the next command.
    pub watchdog: Option<Vec<OsString>>,
}

/// A capture as asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureRequest {
    /// Name, unique in the application.
    pub name: String,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// Protected from automatic removal.
    pub pinned: bool,
    /// What causes it: `manual`, `scheduled`, `update`, or whatever the caller says.
    pub trigger: String,
    /// Read every file, whatever its metadata says.
    pub force_read: bool,
    /// Take no snapshot when all is as in the newest of the same sources.
    pub skip_if_unchanged: bool,
}

/// A state that is held, and an application that goes on. Dropped without an upload it is a failed capture.
#[derive(Debug)]
pub struct Captured {
    record: CaptureRecord,
    place: CaptureFolder,
    folder: AppFolder,
    application: Application,
    creation: Creation,
    components: Vec<Component>,
    consistency: Consistency,
    hooks: Vec<HookRecord>,
    /// The application's lock.
    held: Option<Held>,
}

/// The first stage: pre hooks → capture of every source → post hooks. Returns when the application goes on.
pub fn capture(
    context: &Context,
    application: &Application,
    request: &CaptureRequest,
    tools: &Tools,
) -> Result<Captured> {
    capture::capture(context, application, request, tools)
}

impl Captured {
    /// What is recorded of it: phase [`CapturePhase::Uploading`].
    #[must_use]
    pub fn record(&self) -> &CaptureRecord {
        &self.record
    }

    /// The second stage: everything into the repository, then the root. The application's rules and
    /// `max_snapshots` are applied after it.
    pub fn upload(self, context: &Context) -> Result<CreateReport> {
        self.run_upload(context)
    }
}

/// Both stages.
pub fn create(
    context: &Context,
    application: &Application,
    request: &CaptureRequest,
    tools: &Tools,
) -> Result<CreateReport> {
    // Before anything is held still for it.
    copal_engine::create::check_new_name(&request.name)?;
    capture(context, application, request, tools)?.upload(context)
}

/// Goes on with the upload of a capture whose process was killed.
pub fn resume(context: &Context, application: &Application, id: &str) -> Result<CreateReport> {
    capture::upload::resume(context, application, id)
}

/// All records of the state folder, oldest first; of one application when it is named.
pub fn records(state_folder: &Path, app: Option<&str>) -> Result<Vec<CaptureRecord>> {
    let folders = match app {
        Some(app) => vec![AppFolder::of(state_folder, app)],
        None => AppFolder::list(state_folder)?,
    };
    let mut records = Vec::new();
    for folder in folders {
        // One that vanishes or is being written anew is one that is not there.
        records.extend(folder.captures()?.iter().filter_map(|place| place.read().ok().flatten()));
    }
    records.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    Ok(records)
}

/// Removes what an application's rules and its count let go on this host, and says what that was. Busy while
/// something else is under way on the application, which does the same at its end.
pub fn retain(context: &Context, application: &Application) -> Result<Vec<Listed>> {
    retain::retain(context, application)
}

/// What is under way on an application, in a few words: "a create", "a restore".
pub fn under_way(state_folder: &Path, app: &str) -> Result<Option<String>> {
    let note = AppFolder::of(state_folder, app).busy_with()?;
    Ok(note.map(|note| if note.is_empty() { "another operation".into() } else { note }))
}

/// Waits until nothing is under way on an application, at most so long: a process that was killed may take a
/// moment to let go of it.
pub fn wait_until_free(context: &Context, app: &str, limit: std::time::Duration) -> Result<()> {
    AppFolder::of(state::state_folder(context)?, app).wait_until_free(context, limit)
}

/// Ends what killed processes have left: applications are let go on, killed captures are recorded as failed,
/// killed deploys of applications are taken back or finished. One sentence for each. Every command calls it
/// before its own work; needs no repository.
pub fn recover(state_folder: &Path) -> Result<Vec<String>> {
    recover::recover(state_folder)
}

/// What [`recover`] would do, one sentence for each: for a dry run, which writes nothing.
pub fn outlook(state_folder: &Path) -> Result<Vec<String>> {
    recover::outlook(state_folder)
}

/// The watchdog's whole life: reads its orders from standard input, and lets the application go on at the
/// deadline, or as soon as the process that gave the orders is gone without having done it.
pub fn watchdog() -> Result<()> {
    watchdog::live()
}

/// A deploy of an application as asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreRequest {
    /// Which snapshot; a name is looked for in the application first.
    pub reference: String,
    /// SHA-256 that its root must have, in hexadecimal.
    pub digest: Option<String>,
    /// Only these sources, by label; empty: all.
    pub labels: Vec<String>,
    /// Whether what stands there is captured first.
    pub safety: bool,
    /// Check only.
    pub dry_run: bool,
    /// How far a check looks at what stands there.
    pub look: Look,
    /// Whether to go on where nobody can say that the snapshot's schema is not newer.
    pub any_schema: bool,
}

/// How far a check looks at what stands at the targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// Not at all: it only tells whether a deploy may begin.
    #[default]
    No,
    /// It tells what cannot be captured as what it is, as far as that is seen without reading all of it.
    Soundness,
    /// It tells that, and what would be done to each path.
    Paths,
}

/// What stood at a source, or stands there, and cannot be captured as what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSource {
    /// The source's label.
    pub label: String,
    /// Why.
    pub why: String,
    /// Where it is; none of a check, where it is not decided yet.
    pub place: Option<KeptPlace>,
}

/// Where what stood at a source is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptPlace {
    /// In the safety snapshot, byte for byte, under these labels.
    Snapshot(Vec<String>),
    /// On disk, under another name.
    Beside(PathBuf),
    /// On its server, under these names.
    Databases(Vec<String>),
}

/// What a deploy did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its name.
    pub name: String,
    /// What stood there before, if it was captured.
    pub safety: Option<SnapshotId>,
    /// Whether a migration ran.
    pub migrated: bool,
    /// One for each source.
    pub components: Vec<RestoredComponent>,
    /// How long the application was down.
    pub down_milliseconds: u64,
    /// Milliseconds of all.
    pub duration_ms: u64,
    /// What could not be set, and what could not be captured.
    pub warnings: Vec<String>,
    /// What stood there and could not be captured as what it is: where it is now.
    pub kept: Vec<KeptSource>,
}

/// One source of a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredComponent {
    /// Its label.
    pub label: String,
    /// Where it went.
    pub target: PathBuf,
    /// Logical bytes.
    pub bytes_total: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Of a check with [`Look::Paths`]: what would be done to each path, and what stays.
    pub outline: Option<(Outline, Vec<Stayed>)>,
}

/// Check → stage → stop → safety snapshot → switch, all or nothing → rewrite → migrate → start → health.
/// Unhealthy or failed: what stood there stands there again, and [`Error::RolledBack`] says why.
pub fn restore(
    context: &Context,
    application: &Application,
    request: &RestoreRequest,
    tools: &Tools,
) -> Result<RestoreReport> {
    restore::restore(context, application, request, tools)
}
