//! What roots reach, for collection; and what has to stay because of roots that nobody here can walk.

use std::collections::{BTreeSet, HashSet};

use crate::collect::Reachability;
use crate::collect::mark::Marks;
use crate::ids::PackId;
use crate::pack::PackOpener;
use crate::repository::{Repository, RootName};
use crate::{Error, Result};

/// How it went with some roots.
#[derive(Default)]
pub(super) struct Walked {
    /// All that they reach is marked.
    pub(super) marked: Vec<RootName>,
    /// Nobody here knows what they reach, and why.
    pub(super) unread: Vec<(RootName, Error)>,
}

/// Marks what roots reach. One that was deleted since it was listed is in neither list.
///
/// An owner's root that opens and cannot be walked is an error, because it is to be mended. Any other may be
/// whatever somebody has put there: it must not stop a collection, nor may what it reaches be taken.
pub(super) fn mark_roots(
    repository: &Repository,
    reachability: &dyn Reachability,
    roots: &[RootName],
    marks: &Marks<'_>,
) -> Result<Walked> {
    let doubled = repository.doubled_roots()?;
    let mut walked = Walked::default();
    for root in roots {
        match mark_root(repository, reachability, root, &doubled, marks) {
            Ok(()) => walked.marked.push(*root),
            Err(Error::Missing { .. }) if !repository.roots()?.contains(root) => {}
            Err(error) if is_nobodys_trouble(repository, root, &error)? => walked.unread.push((*root, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(walked)
}

fn mark_root(
    repository: &Repository,
    reachability: &dyn Reachability,
    root: &RootName,
    doubled: &BTreeSet<RootName>,
    marks: &Marks<'_>,
) -> Result<()> {
    let payload = reachability.root_payload(repository, root)?;
    marks.walk(|marks| reachability.mark_root(root, &payload, marks))?;
    if doubled.contains(root) {
        mark_beside(repository, reachability, root, &payload, marks)?;
    }
    Ok(())
}

/// Marks also what other objects of the same root say: which one is true a later reader may know. What one of
/// them wants and is not there stops nothing.
fn mark_beside(
    repository: &Repository,
    reachability: &dyn Reachability,
    root: &RootName,
    payload: &[u8],
    marks: &Marks<'_>,
) -> Result<()> {
    for other in repository.payloads_beside(root, payload)? {
        match marks.walk(|marks| reachability.mark_root(root, &other, marks)) {
            Err(error) if error.concerns_one_object() => {}
            marked => marked?,
        }
    }
    Ok(())
}

/// Whether a root that cannot be walked is no owner's, as far as can be told: it does not open, or another
/// key has signed it, or none.
fn is_nobodys_trouble(repository: &Repository, root: &RootName, error: &Error) -> Result<bool> {
    if !error.concerns_one_object() {
        return Ok(false);
    }
    match repository.read_signed_root(root) {
        Ok(content) => Ok(!repository.keys().builds_on(content.signer)),
        Err(error) if error.concerns_one_object() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether a pack that nothing is known to reach may go. Where some fragment of the index does not open, it
/// may know more of the pack than the others say, or know it alone: then the pack's own list has to show that
/// each chunk in it is reached by nothing, or stands elsewhere, by an owner's word.
pub(super) fn may_go(repository: &Repository, marks: &Marks<'_>, pack: PackId) -> Result<bool> {
    if marks.index().unreadable().is_none() {
        return Ok(true);
    }
    let trailer = match PackOpener::read_trailer(repository.keys(), &**repository.backend(), pack) {
        Err(error) if error.concerns_one_object() => return Ok(false),
        trailer => trailer?,
    };
    for record in &trailer.records {
        for (id, _) in &record.members {
            if marks.needs(id, &pack)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Packs that stay for roots that cannot be walked.
pub(super) fn kept_for(
    reachability: &dyn Reachability,
    unread: &[(RootName, Error)],
    present: &HashSet<PackId>,
) -> Result<HashSet<PackId>> {
    let roots: Vec<RootName> = unread.iter().map(|(root, _)| *root).collect();
    if roots.is_empty() { Ok(HashSet::new()) } else { reachability.kept_for(&roots, present) }
}
