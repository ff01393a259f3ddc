//! Parity of packs: an object beside each pack that brings back up to a share of its bytes, whatever they
//! are.
//!
//! It is made of the sealed bytes of the pack, so it says nothing that the pack does not say, needs no key,
//! and is not sealed. It is published after its pack and before the index that names the pack: what a root
//! reaches has its parity. It never replaces a check: bytes that it brings back are opened and verified as if
//! they had been read. It knows nothing of records.

mod code;
mod heal;
mod layout;

use std::collections::HashSet;
use std::sync::Arc;

use crate::backend::{Backend, ObjectKind, ObjectName};
use crate::describe::Fields;
use crate::envelope::Envelope;
use crate::ids::{ObjectId, PackId};
use crate::pack::pack_name;
use crate::repository::Repository;
use crate::{Error, Result};

pub(crate) use heal::HealedPack;

/// Most parity, in percent of a pack.
pub const PARITY_PERCENT_MAX: u8 = 100;

/// A pack may be longer than its limit by an eighth for padding, and by so much for a last record and the
/// list of records.
const PACK_BYTES_MORE: u64 = 16 << 20;

/// The object of a pack's parity.
#[must_use]
pub fn parity_name(pack: PackId) -> ObjectName {
    ObjectName::new(ObjectKind::Parity, pack.to_string()).expect("a hexadecimal id is a name")
}

/// Publishes the parity of packs that were just published; returns its bytes. Nothing where the repository
/// has none.
pub fn protect(repository: &Repository, packs: &[PackId]) -> Result<u64> {
    let percent = repository.config().parameters.parity_percent;
    if percent == 0 || packs.is_empty() {
        return Ok(0);
    }
    let backend = repository.backend();
    let mut objects = Vec::with_capacity(packs.len());
    let mut bytes = 0;
    for &pack in packs {
        let name = parity_name(pack);
        let sound = read_pack(&**backend, pack)?;
        let envelope = Envelope::first(ObjectKind::Parity, repository.keys().suite(), ObjectId(pack.0)).encode();
        let object = layout::build(&envelope, &sound, percent)?;
        let mut writer = backend.create(&name, object.len() as u64)?;
        writer.append(&object)?;
        bytes += object.len() as u64;
        objects.push(writer.finish()?);
    }
    backend.publish(objects)?;
    Ok(bytes)
}

/// What the parity of a pack says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Pack and parity are as they were written.
    Sound,
    /// The pack is as it was written, its parity is gone or damaged: it can be made again.
    ParityHurt(String),
    /// The pack is not as it was written.
    PackHurt,
}

/// Compares a pack with its parity, shard by shard. `None` where the repository has no parity.
pub(crate) fn judge(repository: &Repository, pack: PackId) -> Result<Option<Verdict>> {
    if repository.config().parameters.parity_percent == 0 {
        return Ok(None);
    }
    if !may_have_parity(repository, pack)? {
        return Ok(None);
    }
    let parity = match read_parity(repository, pack) {
        Ok(parity) => parity,
        Err(error) if error.is_integrity() => return Ok(Some(Verdict::ParityHurt(error.to_string()))),
        Err(error) => return Err(error),
    };
    let bytes = match read_pack(&**repository.backend(), pack) {
        Ok(bytes) => bytes,
        Err(error) if error.is_integrity() => return Ok(Some(Verdict::PackHurt)),
        Err(error) => return Err(error),
    };
    let verdict = if !parity.description.is_of(&bytes) {
        Verdict::PackHurt
    } else if parity.is_whole() {
        Verdict::Sound
    } else {
        Verdict::ParityHurt("some of it does not verify".into())
    };
    Ok(Some(verdict))
}

/// The storage with one pack as its parity says it was; `None` where there is no parity, or more is damaged
/// than it can bring back, or nothing of the pack is.
pub(crate) fn heal(repository: &Repository, pack: PackId) -> Result<Option<Arc<HealedPack>>> {
    if repository.config().parameters.parity_percent == 0 {
        return Ok(None);
    }
    let restore = || {
        if !may_have_parity(repository, pack)? {
            return Ok(None);
        }
        let parity = read_parity(repository, pack)?;
        let bytes = match read_pack(&**repository.backend(), pack) {
            Err(Error::Missing { .. }) => Vec::new(),
            bytes => bytes?,
        };
        parity.restore(bytes)
    };
    match restore() {
        Ok(Some(bytes)) => {
            Ok(Some(Arc::new(HealedPack::new(Arc::clone(repository.backend()), pack_name(pack), bytes))))
        }
        Ok(None) => Ok(None),
        // What a newer version wrote brings nothing back here.
        Err(error) if error.is_integrity() || error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a pack is as short as those that have parity, or gone: one that is longer somebody has put there.
fn may_have_parity(repository: &Repository, pack: PackId) -> Result<bool> {
    match repository.backend().stat(&pack_name(pack)) {
        Ok(stat) => Ok(stat.bytes <= bounds(repository).pack_bytes_max),
        Err(error) if error.is_integrity() => Ok(true),
        Err(error) => Err(error),
    }
}

/// A pack ends near its limit: it may have one more record, its list of them, and the padding.
fn bounds(repository: &Repository) -> layout::Bounds {
    let parameters = &repository.config().parameters;
    let limit = u64::from(parameters.pack_bytes_max);
    let pack_bytes_max = (limit + limit / 8 + PACK_BYTES_MORE).min(layout::PACK_BYTES_LIMIT);
    layout::Bounds { pack_bytes_max, percent: parameters.parity_percent }
}

/// Makes the parity of a sound pack again.
pub(crate) fn renew(repository: &Repository, pack: PackId) -> Result<()> {
    repository.backend().delete(&[parity_name(pack)])?;
    protect(repository, &[pack]).map(drop)
}

/// Packs that are there, and those that are not and have parity.
pub(crate) fn packs_or_their_parity(repository: &Repository) -> Result<Vec<PackId>> {
    let mut packs = crate::check::packs(repository)?;
    let parity = repository.backend().list(ObjectKind::Parity)?;
    packs.extend(parity.iter().filter_map(|listed| PackId::from_hex(listed.name.name())));
    packs.sort_unstable();
    packs.dedup();
    Ok(packs)
}

/// Removes the parity of packs that are gone; returns how many objects went.
pub(crate) fn remove_orphans(repository: &Repository) -> Result<u64> {
    let orphans = orphans(repository)?;
    repository.backend().delete(&orphans)?;
    Ok(orphans.len() as u64)
}

/// The parity of packs that are gone. Parity is published after its pack: what is listed before the packs
/// are, and whose pack is not among them, has none.
pub(crate) fn orphans(repository: &Repository) -> Result<Vec<ObjectName>> {
    let listed = repository.backend().list(ObjectKind::Parity)?;
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let packs: HashSet<PackId> = crate::check::packs(repository)?.into_iter().collect();
    let is_orphan = |name: &ObjectName| PackId::from_hex(name.name()).is_some_and(|pack| !packs.contains(&pack));
    let mut orphans: Vec<ObjectName> = listed.into_iter().map(|listed| listed.name).filter(is_orphan).collect();
    orphans.sort_unstable();
    Ok(orphans)
}

/// Adds the fields of the description; returns the parity shards.
pub(crate) fn describe(name: &ObjectName, bytes: &[u8], fields: &mut Fields) -> Result<Vec<u8>> {
    let parity = layout::parse(name, bytes.to_vec())?;
    parity.describe(fields);
    Ok(parity.shards().to_vec())
}

fn read_pack(backend: &dyn Backend, pack: PackId) -> Result<Vec<u8>> {
    backend.read(&pack_name(pack), layout::PACK_BYTES_LIMIT)
}

/// A damaged envelope costs nothing, since the name says all that is in it; one of a newer format is no
/// damage.
fn read_parity(repository: &Repository, pack: PackId) -> Result<layout::Parity> {
    let name = parity_name(pack);
    let bounds = bounds(repository);
    let bytes = repository.backend().read(&name, bounds.object_bytes_max())?;
    if let Err(error @ Error::Unsupported { .. }) = Envelope::decode(&name.to_string(), ObjectKind::Parity, &bytes) {
        return Err(error);
    }
    layout::parse_bounded(&name, bytes, bounds)
}
