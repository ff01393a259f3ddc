//! Goal: the page `docs/format/manifest-tree.md` says what the code writes, to the byte, and its bytes are
//! read. Method: four nodes are made from counted values; each fenced block of `hex` or `text` on the page is
//! compared with them, and the page's own bytes are decoded.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use copal_manifest::content::{Cutting, FileContent, Piece, Pieces};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp, Xattr};
use copal_manifest::tree::{NodeShape, Reference, TreeReader, TreeRoot, references};
use copal_store::ChunkId;
use copal_store::session::ChunkSource;
use support::{Nodes, build, list, path};

/// 2026-01-01T00:00:00Z.
const NEW_YEAR: i64 = 1_767_225_600;

fn dump(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).enumerate();
    lines.map(|(number, line)| format!("{:04x}  {}\n", number * 32, hex(line))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn undump(text: &str) -> Vec<u8> {
    let digits: String = text.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn blocks() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format/manifest-tree.md");
    let page = fs::read_to_string(page).unwrap();
    let fenced = page.split("```").skip(1).step_by(2);
    let mut found = BTreeMap::new();
    for block in fenced {
        let (info, content) = block.split_once('\n').unwrap();
        assert!(found.insert(info.to_owned(), content.to_owned()).is_none(), "two blocks are called {info}");
    }
    found
}

fn check(expected: &BTreeMap<String, String>) {
    let found = blocks();
    let differing: String = expected
        .iter()
        .filter(|(info, content)| found.get(*info) != Some(content))
        .map(|(info, content)| format!("```{info}\n{content}```\n"))
        .collect();
    assert!(differing.is_empty(), "docs/format/manifest-tree.md should say:\n{differing}");
}

fn metadata(mode: u32, xattrs: Vec<Xattr>) -> Metadata {
    let time = Timestamp { seconds: NEW_YEAR, nanoseconds: 5 };
    Metadata { mode, uid: 1000, gid: 100, modified: time, changed: time, inode: 7, xattrs }
}

fn entry(name: &str, node: Node) -> Entry {
    let path = if name.is_empty() { EntryPath::root() } else { path(name) };
    Entry { path, metadata: metadata(0o644, Vec::new()), node }
}

fn counted(number: u8) -> ChunkId {
    ChunkId([number; 32])
}

/// One entry of each kind.
fn kinds() -> Vec<Entry> {
    let tree = TreeRoot { id: counted(0x11), height: 1 };
    let large = FileContent { bytes: 5 << 20, cutting: Cutting::Fixed(65_536), pieces: Pieces::Tree(tree) };
    let pieces = Pieces::Inline(vec![Piece::Chunk { id: counted(0x22), bytes: 100 }, Piece::Hole { bytes: 4096 }]);
    let sparse = FileContent { bytes: 4196, cutting: Cutting::Content, pieces };
    let mut attributes = entry("d", Node::File(FileContent::empty()));
    attributes.metadata.xattrs = vec![Xattr { name: b"user.a"[..].into(), value: b"b"[..].into() }];
    vec![
        entry("", Node::Directory),
        entry("a", Node::File(large)),
        entry("b", Node::File(sparse)),
        entry("c", Node::Symlink(b"a"[..].into())),
        attributes,
        entry("e", Node::HardLink(path("d"))),
        entry("f", Node::CharDevice { major: 1, minor: 3 }),
        entry("g", Node::Fifo),
    ]
}

fn read(nodes: &Nodes, id: &ChunkId) -> Vec<u8> {
    nodes.read_chunk(id).unwrap()
}

fn listed(bytes: &[u8], shape: NodeShape) -> String {
    let mut lines = String::new();
    references(bytes, shape, &mut |reference| match reference {
        Reference::Node { id, .. } => lines.push_str(&format!("child {id}\n")),
        Reference::Chunk(id, bytes) => lines.push_str(&format!("chunk {id}, {bytes} bytes\n")),
    })
    .unwrap();
    lines
}

#[test]
fn a_leaf_of_every_kind_of_entry() {
    let nodes = Nodes::default();
    let root = build(&nodes, &kinds());
    assert_eq!(root.height, 0);
    let lines = |nodes: &Nodes| -> String {
        TreeReader::new(nodes, root).entries().map(|entry| format!("{:?}\n", Short(&entry.unwrap()))).collect()
    };
    check(&BTreeMap::from([
        ("hex leaf".to_owned(), dump(&read(&nodes, &root.id))),
        ("text leaf".to_owned(), lines(&nodes)),
    ]));
    nodes.replace(root.id, undump(&blocks()["hex leaf"]));
    let decoded: Vec<Entry> = TreeReader::new(&nodes, root).entries().map(Result::unwrap).collect();
    assert_eq!(decoded, kinds());
}

/// What differs between the entries of the example.
struct Short<'a>(&'a Entry);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0.path.to_string())?;
        for Xattr { name, value } in &self.0.metadata.xattrs {
            write!(f, " [{}={}]", name.escape_ascii(), value.escape_ascii())?;
        }
        write!(f, " {:?}", self.0.node)
    }
}

#[test]
fn an_inner_node_of_entries() {
    let nodes = Nodes::default();
    let links: Vec<Entry> = (0..1000).map(|number| entry(&format!("link {number:03}"), Node::Fifo)).collect();
    let root = build(&nodes, &links);
    assert_eq!(root.height, 1);
    let bytes = read(&nodes, &root.id);
    check(&BTreeMap::from([
        ("hex inner".to_owned(), dump(&bytes)),
        ("text inner".to_owned(), listed(&bytes, NodeShape::Entries(1))),
    ]));
    nodes.replace(root.id, undump(&blocks()["hex inner"]));
    assert_eq!(TreeReader::new(&nodes, root).entries().map(Result::unwrap).count(), 1000);
    assert!(TreeReader::new(&nodes, root).get(&path("link 777")).unwrap().is_some());
}

fn top(content: &FileContent) -> TreeRoot {
    match &content.pieces {
        Pieces::Tree(root) => *root,
        Pieces::Inline(_) => panic!("a list of so many pieces is a tree"),
    }
}

#[test]
fn a_leaf_of_pieces() {
    let nodes = Nodes::default();
    let pieces: Vec<Piece> = (0..17)
        .map(|number| match number % 2 {
            0 => Piece::Chunk { id: counted(number), bytes: 65_536 },
            _ => Piece::Hole { bytes: 65_536 * u64::from(number) },
        })
        .collect();
    let content = list(&nodes, &pieces);
    let root = top(&content);
    assert_eq!(root.height, 0);
    let bytes = read(&nodes, &root.id);
    check(&BTreeMap::from([
        ("hex pieces".to_owned(), dump(&bytes)),
        ("text pieces".to_owned(), listed(&bytes, NodeShape::Pieces(0))),
    ]));
    nodes.replace(root.id, undump(&blocks()["hex pieces"]));
    let decoded: Vec<Piece> = content.pieces(&nodes, 0, u64::MAX).map(|placed| placed.unwrap().piece).collect();
    assert_eq!(decoded, pieces);
}

#[test]
fn an_inner_node_of_pieces() {
    let nodes = Nodes::default();
    let pieces: Vec<Piece> = (0..1000).map(support::chunk).collect();
    let content = list(&nodes, &pieces);
    let root = top(&content);
    assert_eq!(root.height, 1);
    let bytes = read(&nodes, &root.id);
    check(&BTreeMap::from([
        ("hex pieces-inner".to_owned(), dump(&bytes)),
        ("text pieces-inner".to_owned(), listed(&bytes, NodeShape::Pieces(1))),
    ]));
    nodes.replace(root.id, undump(&blocks()["hex pieces-inner"]));
    let decoded: Vec<Piece> = content.pieces(&nodes, 0, u64::MAX).map(|placed| placed.unwrap().piece).collect();
    assert_eq!(decoded, pieces);
}

#[test]
fn no_block_of_the_page_is_unchecked() {
    let names = ["leaf", "inner", "pieces", "pieces-inner"];
    let known: Vec<String> = names.iter().flat_map(|name| [format!("hex {name}"), format!("text {name}")]).collect();
    for info in blocks().keys() {
        assert!(known.contains(info), "nothing checks the block {info}");
    }
}
