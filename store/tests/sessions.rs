//! Goal: what is acknowledged is there, collection takes only what nothing reaches, and two sessions never
//! hurt each other. Method: a toy snapshot (a root's payload is a list of chunk ids) on the local backend;
//! every outcome is read back.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use copal_store::backend::{ObjectKind, publish_bytes};
use copal_store::collect::{CollectOptions, CollectReport, Marker, Reachability, collect};
use copal_store::config::{CipherSuite, Parameters};
use copal_store::entropy::OsEntropy;
use copal_store::keys::{Credential, StretchCost};
use copal_store::local::LocalBackend;
use copal_store::location::{Encoding, RecordKind};
use copal_store::pack::pack_name;
use copal_store::repository::{InitOptions, Repository, RootName};
use copal_store::session::{ChunkSource, DeltaBase, Reservation, Session};
use copal_store::{ChunkId, Error, Result, SnapshotId};

struct Toy;

impl Reachability for Toy {
    fn mark_root(&self, _root: &RootName, payload: &[u8], marker: &dyn Marker) -> Result<()> {
        for id in payload.chunks(32) {
            marker.mark(&ChunkId(id.try_into().unwrap()))?;
        }
        Ok(())
    }
}

fn password() -> Credential {
    Credential::Password(zeroize::Zeroizing::new(b"secret".to_vec()))
}

fn options() -> InitOptions {
    InitOptions {
        parameters: Parameters { pack_bytes_max: 1 << 20, ..Parameters::default() },
        suite: CipherSuite::Aes256Gcm,
        stretch: StretchCost { memory_kib: 8, passes: 1, lanes: 1 },
        slot_label: "test".into(),
        created_seconds: 0,
    }
}

fn repository() -> (tempfile::TempDir, Repository) {
    let folder = tempfile::tempdir().unwrap();
    let backend = Arc::new(LocalBackend::new(&folder.path().join("repo")));
    let repository = Repository::init(backend, Arc::new(OsEntropy), &password(), &options()).unwrap();
    (folder, repository)
}

/// Bytes that differ for each seed and do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn root(repository: &Repository, name: &str) -> RootName {
    let mut id = [0; 16];
    repository.entropy().fill(&mut id).unwrap();
    RootName { tag: repository.keys().name_tag(name.as_bytes()), snapshot: SnapshotId(id) }
}

fn store(session: &Session, chunks: &[Vec<u8>]) -> Vec<ChunkId> {
    let mut writer = session.writer().unwrap();
    chunks
        .iter()
        .map(|chunk| {
            let id = session.repository().keys().chunk_id(chunk);
            if session.reserve(&id).unwrap() == Reservation::Mine {
                writer.store(RecordKind::Data, &id, chunk, None).unwrap();
            }
            id
        })
        .collect()
}

fn commit(session: &Session, name: &str, ids: &[ChunkId]) -> Result<RootName> {
    let root = root(session.repository(), name);
    let payload: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
    session.seal_packs()?.sync()?.publish_index()?.publish_root(root, &payload)?;
    Ok(root)
}

fn snapshot(repository: &Repository, name: &str, chunks: &[Vec<u8>]) -> RootName {
    let session = Session::begin(repository).unwrap();
    let ids = store(&session, chunks);
    let root = commit(&session, name, &ids).unwrap();
    session.end().unwrap();
    root
}

fn check(repository: &Repository, root: &RootName, chunks: &[Vec<u8>]) {
    let session = Session::begin(repository).unwrap();
    let payload = repository.read_root(root).unwrap();
    let read: Vec<Vec<u8>> =
        payload.chunks(32).map(|id| session.read_chunk(&ChunkId(id.try_into().unwrap())).unwrap()).collect();
    assert!(read == chunks, "a snapshot reads back other bytes");
    session.end().unwrap();
}

fn gc(repository: &Repository) -> CollectReport {
    collect(repository, &Toy, CollectOptions::default()).unwrap()
}

fn packs(repository: &Repository) -> usize {
    repository.backend().list(ObjectKind::Pack).unwrap().len()
}

fn chunks(seeds: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    seeds.map(|seed| noise(seed, 30_000 + seed as usize % 7000)).collect()
}

#[test]
fn a_repository_opens_with_its_password_only_and_keeps_what_was_stored() {
    let (folder, repository) = repository();
    let all = chunks(0..100);
    let root = snapshot(&repository, "one", &all);
    check(&repository, &root, &all);
    let open = |credential: &Credential| {
        Repository::open(Arc::new(LocalBackend::new(&folder.path().join("repo"))), Arc::new(OsEntropy), credential)
    };
    let again = open(&password()).unwrap();
    check(&again, &again.roots().unwrap()[0], &all);
    let wrong = Credential::Password(zeroize::Zeroizing::new(b"other".to_vec()));
    assert!(matches!(open(&wrong), Err(Error::WrongKey)));
    let slot = again.add_key_slot(&wrong, "second", StretchCost { memory_kib: 8, passes: 1, lanes: 1 }, 1).unwrap();
    check(&open(&wrong).unwrap(), &root, &all);
    let first = again.key_slots().unwrap().into_iter().find(|info| info.id != slot).unwrap();
    let refused = again.remove_key_slot(first.id, 1);
    assert!(matches!(refused, Err(Error::KeySlot { .. })), "a key is not removed by itself: {refused:?}");
    let again = open(&wrong).unwrap();
    again.remove_key_slot(first.id, 1).unwrap();
    assert!(matches!(open(&password()), Err(Error::WrongKey)));
    assert!(matches!(again.remove_key_slot(slot, 1), Err(Error::KeySlot { .. })));
}

#[test]
fn equal_chunks_are_stored_once_across_sessions() {
    let (_folder, repository) = repository();
    snapshot(&repository, "one", &chunks(0..50));
    let session = Session::begin(&repository).unwrap();
    let ids = store(&session, &chunks(0..60));
    assert_eq!(session.counters().chunks_new, 10);
    commit(&session, "two", &ids).unwrap();
    session.end().unwrap();
}

#[test]
fn a_name_is_taken_once() {
    let (_folder, repository) = repository();
    let first = snapshot(&repository, "one", &chunks(0..3));
    let session = Session::begin(&repository).unwrap();
    let ids = store(&session, &chunks(3..6));
    assert!(matches!(commit(&session, "one", &ids), Err(Error::NameTaken)));
    assert_eq!(repository.roots().unwrap(), [first]);
}

#[test]
fn deltas_and_frames_read_back_and_a_base_lives_as_long_as_its_delta() {
    let (_folder, repository) = repository();
    let base = noise(1, 65_536);
    let first = snapshot(&repository, "base", std::slice::from_ref(&base));
    let mut changed = base.clone();
    changed[1000] ^= 0xff;
    let small: Vec<Vec<u8>> = (0..40).map(|seed| noise(1000 + seed, 500)).collect();
    let session = Session::begin(&repository).unwrap();
    let keys = repository.keys();
    let mut writer = session.writer().unwrap();
    let id = keys.chunk_id(&changed);
    let base_id = session.delta_base(&keys.chunk_id(&base)).unwrap().unwrap();
    assert_eq!(session.reserve(&id).unwrap(), Reservation::Mine);
    writer.store(RecordKind::Data, &id, &changed, Some(DeltaBase { id: base_id, plain: &base })).unwrap();
    let members: Vec<(ChunkId, u32)> = small.iter().map(|chunk| (keys.chunk_id(chunk), chunk.len() as u32)).collect();
    for (id, _) in &members {
        assert_eq!(session.reserve(id).unwrap(), Reservation::Mine);
    }
    writer.store_frame(&members, &small.concat()).unwrap();
    drop(writer);
    let ids: Vec<ChunkId> = std::iter::once(id).chain(members.iter().map(|(id, _)| *id)).collect();
    let second = commit(&session, "delta", &ids).unwrap();
    session.end().unwrap();
    let all: Vec<Vec<u8>> = std::iter::once(changed).chain(small).collect();

    let session = Session::begin(&repository).unwrap();
    let location = session.locate(&id).unwrap().unwrap();
    assert_eq!((location.encoding, location.base), (Encoding::Delta, Some(base_id)));
    assert_eq!(session.delta_base(&id).unwrap(), Some(base_id), "a delta's base is never a delta");
    session.end().unwrap();
    check(&repository, &second, &all);
    repository.delete_roots(&[first]).unwrap();
    gc(&repository);
    check(&repository, &second, &all);
    repository.delete_roots(&[second]).unwrap();
    gc(&repository);
    assert_eq!(packs(&repository), 0);
}

#[test]
fn collection_frees_what_is_dead_and_rewrites_what_is_mixed() {
    let (_folder, repository) = repository();
    let first = snapshot(&repository, "one", &chunks(0..100));
    let kept: Vec<Vec<u8>> = chunks(0..100).into_iter().step_by(5).collect();
    let second = snapshot(&repository, "two", &kept);
    repository.delete_roots(&[first]).unwrap();
    let forecast = collect(&repository, &Toy, CollectOptions { dry_run: true, ..CollectOptions::default() }).unwrap();
    assert!(forecast.bytes_freed > 2_000_000, "{forecast:?}");
    let report = gc(&repository);
    assert!(report.packs_rewritten > 0 && report.bytes_freed > 2_000_000, "{report:?}");
    check(&repository, &second, &kept);
    assert_eq!(gc(&repository).packs_removed, 0, "a second collection finds nothing");
    check(&repository, &second, &kept);
}

#[test]
fn a_session_that_lived_at_the_mark_keeps_what_it_reuses() {
    let (_folder, repository) = repository();
    let all = chunks(0..40);
    let first = snapshot(&repository, "one", &all);
    let creator = Session::begin(&repository).unwrap();
    let ids = store(&creator, &all);
    assert_eq!(creator.counters().chunks_new, 0);
    repository.delete_roots(&[first]).unwrap();
    let report = gc(&repository);
    assert!(report.packs_removed == 0 && report.packs_waiting > 0, "{report:?}");
    let second = commit(&creator, "two", &ids).unwrap();
    creator.end().unwrap();
    let report = gc(&repository);
    assert_eq!(report.packs_removed, 0, "what the creator reached is pardoned");
    check(&repository, &second, &all);
    repository.delete_roots(&[second]).unwrap();
    gc(&repository);
    assert_eq!(packs(&repository), 0);
}

#[test]
fn a_session_that_begins_after_the_sentence_writes_condemned_chunks_again() {
    let (_folder, repository) = repository();
    let all = chunks(0..40);
    let first = snapshot(&repository, "one", &all);
    let witness = Session::begin(&repository).unwrap();
    repository.delete_roots(&[first]).unwrap();
    assert!(gc(&repository).packs_waiting > 0);
    let creator = Session::begin(&repository).unwrap();
    let ids = store(&creator, &all);
    assert_eq!(creator.counters().chunks_new, 40, "condemned counts as absent");
    witness.end().unwrap();
    assert!(gc(&repository).packs_removed > 0, "it did not begin before the sentence, so nothing waits for it");
    let second = commit(&creator, "two", &ids).unwrap();
    creator.end().unwrap();
    check(&repository, &second, &all);
    gc(&repository);
    check(&repository, &second, &all);
}

#[test]
fn what_a_root_published_after_the_sentence_reaches_counts_as_absent_while_it_can_be_read() {
    let (_folder, repository) = repository();
    let first = snapshot(&repository, "one", &chunks(0..10));
    let creator = Session::begin(&repository).unwrap();
    repository.delete_roots(&[first]).unwrap();
    gc(&repository);
    let ids = store(&creator, &chunks(0..10));
    let second = commit(&creator, "two", &ids).unwrap();
    let later = Session::begin(&repository).unwrap();
    assert!(!later.contains(&ids[0]).unwrap(), "its chunks are checked, and found condemned");
    assert!(later.locate(&ids[0]).unwrap().is_some(), "and can be read all the same");
    later.end().unwrap();
    creator.end().unwrap();
    check(&repository, &second, &chunks(0..10));
}

#[test]
fn what_an_interrupted_create_stored_is_found_again_or_collected() {
    let (_folder, repository) = repository();
    let session = Session::begin(&repository).unwrap();
    store(&session, &chunks(0..30));
    session.checkpoint().unwrap();
    drop(session);
    let session = Session::begin(&repository).unwrap();
    store(&session, &chunks(0..30));
    assert_eq!(session.counters().chunks_new, 0);
    drop(session);
    gc(&repository);
    assert_eq!(packs(&repository), 0);
    assert!(repository.backend().list(ObjectKind::Session).unwrap().is_empty());
}

#[test]
fn many_small_creates_leave_few_fragments() {
    let (_folder, repository) = repository();
    for number in 0..60u64 {
        snapshot(&repository, &format!("s{number}"), &[noise(number, 1000)]);
        copal_store::collect::merge_index(&repository).unwrap();
    }
    let fragments = repository.backend().list(ObjectKind::Index).unwrap().len();
    assert!(fragments < 16, "{fragments} fragments");
    let session = Session::begin(&repository).unwrap();
    for number in 0..60u64 {
        let id = repository.keys().chunk_id(&noise(number, 1000));
        assert_eq!(session.read_chunk(&id).unwrap(), noise(number, 1000));
    }
}

#[test]
fn merging_keeps_the_copy_that_outlives_a_sentence() {
    let (_folder, repository) = repository();
    let first = snapshot(&repository, "one", &chunks(0..100));
    let kept: Vec<Vec<u8>> = chunks(0..100).into_iter().step_by(5).collect();
    let second = snapshot(&repository, "two", &kept);
    let witness = Session::begin(&repository).unwrap();
    repository.delete_roots(&[first]).unwrap();
    let report = gc(&repository);
    assert!(report.packs_rewritten > 2 && report.packs_waiting > 2, "{report:?}");
    // The index now has two places for each kept chunk; one of them is about to go.
    for number in 0..8 {
        snapshot(&repository, &format!("s{number}"), &chunks(1000 + number..1001 + number));
    }
    assert!(copal_store::collect::merge_index(&repository).unwrap() >= 8);
    witness.end().unwrap();
    assert!(gc(&repository).packs_removed > 2);
    check(&repository, &second, &kept);
}

#[test]
fn merging_keeps_the_copy_that_is_there() {
    let (_folder, repository) = repository();
    let all = chunks(0..100);
    let first = snapshot(&repository, "one", &all);
    for listed in repository.backend().list(ObjectKind::Pack).unwrap() {
        repository.backend().delete(&[listed.name]).unwrap();
    }
    snapshot(&repository, "two", &all);
    for number in 0..8 {
        snapshot(&repository, &format!("s{number}"), &chunks(1000 + number..1001 + number));
    }
    assert!(copal_store::collect::merge_index(&repository).unwrap() >= 8);
    check(&repository, &first, &all);
}

#[test]
fn a_pack_that_is_missing_makes_its_chunks_absent() {
    let (_folder, repository) = repository();
    let all = chunks(0..10);
    let first = snapshot(&repository, "one", &all);
    for listed in repository.backend().list(ObjectKind::Pack).unwrap() {
        repository.backend().delete(&[listed.name]).unwrap();
    }
    let second = snapshot(&repository, "two", &all);
    check(&repository, &second, &all);
    check(&repository, &first, &all);
}

#[test]
fn every_flipped_bit_of_a_pack_is_noticed_and_repair_makes_room_for_a_healing_create() {
    let (folder, repository) = repository();
    let all: Vec<Vec<u8>> = (0..3).map(|seed| noise(seed, 300)).collect();
    let first = snapshot(&repository, "one", &all);
    for pack in copal_store::check::packs(&repository).unwrap() {
        let path = folder.path().join("repo").join(pack_name(pack).to_string());
        let sound = std::fs::read(&path).unwrap();
        for position in 0..sound.len() {
            let mut flipped = sound.clone();
            flipped[position] ^= 1 << (position % 8);
            std::fs::write(&path, &flipped).unwrap();
            let session = Session::begin(&repository).unwrap();
            let outcome = copal_store::check::check_pack(&session, pack);
            let noticed = match &outcome {
                Ok(report) => !report.damaged.is_empty(),
                Err(error) => matches!(error, Error::Unsupported { .. }),
            };
            assert!(noticed, "bit {position} of a pack: {outcome:?}");
        }
        let mut flipped = sound.clone();
        flipped[40] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
    }
    copal_store::check::rebuild_index(&repository).unwrap();
    snapshot(&repository, "two", &all);
    check(&repository, &first, &all);
}

#[test]
fn lengths_of_objects_are_on_the_grid() {
    let (_folder, repository) = repository();
    snapshot(&repository, "one", &chunks(0..20));
    let mut seen = 0;
    for kind in [ObjectKind::Pack, ObjectKind::Index, ObjectKind::Root] {
        for listed in repository.backend().list(kind).unwrap() {
            assert_eq!(copal_store::padding::on_grid(listed.bytes), listed.bytes, "{}", listed.name);
            seen += 1;
        }
    }
    assert!(seen >= 3);
}

#[test]
fn labels_replace_each_other_and_go_with_their_root() {
    let (_folder, repository) = repository();
    let root = snapshot(&repository, "one", &chunks(0..1));
    assert_eq!(repository.read_label(root.snapshot).unwrap(), None);
    for text in [b"first".as_slice(), b"second"] {
        repository.write_label(root.snapshot, text).unwrap();
        assert_eq!(repository.read_label(root.snapshot).unwrap().as_deref(), Some(text));
    }
    assert_eq!(repository.backend().list(ObjectKind::Label).unwrap().len(), 1);
    repository.delete_roots(&[root]).unwrap();
    assert!(repository.backend().list(ObjectKind::Label).unwrap().is_empty());
}

#[test]
fn a_label_that_changed_meanwhile_is_not_replaced() {
    let (_folder, repository) = repository();
    let root = snapshot(&repository, "one", &chunks(0..1));
    repository.replace_label(root.snapshot, None, b"first").unwrap();
    for seen in [None, Some(0), Some(2)] {
        let outcome = repository.replace_label(root.snapshot, seen, b"other");
        assert!(matches!(outcome, Err(Error::Busy { .. })), "{outcome:?}");
    }
    repository.replace_label(root.snapshot, Some(1), b"second").unwrap();
    assert_eq!(repository.read_label_at(root.snapshot, 2).unwrap(), b"second");
    assert!(matches!(repository.read_label_at(root.snapshot, 1), Err(Error::Missing { .. })));
    assert_eq!(repository.labels().unwrap(), [(root.snapshot, 2)]);
    repository.delete_labels(root.snapshot).unwrap();
    assert_eq!(repository.read_label(root.snapshot).unwrap(), None);
}

#[test]
fn objects_that_exist_are_never_replaced() {
    let (_folder, repository) = repository();
    let root = snapshot(&repository, "one", &chunks(0..1));
    let listed = repository.backend().list(ObjectKind::Root).unwrap().remove(0);
    assert!(publish_bytes(&**repository.backend(), &listed.name, b"other").is_err());
    check(&repository, &root, &chunks(0..1));
}
