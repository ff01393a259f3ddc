//! What an operation needs from the world: repository, clock, monitor, local folders, a way to stop.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use copal_manifest::entry::Timestamp;
use copal_store::repository::Repository;
use copal_store::session::Session;

use crate::catalogue::Memory;

/// The one door to the time of day. Never used to decide a deletion in the store.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Nanoseconds since some fixed moment, never going back; for durations in reports.
    fn monotonic_nanoseconds(&self) -> u64;
}

/// Figures of progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files done.
    pub files_done: u64,
    /// Files known so far.
    pub files_total: u64,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes known so far.
    pub bytes_total: u64,
    /// Whether the totals are final.
    pub total_known: bool,
}

/// Hears how an operation goes. Called from any thread, at most some tens of times a second.
pub trait Monitor: Send + Sync {
    /// A phase begins: "scanning", "storing", "committing", "writing", "verifying".
    fn phase(&self, name: &'static str);
    /// Progress of the phase.
    fn progress(&self, progress: Progress);
    /// Something a person should know and that ends nothing.
    fn notice(&self, message: &str);
}

/// Hears nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct SilentMonitor;

impl Monitor for SilentMonitor {
    fn phase(&self, _name: &'static str) {}
    fn progress(&self, _progress: Progress) {}
    fn notice(&self, _message: &str) {}
}

/// A file or a folder that Copal lives by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPlace {
    /// What it is, with its article: "the repository".
    pub what: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

impl OwnPlace {
    /// The repository that a command works on.
    pub const REPOSITORY: &'static str = "the repository";

    /// A place as a program names it.
    #[must_use]
    pub fn new(what: &'static str, path: impl Into<PathBuf>) -> Self {
        Self { what, path: path.into() }
    }
}

/// Everything an operation is given.
#[derive(Clone)]
pub struct Context {
    /// The open repository.
    pub repository: Repository,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Progress and notices.
    pub monitor: Arc<dyn Monitor>,
    /// Folder for what can be rebuilt (the catalogue); `None`: go without.
    pub cache_folder: Option<PathBuf>,
    /// What this process remembers of roots it has opened; `None` for one that ends with its command.
    pub memory: Option<Arc<Memory>>,
    /// Folder for local state (pointers to deploy journals, kept materialisations); `None`: go without.
    pub state_folder: Option<PathBuf>,
    /// What else the program lives by, beside the two folders: the repository's folder, the key file. No
    /// command writes there.
    pub own_places: Vec<OwnPlace>,
    /// Set to stop at the next safe point with [`crate::Error::Interrupted`].
    pub interrupt: Arc<AtomicBool>,
    /// Worker threads; 0: as many as cores.
    pub threads: usize,
    /// Name of this machine, for the record.
    pub host: String,
    /// Name of the user who runs this, for the record; empty: unknown.
    pub user: String,
    /// Version of the program, for the record.
    pub program: String,
}

impl Context {
    /// [`crate::Error::Interrupted`] once the interrupt is set.
    pub fn check_interrupt(&self) -> crate::Result<()> {
        if self.interrupt.load(Ordering::Relaxed) { Err(crate::Error::Interrupted) } else { Ok(()) }
    }

    /// A session, which reads no more once the interrupt is set.
    pub fn session(&self) -> crate::Result<Session> {
        let session = Session::begin(&self.repository)?;
        session.stop_when(&self.interrupt);
        Ok(session)
    }

    /// A session for reading alone, registered where that is possible: a read-only repository is read too.
    pub fn reading_session(&self) -> crate::Result<Session> {
        let session = Session::begin_reading(&self.repository)?;
        session.stop_when(&self.interrupt);
        if !session.is_registered() {
            self.monitor.notice(
                "the repository cannot be written here, so no gc elsewhere knows of this command; it reads all the same",
            );
        }
        Ok(session)
    }

    /// Worker threads, resolved.
    #[must_use]
    pub fn worker_threads(&self) -> usize {
        if self.threads > 0 {
            self.threads
        } else {
            std::thread::available_parallelism().map_or(4, std::num::NonZero::get)
        }
    }
}
