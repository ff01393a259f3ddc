//! Export: a bundle as a stream.

use std::sync::Arc;

use super::extract::{Path, Sent};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Shared;
use super::answer::{SnapshotPath, application};
use super::content::attachment;
use super::stream::body;
use crate::access::{OPERATION_HEADER, Principal, Role};
use crate::daemon::Daemon;
use crate::operation::{Order, Secret, Task};
use crate::platform::BundleFormat;
use crate::problem::Result;

/// How to export.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExportRequest {
    /// Protects the key that goes with the bundle. Without it the key is left out, and the bundle is of
    /// little use elsewhere.
    pub(crate) password: Option<String>,
    /// `hub-tar` (a gzip tar with `snapshot.yaml`, the default) or `native` (smaller, everything encrypted).
    pub(crate) format: Option<String>,
}

/// Writes a snapshot into one file: a download.
#[utoipa::path(post, path = "/snapshots/{name}/export", tag = "snapshots",
    params(("name" = String, Path, description = "Its name or id")),
    request_body = Option<ExportRequest>,
    responses((status = 200, content_type = "application/octet-stream", body = [u8])))]
pub(crate) async fn export(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    body: Sent,
) -> Result<Response> {
    let app = application(&daemon, &principal, path.app.as_deref(), Role::Administer)?;
    let request = body.optional()?;
    begin_export(&daemon, &principal, app, path.name, request).await
}

/// Begins the stream; the page uses it too.
pub(crate) async fn begin_export(
    daemon: &Arc<Daemon>,
    principal: &Principal,
    app: String,
    name: String,
    request: ExportRequest,
) -> Result<Response> {
    let permit = daemon.counters.transfer()?;
    let format = BundleFormat::named(request.format.as_deref())?;
    let secret = request.password.filter(|password| !password.is_empty()).map(Secret::new);
    let asked = app.clone();
    let found = daemon.ask(move |platform| platform.find(&asked, &name)).await?;
    let file = format!("{}.{}", found.view.name, format.extension());
    let task = Task::Export { id: found.view.id.clone(), name: found.view.name.clone() };
    let order = Order { app, task, secret: None, actor: principal.name.clone(), deadline: daemon.deadline };
    let (mut writer, reader) = body();
    let platform = Arc::clone(&daemon.platform);
    let watch = daemon.operations.run_beside(order, move |work| {
        let written = platform.export(&found, format, secret.as_ref(), work, &mut writer);
        writer.finish(written)
    })?;
    let mut response = attachment(reader.into_body(permit).await?, &file);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    if let Ok(id) = HeaderValue::from_str(&watch.borrow().id) {
        headers.insert(OPERATION_HEADER, id);
    }
    Ok(response)
}
