//! Takes snapshots. (Skeleton of the agreed interface.)

use std::path::PathBuf;

use copal_manifest::snapshot::Snapshot;

use crate::context::Context;
use crate::error::Result;

/// One source as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRequest {
    /// Label; empty for a single unlabelled source.
    pub label: String,
    /// A folder (its contents are taken) or one file.
    pub path: PathBuf,
}

/// What to take.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CreateRequest {
    /// Name, unique in the application.
    pub name: String,
    /// Application; empty for none.
    pub app: String,
    /// Sources with distinct labels.
    pub sources: Vec<SourceRequest>,
    /// Globs to leave out.
    pub exclude: Vec<String>,
    /// Stay on each source's filesystem.
    pub one_file_system: bool,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// Protected from automatic removal.
    pub pinned: bool,
    /// Read every file, whatever its metadata says.
    pub force_read: bool,
    /// Snapshot to compare with; `None`: the newest with the same application and source paths.
    pub parent: Option<String>,
}

/// What was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateReport {
    /// The committed snapshot.
    pub snapshot: Snapshot,
    /// SHA-256 of its root's payload, in hexadecimal.
    pub digest: String,
    /// Non-folder entries.
    pub files: u64,
    /// Logical bytes.
    pub bytes: u64,
    /// Bytes read from the sources.
    pub bytes_read: u64,
    /// Plaintext of new chunks.
    pub bytes_new: u64,
    /// What the repository grew by, root included.
    pub stored_new: u64,
    /// New chunks.
    pub chunks_new: u64,
    /// Milliseconds.
    pub duration_ms: u64,
    /// Files that could not be read or kept changing: the program exits with 3 when `unread_files` > 0.
    pub warnings: Vec<String>,
    /// How many source files could not be read.
    pub unread_files: u64,
}

/// Takes a snapshot. Nothing is acknowledged before it is durable.
pub fn create(_context: &Context, _request: &CreateRequest) -> Result<CreateReport> {
    todo!()
}
