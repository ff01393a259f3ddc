//! Goal: what the pages say of the tree is so. Method: every page that git has is read: links and paths are
//! looked up. What they say of the program is compared with it by `cli/tests/pages.rs` and
//! `cli/tests/guide.rs`.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cargo_metadata::MetadataCommand;
use support::{pages, prose, root, spans};

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
        && !["target", "."].contains(&first)
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
