//! Applications: what is captured together and put back together, as `copal.toml` says.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use copal_engine::Context;
use copal_engine::application::config::SourceSpec;
use copal_engine::application::{Application, Configuration, Tools};
use copal_engine::catalogue::Listed;
use copal_engine::create::{CreateReport, CreateRequest, SourceRequest, create};
use copal_engine::deploy::{DeployMode, DeployRequest, deploy};
use copal_manifest::snapshot::{Snapshot, SourceRecord};
use copal_store::repository::RootName;
use serde_json::{Value, json};

use crate::operation::Secret;
use crate::platform::views::SnapshotView;
use crate::platform::{BundleFormat, Found, Places};
use crate::problem::{Problem, Result};

/// All applications.
#[derive(Clone, Debug, Default)]
pub struct Applications {
    configuration: Configuration,
    #[allow(dead_code)]
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

    pub(super) fn create(
        &self,
        context: &Context,
        app: &str,
        name: &str,
        tags: &BTreeMap<String, String>,
        pinned: bool,
    ) -> Result<Value> {
        let application = self.find(Some(app))?;
        let sources: Vec<SourceRequest> = application
            .sources()
            .filter_map(|(_, source)| {
                Some(SourceRequest { label: source.label.clone(), path: source.spec.path()?.to_owned() })
            })
            .collect();
        let request = CreateRequest {
            name: name.to_owned(),
            app: app.to_owned(),
            sources,
            tags: tags.clone().into_iter().collect(),
            pinned,
            ..CreateRequest::default()
        };
        Ok(created(context, create(context, &request)?))
    }

    pub(super) fn deploy(&self, context: &Context, app: &str, found: &Found) -> Result<Value> {
        self.find(Some(app))?;
        let places = self.places(&found.listed.snapshot);
        let mut reports = Vec::new();
        for source in &found.listed.snapshot.sources {
            let Some(target) = places(source) else { continue };
            let request = DeployRequest {
                reference: found.view.id.clone(),
                target,
                path: (!source.label.is_empty()).then(|| source.label.clone().into_bytes()),
                mode: DeployMode::Auto,
                replace: true,
                dry_run: false,
                force_read: true,
            };
            let report = deploy(context, &request)?;
            reports.push(json!({
                "label": source.label, "target": report.target.display().to_string(),
                "bytes_total": report.bytes_total, "bytes_written": report.bytes_written,
            }));
        }
        Ok(json!({ "id": found.view.id, "name": found.view.name, "components": reports }))
    }

    pub(super) fn check_deploy(&self, snapshot: &Snapshot) -> Result<()> {
        self.find(Some(&snapshot.app)).map(|_| ())
    }

    pub(super) fn export(
        &self,
        _context: &Context,
        _found: &Found,
        _format: BundleFormat,
        _secret: Option<&Secret>,
        _out: &mut dyn Write,
    ) -> Result<()> {
        Err(Problem::bad_bundle("bundles are not known here"))
    }

    pub(super) fn import(
        &self,
        _context: &Context,
        _app: &str,
        _name: &str,
        _staged: &Path,
        _secret: Option<&Secret>,
    ) -> Result<Value> {
        Err(Problem::bad_bundle("bundles are not known here"))
    }

    /// A create that was cut off is begun again: what was stored is found again.
    pub(super) fn resume_create(&self, app: &str) -> Result<Option<Value>> {
        self.find(Some(app)).map(|_| None)
    }

    /// Where the sources of a snapshot stand: as the application has them now, else where they were taken. Databases of servers
    /// and outputs of commands stand nowhere.
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

fn placed(label: &str, spec: &SourceSpec) -> (String, Option<PathBuf>) {
    (label.to_owned(), spec.path().map(Path::to_owned))
}

fn created(context: &Context, report: CreateReport) -> Value {
    let full_name = Snapshot::full_name(&report.snapshot.app, &report.snapshot.name);
    let tag = context.repository.keys().name_tag(full_name.as_bytes());
    let root = RootName { tag, snapshot: report.snapshot.id };
    let listed = Listed { root, digest: report.digest, snapshot: report.snapshot };
    json!({
        "snapshot": SnapshotView::new(&listed),
        "bytes_read": report.bytes_read, "bytes_new": report.bytes_new, "stored_new": report.stored_new,
        "duration_ms": report.duration_ms, "unread_files": report.unread_files,
    })
}

fn bytes_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}
