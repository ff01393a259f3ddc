//! Errors of operations on applications, and the word and exit code of each.

use std::io;
use std::path::Path;

use copal_engine::Error as EngineError;
use copal_engine::verdict::{ExitCode, Reason, Verb, Verdict};

/// A result of an operation on an application.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on an application did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it has in common with other operations.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A mistake in the configuration.
    #[error(transparent)]
    Configuration(#[from] Box<crate::Mistake>),
    /// A hook failed.
    #[error("the {when} hook {what:?} of {service:?} {detail}")]
    Hook {
        /// The service.
        service: String,
        /// `pre`, `post` …
        when: &'static str,
        /// What was run.
        what: String,
        /// How it ended.
        detail: String,
    },
    /// The application would not understand the snapshot.
    #[error("{label:?} has the schema {found}, and the application here knows {supported}")]
    SchemaNewer {
        /// The source.
        label: String,
        /// In the snapshot.
        found: String,
        /// Here.
        supported: String,
    },
    /// Nobody can say whether the application would understand the snapshot.
    #[error(
        "{label:?} has the schema {found:?}, and the application here knows {supported:?}: which of them is newer is not known"
    )]
    SchemaUnordered {
        /// The source.
        label: String,
        /// In the snapshot.
        found: String,
        /// Here.
        supported: String,
    },
    /// A snapshot that is not whole.
    #[error("the snapshot {snapshot:?} is {phase} and cannot be deployed")]
    NotReady {
        /// The snapshot.
        snapshot: String,
        /// Its phase.
        phase: String,
    },
    /// Another snapshot than the one that was meant.
    #[error("the snapshot {snapshot:?} has the digest {found}, not {wanted}")]
    OtherDigest {
        /// The snapshot.
        snapshot: String,
        /// Its digest.
        found: String,
        /// As asked for.
        wanted: String,
    },
    /// A deploy of an application was taken back.
    #[error("the deploy to {app:?} failed and what stood there stands there again: {cause}")]
    RolledBack {
        /// The application.
        app: String,
        /// Cause.
        cause: Box<Error>,
    },
    /// What stands at a source could neither be captured nor be put aside.
    #[error("what stands at {label:?} would be in no snapshot and nowhere else: {detail}")]
    NotKept {
        /// The source.
        label: String,
        /// Why.
        detail: String,
    },
    /// The application was not held still for long enough, or not at all.
    #[error("the application {app:?} was let go on before all was captured: {detail}")]
    FreezeBroken {
        /// The application.
        app: String,
        /// What happened.
        detail: String,
    },
}

impl Error {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        EngineError::Usage(message.into()).into()
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        EngineError::Internal(message.into()).into()
    }

    /// The same of what is made at one path and belongs to another.
    pub(crate) fn belonging(self, made: &Path, belongs: &Path) -> Self {
        match self {
            Self::Engine(error) => error.belonging(made, belongs).into(),
            other => other,
        }
    }

    /// Whether something else is under way there.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Store(copal_store::Error::Busy { .. })))
    }

    /// Whether somebody asked it to stop.
    #[must_use]
    pub const fn is_interrupted(&self) -> bool {
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
        use ExitCode::Failed;
        let (exit, reason) = match error {
            Error::Engine(error) => return error.into(),
            Error::RolledBack { cause, .. } => return Self::from(&**cause).during(Verb::Deploy),
            Error::Configuration(_) => (ExitCode::Usage, Reason::Configuration),
            Error::Hook { .. } => (Failed, Reason::Hook),
            Error::SchemaNewer { .. } => (Failed, Reason::SchemaNewer),
            Error::SchemaUnordered { .. } => (Failed, Reason::SchemaUnordered),
            Error::NotReady { .. } => (Failed, Reason::NotReady),
            Error::OtherDigest { .. } => (ExitCode::Integrity, Reason::OtherDigest),
            Error::NotKept { .. } => (Failed, Reason::NotKept),
            Error::FreezeBroken { .. } => (Failed, Reason::FreezeBroken),
        };
        Self { exit, reason }
    }
}

/// A failure of the operating system at a path.
pub(crate) fn failed(action: &'static str, path: &Path, error: io::Error) -> Error {
    copal_engine::deploy::failed(action, path, error).into()
}
