//! Goal: what a create acknowledges can be read, also where its session vanishes while it runs, by a hand or
//! by a collector that its lock does not reach. Method: a create is stopped in its middle, its session goes,
//! what it was about to rely on is collected; it goes on.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{Run, World, finish, noise};

/// What both sources hold: the second snapshot finds it stored by the first.
const SHARED_BYTES: usize = 8 << 20;
/// What only the second has; long enough that the create is in its middle when it is stopped.
const OWN_BYTES: usize = 192 << 20;

fn sources(world: &World) {
    for folder in ["first", "second"] {
        fs::create_dir(world.path(folder)).unwrap();
        fs::write(world.path(folder).join("a shared"), noise(1, SHARED_BYTES)).unwrap();
    }
    fs::write(world.path("second").join("z own"), noise(2, OWN_BYTES)).unwrap();
}

/// A create that is stopped once it has a session, and before its root.
struct Stopped {
    child: Child,
    pid: Pid,
}

impl Stopped {
    fn create(world: &World, repository: &Path) -> Self {
        let mut command = world.command(&["create", "second", "second", "--json"]);
        command.env("COPAL_REPO", repository).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        while sessions(repository).is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // A moment, so that it meets what is there already. However far it comes, what it acknowledges must
        // hold.
        std::thread::sleep(Duration::from_millis(60));
        kill_process(pid, Signal::STOP).unwrap();
        assert!(roots(repository) <= 1, "it was faster than its stop: make its source longer");
        Self { child, pid }
    }

    fn go_on(self) -> Run {
        kill_process(self.pid, Signal::CONT).unwrap();
        finish(self.child.wait_with_output().unwrap())
    }
}

fn sessions(repository: &Path) -> Vec<PathBuf> {
    fs::read_dir(repository.join("sessions")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn roots(repository: &Path) -> usize {
    fs::read_dir(repository.join("snapshots")).unwrap().count()
}

/// It says so, is not there, and nothing that was there is hurt; run again it succeeds.
#[track_caller]
fn check_lost(world: &World, run: &Run) {
    assert_eq!(run.code, 11, "{run:#?}");
    let error = run.error();
    assert_eq!(error["code"], "session-lost", "{error}");
    assert!(error["hint"].as_str().unwrap().contains("again"), "{error}");
    assert!(!world.ok(&["list"]).contains("second"));
    check_sound(world);
    world.create("second", "second");
    check_deployed(world);
}

#[track_caller]
fn check_sound(world: &World) {
    assert_eq!(world.json(&["verify"])["ok"], true);
}

#[track_caller]
fn check_deployed(world: &World) {
    let target = world.text("target");
    let _ = fs::remove_dir_all(&target);
    world.ok(&["deploy", "second", &target, "--yes"]);
    for (name, bytes) in [("a shared", noise(1, SHARED_BYTES)), ("z own", noise(2, OWN_BYTES))] {
        assert!(fs::read(world.path("target").join(name)).unwrap() == bytes, "{name}");
    }
    check_sound(world);
}

#[test]
fn t09_a_create_whose_session_is_removed_by_hand_is_not_acknowledged() {
    let world = World::new();
    sources(&world);
    world.create("first", "first");
    let create = Stopped::create(&world, &world.repository());
    for session in sessions(&world.repository()) {
        fs::remove_file(session).unwrap();
    }
    check_lost(&world, &create.go_on());
}

#[test]
fn t09_a_create_whose_session_vanished_before_a_collection_loses_nothing() {
    let world = World::new();
    sources(&world);
    world.create("first", "first");
    let create = Stopped::create(&world, &world.repository());
    world.ok(&["delete", "first", "--yes"]);
    for session in sessions(&world.repository()) {
        fs::remove_file(session).unwrap();
    }
    world.ok(&["gc"]);
    world.ok(&["gc"]);
    let run = create.go_on();
    world.ok(&["gc"]);
    check_lost(&world, &run);
}

/// One folder, seen through another filesystem, which keeps its locks to itself.
struct Window {
    point: PathBuf,
}

impl Window {
    fn open(world: &World, name: &str) -> Self {
        let point = world.path(name);
        fs::create_dir(&point).unwrap();
        let status = Command::new("bindfs").arg(world.path("real")).arg(&point).status();
        assert!(status.unwrap().success(), "bindfs needs /dev/fuse");
        Self { point }
    }

    fn repository(&self) -> PathBuf {
        self.point.join("repository")
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left a process in it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.point).status();
    }
}

#[test]
fn t09_what_is_acknowledged_can_be_read_where_locks_do_not_carry() {
    let world = World::bare();
    fs::create_dir(world.path("real")).unwrap();
    let (here, there) = (Window::open(&world, "here"), Window::open(&world, "there"));
    let run_in = |window: &Window, elsewhere: bool, arguments: &[&str]| {
        let mut command = if elsewhere { world.elsewhere(arguments) } else { world.command(arguments) };
        finish(command.env("COPAL_REPO", window.repository()).output().unwrap())
    };
    let done = |run: Run| assert_eq!(run.code, 0, "{run:#?}");
    sources(&world);
    done(run_in(&here, false, &["init"]));
    done(run_in(&here, false, &["create", "first", "first"]));
    let create = Stopped::create(&world, &here.repository());
    done(run_in(&there, true, &["delete", "first", "--yes"]));
    done(run_in(&there, true, &["gc"]));
    assert!(sessions(&there.repository()).is_empty(), "locks carry through bindfs: this test shows nothing");
    done(run_in(&there, true, &["gc"]));
    let run = create.go_on();
    assert_eq!((run.code, &run.error()["code"]), (11, &"session-lost".into()), "{run:#?}");
    done(run_in(&there, true, &["verify"]));
    done(run_in(&here, false, &["create", "second", "second"]));
    done(run_in(&there, true, &["gc"]));
    done(run_in(&here, false, &["verify"]));
    let target = world.text("target");
    done(run_in(&there, true, &["deploy", "second", &target, "--yes"]));
    assert!(fs::read(world.path("target/z own")).unwrap() == noise(2, OWN_BYTES));
    assert!(fs::read(world.path("target/a shared")).unwrap() == noise(1, SHARED_BYTES));
}

#[test]
fn t07_a_create_that_a_rotation_overtakes_is_acknowledged_and_can_be_read() {
    let world = World::new();
    sources(&world);
    world.create("first", "first");
    let create = Stopped::create(&world, &world.repository());
    world.ok(&["key", "rotate"]);
    world.create("third", "first");
    world.ok(&["gc"]);
    let run = create.go_on();
    assert_eq!(run.code, 0, "{run:#?}");
    check_deployed(&world);
}

#[test]
fn t04_a_create_that_a_change_of_the_key_overtakes_is_the_new_keys() {
    let world = World::new();
    sources(&world);
    world.create("first", "first");
    fs::write(world.path("new"), noise(9, 32)).unwrap();
    let create = Stopped::create(&world, &world.repository());
    let mut change = world.command(&["key", "change", "--new-key-file", "new", "--json"]);
    let change = change.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It waits, and the old key goes on meanwhile.
    std::thread::sleep(Duration::from_secs(3));
    assert!(world.ok(&["list"]).contains("first"));
    let run = create.go_on();
    assert_eq!(run.code, 0, "{run:#?}");
    let changed = finish(change.wait_with_output().unwrap());
    assert_eq!(changed.code, 0, "{changed:#?}");
    assert!(changed.stderr.contains("waits for 1 command that is at work"), "{changed:#?}");
    let document: serde_json::Value = serde_json::from_slice(&changed.stdout).unwrap();
    assert_eq!(document["snapshots_signed_again"], 2, "{changed:#?}");
    fs::rename(world.path("new"), world.path("key")).unwrap();
    for (name, latest) in [("first", "second"), ("second", "second")] {
        assert_eq!(world.json(&["show", name])["key"]["role"], "full", "{name}");
        assert_eq!(world.json(&["show", "latest"])["name"], latest);
    }
    // Its index counts as well: the same data is stored no second time.
    let again = world.create("third", "second");
    assert!(again["bytes_new"].as_u64().unwrap() < 1 << 20, "{again}");
    world.ok(&["gc"]);
    world.ok(&["verify"]);
    // Whoever does not wait is told at once, and then it counts as of a removed key.
    fs::write(world.path("newer"), noise(10, 32)).unwrap();
    world.ok(&["delete", "first", "second", "--yes"]);
    fs::write(world.path("second/y more"), noise(11, OWN_BYTES)).unwrap();
    let create = Stopped::create(&world, &world.repository());
    world.ok(&["key", "change", "--new-key-file", "newer", "--no-wait"]);
    create.go_on();
    fs::rename(world.path("newer"), world.path("key")).unwrap();
    assert_eq!(world.json(&["show", "latest"])["name"], "third");
}

#[test]
fn t07_a_create_that_the_step_to_signed_keys_overtakes_can_be_read_or_says_so() {
    let world = World::of_the_first_format();
    sources(&world);
    let create = Stopped::create(&world, &world.repository());
    world.ok(&["key", "rotate"]);
    let run = create.go_on();
    if run.code != 0 {
        // It had not asked for the keys of the index yet: its slot is none of those that were given them.
        assert!(run.error()["message"].as_str().unwrap().contains("run it again"), "{run:#?}");
        world.create("second", "second");
    }
    world.ok(&["gc"]);
    check_deployed(&world);
    world.create("third", "second");
    world.ok(&["gc"]);
    check_deployed(&world);
}
