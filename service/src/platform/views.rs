//! What clients see of snapshots: plain values that serialise, made from the catalogue. No secret is ever in
//! one.

use std::collections::BTreeMap;

use copal_application::CaptureRecord;
use copal_engine::catalogue::{Listed, Unreadable};
use copal_engine::inspect::{DiffItem, DiffReport};
use copal_manifest::entry::{Entry, Node, Timestamp};
use copal_manifest::snapshot::{Consistency, LiveRecord, Origin, Phase, Snapshot};
use copal_store::SnapshotId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    /// UUID.
    pub id: String,
    /// Unique in its application.
    pub name: String,
    /// Application; empty for none.
    pub app: String,
    /// Begin of the capture, RFC 3339.
    pub created: String,
    /// End of the capture.
    pub completed: String,
    /// `completed` or `partially_failed`.
    pub phase: String,
    /// `created` or `imported`.
    pub origin: String,
    /// Entries that are no folders.
    pub files: u64,
    /// Logical bytes.
    pub size: u64,
    /// Logical bytes: the same as `size`, under the name that the program uses.
    pub bytes: u64,
    /// Plaintext of the chunks that were new with it.
    pub bytes_new: u64,
    /// What the repository grew by when it was taken.
    pub stored_new: u64,
    /// Stored bytes that would come back with its deletion, when they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_bytes: Option<u64>,
    /// Version of the database's schema as it was captured; null when nobody could say.
    pub db_version: Option<String>,
    /// How far its sources agree: `application` or `crash`; null for a plain snapshot of files.
    pub consistency: Option<String>,
    /// What caused it: `manual`, `schedule`, `safety` …
    pub trigger: Option<String>,
    /// Version of the application's configuration.
    pub config_version: Option<String>,
    /// Taken by itself before a deploy; exempt from every count.
    pub safety: bool,
    /// For how long the application held still, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_microseconds: Option<u64>,
    /// Whether automatic removal passes it over.
    pub pinned: bool,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// SHA-256 of the committed root.
    pub digest: String,
    /// What the signatures of the key that made it are known by; null when nobody signed it.
    pub key: Option<String>,
    /// Where it was taken.
    pub host: String,
    /// Who took it; empty where nobody wrote it down.
    pub user: String,
    /// The snapshot that it was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its sources.
    pub sources: Vec<SourceView>,
    /// What could not be read.
    pub warnings: Vec<String>,
}

/// A source of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceView {
    /// Label; empty for a single unlabelled source.
    pub label: String,
    /// `tree`, `sqlite`, `postgres` …
    pub kind: String,
    /// Version of its schema as it was captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
    /// Where it was taken from.
    pub path: String,
    /// Entries that are no folders.
    pub files: u64,
    /// Logical bytes.
    pub bytes: u64,
}

/// A capture under way, or one that failed. Completed ones are snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaptureView {
    /// UUID of the snapshot.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `quiescing`, `capturing`, `resuming`, `uploading`, `failed`, `canceled`.
    pub phase: String,
    /// Snapshot class.
    pub class: String,
    /// What caused it.
    pub trigger: String,
    /// Begin, RFC 3339.
    pub created: String,
    /// When the application went on.
    pub captured: Option<String>,
    /// For how long it held still, in microseconds.
    pub frozen_microseconds: u64,
    /// Bytes of the upload so far.
    pub bytes_done: u64,
    /// Bytes of the upload.
    pub bytes_total: u64,
    /// Plaintext bytes that the repository lacked.
    pub bytes_new: u64,
    /// The sources.
    pub components: Vec<ComponentView>,
    /// Code word of its failure.
    pub error_code: Option<String>,
    /// Its failure, as a sentence.
    pub error: Option<String>,
}

/// One source of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComponentView {
    /// Label of the source.
    pub label: String,
    /// The service that it belongs to.
    pub service: String,
    /// Where it stands.
    pub phase: String,
    /// Why it is missing.
    pub error: Option<String>,
}

impl CaptureView {
    pub(crate) fn new(record: &CaptureRecord) -> Self {
        let id = SnapshotId::from_hex(&record.id).map_or_else(|| record.id.clone(), uuid);
        Self {
            id,
            name: record.name.clone(),
            phase: record.phase.name().into(),
            class: record.class.clone(),
            trigger: record.trigger.clone(),
            created: rfc3339(record.created),
            captured: record.captured.map(rfc3339),
            frozen_microseconds: record.frozen_microseconds,
            bytes_done: record.bytes_done,
            bytes_total: record.bytes_total,
            bytes_new: record.bytes_new,
            components: record
                .components
                .iter()
                .map(|component| ComponentView {
                    label: component.label.clone(),
                    service: component.service.clone(),
                    phase: component.phase.name().into(),
                    error: component.error.clone(),
                })
                .collect(),
            error_code: record.error.as_ref().map(|error| error.code.clone()),
            error: record.error.as_ref().map(|error| error.message.clone()),
        }
    }
}

/// A snapshot that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnreadableView {
    /// UUID.
    pub id: String,
    /// Why.
    pub detail: String,
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffLine {
    /// `[label/]path`.
    pub path: String,
    /// Bytes in the first; null where absent.
    pub size_old: Option<u64>,
    /// Bytes in the second; null where absent.
    pub size_new: Option<u64>,
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffView {
    /// Only in the second.
    pub added: Vec<DiffLine>,
    /// Only in the first.
    pub removed: Vec<DiffLine>,
    /// In both, differing in content or metadata.
    pub changed: Vec<DiffLine>,
    /// How many there are of each, when the lists are cut short.
    pub added_total: u64,
    /// See `added_total`.
    pub removed_total: u64,
    /// See `added_total`.
    pub changed_total: u64,
    /// Whether the lists are cut short.
    pub truncated: bool,
    /// Labels of sources that cannot be compared with what stands there, and are replaced.
    #[serde(default)]
    pub uncompared: Vec<String>,
}

/// An entry of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryView {
    /// `[label/]path`.
    pub path: String,
    /// The path's bytes in hexadecimal, when they are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// `file`, `folder`, `symlink`, `hardlink` or `special`.
    pub kind: String,
    /// Logical bytes of a file.
    pub size: u64,
    /// Permission bits, octal.
    pub mode: String,
    /// Time of the last change, RFC 3339.
    pub modified: String,
}

impl SnapshotView {
    /// Of a catalogue's line.
    #[must_use]
    pub fn new(listed: &Listed) -> Self {
        let snapshot = &listed.snapshot;
        let live = snapshot.live.as_ref();
        let bytes = snapshot.bytes();
        Self {
            id: uuid(snapshot.id),
            name: snapshot.name.clone(),
            app: snapshot.app.clone(),
            created: rfc3339(snapshot.created),
            completed: rfc3339(snapshot.completed),
            phase: phase(snapshot.phase).into(),
            origin: origin(snapshot.origin).into(),
            files: snapshot.files(),
            size: bytes,
            bytes,
            bytes_new: snapshot.bytes_new,
            stored_new: snapshot.stored_new,
            unique_bytes: None,
            db_version: db_version(snapshot),
            consistency: live.map(|live| consistency(live.consistency).into()),
            trigger: live.map(|live| live.trigger.clone()),
            config_version: live.map(|live| live.config_version.clone()).filter(|version| !version.is_empty()),
            safety: live.is_some_and(|live| live.safety),
            frozen_microseconds: live.map(|live| live.frozen_microseconds),
            pinned: snapshot.pinned,
            tags: snapshot.tags.iter().cloned().collect(),
            digest: listed.digest.clone(),
            key: listed.signer.map(|signer| signer.to_string()),
            host: snapshot.host.clone(),
            user: snapshot.user.clone(),
            parent: snapshot.parent.map(uuid),
            sources: snapshot
                .sources
                .iter()
                .map(|source| SourceView {
                    label: source.label.clone(),
                    kind: source.kind.name().into(),
                    schema_version: live.and_then(|live| schema_version(live, &source.label)),
                    path: String::from_utf8_lossy(&source.path).into_owned(),
                    files: source.files,
                    bytes: source.bytes,
                })
                .collect(),
            warnings: snapshot.warnings.clone(),
        }
    }

    /// `APP/NAME`, or `NAME`.
    #[must_use]
    pub fn full_name(&self) -> String {
        Snapshot::full_name(&self.app, &self.name)
    }
}

impl UnreadableView {
    pub(crate) fn new(unreadable: &Unreadable) -> Self {
        Self { id: uuid(unreadable.root.snapshot), detail: unreadable.detail.clone() }
    }
}

impl DiffView {
    /// Of a report that may hold only the first of each list.
    #[must_use]
    pub fn new(report: &DiffReport) -> Self {
        let lines = |items: &[DiffItem]| items.iter().map(DiffLine::new).collect();
        let [added_total, removed_total, changed_total] = report.totals;
        let held = [report.added.len(), report.removed.len(), report.changed.len()];
        Self {
            added: lines(&report.added),
            removed: lines(&report.removed),
            changed: lines(&report.changed),
            added_total,
            removed_total,
            changed_total,
            uncompared: Vec::new(),
            truncated: report.totals.iter().zip(held).any(|(total, held)| *total > held as u64),
        }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added_total + self.removed_total + self.changed_total == 0 && self.uncompared.is_empty()
    }
}

impl DiffLine {
    fn new(item: &DiffItem) -> Self {
        Self {
            path: String::from_utf8_lossy(&item.path).into_owned(),
            size_old: item.size_old,
            size_new: item.size_new,
        }
    }
}

impl EntryView {
    pub(crate) fn new(path: &[u8], entry: &Entry) -> Self {
        let (kind, size) = match &entry.node {
            Node::Directory => ("folder", 0),
            Node::File(content) => ("file", content.bytes),
            Node::Symlink(_) => ("symlink", 0),
            Node::HardLink(_) => ("hardlink", 0),
            _ => ("special", 0),
        };
        let text = String::from_utf8_lossy(path).into_owned();
        Self {
            path_hex: (text.as_bytes() != path).then(|| hex::encode(path)),
            path: text,
            kind: kind.into(),
            size,
            mode: format!("{:04o}", entry.metadata.mode & 0o7777),
            modified: rfc3339(entry.metadata.modified),
        }
    }
}

/// The tag that keeps the version of a database's schema.
pub const DB_VERSION_TAG: &str = "db_version";

/// Of the first database; what an import brought as a tag counts too.
fn db_version(snapshot: &Snapshot) -> Option<String> {
    let components = snapshot.live.iter().flat_map(|live| &live.components);
    if let Some(version) = components.filter_map(|component| component.schema_version.clone()).next() {
        return Some(version);
    }
    snapshot.tags.iter().find(|(key, _)| key == DB_VERSION_TAG).map(|(_, value)| value.clone())
}

fn schema_version(live: &LiveRecord, label: &str) -> Option<String> {
    live.components.iter().find(|component| component.label == label)?.schema_version.clone()
}

fn consistency(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Application => "application",
        Consistency::Crash => "crash",
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Completed => "completed",
        Phase::PartiallyFailed => "partially_failed",
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Created => "created",
        Origin::Imported => "imported",
    }
}

/// RFC 3339 in UTC; a time that no calendar has is its nearest end.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    moment(at).to_string()
}

pub(crate) fn moment(at: Timestamp) -> jiff::Timestamp {
    let end = if at.seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let nanoseconds = i32::try_from(at.nanoseconds).unwrap_or(0);
    jiff::Timestamp::new(at.seconds, nanoseconds).unwrap_or(end)
}

/// The usual form of a UUID.
#[must_use]
pub fn uuid(id: SnapshotId) -> String {
    uuid::Uuid::from_bytes(id.0).hyphenated().to_string()
}
