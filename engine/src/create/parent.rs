//! The snapshot that a new one is compared with.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use copal_manifest::snapshot::{Snapshot, SourceRecord};
use copal_store::session::Session;

use crate::catalogue::{Catalogue, Listed, is_same_path};
use crate::context::Context;
use crate::error::Result;

/// A parent. It says what a source held, never that the chunks of it are still stored: a snapshot that was
/// deleted may have been put back, so every chunk that is taken over is looked up.
#[derive(Debug)]
pub(super) struct Parent {
    listed: Listed,
}

impl Parent {
    /// The one asked for, or the newest of the same application that has one of the sources (label and
    /// recorded path).
    pub(super) fn choose(
        context: &Context,
        session: &Session,
        app: &str,
        places: &[(String, Vec<u8>)],
        reference: Option<&str>,
    ) -> Result<Option<Self>> {
        let catalogue = Catalogue::load_in(context, session)?;
        // What a parent says of a file that looks unchanged is taken for what is in it, so it must be
        // somebody's whose word counts.
        let counts = |listed: &&Listed| context.repository.keys().builds_on(listed.signer);
        let listed = match reference {
            Some(reference) => {
                let listed = catalogue.find(reference)?;
                if !counts(&listed) {
                    context.monitor.notice(&format!(
                        "the snapshot {reference} was made by another key, which is no owner's: nothing is compared with it"
                    ));
                }
                Some(listed).filter(counts)
            }
            None => catalogue.snapshots.iter().rev().filter(counts).find(|listed| {
                let snapshot = &listed.snapshot;
                snapshot.app == app && places.iter().any(|(label, path)| record_of(snapshot, label, path).is_some())
            }),
        };
        Ok(listed.map(|listed| Self { listed: listed.clone() }))
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.listed.snapshot
    }

    pub(super) fn listed(&self) -> &Listed {
        &self.listed
    }

    /// Its record of a source.
    pub(super) fn source(&self, label: &str, path: &[u8]) -> Option<Arc<SourceRecord>> {
        Some(Arc::new(record_of(self.snapshot(), label, path)?.clone()))
    }
}

/// A snapshot's record of the same path, or else of the same label.
fn record_of<'s>(snapshot: &'s Snapshot, label: &str, path: &[u8]) -> Option<&'s SourceRecord> {
    let path = Path::new(OsStr::from_bytes(path));
    let same_path = |record: &&SourceRecord| is_same_path(&record.path, path);
    let same_label = |record: &&SourceRecord| !label.is_empty() && record.label == label;
    snapshot.sources.iter().find(same_path).or_else(|| snapshot.sources.iter().find(same_label))
}
