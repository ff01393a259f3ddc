//! Goal: what one daemon exports, another one with another key takes in and deploys; and what is no bundle
//! leaves nothing behind. Method: two daemons of the built program, bundles as files, `tar` and `sqlite3` of
//! Debian as witnesses.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use copal_manifest::snapshot::Snapshot;
use copal_store::SnapshotId;
use copal_store::backend::{ObjectKind, ObjectName};
use copal_store::repository::RootName;
use daemon::{Daemon, sql};
use reqwest::Method;
use reqwest::blocking::multipart::{Form, Part};
use serde_json::{Value, json};
use support::World;

/// The key of an instance, which encrypts what it keeps.
fn instance_key(seed: u8) -> String {
    format!("{:064x}", u128::from(seed) * 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128)
}

/// A hub: a database, a bucket, the key of the instance.
fn hub(seed: u8) -> World {
    let world = World::new();
    fs::create_dir_all(world.path("hub/bucket")).unwrap();
    let database = world.path("hub/hub.db");
    sql(
        &database,
        "pragma user_version = 7; create table credentials(id integer primary key, name text, secret blob);",
    );
    let rows = format!(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) \
         insert into credentials select i, 'hub {seed} credential ' || i, randomblob(60) from n;"
    );
    sql(&database, &rows);
    fs::write(world.path("hub/bucket/report.txt"), format!("report of {seed}\n")).unwrap();
    fs::write(world.path("hub/key"), instance_key(seed)).unwrap();
    let configuration = "\
        [app.hub]\ndefault = true\n\
        [[app.hub.source]]\nkind = \"sqlite\"\nlabel = \"hub.db\"\npath = \"hub/hub.db\"\nversion_query = \"pragma user_version\"\n\
        [[app.hub.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = \"hub/bucket\"\n\
        [[app.hub.source]]\nkind = \"secret\"\nlabel = \"key\"\npath = \"hub/key\"\n";
    fs::write(world.path("copal.toml"), configuration).unwrap();
    // Another repository key for each.
    fs::write(world.path("key"), support::noise(u64::from(seed), 32)).unwrap();
    fs::remove_dir_all(world.repository()).unwrap();
    world.ok(&["init"]);
    world
}

fn export(daemon: &Daemon, name: &str, request: Value) -> Vec<u8> {
    let response = daemon.request(Method::POST, &format!("/snapshots/{name}/export")).json(&request).send().unwrap();
    let status = response.status();
    let bytes = response.bytes().unwrap().to_vec();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
    bytes
}

fn import(daemon: &Daemon, name: &str, bundle: &[u8], password: Option<&str>) -> (u16, Value) {
    let mut form = Form::new();
    if let Some(password) = password {
        form = form.text("password", password.to_owned());
    }
    let form = form.part("file", Part::bytes(bundle.to_vec()).file_name("bundle"));
    let response = daemon.request(Method::POST, &format!("/snapshots/import/{name}")).multipart(form).send().unwrap();
    (response.status().as_u16(), response.json().unwrap())
}

fn first_name(world: &World) -> String {
    sql(&world.path("hub/hub.db"), "select name from credentials where id = 1")
}

#[test]
fn h01_h07_h08_a_snapshot_of_one_daemon_is_deployed_by_another_with_another_key() {
    let (here, there) = (hub(1), hub(2));
    let (one, two) = (Daemon::start(&here, &[]), Daemon::start(&there, &[]));
    one.done("/snapshots/golden");
    two.done("/snapshots/before");
    for format in ["native", "hub-tar"] {
        let bundle = export(&one, "golden", json!({ "password": "open sesame", "format": format }));
        let name = format!("golden-{format}");
        let (status, made) = import(&two, &name, &bundle, Some("open sesame"));
        assert_eq!(status, 201, "{format}: {made}");
        let listed = two.json(&format!("/snapshots/{name}"));
        assert_eq!((&listed["origin"], &listed["db_version"]), (&json!("imported"), &json!("7")), "{listed}");
        let digest = listed["digest"].clone();
        two.done(&format!("/snapshots/{name}/deploy"));
        assert_eq!(first_name(&there), "hub 1 credential 1");
        assert_eq!(sql(&there.path("hub/hub.db"), "pragma integrity_check"), "ok");
        assert_eq!(fs::read_to_string(there.path("hub/bucket/report.txt")).unwrap(), "report of 1\n");
        assert_eq!(fs::read_to_string(there.path("hub/key")).unwrap(), instance_key(1), "the key came along");
        assert_eq!(two.json(&format!("/snapshots/{name}"))["digest"], digest, "the snapshot stays as it was");
        // And back to its own.
        two.done("/snapshots/before/deploy");
        assert_eq!(first_name(&there), "hub 2 credential 1");
        assert_eq!(fs::read_to_string(there.path("hub/key")).unwrap(), instance_key(2));
    }
    assert_eq!(
        two.json("/snapshots").as_array().unwrap().iter().filter(|line| line["origin"] == "imported").count(),
        2
    );
}

#[test]
fn h04_h05_a_tar_shows_its_three_parts_and_no_key() {
    let world = hub(3);
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/one");
    for request in [json!({ "password": "open sesame" }), json!({})] {
        let bundle = export(&daemon, "one", request);
        let (file, folder) = (world.path("bundle.tar.gz"), world.path("unpacked"));
        fs::write(&file, &bundle).unwrap();
        let tar = |arguments: &[&str]| {
            let output = Command::new("tar").args(arguments).arg(&file).current_dir(&folder).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        fs::create_dir_all(&folder).unwrap();
        let members = tar(&["tzf"]);
        for part in ["snapshot.yaml", "hub.db", "bucket"] {
            assert!(members.contains(part), "{part} is not in\n{members}");
        }
        tar(&["xzf"]);
        assert_eq!(sql(&folder.join("hub.db"), "pragma integrity_check; select count(*) from credentials"), "ok\n3000");
        assert!(holds_no_key(&folder, &instance_key(3)));
        fs::remove_dir_all(&folder).unwrap();
    }
}

fn holds_no_key(folder: &Path, key: &str) -> bool {
    let raw = hex::decode(key).unwrap();
    let holds = |bytes: &[u8]| {
        bytes.windows(raw.len()).any(|window| window == raw)
            || bytes.windows(key.len()).any(|window| window == key.as_bytes())
    };
    fs::read_dir(folder).unwrap().all(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { holds_no_key(&path, key) } else { !holds(&fs::read(path).unwrap()) }
    })
}

#[test]
fn h06_h10_what_is_no_bundle_leaves_nothing_behind() {
    let (here, there) = (hub(4), hub(5));
    let (one, two) = (Daemon::start(&here, &[]), Daemon::start(&there, &[]));
    one.done("/snapshots/one");
    two.done("/snapshots/own");
    let tar = export(&one, "one", json!({ "password": "right" }));
    let native = export(&one, "one", json!({ "password": "right", "format": "native" }));
    let stats = || (two.json("/stats")["chunks"].clone(), two.json("/snapshots").as_array().unwrap().len());
    let before = stats();
    for bundle in [&tar, &native] {
        let (status, problem) = import(&two, "x", bundle, Some("wrong"));
        assert_eq!((status, &problem["code"]), (422, &json!("wrong-bundle-password")), "{problem}");
        let (status, problem) = import(&two, "x", &bundle[..bundle.len() / 2], Some("right"));
        assert_eq!(status, 400, "{problem}");
        let mut flipped = bundle.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        let (status, problem) = import(&two, "x", &flipped, Some("right"));
        assert_eq!(status, 400, "{problem}");
    }
    for nonsense in [&b""[..], b"not a bundle at all", &[0x1f, 0x8b, 8, 0]] {
        let (status, problem) = import(&two, "x", nonsense, None);
        assert_eq!(status, 400, "{problem}");
    }
    let (status, problem) = import(&two, "own", &tar, Some("right"));
    assert_eq!((status, &problem["code"]), (409, &json!("name-taken")));
    assert_eq!(stats(), before);
    let state = there.path("state/copal/serve");
    let folder = fs::read_dir(state).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(folder.join("uploads")).unwrap().count(), 0, "no upload stays behind");
    // The right one is taken after all of this.
    assert_eq!(import(&two, "x", &tar, Some("right")).0, 201);
}

#[test]
fn h09_a_newer_database_is_refused_before_anything_is_touched() {
    let world = hub(6);
    let daemon = Daemon::start(&world, &[]);
    sql(&world.path("hub/hub.db"), "pragma user_version = 8");
    daemon.done("/snapshots/newer");
    assert_eq!(daemon.json("/snapshots/newer")["db_version"], "8");
    sql(&world.path("hub/hub.db"), "pragma user_version = 7; update credentials set name = 'changed' where id = 1");
    let before = fs::read(world.path("hub/hub.db")).unwrap();
    let response = daemon.post("/snapshots/newer/deploy");
    assert_eq!(response.status(), 409);
    let problem: Value = response.json().unwrap();
    assert_eq!((&problem["code"], &problem["exit"]), (&json!("schema-newer"), &json!("deploy-failed")), "{problem}");
    assert_eq!(fs::read(world.path("hub/hub.db")).unwrap(), before);
}

#[test]
fn uploads_and_exports_are_streams() {
    let world = World::new();
    fs::create_dir_all(world.path("data")).unwrap();
    let megabytes: usize = std::env::var("COPAL_STREAM_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(160);
    for part in 0..4 {
        fs::write(world.path(&format!("data/{part}.bin")), support::noise(part as u64, megabytes << 18)).unwrap();
    }
    fs::write(
        world.path("copal.toml"),
        "[app.a]\n[[app.a.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = \"data\"\n",
    )
    .unwrap();
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/big");
    let before = daemon.memory_peak();
    let client = daemon::client().timeout(None).build().unwrap();
    let request = json!({ "password": "p", "format": "native" });
    let mut response = client.post(format!("{}/snapshots/big/export", daemon.url)).json(&request).send().unwrap();
    assert_eq!(response.status(), 200);
    let bundle = world.path("bundle");
    let length = std::io::copy(&mut response, &mut fs::File::create(&bundle).unwrap()).unwrap();
    assert!(length > (megabytes << 20) as u64);
    let exported = daemon.memory_peak().saturating_sub(before);
    let form = Form::new().text("password", "p").file("file", &bundle).unwrap();
    let response = client.post(format!("{}/snapshots/import/again", daemon.url)).multipart(form).send().unwrap();
    let status = response.status();
    assert_eq!(status, 201, "{}", response.text().unwrap());
    let both = daemon.memory_peak().saturating_sub(before);
    println!(
        "a bundle of {} MiB: the peak of memory grew by {} MiB for the export, {} MiB with the import",
        length >> 20,
        exported >> 20,
        both >> 20
    );
    assert!(both < 128 << 20, "the peak grew by {} MiB", both >> 20);
}

/// Somebody who may import into one application makes up a bundle that is told by its differences from
/// another application's snapshot, whose id he has seen.
#[test]
fn t04_a_bundle_shows_nothing_of_another_application() {
    let world = World::new();
    for app in ["a", "b"] {
        fs::create_dir(world.path(app)).unwrap();
        fs::write(world.path(app).join("file"), format!("the secret of {app}\n")).unwrap();
    }
    let source = |app: &str| {
        format!(
            "[app.{app}]\ndefault = {}\n[[app.{app}.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = \"{app}\"\n",
            app == "a"
        )
    };
    fs::write(world.path("copal.toml"), source("a") + &source("b")).unwrap();
    world.ok(&["create", "--app", "b", "hidden"]);
    world.ok(&["pin", "b/hidden"]);
    let id = world.json(&["show", "b/hidden"])["id"].as_str().unwrap().replace('-', "");
    // In a repository of his own an empty snapshot has that id, and another one is like it.
    let own = World::new();
    fs::create_dir(own.path("a")).unwrap();
    fs::write(own.path("copal.toml"), source("a")).unwrap();
    own.ok(&["create", "--app", "a", "base"]);
    own.ok(&["create", "--app", "a", "probe"]);
    let owner = support::forge::hold(&own, "key");
    let named = |name: &[u8]| {
        let tag = owner.keys().name_tag(name);
        owner.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap()
    };
    let move_to = |name: &str, full: &str| {
        let root = named(full.as_bytes());
        let mut snapshot = Snapshot::decode(name, &owner.read_root(&root).unwrap()).unwrap();
        owner.delete_roots(&[root]).unwrap();
        snapshot.id = SnapshotId::from_hex(&id).unwrap();
        let root = RootName { tag: root.tag, snapshot: snapshot.id };
        let object = ObjectName::new(ObjectKind::Root, root.object_name()).unwrap();
        support::forge::plant(&owner, &object, &snapshot.encode().unwrap());
    };
    move_to("base", "a/base");
    let export = |arguments: &[&str]| {
        let mut command = own.command(arguments);
        command.env("COPAL_BUNDLE_PASSWORD", "open sesame");
        let run = support::finish(command.output().unwrap());
        assert_eq!(run.code, 0, "{run:#?}");
    };
    export(&["export", "a/probe", "since.copal", "--since", "a/base"]);
    export(&["export", "a/base", "same.copal"]);
    let daemon = Daemon::start(&world, &[]);
    let since = fs::read(own.path("since.copal")).unwrap();
    let (status, problem) = import(&daemon, "stolen", &since, Some("open sesame"));
    assert!((400..500).contains(&status), "{status}: {problem}");
    assert!(!problem.to_string().contains("hidden"), "{problem}");
    // What has the id of another's snapshot arrives as one of its own.
    let same = fs::read(own.path("same.copal")).unwrap();
    let (status, made) = import(&daemon, "arrived", &same, Some("open sesame"));
    assert!(status == 201 && !made.to_string().contains("hidden"), "{status}: {made}");
    assert_ne!(made["id"].as_str().unwrap().replace('-', ""), id, "{made}");
    assert_eq!(world.json(&["show", "a/arrived"])["pinned"], false);
    world.ok(&["delete", "a/arrived", "--yes"]);
    assert_eq!(world.json(&["show", "b/hidden"])["pinned"], true);
    world.ok(&["verify"]);
}
