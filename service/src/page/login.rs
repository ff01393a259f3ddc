//! Signing in with a token, and out.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use crate::access::{SECURE_SESSION_COOKIE, SESSION_COOKIE, SESSION_LASTS, accepts_html, cookie};
use crate::daemon::{Access, Daemon};
use crate::http::Form;
use crate::page::{Presented, layout};
use crate::problem::{Problem, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginForm {
    token: String,
}

pub(crate) async fn page(State(daemon): State<Arc<Daemon>>) -> Response {
    match &daemon.access {
        Access::Open => Redirect::to("/").into_response(),
        Access::Tokens { .. } => form(None).into_response(),
    }
}

fn form(problem: Option<&str>) -> Markup {
    let main = html! {
        h1 { "Sign in" }
        @if let Some(problem) = problem { div.problem role="alert" { p { (problem) } } }
        form.stacked method="post" action="/login" {
            label for="token" { "Token" }
            input id="token" name="token" type="password" required autofocus autocomplete="current-password";
            button.primary type="submit" { "Sign in" }
        }
        p.hint { "A token is made by an administrator: " code { "copal token add NAME --role deploy" } }
    };
    layout::page("Sign in", None, &main)
}

pub(crate) async fn begin(
    State(daemon): State<Arc<Daemon>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Form(login): Form<LoginForm>,
) -> Result<Response> {
    let Access::Tokens { tokens, sessions } = &daemon.access else { return Ok(Redirect::to("/").into_response()) };
    let Some(view) = tokens.find(login.token.trim())? else {
        daemon.counters.wrong_token(peer.ip())?;
        if !accepts_html(&headers) {
            return Err(Problem::unauthorized());
        }
        let mut again = (StatusCode::UNAUTHORIZED, form(Some("This token is not valid here."))).into_response();
        again.extensions_mut().insert(Presented);
        return Ok(again);
    };
    let (name, secure) = name_of_cookie(&daemon);
    let session = sessions.begin(&view.id)?;
    let cookie =
        format!("{name}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", SESSION_LASTS.as_secs());
    with_cookie(&cookie)
}

pub(crate) async fn end(State(daemon): State<Arc<Daemon>>, headers: HeaderMap) -> Result<Response> {
    if let (Access::Tokens { sessions, .. }, Some(session)) = (&daemon.access, cookie(&headers)) {
        sessions.end(session);
    }
    let (name, secure) = name_of_cookie(&daemon);
    with_cookie(&format!("{name}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{secure}"))
}

fn name_of_cookie(daemon: &Daemon) -> (&'static str, &'static str) {
    if daemon.is_encrypted { (SECURE_SESSION_COOKIE, "; Secure") } else { (SESSION_COOKIE, "") }
}

fn with_cookie(cookie: &str) -> Result<Response> {
    let cookie = HeaderValue::from_str(cookie).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}
