//! `copal pin`: protection from every automatic removal.

use clap::Args;
use copal_engine::catalogue::relabel;

use crate::commands::snapshot::{SnapshotLine, full_name};
use crate::completion::snapshots;
use crate::exit_code::ExitCode;
use crate::invocation::Invocation;
use crate::shown::escaped;

/// Protects a snapshot from removal
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal pin release-7
  copal pin release-7 --remove           the same as copal unpin release-7")]
pub(crate) struct Arguments {
    /// Name, APP/NAME, id or its prefix, latest, or latest:APP
    #[arg(value_name = "SNAPSHOT", add = snapshots())]
    name: String,
    /// Take the protection away
    #[arg(long)]
    remove: bool,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    protect(&arguments.name, !arguments.remove, invocation)
}

/// Protects a snapshot, or no longer.
pub(super) fn protect(name: &str, pinned: bool, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    let listed = relabel(&context, name, &[], &[], Some(pinned))?;
    let output = &mut invocation.output;
    if output.is_json() {
        output.document(&SnapshotLine::new(&listed))?;
        return Ok(ExitCode::Done);
    }
    let name = escaped(full_name(&listed.snapshot).as_bytes());
    output.line(if pinned {
        format!("{name} is pinned: neither delete nor forget removes it")
    } else {
        format!("{name} is no longer pinned")
    })?;
    Ok(ExitCode::Done)
}
