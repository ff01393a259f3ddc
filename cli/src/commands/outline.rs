//! What a deploy would do to each path, for people and for programs; and the question before it.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use copal_engine::deploy::{Outline, Stayed};
use serde::Serialize;

use crate::output::JsonPath;
use crate::shown::{count, escaped};

/// Paths of each list that a person is shown; programs get all of them.
const SHOWN_MAX: usize = 20;

/// The lists, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct OutlineDocument {
    removed: Vec<JsonPath>,
    replaced: Vec<JsonPath>,
    added: Vec<JsonPath>,
    metadata: Vec<JsonPath>,
}

impl OutlineDocument {
    pub(crate) fn new(outline: &Outline) -> Self {
        let paths = |list: &[PathBuf]| list.iter().map(|path| JsonPath::new(path.as_os_str().as_bytes())).collect();
        Self {
            removed: paths(&outline.removed),
            replaced: paths(&outline.replaced),
            added: paths(&outline.added),
            metadata: paths(&outline.metadata),
        }
    }
}

/// Something that stays, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct StayedDocument {
    #[serde(flatten)]
    path: JsonPath,
    why: &'static str,
}

impl StayedDocument {
    pub(crate) fn new(stayed: &Stayed) -> Self {
        let why = if stayed.is_mount_point { "mounted" } else { "left out of the snapshot" };
        Self { path: JsonPath::new(stayed.path.as_os_str().as_bytes()), why }
    }
}

/// The lists, for people: a line with a number, then the first paths.
pub(crate) fn lines(outline: &Outline) -> Vec<String> {
    let mut lines = Vec::new();
    let lists = [
        ("removed", &outline.removed),
        ("replaced", &outline.replaced),
        ("added", &outline.added),
        ("other metadata", &outline.metadata),
    ];
    for (word, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        lines.push(format!("{word}: {}", count(list.len() as u64, "path", "paths")));
        push_first(&mut lines, list);
    }
    if lines.is_empty() {
        lines.push("nothing would change".to_owned());
    }
    lines
}

/// What stays, for people; nothing when nothing does.
pub(crate) fn stayed_lines(stays: &[Stayed]) -> Vec<String> {
    let mut lines = Vec::new();
    for (is_mount_point, why) in [(false, "left out of the snapshot"), (true, "mounted there")] {
        let chosen = stays.iter().filter(|stayed| stayed.is_mount_point == is_mount_point);
        let paths: Vec<PathBuf> = chosen.map(|stayed| stayed.path.clone()).collect();
        if !paths.is_empty() {
            lines.push(format!("{} where it is, {why}:", count(paths.len() as u64, "path stays", "paths stay")));
            push_first(&mut lines, &paths);
        }
    }
    lines
}

fn push_first(lines: &mut Vec<String>, paths: &[PathBuf]) {
    lines.extend(paths.iter().take(SHOWN_MAX).map(|path| format!("  {}", escaped(path.as_os_str().as_bytes()))));
    if paths.len() > SHOWN_MAX {
        lines.push(format!("  and {} more", paths.len() - SHOWN_MAX));
    }
}
