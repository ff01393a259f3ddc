//! Signing in with a token, and out.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
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
    jar: CookieJar,
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
    let lasts = SESSION_LASTS.try_into().map_err(|_| Problem::internal("a session lasts too long"))?;
    let mut cookie = cookie_of(&daemon, sessions.begin(&view.id)?);
    cookie.set_max_age(Some(lasts));
    Ok((jar.add(cookie), Redirect::to("/")).into_response())
}

pub(crate) async fn end(State(daemon): State<Arc<Daemon>>, jar: CookieJar) -> Response {
    if let (Access::Tokens { sessions, .. }, Some(session)) = (&daemon.access, cookie(&jar)) {
        sessions.end(session);
    }
    (jar.remove(cookie_of(&daemon, String::new())), Redirect::to("/")).into_response()
}

/// The cookie of a session: not for scripts, not for other sites, and over TLS nowhere else.
fn cookie_of(daemon: &Daemon, session: String) -> Cookie<'static> {
    let name = if daemon.is_encrypted { SECURE_SESSION_COOKIE } else { SESSION_COOKIE };
    Cookie::build((name, session))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(daemon.is_encrypted)
        .build()
}
