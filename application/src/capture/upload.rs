//! The second stage: what is held goes into the repository, while the application runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use copal_engine::Error as EngineError;
use copal_engine::catalogue::{Catalogue, Listed};
use copal_engine::context::{Context, Monitor, Progress};
use copal_engine::create::left_out::LeftOut;
use copal_engine::create::{Contents, CreateReport, Creation, Input, Naming, Taken, is_present};
use copal_manifest::content::FileContent;
use copal_manifest::entry::Node;
use copal_manifest::snapshot::{ComponentRecord, LiveRecord, Phase, SourceKind, SourceRecord};
use copal_manifest::tree::TreeReader;
use copal_source::kept::Stands;
use copal_source::scan::FileTime;
use copal_store::{SnapshotId, codec};

use crate::Captured;
use crate::capture::sources::{Held, input_of_folder, spool_path};
use crate::capture::{Component, fail_record, of_one_source};
use crate::config::{Application, Pinning, Source, SourceSpec};
use crate::error::{Error, Result};
use crate::record::{CapturePhase, CaptureRecord, ComponentState, KeptMetadata};
use crate::retain;
use crate::state::{AppFolder, CaptureFolder, state_folder};

/// What was stored is made to last so often, so that a killed upload finds it again.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(250);
/// Less than this is not worth a checkpoint.
const CHECKPOINT_BYTES: u64 = 4 << 20;
/// An upload that is faster than that is made to last in so many parts at the most,
const CHECKPOINT_SHARES: u64 = 16;
/// of this size at the least.
const CHECKPOINT_SHARE_BYTES_MIN: u64 = 8 << 20;
/// The record shows progress so often.
const SHOW_NANOSECONDS: u64 = 1_000_000_000;

impl Captured {
    /// See the documentation in the parent module.
    pub(crate) fn run_upload(mut self, context: &Context) -> Result<CreateReport> {
        let outcome = self.store_all(context);
        match outcome {
            Ok(taken) => self.commit(context, taken),
            Err(error) => Err(self.fail(context, error)),
        }
    }

    pub(crate) fn fail(&mut self, context: &Context, error: Error) -> Error {
        fail_record(context, &self.folder, &self.place, &mut self.record, &error);
        error
    }

    /// Stores every source that is held. One that cannot be read or is damaged is one of its own, where the
    /// policy says so: the others go on without it.
    pub(crate) fn store_all(&mut self, context: &Context) -> Result<Vec<Taken>> {
        self.describe()?;
        if self.application.class.pinning == Pinning::Spool && !self.application.name.is_empty() {
            self.make_lasting(context)?;
        }
        self.place.write(&self.record)?;
        let progress = std::sync::Arc::new(Showing::new(context, &self.place, &self.record));
        let context = &Context { monitor: progress.clone(), ..context.clone() };
        let mut stored = Vec::new();
        let mut failures: Vec<(String, Error)> = Vec::new();
        let ended = AtomicBool::new(false);
        let creation = &self.creation;
        let (components, place) = (&self.components, &self.place);
        let total = self.record.bytes_total;
        let one_may_fail = self.application.policy.partial;
        std::thread::scope(|scope| {
            let checks: Vec<_> = components
                .iter()
                .filter_map(|component| Some((&component.source.label, component.held.as_ref().ok()?)))
                .map(|(label, held)| (label, scope.spawn(move || held.check(context))))
                .collect();
            let checkpoints = scope.spawn(|| checkpoint_now_and_then(context, creation, total, &ended));
            for component in components {
                match store_one(context, creation, component, place) {
                    Ok(taken) => stored.extend(taken.map(|taken| (component.source.label.clone(), taken))),
                    Err(error) => failures.push((component.source.label.clone(), error)),
                }
                if !failures.is_empty() && !one_may_fail {
                    break;
                }
            }
            ended.store(true, Ordering::Release);
            checkpoints.thread().unpark();
            for (label, check) in checks {
                let checked = check.join().unwrap_or_else(|_| Err(Error::internal("a check died")));
                failures.extend(checked.err().map(|error| (label.clone(), error)));
            }
        });
        for (label, error) in failures {
            stored.retain(|(stored, _)| *stored != label);
            self.give_up(&label, error)?;
        }
        self.record.bytes_done = self.record.bytes_total;
        self.record.bytes_new = self.creation.bytes_new();
        Ok(stored.into_iter().map(|(_, taken)| taken).collect())
    }

    /// A source is left out, where the policy says that the others can do without it.
    fn give_up(&mut self, label: &str, error: Error) -> Result<()> {
        let why = of_one_source(&self.application, error)?;
        self.record.note_failure(label, &why);
        for component in self.components.iter_mut().filter(|component| component.source.label == label) {
            component.held = Err(why.clone());
        }
        Ok(())
    }

    /// Versions of schemas are asked in the pinned state, now that nobody waits for it.
    fn describe(&mut self) -> Result<()> {
        for number in 0..self.components.len() {
            let component = &mut self.components[number];
            let label = component.source.label.clone();
            let Ok(held) = &mut component.held else { continue };
            match held.schema_version() {
                Ok(version) => {
                    for state in self.record.components.iter_mut().filter(|state| state.label == label) {
                        state.schema_version.clone_from(&version);
                    }
                }
                Err(error) => self.give_up(&label, error)?,
            }
        }
        Ok(())
    }

    /// Copies what only this process holds, and notes where everything is.
    fn make_lasting(&mut self, context: &Context) -> Result<()> {
        context.monitor.phase("spooling");
        let spool = self.place.spool();
        for number in 0..self.components.len() {
            let component = &mut self.components[number];
            let label = component.source.label.clone();
            let Ok(held) = &mut component.held else { continue };
            let mut spooled = held.spool(context, &component.source, &spool);
            if let (Ok(()), Held::Postgres(pin)) = (&spooled, held) {
                let folder = spool_path(&spool, &label)?;
                spooled = pin.dump(&folder, context.worker_threads()).map_err(Error::from);
            }
            if let Err(error) = spooled {
                self.give_up(&label, error)?;
            }
        }
        let frozen_reads = self.components.iter().any(|component| matches!(component.held, Ok(Held::Stored(_))));
        if frozen_reads {
            self.creation.checkpoint()?;
        }
        let mut lasting = true;
        for component in &self.components {
            let Some(state) = self.record.components.iter_mut().find(|state| state.label == component.source.label)
            else {
                continue;
            };
            match &component.held {
                Err(_) => {}
                Ok(Held::Stored(taken)) => state.stored = Some(hex::encode(codec::encode(&taken.record)?)),
                Ok(Held::Spooled { path, stands }) => {
                    state.kept = Some(path.clone());
                    state.stands = Some(KeptMetadata::of(*stands));
                }
                Ok(Held::Postgres(_)) => state.kept = Some(spool_path(&spool, &component.source.label)?),
                Ok(held @ Held::Value { .. }) => {
                    // It is small: stored at once.
                    if let Some(input) = held.input(context, &component.source, &spool)? {
                        let taken = self.creation.take(context, &input)?;
                        state.stored = Some(hex::encode(codec::encode(&taken.record)?));
                    }
                }
                Ok(Held::Cloned { cloned, before, .. }) => {
                    let list = spool_path(&spool, &component.source.label)?.with_extension("entries");
                    cloned.keep(&list)?;
                    state.kept = Some(list);
                    state.stored = before.as_ref().map(codec::encode).transpose()?.map(hex::encode);
                }
                Ok(Held::Live { .. } | Held::Device(_)) => lasting = false,
                Ok(Held::Sqlite(_)) => lasting = false,
            }
        }
        self.creation.checkpoint()?;
        self.record.resumable = lasting;
        Ok(())
    }

    pub(crate) fn commit(self, context: &Context, taken: Vec<Taken>) -> Result<CreateReport> {
        let Self { mut record, place, folder, creation, consistency, application, hooks, components, held } = self;
        let hurt = components.iter().any(|component| component.held.is_err());
        let mut states: Vec<&ComponentState> = record.components.iter().collect();
        states.sort_by(|a, b| a.label.cmp(&b.label));
        let unnamed_plain =
            application.name.is_empty() && record.components.iter().all(|state| state.kind == SourceKind::Tree);
        let live = LiveRecord {
            config_version: record.config_version.clone(),
            class: record.class.clone(),
            trigger: record.trigger.clone(),
            consistency,
            captured: record.captured.unwrap_or(record.created),
            frozen_microseconds: record.frozen_microseconds,
            safety: record.safety,
            components: states.into_iter().map(component_record).collect(),
            hooks,
        };
        let phase = hurt.then_some(Phase::PartiallyFailed);
        let live = (!unnamed_plain).then_some(live);
        let contents: Vec<_> = taken.iter().map(|taken| (taken.record.label.clone(), taken.contents.clone())).collect();
        let committed = creation.finish(context, taken, live, phase);
        let mut report = match committed {
            Ok(report) => report,
            Err(error) => {
                let error = error.into();
                fail_record(context, &folder, &place, &mut record, &error);
                return Err(error);
            }
        };
        for warning in
            components.iter().filter_map(|component| component.held.as_ref().err().map(|why| (component, why)))
        {
            report.warnings.push(format!("{}: {}", warning.0.source.label, warning.1));
            report.unread_files += 1;
        }
        if !application.name.is_empty() {
            for component in &components {
                keep_clones(context, component, &contents);
            }
        }
        drop(components);
        // The snapshot is in the repository: nothing from here on is a failure of it.
        let tidied =
            place.remove_kept(&record).and_then(|()| place.remove()).and_then(|()| folder.forget_failures(true));
        let evicted = tidied.and_then(|()| retain::after_create(context, &application, &report.snapshot));
        if let Err(error) = evicted {
            context.monitor.notice(&format!("the snapshot is taken, but tidying up after it failed: {error}"));
        }
        drop(held);
        Ok(report)
    }
}

/// For the next capture; a failure here costs it time and nothing else.
fn keep_clones(context: &Context, component: &Component, contents: &[(String, Contents)]) {
    let Ok(Held::Cloned { cloned, .. }) = &component.held else { return };
    let Some((_, contents)) = contents.iter().find(|(label, _)| *label == component.source.label) else { return };
    if let Err(error) = cloned.keep_for_next(contents) {
        context.monitor.notice(&format!("the next capture will read large files whole: {error}"));
    }
}

fn component_record(state: &ComponentState) -> ComponentRecord {
    ComponentRecord {
        label: state.label.clone(),
        service: state.service.clone(),
        schema_version: state.schema_version.clone(),
        method: state.method.clone(),
        error: state.error.clone(),
    }
}

fn store_one(
    context: &Context,
    creation: &Creation,
    component: &Component,
    place: &CaptureFolder,
) -> Result<Option<Taken>> {
    let Ok(held) = &component.held else { return Ok(None) };
    if let Held::Stored(taken) = held {
        return Ok(Some(taken.clone()));
    }
    let input = held.input(context, &component.source, &place.spool())?;
    Ok(input.map(|input| creation.take(context, &input)).transpose()?)
}

/// However fast the disk: what a kill costs is a small share of the upload, for a few more packs and
/// fragments.
fn checkpoint_now_and_then(context: &Context, creation: &Creation, bytes_total: u64, ended: &AtomicBool) {
    let mut stored = creation.bytes_new();
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(20);
    let share = (bytes_total / CHECKPOINT_SHARES).max(CHECKPOINT_SHARE_BYTES_MIN);
    while !ended.load(Ordering::Acquire) {
        std::thread::park_timeout(step);
        waited += step;
        let now = creation.bytes_new();
        if now < stored + share && (waited < CHECKPOINT_EVERY || now < stored + CHECKPOINT_BYTES) {
            continue;
        }
        waited = Duration::ZERO;
        stored = now;
        if let Err(error) = creation.checkpoint() {
            // The session is poisoned by it, and says so to everybody else.
            context.monitor.notice(&format!("what was stored so far could not be made to last: {error}"));
            return;
        }
    }
}

/// Passes everything on, and shows progress in the record.
struct Showing {
    inner: std::sync::Arc<dyn Monitor>,
    clock: std::sync::Arc<dyn copal_engine::context::Clock>,
    place: CaptureFolder,
    state: Mutex<(CaptureRecord, u64, u64)>,
}

impl Showing {
    fn new(context: &Context, place: &CaptureFolder, record: &CaptureRecord) -> Self {
        Self {
            inner: std::sync::Arc::clone(&context.monitor),
            clock: std::sync::Arc::clone(&context.clock),
            place: place.clone(),
            state: Mutex::new((record.clone(), 0, 0)),
        }
    }
}

impl Monitor for Showing {
    fn phase(&self, name: &'static str) {
        // Each source begins with a phase: what was done before it stays done.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.2 = state.0.bytes_done;
        drop(state);
        self.inner.phase(name);
    }

    fn progress(&self, progress: Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.bytes_done = state.2 + progress.bytes_done;
        let now = self.clock.monotonic_nanoseconds();
        if now.saturating_sub(state.1) >= SHOW_NANOSECONDS {
            state.1 = now;
            // Only for those who look.
            let _ = self.place.show(&state.0);
        }
        drop(state);
        self.inner.progress(progress);
    }

    fn notice(&self, message: &str) {
        self.inner.notice(message);
    }
}

/// See [`crate::resume`].
pub(crate) fn resume(context: &Context, application: &Application, id: &str) -> Result<CreateReport> {
    let folder = AppFolder::of(state_folder(context)?, &application.name);
    let held = folder.hold(context, &application.name, "a create")?;
    let place = folder.capture(id);
    let missing = || EngineError::NoSuchSnapshot(id.to_owned());
    let mut record = place.read()?.ok_or_else(missing)?;
    if record.phase != CapturePhase::Uploading || !record.resumable {
        return Err(Error::NotReady { snapshot: record.name, phase: record.phase.name().into() });
    }
    if record.repository != context.repository.config().repository.to_string() {
        return Err(Error::usage(format!("the snapshot {:?} is on its way to another repository", record.name)));
    }
    let naming = Naming {
        name: record.name.clone(),
        app: record.app.clone(),
        tags: record.tags.clone(),
        pinned: record.pinned,
        force_read: false,
        parent: None,
        skip_if_unchanged: false,
    };
    let places: Vec<_> =
        record.components.iter().map(|state| (state.label.clone(), state.place.clone().into_bytes())).collect();
    let id = parse_id(&record.id)?;
    let catalogue = Catalogue::load(context)?;
    if let Some(listed) = catalogue.snapshots.into_iter().find(|listed| listed.snapshot.id == id) {
        // It was killed in the instant after its root stood: what is left to do is to tidy up.
        place.remove_kept(&record)?;
        place.remove()?;
        folder.forget_failures(true)?;
        retain::after_create(context, application, &listed.snapshot)?;
        return Ok(report_of(listed));
    }
    let creation = match Creation::begin(context, naming, &places) {
        Ok(creation) => creation.of(id, record.created),
        Err(error @ EngineError::NameTaken { .. }) => {
            // By another one, meanwhile: this one can never be.
            let error = error.into();
            fail_record(context, &folder, &place, &mut record, &error);
            return Err(error);
        }
        Err(error) => return Err(error.into()),
    };
    let outcome = store_again(context, application, &creation, &record);
    let (taken, components) = match outcome {
        Ok(stored) => stored,
        Err(error) => {
            fail_record(context, &folder, &place, &mut record, &error);
            return Err(error);
        }
    };
    let consistency = record.consistency;
    let hooks = record.hooks.clone();
    let captured = Captured {
        record,
        place,
        folder,
        application: application.clone(),
        creation,
        components,
        consistency,
        hooks,
        held: Some(held),
    };
    captured.commit(context, taken)
}

/// Of a snapshot whose create was killed after its commit.
fn report_of(listed: Listed) -> CreateReport {
    let snapshot = &listed.snapshot;
    let (bytes_new, stored_new, warnings) = (snapshot.bytes_new, snapshot.stored_new, snapshot.warnings.clone());
    CreateReport { bytes_new, stored_new, warnings, ..CreateReport::of_listed(&listed) }
}

fn store_again(
    context: &Context,
    application: &Application,
    creation: &Creation,
    record: &CaptureRecord,
) -> Result<(Vec<Taken>, Vec<Component>)> {
    let (mut taken, mut components) = (Vec::new(), Vec::new());
    for state in &record.components {
        let source = application.sources().map(|(_, source)| source).find(|source| source.label == state.label);
        let source = source.cloned().ok_or_else(|| {
            Error::usage(format!(
                "the application has no source {:?} any more, so its upload cannot go on",
                state.label
            ))
        })?;
        if let Some(why) = &state.error {
            components.push(Component { source, held: Err(why.clone()) });
            continue;
        }
        let one = match input_again(context, &source, state)? {
            Some(input) => creation.take(context, &input)?,
            None => Taken { left_out: left_out_of(context, &source)?, ..stored_before(creation, state)? },
        };
        components.push(Component { source, held: Ok(Held::Stored(one.clone())) });
        taken.push(one);
    }
    Ok((taken, components))
}

/// What was kept of a source; none: it was stored.
fn input_again(context: &Context, source: &Source, state: &ComponentState) -> Result<Option<Input>> {
    let Some(kept) = &state.kept else { return Ok(None) };
    match (state.kind, state.stands) {
        (SourceKind::Postgres, _) => Ok(Some(input_of_folder(source, kept.clone()))),
        (_, Some(stands)) => {
            let file = copal_source::kept::KeptFile::open(kept, stands.into())?;
            crate::capture::sources::pinned_input(source, std::sync::Arc::new(file)).map(Some)
        }
        _ => {
            let before = state.stored.as_deref().map(record_of).transpose()?;
            crate::capture::clone::input_again(state_folder(context)?, source, state.kind, kept, before).map(Some)
        }
    }
}

fn record_of(text: &str) -> Result<SourceRecord> {
    let bytes = hex::decode(text).map_err(|_| Error::internal("a record holds no record of a source"))?;
    Ok(codec::decode("the record of a capture", &bytes)?)
}

/// A source that was stored by the process that is gone: everything of it must still be there.
fn stored_before(creation: &Creation, state: &ComponentState) -> Result<Taken> {
    let missing = || Error::internal(format!("what was stored of {:?} is gone", state.label));
    let record = state.stored.as_deref().map(record_of).transpose()?.ok_or_else(missing)?;
    let session = creation.session();
    for entry in TreeReader::new(session, record.tree).entries() {
        let entry = entry?;
        if let Node::File(content) = &entry.node
            && !is_whole(session, content)?
        {
            return Err(missing());
        }
    }
    let (warnings, contents, left_out) = (Vec::new(), Vec::new(), LeftOut::default());
    Ok(Taken { record, bytes_read: 0, warnings, unread_files: 0, torn_files: 0, contents, left_out })
}

/// As the capture left it out; where other filesystems were mounted is not known any more.
fn left_out_of(context: &Context, source: &Source) -> Result<LeftOut> {
    match &source.spec {
        SourceSpec::Tree(tree) => Ok(LeftOut::of(context, &tree.path, &tree.exclusions)?.unwatched()),
        _ => Ok(LeftOut::default()),
    }
}

fn is_whole(session: &copal_store::session::Session, content: &FileContent) -> Result<bool> {
    Ok(is_present(session, content)?)
}

fn parse_id(text: &str) -> Result<SnapshotId> {
    let bytes = hex::decode(text.replace('-', "")).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    bytes.map(SnapshotId).ok_or_else(|| Error::usage(format!("{text:?} is no id of a snapshot")))
}

impl KeptMetadata {
    fn of(stands: Stands) -> Self {
        let Stands { mode, uid, gid, modified } = stands;
        Self { mode, uid, gid, seconds: modified.seconds, nanoseconds: modified.nanoseconds }
    }
}

impl From<KeptMetadata> for Stands {
    fn from(kept: KeptMetadata) -> Self {
        let modified = FileTime { seconds: kept.seconds, nanoseconds: kept.nanoseconds };
        Self { mode: kept.mode, uid: kept.uid, gid: kept.gid, modified }
    }
}
