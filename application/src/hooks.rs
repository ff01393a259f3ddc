//! Hooks of an application in their order, and the steps that undo them.

use copal_manifest::snapshot::{HookOutcome, HookRecord};
use copal_source::hook::{Action, HOOK_TIMEOUT, Hook, HookSignal, OnError, When};
use copal_source::process::{Ended, How};

use crate::config::{Application, Service};
use crate::error::{Error, Result};
use crate::record::{ResumeAction, ResumeStep};

/// Longest detail that is recorded.
const DETAIL_BYTES_MAX: usize = 2000;

/// Variables that hooks get.
pub(super) type Variables = Vec<(String, String)>;

/// Runs hooks and keeps their results.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    pub(super) records: Vec<HookRecord>,
    pub(super) variables: Variables,
}

/// In which order services come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// What others depend on first.
    Forward,
    /// What depends on others first.
    Backward,
}

impl Hooks {
    pub(super) fn new(app: &str, snapshot: &str) -> Self {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self { records: Vec::new(), variables: vec![variable("COPAL_APP", app), variable("COPAL_SNAPSHOT", snapshot)] }
    }

    /// Runs all hooks of a moment; ends with the first failure that counts.
    pub(super) fn run(&mut self, application: &Application, when: When, order: Order) -> Result<()> {
        for service in in_order(application, order) {
            for hook in service.hooks.iter().filter(|hook| hook.when == when) {
                self.run_one(service, hook)?;
            }
        }
        Ok(())
    }

    pub(super) fn run_one(&mut self, service: &Service, hook: &Hook) -> Result<()> {
        let mut variables = self.variables.clone();
        variables.push(("COPAL_HOOK".into(), hook.when.name().into()));
        variables.push(("COPAL_SERVICE".into(), service.name.clone()));
        let ended = hook.action.run(hook.timeout, &variables);
        self.records.push(record(&service.name, hook.when.name(), &hook.action.name(), &ended));
        if ended.is_success() || hook.on_error == OnError::Continue {
            return Ok(());
        }
        Err(Error::Hook {
            service: service.name.clone(),
            when: hook.when.name(),
            what: hook.action.name(),
            detail: ended.sentence(),
        })
    }

    /// Runs the steps that let an application go on: all of them, whatever becomes of each. The first failure
    /// that counts.
    pub(super) fn resume(&mut self, steps: &[(ResumeStep, OnError)]) -> Result<()> {
        let mut first = Ok(());
        for (step, on_error) in steps {
            let (what, ended) = run_step(step);
            self.records.push(record(&step.service, When::Post.name(), &what, &ended));
            if !ended.is_success() && *on_error == OnError::Fail && first.is_ok() {
                let detail = ended.sentence();
                first = Err(Error::Hook { service: step.service.clone(), when: "post", what, detail });
            }
        }
        first
    }

    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.variables.push((name.into(), value.into()));
    }
}

fn in_order(application: &Application, order: Order) -> Vec<&Service> {
    let mut services: Vec<&Service> = application.services.iter().collect();
    if order == Order::Backward {
        services.reverse();
    }
    services
}

/// Does a step.
pub(super) fn run_step(step: &ResumeStep) -> (String, Ended) {
    let timeout = std::time::Duration::from_millis(step.timeout_milliseconds);
    let action = match &step.action {
        ResumeAction::Command(argv) => Action::Command(argv.clone()),
        ResumeAction::Thaw(path) => Action::Thaw(path.clone()),
        ResumeAction::Signal { signal, pid_file } => {
            let signal = HookSignal::from_name(signal).unwrap_or(HookSignal::Continue);
            Action::Signal { signal, pid_file: pid_file.clone() }
        }
    };
    (action.name(), action.run(timeout, &step.environment))
}

/// What lets the application go on after its pre hooks: their inverses, then the post hooks; what others
/// depend on first.
pub(super) fn resume_steps(application: &Application, variables: &Variables) -> Vec<(ResumeStep, OnError)> {
    let mut steps = Vec::new();
    for service in &application.services {
        let of = |when| service.hooks.iter().filter(move |hook| hook.when == when);
        let inverses: Vec<Hook> = of(When::Pre)
            .filter_map(|hook| Some(Hook { action: hook.action.inverse()?, timeout: HOOK_TIMEOUT, ..hook.clone() }))
            .collect();
        for hook in inverses.iter().rev().chain(of(When::Post)) {
            let mut environment = variables.clone();
            environment.push(("COPAL_HOOK".into(), "post".into()));
            environment.push(("COPAL_SERVICE".into(), service.name.clone()));
            let action = match &hook.action {
                Action::Command(argv) => ResumeAction::Command(argv.clone()),
                // Frozen by a hook that says so only: to freeze again would be no way to go on.
                Action::Freeze(path) | Action::Thaw(path) => ResumeAction::Thaw(path.clone()),
                Action::Signal { signal, pid_file } => {
                    ResumeAction::Signal { signal: signal.name().into(), pid_file: pid_file.clone() }
                }
            };
            let timeout_milliseconds = u64::try_from(hook.timeout.as_millis()).unwrap_or(u64::MAX);
            let step = ResumeStep { service: service.name.clone(), action, timeout_milliseconds, environment };
            steps.push((step, hook.on_error));
        }
    }
    steps
}

fn record(service: &str, when: &str, what: &str, ended: &Ended) -> HookRecord {
    let outcome = match ended.how {
        How::Exited(0) => HookOutcome::Done,
        How::TimedOut => HookOutcome::TimedOut,
        _ => HookOutcome::Failed,
    };
    let detail = if ended.is_success() { ended.said.trim().to_owned() } else { ended.sentence() };
    HookRecord {
        service: service.into(),
        when: when.into(),
        what: shortened(what.to_owned()),
        outcome,
        detail: shortened(detail),
        microseconds: u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX),
    }
}

/// The end of a text that is too long.
pub(super) fn shortened(text: String) -> String {
    if text.len() <= DETAIL_BYTES_MAX {
        return text;
    }
    let mut from = text.len() - DETAIL_BYTES_MAX;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}
