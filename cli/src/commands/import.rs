//! `copal import`: takes snapshots from a bundle.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use clap::{Args, ValueHint};
use copal_bundle::hub_tar::{self, HubImportRequest, HubLimits};
use copal_bundle::{ImportRequest, Imported, import};
use copal_engine::{Context, Monitor};
use serde::Serialize;

use crate::commands::export::Format;
use crate::commands::snapshot::{full_name, origin};
use crate::completion::applications;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::password::{Ask, bundle_password};
use crate::shown::{count, duration, escaped, rfc3339, size, uuid};

/// Takes snapshots from a bundle
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal import monday.copal
  copal import monday.copal theirs                 under another name
  copal import - < monday.copal
  copal import hub.tar.gz monday --app hub         what a Hub has exported

A bundle is read wholly before anything is stored. An interrupted import goes on with what
was stored; snapshots that are here already are passed over.")]
pub(crate) struct Arguments {
    /// The bundle; `-` is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: OsString,
    /// Another name for its only snapshot
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Another application
    #[arg(long, value_name = "APP", add = applications())]
    app: Option<String>,
    /// The format; without it, what the file begins like
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Of a hub-tar: most bytes that it may hold
    #[arg(long, value_name = "SIZE")]
    max_size: Option<bytesize::ByteSize>,
}

#[derive(Debug, Serialize)]
pub(super) struct Document {
    pub(super) snapshots: Vec<Line>,
    pub(super) bytes: u64,
    pub(super) bytes_new: u64,
    pub(super) stored_new: u64,
    pub(super) chunks_new: u64,
    pub(super) duration_ms: u64,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Line {
    id: String,
    name: String,
    app: String,
    created: String,
    origin: &'static str,
    digest: String,
    was_here: bool,
}

impl Line {
    pub(super) fn new(imported: &Imported) -> Self {
        let snapshot = &imported.snapshot;
        Self {
            id: uuid(snapshot.id),
            name: snapshot.name.clone(),
            app: snapshot.app.clone(),
            created: rfc3339(snapshot.created),
            origin: origin(snapshot.origin),
            digest: imported.digest.clone(),
            was_here: imported.was_here,
        }
    }
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let mut file = open(arguments)?;
    let format = match arguments.format {
        Some(format) => format,
        None => format_of(&mut file)?,
    };
    let context = invocation.open()?;
    let password = bundle_password(invocation.global.bundle_password_file.as_deref(), Ask::Once)?;
    let (document, names) = match format {
        Format::Native => {
            let password = password.ok_or_else(|| {
                let hint = "set COPAL_BUNDLE_PASSWORD or COPAL_BUNDLE_PASSWORD_FILE, or use --bundle-password-file";
                ProgramError::usage("the bundle's password is needed", hint)
            })?;
            let request = ImportRequest { password, name: arguments.name.clone(), app: arguments.app.clone() };
            native(&context, file, &request)?
        }
        Format::HubTar => {
            let mut limits = HubLimits::default();
            if let Some(most) = arguments.max_size {
                limits.bytes_max = most.as_u64();
            }
            let app = arguments.app.clone().unwrap_or_default();
            hub(&context, file, &HubImportRequest { name: arguments.name.clone(), app, password, limits })?
        }
    };
    invocation.monitor.finish();
    for warning in &document.warnings {
        invocation.monitor.notice(warning);
    }
    report("imported", &document, &names, invocation)?;
    Ok(ExitCode::Done)
}

/// Standard input goes into a file without a name first, as sealed as it comes: a bundle is read twice.
fn open(arguments: &Arguments) -> Result<File, ProgramError> {
    let path = Path::new(&arguments.file);
    if arguments.file != "-" {
        return File::open(path).map_err(|error| ProgramError::file("opening", path, error));
    }
    let failed = |error| ProgramError::file("keeping", Path::new("standard input"), error);
    let mut file = tempfile::tempfile().map_err(failed)?;
    io::copy(&mut io::stdin().lock(), &mut file).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(file)
}

/// What a file is, by its beginning.
pub(super) fn format_of(file: &mut File) -> Result<Format, ProgramError> {
    let failed = |error| ProgramError::file("reading", Path::new("the bundle"), error);
    let mut beginning = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Read::by_ref(file).take(8).read_to_end(&mut beginning).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(if hub_tar::is_gzip(&beginning) { Format::HubTar } else { Format::Native })
}

fn native(context: &Context, file: File, request: &ImportRequest) -> anyhow::Result<(Document, Vec<String>)> {
    let report = import(context, file, request)?;
    let names = report.snapshots.iter().map(|imported| full_name(&imported.snapshot)).collect();
    let document = Document {
        snapshots: report.snapshots.iter().map(Line::new).collect(),
        bytes: report.bytes,
        bytes_new: report.bytes_new,
        stored_new: report.stored_new,
        chunks_new: report.chunks_new,
        duration_ms: report.duration_ms,
        warnings: report.warnings,
    };
    Ok((document, names))
}

fn hub(context: &Context, file: File, request: &HubImportRequest) -> anyhow::Result<(Document, Vec<String>)> {
    let report = hub_tar::import(context, file, request)?;
    let names = vec![full_name(&report.imported.snapshot)];
    let document = Document {
        snapshots: vec![Line::new(&report.imported)],
        bytes: report.bytes,
        bytes_new: report.bytes_new,
        stored_new: report.stored_new,
        chunks_new: report.chunks_new,
        duration_ms: report.duration_ms,
        warnings: report.warnings,
    };
    Ok((document, names))
}

/// Says what arrived.
pub(super) fn report(
    verb: &str,
    document: &Document,
    names: &[String],
    invocation: &mut Invocation,
) -> Result<(), ProgramError> {
    let output = &mut invocation.output;
    if output.is_json() {
        return output.document(document);
    }
    let fresh = document.snapshots.iter().filter(|line| !line.was_here).count() as u64;
    output.line(format!("{verb} {}", count(fresh, "snapshot", "snapshots")))?;
    for (line, name) in document.snapshots.iter().zip(names) {
        let known = if line.was_here { " (was here already)" } else { "" };
        output.line(format!("  {}{known}", escaped(name.as_bytes())))?;
    }
    output.figures(&[
        ("read", size(document.bytes)),
        ("new", format!("{} in {}", size(document.bytes_new), count(document.chunks_new, "chunk", "chunks"))),
        ("stored", size(document.stored_new)),
        ("time", duration(document.duration_ms)),
    ])
}
