//! Goal: a filesystem that the built-in hook freezes is captured as it stood, and always thawed: after
//! success, failure, and SIGKILL. Method: a real XFS on a loop device, and a writer that can only go on while
//! it is not frozen.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use copal_sim::mounts::{Filesystem, Mounted};
use support::{World, look, noise};

/// Appends numbers to a file, and copies each to another: who sees both files at one instant sees them differ
/// by one number at most.
struct Writer {
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(folder: &Path) -> Self {
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let open = |name: &str| OpenOptions::new().create(true).append(true).open(folder.join(name)).unwrap();
        let (mut first, mut second) = (open("first"), open("second"));
        let (count, ended) = (Arc::clone(&written), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                writeln!(first, "{number:08}").unwrap();
                writeln!(second, "{number:08}").unwrap();
                count.store(number + 1, Ordering::Relaxed);
                sleep(Duration::from_millis(1));
            }
        });
        Self { written, stop, thread: Some(thread) }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn is_stuck(&self) -> bool {
        let before = self.written();
        sleep(Duration::from_millis(150));
        self.written() == before
    }

    #[track_caller]
    fn wait_until(&self, stuck: bool) {
        let begun = Instant::now();
        while self.is_stuck() != stuck {
            assert!(begun.elapsed() < Duration::from_secs(20), "it never became {stuck} that the filesystem is frozen");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // After a failed test it may be frozen for ever: then nobody waits.
            if std::thread::panicking() || thread.join().is_ok() {}
        }
    }
}

/// Thaws what a failing test would leave frozen, so that it can be unmounted.
struct Thaw<'m>(&'m Mounted);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        let _ =
            std::process::Command::new("fsfreeze").arg("--unfreeze").arg(self.0.path()).stderr(Stdio::null()).status();
    }
}

fn configure(world: &World, mounted: &Mounted, more: &str) {
    let point = mounted.path().display();
    let config = format!(
        "[app.a]\nfreeze_max = \"30s\"\n[[app.a.source]]\nkind = \"tree\"\nlabel = \"tree\"\npath = \"{point}/tree\"\n\
         [[app.a.hook]]\nwhen = \"pre\"\nfreeze = \"{point}\"\n{more}"
    );
    fs::write(world.path("copal.toml"), config).unwrap();
}

const SLOW: &str = "[[app.a.source]]\nkind = \"command\"\nlabel = \"slow\"\nargv = [\"/bin/sleep\", \"3\"]\n";

#[test]
fn v8_h12_a_frozen_filesystem_is_captured_and_thawed_whatever_happens() {
    let world = World::new();
    let mounted = Mounted::new(Filesystem::Xfs, 400).unwrap();
    let _thaw = Thaw(&mounted);
    let tree = mounted.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("large"), noise(1, 20 << 20)).unwrap();
    let writer = Writer::start(&tree);

    // Success: one instant of both files, however long the freeze is; and the bulk was stored before it.
    configure(&world, &mounted, SLOW);
    let child = world.command(&["create", "one", "--app", "a", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    writer.wait_until(true);
    let at_freeze = writer.written();
    let run = support::finish(child.wait_with_output().unwrap());
    assert_eq!(run.code, 0, "{run:#?}");
    writer.wait_until(false);
    let numbers = |name: &str| world.ok(&["dump", "a/one", &format!("tree/{name}")]).lines().count() as u64;
    let (first, second) = (numbers("first"), numbers("second"));
    assert!(first - second <= 1 && second.abs_diff(at_freeze) <= 1, "{first} and {second} of {at_freeze}");
    assert!(world.json(&["show", "a/one"]).to_string().contains("\"frozen read\""));
    assert!(world.run(&["dump", "a/one", "tree/large"]).stdout == noise(1, 20 << 20));

    // A hook that fails after the freeze.
    configure(&world, &mounted, "[[app.a.hook]]\nwhen = \"pre\"\nargv = [\"/bin/false\"]\n");
    let error = world.fails(&["create", "two", "--app", "a"], 86, "hook");
    assert!(error["message"].as_str().unwrap().contains("/bin/false"), "{error}");
    writer.wait_until(false);

    // A command on the frozen filesystem itself would wait for ever: it has its own deadline.
    let stuck = format!("argv = [\"/usr/bin/touch\", \"{}/touched\"]", mounted.path().display());
    configure(&world, &mounted, &format!("[[app.a.hook]]\nwhen = \"pre\"\n{stuck}\ntimeout = \"500ms\"\n"));
    world.fails(&["create", "two", "--app", "a"], 86, "hook");
    writer.wait_until(false);

    // SIGKILL in the middle: the watchdog thaws, nothing else runs.
    configure(&world, &mounted, &SLOW.replace("\"3\"", "\"60\""));
    let mut child =
        world.command(&["create", "two", "--app", "a"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    writer.wait_until(true);
    child.kill().unwrap();
    child.wait().unwrap();
    writer.wait_until(false);
    let status = world.json(&["status", "a"]);
    let killed = status.as_array().unwrap().iter().any(|one| one["name"] == "two" && one["error"]["code"] == "killed");
    assert!(killed, "{status:#}");

    // Copal's own folders cannot be on it, and neither can a database.
    let within = mounted.path().join("hub.db");
    rusqlite::Connection::open(&within).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    configure(&world, &mounted, &format!("[[app.a.source]]\nkind = \"sqlite\"\npath = {within:?}\n"));
    let error = world.fails(&["create", "three", "--app", "a"], 2, "usage");
    assert!(error["message"].as_str().unwrap().contains("is frozen by a hook"), "{error}");
    drop(writer);
    configure(&world, &mounted, "");
    world.ok(&["create", "last", "--app", "a"]);
    world.ok(&["deploy", "a/last", &world.text("out")]);
    assert!(look(&world.path("out/tree")) == look(&tree));
}
