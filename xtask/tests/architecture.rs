//! Goal: the layout that `ARCHITECTURE.md` describes is the layout that stands. Method: `cargo metadata` for the arrows between
//! crates and for the dependencies, plain reading of the sources for what a room may never know, and of the page for its paths.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

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
        ("copal-service", &["copal-engine", "copal-manifest", "copal-source", "copal-store"]),
        ("copal", &["copal-engine", "copal-service", "copal-store", "copal-source", "copal-manifest"]),
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
    for room in ["chunker", "store", "manifest", "source", "engine"] {
        for file in rust_files(&root().join(room).join("src")) {
            let code = code_without_tests(&fs::read_to_string(&file).unwrap());
            for word in ["println!", "eprintln!", "print!(", "std::env::", "env::var"] {
                assert!(!code.contains(word), "{} has {word}; libraries are silent", file.display());
            }
        }
    }
}

#[test]
fn the_page_names_only_paths_that_exist() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut checked = 0;
    for word in page.split('`').skip(1).step_by(2) {
        let looks_like_a_path = word.contains('/')
            && !word.contains(['<', '*', ' ', ':', '…'])
            && word.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '.');
        if looks_like_a_path {
            checked += 1;
            assert!(root().join(word).exists(), "ARCHITECTURE.md names `{word}`, which does not exist");
        }
    }
    assert!(checked >= 20, "only {checked} paths were found: the page or this test has lost its form");
}

#[test]
fn files_stay_within_a_readers_reach() {
    for room in ["chunker", "store", "manifest", "source", "engine", "service", "cli", "sim", "xtask"] {
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
    for room in ["chunker", "store", "manifest", "source", "engine", "cli", "sim", "xtask", "benches"] {
        for file in rust_files(&root().join(room)) {
            let code = fs::read_to_string(&file).unwrap();
            let found = code
                .lines()
                .any(|line| line.contains(concat!("uns", "afe {")) || line.contains(concat!("uns", "afe fn")));
            assert!(!found, "{} has an unsafe block and no decision record allows it", file.display());
        }
    }
}

/// Licences that the program may be shipped with.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
    "MIT-0",
    "BSL-1.0",
    "0BSD",
];

/// Crates that must not come in, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "ring is the one cryptographic library"),
    ("openssl-sys", "ring is the one cryptographic library"),
    ("aws-lc-rs", "needs cmake and a long build; ring is the one cryptographic library"),
    ("bzip2-sys", "nothing here is bzip2"),
    ("chrono", "jiff is the date library"),
];

#[test]
fn dependencies_come_from_the_registry_under_known_licences() {
    let metadata = metadata();
    let members: BTreeSet<_> = metadata.workspace_members.iter().collect();
    let mut seen = 0;
    for package in metadata.packages.iter().filter(|package| !members.contains(&package.id)) {
        seen += 1;
        let source = package.source.as_ref().map(|source| source.repr.as_str()).unwrap_or("a path");
        assert!(source.starts_with("registry+"), "{} comes from {source}", package.name);
        for (name, why) in BANNED {
            assert!(package.name.as_str() != *name, "{name} is banned: {why}");
        }
        let licence = package.license.clone().unwrap_or_default();
        assert!(licence_is_allowed(&licence), "{} has the licence {licence:?}", package.name);
    }
    assert!(seen > 50, "the dependencies were not listed");
}

/// An SPDX expression: every AND part must have an allowed OR part.
fn licence_is_allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    !flat.trim().is_empty()
        && flat.split(" AND ").all(|part| part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

#[test]
fn licence_expressions_are_read() {
    assert!(licence_is_allowed("MIT OR GPL-3.0"));
    assert!(licence_is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!licence_is_allowed("MIT AND GPL-3.0"));
    assert!(!licence_is_allowed("GPL-3.0"));
    assert!(!licence_is_allowed(""));
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
