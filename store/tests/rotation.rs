//! Goal: rotation gives new keys to every slot that is there and to nobody else; roles open what they should
//! and nothing more; what was sealed before stays readable, and can be sealed again, whatever is interrupted.
//! Method: repositories in memory, opened by each kind of slot; every object of the new epoch is tried with
//! every role.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use copal_sim::{MemoryBackend, SeededEntropy, noise};
use copal_store::backend::{Backend, ObjectKind};
use copal_store::collect::reseal;
use copal_store::describe::describe;
use copal_store::keys::{Credential, StretchCost};
use copal_store::repository::{Repository, RootName};
use copal_store::roles::Role;
use copal_store::session::{ChunkSource, Session};
use copal_store::{Error, ObjectId};
use zeroize::Zeroizing;

use support::{Toy, changed, check_packs, chunks, commit, gc, in_memory, key_file, open, read, snapshot, store};

const CHEAP: StretchCost = StretchCost { memory_kib: 8, passes: 1, lanes: 1 };

fn key(byte: u8) -> Credential {
    Credential::KeyFile(Zeroizing::new([byte; 32]))
}

fn opened_with(memory: &MemoryBackend, byte: u8) -> Result<Repository, Error> {
    Repository::open(Arc::new(memory.clone()), Arc::new(SeededEntropy::new(u64::from(byte) + 900)), &key(byte))
}

fn rotate(repository: &Repository) -> u32 {
    repository.rotate_keys(&key_file(), CHEAP, 5).unwrap().epoch
}

fn reseal_all(repository: &Repository) -> copal_store::collect::ResealReport {
    reseal(repository, &Toy, &mut |_, _| Ok(())).unwrap()
}

fn is_refused<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    assert!(matches!(outcome, Err(Error::NotPermitted { .. })), "{outcome:?}");
}

/// The highest epoch and the lowest among objects of a kind.
fn epochs(repository: &Repository, kind: ObjectKind) -> (u32, u32) {
    let backend = repository.backend();
    let found: Vec<u32> = backend
        .list(kind)
        .unwrap()
        .into_iter()
        .map(|listed| {
            let bytes = backend.read(&listed.name, 1 << 30).unwrap();
            u32::from_le_bytes(bytes[9..13].try_into().unwrap())
        })
        .collect();
    (*found.iter().max().unwrap(), *found.iter().min().unwrap())
}

#[test]
fn a_rotation_seals_what_is_new_and_leaves_what_is_old_readable() {
    let (memory, repository) = in_memory(1);
    let old = snapshot(&repository, "old", &chunks(0..20));
    assert_eq!(repository.keys().epoch(), 0);
    assert_eq!((rotate(&repository), repository.keys().epoch()), (1, 1));
    let new = snapshot(&repository, "new", &chunks(10..30));
    assert_eq!(epochs(&repository, ObjectKind::Pack), (1, 0));
    let again = open(Arc::new(memory.clone()), 77).unwrap();
    assert_eq!(again.keys().epoch(), 1);
    assert_eq!(read(&again, &old).unwrap(), chunks(0..20));
    assert_eq!(read(&again, &new).unwrap(), chunks(10..30));
    assert_eq!(rotate(&again), 2);
    let third = snapshot(&again, "third", &chunks(30..35));
    let last = open(Arc::new(memory), 78).unwrap();
    for (root, range) in [(&old, 0..20), (&new, 10..30), (&third, 30..35)] {
        assert_eq!(read(&last, root).unwrap(), chunks(range));
    }
    let report = check_packs(&last);
    assert!(report.damaged.is_empty() && report.chunks == 35, "{report:?}");
    let listed: Vec<u32> = last.key_epochs().unwrap().iter().map(|epoch| epoch.number).collect();
    assert_eq!(listed, [0, 1, 2]);
    for kind in [ObjectKind::Pack, ObjectKind::Index, ObjectKind::Root, ObjectKind::KeySlot] {
        for object in last.backend().list(kind).unwrap() {
            if object.name.name().len() == 32 || kind != ObjectKind::KeySlot {
                describe(&last, &object.name).unwrap();
            }
        }
    }
}

#[test]
fn sealing_again_moves_everything_and_can_be_interrupted() {
    let (memory, repository) = in_memory(2);
    let mut roots: Vec<(RootName, std::ops::Range<u64>)> = Vec::new();
    for part in 0..5u64 {
        let range = part * 40..part * 40 + 60;
        roots.push((snapshot(&repository, &format!("snapshot {part}"), &chunks(range.clone())), range));
    }
    repository.write_label(roots[0].0.snapshot, b"a label").unwrap();
    rotate(&repository);
    let stopped = reseal(&repository, &Toy, &mut |_, _| Err(Error::Poisoned));
    assert!(stopped.is_err());
    let report = reseal_all(&repository);
    assert!(report.packs >= 5 && report.roots == 5 && report.labels == 1, "{report:?}");
    for kind in [ObjectKind::Pack, ObjectKind::Index, ObjectKind::Root, ObjectKind::Label] {
        assert_eq!(epochs(&repository, kind), (1, 1), "{kind:?}");
    }
    let again = open(Arc::new(memory), 79).unwrap();
    assert_eq!(again.roots().unwrap().len(), 5, "a root is listed once");
    for (root, range) in &roots {
        assert_eq!(read(&again, root).unwrap(), chunks(range.clone()));
    }
    assert_eq!(again.read_label(roots[0].0.snapshot).unwrap().unwrap(), b"a label");
    assert_eq!(reseal_all(&again), copal_store::collect::ResealReport::default(), "nothing is left to do");
    again.delete_roots(&[roots[4].0]).unwrap();
    assert_eq!(again.roots().unwrap().len(), 4);
    gc(&again);
    assert_eq!(read(&again, &roots[0].0).unwrap(), chunks(0..60));
}

#[test]
fn deltas_stay_deltas_when_they_are_sealed_again() {
    let (_, repository) = in_memory(3);
    let base = noise(5, 60_000);
    let first = snapshot(&repository, "first", std::slice::from_ref(&base));
    let session = Session::begin(&repository).unwrap();
    let id = store(&session, &changed(&base, 30_000), Some(&base)).unwrap();
    let second = commit(&session, "second", &[id]).unwrap();
    session.end().unwrap();
    rotate(&repository);
    reseal_all(&repository);
    let session = Session::begin(&repository).unwrap();
    assert!(session.locate(&id).unwrap().unwrap().base.is_some());
    session.end().unwrap();
    assert_eq!(read(&repository, &first).unwrap(), std::slice::from_ref(&base));
    assert_eq!(read(&repository, &second).unwrap(), [changed(&base, 30_000)]);
}

#[test]
fn a_process_that_runs_learns_of_a_rotation() {
    let (memory, repository) = in_memory(4);
    rotate(&repository);
    let running = open(Arc::new(memory.clone()), 80).unwrap();
    assert_eq!(rotate(&repository), 2);
    let root = snapshot(&repository, "new", &chunks(0..5));
    assert_eq!(running.keys().epoch(), 1);
    assert_eq!(read(&running, &root).unwrap(), chunks(0..5), "an object of an unknown epoch makes it look");
    assert_eq!(running.keys().epoch(), 2);
}

#[test]
fn a_process_of_the_first_epoch_learns_of_the_next() {
    let (memory, repository) = in_memory(5);
    let running = open(Arc::new(memory), 81).unwrap();
    let session = Session::begin(&running).unwrap();
    rotate(&repository);
    let root = snapshot(&repository, "new", &chunks(0..5));
    // What it began before the rotation it ends under the keys that it began with.
    let ids: Vec<_> = chunks(5..9).iter().map(|chunk| store(&session, chunk, None).unwrap()).collect();
    let begun = commit(&session, "begun before", &ids).unwrap();
    session.end().unwrap();
    assert_eq!(read(&running, &root).unwrap(), chunks(0..5));
    assert_eq!(read(&repository, &begun).unwrap(), chunks(5..9));
}

#[test]
fn a_removed_slot_is_not_given_the_next_keys() {
    let (memory, repository) = in_memory(6);
    rotate(&repository);
    let leaving = repository.add_key_slot(&key(1), "leaving", CHEAP, 0).unwrap();
    repository.add_key_slot(&key(2), "staying", CHEAP, 0).unwrap();
    let kept = opened_with(&memory, 1).unwrap();
    repository.remove_key_slot(leaving, 1).unwrap();
    rotate(&repository);
    let root = snapshot(&repository, "secret", &chunks(0..3));
    assert!(matches!(opened_with(&memory, 1), Err(Error::WrongKey)));
    is_refused_or_missing(read(&kept, &root));
    assert_eq!(read(&opened_with(&memory, 2).unwrap(), &root).unwrap(), chunks(0..3));
    let names: Vec<String> =
        memory.list(ObjectKind::KeySlot).unwrap().into_iter().map(|object| object.name.name().to_owned()).collect();
    assert!(!names.iter().any(|name| name.starts_with(&leaving.to_string())), "{names:?}");
}

/// Who was left out finds no grant.
fn is_refused_or_missing<T>(outcome: Result<T, Error>) {
    let refused = matches!(outcome, Err(Error::NotPermitted { .. } | Error::Missing { .. } | Error::KeySlot { .. }));
    assert!(refused, "{:?}", outcome.err());
}

#[test]
fn the_last_owner_cannot_be_removed() {
    let (memory, repository) = in_memory(8);
    rotate(&repository);
    let create = repository.add_role_slot(&key(1), "robot", Role::Create, CHEAP, 0).unwrap();
    let only = repository.key_slots().unwrap().iter().find(|slot| slot.role == Role::Full).unwrap().id;
    assert!(matches!(repository.remove_key_slot(only, 1), Err(Error::KeySlot { .. })));
    repository.remove_key_slot(create, 1).unwrap();
    assert!(matches!(repository.remove_key_slot(create, 1), Err(Error::KeySlot { .. })));
    assert!(matches!(opened_with(&memory, 1), Err(Error::WrongKey)));
}

#[test]
fn narrow_roles_need_keys_of_their_own() {
    let (_, repository) = in_memory(9);
    snapshot(&repository, "old", &chunks(0..3));
    let add = |role| repository.add_role_slot(&key(1), "", role, CHEAP, 0);
    for role in [Role::Create, Role::Read, Role::Maintain] {
        assert!(matches!(add(role), Err(Error::KeySlot { .. })), "{role}");
    }
    rotate(&repository);
    assert!(matches!(add(Role::Create), Err(Error::KeySlot { detail }) if detail.contains("--reseal")));
    assert!(matches!(add(Role::Maintain), Err(Error::KeySlot { detail }) if detail.contains("--reseal")));
    add(Role::Read).unwrap();
    reseal_all(&repository);
    add(Role::Create).unwrap();
    add(Role::Maintain).unwrap();
}

struct Roles {
    owner: Repository,
    create: Repository,
    reader: Repository,
    maintain: Repository,
    root: RootName,
}

fn roles(seed: u64) -> Roles {
    let (memory, owner) = in_memory(seed);
    rotate(&owner);
    for (byte, role) in [(1, Role::Create), (2, Role::Read), (3, Role::Maintain)] {
        owner.add_role_slot(&key(byte), role.name(), role, CHEAP, 0).unwrap();
    }
    // One more epoch, so that grants to narrow roles are made by a rotation too.
    rotate(&owner);
    let root = snapshot(&owner, "of the owner", &chunks(0..8));
    owner.write_label(root.snapshot, b"label").unwrap();
    let with = |byte| opened_with(&memory, byte).unwrap();
    Roles { create: with(1), reader: with(2), maintain: with(3), owner, root }
}

#[test]
fn a_creating_key_takes_snapshots_and_opens_nothing() {
    let Roles { owner, create, root, .. } = roles(10);
    let taken = snapshot(&create, "of the robot", &chunks(4..12));
    assert_eq!(read(&owner, &taken).unwrap(), chunks(4..12));
    let session = Session::begin(&create).unwrap();
    assert!(session.contains(&create.keys().chunk_id(&chunks(0..1)[0])).unwrap(), "it finds what is there");
    for plain in chunks(0..12) {
        is_refused(session.read_chunk(&create.keys().chunk_id(&plain)));
    }
    is_refused(create.read_root(&root));
    is_refused(create.read_root(&taken));
    is_refused(create.read_label(root.snapshot));
    is_refused(create.write_label(root.snapshot, b"x"));
    is_refused(create.delete_roots(&[root]));
    is_refused(copal_store::collect::collect(&create, &Toy, copal_store::collect::CollectOptions::default()));
    is_refused(create.key_slots());
    is_refused(create.add_key_slot(&key(9), "", CHEAP, 0));
    is_refused(create.rotate_keys(&key(1), CHEAP, 0));
    is_refused(create.remove_key_slot(ObjectId([0; 16]), 1));
    let wrapped = create.wrap_secret(b"app", b"instance key").unwrap();
    is_refused(create.unwrap_secret(b"app", &wrapped));
    assert_eq!(owner.unwrap_secret(b"app", &wrapped).unwrap().as_slice(), b"instance key");
    session.end().unwrap();
    let root = commit(&Session::begin(&create).unwrap(), "of the owner", &[]);
    assert!(matches!(root, Err(Error::NameTaken)), "names are told apart without opening anything");
    assert!(check_packs(&owner).damaged.is_empty());
}

#[test]
fn t04_what_a_replaced_key_stores_meanwhile_is_signed_again() {
    let (memory, owner) = in_memory(12);
    rotate(&owner);
    let overtaken = Session::begin(&owner).unwrap();
    let ids: Vec<_> = chunks(0..8).iter().map(|plain| store(&overtaken, plain, None).unwrap()).collect();
    let other = open(Arc::new(memory.clone()), 13).unwrap();
    let old = other.key_slots().unwrap().iter().find(|slot| slot.current).unwrap().id;
    other.add_key_slot(&key(9), "new", CHEAP, 0).unwrap();
    let new = opened_with(&memory, 9).unwrap();
    assert_eq!(new.replace_key_slot(old, 1).unwrap(), 0);
    let root = commit(&overtaken, "overtaken", &ids).unwrap();
    overtaken.end().unwrap();
    let signer = |repository: &Repository| repository.read_signed_root(&root).unwrap().signer.unwrap();
    assert_eq!(new.keys().author(signer(&new)).role, None, "its key was removed");
    assert_eq!(new.sign_again_of_replaced(old).unwrap(), 1);
    assert_eq!(Some(signer(&new)), new.keys().signer());
    assert_eq!(new.sign_again_of_replaced(old).unwrap(), 0);
    assert_eq!(read(&new, &root).unwrap(), chunks(0..8));
    // Of a key that is there nothing is signed again.
    let current = new.key_slots().unwrap()[0].id;
    assert_eq!(new.sign_again_of_replaced(current).unwrap(), 0);
}

/// All objects under the stolen key's eyes: what it opens is only index fragments and its own grants.
#[test]
fn a_stolen_creating_key_opens_no_data_and_no_manifest() {
    let Roles { create, .. } = roles(11);
    for kind in [ObjectKind::Pack, ObjectKind::Root, ObjectKind::Label] {
        for object in create.backend().list(kind).unwrap() {
            is_refused(describe(&create, &object.name));
        }
    }
    for object in create.backend().list(ObjectKind::Index).unwrap() {
        describe(&create, &object.name).unwrap();
    }
}

#[test]
fn a_reading_key_reads_and_changes_nothing() {
    let Roles { reader, root, .. } = roles(12);
    assert_eq!(read(&reader, &root).unwrap(), chunks(0..8));
    assert!(check_packs(&reader).damaged.is_empty());
    let session = Session::begin(&reader).unwrap();
    is_refused(session.writer().map(drop));
    session.end().unwrap();
    is_refused(reader.write_label(root.snapshot, b"x"));
    is_refused(reader.delete_roots(&[root]));
    is_refused(copal_store::collect::collect(&reader, &Toy, copal_store::collect::CollectOptions::default()));
    is_refused(reader.key_slots());
    is_refused(reader.add_key_slot(&key(9), "", CHEAP, 0));
    is_refused(reseal(&reader, &Toy, &mut |_, _| Ok(())));
}

#[test]
fn a_maintaining_key_collects_without_opening_data() {
    let Roles { owner, maintain, root, .. } = roles(13);
    let doomed = snapshot(&owner, "doomed", &chunks(20..28));
    maintain.write_label(root.snapshot, b"kept").unwrap();
    let session = Session::begin(&maintain).unwrap();
    is_refused(session.read_chunk(&maintain.keys().chunk_id(&chunks(0..1)[0])));
    is_refused(session.writer().map(drop));
    session.end().unwrap();
    is_refused(maintain.key_slots());
    maintain.delete_roots(&[doomed]).unwrap();
    let report = gc(&maintain);
    assert!(report.packs_removed > 0 && report.packs_rewritten == 0, "{report:?}");
    assert_eq!(read(&owner, &root).unwrap(), chunks(0..8));
    // A pack that is partly dead waits for an owner, because a copy would have to open it.
    let mixed = snapshot(&owner, "mixed", &chunks(30..60));
    snapshot(&owner, "part", &chunks(30..33));
    maintain.delete_roots(&[mixed]).unwrap();
    assert_eq!(gc(&maintain).packs_rewritten, 0);
    assert!(gc(&owner).packs_rewritten > 0);
}

#[test]
fn grants_that_are_tampered_with_seal_nothing() {
    let (memory, repository) = in_memory(14);
    rotate(&repository);
    let slot = repository.key_slots().unwrap()[0].id;
    let grant = memory
        .list(ObjectKind::KeySlot)
        .unwrap()
        .into_iter()
        .find(|object| object.name.name().starts_with(&format!("{slot}-")))
        .unwrap()
        .name;
    let bytes = memory.read(&grant, 1 << 20).unwrap();
    for position in (0..bytes.len()).step_by(3) {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1;
        memory.delete(std::slice::from_ref(&grant)).unwrap();
        copal_store::backend::publish_bytes(&memory, &grant, &flipped).unwrap();
        check_seals_nothing(&memory);
    }
    memory.delete(std::slice::from_ref(&grant)).unwrap();
    check_seals_nothing(&memory);
}

/// The repository opens, so that what was sealed before is read; and nothing new is sealed, least of all
/// under the keys before.
fn check_seals_nothing(memory: &MemoryBackend) {
    let repository = open(Arc::new(memory.clone()), 3).unwrap();
    assert_eq!(repository.keys().epoch(), 1);
    let session = Session::begin(&repository).unwrap();
    let stored = store(&session, b"what is new", None);
    assert!(matches!(&stored, Err(Error::Damaged { .. } | Error::NotPermitted { .. })), "{:?}", stored.err());
}

#[test]
fn secrets_of_instances_are_wrapped_apart_from_each_other() {
    let (memory, repository) = in_memory(15);
    let before = repository.wrap_secret(b"a", b"Ka").unwrap();
    rotate(&repository);
    let after = repository.wrap_secret(b"b", b"Kb").unwrap();
    let again = open(Arc::new(memory), 4).unwrap();
    for (context, wrapped, secret) in [(b"a", &before, b"Ka"), (b"b", &after, b"Kb")] {
        assert_eq!(again.unwrap_secret(context, wrapped).unwrap().as_slice(), secret);
        assert!(again.unwrap_secret(b"other", wrapped).is_err());
        assert!(!wrapped.windows(2).any(|window| window == secret));
        for position in 0..wrapped.len() {
            let mut flipped = wrapped.clone();
            flipped[position] ^= 1;
            assert!(again.unwrap_secret(context, &flipped).is_err(), "a flipped bit at {position}");
            assert!(again.unwrap_secret(context, &wrapped[..position]).is_err());
        }
    }
    assert_ne!(again.wrap_secret(b"a", b"Ka").unwrap(), again.wrap_secret(b"a", b"Ka").unwrap());
}
