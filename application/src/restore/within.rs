//! A target that cannot be exchanged: a mount point, or a subvolume. The new state is built in it, and its
//! entries change places with the old ones, name by name. In between the folder is neither; which names of
//! ours are in it tells how far it came, so that it can always be taken back.
//!
//! The names, all in the target: `staged` is the new state before the switch; `.top` an empty folder with the
//! metadata of the old top folder, there before anything is moved; `.old` the old entries; `.in` is `staged`
//! once all old entries are out.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use copal_engine::deploy::{Top, refuse_mounts, remove_whole};
use copal_engine::state::{Known, is_not_found};
use copal_source::scan::{FileKind, FileTime};
use copal_source::target::{TargetMetadata, TargetTree, rename_new};
use serde::{Deserialize, Serialize};

use super::carry::{self, Carried};
use crate::error::{Error, Result, failed};

/// When a target was last changed: what is built in it changes that, and nobody should notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Times {
    /// Before anything was built in it, in seconds and nanoseconds.
    pub(super) before: (i64, u32),
    /// When that had begun; none: it is not known.
    pub(super) after: Option<(i64, u32)>,
}

impl Times {
    /// The time that the target would have by others alone.
    fn of_others(self, found: FileTime) -> FileTime {
        match self.after {
            Some(after) if after != (found.seconds, found.nanoseconds) => found,
            _ => FileTime { seconds: self.before.0, nanoseconds: self.before.1 },
        }
    }
}

/// When a folder was changed last.
pub(super) fn time_of(folder: &Path) -> Result<(i64, u32)> {
    let FileTime { seconds, nanoseconds } = metadata_of(folder)?.modified;
    Ok((seconds, nanoseconds))
}

/// Which folder a target is.
pub(super) fn identity_of(path: &Path) -> Result<Known> {
    Ok(TargetTree::open(path)?.identity(b"")?.into())
}

/// That the folder at a path is still the one that the deploy was begun in: where nothing is mounted any
/// more, or something else, nothing of it is seen, and all of it waits.
pub(super) fn expect(path: &Path, known: Option<Known>) -> Result<()> {
    match identity_of(path) {
        Ok(found) if known.is_none_or(|known| known == found) => Ok(()),
        Err(error) if !matches!(&error, Error::Engine(error) if is_not_found(error)) => Err(error),
        _ => {
            let detail = "is not the folder that a deploy to it was begun in: mount that there, or put it back";
            Err(copal_source::Error::Refused { path: path.to_owned(), detail: detail.into() }.into())
        }
    }
}

/// Whether files in a target can share extents; it looks as before afterwards.
pub(super) fn shares_extents(target: &Path) -> Result<bool> {
    let standing = metadata_of(target)?;
    let shares = TargetTree::open(target)?.shares_extents()?;
    set(target, &standing)?;
    Ok(shares)
}

/// The names of one switch.
struct Names<'a> {
    staged: &'a Path,
    top: PathBuf,
    old: PathBuf,
    inside: PathBuf,
    making: PathBuf,
}

impl<'a> Names<'a> {
    fn of(staged: &'a Path) -> Self {
        let with = |suffix: &str| {
            let mut name = OsString::from(staged);
            name.push(suffix);
            PathBuf::from(name)
        };
        Self { staged, top: with(".top"), old: with(".old"), inside: with(".in"), making: with(".making") }
    }

    fn all(&self) -> [&Path; 5] {
        [self.staged, &self.top, &self.old, &self.inside, &self.making]
    }

    /// Moves every entry but our own.
    fn move_all(&self, from: &Path, to: &Path) -> Result<()> {
        let io = |error| failed("listing", from, error);
        for entry in fs::read_dir(from).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if !self.all().contains(&path.as_path()) {
                let name = path.file_name().unwrap_or_default();
                fs::rename(&path, to.join(name)).map_err(|error| failed("renaming", &path, error))?;
            }
        }
        [from, to].into_iter().try_for_each(|folder| Ok(TargetTree::open(folder)?.sync_directory(b"")?))
    }
}

/// Where the old entries are after the switch, in a folder with the metadata of the old top folder.
pub(super) fn old_of(staged: &Path) -> PathBuf {
    Names::of(staged).old
}

/// Gives the new state its place.
pub(super) fn switch(path: &Path, staged: &Path, times: &Times, carried: &Carried) -> Result<()> {
    let names = Names::of(staged);
    refuse_mounts(path, Top::Entered)?;
    let wanted = metadata_of(staged)?;
    let standing = metadata_of(path)?;
    let standing = TargetMetadata { modified: times.of_others(standing.modified), ..standing };
    make(&names.old)?;
    // With its metadata or not at all.
    make(&names.making)?;
    set(&names.making, &standing)?;
    rename_new(&names.making, &names.top)?;
    TargetTree::open(path)?.sync_directory(b"")?;
    names.move_all(path, &names.old)?;
    rename_new(staged, &names.inside)?;
    names.move_all(&names.inside, path)?;
    carry::move_all(carried, &names.old, path)?;
    set(&names.old, &standing)?;
    set(path, &wanted)
}

/// Puts the old state back, wherever the switch had come to, and removes the new one.
pub(super) fn undo(path: &Path, staged: &Path, times: &Times, carried: &Carried) -> Result<()> {
    let names = Names::of(staged);
    if names.top.exists() {
        refuse_mounts(path, Top::Entered)?;
        if names.inside.exists() {
            // All old entries are out: what is carried is on its way in, or was taken along on the way back.
            carry::move_all(carried, path, &names.old)?;
            carry::move_all(carried, &names.inside, &names.old)?;
            // What stands there is of the new state, and what came to it since.
            names.move_all(path, &names.inside)?;
            rename_new(&names.inside, staged)?;
        }
        if names.old.exists() {
            names.move_all(&names.old, path)?;
        }
        let standing = metadata_of(&names.top)?;
        set(path, &standing)?;
        names.all().into_iter().try_for_each(remove_whole)?;
        // The time of the folder changed as they went.
        return set(path, &standing);
    }
    if !names.all().into_iter().any(Path::exists) {
        return Ok(());
    }
    let standing = metadata_of(path)?;
    names.all().into_iter().try_for_each(remove_whole)?;
    set(path, &TargetMetadata { modified: times.of_others(standing.modified), ..standing })
}

/// Removes the old state, or gives it the name under which it stays.
pub(super) fn finish(path: &Path, staged: &Path, kept: Option<&Path>) -> Result<()> {
    let names = Names::of(staged);
    if !names.all().into_iter().any(Path::exists) {
        return Ok(());
    }
    let standing = metadata_of(path)?;
    if let Some(kept) = kept.filter(|_| names.old.exists()) {
        rename_new(&names.old, kept)?;
    }
    names.all().into_iter().try_for_each(remove_whole)?;
    set(path, &standing)
}

fn make(folder: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o700).create(folder).map_err(|error| failed("creating", folder, error))
}

fn metadata_of(folder: &Path) -> Result<TargetMetadata> {
    let reader = TargetTree::open(folder)?.reader();
    let (found, attributes) = (reader.stat(b"")?, reader.attributes(b"")?);
    Ok(TargetMetadata { mode: found.mode, uid: found.uid, gid: found.gid, modified: found.modified, attributes })
}

fn set(folder: &Path, metadata: &TargetMetadata) -> Result<()> {
    let tree = TargetTree::open(folder)?;
    // What cannot be set could not be set on what was built either, which has said so.
    let _ = tree.set_metadata(b"", FileKind::Directory, metadata)?;
    Ok(tree.sync_directory(b"")?)
}
