//! Takes snapshots.
//!
//! One thread, the coordinator, scans, compares with the parent snapshot and builds the tree, in path order. Symmetric workers do
//! all that touches content: read, cut, hash, look up, encode, seal. What they find comes back in order through promises.
//!
//! Memory does not grow with the tree: some 6 MiB for each worker, at most `pipeline::WINDOW_ITEMS` entries and
//! `pipeline::JOBS_PER_WORKER` jobs a worker waiting for their turn, the session's open packs, one unfinished node of each level of
//! the tree, and the names of files with several names.

mod bases;
mod evidence;
mod extent;
mod job;
mod large;
mod meter;
mod nodes;
mod parent;
mod pipeline;
mod small;

use std::path::{Path, PathBuf};

use copal_chunker::{Cutter, Rule, Sizes};
use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::{Origin, Phase, Snapshot, SourceRecord, WARNINGS_MAX, is_name};
use copal_store::SnapshotId;
use copal_store::config::{CutRule, Parameters};
use copal_store::repository::RootName;
use copal_store::roles::Action;
use copal_store::session::Session;

use crate::catalogue::payload_digest;
use crate::context::Context;
use crate::error::{Error, Result};
use parent::Parent;
use pipeline::Capture;

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
///
/// A source whose root cannot be read is an error; a file that cannot be read is a warning and makes the snapshot
/// [`Phase::PartiallyFailed`]. After [`Error::Interrupted`] what was stored is found again by the next run.
pub fn create(context: &Context, request: &CreateRequest) -> Result<CreateReport> {
    let begun = context.clock.monotonic_nanoseconds();
    let sources = checked_sources(request)?;
    let created = context.clock.now();
    let session = Session::begin(&context.repository)?;
    let full_name = Snapshot::full_name(&request.app, &request.name);
    let tag = context.repository.keys().name_tag(full_name.as_bytes());
    if session.roots().iter().any(|root| root.tag == tag) {
        return Err(Error::NameTaken(full_name));
    }
    // A key that only creates opens no parent: it reads every file, and stores no deltas.
    let parent = match context.repository.keys().role().may(Action::OpenManifests) {
        true => Parent::choose(context, &session, request)?,
        false => None,
    };
    let captured = capture(context, &session, request, &sources, parent.as_ref());
    let captured = match captured {
        Err(Error::Interrupted) => {
            session.checkpoint()?;
            return Err(Error::Interrupted);
        }
        other => other?,
    };
    context.monitor.phase("committing");
    let durable = session.seal_packs()?.sync()?.publish_index()?;
    let counters = session.counters();
    let snapshot = Snapshot {
        version: Snapshot::version_needed(&captured.records, None),
        id: new_snapshot_id(context, created)?,
        name: request.name.clone(),
        app: request.app.clone(),
        created,
        completed: context.clock.now(),
        phase: if captured.unread_files > 0 { Phase::PartiallyFailed } else { Phase::Completed },
        origin: Origin::Created,
        host: context.host.clone(),
        program: context.program.clone(),
        parent: parent.map(|parent| parent.snapshot().id),
        sources: captured.records,
        tags: sorted_tags(&request.tags),
        pinned: request.pinned,
        bytes_read: captured.bytes_read,
        bytes_new: counters.bytes_new,
        stored_new: counters.bytes_stored,
        chunks_new: counters.chunks_new,
        warnings: bounded_warnings(&captured.warnings),
        live: None,
    };
    let payload = snapshot.encode()?;
    let root = RootName { tag, snapshot: snapshot.id };
    let published = durable.publish_root(root, &payload);
    let root_bytes = published.map_err(|error| match error {
        copal_store::Error::NameTaken => Error::NameTaken(full_name),
        other => Error::Store(other),
    })?;
    session.end()?;
    tidy_index(context);
    Ok(CreateReport {
        digest: payload_digest(&payload),
        files: snapshot.sources.iter().map(|source| source.files).sum(),
        bytes: snapshot.sources.iter().map(|source| source.bytes).sum(),
        bytes_read: snapshot.bytes_read,
        bytes_new: snapshot.bytes_new,
        stored_new: snapshot.stored_new + root_bytes,
        chunks_new: snapshot.chunks_new,
        duration_ms: context.clock.monotonic_nanoseconds().saturating_sub(begun) / 1_000_000,
        warnings: captured.warnings,
        unread_files: captured.unread_files,
        snapshot,
    })
}

/// Stores all that a create of this path would, and no root: for whoever needs its chunks again.
pub(crate) fn store_source(context: &Context, session: &Session, path: &Path) -> Result<()> {
    let sources = vec![SourceRequest { label: String::new(), path: path.to_owned() }];
    let request = CreateRequest { name: "again".into(), sources, force_read: true, ..CreateRequest::default() };
    let sources = checked_sources(&request)?;
    let captured = capture(context, session, &request, &sources, None)?;
    captured.warnings.iter().for_each(|warning| context.monitor.notice(warning));
    Ok(())
}

/// What all sources gave.
#[derive(Default)]
struct Captured {
    records: Vec<SourceRecord>,
    bytes_read: u64,
    warnings: Vec<String>,
    unread_files: u64,
}

fn capture(
    context: &Context,
    session: &Session,
    request: &CreateRequest,
    sources: &[SourceRequest],
    parent: Option<&Parent>,
) -> Result<Captured> {
    let cutter = cutter_of(session)?;
    let mut captured = Captured::default();
    for source in sources {
        let outcome = Capture::run(context, session, &cutter, request, source, parent)?;
        captured.records.push(outcome.record);
        captured.bytes_read += outcome.bytes_read;
        captured.unread_files += outcome.unread_files;
        captured.warnings.extend(outcome.warnings);
    }
    Ok(captured)
}

/// The cutter that the repository's parameters and secret make.
fn cutter_of(session: &Session) -> Result<Cutter> {
    let Parameters { cut_rule, chunk_bytes_min, chunk_bytes_average, chunk_bytes_max, .. } =
        session.repository().config().parameters;
    let rule = match cut_rule {
        CutRule::AesWindow => Rule::AesWindow,
        CutRule::FastCdc2020 => Rule::FastCdc2020,
    };
    let sizes = Sizes { min: chunk_bytes_min, average: chunk_bytes_average, max: chunk_bytes_max };
    Cutter::new(rule, sizes, &session.repository().keys().cutter_secret())
        .map_err(|error| Error::Internal(format!("the repository's parameters: {error}")))
}

/// Sources sorted by label, absolute, with names that a snapshot can have.
fn checked_sources(request: &CreateRequest) -> Result<Vec<SourceRequest>> {
    for (what, name) in [("snapshot", &request.name), ("application", &request.app)] {
        if !(is_name(name) || what == "application" && name.is_empty()) {
            let detail = "a name has 1 to 255 bytes, no slash, no control character, no space at its ends, and is not \"latest\"";
            return Err(Error::BadName { name: name.clone(), detail: detail.into() });
        }
    }
    let mut sources = request.sources.clone();
    sources.sort_by(|a, b| a.label.cmp(&b.label));
    if sources.is_empty() {
        return Err(Error::Usage("there is nothing to take: name at least one source".into()));
    }
    if sources.windows(2).any(|pair| pair[0].label == pair[1].label) {
        return Err(Error::Usage("two sources have the same label: name them label=SOURCE".into()));
    }
    if sources.len() > 1 && sources.iter().any(|source| !is_name(&source.label)) {
        return Err(Error::Usage("every one of several sources needs a label: name them label=SOURCE".into()));
    }
    for source in &mut sources {
        source.path = std::path::absolute(&source.path)
            .map_err(|error| Error::Usage(format!("{}: {error}", source.path.display())))?;
    }
    Ok(sources)
}

/// Sorted by key; of equal keys the last wins.
fn sorted_tags(tags: &[(String, String)]) -> Vec<(String, String)> {
    tags.iter().cloned().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect()
}

fn bounded_warnings(warnings: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = warnings.iter().take(WARNINGS_MAX - 1).cloned().collect();
    if warnings.len() > kept.len() {
        kept.push(format!("and {} more", warnings.len() - kept.len()));
    }
    kept
}

/// A UUID of version 7 (RFC 9562).
fn new_snapshot_id(context: &Context, created: Timestamp) -> Result<SnapshotId> {
    let mut random = [0; 10];
    context.repository.entropy().fill(&mut random)?;
    let milliseconds = u64::try_from(created.seconds).unwrap_or(0) * 1000 + u64::from(created.nanoseconds / 1_000_000);
    Ok(SnapshotId(uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid().into_bytes()))
}

/// Merges small index fragments. The snapshot is safe already: a failure here is the next run's affair.
fn tidy_index(context: &Context) {
    match copal_store::collect::merge_index(&context.repository) {
        Ok(_) | Err(copal_store::Error::Busy { .. }) => {}
        Err(error) => context.monitor.notice(&format!("the index was not merged: {error}")),
    }
}
