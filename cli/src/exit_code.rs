//! How a command ended: exit codes, and for each error its code word, its sentence and what to do next.

use std::io;

use copal_engine::Error as EngineError;
use copal_source::Error as SourceError;
use copal_store::Error as StoreError;

/// Exit codes; an interface. (78, a deadline that passed, belongs to commands that wait on a daemon.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    Done = 0,
    Failed = 1,
    Usage = 2,
    SomeUnread = 3,
    NoRepository = 10,
    Busy = 11,
    WrongKey = 12,
    Newer = 13,
    Permission = 68,
    Integrity = 69,
    DeployFailed = 79,
    CreateFailed = 86,
    Interrupted = 130,
}

impl ExitCode {
    /// That of another run of this program.
    pub(crate) fn of_number(number: i32) -> Self {
        let all = [
            Self::Done,
            Self::Usage,
            Self::SomeUnread,
            Self::NoRepository,
            Self::Busy,
            Self::WrongKey,
            Self::Newer,
            Self::Permission,
            Self::Integrity,
            Self::DeployFailed,
            Self::CreateFailed,
            Self::Interrupted,
        ];
        all.into_iter().find(|code| i32::from(*code as u8) == number).unwrap_or(Self::Failed)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// What a failure without a code of its own is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Deploy,
    #[default]
    Other,
}

/// Errors of the program itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// The command line contradicts itself or leaves something out.
    #[error("{message}")]
    Usage { message: String, hint: String },
    /// A file that the command line names.
    #[error("{action} {path}: {source}")]
    File { action: &'static str, path: String, source: io::Error },
    /// A password command that failed.
    #[error("the password command failed: {0}")]
    PasswordCommand(String),
    /// A report says so in detail.
    #[error("{count} things in the repository do not verify")]
    DoesNotVerify { count: usize },
    /// Snapshots that a listing could not open.
    #[error("{0}")]
    Unreadable(String),
    /// Snapshots that only a newer program can read.
    #[error("{0}")]
    Newer(String),
    /// The person at the terminal said no.
    #[error("nothing was done: the answer was no")]
    Declined,
    /// The kernel keeps no keys.
    #[error("{0}")]
    NoKeyring(String),
    /// No matching key slot.
    #[error("{0}")]
    KeySlot(String),
    /// The demonstration found a difference.
    #[error("the demonstration failed: {0}")]
    Demonstration(String),
    /// The daemon's.
    #[error("{}", .0.detail)]
    Service(copal_service::problem::Problem),
    /// Standard output.
    #[error("writing the output: {0}")]
    Output(io::Error),
}

impl ProgramError {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    pub(crate) fn file(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::File { action, path: path.display().to_string(), source }
    }
}

/// An error as people and scripts get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explanation {
    pub(crate) exit: ExitCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// Explains any error of a command.
pub(crate) fn explain(error: &anyhow::Error, operation: Operation) -> Explanation {
    let verdict = if let Some(error) = error.downcast_ref::<EngineError>() {
        engine(error)
    } else if let Some(error) = error.downcast_ref::<StoreError>() {
        store(error)
    } else if let Some(error) = error.downcast_ref::<SourceError>() {
        source(error)
    } else if let Some(error) = error.downcast_ref::<ProgramError>() {
        program(error)
    } else {
        Verdict::new(ExitCode::Failed, "failed", "run the command again; if it fails again, please report it")
    };
    let message = sentence(error);
    let (exit, message) = match (verdict.exit, operation) {
        (ExitCode::Failed, Operation::Create) => {
            (ExitCode::CreateFailed, format!("the snapshot was not taken: {message}"))
        }
        (ExitCode::Failed, Operation::Deploy) => (ExitCode::DeployFailed, message),
        (exit, _) => (exit, message),
    };
    Explanation { exit, code: verdict.code, message, hint: verdict.hint }
}

/// The error and its causes, those left out that the one before tells already.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain() {
        let cause = without_number(&cause.to_string());
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.ends_with(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

/// Without the number that the system has for an error: its words say the same.
fn without_number(text: &str) -> String {
    match text.strip_suffix(')').and_then(|text| text.rsplit_once(" (os error ")) {
        Some((words, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => words.to_owned(),
        _ => text.to_owned(),
    }
}

/// Whether the reader of the output has gone, which is no error.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match (error.downcast_ref::<EngineError>(), error.downcast_ref::<ProgramError>()) {
        (Some(EngineError::Source(SourceError::Io { action: "writing", path, source })), _) => {
            path.as_os_str() == crate::output::THE_OUTPUT && closed(source)
        }
        (_, Some(ProgramError::Output(source))) => closed(source),
        _ => false,
    }
}

struct Verdict {
    exit: ExitCode,
    code: &'static str,
    hint: String,
}

impl Verdict {
    fn new(exit: ExitCode, code: &'static str, hint: impl Into<String>) -> Self {
        Self { exit, code, hint: hint.into() }
    }
}

const USE_NEWER: &str = "use a newer version of copal; nothing is damaged, and nothing was changed";
const RUN_AGAIN: &str = "run the same command again: what was stored already is found again";

fn engine(error: &EngineError) -> Verdict {
    use ExitCode::{Failed, Interrupted, Usage};
    match error {
        EngineError::Store(error) => store(error),
        EngineError::Source(error) => source(error),
        EngineError::NoSuchSnapshot(_) => {
            Verdict::new(Failed, "no-such-snapshot", "`copal list` shows the snapshots that are there")
        }
        EngineError::Ambiguous { .. } => {
            Verdict::new(Usage, "ambiguous", "give more digits of the id; `copal list` shows all of them")
        }
        EngineError::NameTaken(_) => Verdict::new(
            Failed,
            "name-taken",
            "choose another name, or delete that snapshot first (`copal delete NAME --yes`)",
        ),
        EngineError::BadName { .. } => {
            Verdict::new(Usage, "bad-name", "choose another name, for example one of letters, digits, '-' and '.'")
        }
        EngineError::NoSuchPath { .. } => {
            Verdict::new(Failed, "no-such-path", "`copal ls NAME` shows what is in the snapshot")
        }
        EngineError::TargetNotEmpty(_) => {
            Verdict::new(Usage, "target-not-empty", "add --yes to replace what stands there")
        }
        EngineError::NoSpace { .. } => {
            Verdict::new(Failed, "no-space", "free some space there; of all modes in-place needs the least")
        }
        EngineError::DeployFailed { cause, .. } => {
            let cause = engine(cause);
            let exit = if cause.exit == Failed { ExitCode::DeployFailed } else { cause.exit };
            Verdict { exit, ..cause }
        }
        EngineError::UnfitTarget { .. } => Verdict::new(
            Failed,
            "unfit-target",
            "nothing was touched; prepare the place as the message says, then deploy again",
        ),
        EngineError::ModeUnavailable { .. } => Verdict::new(
            Failed,
            "mode-unavailable",
            "choose another --mode, or leave it away: auto takes one that fits",
        ),
        EngineError::Usage(_) => Verdict::new(Usage, "usage", "see `copal COMMAND --help`"),
        EngineError::Pinned(_) => {
            Verdict::new(Failed, "pinned", "take its protection away first: `copal pin --remove NAME`")
        }
        EngineError::Configuration(_) => Verdict::new(
            Usage,
            "configuration",
            "correct that line of the configuration; docs/applications.md has examples",
        ),
        EngineError::Hook { .. } => Verdict::new(
            Failed,
            "hook",
            "run the hook by hand and see why it fails; the application has been let go on",
        ),
        EngineError::SchemaNewer { .. } => {
            Verdict::new(Failed, "schema-newer", "deploy with a newer version of the application; nothing was touched")
        }
        EngineError::NotReady { .. } => {
            Verdict::new(Failed, "not-ready", "`copal status` shows what is under way; wait, or take another snapshot")
        }
        EngineError::OtherDigest { .. } => Verdict::new(
            ExitCode::Integrity,
            "other-digest",
            "compare it with what was written down when the snapshot was taken; nothing was touched",
        ),
        EngineError::RolledBack { cause, .. } => {
            let cause = engine(cause);
            let exit = if cause.exit == Failed { ExitCode::DeployFailed } else { cause.exit };
            Verdict { exit, ..cause }
        }
        EngineError::FreezeBroken { .. } => Verdict::new(
            Failed,
            "freeze-broken",
            "allow the application to be held for longer (freeze_max), or make the capture shorter",
        ),
        EngineError::BundlePassword => Verdict::new(
            ExitCode::WrongKey,
            "wrong-bundle-password",
            "a bundle has a password of its own: see --bundle-password-file",
        ),
        EngineError::BadBundle(_) => {
            Verdict::new(ExitCode::Integrity, "bad-bundle", "nothing of it was taken; have it exported again")
        }
        EngineError::BundleBase { .. } => {
            Verdict::new(Failed, "no-base", "import that snapshot first, or have the bundle exported without --since")
        }
        EngineError::Interrupted => Verdict::new(Interrupted, "interrupted", RUN_AGAIN),
        EngineError::Internal(_) => {
            Verdict::new(Failed, "internal", "this is a defect of copal: please report it with this message")
        }
    }
}

fn store(error: &StoreError) -> Verdict {
    use ExitCode::Failed;
    let verify = "run `copal verify` to learn what is hurt; `copal verify --repair` mends what can be mended";
    match error {
        StoreError::NotARepository { .. } => Verdict::new(
            ExitCode::NoRepository,
            "no-repository",
            "name the right place with --repo or COPAL_REPO, or make a repository there with `copal init`",
        ),
        StoreError::NotEmpty { .. } => Verdict::new(
            Failed,
            "not-empty",
            "choose a new or empty folder; a repository that is already there needs no init",
        ),
        StoreError::WrongKey => Verdict::new(
            ExitCode::WrongKey,
            "wrong-key",
            "check the password or key file; anyone who can open the repository can add another with `copal key add`",
        ),
        StoreError::Unsupported { .. } => Verdict::new(ExitCode::Newer, "newer-format", USE_NEWER),
        StoreError::Damaged { .. } => Verdict::new(ExitCode::Integrity, "damaged", verify),
        StoreError::Missing { .. } => Verdict::new(ExitCode::Integrity, "missing", verify),
        StoreError::NameTaken => Verdict::new(Failed, "name-taken", "choose another name"),
        StoreError::Busy { .. } => {
            Verdict::new(ExitCode::Busy, "busy", "wait until the other process has ended, then run the command again")
        }
        StoreError::Poisoned => Verdict::new(Failed, "write-failed", RUN_AGAIN),
        StoreError::Limit { .. } => Verdict::new(Failed, "limit", "ask for less: this is a limit of the format"),
        StoreError::KeySlot { .. } => Verdict::new(Failed, "key-slot", "`copal key list` shows the key slots"),
        StoreError::NotPermitted { .. } => Verdict::new(
            ExitCode::Permission,
            "role",
            "use a key whose role includes it; an owner makes one with `copal key add --role ROLE`",
        ),
        StoreError::Io { source, .. } => environment(source, "storage"),
    }
}

fn source(error: &SourceError) -> Verdict {
    match error {
        SourceError::Io { source, .. } => environment(source, "files"),
        SourceError::Refused { .. } => {
            Verdict::new(ExitCode::Failed, "refused", "look at that path: something else may be changing it")
        }
        SourceError::Database { .. } => {
            Verdict::new(ExitCode::Failed, "database", "look at the database or its server, then run the command again")
        }
        SourceError::Corrupt { .. } => Verdict::new(
            ExitCode::Integrity,
            "source-damaged",
            "mend the source or deploy an earlier snapshot: a damaged database is never taken for a snapshot",
        ),
        SourceError::InUse { .. } => {
            Verdict::new(ExitCode::Busy, "in-use", "end what holds it, or wait, then run the command again")
        }
        SourceError::Program { .. } => {
            Verdict::new(ExitCode::Failed, "program", "run that program by hand and see why it fails")
        }
        SourceError::Pattern { .. } => Verdict::new(
            ExitCode::Usage,
            "bad-pattern",
            "correct the pattern; quote it so that the shell leaves it alone",
        ),
    }
}

fn program(error: &ProgramError) -> Verdict {
    use ExitCode::{Failed, Integrity, Usage};
    match error {
        ProgramError::Usage { hint, .. } => Verdict::new(Usage, "usage", hint.clone()),
        ProgramError::File { source, .. } => environment(source, "files"),
        ProgramError::PasswordCommand(_) => Verdict::new(
            Failed,
            "password-command",
            "run that command by hand: it must print the password and end with 0",
        ),
        ProgramError::DoesNotVerify { .. } => Verdict::new(
            Integrity,
            "damaged",
            "`copal verify --repair` mends what can be mended; a create of the same files stores again what is lost",
        ),
        ProgramError::Unreadable(_) => Verdict::new(
            Integrity,
            "unreadable-snapshots",
            "the others are whole; `copal verify` says more, `copal delete ID --yes` removes an unreadable one",
        ),
        ProgramError::Newer(_) => Verdict::new(ExitCode::Newer, "newer-format", USE_NEWER),
        ProgramError::Declined => Verdict::new(Failed, "declined", "add --yes to agree beforehand"),
        ProgramError::NoKeyring(_) => Verdict::new(
            Failed,
            "no-keyring",
            "give the password with each command, or a key file, which needs no stretching",
        ),
        ProgramError::KeySlot(_) => Verdict::new(Failed, "key-slot", "`copal key list` shows the key slots"),
        ProgramError::Demonstration(_) => Verdict::new(
            Integrity,
            "demonstration",
            "this must never happen: please report it; the folder is kept as it is",
        ),
        ProgramError::Service(problem) => {
            let (exit, code) = match problem.exit_code {
                2 => (Usage, "usage"),
                11 => (ExitCode::Busy, "busy"),
                68 => (ExitCode::Permission, "permission"),
                69 => (Integrity, "damaged"),
                _ => (Failed, "service"),
            };
            Verdict::new(exit, code, problem.hint.clone())
        }
        ProgramError::Output(source) => environment(source, "output"),
    }
}

/// Errors of the operating system, by what can be done about them.
fn environment(error: &io::Error, code: &'static str) -> Verdict {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Verdict::new(
            ExitCode::Permission,
            "permission",
            "run as a user who may do this, or change the permissions of that path",
        ),
        io::ErrorKind::ReadOnlyFilesystem => Verdict::new(
            ExitCode::Permission,
            "read-only",
            "that filesystem is mounted read-only: mount it for writing, or name another place",
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Verdict::new(ExitCode::Failed, "disk-full", "free some space, then run the same command again")
        }
        io::ErrorKind::NotFound => Verdict::new(ExitCode::Failed, code, "check the path: nothing is there"),
        _ => Verdict::new(ExitCode::Failed, code, "look at that place, then run the same command again"),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the exit codes of the interface. Method: one `check` over constructed errors.

    use super::*;

    #[track_caller]
    fn check(error: impl Into<anyhow::Error>, operation: Operation, exit: u8, code: &str) {
        let explanation = explain(&error.into(), operation);
        assert_eq!((explanation.exit as u8, explanation.code), (exit, code), "{}", explanation.message);
        assert!(!explanation.hint.is_empty() && !explanation.message.is_empty());
    }

    fn denied() -> io::Error {
        io::ErrorKind::PermissionDenied.into()
    }

    #[test]
    fn errors_of_the_store_keep_their_codes_in_every_operation() {
        for operation in [Operation::Create, Operation::Deploy, Operation::Other] {
            check(StoreError::NotARepository { place: "x".into() }, operation, 10, "no-repository");
            check(StoreError::Busy { what: "x".into() }, operation, 11, "busy");
            check(EngineError::Store(StoreError::WrongKey), operation, 12, "wrong-key");
            let newer = StoreError::Unsupported { what: "x".into(), found: 2, supported: 1 };
            check(newer, operation, 13, "newer-format");
            check(StoreError::io("reading", "x", denied()), operation, 68, "permission");
            let read_only = io::ErrorKind::ReadOnlyFilesystem.into();
            check(StoreError::io("creating", "x", read_only), operation, 68, "read-only");
            check(StoreError::damaged("x", "y"), operation, 69, "damaged");
            check(EngineError::Interrupted, operation, 130, "interrupted");
        }
    }

    #[test]
    fn what_has_no_code_of_its_own_is_named_by_the_operation() {
        let full = || StoreError::io("writing", "x", io::ErrorKind::StorageFull.into());
        check(full(), Operation::Create, 86, "disk-full");
        check(full(), Operation::Deploy, 79, "disk-full");
        check(full(), Operation::Other, 1, "disk-full");
        check(EngineError::NameTaken("x".into()), Operation::Create, 86, "name-taken");
    }

    #[test]
    fn a_failed_deploy_is_told_by_its_cause() {
        let failed = |cause| EngineError::DeployFailed { target: "/t".into(), cause: Box::new(cause) };
        check(failed(EngineError::Store(StoreError::damaged("x", "y"))), Operation::Deploy, 69, "damaged");
        check(failed(EngineError::Interrupted), Operation::Deploy, 130, "interrupted");
        check(failed(EngineError::Internal("x".into())), Operation::Deploy, 79, "internal");
        check(EngineError::TargetNotEmpty("/t".into()), Operation::Deploy, 2, "target-not-empty");
    }

    #[test]
    fn a_cause_is_told_once_and_in_words() {
        let message = |error: anyhow::Error| explain(&error, Operation::Other).message;
        let denied = || io::Error::from_raw_os_error(13);
        assert_eq!(message(StoreError::io("reading", "x", denied()).into()), "reading x: Permission denied");
        let store = StoreError::io("reading", "x", denied());
        assert_eq!(message(EngineError::Store(store).into()), "reading x: Permission denied");
    }

    #[test]
    fn only_a_closed_output_is_quiet() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&ProgramError::Output(pipe()).into()));
        let at = |path: &str| {
            EngineError::Source(SourceError::Io { action: "writing", path: path.into(), source: pipe() }).into()
        };
        assert!(is_closed_pipe(&at("the output")));
        assert!(!is_closed_pipe(&at("/a/file")));
        assert!(!is_closed_pipe(&StoreError::io("writing", "the output", pipe()).into()));
    }
}
