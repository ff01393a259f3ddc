//! The files of a snapshot, folder by folder.

use std::sync::Arc;

use axum::extract::State;
use copal_manifest::shown::name as shown_bytes;
use maud::{Markup, html};
use serde::Deserialize;

use crate::access::{Principal, Role};
use crate::daemon::Daemon;
use crate::http::{Path, Query, escaped};
use crate::page::layout;
use crate::page::shown::{name, place, size, time};
use crate::page::snapshot::{SnapshotPath, find};
use crate::platform::{EntryView, SnapshotView};
use crate::problem::Result;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BrowseQuery {
    #[serde(default)]
    path: String,
}

pub(crate) async fn page(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Query(query): Query<BrowseQuery>,
) -> Result<Markup> {
    let found = find(&daemon, &principal, path, Role::View).await?;
    let snapshot = found.view.clone();
    let inside = query.path.clone();
    let entries = daemon.ask(move |platform| platform.entries(&found, inside.as_bytes())).await?;
    let main = html! {
        h1 { "Files of " (name(&snapshot.full_name())) }
        (crumbs(&snapshot, &query.path))
        table.files {
            caption { "In " code { "/" (name(&query.path)) } }
            thead { tr {
                th scope="col" { "Name" } th scope="col" { "Kind" } th.number scope="col" { "Size" }
                th scope="col" { "Mode" } th scope="col" { "Changed" }
            } }
            tbody {
                @for entry in &entries {
                    @if entry.path != query.path || entry.kind == "file" { (row(&snapshot, entry, &principal)) }
                }
            }
        }
        p { a href=(place(&snapshot)) { "Back to the snapshot" } }
    };
    Ok(layout::page("Files", Some(&principal), &main))
}

fn crumbs(snapshot: &SnapshotView, path: &str) -> Markup {
    let mut reached = String::new();
    let steps: Vec<(String, String)> = path
        .split('/')
        .filter(|name| !name.is_empty())
        .map(|name| {
            if !reached.is_empty() {
                reached.push('/');
            }
            reached.push_str(name);
            (name.to_owned(), reached.clone())
        })
        .collect();
    html! {
        nav.crumbs aria-label="Folders above" {
            a href={ (place(snapshot)) "/browse" } { (name(&snapshot.name)) }
            @for (step, to) in &steps { " / " a href={ (place(snapshot)) "/browse?path=" (escaped(to)) } { (name(step)) } }
        }
    }
}

fn row(snapshot: &SnapshotView, entry: &EntryView, principal: &Principal) -> Markup {
    let last = match entry.path.rsplit('/').next() {
        Some("") | None => "(top)".to_owned(),
        // A name that is no text is shown by its bytes.
        Some(last) => match entry.path_hex.as_ref().and_then(|hexadecimal| hex::decode(hexadecimal).ok()) {
            Some(bytes) => shown_bytes(bytes.rsplit(|&byte| byte == b'/').next().unwrap_or_default()),
            None => name(last),
        },
    };
    let query = match &entry.path_hex {
        Some(hexadecimal) => format!("path_hex={hexadecimal}"),
        None => format!("path={}", escaped(&entry.path)),
    };
    let content = format!("/apps/{}/snapshots/{}/content?{query}", escaped(&snapshot.app), snapshot.id);
    html! {
        tr {
            th scope="row" {
                @match entry.kind.as_str() {
                    "folder" => { a href={ (place(snapshot)) "/browse?path=" (escaped(&entry.path)) } { (last) "/" } }
                    "file" | "hardlink" if principal.role >= Role::Deploy => { a href=(content) download { (last) } }
                    _ => { (last) }
                }
            }
            td { (entry.kind) }
            td.number { @if entry.kind == "file" { (size(entry.size)) } }
            td { code { (entry.mode) } }
            td { (time(&entry.modified)) }
        }
    }
}
