//! The first page: what is there, what goes on, what it costs; take a snapshot, bring one in, deploy.

use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use crate::access::{Principal, Role};
use crate::daemon::Daemon;
use crate::http::Query;
use crate::operation::Operation;
use crate::page::shown::{age, count, name, place, size, time};
use crate::page::{chart, layout, operation};
use crate::platform::{Applications, SnapshotView};
use crate::problem::Result;

/// Snapshots on one page.
const PER_PAGE: usize = 50;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Only this application.
    #[serde(default)]
    app: String,
    /// Only names that contain this.
    #[serde(default)]
    q: String,
    /// From 1.
    page: Option<usize>,
}

pub(crate) async fn page(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Query(query): Query<ListQuery>,
) -> Result<Markup> {
    principal.has(Role::View)?;
    let shelf = daemon.ask(|platform| platform.shelf()).await?;
    let costs = daemon.platform.costs();
    let now = jiff::Timestamp::now();
    let wanted: Vec<&SnapshotView> = shelf
        .snapshots()
        .filter(|snapshot| principal.sees(&snapshot.app))
        .filter(|snapshot| query.app.is_empty() || snapshot.app == query.app)
        .filter(|snapshot| snapshot.name.contains(&query.q))
        .collect();
    let charted = wanted.clone();
    let (safety, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|snapshot| snapshot.safety);
    let pages = wanted.len().div_ceil(PER_PAGE).max(1);
    let number = query.page.unwrap_or(1).clamp(1, pages);
    let visible = &wanted[(number - 1) * PER_PAGE..wanted.len().min(number * PER_PAGE)];
    let apps: Vec<&str> = daemon
        .platform
        .applications()
        .iter()
        .map(|application| application.name.as_str())
        .filter(|app| principal.sees(app))
        .collect();
    let active: Vec<Operation> =
        daemon.operations.active().into_iter().filter(|operation| principal.sees(&operation.app)).collect();
    let unique = |snapshot: &SnapshotView| costs.as_ref().and_then(|costs| costs.unique.get(&snapshot.id).copied());
    let reader = Reader { principal: &principal, host: daemon.platform.host(), now };
    let main = html! {
        h1 { "Snapshots" }
        @if !active.is_empty() { (operation::active(&active)) }
        @if !shelf.unreadable.is_empty() && principal.apps.is_empty() {
            div.problem role="alert" {
                p { (count(shelf.unreadable.len() as u64, "snapshot", "snapshots")) " cannot be opened; the others are whole." }
                ul { @for unreadable in shelf.unreadable.iter().take(20) { li { code { (unreadable.id) } " " (unreadable.detail) } } }
            }
        }
        @if principal.role >= Role::Create && !apps.is_empty() { (create_form(&apps)) }
        (filter(&apps, &query))
        (table(&html! { (count(wanted.len() as u64, "snapshot", "snapshots")) @if pages > 1 { ", page " (number) " of " (pages) } }, &html! {
            @for snapshot in visible { (row(snapshot, unique(snapshot), &reader)) }
        }))
        @if wanted.is_empty() { p.empty { "No snapshot is here yet." } }
        @if pages > 1 { (pager(&query, number, pages)) }
        @if !safety.is_empty() {
            section aria-labelledby="safety-heading" {
                h2 id="safety-heading" { "Before deploys" }
                p { "What stood there before each deploy: the way back. Counts and rules of the other \
                     snapshots do not see these." }
                (table(&html! {
                    (count(safety.len() as u64, "snapshot", "snapshots"))
                    @if safety.len() > PER_PAGE { ", the newest " (PER_PAGE) " of them" }
                }, &html! {
                    @for snapshot in safety.iter().take(PER_PAGE) { (row(snapshot, unique(snapshot), &reader)) }
                }))
            }
        }
        (chart::section(&charted, costs.as_deref()))
        @if principal.role >= Role::Administer && !apps.is_empty() { (import_form(&apps)) }
        @if principal.may_all(Role::Administer).is_ok() { (collect_form(daemon.platform.applications())) }
    };
    Ok(layout::page("Snapshots", Some(&principal), &main))
}

/// Rows under their headings. On a narrow screen each row is a card: the roles stay what they are.
fn table(caption: &Markup, rows: &Markup) -> Markup {
    html! {
        table.snapshots.cards role="table" {
            caption { (caption) }
            thead role="rowgroup" { tr role="row" {
                th role="columnheader" scope="col" { "Application" } th role="columnheader" scope="col" { "Name" }
                th role="columnheader" scope="col" { "Age" }
                th.number role="columnheader" scope="col" { "Size" }
                th.number role="columnheader" scope="col" title="Stored bytes that only this snapshot needs; before they are counted, what the repository grew by" { "Costs" }
                th role="columnheader" scope="col" { "Phase" } th role="columnheader" scope="col" { "Origin" }
                th role="columnheader" scope="col" { "Actions" }
            } }
            tbody role="rowgroup" { (rows) }
        }
    }
}

/// For whom the list is, where and when.
struct Reader<'r> {
    principal: &'r Principal,
    host: &'r str,
    now: jiff::Timestamp,
}

fn row(snapshot: &SnapshotView, unique: Option<u64>, reader: &Reader<'_>) -> Markup {
    let place = place(snapshot);
    let elsewhere = Some(&snapshot.host).filter(|host| !host.is_empty() && *host != reader.host);
    html! {
        tr role="row" id={ "snapshot-" (snapshot.id) } {
            td role="cell" data-label="Application" { (snapshot.app) }
            th role="rowheader" scope="row" {
                a href=(place) { (name(&snapshot.name)) }
                @if snapshot.pinned { " " span.badge { "pinned" } }
                @if snapshot.safety { " " span.badge { "before a deploy" } }
            }
            td.when role="cell" data-label="Age" { time datetime=(snapshot.created) title=(time(&snapshot.created)) { (age(&snapshot.created, reader.now)) } }
            td.number role="cell" data-label="Size" { (size(snapshot.size)) }
            td.number role="cell" data-label="Costs" { (size(unique.unwrap_or(snapshot.stored_new))) }
            td role="cell" data-label="Phase" class={ "phase " (snapshot.phase) } { (snapshot.phase.replace('_', " ")) }
            td role="cell" data-label="Origin" { (snapshot.origin) @if let Some(host) = elsewhere { " on " (name(host)) } }
            td.actions role="cell" {
                @if reader.principal.role >= Role::Deploy {
                    a.button href={ (place) "/deploy" } { "Deploy" span.hidden { " " (name(&snapshot.name)) } }
                }
                a href=(place) { "Details" span.hidden { " of " (name(&snapshot.name)) } }
            }
        }
    }
}

fn application_choice(apps: &[&str], id: &str) -> Markup {
    html! {
        @if let [only] = apps {
            input type="hidden" name="app" value=(only);
        } @else {
            label for=(id) { "Application" }
            select id=(id) name="app" { @for app in apps { option value=(app) { (app) } } }
        }
    }
}

fn create_form(apps: &[&str]) -> Markup {
    html! {
        form.inline method="post" action="/ui/create" aria-label="Take a snapshot" {
            (application_choice(apps, "create-app"))
            label for="create-name" { "Name of a new snapshot" }
            input id="create-name" name="name" maxlength="200" autocomplete="off" placeholder="one is made";
            button.primary type="submit" { "Take a snapshot" }
        }
    }
}

fn filter(apps: &[&str], query: &ListQuery) -> Markup {
    html! {
        form.inline.filter method="get" action="/" role="search" {
            @if apps.len() > 1 {
                label for="filter-app" { "Application" }
                select id="filter-app" name="app" {
                    option value="" { "all" }
                    @for app in apps { option value=(app) selected[query.app == *app] { (app) } }
                }
            }
            label for="filter-name" { "Name contains" }
            input id="filter-name" name="q" value=(query.q) type="search" autocomplete="off";
            button type="submit" { "Show" }
        }
    }
}

fn pager(query: &ListQuery, number: usize, pages: usize) -> Markup {
    let to = |page: usize| {
        format!("/?app={}&q={}&page={page}", crate::http::escaped(&query.app), crate::http::escaped(&query.q))
    };
    html! {
        nav.pager aria-label="Pages of the list" {
            @if number > 1 { a rel="prev" href=(to(number - 1)) { "Newer" } }
            @if number < pages { a rel="next" href=(to(number + 1)) { "Older" } }
        }
    }
}

fn import_form(apps: &[&str]) -> Markup {
    html! {
        section aria-labelledby="import-heading" {
            h2 id="import-heading" { "Bring a snapshot in" }
            form.stacked method="post" action="/ui/import" enctype="multipart/form-data" {
                (application_choice(apps, "import-app"))
                label for="import-name" { "Name that it gets" }
                input id="import-name" name="name" required maxlength="200" autocomplete="off";
                label for="import-password" { "Passphrase that it was exported with" }
                input id="import-password" name="password" type="password" autocomplete="off";
                label for="import-file" { "File" }
                input id="import-file" name="file" type="file" required;
                button type="submit" { "Import" }
            }
        }
    }
}

fn collect_form(applications: &Applications) -> Markup {
    html! {
        section aria-labelledby="collect-heading" {
            h2 id="collect-heading" { "Unused space" }
            p {
                "What no snapshot needs any more is returned; nobody has to wait for it."
                @if let Some(schedule) = applications.gc_schedule() { " By itself at " code { (schedule) } "." }
            }
            form.inline method="post" action="/ui/collect" {
                @if applications.have_rules() {
                    input id="collect-retention" name="retention" type="checkbox" value="true";
                    label for="collect-retention" { "First remove the snapshots that the rules of the applications let go" }
                }
                button type="submit" { "Return unused space" }
            }
        }
    }
}
