//! `copal forget`: removes snapshots by rule.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::Args;
use copal_engine::Monitor;
use copal_engine::catalogue::Listed;
use copal_engine::removal::{ForgetReport, ForgetRequest, Group, GroupBy, GroupReport, KeepRules, forget};
use copal_engine::timespan;
use serde_json::{Value, json};

use crate::commands::filter::FilterArguments;
use crate::commands::snapshot::{SnapshotLine, full_name};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::{Invocation, Run};
use crate::output::{Align, Table};
use crate::quantities;
use crate::shown::{count, escaped, short_id, time, uuid};

/// Removes the snapshots that no rule keeps; pinned ones always stay
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal forget --keep-last 5 --dry-run
  copal forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --keep-yearly 5
  copal forget --keep-within 30d && copal gc
  copal forget --keep-last 5 --host alder --path /srv/data
  copal forget --keep-last 5 --group-by none          all of the repository in one row

Each host and each set of source paths is a group of its own, and so is each application on each
host, and what was taken before deploys of it: rules count in each group apart. A snapshot that any
rule keeps stays. Periods are counted in UTC; each keeps its newest snapshot. A snapshot that is
dated in the future stays and counts for nothing. What a key signed that was removed pushes
nothing out; see docs/guide/keys.md. At a terminal you are asked before anything is removed.")]
pub(crate) struct Arguments {
    /// Keep the newest N
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = quantities::any::<u32>)]
    keep_last: u32,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = quantities::any::<u32>)]
    keep_hourly: u32,
    /// The same of days
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = quantities::any::<u32>)]
    keep_daily: u32,
    /// The same of weeks (ISO)
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = quantities::any::<u32>)]
    keep_weekly: u32,
    /// The same of months
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = quantities::any::<u32>)]
    keep_monthly: u32,
    /// The same of years
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = quantities::any::<u32>)]
    keep_yearly: u32,
    /// Keep all that are at most so much older than the newest of its group: 36h, 7d, 2w, 3mo, 1y
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    keep_within: Option<u64>,
    /// Keep what has this tag, whatever the rules say; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::tag::parse)]
    keep_tag: Vec<(String, String)>,
    /// What is counted apart: host, paths, tags with commas between them, or none
    #[arg(long, default_value = "host,paths", value_name = "WHAT", value_parser = group_by)]
    group_by: GroupBy,
    #[command(flatten)]
    filter: FilterArguments,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
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
    let filter = arguments.filter.filter()?;
    let context = invocation.open_for(Run::of(arguments.dry_run))?;
    let mut request = ForgetRequest {
        filter,
        rules,
        group_by: arguments.group_by,
        keep_tags: arguments.keep_tag.clone(),
        ..ForgetRequest::default()
    };
    if !arguments.yes && !arguments.dry_run && invocation.has_terminal() {
        let planned = forget(&context, &request, true)?;
        let agreed: Vec<_> = planned.removed().map(|listed| listed.root).collect();
        if !agreed.is_empty() {
            show(&planned, invocation);
            invocation.confirm(&format!("Remove {}?", count(agreed.len() as u64, "snapshot", "snapshots")))?;
        }
        request.agreed = Some(agreed);
    }
    let report = forget(&context, &request, arguments.dry_run)?;
    print(&report, arguments.dry_run, invocation)?;
    Ok(ExitCode::Done)
}

/// A length of time; months and years are those of an ordinary calendar.
fn seconds(text: &str) -> Result<u64, String> {
    Ok(timespan::parse(text, Duration::from_secs(1)..=timespan::LONGEST)?.as_secs())
}

/// What was removed, or would be: by groups, and all together.
fn document(report: &ForgetReport, dry_run: bool) -> Value {
    let ids = |listed: &Listed| uuid(listed.snapshot.id);
    let group = |decided: &GroupReport| {
        json!({
            "app": decided.group.app,
            "safety": decided.group.safety,
            "imported": decided.group.imported,
            "host": decided.group.host,
            "paths": decided.group.paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
            "tags": decided.group.tags.iter().cloned().collect::<BTreeMap<_, _>>(),
            "removed": decided.removed.iter().map(ids).collect::<Vec<_>>(),
            "kept": decided.kept.iter().map(|(listed, _)| ids(listed)).collect::<Vec<_>>(),
        })
    };
    let kept: Vec<_> =
        report.kept().map(|(listed, rules)| json!({ "snapshot": SnapshotLine::new(listed), "rules": rules })).collect();
    let removed: Vec<_> = report.removed().map(SnapshotLine::new).collect();
    let groups: Vec<_> = report.groups.iter().map(group).collect();
    json!({ "removed": removed, "kept": kept, "groups": groups, "dry_run": dry_run })
}

fn print(report: &ForgetReport, dry_run: bool, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let output = &mut invocation.output;
    if output.is_json() {
        return output.document(&document(report, dry_run));
    }
    let removed = count(report.removed().count() as u64, "snapshot", "snapshots");
    let kept = report.kept().count();
    output.line(match dry_run {
        true => format!("would remove {removed} and keep {kept}"),
        false => format!("removed {removed} and kept {kept}; `copal gc` returns the space"),
    })?;
    for decided in &report.groups {
        output.line(named(&decided.group))?;
        output.table(&table(decided))?;
    }
    Ok(())
}

/// What is about to be done, before the question.
fn show(report: &ForgetReport, invocation: &Invocation) {
    for decided in report.groups.iter().filter(|decided| !decided.removed.is_empty()) {
        invocation.monitor.notice(&format!("{} keeps {}, and loses", named(&decided.group), decided.kept.len()));
        for listed in &decided.removed {
            let snapshot = &listed.snapshot;
            let name = escaped(full_name(snapshot).as_bytes());
            invocation.monitor.notice(&format!("  {name}  {}  {}", short_id(snapshot.id), time(snapshot.created)));
        }
    }
}

/// "/srv/data on alder", "the application shop on alder".
fn named(group: &Group) -> String {
    let mut name = match (group.app.as_str(), group.paths.as_slice()) {
        ("", []) => "snapshots".to_owned(),
        ("", paths) => paths.iter().map(|path| escaped(path.as_os_str().as_bytes())).collect::<Vec<_>>().join(", "),
        (app, _) => format!("the application {}", escaped(app.as_bytes())),
    };
    if group.safety {
        name += ", before deploys,";
    }
    if group.imported {
        name += ", imported,";
    }
    if !group.host.is_empty() {
        name += &format!(" on {}", escaped(group.host.as_bytes()));
    }
    if !group.tags.is_empty() {
        let tags: Vec<String> = group.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        name += &format!(" with {}", escaped(tags.join(" ").as_bytes()));
    }
    name
}

fn table(decided: &GroupReport) -> Table {
    let mut table = Table::new(&[
        ("  NAME", Align::Left),
        ("ID", Align::Left),
        ("CREATED (UTC)", Align::Left),
        ("", Align::Left),
        ("RULES", Align::Left),
    ]);
    let removed = decided.removed.iter().map(|listed| (listed, "remove", String::new()));
    let kept = decided.kept.iter().map(|(listed, rules)| (listed, "keep", rules.join(", ")));
    let mut all: Vec<_> = removed.chain(kept).collect();
    all.sort_by_key(|(listed, ..)| (listed.snapshot.created, listed.snapshot.id));
    for (listed, verdict, rules) in all {
        let snapshot = &listed.snapshot;
        table.row(vec![
            format!("  {}", escaped(full_name(snapshot).as_bytes())).into(),
            short_id(snapshot.id).into(),
            time(snapshot.created).into(),
            verdict.into(),
            rules.into(),
        ]);
    }
    table
}

/// `host,paths,tags`, some of them, or `none`.
fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy { host: false, paths: false, tags: false };
    if text == "none" {
        return Ok(by);
    }
    for word in text.split(',') {
        match word {
            "host" => by.host = true,
            "paths" | "path" => by.paths = true,
            "tags" | "tag" => by.tags = true,
            _ => return Err(format!("{word:?} cannot be counted by: it is host, paths, tags or none")),
        }
    }
    Ok(by)
}
