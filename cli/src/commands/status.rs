//! `copal status`: what is under way on applications, and what failed. Reads the state folder only: no
//! repository, no password.

use clap::Args;
use copal_application::{CaptureRecord, records, under_way};
use serde::Serialize;

use crate::commands::application::dashed;
use crate::completion::applications;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::output::{Align, Table};
use crate::shown::{count, escaped, rfc3339, size, time};

/// Shows what is under way on applications: captures, uploads, failures
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal status
  copal status hub --json")]
pub(crate) struct Arguments {
    /// Only this application
    #[arg(add = applications())]
    app: Option<String>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    id: String,
    name: &'a str,
    app: &'a str,
    phase: &'static str,
    operation: Option<String>,
    created: String,
    captured: Option<String>,
    frozen_ms: f64,
    bytes_done: u64,
    bytes_total: u64,
    bytes_new: u64,
    resumable: bool,
    components: Vec<Component<'a>>,
    hooks_attempted: usize,
    hooks_failed: usize,
    error: Option<Failure<'a>>,
}

#[derive(Debug, Serialize)]
struct Component<'a> {
    label: &'a str,
    service: &'a str,
    kind: &'static str,
    phase: &'static str,
    method: &'a str,
    schema_version: Option<&'a str>,
    bytes_total: u64,
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Failure<'a> {
    code: &'a str,
    message: &'a str,
    time: String,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    invocation.recover();
    let Some(state) = invocation.environment.state_folder.clone() else {
        return Err(ProgramError::usage("there is no state folder", "set HOME or XDG_STATE_HOME").into());
    };
    let found = records(&state, arguments.app.as_deref())?;
    let mut operations = Vec::new();
    for record in &found {
        operations.push(under_way(&state, &record.app)?);
    }
    invocation.monitor.finish();
    if invocation.output.is_json() {
        for (record, operation) in found.iter().zip(operations) {
            invocation.output.element(&line(record, operation))?;
        }
        invocation.output.end_array()?;
    } else {
        print(&found, &operations, invocation)?;
    }
    Ok(ExitCode::Done)
}

fn line(record: &CaptureRecord, operation: Option<String>) -> Line<'_> {
    use copal_manifest::snapshot::HookOutcome;
    Line {
        id: dashed(&record.id),
        name: &record.name,
        app: &record.app,
        phase: record.phase.name(),
        operation,
        created: rfc3339(record.created),
        captured: record.captured.map(rfc3339),
        frozen_ms: record.frozen_microseconds as f64 / 1000.0,
        bytes_done: record.bytes_done,
        bytes_total: record.bytes_total,
        bytes_new: record.bytes_new,
        resumable: record.resumable,
        components: record
            .components
            .iter()
            .map(|state| Component {
                label: &state.label,
                service: &state.service,
                kind: state.kind.name(),
                phase: state.phase.name(),
                method: &state.method,
                schema_version: state.schema_version.as_deref(),
                bytes_total: state.bytes_total,
                error: state.error.as_deref(),
            })
            .collect(),
        hooks_attempted: record.hooks.len(),
        hooks_failed: record.hooks.iter().filter(|hook| hook.outcome != HookOutcome::Done).count(),
        error: record.error.as_ref().map(|error| Failure {
            code: &error.code,
            message: &error.message,
            time: rfc3339(error.time),
        }),
    }
}

fn print(
    found: &[CaptureRecord],
    operations: &[Option<String>],
    invocation: &mut Invocation,
) -> Result<(), ProgramError> {
    let output = &mut invocation.output;
    let number = count(found.len() as u64, "capture is", "captures are");
    output.line(format!("{number} under way or failed"))?;
    if found.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("CREATED (UTC)", Align::Left),
        ("PHASE", Align::Left),
        ("DONE", Align::Right),
        ("OF", Align::Right),
        ("WHAT", Align::Left),
    ]);
    for (record, operation) in found.iter().zip(operations) {
        let what = match (&record.error, operation) {
            (Some(error), _) => error.message.clone(),
            (None, Some(operation)) => format!("{operation} is at work"),
            (None, None) if record.resumable => "interrupted; the same create goes on with it".to_owned(),
            (None, None) => String::new(),
        };
        table.row(vec![
            escaped(format!("{}/{}", record.app, record.name).as_bytes()).into(),
            time(record.created).into(),
            record.phase.name().into(),
            size(record.bytes_done).into(),
            size(record.bytes_total).into(),
            escaped(what.as_bytes()).into(),
        ]);
    }
    output.table(&table)
}
