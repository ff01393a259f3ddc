//! What of an application goes by itself: by its rules and by its count, after a create, after a deploy, and
//! when the daemon collects. Only of this host: another machine with the same application has rules of its
//! own.

use copal_engine::catalogue::{Catalogue, Filter, Listed, is_of_the_future};
use copal_engine::context::Context;
use copal_engine::removal::{self, ForgetRequest};
use copal_manifest::snapshot::{Origin, Snapshot};
use copal_store::SnapshotId;

use crate::config::{Application, Retention};
use crate::error::Result;
use crate::state::{AppFolder, state_folder};

/// What a lock's note says of it.
const REMOVAL: &str = "a removal by rule";

/// After a create: the snapshot that was just `taken` stays, whatever the clock says. Nothing goes for one
/// that was taken before a deploy: the deploy goes on, and what is being deployed may be the oldest of all.
pub(super) fn after_create(context: &Context, application: &Application, taken: &Snapshot) -> Result<()> {
    if application.name.is_empty() || removal::is_safety(taken) {
        return Ok(());
    }
    by_rules(context, application, &[taken.id])?;
    by_count(context, application, Some(taken.id)).map(drop)
}

/// After a deploy: what was deployed and what stood there before stay.
pub(super) fn after_deploy(context: &Context, application: &Application, in_use: &[SnapshotId]) -> Result<()> {
    if application.name.is_empty() {
        return Ok(());
    }
    by_rules(context, application, in_use).map(drop)
}

/// See [`crate::retain`].
pub(super) fn retain(context: &Context, application: &Application) -> Result<Vec<Listed>> {
    if application.retention.is_none() && application.max_snapshots.is_none() {
        return Ok(Vec::new());
    }
    let folder = AppFolder::of(state_folder(context)?, &application.name);
    let held = folder.hold(context, &application.name, REMOVAL)?;
    let mut removed = by_rules(context, application, &[])?;
    removed.extend(by_count(context, application, None)?);
    drop(held);
    Ok(removed)
}

fn by_rules(context: &Context, application: &Application, in_use: &[SnapshotId]) -> Result<Vec<Listed>> {
    let Some(Retention { rules, safety, keep_tags }) = application.retention.clone() else { return Ok(Vec::new()) };
    let of_here =
        Filter { apps: vec![application.name.clone()], hosts: vec![context.host.clone()], ..Filter::default() };
    let request = ForgetRequest {
        filter: of_here,
        rules,
        safety_rules: Some(safety),
        keep_tags,
        in_use: in_use.to_vec(),
        ..ForgetRequest::default()
    };
    let report = removal::forget(context, &request, false)?;
    Ok(report.removed().cloned().collect())
}

/// The oldest go when there are more than the application wants: safety snapshots and those of the future do
/// not count, pinned ones stay. What another key than an owner's has signed, and what was imported, neither
/// counts nor goes.
fn by_count(context: &Context, application: &Application, taken: Option<SnapshotId>) -> Result<Vec<Listed>> {
    let Some(max) = application.max_snapshots else { return Ok(Vec::new()) };
    let catalogue = Catalogue::load(context)?;
    let now = context.clock.now();
    let counted: Vec<&Listed> = catalogue
        .snapshots
        .iter()
        .filter(|listed| listed.snapshot.app == application.name && listed.snapshot.host == context.host)
        .filter(|listed| !removal::is_safety(&listed.snapshot) && !is_of_the_future(&listed.snapshot, now))
        .filter(|listed| context.repository.keys().builds_on(listed.signer))
        .filter(|listed| listed.snapshot.origin == Origin::Created)
        .collect();
    // For one that does not count none has to go.
    if taken.is_some_and(|taken| counted.iter().all(|listed| listed.snapshot.id != taken)) {
        return Ok(Vec::new());
    }
    let surplus = counted.len().saturating_sub(max as usize);
    let tags = application.retention.as_ref().map_or(&[][..], |retention| &retention.keep_tags);
    let may_go = |listed: &&&Listed| {
        let snapshot = &listed.snapshot;
        Some(snapshot.id) != taken && !snapshot.pinned && !tags.iter().any(|tag| snapshot.tags.contains(tag))
    };
    let oldest: Vec<Listed> = counted.iter().filter(may_go).take(surplus).map(|listed| (*listed).clone()).collect();
    if !oldest.is_empty() {
        let references: Vec<String> = oldest.iter().map(|listed| listed.snapshot.id.to_string()).collect();
        removal::delete(context, &references)?;
    }
    Ok(oldest)
}
