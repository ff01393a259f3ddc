//! Goal: every fault has its exit code, its code word, its sentence and what to do next. Method: the real
//! fault, one by one.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde_json::json;
use support::{COPAL, World, assert_same, finish, flip, look, noise, number, plant};

#[test]
fn a18_wrong_usage_is_2() {
    let world = World::new();
    world.fails(&["nonsense"], 2, "usage");
    world.fails(&["list", "--nonsense"], 2, "usage");
    world.fails(&["create", "one"], 2, "usage");
    world.fails(&["create", "one", "a=/x", "a=/y"], 2, "usage");
    world.fails(&["create", "one", ".", "--tag", "novalue"], 2, "usage");
    world.fails(&["create", "one", ".", "--exclude", "/"], 2, "bad-pattern");
    world.fails(&["create", "", "."], 2, "bad-name");
    world.fails(&["forget"], 2, "usage");
    world.fails(&["forget", "--keep-within", "parsecs"], 2, "usage");
    world.fails(&["delete", "one"], 2, "usage");
    world.fails(&["dump", "one"], 2, "usage");
    world.fails(&["list", "--password-file", "a", "--key-file", "b"], 2, "usage");
    world.fails(&["init", "--repo", "r2", "--pack-size", "3"], 2, "usage");
    assert!(!world.path("r2").exists());
    let s3 = world.fails(&["list", "--repo", "s3://bucket/prefix"], 2, "usage");
    assert!(s3["message"].as_str().unwrap().contains("S3"), "{s3}");
    let run = finish(world.command(&["list", "--json"]).env_remove("COPAL_REPO").output().unwrap());
    assert_eq!((run.code, run.error()["code"].as_str()), (2, Some("usage")));
    let run = finish(world.command(&["list", "--json"]).env_remove("COPAL_KEY_FILE").output().unwrap());
    assert_eq!((run.code, run.error()["code"].as_str()), (2, Some("usage")), "no password and no terminal");
}

#[test]
fn a18_help_and_version_are_0() {
    let world = World::bare();
    assert!(world.ok(&["--version"]).starts_with("copal "));
    for command in ["", "init", "create", "deploy", "key add"] {
        let mut words: Vec<&str> = command.split_whitespace().collect();
        words.push("--help");
        assert!(world.ok(&words).contains("Examples:\n  copal"), "{command}");
    }
}

#[test]
fn no_repository_is_10() {
    let world = World::bare();
    world.fails(&["list"], 10, "no-repository");
    fs::create_dir(world.repository()).unwrap();
    world.fails(&["list"], 10, "no-repository");
    fs::write(world.path("file"), b"words").unwrap();
    world.fails(&["list", "--repo", "file"], 10, "no-repository");
    world.fails(&["create", "one", ".", "--repo", "file:///nowhere/at/all"], 10, "no-repository");
    world.fails(&["deploy", "one", "target"], 10, "no-repository");
}

#[test]
fn a_place_that_is_not_empty_gets_no_repository() {
    let world = World::new();
    world.fails(&["init"], 1, "not-empty");
    fs::create_dir(world.path("full")).unwrap();
    fs::write(world.path("full/file"), b"words").unwrap();
    world.fails(&["init", "--repo", "full"], 1, "not-empty");
    assert_eq!(fs::read_dir(world.path("full")).unwrap().count(), 1);
    assert_eq!(world.json(&["list"]), json!([]), "the repository is as it was");
}

#[test]
fn a_busy_repository_is_11() {
    let world = World::new();
    let lease = File::create(world.repository().join("leases/maintenance")).unwrap();
    rustix::fs::flock(&lease, FlockOperation::LockExclusive).unwrap();
    world.fails(&["gc"], 11, "busy");
    drop(lease);
    world.ok(&["gc"]);
}

#[test]
fn a_wrong_password_or_key_is_12() {
    let world = World::bare();
    fs::write(world.path("password"), b"correct horse\n").unwrap();
    fs::write(world.path("wrong"), b"wrong horse\n").unwrap();
    fs::write(world.path("short"), b"x").unwrap();
    world.ok(&["init", "--password-file", "password"]);
    world.ok(&["list", "--password-command", "cat password"]);
    world.fails(&["list", "--password-file", "wrong"], 12, "wrong-key");
    world.fails(&["create", "one", ".", "--password-file", "wrong"], 12, "wrong-key");
    world.fails(&["list"], 12, "wrong-key");
    world.fails(&["list", "--key-file", "short"], 2, "usage");
    world.fails(&["list", "--password-file", "absent"], 1, "files");
    world.fails(&["list", "--password-command", "false"], 1, "password-command");
    let with = |password: &str| {
        let mut command = world.command(&["list"]);
        finish(command.env_remove("COPAL_KEY_FILE").env("COPAL_PASSWORD", password).output().unwrap())
    };
    assert_eq!(with("correct horse").code, 0);
    let run = with("hunter2");
    assert_eq!(run.code, 12);
    assert!(!run.stderr.contains("hunter2"), "no output names a secret");
}

/// The version stands at this offset of every object's envelope.
const VERSION_OFFSET: u64 = 7;

#[test]
fn a_newer_format_is_13_and_hides_no_other_snapshot() {
    let world = World::new();
    plant(&world.path("source"));
    world.create("one", "source");
    let first = world.objects_in("snapshots");
    world.create("two", "source");
    let root = world.objects_in("snapshots").into_iter().find(|path| !first.contains(path)).unwrap();
    set_version(&root, 200);
    let run = world.run(&["list", "--json"]);
    assert_eq!((run.code, run.error()["code"].as_str()), (13, Some("newer-format")), "{run:?}");
    let list: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["name"]), (1, &json!("one")));
    set_version(&root, 3);
    world.ok(&["list"]);
    // One of the two copies alone could be a flipped bit.
    let configs = world.objects().into_keys().filter(|path| path.to_string_lossy().contains("/config"));
    let configs: Vec<PathBuf> = configs.collect();
    assert!(!configs.is_empty());
    configs.iter().for_each(|config| set_version(config, 9));
    for command in [&["list"][..], &["create", "x", "source"], &["verify"], &["verify", "--repair"], &["gc"]] {
        let error = world.fails(command, 13, "newer-format");
        assert!(error["message"].as_str().unwrap().contains('9'), "{error}");
    }
    configs.iter().for_each(|config| set_version(config, 1));
    world.ok(&["verify"]);
}

fn set_version(path: &Path, version: u8) {
    File::options().write(true).open(path).unwrap().write_all_at(&[version], VERSION_OFFSET).unwrap();
}

#[test]
fn a18_a_damaged_pack_is_69() {
    let world = World::new();
    plant(&world.path("source"));
    world.create("one", "source");
    world.ok(&["deploy", "one", "target"]);
    fs::write(world.path("target/small.txt"), b"mine").unwrap();
    let before = look(&world.path("target"));
    for pack in world.objects_in("packs") {
        for offset in [100, 2000, 3000] {
            flip(&pack, offset, 3);
        }
    }
    let run = world.run(&["verify", "--json"]);
    assert_eq!((run.code, run.error()["code"].as_str()), (69, Some("damaged")), "{run:?}");
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report["ok"], json!(false));
    let damaged = report["damaged"].as_array().unwrap();
    for item in damaged {
        assert_eq!(support::fields(item), ["detail", "id", "kind", "paths", "paths_total", "snapshots"]);
    }
    assert!(damaged.iter().any(|item| item["snapshots"] == json!(["one"])), "{report:#}");
    world.fails(&["deploy", "one", "fresh"], 69, "damaged");
    assert!(!world.path("fresh").exists(), "nothing half-made stays");
    world.fails(&["deploy", "one", "target", "--yes", "--force-read", "--mode", "swap"], 69, "damaged");
    assert_same(&before, &look(&world.path("target")));
    world.fails(&["dump", "one", "/", "--tar"], 69, "damaged");
}

#[test]
fn a18_a_failed_deploy_is_79_and_the_target_as_it_was() {
    let world = World::new();
    plant(&world.path("source"));
    world.create("one", "source");
    fs::create_dir(world.path("target")).unwrap();
    fs::write(world.path("target/mine"), b"mine").unwrap();
    let before = look(&world.path("target"));
    world.fails(&["deploy", "absent", "target", "--yes"], 79, "no-such-snapshot");
    world.fails(&["deploy", "one", "target", "--yes", "--path", "not/there"], 79, "no-such-path");
    world.fails(&["deploy", "one", "/dev/null/below", "--yes"], 79, "files");
    world.fails(&["deploy", "one", "target"], 2, "usage");
    assert_same(&before, &look(&world.path("target")));
    assert_eq!(
        fs::read_dir(world.path(""))
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().contains("copal-") })
            .count(),
        0,
        "nothing stays beside the target"
    );
}

#[test]
fn a18_a_failed_create_is_86() {
    let world = World::new();
    plant(&world.path("source"));
    let first = world.create("one", "source");
    let error = world.fails(&["create", "one", "source"], 86, "name-taken");
    assert!(error["message"].as_str().unwrap().contains("one"), "{error}");
    assert_eq!(world.json(&["show", "one"])["digest"], first["digest"], "the first is as it was");
    world.fails(&["create", "two", "absent"], 86, "files");
    world.fails(&["create", "two", "source", "--parent", "absent"], 86, "no-such-snapshot");
    assert_eq!(world.json(&["list"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_is_not_there_is_named() {
    let world = World::new();
    plant(&world.path("source"));
    world.create("one", "source");
    world.create("two", "source");
    for command in [
        &["show", "absent"][..],
        &["ls", "absent"],
        &["dump", "absent", "x"],
        &["diff", "absent", "one"],
        &["diff", "one", "absent"],
        &["delete", "absent", "--yes"],
        &["tag", "absent", "a=b"],
        &["pin", "absent"],
        &["verify", "absent"],
    ] {
        let error = world.fails(command, 1, "no-such-snapshot");
        assert!(error["message"].as_str().unwrap().contains("absent"), "{error}");
    }
    let error = world.fails(&["dump", "one", "folder/absent"], 1, "no-such-path");
    assert!(error["message"].as_str().unwrap().contains("folder/absent"), "{error}");
    world.fails(&["ls", "one", "absent"], 1, "no-such-path");
    world.fails(&["dump", "one", "folder"], 2, "usage");
    world.fails(&["key", "remove", "absent"], 1, "key-slot");
    let (one, two) = (world.json(&["show", "one"]), world.json(&["show", "two"]));
    let (one, two) = (one["id"].as_str().unwrap(), two["id"].as_str().unwrap());
    assert_eq!(one[..6], two[..6], "ids begin with the time");
    world.fails(&["show", &one[..6]], 2, "ambiguous");
    assert_eq!(world.json(&["show", one])["name"], "one");
    assert_eq!(world.json(&["show", "latest"])["name"], "two");
}

/// The program in the hands of somebody without privileges, as far as these tests run with any.
struct Unprivileged {
    program: PathBuf,
}

impl Unprivileged {
    const NOBODY: u32 = 65534;

    /// The binary where everybody may run it.
    fn new(world: &World) -> Self {
        let program = world.path("copal");
        fs::copy(COPAL, &program).unwrap();
        for path in ["copal", ""] {
            fs::set_permissions(world.path(path), fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::set_permissions(world.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
        Self { program }
    }

    fn run(&self, world: &World, arguments: &[&str]) -> support::Run {
        let mut command = world.command_of(&self.program, arguments);
        if rustix::process::geteuid().is_root() {
            command.uid(Self::NOBODY).gid(Self::NOBODY);
        }
        finish(command.output().unwrap())
    }
}

#[test]
fn unreadable_source_files_are_3_and_named() {
    let world = World::bare();
    let nobody = Unprivileged::new(&world);
    assert_eq!(nobody.run(&world, &["init"]).code, 0);
    fs::create_dir(world.path("source")).unwrap();
    fs::write(world.path("source/open"), b"words").unwrap();
    fs::write(world.path("source/secret file"), b"words").unwrap();
    fs::set_permissions(world.path("source/secret file"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(world.path("source/secret folder")).unwrap();
    fs::set_permissions(world.path("source/secret folder"), fs::Permissions::from_mode(0o000)).unwrap();

    let run = nobody.run(&world, &["create", "one", "source", "--json"]);
    assert_eq!(run.code, 3, "{run:#?}");
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&report["phase"], number(&report, "unread_files")), (&json!("partially_failed"), 2));
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("secret file") && warnings.contains("secret folder"), "{warnings}");

    let run = nobody.run(&world, &["create", "two", "source"]);
    assert_eq!(run.code, 3);
    assert!(run.stderr.contains("secret file"), "{run:?}");
    let list = nobody.run(&world, &["list", "--json"]);
    assert_eq!((list.code, String::from_utf8_lossy(&list.stdout).matches("partially_failed").count()), (0, 2));
    // What could be read is there.
    let run = nobody.run(&world, &["dump", "one", "open"]);
    assert_eq!((run.code, run.stdout.as_slice()), (0, b"words".as_slice()));
    fs::set_permissions(world.path("source/secret folder"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a18_permission_is_68() {
    let world = World::new();
    plant(&world.path("source"));
    world.create("one", "source");
    let nobody = Unprivileged::new(&world);
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(world.repository().join("config"), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let run = nobody.run(&world, &["list", "--json"]);
    assert_eq!((run.code, run.error()["code"].as_str()), (68, Some("permission")), "{run:?}");
    let run = nobody.run(&world, &["init", "--repo", "/proc/1/fdinfo/x", "--json"]);
    assert_ne!(run.code, 0, "{run:?}");
}

#[test]
fn a_reader_who_goes_away_is_no_error() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    for number in 0..3000 {
        fs::write(source.join(format!("a file with a rather long name to fill the pipe {number}")), b"").unwrap();
    }
    fs::write(source.join("big"), noise(1, 4 << 20)).unwrap();
    world.create("one", "source");
    for arguments in [
        &["ls", "one", "-R"][..],
        &["ls", "one", "-R", "--json"],
        &["dump", "one", "big"],
        &["dump", "one", "/", "--tar"],
        &["find", "*"],
        &["diff", "one", "/"],
    ] {
        let (arguments, in_time) = match arguments {
            ["diff", ..] => (&["list"][..], true),
            other => (other, false),
        };
        let mut child = world.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        if !in_time {
            stdout.read_exact(&mut [0; 10]).unwrap();
        }
        drop(stdout);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let code = child.wait().unwrap().code();
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
    // A verdict is told even to nobody.
    flip(&world.objects_in("packs")[0], 100, 0);
    let mut child = world.command(&["verify"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(69));
}

#[test]
fn an_output_that_is_full_is_an_error() {
    let world = World::new();
    plant(&world.path("source"));
    world.create("one", "source");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let run = finish(world.command(&["list", "--json"]).stdout(full).output().unwrap());
    assert_eq!((run.code, run.error()["code"].as_str()), (1, Some("disk-full")), "{run:?}");
}

#[test]
fn d15_what_is_done_is_reported_as_done_though_the_output_is_full() {
    let world = World::bare();
    std::fs::create_dir(world.path("s")).unwrap();
    std::fs::write(world.path("s/f"), "old").unwrap();
    std::fs::write(world.path("bundle password"), "a horse of amber").unwrap();
    let done = |words: &[&str]| {
        for json in [&[][..], &["--json"]] {
            let full = File::options().write(true).open("/dev/full").unwrap();
            let run = finish(world.command(&[words, json].concat()).stdout(full).output().unwrap());
            let is_again = !json.is_empty() && run.code != 0;
            assert!(is_again || run.code == 0 && run.stderr.contains("has done its work"), "{words:?}: {run:?}");
        }
    };
    done(&["init"]);
    done(&["create", "one", "s"]);
    std::fs::write(world.path("s/f"), "new").unwrap();
    done(&["deploy", "one", "s", "--yes"]);
    assert_eq!(std::fs::read_to_string(world.path("s/f")).unwrap(), "old");
    std::fs::write(world.path("s/f"), "new").unwrap();
    done(&["restore", "one", "s"]);
    assert_eq!(std::fs::read_to_string(world.path("s/f")).unwrap(), "old");
    done(&["export", "one", "x.copal", "--bundle-password-file", "bundle password"]);
    assert!(world.path("x.copal").is_file());
    done(&["tag", "one", "a=b"]);
    done(&["delete", "one", "--yes"]);
    done(&["gc"]);
    assert_eq!(world.json(&["list"]), serde_json::json!([]));
}

#[test]
fn an_interrupt_is_130_and_what_was_stored_is_found_again() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    for number in 0..24 {
        fs::write(source.join(format!("{number}")), noise(number, 8 << 20)).unwrap();
    }
    let mut interrupted = 0;
    for attempt in 0..6 {
        let name = format!("attempt {attempt}");
        let child = world
            .command(&["create", &name, "source", "--json", "--threads", "1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(60 + 40 * attempt));
        let pid = rustix::process::Pid::from_child(&child);
        // A child that has ended already is still ours to wait for, so its number is not somebody else's.
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let run = finish(child.wait_with_output().unwrap());
        if run.code == 130 {
            interrupted += 1;
            // Before the program listens for signals, the default action ends it without a word: finish()
            // says -1 then.
            assert_eq!(run.error()["code"], "interrupted", "{run:?}");
        }
    }
    assert!(interrupted > 0, "no run was interrupted in its middle");
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
    let report = world.json(&["create", "whole", "source"]);
    assert!(number(&report, "bytes_new") < number(&report, "bytes"), "what was stored is found again: {report}");
    world.ok(&["deploy", "whole", "target"]);
    assert_same(&look(&source), &look(&world.path("target")));
}
