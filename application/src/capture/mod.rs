//! The first stage: the application holds still, every source is held, the application goes on.

pub(crate) mod clone;
pub(crate) mod kept_clones;
pub(crate) mod paths;
pub(crate) mod sources;
pub(crate) mod upload;

use std::time::Duration;

use copal_engine::Error as EngineError;
use copal_engine::context::Context;
use copal_engine::create::{Creation, Naming, check_labels};
use copal_engine::verdict::Verdict;
use copal_manifest::snapshot::{Consistency, is_name};
use copal_source::hook::{Action, OnError, When};

use crate::capture::paths::{recorded_path, same_filesystem};
use crate::capture::sources::{Held, Prepared, Stillness, prepare};
use crate::config::{Application, Source};
use crate::error::{Error, Result};
use crate::hooks::{Hooks, Order, resume_steps, shortened};
use crate::record::{CapturePhase, CaptureRecord, ComponentState, RecordedError, ResumeStep};
use crate::state::{AppFolder, CaptureFolder, Held as HeldApplication, RESUMED, state_folder};
use crate::watchdog::Watchdog;
use crate::{CaptureRequest, Captured, Tools};

/// Who else holds a database is waited for so long at most.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// A source that is held, or why it is not.
#[derive(Debug)]
pub(crate) struct Component {
    pub(crate) source: Source,
    pub(crate) held: Result<Held, String>,
}

/// See [`crate::capture`].
pub(crate) fn capture(
    context: &Context,
    application: &Application,
    request: &CaptureRequest,
    tools: &Tools,
) -> Result<Captured> {
    let state = state_folder(context)?;
    let mut labels: Vec<&str> = application.sources().map(|(_, source)| source.label.as_str()).collect();
    labels.sort_unstable();
    check_labels(labels.into_iter())?;
    let folder = AppFolder::of(state, &application.name);
    // Sources that were named on a command line are no application: nobody else's capture is in the way.
    let held = match application.name.as_str() {
        "" => None,
        name => Some(folder.hold(context, name, "a create")?),
    };
    if held.is_some() {
        for sentence in crate::recover::recover_held(&folder)? {
            context.monitor.notice(&sentence);
        }
    }
    begin(context, application, request, tools, folder, held, When::Pre)
}

pub(crate) fn begin(
    context: &Context,
    application: &Application,
    request: &CaptureRequest,
    tools: &Tools,
    folder: AppFolder,
    held: Option<HeldApplication>,
    hooks: When,
) -> Result<Captured> {
    let naming = Naming {
        name: request.name.clone(),
        app: application.name.clone(),
        tags: request.tags.clone(),
        pinned: request.pinned,
        force_read: request.force_read,
        parent: None,
        skip_if_unchanged: request.skip_if_unchanged,
    };
    let mut places = Vec::new();
    for (_, source) in application.sources() {
        places.push((source.label.clone(), recorded_path(source)?));
    }
    let creation = Creation::begin(context, naming, &places)?;
    let record = new_record(context, application, request, &creation)?;
    let place = folder.capture(&record.id);
    folder.create(context)?;
    place.create()?;
    let held = match held {
        None if application.name.is_empty() => place.hold_alone()?.ok(),
        held => held,
    };
    let mut run = Run {
        context,
        application,
        hooks: Hooks::new(&application.name, &record.name),
        quiet: hooks != When::Pre,
        folder,
        place,
        record,
    };
    match run.all(&creation, tools) {
        Ok((components, consistency)) => Ok(Captured {
            record: run.record,
            place: run.place,
            folder: run.folder,
            application: application.clone(),
            creation,
            components,
            consistency,
            hooks: run.hooks.records,
            held,
        }),
        Err(error) => {
            run.fail(&error);
            Err(error)
        }
    }
}

fn new_record(
    context: &Context,
    application: &Application,
    request: &CaptureRequest,
    creation: &Creation,
) -> Result<CaptureRecord> {
    let component = |(service, source): (&crate::config::Service, &Source)| ComponentState {
        label: source.label.clone(),
        service: service.name.clone(),
        kind: source.spec.kind(),
        place: source.spec.path().map(|path| path.display().to_string()).unwrap_or_default(),
        phase: CapturePhase::Quiescing,
        method: String::new(),
        schema_version: None,
        kept: None,
        stands: None,
        stored: None,
        bytes_total: 0,
        error: None,
    };
    let trigger = if request.trigger.is_empty() { "manual".to_owned() } else { request.trigger.clone() };
    if !is_name(&trigger) {
        return Err(Error::usage(format!("{trigger:?} cannot be the trigger of a snapshot")));
    }
    Ok(CaptureRecord {
        version: CaptureRecord::version(),
        id: creation.id().to_string(),
        name: request.name.clone(),
        app: application.name.clone(),
        repository: context.repository.config().repository.to_string(),
        class: application.class.name.clone(),
        trigger,
        config_version: application.config_version.clone(),
        safety: request.trigger == crate::SAFETY,
        tags: request.tags.clone(),
        pinned: request.pinned,
        phase: CapturePhase::Quiescing,
        created: creation.created(),
        captured: None,
        uploaded: None,
        frozen_microseconds: 0,
        consistency: Consistency::Application,
        resumable: false,
        bytes_done: 0,
        bytes_total: 0,
        bytes_new: 0,
        components: application.sources().map(component).collect(),
        hooks: Vec::new(),
        resume: Vec::new(),
        error: None,
    })
}

struct Run<'a> {
    context: &'a Context,
    application: &'a Application,
    hooks: Hooks,
    /// No hooks: the application is down, or is none.
    quiet: bool,
    folder: AppFolder,
    place: CaptureFolder,
    record: CaptureRecord,
}

impl Run<'_> {
    fn all(&mut self, creation: &Creation, tools: &Tools) -> Result<(Vec<Component>, Consistency)> {
        let application = self.application;
        let steps = if self.quiet { Vec::new() } else { resume_steps(application, &self.hooks.variables) };
        let has_hooks = !self.quiet
            && application.services.iter().flat_map(|service| &service.hooks).any(|hook| hook.when == When::Pre);
        self.refuse_frozen_ground()?;
        let stillness =
            if has_hooks || self.quiet && self.record.safety { Stillness::Frozen } else { Stillness::Running };
        let prepared = self.prepare(creation, stillness)?;
        self.record.resume = steps.iter().map(|(step, _)| step.clone()).collect();
        self.place.write(&self.record)?;
        let watchdog = Watchdog::start(
            tools,
            self.record.resume.clone(),
            self.longest_quiesce() + application.freeze_max,
            self.place.path.join(RESUMED),
        )?;
        self.hold_still_and(creation, prepared, stillness, &steps, watchdog)
    }

    /// What the pre hooks may take together is no part of the freeze.
    fn longest_quiesce(&self) -> Duration {
        let hooks = self.application.services.iter().flat_map(|service| &service.hooks);
        hooks.filter(|hook| hook.when == When::Pre).map(|hook| hook.timeout).sum()
    }

    /// On a filesystem that a hook freezes nothing can be written: not a database's lock, not a record, not a
    /// chunk.
    fn refuse_frozen_ground(&self) -> Result<()> {
        let hooks = self.application.services.iter().flat_map(|service| &service.hooks);
        for hook in hooks {
            let (When::Pre, Action::Freeze(frozen)) = (hook.when, &hook.action) else { continue };
            let refuse =
                |what: String| Err(Error::usage(format!("{} is frozen by a hook, and {what}", frozen.display())));
            if same_filesystem(frozen, &self.place.path) {
                return refuse("the state folder of copal is on it".into());
            }
            for (_, source) in self.application.sources() {
                if let crate::config::SourceSpec::Sqlite(sqlite) = &source.spec
                    && same_filesystem(frozen, &sqlite.path)
                {
                    let why = "on it, where SQLite could not even lock: stop or signal the application instead";
                    return refuse(format!("the database {} is {why}", sqlite.path.display()));
                }
            }
        }
        Ok(())
    }

    fn is_frozen_ground(&self, path: Option<&std::path::Path>) -> bool {
        let hooks = self.application.services.iter().flat_map(|service| &service.hooks);
        let mut frozen = hooks.filter_map(|hook| match &hook.action {
            Action::Freeze(frozen) if hook.when == When::Pre => Some(frozen),
            _ => None,
        });
        path.is_some_and(|path| frozen.any(|frozen| same_filesystem(frozen, path)))
    }

    fn prepare(
        &mut self,
        creation: &Creation,
        stillness: Stillness,
    ) -> Result<Vec<(Source, Result<Prepared, String>)>> {
        let clones = self.folder.path().join("clones");
        let patience = self.application.freeze_max.min(PATIENCE_MAX);
        let mut prepared = Vec::new();
        for (_, source) in self.application.sources() {
            self.context.check_interrupt()?;
            // A clone is a write: on ground that will be frozen there is none, and the bulk is stored before.
            let clones = (!self.is_frozen_ground(source.spec.path())).then_some(clones.as_path());
            let ready = prepare(self.context, creation, source, stillness, clones, patience);
            prepared.push((source.clone(), self.tolerated(source, ready)?));
        }
        Ok(prepared)
    }

    /// A failure of one source is one of the capture, unless the policy says otherwise.
    fn tolerated<T>(&mut self, source: &Source, outcome: Result<T>) -> Result<Result<T, String>> {
        match outcome {
            Ok(value) => Ok(Ok(value)),
            Err(error) => {
                let message = of_one_source(self.application, error)?;
                self.record.note_failure(&source.label, &message);
                Ok(Err(message))
            }
        }
    }

    fn hold_still_and(
        &mut self,
        creation: &Creation,
        prepared: Vec<(Source, Result<Prepared, String>)>,
        stillness: Stillness,
        steps: &[(ResumeStep, OnError)],
        mut watchdog: Option<Watchdog>,
    ) -> Result<(Vec<Component>, Consistency)> {
        let quiesced = match self.quiet {
            true => Ok(()),
            false => self.hooks.run(self.application, When::Pre, Order::Backward),
        };
        let alone = self.application.sources().count() == 1;
        let mut consistency = match stillness {
            Stillness::Frozen => Consistency::Application,
            Stillness::Running if alone => Consistency::Application,
            Stillness::Running => Consistency::Crash,
        };
        let begun = self.context.clock.monotonic_nanoseconds();
        let captured = match quiesced {
            Err(error) if self.application.policy.wanted == Consistency::Application => Err(error),
            quiesced => {
                if let Err(error) = quiesced {
                    self.context.monitor.notice(&format!("{error}; the snapshot is taken nevertheless"));
                    consistency = Consistency::Crash;
                }
                self.show(CapturePhase::Capturing);
                self.hold_all(creation, prepared, stillness)
            }
        };
        let ended = self.context.clock.monotonic_nanoseconds();
        self.record.frozen_microseconds = ended.saturating_sub(begun) / 1000;
        // Whatever became of the capture: the application goes on.
        let acted = watchdog.as_mut().is_some_and(Watchdog::has_acted);
        let resumed = self.hooks.resume(steps);
        if let Some(watchdog) = watchdog {
            watchdog.done();
        }
        self.record.captured = Some(self.context.clock.now());
        self.record.hooks.clone_from(&self.hooks.records);
        let components = captured?;
        resumed?;
        if acted {
            let detail = format!("its deadline of {:?} had passed", self.application.freeze_max);
            if self.application.policy.wanted == Consistency::Application {
                return Err(Error::FreezeBroken { app: self.application.name.clone(), detail });
            }
            consistency = Consistency::Crash;
        }
        self.record.consistency = consistency;
        self.record.phase = CapturePhase::Uploading;
        self.note_components(&components);
        Ok((components, consistency))
    }

    fn hold_all(
        &mut self,
        creation: &Creation,
        prepared: Vec<(Source, Result<Prepared, String>)>,
        stillness: Stillness,
    ) -> Result<Vec<Component>> {
        let spool = self.place.spool();
        let mut components = Vec::new();
        for (source, ready) in prepared {
            self.context.check_interrupt()?;
            let held = match ready {
                Err(why) => Err(why),
                Ok(ready) => {
                    let held = ready.hold(self.context, creation, &source, stillness, &spool);
                    self.tolerated(&source, held)?.map(|(held, method)| {
                        if let Some(state) = self.state_of(&source) {
                            state.method = method.into();
                        }
                        held
                    })
                }
            };
            components.push(Component { source, held });
        }
        Ok(components)
    }

    fn state_of(&mut self, source: &Source) -> Option<&mut ComponentState> {
        self.record.components.iter_mut().find(|state| state.label == source.label)
    }

    fn note_components(&mut self, components: &[Component]) {
        for component in components {
            let bytes = component.held.as_ref().map_or(0, Held::bytes);
            if let Some(state) = self.state_of(&component.source) {
                state.bytes_total = bytes;
                if component.held.is_ok() {
                    state.phase = CapturePhase::Uploading;
                }
            }
        }
        self.record.bytes_total = self.record.components.iter().map(|state| state.bytes_total).sum();
    }

    /// Says where it stands, without waiting for the disk: the application holds still.
    fn show(&mut self, phase: CapturePhase) {
        self.record.phase = phase;
        if let Err(error) = self.place.show(&self.record) {
            self.context.monitor.notice(&format!("the record of the capture could not be written: {error}"));
        }
    }

    fn fail(&mut self, error: &Error) {
        fail_record(self.context, &self.folder, &self.place, &mut self.record, error);
    }
}

/// A failure of one source, as a sentence, where the policy says that it is not one of the capture. One of
/// the repository always is.
pub(crate) fn of_one_source(application: &Application, error: Error) -> Result<String> {
    match error {
        Error::Engine(EngineError::Interrupted | EngineError::Store(_)) => Err(error),
        error if application.policy.partial => Ok(shortened(error.to_string())),
        error => Err(error),
    }
}

/// Records a failure and removes what no upload will need.
pub(crate) fn fail_record(
    context: &Context,
    folder: &AppFolder,
    place: &CaptureFolder,
    record: &mut CaptureRecord,
    error: &Error,
) {
    record.phase = match error {
        error if error.is_interrupted() => CapturePhase::Canceled,
        _ => CapturePhase::Failed,
    };
    record.error = Some(RecordedError {
        code: Verdict::from(error).reason.name().into(),
        message: shortened(error.to_string()),
        time: context.clock.now(),
    });
    let tidied = place.remove_kept(record).and_then(|()| match record.app.as_str() {
        "" => place.remove(),
        _ => place.write(record).and_then(|()| folder.forget_failures(false)),
    });
    if let Err(error) = tidied {
        context.monitor.notice(&format!("the failed capture could not be recorded: {error}"));
    }
}
