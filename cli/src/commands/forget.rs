//! `copal forget`: removes snapshots by rule.

use std::time::Duration;

use clap::Args;
use copal_engine::removal::{ForgetReport, KeepRules, forget};
use copal_engine::timespan;
use serde_json::json;

use crate::commands::snapshot::{SnapshotLine, full_name};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::{Invocation, Run};
use crate::output::{Align, Table};
use crate::shown::{count, escaped, short_id, time};

/// Removes the snapshots that no rule keeps; pinned ones always stay
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal forget --keep-last 5 --dry-run
  copal forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --keep-yearly 5
  copal forget --keep-within 30d && copal gc

A snapshot that any rule keeps stays. Periods are counted in UTC; each keeps its newest snapshot.
What a key signed that was removed pushes nothing out; see docs/keys.md.")]
pub(crate) struct Arguments {
    /// Keep the newest N
    #[arg(long, default_value_t = 0, value_name = "N")]
    keep_last: u32,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, default_value_t = 0, value_name = "N")]
    keep_hourly: u32,
    /// The same of days
    #[arg(long, default_value_t = 0, value_name = "N")]
    keep_daily: u32,
    /// The same of weeks (ISO)
    #[arg(long, default_value_t = 0, value_name = "N")]
    keep_weekly: u32,
    /// The same of months
    #[arg(long, default_value_t = 0, value_name = "N")]
    keep_monthly: u32,
    /// The same of years
    #[arg(long, default_value_t = 0, value_name = "N")]
    keep_yearly: u32,
    /// Keep all that are at most so much older than the newest: 36h, 7d, 2w, 3mo, 1y
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    keep_within: Option<u64>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let rules = KeepRules {
        last: arguments.keep_last,
        hourly: arguments.keep_hourly,
        daily: arguments.keep_daily,
        weekly: arguments.keep_weekly,
        monthly: arguments.keep_monthly,
        yearly: arguments.keep_yearly,
        within_seconds: arguments.keep_within.unwrap_or(0),
    };
    if rules == KeepRules::default() {
        return Err(ProgramError::usage(
            "no rule says what to keep",
            "give at least one, for example --keep-last 5; --dry-run shows what it would do",
        )
        .into());
    }
    let context = invocation.open_for(Run::of(arguments.dry_run))?;
    let report = forget(&context, None, rules, arguments.dry_run)?;
    print(&report, arguments.dry_run, invocation)?;
    Ok(ExitCode::Done)
}

/// A length of time; months and years are those of an ordinary calendar.
fn seconds(text: &str) -> Result<u64, String> {
    Ok(timespan::parse(text, Duration::from_secs(1)..=timespan::LONGEST)?.as_secs())
}

fn print(report: &ForgetReport, dry_run: bool, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let output = &mut invocation.output;
    if output.is_json() {
        let kept: Vec<_> = report
            .kept
            .iter()
            .map(|(listed, rules)| json!({ "snapshot": SnapshotLine::new(listed), "rules": rules }))
            .collect();
        let removed: Vec<_> = report.removed.iter().map(SnapshotLine::new).collect();
        return output.document(&json!({ "removed": removed, "kept": kept, "dry_run": dry_run }));
    }
    let removed = count(report.removed.len() as u64, "snapshot", "snapshots");
    let kept = report.kept.len();
    output.line(match dry_run {
        true => format!("would remove {removed} and keep {kept}"),
        false => format!("removed {removed} and kept {kept}; `copal gc` returns the space"),
    })?;
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("ID", Align::Left),
        ("CREATED (UTC)", Align::Left),
        ("", Align::Left),
        ("RULES", Align::Left),
    ]);
    let removed = report.removed.iter().map(|listed| (listed, "remove", String::new()));
    let kept = report.kept.iter().map(|(listed, rules)| (listed, "keep", rules.join(", ")));
    let mut all: Vec<_> = removed.chain(kept).collect();
    all.sort_by_key(|(listed, ..)| (listed.snapshot.created, listed.snapshot.id));
    for (listed, verdict, rules) in all {
        let snapshot = &listed.snapshot;
        table.row(vec![
            escaped(full_name(snapshot).as_bytes()).into(),
            short_id(snapshot.id).into(),
            time(snapshot.created).into(),
            verdict.into(),
            rules.into(),
        ]);
    }
    if table.is_empty() { Ok(()) } else { output.table(&table) }
}
