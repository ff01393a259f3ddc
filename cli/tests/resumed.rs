//! Goal: what a killed create stored is not stored again. Method: the built program, stopped and then killed
//! when it has written a share of the source; what the next create of the same source stores is counted.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{World, assert_same, look, noise, number};

const MIB: u64 = 1 << 20;
/// Of a source that has nothing in common with itself.
const SOURCE_BYTES: u64 = 1024 * MIB;
const FILES: u64 = 32;
/// A pack has so many bytes, and so many stand open: one for each worker.
const PACK_BYTES: u64 = 64 * MIB;
const WORKERS: u64 = 2;

fn fill(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for file in 0..FILES {
        fs::write(folder.join(format!("file {file:02}")), noise(file, (SOURCE_BYTES / FILES) as usize)).unwrap();
    }
}

/// Runs a create and kills it when it has written so many bytes; how many it had written.
fn kill_after_bytes(mut command: Command, bytes: u64) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let written = || {
        let io = fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).unwrap_or_default();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
        line.map_or(0, |number| number.parse().unwrap())
    };
    while written() < bytes {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it had written {bytes} bytes");
        std::thread::sleep(Duration::from_millis(2));
    }
    kill_process(pid, Signal::STOP).unwrap();
    let before = written();
    kill_process(pid, Signal::KILL).unwrap();
    child.wait().unwrap();
    before
}

/// A create that is killed at sixty percent, and the one after it: what both stored is at most forty percent
/// of the source.
fn check_resumed(world: &World, create: &[&str]) {
    let threads = WORKERS.to_string();
    let create = [create, &["--threads", &threads]].concat();
    let before = kill_after_bytes(world.command(&create), SOURCE_BYTES * 6 / 10);
    assert!(before < SOURCE_BYTES * 8 / 10, "it was killed too late: {before} bytes were written");
    let report = world.json(&create);
    let sent = number(&report, "bytes_new");
    let twice = (before + sent).saturating_sub(SOURCE_BYTES);
    println!("killed after {} MiB: {} MiB more, {} MiB twice", before / MIB, sent / MIB, twice / MIB);
    assert!(sent * 10 < SOURCE_BYTES * 6, "{sent} bytes were stored after {before} had been");
    // What no pack or no fragment was published of; and what is written beside contents.
    assert!(twice < WORKERS * PACK_BYTES + PACK_BYTES, "{twice} bytes were stored twice");
}

#[test]
fn d19_a_first_create_that_is_killed_stores_little_again() {
    let world = World::new();
    fill(&world.path("source"));
    check_resumed(&world, &["create", "first", "source"]);
    world.ok(&["verify"]);
    world.ok(&["deploy", "first", "target"]);
    assert_same(&look(&world.path("source")), &look(&world.path("target")));
}

#[test]
fn d19_a_first_create_of_an_application_that_is_killed_stores_little_again() {
    let world = World::new();
    fill(&world.path("bucket"));
    let config = "[app.hub]\n[[app.hub.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = \"bucket\"\n";
    fs::write(world.path("copal.toml"), config).unwrap();
    let wanted = look(&world.path("bucket"));
    check_resumed(&world, &["create", "first", "--app", "hub"]);
    fs::remove_dir_all(world.path("bucket")).unwrap();
    world.ok(&["deploy", "first", "--app", "hub", "--yes"]);
    assert_same(&wanted, &look(&world.path("bucket")));
}
