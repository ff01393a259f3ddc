//! Goal: one flipped bit of one object costs what needs that object, and nothing else (row T7); also in a
//! repository whose keys were rotated, where an object names the keys that open it. Method: a repository with
//! a snapshot in each of three key epochs, sharing nothing. A bit flips in each byte of the header of each
//! object, and here and there in the rest: the operations run in this process, which is faster than starting
//! the program some thousand times, and in a sample through the program. The objects of one kind stand in one
//! thread, on a copy of their own.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use copal_engine::catalogue::{Catalogue, relabel};
use copal_engine::context::SilentMonitor;
use copal_engine::deploy::{DeployRequest, deploy};
use copal_engine::removal::collect_garbage;
use copal_engine::verify::{VerifyRequest, verify};
use copal_engine::{Clock, Context, Error};
use copal_manifest::entry::Timestamp;
use copal_store::entropy::OsEntropy;
use copal_store::keys::Credential;
use copal_store::local::LocalBackend;
use copal_store::repository::Repository;
use copal_store::session::Session;
use tempfile::TempDir;
use zeroize::Zeroizing;

use support::{World, files_below, noise};

/// A header and what is encapsulated behind it.
const HEADER_BYTES: usize = 64;
/// The byte of the format version: each of its bits is flipped.
const VERSION_AT: usize = 7;
/// Key epoch and sealing: bits that make another one that there is, and one that there is not.
const EPOCH_AND_SEALING: std::ops::RangeInclusive<usize> = 9..=13;

const SNAPSHOTS: [&str; 3] = ["first", "second", "third"];

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

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// An object, by its path in the repository, and the snapshot that needs it.
#[derive(Clone, Debug)]
struct Object {
    path: PathBuf,
    costs: Option<&'static str>,
}

impl Object {
    fn folder(&self) -> &str {
        self.path.iter().next().unwrap().to_str().unwrap()
    }

    fn name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }

    /// What its damage must not hurt.
    fn others(&self) -> impl Iterator<Item = &'static str> {
        let costs = self.costs;
        SNAPSHOTS.into_iter().filter(move |name| Some(*name) != costs)
    }
}

/// The repository, its objects, and what its snapshots hold.
struct Rotated {
    world: World,
    objects: Vec<Object>,
    expected: BTreeMap<&'static str, Files>,
}

fn objects_of(world: &World) -> BTreeSet<PathBuf> {
    world.objects().into_keys().map(|path| path.strip_prefix(world.repository()).unwrap().to_owned()).collect()
}

impl Rotated {
    /// A snapshot in each of the epochs 0, 1 and 2; a pin of each; a sentence whose witness died.
    fn new() -> Self {
        let world = World::new();
        let (mut objects, mut expected) = (Vec::new(), BTreeMap::new());
        for (number, name) in SNAPSHOTS.into_iter().enumerate() {
            if number > 0 {
                world.ok(&["key", "rotate"]);
            }
            let before = objects_of(&world);
            let tree = world.path(name);
            fs::create_dir_all(tree.join("folder")).unwrap();
            fs::write(tree.join("large"), noise(number as u64 * 10 + 1, 40_000)).unwrap();
            fs::write(tree.join("folder/small"), noise(number as u64 * 10 + 2, 900)).unwrap();
            world.create(name, name);
            expected.insert(name, files_of(&tree));
            let context = context_of(&world.path("key"), &world.repository(), &world.path("state of the test"));
            relabel(&context, name, &[], &[], Some(true)).unwrap();
            // A label is no part of the snapshot.
            let needs = |path: &PathBuf| !path.starts_with("labels");
            objects.extend(
                objects_of(&world)
                    .difference(&before)
                    .map(|path| Object { path: path.clone(), costs: needs(path).then_some(name) }),
            );
        }
        let before = objects_of(&world);
        fs::create_dir_all(world.path("waste")).unwrap();
        fs::write(world.path("waste/file"), noise(90, 30_000)).unwrap();
        world.create("waste", "waste");
        let waste: Vec<PathBuf> = objects_of(&world).difference(&before).cloned().collect();
        let context = context_of(&world.path("key"), &world.repository(), &world.path("state of the test"));
        let witness = Session::begin(&context.repository).unwrap();
        world.ok(&["delete", "waste", "--yes"]);
        world.ok(&["gc"]);
        drop(witness);
        objects.extend(waste.into_iter().map(|path| Object { path, costs: None }));
        let known: BTreeSet<PathBuf> = objects.iter().map(|object| object.path.clone()).collect();
        let standing = objects_of(&world);
        objects.retain(|object| standing.contains(&object.path));
        objects.extend(standing.into_iter().filter(|path| !known.contains(path)).map(|path| {
            let epoch = path.file_name().unwrap().to_str().unwrap().strip_suffix(char::is_alphanumeric).is_some();
            let ends =
                |end: &str| path.starts_with("keys") && !is_roster(&path) && path.to_str().unwrap().ends_with(end);
            let costs = match epoch {
                true if ends("-00000001") => Some("second"),
                true if ends("-00000002") => Some("third"),
                _ => None,
            };
            Object { path, costs }
        }));
        // A slot opens nothing when it is damaged; sessions and leases hold nothing.
        let is_swept = |object: &Object| {
            let is_slot = object.folder() == "keys" && !object.name().contains('-');
            !is_slot && !["sessions", "leases", "tmp"].contains(&object.folder())
        };
        objects.retain(is_swept);
        for folder in ["config", "config-copy", "keys", "packs", "index", "snapshots", "labels", "condemned"] {
            assert!(objects.iter().any(|object| object.folder() == folder), "{folder}: {objects:?}");
        }
        Self { world, objects, expected }
    }
}

fn is_roster(path: &Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with("roster-")
}

fn files_of(tree: &Path) -> Files {
    let files = files_below(tree).into_iter();
    files.map(|path| (path.strip_prefix(tree).unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

fn context_of(key: &Path, repository: &Path, state: &Path) -> Context {
    let key: [u8; 32] = fs::read(key).unwrap().try_into().unwrap();
    let backend = Arc::new(LocalBackend::new(repository));
    let credential = Credential::KeyFile(Zeroizing::new(key));
    Context {
        repository: Repository::open(backend, Arc::new(OsEntropy), &credential).unwrap(),
        clock: Arc::new(RealClock(Instant::now())),
        monitor: Arc::new(SilentMonitor),
        cache_folder: None,
        memory: None,
        state_folder: Some(state.to_owned()),
        own_places: Vec::new(),
        interrupt: Arc::new(AtomicBool::new(false)),
        threads: 1,
        host: "test".into(),
        user: "tester".into(),
        program: "test".into(),
    }
}

/// A copy of the repository, in which one object is damaged at a time.
struct Sweep<'r> {
    rotated: &'r Rotated,
    folder: TempDir,
    targets: u64,
}

fn copy_folder(from: &Path, to: &Path) {
    for path in files_below(from) {
        let copy = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(&path, copy).unwrap();
    }
    for folder in ["sessions", "leases", "tmp", "labels", "condemned"] {
        fs::create_dir_all(to.join(folder)).unwrap();
    }
}

impl<'r> Sweep<'r> {
    fn new(rotated: &'r Rotated) -> Self {
        // In memory, where there is such a folder: nothing here is about power failures.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        copy_folder(&rotated.world.repository(), &folder.path().join("repository"));
        Self { rotated, folder, targets: 0 }
    }

    fn context(&self, repository: &str) -> Context {
        let key = self.rotated.world.path("key");
        context_of(&key, &self.folder.path().join(repository), &self.folder.path().join("state"))
    }

    fn sweep(&mut self, object: &Object) {
        let path = self.folder.path().join("repository").join(&object.path);
        let sound = fs::read(&path).unwrap();
        for (looks, (position, bit)) in places(sound.len(), object.folder() == "packs").into_iter().enumerate() {
            let mut bytes = sound.clone();
            bytes[position] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            let place = format!("{} with bit {bit} of byte {position} flipped", object.path.display());
            self.look(object, &place, looks);
            if looks % 16 == 7 {
                self.collect(object, &place, &sound);
            }
        }
        fs::write(&path, &sound).unwrap();
    }

    /// Everything else is listed, verified and deployed, and verification names the object.
    fn look(&mut self, object: &Object, place: &str, number: usize) {
        let context = self.context("repository");
        let listed = Catalogue::load(&context).unwrap_or_else(|error| panic!("{place}: {error}"));
        let names: Vec<&str> = listed.snapshots.iter().map(|listed| listed.snapshot.name.as_str()).collect();
        assert!(object.others().all(|name| names.contains(&name)), "{place}: {names:?}");
        let report = verify(&context, &VerifyRequest::default()).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert!(format!("{report:?}").contains(object.name()), "{place}: {report:#?}");
        let hurt: BTreeSet<&String> = report.damaged.iter().flat_map(|item| &item.snapshots).collect();
        // A label that does not open hurts what it labels, and no more than that.
        if object.folder() != "labels" {
            assert!(object.others().all(|name| !hurt.contains(&name.to_owned())), "{place}: {report:#?}");
        }
        let others: Vec<&str> = object.others().collect();
        self.deploy(&context, others[number % others.len()], place);
        if let Some(cost) = object.costs
            && number.is_multiple_of(4)
            && let Err(error) = self.try_deploy(&context, cost)
        {
            assert!(error.to_string().contains(object.name()), "{place}: {error} names another");
        }
    }

    /// A collection goes on, or refuses and names the object; nothing is lost when the bit is as it was.
    fn collect(&mut self, object: &Object, place: &str, sound: &[u8]) {
        let copy = self.folder.path().join("copy");
        copy_folder(&self.folder.path().join("repository"), &copy);
        if let Err(error) = collect_garbage(&self.context("copy"), false) {
            assert!(error.to_string().contains(object.name()), "{place}: {error}");
        }
        let context = self.context("copy");
        for name in object.others() {
            self.deploy(&context, name, place);
        }
        let path = copy.join(&object.path);
        if path.exists() {
            fs::write(path, sound).unwrap();
        }
        let context = self.context("copy");
        for name in SNAPSHOTS {
            self.deploy(&context, name, place);
        }
        fs::remove_dir_all(copy).unwrap();
    }

    #[track_caller]
    fn deploy(&mut self, context: &Context, name: &str, place: &str) {
        self.try_deploy(context, name).unwrap_or_else(|error| panic!("{place}: {name} is not deployed: {error}"));
    }

    fn try_deploy(&mut self, context: &Context, name: &str) -> Result<(), Error> {
        self.targets += 1;
        let target = self.folder.path().join(format!("target {}", self.targets));
        let request = DeployRequest { reference: name.into(), target: target.clone(), ..DeployRequest::default() };
        deploy(context, &request)?;
        assert!(files_of(&target) == self.rotated.expected[name], "wrong bytes of {name}");
        fs::remove_dir_all(target).unwrap();
        Ok(())
    }
}

/// Which bits of which bytes are flipped: all of the header's bytes, and some of the rest.
fn places(bytes: usize, is_pack: bool) -> Vec<(usize, usize)> {
    let stride = if is_pack { bytes / 24 } else { 97 }.max(1);
    let rest = (HEADER_BYTES..bytes).step_by(stride).chain([bytes - 1]);
    let mut places = Vec::new();
    for position in (0..HEADER_BYTES.min(bytes)).chain(rest) {
        if position == VERSION_AT {
            places.extend((0..8).map(|bit| (position, bit)));
        } else if EPOCH_AND_SEALING.contains(&position) {
            places.extend([(position, 0), (position, 1), (position, 7)]);
        } else {
            places.push((position, position % 8));
        }
    }
    places
}

#[test]
fn t07_a_bit_in_any_byte_of_any_object_costs_what_needs_it() {
    let rotated = Rotated::new();
    // What a lone flip of the configuration costs is nothing: its copy stands in.
    let mut kinds: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for object in &rotated.objects {
        kinds.entry(object.folder()).or_default().push(object);
    }
    std::thread::scope(|scope| {
        for objects in kinds.into_values() {
            let rotated = &rotated;
            scope.spawn(move || {
                let mut sweep = Sweep::new(rotated);
                objects.into_iter().for_each(|object| sweep.sweep(object));
            });
        }
    });
}

#[test]
fn t07_the_program_goes_on_beside_a_damaged_object() {
    let rotated = Rotated::new();
    let world = &rotated.world;
    let sound = world.objects();
    for object in &rotated.objects {
        let path = world.repository().join(&object.path);
        for (position, bit) in [(VERSION_AT, 6), (9, 0), (13, 0), (70, 3)] {
            let mut bytes = sound[&path].clone();
            bytes[position] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            let place = format!("{} with bit {bit} of byte {position} flipped", object.path.display());
            let listed = world.run(&["list"]);
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            assert!(object.others().all(|name| text.contains(name)), "{place}: {listed:#?}");
            let verdict = world.run(&["verify"]);
            assert!([69, 13, 68].contains(&verdict.code), "{place}: {verdict:#?}");
            assert!(format!("{verdict:?}").contains(object.name()), "{place}: {verdict:#?}");
            for name in object.others() {
                world.ok(&["deploy", name, "target", "--yes"]);
                assert!(files_of(&world.path("target")) == rotated.expected[name], "{place}");
                fs::remove_dir_all(world.path("target")).unwrap();
            }
            fs::write(&path, &sound[&path]).unwrap();
        }
    }
    // The sound repository is what it was.
    world.ok(&["verify"]);
    world.ok(&["gc"]);
}

fn flip(path: &Path, position: usize, bit: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[position] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

#[test]
fn t07_sealing_again_goes_on_beside_what_does_not_open() {
    // A content that does not verify, an epoch that never began, a version that nobody reads.
    for (position, bit) in [(200, 0), (12, 3), (VERSION_AT, 6)] {
        let world = World::new();
        for name in SNAPSHOTS {
            fs::create_dir_all(world.path(name)).unwrap();
            fs::write(world.path(name).join("file"), noise(name.len() as u64, 30_000)).unwrap();
            world.create(name, name);
            world.ok(&["pin", name]);
        }
        let hurt = &world.objects_in("labels")[0];
        flip(hurt, position, bit);
        let rotated = world.json(&["key", "rotate", "--reseal"]);
        let resealed = &rotated["resealed"];
        assert_eq!((&resealed["unopened"], &resealed["labels"], &resealed["roots"]), (&1.into(), &2.into(), &3.into()));
        for name in SNAPSHOTS {
            world.ok(&["deploy", name, "target", "--yes"]);
            assert_eq!(files_of(&world.path("target")), files_of(&world.path(name)));
            fs::remove_dir_all(world.path("target")).unwrap();
        }
        let verdict = world.run(&["verify"]);
        assert!([69, 13].contains(&verdict.code), "{verdict:#?}");
        assert!(format!("{verdict:?}").contains(hurt.file_name().unwrap().to_str().unwrap()), "{verdict:#?}");
        // What it said is set again, and all is well; what a newer program said stays.
        if position != VERSION_AT {
            for name in SNAPSHOTS {
                world.ok(&["pin", name]);
            }
            world.ok(&["verify"]);
        }
    }
}

#[test]
fn t07_creates_merge_the_index_beside_a_fragment_that_does_not_open() {
    // The first byte of a block, which is read when fragments are merged; the version.
    for (position, bit) in [(40, 0), (VERSION_AT, 6)] {
        let world = World::new();
        fs::create_dir_all(world.path("source")).unwrap();
        fs::write(world.path("source/file"), noise(1, 30_000)).unwrap();
        world.create("hurt", "source");
        let hurt = world.objects_in("index").remove(0);
        flip(&hurt, position, bit);
        for number in 2..14 {
            fs::write(world.path("source/file"), noise(number, 30_000)).unwrap();
            world.create(&format!("number-{number}"), "source");
        }
        let standing = world.objects_in("index");
        assert!(standing.contains(&hurt) && standing.len() < 13, "{standing:?}");
        world.ok(&["deploy", "number-5", "target", "--yes"]);
        assert_eq!(fs::read(world.path("target/file")).unwrap(), noise(5, 30_000));
        flip(&hurt, position, bit);
        world.ok(&["verify"]);
        world.ok(&["deploy", "hurt", "hurt", "--yes"]);
    }
}

#[test]
fn t07_what_is_hurt_in_keys_is_made_again_from_what_is_sound() {
    let world = World::new();
    fs::write(world.path("other"), noise(7, 32)).unwrap();
    let added = world.json(&["key", "add", "--label", "other", "--new-key-file", "other"]);
    let slot = added["added"].as_str().unwrap();
    fs::create_dir_all(world.path("source")).unwrap();
    fs::write(world.path("source/file"), noise(1, 30_000)).unwrap();
    world.ok(&["key", "rotate"]);
    world.create("monday", "source");
    let with_other = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("COPAL_KEY_FILE", world.path("other"));
        support::finish(command.output().unwrap())
    };
    let grant = world.repository().join(format!("keys/{slot}-00000001"));
    let is_first_roster = |path: &PathBuf| is_roster(path) && !path.to_str().unwrap().ends_with("-copy");
    let roster = world.objects_in("keys").into_iter().find(is_first_roster).unwrap();
    let sound = fs::read(&roster).unwrap();
    fs::remove_file(&roster).unwrap();
    fs::remove_file(&grant).unwrap();
    // Whoever has lost his grant opens the rest, and learns what is gone.
    let refused = with_other(&["deploy", "monday", "target", "--yes"]);
    assert!(refused.code == 69 && refused.stderr.contains(&format!("{slot}-00000001")), "{refused:#?}");
    let verdict = world.run(&["verify"]);
    assert_eq!(verdict.code, 69, "{verdict:#?}");
    for gone in [&roster, &grant] {
        assert!(format!("{verdict:?}").contains(gone.file_name().unwrap().to_str().unwrap()), "{verdict:#?}");
    }
    world.ok(&["verify", "--repair"]);
    assert_eq!(fs::read(&roster).unwrap(), sound);
    world.ok(&["verify"]);
    let deployed = with_other(&["deploy", "monday", "target", "--yes"]);
    assert_eq!(deployed.code, 0, "{deployed:#?}");
}
