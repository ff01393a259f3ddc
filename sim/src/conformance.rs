//! What every backend promises, checked. One suite for all of them, and for every decorator: a promise that
//! only some implementations keep is none (conserve's create-new, ignored by its local transport, went
//! unnoticed that way).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use copal_store::Error;
use copal_store::backend::{Backend, FinishedObject, ObjectKind, ObjectName, publish_bytes};

use crate::seeded::noise;

/// Every kind that has a folder of its own.
const KINDS: &[ObjectKind] = &[
    ObjectKind::KeySlot,
    ObjectKind::Pack,
    ObjectKind::Index,
    ObjectKind::Root,
    ObjectKind::Label,
    ObjectKind::Condemned,
    ObjectKind::Session,
    ObjectKind::Lease,
    ObjectKind::Parity,
];

/// Runs the suite; `make` gives a new, empty, unprepared place each time. Panics at the first broken promise.
pub fn check(make: &dyn Fn() -> Arc<dyn Backend>) {
    let prepared = || {
        let backend = make();
        backend.prepare().expect("an empty place can be prepared");
        backend
    };
    a_new_place_holds_nothing(&*make());
    a_used_place_is_refused(&*prepared());
    an_object_appears_whole_or_not_at_all(&*prepared());
    ranges_are_exact(&*prepared());
    names_are_never_replaced(&*prepared());
    a_batch_fills_every_kind(&*prepared());
    deletion_is_final_and_patient(&*prepared());
    holds_exclude_each_other(&*prepared());
    a_hold_knows_whether_it_has_its_name(&*prepared());
    one_of_many_wins(&*prepared());
}

fn name(kind: ObjectKind, text: &str) -> ObjectName {
    ObjectName::new(kind, text).expect("a sound name")
}

fn finished(backend: &dyn Backend, name: &ObjectName, bytes: &[u8]) -> FinishedObject {
    let mut writer = backend.create(name, bytes.len() as u64).expect("an object can be started");
    // Uneven pieces: an append is no unit of anything.
    for piece in bytes.chunks(65_537) {
        writer.append(piece).expect("bytes can be appended");
    }
    let object = writer.finish().expect("an object can be finished");
    assert_eq!((&object.name, object.bytes), (name, bytes.len() as u64));
    object
}

fn names(backend: &dyn Backend, kind: ObjectKind) -> BTreeSet<ObjectName> {
    let listed = backend.list(kind).expect("a kind can be listed");
    let set: BTreeSet<ObjectName> = listed.iter().map(|object| object.name.clone()).collect();
    assert_eq!(set.len(), listed.len(), "an object is listed twice");
    let named = backend.names(kind).expect("its names can be listed");
    assert_eq!(named.len(), set.len(), "names are those of the list");
    assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), set, "names are those of the list");
    set
}

fn assert_absent(backend: &dyn Backend, name: &ObjectName) {
    assert!(!names(backend, name.kind()).contains(name), "{name} is listed");
    assert!(matches!(backend.stat(name), Err(Error::Missing { .. })), "{name} has a length");
    assert!(matches!(backend.read(name, 1 << 20), Err(Error::Missing { .. })), "{name} can be read");
    assert!(matches!(backend.read_range(name, 0, &mut [0]), Err(Error::Missing { .. })), "{name} can be read in part");
    assert!(!backend.is_held(name).expect("an absent object can be asked about"), "{name} is held");
}

fn a_new_place_holds_nothing(backend: &dyn Backend) {
    let config = name(ObjectKind::Config, "config");
    assert!(matches!(backend.read(&config, 1 << 16), Err(Error::Missing { .. })), "an unprepared place has a config");
    assert!(!backend.place().is_empty());
    backend.prepare().expect("an empty place can be prepared");
    for &kind in KINDS {
        assert!(names(backend, kind).is_empty(), "a new place lists {kind:?}");
    }
    assert_absent(backend, &config);
    assert_absent(backend, &name(ObjectKind::Pack, "00ff"));
    backend.free_bytes().expect("free space can be asked for");
}

fn a_used_place_is_refused(backend: &dyn Backend) {
    publish_bytes(backend, &name(ObjectKind::Config, "config"), b"here I am").expect("a config can be published");
    assert!(matches!(backend.prepare(), Err(Error::NotEmpty { .. })), "a repository was prepared over another");
    assert_eq!(backend.read(&name(ObjectKind::Config, "config"), 100).expect("the config is whole"), b"here I am");
}

fn an_object_appears_whole_or_not_at_all(backend: &dyn Backend) {
    for bytes in [0, 1, 4096, 3 << 20] {
        let content = noise(bytes as u64, bytes);
        let object = name(ObjectKind::Pack, &format!("ab{bytes:x}"));
        let waiting = finished(backend, &object, &content);
        assert_absent(backend, &object);
        backend.publish(vec![waiting]).expect("a finished object can be published");
        assert_eq!(backend.stat(&object).expect("it is there").bytes, bytes as u64);
        assert!(backend.read(&object, bytes as u64).expect("it can be read") == content, "{object} has other bytes");
        if bytes > 0 {
            assert!(backend.read(&object, bytes as u64 - 1).is_err(), "an object beyond its limit was read");
        }
    }
    let abandoned = name(ObjectKind::Pack, "cd01");
    let mut writer = backend.create(&abandoned, 1 << 20).expect("an object can be started");
    writer.append(b"half of").expect("bytes can be appended");
    drop(writer);
    assert_absent(backend, &abandoned);
    drop(finished(backend, &abandoned, b"whole, and never published"));
    assert_absent(backend, &abandoned);
    publish_bytes(backend, &abandoned, b"after all").expect("an abandoned name is free");
    backend.publish(Vec::new()).expect("an empty batch is a batch");
}

fn ranges_are_exact(backend: &dyn Backend) {
    let object = name(ObjectKind::Pack, "ab");
    let content = noise(3, 100_000);
    publish_bytes(backend, &object, &content).expect("an object can be published");
    for (offset, bytes) in [(0, 1), (0, 100_000), (99_999, 1), (40_000, 30_000), (100_000, 0)] {
        let mut buffer = vec![0; bytes];
        backend.read_range(&object, offset as u64, &mut buffer).expect("the range is inside");
        assert!(buffer == content[offset..offset + bytes], "{bytes} bytes at {offset} are other bytes");
    }
    for (offset, bytes) in [(99_999, 2), (100_000, 1), (1 << 40, 1)] {
        let outcome = backend.read_range(&object, offset, &mut vec![0; bytes]);
        assert!(matches!(outcome, Err(Error::Damaged { .. })), "{bytes} bytes at {offset}, past the end: {outcome:?}");
    }
}

fn names_are_never_replaced(backend: &dyn Backend) {
    let object = name(ObjectKind::Root, "first");
    let second = finished(backend, &object, b"second");
    publish_bytes(backend, &object, b"first").expect("a free name can be published");
    assert!(backend.publish(vec![second]).is_err(), "a name was given twice");
    assert!(publish_bytes(backend, &object, b"third").is_err(), "a name was given twice");
    assert_eq!(backend.read(&object, 100).expect("it is there"), b"first");
    assert_eq!(names(backend, ObjectKind::Root).len(), 1);
}

fn a_batch_fills_every_kind(backend: &dyn Backend) {
    let all: Vec<ObjectName> =
        KINDS.iter().flat_map(|&kind| ["a0-1", "b1", "b1-2"].map(|text| name(kind, text))).collect();
    backend
        .publish(all.iter().map(|object| finished(backend, object, object.to_string().as_bytes())).collect())
        .expect("a batch over all kinds can be published");
    for &kind in KINDS {
        assert_eq!(names(backend, kind), all.iter().filter(|object| object.kind() == kind).cloned().collect());
        for listed in backend.list(kind).expect("a kind can be listed") {
            assert_eq!(listed.bytes, listed.name.to_string().len() as u64);
            let content = backend.read(&listed.name, 1000).expect("it can be read");
            assert_eq!(content, listed.name.to_string().as_bytes(), "objects of one name in two kinds are one");
        }
    }
}

fn deletion_is_final_and_patient(backend: &dyn Backend) {
    let (kept, gone) = (name(ObjectKind::Pack, "ab01"), name(ObjectKind::Pack, "ab02"));
    for object in [&kept, &gone] {
        publish_bytes(backend, object, b"once").expect("an object can be published");
        // Whatever is kept open for reading must not outlive the object.
        backend.read_range(object, 0, &mut [0; 4]).expect("it can be read");
    }
    let never = name(ObjectKind::Pack, "ff03");
    backend.delete(&[gone.clone(), never]).expect("deleting what is missing is no error");
    assert_absent(backend, &gone);
    assert_eq!(backend.read(&kept, 10).expect("its neighbour stays"), b"once");
    publish_bytes(backend, &gone, b"anew").expect("the name of a deleted object is free");
    let mut buffer = [0; 4];
    backend.read_range(&gone, 0, &mut buffer).expect("it can be read");
    assert_eq!(&buffer, b"anew", "a deleted object is still read");
    backend.delete(&[]).expect("an empty batch is a batch");
}

fn holds_exclude_each_other(backend: &dyn Backend) {
    let lease = name(ObjectKind::Lease, "maintenance");
    let hold = backend.hold(&lease, b"one").expect("a free lease can be taken");
    assert_eq!(hold.name(), &lease);
    assert!(backend.is_held(&lease).expect("a lease can be asked about"), "a held lease counts as free");
    assert!(matches!(backend.hold(&lease, b"two"), Err(Error::Busy { .. })), "a lease was given twice");
    assert!(names(backend, ObjectKind::Lease).contains(&lease), "a held object is not listed");
    assert!(backend.is_held(&lease).expect("a lease can be asked about"), "asking took the lease away");
    hold.release().expect("a hold can be released");
    assert_absent(backend, &lease);
    // A holder that dies drops its hold: the object stays, nobody holds it, and the next one takes it over.
    drop(backend.hold(&lease, b"three").expect("a released lease can be taken"));
    assert!(names(backend, ObjectKind::Lease).contains(&lease), "the object of a dead holder is gone");
    assert!(!backend.is_held(&lease).expect("a lease can be asked about"), "a dead process holds a lease");
    let again = backend.hold(&lease, b"four").expect("the lease of a dead holder can be taken over");
    assert!(matches!(backend.hold(&lease, b"five"), Err(Error::Busy { .. })), "a lease taken over was given twice");
    assert_eq!(backend.read(&lease, 100).expect("it can be read"), b"four");
    again.release().expect("a hold can be released");
    let other = name(ObjectKind::Session, "0a");
    let session = backend.hold(&other, b"").expect("a session can be held");
    backend.hold(&lease, b"").expect("holds of different objects do not meet").release().expect("it can be released");
    assert!(backend.is_held(&other).expect("a session can be asked about"));
    session.release().expect("a hold can be released");
}

fn a_hold_knows_whether_it_has_its_name(backend: &dyn Backend) {
    let removed = name(ObjectKind::Session, "0b");
    let hold = backend.hold(&removed, b"").expect("a session can be held");
    assert!(hold.is_current().expect("it can be asked about"), "what is held and there is not current");
    backend.delete(std::slice::from_ref(&removed)).expect("a held object can be removed");
    assert!(!hold.is_current().expect("it can be asked about"), "a hold does not miss its object");
    publish_bytes(backend, &removed, b"another").expect("the name is free");
    drop(hold);
    backend.delete(&[removed]).expect("it can be removed");
}

fn one_of_many_wins(backend: &dyn Backend) {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 6;
    for round in 0..ROUNDS {
        let object = name(ObjectKind::Root, &format!("contended-{round}"));
        let lease = name(ObjectKind::Lease, &format!("contended-{round}"));
        let (published, held) = (AtomicU64::new(0), AtomicU64::new(0));
        let barrier = std::sync::Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (object, lease, published, held, barrier) = (&object, &lease, &published, &held, &barrier);
                scope.spawn(move || {
                    let own = name(ObjectKind::Pack, &format!("{thread:x}0-{round}"));
                    barrier.wait();
                    publish_bytes(backend, &own, b"mine").expect("names apart do not meet");
                    if publish_bytes(backend, object, &noise(thread, 100)).is_ok() {
                        published.fetch_add(1, Ordering::Relaxed);
                    }
                    let hold = backend.hold(lease, b"");
                    if hold.is_ok() {
                        held.fetch_add(1, Ordering::Relaxed);
                    }
                    barrier.wait();
                });
            }
        });
        assert_eq!(published.load(Ordering::Relaxed), 1, "one name was given {published:?} times at once");
        assert_eq!(held.load(Ordering::Relaxed), 1, "one lease was given {held:?} times at once");
        let content = backend.read(&object, 1000).expect("the winner's object is there");
        assert!((0..THREADS).any(|thread| noise(thread, 100) == content), "two writers were mixed");
    }
    assert_eq!(names(backend, ObjectKind::Pack).len() as u64, THREADS * ROUNDS);
}
