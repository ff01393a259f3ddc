//! Display paths: how people name a path of a snapshot, and which entry that is.

use copal_manifest::entry::EntryPath;
use copal_manifest::snapshot::{Snapshot, SourceRecord};

use crate::error::{Error, Result};

/// A path of one source.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) source: &'a SourceRecord,
    pub(crate) path: EntryPath,
}

/// Finds what a display path names: every source for the empty path of a snapshot with labels, else one
/// place.
pub(crate) fn resolve<'a>(snapshot: &'a Snapshot, display: &[u8]) -> Result<Vec<Place<'a>>> {
    let missing =
        || Error::NoSuchPath { snapshot: snapshot.name.clone(), path: String::from_utf8_lossy(display).into_owned() };
    let display = trim_slashes(display);
    if display.is_empty() {
        return Ok(snapshot.sources.iter().map(|source| Place { source, path: EntryPath::root() }).collect());
    }
    for source in &snapshot.sources {
        let Some(below) = below_label(source, display) else { continue };
        let is_the_file = source.kind.is_one_file() && (below.is_empty() || below == file_name(source));
        let path = if is_the_file { EntryPath::root() } else { EntryPath::from_slashes(below).ok_or_else(missing)? };
        return Ok(vec![Place { source, path }]);
    }
    Err(missing())
}

/// The path as people write it: `[label/]path`; a source that is one file shows by its name.
pub(super) fn display(source: &SourceRecord, path: &EntryPath) -> Vec<u8> {
    let mut shown = source.label.clone().into_bytes();
    let below = if source.kind.is_one_file() { file_name(source).to_vec() } else { path.to_slashes() };
    if !shown.is_empty() && !below.is_empty() {
        shown.push(b'/');
    }
    shown.extend_from_slice(&below);
    shown
}

fn below_label<'d>(source: &SourceRecord, display: &'d [u8]) -> Option<&'d [u8]> {
    if source.label.is_empty() {
        return Some(display);
    }
    let rest = display.strip_prefix(source.label.as_bytes())?;
    match rest.split_first() {
        None => Some(rest),
        Some((b'/', below)) => Some(trim_slashes(below)),
        Some(_) => None,
    }
}

fn file_name(source: &SourceRecord) -> &[u8] {
    source.path.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let begin = path.iter().position(|&b| b != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|&b| b != b'/').map_or(begin, |last| last + 1);
    let path = &path[begin..end];
    if path == b"." { b"" } else { path }
}
