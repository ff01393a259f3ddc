//! Carries a committed journal out. Every step can be repeated: after a crash all of them are done again from
//! the first one.

use std::fs::File;

use copal_source::read::OpenFile;
use copal_source::scan::FileKind;
use copal_source::target::{TargetFile, TargetMetadata, TargetTree, Unset};

use super::journal::{Commit, Journal, RANGES, Step, staged_path, steps};
use super::place::WriteRoot;
use super::run::Steps;
use crate::error::{Error, Result};

/// Bytes copied from the journal at a time.
const COPY_BYTES: usize = 4 << 20;
/// Patched files past which one sync of the whole filesystem is cheaper than one for each.
const SINGLE_SYNCS_MAX: u64 = 128;

/// What [`apply`] leaves to be done or said.
pub(super) struct Applied {
    pub(super) warnings: Vec<Unset>,
    /// The metadata of the target's top folder: a journal inside it changes its time by going.
    pub(super) top: Option<TargetMetadata>,
}

/// Does all steps and makes them durable. They reach nothing but the target that stands open, whatever they
/// say.
pub(super) fn apply(
    root: &WriteRoot,
    journal: &Journal,
    commit: &Commit,
    listed: File,
    crash: &Steps<'_>,
) -> Result<Applied> {
    let mut applier = Applier {
        root: root.tree.clone(),
        only: root.file.clone(),
        journal: journal.folder.clone(),
        ranges: None,
        buffer: Vec::new(),
        warnings: Vec::new(),
        patched: None,
        top: None,
        sync_each: commit.steps <= SINGLE_SYNCS_MAX,
    };
    for (number, step) in steps(listed).enumerate() {
        crash.reach(&format!("step {number}"))?;
        applier.step(step?)?;
    }
    crash.reach("syncing the target")?;
    if !applier.sync_each {
        applier.root.sync_filesystem()?;
    }
    Ok(Applied { warnings: applier.warnings, top: applier.top })
}

struct Applier {
    root: TargetTree,
    /// The one name in it that is the target; none: all of it is.
    only: Option<Vec<u8>>,
    journal: TargetTree,
    ranges: Option<OpenFile>,
    buffer: Vec<u8>,
    warnings: Vec<Unset>,
    /// The file patched last: its metadata come next.
    patched: Option<(Vec<u8>, TargetFile)>,
    top: Option<TargetMetadata>,
    /// Few steps: each makes itself durable. Else one sync of the filesystem does it at the end.
    sync_each: bool,
}

impl Applier {
    fn step(&mut self, step: Step) -> Result<()> {
        if self.only.as_deref().is_some_and(|only| only != step.path()) {
            return Err(Error::Internal("a step leaves the one file that is the target".into()));
        }
        match step {
            Step::Remove { path } => {
                self.remove(&path)?;
                self.sync_names(&path)
            }
            Step::Folder { path } => self.folder(&path),
            Step::Place { path, staged, over_folder } => self.place(&path, staged, over_folder),
            Step::Link { path, first } => {
                self.remove(&path)?;
                self.root.create_hard_link(&path, &first)?;
                self.sync_names(&path)
            }
            Step::Patch { path, bytes, ranges, holes } => self.patch(&path, bytes, &ranges, &holes),
            Step::Metadata { path, kind, metadata } => {
                let kind = FileKind::of_number(kind).ok_or_else(|| Error::Internal("a step names no kind".into()))?;
                self.metadata(&path, kind, &metadata.into())
            }
        }
    }

    fn metadata(&mut self, path: &[u8], kind: FileKind, metadata: &TargetMetadata) -> Result<()> {
        if let Some((_, file)) = self.patched.take_if(|(patched, _)| patched == path) {
            self.warnings.extend(file.set_metadata(metadata)?);
            return if self.sync_each { Ok(file.sync()?) } else { Ok(()) };
        }
        self.warnings.extend(self.root.set_metadata(path, kind, metadata)?);
        if path.is_empty() {
            self.top = Some(metadata.clone());
        }
        match kind {
            FileKind::Directory if self.sync_each => match self.root.sync_directory(path) {
                // Its own mode may keep a plain user from opening it: then only the whole filesystem can be
                // synced.
                Err(error) if error.is_permission_denied() => self.sync_each = false,
                synced => synced?,
            },
            FileKind::Directory => {}
            // It may not be possible to open it: then only the whole filesystem can be synced.
            _ => self.sync_each = false,
        }
        Ok(())
    }

    fn sync_names(&self, path: &[u8]) -> Result<()> {
        if self.sync_each {
            let parent = path.iter().rposition(|&b| b == b'/').map_or(&b""[..], |at| &path[..at]);
            self.root.sync_directory(parent)?;
        }
        Ok(())
    }

    fn exists(tree: &TargetTree, path: &[u8]) -> Result<Option<FileKind>> {
        match tree.reader().stat(path) {
            Ok(stat) => Ok(Some(stat.kind)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn remove(&self, path: &[u8]) -> Result<()> {
        match self.root.remove(path) {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn folder(&self, path: &[u8]) -> Result<()> {
        match Self::exists(&self.root, path)? {
            Some(FileKind::Directory) => return Ok(()),
            Some(_) => self.remove(path)?,
            None => {}
        }
        self.root.create_directory(path)?;
        self.sync_names(path)
    }

    fn place(&self, path: &[u8], staged: u64, over_folder: bool) -> Result<()> {
        let from = staged_path(staged);
        // A staged file that is gone has been placed already, before a crash.
        if Self::exists(&self.journal, &from)?.is_none() {
            return Ok(());
        }
        if over_folder && Self::exists(&self.root, path)? == Some(FileKind::Directory) {
            self.remove(path)?;
        }
        self.root.replace_from(path, &self.journal, &from)?;
        self.sync_names(path)
    }

    fn patch(&mut self, path: &[u8], bytes: u64, ranges: &[(u64, u64, u64)], holes: &[(u64, u64)]) -> Result<()> {
        let file = self.root.open_file(path)?;
        file.set_bytes(bytes)?;
        let staged = match &self.ranges {
            Some(staged) => staged.clone(),
            None => self.ranges.insert(self.journal.reader().open_file(RANGES.as_bytes())?).clone(),
        };
        for &(offset, bytes, from) in ranges {
            let mut done = 0;
            while done < bytes {
                self.buffer.resize(usize::try_from(bytes - done).unwrap_or(COPY_BYTES).min(COPY_BYTES), 0);
                let read = staged.read_at(from + done, &mut self.buffer)?;
                if read != self.buffer.len() {
                    return Err(Error::Internal("the journal's ranges are shorter than its steps say".into()));
                }
                file.write_at(offset + done, &self.buffer)?;
                done += read as u64;
            }
        }
        for &(offset, bytes) in holes {
            file.punch_hole(offset, bytes)?;
        }
        self.patched = Some((path.to_vec(), file));
        Ok(())
    }
}
