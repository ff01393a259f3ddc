//! Carries out sentences whose witnesses have gone.

use std::collections::HashSet;

use crate::collect::condemned::{self, Mark, Pending};
use crate::collect::mark::{self, Marks};
use crate::collect::{CollectReport, Reachability, living_sessions, mark_beside, merge};
use crate::ids::{ObjectId, PackId};
use crate::index::Index;
use crate::mutants::Mutant;
use crate::pack::pack_name;
use crate::parity;
use crate::repository::{Repository, RootName};
use crate::session::Session;
use crate::{Error, Result};

/// Sweeps every sentence that no session of its time outlives; counts what waits.
///
/// Of all sentences only `own`, which this very collection has passed, is believed in what it has marked: any
/// other may have been carried out or lifted long ago and put back since, so that everything is marked again.
pub(super) fn carry_out(
    repository: &Repository,
    reachability: &dyn Reachability,
    own: Option<ObjectId>,
    report: &mut CollectReport,
) -> Result<()> {
    report.packs_waiting = 0;
    let sentences = condemned::load(repository)?;
    let mut condemned: HashSet<PackId> =
        sentences.iter().flat_map(|pending| &pending.sentence.packs).copied().collect();
    for mut pending in sentences {
        if own != Some(pending.id) {
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
        let living = living_sessions(repository)?;
        let witnesses = match &pending.sessions {
            Some(sessions) => sessions.clone(),
            None => {
                // The collection died between sentence and list. All that live now are at least those that
                // lived then and still do; the others have published their roots or never will.
                if !living.is_empty() {
                    condemned::publish_sessions(repository, pending.id, &living)?;
                }
                living.clone()
            }
        };
        let waits = witnesses.iter().any(|witness| living.contains(witness));
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
        let marks = Marks::new(&session, &index, present, condemned.clone());
        let doubled = repository.doubled_roots()?;
        for root in &since {
            match reachability.root_payload(repository, root) {
                Ok(payload) => {
                    reachability.mark_root(root, &payload, &marks)?;
                    if doubled.contains(root) {
                        mark_beside(repository, reachability, root, &payload, &marks)?;
                    }
                }
                Err(Error::Missing { .. }) if !repository.roots()?.contains(root) => {}
                Err(error) => return Err(error),
            }
        }
        doomed.retain(|pack| marks.live_bytes(pack) == 0);
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
