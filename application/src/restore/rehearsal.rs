//! What a deploy would do, and what of that which stands there cannot be captured first: told before anything
//! is touched, and without writing anything.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use copal_engine::Error as EngineError;
use copal_engine::context::Context;
use copal_engine::create::left_out::LeftOut;
use copal_engine::deploy::{self, DeployMode, Outline, Stayed, deploy_within};
use copal_engine::inspect;
use copal_manifest::entry::Node;
use copal_source::kept::{KeptValue, is_block_device};
use copal_source::postgres::{PostgresSpec, SETTINGS, database_exists, named_in};
use copal_source::scan::{FileKind, scan};
use copal_source::sqlite::check_standing;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::check::{Checked, Component};
use super::stage::request_of;
use crate::config::{SourceSpec, TreeSpec};
use crate::error::{Error, Result};
use crate::{KeptSource, Look, RestoreReport, RestoreRequest};

/// A larger database is not read whole before a question is asked: only whether it opens is said then.
const CHECKED_BYTES_MAX: u64 = 1 << 30;
/// Who has a database locked is waited for so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) kept: Vec<KeptSource>,
    pub(super) warnings: Vec<String>,
}

/// Looks as far as the request says; outlines go to the report.
pub(super) fn look(
    context: &Context,
    checked: &Checked,
    request: &RestoreRequest,
    report: &mut RestoreReport,
) -> Result<Seen> {
    let mut seen = Seen::default();
    if request.look == Look::No {
        return Ok(seen);
    }
    for (component, deployed) in checked.components.iter().zip(&mut report.components) {
        context.check_interrupt()?;
        let label = &component.source.label;
        if let SourceSpec::Postgres(spec) = &component.source.spec {
            // A server that does not answer is no place to deploy to.
            database_exists(spec, "postgres")?;
        }
        if request.look == Look::Paths {
            match outline(context, component, checked, &mut seen.warnings) {
                Ok(outline) => deployed.outline = outline,
                Err(Error::Engine(EngineError::Source(error))) => {
                    seen.warnings.push(format!("what would change in {label:?} cannot be told: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        if request.safety
            && let Some(why) = fault(context, component)?
        {
            seen.kept.push(KeptSource { label: label.clone(), why, place: None });
        }
    }
    Ok(seen)
}

/// What would be done to each path of a source, and what stays; none of a program that is fed.
fn outline(
    context: &Context,
    component: &Component,
    checked: &Checked,
    warnings: &mut Vec<String>,
) -> Result<Option<(Outline, Vec<Stayed>)>> {
    let outline = match &component.source.spec {
        SourceSpec::Command { .. } => return Ok(None),
        SourceSpec::Postgres(spec) => of_databases(context, component, checked, spec)?,
        SourceSpec::Secret { path } => of_secret(context, component, checked, path)?,
        _ => {
            let path = component.target().unwrap_or_default();
            if is_block_device(&path).is_ok_and(|is| is) {
                return Ok(Some((Outline { replaced: vec![".".into()], ..Outline::default() }, Vec::new())));
            }
            let request = deploy::DeployRequest {
                dry_run: true,
                replace_kind: true,
                stops_holders: true,
                ..request_of(component, checked, &path, DeployMode::Auto)
            };
            let report = deploy_within(context, &request)?;
            warnings.extend(report.warnings);
            return Ok(Some((report.outline.unwrap_or_default(), report.stays)));
        }
    };
    Ok(Some((outline, Vec::new())))
}

/// Databases, by their names.
fn of_databases(context: &Context, component: &Component, checked: &Checked, spec: &PostgresSpec) -> Result<Outline> {
    let mut names = Vec::new();
    if let Some(name) = &spec.load_as {
        names.push(name.clone());
    } else {
        let top = in_snapshot(component, checked);
        let mut folders = Vec::new();
        inspect::ls(context, &checked.snapshot.to_string(), &top, false, &mut |path, entry| {
            if entry.node == Node::Directory && path != top {
                folders.push(path.to_vec());
            }
            Ok(())
        })?;
        for folder in folders {
            let mut settings = Vec::new();
            let path = [&folder, b"/".as_slice(), SETTINGS.as_bytes()].concat();
            inspect::dump(context, &checked.snapshot.to_string(), &path, &mut settings)?;
            names.push(named_in(&String::from_utf8_lossy(&settings)).to_owned());
        }
    }
    let mut outline = Outline::default();
    for name in names {
        let list = if database_exists(spec, &name)? { &mut outline.replaced } else { &mut outline.added };
        list.push(PathBuf::from(name));
    }
    Ok(outline)
}

/// A secret is sealed in the snapshot: compared is what it says.
fn of_secret(context: &Context, component: &Component, checked: &Checked, path: &Path) -> Result<Outline> {
    let mut secret = zeroize::Zeroizing::new(Vec::new());
    let top = in_snapshot(component, checked);
    inspect::dump(context, &checked.snapshot.to_string(), &top, &mut *secret)?;
    let mut outline = Outline::default();
    match fs::read(path).map(zeroize::Zeroizing::new) {
        Ok(standing) if *standing == *secret => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => outline.added.push(".".into()),
        _ => outline.replaced.push(".".into()),
    }
    Ok(outline)
}

fn in_snapshot(component: &Component, checked: &Checked) -> Vec<u8> {
    if checked.labelled { component.source.label.clone().into_bytes() } else { Vec::new() }
}

/// Why what stands at a source could not be captured as what it is; none where nothing is seen, or nothing
/// stands there. What shows only when all of it is read is not seen here.
fn fault(context: &Context, component: &Component) -> Result<Option<String>> {
    let Some(path) = component.target() else { return Ok(None) };
    if !path.try_exists().unwrap_or(true) {
        return Ok(None);
    }
    let said = |error: copal_source::Error| Some(error.to_string());
    Ok(match &component.source.spec {
        SourceSpec::Sqlite(_) if path.is_file() => match check_standing(&path, CHECKED_BYTES_MAX, PATIENCE) {
            // Whether it is whole cannot be seen now.
            Err(copal_source::Error::InUse { .. } | copal_source::Error::Refused { .. }) => None,
            checked => checked.err().and_then(said),
        },
        SourceSpec::Sqlite(_) => Some(format!("{} is no database file", path.display())),
        SourceSpec::Config { .. } | SourceSpec::Secret { .. } => KeptValue::read(&path).err().and_then(said),
        SourceSpec::Tree(tree) => unreadable(context, &TreeSpec { path, ..tree.clone() })?,
        _ => File::open(&path).err().map(|error| format!("{}: {error}", path.display())),
    })
}

/// The first path of a tree that cannot be read, as far as that shows without reading.
fn unreadable(context: &Context, tree: &TreeSpec) -> Result<Option<String>> {
    let left_out = LeftOut::of(context, &tree.path, &tree.exclusions)?;
    let options = left_out.scan_options(tree.exclusions.one_file_system, 0);
    let found = match scan(&tree.path, &options) {
        Ok(found) => found,
        Err(error) => return Ok(Some(error.to_string())),
    };
    for entry in found {
        context.check_interrupt()?;
        let entry = match entry {
            Ok(entry) => entry,
            Err(problem) => return Ok(Some(problem.to_string())),
        };
        let path = tree.path.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&entry.path));
        if entry.stat.kind == FileKind::File
            && let Err(error) = accessat(CWD, &path, Access::READ_OK, AtFlags::EACCESS)
        {
            return Ok(Some(format!("{}: {}", path.display(), std::io::Error::from(error))));
        }
    }
    Ok(None)
}
