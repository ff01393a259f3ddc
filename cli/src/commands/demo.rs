//! `copal demo`: the main job on an embedded repository and a sample application, in a folder of its own.
//! Everything that comes back is compared byte for byte with what was taken; one wrong byte fails the
//! demonstration.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use copal_engine::catalogue::Catalogue;
use copal_engine::create::{CreateReport, CreateRequest, SourceRequest, create};
use copal_engine::deploy::{DeployMode, DeployReport, DeployRequest, deploy};
use copal_engine::inspect::{diff, stats};
use copal_engine::own::OwnPlace;
use copal_engine::removal::{collect_garbage, delete};
use copal_engine::verify::{VerifyRequest, verify};
use copal_engine::{Clock, Context};
use copal_store::config::Parameters;
use copal_store::entropy::{Entropy, OsEntropy};
use copal_store::keys::{Credential, StretchCost};
use copal_store::local::LocalBackend;
use copal_store::repository::{InitOptions, Repository};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use self::application::Application;
use self::compare::Fingerprint;
use super::init::measured_suite;
use super::snapshot::SnapshotLine;
use crate::environment::SystemClock;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::quantities;
use crate::shown::{count, duration, share, size};

mod application;
mod compare;

/// Shows the main job at work: a repository, a sample application, snapshots, deploys, verification, removal
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal demo                             in a fresh temporary folder, which is kept
  copal demo /tmp/copal-demo --size 200MiB")]
pub(crate) struct Arguments {
    /// A new or empty folder for all of it
    folder: Option<PathBuf>,
    /// Size of the sample database
    #[arg(long, default_value_t = ByteSize::mib(24), value_name = "SIZE")]
    size: ByteSize,
    /// Seed of the sample data
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = quantities::any::<u64>)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let folder = own_folder(arguments)?;
    invocation.arm_interrupt()?;
    let mut demo = Demo::begin(&folder, arguments, invocation)?;
    demo.take_snapshots()?;
    demo.list_and_compare()?;
    demo.deploy_back_and_forth()?;
    demo.remove()?;
    demo.end()?;
    Ok(ExitCode::Done)
}

/// The folder of the demonstration, new or empty.
fn own_folder(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    let Some(folder) = &arguments.folder else {
        let folder = tempfile::Builder::new().prefix("copal-demo-").tempdir();
        return Ok(folder
            .map_err(|error| ProgramError::file("making", Path::new("a temporary folder"), error))?
            .keep());
    };
    let failed = |error| ProgramError::file("making", folder, error);
    fs::create_dir_all(folder).map_err(failed)?;
    if fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Err(ProgramError::usage(
            format!("{} is not empty", folder.display()),
            "name a new folder, or none: then a temporary one is made",
        )
        .into());
    }
    Ok(folder.canonicalize().map_err(failed)?)
}

/// The demonstration under way.
struct Demo<'a> {
    invocation: &'a mut Invocation,
    folder: PathBuf,
    context: Context,
    application: Application,
    /// What each snapshot must bring back.
    taken: Vec<(&'static str, Fingerprint)>,
    steps: Vec<Value>,
}

/// The snapshots, in order.
const FIRST: &str = "first";
const CHANGED: &str = "changed";
const UNCHANGED: &str = "unchanged";
const REORGANISED: &str = "reorganised";

impl<'a> Demo<'a> {
    /// The sample application and an empty repository.
    fn begin(folder: &Path, arguments: &Arguments, invocation: &'a mut Invocation) -> anyhow::Result<Self> {
        let context = repository(folder, invocation)?;
        invocation.monitor.finish();
        let application = Application::make(&folder.join("application"), arguments.seed, arguments.size.as_u64())?;
        let mut demo =
            Self { invocation, folder: folder.to_owned(), context, application, taken: Vec::new(), steps: Vec::new() };
        let (files, bytes) = Fingerprint::of(demo.application.folder())?.totals();
        let first = format!("a demonstration in {}", folder.display());
        demo.say(
            &first,
            &[
                ("application", format!("a SQLite database and a tree of objects, {files} files, {}", size(bytes))),
                ("repository", "made, encrypted with a fresh key".to_owned()),
            ],
        )?;
        demo.note(json!({ "step": "begin", "files": files, "bytes": bytes }));
        Ok(demo)
    }

    fn take_snapshots(&mut self) -> anyhow::Result<()> {
        self.take(FIRST, "everything is new")?;
        let changes = self.application.change()?;
        self.take(CHANGED, &changes)?;
        self.take(UNCHANGED, "nothing changed")?;
        let changes = self.application.reorganise()?;
        self.take(REORGANISED, &changes)
    }

    fn take(&mut self, name: &'static str, what: &str) -> anyhow::Result<()> {
        let request = CreateRequest {
            name: name.to_owned(),
            sources: vec![SourceRequest { label: String::new(), path: self.application.folder().to_owned() }],
            ..CreateRequest::default()
        };
        let report = create(&self.context, &request)?;
        self.taken.push((name, Fingerprint::of(self.application.folder())?));
        self.say_taken(name, what, &report)?;
        ensure(report.unread_files == 0, || format!("the snapshot {name} could not read {} files", report.unread_files))
    }

    fn say_taken(&mut self, name: &str, what: &str, report: &CreateReport) -> anyhow::Result<()> {
        self.say(
            &format!("took the snapshot {name}: {what}"),
            &[
                ("files", format!("{}, {}", report.files, size(report.bytes))),
                ("read", size(report.bytes_read)),
                (
                    "stored",
                    format!("{}, {} of the size", size(report.stored_new), share(report.stored_new, report.bytes)),
                ),
                ("time", duration(report.duration_ms)),
            ],
        )?;
        self.note(json!({
            "step": "create", "name": name, "files": report.files, "bytes": report.bytes,
            "bytes_read": report.bytes_read, "bytes_new": report.bytes_new, "stored_new": report.stored_new,
            "duration_ms": report.duration_ms,
        }));
        Ok(())
    }

    fn list_and_compare(&mut self) -> anyhow::Result<()> {
        let catalogue = Catalogue::load(&self.context)?;
        let names: Vec<&str> = catalogue.snapshots.iter().map(|listed| listed.snapshot.name.as_str()).collect();
        let expected: Vec<&str> = self.taken.iter().map(|(name, _)| *name).collect();
        ensure(names == expected, || format!("the snapshots {expected:?} were taken, and {names:?} are listed"))?;
        let lines: Vec<_> = catalogue.snapshots.iter().map(SnapshotLine::new).collect();
        self.note(json!({ "step": "list", "snapshots": lines }));
        let report = diff(&self.context, FIRST, CHANGED)?;
        let (added, removed, changed) = (report.added.len(), report.removed.len(), report.changed.len());
        let nothing = diff(&self.context, CHANGED, UNCHANGED)?;
        let number = nothing.added.len() + nothing.removed.len() + nothing.changed.len();
        ensure(number == 0, || format!("{number} paths differ between two snapshots of the same state"))?;
        self.note(json!({ "step": "diff", "added": added, "removed": removed, "changed": changed }));
        let sentence = format!("listed {}, and compared two", count(names.len() as u64, "snapshot", "snapshots"));
        self.say(
            &sentence,
            &[("from first to changed", format!("{added} paths added, {removed} removed, {changed} changed"))],
        )
    }

    fn deploy_back_and_forth(&mut self) -> anyhow::Result<()> {
        let beside = self.folder.join("deployed");
        self.put_back(FIRST, &beside, DeployMode::Auto)?;
        self.put_back(REORGANISED, &beside, DeployMode::Auto)?;
        self.put_back(CHANGED, &beside, DeployMode::InPlace)?;
        let application = self.application.folder().to_owned();
        self.put_back(FIRST, &application, DeployMode::Swap)
    }

    /// Deploys, compares every byte and opens the database.
    fn put_back(&mut self, name: &'static str, target: &Path, mode: DeployMode) -> anyhow::Result<()> {
        let request = DeployRequest {
            reference: name.to_owned(),
            target: target.to_owned(),
            mode,
            replace: true,
            ..DeployRequest::default()
        };
        let report = deploy(&self.context, &request)?;
        self.compare(name, target)?;
        let rows = application::checked_rows(target)?;
        self.say_deployed(name, target, &report, rows)
    }

    fn compare(&self, name: &str, target: &Path) -> anyhow::Result<()> {
        let expected = self.taken.iter().find(|(taken, _)| *taken == name).map(|(_, fingerprint)| fingerprint);
        let expected = expected.ok_or_else(|| ProgramError::Demonstration(format!("{name} was never taken")))?;
        let difference = Fingerprint::of(target)?.first_difference(expected);
        match difference {
            None => Ok(()),
            Some(difference) => {
                Err(ProgramError::Demonstration(format!("{name} deployed to {}: {difference}", target.display()))
                    .into())
            }
        }
    }

    fn say_deployed(&mut self, name: &str, target: &Path, report: &DeployReport, rows: u64) -> anyhow::Result<()> {
        let target = target.strip_prefix(&self.folder).unwrap_or(target).display().to_string();
        self.say(
            &format!("deployed {name} to {target}: every byte is as it was taken"),
            &[
                ("mode", report.mode.name().to_owned()),
                ("files", format!("{}, {} changed", report.files_total, report.files_changed)),
                ("written", format!("{}, {} kept", size(report.bytes_written), size(report.bytes_kept))),
                ("database", format!("sound, {rows} rows")),
                ("time", duration(report.duration_ms)),
            ],
        )?;
        self.note(json!({
            "step": "deploy", "name": name, "target": target, "mode": report.mode.name(),
            "bytes_written": report.bytes_written, "bytes_kept": report.bytes_kept,
            "duration_ms": report.duration_ms, "equal": true,
        }));
        Ok(())
    }

    /// Verifies, removes one snapshot and its space, verifies again, and deploys what stayed.
    fn remove(&mut self) -> anyhow::Result<()> {
        self.verify()?;
        let before = stats(&self.context)?.stored;
        delete(&self.context, &[REORGANISED.to_owned()])?;
        let report = collect_garbage(&self.context, false)?;
        let after = stats(&self.context)?.stored;
        ensure(after < before, || format!("the repository had {before} bytes and has {after} after the removal"))?;
        self.say(
            "deleted reorganised and returned its space",
            &[
                ("repository", format!("{} before, {} now", size(before), size(after))),
                ("packs", format!("{} removed, {} rewritten", report.packs_removed, report.packs_rewritten)),
            ],
        )?;
        self.note(json!({ "step": "gc", "stored_before": before, "stored_after": after }));
        self.verify()?;
        let again = self.folder.join("deployed");
        self.put_back(UNCHANGED, &again, DeployMode::Auto)
    }

    fn verify(&mut self) -> anyhow::Result<()> {
        let report = verify(&self.context, &VerifyRequest::default())?;
        ensure(report.damaged.is_empty(), || {
            format!("{} not verify", count(report.damaged.len() as u64, "thing does", "things do"))
        })?;
        self.say(
            "verified every stored byte: all is well",
            &[(
                "hashed again",
                format!(
                    "{} in {}, {}",
                    size(report.bytes),
                    count(report.packs, "pack", "packs"),
                    count(report.chunks, "chunk", "chunks")
                ),
            )],
        )?;
        self.note(json!({ "step": "verify", "ok": true, "packs": report.packs, "chunks": report.chunks }));
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<()> {
        let stats = stats(&self.context)?;
        self.note(json!({ "step": "end", "logical": stats.logical, "stored": stats.stored }));
        let look = format!("copal --repo {0}/repository --key-file {0}/key list", self.folder.display());
        if self.invocation.output.is_json() {
            let folder = self.folder.to_string_lossy();
            self.invocation.output.document(&json!({ "ok": true, "folder": folder, "steps": self.steps }))?;
            return Ok(());
        }
        self.say(
            "done: everything came back as it was",
            &[
                ("snapshots", format!("{} stored in {}", size(stats.logical), size(stats.stored))),
                ("folder", self.folder.display().to_string()),
                ("look around", look),
            ],
        )
    }

    /// A sentence and its figures; the figures of JSON come at the end.
    fn say(&mut self, sentence: &str, figures: &[(&str, String)]) -> anyhow::Result<()> {
        self.invocation.monitor.finish();
        if !self.invocation.output.is_json() {
            self.invocation.output.line(sentence)?;
            self.invocation.output.figures(figures)?;
            self.invocation.output.finish()?;
        }
        Ok(())
    }

    fn note(&mut self, step: Value) {
        self.steps.push(step);
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> anyhow::Result<()> {
    if holds { Ok(()) } else { Err(ProgramError::Demonstration(otherwise()).into()) }
}

/// A repository with a key file beside it.
fn repository(folder: &Path, invocation: &Invocation) -> anyhow::Result<Context> {
    let mut key = Zeroizing::new([0; 32]);
    OsEntropy.fill(&mut *key)?;
    let path = folder.join("key");
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(&*key))
        .map_err(|error| ProgramError::file("writing", &path, error))?;
    let options = InitOptions {
        parameters: Parameters::default(),
        suite: measured_suite()?,
        stretch: StretchCost::default(),
        slot_label: "demo".to_owned(),
        created_seconds: SystemClock::new().now().seconds,
    };
    let backend = Arc::new(LocalBackend::new(&folder.join("repository")));
    let repository = Repository::init(backend, Arc::new(OsEntropy), &Credential::KeyFile(key), &options)?;
    let context = invocation.context(repository);
    // Nothing of a demonstration stays outside its folder.
    Ok(Context {
        cache_folder: Some(folder.join("local/cache")),
        memory: None,
        state_folder: Some(folder.join("local/state")),
        own_places: vec![
            OwnPlace::new(OwnPlace::REPOSITORY, folder.join("repository")),
            OwnPlace::new("the key file", path),
        ],
        ..context
    })
}
