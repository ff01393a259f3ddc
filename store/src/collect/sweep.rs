//! Carries out sentences that every living session knows.

use std::collections::HashSet;

use crate::Result;
use crate::collect::condemned::{self, Mark, Pending};
use crate::collect::mark::{self, Marks};
use crate::collect::reach::{self, mark_roots, may_go};
use crate::collect::{CollectReport, Living, Reachability, living_sessions, merge};
use crate::ids::{ObjectId, PackId};
use crate::index::Index;
use crate::mutants::Mutant;
use crate::pack::pack_name;
use crate::parity;
use crate::repository::{Repository, RootName};
use crate::session::Session;

/// What this very collection has passed.
pub(super) struct Own {
    pub(super) id: ObjectId,
    /// Who lived, where that was looked at too early: see [`Mutant::ListsSessionsFirst`].
    pub(super) too_early: Option<Vec<Living>>,
}

/// Sweeps every sentence that all living sessions know; counts what waits. A session that knows one builds on
/// nothing that it condemns; one that does not may be about to publish what needs it.
///
/// Of all sentences only `own` is believed in what it has marked: any other may have been carried out or
/// lifted long ago and put back since. So everything is marked again, and whoever lives now is asked,
/// whatever was noted when it was passed.
pub(super) fn carry_out(
    repository: &Repository,
    reachability: &dyn Reachability,
    own: Option<&Own>,
    report: &mut CollectReport,
) -> Result<()> {
    report.packs_waiting = 0;
    let (sentences, unread) = condemned::load(repository)?;
    report.sentences_unread = unread;
    let mut condemned: HashSet<PackId> =
        sentences.iter().flat_map(|pending| &pending.sentence.packs).copied().collect();
    for mut pending in sentences {
        let own = own.filter(|own| own.id == pending.id);
        if own.is_none() {
            pending.sentence.marked.clear();
        }
        if !pending.is_vouched {
            // Its packs stay what they are, and are condemned by whoever may, when nothing reaches them.
            condemned::remove(repository, pending.id)?;
            for pack in &pending.sentence.packs {
                condemned.remove(pack);
            }
            continue;
        }
        let living = match own.and_then(|own| own.too_early.clone()) {
            Some(too_early) => too_early,
            None => living_sessions(repository)?,
        };
        let waits = living.iter().any(|session| !session.knows.contains(&pending.token));
        if waits && !repository.is_mutant(Mutant::WaitsForNobody) {
            report.packs_waiting += pending.sentence.packs.len() as u64;
            continue;
        }
        sweep(repository, reachability, &pending, &condemned, report)?;
        // Gone, or pardoned: what is pardoned lasts.
        for pack in &pending.sentence.packs {
            condemned.remove(pack);
        }
    }
    Ok(())
}

fn sweep(
    repository: &Repository,
    reachability: &dyn Reachability,
    pending: &Pending,
    condemned: &HashSet<PackId>,
    report: &mut CollectReport,
) -> Result<()> {
    let marked: HashSet<_> = pending.sentence.marked.iter().collect();
    let session = Session::begin(repository)?;
    let since: Vec<RootName> =
        session.roots().iter().filter(|root| !marked.contains(&Mark::of(root))).copied().collect();
    let index = Index::load(repository.backend(), repository.keys())?;
    // Listed last: every pack that a listed root or the index names is there by now, unless it is gone.
    let present = mark::present(repository)?;
    let mut doomed: HashSet<PackId> = pending.sentence.packs.iter().copied().filter(|p| present.contains(p)).collect();
    if !since.is_empty() && !repository.is_mutant(Mutant::PardonsNothing) {
        let marks = Marks::new(&session, &index, present.clone(), condemned.clone());
        let walked = mark_roots(repository, reachability, &since, &marks)?;
        let kept = reach::kept_for(reachability, &walked.unread, &present)?;
        let mut pardoned = HashSet::new();
        for pack in &doomed {
            if marks.live_bytes(pack) > 0 || kept.contains(pack) || !may_go(repository, &marks, *pack)? {
                pardoned.insert(*pack);
            }
        }
        doomed.retain(|pack| !pardoned.contains(pack));
    }
    session.end()?;
    match remove(repository, &doomed, report) {
        Err(error) if error.is_disk_full() => {
            // Where the index has to be written anew there must be room for that: it comes from what needs no
            // new index.
            let first = merge::forgotten_at_once(repository, &doomed)?;
            if first.is_empty() {
                return Err(error);
            }
            remove(repository, &first, report)?;
            doomed.retain(|pack| !first.contains(pack));
            remove(repository, &doomed, report)?;
        }
        removed => removed?,
    }
    condemned::remove(repository, pending.id)
}

/// The index forgets packs before they go: a stale entry would make an absent chunk look stored.
fn remove(repository: &Repository, doomed: &HashSet<PackId>, report: &mut CollectReport) -> Result<()> {
    merge::forget(repository, doomed)?;
    let mut names: Vec<_> = doomed.iter().map(|pack| pack_name(*pack)).collect();
    names.sort_unstable();
    let bytes = super::bytes_with_parity(repository)?;
    repository.backend().delete(&names)?;
    parity::remove_orphans(repository)?;
    report.bytes_freed += doomed.iter().filter_map(|pack| bytes.get(pack)).sum::<u64>();
    report.packs_removed += names.len() as u64;
    Ok(())
}
