//! What is decided before anything is touched: which snapshot, whether it is whole and the one that was
//! meant, whether the application would understand it, and where each source goes.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::time::Duration;

use copal_engine::Error as EngineError;
use copal_engine::catalogue::Catalogue;
use copal_engine::context::Context;
use copal_engine::own;
use copal_engine::state::place_led_to;
use copal_manifest::snapshot::{Phase, Snapshot, SourceKind, SourceRecord};
use copal_source::device::device_bytes;
use copal_source::kept::is_block_device;
use copal_source::{postgres, sqlite};
use copal_store::SnapshotId;

use crate::config::{Application, Source, SourceSpec};
use crate::error::{Error, Result};
use crate::restore::version;
use crate::state::state_folder;
use crate::{CapturePhase, RestoreRequest, RestoredComponent, records};

/// A standing database is asked for its version for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the snapshot's schema stands to the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemaAge {
    /// It understands it.
    Same,
    /// It has to be migrated.
    Older,
}

/// A deploy that may begin.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) snapshot: SnapshotId,
    pub(super) name: String,
    pub(super) labelled: bool,
    /// What the names of this deploy end with: 12 hexadecimal digits that nobody could know before.
    pub(super) mark: String,
    pub(super) components: Vec<Component>,
    pub(super) verdict: SchemaAge,
    pub(super) versions: Option<(String, String)>,
    pub(super) warnings: Vec<String>,
}

/// One source of it.
#[derive(Clone, Debug)]
pub(super) struct Component {
    pub(super) source: Source,
    pub(super) record: SourceRecord,
}

impl Component {
    pub(super) fn planned(&self) -> RestoredComponent {
        RestoredComponent {
            label: self.source.label.clone(),
            target: self.target().unwrap_or_default(),
            bytes_total: self.record.bytes,
            bytes_written: 0,
            outline: None,
        }
    }

    /// The place, for kinds that have one: where a link in it leads.
    pub(super) fn target(&self) -> Option<PathBuf> {
        self.named().map(|path| place_led_to(&path).unwrap_or(path))
    }

    /// The place as it is configured.
    fn named(&self) -> Option<PathBuf> {
        self.source.spec.path().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }
}

pub(super) fn check(context: &Context, application: &Application, request: &RestoreRequest) -> Result<Checked> {
    let catalogue = Catalogue::load(context)?;
    let own = Snapshot::full_name(&application.name, &request.reference);
    let listed = match request.reference.as_str() {
        // Of this application: the latest of all may be another's.
        "latest" if !application.name.is_empty() => catalogue.find(&format!("latest:{}", application.name)),
        reference => catalogue.find(&own).or_else(|_| catalogue.find(reference)),
    };
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => return Err(not_ready(context, application, request).unwrap_or(error.into())),
    };
    let snapshot = &listed.snapshot;
    if snapshot.phase != Phase::Completed && !application.policy.partial {
        refuse_partial(snapshot, request, own.clone())?;
    }
    if let Some(wanted) = request.digest.as_ref().filter(|wanted| !wanted.eq_ignore_ascii_case(&listed.digest)) {
        let (found, wanted) = (listed.digest.clone(), wanted.clone());
        return Err(Error::OtherDigest { snapshot: own, found, wanted });
    }
    let mut components = Vec::new();
    let mut warnings = Vec::new();
    for (_, source) in application.sources() {
        if !request.labels.is_empty() && !request.labels.contains(&source.label) {
            continue;
        }
        match snapshot.sources.iter().find(|record| record.label == source.label) {
            Some(record) if fits(source, record) => {
                refuse_small_device(source, record)?;
                let component = Component { source: source.clone(), record: record.clone() };
                if let Some(named) = component.named() {
                    own::refuse(context, &place_led_to(&named)?)?;
                }
                components.push(component);
            }
            Some(record) if hurt_in(snapshot).any(|hurt| hurt == source.label) => {
                let label = &record.label;
                return Err(Error::usage(format!(
                    "the snapshot has {label:?} as plain files only: put them somewhere with --path {label}, \
                     and the other sources here with --only"
                )));
            }
            Some(record) => {
                let (label, kind) = (&source.label, record.kind.name());
                return Err(Error::usage(format!(
                    "{label:?} is of the kind {kind:?} in the snapshot, and of another in the application"
                )));
            }
            None => warnings.push(format!("the snapshot has no source {:?}: what stands there stays", source.label)),
        }
    }
    if components.is_empty() {
        return Err(Error::usage("the snapshot has none of the application's sources"));
    }
    let (verdict, versions) = schema(snapshot, &components, request)?;
    let labelled = snapshot.sources.iter().any(|source| !source.label.is_empty());
    let mut random = [0; 6];
    context.repository.entropy().fill(&mut random)?;
    Ok(Checked {
        mark: hex::encode(random),
        snapshot: snapshot.id,
        name: snapshot.name.clone(),
        labelled,
        components,
        verdict,
        versions,
        warnings,
    })
}

/// The sources that the record of a capture names as not captured as what they are.
fn hurt_in(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    let components = snapshot.live.iter().flat_map(|live| &live.components);
    components.filter(|component| component.error.is_some()).map(|component| component.label.as_str())
}

/// What a deploy has put aside names what is not whole in it: the rest can go back without that.
fn refuse_partial(snapshot: &Snapshot, request: &RestoreRequest, own: String) -> Result<()> {
    let names_all = snapshot.live.as_ref().is_some_and(|live| live.safety);
    let is_wanted = |label: &&str| request.labels.is_empty() || request.labels.iter().any(|wanted| wanted == label);
    let hurt: Vec<String> = hurt_in(snapshot).filter(is_wanted).map(|label| format!("{label:?}")).collect();
    let phase = match (names_all, hurt.as_slice()) {
        (true, []) => return Ok(()),
        (true, hurt) => format!("partially_failed ({} not whole; --only takes the others)", hurt.join(", ")),
        (false, _) => "partially_failed".to_owned(),
    };
    Err(Error::NotReady { snapshot: own, phase })
}

/// A larger device is fine: what is behind the end of the image stays.
fn refuse_small_device(source: &Source, record: &SourceRecord) -> Result<()> {
    let Some(path) = source.spec.path().filter(|path| is_block_device(path).is_ok_and(|is| is)) else { return Ok(()) };
    let refuse = |detail: String| Err(Error::from(EngineError::UnfitTarget { target: path.to_owned(), detail }));
    if source.spec.kind() != SourceKind::Image {
        return refuse("it is a block device, and the source is no image".into());
    }
    let found = device_bytes(path)?;
    if found < record.bytes {
        return refuse(format!("the device has {found} bytes and the image {}: make it larger", record.bytes));
    }
    Ok(())
}

fn fits(source: &Source, record: &SourceRecord) -> bool {
    let kind = source.spec.kind();
    // One file as a tree is a file.
    kind == record.kind || kind.name() == "tree" && record.kind.name() == "file"
}

/// A snapshot that is still on its way is told from one that is not there.
fn not_ready(context: &Context, application: &Application, request: &RestoreRequest) -> Option<Error> {
    let records = records(state_folder(context).ok()?, Some(&application.name)).ok()?;
    let name = request.reference.rsplit('/').next().unwrap_or_default();
    let found = records.iter().rev().find(|record| record.name == name || record.id == request.reference)?;
    (found.phase != CapturePhase::Completed)
        .then(|| Error::NotReady { snapshot: request.reference.clone(), phase: found.phase.name().into() })
}

/// A schema of which nobody can say whether it is newer counts as older where that was agreed to: the
/// application's own command decides then, and what it cannot migrate is taken back.
fn schema(
    snapshot: &Snapshot,
    components: &[Component],
    request: &RestoreRequest,
) -> Result<(SchemaAge, Option<(String, String)>)> {
    let mut verdict = (SchemaAge::Same, None);
    let mut unordered = None;
    for component in components {
        let label = &component.source.label;
        let live = snapshot.live.as_ref();
        let record = live.and_then(|live| live.components.iter().find(|record| record.label == *label));
        let Some(found) = record.and_then(|record| record.schema_version.clone()) else { continue };
        let asking = if request.dry_run { sqlite::Asking::WithoutWriting } else { sqlite::Asking::AsItsPrograms };
        let Some(supported) = supported(&component.source, asking) else { continue };
        match version::compare(&component.source, &found, &supported)? {
            Some(Ordering::Equal) => {}
            Some(Ordering::Less) => verdict = (SchemaAge::Older, Some((found, supported))),
            Some(Ordering::Greater) => return Err(Error::SchemaNewer { label: label.clone(), found, supported }),
            None if request.any_schema => verdict = (SchemaAge::Older, Some((found, supported))),
            None => unordered = Some(Error::SchemaUnordered { label: label.clone(), found, supported }),
        }
    }
    unordered.map_or(Ok(verdict), Err)
}

/// What the application here understands: as configured, or the version of what stands there. A damaged
/// database says nothing.
fn supported(source: &Source, asking: sqlite::Asking) -> Option<String> {
    match &source.spec {
        SourceSpec::Sqlite(spec) => {
            spec.schema_version.clone().or_else(|| sqlite::standing_version(spec, asking, PATIENCE).ok())
        }
        SourceSpec::Postgres(spec) => {
            spec.schema_version.clone().or_else(|| postgres::standing_version(spec).ok().flatten())
        }
        _ => None,
    }
}

/// What hooks are told: where each source came from and where it is now, and the versions of the schemas.
pub(super) fn variables(checked: &Checked) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for component in &checked.components {
        let word = |b: char| if b.is_ascii_alphanumeric() { b.to_ascii_uppercase() } else { '_' };
        let label: String = component.source.label.chars().map(word).collect();
        let old = String::from_utf8_lossy(&component.record.path).into_owned();
        let new = component.named().unwrap_or_default().display().to_string();
        if !old.is_empty() {
            variables.push((format!("COPAL_OLD_{label}"), old));
        }
        variables.push((format!("COPAL_NEW_{label}"), new));
    }
    if let Some((from, to)) = &checked.versions {
        variables.push(("COPAL_SCHEMA_FROM".into(), from.clone()));
        variables.push(("COPAL_SCHEMA_TO".into(), to.clone()));
    }
    variables
}
