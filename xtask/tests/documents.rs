//! Goal: what the pages say of the tree and of the program is so. Method: every page that git has is read:
//! links and paths are looked up, commands are compared with the built program's own `--help`.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::MetadataCommand;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every page, by its path from the root.
fn pages() -> BTreeMap<String, String> {
    let listed = Command::new("git").args(["ls-files", "-z", "*.md"]).current_dir(root()).output().unwrap();
    assert!(listed.status.success(), "git lists the pages");
    let names = String::from_utf8(listed.stdout).unwrap();
    let names = names.split('\0').filter(|name| !name.is_empty() && root().join(name).is_file());
    names.map(|name| (name.to_owned(), fs::read_to_string(root().join(name)).unwrap())).collect()
}

/// The page without its fenced blocks.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// What stands in backticks, in prose.
fn spans(text: &str) -> Vec<String> {
    prose(text).split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// As GitHub makes anchors of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        words
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut checked = 0;
    for (name, text) in pages() {
        let folder = Path::new(&name).parent().unwrap().to_owned();
        for link in prose(&text).split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()) {
            if link.contains("://") {
                continue;
            }
            checked += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { root().join(&name) } else { root().join(&folder).join(path) };
            assert!(target.exists(), "{name} links to {link}, which is not there");
            if !anchor.is_empty() {
                let target = fs::read_to_string(&target).unwrap();
                assert!(anchors(&target).contains(anchor), "{name} links to {link}, which has no such heading");
            }
        }
    }
    assert!(checked >= 30, "only {checked} links were found");
}

/// Words with a slash that are not paths of this tree: what a repository, a machine or a user has.
fn is_path_of_the_tree(word: &str) -> bool {
    let first = word.split('/').next().unwrap_or_default();
    word.contains('/')
        && !word.contains(['<', '*', ' ', ':', '…', '=', '$', '{', '('])
        && root().join(first).exists()
        && first != "target"
        && !first.is_empty()
}

#[test]
fn paths_that_pages_name_exist() {
    let mut checked = 0;
    for (name, text) in pages() {
        for word in spans(&text).iter().filter(|word| is_path_of_the_tree(word)) {
            checked += 1;
            // From the root, or from the page as its links are.
            let beside = root().join(&name).with_file_name(word);
            assert!(root().join(word).exists() || beside.exists(), "{name} names `{word}`, which does not exist");
        }
    }
    assert!(checked >= 40, "only {checked} paths were found: the pages or this test have lost their form");
}

#[test]
fn the_architecture_names_every_room_and_only_what_exists() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let named: BTreeSet<String> = spans(&page).into_iter().collect();
    for word in &named {
        let folder = word.ends_with('/') && !word.contains(['<', '*', ' ']);
        assert!(!folder || root().join(word).is_dir(), "ARCHITECTURE.md names `{word}`, which does not exist");
    }
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--locked".into()])
        .exec();
    for package in metadata.unwrap().workspace_packages() {
        let folder = package.manifest_path.parent().unwrap().file_name().unwrap();
        assert!(named.contains(&format!("{folder}/")), "ARCHITECTURE.md does not name `{folder}/`");
    }
}

#[test]
fn no_page_names_a_machine() {
    // Written apart, so that this file does not name one either.
    let words: Vec<String> = [("/ro", "ot/"), ("/ho", "me/user"), ("/wo", "rk/"), ("/Us", "ers/"), ("/tmp/ba", "sh")]
        .map(|(a, b)| format!("{a}{b}"))
        .into();
    for (name, text) in pages() {
        for word in &words {
            assert!(!text.contains(word.as_str()), "{name} names {word}");
        }
    }
}

#[test]
fn every_decision_is_listed() {
    let list = fs::read_to_string(root().join("docs/decisions/README.md")).unwrap();
    for entry in fs::read_dir(root().join("docs/decisions")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name == "README.md" || list.contains(&format!("({name})")),
            "docs/decisions/README.md does not list {name}"
        );
    }
}

/// The built program. The test command builds it first, so this costs a look.
fn copal() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package", "copal"])
        .current_dir(root())
        .status()
        .unwrap();
    assert!(built.success(), "the program builds");
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--locked".into()])
        .exec();
    metadata.unwrap().target_directory.join("debug/copal").into()
}

/// What the program says of itself: each command with the flags of its `--help`.
struct Program {
    copal: PathBuf,
    commands: BTreeSet<String>,
    help: BTreeMap<Vec<String>, String>,
}

impl Program {
    fn new() -> Self {
        let copal = copal();
        let mut program = Self { copal, commands: BTreeSet::new(), help: BTreeMap::new() };
        program.commands = subcommands(program.help_of(&[]));
        assert!(program.commands.len() >= 20, "{:?}", program.commands);
        program
    }

    fn help_of(&mut self, path: &[String]) -> &str {
        let copal = self.copal.clone();
        self.help.entry(path.to_vec()).or_insert_with(|| {
            let output = Command::new(copal).args(path).arg("--help").output().unwrap();
            assert!(output.status.success(), "copal {path:?} --help");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// `Err` says what is not so.
    fn check(&mut self, words: &[&str]) -> Result<(), String> {
        if words.first() == Some(&"help") {
            let shown = Command::new(&self.copal).args(words).output().unwrap();
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
    found.extend(spans(text).into_iter().filter(|span| span.starts_with("copal ") && !span.starts_with("copal v")));
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
