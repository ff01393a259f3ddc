//! Goal: every type of document on the format pages is read the same by bincode and by a reader written from
//! the page alone. Method: with the feature that this crate opens, every decode compares the two, those of
//! changed bytes in the other tests too; here every target's seeds, a rotated repository and golden ones of
//! the formats before are read, and the types counted.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use copal_fuzz::TARGETS;
use copal_sim::world::{credential, options};
use copal_sim::{MemoryBackend, SeededEntropy};
use copal_store::check::check_index;
use copal_store::fuzzing::compared_documents;
use copal_store::keys::Credential;
use copal_store::local::LocalBackend;
use copal_store::repository::Repository;

/// The documents that pages of `docs/format` describe, as their types are called.
const DOCUMENTS: &[&str] = &[
    "bundle::native::format::Contents",
    "bundle::native::format::Item",
    "bundle::native::format::RecordHeader",
    "deploy::journal::Commit",
    "deploy::journal::Step",
    "deploy::pending::Noted",
    "snapshot::Label",
    "snapshot::Snapshot",
    "collect::condemned::Sentence",
    "config::ConfigDocument",
    "config::Parameters",
    "fragment::Directory",
    "fragment::SignedDirectory",
    "pack::TrailerDocument",
    "slots::first::FirstDocument",
    "slots::first::FirstInfo",
    "slots::second::SecondDocument",
    "slots::second::SecondSecret",
    "slots::second::SecondInfo",
    "slots::SlotDocument",
    "slots::SlotSecret",
    "roster::Document",
    "roster::DocumentWithoutConfig",
    "EpochKeys",
];

/// What older formats have: only read.
fn read_golden(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/repositories");
    let key: [u8; 32] = fs::read(folder.join("v1-plain.key")).unwrap().try_into().unwrap();
    let key = Credential::KeyFile(zeroize::Zeroizing::new(key));
    let backend = Arc::new(LocalBackend::new(&folder.join(name)));
    let repository = Repository::open(backend, Arc::new(SeededEntropy::new(2)), &key).unwrap();
    assert!(!repository.key_slots().unwrap().is_empty());
    assert_eq!(check_index(&repository).unwrap(), []);
}

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
    for golden in ["v1-plain", "v2-rotated", "v3-rotated"] {
        read_golden(golden);
    }
    let compared = compared_documents();
    let missing: Vec<_> =
        DOCUMENTS.iter().filter(|wanted| !compared.iter().any(|name| name.ends_with(*wanted))).collect();
    assert!(missing.is_empty(), "nothing of these was compared: {missing:?}, but of {compared:#?}");
}
