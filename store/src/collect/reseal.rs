//! Seals again what is sealed under keys of earlier epochs: packs as collection rewrites them, then
//! fragments, labels and roots.
//!
//! It works in rounds of a bounded number of packs. Each round is published before the next begins, so an
//! interrupted run goes on where it was; packs that wait for living sessions go with a later collection.

use std::collections::HashSet;

use crate::Result;
use crate::backend::ObjectKind;
use crate::collect::{CollectOptions, Reachability, collect_forced, condemned, maintenance_lease, merge, retired};
use crate::epochs::epoch_of;
use crate::ids::PackId;
use crate::repository::Repository;
use crate::roles::Action;

/// Packs of one round: at most 16 GiB are there twice, and some 12 MiB of chunk ids in memory.
const PACKS_PER_ROUND: usize = 256;

/// What was sealed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResealReport {
    /// Packs of earlier epochs whose live records were copied, or that were dead.
    pub packs: u64,
    /// Index fragments.
    pub fragments: u64,
    /// Roots.
    pub roots: u64,
    /// Labels.
    pub labels: u64,
    /// Packs of earlier epochs that wait for living sessions.
    pub packs_waiting: u64,
    /// Objects that do not open: they stay as they are, and verification names them.
    pub unopened: u64,
}

/// Seals everything again under the newest keys. `proceed` hears (packs done, packs to do) after each round
/// and may stop the run by an error; the next run goes on. [`crate::Error::Busy`] when a collection runs.
pub fn reseal(
    repository: &Repository,
    reachability: &dyn Reachability,
    proceed: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<ResealReport> {
    repository.keys().role().require(Action::ManageKeys)?;
    repository.refresh_keys()?;
    let lease = maintenance_lease(repository)?;
    let epoch = repository.keys().epoch();
    let mut report = ResealReport::default();
    let old = old_packs(repository, epoch)?;
    let total = old.len() as u64;
    proceed(0, total)?;
    for round in old.chunks(PACKS_PER_ROUND) {
        let forced = round.iter().copied().collect();
        let collected = collect_forced(repository, &*lease, reachability, CollectOptions::default(), &forced)?;
        report.packs += round.len() as u64;
        report.packs_waiting = collected.packs_waiting;
        report.unopened += collected.packs_damaged;
        proceed(report.packs, total)?;
    }
    retired::sweep(repository)?;
    for name in repository.older_than(ObjectKind::Index, epoch)? {
        report.fragments += report_one(&mut report.unopened, merge::reseal(repository, &name).map(|()| true))?;
    }
    retired::join(repository, &|_| false)?;
    for (snapshot, _) in repository.labels()? {
        report.labels += report_one(&mut report.unopened, repository.reseal_label(snapshot))?;
    }
    for root in repository.roots()? {
        report.roots += report_one(&mut report.unopened, repository.reseal_root(&root, &|_| false))?;
    }
    lease.release()?;
    Ok(report)
}

/// Counts one that was sealed again. One that does not open keeps no other from being sealed.
fn report_one(unopened: &mut u64, resealed: Result<bool>) -> Result<u64> {
    match resealed {
        Err(error) if error.concerns_one_object() => {
            *unopened += 1;
            Ok(0)
        }
        resealed => resealed.map(u64::from),
    }
}

/// Packs of earlier epochs that are not condemned already.
fn old_packs(repository: &Repository, epoch: u32) -> Result<Vec<PackId>> {
    let condemned: HashSet<PackId> =
        condemned::load(repository)?.0.into_iter().flat_map(|pending| pending.sentence.packs).collect();
    let mut old = Vec::new();
    for listed in repository.backend().list(ObjectKind::Pack)? {
        let Some(pack) = PackId::from_hex(listed.name.name()).filter(|pack| !condemned.contains(pack)) else {
            continue;
        };
        match epoch_of(&**repository.backend(), &listed.name) {
            Ok(found) if found < epoch => old.push(pack),
            Ok(_) => {}
            Err(error) if error.concerns_one_object() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(old)
}
