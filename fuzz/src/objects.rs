//! Objects of a repository: any bytes as a file, and any plaintext sealed under the right keys. Every reader
//! of that kind goes over it, and what was stored elsewhere must still be what it was, or an error.

use std::sync::{Arc, OnceLock};

use copal_sim::tree::{self, Content, Toys};
use copal_sim::world::{credential, options};
use copal_sim::{Choices, MemoryBackend, SeededEntropy};
use copal_store::check::{check_index, check_pack, check_small_objects, packs};
use copal_store::collect::{CollectOptions, collect};
use copal_store::describe::describe;
use copal_store::fuzzing::{BLOCK, seal_parts, seal_whole};
use copal_store::repository::{Repository, RootName};
use copal_store::session::Session;
use copal_store::{Backend, ObjectKind, ObjectName};

/// A repository with something of every kind in it.
pub(crate) struct Sample {
    pub(crate) memory: MemoryBackend,
    pub(crate) roots: Vec<(RootName, Content)>,
}

pub(crate) fn open(memory: &MemoryBackend) -> copal_store::Result<Repository> {
    Repository::open(Arc::new(memory.clone()), Arc::new(SeededEntropy::new(5)), &credential())
}

/// Made once.
pub(crate) fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| make(0).expect("the sample can be made"))
}

/// Another, whose packs have parity.
fn sample_with_parity() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| make(20).expect("the sample can be made"))
}

fn make(parity_percent: u8) -> copal_store::Result<Sample> {
    let memory = MemoryBackend::new();
    let entropy = Arc::new(SeededEntropy::new(1));
    let mut options = options();
    options.parameters.parity_percent = parity_percent;
    let repository = Repository::init(Arc::new(memory.clone()), entropy, &credential(), &options)?;
    let mut choices = Choices::new(3);
    let mut roots = Vec::new();
    let witness = Session::begin(&repository)?;
    for number in 0..6 {
        let session = Session::begin(&repository)?;
        let content = tree::invent(&mut choices);
        let payload = tree::store(&session, &content, &mut choices)?;
        let root = tree::new_root(&repository, &format!("sample {number}"))?;
        tree::commit(&session, root, &payload)?;
        session.end()?;
        roots.push((root, content));
    }
    repository.write_label(roots[5].0.snapshot, b"a label")?;
    let gone = roots.remove(0);
    repository.delete_roots(&[gone.0])?;
    // The witness keeps a sentence waiting.
    collect(&repository, &Toys, CollectOptions::default())?;
    let memory = memory.fork();
    drop(witness);
    Ok(Sample { memory, roots })
}

/// The first object of a kind.
pub(crate) fn object(kind: ObjectKind) -> ObjectName {
    let listed = sample().memory.list(kind).expect("memory can be listed");
    listed.into_iter().map(|object| object.name).next().expect("the sample has every kind")
}

/// Every reader of a repository; what it gives is right.
fn read_everything(memory: &MemoryBackend) {
    read_all_of(sample(), memory);
}

fn read_all_of(sample: &Sample, memory: &MemoryBackend) {
    let Ok(repository) = open(memory) else { return };
    for kind in [
        ObjectKind::Config,
        ObjectKind::KeySlot,
        ObjectKind::Pack,
        ObjectKind::Index,
        ObjectKind::Root,
        ObjectKind::Label,
        ObjectKind::Condemned,
    ] {
        for listed in memory.list(kind).unwrap_or_default() {
            let _ = describe(&repository, &listed.name);
        }
    }
    let _ = repository.key_slots();
    let _ = check_small_objects(&repository);
    let _ = check_index(&repository);
    for (root, content) in &sample.roots {
        let _ = repository.read_label(root.snapshot);
        let Ok(session) = Session::begin(&repository) else { continue };
        if let Ok(found) = tree::restore(&session, root) {
            assert!(found == *content, "a snapshot has other bytes");
        }
    }
    if let Ok(session) = Session::begin(&repository) {
        for pack in packs(&repository).unwrap_or_default() {
            let _ = check_pack(&session, pack);
        }
    }
}

/// The first byte says how the others are put into the repository.
fn replaced(kind: ObjectKind, data: &[u8], seal: impl Fn(&Repository, &ObjectName, u8, &[u8]) -> Vec<u8>) {
    let Some((how, bytes)) = data.split_first() else { return };
    let memory = sample().memory.fork();
    let name = object(kind);
    if *how == 0 {
        memory.overwrite(&name, bytes.to_vec());
    } else {
        let Ok(repository) = open(&memory) else { return };
        memory.overwrite(&name, seal(&repository, &name, *how, bytes));
    }
    read_everything(&memory);
}

fn whole(repository: &Repository, name: &ObjectName, _: u8, payload: &[u8]) -> Vec<u8> {
    seal_whole(repository, name, payload).expect("any payload can be sealed")
}

fn raw(kind: ObjectKind) -> Vec<u8> {
    let bytes = sample().memory.read(&object(kind), 1 << 30).expect("the sample can be read");
    [&[0], &bytes[..]].concat()
}

fn plain(kind: ObjectKind) -> Vec<u8> {
    let repository = open(&sample().memory).expect("the sample opens");
    let described = describe(&repository, &object(kind)).expect("the sample is sound");
    [&[1], &described.plain[..]].concat()
}

/// The configuration.
pub fn config(data: &[u8]) {
    replaced(ObjectKind::Config, data, whole);
}

/// Seeds of [`config`].
#[must_use]
pub fn config_seeds() -> Vec<Vec<u8>> {
    vec![raw(ObjectKind::Config), plain(ObjectKind::Config)]
}

/// A key slot, from which everything else opens.
pub fn key_slot(data: &[u8]) {
    replaced(ObjectKind::KeySlot, &[&[0], data].concat(), whole);
}

/// Seeds of [`key_slot`].
#[must_use]
pub fn key_slot_seeds() -> Vec<Vec<u8>> {
    vec![raw(ObjectKind::KeySlot)[1..].to_vec()]
}

/// A pack: one part, and a directory.
pub fn pack(data: &[u8]) {
    replaced(ObjectKind::Pack, data, |repository, name, how, bytes| {
        let split = bytes.len() * usize::from(how) / 256;
        let parts = [(&[0u8; 38][..], &bytes[..split])];
        seal_parts(repository.keys(), name, &parts[..usize::from(how > 1)], &bytes[split..])
            .expect("any parts can be sealed")
    });
}

/// Seeds of [`pack`].
#[must_use]
pub fn pack_seeds() -> Vec<Vec<u8>> {
    vec![raw(ObjectKind::Pack), plain(ObjectKind::Pack)]
}

/// A fragment of the index: blocks, and a directory.
pub fn index(data: &[u8]) {
    replaced(ObjectKind::Index, data, |repository, name, how, bytes| {
        let split = bytes.len() * usize::from(how) / 256;
        let parts = [(BLOCK, &bytes[..split])];
        seal_parts(repository.keys(), name, &parts[..usize::from(how > 1)], &bytes[split..])
            .expect("any parts can be sealed")
    });
}

/// Seeds of [`index`].
#[must_use]
pub fn index_seeds() -> Vec<Vec<u8>> {
    vec![raw(ObjectKind::Index), plain(ObjectKind::Index)]
}

/// A root.
pub fn root(data: &[u8]) {
    // What another payload says is sealed by whoever holds the keys: then the snapshot is another.
    if data.first().is_some_and(|how| *how > 0) {
        let memory = sample().memory.fork();
        if let Ok(repository) = open(&memory) {
            let name = object(ObjectKind::Root);
            memory.overwrite(&name, whole(&repository, &name, 1, &data[1..]));
            if let (Ok(root), Ok(session)) = (RootName::parse(name.name()), Session::begin(&repository)) {
                let _ = tree::restore(&session, &root);
                let _ = describe(&repository, &name);
                let _ = collect(&repository, &Toys, CollectOptions { dry_run: true, ..CollectOptions::default() });
            }
        }
        return;
    }
    replaced(ObjectKind::Root, data, whole);
}

/// Seeds of [`root`].
#[must_use]
pub fn root_seeds() -> Vec<Vec<u8>> {
    vec![raw(ObjectKind::Root), plain(ObjectKind::Root)]
}

/// A label.
pub fn label(data: &[u8]) {
    replaced(ObjectKind::Label, data, whole);
    let _ = data.get(1..).map(|payload| copal_manifest::snapshot::Label::decode("a label", payload));
}

/// Seeds of [`label`].
#[must_use]
pub fn label_seeds() -> Vec<Vec<u8>> {
    let tags = vec![("host".to_owned(), "db1".to_owned())];
    let sound = copal_manifest::snapshot::Label { version: 1, tags, pinned: true }.encode().expect("a sound label");
    vec![raw(ObjectKind::Label), plain(ObjectKind::Label), [&[1], &sound[..]].concat()]
}

/// A sentence or its sessions.
pub fn condemned(data: &[u8]) {
    replaced(ObjectKind::Condemned, data, whole);
}

/// Seeds of [`condemned`].
#[must_use]
pub fn condemned_seeds() -> Vec<Vec<u8>> {
    vec![raw(ObjectKind::Condemned), plain(ObjectKind::Condemned)]
}

/// Where a pack is damaged (2 bytes), then its parity, which is not sealed: what it brings back verifies or
/// is an error.
pub fn parity(data: &[u8]) {
    let Some((place, bytes)) = data.split_first_chunk::<2>() else { return };
    let sample = sample_with_parity();
    let memory = sample.memory.fork();
    let listed = memory.list(ObjectKind::Parity).expect("memory can be listed");
    let name = listed[0].name.clone();
    let pack = ObjectName::new(ObjectKind::Pack, name.name()).expect("a parity has the name of its pack");
    memory.flip_byte(&pack, 32 + usize::from(u16::from_le_bytes(*place)) % 4000);
    memory.overwrite(&name, bytes.to_vec());
    read_all_of(sample, &memory);
}

/// Seeds of [`parity`].
#[must_use]
pub fn parity_seeds() -> Vec<Vec<u8>> {
    let memory = &sample_with_parity().memory;
    let name = memory.list(ObjectKind::Parity).expect("memory can be listed")[0].name.clone();
    let bytes = memory.read(&name, 1 << 30).expect("the sample can be read");
    vec![[&[5, 1], &bytes[..]].concat()]
}

/// Objects of sessions and leases of processes that died, under any content and name.
pub fn session(data: &[u8]) {
    let memory = sample().memory.fork();
    let text: String = data.iter().take(96).map(|byte| char::from(b'0' + byte % 10)).collect();
    for kind in [ObjectKind::Session, ObjectKind::Lease] {
        if let Some(name) = ObjectName::new(kind, text.clone()) {
            memory.overwrite(&name, data.to_vec());
        }
    }
    if let Some(lease) = ObjectName::new(ObjectKind::Lease, "maintenance") {
        memory.overwrite(&lease, data.to_vec());
    }
    let repository = open(&memory).expect("sessions harm nobody");
    let report = collect(&repository, &Toys, CollectOptions::default()).expect("dead sessions stop no collection");
    assert_eq!(report.packs_waiting, 0, "a dead session keeps packs waiting");
    read_everything(&memory);
}

/// Seeds of [`session`].
#[must_use]
pub fn session_seeds() -> Vec<Vec<u8>> {
    vec![Vec::new(), b"0123456789abcdef".to_vec()]
}
