//! What is in a snapshot, and what differs.

use super::extract::{Path, Query};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use copal_manifest::shown::is_hidden;
use serde::Deserialize;

use super::Shared;
use super::answer::{SnapshotPath, application, escaped};
use super::stream::body;
use crate::access::{Principal, Role};
use crate::platform::{DiffView, EntryView};
use crate::problem::{Problem, Result};

/// A path inside a snapshot.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathQuery {
    /// `[label/]path`.
    #[serde(default)]
    path: String,
    /// Its bytes in hexadecimal, for names that are no text.
    path_hex: Option<String>,
}

impl PathQuery {
    fn bytes(&self) -> Result<Vec<u8>> {
        match &self.path_hex {
            Some(_) if !self.path.is_empty() => Err(Problem::unfit("path and path_hex both name a path")),
            Some(hexadecimal) => hex::decode(hexadecimal).map_err(|_| Problem::unfit("path_hex is not hexadecimal")),
            None => Ok(self.path.clone().into_bytes()),
        }
    }
}

/// Against what to compare.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiffQuery {
    against: Option<String>,
}

/// What a deploy of the snapshot would change, or what differs between another snapshot and it: from
/// `against` to `name`.
#[utoipa::path(get, path = "/snapshots/{name}/diff", tag = "content",
    params(
        ("name" = String, Path, description = "Its name or id"),
        ("against" = Option<String>, Query, description = "Another snapshot of the application; without it, the live data"),
    ),
    responses((status = 200, body = DiffView)))]
pub(crate) async fn preview(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Query(query): Query<DiffQuery>,
) -> Result<Json<DiffView>> {
    let app = application(&daemon, &principal, path.app.as_deref(), Role::View)?;
    let view = daemon
        .ask(move |platform| {
            let found = platform.find(&app, &path.name)?;
            match &query.against {
                Some(other) => platform.compare(&platform.find(&app, other)?, &found),
                None => platform.preview(&found),
            }
        })
        .await?;
    Ok(Json(view))
}

/// The entry at a path and, for a folder, what is in it.
#[utoipa::path(get, path = "/snapshots/{name}/entries", tag = "content",
    params(
        ("name" = String, Path, description = "Its name or id"),
        ("path" = Option<String>, Query, description = "`[label/]path`; empty: everything on top"),
        ("path_hex" = Option<String>, Query, description = "The path's bytes in hexadecimal"),
    ),
    responses((status = 200, body = Vec<EntryView>)))]
pub(crate) async fn entries(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Query(query): Query<PathQuery>,
) -> Result<Json<Vec<EntryView>>> {
    let app = application(&daemon, &principal, path.app.as_deref(), Role::View)?;
    let inside = query.bytes()?;
    let entries = daemon
        .ask(move |platform| {
            let found = platform.find(&app, &path.name)?;
            platform.entries(&found, &inside)
        })
        .await?;
    Ok(Json(entries))
}

/// The content of one file, as a download.
#[utoipa::path(get, path = "/snapshots/{name}/content", tag = "content",
    params(
        ("name" = String, Path, description = "Its name or id"),
        ("path" = Option<String>, Query, description = "`[label/]path`"),
        ("path_hex" = Option<String>, Query, description = "The path's bytes in hexadecimal"),
    ),
    responses((status = 200, content_type = "application/octet-stream", body = [u8])))]
pub(crate) async fn content(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Query(query): Query<PathQuery>,
) -> Result<Response> {
    let app = application(&daemon, &principal, path.app.as_deref(), Role::Deploy)?;
    let permit = daemon.counters.transfer()?;
    let inside = query.bytes()?;
    let file = String::from_utf8_lossy(inside.rsplit(|&byte| byte == b'/').next().unwrap_or_default()).into_owned();
    let (mut writer, reader) = body();
    let platform = std::sync::Arc::clone(&daemon.platform);
    tokio::task::spawn_blocking(move || {
        let read = platform.find(&app, &path.name).and_then(|found| platform.read_file(&found, &inside, &mut writer));
        // The client hears of a failure by the connection, or is gone.
        let _ = writer.finish(read);
    });
    Ok(attachment(reader.into_body(permit).await?, &file))
}

/// A download that no browser shows as a page.
pub(super) fn attachment(body: Body, file: &str) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, disposition(file));
    response
}

/// `attachment` with a name (RFC 6266): characters that a header cannot hold are escaped.
fn disposition(file: &str) -> HeaderValue {
    let plain: String =
        file.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    // A browser shows it, and a person opens what the name says.
    let open: String = file.chars().map(|c| if is_hidden(c) { '_' } else { c }).collect();
    let value = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", escaped(&open));
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("attachment"))
}
