//! Goal: a deploy that dies at any step leaves the target wholly old, or wholly new after the next command,
//! and nothing beside it. Without the notes of the state folder only what was decided is finished; the rest
//! is left alone. Method: the deploy is ended before its n-th step, for every n, and nothing is tidied up;
//! then recovery runs, itself ended before each of its steps as well.
#![allow(clippy::unwrap_used)]

mod deploy_support;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use copal_engine::deploy::{CrashPoints, DeployMode, recover, recover_until};
use deploy_support::{World, assert_same, look, noise, plant, set_time};

/// Dies before the n-th step.
struct DieAt {
    step: usize,
    reached: AtomicUsize,
}

impl DieAt {
    fn new(step: usize) -> Self {
        Self { step, reached: AtomicUsize::new(0) }
    }
    fn died(&self) -> bool {
        self.reached.load(Ordering::SeqCst) > self.step
    }
}

impl CrashPoints for DieAt {
    fn reached(&self, _step: &str) -> bool {
        self.reached.fetch_add(1, Ordering::SeqCst) >= self.step
    }
}

/// Dies when what was left is ended, before anything is made.
struct BeforeMaking;

impl CrashPoints for BeforeMaking {
    fn reached(&self, step: &str) -> bool {
        step.starts_with("making the ")
    }
}

/// Few files, every kind of step.
fn plant_old(root: &Path) {
    fs::create_dir_all(root.join("folder/becomes file")).unwrap();
    fs::write(root.join("folder/becomes file/inside"), b"x").unwrap();
    fs::write(root.join("becomes folder"), b"y").unwrap();
    fs::write(root.join("database"), noise(1, 1 << 20)).unwrap();
    fs::write(root.join("changes"), b"old").unwrap();
    fs::write(root.join("extra"), b"goes").unwrap();
    fs::write(root.join("a"), b"linked").unwrap();
    fs::write(root.join("stays"), b"same").unwrap();
}

fn plant_new(root: &Path) {
    fs::create_dir_all(root.join("becomes folder/deep")).unwrap();
    fs::create_dir_all(root.join("folder")).unwrap();
    fs::write(root.join("becomes folder/deep/file"), b"new").unwrap();
    fs::write(root.join("folder/becomes file"), b"new").unwrap();
    let mut database = noise(1, 1 << 20);
    database[500_000..500_010].fill(0);
    fs::write(root.join("database"), database).unwrap();
    fs::write(root.join("changes"), b"new").unwrap();
    fs::write(root.join("a"), b"linked").unwrap();
    fs::hard_link(root.join("a"), root.join("b")).unwrap();
    fs::write(root.join("stays"), b"same").unwrap();
    std::os::unix::fs::symlink("a", root.join("link")).unwrap();
    fs::write(root.join("mode only"), b"m").unwrap();
}

/// What snapshots leave out stands in the target, or does not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LeftOut {
    Nothing,
    Much,
}

/// In both states alike; a deploy changes none of it.
fn plant_left_out(root: &Path) {
    fs::create_dir_all(root.join("own/deep")).unwrap();
    fs::create_dir_all(root.join("folder")).unwrap();
    fs::write(root.join("own/deep/file"), b"stays").unwrap();
    fs::write(root.join("folder/x.own"), b"stays").unwrap();
    for path in ["own/deep/file", "own/deep", "own", "folder/x.own"] {
        set_time(&root.join(path), 1_000_000_000, 5);
    }
}

fn check_every_step(mode: DeployMode, state_is_lost: bool) {
    check_every_step_beside(mode, state_is_lost, LeftOut::Nothing);
}

fn check_every_step_beside(mode: DeployMode, state_is_lost: bool, left_out: LeftOut) {
    let world = World::new();
    let (old, new) = (world.path("old"), world.path("new"));
    plant_old(&old);
    plant_new(&new);
    if left_out == LeftOut::Much {
        [&old, &new].into_iter().for_each(|root| plant_left_out(root));
    }
    world.snapshot_without("old", &old, &["own/", "*.own"]);
    world.snapshot_without("new", &new, &["own/", "*.own"]);
    if left_out == LeftOut::Much {
        let copied = std::process::Command::new("cp").arg("-a").arg(&old).arg(world.path("target")).status().unwrap();
        assert!(copied.success());
    }
    let (old, new) = (look(&old), look(&new));
    let target = world.path("target");
    let (mut stayed_old, mut became_new) = (0, 0);
    for step in 0.. {
        world.deploy("old", &target, DeployMode::Auto).unwrap();
        assert_same(&old, &look(&target), "before");
        let points = DieAt::new(step);
        let outcome = world.deploy_until("new", &target, mode, &points);
        if !points.died() {
            outcome.unwrap();
            assert!(step >= 5, "only {step} steps");
            break;
        }
        outcome.unwrap_err();
        if state_is_lost {
            fs::remove_dir_all(world.state().join("pending")).unwrap();
            let standing = look(&target);
            let mut asked = deploy_support::request("new", &target, mode);
            asked.dry_run = true;
            copal_engine::deploy::deploy(&world.context, &asked).unwrap();
            assert_same(&standing, &look(&target), "a dry run ends nothing");
            // The next deploy to the target is stopped when it has recovered: recovery alone decides.
            let _ = world.deploy_until("new", &target, mode, &BeforeMaking);
            recover(&world.state()).unwrap();
            for left in world.leftovers(&world.path("")) {
                let path = world.path(&left);
                assert!(!path.join("commit").exists(), "{left} was decided");
                fs::remove_dir_all(path).unwrap();
            }
        } else {
            for again in 0.. {
                let points = DieAt::new(again);
                if recover_until(&world.state(), &points).is_ok() && !points.died() {
                    break;
                }
            }
            assert!(recover(&world.state()).unwrap().is_empty(), "recovery left something to be done");
        }
        let found = look(&target);
        if found == old {
            stayed_old += 1;
            assert_eq!(became_new, 0, "once decided, always decided: step {step}");
        } else {
            became_new += 1;
            assert_same(&new, &found, &format!("step {step}"));
        }
        assert!(world.leftovers(&world.path("")).is_empty(), "step {step}: {:?}", world.leftovers(&world.path("")));
    }
    assert!(stayed_old >= 3 && became_new >= 1, "{stayed_old} old, {became_new} new");
}

#[test]
fn a_journal_is_finished_or_taken_back() {
    check_every_step(DeployMode::InPlace, false);
}

#[test]
fn a_decided_journal_is_found_without_the_notes() {
    check_every_step(DeployMode::InPlace, true);
}

#[test]
fn a_swap_is_whole_at_every_step() {
    check_every_step(DeployMode::Swap, false);
}

#[test]
fn a_swap_is_whole_without_the_notes() {
    check_every_step(DeployMode::Swap, true);
}

#[test]
fn d02_what_is_left_out_stays_whatever_is_killed_when() {
    for mode in [DeployMode::InPlace, DeployMode::Swap] {
        for state_is_lost in [false, true] {
            check_every_step_beside(mode, state_is_lost, LeftOut::Much);
        }
    }
}

#[test]
fn what_waits_beside_a_target_is_for_its_owner_only() {
    let world = World::new();
    let (source, target) = (world.path("source"), world.path("target"));
    plant_old(&source);
    world.snapshot("old", &source);
    world.deploy("old", &target, DeployMode::Auto).unwrap();
    fs::write(source.join("changes"), b"new").unwrap();
    world.snapshot("new", &source);
    let private = |path: &Path| {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", path.display());
    };
    let mut journals = 0;
    for step in 0.. {
        let points = DieAt::new(step);
        let outcome = world.deploy_until("new", &target, DeployMode::InPlace, &points);
        if !points.died() {
            outcome.unwrap();
            break;
        }
        for entry in fs::read_dir(world.path("")).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains(".copal-journal-") {
                private(&path);
                journals += 1;
            }
        }
        recover(&world.state()).unwrap();
        world.deploy("old", &target, DeployMode::Auto).unwrap();
    }
    assert!(journals >= 3, "{journals} journals were seen");
    for folder in ["", "pending", "deployed"] {
        private(&world.state().join(folder));
    }
}

/// Counts what a deploy in place has in its journal when it is decided.
struct JournalBytes(PathBuf, AtomicU64);

impl CrashPoints for JournalBytes {
    fn reached(&self, step: &str) -> bool {
        if step == "the commit" {
            let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
            let journal = entries.into_iter().find(|path| path.to_string_lossy().contains(".copal-journal-")).unwrap();
            self.1.store(fs::metadata(journal.join("ranges")).unwrap().len(), Ordering::SeqCst);
        }
        false
    }
}

#[test]
fn of_a_chunk_that_differs_only_the_blocks_that_differ_are_staged() {
    let world = World::new();
    let (source, target) = (world.path("source"), world.path("target"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("database"), noise(1, 16 << 20)).unwrap();
    world.snapshot("s", &source);
    world.deploy("s", &target, DeployMode::Auto).unwrap();
    let database = fs::File::options().write(true).open(target.join("database")).unwrap();
    for number in 0..10u64 {
        database.write_all_at(b"drift", (number << 20) + 12345).unwrap();
    }
    drop(database);
    let counted = JournalBytes(world.path(""), AtomicU64::new(0));
    let report = world.deploy_until("s", &target, DeployMode::InPlace, &counted).unwrap();
    assert_same(&look(&source), &look(&target), "patched");
    assert!(report.bytes_written >= 10 * (32 << 10), "chunks are fetched whole: {report:?}");
    // Where a chunk ends in such a block, a part of it is equal already.
    let staged = counted.1.load(Ordering::SeqCst);
    assert!((10 * 5..=10 * 4096).contains(&staged), "{staged} bytes staged");
}

#[test]
fn a_journal_that_does_not_verify_is_kept_and_named() {
    let world = World::new();
    let (source, target) = (world.path("source"), world.path("target"));
    plant(&source);
    world.snapshot("s", &source);
    world.deploy("s", &target, DeployMode::Auto).unwrap();
    fs::write(target.join("small.txt"), b"drift").unwrap();
    struct AfterCommit;
    impl CrashPoints for AfterCommit {
        fn reached(&self, step: &str) -> bool {
            step == "step 0"
        }
    }
    world.deploy_until("s", &target, DeployMode::InPlace, &AfterCommit).unwrap_err();
    let journal = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().path());
    let journal = journal.into_iter().find(|path| path.to_string_lossy().contains(".copal-journal-")).unwrap();
    let steps = fs::read(journal.join("steps")).unwrap();
    let mut spoilt = steps.clone();
    spoilt[10] ^= 1;
    fs::write(journal.join("steps"), &spoilt).unwrap();
    let before = look(&target);
    let said = recover(&world.state()).unwrap();
    assert!(said.len() == 1 && said[0].contains("cannot be finished"), "{said:?}");
    assert_same(&before, &look(&target), "nothing is applied");
    fs::write(journal.join("steps"), &steps).unwrap();
    let said = recover(&world.state()).unwrap();
    assert!(said.len() == 1 && said[0].contains("finished an interrupted deploy"), "{said:?}");
    assert_same(&look(&source), &look(&target), "finished");
}
