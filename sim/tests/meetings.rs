//! Goal: nothing is lost where one process stands still in the midst of a step while others do much.
//! Method: *scripts*, each a few steps of which one is interrupted by the others, once before each of its
//! operations on the disk; and *meetings* by seed, see `copal_sim::meeting`.
//!
//! *Canaries*: with the fault built into the store that a script is about (`copal_store::mutants`), it must
//! fail at some operation.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex, mpsc};
use std::thread::spawn;

use copal_sim::tree::{self, Content, Toys};
use copal_sim::world::{init, open};
use copal_sim::{Choices, Disk, Moment, Process, meeting};
use copal_store::collect::{CollectOptions, collect};
use copal_store::mutants::Mutant;
use copal_store::repository::{Repository, RootName};
use copal_store::session::Session;
use copal_store::{Error, SnapshotId};

type Held<T> = Result<T, String>;

/// A disk with a repository, and what was acknowledged.
struct Scene {
    disk: Disk,
    mutant: Option<Mutant>,
    processes: Mutex<u64>,
    wanted: Mutex<Vec<(RootName, Content)>>,
}

/// A create that has come to its last step.
struct Stored {
    session: Session,
    root: RootName,
    content: Content,
    payload: Vec<u8>,
}

fn told(error: Error) -> String {
    error.to_string()
}

impl Scene {
    fn new(mutant: Option<Mutant>) -> Arc<Self> {
        let disk = Disk::new();
        init(&Process::new(&disk), 1).unwrap();
        Arc::new(Self { disk, mutant, processes: Mutex::new(1), wanted: Mutex::default() })
    }

    /// Another process.
    fn process(&self) -> (Process, Repository) {
        let mut processes = self.processes.lock().unwrap();
        *processes += 1;
        let process = Process::new(&self.disk);
        let mut repository = open(&process, *processes * 1009).unwrap();
        repository.mutate(self.mutant);
        (process, repository)
    }

    fn begin(&self) -> Held<Session> {
        Session::begin(&self.process().1).map_err(told)
    }

    fn store(session: Session, name: &str, content: &Content, seed: u64) -> Held<Stored> {
        let payload = tree::store(&session, content, &mut Choices::new(seed)).map_err(told)?;
        let root = tree::new_root(session.repository(), name).map_err(told)?;
        Ok(Stored { session, root, content: content.clone(), payload })
    }

    fn commit(&self, stored: Stored) -> Held<RootName> {
        match tree::commit(&stored.session, stored.root, &stored.payload) {
            Err(Error::NameTaken) => {}
            committed => {
                committed.map_err(told)?;
                self.wanted.lock().unwrap().push((stored.root, stored.content));
            }
        }
        stored.session.end().map_err(told)?;
        Ok(stored.root)
    }

    fn create(&self, name: &str, content: &Content) -> Held<RootName> {
        self.commit(Self::store(self.begin()?, name, content, 3)?)
    }

    fn delete(&self, root: RootName) -> Held<()> {
        self.wanted.lock().unwrap().retain(|(wanted, _)| *wanted != root);
        self.process().1.delete_roots(&[root]).map_err(told)
    }

    fn collect(&self) -> Held<()> {
        collect(&self.process().1, &Toys, CollectOptions::default()).map(drop).map_err(told)
    }

    /// Every snapshot that is wanted is whole, and none has another's name.
    fn check(&self) -> Held<()> {
        let session = self.begin()?;
        let wanted = self.wanted.lock().unwrap();
        for (number, (root, content)) in wanted.iter().enumerate() {
            if wanted[..number].iter().any(|(other, _)| other.tag == root.tag) {
                return Err(format!("the name of {} is another's too", root.snapshot));
            }
            if tree::restore(&session, root).map_err(|error| format!("{}: {error}", root.snapshot))? != *content {
                return Err(format!("{} has other bytes", root.snapshot));
            }
        }
        session.end().map_err(told)
    }
}

fn content(seed: u64) -> Content {
    tree::invent(&mut Choices::new(seed))
}

/// Runs `act` with `others` before its operation `number`; `false` when it has fewer.
fn interrupted(
    process: &Process,
    number: u64,
    others: impl FnOnce() -> Held<()> + Send + 'static,
    act: impl FnOnce() -> Held<()>,
) -> Held<bool> {
    let outcome: Arc<Mutex<Option<Held<()>>>> = Arc::default();
    let told = Arc::clone(&outcome);
    process.interrupt(Moment::Operation(number), Box::new(move || *told.lock().unwrap() = Some(others())));
    let acted = act();
    process.go_on();
    let others = outcome.lock().unwrap().take();
    acted?;
    others.transpose().map(|happened| happened.is_some())
}

/// A script: what happens when its step is interrupted before this operation, in a store with this fault.
type Script = fn(u64, Option<Mutant>) -> Held<bool>;

/// The operations of a script's step; the error says at which one it fails.
fn at_every_operation(script: Script, mutant: Option<Mutant>) -> Held<u64> {
    for number in 0.. {
        match script(number, mutant) {
            Ok(true) => {}
            Ok(false) => return Ok(number),
            Err(what) => return Err(format!("before operation {number}: {what}")),
        }
    }
    unreachable!("a step ends")
}

fn check_script(script: Script, operations_min: u64, mutants: &[Mutant]) {
    let operations = at_every_operation(script, None).unwrap();
    assert!(operations >= operations_min, "the step has {operations} operations");
    for mutant in mutants {
        let what = at_every_operation(script, Some(*mutant)).expect_err(&format!("nobody notices {mutant:?}"));
        println!("{mutant:?}: {what}");
    }
}

/// Dead chunks are taken again by a create that begins within the collection which condemns them, and ends
/// after it.
fn a_create_begins_within_a_collection(number: u64, mutant: Option<Mutant>) -> Held<bool> {
    let scene = Scene::new(mutant);
    scene.create("kept", &content(7))?;
    let old = scene.create("old", &content(5))?;
    scene.delete(old)?;
    let (process, repository) = scene.process();
    let begun: Arc<Mutex<Option<Stored>>> = Arc::default();
    let (others, stored) = (Arc::clone(&scene), Arc::clone(&begun));
    let happened = interrupted(
        &process,
        number,
        move || {
            *stored.lock().unwrap() = Some(Scene::store(others.begin()?, "new", &content(5), 3)?);
            others.check()
        },
        || collect(&repository, &Toys, CollectOptions::default()).map(drop).map_err(told),
    )?;
    let stored = begun.lock().unwrap().take();
    if let Some(stored) = stored {
        scene.commit(stored)?;
    }
    scene.check()?;
    scene.collect()?;
    scene.check()?;
    Ok(happened)
}

#[test]
fn a_create_that_begins_within_a_collection_loses_nothing() {
    check_script(a_create_begins_within_a_collection, 100, &[Mutant::ListsSessionsFirst, Mutant::WaitsForNobody]);
}

/// The same, begun before: it lives when the sentence is passed and ends within the collection, or within the
/// next.
fn a_create_ends_within_a_collection(number: u64, mutant: Option<Mutant>) -> Held<bool> {
    let scene = Scene::new(mutant);
    scene.create("kept", &content(7))?;
    let old = scene.create("old", &content(5))?;
    let stored = Scene::store(scene.begin()?, "new", &content(5), 3)?;
    scene.delete(old)?;
    let (process, repository) = scene.process();
    let others = Arc::clone(&scene);
    let happened = interrupted(
        &process,
        number,
        move || others.commit(stored).map(drop),
        || {
            let run = || collect(&repository, &Toys, CollectOptions::default()).map(drop).map_err(told);
            run().and_then(|()| run())
        },
    )?;
    scene.check()?;
    scene.collect()?;
    scene.check()?;
    Ok(happened)
}

#[test]
fn a_create_that_ends_within_a_collection_loses_nothing() {
    let mutants = [Mutant::PardonsNothing, Mutant::TakesTheLivingForDead, Mutant::WaitsForNobody];
    check_script(a_create_ends_within_a_collection, 100, &mutants);
}

/// A collection within the beginning of a session, whose sentence waits for another one and is carried out
/// before the first ends.
fn a_collection_within_a_beginning(number: u64, mutant: Option<Mutant>) -> Held<bool> {
    let scene = Scene::new(mutant);
    let old = scene.create("old", &content(5))?;
    let witness = scene.begin()?;
    scene.delete(old)?;
    let (process, repository) = scene.process();
    let others = Arc::clone(&scene);
    let mut session = None;
    let happened = interrupted(
        &process,
        number,
        move || others.collect(),
        || Session::begin(&repository).map(|begun| session = Some(begun)).map_err(told),
    )?;
    let stored = Scene::store(session.unwrap(), "new", &content(5), 3)?;
    witness.end().map_err(told)?;
    scene.collect()?;
    scene.commit(stored)?;
    scene.check()?;
    scene.collect()?;
    scene.check()?;
    Ok(happened)
}

#[test]
fn a_collection_within_a_beginning_loses_nothing() {
    check_script(a_collection_within_a_beginning, 5, &[Mutant::ReusesCondemnedChunks]);
}

/// A collection that begins within the beginning of a session, and stands still before one in four of its
/// own operations, until that session has looked up what it reuses.
fn a_collection_around_a_beginning(number: u64, mutant: Option<Mutant>) -> Held<bool> {
    // Each of its steps takes several.
    for stop in (0..).step_by(4) {
        let scene = Scene::new(mutant);
        let old = scene.create("old", &content(5))?;
        scene.delete(old)?;
        let (collector, collecting) = scene.process();
        let (reached, stands) = mpsc::channel();
        let (go_on, told_to) = mpsc::channel::<()>();
        let standing = reached.clone();
        let stand = move || {
            let _ = standing.send(true);
            // When the other has failed, nobody says so.
            let _ = told_to.recv();
        };
        collector.interrupt(Moment::Operation(stop), Box::new(stand));
        let (process, repository) = scene.process();
        let (begin, begun) = mpsc::channel();
        let mut session = None;
        let happened = interrupted(
            &process,
            number,
            move || {
                let collection = spawn(move || {
                    let collected = collect(&collecting, &Toys, CollectOptions::default());
                    let _ = reached.send(false);
                    collected.map(drop).map_err(told)
                });
                let stood = stands.recv().map_err(|error| error.to_string())?;
                begin.send((collection, stood)).map_err(|error| error.to_string())
            },
            || Session::begin(&repository).map(|begun| session = Some(begun)).map_err(told),
        )?;
        if !happened {
            return Ok(false);
        }
        let stored = Scene::store(session.unwrap(), "new", &content(5), 3)?;
        let _ = go_on.send(());
        let (collection, stood) = begun.recv().map_err(|error| error.to_string())?;
        collection.join().map_err(|_| "the collection panicked".to_owned())??;
        scene.commit(stored)?;
        scene.check()?;
        scene.collect()?;
        scene.check()?;
        if !stood {
            break;
        }
    }
    Ok(true)
}

#[test]
fn a_collection_around_a_beginning_loses_nothing() {
    check_script(a_collection_around_a_beginning, 5, &[Mutant::BeginsUnregistered]);
}

/// A parent that reuses condemned chunks, since it was begun before they were; it is deleted and they are
/// swept while another create builds on it.
fn a_parent_goes_while_a_create_builds_on_it(number: u64, mutant: Option<Mutant>) -> Held<bool> {
    let scene = Scene::new(mutant);
    let old = scene.create("old", &content(5))?;
    let witness = Scene::store(scene.begin()?, "parent", &content(5), 3)?;
    scene.delete(old)?;
    scene.collect()?;
    let parent = scene.commit(witness)?;
    let (process, repository) = scene.process();
    let session = Session::begin(&repository).map_err(told)?;
    let others = Arc::clone(&scene);
    let mut stored = None;
    let happened = interrupted(
        &process,
        number,
        move || others.delete(parent).and_then(|()| others.collect()),
        || Scene::store(session, "new", &content(5), 3).map(|done| stored = Some(done)),
    )?;
    scene.commit(stored.unwrap())?;
    scene.check()?;
    scene.collect()?;
    scene.check()?;
    Ok(happened)
}

#[test]
fn a_parent_that_goes_while_a_create_builds_on_it_is_not_missed() {
    check_script(a_parent_goes_while_a_create_builds_on_it, 10, &[Mutant::ReusesCondemnedChunks]);
}

/// Two creates come to their last step with one name.
fn two_take_one_name(number: u64, mutant: Option<Mutant>) -> Held<bool> {
    let scene = Scene::new(mutant);
    let (process, repository) = scene.process();
    let session = Session::begin(&repository).map_err(told)?;
    let first = Scene::store(session, "name", &content(5), 3)?;
    let second = Scene::store(scene.begin()?, "name", &content(6), 3)?;
    let others = Arc::clone(&scene);
    let happened =
        interrupted(&process, number, move || others.commit(second).map(drop), || scene.commit(first).map(drop))?;
    scene.check()?;
    Ok(happened)
}

#[test]
fn two_that_take_one_name_never_both_have_it() {
    check_script(two_take_one_name, 20, &[Mutant::LooksForTheNameOnce]);
}

/// A file that all have, and one of its own: so that its node is nobody else's.
fn content_with(own: &str) -> Content {
    let noise = |seed| copal_sim::noise(seed, 7000);
    Content::from([("shared".into(), noise(1)), (own.into(), noise(own.len() as u64 + 10))])
}

/// A snapshot is read whose chunks stand in a condemned pack; they are stored again, and the pack is swept.
fn a_pack_is_swept_under_a_reader(number: u64, mutant: Option<Mutant>) -> Held<bool> {
    let scene = Scene::new(mutant);
    let old = scene.create("old", &content_with("a"))?;
    let witness = Scene::store(scene.begin()?, "read", &content_with("bb"), 3)?;
    scene.delete(old)?;
    scene.collect()?;
    let read = scene.commit(witness)?;
    let (process, repository) = scene.process();
    let others = Arc::clone(&scene);
    let happened = interrupted(
        &process,
        number,
        move || others.create("again", &content_with("ccc")).and_then(|_| others.collect()),
        || {
            let session = Session::begin(&repository).map_err(told)?;
            let restored = tree::restore(&session, &read).map_err(told)?;
            session.end().map_err(told)?;
            if restored == content_with("bb") { Ok(()) } else { Err("other bytes".into()) }
        },
    )?;
    scene.check()?;
    Ok(happened)
}

#[test]
fn a_pack_that_is_swept_under_a_reader_is_not_missed() {
    check_script(a_pack_is_swept_under_a_reader, 20, &[Mutant::ListsPacksOnce]);
}

#[test]
fn meetings_lose_nothing() {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|number| number.parse::<u64>().ok());
    let (first, minutes) = (number("COPAL_SIM_FIRST").unwrap_or(1), number("COPAL_SIM_MINUTES"));
    let begun = std::time::Instant::now();
    let mut sum = meeting::Met::default();
    let mut meetings = 0;
    for seed in first.. {
        let done = match minutes {
            Some(minutes) => begun.elapsed().as_secs() >= minutes * 60,
            None => seed >= first + 800,
        };
        if done {
            break;
        }
        let met = meeting::run(seed, None);
        sum.acknowledged += met.acknowledged;
        sum.restored += met.restored;
        sum.swept += met.swept;
        sum.interrupted += met.interrupted;
        meetings += 1;
    }
    println!("{meetings} meetings from {first}: {sum:?}");
    assert!(sum.acknowledged > meetings * 4 && sum.restored > meetings * 4, "{meetings}: {sum:?}");
    assert!(sum.swept > meetings && sum.interrupted > meetings, "{meetings}: {sum:?}");
}

#[test]
fn a_snapshot_id_is_drawn_for_each() {
    // Else the scripts would take one snapshot for another.
    let scene = Scene::new(None);
    let ids: std::collections::BTreeSet<SnapshotId> =
        (0..3).map(|number| scene.create(&format!("{number}"), &content(number)).unwrap().snapshot).collect();
    assert_eq!(ids.len(), 3);
}
