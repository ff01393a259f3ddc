//! Replaces index fragments, under the maintenance lease: the new one is durable before the old ones go.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::backend::{ObjectKind, ObjectName, ObjectStat, publish_bytes};
use crate::collect::condemned::Condemned;
use crate::collect::mark;
use crate::collect::retired::{fragments_in_force, retire};
use crate::ids::{ChunkId, PackId};
use crate::index::{Fragment, Index, Standing, build_fragment, fragment_name};
use crate::location::Location;
use crate::mutants::Mutant;
use crate::pack::pack_name;
use crate::repository::Repository;
use crate::signing::SignerId;
use crate::{Error, Result};

/// Fragments of one size class that are merged into one.
const FAN: usize = 8;
/// Entries of one merged fragment at most: bounds the memory of a merge to some 100 MiB.
pub(crate) const FRAGMENT_ENTRIES_MAX: u64 = 1 << 19;

/// Fragments of this length are large enough: they are left as they are.
const MERGED_BYTES_MAX: u64 = 24 << 20;

/// Whether some size class is full. Lengths of objects tell: nothing is opened.
pub(super) fn is_due(repository: &Repository) -> Result<bool> {
    let mut classes = [0usize; 64];
    for listed in repository.backend().list(ObjectKind::Index)? {
        if listed.bytes < MERGED_BYTES_MAX {
            classes[class(listed.bytes)] += 1;
        }
    }
    Ok(classes.iter().any(|count| *count >= FAN))
}

fn count(repository: &Repository) -> Result<usize> {
    Ok(repository.backend().list(ObjectKind::Index)?.len())
}

/// Size classes differ by a factor of eight; all small ones are one class.
fn class(bytes: u64) -> usize {
    (bytes.max(64 << 10).ilog2() / 3) as usize
}

/// Merges each full class into one fragment of a higher class; returns how many fragments went.
pub(super) fn merge(repository: &Repository) -> Result<u64> {
    let mut merged = 0;
    while is_due(repository)? {
        let mut classes: Vec<Vec<_>> = (0..64).map(|_| Vec::new()).collect();
        for listed in fragments_in_force(repository)? {
            if listed.bytes < MERGED_BYTES_MAX {
                classes[class(listed.bytes)].push(listed);
            }
        }
        let mut chosen: Vec<Fragment> = Vec::new();
        for full in classes.iter().filter(|class| class.len() >= FAN) {
            chosen = choose(repository, full)?;
            if chosen.len() > 1 {
                break;
            }
        }
        if chosen.len() < 2 {
            break;
        }
        let before = count(repository)?;
        replace(repository, &chosen, &HashSet::new())?;
        merged += chosen.len() as u64;
        if count(repository)? >= before {
            // Many places of one chunk have to stand side by side until sentences are carried out.
            break;
        }
    }
    Ok(merged)
}

/// Fragments of one class that are merged: of one author, because whose entries they are stays what it was.
/// What nobody looked at again is not made true by a merge.
fn choose(repository: &Repository, class: &[ObjectStat]) -> Result<Vec<Fragment>> {
    let backend = &**repository.backend();
    let mut opened = Vec::new();
    for listed in class {
        match Fragment::open(backend, repository.keys(), listed) {
            // It stays as it is: its trouble is its own.
            Err(error) if error.concerns_one_object() => {}
            fragment => opened.push(fragment?),
        }
    }
    let mut chosen: Vec<Fragment> = Vec::new();
    let Some(author) = most_frequent(&opened) else { return Ok(chosen) };
    let mut entries = 0;
    for fragment in opened.into_iter().filter(|fragment| word_of(fragment) == author) {
        if entries + fragment.entries() > FRAGMENT_ENTRIES_MAX && chosen.len() > 1 {
            break;
        }
        match fragment.check_blocks(backend) {
            Err(error) if error.concerns_one_object() => continue,
            checked => checked?,
        }
        entries += fragment.entries();
        chosen.push(fragment);
    }
    Ok(chosen)
}

/// Makes the index forget packs: every fragment that names one is replaced by one that does not.
pub(super) fn forget(repository: &Repository, packs: &HashSet<PackId>) -> Result<()> {
    if packs.is_empty() {
        return Ok(());
    }
    let index = Index::load(repository.backend(), repository.keys())?;
    // A fragment that does not open may go on naming what is gone: to a reader that is absent.
    for fragment in index.fragments().iter() {
        if fragment.packs().iter().any(|(pack, _)| packs.contains(pack)) {
            replace(repository, std::slice::from_ref(&**fragment), packs)?;
        }
    }
    Ok(())
}

/// Those of packs that the index forgets without any new fragment: all that name them name no other.
pub(super) fn forgotten_at_once(repository: &Repository, packs: &HashSet<PackId>) -> Result<HashSet<PackId>> {
    let index = Index::load(repository.backend(), repository.keys())?;
    let mut forgotten = packs.clone();
    loop {
        let before = forgotten.len();
        for fragment in index.fragments().iter() {
            if fragment.packs().iter().any(|(pack, _)| !forgotten.contains(pack)) {
                for (pack, _) in fragment.packs() {
                    forgotten.remove(pack);
                }
            }
        }
        if forgotten.len() == before {
            return Ok(forgotten);
        }
    }
}

/// Seals a fragment of an earlier epoch again.
pub(super) fn reseal(repository: &Repository, name: &ObjectName) -> Result<()> {
    let bytes = repository.backend().stat(name)?.bytes;
    let listed = ObjectStat { name: name.clone(), bytes };
    let fragment = Fragment::open(&**repository.backend(), repository.keys(), &listed)?;
    replace(repository, &[fragment], &HashSet::new())
}

/// Whose word the entries of a fragment are: of what nobody who counts has signed, nobody's.
fn word_of(fragment: &Fragment) -> Option<SignerId> {
    if fragment.standing() == Standing::Stranger { None } else { fragment.author() }
}

/// Whose entries stand in most fragments. Strangers' are left as they are: a merge would sign them.
fn most_frequent(fragments: &[Fragment]) -> Option<Option<SignerId>> {
    let mut counts: HashMap<Option<SignerId>, usize> = HashMap::new();
    for fragment in fragments.iter().filter(|fragment| fragment.standing() != Standing::Stranger) {
        *counts.entry(word_of(fragment)).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(author, count)| (*count, *author)).map(|(author, _)| author)
}

/// Signs fragments again whose signer the caller names, with the key in use; what counted as stored because
/// of that signer is from now on the word of this key, and of others' entries it stays theirs.
pub(super) fn resign(repository: &Repository, whose: &dyn Fn(Option<SignerId>) -> bool) -> Result<u64> {
    let mut signed = 0;
    for listed in fragments_in_force(repository)? {
        let fragment = match Fragment::open(&**repository.backend(), repository.keys(), &listed) {
            Err(error) if error.concerns_one_object() => continue,
            opened => opened?,
        };
        if !whose(fragment.signer()) {
            continue;
        }
        let is_taken_over = whose(fragment.author()) && (fragment.is_trusted() || fragment.author().is_none());
        let author = if is_taken_over { repository.keys().author_of_own() } else { fragment.author() };
        match replace_as(repository, &[fragment], &HashSet::new(), author) {
            // It stays as it is, and keeps no key in force: from now on it is nobody's word.
            Err(error) if error.concerns_one_object() => {}
            replaced => {
                replaced?;
                signed += 1;
            }
        }
    }
    Ok(signed)
}

fn replace<F: std::borrow::Borrow<Fragment>>(
    repository: &Repository,
    old: &[F],
    without: &HashSet<PackId>,
) -> Result<()> {
    let author = old.first().and_then(|fragment| author_of_copy(repository, fragment.borrow()));
    replace_as(repository, old, without, author)
}

/// Whose word the entries of a fragment are in a copy of it.
pub(crate) fn author_of_copy(repository: &Repository, fragment: &Fragment) -> Option<SignerId> {
    word_of(fragment).or_else(|| repository.keys().is_signed().then_some(NOBODY))
}

/// The author of entries that nobody vouches for.
const NOBODY: SignerId = SignerId([0; 32]);

fn replace_as<F: std::borrow::Borrow<Fragment>>(
    repository: &Repository,
    old: &[F],
    without: &HashSet<PackId>,
    author: Option<SignerId>,
) -> Result<()> {
    let backend = &**repository.backend();
    let count: u64 = old.iter().map(|fragment| fragment.borrow().entries()).sum();
    let mut entries: Vec<(ChunkId, Location)> = Vec::with_capacity(count.min(FRAGMENT_ENTRIES_MAX) as usize);
    for fragment in old {
        fragment.borrow().for_each(backend, &mut |_, id, location| {
            if !without.contains(&location.pack) {
                entries.push((id, location));
            }
            Ok(())
        })?;
    }
    let names: Vec<ObjectName> = old.iter().map(|fragment| fragment.borrow().name().clone()).collect();
    if repository.is_mutant(Mutant::RemovesFragmentsFirst) {
        backend.delete(&names)?;
    }
    publish_fragment(repository, &mut entries, author)?;
    retire(repository, &names)
}

/// Publishes entries, under the maintenance lease, so that nothing is condemned meanwhile. Entries in packs
/// that are gone go. A fragment has one place for a chunk: what must stay beside it stands in a further
/// fragment. `author`: whose word they are, where the repository has signatures.
pub(crate) fn publish_fragment(
    repository: &Repository,
    entries: &mut Vec<(ChunkId, Location)>,
    author: Option<SignerId>,
) -> Result<()> {
    let condemned = Condemned::load(repository)?;
    let gone = missing_packs(repository, entries)?;
    entries.retain(|(_, location)| !gone.contains(&location.pack));
    // In place, since there may be a million: those that wait come last. They stand apart: when they go, the
    // others are not written again.
    entries.sort_unstable_by_key(|(id, at)| (condemned.contains(&at.pack), *id, at.base, at.pack, at.record_offset));
    let waiting = entries.split_off(entries.partition_point(|(_, at)| !condemned.contains(&at.pack)));
    publish_ranks(repository, std::mem::take(entries), Places::Lasting, author)?;
    publish_ranks(repository, waiting, Places::Condemned, author)
}

/// Packs of entries that are gone. A listing that lags may miss a pack, and nothing would ever name its
/// chunks again: so each is asked for by name.
fn missing_packs(repository: &Repository, entries: &[(ChunkId, Location)]) -> Result<HashSet<PackId>> {
    let present = mark::present(repository)?;
    gone(repository, entries.iter().map(|(_, location)| location.pack).filter(|pack| !present.contains(pack)).collect())
}

/// Those that are gone of packs that fragments name and a listing does not.
pub(super) fn gone(repository: &Repository, unlisted: BTreeSet<PackId>) -> Result<HashSet<PackId>> {
    let mut gone = HashSet::new();
    for pack in unlisted {
        match repository.backend().stat(&pack_name(pack)) {
            Err(Error::Missing { .. }) => drop(gone.insert(pack)),
            stat => drop(stat?),
        }
    }
    Ok(gone)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Places {
    Lasting,
    Condemned,
}

/// Publishes a fragment of the first place of each chunk that stays, then one of the second places, and so
/// on. Entries come sorted by id and base.
/// - Of places that last one that is no delta is enough: it may be the base of others. Deltas stay side by
///   side, one for each base, because only a base that lives makes a delta readable, and this fragment does
///   not know which does.
/// - Of condemned places all stay: which sentence is carried out first, and which pack is pardoned, is not
///   known yet. A pardon that found only the place in another sentence's pack would leave the chunk to that
///   sentence, which may have been passed knowing the snapshot that reaches it.
fn publish_ranks(
    repository: &Repository,
    mut entries: Vec<(ChunkId, Location)>,
    places: Places,
    author: Option<SignerId>,
) -> Result<()> {
    match places {
        // `None` comes first, and with it in front no delta is needed.
        Places::Lasting => {
            entries.dedup_by(|later, kept| later.0 == kept.0 && (kept.1.base.is_none() || kept.1.base == later.1.base))
        }
        Places::Condemned => entries.dedup_by_key(|(id, at)| (*id, at.pack)),
    }
    while !entries.is_empty() {
        let mut further = Vec::new();
        let mut before = None;
        entries.retain(|entry| {
            let is_first = before != Some(entry.0);
            before = Some(entry.0);
            if !is_first {
                further.push(*entry);
            }
            is_first
        });
        let id = repository.new_object_id()?;
        let object = build_fragment(repository.keys(), id, &mut entries, author)?;
        publish_bytes(&**repository.backend(), &fragment_name(id), &object)?;
        entries = further;
    }
    Ok(())
}
