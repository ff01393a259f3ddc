//! Goal: the layout that `ARCHITECTURE.md` describes is the layout that stands. Method: `cargo metadata` for
//! the arrows between crates, plain reading of the sources for what a room may never know.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use support::root;

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec!["--locked".into()])
        .exec()
        .unwrap()
}

/// Room → rooms it may depend on in the shipped program.
fn allowed_arrows() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("copal-chunker", &[] as &[&str]),
        ("copal-store", &[]),
        ("copal-source", &[]),
        ("copal-manifest", &["copal-store"]),
        ("copal-engine", &["copal-chunker", "copal-store", "copal-manifest", "copal-source"]),
        ("copal-application", &["copal-store", "copal-manifest", "copal-source", "copal-engine"]),
        ("copal-bundle", &["copal-store", "copal-manifest", "copal-source", "copal-engine"]),
        (
            "copal-service",
            &["copal-application", "copal-bundle", "copal-engine", "copal-manifest", "copal-source", "copal-store"],
        ),
        (
            "copal",
            &[
                "copal-application",
                "copal-bundle",
                "copal-engine",
                "copal-service",
                "copal-store",
                "copal-source",
                "copal-manifest",
            ],
        ),
    ])
}

#[test]
fn every_arrow_between_rooms_is_drawn() {
    let metadata = metadata();
    let rooms = allowed_arrows();
    let mut seen = 0;
    for package in metadata.workspace_packages() {
        let Some(allowed) = rooms.get(package.name.as_str()) else { continue };
        seen += 1;
        for dependency in &package.dependencies {
            let inside = dependency.path.is_some() && dependency.kind == DependencyKind::Normal;
            assert!(
                !inside || allowed.contains(&dependency.name.as_str()),
                "{} may not depend on {}",
                package.name,
                dependency.name
            );
        }
    }
    assert_eq!(seen, rooms.len(), "a room is gone or renamed: update the map of arrows");
}

/// What may not be named in the pure parts: I/O, clocks, threads, the runtime.
const IMPURE: &[&str] =
    &["std::fs", "std::net", "std::time", "std::thread", "std::process", "std::env", "tokio", "rayon", "rustix"];

#[test]
fn pure_rooms_touch_nothing_outside() {
    // The store's formats and crypto; its backend, sessions and collection are its doors and may.
    let store =
        ["ids", "envelope", "padding", "keys", "slots", "sealed", "pack", "encoding", "codec", "config", "location"];
    let mut files = rust_files(&root().join("chunker/src"));
    files.extend(rust_files(&root().join("manifest/src")));
    for module in store {
        let file = root().join(format!("store/src/{module}.rs"));
        let folder = root().join(format!("store/src/{module}"));
        assert!(file.is_file() || folder.is_dir(), "store/src/{module} is gone or renamed: update this list");
        if file.is_file() {
            files.push(file);
        }
        if folder.is_dir() {
            files.extend(rust_files(&folder));
        }
    }
    for file in files {
        let code = code_without_tests(&fs::read_to_string(&file).unwrap());
        for word in IMPURE {
            assert!(!code.contains(word), "{} names {word}; that part is pure", file.display());
        }
    }
}

#[test]
fn libraries_are_silent() {
    for room in ["chunker", "store", "manifest", "source", "engine", "application", "bundle"] {
        for file in rust_files(&root().join(room).join("src")) {
            let code = code_without_tests(&fs::read_to_string(&file).unwrap());
            for word in ["println!", "eprintln!", "print!(", "std::env::", "env::var"] {
                assert!(!code.contains(word), "{} has {word}; libraries are silent", file.display());
            }
        }
    }
}

#[test]
fn files_stay_within_a_readers_reach() {
    for room in
        ["chunker", "store", "manifest", "source", "engine", "application", "bundle", "service", "cli", "sim", "xtask"]
    {
        for file in rust_files(&root().join(room)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 600, "{} has {lines} lines; split it", file.display());
        }
    }
}

#[test]
fn nothing_large_is_committed_but_golden_repositories() {
    let listed = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    assert!(listed.status.success(), "git lists the files");
    for name in String::from_utf8(listed.stdout).unwrap().split('\0').filter(|name| !name.is_empty()) {
        let Ok(file) = fs::metadata(root().join(name)) else { continue };
        let golden = name.starts_with("testdata/repositories/");
        assert!(golden || file.len() <= 1 << 20, "{name} has {} bytes", file.len());
    }
}

#[test]
fn unsafe_needs_a_decision_record() {
    for room in
        ["chunker", "store", "manifest", "source", "engine", "application", "bundle", "cli", "sim", "xtask", "benches"]
    {
        for file in rust_files(&root().join(room)) {
            let code = fs::read_to_string(&file).unwrap();
            let found = code
                .lines()
                .any(|line| line.contains(concat!("uns", "afe {")) || line.contains(concat!("uns", "afe fn")));
            assert!(!found, "{} has an unsafe block and no decision record allows it", file.display());
        }
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().unwrap() != "target" {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Comments, and what follows the first `#[cfg(test)]`, do not count: tests stand at the end of a file.
fn code_without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}
