//! Removes snapshots and returns space. Removing is the deletion of roots; space comes back by collection.

mod retention;

use copal_manifest::snapshot::{Label, Snapshot};
use copal_store::SnapshotId;
use copal_store::collect::{CollectOptions, CollectReport, ResealReport, collect};
use copal_store::repository::RootName;
use copal_store::trust::Standing;

pub use retention::{ForgetReport, Group, GroupBy, GroupReport, KeepRules, is_safety};

use crate::catalogue::{Catalogue, Filter, Listed, Unreadable, forget_deleted};
use crate::context::{Context, Progress};
use crate::error::{Error, Result};
use crate::removal::retention::{History, Plan};
use crate::walk::SnapshotReachability;

/// Deletes by reference: durable when it returns. All references are resolved before the first deletion. A
/// whole id that matches nothing is a snapshot already gone and no error; pinned snapshots are refused; a
/// root that cannot be opened is deleted by its whole name or id.
pub fn delete(context: &Context, references: &[String]) -> Result<Vec<Listed>> {
    let catalogue = Catalogue::load(context)?;
    let mut removed: Vec<Listed> = Vec::new();
    let mut roots: Vec<RootName> = Vec::new();
    for reference in references {
        match catalogue.find(reference) {
            Ok(listed) if listed.snapshot.pinned => {
                return Err(Error::Pinned(Snapshot::full_name(&listed.snapshot.app, &listed.snapshot.name)));
            }
            Ok(listed) => {
                if !roots.contains(&listed.root) {
                    roots.push(listed.root);
                    removed.push(listed.clone());
                }
            }
            Err(error) => match catalogue.find_unreadable(reference) {
                Some(unreadable) => {
                    // Labels go by ids: those of another snapshot with the same one are not its own.
                    let is_its = catalogue.snapshots.iter().all(|other| other.snapshot.id != unreadable.root.snapshot);
                    if is_its && is_labelled_pinned(context, unreadable)? {
                        return Err(Error::Pinned(reference.clone()));
                    }
                    context.monitor.notice(&format!("the snapshot {reference}, which cannot be read, is removed"));
                    roots.push(unreadable.root);
                }
                None if is_whole_id(reference) && matches!(error, Error::NoSuchSnapshot(_)) => {
                    context.monitor.notice(&format!("the snapshot {reference} is already gone"));
                }
                None => return Err(error),
            },
        }
    }
    context.repository.delete_roots(&roots)?;
    forget_deleted(context, &roots);
    Ok(removed)
}

/// What to forget, and how it is counted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ForgetRequest {
    /// Only of these.
    pub filter: Filter,
    /// What stays.
    pub rules: KeepRules,
    /// What of safety snapshots stays; none: the same.
    pub safety_rules: Option<KeepRules>,
    /// What is counted together.
    pub group_by: GroupBy,
    /// What has one of these tags stays whatever the rules say.
    pub keep_tags: Vec<(String, String)>,
    /// These stay whatever the rules say: somebody is at them.
    pub in_use: Vec<SnapshotId>,
    /// Nothing else is removed, whatever the rules say by now: what a person has agreed to.
    pub agreed: Option<Vec<RootName>>,
}

/// Applies retention to each group of snapshots. What a removed key has signed pushes nothing out: its holder
/// can go on signing.
pub fn forget(context: &Context, request: &ForgetRequest, dry_run: bool) -> Result<ForgetReport> {
    // A key may have been removed since the repository was opened.
    context.repository.refresh_keys()?;
    let catalogue = Catalogue::load(context)?;
    let candidates =
        catalogue.snapshots.into_iter().filter(|listed| request.filter.matches(&listed.snapshot)).collect();
    let keys = context.repository.keys();
    let history_of = |listed: &Listed| match (keys.standing(listed.signer), listed.signer) {
        (Standing::Creator, Some(signer)) => History::Key(signer),
        (Standing::Owner | Standing::Creator, _) => History::Owners,
        (Standing::Removed { was_owner: true }, _) => History::FormerOwners,
        (other, _) => History::Nobody(other.words()),
    };
    let rules = |group: &Group| request.safety_rules.filter(|_| group.safety).unwrap_or(request.rules);
    let protected_by = |listed: &Listed| {
        let has = |tag| listed.snapshot.tags.contains(tag);
        match listed.snapshot.id {
            id if request.in_use.contains(&id) => Some("in use"),
            _ => request.keep_tags.iter().any(has).then_some("tag"),
        }
    };
    let plan = Plan {
        rules: &rules,
        group_by: request.group_by,
        history_of: &history_of,
        protected_by: &protected_by,
        now: context.clock.now(),
    };
    let mut report = retention::plan(candidates, &plan);
    if let Some(agreed) = &request.agreed {
        for group in &mut report.groups {
            group.removed.retain(|listed| agreed.contains(&listed.root));
        }
    }
    if !dry_run {
        let roots: Vec<RootName> = report.removed().map(|listed| listed.root).collect();
        context.repository.delete_roots(&roots)?;
        forget_deleted(context, &roots);
    }
    Ok(report)
}

/// Collects what no snapshot reaches, labels included. Of a root that cannot be walked nobody knows what it
/// reaches: an owner's that opens ends the collection, and for any other all stays that was there when this
/// machine first met it.
pub fn collect_garbage(context: &Context, dry_run: bool) -> Result<CollectReport> {
    let options = CollectOptions { dry_run, ..CollectOptions::default() };
    if !dry_run {
        // They go without anything being written: on a full disk that is room for the first thing that is.
        context.repository.delete_orphaned_labels()?;
    }
    let report = collect(&context.repository, &SnapshotReachability::of(context)?, options)?;
    tell_what_is_kept(context, &report);
    if report.packs_damaged > 0 {
        context.monitor.notice(&format!(
            "{}; verify says what is in it",
            match report.packs_damaged {
                1 => "1 pack does not open and was left as it is".to_owned(),
                number => format!("{number} packs do not open and were left as they are"),
            }
        ));
    }
    if report.sentences_unread > 0 {
        context.monitor.notice(&match report.sentences_unread {
            1 => "1 decision of an earlier gc does not open and was passed over; verify names it".to_owned(),
            number => format!("{number} decisions of earlier gcs do not open and were passed over; verify names them"),
        });
    }
    if report.packs_without_room > 0 {
        context.monitor.notice(&format!(
            "{}: there is no room for copies of what in them is needed; free some space and collect again",
            match report.packs_without_room {
                1 => "1 pack is mostly dead and stays as it is".to_owned(),
                number => format!("{number} packs are mostly dead and stay as they are"),
            }
        ));
    }
    Ok(report)
}

/// Seals again what is sealed under keys of earlier epochs; an interrupted run goes on where it was.
pub fn reseal(context: &Context) -> Result<ResealReport> {
    context.monitor.phase("sealing again");
    let mut interrupted = false;
    let outcome =
        copal_store::collect::reseal(&context.repository, &SnapshotReachability::of(context)?, &mut |done, total| {
            let progress = Progress { files_done: done, files_total: total, total_known: true, ..Progress::default() };
            context.monitor.progress(progress);
            interrupted = context.check_interrupt().is_err();
            if interrupted { Err(copal_store::Error::Poisoned) } else { Ok(()) }
        });
    if interrupted { Err(Error::Interrupted) } else { Ok(outcome?) }
}

/// Says what a collection could not look at, and so left as it is.
fn tell_what_is_kept(context: &Context, report: &CollectReport) {
    for (root, why) in &report.roots_unread {
        context.monitor.notice(&format!(
            "the snapshot {} cannot be looked at, so what was stored before this machine first met it stays; a newer \
             copal may know it, and `copal delete {}` removes it: {why}",
            root.snapshot, root.snapshot
        ));
    }
    if let Some(why) = &report.index_unread {
        context.monitor.notice(&format!(
            "a part of the index does not open, so nothing was removed that only it may know; verify names it: {why}"
        ));
    }
}

/// Whether a label that can be read pins a snapshot that cannot.
fn is_labelled_pinned(context: &Context, unreadable: &Unreadable) -> Result<bool> {
    let id = unreadable.root.snapshot;
    match context
        .repository
        .read_label(id)
        .and_then(|label| label.map(|payload| Label::decode(&format!("the label of {id}"), &payload)).transpose())
    {
        Ok(label) => Ok(label.is_some_and(|label| label.pinned)),
        Err(error) if error.is_integrity() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// With or without dashes.
fn is_whole_id(reference: &str) -> bool {
    SnapshotId::from_hex(&reference.replace('-', "").to_ascii_lowercase()).is_some()
}
