//! What a deploy or a restore did, or would do to each path: for people and for programs, and before the
//! question.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use copal_engine::deploy::{DeployReport, DeployRequest, Outline, Stayed, deploy};
use copal_engine::{Context, Monitor};
use serde::Serialize;

use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::output::JsonPath;
use crate::shown::{count, duration, escaped, rate, size, uuid};

/// Paths of each list that a person is shown; programs get all of them.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Serialize)]
struct Document<'a> {
    id: String,
    target: String,
    mode: &'static str,
    files_total: u64,
    files_changed: u64,
    bytes_total: u64,
    bytes_written: u64,
    bytes_kept: u64,
    duration_ms: u64,
    dry_run: bool,
    stays: Vec<StayedDocument>,
    changes: Option<OutlineDocument>,
    skipped: Vec<JsonPath>,
    warnings: &'a [String],
}

/// What a person is asked before anything is touched.
pub(crate) struct Question<'a> {
    pub(crate) text: &'a str,
    /// Whether what would be done is worth it.
    pub(crate) is_due: &'a dyn Fn(&DeployReport) -> bool,
}

/// Rehearses and asks, where there is a question; deploys, and says what was done: `done` is the verb and the
/// snapshot.
pub(crate) fn carry_out(
    context: &Context,
    request: &DeployRequest,
    question: Option<Question<'_>>,
    done: &str,
    invocation: &mut Invocation,
) -> anyhow::Result<ExitCode> {
    if let Some(question) = question {
        let rehearsal = deploy(context, &DeployRequest { dry_run: true, ..request.clone() })?;
        if (question.is_due)(&rehearsal) {
            show(&rehearsal, invocation);
            invocation.confirm(question.text)?;
        }
    }
    let report = deploy(context, request)?;
    invocation.monitor.finish();
    print(&report, &format!("{done} to"), request.dry_run, invocation)?;
    // Whether all of the snapshot is there.
    Ok(if report.skipped.is_empty() { ExitCode::Done } else { ExitCode::SomeUnread })
}

/// What was done, or would be; `said` is how the first line begins.
fn print(report: &DeployReport, said: &str, dry_run: bool, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let output = &mut invocation.output;
    if output.is_json() {
        return output.document(&Document {
            id: uuid(report.snapshot),
            target: report.target.to_string_lossy().into_owned(),
            mode: report.mode.name(),
            files_total: report.files_total,
            files_changed: report.files_changed,
            bytes_total: report.bytes_total,
            bytes_written: report.bytes_written,
            bytes_kept: report.bytes_kept,
            duration_ms: report.duration_ms,
            dry_run,
            stays: report.stays.iter().map(StayedDocument::new).collect(),
            changes: report.outline.as_ref().map(OutlineDocument::new),
            skipped: report.skipped.iter().map(|path| JsonPath::new(path.as_os_str().as_bytes())).collect(),
            warnings: &report.warnings,
        });
    }
    let target = output.name(report.target.as_os_str().as_bytes());
    output.line([said.as_bytes(), b" ", &target].concat())?;
    output.figures(&[
        ("mode", report.mode.name().to_owned()),
        ("files", format!("{}, {} changed", report.files_total, report.files_changed)),
        ("size", size(report.bytes_total)),
        ("written", size(report.bytes_written)),
        ("kept", size(report.bytes_kept)),
        ("time", format!("{}, {}", duration(report.duration_ms), rate(report.bytes_total, report.duration_ms))),
    ])?;
    for line in report.outline.iter().flat_map(lines) {
        output.line(line)?;
    }
    stayed_lines(&report.stays).iter().for_each(|line| invocation.monitor.notice(line));
    if !report.skipped.is_empty() {
        invocation.monitor.notice(&count(
            report.skipped.len() as u64,
            "device was left out:",
            "devices were left out:",
        ));
        for path in &report.skipped {
            invocation.monitor.notice(&escaped(path.as_os_str().as_bytes()));
        }
    }
    if !report.warnings.is_empty() {
        let number = report.warnings.len();
        invocation.monitor.notice(&count(number as u64, "warning:", "warnings:"));
        report.warnings.iter().take(SHOWN_MAX).for_each(|warning| invocation.monitor.notice(warning));
        if number > SHOWN_MAX {
            invocation.monitor.notice(&format!("and {} more; --json has them all", number - SHOWN_MAX));
        }
    }
    Ok(())
}

/// What would be done, before the question whether it shall be.
fn show(rehearsal: &DeployReport, invocation: &Invocation) {
    invocation.monitor.finish();
    let lines = rehearsal.outline.iter().flat_map(lines).chain(stayed_lines(&rehearsal.stays));
    lines.for_each(|line| invocation.monitor.notice(&line));
}

/// The lists, for programs.
#[derive(Debug, Serialize)]
pub(super) struct OutlineDocument {
    removed: Vec<JsonPath>,
    replaced: Vec<JsonPath>,
    added: Vec<JsonPath>,
    metadata: Vec<JsonPath>,
}

impl OutlineDocument {
    pub(super) fn new(outline: &Outline) -> Self {
        let paths = |list: &[PathBuf]| list.iter().map(|path| JsonPath::new(path.as_os_str().as_bytes())).collect();
        Self {
            removed: paths(&outline.removed),
            replaced: paths(&outline.replaced),
            added: paths(&outline.added),
            metadata: paths(&outline.metadata),
        }
    }
}

/// Something that stays, for programs.
#[derive(Debug, Serialize)]
pub(super) struct StayedDocument {
    #[serde(flatten)]
    path: JsonPath,
    why: &'static str,
}

impl StayedDocument {
    pub(super) fn new(stayed: &Stayed) -> Self {
        let why = if stayed.is_mount_point { "mounted" } else { "left out of the snapshot" };
        Self { path: JsonPath::new(stayed.path.as_os_str().as_bytes()), why }
    }
}

/// The lists, for people: a line with a number, then the first paths.
pub(super) fn lines(outline: &Outline) -> Vec<String> {
    let mut lines = Vec::new();
    let lists = [
        ("removed", &outline.removed),
        ("replaced", &outline.replaced),
        ("added", &outline.added),
        ("other metadata", &outline.metadata),
    ];
    for (word, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        lines.push(format!("{word}: {}", count(list.len() as u64, "path", "paths")));
        push_first(&mut lines, list);
    }
    if lines.is_empty() {
        lines.push("nothing would change".to_owned());
    }
    lines
}

/// What stays, for people; nothing when nothing does.
pub(super) fn stayed_lines(stays: &[Stayed]) -> Vec<String> {
    let mut lines = Vec::new();
    for (is_mount_point, why) in [(false, "left out of the snapshot"), (true, "mounted there")] {
        let chosen = stays.iter().filter(|stayed| stayed.is_mount_point == is_mount_point);
        let paths: Vec<PathBuf> = chosen.map(|stayed| stayed.path.clone()).collect();
        if !paths.is_empty() {
            let said = count(paths.len() as u64, "path stays where it is", "paths stay where they are");
            lines.push(format!("{said}, {why}:"));
            push_first(&mut lines, &paths);
        }
    }
    lines
}

fn push_first(lines: &mut Vec<String>, paths: &[PathBuf]) {
    lines.extend(paths.iter().take(SHOWN_MAX).map(|path| format!("  {}", escaped(path.as_os_str().as_bytes()))));
    if paths.len() > SHOWN_MAX {
        lines.push(format!("  and {} more", paths.len() - SHOWN_MAX));
    }
}
