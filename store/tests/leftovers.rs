//! Goal: collection leaves nothing that no snapshot needs, also after an earlier one ended in the midst of its work. Method: what that
//! leaves is made by hand, and the next collection takes it away. (`fuzz/corpus/operations` has the run that showed it.)
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use copal_store::backend::ObjectKind;
use support::{chunks, count, gc, in_memory, read, snapshot};

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
