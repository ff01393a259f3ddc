//! A repository in which every kind of object stands, made once and copied for each damage; and what each operation then does,
//! in words.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use copal_engine::catalogue::{Catalogue, relabel};
use copal_engine::context::SilentMonitor;
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_engine::deploy::{DeployMode, DeployRequest, deploy};
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
    DataPack,
    NodePack,
    Fragment,
    Root,
    Label,
    Condemned,
    Session,
    Cache,
}

pub const VICTIMS: [Victim; 10] = [
    Victim::Config,
    Victim::KeySlot,
    Victim::DataPack,
    Victim::NodePack,
    Victim::Fragment,
    Victim::Root,
    Victim::Label,
    Victim::Condemned,
    Victim::Session,
    Victim::Cache,
];

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Missing,
    Truncated,
    Flipped,
    Zeroed,
    Swapped,
    Older,
}

pub const FAULTS: [Fault; 6] =
    [Fault::Missing, Fault::Truncated, Fault::Flipped, Fault::Zeroed, Fault::Swapped, Fault::Older];

/// The first slot's key, which is damaged, and the second's.
const KEYS: [u8; 2] = [7, 8];
/// A slot that was removed.
const OLD_KEY: u8 = 9;

fn key(byte: u8) -> Credential {
    Credential::KeyFile(zeroize::Zeroizing::new([byte; 32]))
}

pub struct Template {
    memory: MemoryBackend,
    folder: TempDir,
    victims: BTreeMap<Victim, ObjectName>,
    partners: BTreeMap<Victim, (ObjectName, Vec<u8>)>,
    /// Offsets of bytes that `second` needs.
    aims: BTreeMap<Victim, usize>,
    older: BTreeMap<Victim, Vec<(ObjectName, Vec<u8>)>>,
    older_cache: Vec<u8>,
    expected: BTreeMap<&'static str, Files>,
    seeds: AtomicU64,
}

impl Template {
    pub fn new() -> Self {
        Building::new().build()
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

    /// A copy with one damage; `position` is where a bit is flipped, in thousandths of the length, or else where something stands that
    /// `second` needs.
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
        let name = &self.victims[&victim];
        let sound = world.memory.read(name, u64::MAX).unwrap();
        match fault {
            Fault::Missing => world.memory.lose(name),
            Fault::Swapped => {
                let (partner, bytes) = &self.partners[&victim];
                world.memory.overwrite(name, bytes.clone());
                if partner != name {
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
        state_folder: Some(folder.join("state")),
        interrupt: Arc::new(AtomicBool::new(false)),
        threads: 2,
        host: "test".into(),
        program: "test".into(),
    }
}

fn take(context: &Context, app: &str, name: &str, path: &Path) -> copal_engine::Result<()> {
    let sources = vec![SourceRequest { label: String::new(), path: path.to_owned() }];
    let request = CreateRequest { name: name.into(), app: app.into(), sources, ..CreateRequest::default() };
    create(context, &request).map(drop)
}

struct Building {
    folder: TempDir,
    memory: MemoryBackend,
    context: Context,
    older: BTreeMap<Victim, Vec<(ObjectName, Vec<u8>)>>,
}

impl Building {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let memory = MemoryBackend::new();
        let options = InitOptions {
            parameters: Parameters { pack_bytes_max: 1 << 20, ..Parameters::default() },
            suite: CipherSuite::Aes256Gcm,
            stretch: StretchCost::default(),
            slot_label: "first".into(),
            created_seconds: 0,
        };
        let repository =
            Repository::init(Arc::new(memory.clone()), Arc::new(SeededEntropy::new(1)), &key(KEYS[0]), &options)
                .unwrap();
        let context = context_of(repository, folder.path(), Some(folder.path().join("cache")));
        Self { folder, memory, context, older: BTreeMap::new() }
    }

    fn names(&self, kind: ObjectKind) -> BTreeSet<ObjectName> {
        self.memory.list(kind).unwrap().into_iter().map(|object| object.name).collect()
    }

    fn bytes(&self, name: &ObjectName) -> Vec<u8> {
        self.memory.read(name, u64::MAX).unwrap()
    }

    fn remember(&mut self, victim: Victim, names: impl IntoIterator<Item = ObjectName>) {
        for name in names {
            let bytes = self.bytes(&name);
            self.older.entry(victim).or_default().push((name, bytes));
        }
    }

    /// Writes files, the seed of each beside its path.
    fn plant(&self, tree: &str, files: &[(&str, u64, usize)]) {
        for (path, seed, bytes) in files {
            let path = self.folder.path().join(tree).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, noise(*seed, *bytes)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(30));
    }

    /// Collects while a session lives, so that a sentence waits; returns what is condemned and the session.
    fn condemn(&self) -> (BTreeSet<ObjectName>, Session) {
        let witness = Session::begin(&self.context.repository).unwrap();
        assert!(collect_garbage(&self.context, false).unwrap().packs_waiting > 0);
        (self.names(ObjectKind::Condemned), witness)
    }

    fn build(mut self) -> Template {
        let tree = self.folder.path().join("tree");
        let slot_of = |names: &BTreeSet<ObjectName>, before: &BTreeSet<ObjectName>| {
            names.difference(before).next().unwrap().clone()
        };
        let stretch = StretchCost::default();
        let first_slot = self.names(ObjectKind::KeySlot);
        self.context.repository.add_key_slot(&key(KEYS[1]), "second", stretch, 1).unwrap();
        let two_slots = self.names(ObjectKind::KeySlot);
        let old = self.context.repository.add_key_slot(&key(OLD_KEY), "old", stretch, 2).unwrap();
        let old_slot = slot_of(&self.names(ObjectKind::KeySlot), &two_slots);
        self.remember(Victim::KeySlot, [old_slot]);
        self.context.repository.remove_key_slot(old).unwrap();

        // Two snapshots that will be gone, with packs, nodes, fragments and sentences of their own.
        let before = [ObjectKind::Pack, ObjectKind::Index].map(|kind| self.names(kind));
        self.plant("tree", &[("gone", 1, 600_000), ("folder/gone too", 2, 30_000)]);
        take(&self.context, "", "gone", &tree).unwrap();
        let after = [ObjectKind::Pack, ObjectKind::Index].map(|kind| self.names(kind));
        let root = self.names(ObjectKind::Root);
        self.remember(Victim::Root, root);
        let packs: Vec<_> = after[0].difference(&before[0]).cloned().collect();
        for pack in packs {
            let description = describe(&self.context.repository, &pack).unwrap();
            let is_data = description.fields.contains(&("record kind".into(), "Data".into()));
            self.remember(if is_data { Victim::DataPack } else { Victim::NodePack }, [pack]);
        }
        let fragments: Vec<_> = after[1].difference(&before[1]).cloned().collect();
        self.remember(Victim::Fragment, fragments);
        let older_cache = {
            Catalogue::load(&self.context).unwrap();
            fs::read(cache_file(&self.folder.path().join("cache"))).unwrap()
        };
        fs::remove_dir_all(&tree).unwrap();
        self.plant("elsewhere", &[("waste", 3, 500_000)]);
        take(&self.context, "waste", "waste", &self.folder.path().join("elsewhere")).unwrap();
        delete(&self.context, &["gone".into()]).unwrap();
        let (sentence, witness) = self.condemn();
        self.remember(Victim::Condemned, sentence);
        let sessions = self.names(ObjectKind::Session);
        self.remember(Victim::Session, sessions);
        witness.end().unwrap();
        collect_garbage(&self.context, false).unwrap();
        assert_eq!(self.names(ObjectKind::Condemned).len(), 0);

        let before_two = self.names(ObjectKind::Pack);
        // What is damaged belongs to these two; the second is a change of the first.
        let steady = ("folder/steady", 10, 20_000);
        self.plant("tree", &[steady, ("large", 11, 900_000), ("folder/one", 12, 5_000), ("folder/two", 13, 70_000)]);
        take(&self.context, "", "first", &tree).unwrap();
        let first = files_of(&tree);
        let mut large = noise(11, 900_000);
        large[450_000..450_100].fill(1);
        fs::write(tree.join("large"), large).unwrap();
        fs::remove_file(tree.join("folder/one")).unwrap();
        self.plant("tree", &[("new", 14, 300_000)]);
        take(&self.context, "", "second", &tree).unwrap();
        let second = files_of(&tree);
        let of_two: BTreeSet<ObjectName> = self.names(ObjectKind::Pack).difference(&before_two).cloned().collect();
        relabel(&self.context, "first", &[("a".into(), "1".into())], &[], None).unwrap();
        let old_label = self.names(ObjectKind::Label);
        self.remember(Victim::Label, old_label);
        relabel(&self.context, "first", &[], &[], Some(true)).unwrap();
        relabel(&self.context, "second", &[], &[], Some(true)).unwrap();

        // A sentence that waits for a session whose process died.
        delete(&self.context, &["waste/waste".into()]).unwrap();
        let (_, witness) = self.condemn();
        let before = [ObjectKind::Pack, ObjectKind::Index].map(|kind| self.names(kind));
        self.plant("other", &[("alone", 20, 200_000), ("folder/beside", 21, 3_000)]);
        let other = self.folder.path().join("other");
        take(&self.context, "other", "alone", &other).unwrap();
        let alone = files_of(&other);
        let of_alone: BTreeSet<ObjectName> = [ObjectKind::Pack, ObjectKind::Index]
            .iter()
            .zip(before)
            .flat_map(|(kind, before)| self.names(*kind).difference(&before).cloned().collect::<Vec<_>>())
            .collect();
        Catalogue::load(&self.context).unwrap();
        let second_witness = Session::begin(&self.context.repository).unwrap();
        let memory = self.memory.fork();
        drop((witness, second_witness));

        let (victims, partners) = self.choose(&memory, &first_slot, &two_slots, &of_two, &of_alone);
        let aims = self.aims();
        let expected = BTreeMap::from([("first", first), ("second", second), ("other/alone", alone)]);
        Template {
            memory,
            folder: self.folder,
            victims,
            partners,
            aims,
            older: self.older,
            older_cache,
            expected,
            seeds: AtomicU64::new(0),
        }
    }

    fn aims(&self) -> BTreeMap<Victim, usize> {
        let repository = &self.context.repository;
        let session = Session::begin(repository).unwrap();
        let catalogue = Catalogue::load(&self.context).unwrap();
        let offset = |id| session.locate(id).unwrap().expect("the chunk has a place").record_offset as usize + 9;
        let steady = repository.keys().chunk_id(&noise(10, 20_000));
        let node = catalogue.find("second").unwrap().snapshot.sources[0].tree.id;
        let aims = BTreeMap::from([(Victim::DataPack, offset(&steady)), (Victim::NodePack, offset(&node))]);
        session.end().unwrap();
        aims
    }

    #[allow(clippy::type_complexity)]
    fn choose(
        &self,
        memory: &MemoryBackend,
        first_slot: &BTreeSet<ObjectName>,
        slots: &BTreeSet<ObjectName>,
        of_two: &BTreeSet<ObjectName>,
        of_alone: &BTreeSet<ObjectName>,
    ) -> (BTreeMap<Victim, ObjectName>, BTreeMap<Victim, (ObjectName, Vec<u8>)>) {
        let repository = &self.context.repository;
        let session = Session::begin(repository).unwrap();
        let catalogue = Catalogue::load(&self.context).unwrap();
        let (first, second) = (catalogue.find("first").unwrap(), catalogue.find("second").unwrap());
        let steady = repository.keys().chunk_id(&noise(10, 20_000));
        let pack_of = |id| pack_name(session.locate(id).unwrap().expect("the chunk has a place").pack);
        let data = pack_of(&steady);
        let node = pack_of(&second.snapshot.sources[0].tree.id);
        let is_of = |name: &ObjectName, kind: &str| {
            let description = describe(repository, name).unwrap();
            description.fields.contains(&("record kind".into(), kind.into()))
        };
        let another = |name: &ObjectName, kind| {
            let mut others = of_two.iter().filter(|other| *other != name && is_of(other, kind));
            others.next().expect("another pack of the kind").clone()
        };
        let knows = |name: &&ObjectName| {
            let fields = describe(repository, name).unwrap().fields;
            fields.iter().any(|(_, value)| *value == steady.to_string())
        };
        let fragments = self.names(ObjectKind::Index);
        let fragment = fragments.iter().find(knows).unwrap().clone();
        assert!(!of_alone.contains(&fragment), "the snapshot that must not be harmed has a fragment of its own");
        let root = |listed: &copal_engine::catalogue::Listed| {
            ObjectName::new(ObjectKind::Root, listed.root.object_name()).unwrap()
        };
        let label = |listed: &copal_engine::catalogue::Listed| {
            let of = |name: &&ObjectName| name.name().starts_with(&listed.snapshot.id.to_string());
            self.names(ObjectKind::Label).iter().find(of).unwrap().clone()
        };
        let names =
            |kind| -> Vec<ObjectName> { memory.list(kind).unwrap().into_iter().map(|object| object.name).collect() };
        let mut condemned = names(ObjectKind::Condemned);
        condemned.sort_by_key(|name| name.name().len());
        let sessions: Vec<ObjectName> = names(ObjectKind::Session);
        let pairs = [
            (
                Victim::KeySlot,
                first_slot.first().unwrap().clone(),
                slots.difference(first_slot).next().unwrap().clone(),
            ),
            (Victim::DataPack, data.clone(), another(&data, "Data")),
            (Victim::NodePack, node.clone(), another(&node, "Node")),
            (
                Victim::Fragment,
                fragment.clone(),
                fragments.iter().find(|other| **other != fragment && !of_alone.contains(*other)).unwrap().clone(),
            ),
            (Victim::Root, root(second), root(first)),
            (Victim::Label, label(second), label(first)),
            (Victim::Condemned, condemned[0].clone(), condemned[1].clone()),
            (Victim::Session, sessions[0].clone(), sessions[1].clone()),
        ];
        let mut victims = BTreeMap::from([(Victim::Config, config_name())]);
        let mut partners = BTreeMap::from([(Victim::Config, (config_name(), config_of_another_repository()))]);
        for (victim, name, partner) in pairs {
            let bytes = memory.read(&partner, u64::MAX).unwrap();
            victims.insert(victim, name);
            partners.insert(victim, (partner, bytes));
        }
        session.end().unwrap();
        (victims, partners)
    }
}

fn config_of_another_repository() -> Vec<u8> {
    let memory = MemoryBackend::new();
    let options = InitOptions {
        parameters: Parameters::default(),
        suite: CipherSuite::Aes256Gcm,
        stretch: StretchCost::default(),
        slot_label: String::new(),
        created_seconds: 0,
    };
    Repository::init(Arc::new(memory.clone()), Arc::new(SeededEntropy::new(99)), &key(1), &options).unwrap();
    memory.read(&config_name(), 1 << 16).unwrap()
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

    /// As a program that starts now. A damaged slot is the one tried; with the other key all is well.
    fn context(&self) -> copal_engine::Result<Context> {
        let key = if self.victim == Victim::KeySlot { KEYS[0] } else { KEYS[1] };
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
            path: None,
            mode: DeployMode::Auto,
            replace: false,
            dry_run: false,
            force_read: false,
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
        let report = verify(&self.context()?, &VerifyRequest { repair, from, ..VerifyRequest::default() })?;
        for item in &report.damaged {
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
        let mut said = findings(&after);
        if after.damaged.is_empty() {
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

    /// After a repair without a source, the next create stores again what it meets: then only what no longer stands in the tree is
    /// lost.
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
    #[track_caller]
    pub fn check_alone(&self) {
        let context = self.context_with(KEYS[1]).or_else(|_| self.context_with(KEYS[0])).unwrap();
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
    if report.damaged.is_empty() {
        return "all is well".into();
    }
    let kinds: BTreeSet<&str> = report.damaged.iter().map(|item| item.kind.as_str()).collect();
    let mut hurt: BTreeSet<&str> = BTreeSet::new();
    for item in &report.damaged {
        // An unreadable root is known by its id.
        let names = item.snapshots.iter().map(|name| if name.len() == 32 { "its id" } else { name.as_str() });
        hurt.extend(names);
    }
    let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
    let hurt = hurt.into_iter().collect::<Vec<_>>().join(", ");
    if hurt.is_empty() { format!("names {kinds}") } else { format!("names {kinds}; hurts {hurt}") }
}
