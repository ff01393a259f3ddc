//! Goal: a shell completes names of snapshots and applications, and never waits for anybody while it does.
//! Method: a real bash: its completion function is called as readline calls it, and once by a TAB that is
//! typed at a terminal.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use support::terminal::{at_terminal, in_shell};
use support::{Run, World, noise, plant};

/// What bash offers for the last word of a line.
fn offered(world: &World, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source <(copal completions bash); COMP_WORDS=({}); COMP_CWORD={}; COMP_TYPE=9; \
         _clap_complete_copal copal '{last}' '{before}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        quoted.join(" "),
        words.len() - 1
    );
    // The script calls the program by its name.
    let run =
        in_shell(world, &format!("mkdir -p bin; ln -sf '{}' bin/copal; PATH=$PWD/bin:$PATH; {script}", support::COPAL));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{line}: {run:?}");
    let printed = String::from_utf8(run.stdout).unwrap();
    printed.lines().filter(|line| !line.is_empty()).map(|line| line.trim().to_owned()).collect()
}

fn with_snapshots() -> World {
    let world = World::new();
    plant(&world.path("source"));
    world.create("monday", "source");
    world.create("moonday", "source");
    world.create("tuesday", "source");
    world
}

#[test]
fn u18_names_of_snapshots_and_applications_are_offered() {
    let world = with_snapshots();
    for command in ["show", "ls", "deploy", "restore", "diff", "pin", "unpin", "tag", "dump", "delete", "export"] {
        let names = offered(&world, &format!("copal {command} mo"));
        assert_eq!(names, ["monday", "moonday"], "{command}");
    }
    assert_eq!(offered(&world, "copal diff monday tue"), ["tuesday"]);
    assert_eq!(offered(&world, "copal delete monday tue"), ["tuesday"]);
    assert!(offered(&world, "copal show ").contains(&"latest".to_owned()));
    assert_eq!(offered(&world, "copal dep"), ["deploy"]);
    assert!(offered(&world, "copal deploy --mo").contains(&"--mode".to_owned()));
    let toml = "[app.shop]\n[[app.shop.source]]\nkind = \"tree\"\nlabel = \"x\"\npath = \"source\"\n";
    fs::write(world.path("copal.toml"), toml).unwrap();
    assert_eq!(offered(&world, "copal create monday --app s"), ["shop"]);
    assert_eq!(offered(&world, "copal status s"), ["shop"]);
    world.ok(&["create", "wednesday", "--app", "shop"]);
    assert_eq!(offered(&world, "copal show shop/w"), ["shop/wednesday"]);
    // The repository and the key that the line names, before the command or after it.
    let other = World::new();
    let (place, key) = (world.text("repository"), world.text("key"));
    assert_eq!(offered(&other, &format!("copal --repo {place} --key-file {key} show tue")), ["tuesday"]);
    assert_eq!(offered(&other, &format!("copal show --repo {place} tue")), ["tuesday"]);
}

#[test]
fn u18_a_tab_completes_at_a_terminal() {
    let world = with_snapshots();
    let line = format!(
        "mkdir -p bin; ln -sf '{}' bin/copal; export PATH=$PWD/bin:$PATH; copal completions bash > rc; \
         echo \"PS1='ready> '\" >> rc; bash --noprofile --rcfile rc -i",
        support::COPAL
    );
    let run = at_terminal(&world, &line, &[], &[("ready> ", "copal show tue\t"), ("ready> ", "exit")]);
    let shown = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(shown.contains("copal show tuesday"), "{shown}");
    assert!(shown.contains("completed"), "the completed line is run: {shown}");
}

/// Bash asks with somebody at the terminal; nothing is asked back, nothing is run that may ask, and no file
/// is waited for.
#[test]
fn u18_nothing_is_asked_and_nothing_is_waited_for() {
    let world = with_snapshots();
    let asked = |variables: &[(&str, &str)], words: &[&str]| {
        let mut command = world.command(&[&["--", "copal"][..], words].concat());
        command.env_remove("COPAL_KEY_FILE").env("COPAL_COMPLETE", "bash").envs(variables.iter().copied());
        command.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).env("_CLAP_IFS", "\n");
        // A terminal would be asked at; here whatever reads hangs, and is noticed by `timeout`.
        let mut limited = Command::new("timeout");
        limited.arg("30").arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            value.map(|value| limited.env(name, value));
        }
        let mut held = Command::new("sleep").arg("60").stdout(Stdio::piped()).spawn().unwrap();
        limited.stdin(held.stdout.take().unwrap()).current_dir(world.path(""));
        let run: Run = support::finish(limited.output().unwrap());
        held.kill().unwrap();
        held.wait().unwrap();
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{variables:?} {words:?}: {run:?}");
        String::from_utf8(run.stdout).unwrap()
    };
    let key = world.text("key");
    assert_eq!(asked(&[("COPAL_KEY_FILE", key.as_str())], &["show", "tue"]), "tuesday");
    // No password at all, a wrong one, a command that would ask, a pipe that nobody fills, no repository.
    assert_eq!(asked(&[], &["show", "tue"]), "");
    assert_eq!(asked(&[("COPAL_PASSWORD", "wrong")], &["show", "tue"]), "");
    fs::write(world.path("asks"), "#!/bin/sh\ntouch asked; read answer\n").unwrap();
    fs::set_permissions(world.path("asks"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(asked(&[("COPAL_PASSWORD_COMMAND", "./asks")], &["show", "tue"]), "");
    assert_eq!(asked(&[], &["--password-command", "./asks", "show", "tue"]), "");
    assert!(!world.path("asked").exists(), "a password command may ask: it is not run");
    assert!(Command::new("mkfifo").arg(world.path("pipe")).status().unwrap().success());
    assert_eq!(asked(&[("COPAL_PASSWORD_FILE", "pipe")], &["show", "tue"]), "");
    assert_eq!(asked(&[], &["--key-file", "pipe", "show", "tue"]), "");
    assert_eq!(asked(&[("COPAL_REPO", "nowhere"), ("COPAL_KEY_FILE", key.as_str())], &["show", "tue"]), "");
    fs::write(world.path("copal.toml"), "no configuration").unwrap();
    assert_eq!(asked(&[], &["status", "s"]), "");
}

/// A shell puts what it is given on the command line as it is: a name that it would read as more than a word
/// is not offered, whoever chose it.
#[test]
fn u18_names_that_a_shell_would_read_are_not_offered() {
    let world = with_snapshots();
    fs::write(world.path("one"), noise(1, 10)).unwrap();
    for name in ["mo$(touch evil)", "mo;touch evil", "mo`touch evil`", "mo day", "mo'", "mo*"] {
        world.run(&["create", name, "one"]);
    }
    assert!(world.json(&["list"]).as_array().unwrap().len() > 3, "some of them are names");
    assert_eq!(offered(&world, "copal show mo"), ["monday", "moonday"]);
}
