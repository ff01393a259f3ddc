//! Goal: an interrupted deploy of an application is taken back where it was begun, and nowhere else: not in
//! what has its path by now. Method: the built program as root, killed after the switch; then another folder,
//! or nothing, stands at the path when the next command runs, until the right one is back.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{World, look};

/// An application with one folder, changed since its snapshot `one`, and a start hook that waits.
fn application(world: &World, target: &str) {
    fs::write(world.path(target).join("f"), b"of the snapshot").unwrap();
    let hook = "[ -e calm ] || { touch started; sleep 60; }";
    let config = format!(
        "[app.a]\n[[app.a.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = {:?}\n\
         [[app.a.hook]]\nwhen = \"start\"\nargv = [\"/bin/sh\", \"-c\", {hook:?}]\ntimeout = \"90s\"\n",
        world.text(target)
    );
    fs::write(world.path("copal.toml"), config).unwrap();
    world.ok(&["create", "one", "--app", "a"]);
    fs::write(world.path(target).join("f"), b"before the deploy").unwrap();
    fs::write(world.path(target).join("more"), b"in no snapshot").unwrap();
}

/// A deploy that is killed while the application starts: everything is switched, nothing is decided.
fn killed_after_the_switch(world: &World) {
    let mut deploy = world.command(&["deploy", "one", "--app", "a", "--yes", "--no-safety"]);
    let mut child = deploy.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !world.path("started").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never started");
        sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(world.path("calm"), b"").unwrap();
}

fn said(world: &World) -> String {
    let run = world.run(&["status"]);
    assert_eq!(run.code, 0, "{run:#?}");
    run.stderr
}

/// The target is as it was before the deploy, and nothing is left in it or beside it.
fn is_taken_back(target: &Path) {
    assert_eq!(fs::read(target.join("f")).unwrap(), b"before the deploy");
    assert_eq!(fs::read(target.join("more")).unwrap(), b"in no snapshot");
    assert_eq!(fs::read_dir(target).unwrap().count(), 2);
}

#[test]
fn d03_what_is_mounted_elsewhere_by_now_waits_to_be_taken_back() {
    let world = World::new();
    for name in ["disk", "other", "data"] {
        fs::create_dir(world.path(name)).unwrap();
    }
    fs::write(world.path("other/f"), b"another disk").unwrap();
    let mount = |from: &str| {
        let mounted = Command::new("mount").arg("--bind").arg(world.path(from)).arg(world.path("data")).status();
        assert!(mounted.unwrap().success());
    };
    let umount = || assert!(Command::new("umount").arg(world.path("data")).status().unwrap().success());
    mount("disk");
    application(&world, "data");
    killed_after_the_switch(&world);
    assert_eq!(fs::read(world.path("data/f")).unwrap(), b"of the snapshot");
    umount();
    let half = look(&world.path("disk"));
    for other in [None, Some("other")] {
        other.iter().for_each(|other| mount(other));
        let before = look(&world.path("data"));
        let text = said(&world);
        assert!(text.contains("is not the folder that a deploy to it was begun in"), "{other:?}: {text}");
        support::assert_same(&before, &look(&world.path("data")));
        support::assert_same(&half, &look(&world.path("disk")));
        other.iter().for_each(|_| umount());
    }
    mount("disk");
    let text = said(&world);
    assert!(text.contains("took back"), "{text}");
    is_taken_back(&world.path("data"));
    umount();
    assert!(!said(&world).contains("deploy"), "it is over");
}

#[test]
fn d03_what_has_the_path_by_now_is_not_taken_for_what_was_deployed_to() {
    let world = World::new();
    fs::create_dir_all(world.path("hub/data")).unwrap();
    application(&world, "hub/data");
    killed_after_the_switch(&world);
    fs::rename(world.path("hub"), world.path("hub.away")).unwrap();
    let moved = look(&world.path("hub.away"));
    for stands in [false, true] {
        if stands {
            fs::create_dir_all(world.path("hub/data")).unwrap();
            fs::write(world.path("hub/data/f"), b"somebody else's").unwrap();
        }
        let text = said(&world);
        assert!(!text.contains("took back"), "{text}");
        support::assert_same(&moved, &look(&world.path("hub.away")));
        assert!(!stands || fs::read(world.path("hub/data/f")).unwrap() == b"somebody else's");
    }
    fs::remove_dir_all(world.path("hub")).unwrap();
    fs::rename(world.path("hub.away"), world.path("hub")).unwrap();
    let text = said(&world);
    assert!(text.contains("took back"), "{text}");
    is_taken_back(&world.path("hub/data"));
    assert_eq!(fs::read_dir(world.path("hub")).unwrap().count(), 1);
}
