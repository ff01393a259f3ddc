//! Applications: what is captured together and put back together, as `copal.toml` says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use copal_application::config::SourceSpec;
use copal_application::{
    self as application, Application, CapturePhase, CaptureRecord, CaptureRequest, Configuration, KeptPlace,
    KeptSource, Look, RestoreRequest, Tools,
};
use copal_engine::Context;
use copal_engine::catalogue::Listed;
use copal_engine::create::CreateReport;
use copal_engine::verdict::Verb;
use copal_manifest::snapshot::{Snapshot, SourceRecord};
use copal_store::repository::RootName;
use serde_json::{Value, json};

use crate::platform::views::{CaptureView, SnapshotView, uuid};
use crate::platform::{Found, Places};
use crate::problem::{Problem, Result};

/// How long a process outside, or one that was killed, may keep an application from an operation whose turn
/// has come.
const LET_GO_MAX: Duration = Duration::from_secs(30);

/// All applications.
#[derive(Clone, Debug, Default)]
pub struct Applications {
    configuration: Configuration,
    tools: Tools,
}

impl Applications {
    /// As configured; `tools` is what captures need of the program around them.
    #[must_use]
    pub fn new(configuration: Configuration, tools: Tools) -> Self {
        Self { configuration, tools }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Application> {
        self.configuration.applications.values()
    }

    /// By name; without one, the default application, or the only one.
    pub fn find(&self, name: Option<&str>) -> Result<&Application> {
        self.configuration.application(name).ok_or_else(|| match name {
            Some(name) => Problem::not_found("no-such-application", format!("no application is named {name:?}")),
            None => Problem::not_found(
                "no-such-application",
                "no application is the default one: name one in the path, as /apps/NAME/snapshots",
            ),
        })
    }

    /// When the daemon collects by itself.
    #[must_use]
    pub fn gc_schedule(&self) -> Option<&str> {
        self.configuration.gc_schedule.as_deref()
    }

    /// Whether any has rules by which snapshots go.
    #[must_use]
    pub fn have_rules(&self) -> bool {
        self.iter().any(|application| application.retention.is_some() || application.max_snapshots.is_some())
    }

    /// Removes what the rules of the applications let go; names of what that was. An application that is busy
    /// does it itself when it is done.
    pub(super) fn retain(&self, context: &Context) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for application in self.iter() {
            match application::retain(context, application) {
                Ok(removed) => names.extend(
                    removed.iter().map(|listed| Snapshot::full_name(&listed.snapshot.app, &listed.snapshot.name)),
                ),
                Err(error) if error.is_busy() => {
                    context.monitor.notice(&format!("{error}; its rules are applied when that is done"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(names)
    }

    /// Takes a snapshot; one whose upload was cut off goes on.
    pub(super) fn create(&self, context: &Context, app: &str, request: &CaptureRequest) -> Result<Value> {
        let application = self.find(Some(app))?;
        application::wait_until_free(context, app, LET_GO_MAX)?;
        let unfinished = self.newest_capture(context, app, &request.name)?;
        let report = match unfinished.filter(|record| record.phase == CapturePhase::Uploading && record.resumable) {
            Some(record) => application::resume(context, application, &record.id),
            None => application::create(context, application, request, &self.tools),
        };
        Ok(created(context, report?))
    }

    /// What became of a create that was cut off: it goes on, or it was taken back.
    pub(super) fn resolve_create(&self, context: &Context, app: &str, name: &str) -> Result<Option<Value>> {
        match self.newest_capture(context, app, name)? {
            Some(record) if record.phase.is_final() => {
                let said = record.error.map_or_else(|| record.phase.name().to_owned(), |error| error.message);
                Err(Problem::interrupted(format!("the capture was cut off: {said}; the application goes on")))
            }
            // It had not begun, or its upload goes on.
            _ => Ok(None),
        }
    }

    fn newest_capture(&self, context: &Context, app: &str, name: &str) -> Result<Option<CaptureRecord>> {
        let Some(folder) = &context.state_folder else { return Ok(None) };
        Ok(application::records(folder, Some(app))?.into_iter().rfind(|record| record.name == name))
    }

    /// Uploads that were cut off and can go on: application and name.
    pub(super) fn unfinished(&self, context: &Context) -> Result<Vec<(String, String)>> {
        let Some(folder) = &context.state_folder else { return Ok(Vec::new()) };
        let records = application::records(folder, None)?.into_iter();
        let resumable = records.filter(|record| record.phase == CapturePhase::Uploading && record.resumable);
        let known = resumable.filter(|record| self.configuration.application(Some(&record.app)).is_some());
        Ok(known.map(|record| (record.app, record.name)).collect())
    }

    /// Captures under way, and those that failed, of one application.
    pub(super) fn captures(&self, context: &Context, app: &str) -> Result<Vec<CaptureView>> {
        let Some(folder) = &context.state_folder else { return Ok(Vec::new()) };
        Ok(application::records(folder, Some(app))?.iter().map(CaptureView::new).collect())
    }

    /// `wanted` says how; which, and that what stands there is captured first, is said here.
    pub(super) fn deploy(&self, context: &Context, found: &Found, wanted: RestoreRequest) -> Result<Value> {
        let app = found.view.app.as_str();
        let application = self.find(Some(app))?;
        application::wait_until_free(context, app, LET_GO_MAX)?;
        let request = RestoreRequest { reference: found.view.id.clone(), safety: true, ..wanted };
        let report = application::restore(context, application, &request, &self.tools)?;
        let components: Vec<Value> = report
            .components
            .iter()
            .map(|component| {
                json!({
                    "label": component.label, "target": component.target.display().to_string(),
                    "bytes_total": component.bytes_total, "bytes_written": component.bytes_written,
                })
            })
            .collect();
        let kept: Vec<Value> = report.kept.iter().map(kept_value).collect();
        Ok(json!({
            "id": found.view.id, "name": report.name, "safety": report.safety.map(uuid), "migrated": report.migrated,
            "components": components, "kept": kept, "down_ms": report.down_milliseconds, "duration_ms": report.duration_ms,
            "warnings": report.warnings,
        }))
    }

    /// What stands there and cannot be captured as what it is before a deploy replaces it, in sentences.
    pub(super) fn unsound(&self, context: &Context, app: &str, found: &Found) -> Result<Vec<String>> {
        let (reference, look) = (found.view.id.clone(), Look::Soundness);
        let any_schema = true;
        let request =
            RestoreRequest { reference, look, any_schema, safety: true, dry_run: true, ..RestoreRequest::default() };
        match application::restore(context, self.find(Some(app))?, &request, &self.tools) {
            Ok(report) => Ok(report.kept.iter().map(KeptSource::sentence).collect()),
            Err(error) if error.is_busy() => Ok(Vec::new()),
            Err(error) => Err(Problem::from(error).during(Verb::Deploy)),
        }
    }

    /// Refuses what a deploy would refuse. An application that is busy is checked when its turn comes.
    pub(super) fn check_deploy(&self, context: &Context, found: &Found, any_schema: bool) -> Result<()> {
        let (reference, digest) = (found.view.id.clone(), Some(found.view.digest.clone()));
        let request = RestoreRequest { reference, digest, any_schema, dry_run: true, ..RestoreRequest::default() };
        match application::restore(context, self.find(Some(&found.view.app))?, &request, &self.tools) {
            Ok(_) => Ok(()),
            Err(error) if error.is_busy() => Ok(()),
            Err(error) => Err(Problem::from(error).during(Verb::Deploy)),
        }
    }

    /// Where the sources of a snapshot stand: as the application has them now, else where they were taken.
    /// Databases of servers and outputs of commands stand nowhere.
    pub(super) fn places(&self, snapshot: &Snapshot) -> Box<Places> {
        let here: BTreeMap<String, Option<PathBuf>> = match self.configuration.application(Some(&snapshot.app)) {
            None => BTreeMap::new(),
            Some(application) => application.sources().map(|(_, source)| placed(&source.label, &source.spec)).collect(),
        };
        Box::new(move |record: &SourceRecord| match here.get(&record.label) {
            Some(place) => place.clone(),
            None => record.kind.is_plain().then(|| bytes_path(&record.path)),
        })
    }
}

/// As `copal deploy --app --json` has it.
fn kept_value(kept: &KeptSource) -> Value {
    let (mut snapshot, mut beside, mut databases) = (Value::Null, Value::Null, Value::Null);
    match &kept.place {
        None => {}
        Some(KeptPlace::Snapshot(labels)) => snapshot = json!(labels),
        Some(KeptPlace::Beside(path)) => beside = json!({ "path": path.display().to_string() }),
        Some(KeptPlace::Databases(names)) => databases = json!(names),
    }
    json!({
        "label": kept.label, "why": kept.why, "snapshot": snapshot, "beside": beside, "databases": databases,
    })
}

fn placed(label: &str, spec: &SourceSpec) -> (String, Option<PathBuf>) {
    (label.to_owned(), spec.path().map(Path::to_owned))
}

fn created(context: &Context, report: CreateReport) -> Value {
    let warnings = report.warnings.clone();
    json!({
        "snapshot": view_of(context, report.snapshot, report.digest),
        "bytes_read": report.bytes_read, "bytes_new": report.bytes_new, "stored_new": report.stored_new,
        "duration_ms": report.duration_ms, "unread_files": report.unread_files, "warnings": warnings,
    })
}

/// A snapshot just made, without a look at the repository.
pub(super) fn view_of(context: &Context, snapshot: Snapshot, digest: String) -> SnapshotView {
    let full_name = Snapshot::full_name(&snapshot.app, &snapshot.name);
    let tag = context.repository.keys().name_tag(full_name.as_bytes());
    let root = RootName { tag, snapshot: snapshot.id };
    let signer = context.repository.keys().signer();
    SnapshotView::new(&Listed { root, digest, signer, snapshot: Arc::new(snapshot) })
}

fn bytes_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}
