//! Goal: no name is taken for another, and none steers a terminal or a script. Method: files, tags and
//! folders with marks of direction, characters that are not seen and control characters; every command that
//! shows names, at a terminal and as JSON.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use copal_manifest::shown::is_hidden;
use support::World;
use support::terminal::at_terminal;

/// Names of files, and how they are shown.
const NAMES: &[(&str, &str)] = &[
    ("annual\u{202e}txt.exe", "annual\\u{202e}txt.exe"),
    ("annual\u{200b}.txt", "annual\\u{200b}.txt"),
    ("annual\u{e0041}.txt", "annual\\u{e0041}.txt"),
    ("annual\u{a0}.txt", "annual\\u{a0}.txt"),
    ("clear\u{1b}[2J", "clear\\u{1b}[2J"),
    ("two\nlines", "two\\nlines"),
    ("\\u{202e}", "\\\\u{202e}"),
];

/// Nothing is hidden in it but the ends of lines and what colours a terminal.
#[track_caller]
fn assert_clear(bytes: &[u8], what: &str) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap().replace("\r\n", "\n");
    let plain = text.replace("\u{1b}[0m", "");
    let colours = (0..=107).map(|code| format!("\u{1b}[{code}m"));
    let plain = colours.fold(plain, |text, colour| text.replace(&colour, ""));
    let hidden = plain.chars().find(|&character| character != '\n' && is_hidden(character));
    assert_eq!(hidden, None, "{what}: {plain:?}");
    text
}

fn world() -> World {
    let world = World::new();
    fs::create_dir_all(world.path("data/deep\u{202e}")).unwrap();
    for (name, _) in NAMES {
        fs::write(world.path(&format!("data/{name}")), "content").unwrap();
    }
    world.ok(&["create", "one", "data", "--tag", "why\u{202e}=so\u{2066}"]);
    fs::remove_file(world.path(&format!("data/{}", NAMES[0].0))).unwrap();
    world.ok(&["create", "two", "data"]);
    world
}

#[test]
fn t14_names_are_clear_at_a_terminal() {
    let world = world();
    for line in
        ["copal ls one", "copal find annual", "copal diff one two", "copal show one", "copal list", "copal tag one"]
    {
        let run = at_terminal(&world, &format!("{line}; true"), &[], &[]);
        let text = assert_clear(&run.stdout, line);
        let shows_files = line.contains("ls") || line.contains("find") || line.contains("diff");
        assert!(!shows_files || text.contains(NAMES[0].1), "{line}: {text}");
    }
    let listed = at_terminal(&world, "copal ls one", &[], &[]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    for (_, shown) in NAMES {
        assert!(text.contains(shown), "{shown}: {text}");
    }
}

#[test]
fn t14_json_and_errors_hide_nothing_and_mean_the_same() {
    let world = world();
    for arguments in [&["ls", "one"][..], &["find", "annual"], &["diff", "one", "two"], &["show", "one"], &["list"]] {
        let run = world.run(&[arguments, &["--json"]].concat());
        assert!(run.code <= 1, "{run:?}");
        let text = assert_clear(&run.stdout, arguments[0]);
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let shows_files = ["ls", "find", "diff"].contains(&arguments[0]);
        assert!(!shows_files || document.to_string().contains(NAMES[0].0), "programs get the name itself: {text}");
    }
    for arguments in [
        &["show", "no\u{202e}such"][..],
        &["ls", "one", "no\u{202e}such"],
        &["create", "a\u{202e}b", "data"],
        &["create", "ok", "no\u{202e}such"],
        &["--repo", "no\u{202e}such", "list"],
        &["dump", "one", "no\u{200b}such"],
        &["no\u{202e}such"],
        &["list", "--no\u{202e}such"],
    ] {
        for more in [&[][..], &["--json"]] {
            let run = world.run(&[arguments, more].concat());
            assert_ne!(run.code, 0, "{arguments:?}");
            assert_clear(run.stderr.as_bytes(), &format!("{arguments:?}"));
        }
    }
}

#[test]
fn t13_reserved_names_are_refused_and_said_why() {
    let world = world();
    let id = world.json(&["show", "one"])["id"].as_str().unwrap().to_owned();
    for name in ["import", "export", "deploy", "latest", ".", "..", "20261127173000", &id, "a\u{200b}"] {
        let error = world.fails(&["create", "--name", name, "data"], 2, "bad-name");
        assert!(error["message"].as_str().unwrap().contains("cannot be a snapshot's name: "), "{error}");
    }
    assert_eq!(world.json(&["list"]).as_array().unwrap().len(), 2);
}
