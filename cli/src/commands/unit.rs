//! `copal deploy --app`, and a database as a target: several sources put back as one unit, with what would
//! become of each path told before the question.

use copal_application::{
    self as application, Application, Error, KeptPlace, KeptSource, Look, RestoreReport, RestoreRequest,
    RestoredComponent,
};
use copal_engine::{Context, Monitor};
use serde::Serialize;

use super::application::tools;
use super::deployed::{OutlineDocument, StayedDocument, lines, stayed_lines};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::output::JsonPath;
use crate::shown::{count, duration, escaped, size, uuid};

#[derive(Debug, Serialize)]
struct DeployDocument<'a> {
    id: String,
    target: String,
    mode: &'static str,
    safety: Option<String>,
    migrated: bool,
    bytes_total: u64,
    bytes_written: u64,
    down_ms: u64,
    duration_ms: u64,
    dry_run: bool,
    components: Vec<DeployedDocument<'a>>,
    kept: Vec<KeptDocument<'a>>,
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
struct DeployedDocument<'a> {
    label: &'a str,
    target: String,
    bytes_total: u64,
    bytes_written: u64,
    changes: Option<OutlineDocument>,
    stays: Option<Vec<StayedDocument>>,
}

impl<'a> DeployedDocument<'a> {
    fn new(component: &'a RestoredComponent) -> Self {
        let outline = component.outline.as_ref();
        Self {
            label: &component.label,
            target: component.target.display().to_string(),
            bytes_total: component.bytes_total,
            bytes_written: component.bytes_written,
            changes: outline.map(|(outline, _)| OutlineDocument::new(outline)),
            stays: outline.map(|(_, stays)| stays.iter().map(StayedDocument::new).collect()),
        }
    }
}

/// What could not be captured as what it is. Of a dry run it is nowhere else yet.
#[derive(Debug, Serialize)]
struct KeptDocument<'a> {
    label: &'a str,
    why: &'a str,
    /// Labels in the safety snapshot that have its files, byte for byte.
    snapshot: Option<&'a [String]>,
    /// Where it stands now.
    beside: Option<JsonPath>,
    /// What it is called on its server now.
    databases: Option<&'a [String]>,
}

impl<'a> KeptDocument<'a> {
    fn new(kept: &'a KeptSource) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let (mut snapshot, mut beside, mut databases) = (None, None, None);
        match &kept.place {
            None => {}
            Some(KeptPlace::Snapshot(labels)) => snapshot = Some(labels.as_slice()),
            Some(KeptPlace::Beside(path)) => beside = Some(JsonPath::new(path.as_os_str().as_bytes())),
            Some(KeptPlace::Databases(names)) => databases = Some(names.as_slice()),
        }
        Self { label: &kept.label, why: &kept.why, snapshot, beside, databases }
    }
}

/// Puts an application back. Where nobody can say which schema is newer, a person may.
pub(crate) fn deploy(
    context: &Context,
    application: &Application,
    request: &RestoreRequest,
    question: Option<&str>,
    invocation: &mut Invocation,
) -> anyhow::Result<ExitCode> {
    let app = application.name.as_str();
    let report = carry_out(context, application, request, question, invocation)?;
    let sources = count(report.components.len() as u64, "source", "sources");
    let said = format!("{app}/{} to the application {app}, {sources}", report.name);
    print(&report, app, &said, request, invocation)?;
    Ok(ExitCode::Done)
}

/// Rehearses and asks, where there is a question, then deploys.
pub(crate) fn carry_out(
    context: &Context,
    application: &Application,
    request: &RestoreRequest,
    question: Option<&str>,
    invocation: &mut Invocation,
) -> anyhow::Result<RestoreReport> {
    let tools = tools()?;
    let request = RestoreRequest { look: if request.dry_run { Look::Paths } else { Look::No }, ..request.clone() };
    if let Some(question) = question {
        // Which schema is newer is asked apart.
        let rehearsal = RestoreRequest { dry_run: true, look: Look::Paths, any_schema: true, ..request.clone() };
        let report = application::restore(context, application, &rehearsal, &tools)?;
        invocation.monitor.finish();
        let outlines = outline_lines(&report).into_iter();
        outlines.for_each(|line| invocation.monitor.notice(&line));
        standing_lines(&report).iter().for_each(|line| invocation.monitor.notice(line));
        invocation.confirm(question)?;
    }
    let report = match application::restore(context, application, &request, &tools) {
        Err(Error::SchemaUnordered { label, found, supported }) if question.is_some() => {
            invocation.monitor.finish();
            invocation.confirm(&format!(
                "{label} has the schema {found:?}, and here is {supported:?}: which is newer is not known. \
                 Deploy it and have it migrated?"
            ))?;
            application::restore(context, application, &RestoreRequest { any_schema: true, ..request }, &tools)?
        }
        outcome => outcome?,
    };
    invocation.monitor.finish();
    Ok(report)
}

/// What would become of each source, for people.
fn outline_lines(report: &RestoreReport) -> Vec<String> {
    let mut said = Vec::new();
    for component in &report.components {
        let target = component.target.display().to_string();
        let place = if target.is_empty() { String::new() } else { format!(", {}", escaped(target.as_bytes())) };
        said.push(format!("{}{place}:", escaped(component.label.as_bytes())));
        match &component.outline {
            Some((outline, stays)) => {
                said.extend(lines(outline).into_iter().chain(stayed_lines(stays)).map(|line| format!("  {line}")));
            }
            None => said.push("  what changes is not known beforehand".to_owned()),
        }
    }
    said
}

/// What of that which stands there cannot be captured as what it is, and more that is to be known before.
fn standing_lines(report: &RestoreReport) -> Vec<String> {
    report.kept.iter().map(KeptSource::sentence).chain(report.warnings.iter().cloned()).collect()
}

/// Tells what was deployed: `target` for programs, `said` for people.
pub(crate) fn print(
    report: &RestoreReport,
    target: &str,
    said: &str,
    request: &RestoreRequest,
    invocation: &mut Invocation,
) -> Result<(), ProgramError> {
    let dry_run = request.dry_run;
    let total = report.components.iter().map(|one| one.bytes_total).sum();
    let written = report.components.iter().map(|one| one.bytes_written).sum();
    let output = &mut invocation.output;
    if output.is_json() {
        return output.document(&DeployDocument {
            id: uuid(report.snapshot),
            target: target.to_owned(),
            mode: "unit",
            safety: report.safety.map(uuid),
            migrated: report.migrated,
            bytes_total: total,
            bytes_written: written,
            down_ms: report.down_milliseconds,
            duration_ms: report.duration_ms,
            dry_run,
            components: report.components.iter().map(DeployedDocument::new).collect(),
            kept: report.kept.iter().map(KeptDocument::new).collect(),
            warnings: &report.warnings,
        });
    }
    let done = if dry_run { "would deploy" } else { "deployed" };
    output.line(format!("{done} {said}"))?;
    let migrated = if report.migrated { "yes: its schema is older" } else { "not needed" };
    if dry_run {
        let safety = if request.safety { "taken first, of what stands there then" } else { "none" };
        let figures =
            [("size", size(total)), ("migration", migrated.to_owned()), ("safety snapshot", safety.to_owned())];
        output.figures(&figures)?;
        for line in outline_lines(report) {
            output.line(line)?;
        }
    } else {
        output.figures(&[
            ("size", size(total)),
            ("written", size(written)),
            ("migration", migrated.to_owned()),
            ("safety snapshot", report.safety.map_or_else(|| "none".to_owned(), uuid)),
            ("down", duration(report.down_milliseconds)),
            ("time", duration(report.duration_ms)),
        ])?;
    }
    let said = if dry_run { standing_lines(report) } else { report.warnings.clone() };
    said.iter().for_each(|line| invocation.monitor.notice(line));
    Ok(())
}
