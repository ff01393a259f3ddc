//! Goal: every refusal is a problem document (RFC 9457), and nothing that a client says is passed over.
//! Method: the description that the daemon serves; for each of its routes and methods, requests that differ
//! from the description in one thing.
#![allow(clippy::unwrap_used)]

mod support;

use copal_service::access::Role;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use support::{Daemon, World, refused};

/// A route as described.
struct Route {
    method: Method,
    path: String,
    query: Vec<String>,
    /// Fields of the body, if it has one, and whether it is a form.
    body: Option<(Vec<(String, Value)>, bool)>,
}

impl Route {
    fn filled(&self, name: &str) -> String {
        self.path.replace("{app}", "hub").replace("{name}", name).replace("{id}", name)
    }

    /// With a name that is free where one is wanted, an operation where one is shown.
    fn fitting(&self, operation: &str) -> String {
        let name = if self.path.contains("/import/") {
            "new"
        } else if self.path.starts_with("/operations") {
            operation
        } else {
            "kept"
        };
        self.filled(name)
    }

    fn reads(&self) -> bool {
        self.method == Method::GET
    }
}

fn routes(document: &Value) -> Vec<Route> {
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            if !operation.is_object() {
                continue;
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let query = parameters.iter().filter(|parameter| parameter["in"] == "query");
            let query = query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
            let content = &operation["requestBody"]["content"];
            let body = if content.is_null() {
                None
            } else if content["multipart/form-data"].is_object() {
                Some((Vec::new(), true))
            } else {
                Some((fields(document, &content["application/json"]["schema"]), false))
            };
            routes.push(Route { method, path: path.clone(), query, body });
        }
    }
    assert!(routes.len() > 30, "only {} routes were found: the test has lost its form", routes.len());
    routes
}

/// Properties of a schema, wherever it stands.
fn fields(document: &Value, schema: &Value) -> Vec<(String, Value)> {
    let text = schema.to_string();
    let name = text.split("#/components/schemas/").nth(1).unwrap().split('"').next().unwrap();
    let properties = document["components"]["schemas"][name]["properties"].as_object().unwrap();
    properties.iter().map(|(name, schema)| (name.clone(), schema.clone())).collect()
}

/// A daemon with a snapshot, a client with all rights.
async fn served(world: &World) -> (Daemon, Vec<Route>, String) {
    let daemon = world.serve_as(Role::Administer).await;
    daemon.create("/snapshots/kept").await;
    let routes = routes(&daemon.json("/openapi.json").await);
    let operation = daemon.json("/operations").await[0]["id"].as_str().unwrap().to_owned();
    (daemon, routes, operation)
}

/// A problem, whatever it is; its status.
async fn is_problem(response: Response, what: &str) -> u16 {
    let status = response.status();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let text = response.text().await.unwrap();
    assert_eq!(kind.as_deref(), Some("application/problem+json"), "{what}: {status}: {text}");
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error}: {text}"));
    assert_eq!(body["status"], status.as_u16(), "{what}: {body}");
    assert!(body["type"].as_str().unwrap().starts_with("urn:copal:problem:"), "{what}: {body}");
    for field in ["title", "detail", "code", "exit", "hint"] {
        assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{what}: {field}: {body}");
    }
    status.as_u16()
}

/// Must be refused as one of these.
async fn refuses(request: RequestBuilder, expected: &[u16], what: String) {
    let response = request.send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let status = is_problem(response, &what).await;
    assert!(expected.contains(&status), "{what}: {status}");
}

/// May be refused, by a problem, and never by a failure of the daemon.
async fn holds(request: RequestBuilder, what: String) {
    let response = request.send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    if response.status().is_client_error() || response.status().is_server_error() {
        let status = is_problem(response, &what).await;
        assert!(status < 500, "{what}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_methods_and_tokens_that_do_not_fit_are_refused_with_a_problem() {
    let world = World::new();
    let (daemon, routes, _) = served(&world).await;
    let mut paths: Vec<&str> = routes.iter().map(|route| route.path.as_str()).collect();
    paths.extend(["/openapi.json", "/", "/login", "/ui/operations", "/ui/create", "/assets/{name}", "/nothing"]);
    paths.dedup();
    for path in &paths {
        let place = path.replace("{app}", "hub").replace("{name}", "kept").replace("{id}", "nothing");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"] {
            let known = routes.iter().any(|route| route.path == *path && route.method.as_str() == method);
            let method: Method = method.parse().unwrap();
            let what = format!("{method} {place}");
            let url = format!("{}{place}", daemon.url);
            if !known {
                holds(daemon.request(method.clone(), &place), what.clone()).await;
            }
            if !["/healthz", "/openapi.json", "/login", "/assets/{name}"].contains(path) {
                refuses(daemon.client.request(method.clone(), &url), &[401], format!("{what} without a token")).await;
            }
        }
    }
    refuses(daemon.request(Method::PUT, "/snapshots"), &[405], "PUT /snapshots".into()).await;
    let answer = daemon.request(Method::PUT, "/snapshots").send().await.unwrap();
    assert!(answer.headers()["allow"].to_str().unwrap().contains("GET"), "which methods there are is said");
    let other_site = daemon.request(Method::POST, "/snapshots/x").header("origin", "http://evil.example");
    refuses(other_site, &[403], "another site".into()).await;
    let twice = daemon.request(Method::GET, "/snapshots").header("host", "localhost").header("host", "evil.example");
    refuses(twice, &[400], "two hosts".into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_queries_that_do_not_fit_are_refused_with_a_problem() {
    let world = World::new();
    let (daemon, routes, operation) = served(&world).await;
    for route in &routes {
        let place = route.fitting(&operation);
        let ask = |query: &str| daemon.request(route.method.clone(), &format!("{place}?{query}"));
        for query in ["unknown=1", "unknown", "=", "unknown=%FF"] {
            refuses(ask(query), &[422], format!("{} {place}?{query}", route.method)).await;
        }
        for name in &route.query {
            let mut queries = vec![format!("{name}=%zz"), format!("{name}=%FF"), format!("{name}=1&{name}=2")];
            queries.extend(match name.as_str() {
                "limit" => {
                    ["", "-1", "x", "1e3", "99999999999999999999999"].map(|value| format!("limit={value}")).to_vec()
                }
                "active" => ["", "1", "yes"].map(|value| format!("active={value}")).to_vec(),
                "wait" => ["soon", "-1", "NaN", "1e999"].map(|value| format!("wait={value}")).to_vec(),
                "path_hex" => ["x", "0", "zz", "00&path=a"].map(|value| format!("path_hex={value}")).to_vec(),
                _ => Vec::new(),
            });
            for query in queries {
                refuses(ask(&query), &[422], format!("{} {place}?{query}", route.method)).await;
            }
        }
        if route.reads() {
            let long = "x".repeat(20_000);
            refuses(ask(&format!("name={long}")), &[414], format!("a long query of {place}")).await;
        }
    }
    assert_eq!(daemon.json("/snapshots").await.as_array().unwrap().len(), 1, "nothing was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_bodies_that_do_not_fit_are_refused_with_a_problem() {
    let world = World::new();
    let (daemon, routes, operation) = served(&world).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!("{{\"name\": {}1{}}}", "[".repeat(500), "]".repeat(500));
    for route in &routes {
        let place = route.fitting(&operation);
        let ask = |body: String| {
            let request = daemon.request(route.method.clone(), &place);
            request.header("content-type", "application/json").body(body)
        };
        let what = |body: &str| format!("{} {place} with {}", route.method, &body[..body.len().min(60)]);
        if route.body.as_ref().is_some_and(|(_, is_form)| *is_form) {
            refuses(ask("{}".into()), &[415], what("JSON instead of a form")).await;
            continue;
        }
        for body in [
            "{",
            "[]",
            "[null,null]",
            "null",
            "1",
            "\"text\"",
            "{\"unknown\": 1}",
            "{\"sha256\": \"00\", \"sha256\": \"00\"}",
            "\u{feff}{}",
            "{}{}",
            deep.as_str(),
            nested.as_str(),
        ] {
            refuses(ask(body.into()), &[400, 422], what(body)).await;
        }
        if route.reads() {
            continue;
        }
        let request = || daemon.request(route.method.clone(), &place);
        let text = request().header("content-type", "text/plain").body("{}");
        refuses(text, &[415], what("plain text")).await;
        let form = request().form(&[("name", "x")]);
        refuses(form, &[415], what("a form")).await;
        let large = ask(format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20)));
        // It may be cut off while it is still sent.
        if let Ok(response) = large.send().await {
            assert_eq!(is_problem(response, &what("a large body")).await, 413);
        }
        for (field, schema) in route.body.iter().flat_map(|(fields, _)| fields) {
            for value in [json!(1.5), json!("\u{1F980}"), json!([[]]), json!({ "a": 1 }), json!(true)] {
                if !may_be(schema, &value) {
                    let body = json!({ field.as_str(): value }).to_string();
                    refuses(ask(body.clone()), &[422], what(&body)).await;
                }
            }
        }
    }
    assert_eq!(daemon.json("/snapshots").await.as_array().unwrap().len(), 1, "nothing was done");
    assert_eq!(daemon.json("/tokens").await.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_tags_beyond_their_limits_are_refused_before_anything_begins() {
    let world = World::new();
    let (daemon, _, _) = served(&world).await;
    let one = |key: String, value: String| json!({ key: value });
    let number = |count: usize| (0..count).map(|at| (format!("k{at}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    let id = daemon.json("/snapshots").await[0]["id"].as_str().unwrap().to_owned();
    for tags in [
        json!(number(5_000)),
        json!(number(257)),
        one(String::new(), "value".into()),
        one("k".repeat(256), "value".into()),
        one("key".into(), "v".repeat(4097)),
        one("k=v".into(), "value".into()),
        one("k\u{7}".into(), "value".into()),
    ] {
        let what = tags.to_string();
        let body = json!({ "tags": tags });
        for (method, place) in [
            (Method::POST, "/snapshots/refused".to_owned()),
            (Method::POST, "/snapshots".to_owned()),
            (Method::PATCH, format!("/snapshots/{id}")),
        ] {
            let request = daemon.request(method, &place).json(&body);
            refuses(request, &[422], format!("{place}: {}", &what[..what.len().min(60)])).await;
        }
    }
    let operations = daemon.json("/operations").await;
    let begun = operations.as_array().unwrap().iter().filter(|operation| operation["verb"] == "create").count();
    assert_eq!(begun, 1, "{operations:#}");
    let body = json!({ "tags": number(256) });
    let taken = daemon.request(Method::POST, "/snapshots/full?wait=60").json(&body).send().await.unwrap();
    assert_eq!(taken.status(), 201);
}

/// Whether a value is of a kind that a schema names.
fn may_be(schema: &Value, value: &Value) -> bool {
    let text = schema.to_string();
    match value {
        Value::String(_) => text.contains("\"string\"") && !text.contains("$ref"),
        Value::Bool(_) => text.contains("\"boolean\""),
        Value::Object(_) => text.contains("\"object\"") && !text.contains("\"string\""),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_names_and_ids_of_every_kind_are_answered() {
    let world = World::new();
    let (daemon, routes, _) = served(&world).await;
    let long = "x".repeat(300);
    let hostile = ["%00", "%FF", "%C0%AE", "%0A", "%E2%80%AE", "latest:x", "a%2Fb", " ", &long];
    for route in routes.iter().filter(|route| route.path.contains("{name}") || route.path.contains("{id}")) {
        for name in hostile {
            let place = route.filled(name);
            let query = if route.query.contains(&"wait".to_owned()) { "?wait=true" } else { "" };
            let what = format!("{} {place}", route.method);
            refuses(daemon.request(route.method.clone(), &format!("{place}{query}")), &[400, 404, 415, 422], what)
                .await;
        }
    }
    assert_eq!(daemon.json("/snapshots").await.as_array().unwrap().len(), 1, "nothing was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_a_deploy_of_another_digest_touches_nothing() {
    let world = World::new();
    let daemon = world.serve().await;
    let digest = daemon.create("/snapshots/one").await["digest"].as_str().unwrap().to_owned();
    world.write("hub/bucket/a.txt", b"newer");
    for route in ["/snapshots/one/deploy", "/snapshot/deploy/one", "/apps/hub/snapshots/one/deploy"] {
        let deploy = |digest: &str| {
            daemon.request(Method::POST, &format!("{route}?wait=true")).json(&json!({ "sha256": digest }))
        };
        for malformed in ["00", "", &format!("{digest}0"), &"g".repeat(64)] {
            refused(deploy(malformed).send().await.unwrap(), 422, "usage").await;
        }
        refused(deploy(&"0".repeat(64)).send().await.unwrap(), 409, "other-digest").await;
        assert_eq!(world.read("hub/bucket/a.txt"), b"newer");
    }
    assert_eq!(daemon.json("/operations").await.as_array().unwrap().len(), 1, "no operation was begun");
    let body = json!({ "sha256": digest.to_uppercase() });
    let deployed = daemon.request(Method::POST, "/snapshots/one/deploy?wait=true").json(&body).send().await.unwrap();
    assert_eq!(deployed.status(), 200);
    assert_eq!(world.read("hub/bucket/a.txt"), b"first");
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_forms_with_other_fields_are_refused() {
    let world = World::new();
    let daemon = world.serve().await;
    let form = |fields: &[(&'static str, &'static str)]| {
        let mut form = reqwest::multipart::Form::new();
        for (name, value) in fields {
            form = form.text(*name, *value);
        }
        daemon.request(Method::POST, "/snapshots/import/x").multipart(form)
    };
    for fields in [
        &[("file", "x"), ("name", "other")][..],
        &[("file", "x"), ("app", "shop")],
        &[("file", "x"), ("unknown", "x")],
        &[("file", "x"), ("file", "y")],
        &[("password", "x"), ("password", "y"), ("file", "z")],
        &[("password", "x")],
    ] {
        refuses(form(fields), &[422], format!("{fields:?}")).await;
    }
    let uploads = std::fs::read_dir(world.folder.join("serve/uploads")).unwrap().count();
    assert_eq!(uploads, 0, "nothing stays behind");
    for (path, fields) in [
        ("/ui/create", &[("app", "hub"), ("name", "x"), ("other", "x")][..]),
        ("/ui/create", &[("app", "hub")]),
        ("/ui/create", &[("app", "hub"), ("name", "x"), ("name", "y")]),
        ("/ui/apps/hub/snapshots/x/export", &[("password", "x"), ("other", "x")]),
    ] {
        refuses(daemon.request(Method::POST, path).form(fields), &[422], format!("{path} {fields:?}")).await;
    }
    // Who asks for a page is answered with one.
    let page = daemon.request(Method::POST, "/ui/create").header("accept", "text/html").form(&[("app", "hub")]);
    let page = page.send().await.unwrap();
    assert_eq!(
        (page.status().as_u16(), page.headers()["content-type"].to_str().unwrap()),
        (422, "text/html; charset=utf-8")
    );
    assert!(page.text().await.unwrap().contains("This did not work"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_heads_that_are_too_large_are_refused_with_a_problem() {
    let world = World::new();
    let daemon = world.serve().await;
    let mut many = daemon.request(Method::GET, "/snapshots");
    for number in 0..300 {
        many = many.header(format!("x-{number}"), "1");
    }
    refuses(many, &[431], "many fields".into()).await;
    let long = daemon.request(Method::GET, "/snapshots").header("x-long", "x".repeat(60_000));
    refuses(long, &[431], "a long field".into()).await;
    refuses(daemon.request(Method::GET, &format!("/{}", "x".repeat(20_000))), &[414], "a long path".into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_a_daemon_without_its_repository_says_so_with_a_problem() {
    let world = World::new();
    let daemon = world.serve().await;
    std::fs::rename(world.folder.join("repository"), world.folder.join("elsewhere")).unwrap();
    // What was read a moment ago is believed for a moment.
    let mut status = 200;
    for _ in 0..200 {
        let response = daemon.get("/healthz").await;
        status = response.status().as_u16();
        if status != 200 {
            assert_eq!(is_problem(response, "the repository is gone").await, 503);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(status, 503);
    is_problem(daemon.get("/snapshots").await, "the repository is gone").await;
}
