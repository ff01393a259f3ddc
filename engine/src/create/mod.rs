//! Takes snapshots.
//!
//! One thread, the coordinator, scans, compares with the parent snapshot and builds the tree, in path order.
//! Symmetric workers do all that touches content: read, cut, hash, look up, encode, seal. What they find
//! comes back in order through promises.
//!
//! Memory does not grow with the tree: some 6 MiB for each worker, at most `pipeline::WINDOW_ITEMS` entries
//! and `pipeline::JOBS_PER_WORKER` jobs a worker waiting for their turn, the session's open packs, one
//! unfinished node of each level of the tree, and the names of files with several names.

pub mod clones;
pub mod creation;
pub mod evidence;
mod exclusions;
mod extent;
mod input;
mod job;
mod large;
pub mod left_out;
mod listing;
mod made_name;
mod nodes;
mod parent;
mod pipeline;
mod rehearsal;
mod small;
mod stream;
mod worker;

use std::path::{Path, PathBuf};

use copal_manifest::snapshot::{Snapshot, is_name};
use copal_store::session::Session;

pub use crate::create::clones::{CLONE_BYTES_MIN, ContentIdentity, KeptClone, KeptClones, Untouched};
pub use crate::create::creation::check_new_name;
pub use crate::create::creation::{Contents, Creation, Naming, Taken};
pub(crate) use crate::create::evidence::timestamp;
pub use crate::create::evidence::{is_past, is_present, is_unchanged_since, trusted_before};
pub use crate::create::exclusions::Exclusions;
pub use crate::create::input::{Input, InputContent};
pub use crate::create::made_name::made_name;
pub use crate::create::rehearsal::{Rehearsal, rehearse};
pub use crate::create::stream::Stream;

use crate::catalogue::Listed;
pub use crate::catalogue::recorded_path;
use crate::context::Context;
use crate::error::{Error, Result};

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
    /// What to leave out.
    pub exclusions: Exclusions,
    /// Take only these paths, with what is beneath them: absolute, or as the snapshot shows them (with the
    /// source's label before them, where it has one). `None`: all.
    pub only: Option<Vec<Vec<u8>>>,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// Protected from automatic removal.
    pub pinned: bool,
    /// Read every file, whatever its metadata says.
    pub force_read: bool,
    /// Snapshot to compare with; `None`: the newest with the same application and source paths.
    pub parent: Option<String>,
    /// Take no snapshot when all is as in the one that it is compared with.
    pub skip_if_unchanged: bool,
}

/// What was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateReport {
    /// The committed snapshot; of a create that was skipped the one that has the same.
    pub snapshot: Snapshot,
    /// Whether no snapshot was taken, since nothing has changed.
    pub skipped: bool,
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
    /// How many source files could not be read, or only at several moments.
    pub unread_files: u64,
    /// Copal's own folders that were left out of the sources.
    pub left_out: Vec<PathBuf>,
    /// Patterns that left nothing out.
    pub unmatched: Vec<String>,
}

impl CreateReport {
    /// Of a snapshot that stood before.
    pub fn of_listed(listed: &Listed) -> Self {
        let snapshot = Snapshot::clone(&listed.snapshot);
        Self {
            digest: listed.digest.clone(),
            files: snapshot.sources.iter().map(|source| source.files).sum(),
            bytes: snapshot.sources.iter().map(|source| source.bytes).sum(),
            bytes_read: 0,
            bytes_new: 0,
            stored_new: 0,
            chunks_new: 0,
            duration_ms: 0,
            warnings: Vec::new(),
            unread_files: 0,
            left_out: Vec::new(),
            unmatched: Vec::new(),
            skipped: false,
            snapshot,
        }
    }
}

/// Takes a snapshot. Nothing is acknowledged before it is durable.
///
/// A source whose root cannot be read is an error; a file that cannot be read is a warning and makes the
/// snapshot [`copal_manifest::snapshot::Phase::PartiallyFailed`]. After [`Error::Interrupted`] what was
/// stored is found again by the next run.
pub fn create(context: &Context, request: &CreateRequest) -> Result<CreateReport> {
    create_with(context, request, None)
}

/// The same with one more source that is read from its beginning to its end.
pub fn create_with(context: &Context, request: &CreateRequest, stream: Option<Stream<'_>>) -> Result<CreateReport> {
    let inputs = inputs_of(request, stream.as_ref().map(|stream| stream.label.as_str()))?;
    let mut places: Vec<_> = inputs.iter().map(|input| (input.label.clone(), input.path.clone())).collect();
    places.extend(stream.iter().map(|stream| (stream.label.clone(), Vec::new())));
    let creation = Creation::begin(context, naming_of(request), &places)?;
    let mut taken = inputs.iter().map(|input| creation.take(context, input)).collect::<Result<Vec<_>>>()?;
    if let Some(stream) = stream {
        taken.push(creation.take_stream(context, stream)?);
    }
    creation.finish(context, taken, None, None)
}

fn naming_of(request: &CreateRequest) -> Naming {
    Naming {
        name: request.name.clone(),
        app: request.app.clone(),
        tags: request.tags.clone(),
        pinned: request.pinned,
        force_read: request.force_read,
        parent: request.parent.clone(),
        skip_if_unchanged: request.skip_if_unchanged,
    }
}

/// The sources, by label; `other` is that of what comes from elsewhere.
fn inputs_of(request: &CreateRequest, other: Option<&str>) -> Result<Vec<Input>> {
    let mut sources = request.sources.clone();
    sources.sort_by(|a, b| a.label.cmp(&b.label));
    let mut labels: Vec<&str> = request.sources.iter().map(|source| source.label.as_str()).chain(other).collect();
    labels.sort_unstable();
    check_labels(labels.into_iter())?;
    for source in &mut sources {
        source.path = std::path::absolute(&source.path)
            .map_err(|error| Error::Usage(format!("{}: {error}", source.path.display())))?;
    }
    let inputs = sources.iter().map(|source| Input::of_request(source, &request.exclusions));
    let mut inputs = inputs.collect::<Result<Vec<_>>>()?;
    if let Some(only) = &request.only {
        listing::apply(only, &mut inputs)?;
    }
    Ok(inputs)
}

/// Stores all that a create of this path would, and no root: for whoever needs its chunks again.
pub(crate) fn store_source(context: &Context, session: &Session, path: &Path) -> Result<()> {
    let path = std::path::absolute(path).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))?;
    let input = Input::of_request(&SourceRequest { label: String::new(), path }, &Exclusions::default())?;
    let taken = pipeline::Capture::run(context, session, &creation::cutter_of(session)?, true, &input, None)?;
    taken.warnings.iter().for_each(|warning| context.monitor.notice(warning));
    Ok(())
}

/// Labels, sorted, that a snapshot can have.
pub fn check_labels<'l>(labels: impl Iterator<Item = &'l str>) -> Result<()> {
    let labels: Vec<&str> = labels.collect();
    if labels.is_empty() {
        return Err(Error::Usage("there is nothing to take: name at least one source".into()));
    }
    if labels.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Error::Usage("two sources have the same label: name them label=SOURCE".into()));
    }
    if labels.len() > 1 && labels.iter().any(|label| !is_name(label)) {
        return Err(Error::Usage("every one of several sources needs a label: name them label=SOURCE".into()));
    }
    Ok(())
}
