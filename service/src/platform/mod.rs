//! The one door to the engine: applications, snapshots and operations on them, as the daemon needs them.
//! Everything here may block and is called from threads that may. It knows no HTTP.

mod applications;
mod bundle;
mod costs;
mod shelf;
pub mod views;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use copal_application::{Application, CaptureRequest, RestoreRequest};
use copal_engine::catalogue::{Listed, Memory, relabel};
use copal_engine::context::SilentMonitor;
use copal_engine::verdict::Verb;
use copal_engine::verify::{DamagedItem, VerifyRequest, verify};
use copal_engine::{Context, inspect, removal};
use copal_manifest::entry::Entry;
use copal_manifest::shown::first_and_more;
use copal_manifest::snapshot::{Phase, Snapshot, SourceKind, SourceRecord};
use copal_source::sqlite::logs_with_rows;
use serde_json::{Value, json};

pub use applications::Applications;
pub use bundle::BundleFormat;
pub(crate) use costs::CostsReading;
use shelf::Shelves;
pub use shelf::{Line, Shelf, json_of};
pub use views::{CaptureView, DiffView, EntryView, SnapshotView};

use crate::metrics::Metrics;
use crate::operation::{Performer, Secret, Task, Work};
use crate::problem::{Problem, Result};
use crate::staging::Staging;

/// What does not verify is named in an answer: so many things,
const ITEMS_TOLD: usize = 10;
/// and so many paths of each.
const PATHS_TOLD: usize = 20;

/// Snapshots that an answer names which rules have removed.
const NAMES_TOLD: usize = 1000;

/// Most entries of a folder in one answer.
pub const ENTRIES_MAX: usize = 10_000;
/// Most lines of each list of a comparison.
pub const DIFF_LINES_MAX: usize = 1000;

/// Applications over one repository.
pub struct Platform {
    context: Context,
    applications: Applications,
    shelves: Shelves,
    costs: costs::CostsKept,
    metrics: Arc<Metrics>,
    staging: Arc<Staging>,
}

impl Platform {
    /// Over an open repository.
    #[must_use]
    pub(crate) fn new(
        context: Context,
        applications: Applications,
        metrics: Arc<Metrics>,
        staging: Arc<Staging>,
    ) -> Self {
        // Ten thousand roots are opened once, not for each operation.
        let context = Context { memory: Some(Arc::new(Memory::default())), ..context };
        Self {
            context,
            applications,
            shelves: Shelves::default(),
            costs: costs::CostsKept::default(),
            metrics,
            staging,
        }
    }

    /// Ends what a daemon that was killed has left: applications are resumed, deploys finished or taken back.
    /// Sentences for the log.
    pub(crate) fn recover(&self) -> Result<Vec<String>> {
        match &self.context.state_folder {
            Some(folder) => {
                let mut sentences = copal_application::recover(folder)?;
                sentences.extend(copal_engine::deploy::recover(folder)?);
                Ok(sentences)
            }
            None => Ok(Vec::new()),
        }
    }

    /// The host that it runs on.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.context.host
    }

    /// What it serves.
    #[must_use]
    pub fn applications(&self) -> &Applications {
        &self.applications
    }

    /// The application of the routes without a name, or the one named.
    pub fn application(&self, name: Option<&str>) -> Result<&Application> {
        self.applications.find(name)
    }

    /// The catalogue when no look at the repository is due.
    #[must_use]
    pub fn shelf_at_hand(&self) -> Option<Arc<Shelf>> {
        self.shelves.at_hand()
    }

    /// The catalogue.
    pub fn shelf(&self) -> Result<Arc<Shelf>> {
        self.shelves.read(&self.context)
    }

    /// One snapshot of an application by name or id.
    pub fn find(&self, app: &str, reference: &str) -> Result<Found> {
        let shelf = self.shelf()?;
        let missing = || Problem::from(copal_engine::Error::NoSuchSnapshot(Snapshot::full_name(app, reference)));
        let listed = match shelf.catalogue.find_in(app, reference)? {
            Some(listed) => listed.clone(),
            None if reference == "latest" => self.latest(&shelf, app)?,
            None => {
                return match shelf.catalogue.find_unreadable(&Snapshot::full_name(app, reference)) {
                    Some(unreadable) => Err(unreadable.error().into()),
                    None => Err(missing()),
                };
            }
        };
        Ok(Found { view: SnapshotView::new(&listed), listed })
    }

    /// The newest of an application that was asked for: of this host, where it has any. Another host's is not
    /// what stood here.
    fn latest(&self, shelf: &Shelf, app: &str) -> Result<Listed> {
        let reference = Snapshot::full_name(app, "latest");
        let is_own = |listed: &Listed| is_candidate(listed, app) && listed.snapshot.host == self.context.host;
        let found = match shelf.catalogue.latest(&reference, &is_own) {
            Err(copal_engine::Error::NoSuchSnapshot(_)) => {
                shelf.catalogue.latest(&reference, &|listed| is_candidate(listed, app))?
            }
            found => found?,
        };
        Ok(found.clone())
    }

    /// Pins or unpins, and replaces tags.
    pub fn relabel(
        &self,
        app: &str,
        reference: &str,
        pinned: Option<bool>,
        tags: Option<BTreeMap<String, String>>,
    ) -> Result<SnapshotView> {
        let found = self.find(app, reference)?;
        let set: Vec<(String, String)> = tags.clone().unwrap_or_default().into_iter().collect();
        let remove: Vec<String> = match &tags {
            Some(tags) => found.view.tags.keys().filter(|key| !tags.contains_key(*key)).cloned().collect(),
            None => Vec::new(),
        };
        let changed = relabel(&self.quiet(), &found.view.id, &set, &remove, pinned);
        self.shelves.expire();
        changed?;
        Ok(self.find(app, &found.view.id)?.view)
    }

    /// What a deploy of the snapshot to its application would change: `removed` are files that the
    /// application has and the snapshot lacks.
    pub fn preview(&self, found: &Found) -> Result<DiffView> {
        let places = self.applications.places(&found.listed.snapshot);
        let standing = |source: &SourceRecord| {
            let stands =
                |place: &PathBuf| !place.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            places(source).filter(stands)
        };
        let (compared, mut uncompared) = compared(&found.listed.snapshot);
        let (context, id, trust) = (&self.context, &found.view.id, inspect::Trust::ChangeTimes);
        let report = inspect::diff_with_places_within(context, id, &compared, &standing, trust, DIFF_LINES_MAX)?;
        // Seen from the disk: the snapshot is what will be.
        let turned = |items: Vec<inspect::DiffItem>| -> Vec<inspect::DiffItem> {
            let turn = |item: inspect::DiffItem| inspect::DiffItem {
                size_old: item.size_new,
                size_new: item.size_old,
                ..item
            };
            items.into_iter().map(turn).collect()
        };
        let [added, removed, changed] = report.totals;
        let report = inspect::DiffReport {
            added: turned(report.removed),
            removed: turned(report.added),
            changed: turned(report.changed),
            totals: [removed, added, changed],
        };
        // Of a database in use the newest rows stand in its log, and what stands in its file tells little.
        let seen = |label: &str| {
            [&report.added, &report.removed, &report.changed]
                .iter()
                .any(|list| list.iter().any(|item| item.path == label.as_bytes()))
        };
        let databases = found.listed.snapshot.sources.iter().filter(|source| source.kind == SourceKind::Sqlite);
        let in_use = |source: &&SourceRecord| standing(source).is_some_and(|place| !logs_with_rows(&place).is_empty());
        let in_use = databases.filter(in_use).map(|source| source.label.clone()).filter(|label| !seen(label));
        uncompared.extend(in_use);
        Ok(DiffView { uncompared, ..DiffView::new(&report) })
    }

    /// What differs between two snapshots.
    pub fn compare(&self, a: &Found, b: &Found) -> Result<DiffView> {
        Ok(DiffView::new(&inspect::diff_within(&self.context, &a.view.id, &b.view.id, DIFF_LINES_MAX)?))
    }

    /// The entry at a path and what is in it, if it is a folder.
    pub fn entries(&self, found: &Found, path: &[u8]) -> Result<Vec<EntryView>> {
        let mut entries = Vec::new();
        let mut visit = |path: &[u8], entry: &Entry| {
            if entries.len() >= ENTRIES_MAX {
                return Err(copal_engine::Error::Usage(format!("the folder has more than {ENTRIES_MAX} entries")));
            }
            entries.push(EntryView::new(path, entry));
            Ok(())
        };
        inspect::ls(&self.context, &found.view.id, path, false, &mut visit)?;
        Ok(entries)
    }

    /// Writes one file; the interrupt ends it early.
    pub fn read_file(&self, found: &Found, path: &[u8], out: &mut dyn Write) -> Result<u64> {
        Ok(inspect::dump(&self.context, &found.view.id, path, out)?)
    }

    /// What the repository costs, as counted last; a count that is out of date is made again in the
    /// background.
    pub(crate) fn costs(self: &Arc<Self>) -> Option<Arc<costs::CostsReading>> {
        let kept = self.costs.get();
        let generation = self.shelf_at_hand().map(|shelf| shelf.generation);
        if generation.is_some() && kept.as_ref().map(|kept| kept.generation) != generation {
            let platform = Arc::clone(self);
            self.costs.in_background(move || {
                if let Err(problem) = platform.count_costs() {
                    tracing::warn!(detail = problem.detail, "the repository's costs could not be counted");
                }
                platform.costs.counted();
            });
        }
        kept
    }

    /// Counts now.
    pub(crate) fn count_costs(&self) -> Result<Arc<costs::CostsReading>> {
        let shelf = self.shelf()?;
        self.costs.count(&self.context, shelf.generation)
    }

    fn working(&self, work: &Work) -> Context {
        Context { monitor: Arc::new(work.clone()), interrupt: work.interrupt(), ..self.context.clone() }
    }

    /// The engine's context for work that nobody watches.
    pub(crate) fn quiet(&self) -> Context {
        Context {
            monitor: Arc::new(SilentMonitor),
            interrupt: Arc::new(AtomicBool::new(false)),
            ..self.context.clone()
        }
    }

    /// The name that a new snapshot of an application gets: as wanted, or a made one.
    pub fn name_for(&self, app: &str, wanted: Option<&str>) -> Result<String> {
        match wanted {
            Some(name) => self.check_free(app, name).map(|()| name.to_owned()),
            None => Ok(copal_engine::create::made_name(&self.context, app, "")?),
        }
    }

    /// A name for a run of the schedule that nobody can take before it: whoever may create knows its time.
    pub fn scheduled_name(&self, at: jiff::Timestamp) -> Result<String> {
        let mut drawn = [0; 4];
        self.context.repository.entropy().fill(&mut drawn)?;
        Ok(format!("scheduled-{}-{}", at.strftime("%Y%m%dT%H%M%SZ"), hex::encode(drawn)))
    }

    /// Refuses a name that an application has already, or that no new snapshot can have.
    pub fn check_free(&self, app: &str, name: &str) -> Result<()> {
        copal_engine::create::check_new_name(name)?;
        match self.find(app, name) {
            Ok(found) if found.view.name == name => {
                let holder = Some(copal_engine::catalogue::described(&found.listed.snapshot));
                Err(copal_engine::Error::NameTaken { name: Snapshot::full_name(app, name), holder }.into())
            }
            Err(problem) if problem.code != "no-such-snapshot" => Err(problem),
            _ => Ok(()),
        }
    }

    /// What a deploy of a reference is about. A snapshot whose upload goes on is there, but not ready.
    /// With another digest than the one wanted it is another snapshot.
    pub fn find_to_deploy(
        &self,
        app: &str,
        reference: &str,
        wanted: Option<String>,
        any_schema: bool,
    ) -> Result<Found> {
        let found = match self.find(app, reference) {
            Err(problem) if problem.code == "no-such-snapshot" => {
                let capturing = self.captures(app)?.into_iter().find(|capture| capture.name == reference);
                return Err(match capturing {
                    Some(capture) => {
                        let (snapshot, phase) = (reference.to_owned(), capture.phase);
                        Problem::from(copal_application::Error::NotReady { snapshot, phase }).during(Verb::Deploy)
                    }
                    None => problem,
                });
            }
            found => found?,
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found.view.digest) {
            let (snapshot, found) = (found.view.full_name(), found.view.digest);
            return Err(
                Problem::from(copal_application::Error::OtherDigest { snapshot, found, wanted }).during(Verb::Deploy)
            );
        }
        self.check_deploy(&found, any_schema)?;
        Ok(found)
    }

    /// Captures under way, and those that failed.
    pub fn captures(&self, app: &str) -> Result<Vec<CaptureView>> {
        self.applications.captures(&self.context, app)
    }

    /// Uploads that were cut off and can go on: application and name.
    pub(crate) fn unfinished(&self) -> Result<Vec<(String, String)>> {
        self.applications.unfinished(&self.context)
    }

    /// Refuses what a deploy would refuse, before anybody waits for it.
    pub fn check_deploy(&self, found: &Found, any_schema: bool) -> Result<()> {
        self.applications.check_deploy(&self.quiet(), found, any_schema)
    }

    /// What stands there and cannot be captured as what it is before a deploy replaces it, in sentences.
    pub fn unsound(&self, found: &Found) -> Result<Vec<String>> {
        self.applications.unsound(&self.quiet(), &found.view.app, found)
    }

    /// Writes a bundle.
    pub fn export(
        &self,
        found: &Found,
        format: BundleFormat,
        secret: Option<&Secret>,
        work: &Work,
        out: &mut dyn Write,
    ) -> Result<Value> {
        bundle::export(&self.working(work), found, format, secret, out)
    }

    fn delete(&self, id: &str) -> Result<Value> {
        let removed = removal::delete(&self.quiet(), &[id.to_owned()]);
        self.shelves.expire();
        Ok(json!({ "deleted": removed?.len() }))
    }

    fn verify(&self, snapshots: &[String], quick: bool, work: &Work) -> Result<Value> {
        let request = VerifyRequest { references: snapshots.to_vec(), quick, ..VerifyRequest::default() };
        let report = verify(&self.working(work), &request)?;
        if snapshots.is_empty() && !quick {
            self.metrics.verified(report.damaged.len() as u64);
        }
        if !report.damaged.is_empty() {
            let what = match report.damaged.len() {
                1 => "1 thing does not verify".to_owned(),
                number => format!("{number} things do not verify"),
            };
            let detail = format!("{what}: {}", told(&report.damaged));
            return Err(copal_store::Error::damaged("the repository", detail).into());
        }
        if !report.not_verified.is_empty() {
            let names = told(&report.not_verified);
            return Err(Problem::newer(format!("not verified, as a newer version wrote it: {names}")));
        }
        let gone = report.gone.iter().map(|gone| json!({ "id": gone.id.to_string(), "name": gone.name }));
        let gone: Vec<Value> = gone.collect();
        Ok(json!({
            "ok": true, "snapshots": report.snapshots, "packs": report.packs, "chunks": report.chunks,
            "bytes": report.bytes, "damaged": [], "gone": gone,
        }))
    }

    fn collect(&self, retention: bool, work: &Work) -> Result<Value> {
        let context = self.working(work);
        let removed = if retention { self.applications.retain(&context)? } else { Vec::new() };
        let report = removal::collect_garbage(&context, false)?;
        let shown: Vec<&String> = removed.iter().take(NAMES_TOLD).collect();
        Ok(json!({
            "packs_removed": report.packs_removed, "packs_rewritten": report.packs_rewritten,
            "packs_waiting": report.packs_waiting, "bytes_freed": report.bytes_freed,
            "snapshots_removed": removed.len(), "removed": shown,
        }))
    }
}

impl Performer for Platform {
    fn perform(&self, app: &str, task: &Task, secret: Option<&Secret>, work: &Work) -> Result<Value> {
        let done = match task {
            Task::Create { name, tags, pinned } => {
                let request = CaptureRequest {
                    name: name.clone(),
                    tags: tags.clone().into_iter().collect(),
                    pinned: *pinned,
                    trigger: work.trigger().into(),
                    ..CaptureRequest::default()
                };
                self.applications
                    .create(&self.working(work), app, &request)
                    .map_err(|problem| problem.during(Verb::Create))
            }
            Task::Deploy { id, digest, any_schema, .. } => self
                .find(app, id)
                .and_then(|found| {
                    let wanted =
                        RestoreRequest { digest: digest.clone(), any_schema: *any_schema, ..Default::default() };
                    self.applications.deploy(&self.working(work), &found, wanted)
                })
                .map_err(|problem| problem.during(Verb::Deploy)),
            Task::Delete { id, .. } => self.delete(id),
            Task::Import { name, staged } => bundle::import(&self.working(work), app, name, staged, secret),
            Task::Verify { snapshots, quick } => self.verify(snapshots, *quick, work),
            Task::Collect { retention } => self.collect(*retention, work),
            Task::Export { .. } => Err(Problem::internal("an export runs beside the queues")),
        };
        self.shelves.expire();
        done
    }

    fn resolve(&self, app: &str, task: &Task) -> Result<Option<Value>> {
        match task {
            // It may have been committed in the instant before the end.
            Task::Create { name, .. } => match self.find(app, name) {
                Ok(found) => Ok(Some(json!({ "snapshot": found.view }))),
                Err(problem) if problem.code == "no-such-snapshot" => {
                    self.applications.resolve_create(&self.context, app, name)
                }
                Err(problem) => Err(problem),
            },
            Task::Delete { id, .. } => match self.find(app, id) {
                Err(problem) if problem.code == "no-such-snapshot" => Ok(Some(json!({ "deleted": 1 }))),
                _ => Ok(None),
            },
            Task::Import { staged, name } => {
                self.staging.remove(staged);
                match self.find(app, name) {
                    Ok(found) => Ok(Some(json!({ "snapshot": found.view }))),
                    Err(_) => Err(Problem::interrupted(
                        "the daemon ended before the bundle was read; nothing was imported, send it again",
                    )),
                }
            }
            Task::Export { .. } => Err(Problem::interrupted("the download ended with the daemon")),
            Task::Deploy { .. } | Task::Verify { .. } | Task::Collect { .. } => Ok(None),
        }
    }

    fn ended(&self, task: &Task) {
        if let Task::Import { staged, .. } = task {
            self.staging.remove(staged);
        }
    }
}

/// Which sources of a snapshot can be compared with what stands on disk, and the labels of those that cannot:
/// databases of servers, outputs of commands, secrets, which are sealed once more.
fn compared(snapshot: &Snapshot) -> (impl Fn(&SourceRecord) -> bool + use<>, Vec<String>) {
    let cannot =
        |source: &SourceRecord| matches!(source.kind, SourceKind::Postgres | SourceKind::Command | SourceKind::Secret);
    let labels = snapshot.sources.iter().filter(|source| cannot(source)).map(|source| source.label.clone());
    (move |source: &SourceRecord| !cannot(source), labels.collect())
}

/// Whether `latest` may mean it: whole, and not the one that a deploy has put aside.
fn is_candidate(listed: &Listed, app: &str) -> bool {
    let snapshot = &listed.snapshot;
    let safety = snapshot.live.as_ref().is_some_and(|live| live.safety);
    snapshot.app == app && snapshot.phase == Phase::Completed && !safety
}

/// A snapshot that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// As clients see it.
    pub view: SnapshotView,
    /// As the engine sees it.
    pub listed: Listed,
}

/// Where each source of a snapshot stands on this machine.
pub(crate) type Places = dyn Fn(&SourceRecord) -> Option<PathBuf>;

/// What does not verify, and whom it hurts: as the program says it.
fn told(items: &[DamagedItem]) -> String {
    let of = |item: &DamagedItem| {
        let mut text = format!("{} {}: {}", item.kind, item.id, item.detail);
        if !item.snapshots.is_empty() {
            text.push_str(&format!(", hurts the snapshots {}", item.snapshots.join(", ")));
        }
        if !item.paths.is_empty() {
            let shown: Vec<String> = item.paths.iter().take(PATHS_TOLD).cloned().collect();
            let more = item.paths_total.saturating_sub(shown.len() as u64);
            text.push_str(&format!(", in them {}", first_and_more(&shown, more)));
        }
        text
    };
    items.iter().take(ITEMS_TOLD).map(of).collect::<Vec<_>>().join("; ")
}
