//! Applications: which there are, and how each stands.

use std::collections::BTreeMap;

use super::extract::Path;
use axum::Json;
use axum::extract::State;
use copal_application::Application;
use copal_application::config::Retention;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::answer::{Scope, application};
use crate::access::{Principal, Role};
use crate::daemon::Daemon;
use crate::operation::{Operation, State as OperationState};
use crate::platform::{CaptureView, Shelf};
use crate::problem::Result;

/// An application.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ApplicationView {
    /// Its name.
    name: String,
    /// Whether the routes without a name mean it.
    default: bool,
    /// Labels of what is captured.
    sources: Vec<String>,
    /// When snapshots are taken by themselves (cron).
    schedule: Option<String>,
    /// When its snapshots are verified by themselves (cron).
    verify_schedule: Option<String>,
    /// Its oldest snapshots go when there are more.
    max_snapshots: Option<u32>,
    /// By which rules its snapshots stay; null: all stay.
    retention: Option<RetentionView>,
    /// The word that groups it with others; empty for none.
    namespace: String,
    /// How it is captured: the snapshot class.
    class: String,
    /// What the configuration says of that class.
    capabilities: BTreeMap<String, String>,
    /// How many snapshots it has.
    snapshots: u64,
    /// The operation that goes on: `CREATE`, `DEPLOY` …, or `IDLE`.
    status: String,
    /// Its operations that wait or run.
    operations: Vec<Operation>,
}

/// By which rules snapshots stay; what is 0 is no rule.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RetentionView {
    keep_last: u32,
    keep_hourly: u32,
    keep_daily: u32,
    keep_weekly: u32,
    keep_monthly: u32,
    keep_yearly: u32,
    /// In seconds.
    keep_within: u64,
    /// What has one of these tags, `KEY=VALUE`, always stays.
    keep_tags: Vec<String>,
    safety_keep: u32,
    /// In seconds.
    safety_within: u64,
}

impl RetentionView {
    fn new(retention: &Retention) -> Self {
        let Retention { rules, safety, keep_tags } = retention;
        Self {
            keep_last: rules.last,
            keep_hourly: rules.hourly,
            keep_daily: rules.daily,
            keep_weekly: rules.weekly,
            keep_monthly: rules.monthly,
            keep_yearly: rules.yearly,
            keep_within: rules.within_seconds,
            keep_tags: keep_tags.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            safety_keep: safety.last,
            safety_within: safety.within_seconds,
        }
    }
}

/// All applications.
#[utoipa::path(get, path = "/apps", tag = "applications", responses((status = 200, body = Vec<ApplicationView>)))]
pub(crate) async fn list(State(daemon): Shared, principal: Principal) -> Result<Json<Vec<ApplicationView>>> {
    principal.has(Role::View)?;
    let shelf = daemon.ask(|platform| platform.shelf()).await?;
    let applications = daemon.platform.applications().iter().filter(|spec| principal.sees(&spec.name));
    Ok(Json(applications.map(|spec| view(&daemon, spec, &shelf)).collect()))
}

/// Captures of an application that are under way, and those that failed.
#[utoipa::path(get, path = "/apps/{app}/captures", tag = "applications",
    params(("app" = String, Path, description = "Its name")),
    responses((status = 200, body = Vec<CaptureView>)))]
pub(crate) async fn captures(
    State(daemon): Shared,
    principal: Principal,
    Path(scope): Path<Scope>,
) -> Result<Json<Vec<CaptureView>>> {
    let name = application(&daemon, &principal, scope.app.as_deref(), Role::View)?;
    Ok(Json(daemon.ask(move |platform| platform.captures(&name)).await?))
}

/// One application.
#[utoipa::path(get, path = "/apps/{app}", tag = "applications",
    params(("app" = String, Path, description = "Its name")),
    responses((status = 200, body = ApplicationView)))]
pub(crate) async fn show(
    State(daemon): Shared,
    principal: Principal,
    Path(scope): Path<Scope>,
) -> Result<Json<ApplicationView>> {
    let name = application(&daemon, &principal, scope.app.as_deref(), Role::View)?;
    let shelf = daemon.ask(|platform| platform.shelf()).await?;
    let spec = daemon.platform.application(Some(&name))?;
    Ok(Json(view(&daemon, spec, &shelf)))
}

fn view(daemon: &Daemon, spec: &Application, shelf: &Shelf) -> ApplicationView {
    let operations: Vec<Operation> =
        daemon.operations.active().into_iter().filter(|operation| operation.app == spec.name).collect();
    let running = operations.iter().find(|operation| operation.state == OperationState::Running);
    ApplicationView {
        name: spec.name.clone(),
        default: daemon.platform.application(None).is_ok_and(|default| default.name == spec.name),
        sources: spec.sources().map(|(_, source)| source.label.clone()).collect(),
        schedule: spec.schedule.clone(),
        verify_schedule: spec.verify_schedule.clone(),
        max_snapshots: spec.max_snapshots,
        retention: spec.retention.as_ref().map(RetentionView::new),
        namespace: spec.namespace.clone(),
        class: spec.class.name.clone(),
        capabilities: spec.class.capabilities.clone(),
        snapshots: shelf.counts().get(spec.name.as_str()).copied().unwrap_or(0),
        status: running.map_or("IDLE".into(), |operation| operation.verb.to_uppercase()),
        operations,
    }
}
