//! Goal: nobody is waited for without end. Method: a daemon in this process whose patience is short, raw
//! connections that stop in the middle of each step.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use copal_service::access::Limits;
use copal_service::{Patience, ServeOptions};
use support::{Daemon, World, tls_files};

/// Longer than the daemon's patience by far: only a daemon that waits without end is not heard within it.
const HANGS: Duration = Duration::from_secs(60);

fn options(world: &World) -> ServeOptions {
    let short = Duration::from_millis(300);
    let patience = Patience { handshake: short, head: short, body: short, answer: short };
    ServeOptions { limits: Limits { transfers: 1, patience, ..world.options().limits }, ..world.options() }
}

/// Says something, then nothing more; what the daemon answers until it closes the connection.
async fn heard(daemon: &Daemon, words: &'static str) -> String {
    let (_, address) = daemon.url.split_once("://").unwrap();
    let address = address.to_owned();
    let hearing = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(HANGS)).unwrap();
        stream.write_all(words.as_bytes()).unwrap();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it was waited for without end"),
            // Whatever way the connection ended.
            _ => String::from_utf8_lossy(&answer).into_owned(),
        }
    });
    hearing.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_heads_that_do_not_come_on_are_not_waited_for() {
    let world = World::new();
    let daemon = world.serve_with(options(&world)).await;
    for words in ["", "GET /", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "] {
        assert_eq!(heard(&daemon, words).await, "", "{words:?}");
    }
    // A connection that is kept after an answer, too.
    let answer = heard(&daemon, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_t13_bodies_that_do_not_come_on_are_answered_with_a_problem() {
    let world = World::new();
    let daemon = world.serve_with(options(&world)).await;
    for words in [
        "POST /snapshots/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        "POST /snapshots/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        "POST /ui/create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
        Content-Length: 100\r\n\r\napp=",
        "POST /snapshots/import/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n\
        Content-Length: 100000\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nsome",
    ] {
        let answer = heard(&daemon, words).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{words}: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains("too-slow"), "{answer}");
    }
    let uploads = std::fs::read_dir(world.folder.join("serve/uploads")).unwrap().count();
    assert_eq!(uploads, 0, "nothing stays behind");
    assert_eq!(daemon.json("/snapshots").await.as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_handshakes_that_do_not_come_on_are_not_waited_for() {
    let world = World::new();
    let daemon = world.serve_with(ServeOptions { tls: Some(tls_files(&world.folder)), ..options(&world) }).await;
    assert_eq!(heard(&daemon, "").await, "");
    assert_eq!(heard(&daemon, "\u{16}\u{3}\u{1}").await, "");
    assert_eq!(daemon.get("/healthz").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_an_answer_that_nobody_takes_is_given_up() {
    let world = World::new();
    world.write("hub/bucket/big.bin", &vec![7; 64 << 20]);
    let daemon = world.serve_with(options(&world)).await;
    daemon.create("/snapshots/one").await;
    let (_, address) = daemon.url.split_once("://").unwrap();
    let path = "/snapshots/one/content?path=bucket/big.bin";
    let ask = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut held = Vec::new();
    // The one place for transfers is taken by a download that nobody reads …
    let mut status = 0;
    for _ in 0..50 {
        let mut idle = TcpStream::connect(address).unwrap();
        idle.write_all(ask.as_bytes()).unwrap();
        held.push(idle);
        tokio::time::sleep(Duration::from_millis(20)).await;
        status = daemon.get(path).await.status().as_u16();
        if status == 429 {
            break;
        }
    }
    assert_eq!(status, 429);
    // … until the daemon gives it up.
    for _ in 0..1200 {
        let response = daemon.get(path).await;
        if response.status() == 200 {
            assert_eq!(response.bytes().await.unwrap().len(), 64 << 20);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a download that nobody takes holds its place for ever");
}
