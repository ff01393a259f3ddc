//! Goal: what the help, the manual and the completions say is true. Method: every example of every `--help`
//! is run, in a world made for it; shells and `man` read what is made for them.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use copal_sim::mounts::{Filesystem, Mounted};
use support::terminal::{at_terminal, in_shell};
use support::{World, noise, plant};

/// Commands of the daemon, of applications and of the agent that keeps a key, whose own tests run what they
/// show.
const ELSEWHERE: &[&str] = &["serve", "token", "status", "unlock", "lock", "backup", "integrity", "apply", "get"];
/// The same of examples: an application, another machine.
const NEEDS_MORE: &[&str] = &["--app", "hub/", "hub.tar.gz", "ssh "];

const BUNDLE_PASSWORD: &str = "export COPAL_BUNDLE_PASSWORD='a horse of amber' COPAL_TO_KEY_FILE=key;";

/// The commands that a help page lists, without `help`.
fn listed(help: &str) -> Vec<String> {
    let after = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names =
        after.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

/// Every command with its help, subcommands too.
fn pages(world: &World) -> Vec<(String, String)> {
    let mut pages = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(command) = pending.pop() {
        let mut words: Vec<&str> = command.split_whitespace().collect();
        words.push("--help");
        let help = world.ok(&words);
        pending.extend(listed(&help).into_iter().map(|name| format!("{command} {name}").trim().to_owned()));
        pages.push((command, help));
    }
    pages
}

/// The lines of shell beneath "Examples:", each with its remark.
fn examples(help: &str) -> Vec<(String, String)> {
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1).take_while(|line| !line.is_empty());
    let example = |line: &str| match line.trim().split_once("  ") {
        Some((line, remark)) => (line.to_owned(), remark.trim().to_owned()),
        None => (line.trim().to_owned(), String::new()),
    };
    lines.map(example).collect()
}

/// A small world in which every example makes sense.
struct Stage {
    world: World,
    id: String,
    slot: String,
}

impl Stage {
    fn beneath(folder: &Path) -> Self {
        let world = World::beneath(folder);
        world.ok(&["init"]);
        for folder in ["srv/data/photos/2024", "srv/data/docs/old", "srv/data/etc", "home/anna/cache", "tmp"] {
            fs::create_dir_all(world.path(folder)).unwrap();
        }
        for folder in ["srv/bucket", "srv/hub", "latest", "usr/share/bash-completion/completions", "home/.zfunc"] {
            fs::create_dir_all(world.path(folder)).unwrap();
        }
        for folder in ["media/stick", "media/disk"] {
            fs::create_dir_all(world.path(folder)).unwrap();
        }
        for file in ["web1.key", "etc/copal/disk.key"] {
            fs::create_dir_all(world.path("etc/copal")).unwrap();
            fs::write(world.path(file), noise(file.len() as u64, 32)).unwrap();
        }
        for folder in ["usr/share/man", "home/.config/fish/completions", "etc/copal"] {
            fs::create_dir_all(world.path(folder)).unwrap();
        }
        for (number, file) in ["photos/2024/a.jpg", "docs/old/report.odt", "etc/hosts", "hub.db"].iter().enumerate() {
            fs::write(world.path("srv/data").join(file), noise(number as u64, 70_000)).unwrap();
        }
        rusqlite::Connection::open(world.path("srv/hub.db")).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        fs::write(world.path("srv/bucket/object"), noise(21, 9_000)).unwrap();
        fs::write(world.path("list"), b"etc/hosts\nphotos\n").unwrap();
        fs::write(world.path("all.sql"), b"CREATE TABLE t (x);\n").unwrap();
        fs::write(world.path("home/anna/x.tmp"), b"leave it out").unwrap();
        fs::write(world.path("etc/copal/password"), b"correct horse\n").unwrap();
        fs::write(world.path("etc/copal/password.new"), b"battery staple\n").unwrap();
        fs::write(world.path("etc/copal/key"), noise(22, 32)).unwrap();
        world.ok(&["create", "monday", "srv/data", "--tag", "ticket=4711"]);
        fs::write(world.path("srv/data/etc/hosts"), b"other words").unwrap();
        world.ok(&["create", "release-7", "srv/data"]);
        world.ok(&["create", "tuesday", "srv/data"]);
        let id = world.json(&["show", "monday"])["id"].as_str().unwrap().to_owned();
        world.ok(&["key", "add", "--label", "anna", "--new-key-file", "etc/copal/key"]);
        let keys = world.json(&["key", "list"]);
        let slot = keys.as_array().unwrap().iter().find(|slot| slot["label"] == "anna").unwrap();
        let slot = slot["id"].as_str().unwrap()[..6].to_owned();
        Self { world, id, slot }
    }

    /// The example, in this world.
    fn line(&self, example: &str) -> String {
        let mut line = example.replace("01934f1e-2a4b", &self.id).replace("5c1d", &self.slot);
        // Two steps: the world's own folder begins like one of these.
        for folder in ["srv/", "etc/", "tmp/", "media/", "usr/share/"] {
            for before in [" ", "=", "sqlite:"] {
                line = line.replace(&format!("{before}/{folder}"), &format!("{before}WORLD/{folder}"));
            }
        }
        line.replace(" /home ", " WORLD/home ").replace("WORLD/", &self.world.text(""))
    }

    /// What an example needs that others would not have: a free name, a place without a repository.
    fn prepare(&self, example: &str) {
        if example.contains("/srv/backup") && !example.contains("copal init") {
            let mut copy = Command::new("cp");
            copy.arg("-a").args([self.world.repository(), self.world.path("srv/backup")]);
            assert!(copy.status().unwrap().success());
        }
        if example.contains("--role") {
            self.world.ok(&["key", "rotate", "--reseal"]);
        }
        if example.contains("monday.copal") {
            let exported = in_shell(&self.world, &format!("{BUNDLE_PASSWORD} copal export monday monday.copal"));
            assert_eq!(exported.code, 0, "{exported:?}");
        }
        if example.contains("copal import") {
            self.world.ok(&["delete", "monday", "--yes"]);
        }
        if example.contains("--to /media/disk/backup") {
            let place = self.world.text("media/disk/backup");
            self.world.ok(&["init", "--repo", &place]);
            self.world.ok(&["key", "add", "--repo", &place, "--new-key-file", "etc/copal/disk.key"]);
        }
        if example.contains(" create ") {
            for repository in [self.world.text("repository"), self.world.text("srv/backup")] {
                if Path::new(&repository).exists() {
                    self.world.ok(&["delete", "monday", "release-7", "--yes", "--repo", &repository]);
                }
            }
        }
        if example.contains("--remove") && example.contains("pin") || example.contains("unpin") {
            self.world.ok(&["pin", "release-7"]);
        }
        if example.contains(" pin release-7") && !example.contains("--remove") {
            assert_eq!(self.world.json(&["show", "release-7"])["pinned"], false);
        }
        if example.contains("key add --label anna") {
            self.world.ok(&["key", "remove", "anna"]);
        }
    }
}

#[test]
fn every_example_of_every_help_works() {
    let pages = pages(&World::bare());
    assert!(pages.len() > 20, "{}", pages.len());
    let mounted = Mounted::new(Filesystem::Tmpfs, 1024).unwrap();
    let mut run = 0;
    for (command, help) in pages {
        if ELSEWHERE.contains(&command.split_whitespace().next().unwrap_or_default()) {
            continue;
        }
        let examples = examples(&help);
        assert!(!examples.is_empty(), "copal {command} --help has no example");
        for (example, remark) in examples {
            if NEEDS_MORE.iter().any(|part| example.contains(part)) {
                continue;
            }
            assert!(example.starts_with("copal"), "{example}");
            let stage = Stage::beneath(mounted.path());
            stage.prepare(&example);
            let mut line = stage.line(&example);
            if command == "demo" || example == "copal demo" {
                // As much as it takes, and not more.
                line = format!("TMPDIR={} {} --size 3MiB", stage.world.text("tmp"), line.replace(" --size 200MiB", ""));
            }
            let needs_new_key =
                ["copal init", "copal key add", "copal key change"].iter().any(|begin| example.starts_with(begin))
                    && !example.contains("-file");
            let asks = remark.contains("asks") || needs_new_key;
            let outcome = if asks {
                let without_key: &[(&str, &str)] =
                    if example.contains("init") { &[("COPAL_KEY_FILE", "")] } else { &[] };
                let answers: &[(&str, &str)] = if example.contains("deploy") {
                    &[("[y/N]", "y")]
                } else {
                    &[("password: ", "correct horse"), ("again: ", "correct horse")]
                };
                at_terminal(&stage.world, &line, without_key, answers)
            } else if example.contains("--key-file") || example.contains("copal init") {
                in_shell(&stage.world, &format!("unset COPAL_KEY_FILE; {line}"))
            } else {
                in_shell(&stage.world, &format!("{BUNDLE_PASSWORD} {line}"))
            };
            assert_eq!(outcome.code, 0, "copal {command} --help: {example}: {line}: {outcome:?}");
            run += 1;
        }
    }
    assert!(run > 45, "{run} examples");
}

#[test]
fn shells_and_man_read_what_is_made_for_them() {
    let world = World::bare();
    for (shell, check) in [("bash", "bash -n"), ("zsh", "zsh -n"), ("fish", "fish --no-execute")] {
        let script = world.ok(&["completions", shell]);
        assert!(script.contains("COPAL_COMPLETE"), "{shell}: {script}");
        fs::write(world.path("script"), script).unwrap();
        let there = in_shell(&world, &format!("command -v {shell}")).code == 0;
        if there {
            let read = in_shell(&world, &format!("{check} script"));
            assert_eq!(read.code, 0, "{shell}: {read:?}");
        } else {
            assert_ne!(shell, "bash", "bash is everywhere");
        }
    }

    world.ok(&["man", "--folder", "manual"]);
    let written: Vec<_> = support::files_below(&world.path("manual"));
    for page in ["copal.1", "copal-create.1", "copal-deploy.1", "copal-key-add.1"] {
        assert!(written.iter().any(|path| path.ends_with(page)), "{page}: {written:?}");
    }
    for page in written {
        let read = in_shell(&world, &format!("LC_ALL=C.UTF-8 man --warnings -l '{}' 2>&1 >/dev/null", page.display()));
        assert_eq!((read.code, read.stdout.as_slice()), (0, &b""[..]), "{}: {read:?}", page.display());
    }
}

/// The main job on a sample application, wherever it runs, leaving nothing outside its folder.
#[test]
fn the_demonstration_shows_the_main_job() {
    let world = World::bare();
    let run = world.json(&["demo", "demonstration", "--size", "3MiB", "--seed", "7"]);
    assert_eq!(run["ok"], true);
    let steps: Vec<&str> = run["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    for step in ["create", "list", "diff", "deploy", "verify", "gc"] {
        assert!(steps.contains(&step), "{step}: {steps:?}");
    }
    assert!(
        run["steps"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|step| step["step"] == "deploy")
            .all(|step| step["equal"] == true)
    );
    assert!(!world.path("home").exists() && !world.path("cache").exists() && !world.path("state").exists());
    // What it leaves can be looked at as it says.
    let list = world.json(&["list", "--repo", "demonstration/repository", "--key-file", "demonstration/key"]);
    assert!(list.as_array().unwrap().len() >= 3, "{list}");
    world.fails(&["demo", "demonstration"], 2, "usage");
    let text = world.ok(&["demo", "again", "--size", "3MiB"]);
    assert!(text.contains("every byte is as it was taken") && text.contains("look around"), "{text}");
}

#[test]
fn a_terminal_gets_bars_and_colours_and_a_pipe_gets_neither() {
    let world = World::new();
    plant(&world.path("source"));
    for number in 0..6 {
        fs::write(world.path(&format!("source/big {number}")), noise(number, 8 << 20)).unwrap();
    }
    let shown = |line: &str, variables: &[(&str, &str)]| {
        let run = at_terminal(&world, line, variables, &[]);
        assert_eq!(run.code, 0, "{run:?}");
        String::from_utf8_lossy(&run.stdout).into_owned()
    };
    let create = shown("copal create one source", &[]);
    assert!(create.contains("\r") && create.contains("iB/s"), "a bar: {create:?}");
    let quiet = shown("copal create two source --progress none", &[]);
    assert!(!quiet.contains("storing") && quiet.contains("took the snapshot two"), "{quiet:?}");
    let list = shown("copal list", &[]);
    assert!(list.contains("\x1b[1mNAME"), "headings stand out: {list:?}");
    assert!(!shown("copal list", &[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(!shown("copal list | cat", &[]).contains('\x1b'));
    fs::remove_file(world.path("source/empty")).unwrap();
    fs::write(world.path("source/new \x1b[2J"), b"hostile").unwrap();
    world.create("three", "source");
    let diff = shown("copal diff one three", &[]);
    assert!(diff.contains("\x1b[31m-") && diff.contains("\x1b[32m+"), "{diff:?}");
    assert!(!diff.contains("\x1b[2J"), "no name commands the terminal: {diff:?}");
    // Somebody says no; nobody is there to ask.
    world.ok(&["deploy", "one", "target"]);
    let run = at_terminal(&world, "copal deploy three target", &[], &[("Make it equal to three? [y/N]", "n")]);
    assert_eq!(run.code, 79, "{run:?}");
    assert!(world.path("target/empty").exists());
    let run = at_terminal(&world, "copal deploy three target", &[], &[("Make it equal to three? [y/N]", "yes")]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!world.path("target/empty").exists());
}

#[test]
fn a_password_is_asked_for_and_never_shown() {
    let world = World::bare();
    let none = [("COPAL_KEY_FILE", "")];
    let twice = [("new password: ", "se cret"), ("the same again: ", "se cret")];
    let run = at_terminal(&world, "copal init", &none, &twice);
    assert_eq!(run.code, 0, "{run:?}");
    let run = at_terminal(&world, "copal list", &none, &[("password: ", "se cret")]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!String::from_utf8_lossy(&run.stdout).contains("cret"), "{run:?}");
    let run = at_terminal(&world, "copal list", &none, &[("password: ", "wrong")]);
    assert_eq!(run.code, 12, "{run:?}");
    let differing = [("new password: ", "one"), ("the same again: ", "other")];
    let run = at_terminal(
        &world,
        "copal key add --label x",
        &[("COPAL_KEY_FILE", ""), ("COPAL_PASSWORD", "se cret")],
        &differing,
    );
    assert_eq!(run.code, 2, "{run:?}");
}
