//! Builds the new state of one source beside the old one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use copal_engine::Error as EngineError;
use copal_engine::context::Context;
use copal_engine::deploy::{
    DeployMode, DeployRequest, Top, databases_held, deploy_within, obstacle_to_exchange, refuse_mounts, remove_whole,
    stage_beside, what_stays,
};
use copal_engine::own::UNIT;
use copal_engine::state::{open_parent, real};
use copal_manifest::snapshot::SourceKind;
use copal_source::device::device_identity;
use copal_source::holders::Places;
use copal_source::kept::is_block_device;
use copal_source::postgres::{database_exists, is_open_database, load, plan};
use copal_source::process::{Program, run};
use copal_source::target::TargetTree;
use copal_store::secret::INSTANCE_KEY;

use super::carry::{self, Carried};
use super::check::{Checked, Component};
use super::journal::Target;
use super::switch::{asides_of, standing};
use super::{device, within};
use crate::config::SourceSpec;
use crate::error::{Error, Result, failed};
use crate::state::AppFolder;

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
    let shares = if is_unexchangeable(&target) {
        within::shares_extents(&target).unwrap_or(false)
    } else {
        let folder = target.parent().filter(|parent| parent.is_dir());
        folder.is_some_and(|folder| TargetTree::open(folder).and_then(|tree| tree.shares_extents()).unwrap_or(false))
    };
    if target.exists() && shares { When::Stopped } else { When::Running }
}

/// What will be built; none for a command, which has no place.
pub(super) fn target(
    context: &Context,
    component: &Component,
    checked: &Checked,
    folder: &AppFolder,
) -> Result<Option<Target>> {
    let mark = &checked.mark;
    match &component.source.spec {
        SourceSpec::Command { .. } => Ok(None),
        SourceSpec::Postgres(spec) => {
            let (mut names, mut closed) = (Vec::new(), Vec::new());
            let dumps = fetch(context, component, checked, folder)?;
            let planned = match plan(spec, &dumps, mark) {
                Ok(planned) => planned,
                Err(error) => {
                    remove_whole(&dumps)?;
                    return Err(error.into());
                }
            };
            for one in planned {
                let had = database_exists(spec, &one.name)?;
                if had && !is_open_database(spec, &one.name)? {
                    closed.push(one.name.clone());
                }
                names.push((one.name, one.staged, one.aside, had));
            }
            let (dsn, bin, timeout) = (spec.dsn.clone(), spec.bin.clone(), spec.timeout.as_secs());
            Ok(Some(Target::Databases { dsn, bin, timeout, names, closed, kept: false }))
        }
        spec => {
            let path = component.target().unwrap_or_default();
            if is_block_device(&path).is_ok_and(|is| is) {
                let identity = device_identity(&path)?;
                let folder = folder.path().join("devices").join(name_of(component));
                return Ok(Some(Target::Device { path, folder, identity, kept: None }));
            }
            refuse_mounted(component, &path)?;
            if is_unexchangeable(&path) {
                let path = fs::canonicalize(&path).map_err(|error| failed("resolving", &path, error))?;
                let staged = path.join(format!("{UNIT}{mark}"));
                let times = within::Times { before: within::time_of(&path)?, after: None };
                let identity = Some(within::identity_of(&path)?);
                return Ok(Some(Target::Within { path, staged, identity, times, kept: None }));
            }
            if let Some(detail) = obstacle_to_exchange(&path)? {
                return Err(EngineError::UnfitTarget { target: path, detail }.into());
            }
            let Some(last) = path.file_name() else {
                return Err(Error::usage(format!("{} cannot be a target", path.display())));
            };
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|error| failed("creating", parent, error))?;
            }
            let mut name = OsString::from(".");
            name.push(last);
            // Recovery follows no link: where links lead is decided here.
            let path = real(&path);
            name.push(format!("{UNIT}{mark}"));
            let beside = path.with_file_name(name);
            // A file stands in a folder of its own, so that whatever is left of it is known by that folder.
            let staged = if is_in_folder(component) { beside.join("new") } else { beside.clone() };
            let asides = if spec.kind() == SourceKind::Sqlite { asides_of(&path, &staged) } else { Vec::new() };
            let old = standing(&path);
            Ok(Some(Target::Place { path, staged, beside, made: None, new: None, old, asides, kept: None }))
        }
    }
}

/// Whether the new state is built in a folder beside the target, and is not that folder itself.
fn is_in_folder(component: &Component) -> bool {
    component.record.kind != SourceKind::Tree
}

/// Makes the folder that a new state is built in; true when there is something to note.
pub(super) fn make(target: &mut Target) -> Result<bool> {
    let (folder, made) = match target {
        Target::Place { beside, made, .. } => (&*beside, Some(made)),
        Target::Within { staged, .. } => (&*staged, None),
        Target::Device { .. } | Target::Databases { .. } => return Ok(false),
    };
    let gone = || Error::internal(format!("the folder of {} is gone", folder.display()));
    let (above, name) = open_parent(folder)?.ok_or_else(gone)?;
    let identity = above.new_folder(&name)?.identity(b"")?;
    if let Some(made) = made {
        *made = Some(identity.into());
        return Ok(true);
    }
    Ok(false)
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
            let loaded = load(spec, &dumps, &checked.mark, context.worker_threads());
            remove_whole(&dumps)?;
            loaded?;
            Ok((component.record.bytes, Vec::new()))
        }
        (SourceSpec::Secret { .. }, Target::Place { path, staged, new, .. }) => {
            let sealed = fetch(context, component, checked, folder)?;
            let wrapped = fs::read(&sealed).map_err(|error| failed("reading", &sealed, error))?;
            let secret = context.repository.unwrap_secret(INSTANCE_KEY, &wrapped)?;
            // The copy keeps owner and mode: only what it says is opened.
            fs::write(&sealed, &*secret)
                .and_then(|()| File::open(&sealed)?.sync_all())
                .map_err(|error| failed("writing", &sealed, error))?;
            copy_private(&sealed, staged).map_err(|error| error.belonging(staged, path))?;
            remove_whole(&sealed)?;
            *new = standing(staged);
            Ok((component.record.bytes, Vec::new()))
        }
        (_, Target::Place { path, staged, new, .. }) => {
            let report = stage_beside(context, &request_of(component, checked, path, DeployMode::Swap), staged)?;
            *new = standing(staged);
            Ok((report.bytes_written, report.warnings))
        }
        (_, Target::Within { path, staged, times, .. }) => {
            let request = request_of(component, checked, path, DeployMode::Swap);
            let report = stage_beside(context, &request, staged)?;
            times.after = Some(within::time_of(path)?);
            Ok((report.bytes_written, report.warnings))
        }
        (_, Target::Device { path, folder, .. }) => {
            let folder = folder.as_path();
            remove_whole(folder)?;
            fs::create_dir_all(folder).map_err(|error| failed("creating", folder, error))?;
            let request = request_of(component, checked, &device::new_of(folder), DeployMode::Auto);
            let deployed = deploy_within(context, &request);
            Ok((deployed.map_err(|error| error.belonging(&request.target, path))?.bytes_written, Vec::new()))
        }
        _ => Err(Error::internal("a source and its target are of different kinds")),
    }
}

/// Whether a path is another, or below it.
fn is_within(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// What stays of each target, as it stands now that nobody writes there.
pub(super) fn carried(context: &Context, checked: &Checked, targets: &[Target]) -> Result<Vec<Carried>> {
    let mut carried = Vec::new();
    for target in targets {
        let mut paths = Vec::new();
        if let Target::Place { path, staged, .. } | Target::Within { path, staged, .. } = target {
            let is_here = |one: &&Component| one.target().is_some_and(|target| real(&target) == *path);
            if let Some(component) = checked.components.iter().find(is_here) {
                paths = stays(context, component, checked, path)?;
            }
            // What this deploy builds in a mount point does not stand there.
            let own = format!("{UNIT}{}", checked.mark);
            paths.retain(|path| !path.starts_with(own.as_bytes()));
            // What a target in it becomes stands there after the switch, whatever this tree's snapshot and
            // rules say of that place: it goes along whole, and in its way is nothing.
            let inner =
                targets.iter().filter_map(|one| if let Target::Place { path, .. } = one { Some(path) } else { None });
            for below in inner.filter_map(|one| one.strip_prefix(path).ok()).filter(|one| !one.as_os_str().is_empty()) {
                remove_whole(&staged.join(below))?;
                let whole = below.as_os_str().as_bytes().to_vec();
                paths.retain(|stays| !is_within(stays, &whole));
                if !paths.iter().any(|stays| is_within(&whole, stays)) {
                    paths.push(whole);
                }
            }
            // What the targets in it have beside them is found where the journal says, whichever tree has its
            // place.
            let beside = targets.iter().filter_map(Target::beside).filter_map(|beside| beside.strip_prefix(path).ok());
            for beside in beside.map(|beside| beside.as_os_str().as_bytes()) {
                // Rules see what is built there as well.
                paths.retain(|stays| stays == beside || !is_within(stays, beside));
                if !paths.iter().any(|stays| is_within(beside, stays)) {
                    paths.push(beside.to_vec());
                }
            }
        }
        carried.push(carry::written(&paths));
    }
    Ok(carried)
}

/// What the snapshot's rules leave where it is; refused where that is in the way.
pub(super) fn stays(context: &Context, component: &Component, checked: &Checked, path: &Path) -> Result<Vec<Vec<u8>>> {
    if component.record.kind != SourceKind::Tree || !path.is_dir() {
        return Ok(Vec::new());
    }
    Ok(what_stays(context, &request_of(component, checked, path, DeployMode::Auto))?)
}

pub(super) fn request_of(component: &Component, checked: &Checked, target: &Path, mode: DeployMode) -> DeployRequest {
    DeployRequest {
        reference: checked.snapshot.to_string(),
        target: target.to_owned(),
        path: checked.labelled.then(|| component.source.label.clone().into_bytes()),
        mode,
        replace: true,
        ..DeployRequest::default()
    }
}

/// Whether a folder cannot change places with another one: a mount point, a subvolume.
fn is_unexchangeable(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    let is_mount_point = || TargetTree::open(path).is_ok_and(|tree| tree.look().is_ok_and(|found| found.mount_point));
    path.is_dir() && (is_mount_point() || path.parent().is_some_and(|parent| device(parent) != device(path)))
}

/// The same as [`refuse_mounted`], right before the switch: a hook may have mounted something.
pub(super) fn refuse_new_mounts(checked: &Checked) -> Result<()> {
    for component in &checked.components {
        let Some(path) = component.target() else { continue };
        if !is_block_device(&path).is_ok_and(|is| is) {
            refuse_mounted(component, &path)?;
        }
    }
    Ok(())
}

/// Refuses where a process has a database open that is about to be replaced: it would go on writing into the
/// old one.
pub(super) fn refuse_holders(checked: &Checked) -> Result<()> {
    let mut places = Places::default();
    for component in &checked.components {
        match (component.target().map(|path| real(&path)), component.record.kind) {
            (Some(path), SourceKind::Tree) => places.folders.extend(fs::canonicalize(path)),
            (Some(path), SourceKind::Sqlite | SourceKind::File) => places.databases.push(path),
            _ => {}
        }
    }
    Ok(databases_held(&places)?)
}

/// Refuses what is mounted in the way of a switch. A folder that is a mount point itself is switched within.
fn refuse_mounted(component: &Component, path: &Path) -> Result<()> {
    let Ok(canonical) = fs::canonicalize(path) else { return Ok(()) };
    let is_within = canonical.is_dir() && component.record.kind != SourceKind::File;
    refuse_mounts(&canonical, if is_within { Top::Entered } else { Top::Replaced })?;
    if is_unexchangeable(path) && component.record.kind == SourceKind::File {
        let detail = "it is a mount point, and what goes there is one file: use a file in it".into();
        return Err(EngineError::UnfitTarget { target: path.to_owned(), detail }.into());
    }
    Ok(())
}

fn name_of(component: &Component) -> String {
    blake3::hash(component.source.label.as_bytes()).to_hex().as_str()[..16].to_owned()
}

/// Puts what a source consists of into a private folder of the application.
fn fetch(context: &Context, component: &Component, checked: &Checked, folder: &AppFolder) -> Result<PathBuf> {
    let path = fetched_path(component, folder);
    remove_whole(&path)?;
    let request = DeployRequest { replace: false, ..request_of(component, checked, &path, DeployMode::Auto) };
    deploy_within(context, &request)?;
    Ok(path)
}

fn fetched_path(component: &Component, folder: &AppFolder) -> PathBuf {
    folder.path().join("fetched").join(name_of(component))
}

fn copy_private(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, fchown};
    let io = |error| failed("writing", to, error);
    let found = fs::metadata(from).map_err(io)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(io)?;
    std::io::copy(&mut File::open(from).map_err(io)?, &mut file).map_err(io)?;
    // An owner that may not be given is that of whoever runs this.
    let _ = fchown(&file, Some(found.uid()), Some(found.gid()));
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
