//! Goal: what is no path is never taken for one: a word for another kind of source or of place either does
//! what it says or is refused before anything is made. Method: the built program, every kind of source, every
//! scheme, every command that makes something.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{lchown, symlink};

use copal_manifest::snapshot::SourceKind;
use support::World;

/// What stands in the folder in which the commands run.
fn names(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.path("")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// With a snapshot `mon` of one folder.
fn world() -> World {
    let world = World::new();
    fs::create_dir(world.path("s")).unwrap();
    fs::write(world.path("s/f"), "content").unwrap();
    world.ok(&["create", "mon", "s"]);
    world
}

/// A word that is added to the kinds of sources is met here by itself.
#[test]
fn d08_no_kind_of_source_becomes_a_folder() {
    let world = world();
    let before = names(&world);
    let kinds = SourceKind::ALL.map(SourceKind::name);
    for kind in kinds.into_iter().chain(["postgresql", "search"]) {
        for word in
            [format!("{kind}:x"), format!("{kind}:{}", world.text("x")), format!("{kind}:"), format!("{kind}://x")]
        {
            for command in [
                &["deploy", "mon", &word, "--yes"][..],
                &["deploy", "mon", &word, "--dry-run"],
                &["restore", "mon", &word],
            ] {
                let run = world.run(command);
                assert!([2, 79].contains(&run.code), "{command:?}: {run:?}");
                assert_eq!(names(&world), before, "{command:?} made something");
            }
        }
    }
    // Who means a path says so.
    world.ok(&["deploy", "mon", "./sqlite:x"]);
    assert!(world.path("sqlite:x/f").is_file());
}

#[test]
fn d08_no_place_elsewhere_becomes_a_folder() {
    let world = world();
    let before = names(&world);
    let places = [
        "sftp:host/x",
        "sftp://host/x",
        "sftp:user@host:/x",
        "rest:http://host:8000/",
        "rest:x",
        "s3:bucket",
        "s3://bucket/x",
        "b2:bucket:x",
        "gs:bucket:/",
        "azure:x:/",
        "swift:x:/",
        "rclone:remote:x",
        "ssh://user@host/x",
        "http://host/x",
        "https://host/x",
        "user@host:/x",
        "user@host:x",
        "host:/x",
        "host.example:/srv/x",
        "[::1]:/x",
        "SFTP:host/x",
        "webdav+http://host/x",
        "ftp://host/x",
        "file://host/x",
    ];
    for place in places {
        for command in [
            &["init", "--repo", place][..],
            &["list", "--repo", place],
            &["create", "x", "s", "--repo", place],
            &["deploy", "mon", place, "--yes"],
            &["restore", "mon", place],
            &["copy", "mon", "--to", place],
            &["export", "mon", place],
        ] {
            let run = world.run(command);
            assert_eq!(run.code, 2, "{command:?}: {run:?}");
            let told = ["this version of copal", "another host"].iter().any(|words| run.stderr.contains(words));
            assert!(told, "{command:?}: {run:?}");
            assert_eq!(names(&world), before, "{command:?} made something");
        }
    }
    world.ok(&["deploy", "mon", "./host:"]);
    world.ok(&["deploy", "mon", "./sftp:host"]);
    world.ok(&["init", "--repo", "./rest:x"]);
    assert!(world.path("rest:x/config").is_file() && world.path("host:/f").is_file());
    // A time in a name is no place.
    world.ok(&["deploy", "mon", "backup 12:30"]);
}

#[test]
fn d09_a_source_that_is_a_link_is_deployed_to_where_it_leads() {
    let world = World::new();
    for folder in ["srv", "real/folder"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    let sources = [("sqlite", "a.db"), ("config", "conf"), ("secret", "key"), ("tree", "folder")];
    let mut text = "[app.shop]\n".to_owned();
    for (kind, name) in sources {
        symlink(format!("../real/{name}"), world.path("srv").join(name)).unwrap();
        text += &format!("[[app.shop.source]]\nkind = \"{kind}\"\nlabel = \"{kind}\"\npath = \"srv/{name}\"\n");
    }
    fs::write(world.path("copal.toml"), text).unwrap();
    let connect = || rusqlite::Connection::open(world.path("real/a.db")).unwrap();
    connect().execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    let fill = |text: &str| {
        for name in ["conf", "key", "folder/f"] {
            fs::write(world.path("real").join(name), text).unwrap();
        }
    };
    fill("one");
    world.ok(&["create", "one", "--app", "shop"]);
    connect().execute_batch("INSERT INTO t VALUES (2)").unwrap();
    fill("two");
    let planned = world.json(&["deploy", "shop/one", "--app", "shop", "--dry-run"]);
    assert_eq!(planned["components"][0]["changes"]["replaced"].as_array().unwrap().len(), 1, "{planned:#}");
    world.ok(&["deploy", "shop/one", "--app", "shop", "--yes"]);
    let rows: u32 = connect().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
    for name in ["conf", "key", "folder/f"] {
        assert_eq!(fs::read_to_string(world.path("real").join(name)).unwrap(), "one", "{name}");
    }
    assert!(sources.iter().all(|(_, name)| world.path("srv").join(name).is_symlink()));
    let names: Vec<_> = ["srv", "real"].iter().flat_map(|folder| fs::read_dir(world.path(folder)).unwrap()).collect();
    assert_eq!(names.len(), 8, "{names:?}");

    // A link of somebody else, to what is not theirs.
    lchown(world.path("srv/conf"), Some(1), Some(1)).unwrap();
    world.fails(&["deploy", "shop/one", "--app", "shop", "--yes"], 79, "unfit-target");
    world.fails(&["create", "two", "--app", "shop"], 86, "unfit-target");
}

#[test]
fn d09_a_target_that_is_a_link_to_a_file_is_where_it_leads() {
    let world = World::new();
    fs::create_dir(world.path("real")).unwrap();
    let connect = || rusqlite::Connection::open(world.path("real/a.db")).unwrap();
    connect().execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    symlink("real/a.db", world.path("a.db")).unwrap();
    world.ok(&["create", "one", "sqlite:a.db"]);
    for command in [&["deploy", "one", "a.db", "--yes"][..], &["restore", "one", "a.db"][..]] {
        connect().execute_batch("INSERT INTO t VALUES (2)").unwrap();
        world.ok(command);
        let rows: u32 = connect().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1, "{command:?}");
        assert!(world.path("a.db").is_symlink());
    }
    lchown(world.path("a.db"), Some(1), Some(1)).unwrap();
    world.fails(&["deploy", "one", "a.db", "--yes"], 79, "unfit-target");
    fs::remove_file(world.path("real/a.db")).unwrap();
    world.fails(&["deploy", "one", "a.db", "--yes"], 2, "usage");
}
