//! Goal: the operations themselves lose nothing when their process dies or power is lost at any effect on the
//! repository's disk, and no clock decides what is deleted (C1). Method: create, deploy, removal and
//! collection run on the simulated disk, with a clock that jumps by years in both directions, and die before
//! one effect after the other. Sources and targets are folders of the real disk.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use copal_engine::catalogue::Catalogue;
use copal_engine::context::SilentMonitor;
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_engine::deploy::{DeployRequest, deploy};
use copal_engine::removal::{collect_garbage, delete};
use copal_engine::verify::{VerifyRequest, verify};
use copal_engine::{Clock, Context, Result};
use copal_manifest::entry::Timestamp;
use copal_sim::world::{init, open};
use copal_sim::{Choices, Disk, Process, noise};
use copal_store::repository::Repository;

/// Each look at it may find another year.
#[derive(Debug)]
struct JumpingClock(Mutex<Choices>);

impl JumpingClock {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Choices::new(seed))))
    }
}

impl Clock for JumpingClock {
    fn now(&self) -> Timestamp {
        let years = self.0.lock().unwrap().below(100) as i64 - 40;
        Timestamp { seconds: 1_750_000_000 + years * 31_557_600, nanoseconds: 0 }
    }
    fn monotonic_nanoseconds(&self) -> u64 {
        self.0.lock().unwrap().number() >> 8
    }
}

fn context(repository: Repository, seed: u64) -> Context {
    Context {
        repository,
        clock: JumpingClock::new(seed),
        monitor: Arc::new(SilentMonitor),
        cache_folder: None,
        memory: None,
        state_folder: None,
        own_places: Vec::new(),
        interrupt: Arc::new(AtomicBool::new(false)),
        threads: 1,
        host: "here".into(),
        user: String::new(),
        program: "sim".into(),
    }
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(&inside).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn plant(folder: &Path, version: u8) {
    fs::create_dir_all(folder.join("many")).unwrap();
    for number in 0..12u8 {
        let text = format!("{number} {}", if number % 4 == 0 { version } else { 0 });
        fs::write(folder.join(format!("many/{number}")), text.repeat(20)).unwrap();
    }
    let mut big = noise(1, 400_000);
    big[usize::from(version) * 50_000..][..10].fill(version);
    fs::write(folder.join("big"), big).unwrap();
}

struct World {
    place: tempfile::TempDir,
    attempted: BTreeMap<String, Files>,
    acknowledged: BTreeSet<String>,
    removing: BTreeSet<String>,
    /// What the target may hold.
    target: Vec<Files>,
}

impl World {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        Self {
            place,
            attempted: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            removing: BTreeSet::new(),
            target: vec![Files::new()],
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn create(&mut self, context: &Context, name: &str, version: u8) -> Result<()> {
        plant(&self.at("source"), version);
        self.attempted.insert(name.into(), files(&self.at("source")));
        let sources = vec![SourceRequest { label: String::new(), path: self.at("source") }];
        create(context, &CreateRequest { name: name.into(), sources, ..CreateRequest::default() })?;
        self.acknowledged.insert(name.into());
        Ok(())
    }

    fn deploy(&mut self, context: &Context, name: &str, target: &Path) -> Result<()> {
        let request = DeployRequest {
            reference: name.into(),
            target: target.to_owned(),
            replace: true,
            force_read: true,
            ..DeployRequest::default()
        };
        deploy(context, &request).map(drop)
    }

    /// To the one target that deploys of the workload share.
    fn deploy_over(&mut self, context: &Context, name: &str) -> Result<()> {
        let old = self.target.last().unwrap().clone();
        let new = self.attempted[name].clone();
        self.target = vec![old, new.clone()];
        self.deploy(context, name, &self.at("target"))?;
        self.target = vec![new];
        Ok(())
    }

    fn workload(&mut self, process: &Process) -> Result<()> {
        let repository = match open(process, 7) {
            Err(copal_store::Error::NotARepository { .. }) => init(process, 7)?,
            opened => opened?,
        };
        let context = context(repository, 5);
        self.create(&context, "one", 1)?;
        self.create(&context, "two", 2)?;
        self.deploy_over(&context, "one")?;
        self.removing.insert("one".into());
        delete(&context, &["one".into()])?;
        collect_garbage(&context, false)?;
        self.create(&context, "three", 3)?;
        self.deploy_over(&context, "three")?;
        collect_garbage(&context, false)?;
        Ok(())
    }

    fn check(&mut self, disk: &Disk, what: &str) {
        let process = Process::new(disk);
        let repository = match open(&process, 99) {
            Err(copal_store::Error::NotARepository { .. }) if self.attempted.is_empty() => init(&process, 99).unwrap(),
            opened => opened.unwrap_or_else(|error| panic!("{what}: {error}")),
        };
        let context = context(repository, 6);
        let found = files(&self.at("target"));
        assert!(self.target.contains(&found), "{what}: the target is neither old nor new");
        self.check_snapshots(&context, what);
        self.create(&context, "again", 4).unwrap_or_else(|error| panic!("{what}: the next create: {error}"));
        for _ in 0..2 {
            collect_garbage(&context, false).unwrap_or_else(|error| panic!("{what}: collection: {error}"));
        }
        self.check_snapshots(&context, &format!("{what}, after a collection"));
        let all = VerifyRequest { references: Vec::new(), quick: false, repair: false, from: Vec::new() };
        let report = verify(&context, &all).unwrap_or_else(|error| panic!("{what}: verify: {error}"));
        assert!(report.damaged.is_empty(), "{what}: {:?}", report.damaged);
    }

    /// Acknowledged ones are there; all that are there restore byte for byte.
    fn check_snapshots(&mut self, context: &Context, what: &str) {
        let catalogue = Catalogue::load(context).unwrap_or_else(|error| panic!("{what}: {error}"));
        let listed: BTreeSet<String> = catalogue.snapshots.iter().map(|listed| listed.snapshot.name.clone()).collect();
        for name in self.acknowledged.difference(&self.removing) {
            assert!(listed.contains(name), "{what}: the acknowledged snapshot {name} is gone");
        }
        let target = self.at("check");
        for name in &listed {
            self.deploy(context, name, &target).unwrap_or_else(|error| panic!("{what}: deploy of {name}: {error}"));
            assert!(files(&target) == self.attempted[name], "{what}: {name} has other bytes");
            fs::remove_dir_all(&target).unwrap();
        }
    }
}

#[test]
fn operations_survive_a_death_at_any_effect() {
    let process = Process::new(&Disk::new());
    World::new().workload(&process).unwrap();
    let effects = process.effects();
    assert!(effects > 100, "the workload has only {effects} effects");
    let every = if std::env::var_os("COPAL_SIM_MINUTES").is_some() { 1 } else { 6 };
    let mut deaths = 0;
    for ending in 0..3 {
        for effect in (ending * 2..effects).step_by(every) {
            let disk = Disk::new();
            let process = Process::new(&disk);
            process.die_at(effect);
            let mut world = World::new();
            // Workers meet the disk in an order of their own: the last effects may not come.
            let _ = world.workload(&process);
            drop(process);
            if ending > 0 {
                disk.lose_power(&mut Choices::new(effect * 31 + ending));
            }
            world.check(&disk, &format!("death before effect {effect} of {effects}, ending {ending}"));
            deaths += 1;
        }
    }
    println!("{deaths} deaths at {effects} effects");
}

#[test]
fn a_clock_that_jumps_decides_no_deletion() {
    // A clock that stands, and many that do not: the same snapshots stay, and the dead packs go. How many
    // there are depends on threads.
    let mut outcomes = BTreeSet::new();
    for seed in 0..6 {
        let disk = Disk::new();
        let process = Process::new(&disk);
        let mut world = World::new();
        let jumping = context(init(&process, 9).unwrap(), seed);
        // So much is of "one" alone that no pack which holds it is worth keeping as it is, whatever shares
        // it.
        fs::create_dir_all(world.at("source")).unwrap();
        fs::write(world.at("source/own"), noise(2, 1_600_000)).unwrap();
        world.create(&jumping, "one", 1).unwrap();
        fs::remove_file(world.at("source/own")).unwrap();
        world.create(&jumping, "two", 2).unwrap();
        delete(&jumping, &["one".into()]).unwrap();
        let report = collect_garbage(&jumping, false).unwrap();
        outcomes.insert((report.packs_removed > 0, report.packs_waiting));
        world.removing.insert("one".into());
        world.check(&disk, &format!("clock {seed}"));
    }
    assert_eq!(outcomes, BTreeSet::from([(true, 0)]), "collection followed the clock");
}
