//! Goal: an application is given no schema that it might not understand, and no order of versions is made up.
//! Method: the built program and databases whose versions are hashes, as alembic has them.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;
use std::path::Path;

use daemon::Daemon;
use rusqlite::Connection;
use support::World;
use support::terminal::at_terminal;

/// Adds rows.
fn plant(path: &Path, rows: i64) {
    let database = Connection::open(path).unwrap();
    database.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY)").unwrap();
    for _ in 0..rows {
        database.execute("INSERT INTO t DEFAULT VALUES", []).unwrap();
    }
}

fn count(path: &Path) -> i64 {
    Connection::open(path).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

/// A shop whose versions of the schema are hashes, as alembic has them: a snapshot `good` of the one, and now
/// the other.
fn hashed(order: &str, good: &str, here: &str) -> World {
    let world = World::new();
    fs::create_dir_all(world.path("shop")).unwrap();
    plant(&world.path("shop/shop.db"), 5);
    let log = world.text("migrated");
    let config = format!(
        "[app.shop]\n[[app.shop.source]]\nkind = \"sqlite\"\npath = \"shop/shop.db\"\n\
         version_query = \"SELECT version FROM alembic_version\"\n{order}\n\
         [[app.shop.hook]]\nwhen = \"migrate\"\n\
         argv = [\"/bin/sh\", \"-c\", \"echo $COPAL_SCHEMA_FROM $COPAL_SCHEMA_TO > {log}\"]\n"
    );
    fs::write(world.path("copal.toml"), config).unwrap();
    let database = Connection::open(world.path("shop/shop.db")).unwrap();
    database.execute_batch(&format!("CREATE TABLE alembic_version AS SELECT '{good}' AS version")).unwrap();
    world.ok(&["create", "good", "--app", "shop"]);
    database.execute("UPDATE alembic_version SET version = ?1", [here]).unwrap();
    drop(database);
    plant(&world.path("shop/shop.db"), 4);
    world
}

#[test]
fn d18_versions_that_are_no_numbers_have_the_order_that_is_given() {
    let deploy = ["deploy", "good", "--app", "shop", "--yes"];
    let command = "version_order = { command = [\"/bin/sh\", \"-c\", \"echo bbb; echo aaa\"] }";
    // As text "bbb" is newer than "aaa"; it is older.
    for order in ["version_order = [\"bbb\", \"aaa\"]", command] {
        let older = hashed(order, "bbb", "aaa");
        assert_eq!(older.json(&deploy)["migrated"], true);
        assert_eq!(fs::read_to_string(older.path("migrated")).unwrap(), "bbb aaa\n");
        assert_eq!(count(&older.path("shop/shop.db")), 5);
        let newer = hashed(order, "aaa", "bbb");
        newer.fails(&deploy, 79, "schema-newer");
        newer.fails(&[&deploy[..], &["--any-schema"]].concat(), 79, "schema-newer");
        assert_eq!(count(&newer.path("shop/shop.db")), 9);
        // The order says nothing of it.
        hashed(order, "ccc", "aaa").fails(&deploy, 79, "schema-unordered");
    }
    let failing = hashed("version_order = { command = [\"/bin/false\"] }", "bbb", "aaa");
    failing.fails(&deploy, 79, "program");
    let config = fs::read_to_string(failing.path("copal.toml")).unwrap();
    for wrong in ["[]", "[\"a\", \"a\"]", "{ command = [] }", "\"a\"", "{ order = [\"a\"] }"] {
        fs::write(failing.path("copal.toml"), config.replace("{ command = [\"/bin/false\"] }", wrong)).unwrap();
        failing.fails(&deploy, 2, "usage");
    }
}

#[test]
fn d18_versions_without_an_order_are_asked_about_and_never_guessed() {
    let deploy = ["deploy", "good", "--app", "shop", "--yes"];
    for (good, here) in [("bbb", "aaa"), ("aaa", "bbb"), ("v2", "10"), ("", "1")] {
        let world = hashed("", good, here);
        world.fails(&deploy, 79, "schema-unordered");
        world.fails(&["deploy", "good", "--app", "shop", "--dry-run"], 79, "schema-unordered");
        assert_eq!(count(&world.path("shop/shop.db")), 9);
    }
    let world = hashed("", "bbb", "aaa");
    let line = "copal deploy good --app shop";
    let asked = at_terminal(&world, line, &[], &[("[y/N]", "y"), ("which is newer is not known", "n")]);
    assert_ne!(asked.code, 0, "{asked:?}");
    assert_eq!(count(&world.path("shop/shop.db")), 9);
    let asked = at_terminal(&world, line, &[], &[("[y/N]", "y"), ("which is newer is not known", "y")]);
    assert_eq!(asked.code, 0, "{asked:?}");
    assert_eq!(count(&world.path("shop/shop.db")), 5);
    // Equal is equal, whatever it looks like.
    let same = hashed("", "bbb", "bbb");
    assert_eq!(same.json(&deploy)["migrated"], false);
    let agreed = hashed("", "bbb", "aaa");
    assert_eq!(agreed.json(&[&deploy[..], &["--any-schema"]].concat())["migrated"], true);
    assert_eq!(fs::read_to_string(agreed.path("migrated")).unwrap(), "bbb aaa\n");
}

#[test]
fn d18_the_daemon_goes_on_where_a_person_says_so() {
    let world = hashed("", "bbb", "aaa");
    let daemon = Daemon::start(&world, &[]);
    let route = "/apps/shop/snapshots/good/deploy?wait=true";
    let send = |body: &str| {
        let request = daemon.request(reqwest::Method::POST, route).header("content-type", "application/json");
        let answer = request.body(body.to_owned()).send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    };
    for body in ["{}", "{\"any_schema\": false}"] {
        let (status, text) = send(body);
        assert!(status == 409 && text.contains("schema-unordered") && text.contains("any_schema"), "{status}: {text}");
    }
    assert_eq!(send("{\"any_schema\": \"yes\"}").0, 422);
    assert_eq!(count(&world.path("shop/shop.db")), 9);
    let page = daemon.get("/ui/apps/shop/snapshots/good/deploy").text().unwrap();
    assert!(page.contains("which of them is newer is not known") && page.contains("name=\"any_schema\""), "{page}");
    // A press without the word, and with it.
    let press = |form: &[(&str, &str)]| {
        let request = daemon.request(reqwest::Method::POST, "/ui/apps/shop/snapshots/good/deploy");
        request.form(form).send().unwrap()
    };
    assert_eq!(press(&[]).status(), 409);
    let pressed = press(&[("any_schema", "true")]);
    assert_eq!(pressed.status(), 303);
    let id = pressed.headers()["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let operation = daemon.json(&format!("/operations/{id}?wait=true"));
    assert_eq!(
        (&operation["state"], &operation["result"]["migrated"]),
        (&"succeeded".into(), &true.into()),
        "{operation}"
    );
    assert_eq!(count(&world.path("shop/shop.db")), 5);
    assert_eq!(fs::read_to_string(world.path("migrated")).unwrap(), "bbb aaa\n");
    // One that is known to be newer is refused, whatever anybody says.
    let newer = hashed("version_order = [\"aaa\", \"bbb\"]", "bbb", "aaa");
    let daemon = Daemon::start(&newer, &[]);
    let request = daemon.request(reqwest::Method::POST, route).json(&serde_json::json!({ "any_schema": true }));
    let answer = request.send().unwrap();
    let status = answer.status();
    assert!(status == 409 && answer.text().unwrap().contains("schema-newer"), "{status}");
    let page = daemon.get("/ui/apps/shop/snapshots/good/deploy").text().unwrap();
    assert!(!page.contains("any_schema"), "{page}");
}
