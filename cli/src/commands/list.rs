//! `copal list`: the snapshots of the repository.

use clap::Args;
use copal_application::{CaptureRecord, records};
use copal_engine::catalogue::{Catalogue, Filter, Listed, Unreadable, UnreadableReason};
use copal_engine::removal::is_safety;
use copal_engine::{Context, Monitor};
use copal_store::SnapshotId;

use crate::commands::filter::FilterArguments;
use crate::commands::snapshot::{SnapshotLine, full_name, host, origin, paths, phase, tags};
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
  copal list --host alder --path /srv/data
  copal list --json | jq -r '.[].name'

What was taken before deploys of an application stands below the others (`safety` in JSON).")]
pub(crate) struct Arguments {
    #[command(flatten)]
    filter: FilterArguments,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    let catalogue = Catalogue::load(&context)?;
    let filter = arguments.filter.filter()?;
    let snapshots: Vec<&Listed> =
        catalogue.snapshots.iter().filter(|listed| filter.matches(&listed.snapshot)).collect();
    let under_way = under_way(&context, &catalogue, &filter)?;
    if invocation.output.is_json() {
        for listed in &snapshots {
            invocation.output.element(&SnapshotLine::new(listed))?;
        }
        for record in &under_way {
            invocation.output.element(&SnapshotLine::of_record(record))?;
        }
        invocation.output.end_array()?;
    } else {
        print(&snapshots, &under_way, invocation)?;
    }
    for unreadable in &catalogue.unreadable {
        let id = uuid(unreadable.root.snapshot);
        invocation.monitor.notice(&format!("the snapshot {id} cannot be read: {}", unreadable.detail));
    }
    verdict(&catalogue)
}

/// Snapshots of applications that are on their way into this repository, or failed on it.
fn under_way(context: &Context, catalogue: &Catalogue, filter: &Filter) -> anyhow::Result<Vec<CaptureRecord>> {
    let Some(state) = context.state_folder.as_deref() else { return Ok(Vec::new()) };
    let repository = context.repository.config().repository.to_string();
    let is_there =
        |record: &CaptureRecord| catalogue.snapshots.iter().any(|listed| listed.snapshot.id.to_string() == record.id);
    let mut found = records(state, None)?;
    found.retain(|record| {
        // Records are of this host; what their sources are is known at the end.
        let of_host = filter.hosts.is_empty() || filter.hosts.contains(&context.host);
        let of_app = filter.apps.is_empty() || filter.apps.contains(&record.app);
        let is_meant = of_host && of_app && filter.paths.is_empty() && filter.has_tags(&record.tags);
        record.repository == repository && !record.app.is_empty() && is_meant && !is_there(record)
    });
    Ok(found)
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

fn print(snapshots: &[&Listed], under_way: &[CaptureRecord], invocation: &mut Invocation) -> Result<(), ProgramError> {
    let (safety, asked): (Vec<&Listed>, Vec<&Listed>) =
        snapshots.iter().copied().partition(|listed| is_safety(&listed.snapshot));
    let output = &mut invocation.output;
    let mut first = count(asked.len() as u64, "snapshot", "snapshots");
    if !safety.is_empty() {
        let number = count(safety.len() as u64, "snapshot", "snapshots");
        first.push_str(&format!(", and {number} taken before deploys"));
    }
    // No snapshots: rows of their own, which the first figure does not count.
    let (ended, going): (Vec<&CaptureRecord>, Vec<&CaptureRecord>) =
        under_way.iter().partition(|record| record.phase.is_final());
    if !going.is_empty() {
        first.push_str(&format!("; {} under way", count(going.len() as u64, "capture is", "captures are")));
    }
    if !ended.is_empty() {
        first.push_str(&format!(
            "; {} without a snapshot",
            count(ended.len() as u64, "capture ended", "captures ended")
        ));
    }
    output.line(first)?;
    let (begun_safety, begun): (Vec<&CaptureRecord>, Vec<&CaptureRecord>) =
        under_way.iter().partition(|record| record.safety);
    if !asked.is_empty() || !begun.is_empty() {
        output.table(&table(&asked, &begun))?;
    }
    // Apart: no rule of the others counts them, and nobody asked for them by name.
    if !safety.is_empty() || !begun_safety.is_empty() {
        output.line("before deploys:")?;
        output.table(&table(&safety, &begun_safety))?;
    }
    Ok(())
}

fn table(snapshots: &[&Listed], under_way: &[&CaptureRecord]) -> Table {
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
        ("HOST", Align::Left),
        ("PATHS", Align::Left),
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
            snapshot.files().to_string().into(),
            size(snapshot.bytes()).into(),
            size(snapshot.bytes_new).into(),
            size(snapshot.stored_new).into(),
            origin(snapshot.origin).into(),
            host(snapshot).into(),
            paths(snapshot).into(),
            escaped(format!("{pin}{}", tags(snapshot)).trim_end().as_bytes()).into(),
        ]);
    }
    for record in under_way {
        let id = SnapshotId::from_hex(&record.id.replace('-', "")).map_or_else(|| record.id.clone(), short_id);
        table.row(vec![
            escaped(format!("{}/{}", record.app, record.name).as_bytes()).into(),
            id.into(),
            time(record.created).into(),
            record.phase.name().into(),
            Vec::new(),
            size(record.bytes_total).into(),
            size(record.bytes_new).into(),
            Vec::new(),
            b"created".to_vec(),
            Vec::new(),
            Vec::new(),
            Vec::new(),
        ]);
    }
    table
}
