//! Goal: what the world does to a repository, to its caches and to a source costs nothing, and is told.
//! Method: the built program over read-only mounts, spoilt caches, sources that change under the reader, and
//! itself.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use copal_sim::beside;
use serde_json::{Value, json};
use support::kill::Random;
use support::{COPAL, Run, World, assert_same, files_below, finish, flip, look, noise, number, plant};

/// Commands that only read, with what they need.
const READERS: &[&[&str]] = &[
    &["list"],
    &["show", "one"],
    &["ls", "one", "--recursive"],
    &["dump", "one", "small.txt"],
    &["dump", "one", "/", "--tar"],
    &["diff", "one", "two"],
    &["diff", "one", "source"],
    &["find", "small*"],
    &["stats"],
    &["key", "list"],
    &["verify"],
    &["verify", "--quick", "one"],
    &["deploy", "one", "deployed", "--yes"],
];

const WRITERS: &[&[&str]] = &[
    &["create", "three", "source"],
    &["tag", "one", "a=b"],
    &["pin", "two"],
    &["delete", "one", "--yes"],
    &["forget", "--keep-last", "1"],
    &["gc"],
    &["key", "add", "--new-key-file", "other key"],
];

fn with_two_snapshots() -> World {
    let world = World::new();
    plant(&world.path("source"));
    world.create("one", "source");
    fs::write(world.path("source/small.txt"), b"other words").unwrap();
    world.create("two", "source");
    fs::write(world.path("other key"), noise(77, 32)).unwrap();
    world
}

/// A folder mounted over itself, read-only; unmounted when dropped.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn new(folder: &Path) -> Self {
        let mount = |options: &[&str]| {
            let done = Command::new("mount").args(options).arg(folder).arg(folder).status().unwrap();
            assert!(done.success(), "mount {options:?}");
        };
        mount(&["--bind"]);
        let mounted = Self(folder.to_owned());
        let done = Command::new("mount").args(["-o", "remount,ro,bind"]).arg(folder).status().unwrap();
        assert!(done.success());
        mounted
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_read_only_repository_is_read_and_not_written() {
    let world = with_two_snapshots();
    let tree = {
        world.ok(&["deploy", "one", "wanted"]);
        look(&world.path("wanted"))
    };
    let before = world.objects();
    let mounted = ReadOnly::new(&world.repository());
    for words in READERS {
        world.ok(words);
    }
    assert_same(&tree, &look(&world.path("deployed")));
    for words in WRITERS {
        world.fails(words, 68, "read-only");
    }
    drop(mounted);
    assert!(before == world.objects(), "nothing was written");
    for words in WRITERS {
        world.ok(words);
    }
}

#[test]
fn a18_a_repository_of_somebody_else_is_read_where_that_is_permitted() {
    let world = with_two_snapshots();
    let program = world.path("copal");
    fs::copy(COPAL, &program).unwrap();
    let open = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for path in ["", "copal", "home"] {
        fs::create_dir_all(world.path("home")).unwrap();
        open(&world.path(path), 0o755);
    }
    open(&world.path("key"), 0o644);
    open(&world.path("other key"), 0o644);
    fs::create_dir(world.path("theirs")).unwrap();
    open(&world.path("theirs"), 0o777);
    let run = |words: &[&str]| {
        let mut command = world.command_of(&program, words);
        command.arg("--json").env("XDG_CACHE_HOME", world.path("theirs/cache"));
        command.env("XDG_STATE_HOME", world.path("theirs/state")).uid(65534).gid(65534);
        finish(command.output().unwrap())
    };
    let refused = run(&["list"]);
    assert_eq!((refused.code, refused.error()["code"].as_str()), (68, Some("permission")), "{refused:?}");

    for folder in ["", "keys", "packs", "index", "snapshots", "labels", "condemned", "sessions", "leases", "tmp"] {
        open(&world.repository().join(folder), 0o755);
    }
    for path in files_below(&world.repository()) {
        open(path.parent().unwrap(), 0o755);
        open(&path, 0o644);
    }
    let before = world.objects();
    for words in READERS.iter().filter(|words| words[0] != "deploy" && words.last() != Some(&"source")) {
        let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--tar").collect();
        if words[0] == "dump" && words.last() == Some(&"/") {
            continue;
        }
        let read = run(&words);
        assert_eq!(read.code, 0, "{words:?}: {read:?}");
    }
    let deployed = run(&["deploy", "one", "theirs/deployed"]);
    assert_eq!(deployed.code, 0, "{deployed:?}");
    assert_eq!(fs::read(world.path("theirs/deployed/small.txt")).unwrap(), b"a few words\n");
    for words in WRITERS {
        let refused = run(words);
        assert_eq!(
            (refused.code, refused.error()["code"].as_str()),
            (68, Some("permission")),
            "{words:?}: {refused:?}"
        );
    }
    assert!(before == world.objects(), "nothing was written");
}

/// All that a repository says, in an order that does not change.
fn everything(world: &World) -> Vec<Value> {
    [&["list"][..], &["show", "one"], &["ls", "two", "-R"], &["diff", "one", "two"], &["find", "*.txt"], &["stats"]]
        .iter()
        .map(|words| world.json(words))
        .collect()
}

#[test]
fn caches_that_are_lost_are_made_again_and_it_is_said() {
    let world = with_two_snapshots();
    let known = everything(&world);
    let caches = files_below(&world.path("cache"));
    assert!(caches.iter().any(|path| path.ends_with("state.redb")), "{caches:?}");
    fs::remove_dir_all(world.path("cache")).unwrap();
    let run = world.run(&["list"]);
    assert!(run.code == 0 && run.stderr.contains("is missing and is made anew"), "{run:?}");
    assert_eq!(everything(&world), known);
    let run = world.run(&["list"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "all is well again");
    // A snapshot that the cache does not know, and one that it still knows.
    world.ok(&["deploy", "two", "deployed"]);
    finish(world.elsewhere(&["delete", "one", "--yes"]).output().unwrap());
    finish(world.elsewhere(&["create", "three", "source"]).output().unwrap());
    let names = |list: &Value| list.as_array().unwrap().iter().map(|one| one["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&world.json(&["list"])), [json!("two"), json!("three")]);
}

#[test]
fn caches_that_are_spoilt_are_never_believed() {
    let world = with_two_snapshots();
    let known = everything(&world);
    let mut random = Random(7);
    world.ok(&["deploy", "one", "deployed"]);
    let one = look(&world.path("deployed"));
    world.ok(&["deploy", "two", "deployed", "--yes"]);
    let two = look(&world.path("deployed"));
    let mut said = 0;
    for round in 0..25 {
        let mut files = files_below(&world.path("cache"));
        files.extend(files_below(&world.path("state")));
        for path in files {
            let bytes = fs::metadata(&path).unwrap().len();
            match round {
                0 => fs::write(&path, b"").unwrap(),
                1 => fs::write(&path, noise(5, 3000)).unwrap(),
                2 => File::options().write(true).open(&path).unwrap().set_len(bytes / 2).unwrap(),
                3 => fs::write(&path, vec![0; bytes as usize]).unwrap(),
                4 => fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap(),
                _ => (0..1 + round / 4).for_each(|_| flip(&path, random.below(bytes.max(1)).min(bytes - 1), 3)),
            }
        }
        let run = world.run(&["list"]);
        assert_eq!(run.code, 0, "{run:?}");
        said += u64::from(!run.stderr.is_empty());
        assert_eq!(everything(&world), known, "round {round}");
        let (name, wanted) = if round % 2 == 0 { ("one", &one) } else { ("two", &two) };
        world.ok(&["deploy", name, "deployed", "--yes"]);
        assert_same(wanted, &look(&world.path("deployed")));
    }
    assert!(said >= 4, "a cache that cannot be used is spoken of: {said}");
}

#[test]
fn h02_of_two_creates_of_one_name_at_most_one_wins() {
    let world = World::new();
    plant(&world.path("source"));
    plant(&world.path("source 2"));
    fs::write(world.path("source 2/small.txt"), b"the other").unwrap();
    let mut won = 0;
    for round in 0..12 {
        let name = format!("round-{round}");
        let start = |source: &str| {
            let mut command = world.command(&["create", &name, source, "--json"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children = [start("source"), start("source 2"), start("source")];
        let runs: Vec<Run> = children.into_iter().map(|child| finish(child.wait_with_output().unwrap())).collect();
        let winners: Vec<&Run> = runs.iter().filter(|run| run.code == 0).collect();
        assert!(winners.len() <= 1, "{runs:#?}");
        for run in runs.iter().filter(|run| run.code != 0) {
            assert_eq!((run.code, run.error()["code"].as_str()), (86, Some("name-taken")), "{run:?}");
        }
        let list = world.json(&["list"]);
        let listed: Vec<&Value> = list.as_array().unwrap().iter().filter(|line| line["name"] == *name).collect();
        assert_eq!(listed.len(), winners.len(), "{list:#}");
        if let Some(winner) = winners.first() {
            won += 1;
            let report: Value = serde_json::from_slice(&winner.stdout).unwrap();
            assert_eq!(report["id"], listed[0]["id"]);
        }
    }
    assert!(won > 0, "somebody wins sometimes");
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
}

/// Writes to a source, another round with each call.
fn disturb(source: PathBuf) -> impl FnMut() + Send {
    let mut round = 0_u64;
    move || {
        round += 1;
        // One generation in every block: a reader who mixes two has a torn file.
        let block = noise(round, 64);
        let torn = File::options().write(true).open(source.join("in place")).unwrap();
        for at in (0..8 << 20).step_by(64 << 10) {
            torn.write_all_at(&block, at).unwrap();
        }
        fs::write(source.join("new"), noise(round, 300_000)).unwrap();
        fs::rename(source.join("new"), source.join("replaced")).unwrap();
        fs::write(source.join(format!("comes {}", round % 7)), noise(round, 1000)).unwrap();
        let _ = fs::remove_file(source.join(format!("comes {}", (round + 3) % 7)));
        let _ =
            fs::create_dir(source.join("folder or file")).map_err(|_| fs::remove_dir(source.join("folder or file")));
        let grows = File::options().append(true).open(source.join("grows")).unwrap();
        grows.write_all_at(&block, 0).unwrap();
        if round.is_multiple_of(3) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_source_that_changes_under_the_reader_is_noticed() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    fs::write(source.join("in place"), vec![0; 8 << 20]).unwrap();
    fs::write(source.join("grows"), b"x").unwrap();
    let quiet = look(&source.join("folder"));
    beside(disturb(source.clone()), || {
        for round in 0..8 {
            let name = format!("round-{round}");
            let run = world.run(&["create", &name, "source", "--json"]);
            assert!([0, 3].contains(&run.code), "{run:?}");
            let report: Value = serde_json::from_slice(&run.stdout).unwrap();
            let warned = report["warnings"].to_string();
            assert_eq!(run.code == 3, number(&report, "unread_files") > 0, "{report:#}");
            world.ok(&["deploy", &name, "deployed", "--yes"]);
            let deployed = world.path("deployed");
            assert_same(&quiet, &look(&deployed.join("folder")));
            let torn = fs::read(deployed.join("in place")).unwrap();
            let blocks: Vec<&[u8]> = torn.chunks(64 << 10).map(|unit| &unit[..64]).collect();
            let whole = blocks.iter().all(|block| *block == blocks[0]);
            assert!(whole || warned.contains("in place"), "torn, and nobody said so: {report:#}");
            if let Ok(replaced) = fs::read(deployed.join("replaced")) {
                assert_eq!(replaced.len(), 300_000, "a file that was replaced is one or the other");
            }
        }
    });
    thread::sleep(Duration::from_millis(30));
    let report = world.json(&["create", "quiet", "source"]);
    assert_eq!(report["warnings"], json!([]));
    world.ok(&["deploy", "quiet", "deployed", "--yes"]);
    assert_same(&look(&source), &look(&world.path("deployed")));
}
