//! `copal gc`: returns the space of what no snapshot reaches.

use clap::Args;
use copal_engine::removal::collect_garbage;
use serde::Serialize;

use crate::exit_code::ExitCode;
use crate::invocation::{Invocation, Run};
use crate::shown::{count, duration, size};

/// Returns the space that no snapshot needs any more
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal gc --dry-run                     say how much would come back
  copal gc

It removes no snapshot: `copal forget` does that, by rules such as --keep-daily 7.

Nobody has to wait for it: creates and deploys may run meanwhile. What they may still need goes
with the next gc.")]
pub(crate) struct Arguments {
    /// Count only
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    packs_removed: u64,
    packs_rewritten: u64,
    bytes_freed: u64,
    duration_ms: u64,
    packs_waiting: u64,
    fragments_merged: u64,
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open_for(Run::of(arguments.dry_run))?;
    let begin = context.clock.monotonic_nanoseconds();
    let report = collect_garbage(&context, arguments.dry_run)?;
    let duration_ms = (context.clock.monotonic_nanoseconds() - begin) / 1_000_000;
    invocation.monitor.finish();
    let output = &mut invocation.output;
    if output.is_json() {
        output.document(&Document {
            packs_removed: report.packs_removed,
            packs_rewritten: report.packs_rewritten,
            bytes_freed: report.bytes_freed,
            duration_ms,
            packs_waiting: report.packs_waiting,
            fragments_merged: report.fragments_merged,
            dry_run: arguments.dry_run,
        })?;
        return Ok(ExitCode::Done);
    }
    let freed = size(report.bytes_freed);
    output.line(if arguments.dry_run { format!("would return {freed}") } else { format!("returned {freed}") })?;
    output.figures(&[
        ("packs removed", report.packs_removed.to_string()),
        ("packs rewritten", report.packs_rewritten.to_string()),
        ("index fragments merged", report.fragments_merged.to_string()),
        ("time", duration(duration_ms)),
    ])?;
    if report.packs_waiting > 0 {
        let waiting = count(report.packs_waiting, "pack waits", "packs wait");
        output.line(format!("{waiting} for commands that are running now; the next gc removes what they leave"))?;
    }
    Ok(ExitCode::Done)
}
