//! The swarm: creators, a deployer, a deleter and a collector on one simulated disk, interleaved by a seed,
//! with faults, killed processes and losses of power; beside it a model that knows what was acknowledged, and
//! a checker.
//!
//! What must hold, whatever happens: an acknowledged snapshot restores byte for byte until its removal is
//! asked for; one that is not acknowledged is whole or absent; a fault gives an error and never other bytes;
//! after it the next try succeeds; and when all snapshots are removed, collection returns all space.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use copal_store::backend::{Backend, ObjectKind};
use copal_store::check::{check_pack, packs};
use copal_store::collect::{CollectOptions, CollectReport, collect, merge_index};
use copal_store::config::{CipherSuite, Parameters};
use copal_store::keys::{Credential, StretchCost};
use copal_store::local::LocalBackend;
use copal_store::mutants::Mutant;
use copal_store::repository::{InitOptions, Repository, RootName};
use copal_store::session::Session;
use copal_store::{Error, Result, SnapshotId};

use crate::disk::Disk;
use crate::process::{Process, Troubles};
use crate::schedule::{Schedule, Turn};
use crate::seeded::{Choices, SeededEntropy};
use crate::stale::StaleBackend;
use crate::tree::{self, Content, Toys};

/// Where the repository lies on the simulated disk.
pub const PLACE: &str = "/repository";

/// What a world goes through.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Times that all processes start; between them power may be lost.
    pub rounds: u64,
    /// Operations of each actor in a round.
    pub operations: u64,
    /// Faults of the disk.
    pub troubles: Troubles,
    /// Whether processes are killed.
    pub kills: bool,
    /// Whether power is lost.
    pub power: bool,
    /// Whether listings show what is gone, and miss packs and index fragments that are new.
    pub stale: bool,
    /// Whether session objects vanish while their processes live, as where locks do not carry to the machine
    /// of a collector.
    pub vanishing: bool,
    /// A fault that is built into the store, to see whether it is noticed.
    pub mutant: Option<Mutant>,
}

impl Plan {
    /// A seed's own mixture of misfortunes.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut choices = Choices::new(seed ^ 0x5eed);
        let mut often = |most: u64| if choices.one_in(2) { 0 } else { 60 + choices.below(most) };
        let faulty = seed % 2 == 1;
        let troubles = if faulty {
            Troubles {
                eio: often(2000),
                no_space: often(2000),
                lost_response: often(2000),
                short: often(100),
                bit_flip: often(2000),
                slow: often(600),
            }
        } else {
            Troubles { slow: 300, ..Troubles::default() }
        };
        Self {
            seed,
            rounds: 3,
            operations: 7,
            troubles,
            kills: seed % 4 >= 2,
            power: seed.is_multiple_of(3),
            stale: seed.is_multiple_of(5),
            vanishing: seed % 7 >= 4,
            mutant: None,
        }
    }
}

/// What a world saw: figures for the record, equal for equal seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Snapshots acknowledged.
    pub acknowledged: u64,
    /// Restores compared.
    pub restored: u64,
    /// Chunks stored as deltas in them.
    pub deltas: u64,
    /// Packs swept beside running creates.
    pub swept: u64,
    /// Faults that befell a process.
    pub faults: u64,
    /// Processes killed, power losses included.
    pub deaths: u64,
    /// Turns of the schedule.
    pub turns: u64,
}

#[derive(Default)]
struct Model {
    attempted: BTreeMap<SnapshotId, Arc<Content>>,
    acknowledged: BTreeSet<RootName>,
    /// Asked to be removed: it may be there or not.
    removing: BTreeSet<RootName>,
    seen: Seen,
}

struct World {
    plan: Plan,
    disk: Disk,
    model: Mutex<Model>,
    round: u64,
}

/// What opens the repositories of the test world: not stretched, so that a flipped bit in a cost takes no
/// hour.
#[must_use]
pub fn credential() -> Credential {
    Credential::KeyFile(zeroize::Zeroizing::new([42; 32]))
}

/// How the repositories of the test world are made.
#[must_use]
pub fn options() -> InitOptions {
    InitOptions {
        parameters: Parameters { pack_bytes_max: 1 << 20, ..Parameters::default() },
        suite: CipherSuite::Aes256Gcm,
        stretch: StretchCost { memory_kib: 8, passes: 1, lanes: 1 },
        slot_label: "of the test world".into(),
        created_seconds: 0,
    }
}

/// Makes the repository, as one process.
pub fn init(process: &Process, seed: u64) -> Result<Repository> {
    let backend = Arc::new(LocalBackend::on(Path::new(PLACE), process.files()));
    Repository::init(backend, Arc::new(SeededEntropy::new(seed)), &credential(), &options())
}

/// Opens the repository, as one process.
pub fn open(process: &Process, seed: u64) -> Result<Repository> {
    open_on(Arc::new(LocalBackend::on(Path::new(PLACE), process.files())), seed)
}

fn open_on(backend: Arc<dyn Backend>, seed: u64) -> Result<Repository> {
    Repository::open(backend, Arc::new(SeededEntropy::new(seed)), &credential())
}

/// Runs a world; panics, with the seed, when something does not hold.
pub fn run(plan: Plan) -> Seen {
    let seed = plan.seed;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_inner(plan)));
    match outcome {
        Ok(seen) => seen,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "an actor's panic, printed above".into());
            panic!("SEED {seed}: {text}\nagain: cargo xtask sim --seed {seed}")
        }
    }
}

fn run_inner(plan: Plan) -> Seen {
    let disk = Disk::new();
    init(&Process::new(&disk), plan.seed).expect("a repository can be made");
    let mut world = World { disk, model: Mutex::default(), round: 0, plan };
    for round in 0..world.plan.rounds {
        world.round = round;
        let powered = world.play();
        if !powered {
            let mut choices = Choices::new(world.plan.seed.wrapping_add(round * 977 + 5));
            world.disk.lose_power(&mut choices);
        }
        world.check(&format!("after round {round}"));
    }
    world.end()
}

/// Numbers of the actors.
const CREATORS: usize = 2;
const DEPLOYER: usize = 2;
const DELETER: usize = 3;
const COLLECTOR: usize = 4;
const ACTORS: usize = 5;

impl World {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seed(&self, what: u64) -> u64 {
        self.plan.seed.wrapping_mul(1_000_003).wrapping_add(self.round * 1009 + what)
    }

    /// One round; `false` when power is lost in it.
    fn play(&self) -> bool {
        let schedule = Schedule::new(self.seed(1), ACTORS + 1);
        let processes: Vec<Mutex<Process>> = (0..ACTORS).map(|_| Mutex::new(Process::new(&self.disk))).collect();
        let loses_power = self.plan.power && self.round % 2 == 1;
        let off = std::sync::atomic::AtomicBool::new(false);
        let mut actors: Vec<Box<dyn FnOnce(Turn) + Send + '_>> = Vec::new();
        for (actor, slot) in processes.iter().enumerate() {
            let off = &off;
            actors.push(Box::new(move |turn| self.act(actor, slot, &turn, off)));
        }
        let (processes, off) = (&processes, &off);
        actors.push(Box::new(move |turn| self.fate(processes, &turn, loses_power, off)));
        schedule.run(actors);
        self.model().seen.turns += schedule.turns();
        !loses_power
    }

    /// Kills processes now and then, and may switch the power off.
    fn fate(&self, processes: &[Mutex<Process>], turn: &Turn, loses_power: bool, off: &std::sync::atomic::AtomicBool) {
        let mut choices = Choices::new(self.seed(2));
        let kill = |process: &Mutex<Process>| {
            process.lock().unwrap_or_else(PoisonError::into_inner).kill();
            self.model().seen.deaths += 1;
        };
        if self.plan.kills {
            for _ in 0..1 + choices.below(4) {
                (0..choices.below(150)).for_each(|_| turn.wait());
                kill(&processes[choices.below(ACTORS as u64) as usize]);
            }
        }
        if loses_power {
            (0..choices.below(600)).for_each(|_| turn.wait());
            off.store(true, std::sync::atomic::Ordering::Relaxed);
            processes.iter().for_each(kill);
        }
    }

    /// One actor's life: killed, it starts again as another process, unless the power is off.
    fn act(&self, actor: usize, slot: &Mutex<Process>, turn: &Turn, off: &std::sync::atomic::AtomicBool) {
        let mut choices = Choices::new(self.seed(100 + actor as u64));
        let mut life = 0;
        let mut left = self.plan.operations;
        while left > 0 && !off.load(std::sync::atomic::Ordering::Relaxed) {
            life += 1;
            let process = Process::new(&self.disk);
            process.wait_for(turn.clone());
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = process.clone();
            let seed = self.seed(10_000 + actor as u64 * 100 + life);
            process.trouble(self.plan.troubles.clone(), seed);
            let mut backend: Arc<dyn Backend> = Arc::new(LocalBackend::on(Path::new(PLACE), process.files()));
            if self.plan.stale {
                backend = Arc::new(StaleBackend::new(backend, seed));
            }
            let repository = open_on(backend, seed);
            match repository {
                Ok(mut repository) => {
                    repository.mutate(self.plan.mutant);
                    while left > 0 && !process.is_dead() {
                        left -= 1;
                        self.operate(actor, &repository, &process, &mut choices, left);
                    }
                }
                Err(error) => {
                    self.tolerate(&process, "opening the repository", &error);
                    left -= 1;
                }
            }
            self.model().seen.faults += process.faults();
        }
    }

    fn operate(&self, actor: usize, repository: &Repository, process: &Process, choices: &mut Choices, left: u64) {
        match actor {
            0..CREATORS => self.create(repository, process, choices, &format!("{}-{}", self.round, left)),
            DEPLOYER => self.deploy(repository, process, choices),
            DELETER => self.delete(repository, process, choices),
            COLLECTOR if self.plan.vanishing && choices.one_in(2) => {
                self.remove_a_session(repository, process, choices)
            }
            COLLECTOR => match collect(repository, &Toys, CollectOptions::default()) {
                Ok(report) => self.model().seen.swept += report.packs_removed,
                // A creator merges the index.
                Err(Error::Busy { .. }) => {}
                Err(error) => self.tolerate(process, "collection", &error),
            },
            _ => unreachable!("there are {ACTORS} actors"),
        }
    }

    /// An operation may fail when its process died or a fault befell it, and in a world of stale listings.
    fn tolerate(&self, process: &Process, what: &str, error: &Error) {
        let excused = process.is_dead() || process.faults() > 0 || (self.plan.stale && is_stale(error));
        assert!(excused, "{what} fails without a reason: {error}");
    }

    fn create(&self, repository: &Repository, process: &Process, choices: &mut Choices, name: &str) {
        // Both creators draw from the same names.
        let name = format!("{name}-{}", choices.below(2));
        let outcome = (|| -> Result<()> {
            let session = Session::begin(repository)?;
            let content = tree::invent(choices);
            let payload = tree::store(&session, &content, choices)?;
            if choices.one_in(8) {
                // Gives up.
                return session.checkpoint();
            }
            let root = tree::new_root(repository, &name)?;
            self.model().attempted.insert(root.snapshot, Arc::new(content));
            tree::commit(&session, root, &payload)?;
            let mut model = self.model();
            model.acknowledged.insert(root);
            model.seen.acknowledged += 1;
            model.seen.deltas += session.counters().deltas_new;
            drop(model);
            session.end()
        })();
        match outcome {
            Ok(()) | Err(Error::NameTaken) => {}
            Err(Error::SessionLost) if self.plan.vanishing => {}
            Err(error) => self.tolerate(process, "a create", &error),
        }
        if choices.one_in(2) {
            match merge_index(repository) {
                Ok(_) | Err(Error::Busy { .. }) => {}
                Err(error) => self.tolerate(process, "merging the index", &error),
            }
        }
    }

    fn deploy(&self, repository: &Repository, process: &Process, choices: &mut Choices) {
        let wanted: Vec<RootName> = {
            let model = self.model();
            model.acknowledged.difference(&model.removing).copied().collect()
        };
        if wanted.is_empty() {
            return;
        }
        let root = wanted[choices.below(wanted.len() as u64) as usize];
        let outcome = Session::begin(repository).and_then(|session| {
            let content = tree::restore(&session, &root)?;
            session.end()?;
            Ok(content)
        });
        match outcome {
            Ok(content) => self.compare(&root, &content, "a deploy"),
            Err(_) if self.model().removing.contains(&root) => {}
            Err(error) => self.tolerate(process, &format!("a deploy of {}", root.snapshot), &error),
        }
    }

    /// As a hand would, or a collector that no lock reaches.
    fn remove_a_session(&self, repository: &Repository, process: &Process, choices: &mut Choices) {
        let removed = repository.backend().names(ObjectKind::Session).and_then(|mut sessions| {
            sessions.sort_unstable();
            match sessions.len() as u64 {
                0 => Ok(()),
                count => repository.backend().delete(&[sessions.swap_remove(choices.below(count) as usize)]),
            }
        });
        if let Err(error) = removed {
            self.tolerate(process, "removing a session", &error);
        }
    }

    fn compare(&self, root: &RootName, content: &Content, what: &str) {
        let mut model = self.model();
        model.seen.restored += 1;
        let meant = model.attempted.get(&root.snapshot).unwrap_or_else(|| panic!("{what}: nobody took {root:?}"));
        assert!(**meant == *content, "{what}: the snapshot {} has other bytes", root.snapshot);
    }

    fn delete(&self, repository: &Repository, process: &Process, choices: &mut Choices) {
        let root = {
            let mut model = self.model();
            let wanted: Vec<RootName> = model.acknowledged.difference(&model.removing).copied().collect();
            if wanted.is_empty() {
                return;
            }
            let root = wanted[choices.below(wanted.len() as u64) as usize];
            model.removing.insert(root);
            root
        };
        if let Err(error) = repository.delete_roots(&[root]) {
            self.tolerate(process, "a removal", &error);
        }
    }

    /// Nothing runs: what must hold at rest.
    fn check(&self, when: &str) {
        let process = Process::new(&self.disk);
        let mut repository = open(&process, self.seed(3)).unwrap_or_else(|error| panic!("{when}: {error}"));
        repository.mutate(self.plan.mutant);
        self.restore_all(&repository, when);
        let mut choices = Choices::new(self.seed(4));
        // The next try succeeds.
        let session = Session::begin(&repository).expect("a session begins");
        let content = tree::invent(&mut choices);
        let payload = tree::store(&session, &content, &mut choices).unwrap_or_else(|error| panic!("{when}: {error}"));
        let root = tree::new_root(&repository, &format!("check {}", self.round)).expect("a root has a name");
        self.model().attempted.insert(root.snapshot, Arc::new(content));
        tree::commit(&session, root, &payload).unwrap_or_else(|error| panic!("{when}: the next create: {error}"));
        self.model().acknowledged.insert(root);
        session.end().expect("a session ends");
        for _ in 0..2 {
            self.collect(&repository, when);
            self.restore_all(&repository, &format!("{when} and a collection"));
        }
        for kind in [ObjectKind::Condemned, ObjectKind::Session, ObjectKind::Lease] {
            let mut left = repository.backend().names(kind).expect("a kind can be listed");
            // Which fragments were replaced is remembered for ever.
            left.retain(|name| !name.name().ends_with("-retired"));
            assert!(left.is_empty(), "{when}: collection left {left:?}");
        }
        let session = Session::begin(&repository).expect("a session begins");
        for pack in packs(&repository).expect("packs can be listed") {
            let report = check_pack(&session, pack).unwrap_or_else(|error| panic!("{when}: {error}"));
            assert!(report.damaged.is_empty(), "{when}: {:?}", report.damaged);
        }
    }

    fn collect(&self, repository: &Repository, when: &str) -> CollectReport {
        collect(repository, &Toys, CollectOptions::default()).unwrap_or_else(|error| panic!("{when}: {error}"))
    }

    fn restore_all(&self, repository: &Repository, when: &str) {
        let session = Session::begin(repository).expect("a session begins");
        let listed: BTreeSet<RootName> = session.roots().iter().copied().collect();
        {
            let model = self.model();
            for root in model.acknowledged.difference(&model.removing) {
                assert!(listed.contains(root), "{when}: the acknowledged snapshot {} is gone", root.snapshot);
            }
            let mut tags = BTreeSet::new();
            for root in model.acknowledged.difference(&model.removing) {
                assert!(tags.insert(root.tag), "{when}: two acknowledged snapshots have one name");
            }
        }
        for root in &listed {
            let content = tree::restore(&session, root)
                .unwrap_or_else(|error| panic!("{when}: the snapshot {}: {error}", root.snapshot));
            self.compare(root, &content, when);
        }
        session.end().expect("a session ends");
    }

    /// Removes everything: all space comes back.
    fn end(&self) -> Seen {
        let repository = open(&Process::new(&self.disk), self.seed(6)).expect("the repository opens");
        let roots = repository.roots().expect("roots can be listed");
        repository.delete_roots(&roots).expect("roots can be removed");
        self.collect(&repository, "at the end");
        for kind in [ObjectKind::Pack, ObjectKind::Index, ObjectKind::Label] {
            let left = repository.backend().list(kind).expect("a kind can be listed");
            assert!(left.is_empty(), "at the end: collection left {left:?}");
        }
        self.model().seen
    }
}

/// What an outdated listing may lead to: something that was listed is gone, or what is there was not listed.
fn is_stale(error: &Error) -> bool {
    matches!(error, Error::Missing { .. } | Error::Busy { .. })
}
