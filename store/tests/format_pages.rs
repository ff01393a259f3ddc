//! Goal: the pages of `docs/format/` say what the code writes, to the byte. Method: one small repository is
//! made with counted instead of random bytes; every fenced block of `hex` or `text` on a page is compared
//! with what stands in its objects, and the configuration and the key slot are decoded from the bytes on
//! their pages alone. A block that differs is printed whole.
#![allow(clippy::unwrap_used)]

mod format_example;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use copal_manifest::content::{FileContent, Pieces};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node};
use copal_manifest::snapshot::{Label, Snapshot};
use copal_manifest::tree::TreeReader;
use copal_sim::memory::MemoryBackend;
use copal_store::backend::{Backend, ObjectKind, ObjectName, publish_bytes};
use copal_store::config::{Parameters, config_name};
use copal_store::describe::describe;
use copal_store::entropy::OsEntropy;
use copal_store::envelope::{ENVELOPE_BYTES, Envelope};
use copal_store::repository::Repository;
use copal_store::session::{ChunkSource, Session};
use copal_store::{Error, ObjectId};

use format_example::{Example, PASSWORD, SNAPSHOT, credential};

/// The blocks of a page by their whole info string: `hex object`, `text fields`.
type Blocks = BTreeMap<String, String>;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn blocks(text: &str) -> Blocks {
    let mut blocks = Blocks::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &open) {
            (Some(_), Some(_)) => open = None,
            (Some(info), None) => {
                let doubled = blocks.insert(info.to_owned(), String::new());
                assert!(doubled.is_none(), "two blocks are called {info:?}");
                open = Some(info.to_owned());
            }
            (None, Some(info)) => {
                let block = blocks.get_mut(info).unwrap();
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block does not end");
    blocks.retain(|info, _| info.starts_with("hex ") || info.starts_with("text "));
    blocks
}

/// Every checked block of the page is expected, and every expected block is on the page.
fn check(name: &str, expected: &Blocks) {
    let found = blocks(&page(name));
    let differing: String = expected
        .iter()
        .filter(|(info, content)| found.get(*info) != Some(content))
        .map(|(info, content)| format!("```{info}\n{content}```\n"))
        .collect();
    let unknown: Vec<&String> = found.keys().filter(|info| !expected.contains_key(*info)).collect();
    assert!(differing.is_empty(), "docs/format/{name} should say:\n{differing}<end of docs/format/{name}>");
    assert!(unknown.is_empty(), "docs/format/{name} has blocks that nothing checks: {unknown:?}");
}

fn dump(bytes: &[u8], from: usize) -> String {
    let lines = bytes.chunks(32).enumerate();
    lines.map(|(number, line)| format!("{:04x}  {}\n", from + number * 32, hex::encode(line))).collect()
}

fn undump(text: &str) -> Vec<u8> {
    text.lines().flat_map(|line| hex::decode(line.split_once("  ").unwrap().1).unwrap()).collect()
}

fn lines(fields: &[(String, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

/// Short objects stand on their page whole; of long ones the two ends, between which all is ciphertext. The
/// last 16 bytes are a tag, so that the ends bind what is between them.
fn blocks_of(repository: &Repository, name: &ObjectName) -> Blocks {
    let backend = repository.backend();
    let bytes = backend.read(name, 1 << 20).unwrap();
    let description = describe(repository, name).unwrap();
    let mut fields = vec![("object".to_owned(), name.to_string()), ("length".to_owned(), bytes.len().to_string())];
    fields.extend(description.fields);
    let mut blocks = Blocks::from([
        ("text fields".to_owned(), lines(&fields)),
        ("hex plaintext".to_owned(), dump(&description.plain, 0)),
    ]);
    if bytes.len() < 1024 {
        blocks.insert("hex object".to_owned(), dump(&bytes, 0));
    } else {
        let tail = bytes.len() - 32;
        blocks.insert("hex ends".to_owned(), format!("{}{}", dump(&bytes[..64], 0), dump(&bytes[tail..], tail)));
    }
    blocks
}

fn rename(mut blocks: Blocks, suffix: &str) -> Blocks {
    blocks = blocks.into_iter().map(|(info, content)| (format!("{info} {suffix}"), content)).collect();
    blocks
}

#[test]
fn configuration() {
    let example = Example::new();
    check("config.md", &blocks_of(&example.repository, &config_name()));
}

#[test]
fn key_slot() {
    let example = Example::new();
    check("key-slot.md", &blocks_of(&example.repository, &example.slot));
}

#[test]
fn roster() {
    let example = Example::new();
    check("roster.md", &blocks_of(&example.repository, &example.roster));
}

#[test]
fn a_repository_opens_from_the_bytes_on_its_pages() {
    let backend = MemoryBackend::new();
    backend.prepare().unwrap();
    let config = undump(&blocks(&page("config.md"))["hex object"]);
    let slot = undump(&blocks(&page("key-slot.md"))["hex object"]);
    let id = Envelope::decode("slot", ObjectKind::KeySlot, &slot[..ENVELOPE_BYTES]).unwrap().id;
    let slot_name = ObjectName::new(ObjectKind::KeySlot, id.to_string()).unwrap();
    publish_bytes(&backend, &slot_name, &slot).unwrap();
    let roster = undump(&blocks(&page("roster.md"))["hex object"]);
    let roster_name = ObjectName::new(ObjectKind::KeySlot, "roster-00000001").unwrap();
    publish_bytes(&backend, &roster_name, &roster).unwrap();
    publish_bytes(&backend, &config_name(), &config).unwrap();
    let open = |password| Repository::open(Arc::new(backend.clone()), Arc::new(OsEntropy), &credential(password));
    let repository = open(PASSWORD).unwrap();
    assert_eq!(repository.config().parameters, Parameters::default());
    assert_eq!(repository.config().repository.0, [1; 16]);
    let slots = repository.key_slots().unwrap();
    assert_eq!((slots[0].id, slots[0].label.as_str()), (ObjectId([2; 16]), "first"));
    assert!(matches!(open("wrong"), Err(Error::WrongKey)));
}

#[test]
fn derived_keys() {
    let example = Example::new();
    let keys = example.repository.keys();
    let fields = [
        ("chunk id of \"copal\"", hex::encode(keys.chunk_id(b"copal").0)),
        ("cutter secret", hex::encode(*keys.cutter_secret())),
        ("tree boundary key", hex::encode(*keys.tree_boundary_key())),
        ("name tag of \"hub/monday\"", hex::encode(keys.name_tag(b"hub/monday"))),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    check("README.md", &Blocks::from([("text keys".to_owned(), lines(&fields))]));
}

#[test]
fn pack() {
    let example = Example::new();
    let data = blocks_of(&example.repository, &example.data_pack);
    let nodes = blocks_of(&example.repository, &example.node_pack);
    let mut expected = rename(data, "data");
    expected.extend(rename(nodes, "nodes"));
    check("pack.md", &expected);
    // What the page says of the chunks' content.
    let session = Session::begin(&example.repository).unwrap();
    for (id, plain) in &example.chunks {
        assert_eq!(session.read_chunk(id).unwrap(), *plain);
    }
}

#[test]
fn parity() {
    let example = Example::new();
    let pack = example.repository.backend().read(&example.data_pack, u64::MAX).unwrap();
    // In a repository with parity, where that pack stands.
    let backend = MemoryBackend::new();
    let parameters = Parameters { parity_percent: 25, ..Parameters::default() };
    let repository = format_example::init_with(Arc::new(backend.clone()), parameters);
    publish_bytes(&backend, &example.data_pack, &pack).unwrap();
    assert_eq!(copal_store::check::renew_parity(&repository).unwrap(), 0, "no index names the pack");
    let id = copal_store::PackId::from_hex(example.data_pack.name()).unwrap();
    copal_store::parity::protect(&repository, &[id]).unwrap();
    check("parity.md", &blocks_of(&repository, &copal_store::parity::parity_name(id)));
    // The page's words, read once more by hand.
    let object = backend.read(&copal_store::parity::parity_name(id), u64::MAX).unwrap();
    let at = |offset: usize, bytes: usize| {
        object[ENVELOPE_BYTES + offset..][..bytes]
            .iter()
            .rev()
            .fold(0, |sum: usize, byte| sum << 8 | usize::from(*byte))
    };
    let (shard, data, parity) = (at(8, 4), at(12, 4), at(16, 4));
    assert_eq!((at(0, 8), shard, data), (pack.len(), 1024, pack.len() / 1024));
    assert_eq!(parity, data.div_ceil(4));
    let described = 20 + 16 * (data + parity + 1);
    assert_eq!(object.len(), ENVELOPE_BYTES + 2 * described + parity * shard + 4);
    for (number, shard) in pack.chunks(shard).enumerate() {
        let hash = &object[ENVELOPE_BYTES + 20 + 16 * number..][..16];
        assert_eq!(hash, &blake3::hash(shard).as_bytes()[..16]);
    }
}

#[test]
fn index_fragment() {
    let example = Example::new();
    check("index-fragment.md", &blocks_of(&example.repository, &example.fragment));
}

#[test]
fn snapshot_root() {
    let example = Example::new();
    let mut expected = blocks_of(&example.repository, &example.root);
    let payload = describe(&example.repository, &example.root).unwrap().plain;
    let fields = |snapshot: Snapshot| short_lists(&format!("{snapshot:#?}\n").replace("    ", "  "));
    expected.insert("text payload".to_owned(), fields(Snapshot::decode("the root", &payload).unwrap()));
    check("snapshot-root.md", &expected);
    let page = blocks(&page("snapshot-root.md"));
    let decoded = Snapshot::decode("the page", &undump(&page["hex plaintext"])).unwrap();
    assert_eq!((Snapshot::full_name(&decoded.app, &decoded.name), decoded.id), ("hub/monday".to_owned(), SNAPSHOT));
}

#[test]
fn manifest_node() {
    let example = Example::new();
    let node = ChunkSource::read_chunk(&Session::begin(&example.repository).unwrap(), &example.tree.id).unwrap();
    let entries = |node: Vec<u8>| -> String {
        let source = OneNode(node);
        let entries = TreeReader::new(&source, example.tree).entries_from(&EntryPath::root());
        entries.map(|entry| entry_line(&entry.unwrap())).collect()
    };
    let expected = [("hex node".to_owned(), dump(&node, 0)), ("text entries".to_owned(), entries(node))];
    check("manifest-node.md", &Blocks::from(expected));
    let page = blocks(&page("manifest-node.md"));
    assert_eq!(entries(undump(&page["hex node"])), page["text entries"]);
}

fn entry_line(entry: &Entry) -> String {
    let Metadata { mode, uid, gid, modified, changed, inode, xattrs } = &entry.metadata;
    assert!(xattrs.is_empty() && modified == changed);
    let node = match &entry.node {
        Node::File(FileContent { bytes, cutting, pieces: Pieces::Inline(pieces) }) => {
            format!("file of {bytes} bytes, {cutting:?}, {pieces:?}")
        }
        other => format!("{other:?}"),
    };
    let times = modified.seconds;
    format!("{:?}: mode {mode:o}, {uid}:{gid}, times {times}, inode {inode}, {node}\n", entry.path.to_string())
}

/// Whatever is asked for, it is this node.
struct OneNode(Vec<u8>);

impl ChunkSource for OneNode {
    fn read_chunk(&self, _id: &copal_store::ChunkId) -> copal_store::Result<Vec<u8>> {
        Ok(self.0.clone())
    }
}

/// Runs of numbers on one line.
fn short_lists(text: &str) -> String {
    let mut out = String::new();
    let mut list = None::<Vec<String>>;
    for line in text.lines() {
        let number = line.trim().trim_end_matches(',').parse::<u64>().ok();
        match (&mut list, number) {
            (None, _) if line.ends_with('[') => {
                list = Some(Vec::new());
                out.push_str(line);
            }
            (Some(numbers), Some(number)) => numbers.push(number.to_string()),
            (Some(numbers), None) => {
                let ends = line.trim_start().starts_with(']');
                out.push_str(&numbers.join(", "));
                out.push_str(if ends { line.trim_start() } else { "\n" });
                if !ends {
                    out.push_str(line);
                }
                out.push('\n');
                list = None;
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

#[test]
fn label() {
    let example = Example::new();
    let mut expected = blocks_of(&example.repository, &example.label);
    let payload = describe(&example.repository, &example.label).unwrap().plain;
    let fields = |payload: &[u8]| format!("{:?}\n", Label::decode("a label", payload).unwrap());
    expected.insert("text payload".to_owned(), fields(&payload));
    check("label.md", &expected);
    let page = blocks(&page("label.md"));
    assert_eq!(fields(&undump(&page["hex plaintext"])), page["text payload"]);
}

#[test]
fn condemned() {
    let example = Example::new();
    let mut expected = rename(blocks_of(&example.repository, &example.sentence), "sentence");
    expected.extend(rename(blocks_of(&example.repository, &example.sessions), "sessions"));
    check("condemned.md", &expected);
    // A mark is no id: another root may have that.
    let sentence = &expected["text fields sentence"];
    assert!(sentence.contains("marked: ") && !sentence.contains(&SNAPSHOT.to_string()));
}

#[test]
fn session_and_lease() {
    let example = Example::new();
    let fields = |name: &ObjectName| {
        let length = example.repository.backend().stat(name).unwrap().bytes;
        assert!(describe(&example.repository, name).unwrap().plain.is_empty());
        format!("object: {name}\nlength: {length}\nheld: {}\n", example.repository.backend().is_held(name).unwrap())
    };
    let lease = example.hold_lease();
    check("session.md", &Blocks::from([("text fields".to_owned(), fields(example.witness.name()))]));
    check("maintenance-lease.md", &Blocks::from([("text fields".to_owned(), fields(lease.name()))]));
}
