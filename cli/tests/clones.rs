//! Goal: on a filesystem that shares extents, a capture of an application reads of a large file only what has
//! changed, and the snapshot is the one that reading all would have given. Method: real XFS and btrfs on loop
//! devices; bytes are counted by the report and by the kernel (`/proc/PID/io`); random changes, after each of
//! which reading all must find not one new chunk.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use copal_sim::mounts::{Filesystem, Mounted};
use copal_sim::seeded::Choices;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::Value;
use support::{World, noise, number};

const MIB: usize = 1 << 20;

/// An application with a tree, and a world beneath a mount so that its state folder can share extents with
/// it.
fn application(mounted: &Mounted, kind: &str, path: &str) -> World {
    let world = World::beneath(mounted.path());
    world.ok(&["init"]);
    fs::create_dir(world.path("data")).unwrap();
    let path = world.text(path);
    let config = format!(
        "[app.a]\n[[app.a.source]]\nkind = \"{kind}\"\nlabel = \"data\"\npath = \"{path}\"\n\
         [[app.a.hook]]\nwhen = \"pre\"\nargv = [\"/bin/true\"]\n"
    );
    fs::write(world.path("copal.toml"), config).unwrap();
    world
}

/// A page-structured file, cut at fixed places.
fn database(seed: u64, bytes: usize) -> Vec<u8> {
    let mut content = noise(seed, bytes);
    content[..16].copy_from_slice(b"SQLite format 3\0");
    content
}

/// A capture: its report, and the bytes that the process has read from anywhere, as the kernel counts them.
#[track_caller]
fn capture(world: &World, arguments: &[&str]) -> (Value, u64) {
    std::thread::sleep(Duration::from_millis(40));
    let arguments = [&["create"], arguments, &["--app", "a", "--json"]].concat();
    let child = world.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    let counted = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
    let read = counted.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap();
    let run = support::finish(child.wait_with_output().unwrap());
    assert_eq!(run.code, 0, "{run:#?}");
    (serde_json::from_slice(&run.stdout).unwrap(), read)
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

#[track_caller]
fn assert_is(world: &World, snapshot: &str, name: &str, file: &Path) {
    let run = world.run(&["dump", &format!("a/{snapshot}"), name]);
    assert!(run.code == 0 && run.stdout == fs::read(file).unwrap(), "{name} of {snapshot}: exit {}", run.code);
}

/// Changes at four places of a large file; how much of it is read for them.
fn check_bytes_read(filesystem: Filesystem) {
    let mounted = Mounted::new(filesystem, 1024).unwrap();
    let world = application(&mounted, "tree", "data");
    let (fixed, content) = (world.path("data/fixed"), world.path("data/content"));
    fs::write(&fixed, database(1, 96 * MIB)).unwrap();
    fs::write(&content, noise(2, 96 * MIB)).unwrap();
    let (first, read) = capture(&world, &["s0"]);
    assert!(number(&first, "bytes_read") >= 192 << 20 && read >= 192 << 20, "{first:#}");
    let places = [4096, 40 << 20, (40 << 20) + 100, 90 << 20];
    let change = |file: &Path, seed: u64| {
        places.iter().zip(seed..).for_each(|(place, seed)| overwrite(file, *place, &noise(seed, 5000)));
    };
    change(&fixed, 10);
    let (second, read) = capture(&world, &["s1"]);
    assert_eq!(second["phase"], "completed");
    assert!(number(&second, "bytes_read") <= 12 * 65536, "{second:#}");
    // With the repository's own objects, the program's libraries, and what else a process reads.
    assert!(read < 24 << 20, "{read} bytes were read");
    assert_is(&world, "s1", "data/fixed", &fixed);
    change(&content, 20);
    let (third, read) = capture(&world, &["s2"]);
    // From hard cut to hard cut, which are 512 KiB apart at the mean.
    assert!(number(&third, "bytes_read") <= 24 << 20, "{third:#}");
    assert!(read < 48 << 20, "{read} bytes were read");
    assert_is(&world, "s2", "data/content", &content);
    // Touched only: nothing of it is read. What was not touched lately is still known two captures later.
    File::open(&fixed).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let (fourth, _) = capture(&world, &["s3"]);
    assert_eq!((number(&fourth, "bytes_read"), number(&fourth, "bytes_new")), (0, 0), "{fourth:#}");
    // One generation: not more clones than files.
    assert_eq!(kept(&world).len(), 2);
    // A clone that somebody has written to is none.
    kept(&world).iter().for_each(|clone| overwrite(clone, 1 << 20, b"x"));
    overwrite(&fixed, 1 << 20, b"x");
    let (fifth, _) = capture(&world, &["s4"]);
    assert!(number(&fifth, "bytes_read") >= 96 << 20, "{fifth:#}");
    assert_is(&world, "s4", "data/fixed", &fixed);
    // A file that is gone takes its clone with it.
    fs::remove_file(&content).unwrap();
    capture(&world, &["s5"]);
    assert_eq!(kept(&world).len(), 1);
}

/// The clones that stay between captures.
fn kept(world: &World) -> Vec<PathBuf> {
    let found =
        Command::new("find").arg(world.path("state")).args(["-path", "*.kept/*", "-not", "-name", "list"]).output();
    let text = String::from_utf8(found.unwrap().stdout).unwrap();
    text.lines().map(PathBuf::from).collect()
}

#[test]
fn of_a_large_file_only_what_changed_is_read_on_xfs() {
    check_bytes_read(Filesystem::Xfs);
}

#[test]
fn of_a_large_file_only_what_changed_is_read_on_btrfs() {
    check_bytes_read(Filesystem::Btrfs);
}

#[test]
fn of_an_image_only_what_changed_is_read_and_other_parents_are_told() {
    let mounted = Mounted::new(Filesystem::Xfs, 512).unwrap();
    let world = application(&mounted, "image", "data/disk");
    let disk = world.path("data/disk");
    fs::write(&disk, noise(1, 32 * MIB)).unwrap();
    let file = OpenOptions::new().write(true).open(&disk).unwrap();
    file.set_len(200 << 20).unwrap();
    capture(&world, &["s0"]);
    overwrite(&disk, 10 << 20, b"one");
    overwrite(&disk, 150 << 20, b"in what was a hole");
    let (second, _) = capture(&world, &["s1"]);
    assert!(number(&second, "bytes_read") <= 3 * 65536, "{second:#}");
    world.ok(&["deploy", "a/s1", &world.text("out"), "--path", "data"]);
    assert!(fs::read(world.path("out")).unwrap() == fs::read(&disk).unwrap());
    // The parent is now one that the clone does not belong to.
    overwrite(&disk, 20 << 20, b"two");
    world.ok(&["delete", "a/s1", "--yes"]);
    let (third, _) = capture(&world, &["s2"]);
    assert!(number(&third, "bytes_read") >= 32 << 20, "{third:#}");
    assert!(fs::read(&disk).unwrap() == world.run(&["dump", "a/s2", "data"]).stdout);
    // And reading all is reading all.
    overwrite(&disk, 21 << 20, b"three");
    let (forced, _) = capture(&world, &["s3", "--force-read"]);
    assert!(number(&forced, "bytes_read") >= 32 << 20, "{forced:#}");
}

/// One random change of a file, by the ways in which extents change.
fn change(choices: &mut Choices, file: &Path, round: u64) {
    const LONGEST: u64 = 40 << 20;
    let open = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let bytes = open.metadata().unwrap().len();
    let at = choices.below(bytes.max(1));
    let some = 1 + choices.below(300_000);
    let write = |offset: u64, bytes: usize| open.write_all_at(&noise(round ^ offset, bytes), offset).unwrap();
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match choices.below(12) {
        0..=2 => write(at, some as usize),
        3 => (0..20).for_each(|_| write(choices.below(bytes.max(1)), 100)),
        4 if bytes < LONGEST => write(bytes, some as usize),
        5 => open.set_len(bytes.saturating_sub(some).max(1)).unwrap(),
        6 if bytes < LONGEST => open.set_len(bytes + some).unwrap(),
        7 => fallocate(&open, hole, at, some).unwrap(),
        8 if bytes < LONGEST => fallocate(&open, FallocateFlags::empty(), at, some).unwrap(),
        // The same extents at another place.
        9 => {
            let block = |offset: u64| offset / 65536 * 65536;
            let (mut from, mut to) = (block(at), block(choices.below(bytes.max(1))));
            let _ = rustix::fs::copy_file_range(&open, Some(&mut from), &open, Some(&mut to), 65536);
        }
        // The whole file anew, a byte longer at its front.
        10 if choices.one_in(3) => {
            let content = fs::read(file).unwrap();
            fs::write(file, [&[round as u8], content.as_slice()].concat()).unwrap();
        }
        // Another file of the same name.
        11 if choices.one_in(3) => {
            fs::copy(file, file.with_extension("other")).unwrap();
            fs::rename(file.with_extension("other"), file).unwrap();
        }
        _ => write(at, 1),
    }
}

/// Random changes; then reading all finds not one new chunk, so every file was cut as it would have been.
fn check_random_changes(filesystem: Filesystem, options: &str, seed: u64) {
    let seed = std::env::var("COPAL_CLONE_SEED").ok().map_or(seed, |given| given.parse().unwrap());
    let mounted = Mounted::new(filesystem, 1024).unwrap();
    if !options.is_empty() {
        let done =
            Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(mounted.path()).status().unwrap();
        assert!(done.success());
    }
    let world = application(&mounted, "tree", "data");
    let files = [world.path("data/fixed"), world.path("data/content"), world.path("data/sparse")];
    fs::write(&files[0], database(seed, 20 * MIB)).unwrap();
    // Text, so that a filesystem that compresses does.
    let text = [copal_sim::text(seed, 10 * MIB), noise(seed + 1, 10 * MIB)].concat();
    fs::write(&files[1], text).unwrap();
    let mut image = database(seed + 2, MIB);
    image.extend(vec![0; 16 * MIB]);
    fs::write(&files[2], image).unwrap();
    let sparse = OpenOptions::new().write(true).open(&files[2]).unwrap();
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&sparse, hole, 2 << 20, 9 << 20).unwrap();
    drop(sparse);
    let mut choices = Choices::new(seed);
    let mut saved = 0;
    capture(&world, &["s0"]);
    let rounds = std::env::var("COPAL_CLONE_ROUNDS").ok().map_or(12, |rounds| rounds.parse().unwrap());
    for round in 1..=rounds {
        for file in &files {
            (0..choices.below(4)).for_each(|_| change(&mut choices, file, round));
        }
        let blocks = || files.iter().map(|file| file.metadata().unwrap().blocks()).collect::<Vec<_>>();
        let blocks_before = blocks();
        let (report, _) = capture(&world, &[&format!("s{round}")]);
        assert_eq!(
            (&report["phase"], &report["warnings"]),
            (&"completed".into(), &serde_json::json!([])),
            "{report:#}"
        );
        saved += u64::from(number(&report, "bytes_read") < number(&report, "bytes") / 4);
        for file in &files {
            let name = format!("data/{}", file.file_name().unwrap().to_str().unwrap());
            assert_is(&world, &format!("s{round}"), &name, file);
        }
        if round % 3 == 0 {
            let (all, _) = capture(&world, &[&format!("all{round}"), "--force-read"]);
            assert!(number(&all, "bytes_read") > 0);
            // XFS gives back what it had allocated in advance when it likes: then holes are seen that were
            // not looked for before.
            if blocks() == blocks_before {
                assert_eq!(number(&all, "bytes_new"), 0, "round {round} of seed {seed}: {all:#}");
            }
        }
    }
    if options.is_empty() {
        assert!(saved * 3 >= rounds, "only {saved} of {rounds} rounds of seed {seed} have read little");
    }
}

#[test]
fn after_random_changes_the_snapshot_is_that_of_a_full_read_on_xfs() {
    check_random_changes(Filesystem::Xfs, "", 11);
}

#[test]
fn after_random_changes_the_snapshot_is_that_of_a_full_read_on_btrfs() {
    check_random_changes(Filesystem::Btrfs, "", 12);
}

#[test]
fn after_random_changes_the_snapshot_is_that_of_a_full_read_on_compressed_btrfs() {
    check_random_changes(Filesystem::Btrfs, "compress-force=zstd", 13);
}
