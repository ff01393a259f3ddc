//! Meetings: creators, a deleter, a deployer and a collector take turns by whole steps (begin, store, commit,
//! delete, collect, read), and any step may be interrupted once, before any of its operations on the disk, by
//! some steps of others.
//!
//! The swarm of [`crate::world`] switches at every operation, so an order in which one process stands still
//! while others do much is rare in it; here it is the rule. There are no faults of the disk: every error is a
//! failure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use copal_store::collect::{CollectOptions, collect, merge_index};
use copal_store::mutants::Mutant;
use copal_store::repository::{Repository, RootName};
use copal_store::session::Session;
use copal_store::{Error, Result, SnapshotId};

use crate::disk::Disk;
use crate::process::{Moment, Process};
use crate::seeded::Choices;
use crate::tree::{self, Content, Toys};
use crate::world::{PLACE, init, open};

/// Steps of one meeting.
const STEPS: u64 = 24;
/// Actors that act within one step of another, and their steps in a row.
const INTERRUPTING_MAX: u64 = 3;
const IN_A_ROW_MAX: u64 = 3;
/// Operations of a step before which others may act: from eight on; a collection has some hundred.
const OPERATIONS_DOUBLED_MAX: u64 = 7;
/// Folders whose order matters, and how often a step comes to one of them.
const FOLDERS: &[&str] = &["sessions", "condemned", "snapshots", "index", "packs", "leases"];
const NAMES_MAX: u64 = 6;
/// Names and contents of snapshots: few enough that two creators meet at one.
const NAMES: u64 = 20;
const CONTENTS: u64 = 10;
const CREATORS: usize = 3;
/// Beside the creators: a collector, and one that deletes and reads.
const ACTORS: usize = CREATORS + 2;
const COLLECTOR: usize = CREATORS;

/// What a meeting saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Snapshots acknowledged.
    pub acknowledged: u64,
    /// Restores compared.
    pub restored: u64,
    /// Packs swept.
    pub swept: u64,
    /// Steps that others interrupted.
    pub interrupted: u64,
}

/// A create between two of its steps.
enum Create {
    Idle,
    Begun(Session),
    Stored(Session, RootName, Vec<u8>),
}

struct Actor {
    process: Process,
    repository: Repository,
    create: Create,
    lives: u64,
}

#[derive(Default)]
struct Model {
    attempted: BTreeMap<SnapshotId, Content>,
    acknowledged: BTreeSet<RootName>,
    removing: BTreeSet<RootName>,
    met: Met,
}

struct Meeting {
    seed: u64,
    mutant: Option<Mutant>,
    disk: Disk,
    actors: Vec<Mutex<Actor>>,
    model: Mutex<Model>,
}

/// Runs a meeting; panics, with the seed, when something does not hold.
pub fn run(seed: u64, mutant: Option<Mutant>) -> Met {
    let disk = Disk::new();
    init(&Process::new(&disk), seed).expect("a repository can be made");
    let meeting = Arc::new(Meeting {
        seed,
        mutant,
        actors: (0..ACTORS).map(|actor| Mutex::new(Actor::new(&disk, entropy(seed, actor as u64), mutant))).collect(),
        disk,
        model: Mutex::default(),
    });
    let mut choices = Choices::new(seed);
    for _ in 0..STEPS {
        let actor = choices.below(ACTORS as u64) as usize;
        let interruption = (!choices.one_in(4)).then(|| (moment(&mut choices), choices.below(u64::MAX)));
        Meeting::step(&meeting, actor, &mut choices, interruption);
    }
    // Who is in the midst of a create comes to its end.
    for actor in 0..CREATORS {
        for _ in 0..2 {
            let under_way = !matches!(lock(&meeting.actors[actor]).create, Create::Idle);
            if under_way {
                Meeting::step(&meeting, actor, &mut choices, None);
            }
        }
    }
    meeting.check("at the end");
    for _ in 0..2 {
        Meeting::step(&meeting, COLLECTOR, &mut choices, None);
        meeting.check("after a collection");
    }
    lock(&meeting.model).met
}

impl Actor {
    fn new(disk: &Disk, seed: u64, mutant: Option<Mutant>) -> Self {
        let process = Process::new(disk);
        let mut repository = open(&process, seed).expect("the repository opens");
        repository.mutate(mutant);
        Self { process, repository, create: Create::Idle, lives: 1 }
    }
}

impl Meeting {
    /// One step of one actor; of one that is being interrupted none.
    fn step(meeting: &Arc<Self>, number: usize, choices: &mut Choices, interruption: Option<(Moment, u64)>) {
        let Ok(mut actor) = meeting.actors[number].try_lock() else { return };
        if let Some((moment, seed)) = interruption {
            let others = Arc::clone(meeting);
            actor.process.interrupt(
                moment,
                Box::new(move || {
                    lock(&others.model).met.interrupted += 1;
                    let mut choices = Choices::new(seed);
                    for _ in 0..1 + choices.below(INTERRUPTING_MAX) {
                        let other = choices.below(ACTORS as u64) as usize;
                        for _ in 0..1 + choices.below(IN_A_ROW_MAX) {
                            Self::step(&others, other, &mut choices, None);
                        }
                    }
                }),
            );
        }
        let done = match number {
            0..CREATORS => meeting.create(number, &mut actor, choices),
            COLLECTOR => meeting.collect(&actor, choices),
            _ => meeting.delete_or_read(&actor, choices),
        };
        actor.process.go_on();
        if let Err(error) = done {
            panic!("SEED {}: actor {number}: {error}", meeting.seed);
        }
    }

    fn create(&self, number: usize, actor: &mut Actor, choices: &mut Choices) -> Result<()> {
        if choices.one_in(16) {
            // Dies; what it held is free.
            actor.process.kill();
            let seed = entropy(self.seed, number as u64 + 100 * actor.lives);
            *actor = Actor { lives: actor.lives + 1, ..Actor::new(&self.disk, seed, self.mutant) };
            return Ok(());
        }
        actor.create = match std::mem::replace(&mut actor.create, Create::Idle) {
            Create::Idle => Create::Begun(Session::begin(&actor.repository)?),
            Create::Begun(session) => {
                // One of few, so that what was deleted is often taken again.
                let content = tree::invent(&mut Choices::new(choices.below(CONTENTS)));
                let payload = tree::store(&session, &content, choices)?;
                let root = tree::new_root(&actor.repository, &format!("{}", choices.below(NAMES)))?;
                lock(&self.model).attempted.insert(root.snapshot, content);
                Create::Stored(session, root, payload)
            }
            Create::Stored(session, root, payload) => {
                match tree::commit(&session, root, &payload) {
                    Err(Error::NameTaken) => {}
                    committed => {
                        committed?;
                        let mut model = lock(&self.model);
                        model.acknowledged.insert(root);
                        model.met.acknowledged += 1;
                    }
                }
                session.end()?;
                Create::Idle
            }
        };
        Ok(())
    }

    fn collect(&self, actor: &Actor, choices: &mut Choices) -> Result<()> {
        if choices.one_in(4) {
            return merge_index(&actor.repository).map(drop);
        }
        let report = collect(&actor.repository, &Toys, CollectOptions::default())?;
        lock(&self.model).met.swept += report.packs_removed;
        Ok(())
    }

    fn delete_or_read(&self, actor: &Actor, choices: &mut Choices) -> Result<()> {
        let wanted: Vec<RootName> = {
            let model = lock(&self.model);
            model.acknowledged.difference(&model.removing).copied().collect()
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let root = wanted[choices.below(wanted.len() as u64) as usize];
        if choices.one_in(3) {
            let session = Session::begin(&actor.repository)?;
            self.compare(&root, &tree::restore(&session, &root)?);
            return session.end();
        }
        // Often many, so that whole packs die.
        let roots = if choices.one_in(2) { wanted } else { vec![root] };
        lock(&self.model).removing.extend(&roots);
        actor.repository.delete_roots(&roots)
    }

    fn compare(&self, root: &RootName, content: &Content) {
        let mut model = lock(&self.model);
        model.met.restored += 1;
        assert!(
            model.attempted.get(&root.snapshot) == Some(content),
            "SEED {}: the snapshot {} has other bytes",
            self.seed,
            root.snapshot
        );
    }

    /// Every snapshot that is wanted is there, once by its name, and whole; so is every other that is listed.
    fn check(&self, when: &str) {
        let seed = self.seed;
        let repository = open(&Process::new(&self.disk), entropy(seed, 50)).expect("the repository opens");
        let session = Session::begin(&repository).expect("a session begins");
        let mut tags = BTreeSet::new();
        {
            let model = lock(&self.model);
            for root in model.acknowledged.difference(&model.removing) {
                assert!(session.roots().contains(root), "SEED {seed}: {when}: {} is gone", root.snapshot);
                assert!(tags.insert(root.tag), "SEED {seed}: {when}: two snapshots have one name");
            }
        }
        for root in session.roots() {
            let content = tree::restore(&session, root)
                .unwrap_or_else(|error| panic!("SEED {seed}: {when}: the snapshot {}: {error}", root.snapshot));
            self.compare(root, &content);
        }
        session.end().expect("a session ends");
    }
}

/// At a folder that matters, or anywhere.
fn moment(choices: &mut Choices) -> Moment {
    if choices.one_in(2) {
        // As often within the first operations of a step as in the long tail of a collection.
        let operations = 8 << choices.below(OPERATIONS_DOUBLED_MAX);
        return Moment::Operation(choices.below(operations));
    }
    let folder = FOLDERS[choices.below(FOLDERS.len() as u64) as usize];
    Moment::Name(Path::new(PLACE).join(folder), choices.below(NAMES_MAX))
}

/// Every process draws ids of its own.
fn entropy(seed: u64, process: u64) -> u64 {
    seed.wrapping_mul(1_000_003).wrapping_add(process + 1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
