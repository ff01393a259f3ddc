//! Errors of snapshots that travel, and the word and exit code of each.

use copal_engine::Error as EngineError;
use copal_engine::verdict::{ExitCode, Reason, Verdict};

/// A result of an export, an import or a copy.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a snapshot did not travel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it has in common with other operations.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A bundle does not open.
    #[error("the bundle does not open with the given password")]
    BundlePassword,
    /// A bundle that comes from elsewhere and cannot be taken.
    #[error("the bundle is refused: {0}")]
    BadBundle(String),
    /// A bundle that builds on a snapshot that is not here.
    #[error("the bundle holds only what changed since the snapshot {name} ({id}), which this repository does not have")]
    BundleBase {
        /// `APP/NAME` where it was exported.
        name: String,
        /// Its id.
        id: String,
    },
}

impl Error {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        EngineError::Usage(message.into()).into()
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        EngineError::Internal(message.into()).into()
    }

    pub(crate) const fn is_interrupted(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Interrupted))
    }
}

impl From<copal_store::Error> for Error {
    fn from(error: copal_store::Error) -> Self {
        EngineError::from(error).into()
    }
}

impl From<copal_source::Error> for Error {
    fn from(error: copal_source::Error) -> Self {
        EngineError::from(error).into()
    }
}

impl From<&Error> for Verdict {
    fn from(error: &Error) -> Self {
        let (exit, reason) = match error {
            Error::Engine(error) => return error.into(),
            Error::BundlePassword => (ExitCode::WrongKey, Reason::WrongBundlePassword),
            Error::BadBundle(_) => (ExitCode::Integrity, Reason::BadBundle),
            Error::BundleBase { .. } => (ExitCode::Failed, Reason::NoBase),
        };
        Self { exit, reason }
    }
}
