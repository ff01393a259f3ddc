//! Goal: what is written to the sources of an application while it is deployed to is in a safety snapshot
//! (row D6). Method: the built program; a source of the kind `command`, captured after the others, writes.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;

use support::World;
use support::guarded::{MountedAt, read, write};

/// An application whose command writes to everything else, once, where a file says so.
fn configure(world: &World, tree: &str) {
    let source =
        |kind: &str, rest: String| format!("[[app.shop.source]]\nkind = \"{kind}\"\nlabel = \"{kind}\"\n{rest}\n");
    let [armed, script] = ["armed", "late.sh"].map(|name| world.text(name));
    let text = [
        "[app.shop]\n".to_owned(),
        source("tree", format!("path = \"{tree}\"")),
        source("sqlite", "path = \"srv/app.db\"".into()),
        source("config", "path = \"srv/conf\"".into()),
        source("command", format!("argv = [\"/bin/sh\", \"{script}\"]")),
    ];
    fs::write(world.path("copal.toml"), text.concat()).unwrap();
    let script = format!(
        "[ -e {armed} ] || exit 0\nrm {armed}\ncd {}\nset -e\necho late >bucket/late; echo more >>bucket/grows\n\
         rm bucket/gone\nsqlite3 app.db 'INSERT INTO t VALUES (3)'\necho late >conf\n",
        world.text("srv")
    );
    fs::write(world.path("late.sh"), script).unwrap();
}

fn safety_snapshots(world: &World) -> usize {
    let listed = world.json(&["list"]);
    listed.as_array().unwrap().iter().filter(|one| one["safety"] == true).count()
}

#[test]
fn d06_what_is_written_between_the_safety_snapshot_and_the_switch_is_in_another_one() {
    for (tree, is_mount_point) in [("srv/bucket", false), ("srv/bucket", true), ("srv", false)] {
        let world = World::new();
        fs::create_dir_all(world.path("srv/bucket")).unwrap();
        let _mounted = is_mount_point.then(|| MountedAt::tmpfs(world.path("srv/bucket")));
        configure(&world, tree);
        let rows = || daemon::sql(&world.path("srv/app.db"), "SELECT group_concat(v, '') FROM t").trim().to_owned();
        let files =
            [("srv/bucket/grows", "one"), ("srv/bucket/gone", "x"), ("srv/bucket/stays", "x"), ("srv/conf", "one")];
        write(&world, &files);
        daemon::sql(&world.path("srv/app.db"), "PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES (1)");
        world.ok(&["create", "one", "--app", "shop"]);

        // Nothing happens meanwhile.
        write(&world, &[("srv/bucket/grows", "two\n")]);
        daemon::sql(&world.path("srv/app.db"), "INSERT INTO t VALUES (2)");
        let deploy = ["deploy", "shop/one", "--app", "shop", "--yes"];
        let report = world.json(&deploy);
        assert_eq!(report["warnings"].as_array().unwrap().len(), 0, "{tree} {report:#}");
        assert_eq!(safety_snapshots(&world), 1);

        world.ok(&["deploy", report["safety"].as_str().unwrap(), "--app", "shop", "--yes", "--no-safety"]);
        assert_eq!(rows(), "12", "{tree}");
        write(&world, &[("armed", "")]);
        let report = world.json(&deploy);
        assert!(!world.path("armed").exists());
        assert_eq!((read(&world, "srv/bucket/grows"), rows()), ("one".into(), "1".into()), "{tree}");
        assert_eq!(safety_snapshots(&world), 3, "{report:#}");
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains("changed after the safety snapshot safety-"), "{report:#}");
        assert!(warnings.contains("srv/bucket/late"), "{report:#}");
        let names: Vec<_> = fs::read_dir(world.path("srv")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().contains("copal")), "{names:?}");

        world.ok(&["deploy", report["safety"].as_str().unwrap(), "--app", "shop", "--yes", "--no-safety"]);
        let found = ["grows", "late", "stays"].map(|name| read(&world, &format!("srv/bucket/{name}")));
        assert_eq!(found, ["two\nmore\n", "late\n", "x"], "{tree}");
        assert!(!world.path("srv/bucket/gone").exists());
        assert_eq!((read(&world, "srv/conf"), rows()), ("late\n".into(), "123".into()), "{tree}");
    }
}

#[test]
fn d06_what_is_written_where_nothing_stood_is_not_removed() {
    let world = World::new();
    configure(&world, "srv/bucket");
    write(&world, &[("srv/bucket/gone", "one"), ("srv/conf", "one")]);
    daemon::sql(&world.path("srv/app.db"), "PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES (1)");
    world.ok(&["create", "one", "--app", "shop"]);
    fs::rename(world.path("srv/bucket"), world.path("srv/aside")).unwrap();
    let script =
        fs::read_to_string(world.path("late.sh")).unwrap().replace("set -e", "set -e; mkdir bucket; echo >bucket/gone");
    fs::write(world.path("late.sh"), script).unwrap();
    write(&world, &[("armed", "")]);
    let report = world.json(&["deploy", "shop/one", "--app", "shop", "--yes"]);
    assert_eq!(read(&world, "srv/bucket/gone"), "one");
    world.ok(&["deploy", report["safety"].as_str().unwrap(), "--app", "shop", "--yes", "--no-safety"]);
    assert_eq!(read(&world, "srv/bucket/late"), "late\n");
}
