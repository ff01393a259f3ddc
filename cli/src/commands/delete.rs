//! `copal delete`: removes snapshots by name.

use clap::Args;
use copal_engine::removal::delete;
use serde_json::json;

use crate::commands::snapshot::{SnapshotLine, full_name};
use crate::completion::snapshots;
use crate::exit_code::ExitCode;
use crate::invocation::Invocation;
use crate::shown::{count, escaped};

/// Removes snapshots; `copal gc` then returns their space
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal delete monday --yes
  copal delete monday tuesday --yes && copal gc")]
pub(crate) struct Arguments {
    /// Names, ids or their prefixes
    #[arg(required = true, value_name = "SNAPSHOT", add = snapshots())]
    names: Vec<String>,
    /// Delete without asking
    #[arg(short, long)]
    yes: bool,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    if !arguments.yes {
        invocation.confirm(&format!("Delete {}?", arguments.names.join(", ")))?;
    }
    let context = invocation.open()?;
    let removed = delete(&context, &arguments.names)?;
    let output = &mut invocation.output;
    if output.is_json() {
        let removed: Vec<_> = removed.iter().map(SnapshotLine::new).collect();
        output.document(&json!({ "removed": removed }))?;
    } else {
        let number = count(removed.len() as u64, "snapshot", "snapshots");
        output.line(format!("deleted {number}; `copal gc` returns the space"))?;
        for listed in &removed {
            output.line(format!("  {}", escaped(full_name(&listed.snapshot).as_bytes())))?;
        }
    }
    Ok(ExitCode::Done)
}
