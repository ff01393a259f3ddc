//! What the tests of pages and sources share, here and in `cli/tests/pages.rs`: the files that git has, and
//! what is prose in a page.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's folder: above that of each crate.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files that git has with such names, by their paths from the root, and their texts.
pub fn files(pattern: &str) -> BTreeMap<String, String> {
    let listed = Command::new("git").args(["ls-files", "-z", pattern]).current_dir(root()).output().unwrap();
    assert!(listed.status.success(), "git lists the files");
    let names = String::from_utf8(listed.stdout).unwrap();
    let names = names.split('\0').filter(|name| !name.is_empty() && root().join(name).is_file());
    names.map(|name| (name.to_owned(), fs::read_to_string(root().join(name)).unwrap())).collect()
}

/// Every page.
pub fn pages() -> BTreeMap<String, String> {
    files("*.md")
}

/// The page without its fenced blocks.
pub fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// What stands in backticks, in prose.
pub fn spans(text: &str) -> Vec<String> {
    prose(text).split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
