//! The page for people: rendered here, plain forms, one small script and one style sheet of our own; nothing
//! is loaded from elsewhere.
//!
//! Everything works without the script, which only makes progress live. What a form does is what a route of
//! `http` does: the same queues, the same checks of roles.

mod browse;
mod chart;
mod compare;
mod forms;
mod layout;
mod list;
mod login;
mod operation;
mod shown;
mod snapshot;

use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use crate::access::wants_page;
use crate::daemon::Daemon;
use crate::http::{Path, unlimited};
use crate::operation::Watch;
use crate::problem::Problem;

/// The style sheet.
const STYLE: &str = include_str!("assets/page.css");
/// The script.
const SCRIPT: &str = include_str!("assets/page.js");
/// The mark in the browser's tab.
const ICON: &str = include_str!("assets/icon.svg");

pub(crate) fn router() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/", get(list::page))
        .route("/login", get(login::page).post(login::begin))
        .route("/ui/logout", post(login::end))
        .route("/ui/create", post(forms::create))
        .route("/ui/import", post(forms::import).layer(unlimited()))
        .route("/ui/collect", post(forms::collect))
        .route("/ui/compare", get(compare::page))
        .route("/ui/apps/{app}/snapshots/{name}", get(snapshot::page))
        .route("/ui/apps/{app}/snapshots/{name}/browse", get(browse::page))
        .route("/ui/apps/{app}/snapshots/{name}/deploy", get(snapshot::confirm_deploy).post(forms::deploy))
        .route("/ui/apps/{app}/snapshots/{name}/delete", get(snapshot::confirm_delete).post(forms::delete))
        .route("/ui/apps/{app}/snapshots/{name}/pin", post(forms::pin))
        .route("/ui/apps/{app}/snapshots/{name}/verify", post(forms::verify))
        .route("/ui/apps/{app}/snapshots/{name}/export", post(forms::export))
        .route("/ui/operations", get(operation::all))
        .route("/ui/operations/{id}", get(operation::page))
        .route("/ui/operations/{id}/cancel", post(operation::cancel))
        .route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "page.css" => ("text/css; charset=utf-8", STYLE),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return Problem::not_found("no-such-route", "no such asset").into_response(),
    };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")], text).into_response()
}

/// Every refusal is a problem document, whoever refused; a person who asked for a page gets one that says the
/// same.
pub(crate) async fn present(request: Request, next: Next) -> Response {
    let for_person = wants_page(&request);
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || response.extensions().get::<Presented>().is_some() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let known = parts.extensions.get::<Problem>().cloned();
    let problem = match known {
        Some(problem) => problem,
        None => {
            let said = to_bytes(body, SAID_BYTES_MAX).await.unwrap_or_default();
            let said = String::from_utf8_lossy(&said).into_owned();
            let reason = status.canonical_reason().unwrap_or("the request was refused");
            Problem::of_status(status, if said.trim().is_empty() { reason.to_owned() } else { said })
        }
    };
    let shown = if for_person { layout::problem(&problem) } else { problem.into_response() };
    let (shown, body) = shown.into_parts();
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    for (name, value) in &shown.headers {
        parts.headers.insert(name, value.clone());
    }
    Response::from_parts(parts, body)
}

/// Marks an answer that is a page for a person already.
#[derive(Clone, Copy, Debug)]
struct Presented;

/// Longest sentence of a refusal that is not ours.
const SAID_BYTES_MAX: usize = 4096;

/// After a form: the operation that it began.
fn to_operation(watch: &Watch) -> Response {
    let id = watch.borrow().id.clone();
    let mut response = Redirect::to(&format!("/ui/operations/{id}")).into_response();
    if let Ok(id) = id.parse() {
        response.headers_mut().insert(crate::access::OPERATION_HEADER, id);
    }
    response
}
