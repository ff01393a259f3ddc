//! Taking snapshots: what is read, what is stored, what is noticed.
#![allow(clippy::unwrap_used)]

mod deploy_support;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use copal_engine::context::Progress;
use copal_engine::create::{CreateReport, CreateRequest, Exclusions, SourceRequest, create};
use copal_engine::deploy::DeployMode;
use copal_engine::{Context, Error, Monitor};
use copal_manifest::content::{Cutting, FileContent, Piece};
use copal_manifest::entry::{Entry, EntryPath, Node};
use copal_manifest::snapshot::Phase;
use copal_manifest::tree::{NodeShape, Reference, TreeReader, references};
use copal_sim::beside;
use copal_store::location::{Encoding, Location};
use copal_store::session::{ChunkSource, Session};
use deploy_support::{World, assert_same, look, noise, plant, set_time};

fn request(name: &str, source: &Path) -> CreateRequest {
    let sources = vec![SourceRequest { label: String::new(), path: source.to_owned() }];
    CreateRequest { name: name.into(), sources, ..CreateRequest::default() }
}

fn entries(context: &Context, report: &CreateReport) -> Vec<Entry> {
    let session = Session::begin(&context.repository).unwrap();
    let tree = report.snapshot.sources[0].tree;
    TreeReader::new(&session, tree).entries().collect::<Result<_, _>>().unwrap()
}

fn content(context: &Context, report: &CreateReport, path: &str) -> FileContent {
    let path = EntryPath::from_slashes(path.as_bytes()).unwrap();
    match entries(context, report).into_iter().find(|entry| entry.path == path).unwrap().node {
        Node::File(content) => content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unchanged_tree_is_not_read() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    let first = world.snapshot("first", &source);
    assert!(first.bytes_read > 0 && first.bytes_new > 0, "{first:?}");
    let second = world.snapshot("second", &source);
    assert_eq!((second.bytes_read, second.chunks_new, second.files), (0, 0, first.files));
    assert_eq!(second.snapshot.sources[0].tree, first.snapshot.sources[0].tree);
    assert!(second.stored_new <= 8192, "only a root: {}", second.stored_new);
    let forced = create(&world.context, &CreateRequest { force_read: true, ..request("third", &source) }).unwrap();
    assert_eq!((forced.bytes_read, forced.chunks_new), (first.bytes_read, 0));
    assert_eq!(forced.snapshot.sources[0].tree, first.snapshot.sources[0].tree);
}

#[test]
fn the_same_tree_comes_of_any_number_of_workers() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    fs::write(source.join("long"), noise(5, 40 << 20)).unwrap();
    let trees: Vec<_> = [1, 2, 7]
        .into_iter()
        .map(|threads| {
            let context = Context { threads, ..world.context.clone() };
            let name = format!("by {threads}");
            let request = CreateRequest { force_read: true, ..request(&name, &source) };
            create(&context, &request).unwrap().snapshot.sources[0].tree
        })
        .collect();
    assert!(trees.windows(2).all(|pair| pair[0] == pair[1]), "{trees:?}");
}

#[test]
fn a_file_changed_in_the_instant_of_the_last_snapshot_is_seen() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(&source).unwrap();
    for round in 0..20 {
        let text = format!("{round:08}");
        fs::write(source.join("file"), &text).unwrap();
        set_time(&source.join("file"), 1000, 0);
        let report = create(&world.context, &request(&format!("round {round}"), &source)).unwrap();
        let target = world.path("target");
        world.deploy(&format!("round {round}"), &target, DeployMode::Auto).unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), text, "{report:?}");
    }
}

#[test]
fn c01_one_percent_of_rows_grows_the_repository_by_less_than_one_percent() {
    let world = World::new();
    let source = world.path("app.db");
    let mut pages = database(40 << 20);
    fs::write(&source, &pages).unwrap();
    let first = world.snapshot("first", &source);
    // One row of about 150 bytes in a hundred, all over the file: every 64 KiB are touched.
    let rows = pages.len() / 150;
    for row in (0..rows).step_by(100) {
        let at = (row * 150 / 4096) * 4096 + 100 + row % 3000;
        pages[at..at + 8].copy_from_slice(&(row as u64).to_be_bytes());
    }
    fs::write(&source, &pages).unwrap();
    let second = world.snapshot("second", &source);
    assert!(second.stored_new * 100 < first.stored_new, "{} of {}", second.stored_new, first.stored_new);
    let target = world.path("target.db");
    world.deploy("second", &target, DeployMode::Auto).unwrap();
    assert_eq!(blake3::hash(&fs::read(&target).unwrap()), blake3::hash(&pages));
}

#[test]
fn changes_all_over_a_tree_store_deltas_of_its_nodes() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(&source).unwrap();
    for number in 0..6000 {
        fs::write(source.join(format!("{number:05}")), noise(number, 40)).unwrap();
    }
    world.snapshot("first", &source);
    // Every leaf of the tree has some of these.
    for number in (0..6000).step_by(100) {
        fs::write(source.join(format!("{number:05}")), noise(number + 10_000, 40)).unwrap();
    }
    let second = world.snapshot("second", &source);
    let nodes = nodes(&world.context, &second);
    let deltas = nodes.iter().filter(|location| location.encoding == Encoding::Delta).count();
    assert!(nodes.len() > 10 && deltas * 2 >= nodes.len(), "{deltas} of {}", nodes.len());
    let stored: u32 = nodes.iter().map(|location| location.record_stored_bytes).sum();
    let plain: u32 = nodes.iter().map(|location| location.bytes).sum();
    assert!(stored * 2 < plain, "{stored} of {plain}");
    // And again: the base is the same, for a delta is never one.
    fs::write(source.join("00001"), noise(20_000, 40)).unwrap();
    world.snapshot("third", &source);
    let target = world.path("target");
    world.deploy("third", &target, DeployMode::Auto).unwrap();
    assert_same(&look(&source), &look(&target), "third");
}

/// Where the nodes of a snapshot's tree are stored.
fn nodes(context: &Context, report: &CreateReport) -> Vec<Location> {
    let session = Session::begin(&context.repository).unwrap();
    let tree = report.snapshot.sources[0].tree;
    let mut open = vec![(tree.id, NodeShape::Entries(tree.height))];
    let mut found = Vec::new();
    while let Some((id, shape)) = open.pop() {
        found.push(session.locate(&id).unwrap().unwrap());
        references(&session.read_chunk(&id).unwrap(), shape, &mut |reference| match reference {
            Reference::Node { id, shape } => open.push((id, shape)),
            Reference::Chunk(..) => {}
        })
        .unwrap();
    }
    found
}

/// Pages with SQLite's header and cells half of which compress.
fn database(bytes: usize) -> Vec<u8> {
    let mut pages = noise(77, bytes);
    for (number, byte) in pages.iter_mut().enumerate() {
        if number % 64 < 32 {
            *byte = b'a' + (*byte % 4);
        }
    }
    pages[..16].copy_from_slice(b"SQLite format 3\0");
    pages
}

#[test]
fn c02_an_insertion_at_the_front_adds_a_few_chunks() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(&source).unwrap();
    let bytes = noise(9, 100_000_000);
    fs::write(source.join("file"), &bytes).unwrap();
    let first = world.snapshot("first", &source);
    assert!(first.chunks_new > 1000);
    fs::write(source.join("file"), [b"!", bytes.as_slice()].concat()).unwrap();
    let second = world.snapshot("second", &source);
    assert!(second.chunks_new <= 4, "{} chunks", second.chunks_new);
    assert!(second.stored_new < 300_000, "{} bytes", second.stored_new);
}

#[test]
fn an_edit_in_text_is_stored_as_a_delta() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(&source).unwrap();
    let mut bytes = noise(10, 30 << 20);
    fs::write(source.join("file"), &bytes).unwrap();
    world.snapshot("first", &source);
    for edit in 0..20 {
        bytes[edit * (1 << 20) + 5000] ^= 1;
    }
    fs::write(source.join("file"), &bytes).unwrap();
    let second = world.snapshot("second", &source);
    assert!((15..=45).contains(&second.chunks_new), "{} chunks", second.chunks_new);
    assert!(second.stored_new < 70_000, "{} bytes for 20 edits", second.stored_new);
}

#[test]
fn a_database_whose_pages_moved_is_cut_by_content_from_then_on() {
    let world = World::new();
    let source = world.path("app.db");
    let pages = database(40 << 20);
    fs::write(&source, &pages).unwrap();
    let first = world.snapshot("first", &source);
    assert_eq!(content(&world.context, &first, "").cutting, Cutting::Fixed(64 << 10));
    // As after a VACUUM: the same rows, elsewhere.
    let moved: Vec<u8> = [&pages[..100], &noise(78, 5000), &pages[100..]].concat();
    fs::write(&source, &moved).unwrap();
    let second = world.snapshot("second", &source);
    assert_eq!(content(&world.context, &second, "").cutting, Cutting::Content);
    let moved_again: Vec<u8> = [&moved[..100], &noise(79, 3000), &moved[100..]].concat();
    fs::write(&source, &moved_again).unwrap();
    let third = world.snapshot("third", &source);
    assert!(third.stored_new * 50 < first.stored_new, "{} of {}", third.stored_new, first.stored_new);
}

#[test]
fn holes_stay_holes() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(&source).unwrap();
    let sparse = File::create(source.join("image")).unwrap();
    sparse.set_len(5 << 30).unwrap();
    for place in [0u64, 300 << 20, 301 << 20, 4 << 30] {
        sparse.write_all_at(&noise(place, 200_000), place + 4096).unwrap();
    }
    sparse.sync_all().unwrap();
    let report = world.snapshot("first", &source);
    assert_eq!(report.bytes, 5 << 30);
    assert!(report.bytes_read < 4 << 20, "holes are not read: {}", report.bytes_read);
    let holes = content(&world.context, &report, "image");
    let session = Session::begin(&world.context.repository).unwrap();
    let pieces: Vec<_> = holes.pieces(&session, 0, holes.bytes).map(Result::unwrap).collect();
    assert_eq!(pieces.iter().filter(|piece| matches!(piece.piece, Piece::Hole { .. })).count(), 4, "{pieces:?}");
    let target = world.path("target");
    world.deploy("first", &target, DeployMode::Auto).unwrap();
    let (was, is) = (fs::metadata(source.join("image")).unwrap(), fs::metadata(target.join("image")).unwrap());
    assert_eq!(is.len(), 5 << 30);
    assert!(is.blocks() <= was.blocks() + 256, "{} blocks of {}", is.blocks(), was.blocks());
    for place in [0u64, 300 << 20, 301 << 20, 4 << 30] {
        let mut read = vec![0; 200_000];
        File::open(target.join("image")).unwrap().read_exact_at(&mut read, place + 4096).unwrap();
        assert_eq!(read, noise(place, 200_000));
    }
}

/// Calls back for each report of progress.
struct Watching<F: Fn(Progress) + Send + Sync>(F);

impl<F: Fn(Progress) + Send + Sync> Monitor for Watching<F> {
    fn phase(&self, _: &'static str) {}
    fn progress(&self, progress: Progress) {
        (self.0)(progress);
    }
    fn notice(&self, _: &str) {}
}

#[test]
fn d12_a_file_that_keeps_changing_is_reported() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("small"), noise(1, 20_000)).unwrap();
    fs::write(source.join("log"), noise(2, 48 << 20)).unwrap();
    let log = OpenOptions::new().write(true).open(source.join("log")).unwrap();
    let mut round = 0u64;
    let writes = || {
        log.write_all_at(&round.to_le_bytes(), 1000 + round % 1000).unwrap();
        round += 1;
    };
    let report = beside(writes, || create(&world.context, &request("busy", &source)).unwrap());
    assert_eq!(report.unread_files, 1);
    assert_eq!(report.snapshot.phase, Phase::Completed);
    assert_eq!(report.warnings, ["log: it changed while it was read"]);
    assert!(report.bytes_read >= 3 * (48 << 20), "it was read three times: {}", report.bytes_read);
    // What was taken is deployable, and once it rests all is well.
    world.deploy("busy", &world.path("target"), DeployMode::Auto).unwrap();
    let quiet = world.snapshot("quiet", &source);
    assert!(quiet.warnings.is_empty());
    world.deploy("quiet", &world.path("target"), DeployMode::Auto).unwrap();
    assert_same(&look(&source), &look(&world.path("target")), "after it rests");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_harms_nothing() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(&source).unwrap();
    let path = source.join("log");
    fs::write(&path, noise(2, 64 << 20)).unwrap();
    let log = OpenOptions::new().write(true).open(&path).unwrap();
    let mut bytes = 64u64 << 20;
    let shrinks = || {
        bytes = if bytes < 4 << 20 { 64 << 20 } else { bytes / 2 };
        log.set_len(bytes).unwrap();
    };
    beside(shrinks, || {
        // The two threads may miss each other, on a busy machine more than once.
        let seen = (0..50).any(|round| {
            let name = format!("torn {round}");
            let report = create(&world.context, &request(&name, &source)).unwrap();
            let is_left_out = report.warnings.iter().any(|warning| warning.contains("is left out"));
            let expected = if is_left_out { Phase::PartiallyFailed } else { Phase::Completed };
            assert_eq!(report.unread_files as usize, report.warnings.len());
            assert_eq!(report.snapshot.phase, expected);
            world.deploy(&name, &world.path("target"), DeployMode::Auto).unwrap();
            assert!(report.warnings.len() <= 1, "{:?}", report.warnings);
            report.warnings.len() == 1
        });
        assert!(seen, "nobody saw the file change");
    });
}

#[test]
fn an_interrupted_create_leaves_what_the_next_one_finds() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(&source).unwrap();
    for number in 0..6 {
        fs::write(source.join(format!("file {number}")), noise(number, 40 << 20)).unwrap();
    }
    let interrupt = Arc::new(AtomicBool::new(false));
    let setter = Arc::clone(&interrupt);
    let stop_early = move |progress: Progress| {
        if progress.bytes_done > 120 << 20 {
            setter.store(true, Ordering::Relaxed);
        }
    };
    let context = Context { monitor: Arc::new(Watching(stop_early)), interrupt, threads: 2, ..world.context.clone() };
    let outcome = create(&context, &request("stopped", &source));
    assert!(matches!(outcome, Err(Error::Interrupted)), "{outcome:?}");
    let next = world.snapshot("stopped", &source);
    assert!(next.bytes_new <= next.bytes - (100 << 20), "{} bytes were stored again", next.bytes_new);
    world.deploy("stopped", &world.path("target"), DeployMode::Auto).unwrap();
    assert_same(&look(&source), &look(&world.path("target")), "after the interrupt");
}

#[test]
fn of_two_creates_with_one_name_at_most_one_stays() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    for round in 0..8 {
        let name = format!("round {round}");
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..3).map(|_| scope.spawn(|| create(&world.context, &request(&name, &source)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let taken = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::NameTaken { .. }))).count();
        let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(done <= 1 && done + taken == 3, "{outcomes:?}");
        let again = create(&world.context, &request(&name, &source));
        assert_eq!(again.is_ok(), done == 0, "{again:?}");
    }
}

#[test]
fn names_and_sources_are_checked_first() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    for name in ["", "a/b", "latest", "line\nbreak"] {
        assert!(matches!(create(&world.context, &request(name, &source)), Err(Error::BadName { .. })), "{name:?}");
    }
    assert!(matches!(create(&world.context, &request("x", &world.path("nowhere"))), Err(Error::Source(_))));
    assert!(matches!(create(&world.context, &request("x", &source.join("pipe"))), Err(Error::Usage(_))));
    let twice = CreateRequest {
        sources: vec![SourceRequest { label: "a".into(), path: source.clone() }; 2],
        ..request("x", &source)
    };
    assert!(matches!(create(&world.context, &twice), Err(Error::Usage(_))));
    assert!(world.context.repository.roots().unwrap().is_empty());
}

#[test]
fn excluded_paths_are_left_out_and_links_into_them_are_files() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    let with_rule = CreateRequest {
        exclusions: Exclusions::of_patterns(vec!["folder".into(), "linked a".into()]),
        ..request("x", &source)
    };
    let report = create(&world.context, &with_rule).unwrap();
    let paths: Vec<String> = entries(&world.context, &report).iter().map(|entry| entry.path.to_string()).collect();
    assert!(!paths.iter().any(|path| path.starts_with("folder") || path == "linked a"), "{paths:?}");
    assert_eq!(content(&world.context, &report, "linked c").bytes, 5000);
}

#[test]
fn a_parent_that_a_collection_has_not_seen_is_looked_up() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    world.snapshot("first", &source);
    let roots = world.context.repository.roots().unwrap();
    // Its chunks are condemned while a reader lives, and the next create reuses none of them blindly.
    let reader = Session::begin(&world.context.repository).unwrap();
    let parent = world.snapshot("second", &source);
    world.context.repository.delete_roots(&roots).unwrap();
    copal_engine::removal::collect_garbage(&world.context, false).unwrap();
    reader.end().unwrap();
    let third = world.snapshot("third", &source);
    assert_eq!(third.snapshot.sources[0].tree, parent.snapshot.sources[0].tree);
    copal_engine::removal::collect_garbage(&world.context, false).unwrap();
    world.deploy("third", &world.path("target"), DeployMode::Auto).unwrap();
    assert_same(&look(&source), &look(&world.path("target")), "after the collection");
}
