//! Goal: what is mounted in a target is never entered or emptied, also when it is mounted after everything
//! was decided: by a hook, or before the next command ends an interrupted deploy (row D2). Method: the built
//! program as root; a tmpfs with a precious file.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use support::guarded::{MountedAt, read, write};
use support::{COPAL, World, assert_same, finish, look, noise};

/// What a hook of the application does: mounts a filesystem at a path with a precious file in it, once.
fn mounts_at(world: &World, path: &str, after: &str) -> String {
    let (at, once) = (world.text(path), world.text("once"));
    format!(
        "if ! [ -e {once} ]; then touch {once} && mount -t tmpfs tmpfs {at} && echo kept > {at}/precious; fi; {after}"
    )
}

fn hook(when: &str, script: &str) -> String {
    format!("[[app.hub.hook]]\nwhen = \"{when}\"\nargv = [\"/bin/sh\", \"-c\", {script:?}]\n")
}

fn configure(world: &World, hooks: &str) {
    let source = "[[app.hub.source]]\nkind = \"tree\"\nlabel = \"data\"\n";
    let text = format!("[app.hub]\ndefault = true\n{source}path = {:?}\n{hooks}", world.text("data"));
    fs::write(world.path("copal.toml"), text).unwrap();
}

/// Whatever is mounted below it goes when the test ends.
struct Unmounted(std::path::PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        mounts_below(&self.0).iter().for_each(|point| drop(Command::new("umount").arg(point).status()));
    }
}

/// The deepest first.
fn mounts_below(root: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points: Vec<String> =
        points.filter(|point| Path::new(point).starts_with(root)).map(str::to_owned).collect();
    points.sort_unstable_by_key(|point| std::cmp::Reverse(point.len()));
    points
}

/// Wherever what a hook has mounted at a path is by now.
fn umount_precious(root: &Path) {
    for point in mounts_below(root).iter().filter(|point| Path::new(point).join("precious").exists()) {
        assert!(Command::new("umount").arg(point).status().unwrap().success());
    }
}

/// Every file of this name below a folder, mounts included.
fn precious(folder: &Path) -> usize {
    support::files_below(folder).iter().filter(|path| path.ends_with("precious")).count()
}

#[test]
fn d02_a_filesystem_that_a_hook_mounts_in_a_target_is_not_emptied() {
    for (is_mount_point, when, after) in
        [(true, "stop", "true"), (true, "start", "exit 1"), (false, "stop", "true"), (false, "start", "exit 1")]
    {
        let world = World::new();
        let _ends = Unmounted(world.path(""));
        fs::create_dir(world.path("data")).unwrap();
        let mounted = is_mount_point.then(|| MountedAt::tmpfs(world.path("data")));
        write(&world, &[("data/sub/f", "old"), ("data/g", "old")]);
        configure(&world, "");
        world.ok(&["create", "one", "--app", "hub"]);
        write(&world, &[("data/g", "newer"), ("data/h", "newer")]);
        configure(&world, &hook(when, &mounts_at(&world, "data/sub", after)));
        let run = world.run(&["deploy", "hub/one", "--app", "hub", "--yes"]);
        let case = format!("{is_mount_point} {when}: {run:#?}");
        assert!(run.code != 0 && run.stderr.contains("mounted"), "what cannot be done is said: {case}");
        let listed = world.run(&["list"]);
        assert_eq!((listed.code, precious(&world.path(""))), (0, 1), "{case}, then {listed:#?}");
        umount_precious(&world.path(""));
        let listed = world.run(&["list"]);
        let found =
            ["data/g", "data/h", "data/sub/f"].map(|path| fs::read_to_string(world.path(path)).unwrap_or_default());
        assert_eq!(found, ["newer", "newer", "old"], "{case}, then {listed:#?}");
        let left = support::known::left_beside(&world.path(""));
        assert_eq!(left, [] as [String; 0], "{case}, then {listed:#?}");
        drop(mounted);
    }
}

#[test]
fn d02_an_interrupted_deploy_is_not_finished_into_what_was_mounted_since() {
    for within in ["sub", "sub/database", "b"] {
        let world = World::new();
        let _ends = Unmounted(world.path(""));
        fs::create_dir_all(world.path("t/sub")).unwrap();
        write(&world, &[("t/a", "one"), ("elsewhere/database", "precious")]);
        fs::write(world.path("t/sub/database"), noise(7, 2 << 20)).unwrap();
        world.create("s", "t");
        let wanted = look(&world.path("t"));
        write(&world, &[("t/a", "drifted"), ("t/b/gone", "goes")]);
        let database = fs::File::options().write(true).open(world.path("t/sub/database")).unwrap();
        database.write_all_at(b"drift", 1 << 20).unwrap();
        drop(database);
        // It may not write as far into a file as its last step does.
        let words = ["--fsize=524288", COPAL, "deploy", "s", "t", "--yes", "--mode", "in-place"];
        let run = finish(world.command_of(Path::new("/usr/bin/prlimit"), &words).output().unwrap());
        assert!(run.was_killed(), "{run:#?}");
        // The way is as it was before the kill, and what is mounted has the names that the steps name.
        fs::create_dir_all(world.path("t/b")).unwrap();
        let what = world.path(if within == "sub/database" { "elsewhere/database" } else { "elsewhere" });
        let mounted = MountedAt::bind(&what, world.path("t").join(within));
        let half = look(&world.path("t"));
        let dry = world.run(&["deploy", "s", "t", "--dry-run"]);
        assert!(dry.code != 0 && dry.stderr.contains("mounted"), "{within}: {dry:#?}");
        let listed = world.run(&["list"]);
        assert!(listed.code == 0 && listed.stderr.contains("mounted"), "{within}: {listed:#?}");
        assert!(listed.stderr.contains("--abandon"), "{within}: {listed:#?}");
        let refused = world.run(&["deploy", "s", "t", "--yes"]);
        assert!(refused.code != 0, "{within}: {refused:#?}");
        assert_eq!(read(&world, "elsewhere/database"), "precious", "{within}");
        assert_same(&half, &look(&world.path("t")));
        drop(mounted);
        let listed = world.run(&["list"]);
        assert!(listed.stderr.contains("finished an interrupted deploy"), "{within}: {listed:#?}");
        assert_same(&wanted, &look(&world.path("t")));
    }
}
