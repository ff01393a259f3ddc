//! Goal: what is linked into the program may be, and somebody decided it. Method: `cargo metadata`, offline:
//! sources, licences, bans, duplicates, and the page that says why each crate is there.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use support::root;

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec!["--locked".into()])
        .exec()
        .unwrap()
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
    // Of data: the certificates in webpki-root-certs, which are built for other systems only.
    "CDLA-Permissive-2.0",
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

/// Crates of which several versions may be linked, and why.
const DUPLICATES: &[(&str, &str)] = &[
    ("syn", "derive macros move to version 3 one by one; it is not in the program"),
    ("synstructure", "as syn"),
    ("cpufeatures", "the ciphers have 0.3, reed-solomon-simd 0.2"),
    ("getrandom", "ring stays with 0.2"),
    ("hashbrown", "each map has its own; small and generic"),
    ("windows-sys", "of other systems: nothing of it is built"),
];

#[test]
fn no_crate_comes_in_twice_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata().packages {
        versions.entry(package.name.to_string()).or_default().insert(package.version.to_string());
    }
    let twice: BTreeMap<_, _> = versions.into_iter().filter(|(_, versions)| versions.len() > 1).collect();
    for (name, versions) in &twice {
        assert!(DUPLICATES.iter().any(|(allowed, _)| allowed == name), "{name} is there as {versions:?}");
    }
    for (name, _) in DUPLICATES {
        assert!(twice.contains_key(*name), "{name} is there once: take it from the list");
    }
}

#[test]
fn every_direct_dependency_has_its_line() {
    let page = fs::read_to_string(root().join("docs/decisions/crates.md")).unwrap();
    let taken = page.split("## Looked at and not taken").next().unwrap();
    let cells = taken.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let named: BTreeSet<&str> = cells.flat_map(|cell| cell.split(", ")).filter(|cell| *cell != "crate").collect();
    let metadata = metadata();
    let direct: BTreeSet<String> = metadata
        .workspace_packages()
        .iter()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.path.is_none())
        .map(|dependency| dependency.name.clone())
        .collect();
    let missing: Vec<_> = direct.iter().filter(|name| !named.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/decisions/crates.md has no line for {missing:?}");
    let gone: Vec<_> = named.iter().filter(|name| !direct.contains(**name)).collect();
    assert!(gone.is_empty(), "docs/decisions/crates.md names {gone:?}, which nothing depends on");
}

#[test]
fn every_room_uses_what_it_asks_for() {
    for package in metadata().workspace_packages() {
        let mut words = BTreeSet::new();
        words_of_sources(package.manifest_path.parent().unwrap().as_std_path(), &mut words);
        for dependency in &package.dependencies {
            let name = dependency.rename.as_ref().unwrap_or(&dependency.name).replace('-', "_");
            assert!(words.contains(&name), "{} asks for {name} and never names it", package.name);
        }
    }
}

/// Every word of the Rust sources below a crate's folder, without crates that lie in it.
fn words_of_sources(folder: &Path, words: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().unwrap() != "target" && !path.join("Cargo.toml").exists() {
            words_of_sources(&path, words);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            words_of(&text, words);
            // Modules that are shared with another crate's tests.
            for shared in text.split("#[path = \"").skip(1).filter_map(|rest| rest.split('"').next()) {
                words_of(&fs::read_to_string(path.with_file_name(shared)).unwrap(), words);
            }
        }
    }
}

fn words_of(text: &str, words: &mut BTreeSet<String>) {
    words.extend(text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned));
}

#[test]
fn every_shared_dependency_is_used() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let table = text.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let metadata = metadata();
    let used: BTreeSet<String> = metadata
        .workspace_packages()
        .iter()
        .flat_map(|package| &package.dependencies)
        .map(|dependency| dependency.rename.clone().unwrap_or_else(|| dependency.name.clone()))
        .collect();
    for line in table.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let name = line.split(['=', '.']).next().unwrap().trim();
        assert!(used.contains(name), "nobody uses {name}: take it out of the workspace's list");
    }
}

/// Doors into the store that only tests may open, and who may.
const DOORS: &[(&str, &str)] = &[("mutants", "copal-sim"), ("fuzzing", "copal-fuzz"), ("fuzzing", "copal")];
/// Crates of the program among them: for their tests alone.
const SHIPPED: &[&str] = &["copal"];

#[test]
fn only_tests_open_doors_into_the_store() {
    let mut opened = BTreeSet::new();
    for package in metadata().workspace_packages() {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.name == "copal-store") {
            for feature in &dependency.features {
                let door = DOORS.iter().find(|(door, who)| door == feature && *who == package.name.as_str());
                assert!(door.is_some(), "{} asks for the store's feature {feature}", package.name);
                let is_for_tests = dependency.kind == DependencyKind::Development;
                assert!(is_for_tests || !SHIPPED.contains(&package.name.as_str()), "{} ships {feature}", package.name);
                opened.insert((feature.clone(), package.name.to_string()));
            }
        }
    }
    assert_eq!(opened.len(), DOORS.len(), "a door that nobody opens");
}
