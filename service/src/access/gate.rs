//! The gate that every request passes: where it comes from, who asks, how often; then the handler; then
//! headers, figures, the logs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar};

use crate::access::{AuditLine, Principal, Role, SECURE_SESSION_COOKIE, SESSION_COOKIE};
use crate::connection::{Courtesy, Holder, PacedBody, Place, TooSlow, Unread};
use crate::daemon::{Access, Daemon};
use crate::problem::{Problem, Result};

/// Names the operation that a request began.
pub(crate) const OPERATION_HEADER: HeaderName = HeaderName::from_static("x-operation");

/// Routes that need no token: they tell nothing about anything.
const PUBLIC: &[&str] = &["/healthz", "/openapi.json", "/login", "/assets/{name}"];

/// Longest path with its query: a path inside a snapshot has at most 4 KiB, escaped three times as many.
const PLACE_BYTES_MAX: usize = 16 << 10;
/// Most header fields.
const HEADERS_MAX: usize = 100;
/// Most bytes of them.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// So much of a path is written into the logs.
const LOGGED_BYTES_MAX: usize = 512;

/// Nothing is loaded from elsewhere, no script stands in a page, no other site frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: &[(&str, &str)] = &[
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    // Without any, a form of our own page would come from nowhere.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// The whole way of a request.
pub(crate) async fn gate(State(daemon): State<Arc<Daemon>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |connected| connected.0.ip());
    let method = request.method().clone();
    let path = logged(request.uri().path());
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |route| route.as_str().to_owned());
    let wants_page = method == Method::GET && wants_page(&request);

    let mut admitted = check_size(&request).and_then(|()| admit(&daemon, &request, &route, peer));
    if let Some(place) = request.extensions().get::<Arc<Place>>() {
        let holder = admitted.as_ref().ok().and_then(Option::as_ref).map(holder);
        if !place.set_holder(holder) {
            admitted = Err(Problem::too_many("the token has as many connections at work as one may have"));
        }
    }
    let principal = admitted.as_ref().ok().and_then(Clone::clone);
    let slow = TooSlow::default();
    let each = daemon.limits.patience.body;
    // Who waits to be told to send has nothing on its way.
    let waits = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let (body, unread) = Unread::share(Body::new(PacedBody::new(body, each, slow.clone())));
    let mut request = Request::from_parts(parts, body);
    let mut response = match admitted {
        Ok(principal) => {
            if let Some(principal) = principal {
                request.extensions_mut().insert(principal);
            }
            let response = next.run(request).await;
            if is_refusal(&response) && slow.happened() { Problem::too_slow(each).into_response() } else { response }
        }
        Err(problem) if problem.status == StatusCode::UNAUTHORIZED.as_u16() && wants_page => {
            Redirect::to("/login").into_response()
        }
        Err(problem) => problem.into_response(),
    };
    if is_refusal(&response) && !waits && !slow.happened() {
        unread.discard(if principal.is_some() { Courtesy::KNOWN } else { Courtesy::ANYBODY }).await;
    }
    finish_headers(&daemon, response.headers_mut());

    let status = response.status().as_u16();
    let code = response.extensions().get::<Problem>().map(|problem| problem.code.clone());
    let operation = response.headers().get(OPERATION_HEADER).and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
    let actor = principal.as_ref().map_or("", |principal| principal.name.as_str());
    daemon.metrics.request(method_name(&method), &route, status, begun.elapsed());
    if matches!(status, 401 | 403 | 429) {
        daemon.metrics.refused(match status {
            401 => "unauthorized",
            403 => "forbidden",
            _ => "too_many",
        });
    }
    tracing::info!(
        method = logged(method.as_str()), path, status, actor, %peer, code, operation,
        milliseconds = begun.elapsed().as_secs_f64() * 1000.0, "request"
    );
    if is_audited(&method, &route, status)
        && let Some(skipped) = daemon.counters.audit(principal.is_some())
    {
        daemon.audit.write(&AuditLine {
            skipped,
            time: jiff::Timestamp::now().to_string(),
            actor: actor.to_owned(),
            token: principal.as_ref().and_then(|principal| principal.token.clone()),
            peer: peer.to_string(),
            method: logged(method.as_str()),
            path,
            status,
            operation,
            code,
        });
    }
    response
}

/// Refuses what no client of ours sends, before anything looks at it.
fn check_size(request: &Request) -> Result<()> {
    let headers = request.headers();
    if request.uri().path_and_query().map_or(0, |place| place.as_str().len()) > PLACE_BYTES_MAX {
        let detail = format!("the path and its query are longer than {PLACE_BYTES_MAX} bytes");
        return Err(Problem::of_status(StatusCode::URI_TOO_LONG, detail));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        let detail =
            format!("the request has more than {HEADERS_MAX} header fields, or {HEADER_BYTES_MAX} bytes of them");
        return Err(Problem::of_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail));
    }
    // Of two that differ a proxy may have looked at the other one.
    for single in [header::HOST, header::AUTHORIZATION, header::CONTENT_TYPE, header::ORIGIN] {
        if headers.get_all(&single).iter().count() > 1 {
            return Err(Problem::bad_request(format!("the request has the header field {single} more than once")));
        }
    }
    if request.version() >= Version::HTTP_11 && !headers.contains_key(header::HOST) {
        return Err(Problem::bad_request("the request has no Host header"));
    }
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Problem::other_media("bodies are taken as they are: not with a Content-Encoding"));
    }
    Ok(())
}

/// Who asks; `None` for routes that anybody may use.
fn admit(daemon: &Daemon, request: &Request, route: &str, peer: IpAddr) -> Result<Option<Principal>> {
    let headers = request.headers();
    if !is_safe(request.method()) {
        same_site(headers)?;
    }
    let principal = match &daemon.access {
        Access::Open => {
            // A page of another site may have had its name changed to this address: then Host names that
            // site.
            if !names_loopback(headers) {
                return Err(Problem::forbidden("without tokens the daemon answers to localhost only"));
            }
            let name = "local".to_owned();
            Some(Principal { name, token: None, role: Role::Administer, apps: Vec::new(), peer })
        }
        Access::Tokens { tokens, sessions } => {
            let jar = CookieJar::from_headers(headers);
            let token = match (bearer(headers), cookie(&jar)) {
                (Some(secret), _) => tokens.find(secret)?,
                (None, Some(cookie)) => match sessions.find(cookie) {
                    Some(id) => tokens.get(&id)?,
                    None => None,
                },
                (None, None) => None,
            };
            if token.is_none() && bearer(headers).is_some() {
                daemon.counters.wrong_token(peer)?;
            }
            token.map(|view| Principal {
                name: view.name,
                token: Some(view.id),
                role: view.role,
                apps: view.apps,
                peer,
            })
        }
    };
    let client = match principal.as_ref().and_then(|principal| principal.token.as_ref()) {
        Some(token) => token.clone(),
        None => peer.to_string(),
    };
    daemon.counters.request(&client)?;
    if principal.is_none() && !PUBLIC.contains(&route) {
        return Err(Problem::unauthorized());
    }
    Ok(principal)
}

fn holder(principal: &Principal) -> Holder {
    principal.token.clone().map_or(Holder::Local, Holder::Token)
}

fn is_refusal(response: &Response) -> bool {
    response.status().is_client_error() || response.status().is_server_error()
}

fn finish_headers(daemon: &Daemon, headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.entry(*name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if daemon.is_encrypted {
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(HeaderValue::from_static("max-age=31536000"));
    }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Every browser says where a request that changes something comes from; programs say nothing. New browsers
/// say it of secure places by `Sec-Fetch-Site`, which no page can change; otherwise `Origin` tells.
fn same_site(headers: &HeaderMap) -> Result<()> {
    let refused = || Problem::forbidden("the request comes from a page of another site");
    if let Some(site) = headers.get("sec-fetch-site") {
        return match site.as_bytes() {
            b"same-origin" | b"none" => Ok(()),
            _ => Err(refused()),
        };
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if origin.is_some() && origin == host { Ok(()) } else { Err(refused()) }
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

/// The session's cookie, under either of its names.
pub(crate) fn cookie(jar: &CookieJar) -> Option<&str> {
    [SECURE_SESSION_COOKIE, SESSION_COOKIE].into_iter().find_map(|name| jar.get(name)).map(Cookie::value)
}

/// Whether it is a person who asks.
pub(crate) fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

/// Whether a person asks for a page, and is answered with one whatever comes of it.
pub(crate) fn wants_page(request: &Request) -> bool {
    let path = request.uri().path();
    let is_page = path == "/" || path == "/login" || path.starts_with("/ui/");
    is_page && accepts_html(request.headers())
}

/// Methods that nobody has heard of share one name: clients make up as many as they like.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// A path as the logs keep it.
fn logged(path: &str) -> String {
    match path.char_indices().nth(LOGGED_BYTES_MAX) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.to_owned(),
    }
}

/// What changes something, what hands out content, and what was refused.
fn is_audited(method: &Method, route: &str, status: u16) -> bool {
    !is_safe(method) || route.ends_with("/content") || matches!(status, 401 | 403)
}

#[cfg(test)]
mod tests {
    //! Goal: pages of other sites change nothing, names of other sites reach nothing. Method: headers as
    //! browsers send them.

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn requests_of_other_sites_are_refused() {
        let check = |pairs: &[(&'static str, &str)], allowed: bool| {
            assert_eq!(same_site(&headers(pairs)).is_ok(), allowed, "{pairs:?}");
        };
        check(&[], true);
        check(
            &[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:7070"), ("host", "localhost:7070")],
            true,
        );
        check(&[("sec-fetch-site", "none")], true);
        check(&[("sec-fetch-site", "cross-site")], false);
        check(&[("sec-fetch-site", "same-site")], false);
        check(&[("origin", "http://evil.example"), ("host", "localhost:7070")], false);
        check(&[("origin", "http://localhost:8080"), ("host", "localhost:7070")], false);
        check(&[("origin", "null"), ("host", "localhost:7070")], false);
    }

    #[test]
    fn only_names_of_this_machine_are_answered_without_tokens() {
        let check =
            |host: &str, allowed: bool| assert_eq!(names_loopback(&headers(&[("host", host)])), allowed, "{host}");
        check("localhost", true);
        check("LOCALHOST:7070", true);
        check("127.0.0.1:7070", true);
        check("127.9.9.9", true);
        check("[::1]:7070", true);
        check("evil.example:7070", false);
        check("127.0.0.1.evil.example", false);
        check("10.0.0.1", false);
    }

    #[test]
    fn tokens_and_cookies_are_found() {
        assert_eq!(bearer(&headers(&[("authorization", "bearer abc")])), Some("abc"));
        assert_eq!(bearer(&headers(&[("authorization", "Basic abc")])), None);
        let session = |value: &str| {
            let jar = CookieJar::from_headers(&headers(&[("cookie", value)]));
            cookie(&jar).map(str::to_owned)
        };
        assert_eq!(session("a=b; copal_session=xyz").as_deref(), Some("xyz"));
        assert_eq!(session("a=b;copal_session=xyz;").as_deref(), Some("xyz"));
        assert_eq!(session("__Host-copal_session=s; copal_session=xyz").as_deref(), Some("s"));
        assert_eq!(session("xcopal_session=xyz"), None);
        assert_eq!(session("copal_session"), None);
    }
}
