//! Counts what is done and tells the monitor, not too often.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::context::{Context, Progress};

/// Least time between two reports.
const REPORT_NANOSECONDS: u64 = 50_000_000;

/// Progress of a capture; shared by the workers.
pub(crate) struct Meter<'c> {
    context: &'c Context,
    files_done: AtomicU64,
    files_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    total_known: AtomicBool,
    reported: AtomicU64,
}

impl<'c> Meter<'c> {
    pub(crate) fn new(context: &'c Context) -> Self {
        Self {
            context,
            files_done: AtomicU64::new(0),
            files_total: AtomicU64::new(0),
            bytes_done: AtomicU64::new(0),
            bytes_total: AtomicU64::new(0),
            total_known: AtomicBool::new(false),
            reported: AtomicU64::new(0),
        }
    }

    /// A file was found by the scan.
    pub(crate) fn found(&self, bytes: u64) {
        self.files_total.fetch_add(1, Ordering::Relaxed);
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The scan is over.
    pub(crate) fn all_found(&self) {
        self.total_known.store(true, Ordering::Relaxed);
    }

    /// A file is done.
    pub(crate) fn file_done(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
        self.report();
    }

    /// Bytes are done: stored, or known to be unchanged.
    pub(crate) fn bytes_done(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.report();
    }

    fn report(&self) {
        let now = self.context.clock.monotonic_nanoseconds();
        let last = self.reported.load(Ordering::Relaxed);
        let due = now.saturating_sub(last) >= REPORT_NANOSECONDS;
        if due && self.reported.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.tell();
        }
    }

    /// Reports now.
    pub(crate) fn tell(&self) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.context.monitor.progress(Progress {
            files_done: read(&self.files_done),
            files_total: read(&self.files_total),
            bytes_done: read(&self.bytes_done),
            bytes_total: read(&self.bytes_total),
            total_known: self.total_known.load(Ordering::Relaxed),
        });
    }
}
