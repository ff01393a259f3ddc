//! A snapshot as tables and documents show it.

use std::collections::BTreeMap;

use copal_engine::application::CaptureRecord;
use copal_engine::catalogue::Listed;
use copal_manifest::snapshot::{Origin, Phase, Snapshot};
use serde::Serialize;

use crate::commands::application::dashed;
use crate::shown::{rfc3339, uuid};

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
            files: files(snapshot),
            bytes: bytes(snapshot),
            bytes_new: snapshot.bytes_new,
            stored_new: snapshot.stored_new,
            origin: origin(snapshot.origin),
            tags: snapshot.tags.iter().cloned().collect(),
            pinned: snapshot.pinned,
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
        }
    }
}

/// Non-folder entries of all sources.
pub(crate) fn files(snapshot: &Snapshot) -> u64 {
    snapshot.sources.iter().map(|source| source.files).sum()
}

/// Logical bytes of all sources.
pub(crate) fn bytes(snapshot: &Snapshot) -> u64 {
    snapshot.sources.iter().map(|source| source.bytes).sum()
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
