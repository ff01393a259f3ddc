//! Goal: nothing that lies in or beside a target, nor anything a snapshot holds, makes recovery write or
//! remove anywhere; what this program itself left is still finished. Method: the built program as root, and
//! what another user can put under the names of journals and leftovers; a deploy that is really interrupted,
//! its journal copied, moved, or without its state folder.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::known::left_beside;
use support::{COPAL, Run, World, assert_same, finish, look, noise};

const HEX: &str = "0123456789abcdef";
/// The usual user without rights.
const NOBODY: u32 = 65534;

fn journal_name() -> String {
    format!(".data.copal-journal-{HEX}")
}

/// A source, its snapshot `s`, and the target `data` that equals it.
fn deployed() -> World {
    let world = World::new();
    fs::create_dir(world.path("source")).unwrap();
    fs::write(world.path("source/file"), noise(1, 3000)).unwrap();
    fs::write(world.path("source/a"), noise(3, 100)).unwrap();
    fs::write(world.path("source/database"), noise(2, 2 << 20)).unwrap();
    world.create("s", "source");
    world.ok(&["deploy", "s", "data"]);
    world
}

/// One number as the documents of the format write it.
fn number(value: u64) -> Vec<u8> {
    match value {
        0..=250 => vec![value as u8],
        251..=0xffff => [&[251][..], &(value as u16).to_le_bytes()].concat(),
        0x1_0000..=0xffff_ffff => [&[252][..], &(value as u32).to_le_bytes()].concat(),
        _ => [&[253][..], &value.to_le_bytes()].concat(),
    }
}

fn bytes(value: &[u8]) -> Vec<u8> {
    [&number(value.len() as u64)[..], value].concat()
}

/// A journal as format 1 had it, with the right checksum: its steps put a set-user-id file of root into
/// `root`.
fn plant_journal(at: &Path, root: &Path) {
    fs::create_dir_all(at.join("s01")).unwrap();
    fs::write(at.join("s01/1"), b"* * * * * root id > owned\n").unwrap();
    let place = [number(2), bytes(b"evil"), number(1), vec![0]].concat();
    let time = number(2 * 1_700_000_000);
    let put = [number(5), bytes(b"evil"), vec![1], number(0o4755), number(0), number(0), time, number(0), number(0)];
    let steps: Vec<u8> =
        [place, put.concat()].iter().flat_map(|step| [&(step.len() as u32).to_le_bytes()[..], step].concat()).collect();
    fs::write(at.join("steps"), &steps).unwrap();
    let found = fs::metadata(root).unwrap();
    let path = bytes(root.as_os_str().as_encoded_bytes());
    let hash = blake3::hash(&steps);
    let body =
        [number(1), path, number(found.dev()), number(found.ino()), number(2), hash.as_bytes().to_vec()].concat();
    fs::write(at.join("commit"), [&blake3::hash(&body).as_bytes()[..], &body].concat()).unwrap();
}

fn give_to(path: &Path, user: u32) {
    for path in support::files_below(path).into_iter().chain([path.join("s01"), path.to_owned()]) {
        let _ = std::os::unix::fs::lchown(&path, Some(user), Some(user));
    }
}

/// A command that must come back: what waits for a pipe waits for ever.
fn run_in_time(mut command: Command) -> Run {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("it hangs: {:#?}", finish(child.wait_with_output().unwrap()));
        }
        sleep(Duration::from_millis(5));
    }
    finish(child.wait_with_output().unwrap())
}

/// Something under a name, and whether it is still there and as it was.
struct Planted {
    path: PathBuf,
    identity: (u64, u64),
}

impl Planted {
    fn of(path: PathBuf) -> Self {
        let found = fs::symlink_metadata(&path).unwrap();
        Self { identity: (found.ino(), found.len()), path }
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let found = fs::symlink_metadata(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        assert_eq!(self.identity, (found.ino(), found.len()), "{}", self.path.display());
    }
}

/// Everything but a folder that can have a name.
fn plant_kinds(folder: &Path, prefix: &str) -> Vec<Planted> {
    let name = |last: &str| folder.join(format!("{prefix}{}{last}", &HEX[..15]));
    let make = |path: &Path, kind, device| mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).unwrap();
    make(&name("1"), FileType::Fifo, 0);
    make(&name("2"), FileType::Socket, 0);
    make(&name("3"), FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    symlink("/dev/zero", name("4")).unwrap();
    symlink(folder, name("5")).unwrap();
    fs::write(name("6"), b"a file").unwrap();
    fs::File::create(name("7")).unwrap().set_len(1 << 40).unwrap();
    ["1", "2", "3", "4", "5", "6", "7"].map(|last| Planted::of(name(last))).into()
}

#[test]
fn t01_a_planted_journal_writes_nowhere() {
    for user in [NOBODY, 0] {
        for inside in [false, true] {
            let world = deployed();
            let other = world.path("other");
            fs::create_dir(&other).unwrap();
            let folder = world.path(if inside { "data" } else { "" });
            for root in [&other, &world.path("data")] {
                let at = folder.join(journal_name());
                plant_journal(&at, root);
                give_to(&at, user);
                let before = look(&world.path("data"));
                for words in [&["deploy", "s", "data", "--dry-run"][..], &["list"], &["verify"]] {
                    world.ok(words);
                    assert_same(&before, &look(&world.path("data")));
                    assert!(at.join("commit").exists(), "{words:?}: it is somebody's data");
                }
                let run = run_in_time(world.command(&["deploy", "s", "data", "--yes"]));
                assert_eq!(run.code, 0, "{run:#?}");
                assert!(run.stderr.contains("nothing vouches for it"), "{run:#?}");
                assert_same(&look(&world.path("source")), &look(&world.path("data")));
                assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "nothing goes elsewhere");
                assert_eq!(at.exists(), !inside, "what lies in the target is replaced with it; beside it, it stays");
                let _ = fs::remove_dir_all(&at);
            }
        }
    }
}

#[test]
fn t01_nothing_that_has_a_name_of_ours_hangs_or_stops_a_command() {
    for prefix in [".data.copal-journal-", ".data.copal-"] {
        let world = deployed();
        let beside = plant_kinds(&world.path(""), prefix);
        let _inside = plant_kinds(&world.path("data"), prefix);
        for words in [&["deploy", "s", "data", "--dry-run"][..], &["deploy", "s", "data", "--yes"]] {
            let run = run_in_time(world.command(words));
            assert_eq!(run.code, 0, "{words:?}: {run:#?}");
            beside.iter().for_each(Planted::assert_untouched);
        }
        assert_same(&look(&world.path("source")), &look(&world.path("data")));
    }
}

#[test]
fn t01_kinds_of_files_in_the_place_of_a_record_or_a_note_stop_nothing() {
    let world = deployed();
    let at = world.path(&journal_name());
    for name in ["commit", "steps"] {
        for kind in ["pipe", "device", "link", "folder", "huge"] {
            plant_journal(&at, &world.path("data"));
            let path = at.join(name);
            fs::remove_file(&path).unwrap();
            match kind {
                "pipe" => mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
                "device" => {
                    mknodat(
                        CWD,
                        &path,
                        FileType::CharacterDevice,
                        Mode::from_raw_mode(0o600),
                        rustix::fs::makedev(1, 5),
                    )
                    .unwrap();
                }
                "link" => symlink("/dev/zero", &path).unwrap(),
                "folder" => fs::create_dir(&path).unwrap(),
                _ => fs::File::create(&path).unwrap().set_len(1 << 40).unwrap(),
            }
            for words in [&["deploy", "s", "data", "--dry-run"][..], &["deploy", "s", "data", "--yes"]] {
                let run = run_in_time(world.command(words));
                assert_eq!(run.code, 0, "{name} as a {kind}: {run:#?}");
            }
            assert!(fs::symlink_metadata(&path).is_ok(), "{name} as a {kind} stays");
            fs::remove_dir_all(&at).unwrap();
        }
    }
    let notes = world.path("state/copal/pending");
    let planted = plant_kinds(&notes, "");
    let run = run_in_time(world.command(&["deploy", "s", "data", "--yes"]));
    assert_eq!(run.code, 0, "{run:#?}");
    planted.iter().for_each(Planted::assert_untouched);
}

#[test]
fn t01_a_users_folder_with_a_name_of_ours_is_never_removed() {
    let world = deployed();
    let folders = [format!(".data.copal-{HEX}"), journal_name()].map(|name| world.path(&name));
    for folder in &folders {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("thesis"), b"years of work").unwrap();
        give_to(folder, NOBODY);
    }
    fs::write(world.path("data/file"), b"drift").unwrap();
    let commands: [&[&str]; 5] = [
        &["deploy", "s", "data", "--dry-run"],
        &["deploy", "s", "data", "--yes", "--mode", "in-place"],
        &["deploy", "s", "data", "--yes", "--mode", "swap"],
        &["status"],
        &["gc"],
    ];
    for words in commands {
        world.ok(words);
        for folder in &folders {
            assert_eq!(fs::read(folder.join("thesis")).unwrap(), b"years of work", "{words:?}");
        }
    }
    assert_same(&look(&world.path("source")), &look(&world.path("data")));
}

#[test]
fn t01_a_snapshot_that_holds_such_folders_deploys_them_as_data() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    fs::create_dir(world.path("other")).unwrap();
    fs::write(source.join("file"), b"x").unwrap();
    plant_journal(&source.join(journal_name()), &world.path("other"));
    fs::create_dir(source.join(format!(".data.copal-{HEX}"))).unwrap();
    fs::write(source.join(format!(".data.copal-{HEX}/file")), b"y").unwrap();
    world.create("s", "source");
    let wanted = look(&source);
    for mode in ["auto", "in-place", "swap", "auto"] {
        world.ok(&["deploy", "s", "data", "--yes", "--mode", mode]);
        assert_same(&wanted, &look(&world.path("data")));
        fs::write(world.path("data/file"), b"drift").unwrap();
    }
    // And as what lies beside a target.
    let inner = format!("source/{}", "data");
    world.ok(&["deploy", "s", &inner, "--yes"]);
    world.ok(&["deploy", "s", &inner, "--yes"]);
    assert_eq!(fs::read_dir(world.path("other")).unwrap().count(), 0);
}

/// A deploy of `s` to `data` in place that is killed half way: it may not write as far into a file as its
/// last step does.
fn interrupted(world: &World) -> PathBuf {
    fs::write(world.path("data/a"), b"drift").unwrap();
    let mut database = noise(2, 2 << 20);
    database[1 << 20] ^= 1;
    fs::write(world.path("data/database"), database).unwrap();
    let words = ["--fsize=524288", COPAL, "deploy", "s", "data", "--yes", "--mode", "in-place"];
    let run = finish(world.command_of(Path::new("/usr/bin/prlimit"), &words).output().unwrap());
    assert!(run.was_killed(), "{run:#?}");
    assert_eq!(fs::read(world.path("data/a")).unwrap(), noise(3, 100), "it is half written");
    let left = left_beside(&world.path(""));
    let [name] = left.as_slice() else { panic!("{left:?}: {run:#?}") };
    assert!(world.path(name).join("commit").exists(), "it is decided");
    world.path(name)
}

#[test]
fn t01_a_genuine_interrupted_deploy_is_finished_and_a_dry_run_only_says_so() {
    let world = deployed();
    let journal = interrupted(&world);
    let all = || (look(&world.path("data")), look(&journal), support::files_below(&world.path("state")));
    let before = all();
    let run = world.run(&["deploy", "s", "data", "--dry-run"]);
    assert!(run.code == 0 && run.stderr.contains("would be finished first"), "{run:#?}");
    assert_eq!(before.0, all().0, "a dry run writes nothing");
    assert_eq!(before.1, all().1, "a dry run writes nothing");
    let run = world.run(&["list"]);
    assert!(run.stderr.contains("finished an interrupted deploy"), "{run:#?}");
    assert_same(&look(&world.path("source")), &look(&world.path("data")));
    assert!(!journal.exists());
}

#[test]
fn t01_a_genuine_journal_is_of_its_own_target_and_its_own_folder_alone() {
    let world = deployed();
    world.ok(&["deploy", "s", "victim"]);
    fs::write(world.path("victim/file"), b"other data").unwrap();
    let victim = look(&world.path("victim"));
    let journal = interrupted(&world);
    let hex = journal.to_str().unwrap().rsplit('-').next().unwrap().to_owned();
    let copies =
        [world.path(&format!(".victim.copal-journal-{hex}")), world.path(&format!(".data.copal-journal-{HEX}"))];
    for copy in &copies {
        assert!(Command::new("cp").arg("-a").arg(&journal).arg(copy).status().unwrap().success());
    }
    let run = world.run(&["deploy", "s", "victim", "--yes", "--dry-run"]);
    assert!(run.code == 0 && run.stderr.contains("does not vouch"), "{run:#?}");
    assert_same(&victim, &look(&world.path("victim")));
    world.ok(&["deploy", "s", "victim", "--yes"]);
    world.ok(&["deploy", "s", "data", "--yes"]);
    copies.iter().for_each(|copy| assert!(copy.join("commit").exists(), "{}", copy.display()));
    assert!(!journal.exists());
    // The same name in the place of the genuine one, as a copy.
    let journal = interrupted_again(&world, &copies);
    let kept = world.path("kept aside");
    assert!(Command::new("cp").arg("-a").arg(&journal).arg(&kept).status().unwrap().success());
    fs::remove_dir_all(&journal).unwrap();
    fs::rename(&kept, &journal).unwrap();
    let drifted = look(&world.path("data"));
    let run = world.run(&["list"]);
    assert!(run.stderr.contains("left alone"), "{run:#?}");
    assert_same(&drifted, &look(&world.path("data")));
    assert!(journal.exists());
}

fn interrupted_again(world: &World, others: &[PathBuf]) -> PathBuf {
    others.iter().for_each(|other| fs::remove_dir_all(other).unwrap());
    interrupted(world)
}

#[test]
fn t01_a_lost_state_folder_is_named_and_stops_nothing() {
    let world = deployed();
    let journal = interrupted(&world);
    fs::remove_dir_all(world.path("state")).unwrap();
    let before = look(&world.path("data"));
    let run = world.run(&["deploy", "s", "data", "--dry-run"]);
    assert_eq!(run.code, 0, "{run:#?}");
    for part in [journal.to_str().unwrap(), "nothing vouches for it", "may be half written", "Remove it by hand"] {
        assert!(run.stderr.contains(part), "{part}: {run:#?}");
    }
    assert_same(&before, &look(&world.path("data")));
    let run = world.run(&["deploy", "s", "data", "--yes"]);
    assert!(run.code == 0 && run.stderr.contains("may be half written"), "{run:#?}");
    assert_same(&look(&world.path("source")), &look(&world.path("data")));
    assert!(journal.join("commit").exists(), "it was left alone");
}

#[test]
fn t01_another_users_state_folder_is_not_believed() {
    let world = deployed();
    let journal = interrupted(&world);
    let state = world.path("state/copal");
    std::os::unix::fs::chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
    let before = look(&world.path("data"));
    let run = world.run(&["list"]);
    assert!(run.code == 0 && run.stderr.contains("local state is not used"), "{run:#?}");
    assert_same(&before, &look(&world.path("data")));
    let run = world.run(&["deploy", "s", "data", "--yes"]);
    assert!(run.code == 0 && run.stderr.contains("no command can finish it"), "{run:#?}");
    assert!(journal.exists());
    assert_same(&look(&world.path("source")), &look(&world.path("data")));
}

#[test]
fn t01_sigterm_ends_a_deploy_beside_planted_pipes() {
    let world = deployed();
    let at = world.path(&journal_name());
    plant_journal(&at, &world.path("data"));
    fs::remove_file(at.join("commit")).unwrap();
    mknodat(CWD, at.join("commit"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    fs::write(world.path("data/file"), b"drift").unwrap();
    let mut child = world.command(&["deploy", "s", "data", "--yes"]).stderr(Stdio::piped()).spawn().unwrap();
    sleep(Duration::from_millis(20));
    assert!(Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it hangs past SIGTERM");
        sleep(Duration::from_millis(5));
    }
    world.ok(&["deploy", "s", "data", "--yes"]);
    assert_same(&look(&world.path("source")), &look(&world.path("data")));
}
