//! What a manifest says: nodes, the root's payload, paths.

use copal_manifest::content::{Cutting, Piece, PiecesBuilder};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp};
use copal_manifest::snapshot::{Origin, PLAIN_SNAPSHOT_VERSION, Phase, Snapshot, SourceKind, SourceRecord};
use copal_manifest::tree::{NodeShape, NodeSink, TreeBuilder, TreeReader, TreeRoot, references};
use copal_store::session::ChunkSource;
use copal_store::{ChunkId, Result, SnapshotId};

/// Gives the same bytes whatever is asked for.
struct Everywhere<'a>(&'a [u8]);

impl ChunkSource for Everywhere<'_> {
    fn read_chunk(&self, _id: &ChunkId) -> Result<Vec<u8>> {
        Ok(self.0.to_vec())
    }
}

/// Entries looked at.
const ENTRIES_MAX: usize = 2000;

/// Any bytes as a node of either tree, at any height, and as every node of a whole tree.
pub fn tree_node(data: &[u8]) {
    let Some((&height, bytes)) = data.split_first() else { return };
    for shape in [NodeShape::Entries(height), NodeShape::Pieces(height)] {
        let _ = references(bytes, shape, &mut |_| {});
    }
    let source = Everywhere(bytes);
    let root = TreeRoot { id: ChunkId([1; 32]), height };
    let mut last: Option<EntryPath> = None;
    for entry in TreeReader::new(&source, root).entries().take(ENTRIES_MAX) {
        let Ok(entry) = entry else { break };
        assert!(last.as_ref().is_none_or(|last| *last < entry.path), "entries out of order were believed");
        if let Node::File(content) = &entry.node {
            let mut at = None;
            for piece in content.pieces(&source, 0, content.bytes).take(ENTRIES_MAX) {
                let Ok(piece) = piece else { break };
                assert!(at.is_none_or(|at| at <= piece.offset), "pieces out of order were believed");
                at = Some(piece.offset);
            }
        }
        last = Some(entry.path);
    }
}

#[derive(Default)]
struct Sink(Vec<Vec<u8>>);

impl NodeSink for Sink {
    fn store_node(&mut self, bytes: &[u8]) -> Result<ChunkId> {
        self.0.push(bytes.to_vec());
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(self.0.len() as u64).to_le_bytes());
        Ok(ChunkId(id))
    }
}

fn metadata(number: u64) -> Metadata {
    Metadata {
        mode: 0o644,
        uid: 1000,
        gid: 7,
        modified: Timestamp { seconds: number as i64, nanoseconds: 5 },
        changed: Timestamp { seconds: number as i64, nanoseconds: 6 },
        inode: number,
        xattrs: Vec::new(),
    }
}

/// Nodes of every kind and height that builders make.
#[must_use]
pub fn tree_node_seeds() -> Vec<Vec<u8>> {
    let mut sink = Sink::default();
    let mut builder = TreeBuilder::new(&[7; 32]);
    let root = Entry { path: EntryPath::root(), metadata: metadata(0), node: Node::Directory };
    builder.push(&root, &mut sink).expect("the root comes first");
    for number in 0..3000u64 {
        let mut pieces = PiecesBuilder::new();
        let count = if number == 7 { 900 } else { 1 };
        for piece in 0..count {
            let mut id = [number as u8; 32];
            id[..8].copy_from_slice(&(number * 1000 + piece).to_le_bytes());
            pieces.push(Piece::Chunk { id: ChunkId(id), bytes: 65_536 }, &mut sink).expect("a sound piece");
        }
        let content = pieces.finish(Cutting::Content, &mut sink).expect("a sound list");
        let path = EntryPath::from_slashes(format!("file {number:05}").as_bytes()).expect("a sound path");
        let entry = Entry { path, metadata: metadata(number), node: Node::File(content) };
        builder.push(&entry, &mut sink).expect("paths ascend");
    }
    builder.finish(&mut sink).expect("a sound tree");
    let mut seeds = Vec::new();
    for height in 0..3u8 {
        for node in &sink.0 {
            let sound = |shape| references(node, shape, &mut |_| {}).is_ok();
            if seeds.len() < 40 && (sound(NodeShape::Entries(height)) || sound(NodeShape::Pieces(height))) {
                seeds.push([&[height], &node[..node.len().min(8000)]].concat());
            }
        }
    }
    seeds
}

/// What decodes as a snapshot is spelled in one way.
pub fn snapshot(data: &[u8]) {
    if let Ok(snapshot) = Snapshot::decode("a snapshot", data) {
        let again = snapshot.encode().expect("what is read can be written");
        assert_eq!(again, data, "a snapshot has two spellings");
    }
}

/// A snapshot with something in every field.
#[must_use]
pub fn snapshot_seeds() -> Vec<Vec<u8>> {
    let source = SourceRecord {
        label: "data".into(),
        path: b"/srv/data".to_vec(),
        kind: SourceKind::Tree,
        tree: TreeRoot { id: ChunkId([3; 32]), height: 2 },
        files: 90,
        entries: 100,
        device: 3,
        trusted_before: Timestamp { seconds: 1_700_000_000, nanoseconds: 2 },
        bytes: 1 << 30,
    };
    let at = Timestamp { seconds: 1_700_000_000, nanoseconds: 1 };
    let snapshot = Snapshot {
        version: PLAIN_SNAPSHOT_VERSION,
        id: SnapshotId([1; 16]),
        name: "nightly".into(),
        app: "shop".into(),
        created: at,
        completed: at,
        phase: Phase::Completed,
        origin: Origin::Created,
        host: "here".into(),
        program: "copal".into(),
        parent: Some(SnapshotId([2; 16])),
        sources: vec![source],
        tags: vec![("a".into(), "b".into())],
        pinned: true,
        bytes_read: 1,
        bytes_new: 2,
        stored_new: 3,
        chunks_new: 4,
        warnings: vec!["one".into()],
        live: None,
        rules: Vec::new(),
        user: String::new(),
    };
    vec![snapshot.encode().expect("a sound snapshot")]
}

/// Any bytes as a path: what is taken goes there and back, and names nothing but what lies below.
pub fn entry_path(data: &[u8]) {
    for path in [EntryPath::from_slashes(data), EntryPath::from_key(data.to_vec())].into_iter().flatten() {
        let slashes = path.to_slashes();
        assert_eq!(EntryPath::from_slashes(&slashes).as_ref(), Some(&path), "a path does not come back");
        assert_eq!(EntryPath::from_key(path.key().to_vec()).as_ref(), Some(&path), "a key does not come back");
        assert!(!slashes.starts_with(b"/"), "a path leaves the tree");
        if !path.is_root() {
            for name in path.names() {
                assert!(
                    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/'),
                    "a name that is none"
                );
            }
            let parent = path.parent().expect("all but the root have a parent");
            assert!(path.is_within(&parent) && parent < path);
        }
    }
}

/// Paths and what looks like one.
#[must_use]
pub fn entry_path_seeds() -> Vec<Vec<u8>> {
    [&b""[..], b"a", b"a/b/c", b"a\0b", b"../etc", b"a/./b", b"a//b", b"/abs", b"a/..", &[0xff, 0xfe]]
        .map(<[u8]>::to_vec)
        .to_vec()
}
