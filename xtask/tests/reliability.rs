//! Goal: `docs/assurance/reliability.md` names tests that there are. Method: every word in the columns of
//! tests is looked for among the test functions and the fuzz targets of the workspace.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use support::root;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_promise_has_its_test() {
    let mut tests = BTreeSet::new();
    let mut sources = Vec::new();
    for room in
        ["chunker", "store", "manifest", "source", "engine", "application", "bundle", "cli", "sim", "fuzz", "xtask"]
    {
        rust_files(&root().join(room), &mut sources);
    }
    for source in sources {
        let code = fs::read_to_string(source).unwrap();
        let functions = code.lines().filter_map(|line| line.trim_start().strip_prefix("fn "));
        tests.extend(functions.filter_map(|rest| rest.split(['(', '<']).next()).map(str::to_owned));
        let targets = code.split("Target { name: \"").skip(1);
        tests.extend(targets.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
    }
    let page = fs::read_to_string(root().join("docs/assurance/reliability.md")).unwrap();
    let mut checked = 0;
    for line in page.lines().filter(|line| line.starts_with('|')) {
        for word in line.split('`').skip(1).step_by(2) {
            let looks_like_a_test =
                word.contains('_') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit());
            if looks_like_a_test {
                checked += 1;
                assert!(
                    tests.contains(word),
                    "docs/assurance/reliability.md names `{word}`, and there is no such test or target"
                );
            }
        }
    }
    assert!(checked >= 40, "only {checked} names were found: the page or this test has lost its form");
}
