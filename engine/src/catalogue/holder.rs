//! Who has a name that somebody else wants.

use copal_manifest::shown::name as shown_name;
use copal_manifest::snapshot::Snapshot;

use copal_store::Error as StoreError;
use copal_store::repository::{Repository, RootName, SignedPayload};
use copal_store::roles::Action;
use copal_store::session::DurableIndex;

use crate::catalogue::{Catalogue, plain_path};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::moment::shown as shown_time;

/// Sources that are named.
const SOURCES_MAX: usize = 3;

/// The error of a create under a name that is taken: it says which snapshot has it, and where that is neither
/// an owner's nor one's own, whose key has signed it. What cannot be looked up is left out, the name is taken
/// all the same.
pub fn name_taken(context: &Context, name: String) -> Error {
    let repository = &context.repository;
    let tag = repository.keys().name_tag(name.as_bytes());
    let mut roots = repository.roots().unwrap_or_default();
    roots.retain(|root| root.tag == tag && !is_of_another_name(repository, root).unwrap_or(false));
    let root = roots.first().copied();
    let catalogue = root.and_then(|_| Catalogue::load(context).ok());
    let listed = catalogue.iter().flat_map(|catalogue| &catalogue.snapshots);
    let holder = listed.filter(|listed| Some(listed.root) == root).map(|listed| {
        let of_key = listed.signer.filter(|_| !repository.keys().builds_on(listed.signer)).map(|signer| {
            let label = repository.keys().author(signer).label.unwrap_or_else(|| signer.to_string());
            format!(", signed by the key {}", shown_name(label.as_bytes()))
        });
        described(&listed.snapshot) + &of_key.unwrap_or_default()
    });
    let may_read = repository.keys().role().may(Action::OpenManifests);
    let unread = if may_read { ", which cannot be read" } else { "" };
    let by_id = || root.map(|root| format!("{}{unread}", uuid::Uuid::from_bytes(root.snapshot.0)));
    let holder = holder.collect::<Vec<_>>().pop().or_else(by_id);
    Error::NameTaken { name, holder }
}

/// Whether a root stands under the tag of a name that its snapshot does not have: whoever may create can put
/// such a one there, and takes nobody's name with it. One that does not open has the name as far as anybody
/// knows; who may open none believes the tag.
pub(crate) fn is_of_another_name(repository: &Repository, root: &RootName) -> copal_store::Result<bool> {
    if !repository.keys().role().may(Action::OpenManifests) {
        return Ok(false);
    }
    let SignedPayload { payload, signer } = match repository.read_signed_root(root) {
        Err(StoreError::Missing { .. }) => return Ok(!repository.roots()?.contains(root)),
        Err(error) if error.concerns_one_object() => return Ok(false),
        read => read?,
    };
    match Snapshot::decode("a root", &payload) {
        Ok(snapshot) => {
            let full = Snapshot::full_name(&snapshot.app, &snapshot.name);
            Ok(snapshot.id != root.snapshot || repository.keys().name_tag(full.as_bytes()) != root.tag)
        }
        // An owner's may be hurt, or a newer program's; another key's says nothing.
        Err(error) => Ok(error.is_integrity() && !repository.keys().builds_on(signer)),
    }
}

/// Whether a snapshot among some roots has a name.
pub fn has_name(repository: &Repository, roots: &[RootName], name: &str) -> Result<bool> {
    let tag = repository.keys().name_tag(name.as_bytes());
    for root in roots.iter().filter(|root| root.tag == tag) {
        if !is_of_another_name(repository, root)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Publishes the root of a snapshot under its name.
pub fn publish_named(context: &Context, durable: DurableIndex<'_>, snapshot: &Snapshot, payload: &[u8]) -> Result<u64> {
    let repository = &context.repository;
    let name = Snapshot::full_name(&snapshot.app, &snapshot.name);
    let root = RootName { tag: repository.keys().name_tag(name.as_bytes()), snapshot: snapshot.id };
    match durable.publish_root_beside(root, payload, &|other| is_of_another_name(repository, other)) {
        Err(StoreError::NameTaken) => Err(name_taken(context, name)),
        published => Ok(published?),
    }
}

/// "ID, taken 2026-11-21 07:12:06 UTC on alder by alice of /srv/data".
#[must_use]
pub fn described(snapshot: &Snapshot) -> String {
    let mut text = uuid::Uuid::from_bytes(snapshot.id.0).to_string();
    text += &format!(", taken {} UTC", shown_time(snapshot.created));
    if !snapshot.host.is_empty() {
        text += &format!(" on {}", shown_name(snapshot.host.as_bytes()));
    }
    if !snapshot.user.is_empty() {
        text += &format!(" by {}", shown_name(snapshot.user.as_bytes()));
    }
    let sources = snapshot.sources.iter().take(SOURCES_MAX).map(|source| match source.path.as_slice() {
        [] if source.label.is_empty() => source.kind.name().to_owned(),
        [] => shown_name(source.label.as_bytes()),
        path => shown_name(plain_path(path).as_os_str().as_encoded_bytes()),
    });
    let more = if snapshot.sources.len() > SOURCES_MAX { " …" } else { "" };
    let sources: Vec<String> = sources.collect();
    if sources.is_empty() { text } else { format!("{text} of {}{more}", sources.join(", ")) }
}
