//! Which fields the query of each route may have: those of its description, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{OpenApi, RefOr};

use super::operations_of;
use crate::problem::Problem;

/// Route → the fields of its query, by method.
pub(super) struct Queries(BTreeMap<(String, String), BTreeSet<String>>);

impl Queries {
    pub(super) fn of(description: &OpenApi) -> Self {
        let mut queries = BTreeMap::new();
        for (path, item) in &description.paths.paths {
            for (method, operation) in operations_of(&mut item.clone()) {
                let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
                    RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name.clone()),
                    _ => None,
                });
                queries.insert((path.clone(), method.to_uppercase()), parameters.collect());
            }
        }
        Self(queries)
    }

    /// Whether it is a described route that only tells something.
    fn reads(&self, request: &Request) -> bool {
        let route =
            request.extensions().get::<MatchedPath>().map(|route| (route.as_str().to_owned(), "GET".to_owned()));
        request.method() == Method::GET && route.is_some_and(|route| self.0.contains_key(&route))
    }

    /// The first field that means nothing there. Pages look at theirs themselves.
    fn unknown(&self, request: &Request) -> Option<String> {
        let route = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let known = self.0.get(&(route, method.as_str().to_owned()))?;
        let Query(fields) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()).ok()?;
        fields.into_iter().map(|(name, _)| name).find(|name| !known.contains(name))
    }
}

/// Refuses a query with a field that means nothing.
pub(super) async fn check_query(State(queries): State<Arc<Queries>>, request: Request, next: Next) -> Response {
    if queries.reads(&request) && !request.body().is_end_stream() {
        return Problem::unfit("a request with this method has no body").into_response();
    }
    match queries.unknown(&request) {
        Some(name) => {
            Problem::unfit(format!("the query has a field {name:?}, which is not known here")).into_response()
        }
        None => next.run(request).await,
    }
}
