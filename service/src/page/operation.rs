//! The page of one operation: live progress by server-sent events; without the script it renews itself.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, PreEscaped, html};
use serde_json::Value;

use crate::access::{Principal, Role};
use crate::daemon::Daemon;
use crate::http::{Path, escaped, role_of, visible};
use crate::operation::{Operation, State as OperationState};
use crate::page::shown::{count, name, size, time};
use crate::page::{layout, to_operation};
use crate::problem::{Problem, Result};

/// Names of removed snapshots that one page shows.
const NAMES_MAX: usize = 50;
/// Operations on one page.
const SHOWN_MAX: usize = 100;

pub(crate) async fn page(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Markup> {
    let operation = visible(&daemon, &principal, &id)?.borrow().clone();
    let title = title(&operation);
    let main = html! {
        @if !operation.state.is_final() {
            noscript { (PreEscaped("<meta http-equiv=\"refresh\" content=\"2\">")) }
        }
        h1 { (title) }
        (progress(&operation))
        @if let Some(result) = &operation.result { (outcome(&operation, result)) }
        @if let Some(error) = &operation.error {
            div.problem role="alert" {
                p { (error.detail) }
                p.hint { (error.hint) }
                p.code { "Code " code { (error.code) } " · exit code " (error.exit_code) " (" (error.exit) ")" }
            }
        }
        @if !operation.notices.is_empty() {
            h2 { "Notices" }
            ul { @for notice in &operation.notices { li { (notice) } } }
        }
        dl.facts {
            dt { "Application" } dd { @if operation.app.is_empty() { "the whole repository" } @else { (operation.app) } }
            dt { "Asked for by" } dd { (operation.actor) }
            dt { "Asked for" } dd { (time(&operation.created)) }
            @if let Some(started) = &operation.started { dt { "Begun" } dd { (time(started)) } }
            @if let Some(ended) = &operation.ended { dt { "Ended" } dd { (time(ended)) } }
            @if operation.attempts > 1 { dt { "Attempts" } dd { (operation.attempts) " (the daemon ended in between)" } }
            dt { "Operation" } dd { code { (operation.id) } }
        }
        @if !operation.state.is_final() && principal.role >= role_of(&operation.verb) {
            form method="post" action={ "/ui/operations/" (operation.id) "/cancel" } {
                button type="submit" { "Cancel" }
            }
        }
        p { a href="/" { "Back to the snapshots" } }
    };
    Ok(layout::page(&title, Some(&principal), &main))
}

/// What goes on, on other pages.
pub(super) fn active(operations: &[Operation]) -> Markup {
    html! {
        section aria-labelledby="active-heading" {
            h2 id="active-heading" { "Goes on" }
            ul.operations {
                @for operation in operations.iter().take(20) {
                    li { a href={ "/ui/operations/" (operation.id) } { (title(operation)) } (progress(operation)) }
                }
            }
        }
    }
}

/// The live part: the script finds it by `data-operation`.
fn progress(operation: &Operation) -> Markup {
    let view = &operation.progress;
    let known = view.total_known && view.bytes_total > 0;
    html! {
        div.progress data-operation=(operation.id) data-state=(operation.state.name()) {
            p.state role="status" aria-live="polite" { (sentence(operation)) }
            @if !operation.state.is_final() {
                @if known {
                    progress max=(view.bytes_total) value=(view.bytes_done) aria-label="Progress" {}
                } @else {
                    progress aria-label="Progress" {}
                }
            }
            p.figures {
                @if view.files_done > 0 || view.bytes_done > 0 {
                    (count(view.files_done, "file", "files")) ", " (size(view.bytes_done))
                    @if known { " of " (size(view.bytes_total)) }
                }
            }
        }
    }
}

/// What came of it, and the way back.
fn outcome(operation: &Operation, result: &Value) -> Markup {
    let number = |field: &str| result[field].as_u64();
    let place = |id: &str| format!("/ui/apps/{}/snapshots/{}", escaped(&operation.app), escaped(id));
    let warnings = result["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        dl.facts.outcome {
            @if let Some(milliseconds) = number("down_ms") {
                dt { "The application was down for" } dd { (milliseconds) " ms" }
            }
            @if let Some(safety) = result["safety"].as_str() {
                dt { "What stood there before" } dd { a href=(place(safety)) { "is a snapshot: the way back" } }
            }
            @if let Some(snapshot) = result["snapshot"]["id"].as_str() {
                dt { "Snapshot" } dd { a href=(place(snapshot)) { (name(&operation.subject)) } }
            }
            @if let Some(bytes) = number("stored_new") { dt { "The repository grew by" } dd { (size(bytes)) } }
            @if let Some(bytes) = number("bytes_freed") { dt { "Returned" } dd { (size(bytes)) } }
            @if let Some(removed) = number("snapshots_removed").filter(|removed| *removed > 0) {
                dt { "Removed by rules" }
                dd { (count(removed, "snapshot", "snapshots")) ": " (named(&result["removed"])) }
            }
            @if let Some(packs) = number("packs_waiting").filter(|packs| *packs > 0) {
                dt { "Waits" } dd { (count(packs, "pack", "packs")) " for what runs now; the next collection removes them" }
            }
            @if let (Some(chunks), Some(bytes)) = (number("chunks"), number("bytes")) {
                dt { "Verified" } dd { (count(chunks, "piece", "pieces")) " of " (size(bytes)) ": all are whole" }
            }
        }
        @if !warnings.is_empty() {
            h2 { "Warnings" }
            ul { @for warning in warnings.iter().filter_map(Value::as_str) { li { (warning) } } }
        }
    }
}

/// The first names of a list.
fn named(list: &Value) -> String {
    let names: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let shown: Vec<String> = names.iter().take(NAMES_MAX).map(|text| name(text)).collect();
    let more = if names.len() > NAMES_MAX { " …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// The operations that are remembered.
pub(crate) async fn all(State(daemon): State<Arc<Daemon>>, principal: Principal) -> Result<Markup> {
    principal.has(Role::View)?;
    let mut operations = daemon.operations.list();
    operations.retain(|operation| principal.sees(&operation.app));
    let total = operations.len() as u64;
    let main = html! {
        h1 { "Operations" }
        table.cards role="table" {
            caption {
                (count(total, "operation", "operations"))
                @if operations.len() > SHOWN_MAX { ", the newest " (SHOWN_MAX) " of them" }
            }
            thead role="rowgroup" { tr role="row" {
                @for name in ["Operation", "Application", "State", "Asked for by", "Asked for"] {
                    th role="columnheader" scope="col" { (name) }
                }
            } }
            tbody role="rowgroup" { @for operation in operations.iter().take(SHOWN_MAX) {
                tr role="row" {
                    th role="rowheader" scope="row" { a href={ "/ui/operations/" (operation.id) } { (title(operation)) } }
                    td role="cell" data-label="Application" { (operation.app) }
                    td role="cell" data-label="State" class={ "phase " (operation.state.name()) } {
                        (sentence(operation)) @if let Some(error) = &operation.error { ": " (error.code) }
                    }
                    td role="cell" data-label="Asked for by" { (operation.actor) }
                    td.when role="cell" data-label="Asked for" { (time(&operation.created)) }
                }
            } }
        }
        @if operations.is_empty() { p.empty { "No operations yet." } }
    };
    Ok(layout::page("Operations", Some(&principal), &main))
}

fn title(operation: &Operation) -> String {
    let done = operation.state == OperationState::Succeeded;
    let (is_done, goes_on) = match operation.verb.as_str() {
        "create" => ("Took the snapshot", "Taking the snapshot"),
        "deploy" => ("Deployed", "Deploying"),
        "delete" => ("Deleted", "Deleting"),
        "export" => ("Exported", "Exporting"),
        "import" => ("Imported", "Importing"),
        "verify" => ("Verified", "Verifying"),
        "collect" => ("Returned unused space", "Returning unused space"),
        other => (other, other),
    };
    let what = if done { is_done } else { goes_on };
    match (operation.verb.as_str(), operation.subject.as_str()) {
        ("verify", "") if operation.app.is_empty() => format!("{what} the repository"),
        (_, "") => what.to_owned(),
        (_, subject) => format!("{what} {}", name(subject)),
    }
}

fn sentence(operation: &Operation) -> String {
    match operation.state {
        OperationState::Queued if operation.position == 1 => "Waits for one other operation".into(),
        OperationState::Queued => format!("Waits for {} other operations", operation.position),
        OperationState::Running if operation.progress.phase.is_empty() => "Runs".into(),
        OperationState::Running => format!("Runs: {}", operation.progress.phase),
        OperationState::Succeeded => "Done".into(),
        OperationState::Failed => "Failed".into(),
        OperationState::Canceled => "Canceled".into(),
    }
}

pub(crate) async fn cancel(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response> {
    let watch = visible(&daemon, &principal, &id)?;
    let verb = watch.borrow().verb.clone();
    principal.has(role_of(&verb))?;
    let operations = daemon.operations.clone();
    let canceled = tokio::task::spawn_blocking(move || operations.cancel(&id)).await;
    match canceled.map_err(|error| Problem::internal(error.to_string()))? {
        // It ended while the person read: the page says how.
        Err(problem) if problem.code == "not-running" => {}
        other => drop(other?),
    }
    Ok(to_operation(&watch))
}
