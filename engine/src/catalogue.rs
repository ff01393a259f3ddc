//! The catalogue: which snapshots are there. Roots are the truth; redb is a cache of them. (Skeleton of the agreed interface.)

use copal_manifest::snapshot::Snapshot;
use copal_store::repository::RootName;
use copal_store::session::Session;

use crate::context::Context;
use crate::error::Result;

/// A snapshot as listed: its root, with the newest label applied to `tags` and `pinned`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Name of the root object.
    pub root: RootName,
    /// SHA-256 of the root's payload as committed, in hexadecimal.
    pub digest: String,
    /// The snapshot; tags and pin as labelled last.
    pub snapshot: Snapshot,
}

/// A root that could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its name.
    pub root: RootName,
    /// Why.
    pub detail: String,
}

/// All snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// By creation time, oldest first.
    pub snapshots: Vec<Listed>,
    /// Damaged or newer roots: named, never hiding the others.
    pub unreadable: Vec<Unreadable>,
}

impl Catalogue {
    /// Reads the catalogue: one listing, and only roots that the cache lacks.
    pub fn load(_context: &Context) -> Result<Self> {
        todo!()
    }
    /// The same from the roots that a session listed.
    pub fn load_in(_context: &Context, _session: &Session) -> Result<Self> {
        todo!()
    }
    /// By name, `APP/NAME`, id or unambiguous id prefix (4 or more hex digits, with or without dashes), `latest`, `latest:APP`.
    pub fn find(&self, _reference: &str) -> Result<&Listed> {
        todo!()
    }
}

/// Replaces tags (`None`: leave) and pin (`None`: leave) of a snapshot.
pub fn relabel(
    _context: &Context,
    _reference: &str,
    _set: &[(String, String)],
    _remove: &[String],
    _pinned: Option<bool>,
) -> Result<Listed> {
    todo!()
}
