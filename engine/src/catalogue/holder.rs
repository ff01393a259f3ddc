//! Who has a name that somebody else wants.

use copal_manifest::shown::name as shown_name;
use copal_manifest::snapshot::Snapshot;

use crate::catalogue::{Catalogue, plain_path};
use crate::context::Context;
use crate::error::Error;
use crate::moment::shown as shown_time;

/// Sources that are named.
const SOURCES_MAX: usize = 3;

/// The error of a create under a name that is taken: it says which snapshot has it. What cannot be looked up
/// is left out, the name is taken all the same.
pub(crate) fn name_taken(context: &Context, name: String) -> Error {
    let tag = context.repository.keys().name_tag(name.as_bytes());
    let roots = context.repository.roots().unwrap_or_default();
    let root = roots.into_iter().find(|root| root.tag == tag);
    let catalogue = root.and_then(|_| Catalogue::load(context).ok());
    let listed = catalogue.iter().flat_map(|catalogue| &catalogue.snapshots);
    let holder = listed.filter(|listed| Some(listed.root) == root).map(|listed| described(&listed.snapshot)).next();
    let by_id = || root.map(|root| uuid::Uuid::from_bytes(root.snapshot.0).to_string());
    Error::NameTaken { name, holder: holder.or_else(by_id) }
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
