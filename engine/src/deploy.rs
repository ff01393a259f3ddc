//! Makes a target equal to a snapshot. (Skeleton of the agreed interface.)

use std::path::{Path, PathBuf};

use copal_store::SnapshotId;

use crate::context::Context;
use crate::error::Result;

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

/// What to deploy where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployRequest {
    /// Which snapshot.
    pub reference: String,
    /// Where to: with one unlabelled source TARGET is that source (a folder or a file); with labelled sources each is TARGET/label.
    pub target: PathBuf,
    /// Only this path of the snapshot (and what is below it); TARGET becomes it.
    pub path: Option<Vec<u8>>,
    /// Mode.
    pub mode: DeployMode,
    /// Whether a target that is not empty may be replaced.
    pub replace: bool,
    /// Plan only.
    pub dry_run: bool,
    /// Compare every byte of the target instead of believing its metadata.
    pub force_read: bool,
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
}

/// Deploys. Finishes or takes back an interrupted deploy of the same target first.
pub fn deploy(_context: &Context, _request: &DeployRequest) -> Result<DeployReport> {
    todo!()
}

/// Whether a target has something that a deploy would replace.
pub fn target_is_occupied(_target: &Path) -> Result<bool> {
    todo!()
}

/// Finishes or takes back every interrupted deploy that the state folder knows of; needs no repository.
/// Returns one sentence for each. Every command calls it before its own work.
pub fn recover(_state_folder: &Path) -> Result<Vec<String>> {
    todo!()
}
