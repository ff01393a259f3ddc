//! Goal: whoever may write into a repository's folder harms that repository and nothing else: no link in it
//! is followed, and nothing that stands in the place of an object is waited for. Method: each folder and each
//! kind of object of a real repository is replaced by a link to somebody's files, by a pipe, a socket, a
//! folder; every command must come back, and what the links lead to stays as it was.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::{Run, World, finish, noise};

/// So long may a command take that would otherwise wait for ever.
const FOREVER: Duration = Duration::from_secs(120);

/// Everything that a user does, the harmless first.
const COMMANDS: &[&[&str]] = &[
    &["list"],
    &["create", "next", "source"],
    &["gc"],
    &["deploy", "s", "target", "--yes"],
    &["verify"],
    &["verify", "--repair"],
    &["key", "list"],
    &["forget", "--keep-last", "1", "--yes"],
    &["delete", "s", "--yes"],
    &["gc"],
];

fn filled() -> World {
    let world = World::new();
    fs::create_dir(world.path("source")).unwrap();
    fs::write(world.path("source/file"), noise(1, 3000)).unwrap();
    fs::write(world.path("source/large"), noise(2, 300_000)).unwrap();
    world.create("gone", "source");
    fs::write(world.path("source/large"), noise(3, 300_000)).unwrap();
    world.create("s", "source");
    world.ok(&["tag", "s", "kept=true"]);
    world.ok(&["delete", "gone", "--yes"]);
    world
}

/// Somebody's files, with names that objects could have; one more for the object that a link stands for.
fn plant_victim(world: &World, name: &str, content: &[u8]) -> BTreeMap<PathBuf, Vec<u8>> {
    let victim = world.path("victim");
    fs::create_dir_all(&victim).unwrap();
    for each in ["passwd", "hosts", "0123456789abcdef0123456789abcdef", "maintenance"] {
        fs::write(victim.join(each), each).unwrap();
    }
    fs::write(victim.join(name), content).unwrap();
    all(&victim)
}

fn all(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    support::files_below(folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn in_time(mut command: Command, what: &str) -> Run {
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > FOREVER {
            child.kill().unwrap();
            panic!("{what}: it waits for ever");
        }
        sleep(Duration::from_millis(5));
    }
    finish(child.wait_with_output().unwrap())
}

/// Runs everything. No panic, no harm to what links lead to.
fn nothing_else_is_harmed(world: &World, victim: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    for arguments in COMMANDS {
        let what = format!("{what}: {arguments:?}");
        let run = in_time(world.command(arguments), &what);
        assert!(!run.was_killed() && run.code != 101 && !run.stderr.contains("panicked"), "{what}: {}", run.stderr);
        assert_eq!(&all(&world.path("victim")), victim, "{what}: {}", run.stderr);
    }
}

/// The folder of this name; `packs/*` is one of those in `packs`.
fn folder_at(world: &World, name: &str) -> PathBuf {
    match name.strip_suffix("/*") {
        None => world.repository().join(name),
        Some(outer) => {
            let mut inner = fs::read_dir(world.repository().join(outer)).unwrap().map(|entry| entry.unwrap().path());
            inner.find(|path| path.is_dir()).unwrap()
        }
    }
}

#[test]
fn t02_a_link_in_the_place_of_a_folder_leads_nowhere() {
    let all = ["keys", "packs", "packs/*", "index", "snapshots", "labels", "condemned", "sessions", "leases", "tmp"];
    for name in all {
        let world = filled();
        let folder = folder_at(&world, name);
        let victim = plant_victim(&world, "notes", b"of somebody");
        fs::rename(&folder, world.path("aside")).unwrap();
        symlink(world.path("victim"), &folder).unwrap();
        nothing_else_is_harmed(&world, &victim, name);
        // Put back, all is as it was.
        fs::remove_file(&folder).unwrap();
        fs::rename(world.path("aside"), &folder).unwrap();
        world.ok(&["list"]);
    }
}

#[test]
fn t02_a_link_is_named() {
    let world = filled();
    plant_victim(&world, "notes", b"of somebody");
    fs::remove_dir_all(world.repository().join("sessions")).unwrap();
    symlink(world.path("victim"), world.repository().join("sessions")).unwrap();
    let refused = world.run(&["gc"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("sessions is a link"), "{}", refused.stderr);
    // A repository behind a link is the user's own word.
    symlink(world.repository(), world.path("behind")).unwrap();
    fs::remove_file(world.repository().join("sessions")).unwrap();
    fs::create_dir(world.repository().join("sessions")).unwrap();
    world.ok(&["--repo", &world.text("behind"), "gc"]);
}

#[test]
fn t02_what_stands_in_the_place_of_an_object_is_neither_followed_nor_waited_for() {
    let kinds = ["config", "config-copy", "keys", "packs", "index", "snapshots", "labels", "condemned", "parity"];
    let mut tried = 0;
    for kind in kinds {
        for planted in ["link", "pipe", "socket", "folder"] {
            let world = filled();
            let object = match world.repository().join(kind) {
                file if file.is_file() => file,
                folder => match support::files_below(&folder).pop() {
                    Some(object) => object,
                    None => continue,
                },
            };
            let content = fs::read(&object).unwrap();
            let victim = plant_victim(&world, "object", &content);
            fs::remove_file(&object).unwrap();
            match planted {
                "link" => symlink(world.path("victim/object"), &object).unwrap(),
                "pipe" => mknodat(CWD, &object, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
                "socket" => drop(UnixListener::bind(&object).unwrap()),
                _ => fs::create_dir(&object).unwrap(),
            }
            nothing_else_is_harmed(&world, &victim, &format!("{planted} in {kind}"));
            tried += 1;
        }
    }
    assert!(tried >= 28, "only {tried} were tried");
}
