//! `copal stats`: what the repository costs and what is saved.

use clap::Args;
use copal_engine::inspect::{Stats, stats};
use serde_json::json;

use crate::commands::filter::FilterArguments;
use crate::commands::snapshot::full_name;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::output::{Align, Table};
use crate::shown::{escaped, share, short_id, size, uuid};

/// Shows sizes, and what deduplication, deltas and compression save
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal stats
  copal stats --host alder --path /srv/data          which of these cost what
  copal stats --json | jq .stored

The figures are of the whole repository; --host, --path, --tag and --app choose the snapshots that
are listed below them.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    filter: FilterArguments,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let filter = arguments.filter.filter()?;
    let context = invocation.open()?;
    let mut stats = stats(&context)?;
    stats.snapshots.retain(|one| filter.matches(&one.listed.snapshot));
    invocation.monitor.finish();
    if invocation.output.is_json() {
        document(&stats, invocation)?;
    } else {
        print(&stats, invocation)?;
    }
    Ok(ExitCode::Done)
}

fn document(stats: &Stats, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let snapshots: Vec<_> = stats
        .snapshots
        .iter()
        .map(|one| {
            let snapshot = &one.listed.snapshot;
            json!({
                "id": uuid(snapshot.id),
                "name": snapshot.name,
                "app": snapshot.app,
                "bytes": one.bytes,
                "unique_stored": one.unique_stored,
            })
        })
        .collect();
    invocation.output.document(&json!({
        "logical": stats.logical,
        "distinct": stats.distinct,
        "stored": stats.stored,
        "saved_by_deduplication": stats.saved_by_deduplication,
        "saved_by_deltas": stats.saved_by_deltas,
        "saved_by_compression": stats.saved_by_compression,
        "chunks": stats.chunks,
        "deltas": stats.deltas,
        "packs": stats.packs,
        "snapshots": snapshots,
    }))
}

fn print(stats: &Stats, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let output = &mut invocation.output;
    let part = |bytes: u64| format!("{} ({} of the logical size)", size(bytes), share(bytes, stats.logical));
    output.line(format!("{} of snapshots are stored in {}", size(stats.logical), size(stats.stored)))?;
    output.figures(&[
        ("logical", size(stats.logical)),
        ("stored", part(stats.stored)),
        ("saved by deduplication", part(stats.saved_by_deduplication)),
        ("saved by deltas", part(stats.saved_by_deltas)),
        ("saved by compression", part(stats.saved_by_compression)),
        ("chunks", format!("{}, {} of them deltas", stats.chunks, stats.deltas)),
        ("packs", stats.packs.to_string()),
    ])?;
    if stats.snapshots.is_empty() {
        return Ok(());
    }
    let mut table =
        Table::new(&[("SNAPSHOT", Align::Left), ("ID", Align::Left), ("SIZE", Align::Right), ("UNIQUE", Align::Right)]);
    for one in &stats.snapshots {
        let snapshot = &one.listed.snapshot;
        table.row(vec![
            escaped(full_name(snapshot).as_bytes()).into(),
            short_id(snapshot.id).into(),
            size(one.bytes).into(),
            size(one.unique_stored).into(),
        ]);
    }
    output.table(&table)
}
