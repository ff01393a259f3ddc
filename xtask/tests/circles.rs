//! Goal: files of a crate depend on each other one way, so that each can be read and changed by itself.
//! Method: the paths that each file names are followed to the files that have them; groups of files that
//! reach each other are circles. `lib.rs`, `main.rs` and the file of a folder (`mod.rs`, or `name.rs` beside
//! `name/`) may be named from below: they are the crate's and the folder's own words.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use support::root;

const CRATES: &[&str] =
    &["chunker", "store", "manifest", "source", "engine", "application", "bundle", "service", "cli"];

/// Circles that still stand, each by one of its files: to be broken, never to grow in number.
const STANDING: &[(&str, &str)] =
    &[("cli", "arguments.rs"), ("engine", "deploy/stays.rs"), ("manifest", "tree.rs"), ("store", "repository.rs")];

type Module = Vec<String>;

/// The modules of a crate and their files.
fn modules(source: &Path) -> BTreeMap<Module, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(source).unwrap().with_extension("");
            let mut module: Module = below.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
            module.pop_if(|name| matches!(name.as_str(), "mod" | "lib" | "main"));
            found.insert(module, path);
        }
    }
    found
}

fn speaks_for_a_folder(path: &Path) -> bool {
    matches!(path.file_stem().unwrap().to_str(), Some("mod" | "lib" | "main")) || path.with_extension("").is_dir()
}

/// The paths that begin in this crate, as they are written: `crate::a::b`, with braces opened.
fn named(text: &str) -> Vec<Vec<String>> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join(" ");
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            if !code[..at].ends_with(|c: char| is_part(c) || c == ':') {
                open(&code[at..], &[], &mut found);
            }
        }
    }
    found
}

/// Opens one path and the braces at its end; returns what follows it.
fn open<'c>(code: &'c str, before: &[String], found: &mut Vec<Vec<String>>) -> &'c str {
    let mut path = before.to_vec();
    let mut rest = code;
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        path.push(rest[..end].to_owned());
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(more) if more.starts_with('{') => {
                rest = more[1..].trim_start();
                while !rest.is_empty() && !rest.starts_with('}') {
                    rest = open(rest, &path, found);
                    let next = rest.find([',', '}']).unwrap_or(rest.len());
                    rest = rest[next..].trim_start_matches(',').trim_start();
                }
                return rest.strip_prefix('}').unwrap_or(rest);
            }
            Some(more) => rest = more,
            None => break,
        }
    }
    found.push(path);
    rest
}

/// The file that a path leads to.
fn led_to<'m>(modules: &'m BTreeMap<Module, PathBuf>, own: &Module, path: &[String]) -> Option<&'m PathBuf> {
    let mut at = match path.first()?.as_str() {
        "crate" => Module::new(),
        _ => own.clone(),
    };
    for name in path {
        match name.as_str() {
            "super" => drop(at.pop()),
            "crate" | "self" => {}
            name => at.push(name.to_owned()),
        }
    }
    while !modules.contains_key(&at) {
        at.pop()?;
    }
    modules.get(&at)
}

/// Groups of files that reach each other.
fn circles(name: &str) -> Vec<BTreeSet<String>> {
    let source = root().join(name).join("src");
    let modules = modules(&source);
    let short = |path: &Path| path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, file) in modules.iter().filter(|(_, file)| !speaks_for_a_folder(file)) {
        let paths = named(&fs::read_to_string(file).unwrap());
        let led = paths.iter().filter_map(|path| led_to(&modules, module, path));
        let others = led.filter(|other| *other != file && !speaks_for_a_folder(other)).map(|other| short(other));
        arrows.insert(short(file), others.collect());
    }
    let reach = |from: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            open.extend(arrows[at].iter().filter(|next| seen.insert((*next).clone())));
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = arrows.keys().map(|file| (file, reach(file))).collect();
    let round = |file: &String| -> BTreeSet<String> {
        reached[file].iter().filter(|other| reached[other].contains(file)).cloned().collect()
    };
    let found: BTreeSet<BTreeSet<String>> = arrows.keys().map(round).filter(|circle| !circle.is_empty()).collect();
    found.into_iter().collect()
}

#[test]
fn files_of_a_crate_depend_on_each_other_one_way() {
    for name in CRATES {
        let known: Vec<&str> = STANDING.iter().filter(|(of, _)| of == name).map(|(_, file)| *file).collect();
        let found = circles(name);
        for circle in &found {
            assert!(known.iter().any(|file| circle.contains(*file)), "a circle in {name}: {circle:#?}");
        }
        assert_eq!(found.len(), known.len(), "a circle of {name} is broken: take it off the list");
    }
}

#[test]
fn paths_are_opened() {
    let paths = named("use crate::{a::{B, c::D}, e};\nlet x = super::f::g(self::h);");
    let shown: BTreeSet<String> = paths.iter().map(|path| path.join("::")).collect();
    let wanted = ["crate::a::B", "crate::a::c::D", "crate::e", "self::h", "super::f::g"];
    assert_eq!(shown, wanted.map(str::to_owned).into());
}
