//! What differs between two snapshots.

use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use crate::access::{Principal, Role};
use crate::daemon::Daemon;
use crate::http::Query;
use crate::page::layout;
use crate::page::shown::{name, place, size, time};
use crate::platform::DiffView;
use crate::platform::views::DiffLine;
use crate::problem::Result;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompareQuery {
    app: String,
    a: String,
    b: String,
}

pub(crate) async fn page(
    State(daemon): State<Arc<Daemon>>,
    principal: Principal,
    Query(query): Query<CompareQuery>,
) -> Result<Markup> {
    principal.may(Role::View, &query.app)?;
    let (a, b, view) = daemon
        .ask(move |platform| {
            let (a, b) = (platform.find(&query.app, &query.a)?, platform.find(&query.app, &query.b)?);
            let view = platform.compare(&a, &b)?;
            Ok((a.view, b.view, view))
        })
        .await?;
    let main = html! {
        h1 { "From " (name(&a.name)) " to " (name(&b.name)) }
        p {
            a href=(place(&a)) { (name(&a.name)) } " of " (time(&a.created)) ", " a href=(place(&b)) { (name(&b.name)) } " of " (time(&b.created)) "."
        }
        @if view.is_empty() {
            p { "Nothing differs." }
        } @else {
            p { (summary(&view, ["added", "removed", "changed"])) "." }
            (tables(&view, ["Added", "Removed", "Changed"]))
        }
    };
    Ok(layout::page("Comparison", Some(&principal), &main))
}

/// "2 added, 1 changed".
pub(super) fn summary(view: &DiffView, words: [&str; 3]) -> String {
    let totals = [view.added_total, view.removed_total, view.changed_total];
    let parts: Vec<String> = totals
        .iter()
        .zip(words)
        .filter(|(total, _)| **total > 0)
        .map(|(total, word)| format!("{total} {word}"))
        .collect();
    parts.join(", ")
}

/// One table for each kind of difference.
pub(super) fn tables(view: &DiffView, captions: [&str; 3]) -> Markup {
    let lists = [&view.added, &view.removed, &view.changed];
    html! {
        @for (lines, caption) in lists.into_iter().zip(captions) {
            @if !lines.is_empty() { (table(lines, caption)) }
        }
        @if view.truncated { p { "There are more differences than are shown here." } }
    }
}

fn table(lines: &[DiffLine], caption: &str) -> Markup {
    let bytes = |bytes: Option<u64>| bytes.map_or("–".to_owned(), size);
    let after = |line: &DiffLine| match line.size_new {
        Some(_) if line.size_new == line.size_old => "same size".to_owned(),
        new => bytes(new),
    };
    html! {
        table.diff {
            caption { (caption) }
            thead { tr { th scope="col" { "Path" } th.number scope="col" { "Before" } th.number scope="col" { "After" } } }
            tbody { @for line in lines { tr {
                th scope="row" { code { (name(&line.path)) } }
                td.number { (bytes(line.size_old)) } td.number { (after(line)) }
            } } }
        }
    }
}
