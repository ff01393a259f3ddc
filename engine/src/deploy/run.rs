//! What the steps of one deploy share: counters, warnings, the first error, and the points where a test may
//! kill it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use copal_manifest::entry::EntryPath;

use crate::context::{Context, Monitor, Progress};
use crate::error::{Error, Result};

/// Most warnings that are kept; the rest are counted.
const WARNINGS_MAX: usize = 100;

/// Lets a test end a deploy as `kill -9` would, at any step. `true`: die here.
#[doc(hidden)]
pub trait CrashPoints: Sync {
    /// A step is about to be done.
    fn reached(&self, step: &str) -> bool;
}

/// Never dies.
#[derive(Clone, Copy, Debug, Default)]
#[doc(hidden)]
pub struct NoCrash;

impl CrashPoints for NoCrash {
    fn reached(&self, _step: &str) -> bool {
        false
    }
}

/// Fires the crash points and remembers that one did: after that nothing may be tidied up.
pub(super) struct Steps<'a> {
    points: &'a dyn CrashPoints,
    dead: AtomicBool,
}

impl<'a> Steps<'a> {
    pub(super) fn new(points: &'a dyn CrashPoints) -> Self {
        Self { points, dead: AtomicBool::new(false) }
    }

    /// A step is about to be done.
    pub(super) fn reach(&self, step: &str) -> Result<()> {
        if self.is_dead() || self.points.reached(step) {
            self.dead.store(true, Ordering::SeqCst);
            return Err(Error::Internal(format!("killed by a test before: {step}")));
        }
        Ok(())
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

/// One deploy under way.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) steps: Steps<'a>,
    pub(super) bytes_written: AtomicU64,
    files_done: AtomicU64,
    files_total: AtomicU64,
    bytes_total: AtomicU64,
    reported_at: AtomicU64,
    failed: AtomicBool,
    first_error: Mutex<Option<Error>>,
    warnings: Mutex<Vec<String>>,
    warnings_dropped: AtomicU64,
    /// Whether a device that may not be made is left out.
    pub(super) skip_devices: bool,
    skipped: Mutex<Vec<PathBuf>>,
}

/// Progress is reported at most this often.
const REPORT_EVERY_NANOSECONDS: u64 = 50_000_000;

impl<'a> Run<'a> {
    pub(super) fn new(context: &'a Context, points: &'a dyn CrashPoints) -> Self {
        Self {
            context,
            steps: Steps::new(points),
            bytes_written: AtomicU64::new(0),
            files_done: AtomicU64::new(0),
            files_total: AtomicU64::new(0),
            bytes_total: AtomicU64::new(0),
            reported_at: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            first_error: Mutex::default(),
            warnings: Mutex::default(),
            warnings_dropped: AtomicU64::new(0),
            skip_devices: false,
            skipped: Mutex::default(),
        }
    }

    pub(super) fn expect_work(&self, files: u64, bytes: u64) {
        self.files_total.store(files, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn file_done(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
        self.report();
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        self.report();
    }

    fn report(&self) {
        let now = self.context.clock.monotonic_nanoseconds();
        let before = self.reported_at.load(Ordering::Relaxed);
        if now.saturating_sub(before) < REPORT_EVERY_NANOSECONDS
            || self.reported_at.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        self.monitor().progress(Progress {
            files_done: self.files_done.load(Ordering::Relaxed),
            files_total: self.files_total.load(Ordering::Relaxed),
            bytes_done: self.bytes_written.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            total_known: true,
        });
    }

    pub(super) fn monitor(&self) -> &dyn Monitor {
        self.context.monitor.as_ref()
    }

    /// Remembers the first error; every worker stops at its next look.
    pub(super) fn fail(&self, error: Error) {
        self.first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.context.interrupt.load(Ordering::Relaxed)
    }

    /// The first error of the workers, or the interrupt.
    pub(super) fn outcome(&self) -> Result<()> {
        match self.first_error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => self.context.check_interrupt(),
        }
    }

    pub(super) fn warn(&self, new: Vec<String>) {
        if new.is_empty() {
            return;
        }
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in new {
            if warnings.len() < WARNINGS_MAX {
                warnings.push(warning);
            } else {
                self.warnings_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A path of the snapshot that is not made.
    pub(super) fn skip(&self, path: &EntryPath) {
        let path = PathBuf::from(OsString::from_vec(path.to_slashes()));
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }

    /// Whether a path was left out: then its other names are, too.
    pub(super) fn has_skipped(&self, path: &EntryPath) -> bool {
        let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        !skipped.is_empty() && skipped.contains(&PathBuf::from(OsString::from_vec(path.to_slashes())))
    }

    pub(super) fn take_skipped(&self) -> Vec<PathBuf> {
        let mut skipped = std::mem::take(&mut *self.skipped.lock().unwrap_or_else(PoisonError::into_inner));
        skipped.sort_unstable();
        skipped
    }

    pub(super) fn take_warnings(&self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner));
        warnings.sort_unstable();
        let dropped = self.warnings_dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            warnings.push(format!("{dropped} more warnings like these"));
        }
        warnings
    }
}
