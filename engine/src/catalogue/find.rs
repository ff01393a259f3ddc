//! How people name a snapshot.

use std::path::{Path, PathBuf};

use copal_manifest::entry::Timestamp;
use copal_manifest::name::whole_id;
use copal_manifest::shown::name as shown_name;
use copal_manifest::snapshot::{Origin, Snapshot};
use copal_store::SnapshotId;
use copal_store::trust::Standing;

use crate::catalogue::{Catalogue, Filter, Listed, Unreadable, is_same_path, recorded_path};
use crate::error::{Error, Result};
use crate::moment::shown as shown_time;

/// Fewer digits of an id than this are a name mistyped rather than an id.
const ID_DIGITS_MIN: usize = 4;

/// So many digits of an id are what lists show, and copied rather than made up.
const ID_DIGITS_SHOWN: usize = 8;

/// Clocks differ by so much without anybody minding. What is dated later is of the future: somebody's clock
/// was wrong.
pub const FUTURE_SECONDS: i64 = 600;

/// Whether a snapshot is dated so that it cannot have been taken yet.
#[must_use]
pub fn is_of_the_future(snapshot: &Snapshot, now: Timestamp) -> bool {
    snapshot.created.seconds > now.seconds.saturating_add(FUTURE_SECONDS)
}

/// `latest` first, because it is no name; then a whole id, which nobody mistypes and which no name may pass
/// for; then whole names, names in any application, ids. A whole name of a root that does not open is an
/// error, lest another application's snapshot is taken for it.
pub(super) fn find<'c>(catalogue: &'c Catalogue, reference: &str, filter: &Filter) -> Result<&'c Listed> {
    if let Some(of) = age_of(reference) {
        let path = if is_of_application(catalogue, of) { None } else { path_of(of) };
        let is_meant = |snapshot: &Snapshot| match &path {
            _ if of.is_empty() => true,
            Some(path) => snapshot.sources.iter().any(|source| is_same_path(&source.path, path)),
            None => snapshot.app == of,
        };
        let wanted = |listed: &Listed| is_meant(&listed.snapshot) && filter.matches(&listed.snapshot);
        // Nobody asked for those that were taken before deploys: after a deploy the newest is what stood
        // there before it.
        let is_asked = |listed: &Listed| !listed.snapshot.is_safety() && wanted(listed);
        return match latest(catalogue, reference, &is_asked) {
            Err(Error::NoSuchSnapshot(_)) => latest(catalogue, reference, &wanted),
            found => found,
        };
    }
    if !filter.is_empty() {
        return Err(Error::Usage(format!(
            "{reference} names one snapshot: a host, a path, a tag or an application choose among others only with `latest`"
        )));
    }
    if let Some(id) = whole_id(reference) {
        let found = matching(catalogue, |snapshot| snapshot.id == id);
        if !found.is_empty() {
            return only(reference, found);
        }
    }
    let full = matching(catalogue, |snapshot| Snapshot::full_name(&snapshot.app, &snapshot.name) == reference);
    if !full.is_empty() {
        return only_by_name(catalogue, reference, full);
    }
    if let Some(unreadable) = find_unreadable(catalogue, reference) {
        return Err(unreadable.error());
    }
    let named = matching(catalogue, |snapshot| snapshot.name == reference);
    if !named.is_empty() {
        return only_by_name(catalogue, reference, named);
    }
    by_id(catalogue, reference)
}

/// Whether a word behind `latest:` is an application here; else it is a path, as other commands read one.
fn is_of_application(catalogue: &Catalogue, word: &str) -> bool {
    !word.contains('/') && catalogue.snapshots.iter().any(|listed| !word.is_empty() && listed.snapshot.app == word)
}

/// A path as sources are recorded.
fn path_of(word: &str) -> Option<PathBuf> {
    recorded_path(Path::new(word)).ok()
}

/// Whether a word means a snapshot by its age.
#[must_use]
pub fn is_by_age(reference: &str) -> bool {
    age_of(reference).is_some()
}

/// Of what the newest is meant: `latest`, `latest:APP`, `latest:PATH`.
fn age_of(reference: &str) -> Option<&str> {
    let rest = reference.strip_prefix("latest")?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix(':') }
}

/// The newest that a key which may create now has signed: whoever has a key that was removed can go on making
/// newer ones. When there are only such, a person has to say which one is meant. Of what was imported the
/// bundle's author says when it was taken: it is the latest only where nothing was taken here. One of the
/// future is not the latest while there is another; both is said.
pub(super) fn latest<'c>(
    catalogue: &'c Catalogue,
    reference: &str,
    wanted: &dyn Fn(&Listed) -> bool,
) -> Result<&'c Listed> {
    let standing = |listed: &Listed| catalogue.asked.keys.as_ref().map(|keys| keys.standing(listed.signer));
    let newest_first = catalogue.snapshots.iter().rev().filter(|listed| wanted(listed));
    let Some(newest) = newest_first.clone().next() else { return Err(Error::NoSuchSnapshot(reference.to_owned())) };
    let may_create = |listed: &&Listed| standing(listed).is_none_or(Standing::may_create);
    let (own, imported): (Vec<&Listed>, Vec<&Listed>) =
        newest_first.clone().filter(may_create).partition(|listed| listed.snapshot.origin == Origin::Created);
    let passed_over = imported.first().filter(|_| !own.is_empty());
    let mut newest_first = if own.is_empty() { imported.iter() } else { own.iter() }.copied();
    let Some(found) = newest_first.next() else {
        return Err(match standing(newest) {
            Some(standing) => Error::OnlyFormerKeys {
                reference: reference.to_owned(),
                newest: Snapshot::full_name(&newest.snapshot.app, &newest.snapshot.name),
                id: newest.snapshot.id.to_string(),
                why: standing.words(),
            },
            None => Error::NoSuchSnapshot(reference.to_owned()),
        });
    };
    let is_past = |listed: &Listed| catalogue.asked.now.is_none_or(|now| !is_of_the_future(&listed.snapshot, now));
    let say = |word: &str| catalogue.asked.monitor.iter().for_each(|monitor| monitor.notice(word));
    let mut latest = found;
    if !is_past(found) {
        let past = newest_first.find(|listed| is_past(listed));
        say(&word_of_the_future(found, past));
        latest = past.unwrap_or(found);
    }
    if let Some(newer) = passed_over.filter(|newer| newer.snapshot.created > latest.snapshot.created) {
        say(&format!(
            "the newer snapshot {} was imported and is not taken for the latest, which is {}; its id or name means it",
            shown_full_name(newer),
            shown_full_name(latest)
        ));
    }
    Ok(latest)
}

fn shown_full_name(listed: &Listed) -> String {
    shown_name(Snapshot::full_name(&listed.snapshot.app, &listed.snapshot.name).as_bytes())
}

fn word_of_the_future(future: &Listed, past: Option<&Listed>) -> String {
    let date = shown_time(future.snapshot.created);
    let future = shown_full_name(future);
    match past {
        Some(past) => format!(
            "the snapshot {future} is dated in the future ({date}) and is not taken for the latest, which is {}; its id or \
             name means it",
            shown_full_name(past)
        ),
        None => format!(
            "the snapshot {future} is taken for the latest although it is dated in the future ({date}), as all are of which \
             one was asked for; is the clock of this machine right?"
        ),
    }
}

/// A whole id, which no name passes for; then a name.
pub(super) fn find_in<'c>(catalogue: &'c Catalogue, app: &str, reference: &str) -> Result<Option<&'c Listed>> {
    let matching = |wanted: &dyn Fn(&Snapshot) -> bool| matching(catalogue, |one| one.app == app && wanted(one));
    let mut found = match whole_id(reference) {
        Some(id) => matching(&|snapshot| snapshot.id == id),
        None => Vec::new(),
    };
    if found.is_empty() {
        found = of_owners(catalogue, matching(&|snapshot| snapshot.name == reference));
    }
    if found.is_empty() { Ok(None) } else { only(reference, found).map(Some) }
}

pub(super) fn find_unreadable<'c>(catalogue: &'c Catalogue, reference: &str) -> Option<&'c Unreadable> {
    let tag = catalogue.asked.keys.as_ref().map(|keys| keys.name_tag(reference.as_bytes()));
    let id = SnapshotId::from_hex(&reference.replace('-', "").to_ascii_lowercase());
    let mut unreadable = catalogue.unreadable.iter();
    unreadable.find(|unreadable| Some(unreadable.root.tag) == tag || Some(unreadable.root.snapshot) == id)
}

fn matching(catalogue: &Catalogue, wanted: impl Fn(&Snapshot) -> bool) -> Vec<&Listed> {
    catalogue.snapshots.iter().filter(|listed| wanted(&listed.snapshot)).collect()
}

/// Roots that do not open count: they say what is the matter with them.
fn by_id<'c>(catalogue: &'c Catalogue, reference: &str) -> Result<&'c Listed> {
    let prefix = reference.to_ascii_lowercase();
    if prefix.bytes().filter(u8::is_ascii_hexdigit).count() < ID_DIGITS_MIN {
        return Err(Error::NoSuchSnapshot(reference.to_owned()));
    }
    let readable = matching(catalogue, |snapshot| is_id_prefix(&snapshot.id, &prefix));
    let unreadable: Vec<&Unreadable> =
        catalogue.unreadable.iter().filter(|unreadable| is_id_prefix(&unreadable.root.snapshot, &prefix)).collect();
    match (readable.len(), unreadable.as_slice()) {
        (_, []) => only(reference, readable),
        (0, [unreadable]) => Err(unreadable.error()),
        (count, others) => Err(Error::Ambiguous { reference: reference.to_owned(), count: count + others.len() }),
    }
}

/// A name that is also how the id of another snapshot begins, in as many digits as lists show, may be meant
/// for that one.
fn only_by_name<'c>(catalogue: &'c Catalogue, reference: &str, named: Vec<&'c Listed>) -> Result<&'c Listed> {
    let prefix = reference.to_ascii_lowercase();
    if prefix.bytes().filter(u8::is_ascii_hexdigit).count() >= ID_DIGITS_SHOWN {
        let others = catalogue.snapshots.iter().filter(|listed| is_id_prefix(&listed.snapshot.id, &prefix));
        let others = others.filter(|other| named.iter().all(|one| one.snapshot.id != other.snapshot.id)).count();
        if others > 0 {
            return Err(Error::Ambiguous { reference: reference.to_owned(), count: named.len() + others });
        }
    }
    only(reference, of_owners(catalogue, named))
}

/// Of several with one name those that an owner or the key in use has signed, if there are any: others' do
/// not get in their way.
fn of_owners<'c>(catalogue: &'c Catalogue, named: Vec<&'c Listed>) -> Vec<&'c Listed> {
    let Some(keys) = &catalogue.asked.keys else { return named };
    let owned: Vec<&Listed> = named.iter().copied().filter(|listed| keys.builds_on(listed.signer)).collect();
    if owned.is_empty() { named } else { owned }
}

fn is_id_prefix(id: &SnapshotId, prefix: &str) -> bool {
    let plain = id.to_string();
    plain.starts_with(prefix) || uuid::Uuid::from_bytes(id.0).hyphenated().to_string().starts_with(prefix)
}

fn only<'c>(reference: &str, found: Vec<&'c Listed>) -> Result<&'c Listed> {
    match found.as_slice() {
        [] => Err(Error::NoSuchSnapshot(reference.to_owned())),
        [one] => Ok(one),
        several => Err(Error::Ambiguous { reference: reference.to_owned(), count: several.len() }),
    }
}
