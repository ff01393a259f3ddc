//! `copal diff`: what changed between two snapshots, or between a snapshot and a folder on disk.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::Args;
use copal_engine::catalogue::is_by_age;
use copal_engine::inspect::{DiffItem, DiffReport, diff, diff_with_disk};
use copal_engine::{Context, Error};
use serde::Serialize;

use crate::commands::filter::FilterArguments;
use crate::commands::latest;
use crate::completion::{snapshots, snapshots_and_paths};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::output::{Align, JsonPath, Table};
use crate::shown::size;

/// Shows what changed from A to B, with sizes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal diff monday tuesday
  copal diff monday /srv/data            a folder on disk stands for B
  copal diff latest ./latest             a folder that is named like a snapshot

Lines begin with + for what is only in B, - for what is only in A, and M for what differs in content
or metadata.")]
pub(crate) struct Arguments {
    /// Snapshot
    #[arg(add = snapshots())]
    a: String,
    /// Snapshot, or a folder or file on disk
    #[arg(add = snapshots_and_paths())]
    b: OsString,
    #[command(flatten)]
    filter: FilterArguments,
}

#[derive(Debug, Serialize)]
struct Document {
    added: Vec<Item>,
    removed: Vec<Item>,
    changed: Vec<Item>,
}

#[derive(Debug, Serialize)]
struct Item {
    #[serde(flatten)]
    path: JsonPath,
    size_old: Option<u64>,
    size_new: Option<u64>,
}

impl Item {
    fn new(item: &DiffItem) -> Self {
        Self { path: JsonPath::new(&item.path), size_old: item.size_old, size_new: item.size_new }
    }
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    let filter = arguments.filter.filter()?;
    let is_chosen = |word: &OsStr| !filter.is_empty() && word.to_str().is_some_and(is_by_age);
    let (of_a, of_b) = (is_chosen(OsStr::new(&arguments.a)), is_chosen(&arguments.b));
    if !filter.is_empty() && !of_a && !of_b {
        let what = "a host, a path, a tag or an application choose only where A or B is `latest`";
        return Err(ProgramError::usage(what, "leave the flags away, or write latest for one of them").into());
    }
    let chosen = |word: &str| latest::meant(&context, word, &filter);
    let a = if of_a { chosen(&arguments.a)? } else { arguments.a.clone() };
    let b = if of_b { chosen(&arguments.b.to_string_lossy())?.into() } else { arguments.b.clone() };
    let report = compare(&context, &a, &b)?;
    if invocation.output.is_json() {
        let items = |items: &[DiffItem]| items.iter().map(Item::new).collect();
        invocation.output.document(&Document {
            added: items(&report.added),
            removed: items(&report.removed),
            changed: items(&report.changed),
        })?;
    } else {
        print(&report, arguments, invocation)?;
    }
    Ok(ExitCode::Done)
}

/// B is a snapshot when one is named so, unless it is written as a path.
fn compare(context: &Context, a: &str, b: &OsStr) -> Result<DiffReport, Error> {
    let folder = Path::new(b);
    let name = b.to_str().filter(|name| !is_written_as_path(name));
    match name.map(|name| diff(context, a, name)) {
        None => diff_with_disk(context, a, folder),
        Some(Err(Error::NoSuchSnapshot(missing))) if b == missing.as_str() && missing != a && folder.exists() => {
            diff_with_disk(context, a, folder)
        }
        Some(outcome) => outcome,
    }
}

fn is_written_as_path(name: &str) -> bool {
    matches!(name, "." | "..") || ["/", "./", "../"].iter().any(|begin| name.starts_with(begin))
}

fn print(report: &DiffReport, arguments: &Arguments, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let output = &mut invocation.output;
    let (added, removed, changed) = (report.added.len(), report.removed.len(), report.changed.len());
    let mut first =
        format!("{added} added, {removed} removed, {changed} changed from {} to ", arguments.a).into_bytes();
    first.extend(output.name(arguments.b.as_bytes()));
    output.line(first)?;
    let mut all: Vec<(&DiffItem, &str)> = Vec::with_capacity(added + removed + changed);
    all.extend(report.added.iter().map(|item| (item, "+")));
    all.extend(report.removed.iter().map(|item| (item, "-")));
    all.extend(report.changed.iter().map(|item| (item, "M")));
    // Names joined by 0x00 sort as folders do: what is in one stands below it.
    all.sort_by_cached_key(|(item, _)| item.path.iter().map(|&b| if b == b'/' { 0 } else { b }).collect::<Vec<u8>>());
    if all.is_empty() {
        return Ok(());
    }
    let mut table =
        Table::new(&[("", Align::Left), ("OLD", Align::Right), ("NEW", Align::Right), ("PATH", Align::Left)]);
    for (item, mark) in all {
        let path = if item.path.is_empty() { b".".to_vec() } else { output.name(&item.path) };
        table.row(vec![mark.into(), shown_size(item.size_old), shown_size(item.size_new), path]);
    }
    output.table(&table)
}

fn shown_size(bytes: Option<u64>) -> Vec<u8> {
    bytes.map(size).unwrap_or_default().into()
}
