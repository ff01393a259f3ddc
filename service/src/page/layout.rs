//! What every page has around it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use copal_manifest::shown::lines;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::access::Principal;
use crate::problem::Problem;

/// A whole page. Names are shown by [`super::shown::name`] where they stand; what is hidden in any other text
/// comes to light here.
pub(super) fn page(title: &str, principal: Option<&Principal>, main: &Markup) -> Markup {
    let page = whole(title, principal, main).into_string();
    PreEscaped(lines(&page).into_owned())
}

fn whole(title: &str, principal: Option<&Principal>, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Copal" }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/page.css";
                script src="/assets/page.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    a.mark href="/" { "Copal" }
                    nav aria-label="Pages" {
                        @for (place, name) in [("/", "Snapshots"), ("/ui/operations", "Operations")] {
                            a href=(place) aria-current=[(title == name).then_some("page")] { (name) }
                        }
                    }
                    @if let Some(principal) = principal {
                        p.who {
                            span { (principal.name) " · " (principal.role.name()) }
                            @if principal.token.is_some() {
                                form method="post" action="/ui/logout" { button.plain { "Sign out" } }
                            }
                        }
                    }
                }
                main id="main" tabindex="-1" { (main) }
            }
        }
    }
}

/// A problem as a page.
pub(super) fn problem(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let main = html! {
        h1 { "This did not work" }
        div.problem role="alert" {
            p { (problem.detail) }
            p.hint { (problem.hint) }
            p.code { "Code " code { (problem.code) } " · exit code " (problem.exit_code) " (" (problem.exit) ")" }
        }
        p { a href="/" { "Back to the snapshots" } }
    };
    (status, page("Problem", None, &main)).into_response()
}
