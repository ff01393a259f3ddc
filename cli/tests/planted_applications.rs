//! Goal: what lies among the records of applications, or beside their targets, runs nothing and loses nothing
//! that it should not; what is genuine is still ended. Method: the built program; records without a tag, with
//! another place's tag, and folders with its names.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use support::kill::run_and_kill;
use support::{World, assert_same, finish, look};

/// An application with a folder and a file; the snapshot `shop/one` is what stands there.
fn shop(hooks: &str) -> World {
    let world = World::new();
    fs::create_dir_all(world.path("shop/data")).unwrap();
    fs::write(world.path("shop/data/file"), b"one").unwrap();
    fs::write(world.path("shop/disk"), vec![1; 100_000]).unwrap();
    let config = format!(
        "[app.shop]\n[[app.shop.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = {:?}\n\
         [[app.shop.source]]\nkind = \"image\"\nlabel = \"disk\"\npath = {:?}\n{hooks}",
        world.path("shop/data"),
        world.path("shop/disk")
    );
    fs::write(world.path("copal.toml"), config).unwrap();
    world.ok(&["create", "one", "--app", "shop"]);
    world
}

fn records(world: &World) -> PathBuf {
    let folders = fs::read_dir(world.path("state/copal/applications")).unwrap();
    let [folder] = folders.map(|entry| entry.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
    folder
}

#[test]
fn t01_records_of_applications_that_nothing_vouches_for_run_nothing() {
    let world = shop("");
    let folder = records(&world);
    let (ran, victim) = (world.path("ran"), world.path("victim"));
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("thesis"), b"years of work").unwrap();
    let touch = json!([{ "service": "", "action": { "command": ["/usr/bin/touch", ran] }, "timeout_milliseconds": 5000, "environment": [] }]);
    let known = json!({ "inode": 1, "born": null });
    let place = json!({ "place": { "path": world.path("shop/data"), "staged": victim, "beside": victim, "made": known,
        "new": known, "old": known, "identity": [1, 1], "asides": [[world.path("shop/disk"), world.path("gone")]] } });
    for (version, stage) in [(2, "trying"), (3, "trying"), (3, "committed"), (3, "staging")] {
        let journal = json!({ "version": version, "app": "shop", "snapshot": "x", "stage": stage, "targets": [place],
            "stop": touch, "start": touch });
        for tag in [String::new(), format!("{}\n", "0".repeat(64))] {
            fs::write(folder.join("deploy.json"), format!("{tag}{journal}")).unwrap();
            let dry = world.run(&["deploy", "shop/one", "--app", "shop", "--dry-run"]);
            assert!(dry.code == 0 && dry.stderr.contains("does not vouch"), "{dry:#?}");
            assert!(folder.join("deploy.json").exists(), "a dry run writes nothing");
            let run = world.run(&["list"]);
            assert!(run.code == 0 && run.stderr.contains("nothing of what it says was done"), "{run:#?}");
            assert!(!ran.exists() && victim.join("thesis").exists() && world.path("shop/disk").exists());
        }
    }
    assert!(folder.join("deploy.json.left-8").exists(), "nothing is lost");
    let capture = folder.join("captures/00000000-0000-0000-0000-000000000001");
    fs::create_dir_all(&capture).unwrap();
    fs::write(capture.join("record.json"), json!({ "phase": "capturing", "resume": touch }).to_string()).unwrap();
    for words in [&["list"][..], &["status"], &["create", "two", "--app", "shop"]] {
        world.ok(words);
        assert!(!ran.exists() && capture.join("record.json").exists(), "{words:?}");
    }
    world.ok(&["deploy", "shop/one", "--app", "shop", "--yes"]);
}

#[test]
fn t01_a_deploy_of_an_application_removes_nothing_that_has_a_name_of_ours() {
    let world = shop("");
    let shown = world.json(&["show", "shop/one"]);
    let id = shown["id"].as_str().unwrap().replace('-', "");
    let mark = &id[id.len() - 12..];
    let folders = ["data", "disk"].map(|name| world.path(&format!("shop/.{name}.copal-unit-{mark}")));
    for folder in &folders {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("thesis"), b"years of work").unwrap();
    }
    let wanted = look(&world.path("shop"));
    fs::write(world.path("shop/data/file"), b"two").unwrap();
    world.ok(&["deploy", "shop/one", "--app", "shop", "--yes"]);
    folders.iter().for_each(|folder| assert!(folder.join("thesis").exists(), "{}", folder.display()));
    let mut found = look(&world.path("shop"));
    // The folder above has other names since.
    found.insert(PathBuf::new(), wanted[&PathBuf::new()].clone());
    assert_same(&wanted, &found);
}

#[test]
fn t01_a_killed_deploy_of_an_application_is_taken_back_but_not_with_anothers_folder() {
    let world = shop("[[app.shop.hook]]\nwhen = \"start\"\nargv = [\"/bin/sleep\", \"2\"]\n");
    fs::write(world.path("shop/data/file"), b"two").unwrap();
    let two = look(&world.path("shop/data"));
    let staged = |world: &World| {
        let names = fs::read_dir(world.path("shop")).unwrap().map(|entry| entry.unwrap().path());
        names.into_iter().find(|path| path.to_string_lossy().contains("/.data.copal-unit-"))
    };
    let deploy = ["deploy", "shop/one", "--app", "shop", "--yes", "--no-safety"];
    let killed = |world: &World| {
        for _ in 0..50 {
            let run = run_and_kill(world.command(&deploy), Duration::from_millis(800));
            if run.was_killed() && fs::read(world.path("shop/data/file")).unwrap() == b"one" {
                return;
            }
            finish(world.command(&["list"]).output().unwrap());
            fs::write(world.path("shop/data/file"), b"two").unwrap();
        }
        panic!("never killed after the switch");
    };
    killed(&world);
    let old = staged(&world).unwrap();
    fs::rename(&old, world.path("shop/aside")).unwrap();
    fs::create_dir(&old).unwrap();
    fs::write(old.join("theirs"), b"x").unwrap();
    let run = world.run(&["list"]);
    assert!(run.code == 0 && run.stderr.contains("is not what this deploy had put there"), "{run:#?}");
    assert_eq!(fs::read(world.path("shop/data/file")).unwrap(), b"one");
    assert!(old.join("theirs").exists());
    fs::remove_dir_all(&old).unwrap();
    fs::rename(world.path("shop/aside"), &old).unwrap();
    let run = world.run(&["list"]);
    assert!(run.stderr.contains("took back an interrupted deploy"), "{run:#?}");
    assert_eq!(two[&PathBuf::from("file")], look(&world.path("shop/data"))[&PathBuf::from("file")]);
    assert!(staged(&world).is_none());
}

/// The file of the current folder names programs, so it must be the caller's own.
#[test]
fn t01_a_configuration_that_others_wrote_runs_nothing() {
    let world = World::new();
    fs::create_dir(world.path("data")).unwrap();
    fs::write(world.path("data/file"), b"one").unwrap();
    let (path, ran) = (world.path("copal.toml"), world.path("ran"));
    let config = format!(
        "[app.shop]\n[[app.shop.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = {:?}\n\
         [[app.shop.hook]]\nwhen = \"pre\"\nargv = [\"/usr/bin/touch\", {ran:?}]\n",
        world.path("data"),
    );
    fs::write(&path, config).unwrap();
    let create = |name: &str| world.run(&["create", name, "--app", "shop"]);
    let give = |user: u32, mode: u32| {
        std::os::unix::fs::lchown(&path, Some(user), Some(user)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (user, mode, why) in [(65534, 0o644, "belongs to the user 65534"), (0, 0o646, "may be written by others")] {
        give(user, mode);
        let refused = create("one");
        assert!(refused.code == 2 && refused.stderr.contains(why), "{refused:#?}");
        assert!(!ran.exists());
    }
    // The group's bits are the mask of the ACL here.
    give(0, 0o600);
    let given = std::process::Command::new("setfacl").args(["-m", "u:65534:rw"]).arg(&path).status().unwrap();
    assert!(given.success(), "setfacl");
    let refused = create("acl");
    assert!(refused.code == 2 && refused.stderr.contains("may be written by others"), "{refused:#?}");
    let taken = std::process::Command::new("setfacl").arg("-b").arg(&path).status().unwrap();
    assert!(taken.success() && !ran.exists());
    // Who names it has looked at it.
    let named = world.run(&["create", "named", "--app", "shop", "--config", path.to_str().unwrap()]);
    assert!(named.code == 0 && ran.exists(), "{named:#?}");
    give(0, 0o644);
    assert_eq!(create("own").code, 0);
    // A pipe of that name is not waited for.
    fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    let refused = create("pipe");
    assert!(refused.code == 2 && refused.stderr.contains("is no regular file"), "{refused:#?}");
}
