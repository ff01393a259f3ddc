//! Goal: an application is put back as one unit also where a source stands on a place that has no name to
//! exchange: a mount point, a block device. Method: real mounts and loop devices, the built program, failures
//! and kills in the middle.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use copal_sim::mounts::{Filesystem, LoopDevice, Mounted};
use support::kill::{Budget, run_and_kill};
use support::{Seen, World, assert_same, look, noise};

/// An application with a source on a place and a folder beside it, and more lines.
fn configure(world: &World, kind: &str, place: &Path, more: &str) {
    let (folder, place) = (world.text("data"), place.display());
    let config = format!(
        "[app.a]\n[[app.a.source]]\nkind = \"{kind}\"\nlabel = \"place\"\npath = \"{place}\"\n\
         [[app.a.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = \"{folder}\"\n\
         [[app.a.hook]]\nwhen = \"pre\"\nargv = [\"/bin/true\"]\n{more}"
    );
    fs::write(world.path("copal.toml"), config).unwrap();
}

fn hook(when: &str, script: &str) -> String {
    format!("[[app.a.hook]]\nwhen = \"{when}\"\nargv = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout = \"300ms\"\n")
}

/// One state of many files, one large; states of other seeds share some.
fn plant(folder: &Path, seed: u64) {
    fs::create_dir_all(folder.join("deep")).unwrap();
    for number in 0..30 {
        fs::write(folder.join(format!("{number}")), noise(number % (seed + 3), 3000)).unwrap();
    }
    fs::write(folder.join(format!("deep/of {seed}")), noise(seed, 100_000)).unwrap();
    fs::write(folder.join("large"), [noise(7, 2 << 20), noise(seed, 100_000)].concat()).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o750 + u32::try_from(seed).unwrap())).unwrap();
}

fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

type Tree = BTreeMap<PathBuf, Seen>;

/// Both sources as they stand; the time of a mount point's own folder is nobody's promise while things are
/// built in it.
fn both(world: &World, place: &Path) -> (Tree, Tree) {
    (look(place), look(&world.path("data")))
}

/// Snapshots `one` and `two` of an application whose tree is a mount point, standing at `two`; and both
/// states.
fn mounted_world(filesystem: Filesystem) -> (World, Mounted, [(Tree, Tree); 2]) {
    let (world, mounted) = (World::new(), Mounted::new(filesystem, 64).unwrap());
    configure(&world, "tree", mounted.path(), "");
    let states = [(1, "one"), (2, "two")].map(|(seed, name)| {
        clear(mounted.path());
        plant(mounted.path(), seed);
        plant(&world.path("data"), seed);
        world.ok(&["create", name, "--app", "a"]);
        both(&world, mounted.path())
    });
    (world, mounted, states)
}

fn check_mount_point(filesystem: Filesystem) {
    let (world, mounted, [one, two]) = mounted_world(filesystem);
    let place = mounted.path();
    world.ok(&["deploy", "a/one", "--app", "a", "--yes"]);
    assert_same(&one.0, &look(place));
    // The folder of data still has what the snapshot lacks nothing of.
    assert!(look(&world.path("data")) == one.1);
    // Unhealthy: everything as it stood.
    configure(&world, "tree", place, &hook("health", "exit 1"));
    world.fails(&["deploy", "a/two", "--app", "a", "--yes", "--no-safety"], 79, "hook");
    let found = both(&world, place);
    assert_same(&one.0, &found.0);
    assert_same(&one.1, &found.1);
    configure(&world, "tree", place, "");
    let report = world.json(&["deploy", "a/two", "--app", "a", "--yes"]);
    assert!(both(&world, place) == two);
    // What stood there is a snapshot, without what was being built in it.
    world.ok(&["deploy", report["safety"].as_str().unwrap(), "--app", "a", "--yes", "--no-safety"]);
    assert_eq!(look(place).keys().collect::<Vec<_>>(), one.0.keys().collect::<Vec<_>>());
}

#[test]
fn e12_a_unit_on_a_mount_point_of_xfs_is_put_back() {
    check_mount_point(Filesystem::Xfs);
}

#[test]
fn e12_a_unit_on_a_mount_point_of_btrfs_is_put_back() {
    check_mount_point(Filesystem::Btrfs);
}

#[test]
fn e12_a_unit_on_a_mount_point_of_ext4_is_put_back() {
    check_mount_point(Filesystem::Ext4);
}

#[test]
fn what_is_mounted_in_a_target_is_never_moved_nor_removed() {
    let world = World::new();
    let place = world.path("tree");
    plant(&place, 1);
    configure(&world, "tree", &place, "");
    plant(&world.path("data"), 1);
    world.ok(&["create", "one", "--app", "a"]);
    fs::create_dir(place.join("within")).unwrap();
    let mounted = Mounted::over(Filesystem::Tmpfs, 8, &place.join("within")).unwrap();
    fs::write(mounted.path().join("precious"), b"of somebody else").unwrap();
    let before = both(&world, &place);
    let error = world.fails(&["deploy", "a/one", "--app", "a", "--yes", "--no-safety"], 79, "unfit-target");
    assert!(error["message"].as_str().unwrap().contains("within is mounted"), "{error}");
    assert!(both(&world, &place) == before);
    // Nor by a deploy of one target: that is patched, whatever was asked for, and stops at what is mounted.
    let target = place.to_str().unwrap();
    let report = world.json(&["deploy", "a/one", target, "--path", "place", "--yes", "--mode", "swap"]);
    assert_eq!(report["mode"], "in-place");
    world.ok(&["deploy", "a/one", target, "--path", "place", "--yes"]);
    assert_eq!(fs::read(mounted.path().join("precious")).unwrap(), b"of somebody else");
}

fn write_device(device: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

/// Snapshots `one` and `two` of an application with a block device, standing at `two`; and both states.
fn device_world() -> (World, LoopDevice, [(Vec<u8>, Tree); 2]) {
    let (world, device) = (World::new(), LoopDevice::new(12).unwrap());
    configure(&world, "image", device.path(), "");
    let states = [(1, "one"), (2, "two")].map(|(seed, name)| {
        write_device(device.path(), seed << 20, &noise(seed, 700_000));
        plant(&world.path("data"), seed);
        world.ok(&["create", name, "--app", "a"]);
        (fs::read(device.path()).unwrap(), look(&world.path("data")))
    });
    (world, device, states)
}

#[test]
fn e12_a_unit_with_a_block_device_is_put_back() {
    let (world, device, [one, two]) = device_world();
    let standing = || (fs::read(device.path()).unwrap(), look(&world.path("data")));
    let report = world.json(&["deploy", "a/one", "--app", "a", "--yes"]);
    assert!(standing() == one);
    assert!(device.path().metadata().unwrap().file_type().is_block_device());
    // What the application writes to it before it turns out to be unhealthy is taken back too.
    let name = device.path().display();
    let writes = format!("head -c 3000000 /dev/urandom > {name}; sync {name}");
    configure(&world, "image", device.path(), &(hook("start", &writes) + &hook("health", "exit 1")));
    world.fails(&["deploy", "a/two", "--app", "a", "--yes", "--no-safety"], 79, "hook");
    // The start hook has run once more, on what was put back.
    assert!(fs::read(device.path()).unwrap()[3_000_000..] == one.0[3_000_000..]);
    configure(&world, "image", device.path(), "");
    world.ok(&["deploy", "a/two", "--app", "a", "--yes"]);
    assert!(standing() == two);
    world.ok(&["deploy", report["safety"].as_str().unwrap(), "--app", "a", "--yes"]);
    assert!(standing() == two, "the safety snapshot is of what stood there before the first deploy");
    assert!(
        !Command::new("find")
            .arg(world.path("state"))
            .args(["-path", "*devices/*"])
            .output()
            .unwrap()
            .stdout
            .starts_with(b"/")
    );
}

#[test]
fn a_device_in_use_or_too_small_is_refused_and_its_name_never_taken() {
    let (world, device, [_, two]) = device_world();
    let standing = || (fs::read(device.path()).unwrap(), look(&world.path("data")));
    let error = world.fails(
        &["deploy", "a/one", device.path().to_str().unwrap(), "--path", "place", "--yes"],
        79,
        "unfit-target",
    );
    assert!(error["message"].as_str().unwrap().contains("block device"), "{error}");
    assert!(device.path().metadata().unwrap().file_type().is_block_device() && standing() == two);
    let small = LoopDevice::new(11).unwrap();
    configure(&world, "image", small.path(), "");
    let error = world.fails(&["deploy", "a/one", "--app", "a", "--yes"], 79, "unfit-target");
    assert!(error["message"].as_str().unwrap().contains("make it larger"), "{error}");
    // Somebody holds it: a filesystem that is mounted.
    let used = LoopDevice::new(20).unwrap();
    assert!(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(used.path()).status().unwrap().success());
    let point = world.path("point");
    fs::create_dir(&point).unwrap();
    assert!(Command::new("mount").arg(used.path()).arg(&point).status().unwrap().success());
    fs::write(point.join("file"), b"stays").unwrap();
    configure(&world, "image", used.path(), "");
    let run = world.run(&["deploy", "a/one", "--app", "a", "--yes", "--no-safety", "--json"]);
    assert_eq!((run.code, run.error()["code"].as_str()), (11, Some("in-use")), "{run:#?}");
    assert_eq!(fs::read(point.join("file")).unwrap(), b"stays");
    assert!(look(&world.path("data")) == two.1, "the other source was not taken back");
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    // A larger one is fine: with the hook that it needs.
    assert!(Command::new("mount").arg(used.path()).arg(&point).status().unwrap().success());
    configure(&world, "image", used.path(), &hook("stop", &format!("umount {}; true", point.display())));
    world.ok(&["deploy", "a/one", "--app", "a", "--yes", "--no-safety"]);
}

/// Deploys that are killed: after the next command both sources are wholly one state or the other.
fn check_kills<S: PartialEq>(name: &'static str, world: &World, states: &[S; 2], standing: &dyn Fn() -> S) {
    let (mut budget, mut random) = Budget::new(name);
    let mut turn = 0;
    while budget.lasts() {
        turn += 1;
        let deploy = world.command(&["deploy", ["a/one", "a/two"][turn % 2], "--app", "a", "--yes", "--no-safety"]);
        let run = run_and_kill(deploy, Duration::from_millis(random.below(400)));
        budget.count(&run);
        world.json(&["status"]);
        let now = standing();
        assert!(states.contains(&now), "turn {turn}: neither the one nor the other; {run:#?}");
    }
}

#[test]
fn h16_a_killed_deploy_to_a_mount_point_is_wholly_old_or_wholly_new() {
    let (world, mounted, states) = mounted_world(Filesystem::Ext4);
    configure(&world, "tree", mounted.path(), &(hook("stop", "sleep 0.02") + &hook("start", "sleep 0.02")));
    // The last thing that goes is a name in the target: a kill between that and the setting of the folder's
    // own time leaves it.
    let but_time_of_top = |(mut tree, beside): (Tree, Tree)| {
        tree.entry(PathBuf::new()).and_modify(|top| *top = top.clone().without_time());
        (tree, beside)
    };
    let states = states.map(but_time_of_top);
    check_kills("deploy to a mount point", &world, &states, &|| but_time_of_top(both(&world, mounted.path())));
}

#[test]
fn h16_a_killed_deploy_to_a_device_is_wholly_old_or_wholly_new() {
    let (world, device, states) = device_world();
    configure(&world, "image", device.path(), &(hook("stop", "sleep 0.02") + &hook("start", "sleep 0.02")));
    check_kills("deploy to a device", &world, &states, &|| {
        (fs::read(device.path()).unwrap(), look(&world.path("data")))
    });
}
