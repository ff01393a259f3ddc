//! Which snapshots are meant: those of a host, of a path, of an application, with a tag.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use copal_manifest::snapshot::Snapshot;

use crate::error::{Error, Result};

/// Chooses snapshots. What is empty asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Filter {
    /// One of these took it.
    pub hosts: Vec<String>,
    /// It has each of these among its sources; absolute.
    pub paths: Vec<PathBuf>,
    /// It has each of these tags.
    pub tags: Vec<(String, String)>,
    /// It is of one of these applications; the empty one: of none.
    pub apps: Vec<String>,
}

impl Filter {
    /// Whether it chooses anything at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a snapshot is one of those that are meant.
    #[must_use]
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        (self.hosts.is_empty() || self.hosts.contains(&snapshot.host))
            && self.paths.iter().all(|path| snapshot.sources.iter().any(|source| is_same_path(&source.path, path)))
            && self.has_tags(&snapshot.tags)
            && (self.apps.is_empty() || self.apps.contains(&snapshot.app))
    }

    /// Whether these tags have all that are asked for.
    #[must_use]
    pub fn has_tags(&self, tags: &[(String, String)]) -> bool {
        self.tags.iter().all(|tag| tags.contains(tag))
    }
}

/// The path that is recorded of a source: absolute, without what does not matter (a slash at its end, doubled
/// ones, dots), so that one place has one. What is above two dots is what the system says it is.
pub fn recorded_path(path: &Path) -> Result<PathBuf> {
    let failed = |error| Error::Usage(format!("{}: {error}", path.display()));
    let absolute: PathBuf = std::path::absolute(path).map_err(failed)?.components().collect();
    let parts: Vec<Component<'_>> = absolute.components().collect();
    let Some(last) = parts.iter().rposition(|part| *part == Component::ParentDir) else { return Ok(absolute) };
    let (above, below): (PathBuf, PathBuf) = (parts[..=last].iter().collect(), parts[last + 1..].iter().collect());
    // What is not there is for others to tell.
    Ok(above.canonicalize().map_or(absolute, |real| real.join(below).components().collect()))
}

/// A recorded path without what does not matter: a slash at its end, doubled ones, dots.
#[must_use]
pub fn plain_path(recorded: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(recorded)).components().collect()
}

/// Whether a source was taken from this path.
#[must_use]
pub fn is_same_path(recorded: &[u8], path: &Path) -> bool {
    !recorded.is_empty() && Path::new(OsStr::from_bytes(recorded)) == path
}
