//! The pages of one snapshot: facts and forms, and the two that ask before something is replaced or removed.

use std::sync::Arc;

use axum::extract::State;
use copal_engine::verdict::Reason;
use maud::{Markup, html};
use serde::Deserialize;

use crate::access::{Principal, Role};
use crate::daemon::Daemon;
use crate::http::Path;
use crate::page::shown::{count, name, place, size, time};
use crate::page::{compare, layout};
use crate::platform::{DiffView, Found, SnapshotView};
use crate::problem::Result;

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SnapshotPath {
    pub(super) app: String,
    pub(super) name: String,
}

/// Snapshots offered for a comparison.
const OTHERS_MAX: usize = 50;

/// Finds what a page is about.
pub(super) async fn find(daemon: &Arc<Daemon>, principal: &Principal, path: SnapshotPath, role: Role) -> Result<Found> {
    principal.may(role, &path.app)?;
    daemon.ask(move |platform| platform.find(&path.app, &path.name)).await
}

pub(crate) async fn page(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
) -> Result<Markup> {
    let found = find(&daemon, &principal, path, Role::View).await?;
    let snapshot = &found.view;
    let shelf = daemon.ask(|platform| platform.shelf()).await?;
    let others: Vec<&SnapshotView> = shelf
        .snapshots()
        .filter(|other| other.app == snapshot.app && other.id != snapshot.id)
        .take(OTHERS_MAX)
        .collect();
    let unique = daemon.platform.costs().and_then(|costs| costs.unique.get(&snapshot.id).copied());
    let place = place(snapshot);
    let main = html! {
        h1 { (name(&snapshot.full_name())) @if snapshot.pinned { " " span.badge { "pinned" } } }
        p.actions {
            @if principal.role >= Role::Deploy { a.button.primary href={ (place) "/deploy" } { "Deploy" } }
            a.button href={ (place) "/browse" } { "Browse files" }
        }
        dl.facts {
            dt { "Taken" } dd { (time(&snapshot.created)) " on " (snapshot.host) }
            dt { "Phase" } dd { (snapshot.phase.replace('_', " ")) }
            dt { "Origin" } dd { (snapshot.origin) }
            dt { "Size" } dd { (size(snapshot.size)) " in " (count(snapshot.files, "file", "files")) }
            dt { "New with it" } dd { (size(snapshot.bytes_new)) ", stored in " (size(snapshot.stored_new)) }
            @if let Some(unique) = unique { dt { "Needed by it alone" } dd { (size(unique)) } }
            @if let Some(version) = &snapshot.db_version { dt { "Version of the database" } dd { (version) } }
            @if let Some(consistency) = &snapshot.consistency { dt { "Consistency" } dd { (consistency) ": " (meaning(consistency)) } }
            @if let Some(trigger) = &snapshot.trigger { dt { "Caused by" } dd { (trigger) } }
            dt { "Digest" } dd { code { (snapshot.digest) } }
            dt { "Id" } dd { code { (snapshot.id) } }
            @for (key, value) in &snapshot.tags { dt { (name(key)) } dd { (name(value)) } }
        }
        table {
            caption { "Sources" }
            thead { tr { th scope="col" { "Label" } th scope="col" { "Kind" } th scope="col" { "Taken from" } th.number scope="col" { "Files" } th.number scope="col" { "Size" } } }
            tbody { @for source in &snapshot.sources { tr {
                th scope="row" { (name(&source.label)) } td { (source.kind) } td { code { (name(&source.path)) } }
                td.number { (source.files) } td.number { (size(source.bytes)) }
            } } }
        }
        @if !snapshot.warnings.is_empty() {
            h2 { "Warnings" }
            ul { @for warning in &snapshot.warnings { li { (warning) } } }
        }
        (forms(snapshot, &place, &principal))
        @if !others.is_empty() { (compare_form(snapshot, &others)) }
        p { a href="/" { "Back to the snapshots" } }
    };
    Ok(layout::page(&name(&snapshot.name), Some(&principal), &main))
}

fn meaning(consistency: &str) -> &'static str {
    match consistency {
        "application" => "all of it is of one instant, in which the application held still",
        _ => "as after a loss of power; hooks can make the application hold still",
    }
}

fn forms(snapshot: &SnapshotView, place: &str, principal: &Principal) -> Markup {
    html! {
        @if principal.role >= Role::Create {
            section.row aria-label="Keep and check" {
                form method="post" action={ (place) "/pin" } {
                    input type="hidden" name="pinned" value=(!snapshot.pinned);
                    button type="submit" { @if snapshot.pinned { "Unpin" } @else { "Pin" } }
                }
                form method="post" action={ (place) "/verify" } { button type="submit" { "Verify" } }
                @if principal.role >= Role::Administer && !snapshot.pinned {
                    a.button.danger href={ (place) "/delete" } { "Delete" }
                }
            }
        }
        @if principal.role >= Role::Administer {
            section aria-labelledby="export-heading" {
                h2 id="export-heading" { "Export" }
                form.stacked method="post" action={ (place) "/export" } {
                    label for="export-password" { "Passphrase for the file (without one, keys are left out)" }
                    input id="export-password" name="password" type="password" autocomplete="new-password";
                    label for="export-format" { "Format" }
                    select id="export-format" name="format" {
                        option value="native" { "native: encrypted as a whole" }
                        option value="hub-tar" { "tar: readable with other programs" }
                    }
                    button type="submit" { "Download" }
                }
            }
        }
    }
}

fn compare_form(snapshot: &SnapshotView, others: &[&SnapshotView]) -> Markup {
    html! {
        section aria-labelledby="compare-heading" {
            h2 id="compare-heading" { "Compare" }
            form.inline method="get" action="/ui/compare" {
                input type="hidden" name="app" value=(snapshot.app);
                input type="hidden" name="b" value=(snapshot.id);
                label for="compare-a" { "What changed since" }
                select id="compare-a" name="a" {
                    @for other in others { option value=(other.id) { (name(&other.name)) " (" (time(&other.created)) ")" } }
                }
                button type="submit" { "Compare" }
            }
        }
    }
}

/// What a deploy will change, and the button that does it.
pub(crate) async fn confirm_deploy(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
) -> Result<Markup> {
    let found = find(&daemon, &principal, path, Role::Deploy).await?;
    let asked = found.clone();
    // A target that cannot be read is the reason for the deploy more often than not: it must not stand in its
    // way.
    let (unordered, preview, unsound) = daemon
        .ask(move |platform| {
            let unordered = match platform.check_deploy(&asked, false) {
                // A person may know what the program does not; all else is checked as it would be then.
                Err(problem) if problem.code == Reason::SchemaUnordered.name() => {
                    platform.check_deploy(&asked, true)?;
                    Some(problem)
                }
                checked => checked.map(|()| None)?,
            };
            let unsound = platform.unsound(&asked).unwrap_or_else(|problem| vec![problem.detail.clone()]);
            Ok((unordered, platform.preview(&asked), unsound))
        })
        .await?;
    let snapshot = &found.view;
    let place = place(snapshot);
    let main = html! {
        h1 { "Deploy " (name(&snapshot.name)) "?" }
        p { "The data of " strong { (snapshot.app) } " becomes what it was at "
            time datetime=(snapshot.created) { (time(&snapshot.created)) } "." }
        @if !snapshot.host.is_empty() && snapshot.host != daemon.platform.host() {
            p.problem { "It was taken on " strong { (name(&snapshot.host)) } ", and this is " (daemon.platform.host()) "." }
        }
        @match &preview {
            Ok(preview) => { (what_changes(preview)) }
            Err(problem) => {
                div.problem { p { "What stands there now cannot be compared: " (problem.detail) } p { "A deploy replaces it." } }
            }
        }
        p { "What stands there is kept first: in a snapshot, or, where it cannot be captured, beside its place under "
            "another name. The operation says where." }
        @if !unsound.is_empty() {
            div.problem { @for sentence in &unsound { p { (name(sentence)) } } }
        }
        form.row method="post" action={ (place) "/deploy" } {
            @if let Some(unordered) = &unordered {
                div.problem {
                    p { (unordered.detail) }
                    p {
                        input id="any-schema" name="any_schema" type="checkbox" value="true" required;
                        label for="any-schema" { "It is not newer: deploy it, and have it migrated" }
                    }
                }
            }
            button.primary type="submit" autofocus[unordered.is_none()] { "Deploy now" }
            a href=(place) { "Leave everything as it is" }
        }
        @if let Ok(preview) = &preview { (compare::tables(preview, ["Brought back", "Removed", "Replaced"])) }
    };
    Ok(layout::page(&format!("Deploy {}", name(&snapshot.name)), Some(&principal), &main))
}

fn what_changes(preview: &DiffView) -> Markup {
    html! {
        @if preview.is_empty() {
            p { "Nothing will change: the data is as it was." }
        } @else {
            @let summary = compare::summary(preview, ["brought back", "removed", "replaced"]);
            @if !summary.is_empty() { p { "This will change: " (summary) "." } }
            @if !preview.uncompared.is_empty() {
                p { "Replaced as a whole, without a comparison: " (preview.uncompared.join(", ")) "." }
            }
        }
    }
}

pub(crate) async fn confirm_delete(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
) -> Result<Markup> {
    let found = find(&daemon, &principal, path, Role::Administer).await?;
    let snapshot = &found.view;
    let place = place(snapshot);
    let main = html! {
        h1 { "Delete " (name(&snapshot.full_name())) "?" }
        p { "The snapshot of " (time(&snapshot.created)) " will be gone for good. Its space comes back with the next collection." }
        form.row method="post" action={ (place) "/delete" } {
            button.danger type="submit" { "Delete it" }
            a href=(place) { "Keep it" }
        }
    };
    Ok(layout::page(&format!("Delete {}", name(&snapshot.name)), Some(&principal), &main))
}
