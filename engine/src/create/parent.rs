//! The snapshot that a new one is compared with.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use copal_manifest::snapshot::{Snapshot, SourceRecord};
use copal_store::session::Session;

use crate::catalogue::{Catalogue, Listed};
use crate::context::Context;
use crate::create::{CreateRequest, SourceRequest};
use crate::error::Result;

/// A parent and how far it is trusted.
pub(super) struct Parent {
    listed: Listed,
    trusted: bool,
}

/// The parent's record of one source.
#[derive(Clone)]
pub(super) struct ParentSource {
    pub(super) record: Arc<SourceRecord>,
    /// Whether what it refers to is known to be in the repository; else every chunk of it is looked up.
    pub(super) trusted: bool,
}

impl Parent {
    /// The one asked for, or the newest of the same application that has one of the sources.
    pub(super) fn choose(context: &Context, session: &Session, request: &CreateRequest) -> Result<Option<Self>> {
        let catalogue = Catalogue::load_in(context, session)?;
        let listed = match &request.parent {
            Some(reference) => Some(catalogue.find(reference)?),
            None => catalogue.snapshots.iter().rev().find(|listed| {
                let snapshot = &listed.snapshot;
                snapshot.app == request.app
                    && request.sources.iter().any(|source| record_of(snapshot, source).is_some())
            }),
        };
        let trusting = |listed: &Listed| Ok(Self { listed: listed.clone(), trusted: session.trusts(&listed.root)? });
        listed.map(trusting).transpose()
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.listed.snapshot
    }

    /// Its record of a source.
    pub(super) fn source(&self, source: &SourceRequest) -> Option<ParentSource> {
        let record = Arc::new(record_of(self.snapshot(), source)?.clone());
        Some(ParentSource { record, trusted: self.trusted })
    }
}

/// A snapshot's record of the same path, or else of the same label.
fn record_of<'s>(snapshot: &'s Snapshot, source: &SourceRequest) -> Option<&'s SourceRecord> {
    let path = std::path::absolute(&source.path).unwrap_or_else(|_| source.path.clone());
    let same_path = |record: &&SourceRecord| record.path == path.as_os_str().as_bytes();
    let same_label = |record: &&SourceRecord| !source.label.is_empty() && record.label == source.label;
    snapshot.sources.iter().find(same_path).or_else(|| snapshot.sources.iter().find(same_label))
}
