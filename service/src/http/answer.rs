//! What handlers have in common: which application a route means, how long a client waits, how an operation
//! is answered.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use crate::access::{OPERATION_HEADER, Principal, Role};
use crate::daemon::Daemon;
use crate::operation::{Operation, State, Watch, wait};
use crate::problem::{Problem, Result};

/// The application in a path, if one is named there.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Scope {
    #[serde(default)]
    pub(crate) app: Option<String>,
}

/// A snapshot in a path.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SnapshotPath {
    #[serde(default)]
    pub(crate) app: Option<String>,
    pub(crate) name: String,
}

/// The application that a route means, if the principal may do this to it.
pub(crate) fn application(daemon: &Daemon, principal: &Principal, named: Option<&str>, role: Role) -> Result<String> {
    let app = daemon.platform.application(named)?.name.clone();
    principal.may(role, &app)?;
    Ok(app)
}

/// `?wait=`: seconds; `true`, or nothing, is until the end.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wait {
    /// Seconds to wait for the end; `true`: until the end
    #[serde(default)]
    #[param(pattern = "^(true|false|[0-9]{0,9}s?)$")]
    wait: Option<String>,
}

impl Wait {
    /// How long to wait; `None` is until the end.
    pub(crate) fn limit(&self, otherwise: Option<Duration>) -> Result<Option<Duration>> {
        match self.wait.as_deref() {
            None => Ok(otherwise),
            Some("" | "true") => Ok(None),
            Some("false") => Ok(Some(Duration::ZERO)),
            Some(text) => {
                let text = text.strip_suffix('s').unwrap_or(text);
                let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let what = || Problem::unfit(format!("wait={text:?} is not a number of seconds"));
                seconds.map(Some).ok_or_else(what)
            }
        }
    }
}

/// What a finished operation is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Success {
    /// 201 with the snapshot of the result.
    Created,
    /// 200 with the result.
    Done,
    /// 204.
    Gone,
}

/// Waits as long as the client wants; then the result, the problem, or 202 and where to look.
pub(crate) async fn answer(mut watch: Watch, limit: Option<Duration>, success: Success) -> Result<Response> {
    let operation = wait(&mut watch, limit).await;
    let id = operation.id.clone();
    let mut response = match operation.state {
        State::Queued | State::Running => accepted(&operation),
        State::Failed | State::Canceled => failed(operation).into_response(),
        State::Succeeded => succeeded(operation, success),
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(OPERATION_HEADER, id);
    }
    Ok(response)
}

fn accepted(operation: &Operation) -> Response {
    let location = [(header::LOCATION, format!("/operations/{}", operation.id))];
    (StatusCode::ACCEPTED, location, Json(operation)).into_response()
}

fn succeeded(operation: Operation, success: Success) -> Response {
    let result = operation.result.unwrap_or(Value::Null);
    match success {
        Success::Gone => StatusCode::NO_CONTENT.into_response(),
        Success::Done => Json(result).into_response(),
        Success::Created => {
            let snapshot = result.get("snapshot").cloned().unwrap_or(result);
            let text = |field: &str| snapshot.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let location = format!("/apps/{}/snapshots/{}", escaped(&text("app")), escaped(&text("name")));
            (StatusCode::CREATED, [(header::LOCATION, location)], Json(snapshot)).into_response()
        }
    }
}

/// The problem that an operation ended with.
pub(crate) fn failed(operation: Operation) -> Problem {
    match operation.error {
        Some(details) => Problem::from_details(details),
        None => Problem::internal("an operation failed without a reason"),
    }
}

/// A name as a part of a path.
pub(crate) fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte as char),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
