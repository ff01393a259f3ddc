//! Goal: the routes do what the Hub's design says. Method: a daemon in this process, real requests, the files
//! on disk looked at.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::{World, refused};

#[tokio::test(flavor = "multi_thread")]
async fn h01_the_list_has_every_field() {
    let world = World::new();
    let daemon = world.serve().await;
    assert_eq!(daemon.json("/snapshots").await, json!([]));
    daemon.create("/snapshots/one").await;
    let list = daemon.json("/snapshots").await;
    let [line] = list.as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(line["name"], "one");
    assert_eq!(line["app"], "hub");
    assert_eq!(line["origin"], "created");
    assert_eq!(line["size"], 15);
    assert!(line["created"].as_str().unwrap().ends_with('Z'));
    assert!(line.get("db_version").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn h02_a_name_is_given_once() {
    let world = World::new();
    let daemon = world.serve().await;
    let first = daemon.create("/snapshots/one").await;
    world.write("hub/bucket/a.txt", b"changed");
    let problem = refused(daemon.post("/snapshots/one").await, 409, "name-taken").await;
    assert!(problem["hint"].as_str().unwrap().contains("another name"));
    assert_eq!(daemon.json("/snapshots/one").await["digest"], first["digest"]);
    // The name is unique in its application only.
    daemon.create("/apps/shop/snapshots/one").await;
    assert_eq!(daemon.json("/apps/shop/snapshots").await.as_array().unwrap().len(), 1);
    assert_eq!(daemon.json("/snapshots").await.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn h02_a_name_under_way_is_taken_too() {
    let world = World::new();
    let daemon = world.serve().await;
    let requests = (0..8).map(|_| daemon.post("/snapshots/same?wait=true"));
    let statuses: Vec<u16> =
        futures_util::future::join_all(requests).await.into_iter().map(|response| response.status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|&&status| status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == 409).count(), 7, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h03_what_is_deleted_is_gone() {
    let world = World::new();
    let daemon = world.serve().await;
    let made = daemon.create("/snapshots/one").await;
    assert_eq!(daemon.json("/snapshots/one").await["id"], made["id"]);
    assert_eq!(daemon.delete("/snapshots/one").await.status(), 204);
    refused(daemon.get("/snapshots/one").await, 404, "no-such-snapshot").await;
    refused(daemon.delete("/snapshots/one").await, 404, "no-such-snapshot").await;
    assert_eq!(daemon.json("/snapshots").await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn h08_a_deploy_puts_everything_back_and_leaves_the_snapshot_alone() {
    let world = World::new();
    let daemon = world.serve().await;
    let made = daemon.create("/snapshots/one").await;
    for route in ["/snapshots/one/deploy", "/snapshot/deploy/one", "/apps/hub/snapshots/one/deploy"] {
        world.write("hub/bucket/a.txt", b"broken");
        world.write("hub/bucket/new.txt", b"new");
        std::fs::remove_file(world.folder.join("hub/notes/n.txt")).unwrap();
        let response = daemon.post(&format!("{route}?wait=true")).await;
        assert_eq!(response.status(), 200, "{route}: {}", response.text().await.unwrap());
        assert_eq!(world.read("hub/bucket/a.txt"), b"first");
        assert_eq!(world.read("hub/notes/n.txt"), b"note");
        assert!(!world.folder.join("hub/bucket/new.txt").exists());
        assert_eq!(daemon.json("/snapshots/one").await["digest"], made["digest"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_work_is_an_operation() {
    let world = World::new();
    let daemon = world.serve().await;
    let response = daemon.post("/snapshots/one").await;
    assert_eq!(response.status(), 202);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let operation: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/operations/{}", operation["id"].as_str().unwrap()));
    assert_eq!(
        (&operation["verb"], &operation["app"], &operation["subject"]),
        (&json!("create"), &json!("hub"), &json!("one"))
    );
    let ended = daemon.json(&format!("{location}?wait=30")).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["result"]["snapshot"]["name"], "one");
    assert_eq!(ended["actor"], "local");
    let events = daemon.get(&format!("{location}/events")).await.text().await.unwrap();
    assert!(events.contains("event: end") && events.contains("\"succeeded\""), "{events}");
    refused(daemon.post(&format!("{location}/cancel")).await, 409, "not-running").await;
    refused(daemon.get("/operations/nothing").await, 404, "no-such-operation").await;
    assert_eq!(daemon.json("/operations").await.as_array().unwrap().len(), 1);
    assert_eq!(daemon.json("/operations?active=true").await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_snapshot_can_be_seen_and_fetched() {
    let world = World::new();
    let big: Vec<u8> = (0..3_000_000u32).map(|number| (number * 7 % 251) as u8).collect();
    world.write("hub/bucket/big.bin", &big);
    let daemon = world.serve().await;
    daemon.create("/snapshots/one").await;
    let paths = |entries: &Value| -> Vec<String> {
        entries.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
    };
    let top = daemon.json("/snapshots/one/entries?path=bucket").await;
    assert_eq!(paths(&top), ["bucket", "bucket/a.txt", "bucket/big.bin", "bucket/deep"]);
    let content = daemon.get("/snapshots/one/content?path=bucket/big.bin").await;
    assert_eq!(content.headers()["content-disposition"], "attachment; filename=\"big.bin\"; filename*=UTF-8''big.bin");
    assert_eq!(content.bytes().await.unwrap(), big);
    refused(daemon.get("/snapshots/one/content?path=bucket/none").await, 404, "no-such-path").await;
    refused(daemon.get("/snapshots/one/content?path=bucket/deep").await, 400, "usage").await;

    world.write("hub/bucket/a.txt", b"longer than before");
    world.write("hub/bucket/new.txt", b"new");
    std::fs::remove_file(world.folder.join("hub/bucket/deep/b.txt")).unwrap();
    let preview = daemon.json("/snapshots/one/diff").await;
    let line = |path: &str, old: Value, new: Value| json!({ "path": path, "size_old": old, "size_new": new });
    assert_eq!(preview["added"], json!([line("bucket/deep/b.txt", Value::Null, json!(6))]));
    assert_eq!(preview["removed"], json!([line("bucket/new.txt", json!(3), Value::Null)]));
    assert!(preview["changed"].as_array().unwrap().contains(&line("bucket/a.txt", json!(18), json!(5))), "{preview}");
    daemon.create("/snapshots/two").await;
    let compared = daemon.json("/snapshots/two/diff?against=one").await;
    assert_eq!(compared["added"], json!([line("bucket/new.txt", Value::Null, json!(3))]));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_pinned_and_tagged() {
    let world = World::new();
    let daemon = world.serve().await;
    let made = daemon
        .request(Method::POST, "/snapshots/one?wait=true")
        .json(&json!({ "tags": { "ticket": "4711" }, "pinned": true }));
    let made: Value = made.send().await.unwrap().json().await.unwrap();
    assert_eq!((&made["pinned"], &made["tags"]), (&json!(true), &json!({ "ticket": "4711" })));
    refused(daemon.delete("/snapshots/one").await, 409, "pinned").await;
    let change = json!({ "pinned": false, "tags": { "who": "me" } });
    let changed = daemon.request(Method::PATCH, "/snapshots/one").json(&change).send().await.unwrap();
    let changed: Value = changed.json().await.unwrap();
    assert_eq!((&changed["pinned"], &changed["tags"]), (&json!(false), &json!({ "who": "me" })));
    assert_eq!(daemon.delete("/snapshots/one").await.status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_paged_and_filtered() {
    let world = World::new();
    let daemon = world.serve().await;
    for number in 0..5 {
        daemon.create(&format!("/snapshots/s{number}")).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = daemon.json("/snapshots?limit=2").await;
    assert_eq!(names(&first), ["s4", "s3"]);
    let after = first[1]["id"].as_str().unwrap();
    assert_eq!(names(&daemon.json(&format!("/snapshots?limit=2&after={after}")).await), ["s2", "s1"]);
    assert_eq!(names(&daemon.json("/apps/hub/snapshots?name=3").await), ["s3"]);
    assert_eq!(daemon.json("/snapshots/latest").await["name"], "s4");
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_say_how_they_stand() {
    let world = World::new();
    let daemon = world.serve().await;
    daemon.create("/snapshots/one").await;
    let apps = daemon.json("/apps").await;
    assert_eq!(apps.as_array().unwrap().len(), 2);
    let hub = daemon.json("/apps/hub").await;
    assert_eq!((&hub["status"], &hub["snapshots"], &hub["default"]), (&json!("IDLE"), &json!(1), &json!(true)));
    assert_eq!(hub["sources"], json!(["bucket", "notes"]));
    refused(daemon.get("/apps/nothing").await, 404, "no-such-application").await;
    refused(daemon.get("/apps/nothing/snapshots").await, 404, "no-such-application").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_with_a_problem() {
    let world = World::new();
    let daemon = world.serve().await;
    refused(daemon.get("/nothing").await, 404, "no-such-route").await;
    refused(daemon.post("/snapshots/one?wait=soon").await, 422, "usage").await;
    let body = |text: &'static str| daemon.request(Method::POST, "/snapshots/one").body(text).send();
    refused(body("{").await.unwrap(), 400, "usage").await;
    refused(body("{\"unknown\": 1}").await.unwrap(), 422, "usage").await;
    // It is refused by its length, before it is read: a client that is still writing may find the connection
    // closed.
    let mut answer = None;
    for _ in 0..100 {
        let large = daemon.request(Method::POST, "/snapshots/one").body(vec![b' '; (1 << 20) + 1]).send().await;
        answer = large.ok().map(|response| response.status());
        if answer.is_some() {
            break;
        }
    }
    assert_eq!(answer.unwrap(), 413);
    let put = daemon.request(Method::PUT, "/snapshots/one").send().await.unwrap();
    refused(put, 405, "no-such-method").await;
    // A name that no snapshot can have is refused before anything is begun.
    refused(daemon.post("/snapshots/a%2Fb?wait=true").await, 400, "bad-name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repository_is_verified_and_collected_and_counted() {
    let world = World::new();
    world.write("hub/bucket/big.bin", &vec![1; 2_000_000]);
    let daemon = world.serve().await;
    daemon.create("/snapshots/one").await;
    let verified: Value = daemon.post("/repository/verify?wait=true").await.json().await.unwrap();
    assert_eq!((&verified["ok"], &verified["snapshots"]), (&json!(true), &json!(1)));
    let stats = daemon.json("/stats").await;
    assert_eq!(stats["logical"], 2_000_015);
    assert!(stats["unique"].as_object().unwrap().len() == 1 && stats["stored"].as_u64().unwrap() > 0);
    assert_eq!(daemon.post("/repository/collect?wait=true").await.status(), 200);
    let figures = daemon.get("/metrics").await.text().await.unwrap();
    for line in [
        "copal_snapshots{app=\"hub\"} 1",
        "copal_damaged 0",
        "copal_operations_total{verb=\"create\",app=\"hub\",state=\"succeeded\"} 1",
    ] {
        assert!(figures.contains(line), "{line} is not in\n{figures}");
    }
    assert_eq!(daemon.json("/healthz").await["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_ends_gracefully_loses_nothing() {
    let world = World::new();
    let daemon = world.serve().await;
    for number in 0..4 {
        assert_eq!(daemon.post(&format!("/snapshots/s{number}")).await.status(), 202);
    }
    daemon.end().await;
    let daemon = world.serve().await;
    for operation in daemon.json("/operations").await.as_array().unwrap() {
        let id = operation["id"].as_str().unwrap();
        let ended = daemon.json(&format!("/operations/{id}?wait=30")).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    assert_eq!(daemon.json("/snapshots").await.as_array().unwrap().len(), 4);
    let second = tokio::time::timeout(Duration::from_secs(5), async {
        copal_service::Server::start(
            world.context.clone(),
            world.applications(),
            std::sync::Arc::new(copal_store::entropy::OsEntropy),
            world.options(),
        )
        .await
        .err()
        .map(|problem| problem.code.clone())
    });
    assert_eq!(second.await.unwrap().as_deref(), Some("busy"), "one daemon for one state folder");
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_names_of_routes_times_and_ids_are_reserved() {
    let world = World::new();
    let daemon = world.serve().await;
    let made = daemon.create("/snapshots/one").await;
    let id = made["id"].as_str().unwrap();
    for name in ["import", "export", "deploy", "latest", "20261127173000", id, &id.replace('-', "")] {
        let created = daemon.post(&format!("/snapshots/{name}?wait=true")).await;
        let imported = daemon.post(&format!("/snapshots/import/{name}")).await;
        for (response, what) in [(created, "created"), (imported, "imported")] {
            let status = response.status().as_u16();
            let problem: Value = response.json().await.unwrap();
            assert!(
                (status, &problem["code"]) == (400, &json!("bad-name")) || status == 409,
                "{name} {what}: {problem}"
            );
        }
    }
    assert_eq!(daemon.json("/snapshots").await.as_array().unwrap().len(), 1);
    assert_eq!(daemon.json("/operations").await.as_array().unwrap().len(), 1, "no operation was begun");
    assert_eq!(daemon.json(&format!("/snapshots/{id}")).await["name"], "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_a_repository_that_is_gone_is_not_an_empty_one() {
    let world = World::new();
    let daemon = world.serve().await;
    daemon.create("/snapshots/one").await;
    std::fs::rename(world.folder.join("repository"), world.folder.join("elsewhere")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    refused(daemon.get("/snapshots").await, 500, "no-repository").await;
    refused(daemon.post("/snapshots/two?wait=true").await, 500, "no-repository").await;
    assert!(!world.folder.join("repository").exists(), "nothing is made where it was");
    std::fs::rename(world.folder.join("elsewhere"), world.folder.join("repository")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(daemon.json("/snapshots").await.as_array().unwrap().len(), 1);
}
