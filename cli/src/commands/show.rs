//! `copal show`: all that is known of one snapshot.

use std::collections::BTreeMap;

use clap::Args;
use copal_engine::Context;
use copal_engine::catalogue::{Catalogue, Listed};
use copal_manifest::snapshot::{Consistency, HookOutcome, LiveRecord, SourceRecord};
use copal_store::roles::Role;
use copal_store::signing::SignerId;
use serde::Serialize;

use crate::commands::filter::FilterArguments;
use crate::commands::snapshot::{full_name, origin, phase, tags};
use crate::completion::snapshots;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::output::{Align, JsonPath, Table};
use crate::shown::{count, escaped, rfc3339, size, time, uuid};

/// Shows all that is known of one snapshot
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal show monday
  copal show latest --json
  copal show latest --path /srv/data             the newest that was taken from there
  copal show 01934f1e-2a4b                       an id, or as much of it as tells it from others")]
pub(crate) struct Arguments {
    /// Name, APP/NAME, id or its prefix, latest, latest:APP, or latest:PATH
    #[arg(value_name = "SNAPSHOT", add = snapshots())]
    name: String,
    #[command(flatten)]
    filter: FilterArguments,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    id: String,
    name: &'a str,
    app: &'a str,
    phase: &'static str,
    created: String,
    completed: String,
    origin: &'static str,
    host: &'a str,
    user: &'a str,
    program: &'a str,
    parent: Option<String>,
    files: u64,
    bytes: u64,
    bytes_read: u64,
    bytes_new: u64,
    stored_new: u64,
    chunks_new: u64,
    digest: &'a str,
    key: Option<Key>,
    tags: BTreeMap<&'a str, &'a str>,
    pinned: bool,
    sources: Vec<Source<'a>>,
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live<'a>>,
}

/// What is known of a capture of databases or of an application.
#[derive(Debug, Serialize)]
struct Live<'a> {
    config_version: &'a str,
    class: &'a str,
    trigger: &'a str,
    consistency: &'static str,
    captured: String,
    frozen_ms: f64,
    safety: bool,
    components: Vec<LiveComponent<'a>>,
    hooks: Vec<LiveHook<'a>>,
}

#[derive(Debug, Serialize)]
struct LiveComponent<'a> {
    label: &'a str,
    service: &'a str,
    schema_version: Option<&'a str>,
    method: &'a str,
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct LiveHook<'a> {
    service: &'a str,
    when: &'a str,
    what: &'a str,
    outcome: &'static str,
    detail: &'a str,
    milliseconds: f64,
}

fn live(record: &LiveRecord) -> Live<'_> {
    Live {
        config_version: &record.config_version,
        class: &record.class,
        trigger: &record.trigger,
        consistency: match record.consistency {
            Consistency::Application => "application",
            Consistency::Crash => "crash",
        },
        captured: rfc3339(record.captured),
        frozen_ms: record.frozen_microseconds as f64 / 1000.0,
        safety: record.safety,
        components: record
            .components
            .iter()
            .map(|component| LiveComponent {
                label: &component.label,
                service: &component.service,
                schema_version: component.schema_version.as_deref(),
                method: &component.method,
                error: component.error.as_deref(),
            })
            .collect(),
        hooks: record
            .hooks
            .iter()
            .map(|hook| LiveHook {
                service: &hook.service,
                when: &hook.when,
                what: &hook.what,
                outcome: match hook.outcome {
                    HookOutcome::Done => "done",
                    HookOutcome::Failed => "failed",
                    HookOutcome::TimedOut => "timed_out",
                },
                detail: &hook.detail,
                milliseconds: hook.microseconds as f64 / 1000.0,
            })
            .collect(),
    }
}

#[derive(Debug, Serialize)]
struct Source<'a> {
    label: &'a str,
    kind: &'static str,
    #[serde(flatten)]
    path: JsonPath,
    files: u64,
    entries: u64,
    bytes: u64,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    let catalogue = Catalogue::load(&context)?;
    let listed = catalogue.find_among(&arguments.name, &arguments.filter.filter()?)?;
    if invocation.output.is_json() {
        invocation.output.document(&document(&context, listed))?;
    } else {
        print(&context, listed, invocation)?;
    }
    Ok(ExitCode::Done)
}

/// The key that signed a snapshot.
#[derive(Debug, Serialize)]
struct Key {
    /// What its signatures are known by.
    id: String,
    /// `null`: it is in no list of keys of this repository.
    label: Option<String>,
    /// `null`: it was removed, or never there.
    role: Option<&'static str>,
}

fn key_of(context: &Context, signer: SignerId) -> Key {
    let author = context.repository.keys().author(signer);
    Key { id: signer.to_string(), label: author.label, role: author.role.map(Role::name) }
}

fn key_line(context: &Context, signer: Option<SignerId>) -> String {
    let Some(signer) = signer else { return "not signed".to_owned() };
    let key = key_of(context, signer);
    let short = &key.id[..16];
    match (key.label, key.role) {
        (Some(label), Some(role)) => format!("{} {short} ({role})", escaped(label.as_bytes())).trim_start().to_owned(),
        (Some(label), None) => format!("{} {short} (removed)", escaped(label.as_bytes())).trim_start().to_owned(),
        (None, _) => format!("{short}, which no owner of this repository knows"),
    }
}

fn document<'l>(context: &Context, listed: &'l Listed) -> Document<'l> {
    let snapshot = &listed.snapshot;
    let source = |source: &'_ SourceRecord| JsonPath::new(&source.path);
    Document {
        id: uuid(snapshot.id),
        name: &snapshot.name,
        app: &snapshot.app,
        phase: phase(snapshot.phase),
        created: rfc3339(snapshot.created),
        completed: rfc3339(snapshot.completed),
        origin: origin(snapshot.origin),
        host: &snapshot.host,
        user: &snapshot.user,
        program: &snapshot.program,
        parent: snapshot.parent.map(uuid),
        files: snapshot.files(),
        bytes: snapshot.bytes(),
        bytes_read: snapshot.bytes_read,
        bytes_new: snapshot.bytes_new,
        stored_new: snapshot.stored_new,
        chunks_new: snapshot.chunks_new,
        digest: &listed.digest,
        key: listed.signer.map(|signer| key_of(context, signer)),
        tags: snapshot.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        pinned: snapshot.pinned,
        sources: snapshot
            .sources
            .iter()
            .map(|record| Source {
                label: &record.label,
                kind: record.kind.name(),
                path: source(record),
                files: record.files,
                entries: record.entries,
                bytes: record.bytes,
            })
            .collect(),
        warnings: &snapshot.warnings,
        live: snapshot.live.as_ref().map(live),
    }
}

fn print(context: &Context, listed: &Listed, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let snapshot = &listed.snapshot;
    let output = &mut invocation.output;
    output.line(format!("the snapshot {}", escaped(full_name(snapshot).as_bytes())))?;
    let parent = snapshot.parent.map_or_else(|| "none".to_owned(), uuid);
    let text = |text: &str| escaped(text.as_bytes());
    output.figures(&[
        ("id", uuid(snapshot.id)),
        ("phase", phase(snapshot.phase).to_owned()),
        ("created", format!("{} UTC", time(snapshot.created))),
        ("completed", format!("{} UTC", time(snapshot.completed))),
        ("origin", format!("{} on {} by {}", origin(snapshot.origin), text(&snapshot.host), text(&snapshot.program))),
        ("user", if snapshot.user.is_empty() { "unknown".to_owned() } else { text(&snapshot.user) }),
        ("compared with", parent),
        ("tags", text(&tags(snapshot))),
        ("pinned", if snapshot.pinned { "yes" } else { "no" }.to_owned()),
        ("files", snapshot.files().to_string()),
        ("size", size(snapshot.bytes())),
        ("read", size(snapshot.bytes_read)),
        (
            "new",
            format!(
                "{} in {}, stored in {}",
                size(snapshot.bytes_new),
                count(snapshot.chunks_new, "chunk", "chunks"),
                size(snapshot.stored_new)
            ),
        ),
        ("digest", listed.digest.clone()),
        ("key", key_line(context, listed.signer)),
    ])?;
    output.line("sources:")?;
    let mut table = Table::new(&[
        ("  LABEL", Align::Left),
        ("KIND", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("PATH", Align::Left),
    ]);
    for source in &snapshot.sources {
        let label = if source.label.is_empty() { "-" } else { &source.label };
        table.row(vec![
            format!("  {}", text(label)).into(),
            source.kind.name().into(),
            source.files.to_string().into(),
            size(source.bytes).into(),
            output.name(&source.path),
        ]);
    }
    output.table(&table)?;
    if !snapshot.warnings.is_empty() {
        output.line("warnings:")?;
        for warning in &snapshot.warnings {
            output.line(format!("  {}", text(warning)))?;
        }
    }
    Ok(())
}
