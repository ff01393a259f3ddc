//! Goal: what could not be printed changes nothing of what was done, nor of how it is reported: row D15.
//! Method: every command that changes something, with outputs that are full, closed or read by nobody; each
//! in a world of its own, beside the same command that is heard. A command that is in no table fails the
//! test.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::process::{Command, Stdio};

use support::{Run, World, finish, flip};

/// A command that changes something: its words, what has to be there before, and what shows that it was done.
struct Case {
    command: &'static str,
    words: &'static [&'static str],
    before: fn(&World),
    /// The same before and after where nothing was done.
    done: fn(&World) -> String,
}

/// What becomes of the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlet {
    /// Both are heard.
    Heard,
    /// Standard output is full.
    Full,
    /// Standard output has no reader.
    Unread,
    /// Standard output is closed.
    Closed,
    /// Standard error is full.
    ErrorsFull,
    /// Standard error has no reader.
    ErrorsUnread,
    /// Both are full.
    BothFull,
}

const OUTLETS: [Outlet; 6] =
    [Outlet::Full, Outlet::Unread, Outlet::Closed, Outlet::ErrorsFull, Outlet::ErrorsUnread, Outlet::BothFull];

/// Commands that only look, or run for ever, or belong to another test of this file.
const OTHERS: [&str; 16] = [
    "list",
    "show",
    "ls",
    "dump",
    "diff",
    "find",
    "status",
    "stats",
    "options",
    "completions",
    "man",
    "serve",
    "watchdog",
    "help",
    "token",
    "demo",
];

fn one(world: &World) {
    world.ok(&["init"]);
    fs::create_dir(world.path("s")).unwrap();
    fs::write(world.path("s/f"), "old").unwrap();
    fs::write(world.path("bundle"), "a horse of amber").unwrap();
    fs::write(world.path("other key"), support::noise(9, 32)).unwrap();
    let config = "[app.a]\n[[app.a.source]]\nkind = \"tree\"\nlabel = \"s\"\npath = \"s\"\n";
    fs::write(world.path("copal.toml"), config).unwrap();
    world.create("one", "s");
    world.ok(&["create", "two", "--app", "a"]);
}

fn changed(world: &World) {
    one(world);
    fs::write(world.path("s/f"), "new").unwrap();
}

fn damaged(world: &World) {
    one(world);
    flip(&world.objects_in("packs")[0], 100, 0);
}

fn fragment_lost(world: &World) {
    one(world);
    world.objects_in("index").iter().for_each(|fragment| fs::remove_file(fragment).unwrap());
}

fn with_another(world: &World) {
    one(world);
    let (repository, key) = (world.text("other"), world.text("key"));
    world.ok(&["init", "--repo", &repository, "--key-file", &key]);
}

fn exported(world: &World) {
    one(world);
    world.ok(&["export", "one", "x.copal", "--bundle-password-file", "bundle"]);
    world.ok(&["delete", "one", "--yes"]);
}

fn listed(world: &World) -> String {
    let run = world.run(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap_or_default();
    let names = listed.as_array().into_iter().flatten().map(|one| one["name"].to_string());
    names.collect::<Vec<_>>().join(" ")
}

fn file(world: &World) -> String {
    fs::read_to_string(world.path("s/f")).unwrap()
}

fn keys(world: &World) -> String {
    world.objects_in("keys").len().to_string()
}

fn key_labels(world: &World) -> String {
    world.ok(&["key", "list"]).lines().filter(|line| line.contains("robot")).count().to_string()
}

const CASES: &[Case] = &[
    Case {
        command: "init",
        words: &["init"],
        before: |_| {},
        done: |world| world.path("repository").exists().to_string(),
    },
    Case { command: "create", words: &["create", "three", "s"], before: one, done: listed },
    Case { command: "create", words: &["create", "three", "--app", "a"], before: one, done: listed },
    Case { command: "create", words: &["create", "three", "--app", "a", "--detach"], before: one, done: settled },
    Case { command: "deploy", words: &["deploy", "one", "s", "--yes"], before: changed, done: file },
    Case { command: "deploy", words: &["deploy", "a/two", "--app", "a", "--yes"], before: changed, done: file },
    Case { command: "restore", words: &["restore", "one", "s", "--yes"], before: changed, done: file },
    Case {
        command: "verify",
        words: &["verify", "--repair"],
        before: fragment_lost,
        done: |world| world.objects_in("index").len().to_string(),
    },
    Case { command: "verify", words: &["verify"], before: damaged, done: |_| String::new() },
    Case { command: "verify", words: &["verify"], before: one, done: |_| String::new() },
    Case { command: "delete", words: &["delete", "one", "--yes"], before: one, done: listed },
    Case {
        command: "forget",
        words: &["forget", "--keep-last", "1", "--group-by", "none", "--yes"],
        before: |world| {
            one(world);
            world.create("later", "s");
        },
        done: listed,
    },
    Case {
        command: "gc",
        words: &["gc"],
        before: |world| {
            one(world);
            world.ok(&["delete", "one", "--yes"]);
            world.ok(&["delete", "a/two", "--yes"]);
        },
        done: |world| world.objects_in("packs").len().to_string(),
    },
    Case {
        command: "tag",
        words: &["tag", "one", "a=b"],
        before: one,
        done: |world| world.json(&["show", "one"])["tags"].to_string(),
    },
    Case {
        command: "unpin",
        words: &["unpin", "one"],
        before: |world| {
            one(world);
            world.ok(&["pin", "one"]);
        },
        done: |world| world.json(&["show", "one"])["pinned"].to_string(),
    },
    Case {
        command: "pin",
        words: &["pin", "one"],
        before: one,
        done: |world| world.json(&["show", "one"])["pinned"].to_string(),
    },
    Case {
        command: "export",
        words: &["export", "one", "x.copal", "--bundle-password-file", "bundle"],
        before: one,
        done: |world| world.path("x.copal").exists().to_string(),
    },
    Case {
        command: "export",
        words: &["export", "a/two", "x.tgz", "--format", "hub-tar", "--without-key"],
        before: one,
        done: |world| world.path("x.tgz").exists().to_string(),
    },
    Case {
        command: "import",
        words: &["import", "x.copal", "again", "--bundle-password-file", "bundle"],
        before: exported,
        done: listed,
    },
    Case {
        command: "copy",
        words: &["copy", "one", "--to", "other", "--to-key-file", "key"],
        before: with_another,
        done: |world| world.json(&["list", "--repo", "other"]).as_array().unwrap().len().to_string(),
    },
    Case {
        command: "key",
        words: &["key", "add", "--label", "robot", "--new-key-file", "other key"],
        before: one,
        done: key_labels,
    },
    Case {
        command: "key",
        words: &["key", "remove", "robot"],
        before: |world| {
            one(world);
            world.ok(&["key", "add", "--label", "robot", "--new-key-file", "other key"]);
        },
        done: key_labels,
    },
    Case { command: "key", words: &["key", "rotate", "--reseal"], before: one, done: keys },
    Case {
        command: "key",
        words: &["key", "reseal"],
        before: |world| {
            one(world);
            world.ok(&["key", "rotate"]);
        },
        done: |world| world.objects_in("packs").iter().map(|path| path.display().to_string()).collect(),
    },
    Case {
        command: "key",
        words: &["key", "change", "--new-key-file", "other key"],
        before: one,
        done: |world| {
            let other = world.text("other key");
            world.run(&["list", "--key-file", &other]).code.to_string()
        },
    },
    Case { command: "unlock", words: &["unlock", "--for", "1m"], before: one, done: |_| String::new() },
    Case { command: "lock", words: &["lock"], before: one, done: |_| String::new() },
];

/// A detached create goes on behind the command.
fn settled(world: &World) -> String {
    for _ in 0..600 {
        if listed(world).contains("three") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    listed(world)
}

fn run(mut command: Command, outlet: Outlet) -> Run {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let unread = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    match outlet {
        Outlet::Heard => {}
        Outlet::Full => drop(command.stdout(full())),
        Outlet::Unread => drop(command.stdout(unread())),
        Outlet::Closed => {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(command.get_program()).args(command.get_args());
            shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            shell.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
            command = shell;
        }
        Outlet::ErrorsFull => drop(command.stderr(full())),
        Outlet::ErrorsUnread => drop(command.stderr(unread())),
        Outlet::BothFull => drop(command.stdout(full()).stderr(full())),
    }
    finish(command.output().unwrap())
}

#[test]
fn d15_every_command_does_and_reports_the_same_whoever_hears_it() {
    for case in CASES {
        let attempt = |outlet: Outlet, json: bool| {
            let world = World::bare();
            (case.before)(&world);
            let words = [case.words, if json { &["--json"] } else { &[][..] }].concat();
            let run = run(world.command(&words), outlet);
            ((case.done)(&world), run)
        };
        let (wanted, heard) = attempt(Outlet::Heard, false);
        for (number, outlet) in OUTLETS.into_iter().enumerate() {
            let (found, run) = attempt(outlet, number % 2 == 1);
            assert_eq!(run.code, heard.code, "{:?} {outlet:?}: {run:#?}", case.words);
            let same = |text: &str| without_moments(text);
            assert_eq!(same(&found), same(&wanted), "{:?} {outlet:?}", case.words);
        }
    }
}

/// Names of packs differ from world to world, and so do ids and times: what counts is how many there are.
fn without_moments(text: &str) -> String {
    if text.contains("/packs/") { text.matches("/packs/").count().to_string() } else { text.to_owned() }
}

#[test]
fn d15_every_command_is_in_one_of_the_tables() {
    let help = World::bare().ok(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 20, "{help}");
    for name in names {
        let is_known = OTHERS.contains(&name) || CASES.iter().any(|case| case.command == name);
        assert!(is_known, "{name} is in no table: does it do the same when nobody hears it?");
    }
}

#[test]
fn d15_a_token_that_nobody_was_told_is_none() {
    let world = World::new();
    let state = world.text("serve");
    for (outlet, json) in [(Outlet::Full, false), (Outlet::Unread, true), (Outlet::BothFull, false)] {
        let mut words = vec!["token", "add", "alice", "--role", "view", "--state", &state];
        words.extend(json.then_some("--json"));
        let run = run(world.command(&words), outlet);
        assert_eq!(run.code, 1, "{outlet:?}: {run:#?}");
        assert_eq!(world.json(&["token", "list", "--state", &state]), serde_json::json!([]), "{outlet:?}");
    }
    world.ok(&["token", "add", "alice", "--role", "view", "--state", &state]);
    let run = run(world.command(&["token", "remove", "alice", "--state", &state]), Outlet::Full);
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(world.json(&["token", "list", "--state", &state]), serde_json::json!([]));
}

#[test]
fn d15_a_bundle_that_nobody_read_is_not_exported() {
    let world = World::bare();
    one(&world);
    fs::write(world.path("s/large"), support::noise(3, 3 << 20)).unwrap();
    world.create("large", "s");
    let native = ["export", "large", "-", "--bundle-password-file", "bundle"];
    let tar = ["export", "a/two", "-", "--format", "hub-tar", "--without-key"];
    for outlet in [Outlet::Full, Outlet::Unread] {
        for words in [&native[..], &tar[..]] {
            let run = run(world.command(words), outlet);
            assert_ne!(run.code, 0, "{words:?} {outlet:?}: {run:#?}");
        }
    }
}

#[test]
fn d15_a_daemon_serves_although_nobody_hears_where() {
    let world = World::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = world.command(&["serve", "--no-auth", "--listen", "127.0.0.1:0"]);
    let log = File::create(world.path("log")).unwrap();
    let mut child = command.stdout(full).stderr(log).spawn().unwrap();
    let said = || fs::read_to_string(world.path("log")).unwrap();
    for _ in 0..600 {
        if said().contains("serving at ") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(said().contains("serving at http://127.0.0.1:"), "{}", said());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", said());
}
