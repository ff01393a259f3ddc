//! Problem details (RFC 9457): every error that leaves the daemon, with the word and the exit code that the program has for it.
//!
//! A problem is also what an operation keeps of its failure, so it survives a restart. It never repeats a secret.

use std::io;
use std::ops::Deref;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use copal_engine::Error as EngineError;
use copal_source::Error as SourceError;
use copal_store::Error as StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A result of the service.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// An error as clients get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Problem(Box<ProblemDetails>);

/// A problem document (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// `urn:copal:problem:` and the code word.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short sentence that is the same for each occurrence.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The code word, the same as the program's on the command line: `name-taken`, `damaged` …
    pub code: String,
    /// The exit code that the program would end with.
    pub exit_code: u8,
    /// Name of that exit code.
    pub exit: String,
    /// What to do next.
    pub hint: String,
}

impl Deref for Problem {
    type Target = ProblemDetails;
    fn deref(&self) -> &ProblemDetails {
        &self.0
    }
}

/// What kind of problem: status, exit code, code word, hint.
struct Kind {
    status: StatusCode,
    exit: Exit,
    code: &'static str,
    hint: &'static str,
}

const fn kind(status: StatusCode, exit: Exit, code: &'static str, hint: &'static str) -> Kind {
    Kind { status, exit, code, hint }
}

/// Exit codes of the program, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    Failed = 1,
    Usage = 2,
    NoRepository = 10,
    Busy = 11,
    WrongKey = 12,
    Newer = 13,
    Permission = 68,
    Integrity = 69,
    Deadline = 78,
    DeployFailed = 79,
    CreateFailed = 86,
    Interrupted = 130,
}

impl Exit {
    const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
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
}

impl Problem {
    fn new(kind: &Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(ProblemDetails {
            kind: format!("urn:copal:problem:{}", kind.code),
            title: kind.code.replace('-', " "),
            status: kind.status.as_u16(),
            detail: detail.into(),
            code: kind.code.into(),
            exit_code: kind.exit as u8,
            exit: kind.exit.name().into(),
            hint: kind.hint.into(),
        }))
    }

    /// As an operation has kept it.
    #[must_use]
    pub fn from_details(details: ProblemDetails) -> Self {
        Self(Box::new(details))
    }

    /// A request that makes no sense.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(&kind(StatusCode::BAD_REQUEST, Exit::Usage, "usage", "see /openapi.json, or docs/service.md"), detail)
    }

    /// A request whose body is larger than the limit.
    pub fn too_large(detail: impl Into<String>) -> Self {
        let hint = "send less, or let the administrator raise the limit";
        Self::new(&kind(StatusCode::PAYLOAD_TOO_LARGE, Exit::Usage, "too-large", hint), detail)
    }

    /// Something that the path names is not there.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        let hint = "GET /snapshots, /apps and /operations list what is there";
        Self::new(&kind(StatusCode::NOT_FOUND, Exit::Failed, code, hint), detail)
    }

    /// A state that does not allow it.
    pub fn conflict(code: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self::new(&kind(StatusCode::CONFLICT, Exit::Failed, code, hint), detail)
    }

    /// A name that is there already, or under way.
    pub fn name_taken(name: &str) -> Self {
        let hint = "choose another name, or delete that snapshot first";
        Self::conflict("name-taken", format!("a snapshot named {name:?} exists already, or is being made"), hint)
    }

    /// No token, or one that is not known.
    #[must_use]
    pub fn unauthorized() -> Self {
        let hint = "send the header Authorization: Bearer TOKEN; `copal token add` makes one";
        Self::new(
            &kind(StatusCode::UNAUTHORIZED, Exit::Permission, "unauthorized", hint),
            "this needs a token that is known here",
        )
    }

    /// The token's role is not enough.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        let hint = "use a token with a higher role";
        Self::new(&kind(StatusCode::FORBIDDEN, Exit::Permission, "forbidden", hint), detail)
    }

    /// Too many requests.
    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(&kind(StatusCode::TOO_MANY_REQUESTS, Exit::Busy, "too-many", "wait a little, then try again"), detail)
    }

    /// The daemon cannot take it now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let hint = "try again in a moment";
        Self::new(&kind(StatusCode::SERVICE_UNAVAILABLE, Exit::Busy, "unavailable", hint), detail)
    }

    /// The operation's deadline passed.
    pub fn deadline(detail: impl Into<String>) -> Self {
        let hint = "give it more time, or look at what it waits for";
        Self::new(&kind(StatusCode::GATEWAY_TIMEOUT, Exit::Deadline, "deadline", hint), detail)
    }

    /// Somebody canceled the operation.
    #[must_use]
    pub fn canceled() -> Self {
        let hint = "start it again: what was stored already is found again";
        Self::new(&kind(StatusCode::CONFLICT, Exit::Interrupted, "canceled", hint), "the operation was canceled")
    }

    /// The daemon ended in the middle of the operation, which was taken back.
    pub fn interrupted(detail: impl Into<String>) -> Self {
        let hint = "start it again: what was stored already is found again";
        Self::new(&kind(StatusCode::CONFLICT, Exit::Interrupted, "interrupted", hint), detail)
    }

    /// A bundle that is not one.
    pub fn bad_bundle(detail: impl Into<String>) -> Self {
        let hint = "nothing was imported; export the snapshot again";
        Self::new(&kind(StatusCode::BAD_REQUEST, Exit::Integrity, "bad-bundle", hint), detail)
    }

    /// A defect.
    pub fn internal(detail: impl Into<String>) -> Self {
        let hint = "this is a defect of copal: please report it with this message";
        Self::new(&kind(StatusCode::INTERNAL_SERVER_ERROR, Exit::Failed, "internal", hint), detail)
    }

    /// Names a failure without an exit code of its own after a create.
    #[must_use]
    pub fn of_create(self) -> Self {
        self.named_after(Exit::CreateFailed)
    }

    /// Names a failure without an exit code of its own after a deploy.
    #[must_use]
    pub fn of_deploy(self) -> Self {
        self.named_after(Exit::DeployFailed)
    }

    fn named_after(mut self, exit: Exit) -> Self {
        if self.0.exit_code == Exit::Failed as u8 {
            self.0.exit_code = exit as u8;
            self.0.exit = exit.name().into();
        }
        self
    }
}

const VERIFY: &str = "verify the repository to learn what is hurt";
const AGAIN: &str = "start it again: what was stored already is found again";

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let kind = engine(&error);
        Self::new(&kind, error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(&store(&error), error.to_string())
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::new(&environment(&error, "files"), error.to_string())
    }
}

fn engine(error: &EngineError) -> Kind {
    use Exit::{DeployFailed, Failed, Interrupted, Usage};
    match error {
        EngineError::Store(error) => store(error),
        EngineError::Source(error) => source(error),
        EngineError::NoSuchSnapshot(_) => {
            kind(StatusCode::NOT_FOUND, Failed, "no-such-snapshot", "GET /snapshots lists the snapshots that are there")
        }
        EngineError::Ambiguous { .. } => {
            kind(StatusCode::CONFLICT, Usage, "ambiguous", "give the whole name or id of the snapshot")
        }
        EngineError::NameTaken(_) => {
            kind(StatusCode::CONFLICT, Failed, "name-taken", "choose another name, or delete that snapshot first")
        }
        EngineError::BadName { .. } => kind(StatusCode::BAD_REQUEST, Usage, "bad-name", "choose another name"),
        EngineError::NoSuchPath { .. } => {
            kind(StatusCode::NOT_FOUND, Failed, "no-such-path", "list the entries of the snapshot to see what is in it")
        }
        EngineError::TargetNotEmpty(_) => {
            kind(StatusCode::CONFLICT, Usage, "target-not-empty", "agree to the replacement of what stands there")
        }
        EngineError::NoSpace { .. } => {
            kind(StatusCode::INSUFFICIENT_STORAGE, Failed, "no-space", "free some space there")
        }
        EngineError::DeployFailed { cause, .. } => {
            let cause = engine(cause);
            if cause.exit == Failed { Kind { exit: DeployFailed, ..cause } } else { cause }
        }
        EngineError::UnfitTarget { .. } => kind(
            StatusCode::CONFLICT,
            DeployFailed,
            "unfit-target",
            "prepare the place as the message says; nothing was touched",
        ),
        EngineError::ModeUnavailable { .. } => {
            kind(StatusCode::CONFLICT, Failed, "mode-unavailable", "leave the mode away: auto takes one that fits")
        }
        EngineError::Usage(_) => kind(StatusCode::BAD_REQUEST, Usage, "usage", "see /openapi.json"),
        EngineError::NotReady { .. } => {
            kind(StatusCode::CONFLICT, DeployFailed, "not-ready", "wait for its upload, or take another snapshot")
        }
        EngineError::SchemaNewer { .. } => kind(
            StatusCode::CONFLICT,
            DeployFailed,
            "schema-newer",
            "update the application first; nothing was touched",
        ),
        EngineError::OtherDigest { .. } => {
            kind(StatusCode::CONFLICT, Exit::Integrity, "other-digest", "this is another snapshot than the one meant")
        }
        EngineError::RolledBack { cause, .. } => {
            let cause = engine(cause);
            Kind { status: StatusCode::INTERNAL_SERVER_ERROR, exit: DeployFailed, ..cause }
        }
        EngineError::BundlePassword => kind(
            StatusCode::UNPROCESSABLE_ENTITY,
            Exit::WrongKey,
            "wrong-key",
            "nothing was imported; give the passphrase that the snapshot was exported with",
        ),
        EngineError::BadBundle(_) => kind(
            StatusCode::BAD_REQUEST,
            Exit::Integrity,
            "bad-bundle",
            "nothing was imported; export the snapshot again",
        ),
        EngineError::BundleBase { .. } => {
            kind(StatusCode::CONFLICT, Failed, "no-base", "import that snapshot first, or export without --since")
        }
        EngineError::Pinned(_) => kind(StatusCode::CONFLICT, Failed, "pinned", "take the pin away first"),
        EngineError::Interrupted => kind(StatusCode::CONFLICT, Interrupted, "interrupted", AGAIN),
        _ => {
            kind(StatusCode::INTERNAL_SERVER_ERROR, Failed, "failed", "look at the detail and at the log of the daemon")
        }
    }
}

fn store(error: &StoreError) -> Kind {
    use Exit::Failed;
    let internal = StatusCode::INTERNAL_SERVER_ERROR;
    match error {
        StoreError::NotARepository { .. } => {
            kind(internal, Exit::NoRepository, "no-repository", "the daemon's repository is gone: look at its place")
        }
        StoreError::NotEmpty { .. } => kind(StatusCode::CONFLICT, Failed, "not-empty", "choose an empty place"),
        StoreError::WrongKey => {
            kind(StatusCode::UNPROCESSABLE_ENTITY, Exit::WrongKey, "wrong-key", "check the password")
        }
        StoreError::Unsupported { .. } => {
            kind(StatusCode::CONFLICT, Exit::Newer, "newer-format", "use a newer version of copal; nothing is damaged")
        }
        StoreError::Damaged { .. } => kind(internal, Exit::Integrity, "damaged", VERIFY),
        StoreError::Missing { .. } => kind(internal, Exit::Integrity, "missing", VERIFY),
        StoreError::NameTaken => kind(StatusCode::CONFLICT, Failed, "name-taken", "choose another name"),
        StoreError::Busy { .. } => {
            kind(StatusCode::CONFLICT, Exit::Busy, "busy", "wait until the other one has ended, then try again")
        }
        StoreError::Io { source, .. } => environment(source, "storage"),
        StoreError::NotPermitted { .. } => kind(
            StatusCode::FORBIDDEN,
            Exit::Permission,
            "role",
            "the daemon's key has a role that does not include it",
        ),
        StoreError::Limit { .. } => kind(StatusCode::BAD_REQUEST, Failed, "limit", "ask for less"),
        _ => kind(internal, Failed, "failed", AGAIN),
    }
}

fn source(error: &SourceError) -> Kind {
    match error {
        SourceError::Io { source, .. } => environment(source, "files"),
        SourceError::Pattern { .. } => kind(StatusCode::BAD_REQUEST, Exit::Usage, "bad-pattern", "correct the pattern"),
        _ => kind(
            StatusCode::INTERNAL_SERVER_ERROR,
            Exit::Failed,
            "refused",
            "look at that path: something else may be changing it",
        ),
    }
}

fn environment(error: &io::Error, code: &'static str) -> Kind {
    let internal = StatusCode::INTERNAL_SERVER_ERROR;
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            kind(internal, Exit::Permission, "permission", "the daemon's user may not do this: change the permissions")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            kind(StatusCode::INSUFFICIENT_STORAGE, Exit::Failed, "disk-full", "free some space, then start it again")
        }
        _ => kind(internal, Exit::Failed, code, "look at that place, then start it again"),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&*self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"copal\""));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        // The log of requests says why one failed without reading its body.
        response.extensions_mut().insert(ProblemCode(self.0.code.clone()));
        response
    }
}

/// The code word of a response, for the log.
#[derive(Clone, Debug)]
pub(crate) struct ProblemCode(pub(crate) String);

#[cfg(test)]
mod tests {
    //! Goal: errors keep the codes of the command line. Method: one `check` over constructed errors.

    use super::*;

    #[track_caller]
    fn check(problem: impl Into<Problem>, status: u16, exit_code: u8, code: &str) {
        let problem = problem.into();
        assert_eq!((problem.status, problem.exit_code, problem.code.as_str()), (status, exit_code, code));
        assert!(!problem.hint.is_empty() && !problem.detail.is_empty());
        assert_eq!(problem.kind, format!("urn:copal:problem:{code}"));
    }

    #[test]
    fn errors_have_status_exit_code_and_word() {
        check(EngineError::NoSuchSnapshot("x".into()), 404, 1, "no-such-snapshot");
        check(EngineError::NameTaken("x".into()), 409, 1, "name-taken");
        check(Problem::from(EngineError::NameTaken("x".into())).of_create(), 409, 86, "name-taken");
        check(EngineError::Pinned("x".into()), 409, 1, "pinned");
        check(StoreError::WrongKey, 422, 12, "wrong-key");
        check(StoreError::damaged("x", "y"), 500, 69, "damaged");
        check(StoreError::Unsupported { what: "x".into(), found: 2, supported: 1 }, 409, 13, "newer-format");
        check(StoreError::io("writing", "x", io::ErrorKind::StorageFull.into()), 507, 1, "disk-full");
        check(Problem::from(StoreError::damaged("x", "y")).of_deploy(), 500, 69, "damaged");
        check(Problem::unauthorized(), 401, 68, "unauthorized");
        check(Problem::deadline("4 h passed"), 504, 78, "deadline");
        let cause = Box::new(EngineError::Internal("x".into()));
        check(EngineError::DeployFailed { target: "/t".into(), cause }, 500, 79, "failed");
    }
}
