//! A repository in which every kind of object stands, made once and copied for each damage; and what each
//! operation then does, in words.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

mod building;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use copal_engine::catalogue::{Catalogue, relabel};
use copal_engine::context::SilentMonitor;
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_engine::deploy::{DeployRequest, deploy};
use copal_engine::removal::{collect_garbage, delete};
use copal_engine::verify::{VerifyReport, VerifyRequest, verify};
use copal_engine::{Clock, Context, Error};
use copal_manifest::entry::Timestamp;
use copal_sim::{MemoryBackend, SeededEntropy, noise};
use copal_store::Error as StoreError;
use copal_store::backend::{Backend, ObjectKind, ObjectName};
use copal_store::config::{CipherSuite, Parameters, config_name};
use copal_store::describe::describe;
use copal_store::keys::{Credential, StretchCost};
use copal_store::pack::pack_name;
use copal_store::repository::{InitOptions, Repository};
use copal_store::session::Session;
use tempfile::TempDir;

use building::{Building, take};

#[derive(Debug)]
struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() }
    }
    fn monotonic_nanoseconds(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// Files of a tree by path.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    Config,
    KeySlot,
    /// One of the two objects of the roster in force.
    Roster,
    /// Both.
    Rosters,
    /// Of the slot in use, the newest epoch's.
    NewGrant,
    /// Of the slot in use, that of the epoch before.
    OldGrant,
    DataPack,
    NodePack,
    Fragment,
    Root,
    Label,
    Condemned,
    Session,
    Cache,
}

/// What happened to the keys of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: all is of epoch 0.
    NeverRotated,
    /// `first` is of epoch 0, `second` of epoch 1, `alone` of epoch 2.
    RotatedTwice,
}

const VICTIMS: [Victim; 14] = [
    Victim::Config,
    Victim::KeySlot,
    Victim::Roster,
    Victim::Rosters,
    Victim::NewGrant,
    Victim::OldGrant,
    Victim::DataPack,
    Victim::NodePack,
    Victim::Fragment,
    Victim::Root,
    Victim::Label,
    Victim::Condemned,
    Victim::Session,
    Victim::Cache,
];

pub fn victims(kind: Kind) -> Vec<Victim> {
    let is_there = |victim: &Victim| kind == Kind::RotatedTwice || !victim.is_grant();
    VICTIMS.into_iter().filter(is_there).collect()
}

impl Victim {
    fn is_grant(self) -> bool {
        matches!(self, Self::NewGrant | Self::OldGrant)
    }

    /// Whether its first bytes are an envelope that names a key epoch.
    fn has_epoch(self) -> bool {
        use Victim::{Condemned, DataPack, Fragment, Label, NodePack, Root};
        self.is_grant() || matches!(self, DataPack | NodePack | Fragment | Root | Label | Condemned)
    }
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Missing,
    Truncated,
    Flipped,
    /// One bit of the envelope's version, epoch, sealing or object id.
    Envelope(Field),
    Zeroed,
    Swapped,
    Older,
}

/// What of an envelope is flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Version,
    Epoch,
    Sealing,
    Id,
}

impl Field {
    /// Its byte, and the bit: a version becomes a higher one, an epoch another one that began, where there is
    /// one so near.
    fn place(self) -> (usize, u8) {
        match self {
            Self::Version => (7, 0x10),
            Self::Epoch => (9, 1),
            Self::Sealing => (13, 1),
            Self::Id => (16, 0x10),
        }
    }
}

const FAULTS: [Fault; 6] =
    [Fault::Missing, Fault::Truncated, Fault::Flipped, Fault::Zeroed, Fault::Swapped, Fault::Older];

pub fn faults(kind: Kind, victim: Victim) -> Vec<Fault> {
    let mut faults = FAULTS.to_vec();
    if kind == Kind::RotatedTwice && victim.has_epoch() {
        let fields = [Field::Version, Field::Epoch, Field::Sealing, Field::Id];
        faults.splice(3..3, fields.map(Fault::Envelope));
    }
    faults
}

/// The first slot's key, which is damaged, and the second's.
const KEYS: [u8; 2] = [7, 8];
/// A slot that was removed.
const OLD_KEY: u8 = 9;

fn key(byte: u8) -> Credential {
    Credential::KeyFile(zeroize::Zeroizing::new([byte; 32]))
}

pub struct Template {
    kind: Kind,
    memory: MemoryBackend,
    folder: TempDir,
    victims: BTreeMap<Victim, Vec<ObjectName>>,
    partners: BTreeMap<Victim, (ObjectName, Vec<u8>)>,
    /// Offsets of bytes that `second` needs.
    aims: BTreeMap<Victim, usize>,
    older: BTreeMap<Victim, Vec<(ObjectName, Vec<u8>)>>,
    older_cache: Vec<u8>,
    expected: BTreeMap<&'static str, Files>,
    seeds: AtomicU64,
}

impl Template {
    pub fn new(kind: Kind) -> Self {
        Building::new(kind).build()
    }

    /// Of which kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// The tree stays as `second` saw it.
    pub fn stay(&mut self) {
        let second = self.expected["second"].clone();
        self.expected.insert("third", second);
    }

    /// Adds a file, so that a create has something to do. What the tree then holds.
    pub fn grow(&mut self) {
        let tree = self.tree();
        fs::write(tree.join("fresh"), noise(500, 90_000)).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        self.expected.insert("third", files_of(&tree));
    }

    /// A copy with one damage; `position` is where a bit is flipped, in thousandths of the length, or else
    /// where something stands that `second` needs.
    pub fn world(&self, victim: Victim, fault: Fault, position: Option<usize>) -> World<'_> {
        let world = World {
            template: self,
            memory: self.memory.fork(),
            folder: TempDir::new_in(self.folder.path()).unwrap(),
            victim,
            targets: AtomicU64::new(0),
        };
        let flip = |sound: &[u8]| match position {
            Some(thousandths) => sound.len().saturating_sub(1) * thousandths / 1000,
            None => self.aims.get(&victim).copied().unwrap_or(sound.len() / 2),
        };
        if victim == Victim::Cache {
            let cache = world.cache_file();
            fs::create_dir_all(cache.parent().unwrap()).unwrap();
            let sound = fs::read(self.cache_file()).unwrap();
            match (fault, damaged(&sound, fault, flip(&sound))) {
                (Fault::Missing, _) => {}
                (Fault::Older, _) => fs::write(&cache, &self.older_cache).unwrap(),
                // That of another repository.
                (Fault::Swapped, _) => fs::write(&cache, noise(1, sound.len())).unwrap(),
                (_, bytes) => fs::write(&cache, bytes).unwrap(),
            }
            return world;
        }
        for name in &self.victims[&victim] {
            let sound = world.memory.read(name, u64::MAX).unwrap();
            match fault {
                Fault::Missing => world.memory.lose(name),
                Fault::Swapped => {
                    let (partner, bytes) = &self.partners[&victim];
                    world.memory.overwrite(name, bytes.clone());
                    // In these one object is put in the place of another: that one stays.
                    let is_put = victim.is_grant() || victim == Victim::Rosters;
                    if partner != name && !is_put {
                        world.memory.overwrite(partner, sound);
                    }
                }
                Fault::Older => {
                    for (name, bytes) in self.older.get(&victim).into_iter().flatten() {
                        world.memory.overwrite(name, bytes.clone());
                    }
                }
                _ => world.memory.overwrite(name, damaged(&sound, fault, flip(&sound))),
            }
        }
        world
    }

    fn cache_file(&self) -> PathBuf {
        cache_file(&self.folder.path().join("cache"))
    }

    fn open(&self, memory: &MemoryBackend, key_byte: u8) -> copal_store::Result<Repository> {
        let seed = 1000 + self.seeds.fetch_add(1, Ordering::Relaxed);
        Repository::open(Arc::new(memory.clone()), Arc::new(SeededEntropy::new(seed)), &key(key_byte))
    }
}

/// The one file below a cache folder.
fn cache_file(folder: &Path) -> PathBuf {
    let of_repository = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    of_repository.join("state.redb")
}

fn damaged(sound: &[u8], fault: Fault, position: usize) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    match fault {
        Fault::Truncated => bytes.truncate(sound.len() / 2),
        Fault::Zeroed => bytes = vec![0; sound.len().max(16)],
        Fault::Flipped if sound.is_empty() => bytes.push(1),
        Fault::Flipped => bytes[position] ^= 0x10,
        Fault::Envelope(field) => bytes[field.place().0] ^= field.place().1,
        _ => {}
    }
    bytes
}

pub fn files_of(root: &Path) -> Files {
    let mut files = Files::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(root.join(&path)).unwrap() {
            let entry = entry.unwrap();
            let below = path.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                pending.push(below);
            } else {
                files.insert(below, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

fn context_of(repository: Repository, folder: &Path, cache: Option<PathBuf>) -> Context {
    Context {
        repository,
        clock: Arc::new(RealClock(Instant::now())),
        monitor: Arc::new(SilentMonitor),
        cache_folder: cache,
        memory: None,
        state_folder: Some(folder.join("state")),
        own_places: Vec::new(),
        interrupt: Arc::new(AtomicBool::new(false)),
        threads: 2,
        host: "test".into(),
        user: "tester".into(),
        program: "test".into(),
    }
}

/// One damaged copy.
pub struct World<'t> {
    template: &'t Template,
    memory: MemoryBackend,
    folder: TempDir,
    victim: Victim,
    targets: AtomicU64,
}

impl World<'_> {
    fn cache_file(&self) -> PathBuf {
        let of_repository = self.template.cache_file().parent().unwrap().file_name().unwrap().to_owned();
        self.folder.path().join("cache").join(of_repository).join("state.redb")
    }

    /// As a program that starts now. The slot that is damaged, or whose grant is, is the one tried; with the
    /// other key all is well.
    fn context(&self) -> copal_engine::Result<Context> {
        let is_tried = self.victim == Victim::KeySlot || self.victim.is_grant();
        let key = if is_tried { KEYS[0] } else { KEYS[1] };
        self.context_with(key)
    }

    fn context_with(&self, key: u8) -> copal_engine::Result<Context> {
        let repository = self.template.open(&self.memory, key)?;
        let cache = (self.victim == Victim::Cache).then(|| self.folder.path().join("cache"));
        Ok(context_of(repository, self.folder.path(), cache))
    }

    pub fn list(&self) -> String {
        let context = match self.context() {
            Ok(context) => context,
            Err(error) => return refused(&error),
        };
        match Catalogue::load(&context) {
            Err(error) => refused(&error),
            Ok(catalogue) => {
                let names = |listed: &copal_engine::catalogue::Listed| {
                    let pinned = if listed.snapshot.pinned { "" } else { " (not pinned)" };
                    format!("{}{pinned}", listed.snapshot.name)
                };
                let mut names: Vec<String> = catalogue.snapshots.iter().map(names).collect();
                names.extend(catalogue.unreadable.iter().map(|_| "one that does not open".into()));
                match names.join(", ").as_str() {
                    "first, second, alone (not pinned)" => "all".into(),
                    names => names.replace("alone (not pinned)", "alone"),
                }
            }
        }
    }

    /// Deploys a snapshot and compares every byte. Nothing that differs is ever left.
    pub fn deploy(&self, name: &str) -> String {
        match self.context() {
            Ok(context) => self.deploy_in(&context, name, name),
            Err(error) => refused(&error),
        }
    }

    fn deploy_in(&self, context: &Context, name: &str, expected: &str) -> String {
        let target = self.folder.path().join(format!("target {}", self.targets.fetch_add(1, Ordering::Relaxed)));
        let request = DeployRequest {
            reference: name.into(),
            target: target.clone(),
            replace: false,
            ..DeployRequest::default()
        };
        match deploy(context, &request) {
            Ok(_) => {
                assert!(files_of(&target) == self.template.expected[expected], "wrong bytes of {name}");
                "exact".into()
            }
            Err(error) => {
                assert!(!target.exists(), "a deploy that failed left {name}");
                refused(&error)
            }
        }
    }

    /// A create of the grown tree, and what a deploy of it gives.
    pub fn create(&self) -> String {
        let context = match self.context() {
            Ok(context) => context,
            Err(error) => return refused(&error),
        };
        match take(&context, "", "third", &self.template.tree()) {
            Err(error) => refused(&error),
            Ok(()) => match self.deploy_in(&context, "third", "third").as_str() {
                "exact" => "done, whole".into(),
                _ => "done; what it shares is hurt".into(),
            },
        }
    }

    fn verify_with(&self, repair: bool, from: Vec<PathBuf>) -> copal_engine::Result<VerifyReport> {
        let mut report = verify(&self.context()?, &VerifyRequest { repair, from, ..VerifyRequest::default() })?;
        // Packs are checked side by side.
        for items in [&mut report.damaged, &mut report.not_verified] {
            items.sort_by(|one, other| (&one.kind, &one.id).cmp(&(&other.kind, &other.id)));
        }
        for item in report.damaged.iter().chain(&report.not_verified) {
            assert!(!item.snapshots.contains(&"other/alone".to_owned()), "{item:?}");
            assert!(!item.detail.is_empty() && !item.id.is_empty());
        }
        Ok(report)
    }

    pub fn verify(&self) -> String {
        match self.verify_with(false, Vec::new()) {
            Ok(report) => findings(&report),
            Err(error) => refused(&error),
        }
    }

    pub fn repair(&self, from_source: bool) -> String {
        let from = if from_source { vec![self.template.tree()] } else { Vec::new() };
        let repaired = match self.verify_with(true, from) {
            Err(error) => return refused(&error),
            Ok(report) => report,
        };
        let after = self.verify_with(false, Vec::new()).unwrap();
        assert_eq!(after.damaged, repaired.damaged, "a repair reports what it left");
        assert_eq!(after.not_verified, repaired.not_verified);
        let mut said = findings(&after);
        if after.is_ok() {
            for name in ["first", "second"] {
                let found = self.deploy(name);
                assert!(found == "exact" || found == "refused: no such snapshot", "{found}");
            }
            said = if repaired.repaired.is_empty() { "nothing to do".into() } else { "healed".into() };
        }
        let again = self.verify_with(true, Vec::new()).unwrap();
        assert_eq!(again.damaged, after.damaged, "a second repair finds what the first left");
        said
    }

    /// After a repair without a source, the next create stores again what it meets: then only what no longer
    /// stands in the tree is lost.
    pub fn heal_by_create(&self) {
        self.verify_with(true, Vec::new()).unwrap();
        assert_eq!(self.create(), "done, whole");
        let report = self.verify_with(false, Vec::new()).unwrap();
        let hurt: BTreeSet<&String> = report.damaged.iter().flat_map(|item| &item.snapshots).collect();
        assert!(hurt.into_iter().all(|name| name == "first"), "{:?}", report.damaged);
        let paths = report.damaged.iter().flat_map(|item| &item.paths);
        let gone = ["folder/one", "large", "a part of the manifest"];
        paths.for_each(|path| assert!(gone.contains(&path.as_str()), "{path} could have been read again"));
        assert_eq!(self.deploy("second"), "exact");
    }

    pub fn collect(&self) -> String {
        let context = match self.context() {
            Ok(context) => context,
            Err(error) => return refused(&error),
        };
        let before = ["first", "second"].map(|name| self.deploy(name));
        let said = match collect_garbage(&context, false) {
            Err(error) => refused(&error),
            Ok(_) => "done".into(),
        };
        assert_eq!(before, ["first", "second"].map(|name| self.deploy(name)), "collection took what was reached");
        said
    }

    /// What every cell must keep: the snapshot that shares nothing is exact, with the key that still opens.
    /// Without a roster none does.
    #[track_caller]
    pub fn check_alone(&self) {
        let opened = self.context_with(KEYS[1]).or_else(|_| self.context_with(KEYS[0]));
        let context = match opened {
            Err(error) if self.victim == Victim::Rosters => {
                assert!(refused(&error).starts_with("refused: the roster "), "{error}");
                return;
            }
            opened => opened.unwrap(),
        };
        assert_eq!(self.deploy_in(&context, "other/alone", "other/alone"), "exact");
    }
}

/// The error, with what it names but without ids.
fn refused(error: &Error) -> String {
    let what = match error {
        Error::Store(StoreError::Damaged { object, .. }) => format!("{} damaged", kind_of(object)),
        Error::Store(StoreError::Missing { object }) => format!("{} missing", kind_of(object)),
        Error::Store(StoreError::WrongKey) => "wrong key".into(),
        Error::Store(StoreError::Unsupported { what, .. }) => format!("{} newer", kind_of(what)),
        Error::NoSuchSnapshot(_) => "no such snapshot".into(),
        Error::DeployFailed { cause, .. } => return refused(cause),
        other => panic!("an error that names nothing: {other}"),
    };
    format!("refused: {what}")
}

fn kind_of(object: &str) -> &str {
    let folder = object.split(['/', ' ']).next().unwrap_or(object);
    match folder {
        "keys" if object.starts_with("keys/roster-") || object.starts_with("keys/roster,") => "the roster",
        "keys" if object.contains('-') => "a grant",
        "packs" => "a pack",
        "index" => "a fragment",
        "snapshots" => "a root",
        "keys" => "a key slot",
        "labels" => "a label",
        "condemned" => "a sentence",
        "chunk" => "a chunk",
        "config" | "config-copy" => "the configuration",
        other => panic!("an error that names {other}"),
    }
}

fn findings(report: &VerifyReport) -> String {
    if report.is_ok() {
        return "all is well".into();
    }
    let mut kinds: BTreeSet<String> = report.damaged.iter().map(|item| item.kind.clone()).collect();
    kinds.extend(report.not_verified.iter().map(|item| format!("{} (newer)", item.kind)));
    let mut hurt: BTreeSet<&str> = BTreeSet::new();
    for item in report.damaged.iter().chain(&report.not_verified) {
        // An unreadable root is known by its id.
        let names = item.snapshots.iter().map(|name| if name.len() == 32 { "its id" } else { name.as_str() });
        hurt.extend(names);
    }
    let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
    let hurt = hurt.into_iter().collect::<Vec<_>>().join(", ");
    if hurt.is_empty() { format!("names {kinds}") } else { format!("names {kinds}; hurts {hurt}") }
}
