//! Operations: list, show, cancel, and their progress as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use super::extract::{Path, Query, Sent};
use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, unfold};
use serde::Deserialize;

use super::Shared;
use super::answer::Wait;
use crate::access::{Principal, Role};
use crate::daemon::Daemon;
use crate::operation::{Operation, Watch, wait};
use crate::problem::{Problem, Result};

/// Events of one operation come at most this often.
const EVENT_EACH: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Only those that have not ended.
    #[serde(default)]
    active: bool,
}

/// The operations that are remembered, newest first.
#[utoipa::path(get, path = "/operations", tag = "operations",
    params(("active" = Option<bool>, Query, description = "Only those that have not ended")),
    responses((status = 200, body = Vec<Operation>)))]
pub(crate) async fn list(
    State(daemon): Shared,
    principal: Principal,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Operation>>> {
    principal.has(Role::View)?;
    let mut operations = if query.active { daemon.operations.active() } else { daemon.operations.list() };
    operations.retain(|operation| principal.sees(&operation.app));
    Ok(Json(operations))
}

/// One operation.
#[utoipa::path(get, path = "/operations/{id}", tag = "operations",
    params(
        ("id" = String, Path, description = "Its id"),
        Wait,
    ),
    responses((status = 200, body = Operation)))]
pub(crate) async fn show(
    State(daemon): Shared,
    principal: Principal,
    Path(id): Path<String>,
    Query(query): Query<Wait>,
) -> Result<Json<Operation>> {
    let mut watch = visible(&daemon, &principal, &id)?;
    let limit = query.limit(Some(Duration::ZERO))?;
    Ok(Json(wait(&mut watch, limit).await))
}

/// Asks an operation to stop: one that waits ends at once, one that runs at its next safe point.
#[utoipa::path(post, path = "/operations/{id}/cancel", tag = "operations",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, body = Operation)))]
pub(crate) async fn cancel(
    State(daemon): Shared,
    principal: Principal,
    Path(id): Path<String>,
    body: Sent,
) -> Result<Json<Operation>> {
    let operation = visible(&daemon, &principal, &id)?.borrow().clone();
    principal.has(role_of(&operation.verb))?;
    body.nothing()?;
    let operations = daemon.operations.clone();
    let canceled = tokio::task::spawn_blocking(move || operations.cancel(&id)).await;
    Ok(Json(canceled.map_err(|error| Problem::internal(error.to_string()))??))
}

/// The progress of an operation as server-sent events: `progress` with the operation as its data, at last
/// `end`.
#[utoipa::path(get, path = "/operations/{id}/events", tag = "operations",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(crate) async fn events(
    State(daemon): Shared,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = std::result::Result<Event, Infallible>>>> {
    let watch = visible(&daemon, &principal, &id)?;
    Ok(Sse::new(unfold(Some((watch, true)), next_event)).keep_alive(KeepAlive::default()))
}

type EventState = Option<(Watch, bool)>;

async fn next_event(state: EventState) -> Option<(std::result::Result<Event, Infallible>, EventState)> {
    let (mut watch, is_first) = state?;
    if !is_first {
        watch.changed().await.ok()?;
        if !watch.borrow().state.is_final() {
            tokio::time::sleep(EVENT_EACH).await;
        }
    }
    let operation = watch.borrow_and_update().clone();
    let is_final = operation.state.is_final();
    let name = if is_final { "end" } else { "progress" };
    let data = serde_json::to_string(&operation).unwrap_or_default();
    let event = Event::default().event(name).data(data);
    Some((Ok(event), (!is_final).then_some((watch, false))))
}

/// An operation that the principal may see.
pub(crate) fn visible(daemon: &Daemon, principal: &Principal, id: &str) -> Result<Watch> {
    principal.has(Role::View)?;
    let watch = daemon.operations.watch(id).filter(|watch| principal.sees(&watch.borrow().app));
    watch.ok_or_else(|| Problem::not_found("no-such-operation", format!("no operation {id}")))
}

/// Who may begin an operation may end it.
pub(crate) fn role_of(verb: &str) -> Role {
    match verb {
        "create" | "verify" => Role::Create,
        "deploy" => Role::Deploy,
        _ => Role::Administer,
    }
}
