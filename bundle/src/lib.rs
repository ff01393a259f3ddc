//! Snapshots that travel: bundles, which are files under a passphrase of their own, and copies between
//! repositories.
//!
//! What travels is described by items (module `walk`) and built again by a receiver (module `receive`),
//! whatever carries it. A bundle is untrusted until it was read wholly; nothing is stored before that.
//! Decision and consequences: `docs/decisions/bundles.md`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod copy;
mod error;
mod export;
pub mod hub_tar;
mod import;
mod native;
mod receive;
mod walk;

use std::sync::atomic::{AtomicBool, Ordering};

use copal_engine::Error as EngineError;
use copal_engine::context::{Context, Monitor};
use copal_manifest::snapshot::Snapshot;
use copal_store::config::{CutRule, Parameters};
use copal_store::session::Session;

pub use copy::{CopyReport, CopyRequest, copy};
pub use error::{Error, Result};
pub use export::{ExportReport, ExportRequest, ExportTarget, export};
#[doc(hidden)]
pub use import::fuzz_native;
pub use import::{BundleSummary, ImportReport, ImportRequest, Imported, import, import_within, is_native, verify};

/// What can be watched and stopped without a repository.
#[derive(Clone, Copy)]
pub struct Watch<'w> {
    /// Hears how it goes.
    pub monitor: &'w dyn Monitor,
    /// Set to stop.
    pub interrupt: &'w AtomicBool,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch(…)")
    }
}

impl<'w> Watch<'w> {
    /// That of a context.
    #[must_use]
    pub fn of(context: &'w Context) -> Self {
        Self { monitor: &*context.monitor, interrupt: &context.interrupt }
    }

    fn check_interrupt(self) -> Result<()> {
        if self.interrupt.load(Ordering::Relaxed) { Err(EngineError::Interrupted.into()) } else { Ok(()) }
    }
}

/// What decides where content is cut: who has the same secret and sizes keeps the cuts of others.
fn cuts_of(session: &Session) -> Vec<u8> {
    let Parameters { cut_rule, chunk_bytes_min, chunk_bytes_average, chunk_bytes_max, .. } =
        session.repository().config().parameters;
    let rule: u8 = match cut_rule {
        CutRule::AesWindow => 1,
        CutRule::FastCdc2020 => 2,
    };
    let mut cuts = session.repository().keys().cutter_secret().to_vec();
    cuts.push(rule);
    for size in [chunk_bytes_min, chunk_bytes_average, chunk_bytes_max] {
        cuts.extend_from_slice(&size.to_le_bytes());
    }
    cuts
}

/// `APP/NAME`.
fn name_of(snapshot: &Snapshot) -> String {
    Snapshot::full_name(&snapshot.app, &snapshot.name)
}

/// Whether two snapshots have a source in common, so that one can be told by its differences from the other.
fn are_related(snapshot: &Snapshot, base: &Snapshot) -> bool {
    snapshot.sources.iter().any(|source| walk::same_label(base, source).is_some())
}
