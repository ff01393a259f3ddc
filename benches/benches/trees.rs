//! The stages of trees, beside what the system itself takes for the same:
//! `cargo bench -p copal-benches --bench trees`. Reading a file beside the speed of the page cache, a scan
//! beside `getdents` and `statx`, and the manifest of a large tree.
#![allow(missing_docs)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use copal_benches::json;
use copal_manifest::content::{Cutting, FileContent, Piece, Pieces};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp};
use copal_manifest::tree::{NodeSink, TreeBuilder, TreeReader, TreeRoot, diff};
use copal_source::read::TreeReader as FileReader;
use copal_source::scan::{ScanOptions, scan};
use copal_store::session::ChunkSource;
use copal_store::{ChunkId, Error, Result};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const FILE_BYTES: usize = 256 << 20;
const SCANNED_FILES: usize = 20_000;
const FILES_PER_FOLDER: usize = 100;
const MANIFEST_ENTRIES: u64 = 200_000;

/// A file that lies in the page cache: by plain reads, and as a source is read.
fn reading(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("file"), json(1, FILE_BYTES)).expect("a file is written");
    let mut buffer = vec![0; 1 << 20];
    let mut group = criterion.benchmark_group("page cache");
    group.throughput(Throughput::Bytes(FILE_BYTES as u64));
    let file = File::open(folder.path().join("file")).expect("it opens");
    group.bench_function("raw: pread of 1 MiB", |bencher| {
        bencher.iter(|| {
            for offset in (0..FILE_BYTES as u64).step_by(buffer.len()) {
                file.read_exact_at(&mut buffer, offset).expect("it is read");
                black_box(&buffer);
            }
        });
    });
    let reader = FileReader::open(folder.path()).expect("the source opens");
    group.bench_function("source: reader beneath the root", |bencher| {
        bencher.iter(|| {
            let file = reader.open_file(b"file").expect("it opens");
            for offset in (0..FILE_BYTES as u64).step_by(buffer.len()) {
                black_box(file.read_at(offset, &mut buffer).expect("it is read"));
            }
        });
    });
}

fn scanning(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for number in 0..SCANNED_FILES {
        let parent = folder.path().join(format!("folder-{:03}", number / FILES_PER_FOLDER));
        if number % FILES_PER_FOLDER == 0 {
            fs::create_dir(&parent).expect("a folder is made");
        }
        fs::write(parent.join(format!("file-{number}")), b"").expect("a file is made");
    }
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(SCANNED_FILES as u64));
    group.bench_function("raw: getdents and statx, one thread", |bencher| bencher.iter(|| walk(folder.path())));
    for threads in [1, 0] {
        let options = ScanOptions { threads, ..ScanOptions::default() };
        let name = if threads == 1 { "source: one thread, in order" } else { "source: all cores, in order" };
        group.bench_function(name, |bencher| {
            bencher.iter(|| scan(folder.path(), &options).expect("it is scanned").flatten().count());
        });
    }
}

/// What any scan does at least.
fn walk(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).expect("the folder is listed");
    let inner = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("an entry");
        let metadata = entry.metadata().expect("its metadata");
        1 + if metadata.is_dir() { walk(&entry.path()) } else { 0 }
    };
    entries.map(inner).sum()
}

fn manifests(criterion: &mut Criterion) {
    let mut nodes = Nodes::default();
    let entries: Vec<Entry> = (0..MANIFEST_ENTRIES).map(|number| entry(number, 0)).collect();
    let before = build(&entries, &mut nodes);
    let mut changed = entries.clone();
    for number in (0..changed.len()).step_by(1000) {
        changed[number] = entry(number as u64, 1);
    }
    let after = build(&changed, &mut nodes);
    let mut group = criterion.benchmark_group("manifest of 200,000 files");
    group.throughput(Throughput::Elements(MANIFEST_ENTRIES));
    group.bench_function("build", |bencher| bencher.iter(|| build(black_box(&entries), &mut Nodes::default())));
    group.bench_function("list", |bencher| {
        bencher.iter(|| TreeReader::new(&nodes, before).entries().filter(|entry| entry.is_ok()).count());
    });
    group.bench_function("diff, equal", |bencher| bencher.iter(|| differences(&nodes, before, before, 0)));
    let changes = MANIFEST_ENTRIES.div_ceil(1000) as usize;
    group.bench_function("diff, one in 1,000 changed", |bencher| {
        bencher.iter(|| differences(&nodes, before, after, changes));
    });
}

fn differences(nodes: &Nodes, before: TreeRoot, after: TreeRoot, expected: usize) {
    let found = diff(nodes, before, nodes, after).filter(|change| change.is_ok()).count();
    assert_eq!(found, expected);
}

/// Nodes in memory: the store's own work is measured elsewhere.
#[derive(Default)]
struct Nodes(HashMap<ChunkId, Vec<u8>>);

impl ChunkSource for Nodes {
    fn read_chunk(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.0.get(id).cloned().ok_or_else(|| Error::Missing { object: id.to_string() })
    }
}

impl NodeSink for Nodes {
    fn store_node(&mut self, bytes: &[u8]) -> Result<ChunkId> {
        let id = ChunkId(*blake3::keyed_hash(&[9; 32], bytes).as_bytes());
        self.0.insert(id, bytes.to_vec());
        Ok(id)
    }
}

fn build(entries: &[Entry], nodes: &mut Nodes) -> TreeRoot {
    let mut builder = TreeBuilder::of_loose_entries(&[7; 32]);
    for entry in entries {
        builder.push(entry, nodes).expect("an entry in order");
    }
    builder.finish(nodes).expect("a tree")
}

/// A small file; its content follows from number and version.
fn entry(number: u64, version: u64) -> Entry {
    let path = format!("folder-{:05}/file-{number:08}.txt", number / FILES_PER_FOLDER as u64);
    let id = ChunkId(*blake3::hash(&(number << 8 | version).to_le_bytes()).as_bytes());
    let piece = Piece::Chunk { id, bytes: 5000 };
    let content = FileContent { bytes: 5000, cutting: Cutting::Small, pieces: Pieces::Inline(vec![piece]) };
    let time = |seconds| Timestamp { seconds, nanoseconds: (number.wrapping_mul(48_271) % 1_000_000_000) as u32 };
    let metadata = Metadata {
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        modified: time(1_700_000_000 + (number % 100_000) as i64),
        changed: time(1_750_000_000),
        inode: 1_000_000 + number,
        xattrs: Vec::new(),
    };
    Entry { path: EntryPath::from_slashes(path.as_bytes()).expect("a path"), metadata, node: Node::File(content) }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = trees; config = quick(); targets = reading, scanning, manifests }
criterion_main!(trees);
