//! `copal ls`: the entries of a snapshot.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use copal_engine::inspect::ls;
use copal_manifest::entry::{Entry, EntryPath, Node};
use serde::Serialize;

use crate::commands::filter::FilterArguments;
use crate::commands::latest;
use crate::completion::snapshots;
use crate::exit_code::ExitCode;
use crate::invocation::Invocation;
use crate::output::{JsonPath, Output, closed_error, engine_error};
use crate::shown::{rfc3339, time};

/// Lists what is in a snapshot
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal ls monday                        the top of the snapshot
  copal ls monday photos/2024
  copal ls latest --recursive --json | jq -r '.[] | select(.size > 1000000) | .path'")]
pub(crate) struct Arguments {
    /// Name, APP/NAME, id or its prefix, latest, or latest:APP
    #[arg(value_name = "SNAPSHOT", add = snapshots())]
    name: String,
    /// A path in it; with labelled sources it begins with the label
    path: Option<OsString>,
    /// Everything below, too
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    path: JsonPath,
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    modified: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    let asked = arguments.path.as_ref().map(|path| path.as_bytes().to_vec()).unwrap_or_default();
    let name = latest::meant(&context, &arguments.name, &arguments.filter.filter()?)?;
    let output = &mut invocation.output;
    ls(&context, &name, &asked, arguments.recursive, &mut |path, entry| {
        // The folder whose contents are asked for says nothing new.
        if entry.node == Node::Directory && (path.is_empty() || path == without_slashes(&asked)) {
            return Ok(());
        }
        show(path, entry, output).map_err(engine_error)?;
        if output.is_closed() { Err(closed_error()) } else { Ok(()) }
    })?;
    if invocation.output.is_json() {
        invocation.output.end_array()?;
    }
    Ok(ExitCode::Done)
}

fn without_slashes(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let begin = path.iter().position(|&b| b != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|&b| b != b'/').map_or(begin, |last| last + 1);
    &path[begin..end]
}

fn show(path: &[u8], entry: &Entry, output: &mut Output) -> Result<(), crate::exit_code::ProgramError> {
    let metadata = &entry.metadata;
    if output.is_json() {
        return output.element(&Document {
            path: JsonPath::new(path),
            kind: kind(&entry.node),
            mode: format!("{:04o}", metadata.mode),
            uid: metadata.uid,
            gid: metadata.gid,
            size: size_of(&entry.node),
            modified: rfc3339(metadata.modified),
            target: target(&entry.node).map(|target| String::from_utf8_lossy(&target).into_owned()),
        });
    }
    let mut line = format!(
        "{}{} {:>5} {:>5} {:>12} {} ",
        letter(&entry.node),
        permissions(metadata.mode),
        metadata.uid,
        metadata.gid,
        size_of(&entry.node),
        time(metadata.modified),
    )
    .into_bytes();
    line.extend(output.name(path));
    if let Some(target) = target(&entry.node) {
        line.extend(if matches!(entry.node, Node::HardLink(_)) { b" = ".as_slice() } else { b" -> " });
        line.extend(output.name(&target));
    }
    output.line(line)
}

/// The word for a kind of entry.
pub(super) fn kind(node: &Node) -> &'static str {
    match node {
        Node::Directory => "folder",
        Node::File(_) => "file",
        Node::Symlink(_) => "symlink",
        Node::HardLink(_) => "hardlink",
        Node::Fifo => "fifo",
        Node::Socket => "socket",
        Node::CharDevice { .. } => "char_device",
        Node::BlockDevice { .. } => "block_device",
    }
}

/// Bytes of a regular file; nothing else has any.
pub(super) fn size_of(node: &Node) -> u64 {
    match node {
        Node::File(content) => content.bytes,
        _ => 0,
    }
}

fn target(node: &Node) -> Option<Vec<u8>> {
    match node {
        Node::Symlink(target) => Some(target.to_vec()),
        Node::HardLink(to) => Some(EntryPath::to_slashes(to)),
        _ => None,
    }
}

fn letter(node: &Node) -> char {
    match node {
        Node::Directory => 'd',
        Node::File(_) | Node::HardLink(_) => '-',
        Node::Symlink(_) => 'l',
        Node::Fifo => 'p',
        Node::Socket => 's',
        Node::CharDevice { .. } => 'c',
        Node::BlockDevice { .. } => 'b',
    }
}

/// As `ls -l` writes them.
fn permissions(mode: u32) -> String {
    let mut text: Vec<u8> = (0..9).map(|bit| if mode & (0o400 >> bit) != 0 { b"rwx"[bit % 3] } else { b'-' }).collect();
    for (bit, place, with, without) in [(0o4000, 2, b's', b'S'), (0o2000, 5, b's', b'S'), (0o1000, 8, b't', b'T')] {
        if mode & bit != 0 {
            text[place] = if text[place] == b'x' { with } else { without };
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_written_as_by_ls() {
        for (mode, text) in [
            (0o755, "rwxr-xr-x"),
            (0o4755, "rwsr-xr-x"),
            (0o1777, "rwxrwxrwt"),
            (0o2640, "rw-r-S---"),
            (0, "---------"),
        ] {
            assert_eq!(permissions(mode), text);
        }
    }

    #[test]
    fn slashes_around_a_path_do_not_count() {
        for path in ["a/b", "/a/b/", "./a/b", "//a/b//"] {
            assert_eq!(without_slashes(path.as_bytes()), b"a/b");
        }
        assert_eq!(without_slashes(b"/"), b"");
    }
}
