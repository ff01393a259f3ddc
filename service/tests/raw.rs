//! Goal: what no ordinary client sends is refused with a problem, and understood by nobody in two ways.
//! Method: bytes on a connection.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use copal_service::access::Role;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Daemon, World};

/// What the daemon answers until it closes the connection: the status, the body, and how many answers there
/// were.
async fn answer(daemon: &Daemon, bytes: Vec<u8>) -> (u16, Value, usize) {
    let address = daemon.url.trim_start_matches("http://").to_owned();
    let hearing = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // It may be refused before all of it is sent.
        let _ = stream.write_all(&bytes);
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        String::from_utf8_lossy(&heard).into_owned()
    });
    let text = hearing.await.unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    if status >= 400 {
        assert!(head.contains("content-type: application/problem+json"), "{text}");
    }
    (status, serde_json::from_str(body).unwrap_or(Value::Null), text.matches("HTTP/1.1 ").count())
}

fn request(line: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n{body}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_what_is_no_request_is_refused_with_a_problem() {
    let world = World::new();
    let daemon = world.serve().await;
    let many: String = (0..1000).map(|number| format!("X-{number}: 1\r\n")).collect();
    let long = "x".repeat(200_000);
    for (bytes, status) in [
        (request("GET /snapshots/\u{202e}", "", ""), 404),
        (request("GET /snapshots", "X: a\0b\r\n", ""), 400),
        (request("GET /snapshots", "X : a\r\n", ""), 400),
        (request("GET /snapshots", "X: a\r\n b\r\n", ""), 400),
        (b"GET /snapshots\r\n\r\n".to_vec(), 400),
        (b"nonsense\r\n\r\n".to_vec(), 400),
        (b"GET /snapshots HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), 400),
        (request("GET /snapshots", "Host: evil.example\r\n", ""), 400),
        (request("GET /snapshots", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", ""), 400),
        (request("GET /snapshots", &many, ""), 431),
        (request("GET /snapshots", &format!("X: {long}\r\n"), ""), 431),
        (request(&format!("GET /{}", "x".repeat(70_000)), "", ""), 414),
        (request(&format!("GET /{}", "x".repeat(20_000)), "", ""), 414),
        (request("POST /snapshots/x", "Content-Encoding: gzip\r\nContent-Length: 2\r\n", "{}"), 415),
        (request("GET /snapshots", "Content-Length: 2\r\n", "{}"), 422),
        (request("POST /snapshots/%2e%2e", "", ""), 400),
        (request("POST /snapshots/%2E", "", ""), 400),
        (request("GET /snapshots/%2e%2e", "", ""), 404),
        (request("GET /assets/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "", ""), 404),
        (request("POST /snapshots/%C0%AE", "", ""), 400),
        (request("POST /snapshots/a%00b", "", ""), 400),
        (request("POST /snapshots/a%2Fb", "", ""), 400),
        (request("CONNECT localhost:1", "", ""), 404),
        (request("TRACE /", "", ""), 405),
    ] {
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let (found, problem, _) = answer(&daemon, bytes).await;
        assert_eq!((found, problem["status"].as_u64()), (status, Some(u64::from(status))), "{what}: {problem}");
    }
    assert_eq!(daemon.json("/snapshots").await, json!([]), "nothing was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_a_body_has_one_length() {
    let world = World::new();
    let daemon = world.serve().await;
    let hidden = "GET /snapshots HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for fields in [
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        let (status, _, answers) = answer(&daemon, request("POST /snapshots/x", fields, hidden)).await;
        assert_eq!((status, answers), (400, 1), "{fields}");
    }
    for body in [
        "5;".to_owned() + &"x".repeat(100_000),
        "FFFFFFFFFFFFFFFFF\r\n".into(),
        "zz\r\n".into(),
        "2\r\n{}X\r\n0\r\n\r\n".into(),
    ] {
        let chunked = request("POST /snapshots/x", "Transfer-Encoding: chunked\r\n", &body);
        assert_eq!(answer(&daemon, chunked).await.0, 400);
    }
    assert_eq!(daemon.json("/snapshots").await, json!([]), "nothing was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_whoever_is_not_known_does_not_push_others_out_of_the_audit_log() {
    let world = World::new();
    let daemon = world.serve_as(Role::Administer).await;
    for _ in 0..200 {
        daemon.client.get(format!("{}/snapshots", daemon.url)).send().await.unwrap();
    }
    daemon.create("/snapshots/one").await;
    let log = daemon.json("/audit?limit=1000").await;
    let lines = log.as_array().unwrap();
    assert!(lines.len() < 100, "{}", lines.len());
    assert!(lines[0]["actor"] == "a administer" && lines[0]["skipped"].as_u64().unwrap() > 100, "{}", lines[0]);
    // Methods that are made up do not fill the figures.
    for number in 0..50 {
        let method: Method = format!("MADEUP{number}").parse().unwrap();
        daemon.request(method, "/snapshots").send().await.unwrap();
    }
    let figures = daemon.get("/metrics").await.text().await.unwrap();
    assert!(!figures.contains("MADEUP") && figures.contains("method=\"other\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn t11_a_session_is_of_its_token_and_ends_no_other() {
    let world = World::new();
    let daemon = world.serve_as(Role::View).await;
    let (mine, other) = (daemon.token.clone().unwrap(), world.token(Role::View, &["hub"]));
    let kept = session(&daemon, &mine).await;
    for _ in 0..1100 {
        session(&daemon, &other).await;
    }
    let page = daemon.client.get(format!("{}/", daemon.url)).header("cookie", kept).header("accept", "text/html");
    assert_eq!(page.send().await.unwrap().status(), 200, "many sessions of one token end only its own");
}

/// Signs in; the cookie.
async fn session(daemon: &Daemon, token: &str) -> String {
    let signed = daemon.client.post(format!("{}/login", daemon.url)).form(&[("token", token)]).send().await.unwrap();
    signed.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn t11_a_state_folder_of_others_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let folder = world.folder.join("serve");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let entropy = std::sync::Arc::new(copal_store::entropy::OsEntropy);
    let started =
        copal_service::Server::start(world.context.clone(), world.applications(), entropy, world.options()).await;
    let problem = started.err().unwrap();
    assert!(problem.code == "permission" && problem.detail.contains("can be changed by other users"), "{problem:?}");
}
