//! What the forms of the pages do.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use crate::access::{Principal, Role};
use crate::daemon::Daemon;
use crate::http::{ExportRequest, Form, ImportField, Path, begin_export, begin_import, receive};
use crate::operation::Task;
use crate::page::shown::place;
use crate::page::snapshot::{SnapshotPath, find};
use crate::page::to_operation;
use crate::problem::{Problem, Result};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateForm {
    app: String,
    name: String,
}

pub(crate) async fn create(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Form(form): Form<CreateForm>,
) -> Result<Response> {
    let app = daemon.platform.application(Some(&form.app))?.name.clone();
    principal.may(Role::Create, &app)?;
    let wanted = Some(form.name.trim().to_owned()).filter(|name| !name.is_empty());
    let asked = app.clone();
    let name = daemon.ask(move |platform| platform.name_for(&asked, wanted.as_deref())).await?;
    let task = Task::Create { name, tags: Default::default(), pinned: false };
    Ok(to_operation(&daemon.submit(&app, task, None, &principal.name).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeployForm {
    /// A box that is not ticked is not sent.
    #[serde(default)]
    any_schema: bool,
}

pub(crate) async fn deploy(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Form(DeployForm { any_schema }): Form<DeployForm>,
) -> Result<Response> {
    let found = find(&daemon, &principal, path, Role::Deploy).await?;
    let asked = found.clone();
    daemon.ask(move |platform| platform.check_deploy(&asked, any_schema)).await?;
    let digest = Some(found.view.digest);
    let task = Task::Deploy { id: found.view.id, name: found.view.name, digest, any_schema };
    Ok(to_operation(&daemon.submit(&found.view.app, task, None, &principal.name).await?))
}

pub(crate) async fn delete(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
) -> Result<Response> {
    let found = find(&daemon, &principal, path, Role::Administer).await?;
    if found.view.pinned {
        return Err(Problem::from(copal_engine::Error::Pinned(found.view.name)));
    }
    let task = Task::Delete { id: found.view.id, name: found.view.name };
    Ok(to_operation(&daemon.submit(&found.view.app, task, None, &principal.name).await?))
}

pub(crate) async fn verify(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
) -> Result<Response> {
    let found = find(&daemon, &principal, path, Role::Create).await?;
    let task = Task::Verify { snapshots: vec![found.view.id], quick: false };
    Ok(to_operation(&daemon.submit(&found.view.app, task, None, &principal.name).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinForm {
    pinned: bool,
}

pub(crate) async fn pin(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Form(form): Form<PinForm>,
) -> Result<Response> {
    let found = find(&daemon, &principal, path, Role::Create).await?;
    let back = place(&found.view);
    daemon.ask(move |platform| platform.relabel(&found.view.app, &found.view.id, Some(form.pinned), None)).await?;
    Ok(Redirect::to(&back).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollectForm {
    /// A box that is not ticked is not sent.
    #[serde(default)]
    retention: bool,
}

pub(crate) async fn collect(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Form(CollectForm { retention }): Form<CollectForm>,
) -> Result<Response> {
    principal.may_all(Role::Administer)?;
    Ok(to_operation(&daemon.submit("", Task::Collect { retention }, None, &principal.name).await?))
}

pub(crate) async fn export(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Form(request): Form<ExportRequest>,
) -> Result<Response> {
    principal.may(Role::Administer, &path.app)?;
    begin_export(&daemon, &principal, path.app, path.name, request).await
}

pub(crate) async fn import(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    request: Request,
) -> Result<Response> {
    principal.has(Role::Administer)?;
    let fields = &[ImportField::File, ImportField::Password, ImportField::Name, ImportField::App];
    let (mut upload, staged) = receive(&daemon, request, fields).await?;
    let app = daemon.platform.application(upload.app.as_deref())?.name.clone();
    principal.may(Role::Administer, &app)?;
    let name = upload.name.take().map(|name| name.trim().to_owned()).unwrap_or_default();
    let (asked, wanted) = (app.clone(), name.clone());
    daemon.ask(move |platform| platform.check_free(&asked, &wanted)).await?;
    Ok(to_operation(&begin_import(&daemon, &principal, &app, name, (upload, staged)).await?))
}
