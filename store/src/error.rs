//! Errors of the store: the variants follow what a caller can do about them.

use std::io;

/// A result of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in the repository. Errors of a source are another type, of another crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No repository stands at the place.
    #[error("there is no Copal repository at {place}")]
    NotARepository {
        /// Where it was looked for.
        place: String,
    },
    /// `init` met a place that is not empty.
    #[error("{place} is not empty, so no repository was made there")]
    NotEmpty {
        /// The place.
        place: String,
    },
    /// No key slot opens with what was given.
    #[error("no key slot of this repository opens with the given password or key")]
    WrongKey,
    /// Written by a newer version; never a sign of damage.
    #[error("{what} has format version {found}; this program reads up to {supported}")]
    Unsupported {
        /// The object or feature.
        what: String,
        /// Its version.
        found: u32,
        /// The highest version known here.
        supported: u32,
    },
    /// An object does not verify.
    #[error("{object} is damaged: {detail}")]
    Damaged {
        /// Name of the object, or of the chunk.
        object: String,
        /// What does not hold.
        detail: String,
    },
    /// An object that must be there is not.
    #[error("{object} is missing from the repository")]
    Missing {
        /// Name of the object, or of the chunk.
        object: String,
    },
    /// The keys do not continue those that were seen before.
    #[error(
        "the keys of the repository do not continue those that were seen before: somebody has put back an earlier state of \
         its folder `keys`"
    )]
    KeysWentBack,
    /// A snapshot of this name exists.
    #[error("the name is taken")]
    NameTaken,
    /// Another process holds what is needed.
    #[error("{what} is held by another process")]
    Busy {
        /// The lease.
        what: String,
    },
    /// The object of this session is gone: a collection may not have waited for it.
    #[error(
        "the session object of this command was removed while it ran, so a collection may have removed what it was about to rely \
         on; it was not completed, and nothing that was there before is lost"
    )]
    SessionLost,
    /// A sync failed before: nothing more is acknowledged by this session.
    #[error("an earlier write of this session failed, so nothing more is acknowledged by it")]
    Poisoned,
    /// Whoever reads was asked to stop: see [`crate::session::Session::stop_when`].
    #[error("interrupted")]
    Interrupted,
    /// A limit of the format was met on write.
    #[error("{what} {}", beyond(*limit))]
    Limit {
        /// What is too large.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A key slot cannot be used or changed so.
    #[error("the key slots cannot be used so: {detail}")]
    KeySlot {
        /// Why.
        detail: String,
    },
    /// The role of the key in use does not include it.
    #[error("a key with the role {role} may not {what}")]
    NotPermitted {
        /// The role of the slot that opened the repository.
        role: crate::roles::Role,
        /// What was asked for, as a verb.
        what: String,
    },
    /// The storage failed; `source` tells disk full, permission, and so on apart.
    #[error("{action} {object}: {source}")]
    Io {
        /// What was being done, as a verb: "reading", "writing".
        action: &'static str,
        /// The object or path.
        object: String,
        /// The cause.
        source: io::Error,
    },
}

/// The action of an [`Error::Io`] that met an object which is to be read.
pub(crate) const READING: &str = "reading";

/// Limits that are no one number are 0.
fn beyond(limit: u64) -> String {
    if limit == 0 { "is more than can be kept".into() } else { format!("exceeds its limit of {limit}") }
}

impl Error {
    /// A [`Error::Damaged`].
    pub fn damaged(object: impl ToString, detail: impl ToString) -> Self {
        Self::Damaged { object: object.to_string(), detail: detail.to_string() }
    }

    /// An [`Error::Io`].
    pub fn io(action: &'static str, object: impl ToString, source: io::Error) -> Self {
        Self::Io { action, object: object.to_string(), source }
    }

    /// Whether nothing can be written where the repository is, by this user or by anybody: a medium that is
    /// only read.
    #[must_use]
    pub fn is_write_refused(&self) -> bool {
        let is_refusal = |kind| matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied);
        matches!(self, Self::Io { source, .. } if is_refusal(source.kind()))
    }

    /// Whether there is no space left where the repository is, for anybody or for this user.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let is_full = |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        matches!(self, Self::Io { source, .. } if is_full(source.kind()))
    }

    /// Whether it was written by a newer version: nothing is wrong with it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }

    /// Whether the bytes do not verify or are gone, as opposed to a failure of the environment.
    #[must_use]
    pub fn is_integrity(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. })
    }

    /// Whether it is the affair of one object, so that others may be sound: damaged, gone, newer, or not for
    /// the key or the user.
    #[must_use]
    pub fn concerns_one_object(&self) -> bool {
        self.is_integrity() || self.is_denied() || matches!(self, Self::Unsupported { .. } | Self::NotPermitted { .. })
    }

    /// Whether the storage does not let this user read an object: one that another user has put there for
    /// nobody else says no more than one that does not open.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Io { action: READING, source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether what does not verify is a key: then nothing is known of what it opens.
    #[must_use]
    pub fn is_of_keys(&self) -> bool {
        matches!(self, Self::Damaged { object, .. } if object.starts_with("keys/"))
    }
}

/// Why one object does not open, kept for whoever needs what is in it.
#[derive(Clone, Debug)]
pub(crate) enum Unreadable {
    Damaged { object: String, detail: String },
    Newer { what: String, found: u32, supported: u32 },
    Closed { role: crate::roles::Role, what: String },
    Denied { object: String },
}

impl Unreadable {
    /// Errors that are no object's own are given back.
    pub(crate) fn of(error: Error) -> Result<Self> {
        match error {
            Error::Damaged { object, detail } => Ok(Self::Damaged { object, detail }),
            Error::Unsupported { what, found, supported } => Ok(Self::Newer { what, found, supported }),
            Error::NotPermitted { role, what } => Ok(Self::Closed { role, what }),
            error if !error.is_denied() => Err(error),
            Error::Io { object, .. } => Ok(Self::Denied { object }),
            error => Err(error),
        }
    }
}

impl From<&Unreadable> for Error {
    fn from(unreadable: &Unreadable) -> Self {
        match unreadable.clone() {
            Unreadable::Damaged { object, detail } => Self::Damaged { object, detail },
            Unreadable::Newer { what, found, supported } => Self::Unsupported { what, found, supported },
            Unreadable::Closed { role, what } => Self::NotPermitted { role, what },
            Unreadable::Denied { object } => Self::io(READING, object, io::ErrorKind::PermissionDenied.into()),
        }
    }
}
