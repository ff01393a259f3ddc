//! Imports a hub-tar as a snapshot of the sources `hub.db`, `bucket` and `key`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use copal_engine::Error as EngineError;
use copal_engine::catalogue::{name_taken, payload_digest, publish_named};
use copal_engine::context::{Context, Progress};
use copal_engine::create::creation::{check_new_name, cutter_of, new_snapshot_id, tidy_index};
use copal_engine::storing::stream::{Ingest, with_ingest};
use copal_manifest::content::{Cutting, FileContent, Piece, Pieces};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp};
use copal_manifest::snapshot::{
    ComponentRecord, Consistency, LiveRecord, Origin, Phase, Snapshot, SourceKind, SourceRecord, SourceRules, is_name,
};
use copal_manifest::tree::TreeBuilder;
use copal_store::secret::INSTANCE_KEY;
use copal_store::session::Session;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::hub_tar::left_out::judged;
use crate::hub_tar::manifest::{HubManifest, open_key};
use crate::hub_tar::scan::{HubLimits, Member, Part, bad, broken, scan};
use crate::hub_tar::{BUCKET, DATABASE, KEY, SQLITE_HEADER_BYTES, user_version};
use crate::import::{Imported, has_name};
use crate::{Watch, name_of};

/// What to import.
#[derive(Clone, Debug, Default)]
pub struct HubImportRequest {
    /// Name; `None`: that of the manifest.
    pub name: Option<String>,
    /// Application; empty for none.
    pub app: String,
    /// Opens the key.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// What it may cost.
    pub limits: HubLimits,
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubImportReport {
    /// The snapshot.
    pub imported: Imported,
    /// Bytes that came by.
    pub bytes: u64,
    /// Plaintext of chunks that were not here.
    pub bytes_new: u64,
    /// What the repository grew by.
    pub stored_new: u64,
    /// New chunks.
    pub chunks_new: u64,
    /// Whether the instance's key came with it.
    pub has_key: bool,
    /// Milliseconds.
    pub duration_ms: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Imports. The file is read wholly before anything is stored; a wrong password or anything odd leaves
/// nothing behind.
pub fn import(context: &Context, mut file: File, request: &HubImportRequest) -> Result<HubImportReport> {
    let begun = context.clock.monotonic_nanoseconds();
    context.monitor.phase("verifying");
    let (manifest, ..) = judge(Watch::of(context), &mut file, &request.limits)?;
    let mut warnings = Vec::new();
    let key = match (&manifest.key, &request.password) {
        (Some(key), Some(password)) => Some(open_key(password, key)?),
        (Some(_), None) => {
            return Err(Error::usage("the bundle holds an encrypted key: its password is needed"));
        }
        (None, _) => {
            warnings.push(
                "the bundle has no key: what the application encrypted with it can be read by the same instance only"
                    .to_owned(),
            );
            None
        }
    };
    let session = context.session()?;
    let mut snapshot = snapshot_of(context, &manifest, request)?;
    if has_name(&session, &snapshot)? {
        return Err(name_taken(context, name_of(&snapshot)).into());
    }
    context.monitor.phase("storing");
    let cutter = cutter_of(&session)?;
    let stored = with_ingest(&session, &cutter, context.worker_threads(), |ingest| {
        let mut taking = Taking { context, database: None, bucket: BTreeMap::new(), header: Vec::new() };
        let bytes = rewound(&mut file)?;
        scan(&file, bytes, &request.limits, &mut |member, data| taking.take(member, data, ingest))?;
        taking.finish(&session, key.as_ref().map(|key| key.as_slice()), ingest)
    });
    let stored = match stored {
        Err(error) if error.is_interrupted() => {
            session.checkpoint()?;
            return Err(EngineError::Interrupted.into());
        }
        stored => stored?,
    };
    let version = manifest.db_version.clone().or_else(|| user_version(&stored.header));
    let has_key = key.is_some();
    snapshot.live = Some(live_record(&stored.sources, version, snapshot.created));
    snapshot.sources = stored.sources;
    for source in &mut snapshot.sources {
        source.path = manifest.path_of(&source.label);
    }
    let rules = judged(&manifest.left_out)?;
    if !rules.is_empty() {
        snapshot.rules.push(SourceRules { label: BUCKET.to_owned(), rules });
    }
    snapshot.version = snapshot.version_to_write();
    let durable = session.seal_packs()?.sync()?.publish_index()?;
    let counters = session.counters();
    snapshot.bytes_read = stored.bytes;
    (snapshot.bytes_new, snapshot.stored_new, snapshot.chunks_new) =
        (counters.bytes_new, counters.bytes_stored, counters.chunks_new);
    snapshot.warnings.clone_from(&warnings);
    snapshot.completed = context.clock.now();
    let payload = snapshot.encode()?;
    publish_named(context, durable, &snapshot, &payload)?;
    let counters = session.counters();
    session.end()?;
    tidy_index(context);
    let digest = payload_digest(&payload);
    Ok(HubImportReport {
        imported: Imported { snapshot, digest: digest.clone(), digest_there: String::new(), was_here: false },
        bytes: stored.bytes,
        bytes_new: counters.bytes_new,
        stored_new: counters.bytes_stored,
        chunks_new: counters.chunks_new,
        has_key,
        duration_ms: context.clock.monotonic_nanoseconds().saturating_sub(begun) / 1_000_000,
        warnings,
    })
}

/// What is in a hub-tar that is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSummary {
    /// The name in its manifest.
    pub name: String,
    /// Whether a key is in it; with a password, that it opens.
    pub has_key: bool,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads a hub-tar wholly, without a repository; with a password its key is opened too.
pub fn verify(watch: Watch<'_>, mut file: File, password: Option<&[u8]>, limits: &HubLimits) -> Result<HubSummary> {
    watch.monitor.phase("verifying");
    let (manifest, files, bytes) = judge(watch, &mut file, limits)?;
    if let (Some(key), Some(password)) = (&manifest.key, password) {
        open_key(password, key)?;
    }
    Ok(HubSummary { has_key: manifest.key.is_some(), name: manifest.name, files, bytes })
}

/// Reads the file wholly; returns its manifest, the number of its files and their bytes.
fn judge(watch: Watch<'_>, file: &mut File, limits: &HubLimits) -> Result<(HubManifest, u64, u64)> {
    let mut manifest = None;
    let (mut files, mut file_bytes) = (0, 0);
    let bytes = rewound(file)?;
    scan(&*file, bytes, limits, &mut |member, data| {
        watch.check_interrupt()?;
        files += u64::from(!member.is_folder && member.part != Part::Manifest);
        file_bytes += member.bytes;
        watch.monitor.progress(Progress { bytes_done: file_bytes, ..Progress::default() });
        if member.part == Part::Manifest {
            let mut text = Vec::new();
            data.read_to_end(&mut text).map_err(broken)?;
            manifest = Some(HubManifest::decode(&text)?);
        }
        Ok(())
    })?;
    let manifest = manifest.ok_or_else(|| bad("it has no snapshot.yaml"))?;
    Ok((manifest, files, file_bytes))
}

fn rewound(file: &mut File) -> Result<u64> {
    let io = |source| copal_source::Error::Io { action: "reading", path: "the bundle".into(), source };
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok(file.metadata().map_err(io)?.len())
}

fn snapshot_of(context: &Context, manifest: &HubManifest, request: &HubImportRequest) -> Result<Snapshot> {
    let name = request.name.clone().unwrap_or_else(|| manifest.name.clone());
    check_new_name(&name)?;
    if !(request.app.is_empty() || is_name(&request.app)) {
        let name = request.app.clone();
        return Err(EngineError::BadName { name, detail: "it cannot be that of an application".into() }.into());
    }
    let now = context.clock.now();
    let created = manifest.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let created = created.map_or(now, |time| Timestamp {
        seconds: time.as_second(),
        nanoseconds: u32::try_from(time.subsec_nanosecond()).unwrap_or(0),
    });
    Ok(Snapshot {
        version: copal_manifest::snapshot::SNAPSHOT_VERSION,
        id: new_snapshot_id(context, now)?,
        name,
        app: request.app.clone(),
        created,
        completed: now,
        phase: Phase::Completed,
        origin: Origin::Imported,
        host: context.host.clone(),
        program: context.program.clone(),
        parent: None,
        sources: Vec::new(),
        tags: Vec::new(),
        pinned: false,
        bytes_read: 0,
        bytes_new: 0,
        stored_new: 0,
        chunks_new: 0,
        warnings: Vec::new(),
        live: None,
        rules: Vec::new(),
        user: context.user.clone(),
    })
}

fn live_record(sources: &[SourceRecord], db_version: Option<String>, captured: Timestamp) -> LiveRecord {
    let component = |source: &SourceRecord| ComponentRecord {
        label: source.label.clone(),
        service: String::new(),
        schema_version: db_version.clone().filter(|_| source.label == DATABASE),
        method: "read".into(),
        error: None,
    };
    LiveRecord {
        config_version: String::new(),
        class: String::new(),
        trigger: "import".into(),
        consistency: Consistency::Application,
        captured,
        frozen_microseconds: 0,
        safety: false,
        components: sources.iter().map(component).collect(),
        hooks: Vec::new(),
    }
}

/// Contents that were stored, before they are trees.
struct Taking<'t> {
    context: &'t Context,
    database: Option<(Metadata, FileContent)>,
    bucket: BTreeMap<EntryPath, (Metadata, Node)>,
    header: Vec<u8>,
}

struct Stored {
    sources: Vec<SourceRecord>,
    header: Vec<u8>,
    bytes: u64,
}

impl Taking<'_> {
    fn take<'s>(&mut self, member: &Member, data: &mut dyn Read, ingest: &mut Ingest<'s>) -> Result<()> {
        self.context.check_interrupt()?;
        let modified = Timestamp { seconds: member.modified_seconds, nanoseconds: 0 };
        let metadata = Metadata { mode: member.mode, modified, ..Metadata::default() };
        match &member.part {
            Part::Manifest => {}
            // `./`: the folder that was archived.
            Part::Bucket(_) if member.mode == u32::MAX => {}
            Part::Bucket(path) if member.is_folder => {
                self.bucket.insert(path.clone(), (metadata, Node::Directory));
            }
            Part::Bucket(path) => {
                let content = self.content(data, ingest, false)?;
                self.bucket.insert(path.clone(), (metadata, Node::File(content)));
            }
            Part::Database => {
                let content = self.content(data, ingest, true)?;
                self.database = Some((metadata, content));
            }
        }
        Ok(())
    }

    fn content<'s>(&mut self, data: &mut dyn Read, ingest: &mut Ingest<'s>, keep_header: bool) -> Result<FileContent> {
        let mut file = ingest.file(None);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = data.read(&mut buffer).map_err(broken)?;
            if read == 0 {
                return Ok(file.finish(ingest)?);
            }
            if keep_header && self.header.len() < SQLITE_HEADER_BYTES {
                let missing = SQLITE_HEADER_BYTES - self.header.len();
                self.header.extend_from_slice(&buffer[..read.min(missing)]);
            }
            file.data(&buffer[..read], ingest)?;
            self.context.check_interrupt()?;
            let progress = Progress { bytes_done: ingest.bytes_taken(), ..Progress::default() };
            self.context.monitor.progress(progress);
        }
    }

    /// Builds the trees, sorted by label.
    fn finish<'s>(mut self, session: &Session, key: Option<&[u8]>, ingest: &mut Ingest<'s>) -> Result<Stored> {
        self.add_missing_folders();
        let boundary = *session.repository().keys().tree_boundary_key();
        let bytes = ingest.bytes_taken();
        let mut sources = vec![tree(BUCKET, SourceKind::Tree, self.bucket, &boundary, ingest)?];
        let one = |node: (Metadata, FileContent)| BTreeMap::from([(EntryPath::root(), (node.0, Node::File(node.1)))]);
        let database = self.database.ok_or_else(|| bad("it has no hub.db"))?;
        sources.push(tree(DATABASE, SourceKind::Sqlite, one(database), &boundary, ingest)?);
        if let Some(key) = key {
            let wrapped = session.repository().wrap_secret(INSTANCE_KEY, key)?;
            let id = ingest.small_chunk(&wrapped)?;
            let pieces = Pieces::Inline(vec![Piece::Chunk { id, bytes: wrapped.len() as u32 }]);
            let content = FileContent { bytes: wrapped.len() as u64, cutting: Cutting::Small, pieces };
            let metadata = Metadata { mode: 0o600, ..Metadata::default() };
            sources.push(tree(KEY, SourceKind::Secret, one((metadata, content)), &boundary, ingest)?);
        }
        Ok(Stored { sources, header: self.header, bytes })
    }

    /// Folders that only the names of others tell of.
    fn add_missing_folders(&mut self) {
        let metadata = Metadata { mode: 0o755, ..Metadata::default() };
        let mut missing = vec![EntryPath::root()];
        for path in self.bucket.keys() {
            missing.extend(std::iter::successors(path.parent(), EntryPath::parent));
        }
        for path in missing {
            self.bucket.entry(path).or_insert_with(|| (metadata.clone(), Node::Directory));
        }
    }
}

fn tree<'s>(
    label: &str,
    kind: SourceKind,
    entries: BTreeMap<EntryPath, (Metadata, Node)>,
    boundary: &[u8; 32],
    ingest: &mut Ingest<'s>,
) -> Result<SourceRecord> {
    let mut builder = TreeBuilder::new(boundary);
    let (mut files, mut bytes, count) = (0, 0, entries.len() as u64);
    for (path, (metadata, node)) in entries {
        files += u64::from(node != Node::Directory);
        if let Node::File(content) = &node {
            bytes += content.bytes;
        }
        builder.push(&Entry { path, metadata, node }, ingest.sink())?;
    }
    Ok(SourceRecord {
        label: label.to_owned(),
        kind,
        path: Vec::new(),
        tree: builder.finish(ingest.sink())?,
        files,
        entries: count,
        bytes,
        device: 0,
        trusted_before: Timestamp { seconds: i64::MIN, nanoseconds: 0 },
    })
}
