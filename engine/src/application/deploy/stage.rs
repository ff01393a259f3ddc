//! Builds the new state of one source beside the old one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use copal_manifest::snapshot::SourceKind;
use copal_source::postgres::{database_exists, load, plan};
use copal_source::process::{Program, run};
use copal_source::target::TargetTree;
use copal_store::secret::INSTANCE_KEY;

use super::check::{Checked, Component};
use super::journal::Target;
use super::switch::{asides_of, identity};
use crate::application::config::SourceSpec;
use crate::application::state::AppFolder;
use crate::context::Context;
use crate::deploy::{DeployMode, DeployRequest, deploy, failed, remove_whole, stage_beside};
use crate::error::{Error, Result};

/// When a source is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// While the application runs.
    Running,
    /// While it is stopped: what is equal is shared with what stands there.
    Stopped,
}

/// When to build a source: what stands still can be shared, what moves cannot.
pub(super) fn when(component: &Component) -> When {
    let Some(target) = component.target() else { return When::Running };
    let folder = target.parent().filter(|parent| parent.is_dir());
    let shares = folder.and_then(|folder| TargetTree::open(folder).ok()?.capabilities().ok());
    if target.exists() && shares.is_some_and(|found| found.reflink) { When::Stopped } else { When::Running }
}

/// What will be built; none for a command, which has no place.
pub(super) fn target(
    context: &Context,
    component: &Component,
    checked: &Checked,
    folder: &AppFolder,
) -> Result<Option<Target>> {
    let mark = mark(checked);
    match &component.source.spec {
        SourceSpec::Command { .. } => Ok(None),
        SourceSpec::Postgres(spec) => {
            let mut names = Vec::new();
            for one in plan(&fetch(context, component, checked, folder)?, &mark)? {
                let had = database_exists(spec, &one.name)?;
                names.push((one.name, one.staged, one.aside, had));
            }
            let (dsn, bin, timeout) = (spec.dsn.clone(), spec.bin.clone(), spec.timeout.as_secs());
            Ok(Some(Target::Databases { dsn, bin, timeout, names }))
        }
        spec => {
            let path = component.target().unwrap_or_default();
            let Some(last) = path.file_name() else {
                return Err(Error::Usage(format!("{} cannot be a target", path.display())));
            };
            let mut name = OsString::from(".");
            name.push(last);
            name.push(format!(".copal-unit-{mark}"));
            let asides = if spec.kind() == SourceKind::Sqlite { asides_of(&path, &mark) } else { Vec::new() };
            Ok(Some(Target::Place { staged: path.with_file_name(name), path, identity: None, asides }))
        }
    }
}

/// What names of this deploy end with: the random end of the snapshot's id.
fn mark(checked: &Checked) -> String {
    let id = checked.snapshot.to_string().replace('-', "");
    id[id.len().saturating_sub(12)..].to_owned()
}

/// Builds it; returns the bytes written and what could not be set.
pub(super) fn build(
    context: &Context,
    component: &Component,
    checked: &Checked,
    target: &mut Target,
    folder: &AppFolder,
) -> Result<(u64, Vec<String>)> {
    match (&component.source.spec, target) {
        (SourceSpec::Postgres(spec), Target::Databases { .. }) => {
            let dumps = fetched_path(component, folder);
            let loaded = load(spec, &dumps, &mark(checked), context.worker_threads());
            remove_whole(&dumps)?;
            loaded?;
            Ok((component.record.bytes, Vec::new()))
        }
        (SourceSpec::Secret { .. }, Target::Place { path, staged, identity: new, .. }) => {
            remove_whole(staged)?;
            refuse_mount_point(path)?;
            let sealed = fetch(context, component, checked, folder)?;
            let wrapped = fs::read(&sealed).map_err(|error| failed("reading", &sealed, error))?;
            let secret = context.repository.unwrap_secret(INSTANCE_KEY, &wrapped)?;
            // The copy keeps owner and mode: only what it says is opened.
            fs::write(&sealed, &*secret)
                .and_then(|()| File::open(&sealed)?.sync_all())
                .map_err(|error| failed("writing", &sealed, error))?;
            copy_private(&sealed, staged)?;
            remove_whole(&sealed)?;
            *new = identity(staged);
            Ok((component.record.bytes, Vec::new()))
        }
        (_, Target::Place { path, staged, identity: new, .. }) => {
            remove_whole(staged)?;
            refuse_mount_point(path)?;
            let label = checked.labelled.then(|| component.source.label.clone().into_bytes());
            let request = DeployRequest {
                reference: checked.snapshot.to_string(),
                target: path.clone(),
                path: label,
                mode: DeployMode::Swap,
                replace: true,
                dry_run: false,
                force_read: false,
            };
            let report = stage_beside(context, &request, staged)?;
            *new = identity(staged);
            Ok((report.bytes_written, report.warnings))
        }
        _ => Err(Error::Internal("a source and its target are of different kinds".into())),
    }
}

fn refuse_mount_point(path: &Path) -> Result<()> {
    let is_mount_point = path.is_dir() && TargetTree::open(path)?.capabilities()?.mount_point;
    if is_mount_point {
        return Err(Error::ModeUnavailable {
            target: path.to_owned(),
            mode: "swap",
            detail: "it is a mount point, which cannot change places with another folder: use a folder in it".into(),
        });
    }
    Ok(())
}

/// Puts what a source consists of into a private folder of the application.
fn fetch(context: &Context, component: &Component, checked: &Checked, folder: &AppFolder) -> Result<PathBuf> {
    let path = fetched_path(component, folder);
    remove_whole(&path)?;
    let request = DeployRequest {
        reference: checked.snapshot.to_string(),
        target: path.clone(),
        path: checked.labelled.then(|| component.source.label.clone().into_bytes()),
        mode: DeployMode::Auto,
        replace: false,
        dry_run: false,
        force_read: false,
    };
    deploy(context, &request)?;
    Ok(path)
}

fn fetched_path(component: &Component, folder: &AppFolder) -> PathBuf {
    let name = blake3::hash(component.source.label.as_bytes()).to_hex();
    folder.path().join("fetched").join(&name.as_str()[..16])
}

fn copy_private(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
    let io = |error| failed("writing", to, error);
    let found = fs::metadata(from).map_err(io)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(io)?;
    std::io::copy(&mut File::open(from).map_err(io)?, &mut file).map_err(io)?;
    // An owner that may not be given is that of whoever runs this.
    let _ = chown(to, Some(found.uid()), Some(found.gid()));
    file.set_permissions(found.permissions()).and_then(|()| file.sync_all()).map_err(io)
}

/// Gives a command what its source once wrote.
pub(super) fn feed_command(
    context: &Context,
    component: &Component,
    checked: &Checked,
    folder: &AppFolder,
) -> Result<()> {
    let SourceSpec::Command { restore: Some(argv), timeout, .. } = &component.source.spec else { return Ok(()) };
    let path = fetch(context, component, checked, folder)?;
    let input = File::open(&path).map_err(|error| failed("opening", &path, error))?;
    let ended = run(Program { argv, environment: &[], input: Some(input), output: None, timeout: *timeout });
    remove_whole(&path)?;
    if ended.is_success() {
        return Ok(());
    }
    let program = argv.first().cloned().unwrap_or_default();
    Err(copal_source::Error::Program { program, detail: ended.sentence() }.into())
}
