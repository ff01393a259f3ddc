//! Goal: no name is taken for another, and none steers what shows it. Method: files, tags and paths with
//! marks of direction, characters that are not seen and tags; every page, problem and download that shows
//! them.
#![allow(clippy::unwrap_used)]

mod support;

use copal_manifest::shown::is_hidden;
use reqwest::{Method, Response};
use serde_json::json;
use support::{Daemon, World};

/// Names as files have them, and as they are shown.
const NAMES: &[(&str, &str)] = &[
    ("annual\u{202e}txt.exe", "annual\\u{202e}txt.exe"),
    ("annual\u{200b}.txt", "annual\\u{200b}.txt"),
    ("annual\u{e0041}.txt", "annual\\u{e0041}.txt"),
    ("annual\u{a0}.txt", "annual\\u{a0}.txt"),
    ("clear\u{1b}[2J", "clear\\u{1b}[2J"),
    ("\\u{202e}", "\\\\u{202e}"),
    ("plain.txt", "plain.txt"),
];

/// The text of an answer in which nothing is hidden.
async fn clear(response: Response, what: &str) -> String {
    let headers = format!("{:?}", response.headers());
    let text = response.text().await.unwrap();
    for shown in [&headers, &text] {
        let hidden = shown.chars().find(|&character| character != '\n' && is_hidden(character));
        assert_eq!(hidden, None, "{what}: {shown}");
    }
    text
}

async fn page(daemon: &Daemon, path: &str) -> String {
    let response = daemon.request(Method::GET, path).header("accept", "text/html").send().await.unwrap();
    clear(response, path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn t14_pages_show_names_so_that_none_is_taken_for_another() {
    let world = World::new();
    for (name, _) in NAMES {
        world.write(&format!("hub/bucket/{name}"), b"content");
    }
    let daemon = world.serve().await;
    let tags = json!({ "tags": { "why\u{202e}": "so\u{2066}" } });
    let made = daemon.request(Method::POST, "/snapshots/one?wait=true").json(&tags).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let place = "/ui/apps/hub/snapshots/one";
    let browsed = page(&daemon, &format!("{place}/browse?path=bucket")).await;
    for (_, shown) in NAMES {
        assert!(browsed.contains(&format!(">{shown}<")), "{shown}: {browsed}");
    }
    assert!(page(&daemon, place).await.contains("why\\u{202e}"));
    for (name, _) in NAMES {
        std::fs::remove_file(world.folder.join(format!("hub/bucket/{name}"))).unwrap();
    }
    let confirmed = page(&daemon, &format!("{place}/deploy")).await;
    daemon.create("/snapshots/two").await;
    let compared = page(&daemon, "/ui/compare?app=hub&a=one&b=two").await;
    for (_, shown) in NAMES {
        assert!(confirmed.contains(shown) && compared.contains(shown), "{shown}");
    }
    for path in
        ["/", "/?q=%E2%80%AE", "/ui/operations", &format!("{place}/delete"), &format!("{place}/browse?path=%E2%80%AE")]
    {
        page(&daemon, path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t14_problems_and_downloads_hide_nothing() {
    let world = World::new();
    for (name, _) in NAMES {
        world.write(&format!("hub/bucket/{name}"), b"content");
    }
    let daemon = world.serve().await;
    daemon.create("/snapshots/one").await;
    for path in [
        "/snapshots/%E2%80%AE",
        "/snapshots/one/entries?path=%E2%80%AE",
        "/snapshots/one/diff?against=%E2%80%AE",
        "/apps/%E2%80%AE",
        "/operations/%E2%80%AE",
        "/snapshots?%E2%80%AE=1",
    ] {
        let response = daemon.get(path).await;
        assert!(response.status().is_client_error());
        let text = clear(response, path).await;
        assert!(text.contains("u{202e}"), "{path}: {text}");
    }
    let downloaded = daemon.get("/snapshots/one/content?path=bucket/annual%E2%80%AEtxt.exe").await;
    assert_eq!(downloaded.status(), 200);
    let offered = downloaded.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert!(offered.contains("filename*=UTF-8''annual_txt.exe") && !offered.contains("%E2%80%AE"), "{offered}");
    let created = daemon.post("/snapshots/a%E2%80%AEb").await;
    assert_eq!(created.status(), 400, "no new snapshot has such a name");
    clear(created, "a name").await;
}
