//! `copal verify`: hashes every byte again, reports damage and affected snapshots, mends what can be mended.

use std::path::PathBuf;

use std::fs::File;
use std::io::Read;

use clap::Args;
use copal_bundle::Watch;
use copal_bundle::hub_tar::{self, HubLimits};
use copal_engine::verify::{DamagedItem, Gone, VerifyReport, VerifyRequest, verify};
use serde::Serialize;

use crate::commands::export::Format;
use crate::commands::import::format_of;
use crate::commands::snapshot::full_name;
use crate::completion::snapshots_and_paths;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::password::{Ask, bundle_password};
use crate::shown::{count, escaped, rfc3339, sentence, size, time, uuid};

/// Hashes every stored byte again and reports damage and affected snapshots
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal verify                           everything in the repository
  copal verify monday tuesday            what these snapshots need
  copal verify monday.copal              a bundle, without importing it
  copal verify --quick                   structure only: nothing is missing
  copal verify --repair                  repair the index, say what is lost
  copal verify --repair --from /srv/hub  and take lost chunks again from a live source

What is lost comes back with the next create that meets the same bytes in its sources.")]
pub(crate) struct Arguments {
    /// Only these snapshots; or a bundle's file
    #[arg(value_name = "SNAPSHOT", add = snapshots_and_paths())]
    names: Vec<String>,
    /// Structure only: manifests, and that every chunk has a place in a pack that is there
    #[arg(long)]
    quick: bool,
    /// Repair what can be repaired
    #[arg(long)]
    repair: bool,
    /// Take lost chunks again from this file or folder; may be given several times
    #[arg(long, value_name = "PATH", requires = "repair")]
    from: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    ok: bool,
    snapshots: u64,
    packs: u64,
    chunks: u64,
    bytes: u64,
    damaged: Vec<Damaged<'a>>,
    not_verified: Vec<Damaged<'a>>,
    gone: Vec<GoneSnapshot<'a>>,
    repaired: &'a [String],
}

/// A snapshot that was seen here, is there no more, and was not deleted here.
#[derive(Debug, Serialize)]
struct GoneSnapshot<'a> {
    id: String,
    name: &'a str,
    created: String,
}

#[derive(Debug, Serialize)]
struct Damaged<'a> {
    kind: &'a str,
    id: &'a str,
    detail: &'a str,
    snapshots: &'a [String],
    paths: &'a [String],
    paths_total: u64,
}

impl<'a> Damaged<'a> {
    fn new(item: &'a DamagedItem) -> Self {
        Self {
            kind: &item.kind,
            id: &item.id,
            detail: &item.detail,
            snapshots: &item.snapshots,
            paths: &item.paths,
            paths_total: item.paths_total,
        }
    }
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    if let Some(file) = bundle_among(&arguments.names)? {
        return bundle(file, arguments, invocation);
    }
    let context = invocation.open()?;
    let request = VerifyRequest {
        references: arguments.names.clone(),
        quick: arguments.quick,
        repair: arguments.repair,
        from: arguments.from.clone(),
    };
    let report = verify(&context, &request)?;
    invocation.monitor.finish();
    if invocation.output.is_json() {
        invocation.output.document(&Document {
            ok: report.is_ok(),
            snapshots: report.snapshots,
            packs: report.packs,
            chunks: report.chunks,
            bytes: report.bytes,
            damaged: report.damaged.iter().map(Damaged::new).collect(),
            not_verified: report.not_verified.iter().map(Damaged::new).collect(),
            gone: report.gone.iter().map(GoneSnapshot::new).collect(),
            repaired: &report.repaired,
        })?;
    } else {
        print(&report, arguments, invocation)?;
    }
    match (report.damaged.len(), report.not_verified.len() as u64) {
        (0, 0) => Ok(ExitCode::Done),
        (0, number) => {
            let what = count(number, "thing was", "things were");
            Err(ProgramError::Newer(format!("{what} written by a newer version, and not verified")).into())
        }
        (number, _) => Err(ProgramError::DoesNotVerify { count: number }.into()),
    }
}

impl<'a> GoneSnapshot<'a> {
    fn new(gone: &'a Gone) -> Self {
        Self { id: uuid(gone.id), name: &gone.name, created: rfc3339(gone.created) }
    }
}

/// A bundle, when the only name is that of a file that begins like one.
fn bundle_among(names: &[String]) -> Result<Option<File>, ProgramError> {
    let [name] = names else { return Ok(None) };
    let Ok(mut file) = File::open(name) else { return Ok(None) };
    let mut beginning = [0; 8];
    let is_file = file.metadata().is_ok_and(|found| found.is_file());
    if !is_file || file.read_exact(&mut beginning).is_err() {
        return Ok(None);
    }
    let is_bundle = copal_store::stream::is_stream(&beginning) || hub_tar::is_gzip(&beginning);
    Ok(is_bundle.then_some(file))
}

#[derive(Debug, Serialize)]
struct BundleDocument {
    ok: bool,
    format: &'static str,
    snapshots: u64,
    packs: u64,
    chunks: u64,
    bytes: u64,
    damaged: [u8; 0],
    names: Vec<String>,
    since: Option<String>,
}

fn bundle(mut file: File, arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    if arguments.quick || arguments.repair {
        let hint = "leave out --quick and --repair";
        return Err(ProgramError::usage("a bundle is always read completely, and cannot be repaired", hint).into());
    }
    let format = format_of(&mut file)?;
    let password = bundle_password(invocation.global.bundle_password_file.as_deref(), Ask::Once)?;
    invocation.arm_interrupt()?;
    let interrupt = invocation.interrupt_flag();
    let watch = Watch { monitor: &*invocation.monitor, interrupt: &interrupt };
    let document = match format {
        Format::Native => {
            let password = password.ok_or_else(|| {
                let hint = "set COPAL_BUNDLE_PASSWORD or COPAL_BUNDLE_PASSWORD_FILE, or use --bundle-password-file";
                ProgramError::usage("the bundle's password is needed", hint)
            })?;
            let summary = copal_bundle::verify(watch, file, &password)?;
            BundleDocument {
                ok: true,
                format: "native",
                snapshots: summary.snapshots.len() as u64,
                packs: 0,
                chunks: summary.chunks,
                bytes: summary.bytes,
                damaged: [],
                names: summary.snapshots.iter().map(full_name).collect(),
                since: summary.since,
            }
        }
        Format::HubTar => {
            let password = password.as_ref().map(|password| password.as_slice());
            let summary = hub_tar::verify(watch, file, password, &HubLimits::default())?;
            BundleDocument {
                ok: true,
                format: "hub-tar",
                snapshots: 1,
                packs: 0,
                chunks: 0,
                bytes: summary.bytes,
                damaged: [],
                names: vec![summary.name],
                since: None,
            }
        }
    };
    invocation.monitor.finish();
    let output = &mut invocation.output;
    if output.is_json() {
        output.document(&document)?;
        return Ok(ExitCode::Done);
    }
    output.line(format!(
        "verified every byte of the bundle with {}: all is well",
        count(document.snapshots, "snapshot", "snapshots")
    ))?;
    let mut figures =
        vec![("snapshots", escaped(document.names.join(", ").as_bytes())), ("content", size(document.bytes))];
    if let Some(since) = &document.since {
        figures.push(("needs", escaped(since.as_bytes())));
    }
    output.figures(&figures)?;
    Ok(ExitCode::Done)
}

/// Paths shown for one damage; JSON has all that the engine names.
const PATHS_SHOWN: usize = 20;

fn print(report: &VerifyReport, arguments: &Arguments, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let output = &mut invocation.output;
    let what = count(report.snapshots, "snapshot", "snapshots");
    let how = if arguments.quick { "the structure of" } else { "every byte of" };
    match report.damaged.len() as u64 {
        0 if report.is_ok() => output.line(format!("verified {how} {what}: all is well"))?,
        0 => output.line(format!("verified {how} {what}: nothing is damaged, and not everything could be verified"))?,
        number => {
            let number = count(number, "thing does", "things do");
            output.line(format!("verified {how} {what}: {number} not verify"))?;
        }
    }
    if !arguments.quick {
        output.figures(&[
            ("packs", report.packs.to_string()),
            ("chunks", report.chunks.to_string()),
            ("read", size(report.bytes)),
        ])?;
    }
    for repaired in &report.repaired {
        output.line(format!("repaired: {}", sentence(repaired)))?;
    }
    for gone in &report.gone {
        output.line(format!(
            "gone since it was last seen here: {} of {}; it was not deleted on this machine",
            escaped(gone.name.as_bytes()),
            time(gone.created)
        ))?;
    }
    let damaged = report.damaged.iter().map(|item| ("damaged", item));
    for (word, item) in damaged.chain(report.not_verified.iter().map(|item| ("not verified:", item))) {
        output.line(format!("{word} {} {}: {}", item.kind, item.id, sentence(&item.detail)))?;
        if !item.snapshots.is_empty() {
            output.line(format!("  hurts the snapshots {}", escaped(item.snapshots.join(", ").as_bytes())))?;
        }
        for path in item.paths.iter().take(PATHS_SHOWN) {
            output.line(format!("  hurts {}", escaped(path.as_bytes())))?;
        }
        let shown = item.paths.len().min(PATHS_SHOWN) as u64;
        if item.paths_total > shown {
            output.line(format!("  and {}", count(item.paths_total - shown, "more path", "more paths")))?;
        }
    }
    Ok(())
}
