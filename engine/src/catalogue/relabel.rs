//! Changes what may be changed of a committed snapshot: its tags and its pin.

use std::sync::Arc;

use std::collections::BTreeMap;

use copal_manifest::snapshot::Label;
use copal_manifest::tags::tags_fault;
use copal_store::{Error as StoreError, SnapshotId};

use crate::catalogue::{Catalogue, Listed};
use crate::context::Context;
use crate::error::{Error, Result};

/// Version of a label's payload.
const LABEL_VERSION: u16 = 1;
/// How often a change is tried again when others change the same label at the same time.
const ATTEMPTS_MAX: usize = 16;

/// Sets and removes tags (an empty list: leaves them) and the pin (`None`: leaves it). Others who change the
/// same label at the same time are not undone. Durable when it returns.
pub fn relabel(
    context: &Context,
    reference: &str,
    set: &[(String, String)],
    remove: &[String],
    pinned: Option<bool>,
) -> Result<Listed> {
    check_keys(set, remove)?;
    for _ in 0..ATTEMPTS_MAX {
        context.check_interrupt()?;
        // The numbers are read before the labels: what is read is at least as new as the number says.
        let seqs: BTreeMap<SnapshotId, u64> = context.repository.labels()?.into_iter().collect();
        let mut listed = Catalogue::load(context)?.find(reference)?.clone();
        let id = listed.snapshot.id;
        let seen = seqs.get(&id).copied();
        let is_sound = check_label(context, id, seen)?;
        let label = changed(&listed, set, remove, pinned);
        check_bounds(&label.tags)?;
        if !is_sound || label.tags != listed.snapshot.tags || label.pinned != listed.snapshot.pinned {
            match context.repository.replace_label(id, seen, &label.encode()?) {
                Err(StoreError::Busy { .. }) => continue,
                written => written?,
            }
            if !context.repository.roots()?.contains(&listed.root) {
                context.repository.delete_labels(id)?;
                return Err(Error::NoSuchSnapshot(reference.to_owned()));
            }
        }
        let snapshot = Arc::make_mut(&mut listed.snapshot);
        (snapshot.tags, snapshot.pinned) = (label.tags, label.pinned);
        return Ok(listed);
    }
    Err(StoreError::Busy { what: format!("the label of the snapshot {reference}") }.into())
}

fn changed(listed: &Listed, set: &[(String, String)], remove: &[String], pinned: Option<bool>) -> Label {
    let mut tags: BTreeMap<String, String> = listed.snapshot.tags.iter().cloned().collect();
    tags.retain(|key, _| !remove.contains(key));
    tags.extend(set.iter().cloned());
    Label { version: LABEL_VERSION, tags: tags.into_iter().collect(), pinned: pinned.unwrap_or(listed.snapshot.pinned) }
}

/// Whether the newest label counts: one that does not is written again, whatever it says. What a newer
/// program wrote is not overwritten by a reader that cannot know what it says.
fn check_label(context: &Context, id: SnapshotId, seen: Option<u64>) -> Result<bool> {
    let Some(seq) = seen else { return Ok(true) };
    let read = context.repository.read_label_at(id, seq);
    match read.and_then(|payload| Label::decode(&format!("labels/{id}-{seq:016x}"), &payload)) {
        Err(error @ StoreError::Unsupported { .. }) => Err(error.into()),
        Err(StoreError::Damaged { .. }) => Ok(false),
        _ => Ok(true),
    }
}

/// Refuses tags that no new snapshot can have, before anything is done for it.
pub fn check_tags(tags: &[(String, String)]) -> Result<()> {
    check_keys(tags, &[])?;
    check_bounds(tags)
}

fn check_bounds(tags: &[(String, String)]) -> Result<()> {
    tags_fault(tags).map_or(Ok(()), |fault| Err(Error::Usage(fault)))
}

fn check_keys(set: &[(String, String)], remove: &[String]) -> Result<()> {
    for key in set.iter().map(|(key, _)| key).chain(remove) {
        if key.is_empty() || key.contains('=') || key.chars().any(char::is_control) {
            return Err(Error::Usage(format!("{key:?} cannot be the key of a tag")));
        }
    }
    Ok(())
}
