//! Errors of the outside world, each with the path it concerns.

use std::io;
use std::path::PathBuf;

/// A result of a source.
pub type Result<T, E = Error> = std::result::Result<T, E>;

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
    /// A pattern that is none.
    #[error("the pattern {pattern:?} is not valid: {detail}")]
    Pattern {
        /// As given.
        pattern: String,
        /// Why.
        detail: String,
    },
}
