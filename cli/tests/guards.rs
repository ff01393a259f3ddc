//! Goal: no command writes over what Copal itself lives by (row D1). Method: the built program, its
//! repository, key, cache and state at every place that a target can have to them, under every spelling, in
//! every mode; what must stay is compared as a whole.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;
use std::os::unix::fs::symlink;

use daemon::Daemon;
use serde_json::{Value, json};
use support::guarded::{MountedAt, configure_tree, read, write};
use support::{World, assert_same, look, noise};

/// A folder `h` with `docs`, and with all that Copal lives by in it.
fn lived_in() -> (World, Vec<String>) {
    let world = World::bare();
    write(&world, &[("h/docs/f", "1"), ("h/etc/key", "")]);
    fs::write(world.path("h/etc/key"), noise(7, 32)).unwrap();
    let flags = ["--repo", &world.text("h/backup"), "--key-file", &world.text("h/etc/key")].map(str::to_owned).to_vec();
    (world, flags)
}

fn with<'a>(flags: &'a [String], words: &[&'a str]) -> Vec<&'a str> {
    words.iter().copied().chain(flags.iter().map(String::as_str)).collect()
}

#[test]
fn d01_no_deploy_touches_what_copal_lives_by() {
    let (world, flags) = lived_in();
    world.ok(&with(&flags, &["init"]));
    world.ok(&with(&flags, &["create", "docs", "h/docs"]));
    world.ok(&with(&flags, &["create", "mon", "h", "--exclude", "/backup/"]));
    for folder in ["cache", "state"] {
        assert!(world.path(folder).is_dir() || fs::create_dir(world.path(folder)).is_ok());
    }
    symlink(world.path("h/backup"), world.path("link")).unwrap();
    fs::create_dir(world.path("bound")).unwrap();
    let _bound = MountedAt::bind(&world.path("h"), world.path("bound"));
    fs::hard_link(world.path("h/etc/key"), world.path("same key")).unwrap();
    let before = (look(&world.path("h")), look(&world.path("state")));
    let targets = [
        ("h", "holds the repository"),
        ("h/backup", "is the repository"),
        ("h/backup/packs", "lies in the repository"),
        ("h/backup/new/er", "lies in the repository"),
        ("link", "is the repository"),
        ("h/docs/../backup", "is the repository"),
        ("bound", "holds the repository"),
        ("bound/backup/keys", "lies in the repository"),
        ("h/etc", "holds the key file"),
        ("h/etc/key", "is the key file"),
        ("same key", "is the key file"),
        ("state/copal", "is the state folder"),
        ("state", "holds the state folder"),
        ("cache", "holds the cache folder"),
        ("cache/copal/x", "lies in the cache folder"),
    ];
    for (target, expected) in targets {
        for mode in ["auto", "swap", "in-place", "clone"] {
            let words = ["deploy", "docs", target, "--yes", "--replace", "--mode", mode];
            let error = world.fails(&with(&flags, &words), 79, "own-place");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(expected) && message.contains(target), "{target}: {message}");
        }
        world.fails(&with(&flags, &["deploy", "docs", target, "--dry-run"]), 79, "own-place");
    }
    assert_same(&before.0, &look(&world.path("h")));
    assert!(world.json(&with(&flags, &["verify"]))["ok"].as_bool().unwrap());
    // Beside it all is well.
    world.ok(&with(&flags, &["deploy", "docs", "h/docs", "--yes"]));
    world.ok(&with(&flags, &["deploy", "docs", "h/copy"]));
}

#[test]
fn d01_a_mount_of_the_repository_s_folder_is_seen_at_its_first_place() {
    let world = World::bare();
    write(&world, &[("a/repo/x", ""), ("a/docs/f", "1"), ("mnt/x", "")]);
    fs::remove_file(world.path("a/repo/x")).unwrap();
    let _bound = MountedAt::bind(&world.path("a/repo"), world.path("mnt"));
    let repo = world.text("mnt");
    world.ok(&["init", "--repo", &repo]);
    world.ok(&["create", "docs", "a/docs", "--repo", &repo]);
    let error = world.fails(&["deploy", "docs", "a", "--yes", "--repo", &repo], 79, "own-place");
    assert!(error["message"].as_str().unwrap().contains("holds the repository"), "{error}");
    let created = world.json(&["create", "all", "a", "--repo", &repo]);
    assert_eq!(created["left_out"], json!([world.text("a/repo")]));
}

#[test]
fn d01_no_deploy_of_an_application_touches_what_copal_lives_by() {
    let (world, flags) = lived_in();
    let path = world.text("h");
    let tree =
        format!("[[app.hub.source]]\nkind = \"tree\"\nlabel = \"h\"\npath = \"{path}\"\nexclude = [\"/backup/\"]\n");
    fs::write(world.path("copal.toml"), format!("[app.hub]\ndefault = true\n{tree}")).unwrap();
    world.ok(&with(&flags, &["init"]));
    world.ok(&with(&flags, &["create", "mon", "--app", "hub"]));
    world.ok(&with(&flags, &["create", "tue", "--app", "hub"]));
    write(&world, &[("h/docs/f", "2")]);
    let error = world.fails(&with(&flags, &["deploy", "hub/mon", "--app", "hub", "--yes"]), 79, "own-place");
    assert!(error["message"].as_str().unwrap().contains("holds the repository"), "{error}");
    assert_eq!(read(&world, "h/docs/f"), "2");
    assert_eq!(world.json(&with(&flags, &["list"])).as_array().unwrap().len(), 2);
}

#[test]
fn d01_the_daemon_deploys_to_nothing_that_copal_lives_by() {
    let world = World::new();
    write(&world, &[("data/f", "old")]);
    configure_tree(&world, "data");
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/mon");
    // From here on the state folder is a link into what the application has.
    fs::rename(world.path("state"), world.path("data/cache")).unwrap();
    symlink(world.path("data/cache"), world.path("state")).unwrap();
    write(&world, &[("data/f", "new")]);
    let refused = daemon.post("/snapshots/mon/deploy?wait=true");
    assert_eq!(refused.status(), 409);
    let problem: Value = refused.json().unwrap();
    assert_eq!(problem["code"], "own-place");
    assert!(problem["detail"].as_str().unwrap().contains("state folder"), "{problem}");
    assert_eq!(read(&world, "data/f"), "new");
}

#[test]
fn d01_a_create_leaves_its_own_repository_out_and_says_so() {
    let (world, flags) = lived_in();
    world.ok(&with(&flags, &["init"]));
    let created = world.json(&with(&flags, &["create", "mon", "h"]));
    assert_eq!(created["left_out"], json!([world.text("h/backup")]));
    let run = world.run(&with(&flags, &["create", "tue", "h"]));
    assert!(run.code == 0 && run.stderr.contains("left out") && run.stderr.contains("h/backup"), "{run:#?}");
    let listed = world.ok(&with(&flags, &["ls", "tue", "-R"]));
    assert!(listed.contains("docs/f") && !listed.contains("backup"), "{listed}");
    // What a pattern leaves out needs no word.
    let created = world.json(&with(&flags, &["create", "wed", "h", "--exclude", "backup"]));
    assert_eq!(created["left_out"], json!([]));
    // The cache and the state folder as well.
    fs::create_dir_all(world.path("state/copal")).unwrap();
    let created = world.json(&with(&flags, &["create", "thu", "."]));
    let left: Vec<&str> = created["left_out"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert!(
        left.iter().any(|path| path.ends_with("/state/copal")) && left.iter().any(|path| path.ends_with("h/backup"))
    );
    assert!(!world.ok(&with(&flags, &["ls", "thu", "-R"])).contains("state/copal"));
    world.fails(&with(&flags, &["create", "bad", "h/backup"]), 86, "own-place");
    world.fails(&with(&flags, &["create", "bad", "h/backup/packs"]), 86, "own-place");
}

#[test]
fn d01_neither_init_nor_export_nor_copy_writes_into_a_repository() {
    let world = World::new();
    write(&world, &[("s/f", "1")]);
    world.ok(&["create", "mon", "s"]);
    let before = world.objects();
    let repository = world.text("repository");
    for place in ["repository/sub", "repository/packs/new/er"] {
        world.fails(&["init", "--repo", &world.text(place)], 2, "usage");
    }
    fs::write(world.path("bundle password"), "a horse of amber").unwrap();
    for file in ["repository/config", "repository/bundle", "state/copal/x", "key"] {
        let words = ["export", "mon", file, "--force", "--bundle-password-file", "bundle password"];
        world.fails(&words, 1, "own-place");
    }
    world.fails(&["copy", "--to", &repository, "--to-key-file", "key"], 2, "usage");
    assert!(world.objects() == before);
}
