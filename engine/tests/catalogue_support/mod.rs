//! What the tests of catalogue, removal, inspection and verification share: a repository in memory that
//! counts and fails, and snapshots made by hand, so that a test knows every chunk of them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use copal_engine::inspect::{dump, ls};
use copal_engine::{Clock, Context, Monitor, Progress};
use copal_manifest::content::{Cutting, FileContent, Piece, PiecesBuilder};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp};
use copal_manifest::snapshot::{Origin, Phase, Snapshot, SourceKind, SourceRecord};
use copal_manifest::tree::TreeBuilder;
use copal_sim::fault::FaultBackend;
use copal_sim::memory::MemoryBackend;
use copal_sim::recording::{Operation, RecordingBackend};
use copal_sim::seeded::SeededEntropy;
use copal_store::backend::{Backend, ObjectKind, ObjectName, publish_bytes};
use copal_store::config::{CipherSuite, Parameters};
use copal_store::keys::{Credential, StretchCost};
use copal_store::location::RecordKind;
use copal_store::repository::{InitOptions, Repository, RootName};
use copal_store::session::{ChunkWriter, Reservation, Session};
use copal_store::{Result, SnapshotId};
use tempfile::TempDir;

/// A clock that a test sets.
#[derive(Debug, Default)]
pub struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0.load(Ordering::Relaxed), nanoseconds: 0 }
    }
    fn monotonic_nanoseconds(&self) -> u64 {
        0
    }
}

/// Keeps what it hears.
#[derive(Debug, Default)]
pub struct Notices(Mutex<Vec<String>>);

impl Notices {
    /// What was said since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Monitor for Notices {
    fn phase(&self, _name: &'static str) {}
    fn progress(&self, _progress: Progress) {}
    fn notice(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

pub struct World {
    pub context: Context,
    pub faults: FaultBackend,
    pub memory: MemoryBackend,
    pub recording: RecordingBackend,
    pub notices: Arc<Notices>,
    pub folder: TempDir,
    clock: Arc<SetClock>,
}

impl World {
    pub fn new() -> Self {
        Self::seeded(1)
    }

    pub fn seeded(seed: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let memory = MemoryBackend::new();
        let faults = FaultBackend::new(Arc::new(memory.clone()));
        let recording = RecordingBackend::new(Arc::new(faults.clone()));
        let options = InitOptions {
            parameters: Parameters { pack_bytes_max: 1 << 20, ..Parameters::default() },
            suite: CipherSuite::Aes256Gcm,
            stretch: StretchCost::default(),
            slot_label: "test".into(),
            created_seconds: 0,
        };
        let repository = Repository::init(
            Arc::new(recording.clone()),
            Arc::new(SeededEntropy::new(seed)),
            &Credential::KeyFile(zeroize::Zeroizing::new([7; 32])),
            &options,
        )
        .unwrap();
        let notices = Arc::new(Notices::default());
        let clock = Arc::new(SetClock::default());
        let context = Context {
            repository,
            clock: clock.clone(),
            monitor: notices.clone(),
            cache_folder: Some(folder.path().join("cache")),
            memory: None,
            state_folder: None,
            own_places: Vec::new(),
            interrupt: Arc::new(AtomicBool::new(false)),
            threads: 2,
            host: "test".into(),
            user: "tester".into(),
            program: "test".into(),
        };
        Self { context, faults, memory, recording, notices, folder, clock }
    }

    /// In seconds.
    pub fn set_time(&self, seconds: i64) {
        self.clock.0.store(seconds, Ordering::Relaxed);
    }

    pub fn repository(&self) -> &Repository {
        &self.context.repository
    }

    /// Where the cache of the catalogue is.
    pub fn cache(&self) -> PathBuf {
        let repository = self.repository().config().repository.to_string();
        self.folder.path().join("cache").join(repository).join("state.redb")
    }

    pub fn commit(&self, app: &str, name: &str, seconds: i64) -> Snapshot {
        let snapshot = snapshot(app, name, seconds);
        self.publish(&snapshot).unwrap();
        snapshot
    }

    /// A snapshot with one unlabelled source of these files (path, content), stored.
    pub fn store(&self, app: &str, name: &str, seconds: i64, files: &[(&str, Vec<u8>)]) -> Snapshot {
        let mut made = snapshot(app, name, seconds);
        let session = Session::begin(self.repository()).unwrap();
        made.sources = vec![self.source(&session, "", &entries(files))];
        self.commit_in(session, &made);
        made
    }

    /// Publishes a snapshot whose chunks a session has stored.
    pub fn commit_in(&self, session: Session, snapshot: &Snapshot) {
        let payload = snapshot.encode().unwrap();
        let durable = session.seal_packs().unwrap().sync().unwrap().publish_index().unwrap();
        durable.publish_root(self.root_name(snapshot), &payload).unwrap();
        session.end().unwrap();
    }

    /// Stores the entries of one source.
    pub fn source(&self, session: &Session, label: &str, entries: &BTreeMap<EntryPath, Made>) -> SourceRecord {
        let mut writer = session.writer().unwrap();
        // As programs wrote trees that did not look for the folder of an entry.
        let mut tree = TreeBuilder::of_loose_entries(&self.repository().keys().tree_boundary_key());
        let mut bytes = 0;
        for (path, made) in entries {
            let node = match made {
                Made::Node(node) => node.clone(),
                Made::File(content) => {
                    bytes += content.len() as u64;
                    Node::File(self.content(session, &mut writer, content))
                }
            };
            let mode = if matches!(node, Node::Directory) { 0o755 } else { 0o644 };
            let modified = Timestamp { seconds: 1000, nanoseconds: 1 };
            let metadata = Metadata { mode, modified, ..Metadata::default() };
            tree.push(&Entry { path: path.clone(), metadata, node }, &mut writer).unwrap();
        }
        let is_folder = |made: &&Made| matches!(made, Made::Node(Node::Directory));
        SourceRecord {
            label: label.into(),
            kind: SourceKind::Tree,
            path: b"/srv/data".to_vec(),
            tree: tree.finish(&mut writer).unwrap(),
            files: entries.values().filter(|made| !is_folder(made)).count() as u64,
            entries: entries.len() as u64,
            bytes,
            device: 1,
            trusted_before: Timestamp::default(),
        }
    }

    /// Cut at multiples of [`CHUNK_BYTES`]; pieces of zeros are holes.
    pub fn content(&self, session: &Session, writer: &mut ChunkWriter<'_>, content: &[u8]) -> FileContent {
        let mut pieces = PiecesBuilder::new();
        for chunk in content.chunks(CHUNK_BYTES) {
            let piece = if chunk.iter().all(|&byte| byte == 0) {
                Piece::Hole { bytes: chunk.len() as u64 }
            } else {
                let id = self.repository().keys().chunk_id(chunk);
                if session.reserve(&id).unwrap() == Reservation::Mine {
                    writer.store(RecordKind::Data, &id, chunk, None).unwrap();
                }
                Piece::Chunk { id, bytes: chunk.len() as u32 }
            };
            pieces.push(piece, writer).unwrap();
        }
        pieces.finish(Cutting::Fixed(CHUNK_BYTES as u32), writer).unwrap()
    }

    /// Every file of a snapshot's unlabelled source as it reads back.
    pub fn read_back(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut files = Vec::new();
        ls(&self.context, name, b"", true, &mut |path, entry| {
            if matches!(entry.node, Node::File(_)) {
                files.push(String::from_utf8(path.to_vec()).unwrap());
            }
            Ok(())
        })
        .unwrap();
        for path in files {
            let mut content = Vec::new();
            dump(&self.context, name, path.as_bytes(), &mut content).unwrap();
            found.insert(path, content);
        }
        found
    }

    fn root_name(&self, snapshot: &Snapshot) -> RootName {
        let full = Snapshot::full_name(&snapshot.app, &snapshot.name);
        RootName { tag: self.repository().keys().name_tag(full.as_bytes()), snapshot: snapshot.id }
    }

    pub fn publish(&self, snapshot: &Snapshot) -> Result<RootName> {
        self.publish_payload(snapshot, &snapshot.encode()?)
    }

    pub fn publish_payload(&self, snapshot: &Snapshot, payload: &[u8]) -> Result<RootName> {
        let root = self.root_name(snapshot);
        let session = Session::begin(self.repository())?;
        session.seal_packs()?.sync()?.publish_index()?.publish_root(root, payload)?;
        session.end()?;
        Ok(root)
    }

    pub fn root_object(&self, snapshot: &Snapshot) -> ObjectName {
        let of = |root: &RootName| root.snapshot == snapshot.id;
        let root = self.repository().roots().unwrap().into_iter().find(of).unwrap();
        ObjectName::new(ObjectKind::Root, root.object_name()).unwrap()
    }

    /// Makes an object one of a newer format: its envelope says so.
    pub fn make_newer(&self, name: &ObjectName) {
        let mut bytes = self.memory.read(name, 1 << 30).unwrap();
        assert_eq!(&bytes[..6], b"COPAL\x1a");
        bytes[7] = u8::MAX;
        self.memory.lose(name);
        publish_bytes(&self.memory, name, &bytes).unwrap();
    }

    /// Roots and labels read since the last call.
    pub fn reads(&self) -> u64 {
        let kinds = [ObjectKind::Root, ObjectKind::Label];
        let operations = [Operation::Read, Operation::ReadRange];
        let tally = |kind| operations.map(|operation| self.recording.tally(operation, kind).count).iter().sum::<u64>();
        let reads = kinds.into_iter().map(tally).sum();
        self.recording.reset();
        reads
    }
}

/// Length of the chunks of files made by hand.
pub const CHUNK_BYTES: usize = 64 << 10;

/// An entry to be stored.
#[derive(Clone, Debug)]
pub enum Made {
    Node(Node),
    File(Vec<u8>),
}

/// Files and the folders that they need, root included.
pub fn entries(files: &[(&str, Vec<u8>)]) -> BTreeMap<EntryPath, Made> {
    let mut entries = BTreeMap::from([(EntryPath::root(), Made::Node(Node::Directory))]);
    for (path, content) in files {
        let path = EntryPath::from_slashes(path.as_bytes()).unwrap();
        let mut folder = path.parent();
        while let Some(path) = folder {
            folder = path.parent();
            entries.insert(path, Made::Node(Node::Directory));
        }
        entries.insert(path, Made::File(content.clone()));
    }
    entries
}

/// An id as UUIDs of version 7 are: the time first.
pub fn id(seconds: i64, rest: u64) -> SnapshotId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&(seconds * 1000).to_be_bytes()[2..]);
    bytes[8..].copy_from_slice(blake3::hash(&rest.to_le_bytes()).as_bytes()[..8].as_ref());
    bytes[6] = 0x70;
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    SnapshotId(bytes)
}

pub fn snapshot(app: &str, name: &str, seconds: i64) -> Snapshot {
    let created = Timestamp { seconds, nanoseconds: 0 };
    let seed = blake3::hash(format!("{app}/{name}").as_bytes());
    Snapshot {
        version: 1,
        id: id(seconds, u64::from_le_bytes(seed.as_bytes()[..8].try_into().unwrap())),
        name: name.into(),
        app: app.into(),
        created,
        completed: created,
        phase: Phase::Completed,
        origin: Origin::Created,
        host: "test".into(),
        program: "test".into(),
        parent: None,
        sources: Vec::new(),
        tags: vec![("made".into(), "by a test".into())],
        pinned: false,
        bytes_read: 1,
        bytes_new: 2,
        stored_new: 3,
        chunks_new: 4,
        warnings: Vec::new(),
        live: None,
        rules: Vec::new(),
        user: String::new(),
    }
}
