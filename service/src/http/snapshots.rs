//! Snapshots: list, show, create, pin and tag, delete, deploy, verify.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Scope, SnapshotPath, Success, Wait, answer, application};
use super::extract::{Path, Query, Sent, Unique};
use super::{Shared, json};
use crate::access::{Principal, Role};
use crate::daemon::Daemon;
use crate::operation::{Operation, Task};
use crate::platform::{Line, SnapshotView, json_of};
use crate::problem::{Problem, Result};

/// A deletion is a matter of milliseconds: most clients would rather have it done.
const DELETE_WAIT: Duration = Duration::from_secs(10);

/// Which snapshots to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// At most so many.
    limit: Option<usize>,
    /// Only those after this id in the list.
    after: Option<String>,
    /// Only those whose name contains this.
    name: Option<String>,
}

/// The snapshots, newest first.
#[utoipa::path(get, path = "/snapshots", tag = "snapshots",
    params(
        ("limit" = Option<usize>, Query, description = "At most so many"),
        ("after" = Option<String>, Query, description = "Only those that stand after this id in the list"),
        ("name" = Option<String>, Query, description = "Only those whose name contains this"),
    ),
    responses((status = 200, body = Vec<SnapshotView>)))]
pub(crate) async fn list(
    State(daemon): Shared,
    principal: Principal,
    Path(scope): Path<Scope>,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    principal.has(Role::View)?;
    // Without a name every application that the client may see is listed.
    let app = scope.app.as_deref().map(|app| application(&daemon, &principal, Some(app), Role::View)).transpose()?;
    let shelf = match daemon.platform.shelf_at_hand() {
        Some(shelf) => shelf,
        None => daemon.ask(|platform| platform.shelf()).await?,
    };
    let etag = [(header::ETAG, format!("W/\"{}\"", shelf.generation))];
    let plain = query.limit.is_none() && query.after.is_none() && query.name.is_none();
    if app.is_none() && plain && principal.apps.is_empty() {
        return Ok((etag, json(shelf.json())).into_response());
    }
    let wanted = |line: &&Line| {
        let snapshot = &line.view;
        app.as_ref().is_none_or(|app| snapshot.app == *app)
            && principal.sees(&snapshot.app)
            && query.name.as_ref().is_none_or(|part| snapshot.name.contains(part.as_str()))
    };
    let mut after = query.after.is_some();
    let lines: Vec<&Line> = shelf
        .lines
        .iter()
        .filter(wanted)
        .filter(|line| {
            let skipped = after;
            after = after && query.after.as_ref() != Some(&line.view.id);
            !skipped
        })
        .take(query.limit.unwrap_or(usize::MAX))
        .collect();
    Ok((etag, json(json_of(lines.into_iter()))).into_response())
}

/// One snapshot.
#[utoipa::path(get, path = "/snapshots/{name}", tag = "snapshots",
    params(("name" = String, Path, description = "Its name, its id, or `latest`")),
    responses((status = 200, body = SnapshotView)))]
pub(crate) async fn show(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
) -> Result<Json<SnapshotView>> {
    let app = application(&daemon, &principal, path.app.as_deref(), Role::View)?;
    Ok(Json(daemon.ask(move |platform| platform.find(&app, &path.name)).await?.view))
}

/// How to take a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CreateBody {
    /// Tags.
    #[schema(value_type = BTreeMap<String, String>)]
    tags: Unique,
    /// Whether automatic removal passes it over.
    pinned: bool,
}

/// Takes a snapshot of the application.
#[utoipa::path(post, path = "/snapshots/{name}", tag = "snapshots",
    params(
        ("name" = String, Path, description = "Name of the snapshot, unique in the application"),
        Wait,
    ),
    request_body = Option<CreateBody>,
    responses((status = 201, body = SnapshotView), (status = 202, body = Operation)))]
pub(crate) async fn create(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Query(wait): Query<Wait>,
    body: Sent,
) -> Result<Response> {
    begin_create(&daemon, &principal, path.app, Some(path.name), wait, body).await
}

/// Takes a snapshot of the application under a name that is made: host and time.
#[utoipa::path(post, path = "/snapshots", tag = "snapshots",
    params(
        Wait,
    ),
    request_body = Option<CreateBody>,
    responses((status = 201, body = SnapshotView), (status = 202, body = Operation)))]
pub(crate) async fn create_unnamed(
    State(daemon): Shared,
    principal: Principal,
    Path(scope): Path<Scope>,
    Query(wait): Query<Wait>,
    body: Sent,
) -> Result<Response> {
    begin_create(&daemon, &principal, scope.app, None, wait, body).await
}

async fn begin_create(
    daemon: &Arc<Daemon>,
    principal: &Principal,
    app: Option<String>,
    name: Option<String>,
    wait: Wait,
    body: Sent,
) -> Result<Response> {
    let app = application(daemon, principal, app.as_deref(), Role::Create)?;
    let limit = wait.limit(Some(Duration::ZERO))?;
    let CreateBody { tags, pinned } = body.optional()?;
    check_tags(&tags)?;
    let asked = app.clone();
    let name = daemon.ask(move |platform| platform.name_for(&asked, name.as_deref())).await?;
    let task = Task::Create { name, tags: tags.0, pinned };
    let watch = daemon.submit(&app, task, None, &principal.name).await?;
    answer(watch, limit, Success::Created).await
}

/// Before anything is held still for the snapshot.
fn check_tags(Unique(tags): &Unique) -> Result<()> {
    let tags: Vec<(String, String)> = tags.clone().into_iter().collect();
    copal_engine::catalogue::check_tags(&tags).map_err(|error| Problem::unfit(error.to_string()))
}

/// What to change of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ChangeBody {
    /// Pins or unpins it.
    pinned: Option<bool>,
    /// Replaces its tags.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    tags: Option<Unique>,
}

/// Pins, unpins, tags.
#[utoipa::path(patch, path = "/snapshots/{name}", tag = "snapshots",
    params(("name" = String, Path, description = "Its name or id")),
    request_body = ChangeBody,
    responses((status = 200, body = SnapshotView)))]
pub(crate) async fn change(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    body: Sent,
) -> Result<Json<SnapshotView>> {
    let app = application(&daemon, &principal, path.app.as_deref(), Role::Create)?;
    let ChangeBody { pinned, tags } = body.required()?;
    tags.as_ref().map_or(Ok(()), check_tags)?;
    let tags = tags.map(|Unique(tags)| tags);
    Ok(Json(daemon.ask(move |platform| platform.relabel(&app, &path.name, pinned, tags)).await?))
}

/// Deletes a snapshot. Waits some seconds when it is not told otherwise.
#[utoipa::path(delete, path = "/snapshots/{name}", tag = "snapshots",
    params(
        ("name" = String, Path, description = "Its name or id"),
        Wait,
    ),
    responses((status = 204), (status = 202, body = Operation)))]
pub(crate) async fn delete(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Query(wait): Query<Wait>,
    body: Sent,
) -> Result<Response> {
    let app = application(&daemon, &principal, path.app.as_deref(), Role::Administer)?;
    body.nothing()?;
    let limit = wait.limit(Some(DELETE_WAIT))?;
    let asked = app.clone();
    let found = daemon.ask(move |platform| platform.find(&asked, &path.name)).await?;
    if found.view.pinned {
        return Err(copal_engine::Error::Pinned(found.view.name).into());
    }
    let task = Task::Delete { id: found.view.id, name: found.view.name };
    let watch = daemon.submit(&app, task, None, &principal.name).await?;
    answer(watch, limit, Success::Gone).await
}

/// How to put a snapshot back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DeployBody {
    /// The snapshot's digest as it was written down, SHA-256 in hexadecimal: with another one nothing is
    /// touched.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    sha256: Option<String>,
    /// Goes on where it is not known which schema is newer, the snapshot's or the application's: it is
    /// migrated.
    any_schema: bool,
}

impl DeployBody {
    fn digest(&self) -> Result<Option<String>> {
        match &self.sha256 {
            Some(text) if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Err(Problem::unfit(format!("sha256 is {text:?}, and not 64 hexadecimal digits")))
            }
            digest => Ok(digest.as_ref().map(|digest| digest.to_ascii_lowercase())),
        }
    }
}

/// Puts a snapshot back: the application's data becomes what the snapshot holds.
#[utoipa::path(post, path = "/snapshots/{name}/deploy", tag = "snapshots",
    params(
        ("name" = String, Path, description = "Its name, its id, or `latest`"),
        Wait,
    ),
    request_body = Option<DeployBody>,
    responses((status = 200, body = Object), (status = 202, body = Operation)))]
pub(crate) async fn deploy(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Query(wait): Query<Wait>,
    body: Sent,
) -> Result<Response> {
    let app = application(&daemon, &principal, path.app.as_deref(), Role::Deploy)?;
    let limit = wait.limit(Some(Duration::ZERO))?;
    let body: DeployBody = body.optional()?;
    let (wanted, any_schema) = (body.digest()?, body.any_schema);
    let asked = app.clone();
    let found = daemon.ask(move |platform| platform.find_to_deploy(&asked, &path.name, wanted, any_schema)).await?;
    let (id, name, digest) = (found.view.id, found.view.name, Some(found.view.digest));
    let task = Task::Deploy { id, name, digest, any_schema };
    let watch = daemon.submit(&app, task, None, &principal.name).await?;
    answer(watch, limit, Success::Done).await
}

/// The same, as the Hub's clients write it.
#[utoipa::path(post, path = "/snapshot/deploy/{name}", tag = "snapshots",
    params(
        ("name" = String, Path, description = "Its name, its id, or `latest`"),
        Wait,
    ),
    request_body = Option<DeployBody>,
    responses((status = 200, body = Object), (status = 202, body = Operation)))]
pub(crate) async fn deploy_by_hub_route(
    state: Shared,
    principal: Principal,
    path: Path<SnapshotPath>,
    wait: Query<Wait>,
    body: Sent,
) -> Result<Response> {
    deploy(state, principal, path, wait, body).await
}

/// Hashes every byte of a snapshot again.
#[utoipa::path(post, path = "/snapshots/{name}/verify", tag = "snapshots",
    params(
        ("name" = String, Path, description = "Its name or id"),
        Wait,
    ),
    responses((status = 200, body = Object), (status = 202, body = Operation)))]
pub(crate) async fn verify(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Query(wait): Query<Wait>,
    body: Sent,
) -> Result<Response> {
    let app = application(&daemon, &principal, path.app.as_deref(), Role::Create)?;
    body.nothing()?;
    let limit = wait.limit(Some(Duration::ZERO))?;
    let asked = app.clone();
    let found = daemon.ask(move |platform| platform.find(&asked, &path.name)).await?;
    let task = Task::Verify { snapshots: vec![found.view.id], quick: false };
    let watch = daemon.submit(&app, task, None, &principal.name).await?;
    answer(watch, limit, Success::Done).await
}

/// For handlers that answer with nothing.
pub(super) const NOTHING: StatusCode = StatusCode::NO_CONTENT;
