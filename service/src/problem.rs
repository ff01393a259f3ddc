//! Problem details (RFC 9457): every error that leaves the daemon, with the word and the exit code that the
//! program has for it.
//!
//! A problem is also what an operation keeps of its failure, so it survives a restart. It never repeats a
//! secret.

use std::io;
use std::ops::Deref;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use copal_application::Error as ApplicationError;
use copal_bundle::Error as BundleError;
use copal_engine::Error as EngineError;
use copal_engine::verdict::{ExitCode, Reason, Verb, Verdict};
use copal_manifest::shown;
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
    exit: ExitCode,
    code: &'static str,
    hint: &'static str,
}

const fn kind(status: StatusCode, exit: ExitCode, code: &'static str, hint: &'static str) -> Kind {
    Kind { status, exit, code, hint }
}

impl Problem {
    fn new(kind: &Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(ProblemDetails {
            kind: format!("urn:copal:problem:{}", kind.code),
            title: kind.code.replace('-', " "),
            status: kind.status.as_u16(),
            // A person reads it on a terminal as likely as a program.
            detail: shown::sentence(&detail.into()).into_owned(),
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
        Self::new(
            &kind(StatusCode::BAD_REQUEST, ExitCode::Usage, "usage", "see /openapi.json, or docs/guide/service.md"),
            detail,
        )
    }

    /// A request that can be read and does not say what is described: an unknown field, a value of another
    /// kind.
    pub fn unfit(detail: impl Into<String>) -> Self {
        let hint = "see /openapi.json, or docs/guide/service.md: fields that are not known are refused";
        Self::new(&kind(StatusCode::UNPROCESSABLE_ENTITY, ExitCode::Usage, "usage", hint), detail)
    }

    /// A body of another kind than the route takes.
    pub fn other_media(detail: impl Into<String>) -> Self {
        let hint = "set the header Content-Type to what the body is; see /openapi.json";
        Self::new(&kind(StatusCode::UNSUPPORTED_MEDIA_TYPE, ExitCode::Usage, "other-media", hint), detail)
    }

    /// A request that ended too early.
    #[must_use]
    pub fn cut_off() -> Self {
        Self::bad_request("the body of the request ended before it was whole")
    }

    /// What the daemon's HTTP refuses by a status of its own.
    pub(crate) fn of_status(status: StatusCode, detail: impl Into<String>) -> Self {
        const SEE: &str = "see /openapi.json";
        match status {
            StatusCode::NOT_FOUND => Self::not_found("no-such-route", detail),
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(detail),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::other_media(detail),
            StatusCode::UNPROCESSABLE_ENTITY => Self::unfit(detail),
            StatusCode::METHOD_NOT_ALLOWED => Self::new(&kind(status, ExitCode::Usage, "no-such-method", SEE), detail),
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                Self::new(&kind(status, ExitCode::Usage, "too-large", "send less"), detail)
            }
            _ if status.is_server_error() => {
                let hint = "this is a defect of copal: please report it with this message";
                Self::new(&kind(status, ExitCode::Failed, "internal", hint), detail)
            }
            _ => Self::new(&kind(status, ExitCode::Usage, "usage", SEE), detail),
        }
    }

    /// A request whose body is larger than the limit.
    pub fn too_large(detail: impl Into<String>) -> Self {
        let hint = "send less, or let the administrator raise the limit";
        Self::new(&kind(StatusCode::PAYLOAD_TOO_LARGE, ExitCode::Usage, "too-large", hint), detail)
    }

    /// A request whose body did not come on.
    #[must_use]
    pub fn too_slow(each: Duration) -> Self {
        let detail = format!("the request is too slow: too little of it came in {} seconds", each.as_secs());
        let hint = "send it again over a faster connection";
        Self::new(&kind(StatusCode::REQUEST_TIMEOUT, ExitCode::Deadline, "too-slow", hint), detail)
    }

    /// Something that the path names is not there.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        let hint = "GET /snapshots, /apps and /operations list what is there";
        Self::new(&kind(StatusCode::NOT_FOUND, ExitCode::Failed, code, hint), detail)
    }

    /// A state that does not allow it.
    pub fn conflict(code: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self::new(&kind(StatusCode::CONFLICT, ExitCode::Failed, code, hint), detail)
    }

    /// A name that an operation under way will give.
    pub fn name_promised(name: &str) -> Self {
        Self::conflict("name-taken", format!("a snapshot named {name:?} is being made"), ANOTHER_NAME)
    }

    /// No token, or one that is not known.
    #[must_use]
    pub fn unauthorized() -> Self {
        let hint = "send the header Authorization: Bearer TOKEN; `copal token add` makes one";
        Self::new(
            &kind(StatusCode::UNAUTHORIZED, ExitCode::Permission, "unauthorized", hint),
            "this needs a token that is known here",
        )
    }

    /// The token's role is not enough.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        let hint = "use a token with a higher role";
        Self::new(&kind(StatusCode::FORBIDDEN, ExitCode::Permission, "forbidden", hint), detail)
    }

    /// Too many requests.
    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(
            &kind(StatusCode::TOO_MANY_REQUESTS, ExitCode::Busy, "too-many", "wait a little, then try again"),
            detail,
        )
    }

    /// The daemon cannot take it now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let hint = "try again in a moment";
        Self::new(&kind(StatusCode::SERVICE_UNAVAILABLE, ExitCode::Busy, "unavailable", hint), detail)
    }

    /// The operation's deadline passed.
    pub fn deadline(detail: impl Into<String>) -> Self {
        let hint = "give it more time, or look at what it waits for";
        Self::new(&kind(StatusCode::GATEWAY_TIMEOUT, ExitCode::Deadline, "deadline", hint), detail)
    }

    /// Somebody canceled the operation.
    #[must_use]
    pub fn canceled() -> Self {
        let hint = "start it again: what was stored already is found again";
        Self::new(&kind(StatusCode::CONFLICT, ExitCode::Interrupted, "canceled", hint), "the operation was canceled")
    }

    /// The daemon ended in the middle of the operation, which was taken back.
    pub fn interrupted(detail: impl Into<String>) -> Self {
        let hint = "start it again: what was stored already is found again";
        Self::new(&kind(StatusCode::CONFLICT, ExitCode::Interrupted, "interrupted", hint), detail)
    }

    /// A bundle that is not one.
    pub fn bad_bundle(detail: impl Into<String>) -> Self {
        let hint = "nothing was imported; export the snapshot again";
        Self::new(&kind(StatusCode::BAD_REQUEST, ExitCode::Integrity, "bad-bundle", hint), detail)
    }

    /// Something that a newer version wrote.
    pub fn newer(detail: impl Into<String>) -> Self {
        Self::new(&of(Verdict { exit: ExitCode::Newer, reason: Reason::NewerFormat }), detail)
    }

    /// A defect.
    pub fn internal(detail: impl Into<String>) -> Self {
        let hint = "this is a defect of copal: please report it with this message";
        Self::new(&kind(StatusCode::INTERNAL_SERVER_ERROR, ExitCode::Failed, "internal", hint), detail)
    }

    /// Names a failure without an exit code of its own after what was tried.
    #[must_use]
    pub fn during(mut self, verb: Verb) -> Self {
        let exit = ExitCode::of_number(self.0.exit_code.into()).during(verb);
        self.0.exit_code = exit as u8;
        self.0.exit = exit.name().into();
        self
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        Self::new(&of(Verdict::from(&error)), error.to_string())
    }
}

impl From<ApplicationError> for Problem {
    fn from(error: ApplicationError) -> Self {
        let mut kind = of(Verdict::from(&error));
        // What was tried failed on the way, whatever its cause: the request was in order.
        if matches!(error, ApplicationError::RolledBack { .. }) {
            kind.status = StatusCode::INTERNAL_SERVER_ERROR;
        }
        Self::new(&kind, error.to_string())
    }
}

impl From<BundleError> for Problem {
    fn from(error: BundleError) -> Self {
        Self::new(&of(Verdict::from(&error)), error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(&of(Verdict::from(&error)), error.to_string())
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::new(&of(Verdict::of_io(&error, Reason::Files)), error.to_string())
    }
}

fn of(verdict: Verdict) -> Kind {
    let (status, hint) = status_and_hint(verdict.reason);
    kind(status, verdict.exit, verdict.reason.name(), hint)
}

const ANOTHER_NAME: &str =
    "choose another name, leave it away (POST /snapshots) and one is made, or delete that snapshot first";

/// How HTTP takes a reason, and what to do next, in routes.
fn status_and_hint(reason: Reason) -> (StatusCode, &'static str) {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    const CONFLICT: StatusCode = StatusCode::CONFLICT;
    const INTERNAL: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
    const FULL: StatusCode = StatusCode::INSUFFICIENT_STORAGE;
    const AGAIN: &str = "start it again: what was stored already is found again";
    match reason {
        Reason::NoSuchSnapshot => (StatusCode::NOT_FOUND, "GET /snapshots lists the snapshots that are there"),
        Reason::OnlyFormerKeys => (CONFLICT, "if that is the one that you want, give its id instead of `latest`"),
        Reason::Ambiguous => (CONFLICT, "give the whole name or id of the snapshot"),
        Reason::NameTaken => (CONFLICT, ANOTHER_NAME),
        Reason::BadName => (BAD, "choose another name, for example one of letters, digits, '-' and '.'"),
        Reason::NoSuchPath => (StatusCode::NOT_FOUND, "list the entries of the snapshot to see what is in it"),
        Reason::TargetNotEmpty => (CONFLICT, "agree to the replacement of what stands there"),
        Reason::NoSpace => (FULL, "free some space there"),
        Reason::OwnPlace => {
            (CONFLICT, "choose another place for the application, or for what copal needs; nothing was touched")
        }
        Reason::UnfitTarget => (CONFLICT, "prepare the place as the message says; nothing was touched"),
        Reason::ModeUnavailable => (CONFLICT, "give no mode: auto takes one that fits"),
        Reason::Usage => (BAD, "see /openapi.json"),
        Reason::Pinned => (CONFLICT, "take the pin away first"),
        Reason::Configuration => (INTERNAL, "correct that line of the configuration, then start the daemon again"),
        Reason::Hook => (INTERNAL, "run the hook by hand and see why it fails; the application has been let go on"),
        Reason::SchemaNewer => (CONFLICT, "update the application first; nothing was touched"),
        Reason::SchemaUnordered => (
            CONFLICT,
            "nothing was touched; give the source a version_order in copal.toml, or send {\"any_schema\": \
             true} to have it migrated",
        ),
        Reason::NotReady => (CONFLICT, "wait for its upload, or take another snapshot"),
        Reason::OtherDigest => (CONFLICT, "this is another snapshot than the one meant"),
        Reason::NotKept => (
            CONFLICT,
            "mend the program that writes it; when it is not needed any more: copal deploy --only --no-safety",
        ),
        Reason::FreezeBroken => {
            (INTERNAL, "allow the application to be held for longer (freeze_max), or make the capture shorter")
        }
        Reason::WrongBundlePassword => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "nothing was imported; give the passphrase that the snapshot was exported with",
        ),
        Reason::BadBundle => (BAD, "nothing was imported; export the snapshot again"),
        Reason::NoBase => (CONFLICT, "import that snapshot first, or export without --since"),
        Reason::Interrupted => (CONFLICT, AGAIN),
        Reason::SessionLost => (CONFLICT, AGAIN),
        Reason::WriteFailed => (INTERNAL, AGAIN),
        Reason::Internal => (INTERNAL, "this is a defect of copal: please report it with this message"),
        Reason::NoRepository => (INTERNAL, "the daemon's repository is gone: look at its place"),
        Reason::NotEmpty => (CONFLICT, "choose an empty place"),
        Reason::WrongKey => (StatusCode::UNPROCESSABLE_ENTITY, "check the password"),
        Reason::NewerFormat => (CONFLICT, "use a newer version of copal; nothing is damaged"),
        Reason::Damaged | Reason::Missing => {
            (INTERNAL, "verify the repository: that reports the damage and the affected snapshots")
        }
        Reason::Busy => (CONFLICT, "wait until the other one has ended, then try again"),
        Reason::Limit => (BAD, "ask for less: this is a limit of the format"),
        Reason::KeysWentBack => (CONFLICT, "the repository shows an earlier state of its keys: see docs/guide/keys.md"),
        Reason::KeySlot => (CONFLICT, "`copal key list` shows the key slots"),
        Reason::Role => (StatusCode::FORBIDDEN, "the daemon's key has a role that does not include it"),
        Reason::Refused => (INTERNAL, "look at that path: something else may be changing it"),
        Reason::Database => (INTERNAL, "look at the database or its server, then start it again"),
        Reason::SourceDamaged => (
            INTERNAL,
            "repair the source or deploy an earlier snapshot: a damaged database is never taken for a snapshot",
        ),
        Reason::InUse => (CONFLICT, "end what holds it, or wait, then start it again"),
        Reason::Program => (INTERNAL, "run that program by hand and see why it fails"),
        Reason::BadPattern => (BAD, "correct the pattern"),
        Reason::Permission => (INTERNAL, "the daemon's user may not do this: change the permissions"),
        Reason::ReadOnly => (INTERNAL, "that filesystem is mounted read-only: mount it for writing"),
        Reason::DiskFull => (FULL, "free some space, then start it again"),
        Reason::Storage | Reason::Files => (INTERNAL, "look at that place, then start it again"),
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
        // The log of requests says why one failed without reading its body, and a person gets a page of it.
        response.extensions_mut().insert(self);
        response
    }
}

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
        check(EngineError::NameTaken { name: "x".into(), holder: None }, 409, 1, "name-taken");
        check(
            Problem::from(EngineError::NameTaken { name: "x".into(), holder: None }).during(Verb::Create),
            409,
            86,
            "name-taken",
        );
        check(EngineError::Pinned("x".into()), 409, 1, "pinned");
        check(StoreError::WrongKey, 422, 12, "wrong-key");
        check(StoreError::damaged("x", "y"), 500, 69, "damaged");
        check(StoreError::Unsupported { what: "x".into(), found: 2, supported: 1 }, 409, 13, "newer-format");
        check(StoreError::io("writing", "x", io::ErrorKind::StorageFull.into()), 507, 1, "disk-full");
        check(Problem::from(StoreError::damaged("x", "y")).during(Verb::Deploy), 500, 69, "damaged");
        check(Problem::unauthorized(), 401, 68, "unauthorized");
        check(Problem::deadline("4 h passed"), 504, 78, "deadline");
        let cause = Box::new(EngineError::Internal("x".into()));
        check(EngineError::DeployFailed { target: "/t".into(), cause }, 500, 79, "internal");
        let cause = Box::new(EngineError::NameTaken { name: "x".into(), holder: None }.into());
        check(ApplicationError::RolledBack { app: "a".into(), cause }, 500, 79, "name-taken");
    }

    #[test]
    fn every_reason_has_a_status_and_a_hint() {
        for reason in Reason::ALL {
            let (status, hint) = status_and_hint(*reason);
            assert!(status.is_client_error() || status.is_server_error());
            assert!(!hint.is_empty() && !hint.contains("run the command"), "{reason:?}");
        }
    }
}
