//! A snapshot as tables and documents show it.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use copal_application::CaptureRecord;
use copal_engine::catalogue::{Listed, plain_path};
use copal_engine::removal::is_safety;
use copal_manifest::snapshot::{Origin, Phase, Snapshot, SourceRecord};
use serde::Serialize;

use crate::commands::application::dashed;
use crate::shown::{escaped, rfc3339, uuid};

/// A line of `list`, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct SnapshotLine {
    id: String,
    name: String,
    app: String,
    created: String,
    phase: &'static str,
    files: u64,
    bytes: u64,
    bytes_new: u64,
    stored_new: u64,
    origin: &'static str,
    tags: BTreeMap<String, String>,
    pinned: bool,
    host: String,
    user: String,
    paths: Vec<String>,
    safety: bool,
}

impl SnapshotLine {
    pub(crate) fn new(listed: &Listed) -> Self {
        let snapshot = &listed.snapshot;
        Self {
            id: uuid(snapshot.id),
            name: snapshot.name.clone(),
            app: snapshot.app.clone(),
            created: rfc3339(snapshot.created),
            phase: phase(snapshot.phase),
            files: snapshot.files(),
            bytes: snapshot.bytes(),
            bytes_new: snapshot.bytes_new,
            stored_new: snapshot.stored_new,
            origin: origin(snapshot.origin),
            tags: snapshot.tags.iter().cloned().collect(),
            pinned: snapshot.pinned,
            host: snapshot.host.clone(),
            user: snapshot.user.clone(),
            paths: snapshot.sources.iter().filter_map(recorded_path).collect(),
            safety: is_safety(snapshot),
        }
    }

    /// A snapshot that is not in the repository yet, or never will be.
    pub(crate) fn of_record(record: &CaptureRecord) -> Self {
        Self {
            id: dashed(&record.id),
            name: record.name.clone(),
            app: record.app.clone(),
            created: rfc3339(record.created),
            phase: record.phase.name(),
            files: 0,
            bytes: record.bytes_total,
            bytes_new: record.bytes_new,
            stored_new: 0,
            origin: "created",
            tags: record.tags.iter().cloned().collect(),
            pinned: record.pinned,
            host: String::new(),
            user: String::new(),
            paths: Vec::new(),
            safety: record.safety,
        }
    }
}

/// The path that a source was taken from; `None` for one that has none, a database of a server for example.
fn recorded_path(source: &SourceRecord) -> Option<String> {
    let path = plain_path(&source.path);
    (!source.path.is_empty()).then(|| path.to_string_lossy().into_owned())
}

/// The host it was taken on, for tables.
pub(crate) fn host(snapshot: &Snapshot) -> String {
    if snapshot.host.is_empty() { "unknown".to_owned() } else { escaped(snapshot.host.as_bytes()) }
}

/// The paths of its sources, for tables; only the first is written out.
pub(crate) fn paths(snapshot: &Snapshot) -> String {
    let mut paths = snapshot.sources.iter().filter(|source| !source.path.is_empty());
    let first = paths.next().map(|source| escaped(plain_path(&source.path).as_os_str().as_bytes()));
    match (first, paths.count()) {
        (None, _) => "-".to_owned(),
        (Some(first), 0) => first,
        (Some(first), more) => format!("{first} and {more} more"),
    }
}

/// The word for a phase.
pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Completed => "completed",
        Phase::PartiallyFailed => "partially_failed",
    }
}

/// The word for an origin.
pub(crate) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Created => "created",
        Origin::Imported => "imported",
    }
}

/// The name that refers to it: `APP/NAME`, or `NAME`.
pub(crate) fn full_name(snapshot: &Snapshot) -> String {
    Snapshot::full_name(&snapshot.app, &snapshot.name)
}

/// "K=V K=V".
pub(crate) fn tags(snapshot: &Snapshot) -> String {
    snapshot.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}
