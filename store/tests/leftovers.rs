//! Goal: what failed in the midst of its work neither stays for ever nor counts as done. Method: what a
//! collection leaves is made by hand, and the next one takes it away (`fuzz/corpus/operations` has the run
//! that showed it); each publication of a create fails once.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use copal_sim::{FaultBackend, FaultMode, Operation};
use copal_store::Error;
use copal_store::backend::ObjectKind;
use copal_store::session::Session;
use support::{chunks, commit, count, gc, in_memory, open, read, snapshot, store};

#[test]
fn a_fragment_that_names_packs_that_are_gone_is_forgotten() {
    let (_, repository) = in_memory(1);
    let names = || -> BTreeSet<_> {
        repository.backend().list(ObjectKind::Pack).unwrap().into_iter().map(|pack| pack.name).collect()
    };
    let kept = snapshot(&repository, "kept", &chunks(0..3));
    let before = names();
    let other = snapshot(&repository, "other", &chunks(3..6));
    repository.delete_roots(&[other]).unwrap();
    // Its packs went, and the index did not forget them.
    let packs: Vec<_> = names().difference(&before).cloned().collect();
    assert!(!packs.is_empty());
    repository.backend().delete(&packs).unwrap();
    assert_eq!(count(&repository, ObjectKind::Index), 2);
    gc(&repository);
    assert_eq!(count(&repository, ObjectKind::Index), 1);
    assert_eq!(read(&repository, &kept).unwrap(), chunks(0..3));
}

/// After a failed write nobody knows what is durable: the session acknowledges nothing more, also when the
/// disk is well again.
#[test]
fn a_session_whose_publication_failed_acknowledges_nothing_more() {
    for nth in 1..=3 {
        let (memory, _) = in_memory(2);
        let faults = FaultBackend::new(Arc::new(memory));
        let repository = open(Arc::new(faults.clone()), 3).unwrap();
        let session = Session::begin(&repository).unwrap();
        let ids = [store(&session, &chunks(0..1)[0], None).unwrap()];
        // The packs, their index, the root.
        faults.plan(Some(Operation::Publish), nth, FaultMode::FailOnce(std::io::ErrorKind::StorageFull));
        commit(&session, "first", &ids).unwrap_err();
        assert!(faults.has_fired());
        assert!(matches!(commit(&session, "first", &ids), Err(Error::Poisoned)), "publication {nth}");
        assert!(matches!(session.checkpoint(), Err(Error::Poisoned)), "publication {nth}");
        session.end().unwrap();
        assert!(repository.roots().unwrap().is_empty());
        let again = snapshot(&repository, "first", &chunks(0..1));
        assert_eq!(read(&repository, &again).unwrap(), chunks(0..1));
    }
}
