//! What running work is given: a way to be stopped, and a monitor that everybody who watches the operation
//! hears.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use copal_engine::{Monitor, Progress};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::operation::{Operation, ProgressView};

/// Most notices that an operation keeps; one of a million unreadable files must not fill the memory.
const NOTICES_MAX: usize = 200;

/// A passphrase: wiped when dropped, never shown, never serialised.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps it.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// Its text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What running work is given.
#[derive(Clone, Debug)]
pub struct Work {
    interrupt: Arc<AtomicBool>,
    view: watch::Sender<Operation>,
}

impl Work {
    pub(super) fn new(interrupt: Arc<AtomicBool>, view: watch::Sender<Operation>) -> Self {
        Self { interrupt, view }
    }

    /// Set to stop the work at its next safe point.
    #[must_use]
    pub fn interrupt(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupt)
    }

    /// What caused the work, for the record: `schedule`, or a person or program.
    #[must_use]
    pub fn trigger(&self) -> &'static str {
        if self.view.borrow().actor == "schedule" { "scheduled" } else { "manual" }
    }

    /// Whether it should stop.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}

impl Monitor for Work {
    fn phase(&self, name: &'static str) {
        self.view.send_modify(|operation| {
            operation.progress = ProgressView { phase: name.into(), ..ProgressView::default() };
        });
    }

    fn progress(&self, progress: Progress) {
        self.view.send_modify(|operation| {
            let view = &mut operation.progress;
            view.files_done = progress.files_done;
            view.files_total = progress.files_total;
            view.bytes_done = progress.bytes_done;
            view.bytes_total = progress.bytes_total;
            view.total_known = progress.total_known;
        });
    }

    fn notice(&self, message: &str) {
        self.view.send_modify(|operation| {
            if operation.notices.len() < NOTICES_MAX {
                operation.notices.push(message.to_owned());
            }
        });
    }
}
