//! Goal: what the pages say of the program is so. Method: every page that git has is read, and commands are
//! compared with the built program's own `--help`.
#![allow(clippy::unwrap_used)]

#[path = "../../xtask/tests/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use support::{pages, prose, root, spans};

/// The program under test.
const COPAL: &str = env!("CARGO_BIN_EXE_copal");

/// What the program says of itself: each command with the flags of its `--help`.
struct Program {
    commands: BTreeSet<String>,
    help: BTreeMap<Vec<String>, String>,
}

impl Program {
    fn new() -> Self {
        let mut program = Self { commands: BTreeSet::new(), help: BTreeMap::new() };
        program.commands = subcommands(program.help_of(&[]));
        assert!(program.commands.len() >= 20, "{:?}", program.commands);
        program
    }

    fn help_of(&mut self, path: &[String]) -> &str {
        self.help.entry(path.to_vec()).or_insert_with(|| {
            let output = Command::new(COPAL).args(path).arg("--help").output().unwrap();
            assert!(output.status.success(), "copal {path:?} --help");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// `Err` says what is not so.
    fn check(&mut self, words: &[&str]) -> Result<(), String> {
        if words.first() == Some(&"help") {
            let shown = Command::new(COPAL).args(words).output().unwrap();
            return if shown.status.success() { Ok(()) } else { Err("there is no such help".into()) };
        }
        let flags: Vec<&str> = words.iter().copied().filter(|word| word.starts_with('-') && word.len() > 1).collect();
        let command = words.iter().find(|word| self.commands.contains(**word));
        let mut path: Vec<String> = command.iter().map(|word| (**word).to_owned()).collect();
        if path.is_empty() && flags.is_empty() {
            return Err("it names no command".into());
        }
        let below = subcommands(self.help_of(&path));
        if let (Some(command), false) = (command, below.is_empty()) {
            let at = words.iter().position(|word| word == command).unwrap();
            path.extend(words[at + 1..].iter().find(|word| below.contains(**word)).map(|word| (*word).to_owned()));
        }
        // Its own options, and those that every command has.
        let help = format!("{} {}", self.help_of(&path).to_owned(), self.help_of(&[]));
        let known: BTreeSet<&str> =
            help.split([' ', '\n', ',', '[', '=']).filter(|word| word.starts_with('-')).collect();
        for flag in flags {
            let flag = flag.split('=').next().unwrap();
            if !known.contains(flag) {
                return Err(format!("copal {} has no flag {flag}", path.join(" ")));
            }
        }
        Ok(())
    }
}

/// The names under `Commands:`.
fn subcommands(help: &str) -> BTreeSet<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

/// Commands of a page: lines of shell blocks, and spans in backticks, that begin with `copal `.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in text.split("```").skip(1).step_by(2) {
        let mut lines = block.lines();
        if !matches!(lines.next(), Some("sh" | "console" | "bash")) {
            continue;
        }
        for line in lines {
            let line = line.trim_start_matches("$ ").trim();
            for part in line.split("&&").flat_map(|part| part.split('|')) {
                let part = part.split(" #").next().unwrap().trim();
                // Variables that are set for one command.
                let words: Vec<&str> = part.split_whitespace().skip_while(|word| word.contains('=')).collect();
                if words.first() == Some(&"copal") {
                    found.push(words.join(" "));
                }
            }
        }
    }
    // Blocks by indentation: a comment stands behind two spaces.
    for line in prose(text).lines().filter_map(|line| line.strip_prefix("    copal ")) {
        let shown = line.split("  ").next().unwrap_or_default();
        found.extend(
            shown
                .split(';')
                .map(|part| format!("copal {}", part.trim().trim_start_matches("copal ").replace('…', "X"))),
        );
    }
    // Contexts of key derivation begin with a date, what the program says of itself with a version.
    let is_command =
        |span: &String| span.starts_with("copal ") && !span.starts_with("copal v") && !span.starts_with("copal 2");
    found.extend(spans(text).into_iter().filter(is_command));
    found
}

#[test]
fn commands_that_pages_show_exist() {
    let mut program = Program::new();
    let mut checked = 0;
    for (name, text) in pages() {
        for command in commands(&text) {
            checked += 1;
            let words: Vec<&str> = command.split_whitespace().skip(1).collect();
            if let Err(what) = program.check(&words) {
                panic!("{name} shows `{command}`: {what}");
            }
        }
    }
    assert!(checked >= 20, "only {checked} commands were found");
}

#[test]
fn troubleshooting_has_every_exit_code() {
    let mut program = Program::new();
    let help = program.help_of(&[]).split("Exit codes:").nth(1).unwrap().replace('\n', " ");
    let told: BTreeSet<u8> = help.split(',').filter_map(|part| part.split_whitespace().next()?.parse().ok()).collect();
    assert!(told.len() >= 13, "{told:?}");
    let page = fs::read_to_string(root().join("docs/guide/troubleshooting.md")).unwrap();
    let headings = page.lines().filter_map(|line| line.strip_prefix("## ")?.split(':').next()?.parse().ok());
    assert_eq!(headings.collect::<BTreeSet<u8>>(), told);
}

#[test]
fn commands_that_do_not_exist_are_noticed() {
    let mut program = Program::new();
    for sound in [&["-r", "/srv/r", "create", "monday", "/srv"][..], &["key", "add", "--label", "x"], &["--version"]] {
        assert_eq!(program.check(sound), Ok(()), "{sound:?}");
    }
    for unsound in [
        &["fetch", "monday"][..],
        &["help", "fetch"],
        &["create", "--fast", "x"],
        &["key", "add", "--quick"],
        &["list", "--yes"],
    ] {
        assert!(program.check(unsound).is_err(), "{unsound:?}");
    }
}
