//! The folders of a repository: made for a new one, and again where they were lost.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::backend::{Backend, ObjectKind};
use crate::local::{EntryKind, LocalBackend, TEMPORARY};
use crate::{Error, Result};

/// Folders of a repository, made by `prepare`.
pub(super) const FOLDERS: &[&str] =
    &["keys", "packs", "index", "snapshots", "labels", "condemned", "sessions", "leases", TEMPORARY];
/// Folders above a new repository that `init` makes at most.
const PARENTS_MAX: usize = 64;

impl LocalBackend {
    /// Git, object stores and some archivers keep no empty folders. Where the configuration is, the
    /// repository is: what it lacks of its folders was empty, and is made again.
    pub(super) fn make_lost_folders(&self) -> Result<()> {
        if self.list(ObjectKind::Config)?.is_empty() {
            return Err(Error::NotARepository { place: self.place() });
        }
        let mut touched = BTreeSet::from([self.root.clone()]);
        for folder in FOLDERS {
            let path = self.root.join(folder);
            self.create_folder(&path)?;
            touched.insert(path);
        }
        self.sync_folders(&touched)
    }

    pub(super) fn create_folder(&self, path: &Path) -> Result<()> {
        match self.files.create_folder(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::io("creating", path.display(), error))
            }
            _ => Ok(()),
        }
    }

    /// The same; `false` where the folder that it should stand in is not there.
    pub(super) fn create_folder_in(&self, path: &Path) -> Result<bool> {
        match self.files.create_folder(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::io("creating", path.display(), error))
            }
            _ => Ok(true),
        }
    }

    /// Whether a place without configuration is empty, or only what an interrupted `init` left.
    pub(super) fn is_free(&self) -> Result<bool> {
        for entry in self.entries(&self.root)? {
            let name: &OsStr = &entry.name;
            if entry.kind != EntryKind::Folder || !FOLDERS.iter().any(|folder| name == *folder) {
                return Ok(false);
            }
            let harmless = name == "keys" || name == TEMPORARY || self.entries(&self.root.join(name))?.is_empty();
            if !harmless {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the folders down to the repository's; returns those whose names must be synced.
    pub(super) fn create_root(&self) -> Result<BTreeSet<PathBuf>> {
        let mut missing = Vec::new();
        let mut folder = self.root.as_path();
        loop {
            match self.files.create_folder(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && missing.len() < PARENTS_MAX => {
                    missing.push(folder);
                    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                        folder = parent;
                        continue;
                    }
                    return Err(Error::io("creating", self.place(), error));
                }
                Err(error) => return Err(Error::io("creating", self.place(), error)),
            }
            break;
        }
        let above = |folder: &Path| match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut touched = BTreeSet::from([above(folder), self.root.clone()]);
        for folder in missing.into_iter().rev() {
            self.create_folder(folder)?;
            touched.insert(above(folder));
        }
        // A file has no entries: then the place is taken.
        match self.files.entries(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::NotEmpty { place: self.place() }),
            _ => Ok(touched),
        }
    }
}
