//! What a repository is known to hold while commands on it are killed, or lose their power.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::kill::Random;
use super::{Seen, World, assert_same, look, noise, number, plant};

pub type Tree = BTreeMap<PathBuf, Seen>;

/// Changes a tree as an application would: pages of a database, new, changed and removed files, another mode.
pub fn change(root: &Path, random: &mut Random) {
    let database = File::options().write(true).open(root.join("folder/large")).unwrap();
    for _ in 0..1 + random.below(4) {
        database.write_all_at(&noise(random.number(), 4096), random.below(3 << 20) & !4095).unwrap();
    }
    for _ in 0..random.below(6) {
        let path = root.join(format!("folder/deeper/file {:03}", random.below(60)));
        match random.below(4) {
            0 => drop(fs::remove_file(path)),
            _ => fs::write(path, noise(random.number(), random.below(100_000) as usize)).unwrap(),
        }
    }
    fs::set_permissions(root.join("small.txt"), fs::Permissions::from_mode(0o600 + random.below(64) as u32)).unwrap();
}

/// What the repository is known to hold.
pub struct Known {
    pub world: World,
    pub snapshots: BTreeMap<String, Tree>,
    /// Snapshots whose removal began: they may be there or not, and if they are, they are whole.
    pub going: BTreeMap<String, Tree>,
    taken: u64,
}

impl Known {
    pub fn beneath(folder: &Path) -> Self {
        let world = World::beneath(folder);
        world.ok(&["init"]);
        plant(&world.path("source"));
        Self { world, snapshots: BTreeMap::new(), going: BTreeMap::new(), taken: 0 }
    }

    pub fn next_name(&mut self) -> String {
        self.taken += 1;
        format!("snapshot-{}", self.taken)
    }

    pub fn listed(&self) -> BTreeSet<String> {
        let list = self.world.json(&["list"]);
        list.as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Every completed snapshot is there and verifies; an unfinished one is whole or absent.
    pub fn check(&mut self, unfinished: Option<(String, Tree)>) {
        let mut listed = self.listed();
        if let Some((name, tree)) = unfinished
            && listed.contains(&name)
        {
            self.snapshots.insert(name, tree);
        }
        self.going.retain(|name, _| listed.contains(name));
        let known: BTreeSet<String> = self.snapshots.keys().chain(self.going.keys()).cloned().collect();
        listed.retain(|name| !known.contains(name));
        assert!(listed.is_empty(), "never taken, or deleted: {listed:?}");
        let verified = self.world.json(&["verify"]);
        assert_eq!((&verified["ok"], number(&verified, "snapshots")), (&json!(true), known.len() as u64));
    }

    /// A snapshot comes back byte for byte.
    pub fn check_deploy(&self, name: &str, random: &mut Random) {
        let tree = self.snapshots.get(name).or_else(|| self.going.get(name)).unwrap();
        let mode = random.pick(&["auto", "swap", "in-place"]);
        self.world.ok(&["deploy", name, "deployed", "--yes", "--mode", mode]);
        assert_same(tree, &look(&self.world.path("deployed")));
    }

    pub fn pick(&self, random: &mut Random) -> Option<String> {
        let names: Vec<&String> = self.snapshots.keys().chain(self.going.keys()).collect();
        (!names.is_empty()).then(|| (*random.pick(&names)).clone())
    }

    /// After all of it: nothing is left that no snapshot needs.
    pub fn check_end(&mut self) {
        self.world.ok(&["gc"]);
        self.check(None);
        for name in self.listed() {
            self.check_deploy(&name, &mut Random(1));
        }
        for name in self.listed() {
            self.world.ok(&["delete", &name, "--yes"]);
        }
        self.world.ok(&["gc"]);
        for folder in ["packs", "index", "snapshots", "labels", "condemned", "sessions", "tmp"] {
            let mut left = self.world.objects_in(folder);
            // Records of what was replaced are few, and stay: what they name could be put back.
            let retired = |path: &PathBuf| path.to_str().unwrap().ends_with("-retired");
            let records = left.extract_if(.., |path| retired(path)).count();
            assert!(records <= 17, "{records} records of replaced fragments");
            assert_eq!(left, [] as [PathBuf; 0], "{folder} is empty after all of it");
        }
    }
}

/// How long a run takes that nobody kills, by kind of run.
#[derive(Default)]
pub struct Spans(BTreeMap<&'static str, Duration>);

impl Spans {
    pub fn of(&self, kind: &str) -> Duration {
        self.0.get(kind).copied().unwrap_or(Duration::from_millis(150))
    }

    pub fn learn(&mut self, kind: &'static str, begun: Instant) {
        let known = self.0.entry(kind).or_insert_with(|| begun.elapsed());
        *known = (*known * 3 + begun.elapsed()) / 4;
    }
}

/// Makes the repository, and the snapshots `old` and `new` of a tree that changes much between them: what
/// each one is.
pub fn old_and_new(world: &World, random: &mut Random) -> [Tree; 2] {
    world.ok(&["init"]);
    let source = world.path("source");
    plant(&source);
    let old = look(&source);
    world.create("old", "source");
    for _ in 0..6 {
        change(&source, random);
    }
    fs::remove_dir_all(source.join("empty folder")).unwrap();
    fs::write(source.join("empty folder"), b"a file where a folder was").unwrap();
    let new = look(&source);
    world.create("new", "source");
    [old, new]
}

/// What deploys put beside a target, but for probes, which the next deploy takes away.
pub fn left_beside(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(".copal-") && !name.starts_with(".copal-probe-")).collect()
}
