//! Errors of the outside world, each with the path it concerns.

use std::io;
use std::path::{Path, PathBuf};

/// A result of a source.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a scan does to each name.
pub(crate) const LOOKING_AT: &str = "looking at";

/// What went wrong with a path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused or failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// As a verb: "reading", "creating".
        action: &'static str,
        /// Whole path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A name that would leave the tree, or a component that is not what it was.
    #[error("{}: {detail}", path.display())]
    Refused {
        /// Whole path.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A database or its server failed, or refused.
    #[error("{action} {place}: {detail}")]
    Database {
        /// As a verb: "opening", "dumping".
        action: &'static str,
        /// Path, or name of a database.
        place: String,
        /// Cause.
        detail: String,
    },
    /// A source that is damaged, so that a snapshot of it would be none.
    #[error("{place} is damaged: {detail}")]
    Corrupt {
        /// Path, or name of a database.
        place: String,
        /// What was found.
        detail: String,
    },
    /// Somebody else holds it, past the deadline.
    #[error("{place} is in use: {detail}")]
    InUse {
        /// Path, or name of a database.
        place: String,
        /// By whom, or how.
        detail: String,
    },
    /// A program that was run for a source.
    #[error("{program} {detail}")]
    Program {
        /// Its name, without arguments.
        program: String,
        /// How it ended, as a clause.
        detail: String,
    },
    /// A pattern that is none.
    #[error("the pattern {pattern:?} is not valid: {detail}")]
    Pattern {
        /// As given.
        pattern: String,
        /// Why.
        detail: String,
    },
}

impl Error {
    /// The path concerned; patterns, databases and programs have none.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. } | Self::Refused { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The same of the path that `belonging` makes of the one concerned, where it makes one.
    #[must_use]
    pub fn of_path(self, belonging: impl FnOnce(&Path) -> Option<PathBuf>) -> Self {
        match self {
            Self::Io { action, path, source } => Self::Io { action, path: belonging(&path).unwrap_or(path), source },
            Self::Refused { path, detail } => Self::Refused { path: belonging(&path).unwrap_or(path), detail },
            other => other,
        }
    }

    /// Whether it is one name that could not be looked at, and not what a folder of that name holds.
    #[must_use]
    pub fn is_of_a_name(&self) -> bool {
        matches!(self, Self::Io { action: LOOKING_AT, .. })
    }

    /// Whether the system refused for lack of a right.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether the path is simply not there (any more).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.into(), source: source.into() }
    }

    pub(crate) fn refused(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Refused { path: path.into(), detail: detail.into() }
    }
}
