//! What the steps of one deploy share: counters, warnings, the first error, and the points where a test may
//! kill it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use copal_manifest::entry::EntryPath;
use copal_manifest::shown::first_and_more;
use copal_source::target::Unset;

use crate::context::{Context, Monitor, Progress};
use crate::error::{Error, Result};

/// Most warnings, each of its own kind, that are kept; the rest are counted.
const WARNINGS_MAX: usize = 100;
/// Paths that are named where many share one warning.
const PATHS_NAMED_MAX: usize = 5;

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
    warnings: Mutex<Warnings>,
    /// Whether a device that may not be made is left out.
    pub(super) skip_devices: bool,
    skipped: Mutex<Vec<PathBuf>>,
    /// What is made under a name of Copal's own, and where it belongs.
    made: Mutex<Vec<Made>>,
}

/// Something that a deploy makes under a name of its own. Nobody who reads of that name could tell what it
/// was: what is said of it is said of the place where it belongs.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// Its whole path.
    pub(super) path: PathBuf,
    pub(super) belongs: PathBuf,
    /// Whether what is below it has the same names there.
    pub(super) is_tree: bool,
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
            skip_devices: false,
            skipped: Mutex::default(),
            made: Mutex::default(),
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

    /// From now on something is made under a name of its own.
    pub(super) fn makes(&self, made: Made) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(made);
    }

    /// The same for one thing only.
    pub(super) fn while_making<T>(&self, made: Made, making: impl FnOnce() -> Result<T>) -> Result<T> {
        let path = made.path.clone();
        self.makes(made);
        let done = making().map_err(|error| self.told(error));
        self.made.lock().unwrap_or_else(PoisonError::into_inner).retain(|made| made.path != path);
        done
    }

    /// Where something belongs that is made under another name.
    fn belonging(&self, path: &Path) -> Option<PathBuf> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let found = made.iter().rev().find(|made| path.starts_with(&made.path))?;
        let below = path.strip_prefix(&found.path).ok().filter(|below| found.is_tree && !below.as_os_str().is_empty());
        Some(below.map_or_else(|| found.belongs.clone(), |below| found.belongs.join(below)))
    }

    /// An error, told of where things belong.
    pub(super) fn told(&self, error: Error) -> Error {
        error.of_path(&|path| self.belonging(path))
    }

    /// Remembers the first error; every worker stops at its next look.
    pub(super) fn fail(&self, error: Error) {
        let error = self.told(error);
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

    /// Something could not be set.
    pub(super) fn warn(&self, new: Vec<Unset>) {
        if !new.is_empty() {
            let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
            for Unset { path, what } in new {
                warnings.add(what, Some(self.belonging(&path).unwrap_or(path)));
            }
        }
    }

    /// Something else that is to be known.
    pub(super) fn say(&self, what: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).add(what, None);
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
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner)).sentences()
    }
}

/// What could not be set, by what it is: many files share one sentence.
#[derive(Debug, Default)]
struct Warnings {
    kinds: BTreeMap<String, Paths>,
    dropped: u64,
}

/// Files of one warning.
#[derive(Debug, Default)]
struct Paths {
    number: u64,
    /// The first of them in the order of paths.
    first: BTreeSet<PathBuf>,
}

impl Warnings {
    fn add(&mut self, what: String, path: Option<PathBuf>) {
        if self.kinds.len() >= WARNINGS_MAX && !self.kinds.contains_key(&what) {
            self.dropped += 1;
            return;
        }
        let paths = self.kinds.entry(what).or_default();
        paths.number += 1;
        paths.first.extend(path);
        if paths.first.len() > PATHS_NAMED_MAX {
            paths.first.pop_last();
        }
    }

    fn sentences(self) -> Vec<String> {
        let mut sentences: Vec<String> = self.kinds.into_iter().map(|(what, paths)| paths.sentence(&what)).collect();
        sentences.sort_unstable();
        if self.dropped > 0 {
            sentences.push(format!("{} more warnings like these", self.dropped));
        }
        sentences
    }
}

impl Paths {
    fn sentence(&self, what: &str) -> String {
        let named: Vec<String> = self.first.iter().map(|path| path.display().to_string()).collect();
        match named.as_slice() {
            [] => what.to_owned(),
            [path] if self.number == 1 => format!("{path}: {what}"),
            named => {
                let more = self.number.saturating_sub(named.len() as u64);
                format!("of {} paths, {what}: {}", self.number, first_and_more(named, more))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_share_one_sentence() {
        let mut warnings = Warnings::default();
        for number in 0..99 {
            warnings.add("no room".into(), Some(format!("/t/{number:02}").into()));
        }
        warnings.add("another".into(), Some("/t/x".into()));
        warnings.add("said once".into(), None);
        let first = "/t/00, /t/01, /t/02, /t/03, /t/04";
        let wanted =
            ["/t/x: another".to_owned(), format!("of 99 paths, no room: {first} and 94 more"), "said once".into()];
        assert_eq!(warnings.sentences(), wanted);
        let mut warnings = Warnings::default();
        for number in 0..WARNINGS_MAX + 7 {
            warnings.add(format!("kind {number}"), None);
        }
        let said = warnings.sentences();
        assert_eq!(
            (said.len(), said.last().map(String::as_str)),
            (WARNINGS_MAX + 1, Some("7 more warnings like these"))
        );
    }
}
