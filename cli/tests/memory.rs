//! Goal: memory does not grow with the number of files and chunks (C6). Method: a tree of many small files,
//! each with a chunk of its own, is stored, stored again, changed, compared, restored, verified and collected
//! by the built program, and the kernel says how much memory each process held at its height. `COPAL_LONG=1`
//! does it with a million, and `COPAL_PROGRAM` with another build of the program.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::{COPAL, World};
use wait4::Wait4;

const FILES_PER_FOLDER: u64 = 200;
/// One file in so many changes between two snapshots.
const CHANGED_ONE_IN: u64 = 50;

fn file(source: &Path, number: u64) -> PathBuf {
    source.join(format!("folder-{:05}", number / FILES_PER_FOLDER)).join(format!("file-{number:07}.txt"))
}

/// Some hundred bytes that no other file has.
fn content(number: u64, version: u64) -> String {
    format!("file {number} in its version {version}\n").repeat(2 + (number % 9) as usize)
}

fn write_tree(source: &Path, files: u64) {
    for number in 0..files {
        let path = file(source, number);
        if number % FILES_PER_FOLDER == 0 {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::write(path, content(number, 0)).unwrap();
    }
}

/// Runs the program; returns the largest resident set that it had.
fn peak(world: &World, arguments: &[&str]) -> u64 {
    let program = std::env::var_os("COPAL_PROGRAM").map_or_else(|| PathBuf::from(COPAL), PathBuf::from);
    let mut command = world.command_of(&program, arguments);
    let log = fs::File::create(world.path("log")).unwrap();
    command.stdout(Stdio::null()).stderr(log);
    let used = command.spawn().unwrap().wait4().unwrap();
    assert!(used.status.success(), "{arguments:?}: {}", fs::read_to_string(world.path("log")).unwrap());
    used.rusage.maxrss
}

#[test]
fn memory_is_bounded_with_many_files() {
    let long = std::env::var_os("COPAL_LONG").is_some();
    let (files, limit) = if long { (1_000_000, 256 << 20) } else { (20_000, 96 << 20) };
    let world = World::new();
    let source = world.path("source");
    write_tree(&source, files);
    let source = world.text("source");
    let one = world.text("one");
    let mut seen = Vec::new();
    let mut measure = |what: &'static str, arguments: &[&str]| {
        let bytes = peak(&world, arguments);
        println!("{files} files: {what}: {} MiB", bytes >> 20);
        seen.push((what, bytes));
    };
    measure("the first create", &["create", "first", &source]);
    measure("a create of what did not change", &["create", "again", &source]);
    for number in (0..files).step_by(CHANGED_ONE_IN as usize) {
        fs::write(file(Path::new(&source), number), content(number, 1)).unwrap();
    }
    measure("a create of what changed", &["create", "changed", &source]);
    measure("list", &["list"]);
    measure("ls", &["ls", "changed"]);
    measure("find", &["find", "file-0000001.txt"]);
    measure("stats", &["stats"]);
    measure("diff", &["diff", "first", "changed"]);
    measure("diff with the tree", &["diff", "first", &source]);
    measure("deploy", &["deploy", "first", &one, "--yes"]);
    measure("deploy over another", &["deploy", "changed", &one, "--yes"]);
    measure("deploy in place", &["deploy", "first", &one, "--yes", "--mode", "in-place"]);
    measure("verify", &["verify"]);
    measure("delete", &["delete", "first", "again", "--yes"]);
    measure("gc", &["gc"]);
    measure("verify after it", &["verify"]);
    let over: Vec<_> = seen.iter().filter(|(_, bytes)| *bytes > limit).collect();
    assert!(over.is_empty(), "{files} files: more than {} MiB: {over:?}", limit >> 20);
}
