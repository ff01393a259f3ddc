//! Goal: what is looked at is what was stored: entries, contents, archives, differences, versions, sizes; and
//! looking costs what is looked at, not what stands beside it. Method: snapshots made by hand from maps, so
//! that a naive reading of the map is the expected answer; counted reads of packs.
#![allow(clippy::unwrap_used)]

mod catalogue_support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use catalogue_support::{CHUNK_BYTES, Made, World, entries, snapshot};
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_engine::inspect::{
    DiffReport, MemberSink, Trust, diff, diff_with_disk, diff_with_places, dump, find, ls, stats, walk,
};
use copal_engine::{Error, Result};
use copal_manifest::entry::{Entry, EntryPath, Node};
use copal_sim::beside;
use copal_sim::recording::Operation;
use copal_sim::seeded::{noise, text};
use copal_store::backend::{Backend, ObjectKind};
use copal_store::session::Session;

type Files = BTreeMap<String, Vec<u8>>;

/// Names whose order as bytes differs from the order in which folders are walked.
fn tricky() -> Files {
    let names = ["a", "a b/c", "a-/x", "a.b", "ab/a/b", "ab/a.c", "b/b/b/b", "b/b!", "é/\u{1}", "z"];
    names.iter().enumerate().map(|(seed, name)| ((*name).to_owned(), noise(seed as u64, 100 * seed))).collect()
}

fn many(count: u64) -> Files {
    (0..count).map(|n| (format!("{}/{}/file {n}", n % 7, n % 31), noise(n, 20 + (n % 50) as usize))).collect()
}

fn store(world: &World, name: &str, at: i64, files: &Files) {
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(path, content)| (path.as_str(), content.clone())).collect();
    world.store("", name, at, &files);
}

/// All folders of files, the root among them.
fn folders(files: &Files) -> BTreeSet<String> {
    let mut folders = BTreeSet::from([String::new()]);
    for path in files.keys() {
        let ends = path.match_indices('/').map(|(end, _)| path[..end].to_owned());
        folders.extend(ends);
    }
    folders
}

fn listed(world: &World, name: &str, path: &str, recursive: bool) -> Vec<String> {
    let mut found = Vec::new();
    ls(&world.context, name, path.as_bytes(), recursive, &mut |path, _| {
        found.push(String::from_utf8(path.to_vec()).unwrap());
        Ok(())
    })
    .unwrap();
    found
}

/// Ranges of packs read by `act`.
fn pack_reads(world: &World, act: impl FnOnce()) -> u64 {
    world.recording.reset();
    act();
    world.recording.tally(Operation::ReadRange, ObjectKind::Pack).count
}

#[test]
fn a_folder_lists_what_is_in_it_and_nothing_else() {
    for files in [tricky(), many(300)] {
        let world = World::new();
        store(&world, "s", 1, &files);
        let all: BTreeSet<String> = folders(&files).into_iter().chain(files.keys().cloned()).collect();
        for folder in folders(&files) {
            let below = |path: &&String| folder.is_empty() || path.starts_with(&format!("{folder}/"));
            let inside: BTreeSet<String> = all.iter().filter(below).filter(|path| **path != folder).cloned().collect();
            let depth = if folder.is_empty() { 0 } else { folder.matches('/').count() + 1 };
            let children = inside.iter().filter(|path| path.matches('/').count() == depth).cloned();
            let with_itself = |found: Vec<String>| {
                assert_eq!(found[0], folder);
                found[1..].iter().cloned().collect::<BTreeSet<String>>()
            };
            assert_eq!(with_itself(listed(&world, "s", &folder, true)), inside, "{folder:?}");
            assert_eq!(with_itself(listed(&world, "s", &folder, false)), children.collect(), "{folder:?}");
        }
        for file in files.keys() {
            assert_eq!(listed(&world, "s", file, false), std::slice::from_ref(file));
        }
    }
}

#[test]
fn what_is_not_there_is_said() {
    let world = World::new();
    store(&world, "s", 1, &tricky());
    for path in ["nothing", "a/b", "ab/a/b/c", "ab/", "../a"] {
        let outcome = ls(&world.context, "s", path.as_bytes(), false, &mut |_, _| Ok(()));
        let is_there = path == "ab/";
        assert_eq!(outcome.is_ok(), is_there, "{path}");
        assert!(is_there || matches!(outcome, Err(Error::NoSuchPath { .. })), "{path}");
        let outcome = dump(&world.context, "s", path.as_bytes(), &mut Vec::new());
        assert!(matches!(outcome, Err(Error::NoSuchPath { .. } | Error::Usage(_))), "{path}");
    }
    let error = dump(&world.context, "s", b"ab", &mut Vec::new()).unwrap_err();
    assert!(matches!(&error, Error::Usage(detail) if detail.contains("--tar")), "{error}");
    assert!(matches!(ls(&world.context, "t", b"", false, &mut |_, _| Ok(())), Err(Error::NoSuchSnapshot(_))));
}

#[test]
fn a_list_skips_folders_that_it_does_not_show() {
    let world = World::new();
    let mut files: Files = (0..20_000u64).map(|n| (format!("deep/{}/file {n}", n % 100), noise(n, 3))).collect();
    files.insert("z".into(), b"last".to_vec());
    store(&world, "s", 1, &files);
    let whole = pack_reads(&world, || drop(listed(&world, "s", "", true)));
    let top = pack_reads(&world, || assert_eq!(listed(&world, "s", "", false), ["", "deep", "z"]));
    assert!(whole > 20 && top <= 8, "{top} reads for two names, {whole} for all");
    let one = pack_reads(&world, || assert_eq!(dump(&world.context, "s", b"z", &mut Vec::new()).unwrap(), 4));
    assert!(one <= 5, "{one} reads for one file");
}

/// A snapshot of two labelled sources with holes, links and an empty file.
fn labelled() -> (World, Vec<u8>) {
    let world = World::new();
    let mut sparse = vec![0; 6 * CHUNK_BYTES];
    sparse[2 * CHUNK_BYTES..3 * CHUNK_BYTES].copy_from_slice(&noise(1, CHUNK_BYTES));
    let mut first =
        entries(&[("folder/sparse", sparse.clone()), ("folder/empty", Vec::new()), ("text", text(2, 9000))]);
    let path = |path: &str| EntryPath::from_slashes(path.as_bytes()).unwrap();
    first.insert(path("link"), Made::Node(Node::Symlink((*b"folder/sparse").into())));
    first.insert(path("same"), Made::Node(Node::HardLink(path("folder/sparse"))));
    let second = entries(&[("folder/other", b"words".to_vec())]);
    let session = Session::begin(world.repository()).unwrap();
    let mut made = snapshot("", "s", 1);
    made.sources = vec![world.source(&session, "one", &first), world.source(&session, "two", &second)];
    world.commit_in(session, &made);
    (world, sparse)
}

fn dumped(world: &World, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = dump(&world.context, "s", path.as_bytes(), &mut out).unwrap();
    assert_eq!(bytes, out.len() as u64);
    out
}

#[test]
fn a_file_comes_out_as_it_went_in() {
    let (world, sparse) = labelled();
    assert_eq!(dumped(&world, "one/folder/sparse"), sparse);
    assert_eq!(dumped(&world, "one/same"), sparse, "a hard link is the file");
    assert_eq!(dumped(&world, "one/folder/empty"), b"");
    assert_eq!(dumped(&world, "two/folder/other"), b"words");
    assert!(matches!(dump(&world.context, "s", b"one/link", &mut Vec::new()), Err(Error::Usage(_))));
    assert_eq!(listed(&world, "s", "", false).len(), 7, "both labels, and what stands at their tops");
    assert_eq!(listed(&world, "s", "two", true), ["two", "two/folder", "two/folder/other"]);
}

/// Reads only a part of what it is given, as a writer that skips members does.
struct Sink {
    bytes_max: u64,
    members: Vec<(String, Option<Vec<u8>>)>,
}

impl MemberSink for Sink {
    fn member(&mut self, path: &[u8], entry: &Entry, content: Option<&mut dyn Read>) -> Result<()> {
        let content = content.map(|content| {
            let mut bytes = Vec::new();
            content.take(self.bytes_max).read_to_end(&mut bytes).unwrap();
            if let Node::File(file) = &entry.node {
                assert_eq!(bytes.len() as u64, file.bytes.min(self.bytes_max));
            }
            bytes
        });
        self.members.push((String::from_utf8(path.to_vec()).unwrap(), content));
        Ok(())
    }
}

#[test]
fn an_archive_gets_every_member_in_order_with_its_content() {
    let (world, sparse) = labelled();
    let walked = |path: &str, bytes_max| {
        let mut sink = Sink { bytes_max, members: Vec::new() };
        walk(&world.context, "s", path.as_bytes(), &mut sink).unwrap();
        sink.members
    };
    let member = |path: &str, content: Option<&[u8]>| (path.to_owned(), content.map(<[u8]>::to_vec));
    let expected = [
        member("one", None),
        member("one/folder", None),
        member("one/folder/empty", Some(b"")),
        member("one/folder/sparse", Some(&sparse)),
        member("one/link", None),
        member("one/same", None),
        member("one/text", Some(&text(2, 9000))),
    ];
    assert_eq!(walked("one", u64::MAX), expected);
    assert_eq!(walked("one/same", u64::MAX), [member("one/same", Some(&sparse))], "alone, a hard link is its file");
    let names = |members: Vec<(String, Option<Vec<u8>>)>| members.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(names(walked("one", 10)), names(expected.to_vec()), "whatever a sink leaves unread");
}

fn paths(report: &DiffReport) -> [Vec<String>; 3] {
    [&report.added, &report.removed, &report.changed]
        .map(|items| items.iter().map(|item| String::from_utf8(item.path.clone()).unwrap()).collect())
}

/// The differences of two maps, folders left out.
fn expected(old: &Files, new: &Files) -> [Vec<String>; 3] {
    let only = |a: &Files, b: &Files| a.keys().filter(|path| !b.contains_key(*path)).cloned().collect();
    let changed = old.iter().filter(|(path, content)| new.get(*path).is_some_and(|other| other != *content));
    [only(new, old), only(old, new), changed.map(|(path, _)| path.clone()).collect()]
}

#[test]
fn a_difference_is_that_of_the_maps() {
    for seed in 0..6u64 {
        let world = World::new();
        let old = if seed == 0 { tricky() } else { many(100 * seed) };
        let mut new = old.clone();
        for (number, path) in old.keys().enumerate() {
            match (number as u64 * 7 + seed) % 13 {
                0 => drop(new.remove(path)),
                1 => drop(new.insert(path.clone(), noise(9999 + number as u64, 30))),
                2 => drop(new.insert(format!("{path} beside"), b"new".to_vec())),
                _ => {}
            }
        }
        store(&world, "old", 1, &old);
        store(&world, "new", 2, &new);
        let is_file = |path: &String| old.contains_key(path) || new.contains_key(path);
        let of_files = |report| paths(&report).map(|paths| paths.into_iter().filter(is_file).collect::<Vec<_>>());
        let sorted = |found: [Vec<String>; 3]| found.map(|paths| paths.into_iter().collect::<BTreeSet<_>>());
        let report = diff(&world.context, "old", "new").unwrap();
        for item in &report.changed {
            let path = std::str::from_utf8(&item.path).unwrap();
            let length = |files: &Files| files.get(path).map(|content| content.len() as u64);
            assert_eq!((item.size_old, item.size_new), (length(&old), length(&new)), "{path}");
        }
        assert_eq!(sorted(of_files(report)), sorted(expected(&old, &new)), "seed {seed}");
        assert_eq!(sorted(of_files(diff(&world.context, "new", "old").unwrap())), sorted(expected(&new, &old)));
        assert_eq!(diff(&world.context, "new", "new").unwrap(), DiffReport::default());
    }
}

#[test]
fn a_difference_reads_what_differs() {
    let world = World::new();
    let old: Files = (0..20_000u64).map(|n| (format!("{}/file {n}", n % 100), noise(n, 3))).collect();
    let mut new = old.clone();
    new.insert("50/file 50".into(), b"other".to_vec());
    store(&world, "old", 1, &old);
    store(&world, "new", 2, &new);
    let whole = pack_reads(&world, || drop(listed(&world, "new", "", true)));
    let reads = pack_reads(&world, || {
        assert_eq!(paths(&diff(&world.context, "old", "new").unwrap())[2], ["50/file 50"]);
    });
    assert!(reads <= 12 && whole > 20, "{reads} reads for one change, {whole} for a whole tree");
}

#[test]
fn a_difference_with_the_disk_looks_into_every_file() {
    let world = World::new();
    let tree = world.folder.path().join("tree");
    fs::create_dir_all(tree.join("folder")).unwrap();
    for (name, seed) in [("same", 1), ("folder/changed", 2), ("gone", 3), ("touched", 4)] {
        fs::write(tree.join(name), noise(seed, 5000)).unwrap();
    }
    world.set_time(1_000_000_000_000);
    let sources = vec![SourceRequest { label: String::new(), path: tree.clone() }];
    let request = CreateRequest { name: "s".into(), sources, ..CreateRequest::default() };
    create(&world.context, &request).unwrap();
    assert_eq!(diff_with_disk(&world.context, "s", &tree).unwrap(), DiffReport::default());
    fs::remove_file(tree.join("gone")).unwrap();
    fs::write(tree.join("new"), b"new").unwrap();
    // The same length, and the time put back: only the bytes tell.
    let changed = tree.join("folder/changed");
    let times = fs::metadata(&changed).unwrap().modified().unwrap();
    let mut bytes = noise(2, 5000);
    bytes[4999] ^= 1;
    fs::write(&changed, bytes).unwrap();
    fs::File::options().write(true).open(&changed).unwrap().set_modified(times).unwrap();
    let [added, removed, changed] = paths(&diff_with_disk(&world.context, "s", &tree).unwrap());
    let trusting = diff_with_places(&world.context, "s", &|_| Some(tree.clone()), Trust::ChangeTimes).unwrap();
    assert_eq!(paths(&trusting), [added.clone(), removed.clone(), changed.clone()]);
    assert_eq!((added, removed), (vec!["new".to_owned()], vec!["gone".to_owned()]));
    assert!(changed.contains(&"folder/changed".to_owned()) && !changed.contains(&"same".to_owned()), "{changed:?}");
}

#[test]
fn a_difference_with_the_disk_bears_an_application_that_removes_files() {
    let world = World::new();
    let tree = world.folder.path().join("tree");
    fs::create_dir_all(&tree).unwrap();
    let names: Vec<PathBuf> = (0..200).map(|number| tree.join(format!("{number:03}"))).collect();
    names.iter().for_each(|name| fs::write(name, b"content").unwrap());
    world.set_time(1_000_000_000_000);
    let sources = vec![SourceRequest { label: String::new(), path: tree.clone() }];
    create(&world.context, &CreateRequest { name: "s".into(), sources, ..CreateRequest::default() }).unwrap();
    let mut turn = names.iter().cycle();
    let removes = || {
        let name = turn.next().unwrap();
        fs::remove_file(name).unwrap();
        std::thread::sleep(std::time::Duration::from_micros(50));
        fs::write(name, b"content").unwrap();
    };
    let compare = |_| diff_with_disk(&world.context, "s", &tree).unwrap() != DiffReport::default();
    assert!(beside(removes, || (0..200).filter(|round| compare(*round)).count() > 0));
}

#[test]
fn a_path_is_found_with_its_versions() {
    let world = World::new();
    for (at, content) in [(1, "one"), (2, "one"), (3, "two"), (4, "one")] {
        let files: Files = [("folder/notes.txt".to_owned(), content.as_bytes().to_vec())].into();
        store(&world, &format!("s{at}"), at, &files);
    }
    for pattern in ["notes", "*.txt", "folder/*.txt"] {
        let found = find(&world.context, pattern).unwrap();
        let seen: Vec<(String, u64)> =
            found.iter().map(|one| (one.listed.snapshot.name.clone(), one.version)).collect();
        let expected = [("s1", 1), ("s2", 1), ("s3", 2), ("s4", 3)].map(|(name, version)| (name.to_owned(), version));
        let again_as_first = [("s1", 1), ("s2", 1), ("s3", 2), ("s4", 1)].map(|(n, version)| (n.to_owned(), version));
        assert!(seen == expected || seen == again_as_first, "{pattern}: {seen:?}");
        assert!(found.iter().all(|one| one.path == b"folder/notes.txt"));
    }
    assert!(find(&world.context, "*.md").unwrap().is_empty());
    assert!(find(&world.context, "txt/*").unwrap().is_empty());
}

#[test]
fn sizes_add_up() {
    let world = World::new();
    let shared: Files = [("shared".to_owned(), noise(1, 200_000))].into();
    let mut more = shared.clone();
    more.insert("own".into(), noise(2, 100_000));
    store(&world, "one", 1, &shared);
    store(&world, "two", 2, &more);
    let sizes = stats(&world.context).unwrap();
    assert_eq!(sizes.logical, 500_000);
    assert_eq!(sizes.distinct, 300_000);
    assert_eq!(sizes.saved_by_deduplication, 200_000);
    assert_eq!(sizes.saved_by_deltas, 0);
    let stored: u64 = world.memory.objects().iter().map(|object| object.bytes).sum();
    assert_eq!(sizes.stored, stored);
    assert_eq!(sizes.packs, world.memory.list(ObjectKind::Pack).unwrap().len() as u64);
    let unique =
        |name: &str| sizes.snapshots.iter().find(|size| size.listed.snapshot.name == name).unwrap().unique_stored;
    // A root and a manifest of its own, and of the second 100 kB of noise.
    assert!(unique("one") < 10_000, "{}", unique("one"));
    assert!((100_000..110_000).contains(&unique("two")), "{}", unique("two"));
}
