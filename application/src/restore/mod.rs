//! Puts an application back as one unit: check → stage → stop → safety snapshot → switch → rewrite → migrate
//! → start → health.
//!
//! Nothing of the old state is removed before the application is healthy with the new one. Until then every
//! failure, and every kill, ends with what stood there before; the journal says how.

mod carry;
mod check;
mod device;
mod journal;
mod keep;
mod late;
mod rehearsal;
mod stage;
mod standing;
mod switch;
mod version;
mod within;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use copal_engine::context::Context;
use copal_engine::deploy::remove_whole;
use copal_source::hook::{Action, When};

use self::check::{Checked, SchemaAge};
use self::journal::{Found, Journal, Stage};
use crate::config::Application;
use crate::error::{Error, Result};
use crate::hooks::{Hooks, Order, run_step};
use crate::record::{ResumeAction, ResumeStep};
use crate::state::{AppFolder, CHECK, state_folder};
use crate::{KeptSource, RestoreReport, RestoreRequest, Tools};

/// A health hook that fails is tried again after this.
const HEALTH_EVERY: Duration = Duration::from_millis(200);

/// See [`crate::restore`].
pub(super) fn restore(
    context: &Context,
    application: &Application,
    request: &RestoreRequest,
    tools: &Tools,
) -> Result<RestoreReport> {
    let begun = context.clock.monotonic_nanoseconds();
    let folder = AppFolder::of(state_folder(context)?, &application.name);
    let held = folder.hold(context, &application.name, if request.dry_run { CHECK } else { "a restore" })?;
    let left =
        if request.dry_run { crate::recover::outlook_of(&folder)? } else { crate::recover::recover_held(&folder)? };
    left.iter().for_each(|sentence| context.monitor.notice(sentence));
    let checked = check::check(context, application, request)?;
    for component in &checked.components {
        if let Some(path) = component.target() {
            stage::stays(context, component, &checked, &path)?;
        }
    }
    if !application.services.iter().any(|service| service.hooks.iter().any(|hook| hook.when == When::Stop)) {
        // Nothing will stop them.
        stage::refuse_holders(&checked)?;
    }
    let mut deploy = Restore {
        context,
        application,
        folder: &folder,
        hooks: Hooks::new(&application.name, &checked.name),
        journal: Journal::new(
            &application.name,
            &checked.snapshot.to_string(),
            steps(application, When::Stop, Order::Backward),
            steps(application, When::Start, Order::Forward),
        ),
        warnings: checked.warnings.clone(),
        labels: Vec::new(),
        to_put_aside: Vec::new(),
        kept: Vec::new(),
        down_since: None,
        down: 0,
    };
    let mut report = RestoreReport {
        snapshot: checked.snapshot,
        name: checked.name.clone(),
        safety: None,
        migrated: checked.verdict == SchemaAge::Older,
        components: checked.components.iter().map(check::Component::planned).collect(),
        down_milliseconds: 0,
        duration_ms: 0,
        warnings: Vec::new(),
        kept: Vec::new(),
    };
    if request.dry_run {
        let seen = rehearsal::look(context, &checked, request, &mut report)?;
        deploy.kept = seen.kept;
        deploy.warnings.extend(seen.warnings);
    } else {
        let done = deploy.run(&checked, request, tools, &mut report);
        // Only now: until here what is being deployed had to be there, however old it is.
        let in_use: Vec<_> = report.safety.into_iter().chain([checked.snapshot]).collect();
        if report.safety.is_some() && !matches!(&done, Err(error) if error.is_interrupted()) {
            let retained = crate::retain::after_deploy(context, application, &in_use);
            if let Err(error) = retained {
                let what = "what the rules of the application let go is still there";
                context.monitor.notice(&format!("{what}: {error}"));
            }
        }
        done?;
    }
    report.kept = deploy.kept;
    report.down_milliseconds = deploy.down / 1_000_000;
    report.warnings = deploy.warnings;
    report.duration_ms = context.clock.monotonic_nanoseconds().saturating_sub(begun) / 1_000_000;
    drop(held);
    Ok(report)
}

struct Restore<'a> {
    context: &'a Context,
    application: &'a Application,
    folder: &'a AppFolder,
    hooks: Hooks,
    journal: Journal,
    warnings: Vec<String>,
    /// Labels of sources that have a target in the journal, and its place.
    labels: Vec<(String, PathBuf)>,
    /// Sources that are in no snapshot as they stand, and why.
    to_put_aside: Vec<(String, String)>,
    kept: Vec<KeptSource>,
    down_since: Option<u64>,
    down: u64,
}

impl Restore<'_> {
    fn run(
        &mut self,
        checked: &Checked,
        request: &RestoreRequest,
        tools: &Tools,
        report: &mut RestoreReport,
    ) -> Result<()> {
        // What shares nothing with the standing state is built while the application runs.
        let early = self.stage(checked, stage::When::Running, report);
        if let Err(error) = early {
            return Err(self.take_back_staging(error));
        }
        self.journal.stage = Stage::Trying;
        self.write()?;
        match self.try_out(checked, request, tools, report) {
            Ok(()) => {}
            Err(error) => return Err(self.take_back(error)),
        }
        self.journal.stage = Stage::Committed;
        if let Err(error) = self.write() {
            return Err(self.take_back(error));
        }
        // It is healthy: nothing from here on is a failure of the deploy.
        if let Err(error) = finish(self.folder, &self.journal) {
            self.context.monitor.notice(&format!("what stood there before could not be removed yet: {error}"));
        }
        Ok(())
    }

    fn stage(&mut self, checked: &Checked, when: stage::When, report: &mut RestoreReport) -> Result<()> {
        for (number, component) in checked.components.iter().enumerate() {
            self.context.check_interrupt()?;
            if stage::when(component) != when {
                continue;
            }
            let planned = stage::target(self.context, component, checked, self.folder)?;
            let Some(mut target) = planned else { continue };
            // Before it is built: a kill leaves nothing that nobody knows of.
            self.journal.targets.push(target.clone());
            self.labels.push((component.source.label.clone(), keep::place_of(&target)));
            self.write()?;
            if stage::make(&mut target)? {
                self.note(&target)?;
            }
            let (bytes, warnings) = stage::build(self.context, component, checked, &mut target, self.folder)?;
            self.note(&target)?;
            report.components[number].bytes_written = bytes;
            self.warnings.extend(warnings);
        }
        Ok(())
    }

    fn try_out(
        &mut self,
        checked: &Checked,
        request: &RestoreRequest,
        tools: &Tools,
        report: &mut RestoreReport,
    ) -> Result<()> {
        self.down_since = Some(self.context.clock.monotonic_nanoseconds());
        self.context.monitor.phase("stopping");
        self.hooks.run(self.application, When::Stop, Order::Backward)?;
        let standing = self.standing()?;
        let seen = late::Seen::of(self.context, checked);
        self.journal.targets.iter().try_for_each(switch::withdraw)?;
        if request.safety {
            report.safety = self.safety_snapshot(standing, checked, tools)?;
        }
        self.stage(checked, stage::When::Stopped, report)?;
        self.context.check_interrupt()?;
        self.context.monitor.phase("switching");
        self.journal.inner_first();
        self.note_old()?;
        self.put_aside(&checked.mark);
        self.journal.carried = stage::carried(self.context, checked, &self.journal.targets)?;
        self.write()?;
        stage::refuse_new_mounts(checked)?;
        stage::refuse_holders(checked)?;
        for (target, carried) in self.journal.switches() {
            switch::switch(target, carried)?;
        }
        self.feed_commands(checked)?;
        for (name, value) in check::variables(checked) {
            self.hooks.set(name, value);
        }
        self.hooks.run(self.application, When::Rewrite, Order::Forward)?;
        if checked.verdict == SchemaAge::Older {
            self.context.monitor.phase("migrating");
            self.hooks.run(self.application, When::Migrate, Order::Forward)?;
        }
        self.context.monitor.phase("starting");
        self.start()?;
        self.look_again(checked, request.safety, &seen, report)
    }

    /// Services start in the order in which they need each other; each is healthy before the next one starts.
    fn start(&mut self) -> Result<()> {
        for service in &self.application.services {
            for hook in service.hooks.iter().filter(|hook| hook.when == When::Start) {
                self.hooks.run_one(service, hook)?;
            }
            for hook in service.hooks.iter().filter(|hook| hook.when == When::Health) {
                let begun = Instant::now();
                loop {
                    let left = hook.timeout.saturating_sub(begun.elapsed());
                    let attempt = copal_source::hook::Hook { timeout: left.max(HEALTH_EVERY), ..hook.clone() };
                    match self.hooks.run_one(service, &attempt) {
                        Ok(()) => break,
                        Err(error) if begun.elapsed() >= hook.timeout => return Err(error),
                        Err(_) => {
                            self.hooks.records.pop();
                            self.context.check_interrupt()?;
                            std::thread::sleep(HEALTH_EVERY);
                        }
                    }
                }
            }
        }
        self.note_up();
        Ok(())
    }

    fn note_up(&mut self) {
        if let Some(since) = self.down_since.take() {
            self.down = self.context.clock.monotonic_nanoseconds().saturating_sub(since);
        }
    }

    fn feed_commands(&mut self, checked: &Checked) -> Result<()> {
        for component in &checked.components {
            stage::feed_command(self.context, component, checked, self.folder)?;
        }
        Ok(())
    }

    fn write(&self) -> Result<()> {
        self.journal.write(self.folder)
    }

    /// The last target is so far.
    fn note(&mut self, target: &journal::Target) -> Result<()> {
        if let Some(last) = self.journal.targets.last_mut() {
            last.clone_from(target);
        }
        self.write()
    }

    /// What stands at the targets may have been replaced while the application ran.
    fn note_old(&mut self) -> Result<()> {
        let mut changed = false;
        for target in &mut self.journal.targets {
            if let journal::Target::Place { path, old, .. } = target {
                let found = switch::standing(path);
                changed |= found != *old;
                *old = found;
            }
        }
        if changed { self.write() } else { Ok(()) }
    }

    /// Nothing was stopped or switched.
    fn take_back_staging(&mut self, error: Error) -> Error {
        self.tidy(undo(self.folder, &self.journal));
        error
    }

    fn take_back(&mut self, error: Error) -> Error {
        self.context.monitor.phase("rolling back");
        let stopped = self.hooks.run(self.application, When::Stop, Order::Backward);
        if let Err(error) = stopped {
            self.context.monitor.notice(&format!("while rolling back: {error}"));
        }
        let undone = undo(self.folder, &self.journal);
        let is_back = undone.is_ok();
        self.tidy(undone);
        if is_back && let Err(error) = self.start() {
            self.context.monitor.notice(&format!("what stood there stands there again, but does not start: {error}"));
        }
        self.note_up();
        match error {
            error if !is_back => error,
            error if error.is_interrupted() => error,
            cause => Error::RolledBack { app: self.application.name.clone(), cause: Box::new(cause) },
        }
    }

    fn tidy(&self, undone: Result<()>) {
        if let Err(error) = undone {
            let notice = format!("the next command goes on with taking the deploy back, which failed: {error}");
            self.context.monitor.notice(&notice);
        }
    }
}

/// The hooks of a moment as steps that need no configuration.
fn steps(application: &Application, when: When, order: Order) -> Vec<ResumeStep> {
    let mut services: Vec<_> = application.services.iter().collect();
    if order == Order::Backward {
        services.reverse();
    }
    let mut steps = Vec::new();
    for service in services {
        for hook in service.hooks.iter().filter(|hook| hook.when == when) {
            let action = match &hook.action {
                Action::Command(argv) => ResumeAction::Command(argv.clone()),
                Action::Freeze(path) | Action::Thaw(path) => ResumeAction::Thaw(path.clone()),
                Action::Signal { signal, pid_file } => {
                    ResumeAction::Signal { signal: signal.name().into(), pid_file: pid_file.clone() }
                }
            };
            steps.push(ResumeStep {
                service: service.name.clone(),
                action,
                timeout_milliseconds: u64::try_from(hook.timeout.as_millis()).unwrap_or(u64::MAX),
                environment: vec![
                    ("COPAL_APP".into(), application.name.clone()),
                    ("COPAL_HOOK".into(), when.name().into()),
                    ("COPAL_SERVICE".into(), service.name.clone()),
                ],
            });
        }
    }
    steps
}

fn undo(folder: &AppFolder, journal: &Journal) -> Result<()> {
    journal.switches().rev().try_for_each(|(target, carried)| switch::undo(target, carried, journal.stage))?;
    Ok(remove_whole(&folder.deploy_journal())?)
}

fn finish(folder: &AppFolder, journal: &Journal) -> Result<()> {
    journal.targets.iter().try_for_each(switch::finish)?;
    Ok(remove_whole(&folder.deploy_journal())?)
}

/// Ends a deploy that was killed; the application's lock is held.
pub(super) fn recover(folder: &AppFolder) -> Result<Option<String>> {
    let journal = match Journal::read(folder)? {
        Found::Nothing => return Ok(None),
        Found::Journal(journal) => journal,
        Found::Unvouched(error) => {
            let aside = journal::set_aside(folder)?;
            return Ok(Some(format!(
                "{error}: nothing of what it says was done, and it was renamed to {}. A deploy to the application may have been interrupted: look whether what stands there is whole, or deploy again",
                aside.display()
            )));
        }
    };
    let app = &journal.app;
    match journal.stage {
        Stage::Committed => {
            finish(folder, &journal)?;
            Ok(Some(format!("finished an interrupted deploy to the application {app:?}")))
        }
        Stage::Staging => {
            undo(folder, &journal)?;
            Ok(Some(format!("took back a deploy to the application {app:?} that had touched nothing")))
        }
        Stage::Trying => {
            let run = |steps: &[ResumeStep]| -> Vec<String> {
                let ended = steps.iter().map(run_step).filter(|(_, ended)| !ended.is_success());
                ended.map(|(what, ended)| format!("{what} {}", ended.sentence())).collect()
            };
            let mut failures = run(&journal.stop);
            undo(folder, &journal)?;
            failures.extend(run(&journal.start));
            let detail = if failures.is_empty() { String::new() } else { format!(" ({})", failures.join("; ")) };
            Ok(Some(format!(
                "took back an interrupted deploy to the application {app:?}: what stood there stands there again{detail}"
            )))
        }
    }
}

/// What [`recover`] would do; nothing is written.
pub(super) fn outlook(folder: &AppFolder) -> Option<String> {
    match Journal::read(folder) {
        Ok(Found::Nothing) => None,
        Ok(Found::Journal(Journal { app, stage: Stage::Committed, .. })) => {
            Some(format!("an interrupted deploy to the application {app:?} would be finished first"))
        }
        Ok(Found::Journal(Journal { app, .. })) => {
            Some(format!("an interrupted deploy to the application {app:?} would be taken back first"))
        }
        Ok(Found::Unvouched(error)) => Some(format!("{error}: nothing of what it says would be done")),
        Err(error) => Some(error.to_string()),
    }
}
