//! Goal: every type of document on the format pages is read the same by bincode and by a reader written from the page alone. Method: with
//! the feature that this crate opens, every decode compares the two, those of changed bytes in the other tests too; here every
//! target's seeds and a rotated repository are read, and the types counted.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use copal_fuzz::TARGETS;
use copal_sim::world::{credential, options};
use copal_sim::{MemoryBackend, SeededEntropy};
use copal_store::fuzzing::compared_documents;
use copal_store::repository::Repository;

/// The documents that pages of `docs/format` describe, as their types are called.
const DOCUMENTS: &[&str] = &[
    "bundle::native::format::Contents",
    "bundle::native::format::Item>",
    "bundle::native::format::RecordHeader",
    "deploy::journal::Commit",
    "deploy::journal::Step",
    "deploy::pending::Pointer",
    "snapshot::Label",
    "snapshot::Snapshot",
    "collect::condemned::Sentence",
    "config::ConfigDocument",
    "config::Parameters",
    "fragment::Directory",
    "pack::TrailerDocument",
    "slots::first::FirstDocument",
    "slots::first::FirstInfo",
    "slots::SlotDocument",
    "slots::SlotSecret",
    "slots::SlotInfo",
    "EpochKeys",
];

#[test]
fn two_readers_agree_about_every_type_of_document() {
    for target in TARGETS {
        (target.seeds)().iter().for_each(|seed| (target.run)(seed));
    }
    let memory = MemoryBackend::new();
    let init = Repository::init(Arc::new(memory.clone()), Arc::new(SeededEntropy::new(1)), &credential(), &options());
    init.unwrap().rotate_keys(&credential(), options().stretch, 0).unwrap();
    let again = Repository::open(Arc::new(memory), Arc::new(SeededEntropy::new(2)), &credential()).unwrap();
    assert!(!again.key_slots().unwrap().is_empty());
    let compared = compared_documents();
    let missing: Vec<_> =
        DOCUMENTS.iter().filter(|wanted| !compared.iter().any(|name| name.ends_with(*wanted))).collect();
    assert!(missing.is_empty(), "nothing of these was compared: {missing:?}, but of {compared:#?}");
}
