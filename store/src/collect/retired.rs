//! Index fragments that are in force no more: what was merged, or made again by a repair, does not come back
//! by its name.
//!
//! A fragment is its author's word for ever, and whoever may add a file can put one back that was replaced.
//! It may say that a chunk stands where a repair has found it damaged. So who replaces fragments publishes
//! which ones they were, after what takes their place and before they go; a reader passes them over. One may
//! be taken away like any object; then what it named counts again if it is put back.

use std::collections::HashSet;

use crate::backend::{Backend, ObjectKind, ObjectName, ObjectStat, publish_bytes};
use crate::ids::ObjectId;
use crate::keys::Keys;
use crate::repository::Repository;
use crate::roles::Action;
use crate::sealed::{PAYLOAD_BYTES_MAX, open_object, seal_object};
use crate::signing::SignerId;
use crate::{Error, Result, codec};

/// What such a record's name ends with.
pub(crate) const RETIRED_SUFFIX: &str = "-retired";
/// When there are so many records they become one: a command reads each.
const RECORDS_MAX: usize = 16;
/// Fragments that one record names at most: it has to fit into a payload.
const NAMES_MAX: usize = 2 << 20;

/// The fragments that are in force no more.
#[derive(Default)]
pub(crate) struct Retired(HashSet<ObjectId>);

impl Retired {
    /// Read before the index is listed: what takes the place of a fragment is published before its record.
    pub(crate) fn load(backend: &dyn Backend, keys: &Keys) -> Result<Self> {
        let mut retired = HashSet::new();
        for name in records(backend)? {
            let Some((ids, signer)) = read(backend, keys, &name)? else { continue };
            if counts(keys, signer) {
                retired.extend(ids);
            }
        }
        Ok(Self(retired))
    }

    pub(crate) fn contains(&self, fragment: &ObjectName) -> bool {
        ObjectId::from_hex(fragment.name()).is_some_and(|id| self.0.contains(&id))
    }
}

/// The fragments in force, as listed.
pub(crate) fn fragments_in_force(repository: &Repository) -> Result<Vec<ObjectStat>> {
    let backend = &**repository.backend();
    let retired = Retired::load(backend, repository.keys())?;
    let mut listed = backend.list(ObjectKind::Index)?;
    listed.retain(|fragment| !retired.contains(&fragment.name));
    Ok(listed)
}

/// Takes fragments out of force and removes them, under the maintenance lease; what takes their place is
/// durable.
pub(crate) fn retire(repository: &Repository, fragments: &[ObjectName]) -> Result<()> {
    let noted = |note: Result<()>| match note {
        // What has gone makes room for the word about it. Where even that does not suffice, what is dead goes
        // all the same.
        Err(error) if error.is_disk_full() => Ok(false),
        note => note.map(|()| true),
    };
    let is_noted = noted(note(repository, fragments))?;
    repository.backend().delete(fragments)?;
    if is_noted { Ok(()) } else { noted(note(repository, fragments)).map(drop) }
}

fn note(repository: &Repository, fragments: &[ObjectName]) -> Result<()> {
    let ids: Vec<ObjectId> = fragments.iter().filter_map(|name| ObjectId::from_hex(name.name())).collect();
    if ids.is_empty() {
        return Ok(());
    }
    publish(repository, &ids)?;
    if records(&**repository.backend())?.len() > RECORDS_MAX { join(repository, &|_| false) } else { Ok(()) }
}

/// Makes one record of all that count, and of those whose signer the caller names, signed by the key in use,
/// under the maintenance lease. What is nobody's goes.
pub(super) fn join(repository: &Repository, whose: &dyn Fn(Option<SignerId>) -> bool) -> Result<()> {
    let backend = &**repository.backend();
    let (mut all, mut joined) = (HashSet::new(), Vec::new());
    for name in records(backend)? {
        let Some((ids, signer)) = read(backend, repository.keys(), &name)? else { continue };
        let is_taken = counts(repository.keys(), signer) || whose(signer);
        if is_taken && all.len() + ids.len() > NAMES_MAX {
            continue;
        }
        joined.push(name);
        if is_taken {
            all.extend(ids);
        }
    }
    let mut all: Vec<ObjectId> = all.into_iter().collect();
    all.sort_unstable();
    if !all.is_empty() {
        publish(repository, &all)?;
    }
    backend.delete(&joined)
}

/// Removes fragments that somebody has put back, under the maintenance lease.
pub(super) fn sweep(repository: &Repository) -> Result<()> {
    let backend = &**repository.backend();
    let retired = Retired::load(backend, repository.keys())?;
    let back: Vec<ObjectName> =
        backend.names(ObjectKind::Index)?.into_iter().filter(|name| retired.contains(name)).collect();
    if back.is_empty() { Ok(()) } else { backend.delete(&back) }
}

fn publish(repository: &Repository, ids: &[ObjectId]) -> Result<()> {
    let id = repository.new_object_id()?;
    let name = format!("{id}{RETIRED_SUFFIX}");
    let name = ObjectName::new(ObjectKind::Condemned, name).ok_or_else(|| Error::damaged(id, "not a name"))?;
    let bytes = seal_object(repository.keys(), &name, id, &codec::encode(&ids.to_vec())?)?;
    publish_bytes(&**repository.backend(), &name, &bytes)
}

fn records(backend: &dyn Backend) -> Result<Vec<ObjectName>> {
    let mut names = backend.names(ObjectKind::Condemned)?;
    names.retain(|name| name.name().ends_with(RETIRED_SUFFIX));
    Ok(names)
}

/// Whether a record is the word of somebody who may maintain the repository.
fn counts(keys: &Keys, signer: Option<SignerId>) -> bool {
    !keys.is_signed() || keys.vouches(signer, Action::Maintain)
}

/// What a record says, and who signed it; `None`: it does not open, or is gone.
fn read(backend: &dyn Backend, keys: &Keys, name: &ObjectName) -> Result<Option<Record>> {
    let opened = backend.read(name, PAYLOAD_BYTES_MAX).and_then(|bytes| open_object(keys, name, bytes));
    let read = opened.and_then(|content| Ok((codec::decode(&name.to_string(), &content.payload)?, content.signer)));
    match read {
        Err(error) if error.concerns_one_object() => Ok(None),
        read => read.map(Some),
    }
}

type Record = (Vec<ObjectId>, Option<SignerId>);
