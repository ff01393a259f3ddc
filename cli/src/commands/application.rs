//! What `create` and `deploy` do with applications, and with sources that are no files.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use copal_application::config::{ConsistencyPolicy, Pinning, Service, SnapshotClass, Source, SourceSpec, TreeSpec};
use copal_application::{
    self as application, Application, CapturePhase, CaptureRecord, CaptureRequest, Captured, Configuration, Tools,
};
use copal_engine::Context;
use copal_engine::create::{CreateReport, Exclusions};
use copal_manifest::snapshot::Consistency;
use copal_source::postgres::PostgresSpec;
use copal_source::sqlite::SqliteSpec;
use serde::Serialize;

use crate::configuration;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::shown::{escaped, rfc3339, uuid};

/// A command of a source without more to say may take so long.
const LONG_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// Ends what a detached create tells the process that waits for it.
const TOLD: u8 = 0;

/// The application that a flag names.
pub(crate) fn configured(
    name: &str,
    class: Option<&str>,
    invocation: &Invocation,
) -> Result<Application, ProgramError> {
    let Configuration { mut applications, classes, .. } =
        configuration::load(invocation.global.config.as_deref(), &invocation.environment)?;
    let found = applications.remove(name).ok_or_else(|| {
        let known: Vec<String> = applications.keys().map(|name| format!("{name:?}")).collect();
        let hint = match known.as_slice() {
            [] => "name a configuration with --config or COPAL_CONFIG, or write copal.toml".to_owned(),
            known => format!("the configuration has {}", known.join(", ")),
        };
        ProgramError::usage(format!("no application is named {name:?}"), hint)
    })?;
    let Some(class) = class else { return Ok(found) };
    let known = || classes.keys().cloned().collect::<Vec<_>>().join(", ");
    let class = classes.get(class).cloned().ok_or_else(|| {
        ProgramError::usage(format!("there is no class {class:?}"), format!("the classes are {}", known()))
    })?;
    Ok(Application { class, ..found })
}

/// How an application is let go on when this process is killed: this program once more.
pub(crate) fn tools() -> Result<Tools, ProgramError> {
    Ok(Tools { watchdog: Some(vec![myself()?.into(), "watchdog".into()]) })
}

fn myself() -> Result<PathBuf, ProgramError> {
    std::env::current_exe().map_err(|error| ProgramError::file("looking for", Path::new("the program itself"), error))
}

/// A source as written on the command line, when it is no plain path.
pub(crate) fn spec_of(word: &OsStr) -> Result<Option<SourceSpec>, ProgramError> {
    let bytes = word.as_bytes();
    let Some(colon) = bytes.iter().position(|&byte| byte == b':') else { return Ok(None) };
    let rest = OsStr::from_bytes(&bytes[colon + 1..]);
    let empty = |what: &str| ProgramError::usage(format!("{} has no {what}", word.display()), "write KIND:WHAT");
    let path = || {
        let absolute = std::path::absolute(rest);
        absolute.map_err(|_| empty("path"))
    };
    Ok(Some(match &bytes[..colon] {
        b"sqlite" => SourceSpec::Sqlite(SqliteSpec { path: path()?, ..SqliteSpec::default() }),
        // `postgres://…` is a connection string as it stands.
        b"postgres" | b"postgresql" if rest.as_bytes().starts_with(b"//") => {
            SourceSpec::Postgres(PostgresSpec::of_dsn(&word.to_string_lossy()))
        }
        b"postgres" => SourceSpec::Postgres(PostgresSpec::of_dsn(&rest.to_string_lossy())),
        b"image" => SourceSpec::Image { path: path()? },
        b"config" => SourceSpec::Config { path: path()? },
        b"secret" => SourceSpec::Secret { path: path()? },
        b"command" => SourceSpec::Command { argv: argv(rest)?, restore: None, timeout: LONG_TIMEOUT },
        b"search" => {
            return Err(ProgramError::usage(
                "this version of copal takes no sources of the kind \"search\"",
                format!("for a path that begins with \"search:\" write ./{}", word.display()),
            ));
        }
        _ => return Ok(None),
    }))
}

/// Words between spaces, or a JSON array of them. No shell reads them.
fn argv(text: &OsStr) -> Result<Vec<String>, ProgramError> {
    let text = text.to_string_lossy();
    let words = match text.trim_start().starts_with('[') {
        true => serde_json::from_str::<Vec<String>>(&text).ok(),
        false => Some(text.split_whitespace().map(str::to_owned).collect()),
    };
    words.filter(|words| !words.is_empty()).ok_or_else(|| {
        ProgramError::usage(
            "a command source names no program",
            "write command:PROGRAM ARGUMENT…, or command:[\"PROGRAM\",\"ARGUMENT\"]",
        )
    })
}

/// Sources of a command line as an application without a name: captured one after the other, as they stand.
pub(crate) fn unnamed(sources: Vec<(String, SourceSpec)>, exclusions: &Exclusions) -> Application {
    let sources = sources.into_iter().map(|(label, spec)| {
        let spec = match spec {
            SourceSpec::Tree(tree) => SourceSpec::Tree(TreeSpec { exclusions: exclusions.clone(), ..tree }),
            spec => spec,
        };
        Source { label, spec, version_order: None }
    });
    let service =
        Service { name: String::new(), depends_on: Vec::new(), sources: sources.collect(), hooks: Vec::new() };
    Application {
        name: String::new(),
        namespace: String::new(),
        default: false,
        config_version: String::new(),
        max_snapshots: None,
        retention: None,
        class: SnapshotClass { name: String::new(), pinning: Pinning::Direct, capabilities: Default::default() },
        policy: ConsistencyPolicy { wanted: Consistency::Crash, partial: false },
        freeze_max: LONG_TIMEOUT,
        schedule: None,
        verify_schedule: None,
        services: vec![service],
    }
}

/// Hears of a capture once it is recorded.
pub(crate) type Told<'t> = dyn Fn(&CaptureRecord) -> Result<(), ProgramError> + 't;

/// Takes a snapshot of an application, or goes on with one of the same name whose upload was killed.
pub(crate) fn create(
    context: &Context,
    application: &Application,
    request: &CaptureRequest,
    told: Option<&Told<'_>>,
) -> anyhow::Result<CreateReport> {
    if let (Some(state), false) = (&context.state_folder, application.name.is_empty()) {
        let records = application::records(state, Some(&application.name))?;
        let begun = records
            .iter()
            .find(|record| record.name == request.name && record.phase == CapturePhase::Uploading && record.resumable);
        if let Some(record) = begun {
            context.monitor.notice("going on with an interrupted upload of this snapshot");
            if let Some(told) = told {
                told(record)?;
            }
            return Ok(application::resume(context, application, &record.id)?);
        }
    }
    let captured: Captured = application::capture(context, application, request, &tools()?)?;
    if let Some(told) = told {
        told(captured.record())?;
    }
    Ok(captured.upload(context)?)
}

/// A create without a name begins anew: says which uploads were interrupted, and how they go on.
pub(crate) fn tell_unfinished(context: &Context, app: &str) -> anyhow::Result<()> {
    let Some(state) = &context.state_folder else { return Ok(()) };
    let records = application::records(state, Some(app))?.into_iter();
    for record in records.filter(|record| record.phase == CapturePhase::Uploading && record.resumable) {
        let name = escaped(record.name.as_bytes());
        context.monitor.notice(&format!(
            "the upload of {name} was interrupted, or goes on elsewhere: `copal create {name} --app \
             {app}` goes on with it"
        ));
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct CapturedDocument<'a> {
    id: String,
    name: &'a str,
    app: &'a str,
    phase: &'static str,
    created: String,
    frozen_ms: f64,
    bytes: u64,
}

/// What a detached create says once the application goes on.
pub(crate) fn tell_captured(record: &CaptureRecord, json: bool) -> Result<(), ProgramError> {
    let text = if json {
        let document = CapturedDocument {
            id: dashed(&record.id),
            name: &record.name,
            app: &record.app,
            phase: record.phase.name(),
            created: rfc3339(record.created),
            frozen_ms: record.frozen_microseconds as f64 / 1000.0,
            bytes: record.bytes_total,
        };
        serde_json::to_string_pretty(&document).map_err(|error| ProgramError::Output(error.into()))?
    } else {
        let frozen = record.frozen_microseconds as f64 / 1000.0;
        format!(
            "captured {}/{}: the application was held for {frozen:.1} ms; the upload goes on (`copal status`)",
            record.app, record.name
        )
    };
    let mut output = io::stdout().lock();
    // Who waits for it may be gone: the capture stands all the same.
    let _ =
        output.write_all(text.as_bytes()).and_then(|()| output.write_all(&[b'\n', TOLD])).and_then(|()| output.flush());
    // From here on no terminal speaks to it.
    let _ = rustix::process::setsid();
    Ok(())
}

/// An id as UUIDs are written.
pub(crate) fn dashed(id: &str) -> String {
    match hex::decode(id.replace('-', "")).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) {
        Some(bytes) => uuid(copal_store::SnapshotId(bytes)),
        None => id.to_owned(),
    }
}

/// Runs the same command once more, detached, and returns when it has captured: with what it said, or with
/// its failure.
pub(crate) fn detach(invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let state = invocation.environment.state_folder.clone().ok_or_else(|| {
        ProgramError::usage("there is no home folder for the record of a detached create", "set XDG_STATE_HOME")
    })?;
    fs::create_dir_all(&state).map_err(|error| ProgramError::file("creating", &state, error))?;
    let log = state.join("detached.log");
    let errors = File::create(&log).map_err(|error| ProgramError::file("creating", &log, error))?;
    let words = std::env::args_os().skip(1).filter(|word| word != "--detach");
    let words: Vec<OsString> = words.chain(["--detached".into(), "--progress=none".into()]).collect();
    let failed = |error| ProgramError::file("starting", Path::new("a detached create"), error);
    let mut child =
        Command::new(myself()?).args(words).stdout(Stdio::piped()).stderr(errors).spawn().map_err(failed)?;
    let mut said = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        let mut byte = [0];
        while output.read(&mut byte).map_err(failed)? == 1 {
            if byte[0] == TOLD {
                invocation.output.write_all(&said).map_err(ProgramError::Output)?;
                return Ok(ExitCode::Done);
            }
            said.push(byte[0]);
        }
    }
    let status = child.wait().map_err(failed)?;
    // What cannot be said there changes nothing of how it ended.
    let _ = io::stderr().write_all(&fs::read(&log).unwrap_or_default());
    Ok(ExitCode::of_number(status.code().unwrap_or(1)))
}
