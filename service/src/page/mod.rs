//! The page for people: rendered here, plain forms, one small script and one style sheet of our own; nothing is loaded from elsewhere.
//!
//! Everything works without the script, which only makes progress live. What a form does is what a route of `http` does: the same
//! queues, the same checks of roles.

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
use axum::extract::Path;
use axum::http::header;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use crate::daemon::Daemon;
use crate::http::{drain, unlimited};
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
        .route("/ui/import", post(forms::import).layer(unlimited()).layer(from_fn(drain)))
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

/// A problem as a page.
pub(crate) struct PageProblem(Problem);

type PageResult<T> = Result<T, PageProblem>;

impl<E: Into<Problem>> From<E> for PageProblem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for PageProblem {
    fn into_response(self) -> Response {
        layout::problem(&self.0)
    }
}

/// After a form: the operation that it began.
fn to_operation(watch: &Watch) -> Response {
    let id = watch.borrow().id.clone();
    let mut response = Redirect::to(&format!("/ui/operations/{id}")).into_response();
    if let Ok(id) = id.parse() {
        response.headers_mut().insert(crate::access::OPERATION_HEADER, id);
    }
    response
}
