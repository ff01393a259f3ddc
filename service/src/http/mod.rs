//! The interface for programs: routes, and their description generated from the same lines (`/openapi.json`).
//!
//! The routes of snapshots stand twice: without a name for the default application, and below `/apps/{app}`.

mod answer;
mod applications;
mod content;
mod extract;
mod operations;
mod query;
mod repository;
mod snapshots;
mod stream;
mod transfer;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Required};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use answer::escaped;
pub(crate) use extract::{Form, Path, Query};
pub(crate) use operations::{role_of, visible};
pub(crate) use transfer::{ExportRequest, begin_export};
pub(crate) use upload::{ImportField, begin as begin_import, receive, unlimited};

use query::{Queries, check_query};

use crate::access::gate;
use crate::daemon::Daemon;
use crate::problem::{Problem, ProblemDetails};

/// Largest form of a page that has no file.
const FORM_BYTES_MAX: usize = 64 << 10;

/// Every route of the daemon, the page's among them.
pub(crate) fn router(daemon: Arc<Daemon>) -> Router {
    let (router, description) = described();
    let queries = Queries::of(&description);
    let description = Bytes::from(serde_json::to_vec(&description).unwrap_or_default());
    router
        .route("/openapi.json", axum::routing::get(move || async move { json(description) }))
        .merge(crate::page::router())
        .fallback(async || Problem::not_found("no-such-route", "no route has this path; see /openapi.json"))
        .method_not_allowed_fallback(async || {
            Problem::of_status(StatusCode::METHOD_NOT_ALLOWED, "the route has no such method")
        })
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(from_fn_with_state(Arc::new(queries), check_query))
        .layer(from_fn_with_state(Arc::clone(&daemon), gate))
        .layer(from_fn(crate::page::present))
        .with_state(daemon)
}

/// The description of all routes (OpenAPI).
#[must_use]
pub fn description() -> OpenApi {
    described().1
}

fn described() -> (Router<Arc<Daemon>>, OpenApi) {
    let info = InfoBuilder::new().title("Copal").version(env!("CARGO_PKG_VERSION")).description(Some(
        "Snapshots of applications: taken, kept, compared, put back. Errors are problem details (RFC 9457).",
    ));
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let mut components = Components::new();
    components.add_security_scheme("token", bearer);
    let api = OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([SecurityRequirement::new("token", Vec::<String>::new())]))
        .build();
    let (router, mut api) = OpenApiRouter::with_openapi(api)
        .merge(of_snapshots())
        .nest("/apps/{app}", of_snapshots())
        .routes(routes!(snapshots::deploy_by_hub_route))
        .routes(routes!(applications::list))
        .routes(routes!(applications::show))
        .routes(routes!(applications::captures))
        .routes(routes!(operations::list))
        .routes(routes!(operations::show))
        .routes(routes!(operations::cancel))
        .routes(routes!(operations::events))
        .routes(routes!(repository::stats))
        .routes(routes!(repository::verify))
        .routes(routes!(repository::collect))
        .routes(routes!(repository::list_tokens, repository::add_token))
        .routes(routes!(repository::remove_token))
        .routes(routes!(repository::audit))
        .routes(routes!(repository::health))
        .routes(routes!(repository::metrics))
        .split_for_parts();
    finish(&mut api);
    (router, api)
}

/// The routes of one application's snapshots.
fn of_snapshots() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(snapshots::list, snapshots::create_unnamed))
        .routes(routes!(snapshots::show, snapshots::create, snapshots::change, snapshots::delete))
        .routes(routes!(snapshots::deploy))
        .routes(routes!(snapshots::verify))
        .routes(routes!(content::preview))
        .routes(routes!(content::entries))
        .routes(routes!(content::content))
        .routes(routes!(transfer::export))
        .merge(OpenApiRouter::new().routes(routes!(upload::import)).layer(unlimited()))
}

/// What is the same for every route: ids that differ, the application's name, problems.
fn finish(api: &mut OpenApi) {
    let problem = utoipa::openapi::RefOr::Ref(utoipa::openapi::Ref::from_schema_name("ProblemDetails"));
    if let Some(components) = api.components.as_mut() {
        components.schemas.insert("ProblemDetails".into(), <ProblemDetails as utoipa::PartialSchema>::schema());
    }
    for (path, item) in &mut api.paths.paths {
        let named = path.starts_with("/apps/{app}/snapshots");
        for (method, operation) in operations_of(item) {
            let place: Vec<&str> = path.split(['/', '{', '}']).filter(|part| !part.is_empty()).collect();
            operation.operation_id = Some(format!("{method}_{}", place.join("_")).replace('.', "_"));
            if named {
                let parameter = ParameterBuilder::new()
                    .name("app")
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .description(Some("Name of the application"))
                    .schema(Some(ObjectBuilder::new().schema_type(Type::String)));
                operation.parameters.get_or_insert_default().insert(0, parameter.build().into());
            }
            let content = utoipa::openapi::ContentBuilder::new().schema(Some(problem.clone())).build();
            let response = utoipa::openapi::ResponseBuilder::new()
                .description("A problem (RFC 9457)")
                .content("application/problem+json", content)
                .build();
            operation.responses.responses.insert("default".into(), response.into());
        }
    }
}

fn operations_of(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut utoipa::openapi::path::Operation)> {
    [
        ("get", item.get.as_mut()),
        ("put", item.put.as_mut()),
        ("post", item.post.as_mut()),
        ("delete", item.delete.as_mut()),
        ("patch", item.patch.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.map(|operation| (method, operation)))
}

fn json(body: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// What handlers are given.
pub(crate) type Shared = State<Arc<Daemon>>;
