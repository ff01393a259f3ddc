//! `copal list`: the snapshots of the repository.

use clap::Args;
use copal_engine::Monitor;
use copal_engine::catalogue::{Catalogue, Listed, Unreadable, UnreadableReason};

use crate::commands::snapshot::{SnapshotLine, bytes, files, full_name, origin, phase, tags};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::output::{Align, Table};
use crate::shown::{count, escaped, short_id, size, time, uuid};

/// Lists the snapshots, oldest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal list
  copal list --tag ticket=4711
  copal list --json | jq -r '.[].name'")]
pub(crate) struct Arguments {
    /// Only those with this tag; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::tag::parse)]
    tag: Vec<(String, String)>,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    let catalogue = Catalogue::load(&context)?;
    let has_tags = |listed: &&Listed| arguments.tag.iter().all(|tag| listed.snapshot.tags.contains(tag));
    let snapshots: Vec<&Listed> = catalogue.snapshots.iter().filter(has_tags).collect();
    if invocation.output.is_json() {
        for listed in &snapshots {
            invocation.output.element(&SnapshotLine::new(listed))?;
        }
        invocation.output.end_array()?;
    } else {
        print(&snapshots, invocation)?;
    }
    for unreadable in &catalogue.unreadable {
        let id = uuid(unreadable.root.snapshot);
        invocation.monitor.notice(&format!("the snapshot {id} cannot be read: {}", unreadable.detail));
    }
    verdict(&catalogue)
}

/// Damage weighs more than a snapshot of a newer program, which is only not ours to read.
fn verdict(catalogue: &Catalogue) -> anyhow::Result<ExitCode> {
    let number = count(catalogue.unreadable.len() as u64, "snapshot", "snapshots");
    let is_damaged = |unreadable: &Unreadable| unreadable.reason == UnreadableReason::Damaged;
    if catalogue.unreadable.iter().any(is_damaged) {
        return Err(ProgramError::Unreadable(format!("{number} of the repository cannot be read")).into());
    }
    if !catalogue.unreadable.is_empty() {
        return Err(ProgramError::Newer(format!("{number} of the repository were written by a newer version")).into());
    }
    Ok(ExitCode::Done)
}

fn print(snapshots: &[&Listed], invocation: &mut Invocation) -> Result<(), ProgramError> {
    let output = &mut invocation.output;
    output.line(count(snapshots.len() as u64, "snapshot", "snapshots"))?;
    if snapshots.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("ID", Align::Left),
        ("CREATED (UTC)", Align::Left),
        ("PHASE", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("NEW", Align::Right),
        ("STORED", Align::Right),
        ("ORIGIN", Align::Left),
        ("TAGS", Align::Left),
    ]);
    for listed in snapshots {
        let snapshot = &listed.snapshot;
        let pin = if snapshot.pinned { "pinned " } else { "" };
        table.row(vec![
            escaped(full_name(snapshot).as_bytes()).into(),
            short_id(snapshot.id).into(),
            time(snapshot.created).into(),
            phase(snapshot.phase).into(),
            files(snapshot).to_string().into(),
            size(bytes(snapshot)).into(),
            size(snapshot.bytes_new).into(),
            size(snapshot.stored_new).into(),
            origin(snapshot.origin).into(),
            escaped(format!("{pin}{}", tags(snapshot)).trim_end().as_bytes()).into(),
        ]);
    }
    output.table(&table)
}
