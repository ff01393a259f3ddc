//! Applications: what is captured together and put back together.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use copal_engine::Context;
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_engine::deploy::{DeployMode, DeployRequest, deploy};
use copal_manifest::snapshot::{Snapshot, SourceRecord};
use serde_json::{Value, json};

use crate::operation::Secret;
use crate::platform::views::SnapshotView;
use crate::platform::{BundleFormat, Found, Places};
use crate::problem::{Problem, Result};
use copal_engine::catalogue::Listed;

/// One application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicationSpec {
    /// Its name.
    pub name: String,
    /// Whether the routes without a name mean it.
    pub is_default: bool,
    /// What is captured.
    pub sources: Vec<SourceSpec>,
    /// When snapshots are taken by themselves (cron).
    pub schedule: Option<String>,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// Label; empty for a single source.
    pub label: String,
    /// Where it is.
    pub path: PathBuf,
}

/// All applications, by name.
#[derive(Clone, Debug, Default)]
pub struct Applications {
    by_name: BTreeMap<String, ApplicationSpec>,
}

impl Applications {
    /// From specifications.
    #[must_use]
    pub fn new(specs: Vec<ApplicationSpec>) -> Self {
        Self { by_name: specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect() }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &ApplicationSpec> {
        self.by_name.values()
    }

    /// By name; without one, the default application, or the only one.
    pub fn find(&self, name: Option<&str>) -> Result<&ApplicationSpec> {
        let found = match name {
            Some(name) => self.by_name.get(name),
            None => self.by_name.values().find(|spec| spec.is_default).or_else(|| {
                let mut all = self.by_name.values();
                all.next().filter(|_| all.next().is_none())
            }),
        };
        found.ok_or_else(|| match name {
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
        let spec = self.find(Some(app))?;
        let request = CreateRequest {
            name: name.to_owned(),
            app: app.to_owned(),
            sources: spec
                .sources
                .iter()
                .map(|source| SourceRequest { label: source.label.clone(), path: source.path.clone() })
                .collect(),
            tags: tags.clone().into_iter().collect(),
            pinned,
            ..CreateRequest::default()
        };
        let report = create(context, &request)?;
        let root_tag = context.repository.keys().name_tag(Snapshot::full_name(app, name).as_bytes());
        let root = copal_store::repository::RootName { tag: root_tag, snapshot: report.snapshot.id };
        let listed = Listed { root, digest: report.digest, snapshot: report.snapshot };
        Ok(json!({
            "snapshot": SnapshotView::new(&listed),
            "bytes_read": report.bytes_read, "bytes_new": report.bytes_new, "stored_new": report.stored_new,
            "duration_ms": report.duration_ms,
        }))
    }

    pub(super) fn deploy(&self, context: &Context, app: &str, found: &Found) -> Result<Value> {
        self.find(Some(app))?;
        let places = self.places(&found.listed.snapshot);
        let mut reports = Vec::new();
        for source in &found.listed.snapshot.sources {
            let request = DeployRequest {
                reference: found.view.id.clone(),
                target: places(source),
                path: (!source.label.is_empty()).then(|| source.label.clone().into_bytes()),
                mode: DeployMode::Auto,
                replace: true,
                dry_run: false,
                force_read: true,
            };
            let report = deploy(context, &request)?;
            reports.push(json!({
                "label": source.label, "target": report.target.display().to_string(), "mode": report.mode.name(),
                "files_changed": report.files_changed, "bytes_written": report.bytes_written,
                "bytes_kept": report.bytes_kept, "duration_ms": report.duration_ms, "warnings": report.warnings,
            }));
        }
        Ok(json!({ "sources": reports }))
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

    /// Where each source of a snapshot stands: as the application has it now, else as it was taken.
    pub(super) fn places(&self, snapshot: &Snapshot) -> Box<Places> {
        let spec = self.by_name.get(&snapshot.app).cloned().unwrap_or_default();
        Box::new(move |record: &SourceRecord| {
            let named = spec.sources.iter().find(|source| source.label == record.label);
            named.map_or_else(|| bytes_path(&record.path), |source| source.path.clone())
        })
    }
}

fn bytes_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}
