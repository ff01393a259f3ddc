//! Goal: whoever follows a page of the guide gets what it shows. Method: the `sh` blocks of a page are run in
//! their order by one bash, in an empty folder and with an empty home; a `text` block after one is compared
//! with what that one printed, `…` standing for anything. Blocks of other kinds are not run.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use support::terminal::at_terminal;
use support::{COPAL, World};
use tempfile::TempDir;

/// A block that is run, and what it is to print.
#[derive(Debug)]
struct Step {
    line: usize,
    script: String,
    printed: Vec<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut kind: Option<&str> = None;
    // Whether the last block was run: a `text` block behind another kind is an example of its own.
    let mut was_run = false;
    for (number, line) in text.lines().enumerate() {
        match (kind, line.strip_prefix("```")) {
            (None, Some(opened)) => {
                kind = Some(opened);
                if opened == "sh" {
                    steps.push(Step { line: number + 1, script: String::new(), printed: Vec::new() });
                }
            }
            (Some(closed), Some(_)) => {
                was_run = closed == "sh";
                kind = None;
            }
            (Some("sh"), None) => {
                let step = steps.last_mut().unwrap();
                step.script.push_str(line);
                step.script.push('\n');
            }
            (Some("text"), None) if was_run => steps.last_mut().unwrap().printed.push(line.to_owned()),
            // Prose may stand between the two, another heading may not.
            (None, None) if line.starts_with('#') => was_run = false,
            _ => {}
        }
    }
    steps
}

/// Whether a line is as a pattern with `…` for anything says.
fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Runs a page of the guide.
#[track_caller]
fn follow(page: &str) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(page)).unwrap();
    let steps = steps(&text);
    assert!(!steps.is_empty(), "{page} has nothing to run");
    let world = TempDir::new().unwrap();
    for folder in ["bin", "home", "here"] {
        fs::create_dir(world.path().join(folder)).unwrap();
    }
    symlink(COPAL, world.path().join("bin/copal")).unwrap();
    // Standard input is closed: nothing that a page shows may wait for a person without saying so.
    let mut whole = String::from("set -e -o pipefail\n");
    for (number, step) in steps.iter().enumerate() {
        whole += &format!("printf '%s\\n' '@@ step {number}'\n{}", step.script);
    }
    let output = Command::new("bash")
        .args(["-c", &whole])
        .env_clear()
        .env("PATH", format!("{}/bin:/usr/bin:/bin", world.path().display()))
        .env("HOME", world.path().join("home"))
        .current_dir(world.path().join("here"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let parts: Vec<&str> = printed.split("@@ step ").skip(1).collect();
    let step = &steps[parts.len().max(1) - 1];
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docs/guide/{page}:{}: {}\n{printed}\n{said}", step.line, step.script);
    for (step, part) in steps.iter().zip(&parts) {
        let mut lines = part.lines().skip(1);
        for wanted in &step.printed {
            let found = lines.any(|line| matches(wanted, line.trim_end()));
            assert!(found, "docs/guide/{page}:{} shows {wanted:?}, and this was printed:\n{part}", step.line);
        }
    }
}

/// Somebody types it at a terminal and agrees to the deploy; a key file stands for the password.
#[test]
fn u19_the_start_of_the_readme_works() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let start = text.split("\n## Start\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let block = start.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(block.contains("copal deploy monday"), "{block}");
    let world = World::bare();
    fs::create_dir_all(world.path("home/data")).unwrap();
    fs::write(world.path("home/data/notes.txt"), "words").unwrap();
    let run = at_terminal(&world, &format!("set -e\n{block}"), &[], &[("[y/N]", "y")]);
    let shown = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.code == 0 && shown.contains("all is well"), "{shown}");
}

#[test]
fn u19_the_quick_start_works_as_shown() {
    follow("quick-start.md");
}

#[test]
fn u19_benchmark_resets_work_as_shown() {
    follow("harness.md");
}

#[test]
fn u19_a_workshop_works_as_shown() {
    follow("workshop.md");
}

#[test]
fn u19_schedules_and_retention_work_as_shown() {
    follow("schedules.md");
}

#[test]
fn u19_a_second_copy_works_as_shown() {
    follow("off-site.md");
}

#[test]
fn u19_what_is_installed_beside_the_program_works_as_shown() {
    follow("install.md");
}

#[test]
fn blocks_are_read_as_they_stand() {
    let page =
        "# A\n```sh\necho a\n```\nso:\n```text\na\n```\n```console\n$ no\n```\n```text\nno\n```\n```sh\necho b\n```\n";
    let steps = steps(page);
    assert_eq!(steps.iter().map(|step| step.script.as_str()).collect::<Vec<_>>(), ["echo a\n", "echo b\n"]);
    assert_eq!((steps[0].printed.as_slice(), steps[1].printed.len()), (&["a".to_owned()][..], 0));
    assert!(matches("a…c", "abc") && matches("a", "a") && matches("…", "") && matches("a…", "a"));
    assert!(!matches("a", "ab") && !matches("a…c", "abd") && !matches("b…", "ab"));
}
