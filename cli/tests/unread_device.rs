//! Goal: a block device that fails is named, and nothing of it is taken for its content. Method: a loop
//! device whose file was cut off under it, as the image of an application beside a source that is sound,
//! with and without leave to take a snapshot without it.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::process::Command;

use support::{World, noise};

/// Detached when it is dropped.
struct Loop(String);

impl Loop {
    fn over(world: &World, file: &str) -> Option<Self> {
        let attached = Command::new("losetup").args(["-f", "--show"]).arg(world.path(file)).output().ok()?;
        attached.status.success().then(|| Self(String::from_utf8(attached.stdout).unwrap().trim().to_owned()))
    }

    /// Its blocks are kept in memory until they are given up.
    fn forget_blocks(&self) {
        assert!(Command::new("blockdev").args(["--flushbufs", &self.0]).status().unwrap().success());
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

fn application(world: &World, device: &str, partial: bool) {
    let source = |kind: &str, label: &str, path: &str| {
        format!("[[app.vm.source]]\nkind = \"{kind}\"\nlabel = \"{label}\"\npath = \"{path}\"\n")
    };
    let text = format!(
        "[app.vm]\npartial = {partial}\n{}{}",
        source("image", "disk", device),
        source("tree", "data", &world.text("data"))
    );
    fs::write(world.path("copal.toml"), text).unwrap();
}

#[test]
fn d12_a_block_device_that_cannot_be_read_is_named_and_not_taken() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new();
    fs::create_dir(world.path("data")).unwrap();
    fs::write(world.path("data/file"), "sound").unwrap();
    fs::write(world.path("disk"), noise(1, 4 << 20)).unwrap();
    let device = Loop::over(&world, "disk").unwrap();
    application(&world, &device.0, false);
    world.ok(&["create", "sound", "--app", "vm"]);
    File::options().write(true).open(world.path("disk")).unwrap().set_len(1 << 20).unwrap();
    device.forget_blocks();
    let refused = world.run(&["create", "broken", "--app", "vm"]);
    assert_eq!(refused.code, 86, "{refused:#?}");
    assert!(refused.stderr.contains(&device.0), "{refused:#?}");
    let latest = |world: &World| world.json(&["show", "latest:vm"])["name"].clone();
    assert_eq!(latest(&world), "sound");
    // With leave, what is sound is taken without it.
    application(&world, &device.0, true);
    let partial = world.run(&["create", "partial", "--app", "vm"]);
    assert_eq!(partial.code, 3, "{partial:#?}");
    assert!(partial.stderr.contains(&device.0) || String::from_utf8_lossy(&partial.stdout).contains(&device.0));
    let shown = world.json(&["show", "vm/partial"]);
    assert_eq!(shown["phase"], "partially_failed", "{shown}");
    let labels: Vec<&str> =
        shown["sources"].as_array().unwrap().iter().map(|source| source["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["data"], "{shown}");
}
