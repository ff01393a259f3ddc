//! Goal: a target is wholly old or wholly new, or the command says before it begins that it cannot be;
//! nothing stays stuck. Method: the built program as root and as a plain user, and what a person can set in a
//! target: attributes, mounts, swap space, running programs, sticky folders, overlays, a parent that may not
//! be written.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::known::left_beside;
use support::{COPAL, Run, World, assert_same, finish, look, noise};

/// The usual user without rights.
const NOBODY: u32 = 65534;

fn call(program: &str, words: &[&str]) -> bool {
    let run = Command::new(program).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.unwrap_or_else(|error| panic!("{program}: {error}")).success()
}

/// What was set, until it is dropped.
#[derive(Default)]
struct Obstacle {
    undo: Vec<(&'static str, Vec<String>)>,
    child: Option<Child>,
}

impl Obstacle {
    fn set(program: &'static str, words: &[&str], undo: (&'static str, &[&str])) -> Self {
        assert!(call(program, words), "{program} {words:?}");
        let undo = (undo.0, undo.1.iter().map(|&word| word.to_owned()).collect());
        Self { undo: vec![undo], child: None }
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        for (program, words) in self.undo.iter().rev() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            call(program, &words);
        }
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

fn attribute(path: &str, letter: &str) -> Obstacle {
    Obstacle::set("chattr", &[&format!("+{letter}"), path], ("chattr", &[&format!("-{letter}"), path]))
}

fn plant(root: &Path, version: u64) {
    fs::create_dir_all(root.join("d")).unwrap();
    for (number, name) in ["a", "d/f", "z"].into_iter().enumerate() {
        fs::write(root.join(name), noise(10 * version + number as u64, 50_000)).unwrap();
    }
    let mut program = fs::read("/bin/sleep").unwrap();
    program.resize(1 << 20, version as u8);
    fs::remove_file(root.join("program")).or_else(|error| if version == 1 { Ok(()) } else { Err(error) }).unwrap();
    fs::write(root.join("program"), program).unwrap();
    fs::set_permissions(root.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// The target `t` differs from the snapshot `s`, and something in it cannot be changed.
#[track_caller]
fn check(set: impl Fn(&World) -> Obstacle) {
    for mode in ["in-place", "swap", "auto"] {
        let world = World::new();
        let target = world.path("t");
        plant(&target, 1);
        world.create("s", "t");
        let wanted = look(&target);
        plant(&target, 2);
        fs::write(target.join("d/extra"), b"goes").unwrap();
        let obstacle = set(&world);
        let before = look(&target);
        let words = ["deploy", "s", "t", "--yes", "--mode", mode];
        for _ in 0..2 {
            let run = world.run(&words);
            if run.code == 0 {
                assert_same(&wanted, &look(&target));
            } else {
                assert!(run.stderr.contains("cannot be deployed"), "{mode}: {run:#?}");
                assert_same(&before, &look(&target));
            }
            let listed = world.run(&["list"]);
            assert_eq!((listed.code, listed.stderr.as_str()), (0, ""), "{mode}: nothing is left to be said");
            assert_eq!(left_beside(&world.path("")), [] as [String; 0], "{mode}: {run:#?}");
        }
        drop(obstacle);
        world.ok(&words);
        assert_same(&wanted, &look(&target));
    }
}

#[test]
fn d03_an_immutable_file_is_found_before_anything_is_decided() {
    check(|world| attribute(&world.text("t/d/f"), "i"));
}

#[test]
fn d03_an_append_only_file_is_found_before_anything_is_decided() {
    check(|world| attribute(&world.text("t/d/f"), "a"));
}

#[test]
fn d03_an_immutable_folder_is_found_before_anything_is_decided() {
    check(|world| attribute(&world.text("t/d"), "i"));
    check(|world| attribute(&world.text("t"), "i"));
}

#[test]
fn d03_a_program_that_runs_is_replaced_or_named() {
    check(|world| {
        // A process that another test starts at this moment may still have it open for writing.
        let start = || Command::new(world.path("t/program")).arg("1000").spawn().ok();
        let child = std::iter::repeat_with(start).take(100_000).flatten().next();
        Obstacle { undo: Vec::new(), child: Some(child.unwrap()) }
    });
}

#[test]
fn d03_a_folder_that_is_mounted_read_only_is_found_before_anything_is_decided() {
    check(|world| {
        let path = world.text("t/d");
        let obstacle = Obstacle::set("mount", &["--bind", &path, &path], ("umount", &[&path]));
        assert!(call("mount", &["-o", "remount,ro,bind", &path]));
        obstacle
    });
}

#[test]
fn d03_a_file_on_which_something_is_mounted_is_found_before_anything_is_decided() {
    check(|world| {
        fs::write(world.path("other"), b"precious").unwrap();
        let (other, path) = (world.text("other"), world.text("t/d/f"));
        Obstacle::set("mount", &["--bind", &other, &path], ("umount", &[&path]))
    });
}

#[test]
fn d03_swap_space_is_found_before_anything_is_decided() {
    check(|world| {
        let path = world.text("t/z");
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(call("mkswap", &["-q", &path]));
        // A sandbox may forbid swap space: then the file is an ordinary one.
        if !call("swapon", &[&path]) {
            return Obstacle::default();
        }
        Obstacle { undo: vec![("swapoff", vec![path])], child: None }
    });
}

/// A command as a plain user who owns everything of the world but what was given to root again.
fn as_nobody(world: &World, words: &[&str]) -> Run {
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", COPAL];
    finish(world.command_of(Path::new("/usr/bin/setpriv"), &[&user[..], words].concat()).output().unwrap())
}

fn give(path: &Path, user: u32) {
    assert!(call("chown", &["-R", &format!("{user}:{user}"), path.to_str().unwrap()]));
}

/// `srv/t` belongs to a plain user, `srv` to root; the snapshot `s` is what `srv/t` once was.
fn owned_by_nobody() -> (World, PathBuf) {
    let world = World::new();
    let target = world.path("srv/t");
    plant(&target, 1);
    give(&world.path(""), NOBODY);
    let run = as_nobody(&world, &["create", "s", "srv/t"]);
    assert_eq!(run.code, 0, "{run:#?}");
    chown(world.path("srv"), Some(0), Some(0)).unwrap();
    (world, target)
}

#[test]
fn d03_the_owner_of_a_folder_can_deploy_to_it_below_a_folder_of_root() {
    for mode in ["auto", "in-place"] {
        let (world, target) = owned_by_nobody();
        let wanted = look(&target);
        plant(&target, 2);
        give(&target, NOBODY);
        let run = as_nobody(&world, &["deploy", "s", "srv/t", "--yes", "--mode", mode]);
        assert_eq!(run.code, 0, "{mode}: {run:#?}");
        assert_same(&wanted, &look(&target));
    }
    let (world, target) = owned_by_nobody();
    plant(&target, 2);
    give(&target, NOBODY);
    let before = look(&target);
    let run = as_nobody(&world, &["deploy", "s", "srv/t", "--yes", "--mode", "swap"]);
    assert!(run.code != 0 && run.stderr.contains("may not be written"), "{run:#?}");
    assert_same(&before, &look(&target));
}

#[test]
fn d03_another_users_file_in_a_sticky_folder_is_found_before_anything_is_decided() {
    let (world, target) = owned_by_nobody();
    let wanted = look(&target);
    plant(&target, 2);
    give(&target, NOBODY);
    fs::write(target.join("d/others"), b"root's").unwrap();
    chown(target.join("d"), Some(0), Some(0)).unwrap();
    fs::set_permissions(target.join("d"), fs::Permissions::from_mode(0o1777)).unwrap();
    let before = look(&target);
    for _ in 0..2 {
        let run = as_nobody(&world, &["deploy", "s", "srv/t", "--yes"]);
        assert!(run.code != 0 && run.stderr.contains("sticky"), "{run:#?}");
        assert_same(&before, &look(&target));
        let listed = as_nobody(&world, &["list"]);
        assert_eq!((listed.code, listed.stderr.as_str()), (0, ""));
    }
    give(&target, NOBODY);
    let run = as_nobody(&world, &["deploy", "s", "srv/t", "--yes"]);
    assert_eq!(run.code, 0, "{run:#?}");
    assert_same(&wanted, &look(&target));
}

#[test]
fn d03_a_folder_of_a_lower_layer_of_an_overlay_is_deployed_to() {
    let world = World::new();
    for folder in ["lower", "upper", "work", "m"] {
        fs::create_dir(world.path(folder)).unwrap();
    }
    plant(&world.path("lower/app"), 1);
    fs::create_dir(world.path("lower/empty")).unwrap();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| world.text(name));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let mounted = world.text("m");
    let _overlay =
        Obstacle::set("mount", &["-t", "overlay", "overlay", "-o", &options, &mounted], ("umount", &[&mounted]));
    world.create("s", "m/app");
    let wanted = look(&world.path("m/app"));
    for mode in ["auto", "in-place", "auto"] {
        plant(&world.path("m/app"), 2);
        fs::remove_dir_all(world.path("m/app/d")).unwrap();
        fs::write(world.path("m/app/d"), b"a file now").unwrap();
        world.ok(&["deploy", "s", "m/app", "--yes", "--mode", mode]);
        assert_same(&wanted, &look(&world.path("m/app")));
        plant(&world.path("m/app"), 1);
    }
    world.ok(&["deploy", "s", "m/empty"]);
    assert_same(&wanted, &look(&world.path("m/empty")));
    assert_eq!(left_beside(&world.path("m")), [] as [String; 0]);
}

#[test]
fn d03_commands_work_with_a_state_folder_that_cannot_be_written_and_few_descriptors() {
    let world = World::new();
    plant(&world.path("t"), 1);
    world.create("s", "t");
    let wanted = look(&world.path("t"));
    let deploy = ["deploy", "s", "t", "--yes"];
    for number in 0..300 {
        fs::create_dir_all(world.path(&format!("many/{number}/deep"))).unwrap();
        fs::write(world.path(&format!("many/{number}/deep/file")), noise(number, 2000)).unwrap();
    }
    let few = |words: &[&str]| {
        let run = [&["--nofile=64:64", COPAL][..], words].concat();
        let run = finish(world.command_of(Path::new("/usr/bin/prlimit"), &run).output().unwrap());
        assert_eq!(run.code, 0, "{words:?}: {run:#?}");
    };
    few(&["create", "many", "many"]);
    few(&["deploy", "many", "many again"]);
    fs::remove_dir_all(world.path("many again/7")).unwrap();
    few(&["deploy", "many", "many again", "--yes", "--mode", "in-place"]);
    few(&["deploy", "many", "many again", "--yes", "--mode", "swap"]);
    few(&["verify"]);
    assert_same(&look(&world.path("many")), &look(&world.path("many again")));
    let state = world.text("state");
    let _read_only = Obstacle::set("mount", &["-t", "tmpfs", "-o", "ro", "tmpfs", &state], ("umount", &[&state]));
    for words in [&deploy[..], &["list"], &["create", "u", "t"], &["verify"], &["gc"], &["deploy", "s", "new"]] {
        plant(&world.path("t"), 2);
        world.ok(words);
        if words == deploy {
            assert_same(&wanted, &look(&world.path("t")));
        }
    }
}

#[test]
fn d03_a_deploy_that_cannot_be_finished_is_given_up_by_hand() {
    let world = World::new();
    plant(&world.path("t"), 1);
    fs::write(world.path("t/database"), noise(7, 2 << 20)).unwrap();
    world.create("s", "t");
    let wanted = look(&world.path("t"));
    let database = fs::File::options().write(true).open(world.path("t/database")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&database, b"drift", 1 << 20).unwrap();
    drop(database);
    // It may not write as far into a file as its last step does.
    let words = ["--fsize=524288", COPAL, "deploy", "s", "t", "--yes", "--mode", "in-place"];
    let run = finish(world.command_of(Path::new("/usr/bin/prlimit"), &words).output().unwrap());
    assert!(run.was_killed(), "{run:#?}");
    let obstacle = attribute(&world.text("t/database"), "i");
    let listed = world.run(&["list"]);
    assert!(listed.code == 0 && listed.stderr.contains("--abandon"), "{listed:#?}");
    let refused = world.run(&["deploy", "s", "t", "--yes"]);
    assert!(refused.code != 0, "{refused:#?}");
    let given_up = world.json(&["deploy", "--abandon", "t", "--yes"]);
    assert_eq!(given_up["abandoned"].as_array().unwrap().len(), 1, "{given_up}");
    assert_eq!(support::fields(&given_up), ["abandoned", "target"]);
    assert_eq!(world.json(&["deploy", "--abandon", "t", "--yes"])["abandoned"].as_array().unwrap().len(), 0);
    assert_eq!(world.run(&["list"]).stderr, "");
    assert_eq!(left_beside(&world.path("")), [] as [String; 0]);
    drop(obstacle);
    world.ok(&["deploy", "s", "t", "--yes"]);
    assert_same(&wanted, &look(&world.path("t")));
}

#[test]
fn d03_a_plain_user_leaves_devices_out_when_asked_to() {
    let (world, target) = owned_by_nobody();
    assert!(call("mknod", &[&world.text("srv/t/null"), "c", "1", "3"]));
    fs::write(target.join("file"), b"x").unwrap();
    give(&target, NOBODY);
    fs::set_permissions(target.join("null"), fs::Permissions::from_mode(0o644)).unwrap();
    let run = as_nobody(&world, &["create", "devices", "srv/t"]);
    assert_eq!(run.code, 0, "{run:#?}");
    for mode in ["swap", "in-place"] {
        let words = ["deploy", "devices", "new", "--yes", "--mode", mode];
        let run = as_nobody(&world, &words);
        assert!(run.code == 79 && run.stderr.contains("--skip-devices"), "{run:#?}");
        if mode == "in-place" {
            // Something stands there, and the file is to be made anew.
            assert_eq!(as_nobody(&world, &["deploy", "s", "new", "--yes"]).code, 0);
        }
        let run = as_nobody(&world, &[&words[..], &["--skip-devices", "--json"]].concat());
        assert_eq!(run.code, 3, "{run:#?}");
        let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(report["skipped"], serde_json::json!([{ "path": "null" }]));
        assert_eq!(fs::read(world.path("new/file")).unwrap(), b"x");
        assert!(!world.path("new/null").exists());
    }
}

#[test]
fn d03_a_plain_user_gets_folders_that_their_own_mode_closes() {
    let (world, target) = owned_by_nobody();
    fs::create_dir(target.join("closed")).unwrap();
    give(&target, NOBODY);
    fs::set_permissions(target.join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    let run = finish(world.command(&["create", "closed", "srv/t"]).output().unwrap());
    assert_eq!(run.code, 0, "{run:#?}");
    give(&world.repository(), NOBODY);
    let wanted = look(&target);
    for mode in ["swap", "in-place"] {
        fs::remove_dir_all(world.path("new")).ok();
        if mode == "in-place" {
            assert_eq!(as_nobody(&world, &["deploy", "s", "new"]).code, 0);
        }
        let run = as_nobody(&world, &["deploy", "closed", "new", "--yes", "--mode", mode]);
        assert_eq!(run.code, 0, "{mode}: {run:#?}");
        assert_same(&wanted, &look(&world.path("new")));
        assert_eq!(as_nobody(&world, &["list"]).stderr, "", "{mode}: nothing is left to be ended");
    }
}
