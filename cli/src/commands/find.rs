//! `copal find`: in which snapshots a path is, and its versions.

use clap::Args;
use copal_engine::inspect::{Found, find};
use serde::Serialize;

use crate::commands::ls::{kind, size_of};
use crate::commands::snapshot::full_name;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::output::{Align, JsonPath, Table};
use crate::shown::{count, escaped, rfc3339, size, time, uuid};

/// Finds a path in all snapshots, and tells its versions apart
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal find report.odt                  part of a name
  copal find '*.odt'                     a glob for the last name
  copal find 'docs/**/*.odt'             with a slash: for the whole path")]
pub(crate) struct Arguments {
    /// Part of a name, or a glob
    pattern: String,
}

#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    path: JsonPath,
    snapshot: String,
    id: String,
    app: String,
    created: String,
    version: u64,
    kind: &'static str,
    size: u64,
    modified: String,
}

impl Document {
    fn new(found: &Found) -> Self {
        let snapshot = &found.listed.snapshot;
        Self {
            path: JsonPath::new(&found.path),
            snapshot: snapshot.name.clone(),
            id: uuid(snapshot.id),
            app: snapshot.app.clone(),
            created: rfc3339(snapshot.created),
            version: found.version,
            kind: kind(&found.entry.node),
            size: size_of(&found.entry.node),
            modified: rfc3339(found.entry.metadata.modified),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    let found = find(&context, &arguments.pattern)?;
    if invocation.output.is_json() {
        for found in &found {
            invocation.output.element(&Document::new(found))?;
        }
        invocation.output.end_array()?;
    } else {
        print(&found, invocation)?;
    }
    Ok(ExitCode::Done)
}

fn print(found: &[Found], invocation: &mut Invocation) -> Result<(), ProgramError> {
    let output = &mut invocation.output;
    let mut paths: Vec<&[u8]> = found.iter().map(|found| found.path.as_slice()).collect();
    paths.dedup();
    let (paths, places) = (paths.len() as u64, found.len() as u64);
    output.line(format!("found {} at {}", count(paths, "path", "paths"), count(places, "place", "places")))?;
    if found.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("SNAPSHOT", Align::Left),
        ("CREATED (UTC)", Align::Left),
        ("VERSION", Align::Right),
        ("SIZE", Align::Right),
        ("MODIFIED (UTC)", Align::Left),
        ("PATH", Align::Left),
    ]);
    for found in found {
        let snapshot = &found.listed.snapshot;
        table.row(vec![
            escaped(full_name(snapshot).as_bytes()).into(),
            time(snapshot.created).into(),
            found.version.to_string().into(),
            size(size_of(&found.entry.node)).into(),
            time(found.entry.metadata.modified).into(),
            output.name(&found.path),
        ]);
    }
    output.table(&table)
}
