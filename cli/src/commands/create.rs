//! `copal create`: takes a snapshot.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use copal_engine::Monitor;
use copal_engine::create::{CreateReport, CreateRequest, SourceRequest, create};
use serde::Serialize;

use crate::commands::snapshot::{full_name, phase};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::shown::{count, duration, rate, rfc3339, share, size, uuid};

/// Takes a snapshot of folders and files
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal create monday /srv/data                       a folder's contents
  copal create monday db=/srv/hub.db files=/srv/bucket
  copal create monday /home --exclude '*.tmp' --exclude /cache/ --one-file-system
  copal create release-7 /srv/data --tag ticket=4711 --pin

A SOURCE is a folder, whose contents are taken, or one file; LABEL=SOURCE names it. A path that
has an equals sign is written with a slash before it: ./a=b. Patterns are read as in .gitignore.")]
pub(crate) struct Arguments {
    /// Name of the snapshot, unique in the repository
    name: String,
    /// What to take: PATH or LABEL=PATH
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<OsString>,
    /// Leave out what matches this glob; may be given again
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Leave out what matches the globs in this file, one a line; # begins a comment
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Stay on the filesystem of each source
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// A tag; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::tag::parse)]
    tag: Vec<(String, String)>,
    /// Protect the snapshot from every automatic removal
    #[arg(long)]
    pin: bool,
    /// Read every file, even if nothing says that it changed
    #[arg(long)]
    force_read: bool,
    /// Snapshot to compare with; without it the newest of the same sources
    #[arg(long, value_name = "NAME")]
    parent: Option<String>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    id: String,
    name: &'a str,
    app: &'a str,
    phase: &'static str,
    created: String,
    files: u64,
    bytes: u64,
    bytes_read: u64,
    bytes_new: u64,
    stored_new: u64,
    chunks_new: u64,
    duration_ms: u64,
    digest: &'a str,
    unread_files: u64,
    warnings: &'a [String],
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let mut exclude = arguments.exclude.clone();
    for file in &arguments.exclude_file {
        let text =
            fs::read_to_string(file).map_err(|error| ProgramError::file("reading the patterns in", file, error))?;
        exclude.extend(patterns(&text));
    }
    let request = CreateRequest {
        name: arguments.name.clone(),
        app: String::new(),
        sources: sources(&arguments.sources)?,
        exclude,
        one_file_system: arguments.one_file_system,
        tags: arguments.tag.clone(),
        pinned: arguments.pin,
        force_read: arguments.force_read,
        parent: arguments.parent.clone(),
    };
    let context = invocation.open()?;
    let report = create(&context, &request)?;
    invocation.monitor.finish();
    print(&report, invocation)?;
    Ok(if report.unread_files > 0 { ExitCode::SomeUnread } else { ExitCode::Done })
}

/// The lines of a file of patterns.
fn patterns(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}

/// Kinds of sources that are written `KIND:…`; a path of this form needs a slash before it.
const KINDS: &[&str] = &["sqlite", "postgres", "search", "image", "command", "config", "secret"];

/// One source needs no label; several without are named by their last names.
fn sources(words: &[OsString]) -> Result<Vec<SourceRequest>, ProgramError> {
    let mut sources = Vec::new();
    for word in words {
        let (label, path) = labelled(word);
        refuse_kind(path)?;
        let path = std::path::absolute(path).map_err(|error| ProgramError::file("finding", Path::new(path), error))?;
        let label = match label {
            Some(label) => label.to_owned(),
            None if words.len() == 1 => String::new(),
            None => last_name(&path)?,
        };
        sources.push(SourceRequest { label, path });
    }
    for (number, source) in sources.iter().enumerate() {
        if sources[..number].iter().any(|other| other.label == source.label) {
            return Err(ProgramError::usage(
                format!("two sources have the label {:?}", source.label),
                "name each of them: LABEL=PATH",
            ));
        }
    }
    Ok(sources)
}

/// `LABEL=PATH`: the label has no slash, so every path can be written without one.
fn labelled(word: &OsStr) -> (Option<&str>, &OsStr) {
    let bytes = word.as_bytes();
    let Some(at) = bytes.iter().position(|&b| b == b'=') else { return (None, word) };
    match std::str::from_utf8(&bytes[..at]) {
        Ok(label) if !label.is_empty() && !label.contains('/') => (Some(label), OsStr::from_bytes(&bytes[at + 1..])),
        _ => (None, word),
    }
}

fn refuse_kind(path: &OsStr) -> Result<(), ProgramError> {
    let bytes = path.as_bytes();
    if bytes.is_empty() {
        return Err(ProgramError::usage("a source has no path", "write it as PATH or LABEL=PATH"));
    }
    let kind = KINDS.iter().find(|kind| bytes.strip_prefix(kind.as_bytes()).is_some_and(|rest| rest.starts_with(b":")));
    match kind {
        Some(kind) => Err(ProgramError::usage(
            format!("this version of copal takes folders and files, no sources of the kind {kind:?}"),
            format!("for a path that begins with \"{kind}:\" write ./{}", path.display()),
        )),
        None => Ok(()),
    }
}

fn last_name(path: &Path) -> Result<String, ProgramError> {
    let name = path.file_name().and_then(OsStr::to_str).map(str::to_owned);
    name.ok_or_else(|| {
        ProgramError::usage(
            format!("the source {} has no last name to serve as its label", path.display()),
            "name it: LABEL=PATH",
        )
    })
}

fn print(report: &CreateReport, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let snapshot = &report.snapshot;
    let output = &mut invocation.output;
    if output.is_json() {
        return output.document(&Document {
            id: uuid(snapshot.id),
            name: &snapshot.name,
            app: &snapshot.app,
            phase: phase(snapshot.phase),
            created: rfc3339(snapshot.created),
            files: report.files,
            bytes: report.bytes,
            bytes_read: report.bytes_read,
            bytes_new: report.bytes_new,
            stored_new: report.stored_new,
            chunks_new: report.chunks_new,
            duration_ms: report.duration_ms,
            digest: &report.digest,
            unread_files: report.unread_files,
            warnings: &report.warnings,
        });
    }
    let name = full_name(snapshot);
    match report.unread_files {
        0 => output.line(format!("took the snapshot {name}"))?,
        unread => {
            let unread = count(unread, "source file", "source files");
            output.line(format!("took the snapshot {name}, but {unread} could not be read"))?;
        }
    }
    output.figures(&[
        ("id", uuid(snapshot.id)),
        ("files", report.files.to_string()),
        ("size", size(report.bytes)),
        ("read", size(report.bytes_read)),
        (
            "new",
            format!(
                "{} ({} of the size) in {}, stored in {}",
                size(report.bytes_new),
                share(report.bytes_new, report.bytes),
                count(report.chunks_new, "chunk", "chunks"),
                size(report.stored_new)
            ),
        ),
        ("time", format!("{}, {}", duration(report.duration_ms), rate(report.bytes, report.duration_ms))),
        ("digest", report.digest.clone()),
    ])?;
    for warning in &report.warnings {
        invocation.monitor.notice(warning);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: sources are read as `cli.md` says. Method: examples.

    use super::*;

    #[track_caller]
    fn check(words: &[&str], expected: &[(&str, &str)]) {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let found = sources(&words).unwrap();
        let found: Vec<_> = found.iter().map(|source| (source.label.as_str(), source.path.to_str().unwrap())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn labels_stand_before_an_equals_sign() {
        check(&["/srv/data"], &[("", "/srv/data")]);
        check(&["db=/srv/hub.db", "files=/srv/bucket"], &[("db", "/srv/hub.db"), ("files", "/srv/bucket")]);
        check(&["/srv/a=b"], &[("", "/srv/a=b")]);
        check(&["x=/srv/a=b"], &[("x", "/srv/a=b")]);
        check(&["/etc/", "/home/x"], &[("etc", "/etc/"), ("x", "/home/x")]);
    }

    #[test]
    fn what_cannot_be_a_source_is_refused() {
        for words in [&["x="][..], &["sqlite:/srv/hub.db"], &["a=command:date"], &["/a/x", "/b/x"], &["/", "/x"]] {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            assert!(matches!(sources(&words), Err(ProgramError::Usage { .. })), "{words:?}");
        }
    }

    #[test]
    fn a_file_of_patterns_has_comments_and_empty_lines() {
        let found: Vec<_> = patterns("# all\n*.tmp\n\n!keep.tmp  \n/cache/\n").collect();
        assert_eq!(found, ["*.tmp", "!keep.tmp", "/cache/"]);
    }
}
