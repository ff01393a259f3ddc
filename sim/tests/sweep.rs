//! Goal: whenever power is lost or the process killed, what was acknowledged is there and what was not is
//! whole or absent, and the next run succeeds without any repair (C1). Method: a workload runs once to count
//! its effects on the disk, then again for each of them, dying before it; every death is followed once by a
//! mere restart and some times by a loss of power, each with other pieces kept, dropped and torn.
//!
//! *Canaries*: the same check over a store with a fault built in must fail; else it proves nothing.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use copal_sim::tree::{self, Content, Toys};
use copal_sim::world::{PLACE, init, open};
use copal_sim::{Choices, Disk, Process, SkippedSync};
use copal_store::backend::{ObjectKind, ObjectName};
use copal_store::collect::{CollectOptions, collect, merge_index};
use copal_store::repository::{Repository, RootName};
use copal_store::session::Session;
use copal_store::{Error, Result, SnapshotId};

/// Losses of power tried after each death.
const LOSSES: u64 = 3;

#[derive(Default)]
struct Model {
    attempted: BTreeMap<SnapshotId, Content>,
    acknowledged: BTreeSet<RootName>,
    removing: BTreeSet<RootName>,
}

impl Model {
    fn create(&mut self, repository: &Repository, name: &str, choices: &mut Choices) -> Result<RootName> {
        let session = Session::begin(repository)?;
        let content = tree::invent(choices);
        let payload = tree::store(&session, &content, choices)?;
        let root = tree::new_root(repository, name)?;
        self.attempted.insert(root.snapshot, content);
        tree::commit(&session, root, &payload)?;
        self.acknowledged.insert(root);
        session.end()?;
        Ok(root)
    }

    fn delete(&mut self, repository: &Repository, root: RootName) -> Result<()> {
        self.removing.insert(root);
        repository.delete_roots(&[root])
    }

    /// What must hold after a restart. The error says what does not.
    fn check(&self, repository: &Repository) -> std::result::Result<(), String> {
        let session = Session::begin(repository).map_err(|error| error.to_string())?;
        for root in self.acknowledged.difference(&self.removing) {
            if !session.roots().contains(root) {
                return Err(format!("the acknowledged snapshot {} is gone", root.snapshot));
            }
        }
        for root in session.roots() {
            let content =
                tree::restore(&session, root).map_err(|error| format!("the snapshot {}: {error}", root.snapshot))?;
            if self.attempted.get(&root.snapshot) != Some(&content) {
                return Err(format!("the snapshot {} has other bytes", root.snapshot));
            }
        }
        session.end().map_err(|error| error.to_string())
    }
}

/// Creates, labels, removals and collections, one after the other.
fn workload(process: &Process, model: &mut Model) -> Result<()> {
    let repository = match open(process, 7) {
        Err(Error::NotARepository { .. }) => init(process, 7)?,
        opened => opened?,
    };
    let mut choices = Choices::new(11);
    let first = model.create(&repository, "first", &mut choices)?;
    let second = model.create(&repository, "second", &mut choices)?;
    repository.write_label(second.snapshot, b"kept")?;
    model.delete(&repository, first)?;
    collect(&repository, &Toys, CollectOptions::default())?;
    repository.write_label(second.snapshot, b"kept longer")?;
    for number in 0..9 {
        model.create(&repository, &format!("small {number}"), &mut choices)?;
    }
    merge_index(&repository)?;
    model.delete(&repository, second)?;
    collect(&repository, &Toys, CollectOptions::default())?;
    Ok(())
}

/// After a death: everything holds, and the next run, under other names, succeeds and leaves nothing behind.
fn check_restart(disk: &Disk, model: &mut Model, round: u64) -> std::result::Result<(), String> {
    let process = Process::new(disk);
    let repository = match open(&process, 100 + round) {
        // The death came before the first command ended: its place can still be used.
        Err(Error::NotARepository { .. }) if model.attempted.is_empty() => {
            init(&process, 100 + round).map_err(|error| error.to_string())?
        }
        opened => opened.map_err(|error| error.to_string())?,
    };
    model.check(&repository)?;
    let mut choices = Choices::new(round);
    let again = model.create(&repository, &format!("again {round}"), &mut choices);
    again.map_err(|error| format!("the next create: {error}"))?;
    for _ in 0..2 {
        collect(&repository, &Toys, CollectOptions::default()).map_err(|error| format!("collection: {error}"))?;
        model.check(&repository)?;
    }
    for kind in [ObjectKind::Condemned, ObjectKind::Session, ObjectKind::Lease] {
        let mut left = repository.backend().names(kind).map_err(|error| error.to_string())?;
        // Which fragments were replaced is remembered for ever.
        left.retain(|name| !name.name().ends_with("-retired"));
        if !left.is_empty() {
            return Err(format!("collection left {left:?}"));
        }
    }
    Ok(())
}

#[test]
fn every_effect_may_be_the_last() {
    let process = Process::new(&Disk::new());
    workload(&process, &mut Model::default()).unwrap();
    let effects = process.effects();
    assert!(effects > 400, "the workload has only {effects} effects");
    // The long form takes each; the usual run every second, beginning elsewhere for each way to die.
    let every = if std::env::var_os("COPAL_SIM_MINUTES").is_some() { 1 } else { 2 };
    let mut deaths = 0;
    for ending in 0..=LOSSES {
        for effect in (ending % every..effects).step_by(every as usize) {
            let disk = Disk::new();
            let process = Process::new(&disk);
            process.die_at(effect);
            let mut model = Model::default();
            workload(&process, &mut model).expect_err("it died");
            drop(process);
            if ending > 0 {
                disk.lose_power(&mut Choices::new(effect * 31 + ending));
            }
            if let Err(what) = check_restart(&disk, &mut model, effect) {
                panic!("death before effect {effect} of {effects}, ending {ending}: {what}");
            }
            deaths += 1;
        }
    }
    println!("{deaths} deaths at {effects} effects");
}

/// Power is lost right after the last acknowledgement, again and again, on a store with a fault: some loss
/// must be noticed.
fn is_noticed(skipped: SkippedSync) -> bool {
    (0..12).any(|seed| {
        let disk = Disk::new();
        let process = Process::new(&disk);
        process.skip(skipped.clone());
        let mut model = Model::default();
        workload(&process, &mut model).unwrap();
        disk.lose_power(&mut Choices::new(seed));
        check_restart(&disk, &mut model, seed).is_err()
    })
}

#[test]
fn canary_every_skipped_sync_is_noticed() {
    for folder in ["packs", "index", "snapshots", "keys", ""] {
        let folder = PathBuf::from(PLACE).join(folder);
        let skipped = SkippedSync::OfNames(folder);
        assert!(is_noticed(skipped.clone()), "nobody notices {skipped:?}");
    }
    for folder in ["packs", "index", "snapshots", "keys", ""] {
        let skipped = SkippedSync::OfFiles(PathBuf::from(PLACE).join(folder));
        assert!(is_noticed(skipped.clone()), "nobody notices {skipped:?}");
    }
}

#[test]
fn a_store_without_a_fault_passes_the_same_check() {
    assert!(!is_noticed(SkippedSync::OfNames(PathBuf::from("/elsewhere"))));
}

/// A collection that deletes one pack more than it may.
fn check_after_losing(choose: impl Fn(&Repository) -> Option<ObjectName>) -> std::result::Result<(), String> {
    let disk = Disk::new();
    let process = Process::new(&disk);
    let mut model = Model::default();
    workload(&process, &mut model).unwrap();
    let repository = open(&process, 8).unwrap();
    let mut choices = Choices::new(12);
    for number in 0..12 {
        model.create(&repository, &format!("more {number}"), &mut choices).unwrap();
    }
    let Some(doomed) = choose(&repository) else { panic!("there is no such pack") };
    repository.backend().delete(&[doomed]).unwrap();
    check_restart(&disk, &mut model, 1)
}

#[test]
fn canary_a_live_pack_that_is_swept_is_noticed() {
    let count = {
        let process = Process::new(&Disk::new());
        workload(&process, &mut Model::default()).unwrap();
        open(&process, 8).unwrap().backend().list(ObjectKind::Pack).unwrap().len()
    };
    assert!(count > 2, "there are {count} packs");
    for number in 0..count {
        let outcome = check_after_losing(|repository| {
            Some(repository.backend().list(ObjectKind::Pack).unwrap()[number].name.clone())
        });
        assert!(outcome.is_err(), "nobody notices that pack {number} is gone");
    }
}

#[test]
fn canary_a_base_that_is_forgotten_is_noticed() {
    let outcome = check_after_losing(|repository| {
        let session = Session::begin(repository).unwrap();
        let of_deltas = session
            .roots()
            .iter()
            .flat_map(|root| tree::chunks(&session, root).unwrap())
            .find_map(|id| session.locate(&id).unwrap().unwrap().base)?;
        let pack = session.locate(&of_deltas).unwrap().unwrap().pack;
        ObjectName::new(ObjectKind::Pack, pack.to_string())
    });
    assert!(outcome.is_err(), "nobody notices that the base of a delta is gone");
}
