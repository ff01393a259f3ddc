//! What an error is called: one word and one exit code for each, the same for the program, for the daemon and
//! in records.
//!
//! The words and the numbers are an interface that scripts are built on: more may be added, what stands here
//! stays. What a person should do next is not decided here: a terminal says it in commands, the daemon in
//! routes.

use std::io;

use copal_source::Error as SourceError;
use copal_store::Error as StoreError;

use crate::error::Error;

/// Exit codes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// Failed, and no other code says how.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// Done, but some source files could not be read.
    SomeUnread = 3,
    /// No repository there.
    NoRepository = 10,
    /// Busy past the deadline.
    Busy = 11,
    /// Wrong password or key.
    WrongKey = 12,
    /// Written by a newer version.
    Newer = 13,
    /// Permission.
    Permission = 68,
    /// Something does not verify.
    Integrity = 69,
    /// A deadline passed.
    Deadline = 78,
    /// Deploy or restore failed, the target as it was.
    DeployFailed = 79,
    /// Create failed.
    CreateFailed = 86,
    /// Interrupted.
    Interrupted = 130,
}

/// What a failure without an exit code of its own is named after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verb {
    /// A create.
    Create,
    /// A deploy.
    Deploy,
    /// Anything else.
    #[default]
    Other,
}

/// How an error is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// The exit code.
    pub exit: ExitCode,
    /// The word.
    pub reason: Reason,
}

/// Each reason, its word, and what it means.
macro_rules! reasons {
    ($($(#[$meaning:meta])* $reason:ident = $word:literal,)*) => {
        /// Why something did not succeed, as a word for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$meaning])* $reason,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$reason,)*];

            /// The word.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$reason => $word,)* }
            }
        }
    };
}

reasons! {
    /// No snapshot matches.
    NoSuchSnapshot = "no-such-snapshot",
    /// `latest`, where no key that may create now has signed any.
    OnlyFormerKeys = "only-former-keys",
    /// Several snapshots match.
    Ambiguous = "ambiguous",
    /// The name exists.
    NameTaken = "name-taken",
    /// A name that cannot be one.
    BadName = "bad-name",
    /// No such path in the snapshot.
    NoSuchPath = "no-such-path",
    /// Nobody agreed to the replacement of what stands there.
    TargetNotEmpty = "target-not-empty",
    /// Less space than a deploy needs.
    NoSpace = "no-space",
    /// A place that cannot be deployed to as it is.
    UnfitTarget = "unfit-target",
    /// A place that Copal itself lives by.
    OwnPlace = "own-place",
    /// A deploy mode that this target cannot have.
    ModeUnavailable = "mode-unavailable",
    /// A request that contradicts itself.
    Usage = "usage",
    /// A pinned snapshot was named.
    Pinned = "pinned",
    /// A mistake in the configuration.
    Configuration = "configuration",
    /// A hook failed.
    Hook = "hook",
    /// The application would not understand the snapshot.
    SchemaNewer = "schema-newer",
    /// Nobody can say whether the application would understand the snapshot.
    SchemaUnordered = "schema-unordered",
    /// A snapshot that is not whole.
    NotReady = "not-ready",
    /// Another snapshot than the one that was meant.
    OtherDigest = "other-digest",
    /// What a deploy replaces could not be kept.
    NotKept = "not-kept",
    /// The application was let go on too early.
    FreezeBroken = "freeze-broken",
    /// A bundle does not open.
    WrongBundlePassword = "wrong-bundle-password",
    /// A bundle that cannot be taken.
    BadBundle = "bad-bundle",
    /// A bundle that builds on a snapshot that is not here.
    NoBase = "no-base",
    /// Stopped on request.
    Interrupted = "interrupted",
    /// A defect of Copal.
    Internal = "internal",
    /// No repository there.
    NoRepository = "no-repository",
    /// No repository can be made where something is.
    NotEmpty = "not-empty",
    /// No key slot opens.
    WrongKey = "wrong-key",
    /// Written by a newer version.
    NewerFormat = "newer-format",
    /// An object of the repository does not verify.
    Damaged = "damaged",
    /// An object of the repository is gone.
    Missing = "missing",
    /// Another process is at it.
    Busy = "busy",
    /// The object of the session was removed while it ran.
    SessionLost = "session-lost",
    /// An earlier write failed.
    WriteFailed = "write-failed",
    /// A limit of the format.
    Limit = "limit",
    /// Key slots cannot be used so.
    KeySlot = "key-slot",
    /// Keys that this machine has seen are gone from the repository.
    KeysWentBack = "keys-went-back",
    /// The key's role does not include it.
    Role = "role",
    /// Something odd in the source or the target.
    Refused = "refused",
    /// A database or its server.
    Database = "database",
    /// A source that is damaged itself.
    SourceDamaged = "source-damaged",
    /// A source or target that somebody uses.
    InUse = "in-use",
    /// Another program failed.
    Program = "program",
    /// A pattern that is none.
    BadPattern = "bad-pattern",
    /// The operating system forbids it.
    Permission = "permission",
    /// A filesystem that is mounted read-only.
    ReadOnly = "read-only",
    /// The disk or a quota is full.
    DiskFull = "disk-full",
    /// The place of the repository.
    Storage = "storage",
    /// Files outside of the repository.
    Files = "files",
}

impl ExitCode {
    const ALL: [Self; 14] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::SomeUnread,
        Self::NoRepository,
        Self::Busy,
        Self::WrongKey,
        Self::Newer,
        Self::Permission,
        Self::Integrity,
        Self::Deadline,
        Self::DeployFailed,
        Self::CreateFailed,
        Self::Interrupted,
    ];

    /// That of a process that has ended; one that is not ours counts as failed.
    #[must_use]
    pub fn of_number(number: i32) -> Self {
        Self::ALL.into_iter().find(|code| i32::from(*code as u8) == number).unwrap_or(Self::Failed)
    }

    /// Its name where a number says too little.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::SomeUnread => "some-unread",
            Self::NoRepository => "no-repository",
            Self::Busy => "busy",
            Self::WrongKey => "wrong-key",
            Self::Newer => "newer",
            Self::Permission => "permission",
            Self::Integrity => "integrity",
            Self::Deadline => "deadline",
            Self::DeployFailed => "deploy-failed",
            Self::CreateFailed => "create-failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The same, named after the verb when it says no more than that it failed.
    #[must_use]
    pub const fn during(self, verb: Verb) -> Self {
        match (self, verb) {
            (Self::Failed, Verb::Create) => Self::CreateFailed,
            (Self::Failed, Verb::Deploy) => Self::DeployFailed,
            (exit, _) => exit,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

impl Verdict {
    const fn new(exit: ExitCode, reason: Reason) -> Self {
        Self { exit, reason }
    }

    /// The same, named after the verb when it says no more than that it failed.
    #[must_use]
    pub const fn during(self, verb: Verb) -> Self {
        Self { exit: self.exit.during(verb), ..self }
    }

    /// Of an error of the operating system, by what can be done about it; `otherwise` says where it happened.
    #[must_use]
    pub fn of_io(error: &io::Error, otherwise: Reason) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::new(ExitCode::Permission, Reason::Permission),
            io::ErrorKind::ReadOnlyFilesystem => Self::new(ExitCode::Permission, Reason::ReadOnly),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new(ExitCode::Failed, Reason::DiskFull),
            _ => Self::new(ExitCode::Failed, otherwise),
        }
    }
}

impl From<&Error> for Verdict {
    fn from(error: &Error) -> Self {
        use ExitCode::{Failed, Usage};
        match error {
            Error::Store(error) => error.into(),
            Error::Source(error) => error.into(),
            Error::NoSuchSnapshot(_) => Self::new(Failed, Reason::NoSuchSnapshot),
            Error::OnlyFormerKeys { .. } => Self::new(Failed, Reason::OnlyFormerKeys),
            Error::Ambiguous { .. } => Self::new(Usage, Reason::Ambiguous),
            Error::NameTaken { .. } => Self::new(Failed, Reason::NameTaken),
            Error::BadName { .. } => Self::new(Usage, Reason::BadName),
            Error::NoSuchPath { .. } => Self::new(Failed, Reason::NoSuchPath),
            Error::KeysWentBack { .. } => Self::new(ExitCode::Integrity, Reason::KeysWentBack),
            Error::TargetNotEmpty(_) => Self::new(Usage, Reason::TargetNotEmpty),
            Error::NoSpace { .. } => Self::new(Failed, Reason::NoSpace),
            Error::DeployFailed { cause, .. } => Self::from(&**cause).during(Verb::Deploy),
            Error::UnfitTarget { .. } => Self::new(Failed, Reason::UnfitTarget),
            Error::OwnPlace { .. } => Self::new(Failed, Reason::OwnPlace),
            Error::ModeUnavailable { .. } => Self::new(Failed, Reason::ModeUnavailable),
            Error::Usage(_) => Self::new(Usage, Reason::Usage),
            Error::Pinned(_) => Self::new(Failed, Reason::Pinned),
            Error::Interrupted => Self::new(ExitCode::Interrupted, Reason::Interrupted),
            Error::Internal(_) => Self::new(Failed, Reason::Internal),
        }
    }
}

impl From<&StoreError> for Verdict {
    fn from(error: &StoreError) -> Self {
        use ExitCode::Failed;
        match error {
            StoreError::Interrupted => Self::new(ExitCode::Interrupted, Reason::Interrupted),
            StoreError::NotARepository { .. } => Self::new(ExitCode::NoRepository, Reason::NoRepository),
            StoreError::NotEmpty { .. } => Self::new(Failed, Reason::NotEmpty),
            StoreError::WrongKey => Self::new(ExitCode::WrongKey, Reason::WrongKey),
            StoreError::Unsupported { .. } => Self::new(ExitCode::Newer, Reason::NewerFormat),
            StoreError::Damaged { .. } => Self::new(ExitCode::Integrity, Reason::Damaged),
            StoreError::Missing { .. } => Self::new(ExitCode::Integrity, Reason::Missing),
            StoreError::KeysWentBack => Self::new(ExitCode::Integrity, Reason::KeysWentBack),
            StoreError::NameTaken => Self::new(Failed, Reason::NameTaken),
            StoreError::Busy { .. } => Self::new(ExitCode::Busy, Reason::Busy),
            StoreError::SessionLost => Self::new(ExitCode::Busy, Reason::SessionLost),
            StoreError::Poisoned => Self::new(Failed, Reason::WriteFailed),
            StoreError::Limit { .. } => Self::new(Failed, Reason::Limit),
            StoreError::KeySlot { .. } => Self::new(Failed, Reason::KeySlot),
            StoreError::NotPermitted { .. } => Self::new(ExitCode::Permission, Reason::Role),
            StoreError::Io { source, .. } => Self::of_io(source, Reason::Storage),
        }
    }
}

impl From<&SourceError> for Verdict {
    fn from(error: &SourceError) -> Self {
        use ExitCode::Failed;
        match error {
            SourceError::Io { source, .. } => Self::of_io(source, Reason::Files),
            SourceError::Refused { .. } => Self::new(Failed, Reason::Refused),
            SourceError::Database { .. } => Self::new(Failed, Reason::Database),
            SourceError::Corrupt { .. } => Self::new(ExitCode::Integrity, Reason::SourceDamaged),
            SourceError::InUse { .. } => Self::new(ExitCode::Busy, Reason::InUse),
            SourceError::Program { .. } => Self::new(Failed, Reason::Program),
            SourceError::Pattern { .. } => Self::new(ExitCode::Usage, Reason::BadPattern),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the words and numbers of the interface. Method: one `check` over constructed errors; words are
    //! looked at as a whole.

    use std::collections::BTreeSet;

    use super::*;

    #[track_caller]
    fn check(error: impl Into<Verdict>, verb: Verb, exit: u8, word: &str) {
        let verdict = error.into().during(verb);
        assert_eq!((verdict.exit as u8, verdict.reason.name()), (exit, word));
    }

    fn io(kind: io::ErrorKind) -> StoreError {
        StoreError::io("writing", "x", kind.into())
    }

    #[test]
    fn errors_with_a_code_of_their_own_keep_it_in_every_operation() {
        for verb in [Verb::Create, Verb::Deploy, Verb::Other] {
            check(&StoreError::NotARepository { place: "x".into() }, verb, 10, "no-repository");
            check(&StoreError::Busy { what: "x".into() }, verb, 11, "busy");
            check(&Error::Store(StoreError::WrongKey), verb, 12, "wrong-key");
            let newer = StoreError::Unsupported { what: "x".into(), found: 2, supported: 1 };
            check(&newer, verb, 13, "newer-format");
            check(&io(io::ErrorKind::PermissionDenied), verb, 68, "permission");
            check(&io(io::ErrorKind::ReadOnlyFilesystem), verb, 68, "read-only");
            check(&StoreError::damaged("x", "y"), verb, 69, "damaged");
            check(&Error::Interrupted, verb, 130, "interrupted");
            check(&Error::Usage("x".into()), verb, 2, "usage");
        }
    }

    #[test]
    fn what_has_no_code_of_its_own_is_named_after_the_operation() {
        let full = io(io::ErrorKind::StorageFull);
        check(&full, Verb::Create, 86, "disk-full");
        check(&full, Verb::Deploy, 79, "disk-full");
        check(&full, Verb::Other, 1, "disk-full");
        check(&Error::NameTaken { name: "x".into(), holder: None }, Verb::Create, 86, "name-taken");
        check(&Error::Internal("x".into()), Verb::Other, 1, "internal");
    }

    #[test]
    fn a_failed_deploy_is_told_by_its_cause() {
        let failed = |cause| Error::DeployFailed { target: "/t".into(), cause: Box::new(cause) };
        check(&failed(StoreError::damaged("x", "y").into()), Verb::Other, 69, "damaged");
        check(&failed(Error::Interrupted), Verb::Other, 130, "interrupted");
        check(&failed(Error::Internal("x".into())), Verb::Other, 79, "internal");
        check(&failed(io(io::ErrorKind::Other).into()), Verb::Other, 79, "storage");
    }

    #[test]
    fn words_are_words_and_stand_once() {
        let words: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
        let names: BTreeSet<&str> = ExitCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), ExitCode::ALL.len());
        for code in ExitCode::ALL {
            assert_eq!(ExitCode::of_number(i32::from(code as u8)), code);
        }
        assert_eq!(ExitCode::of_number(-9), ExitCode::Failed);
    }
}
