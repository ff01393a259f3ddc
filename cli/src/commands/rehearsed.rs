//! `copal create --dry-run`: what a create would take and read.

use copal_engine::create::{CreateRequest, Rehearsal, made_name, rehearse};
use copal_engine::{Context, Monitor};
use serde::Serialize;

use crate::commands::snapshot::full_name;
use crate::exit_code::ExitCode;
use crate::invocation::{Invocation, Run};
use crate::shown::{count, escaped, size};

#[derive(Debug, Serialize)]
struct Document<'a> {
    dry_run: bool,
    name: &'a str,
    parent: Option<String>,
    files: u64,
    bytes: u64,
    files_new: u64,
    files_changed: u64,
    files_unchanged: u64,
    files_gone: u64,
    bytes_to_read: u64,
    unread_files: u64,
    left_out: Vec<String>,
    unmatched: &'a [String],
    warnings: &'a [String],
}

/// `described` is what a made name says of the sources, where there is none yet.
pub(super) fn run(
    mut request: CreateRequest,
    described: Option<&str>,
    invocation: &mut Invocation,
) -> anyhow::Result<ExitCode> {
    let context = invocation.open_for(Run::Dry)?;
    if let Some(described) = described {
        // A cache is written when it is read.
        let without_cache = Context { cache_folder: None, ..context.clone() };
        request.name = made_name(&without_cache, "", described)?;
    }
    let found = rehearse(&context, &request)?;
    invocation.monitor.finish();
    let exit = if found.unread_files > 0 { ExitCode::SomeUnread } else { ExitCode::Done };
    let parent = found.parent.as_ref().map(full_name);
    if invocation.output.is_json() {
        let Rehearsal { files, bytes, files_new, files_changed, files_unchanged, files_gone, .. } = found;
        invocation.output.document(&Document {
            dry_run: true,
            name: &request.name,
            parent,
            files,
            bytes,
            files_new,
            files_changed,
            files_unchanged,
            files_gone,
            bytes_to_read: found.bytes_to_read,
            unread_files: found.unread_files,
            left_out: found.left_out.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            unmatched: &found.unmatched,
            warnings: &found.warnings,
        })?;
        return Ok(exit);
    }
    let name = escaped(request.name.as_bytes());
    let unread = match found.unread_files {
        0 => String::new(),
        unread => format!(", but {} could not be looked at", count(unread, "source file", "source files")),
    };
    let output = &mut invocation.output;
    output.line(format!("would take the snapshot {name}{unread}; nothing is written"))?;
    output.figures(&[
        ("files", found.files.to_string()),
        ("size", size(found.bytes)),
        ("new", count(found.files_new, "file", "files")),
        ("changed", count(found.files_changed, "file", "files")),
        ("unchanged", count(found.files_unchanged, "file", "files")),
        ("gone", count(found.files_gone, "file", "files")),
        ("to read", size(found.bytes_to_read)),
        ("compared with", parent.unwrap_or_else(|| "nothing".into())),
    ])?;
    super::create::tell_left_out(&found.left_out, &found.unmatched, invocation);
    found.warnings.iter().for_each(|warning| invocation.monitor.notice(warning));
    Ok(exit)
}
