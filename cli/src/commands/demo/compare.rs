//! Two trees, compared byte for byte: path, kind, mode, modification time, link target, and the hash of every
//! content.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::exit_code::ProgramError;

/// A tree as it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    entries: BTreeMap<PathBuf, Standing>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    bytes: u64,
    content: Option<blake3::Hash>,
    link: Option<PathBuf>,
}

impl Fingerprint {
    /// Reads every byte.
    pub(super) fn of(folder: &Path) -> Result<Self, ProgramError> {
        let mut entries = BTreeMap::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let whole = if path.as_os_str().is_empty() { folder.to_owned() } else { folder.join(&path) };
            let failed = |error| ProgramError::file("reading", &whole, error);
            let standing = Standing::of(&whole).map_err(failed)?;
            if whole.is_dir() && standing.link.is_none() {
                for entry in fs::read_dir(&whole).map_err(failed)? {
                    pending.push(path.join(entry.map_err(failed)?.file_name()));
                }
            }
            entries.insert(path, standing);
        }
        Ok(Self { entries })
    }

    /// Files, and their bytes.
    pub(super) fn totals(&self) -> (u64, u64) {
        let files = self.entries.values().filter(|standing| standing.content.is_some());
        files.fold((0, 0), |(files, bytes), standing| (files + 1, bytes + standing.bytes))
    }

    /// Names and contents alone.
    #[cfg(test)]
    pub(super) fn contents(&self) -> Vec<(&Path, Option<blake3::Hash>)> {
        self.entries.iter().map(|(path, standing)| (path.as_path(), standing.content)).collect()
    }

    /// In words, the first path at which this tree is not the expected one.
    pub(super) fn first_difference(&self, expected: &Self) -> Option<String> {
        for (path, standing) in &expected.entries {
            match self.entries.get(path) {
                None => return Some(format!("{} is missing", path.display())),
                Some(found) if found.content != standing.content => {
                    return Some(format!("{} has other bytes", path.display()));
                }
                Some(found) if found != standing => {
                    return Some(format!("{} has other metadata: {found:?} instead of {standing:?}", path.display()));
                }
                Some(_) => {}
            }
        }
        let extra = self.entries.keys().find(|path| !expected.entries.contains_key(*path));
        extra.map(|path| format!("{} should not be there", path.display()))
    }
}

impl Standing {
    fn of(path: &Path) -> std::io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        let content = if found.is_file() {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(path)?)?;
            Some(hasher.finalize())
        } else {
            None
        };
        Ok(Self {
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            modified: (found.mtime(), found.mtime_nsec()),
            bytes: if found.is_file() { found.len() } else { 0 },
            content,
            link: found.is_symlink().then(|| fs::read_link(path)).transpose()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: nothing that differs passes. Method: one byte, one name, one mode, one time changed at a time.

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[track_caller]
    fn check(spoil: impl FnOnce(&Path), expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("f")).unwrap();
        fs::write(path.join("f/a"), [7; 100_000]).unwrap();
        let before = Fingerprint::of(path).unwrap();
        assert_eq!(before.first_difference(&before), None);
        assert_eq!(before.totals(), (1, 100_000));
        spoil(path);
        let difference = Fingerprint::of(path).unwrap().first_difference(&before).unwrap();
        assert!(difference.contains(expected), "{difference}");
    }

    #[test]
    fn every_difference_is_found() {
        check(
            |path| {
                let mut bytes = vec![7; 100_000];
                bytes[77_777] = 8;
                fs::write(path.join("f/a"), bytes).unwrap();
            },
            "f/a has other bytes",
        );
        check(|path| fs::remove_file(path.join("f/a")).unwrap(), "f");
        check(|path| fs::rename(path.join("f"), path.join("g")).unwrap(), "");
        check(
            |path| fs::set_permissions(path.join("f/a"), fs::Permissions::from_mode(0o600)).unwrap(),
            "f/a has other metadata",
        );
    }
}
