//! What is left out for what it is, whatever its name: what stands in a folder that holds a mark, and files
//! past a length.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::scan::FileKind;
use crate::stat::stat;

/// Name of the mark of a cache (<https://bford.info/cachedir/>).
pub const CACHE_MARK_NAME: &str = "CACHEDIR.TAG";
/// What the mark of a cache begins with.
pub const CACHE_MARK_BEGINS: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Something in a folder that says: leave out what else is here.
#[derive(Debug)]
pub struct Mark {
    name: CString,
    begins: Box<[u8]>,
    /// Whether it was met.
    used: AtomicBool,
}

impl Mark {
    /// Anything of this name; where `begins` is not empty, a file whose content begins so. `None` for what
    /// is no name of a file.
    #[must_use]
    pub fn new(name: &[u8], begins: &[u8]) -> Option<Self> {
        let is_name = !name.is_empty() && !matches!(name, b"." | b"..") && !name.contains(&b'/');
        let name = CString::new(name).ok().filter(|_| is_name)?;
        Some(Self { name, begins: begins.into(), used: AtomicBool::new(false) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.name.to_bytes()
    }

    /// What it begins with; empty for anything.
    #[must_use]
    pub fn begins(&self) -> &[u8] {
        &self.begins
    }

    /// Whether it was met so far.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether what stands under its name in a folder is the mark.
    fn is_met(&self, folder: &OwnedFd, unreadable: Unreadable) -> bool {
        let met = self.begins.is_empty()
            || match self.reads(folder) {
                Ok(met) => met,
                Err(Errno::NOENT) => false,
                Err(_) => unreadable == Unreadable::IsMark,
            };
        if met && !self.is_used() {
            self.used.store(true, Ordering::Relaxed);
        }
        met
    }

    fn reads(&self, folder: &OwnedFd) -> Result<bool, Errno> {
        // Looked at first: no FIFO is to be opened.
        if stat(folder, &self.name)?.kind != FileKind::File {
            return Ok(false);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder.as_fd(), &self.name, flags, Mode::empty())?;
        let mut head = vec![0; self.begins.len()];
        let mut read = 0;
        while read < head.len() {
            match rustix::io::read(&file, &mut head[read..])? {
                0 => return Ok(false),
                more => read += more,
            }
        }
        Ok(head == *self.begins)
    }
}

/// What a mark is taken for that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The folder is captured: nothing is left out that nobody asked for.
    IsNone,
    /// The folder stays as it is: nothing is removed that could not be captured.
    IsMark,
}

/// The rules.
#[derive(Debug, Default)]
pub struct ByContent {
    marks: Vec<Mark>,
    larger_than: Option<u64>,
}

impl ByContent {
    /// Folders with one of these marks, and files of more bytes.
    #[must_use]
    pub fn new(marks: Vec<Mark>, larger_than: Option<u64>) -> Self {
        Self { marks, larger_than }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.larger_than.is_none()
    }

    /// The marks, as given.
    #[must_use]
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The names of the marks of a folder; `has` says whether a name is in it.
    pub(super) fn marks_of(
        &self,
        folder: &OwnedFd,
        unreadable: Unreadable,
        has: impl Fn(&CString) -> bool,
    ) -> Vec<CString> {
        let met = self.marks.iter().filter(|mark| has(&mark.name) && mark.is_met(folder, unreadable));
        met.map(|mark| mark.name.clone()).collect()
    }

    /// Whether a file of so many bytes is too large.
    #[must_use]
    pub fn is_too_large(&self, kind: FileKind, bytes: u64) -> bool {
        kind == FileKind::File && self.larger_than.is_some_and(|most| bytes > most)
    }

    /// Whether there is a largest length.
    pub(super) fn has_largest(&self) -> bool {
        self.larger_than.is_some()
    }
}
