//! `copal export`: a snapshot as one file that travels.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use copal_bundle::hub_tar::{self, HubExportRequest};
use copal_bundle::{ExportRequest, ExportTarget, export};
use copal_engine::{Context, Monitor, own};
use copal_store::keys::StretchCost;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::commands::filter::FilterArguments;
use crate::commands::latest;
use crate::completion::{snapshots, snapshots_and_paths};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::password::{Ask, bundle_password};
use crate::place;
use crate::shown::{count, duration, escaped, size};

/// Writes snapshots into one file under a password of its own
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal export monday /media/stick/monday.copal
  copal export monday tuesday both.copal
  copal export tuesday tuesday.copal --since monday        only what monday lacks
  copal export monday - | ssh backup copal import -
  copal export hub/monday monday.tar.gz --format hub-tar

An interrupted export leaves FILE.part, with which the same command goes on.
`copal verify FILE` reads a bundle without importing it.")]
pub(crate) struct Arguments {
    /// Snapshots, and last the file; `-` is standard output
    #[arg(required = true, num_args = 2.., value_name = "SNAPSHOT… FILE", add = snapshots_and_paths())]
    words: Vec<OsString>,
    /// Leave out what this snapshot has: the receiver must have it
    #[arg(long, value_name = "SNAPSHOT", add = snapshots())]
    since: Option<String>,
    /// The format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Replace FILE
    #[arg(long)]
    force: bool,
    /// Of a hub-tar: leave the instance's key out, so that no password is needed
    #[arg(long)]
    without_key: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

impl Arguments {
    /// Whether the bundle goes to standard output.
    pub(crate) fn is_to_output(&self) -> bool {
        self.words.last().is_some_and(|file| file == "-")
    }
}

/// What kind of file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Everything that copal keeps, sealed
    #[default]
    Native,
    /// The gzip tar of Konveyor Hub: snapshot.yaml, hub.db, bucket
    HubTar,
}

#[derive(Debug, Serialize)]
struct Document {
    file: String,
    format: &'static str,
    snapshots: Vec<String>,
    chunks: u64,
    bytes: u64,
    bundle_bytes: u64,
    bytes_resumed: u64,
    portable: bool,
    duration_ms: u64,
    warnings: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let (file, names) = arguments.words.split_last().ok_or_else(|| ProgramError::usage("no file", "name one"))?;
    let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    place::path_here(file)?;
    check_file(file, arguments.force)?;
    let context = invocation.open()?;
    if file != "-" {
        own::refuse(&context, Path::new(file))?;
    }
    let filter = arguments.filter.filter()?;
    let chosen = names.iter().map(|name| latest::meant(&context, name, &filter));
    let names = chosen.collect::<anyhow::Result<Vec<String>>>()?;
    let asked = if arguments.without_key { None } else { password(invocation)? };
    let document = match arguments.format {
        Format::Native => native(arguments, &context, names, file, asked)?,
        Format::HubTar => hub(arguments, &context, &names, file, asked)?,
    };
    invocation.monitor.finish();
    report(&document, file, invocation)?;
    Ok(ExitCode::Done)
}

fn password(invocation: &Invocation) -> Result<Option<Zeroizing<Vec<u8>>>, ProgramError> {
    bundle_password(invocation.global.bundle_password_file.as_deref(), Ask::Twice)
}

fn check_file(file: &OsStr, force: bool) -> Result<(), ProgramError> {
    if file == "-" && io::stdout().is_terminal() {
        return Err(ProgramError::usage(
            "a bundle cannot be shown on a terminal",
            "name a file, or send it into a pipe",
        ));
    }
    if file != "-" && !force && Path::new(file).symlink_metadata().is_ok() {
        let file = file.to_string_lossy();
        return Err(ProgramError::usage(format!("{file} exists"), "choose another name, or add --force to replace it"));
    }
    Ok(())
}

fn native(
    arguments: &Arguments,
    context: &Context,
    references: Vec<String>,
    file: &OsStr,
    password: Option<Zeroizing<Vec<u8>>>,
) -> anyhow::Result<Document> {
    if arguments.without_key {
        return Err(
            ProgramError::usage("--without-key is for --format hub-tar", "a native bundle is sealed whole").into()
        );
    }
    let password = password.ok_or_else(|| {
        let hint = "set COPAL_BUNDLE_PASSWORD or COPAL_BUNDLE_PASSWORD_FILE, or use --bundle-password-file";
        ProgramError::usage("a bundle needs a password of its own, and none is given", hint)
    })?;
    let request =
        ExportRequest { references, since: arguments.since.clone(), password, stretch: StretchCost::default() };
    let mut stdout;
    let target = if file == "-" {
        stdout = BufWriter::with_capacity(1 << 20, io::stdout().lock());
        ExportTarget::Stream(&mut stdout)
    } else {
        ExportTarget::File(PathBuf::from(file))
    };
    let report = export(context, &request, target)?;
    Ok(Document {
        file: file.to_string_lossy().into_owned(),
        format: "native",
        snapshots: report.snapshots,
        chunks: report.chunks,
        bytes: report.bytes,
        bundle_bytes: report.bundle_bytes,
        bytes_resumed: report.bytes_resumed,
        portable: true,
        duration_ms: report.duration_ms,
        warnings: Vec::new(),
    })
}

fn hub(
    arguments: &Arguments,
    context: &Context,
    names: &[String],
    file: &OsStr,
    password: Option<Zeroizing<Vec<u8>>>,
) -> anyhow::Result<Document> {
    let ([reference], None) = (names, &arguments.since) else {
        let hint = "name one snapshot, without --since";
        return Err(ProgramError::usage("a hub-tar holds one whole snapshot", hint).into());
    };
    let request = HubExportRequest { reference: reference.clone(), password, stretch: StretchCost::default() };
    let (report, bundle_bytes) = if file == "-" {
        let mut out = Counted { inner: BufWriter::with_capacity(1 << 20, io::stdout().lock()), bytes: 0 };
        let report = hub_tar::export(context, &request, &mut out)?;
        (report, out.bytes)
    } else {
        to_file(Path::new(file), &mut |out| Ok(hub_tar::export(context, &request, out)?))?
    };
    Ok(Document {
        file: file.to_string_lossy().into_owned(),
        format: "hub-tar",
        snapshots: vec![report.name],
        chunks: 0,
        bytes: report.bytes,
        bundle_bytes,
        bytes_resumed: 0,
        portable: report.portable,
        duration_ms: report.duration_ms,
        warnings: report.warnings,
    })
}

/// Writes a file that appears when it is whole.
fn to_file<T>(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> anyhow::Result<T>) -> anyhow::Result<(T, u64)> {
    let failed = |error: io::Error| ProgramError::file("writing", path, error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let mut out = Counted { inner: BufWriter::with_capacity(1 << 20, temporary), bytes: 0 };
    let written = write(&mut out)?;
    let bytes = out.bytes;
    let temporary = out.inner.into_inner().map_err(|error| failed(error.into_error()))?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok((written, bytes))
}

struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn report(document: &Document, file: &OsStr, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let what = count(document.snapshots.len() as u64, "snapshot", "snapshots");
    let line = format!("exported {what} to {}", escaped(document.file.as_bytes()));
    for warning in &document.warnings {
        invocation.monitor.notice(warning);
    }
    if file == "-" {
        // Standard output is the bundle.
        invocation.monitor.notice(&format!("{line}: {}", size(document.bundle_bytes)));
        return Ok(());
    }
    if invocation.output.is_json() {
        return invocation.output.document(document);
    }
    let output = &mut invocation.output;
    output.line(line)?;
    let mut figures = vec![("snapshots", document.snapshots.join(", ")), ("content", size(document.bytes))];
    figures.push(("file", size(document.bundle_bytes)));
    if document.bytes_resumed > 0 {
        figures.push(("kept of the run before", size(document.bytes_resumed)));
    }
    if document.format == "hub-tar" {
        figures.push(("portable", if document.portable { "yes" } else { "no" }.to_owned()));
    }
    figures.push(("time", duration(document.duration_ms)));
    output.figures(&figures)
}
