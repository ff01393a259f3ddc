//! The repository whose bytes stand on the pages of `docs/format/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use copal_manifest::content::{Cutting, FileContent, Piece, Pieces};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp};
use copal_manifest::snapshot::{Label, Origin, PLAIN_SNAPSHOT_VERSION, Phase, Snapshot, SourceKind, SourceRecord};
use copal_manifest::tree::{TreeBuilder, TreeRoot};
use copal_sim::memory::MemoryBackend;
use copal_store::backend::{Hold, ObjectKind, ObjectName};
use copal_store::collect::{CollectOptions, Marker, Reachability, collect};
use copal_store::config::{CipherSuite, Parameters};
use copal_store::describe::describe;
use copal_store::entropy::Entropy;
use copal_store::keys::{Credential, StretchCost};
use copal_store::location::RecordKind;
use copal_store::repository::{InitOptions, Repository, RootName};
use copal_store::session::{DeltaBase, Reservation, Session};
use copal_store::{ChunkId, ObjectId, Result, SnapshotId};
use zeroize::Zeroizing;

pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const SNAPSHOT: SnapshotId =
    SnapshotId([0x01, 0x9b, 0x76, 0xda, 0xa8, 0x00, 0x70, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0x01]);
/// 2026-01-01T00:00:00Z.
const NEW_YEAR: Timestamp = Timestamp { seconds: 1_767_225_600, nanoseconds: 0 };

/// The first draw is 00 01 02 …, the draw of number n is the byte n repeated.
#[derive(Debug, Default)]
struct CountingEntropy {
    draws: AtomicU8,
}

impl Entropy for CountingEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        match self.draws.fetch_add(1, Ordering::Relaxed) {
            0 => (0..).zip(buffer).for_each(|(number, byte)| *byte = number),
            draw => buffer.fill(draw),
        }
        Ok(())
    }
}

pub(crate) fn credential(password: &str) -> Credential {
    Credential::Password(Zeroizing::new(password.as_bytes().to_vec()))
}

/// Marks what the first snapshot reaches.
struct Toy(Vec<ChunkId>);

impl Reachability for Toy {
    fn mark_root(&self, _root: &RootName, _payload: &[u8], marker: &dyn Marker) -> Result<()> {
        self.0.iter().try_for_each(|id| marker.mark(id))
    }
}

/// The objects of the pages.
pub(crate) struct Example {
    pub(crate) repository: Repository,
    pub(crate) slot: ObjectName,
    pub(crate) roster: ObjectName,
    pub(crate) data_pack: ObjectName,
    pub(crate) node_pack: ObjectName,
    pub(crate) fragment: ObjectName,
    pub(crate) root: ObjectName,
    pub(crate) label: ObjectName,
    pub(crate) sentence: ObjectName,
    pub(crate) sessions: ObjectName,
    pub(crate) witness: Box<dyn Hold>,
    pub(crate) tree: TreeRoot,
    pub(crate) chunks: Vec<(ChunkId, Vec<u8>)>,
}

impl Example {
    pub(crate) fn new() -> Self {
        let repository = init();
        // Draws that nothing uses: which of two open packs a record goes to follows from the draws, and the
        // pages show one pack.
        (0..2).for_each(|_| repository.entropy().fill(&mut [0; 8]).unwrap());
        let list = |kind| -> Vec<ObjectName> {
            repository.backend().list(kind).unwrap().into_iter().map(|object| object.name).collect()
        };
        let only = |kind| {
            let names = list(kind);
            assert_eq!(names.len(), 1, "{names:?}");
            names[0].clone()
        };
        let keys = list(ObjectKind::KeySlot);
        let (rosters, slots): (Vec<_>, Vec<_>) = keys.into_iter().partition(|name| name.name().starts_with("roster-"));
        assert_eq!((slots.len(), rosters.len()), (1, 2), "a slot, a roster and its copy");
        let (slot, roster) = (slots[0].clone(), rosters[0].clone());
        let (chunks, tree) = take_snapshot(&repository);
        let is_nodes = |name: &ObjectName| {
            let fields = describe(&repository, name).unwrap().fields;
            fields.contains(&("record kind".into(), "Node".into()))
        };
        let packs = list(ObjectKind::Pack);
        assert_eq!(packs.len(), 2, "all data lands in one pack");
        let (nodes, data): (Vec<_>, Vec<_>) = packs.into_iter().partition(is_nodes);
        let (fragment, root) = (only(ObjectKind::Index), only(ObjectKind::Root));
        let tags = vec![("reason".to_owned(), "before the upgrade".to_owned())];
        let payload = Label { version: 1, tags, pinned: true }.encode().unwrap();
        repository.write_label(SNAPSHOT, &payload).unwrap();
        let label = only(ObjectKind::Label);
        let witness = take_and_delete_another(&repository);
        let mut live: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
        live.push(tree.id);
        let report = collect(&repository, &Toy(live), CollectOptions::default()).unwrap();
        assert_eq!(report.packs_waiting, 1, "{report:?}");
        let (sessions, sentence): (Vec<_>, Vec<_>) =
            list(ObjectKind::Condemned).into_iter().partition(|name| name.name().ends_with("-sessions"));
        let (data_pack, node_pack) = (data[0].clone(), nodes[0].clone());
        let (sentence, sessions) = (sentence[0].clone(), sessions[0].clone());
        Self {
            slot,
            roster,
            data_pack,
            node_pack,
            fragment,
            root,
            label,
            sentence,
            sessions,
            witness,
            tree,
            chunks,
            repository,
        }
    }

    pub(crate) fn hold_lease(&self) -> Box<dyn Hold> {
        let name = ObjectName::new(ObjectKind::Lease, "maintenance").unwrap();
        self.repository.backend().hold(&name, b"").unwrap()
    }
}

fn init() -> Repository {
    init_with(Arc::new(MemoryBackend::new()), Parameters::default())
}

pub(crate) fn init_with(backend: Arc<MemoryBackend>, parameters: Parameters) -> Repository {
    let options = InitOptions {
        parameters,
        suite: CipherSuite::Aes256Gcm,
        stretch: StretchCost::default(),
        slot_label: "first".into(),
        created_seconds: NEW_YEAR.seconds,
    };
    Repository::init(backend, Arc::new(CountingEntropy::default()), &credential(PASSWORD), &options).unwrap()
}

/// Two small files in a frame, a file of its own, and a later version of it as a delta.
fn take_snapshot(repository: &Repository) -> (Vec<(ChunkId, Vec<u8>)>, TreeRoot) {
    let base = vec![b'a'; 64 << 10];
    let mut changed = base.clone();
    changed[1000] = b'b';
    let contents = [b"the first small file\n".to_vec(), b"the second small file\n".to_vec(), base, changed];
    let keys = repository.keys();
    let chunks: Vec<(ChunkId, Vec<u8>)> = contents.into_iter().map(|plain| (keys.chunk_id(&plain), plain)).collect();
    let session = Session::begin(repository).unwrap();
    let mut writer = session.writer().unwrap();
    for (id, _) in &chunks {
        assert_eq!(session.reserve(id).unwrap(), Reservation::Mine);
    }
    let (small, large) = chunks.split_at(2);
    let members: Vec<(ChunkId, u32)> = small.iter().map(|(id, plain)| (*id, plain.len() as u32)).collect();
    let frame: Vec<u8> = small.iter().flat_map(|(_, plain)| plain.clone()).collect();
    writer.store_frame(&members, &frame).unwrap();
    let ((base_id, base), (changed_id, changed)) = (&large[0], &large[1]);
    writer.store(RecordKind::Data, base_id, base, None).unwrap();
    let delta = DeltaBase { id: *base_id, plain: base };
    writer.store(RecordKind::Data, changed_id, changed, Some(delta)).unwrap();
    let mut tree = TreeBuilder::new(&keys.tree_boundary_key());
    tree.push(&entry("", 0o755, Node::Directory), &mut writer).unwrap();
    for (name, (id, plain)) in ["a.txt", "b.txt", "c.log", "d.log"].into_iter().zip(&chunks) {
        let cutting = if plain.len() < 1000 { Cutting::Small } else { Cutting::Content };
        let pieces = Pieces::Inline(vec![Piece::Chunk { id: *id, bytes: plain.len() as u32 }]);
        let content = FileContent { bytes: plain.len() as u64, cutting, pieces };
        tree.push(&entry(name, 0o644, Node::File(content)), &mut writer).unwrap();
    }
    let tree = tree.finish(&mut writer).unwrap();
    drop(writer);
    let index = session.seal_packs().unwrap().sync().unwrap().publish_index().unwrap();
    let snapshot = snapshot(tree, &chunks);
    let tag = keys.name_tag(Snapshot::full_name(&snapshot.app, &snapshot.name).as_bytes());
    index.publish_root(RootName { tag, snapshot: SNAPSHOT }, &snapshot.encode().unwrap()).unwrap();
    session.end().unwrap();
    (chunks, tree)
}

fn entry(path: &str, mode: u32, node: Node) -> Entry {
    let metadata =
        Metadata { mode, uid: 1000, gid: 1000, modified: NEW_YEAR, changed: NEW_YEAR, inode: 7, xattrs: Vec::new() };
    Entry { path: EntryPath::from_slashes(path.as_bytes()).unwrap(), metadata, node }
}

fn snapshot(tree: TreeRoot, chunks: &[(ChunkId, Vec<u8>)]) -> Snapshot {
    let bytes = chunks.iter().map(|(_, plain)| plain.len() as u64).sum();
    let source = SourceRecord {
        label: String::new(),
        kind: SourceKind::Tree,
        path: b"/srv/hub".to_vec(),
        tree,
        files: 4,
        entries: 5,
        bytes,
        device: 2049,
        trusted_before: NEW_YEAR,
    };
    Snapshot {
        version: PLAIN_SNAPSHOT_VERSION,
        id: SNAPSHOT,
        name: "monday".into(),
        app: "hub".into(),
        created: NEW_YEAR,
        completed: NEW_YEAR,
        phase: Phase::Completed,
        origin: Origin::Created,
        host: "alder".into(),
        program: "copal 0.1.0".into(),
        parent: None,
        sources: vec![source],
        tags: Vec::new(),
        pinned: false,
        bytes_read: bytes,
        bytes_new: bytes,
        stored_new: 12_288,
        chunks_new: 4,
        warnings: Vec::new(),
        live: None,
        rules: Vec::new(),
        user: String::new(),
    }
}

/// A second snapshot, deleted while a session lives that saw it: its pack is condemned and waits. Returns
/// that session's hold.
fn take_and_delete_another(repository: &Repository) -> Box<dyn Hold> {
    let session = Session::begin(repository).unwrap();
    let mut writer = session.writer().unwrap();
    let plain = b"gone tomorrow\n";
    let id = repository.keys().chunk_id(plain);
    assert_eq!(session.reserve(&id).unwrap(), Reservation::Mine);
    writer.store(RecordKind::Data, &id, plain, None).unwrap();
    drop(writer);
    session.checkpoint().unwrap();
    session.end().unwrap();
    let mut witness = [0; 16];
    repository.entropy().fill(&mut witness).unwrap();
    let name = ObjectName::new(ObjectKind::Session, ObjectId(witness).to_string()).unwrap();
    repository.backend().hold(&name, b"").unwrap()
}
