//! Goal: nobody does more than they may, and no secret is left lying about. Method: a daemon with tokens,
//! requests of every role, of browsers on foreign pages, too many and too large ones; the state folder
//! searched for secrets.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use copal_service::access::{Limits, Role};
use copal_service::{Authentication, ServeOptions, Server};
use reqwest::Method;
use serde_json::{Value, json};
use support::{World, refused, tls_files};

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_it_says() {
    let world = World::new();
    let daemon = world.serve_as(Role::Administer).await;
    daemon.create("/snapshots/kept").await;
    let tokens: Vec<String> = Role::ALL.into_iter().map(|role| world.token(role, &[])).collect();
    // (method, path, the lowest role that may)
    let matrix = [
        (Method::GET, "/snapshots", Role::View),
        (Method::GET, "/snapshots/kept/diff", Role::View),
        (Method::GET, "/snapshots/kept/entries", Role::View),
        (Method::GET, "/metrics", Role::View),
        (Method::POST, "/snapshots/kept/verify?wait=true", Role::Create),
        (Method::PATCH, "/snapshots/kept", Role::Create),
        (Method::GET, "/snapshots/kept/content?path=bucket/a.txt", Role::Deploy),
        (Method::POST, "/snapshots/kept/deploy?wait=true", Role::Deploy),
        (Method::POST, "/snapshots/kept/export", Role::Administer),
        (Method::POST, "/repository/collect?wait=true", Role::Administer),
        (Method::GET, "/tokens", Role::Administer),
        (Method::GET, "/audit", Role::Administer),
    ];
    for (method, path, lowest) in matrix {
        for (role, token) in Role::ALL.into_iter().zip(&tokens) {
            let request = daemon.client.request(method.clone(), format!("{}{path}", daemon.url)).bearer_auth(token);
            let request = if method == Method::PATCH { request.json(&json!({})) } else { request };
            let status = request.send().await.unwrap().status();
            if role < lowest {
                assert_eq!(status, 403, "{method} {path} as {}", role.name());
            } else {
                // This application has no database for a Hub's tar: a refusal of the request, not of the
                // role.
                assert!(
                    status.is_success() || (path.ends_with("/export") && status == 400),
                    "{method} {path} as {}: {status}",
                    role.name()
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_application_sees_no_other() {
    let world = World::new();
    let mut daemon = world.serve_as(Role::Administer).await;
    daemon.create("/snapshots/one").await;
    daemon.create("/apps/shop/snapshots/two").await;
    daemon.token = Some(world.token(Role::Administer, &["shop"]));
    let list = daemon.json("/snapshots").await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["app"], "shop");
    assert_eq!(daemon.json("/apps").await.as_array().unwrap().len(), 1);
    refused(daemon.get("/apps/hub/snapshots").await, 404, "no-such-application").await;
    refused(daemon.delete("/apps/hub/snapshots/one").await, 404, "no-such-application").await;
    for operation in daemon.json("/operations").await.as_array().unwrap() {
        assert_eq!(operation["app"], "shop");
    }
    for path in ["/stats", "/tokens", "/audit", "/metrics"] {
        refused(daemon.get(path).await, 403, "forbidden").await;
    }
    assert_eq!(daemon.delete("/apps/shop/snapshots/two").await.status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_and_go_and_only_their_hashes_stay() {
    let world = World::new();
    let daemon = world.serve_as(Role::Administer).await;
    let body = json!({ "name": "alice", "role": "view" });
    let made = daemon.request(Method::POST, "/tokens").json(&body).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("copal_") && secret.len() == 70);
    let as_alice = || daemon.client.get(format!("{}/snapshots", daemon.url)).bearer_auth(secret).send();
    assert_eq!(as_alice().await.unwrap().status(), 200);
    let listed = daemon.get("/tokens").await.text().await.unwrap();
    assert!(listed.contains("alice") && !listed.contains(secret) && !listed.contains("hash"), "{listed}");
    assert_eq!(daemon.delete(&format!("/tokens/{}", made["id"].as_str().unwrap())).await.status(), 204);
    assert_eq!(as_alice().await.unwrap().status(), 401);
    refused(daemon.delete("/tokens/nobody").await, 404, "no-such-token").await;

    // Exporting with a passphrase, so that one has passed through everything that writes.
    let export = daemon.request(Method::POST, "/snapshots/none/export").json(&json!({ "password": "open sesame" }));
    export.send().await.unwrap();
    let first = fs::read_to_string(world.folder.join("serve/first-token")).unwrap();
    let admin = daemon.token.clone().unwrap();
    let mut searched = 0;
    for entry in walk(&world.folder.join("serve")) {
        if entry.ends_with("first-token") {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&entry).unwrap()).into_owned();
        searched += 1;
        for secret in [secret, first.trim(), admin.as_str(), "open sesame"] {
            assert!(!text.contains(secret), "{} holds a secret", entry.display());
        }
    }
    assert!(searched >= 3);
    use std::os::unix::fs::PermissionsExt;
    for private in ["first-token", "tokens.json", "audit.log"] {
        let mode = fs::metadata(world.folder.join("serve").join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{private} can be read by others");
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_who_did_what() {
    let world = World::new();
    let daemon = world.serve_as(Role::Administer).await;
    daemon.create("/snapshots/one").await;
    daemon.delete("/snapshots/one").await;
    daemon.client.get(format!("{}/snapshots", daemon.url)).send().await.unwrap();
    daemon.get("/snapshots").await;
    let log = daemon.json("/audit?limit=10").await;
    let lines: Vec<(String, String, u64, String)> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
            (text("method"), text("path"), line["status"].as_u64().unwrap(), text("actor"))
        })
        .collect();
    let line =
        |method: &str, path: &str, status, actor: &str| (method.to_owned(), path.to_owned(), status, actor.to_owned());
    assert_eq!(
        lines,
        [
            line("GET", "/snapshots", 401, ""),
            line("DELETE", "/snapshots/one", 204, "a administer"),
            line("POST", "/snapshots/one", 201, "a administer"),
        ]
    );
    assert!(log[1]["operation"].is_string() && log[0]["code"] == "unauthorized" && log[1]["peer"] == "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_change_nothing() {
    let world = World::new();
    let daemon = world.serve().await;
    let from =
        |header: &'static str, value: &str| daemon.request(Method::POST, "/snapshots/one").header(header, value).send();
    refused(from("sec-fetch-site", "cross-site").await.unwrap(), 403, "forbidden").await;
    refused(from("origin", "http://evil.example").await.unwrap(), 403, "forbidden").await;
    refused(from("host", "evil.example").await.unwrap(), 403, "forbidden").await;
    assert_eq!(from("origin", &daemon.url).await.unwrap().status(), 202);
    let page = daemon.get("/").await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    // Nothing of another place is named in a page, and no script or style stands in it.
    let text = page.text().await.unwrap();
    for forbidden in ["http://", "https://", "style=", "onclick", "<style"] {
        assert!(!text.contains(forbidden), "the page has {forbidden}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_sign_in_with_a_token_and_out() {
    let world = World::new();
    let daemon = world.serve_as(Role::Deploy).await;
    let token = daemon.token.clone().unwrap();
    let page = |cookie: String| {
        daemon.client.get(format!("{}/", daemon.url)).header("accept", "text/html").header("cookie", cookie).send()
    };
    let response = page(String::new()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["location"].to_str().unwrap()), (303, "/login"));
    let login = |token: &str| daemon.client.post(format!("{}/login", daemon.url)).form(&[("token", token)]).send();
    assert_eq!(login("copal_wrong").await.unwrap().status(), 401);
    let response = login(&token).await.unwrap();
    assert_eq!(response.status(), 303);
    let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(&token), "{cookie}");
    let session = cookie.split(';').next().unwrap().to_owned();
    let text = page(session.clone()).await.unwrap().text().await.unwrap();
    assert!(text.contains("Sign out") && text.contains("a deploy"), "{text}");
    let out = daemon.client.post(format!("{}/ui/logout", daemon.url)).header("cookie", &session).send().await.unwrap();
    assert_eq!(out.status(), 303);
    assert_eq!(page(session).await.unwrap().status(), 303, "the session is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_refused() {
    let world = World::new();
    let limits = Limits { requests_per_second: 10, upload_bytes_max: 1000, ..Limits::default() };
    let daemon = world.serve_with(ServeOptions { limits, ..world.options() }).await;
    let form = || {
        let file = reqwest::multipart::Part::bytes(vec![0; 5000]).file_name("x");
        daemon
            .request(Method::POST, "/snapshots/import/big")
            .multipart(reqwest::multipart::Form::new().part("file", file))
            .send()
    };
    refused(form().await.unwrap(), 413, "too-large").await;
    assert_eq!(fs::read_dir(world.folder.join("serve/uploads")).unwrap().count(), 0, "nothing stays behind");
    let mut refusals = 0;
    for _ in 0..60 {
        let response = daemon.get("/healthz").await;
        if response.status() == 429 {
            assert!(response.headers().contains_key("retry-after"));
            refusals += 1;
        }
    }
    assert!(refusals > 20, "{refusals}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_tokens_is_slowed_down() {
    let world = World::new();
    let daemon = world.serve_as(Role::View).await;
    let mut statuses = Vec::new();
    for number in 0..40 {
        let request = daemon.client.get(format!("{}/snapshots", daemon.url)).bearer_auth(format!("copal_{number}"));
        statuses.push(request.send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses[39], 429);
    assert_eq!(daemon.get("/snapshots").await.status(), 200, "those who have a token are not held back");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_addresses_need_tls_and_tokens() {
    let world = World::new();
    let start = |options: ServeOptions| async {
        let entropy = std::sync::Arc::new(copal_store::entropy::OsEntropy);
        Server::start(world.context.clone(), world.applications(), entropy, options)
            .await
            .err()
            .map(|problem| problem.detail.clone())
    };
    let everywhere = || ServeOptions { listen: "0.0.0.0:0".parse().unwrap(), ..world.options() };
    assert!(start(everywhere()).await.unwrap().contains("loopback"));
    let tokens = ServeOptions { authentication: Authentication::Tokens, ..everywhere() };
    assert!(start(tokens).await.unwrap().contains("TLS"));

    let tls = Some(tls_files(&world.folder));
    let options = ServeOptions { authentication: Authentication::Tokens, tls, ..world.options() };
    let mut daemon = world.serve_with(options).await;
    daemon.token = Some(world.token(Role::Create, &[]));
    assert!(daemon.url.starts_with("https://"));
    let response = daemon.get("/snapshots").await;
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("strict-transport-security"));
    daemon.create("/snapshots/one").await;
}
