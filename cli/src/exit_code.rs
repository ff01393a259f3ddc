//! How a command ended: for each error its exit code and word (as the engine has them), its sentence and what
//! to do next.

use std::borrow::Cow;
use std::io;

use copal_application::Error as ApplicationError;
use copal_bundle::Error as BundleError;
use copal_engine::Error as EngineError;
pub(crate) use copal_engine::verdict::{ExitCode, Verb};
use copal_engine::verdict::{Reason, Verdict};
use copal_source::Error as SourceError;
use copal_store::Error as StoreError;

/// What errors of writing call stdout, here and in the engine.
pub(crate) const THE_OUTPUT: &str = "the output";

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
    #[error("{} in the repository {}", crate::shown::count(*count as u64, "thing", "things"), if *count == 1 { "does not verify" } else { "do not verify" })]
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
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// Explains any error of a command.
pub(crate) fn explain(error: &anyhow::Error, verb: Verb) -> Explanation {
    let named = if let Some(error) = error.downcast_ref::<EngineError>() {
        Named::of(error.into())
    } else if let Some(error) = error.downcast_ref::<ApplicationError>() {
        Named::of(error.into())
    } else if let Some(error) = error.downcast_ref::<BundleError>() {
        Named::of(error.into())
    } else if let Some(error) = error.downcast_ref::<StoreError>() {
        Named::of(error.into())
    } else if let Some(error) = error.downcast_ref::<SourceError>() {
        Named::of(error.into())
    } else if let Some(error) = error.downcast_ref::<ProgramError>() {
        program(error)
    } else {
        Named::new(ExitCode::Failed, "failed", "run the command again; if it fails again, please report it")
    };
    let mut message = sentence(error);
    if (named.exit, verb) == (ExitCode::Failed, Verb::Create) {
        message = format!("the snapshot was not taken: {message}");
    }
    let is_somewhere = ["files", "storage", "output"].contains(&&*named.code);
    let hint =
        if is_somewhere && names_nothing(error) { "check the path: nothing is there".into() } else { named.hint };
    Explanation { exit: named.exit.during(verb), code: named.code, message, hint: hint.into_owned() }
}

/// Whether something that was named is not there.
fn names_nothing(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|at| at.kind() == io::ErrorKind::NotFound)
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
    let of_engine = match error.downcast_ref::<BundleError>() {
        Some(BundleError::Engine(error)) => Some(error),
        _ => error.downcast_ref::<EngineError>(),
    };
    match (of_engine, error.downcast_ref::<ProgramError>()) {
        (Some(EngineError::Source(SourceError::Io { action: "writing", path, source })), _) => {
            path.as_os_str() == THE_OUTPUT && closed(source)
        }
        (_, Some(ProgramError::Output(source))) => closed(source),
        _ => false,
    }
}

/// What an error is called here, and what to do next.
struct Named {
    exit: ExitCode,
    code: Cow<'static, str>,
    hint: Cow<'static, str>,
}

impl Named {
    fn new(exit: ExitCode, code: &'static str, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { exit, code: code.into(), hint: hint.into() }
    }

    fn of(verdict: Verdict) -> Self {
        Self::new(verdict.exit, verdict.reason.name(), hint(verdict.reason))
    }
}

const USE_NEWER: &str = "use a newer version of copal; nothing is damaged, and nothing was changed";
const RUN_AGAIN: &str = "run the same command again: what was stored already is found again";

/// What to do next, in commands.
fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::NoSuchSnapshot => "`copal list` shows the snapshots that are there",
        Reason::OnlyFormerKeys => {
            "if that is the one that you want, give its id; `copal show ID` says whose key it was"
        }
        Reason::Ambiguous => "give more digits of the id; `copal list` shows all of them",
        Reason::NameTaken => {
            "choose another name, or leave it away and one is made; `copal delete NAME --yes` makes room for this one"
        }
        Reason::BadName => "choose another name, for example one of letters, digits, '-' and '.'",
        Reason::NoSuchPath => "`copal ls NAME` shows what is in the snapshot",
        Reason::TargetNotEmpty => "add --yes to replace what stands there",
        Reason::NoSpace => "free some space there; of all modes in-place needs the least",
        Reason::UnfitTarget => {
            "nothing was touched; prepare the place as the message says, then run the same command again"
        }
        Reason::OwnPlace => {
            "nothing was touched; choose another place. `copal restore` leaves such things alone; XDG_STATE_HOME and XDG_CACHE_HOME say where they are"
        }
        Reason::ModeUnavailable => "choose another --mode, or give none: auto takes one that fits",
        Reason::Usage => "see `copal COMMAND --help`",
        Reason::Pinned => "take its protection away first: `copal unpin NAME`",
        Reason::Configuration => "correct that line of the configuration; docs/guide/applications.md has examples",
        Reason::Hook => "run the hook by hand and see why it fails; the application has been let go on",
        Reason::SchemaNewer => "deploy with a newer version of the application; nothing was touched",
        Reason::SchemaUnordered => {
            "nothing was touched; give the source a version_order in copal.toml, or add --any-schema to have it migrated"
        }
        Reason::NotReady => "`copal status` shows what is under way; wait, or take another snapshot",
        Reason::OtherDigest => "compare it with what was written down when the snapshot was taken; nothing was touched",
        Reason::NotKept => {
            "mend the program that writes it; or, when it is not needed any more, deploy that source by \
             itself with --only LABEL --no-safety"
        }
        Reason::FreezeBroken => "allow the application to be held for longer (freeze_max), or make the capture shorter",
        Reason::WrongBundlePassword => "a bundle has a password of its own: see --bundle-password-file",
        Reason::BadBundle => "nothing of it was taken; have it exported again",
        Reason::NoBase => "import that snapshot first, or have the bundle exported without --since",
        Reason::Interrupted | Reason::WriteFailed | Reason::SessionLost => RUN_AGAIN,
        Reason::Internal => "this is a defect of copal: please report it with this message",
        Reason::NoRepository => {
            "name the right place with --repo or COPAL_REPO, or make a repository there with `copal init`"
        }
        Reason::NotEmpty => "choose a new or empty folder; a repository that is already there needs no init",
        Reason::WrongKey => {
            "check the password or key file; anyone who can open the repository can add another with `copal key add`"
        }
        Reason::NewerFormat => USE_NEWER,
        Reason::Damaged | Reason::Missing => {
            "run `copal verify`: it reports the damage and the affected snapshots; `copal verify \
             --repair` repairs what can be repaired"
        }
        Reason::Busy => "wait until the other process has ended, then run the command again",
        Reason::Limit => "ask for less: this is a limit of the format",
        Reason::KeySlot => "`copal key list` shows the key slots",
        Reason::KeysWentBack => {
            "if you have put back an older copy of the repository yourself, remove the file of its id in `known-keys` in the \
             state folder; if not, find out who can write to the repository"
        }
        Reason::Role => "use a key whose role includes it; an owner makes one with `copal key add --role ROLE`",
        Reason::Refused => "look at that path: something else may be changing it",
        Reason::Database => {
            "look at the connection string or path, then at the database and its server; then run the command again"
        }
        Reason::SourceDamaged => {
            "repair the source or deploy an earlier snapshot: a damaged database is never taken for a snapshot"
        }
        Reason::InUse => "end what holds it, or wait, then run the command again",
        Reason::Program => "run that program by hand and see why it fails",
        Reason::BadPattern => "correct the pattern; quote it so that the shell leaves it alone",
        Reason::Permission => "run as a user who may do this, or change the permissions of that path",
        Reason::ReadOnly => "that filesystem is mounted read-only: mount it for writing, or name another place",
        Reason::DiskFull => "free some space, then run the same command again",
        Reason::Storage | Reason::Files => "look at that place, then run the same command again",
    }
}

fn program(error: &ProgramError) -> Named {
    use ExitCode::{Failed, Integrity, Usage};
    match error {
        ProgramError::Usage { hint, .. } => Named::new(Usage, "usage", hint.clone()),
        ProgramError::File { source, .. } => Named::of(Verdict::of_io(source, Reason::Files)),
        ProgramError::PasswordCommand(_) => Named::new(
            Failed,
            "password-command",
            "run that command by hand: it must print the password and end with 0",
        ),
        ProgramError::DoesNotVerify { .. } => Named::new(
            Integrity,
            "damaged",
            "`copal verify --repair` repairs what can be repaired; a create of the same files stores \
             again what is lost",
        ),
        ProgramError::Unreadable(_) => Named::new(
            Integrity,
            "unreadable-snapshots",
            "the others are whole; `copal verify` says more, `copal delete ID --yes` removes an unreadable one",
        ),
        ProgramError::Newer(_) => Named::new(ExitCode::Newer, "newer-format", USE_NEWER),
        ProgramError::Declined => Named::new(Failed, "declined", "add --yes to agree beforehand"),
        ProgramError::NoKeyring(_) => Named::new(
            Failed,
            "no-keyring",
            "give the password with each command, or a key file, which needs no stretching",
        ),
        ProgramError::KeySlot(_) => Named::new(Failed, "key-slot", "`copal key list` shows the key slots"),
        ProgramError::Demonstration(_) => Named::new(
            Integrity,
            "demonstration",
            "this must never happen: please report it; the folder is kept as it is",
        ),
        ProgramError::Service(problem) => Named {
            exit: ExitCode::of_number(problem.exit_code.into()),
            code: problem.code.clone().into(),
            hint: problem.hint.clone().into(),
        },
        ProgramError::Output(source) => match Verdict::of_io(source, Reason::Files) {
            Verdict { exit, reason: Reason::Files } => Named::new(exit, "output", hint(Reason::Files)),
            verdict => Named::of(verdict),
        },
    }
}

#[cfg(test)]
mod tests {
    //! Goal: exit codes, words and sentences of the interface. Method: one `check` over constructed errors.

    use super::*;

    #[track_caller]
    fn check(error: impl Into<anyhow::Error>, verb: Verb, exit: u8, code: &str) {
        let explanation = explain(&error.into(), verb);
        assert_eq!((explanation.exit as u8, &*explanation.code), (exit, code), "{}", explanation.message);
        assert!(!explanation.hint.is_empty() && !explanation.message.is_empty());
    }

    #[test]
    fn errors_are_told_as_the_engine_has_them_wherever_they_come_from() {
        let full = || StoreError::io("writing", "x", io::ErrorKind::StorageFull.into());
        check(full(), Verb::Create, 86, "disk-full");
        check(EngineError::Store(full()), Verb::Deploy, 79, "disk-full");
        check(full(), Verb::Other, 1, "disk-full");
        check(SourceError::Corrupt { place: "x".into(), detail: "y".into() }, Verb::Create, 69, "source-damaged");
        check(BundleError::BundlePassword, Verb::Other, 12, "wrong-bundle-password");
        check(ProgramError::Output(io::ErrorKind::Other.into()), Verb::Other, 1, "output");
        check(ProgramError::Output(io::ErrorKind::StorageFull.into()), Verb::Other, 1, "disk-full");
        check(anyhow::anyhow!("x"), Verb::Create, 86, "failed");
    }

    #[test]
    fn the_daemon_s_problems_keep_their_names() {
        let busy = copal_service::problem::Problem::from(StoreError::Busy { what: "x".into() });
        check(ProgramError::Service(busy), Verb::Other, 11, "busy");
        let newer = StoreError::Unsupported { what: "x".into(), found: 2, supported: 1 };
        check(ProgramError::Service(newer.into()), Verb::Other, 13, "newer-format");
    }

    #[test]
    fn what_is_not_there_is_said_to_be_so() {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let hint = |error: anyhow::Error| explain(&error, Verb::Other).hint;
        assert_eq!(hint(StoreError::io("reading", "x", gone()).into()), "check the path: nothing is there");
        let file = ProgramError::file("reading", std::path::Path::new("x"), gone());
        assert_eq!(hint(file.into()), "check the path: nothing is there");
    }

    #[test]
    fn a_cause_is_told_once_and_in_words() {
        let message = |error: anyhow::Error| explain(&error, Verb::Other).message;
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
