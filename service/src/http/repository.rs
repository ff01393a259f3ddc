//! The repository as a whole, and the daemon itself: costs, verification, collection, tokens, the audit log,
//! health, figures.

use std::time::Duration;

use super::extract::{Path, Query, Sent};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::answer::{Success, Wait, answer};
use super::snapshots::NOTHING;
use crate::access::{AuditLine, NewToken, Principal, Role, TokenView, Tokens};
use crate::daemon::{Access, Daemon};
use crate::operation::{Operation, Task};
use crate::problem::{Problem, Result};

/// Most lines of the audit log in one answer.
const AUDIT_LINES_MAX: usize = 10_000;

/// What the repository costs and saves, in bytes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct StatsView {
    /// Sum of the logical sizes of all snapshots.
    logical: u64,
    /// Stored, all objects.
    stored: u64,
    /// What deduplication saves.
    saved_by_deduplication: u64,
    /// What deltas save.
    saved_by_deltas: u64,
    /// What compression saves.
    saved_by_compression: u64,
    /// Distinct chunks.
    chunks: u64,
    /// Packs.
    packs: u64,
    /// For each snapshot, by id: stored bytes that only it needs.
    unique: std::collections::BTreeMap<String, u64>,
}

/// Sizes: what snapshots cost and what is saved. Counted anew when something has changed.
#[utoipa::path(get, path = "/stats", tag = "repository", responses((status = 200, body = StatsView)))]
pub(crate) async fn stats(State(daemon): Shared, principal: Principal) -> Result<Json<StatsView>> {
    principal.may_all(Role::View)?;
    let counted = daemon.ask(|platform| platform.count_costs()).await?;
    let stats = &counted.stats;
    Ok(Json(StatsView {
        logical: stats.logical,
        stored: stats.stored,
        saved_by_deduplication: stats.saved_by_deduplication,
        saved_by_deltas: stats.saved_by_deltas,
        saved_by_compression: stats.saved_by_compression,
        chunks: stats.chunks,
        packs: stats.packs,
        unique: counted.unique.iter().map(|(id, bytes)| (id.clone(), *bytes)).collect(),
    }))
}

/// How to verify.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VerifyBody {
    /// Structure only.
    quick: bool,
}

/// Hashes every byte of the repository again.
#[utoipa::path(post, path = "/repository/verify", tag = "repository",
    params(Wait),
    request_body = Option<VerifyBody>,
    responses((status = 200, body = Object), (status = 202, body = Operation)))]
pub(crate) async fn verify(
    State(daemon): Shared,
    principal: Principal,
    Query(wait): Query<Wait>,
    body: Sent,
) -> Result<Response> {
    principal.may_all(Role::Create)?;
    let limit = wait.limit(Some(Duration::ZERO))?;
    let VerifyBody { quick } = body.optional()?;
    let task = Task::Verify { snapshots: Vec::new(), quick };
    let watch = daemon.submit("", task, None, &principal.name).await?;
    answer(watch, limit, Success::Done).await
}

/// How to collect.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CollectBody {
    /// Removes first what the rules of the applications let go, as after each create.
    retention: bool,
}

/// Returns the space of what no snapshot reaches.
#[utoipa::path(post, path = "/repository/collect", tag = "repository",
    params(Wait),
    request_body = Option<CollectBody>,
    responses((status = 200, body = Object), (status = 202, body = Operation)))]
pub(crate) async fn collect(
    State(daemon): Shared,
    principal: Principal,
    Query(wait): Query<Wait>,
    body: Sent,
) -> Result<Response> {
    principal.may_all(Role::Administer)?;
    let limit = wait.limit(Some(Duration::ZERO))?;
    let CollectBody { retention } = body.optional()?;
    let watch = daemon.submit("", Task::Collect { retention }, None, &principal.name).await?;
    answer(watch, limit, Success::Done).await
}

/// Tokens, without their secrets.
#[utoipa::path(get, path = "/tokens", tag = "access", responses((status = 200, body = Vec<TokenView>)))]
pub(crate) async fn list_tokens(State(daemon): Shared, principal: Principal) -> Result<Json<Vec<TokenView>>> {
    principal.may_all(Role::Administer)?;
    Ok(Json(tokens(&daemon)?.list()?))
}

/// A token to make.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenBody {
    /// Whose it is.
    name: String,
    /// What it may do.
    role: Role,
    /// Applications that it may see; empty: all.
    #[serde(default)]
    apps: Vec<String>,
}

/// Makes a token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/tokens", tag = "access", request_body = TokenBody,
    responses((status = 201, body = NewToken)))]
pub(crate) async fn add_token(State(daemon): Shared, principal: Principal, body: Sent) -> Result<Response> {
    principal.may_all(Role::Administer)?;
    let TokenBody { name, role, apps } = body.required()?;
    for app in &apps {
        daemon.platform.application(Some(app))?;
    }
    let made = tokens(&daemon)?.add(&name, role, apps)?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// Removes a token; its sessions end with it.
#[utoipa::path(delete, path = "/tokens/{id}", tag = "access",
    params(("id" = String, Path, description = "Its id or name")), responses((status = 204)))]
pub(crate) async fn remove_token(
    State(daemon): Shared,
    principal: Principal,
    Path(id): Path<String>,
    body: Sent,
) -> Result<StatusCode> {
    principal.may_all(Role::Administer)?;
    body.nothing()?;
    tokens(&daemon)?.remove(&id)?;
    Ok(NOTHING)
}

fn tokens(daemon: &Daemon) -> Result<&Tokens> {
    match &daemon.access {
        Access::Tokens { tokens, .. } => Ok(tokens.as_ref()),
        Access::Open => {
            Err(Problem::conflict("no-tokens", "the daemon runs without tokens", "start it without --no-auth"))
        }
    }
}

/// How much of the audit log.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    limit: Option<usize>,
}

/// Who did what, newest first.
#[utoipa::path(get, path = "/audit", tag = "access",
    params(("limit" = Option<usize>, Query, description = "At most so many; 100 when left away")),
    responses((status = 200, body = Vec<AuditLine>)))]
pub(crate) async fn audit(
    State(daemon): Shared,
    principal: Principal,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Vec<AuditLine>>> {
    principal.may_all(Role::Administer)?;
    Ok(Json(daemon.audit.newest(query.limit.unwrap_or(100).min(AUDIT_LINES_MAX))?))
}

/// How the daemon is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct HealthView {
    /// `ok`; a daemon that cannot read its repository answers with a problem.
    status: &'static str,
    /// Version of the program.
    version: &'static str,
}

/// Whether the daemon can read its repository. Needs no token.
#[utoipa::path(get, path = "/healthz", tag = "daemon", security(()),
    responses((status = 200, body = HealthView)))]
pub(crate) async fn health(State(daemon): Shared) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    match daemon.ask(|platform| platform.shelf()).await {
        Ok(_) => Json(HealthView { status: "ok", version }).into_response(),
        Err(problem) => {
            tracing::error!(detail = problem.detail, "the repository cannot be read");
            // Whoever asks may be anybody: the log says why.
            Problem::unavailable("the repository cannot be read").into_response()
        }
    }
}

/// Figures for Prometheus (OpenMetrics text).
#[utoipa::path(get, path = "/metrics", tag = "daemon",
    responses((status = 200, content_type = "application/openmetrics-text", body = String)))]
pub(crate) async fn metrics(State(daemon): Shared, principal: Principal) -> Result<Response> {
    principal.may_all(Role::View)?;
    let shelf = daemon.ask(|platform| platform.shelf()).await.ok();
    let costs = daemon.platform.costs().map(|counted| counted.sums());
    let text = daemon.metrics.render(shelf.as_deref(), &daemon.operations.active(), costs);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
