//! Errors of operations. The program maps each to an exit code and a hint.

use std::path::{Path, PathBuf};

/// A result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository.
    #[error(transparent)]
    Store(copal_store::Error),
    /// The source or the target.
    #[error(transparent)]
    Source(#[from] copal_source::Error),
    /// No snapshot matches.
    #[error("no snapshot matches {0:?}")]
    NoSuchSnapshot(String),
    /// `latest`, where no key that may create now has signed any.
    #[error(
        "{reference:?} matches no snapshot of a key that may create now; the newest of all is {newest:?} ({id}): {why}"
    )]
    OnlyFormerKeys {
        /// As given.
        reference: String,
        /// `APP/NAME` of the newest.
        newest: String,
        /// Its id.
        id: String,
        /// What is the matter with its key.
        why: &'static str,
    },
    /// Several snapshots match.
    #[error("{reference:?} matches {count} snapshots")]
    Ambiguous {
        /// As given.
        reference: String,
        /// How many.
        count: usize,
    },
    /// The name exists.
    #[error("a snapshot named {name:?} exists already{}", .holder.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
    NameTaken {
        /// `APP/NAME`.
        name: String,
        /// Which snapshot has it: id, time, host, user, sources; none: nobody can say.
        holder: Option<String>,
    },
    /// A name that cannot be one.
    #[error("{name:?} cannot be a snapshot's name: {detail}")]
    BadName {
        /// As given.
        name: String,
        /// Why.
        detail: String,
    },
    /// No such path in the snapshot.
    #[error("the snapshot {snapshot} has no path {path:?}")]
    NoSuchPath {
        /// The snapshot.
        snapshot: String,
        /// The path.
        path: String,
    },
    /// The repository shows keys that do not continue those that this machine has seen.
    #[error(
        "the keys of the repository are not those that this machine has seen, nor newer ones: somebody has put back an earlier \
         state of its folder `keys`, in which a key may count that was removed since. Nothing was read or stored"
    )]
    KeysWentBack {
        /// Where it is remembered.
        remembered: PathBuf,
    },
    /// The target is not empty and nobody agreed to its replacement.
    #[error("{} is not empty", .0.display())]
    TargetNotEmpty(PathBuf),
    /// Too little space.
    #[error("{} has {} free, and the deploy needs {}", place.display(), mebibytes(*free), mebibytes(*needed))]
    NoSpace {
        /// Where.
        place: PathBuf,
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
    },
    /// The target was left, or put back, as it was.
    #[error("the deploy to {} failed and the target is as it was: {cause}", target.display())]
    DeployFailed {
        /// The target.
        target: PathBuf,
        /// Cause.
        cause: Box<Error>,
    },
    /// A place that cannot be deployed to as it is.
    #[error("{} cannot be deployed to: {detail}", target.display())]
    UnfitTarget {
        /// The target.
        target: PathBuf,
        /// Why, and what would help.
        detail: String,
    },
    /// A place that Copal itself lives by.
    #[error("{} {relation} {what} {}, which copal itself lives by", target.display(), place.display())]
    OwnPlace {
        /// Where something was to be written, or taken from.
        target: PathBuf,
        /// "is", "lies in" or "holds".
        relation: &'static str,
        /// What it would have hurt: "the repository".
        what: &'static str,
        /// Where that is.
        place: PathBuf,
    },
    /// A deploy mode that this target cannot have.
    #[error("{} cannot be deployed in mode {mode}: {detail}", target.display())]
    ModeUnavailable {
        /// The target.
        target: PathBuf,
        /// The mode.
        mode: &'static str,
        /// Why.
        detail: String,
    },
    /// A request that contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// A pinned snapshot was named.
    #[error("the snapshot {0:?} is pinned")]
    Pinned(String),
    /// Stopped on request; what was stored is found again by the next run.
    #[error("interrupted")]
    Interrupted,
    /// A worker thread died.
    #[error("an internal error: {0}")]
    Internal(String),
}

impl From<copal_store::Error> for Error {
    fn from(error: copal_store::Error) -> Self {
        match error {
            copal_store::Error::Interrupted => Self::Interrupted,
            error => Self::Store(error),
        }
    }
}

impl Error {
    /// The same of the path that `belonging` makes of the one concerned, where it makes one.
    pub(crate) fn of_path(self, belonging: &dyn Fn(&Path) -> Option<PathBuf>) -> Self {
        match self {
            Self::Source(error) => Self::Source(error.of_path(belonging)),
            Self::DeployFailed { target, cause } => Self::DeployFailed {
                target: belonging(&target).unwrap_or(target),
                cause: Box::new(cause.of_path(belonging)),
            },
            other => other,
        }
    }

    /// The same of what is made at one path and belongs to another.
    #[must_use]
    pub fn belonging(self, made: &Path, belongs: &Path) -> Self {
        self.of_path(&|path| {
            let below = path.strip_prefix(made).ok()?;
            Some(if below.as_os_str().is_empty() { belongs.to_owned() } else { belongs.join(below) })
        })
    }
}

/// As people read a size.
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}
