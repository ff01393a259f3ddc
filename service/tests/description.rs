//! Goal: every route is described, and every description is a route that is guarded. Method: the description
//! generated from the code against the sources of the handlers and against a running daemon.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use copal_service::access::Role;
use reqwest::Method;
use serde_json::Value;
use support::{World, refused};

fn described() -> Vec<(Method, String)> {
    let document = serde_json::to_value(copal_service::description()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if let "get" | "post" | "patch" | "delete" | "put" = method.as_str() {
                routes.push((method.to_uppercase().parse().unwrap(), path.clone()));
            }
        }
    }
    routes
}

#[test]
fn every_handler_is_described() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let (mut handlers, mut undescribed) = (BTreeSet::new(), Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("#[utoipa::path(").skip(1) {
            let (method, rest) = part.split_once(", path = \"").unwrap();
            handlers.insert((method.to_uppercase(), rest.split('"').next().unwrap().to_owned()));
        }
        // Routes that are registered without a description: only the description itself.
        undescribed.extend(
            text.match_indices(".route(\"").map(|(at, _)| text[at + 8..].split('"').next().unwrap().to_owned()),
        );
    }
    assert_eq!(undescribed, ["/openapi.json"]);
    let described: BTreeSet<(String, String)> =
        described().into_iter().map(|(method, path)| (method.to_string(), path)).collect();
    for handler in &handlers {
        assert!(described.contains(handler), "{handler:?} is not in the description: is it registered?");
    }
    assert!(handlers.len() >= 24, "only {} handlers were found: the test has lost its form", handlers.len());
    let of_snapshots = handlers.iter().filter(|(_, path)| path.starts_with("/snapshots")).count();
    assert_eq!(described.len(), handlers.len() + of_snapshots, "the routes of snapshots stand below /apps/{{app}} too");
}

#[test]
fn the_routes_of_the_hub_are_there() {
    let described: BTreeSet<(String, String)> =
        described().into_iter().map(|(method, path)| (method.to_string(), path)).collect();
    for (method, path) in [
        ("GET", "/snapshots"),
        ("POST", "/snapshots/{name}"),
        ("GET", "/snapshots/{name}"),
        ("DELETE", "/snapshots/{name}"),
        ("POST", "/snapshots/{name}/export"),
        ("POST", "/snapshots/import/{name}"),
        ("POST", "/snapshots/{name}/deploy"),
        ("POST", "/snapshot/deploy/{name}"),
        ("GET", "/operations/{id}"),
        ("POST", "/operations/{id}/cancel"),
        ("GET", "/operations/{id}/events"),
    ] {
        assert!(described.contains(&(method.to_owned(), path.to_owned())), "{method} {path}");
    }
}

#[test]
fn the_description_is_sound() {
    let document = serde_json::to_value(copal_service::description()).unwrap();
    let mut ids = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values().filter(|value| value.is_object()) {
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "an id stands twice: {operation}"
            );
            assert!(operation["responses"]["default"].is_object(), "{operation}");
        }
    }
    // Every schema that is referred to is there.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "the schema {name} is missing");
    }
}

/// A path with its placeholders filled.
fn filled(path: &str) -> String {
    path.replace("{app}", "hub").replace("{name}", "nothing").replace("{id}", "nothing")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_and_is_guarded() {
    let world = World::new();
    let daemon = world.serve_as(Role::View).await;
    let viewer = daemon.token.clone().unwrap();
    let served: Value = daemon.json("/openapi.json").await;
    assert_eq!(served, serde_json::to_value(copal_service::description()).unwrap());
    let wrong = daemon.client.get(format!("{}/snapshots", daemon.url)).bearer_auth("copal_wrong").send();
    refused(wrong.await.unwrap(), 401, "unauthorized").await;
    for (method, path) in described() {
        let send = |token: Option<String>| {
            let request = daemon.client.request(method.clone(), format!("{}{}", daemon.url, filled(&path)));
            match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            }
            .send()
        };
        if path == "/healthz" {
            assert_eq!(send(None).await.unwrap().status(), 200);
            continue;
        }
        refused(send(None).await.unwrap(), 401, "unauthorized").await;
        let response = send(Some(viewer.clone())).await.unwrap();
        assert_ne!(response.status(), 405, "{method} {path}");
        if method == Method::GET {
            assert_ne!(response.status(), 401, "{method} {path}");
        } else {
            // A viewer changes nothing. (An operation that is not there is not there for anybody.)
            let expected: &[u16] = if path.ends_with("/cancel") { &[403, 404] } else { &[403] };
            let status = response.status().as_u16();
            assert!(expected.contains(&status), "{method} {path}: {status}");
        }
    }
}
