//! A source as the pipeline takes it: where its entries come from, and what they are recorded as.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copal_manifest::snapshot::{SourceKind, SourceRecord};
use copal_source::read::{PinnedBytes, TreeReader};
use copal_source::scan::{Listed, ScanEntry, scan};

use crate::catalogue::recorded_path;
use crate::context::Context;
use crate::create::SourceRequest;
use crate::create::clones::KeptClones;
use crate::create::exclusions::Exclusions;
use crate::create::left_out::LeftOut;
use crate::error::Result;

/// A source to be stored.
#[derive(Debug)]
pub struct Input {
    /// Its label.
    pub label: String,
    /// Its kind; none: a tree or a file, as it stands.
    pub kind: Option<SourceKind>,
    /// The path that is recorded.
    pub path: Vec<u8>,
    /// Where it comes from.
    pub content: InputContent,
    /// What to leave out.
    pub exclusions: Exclusions,
    /// Take only these paths of it.
    pub only: Option<Arc<Listed>>,
    /// Cut at fixed places, whatever its first bytes look like.
    pub page_structured: bool,
    /// What was stored of it a moment ago, in the same session: what to compare with, instead of the parent
    /// snapshot's.
    pub before: Option<SourceRecord>,
    /// Databases that are met are read through SQLite: nothing holds them still.
    pub through_sqlite: bool,
    /// Clones that may tell what of a large file need not be read.
    pub clones: Option<KeptClones>,
}

/// Where entries and bytes come from.
#[derive(Debug)]
pub enum InputContent {
    /// A folder or a file, scanned.
    Path(PathBuf),
    /// One file that is none of the system.
    Pinned(Arc<dyn PinnedBytes>),
    /// Entries as they were found under the freeze; the content of those that changed is in a clone.
    Cloned {
        /// The clone.
        clone: PathBuf,
        /// In path order, the root first.
        entries: Vec<ScanEntry>,
    },
}

/// Entries in path order, problems among them.
pub(super) type Entries = Box<dyn Iterator<Item = copal_source::Result<ScanEntry>>>;

impl Input {
    /// A folder or a file as asked for.
    pub(super) fn of_request(source: &SourceRequest, exclusions: &Exclusions) -> Result<Self> {
        Ok(Self {
            label: source.label.clone(),
            kind: None,
            path: recorded_path(&source.path)?.into_os_string().into_vec(),
            content: InputContent::Path(source.path.clone()),
            exclusions: exclusions.clone(),
            only: None,
            page_structured: false,
            before: None,
            through_sqlite: true,
            clones: None,
        })
    }

    /// Whether files are read from a clone, whose metadata are not theirs.
    pub(super) fn is_clone(&self) -> bool {
        matches!(self.content, InputContent::Cloned { .. })
    }

    /// What is left out of it: of a folder or a file of the system.
    pub(super) fn left_out(&self, context: &Context) -> Result<LeftOut> {
        match &self.content {
            InputContent::Path(_) | InputContent::Cloned { .. } if !self.path.is_empty() => {
                let path = Path::new(OsStr::from_bytes(&self.path));
                let left_out = LeftOut::of(context, path, &self.exclusions)?.but_for(self.only.as_ref());
                Ok(if self.is_clone() { left_out.unwatched() } else { left_out })
            }
            _ => Ok(LeftOut::default()),
        }
    }

    /// What whole paths in it begin with.
    pub(super) fn root(&self) -> PathBuf {
        match &self.content {
            InputContent::Path(path) | InputContent::Cloned { clone: path, .. } => path.clone(),
            InputContent::Pinned(_) => PathBuf::new(),
        }
    }

    /// Where databases are met that are read through SQLite.
    pub(super) fn databases_below(&self) -> Option<PathBuf> {
        match &self.content {
            InputContent::Path(path) if self.through_sqlite => Some(path.clone()),
            _ => None,
        }
    }

    /// Begins to go through it.
    pub(super) fn open(&self, left_out: &LeftOut, threads: usize) -> Result<(Entries, TreeReader)> {
        match &self.content {
            InputContent::Path(path) => {
                let options = left_out.scan_options(self.exclusions.one_file_system, threads);
                Ok((Box::new(scan(path, &options)?), TreeReader::open(path)?))
            }
            InputContent::Pinned(bytes) => {
                let entry = ScanEntry::plain(Box::default(), bytes.stat());
                Ok((Box::new(std::iter::once(Ok(entry))), TreeReader::of_pinned(Arc::clone(bytes))))
            }
            InputContent::Cloned { clone, entries } => {
                Ok((Box::new(entries.clone().into_iter().map(Ok)), TreeReader::open(clone)?))
            }
        }
    }
}
