//! From what is written to what is meant: names resolved, durations read, services put in order,
//! contradictions refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use copal_engine::create::Exclusions;
use copal_engine::timespan;
use copal_manifest::snapshot::{Consistency, is_name};
use copal_source::hook::{Action, HOOK_TIMEOUT, Hook, HookSignal, OnError, When};
use copal_source::postgres::PostgresSpec;
use copal_source::sqlite::{Check, SqliteSpec};
use toml::Spanned;

use super::problem::{Problem, Resolved, problem};
use super::{
    Application, Configuration, ConsistencyPolicy, Pinning, Service, SnapshotClass, Source, SourceSpec, TreeSpec,
    VersionOrder, raw, retention,
};

/// An application is resumed after so long when it does not say.
const FREEZE_MAX: Duration = Duration::from_secs(60);
/// A dump, a load or a command may take so long.
const LONG_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// Longest time that a configuration may name: what takes longer hangs.
const TIME_MAX: Duration = Duration::from_secs(31 * 86_400);

pub(super) fn resolve(raw: raw::Document, folder: &Path) -> Resolved<Configuration> {
    let mut classes: BTreeMap<String, SnapshotClass> = [("default", Pinning::Spool), ("direct", Pinning::Direct)]
        .into_iter()
        .map(|(name, pinning)| (name.to_owned(), class_of(name, pinning)))
        .collect();
    for (name, class) in raw.class {
        checked_name(&name, "class")?;
        let pinning = match &class.pinning {
            None => Pinning::default(),
            Some(pinning) => match pinning.get_ref().as_str() {
                "spool" => Pinning::Spool,
                "direct" => Pinning::Direct,
                _ => return Err(problem(pinning, "pinning is \"spool\" or \"direct\"")),
            },
        };
        let name = name.into_inner();
        classes.insert(name.clone(), SnapshotClass { name, pinning, capabilities: class.capabilities });
    }
    let mut applications = BTreeMap::new();
    let mut default: Option<String> = None;
    for (name, app) in raw.app {
        checked_name(&name, "application")?;
        if let Some(flag) = app.default.as_ref().filter(|flag| *flag.get_ref())
            && let Some(other) = default.replace(name.get_ref().clone())
        {
            return Err(problem(flag, format!("the application {other:?} is the default already")));
        }
        let application = application(&name, app, &classes, folder)?;
        applications.insert(name.into_inner(), application);
    }
    Ok(Configuration { applications, classes, gc_schedule: raw.gc_schedule })
}

fn class_of(name: &str, pinning: Pinning) -> SnapshotClass {
    SnapshotClass { name: name.into(), pinning, capabilities: BTreeMap::new() }
}

fn checked_name(name: &Spanned<String>, what: &str) -> Resolved<()> {
    if is_name(name.get_ref()) {
        return Ok(());
    }
    Err(problem(name, format!("{:?} cannot be the name of a {what}", name.get_ref())))
}

fn application(
    name: &Spanned<String>,
    app: raw::App,
    classes: &BTreeMap<String, SnapshotClass>,
    folder: &Path,
) -> Resolved<Application> {
    let class = match &app.class {
        None => class_of("default", Pinning::default()),
        Some(class) => classes
            .get(class.get_ref())
            .cloned()
            .ok_or_else(|| problem(class, format!("there is no class {:?}", class.get_ref())))?,
    };
    let wanted = match &app.consistency {
        None => Consistency::Application,
        Some(wanted) => match wanted.get_ref().as_str() {
            "application" => Consistency::Application,
            "crash" => Consistency::Crash,
            _ => return Err(problem(wanted, "consistency is \"application\" or \"crash\"")),
        },
    };
    if let Some(zero) = app.max_snapshots.as_ref().filter(|max| *max.get_ref() == 0) {
        return Err(problem(zero, "max_snapshots is at least 1; leave it out to keep all"));
    }
    let short_form = !app.source.is_empty() || !app.hook.is_empty();
    if short_form && let Some((service, _)) = app.service.iter().next() {
        return Err(problem(service, "an application has sources and hooks of its own, or services, not both"));
    }
    let mut services = Vec::new();
    if short_form {
        let only = raw::Service { depends_on: Vec::new(), source: app.source, hook: app.hook };
        services.push(service(name.get_ref().clone(), only, folder)?);
    } else {
        services = in_order(app.service, folder)?;
    }
    let mut labels = BTreeSet::new();
    for (label, span) in services.iter().flat_map(|(_, labels)| labels) {
        if !labels.insert(label.clone()) {
            return Err(Problem {
                span: span.clone(),
                message: format!("two sources have the label {label:?}; give each a label of its own"),
            });
        }
    }
    if labels.is_empty() {
        return Err(problem(name, format!("the application {:?} has no source", name.get_ref())));
    }
    let retention = app.retention.map(retention::resolve).transpose()?;
    Ok(Application {
        name: name.get_ref().clone(),
        namespace: app.namespace,
        default: app.default.is_some_and(Spanned::into_inner),
        config_version: app.config_version.map(|version| version.into_inner().into_text()).unwrap_or_default(),
        max_snapshots: app.max_snapshots.map(Spanned::into_inner),
        schedule: app.schedule,
        verify_schedule: app.verify_schedule,
        retention,
        class,
        policy: ConsistencyPolicy { wanted, partial: app.partial },
        freeze_max: duration(app.freeze_max.as_ref(), FREEZE_MAX)?,
        services: services.into_iter().map(|(service, _)| service).collect(),
    })
}

type Labelled = (Service, Vec<(String, Range<usize>)>);

/// What a service depends on stands before it.
fn in_order(mut waiting: BTreeMap<Spanned<String>, raw::Service>, folder: &Path) -> Resolved<Vec<Labelled>> {
    let names: BTreeSet<String> = waiting.keys().map(|name| name.get_ref().clone()).collect();
    for (name, service) in &waiting {
        checked_name(name, "service")?;
        for needed in &service.depends_on {
            if !names.contains(needed.get_ref()) {
                return Err(problem(needed, format!("there is no service {:?}", needed.get_ref())));
            }
        }
    }
    let mut done = Vec::new();
    let mut placed = BTreeSet::new();
    while !waiting.is_empty() {
        let ready = |service: &raw::Service| service.depends_on.iter().all(|needed| placed.contains(needed.get_ref()));
        let next = waiting.iter().find(|(_, service)| ready(service)).map(|(name, _)| name.clone());
        let Some(next) = next else {
            let (name, _) = waiting.first_key_value().expect("it is not empty");
            return Err(problem(name, format!("the service {:?} depends on itself, through others", name.get_ref())));
        };
        let raw = waiting.remove(&next).expect("it was found there");
        placed.insert(next.get_ref().clone());
        done.push(service(next.into_inner(), raw, folder)?);
    }
    Ok(done)
}

fn service(name: String, raw: raw::Service, folder: &Path) -> Resolved<Labelled> {
    let mut sources = Vec::new();
    let mut labels = Vec::new();
    for raw in raw.source {
        let span = raw.get_ref().label.as_ref().map_or(raw.span(), Spanned::span);
        let source = source(raw, folder)?;
        labels.push((source.label.clone(), span));
        sources.push(source);
    }
    let hooks = raw.hook.into_iter().map(|raw| hook(raw, folder)).collect::<Resolved<Vec<_>>>()?;
    let depends_on = raw.depends_on.into_iter().map(Spanned::into_inner).collect();
    Ok((Service { name, depends_on, sources, hooks }, labels))
}

/// The fields that a kind has; a field of another kind is refused where it stands.
struct Fields {
    kind: Spanned<String>,
    given: Vec<(&'static str, Range<usize>)>,
}

impl Fields {
    fn only(&self, allowed: &[&str]) -> Resolved<()> {
        match self.given.iter().find(|(name, _)| !allowed.contains(name)) {
            None => Ok(()),
            Some((name, span)) => Err(Problem {
                span: span.clone(),
                message: format!("a source of the kind {:?} has no {name:?}", self.kind.get_ref()),
            }),
        }
    }

    fn needed<T>(&self, value: Option<Spanned<T>>, name: &str) -> Resolved<T> {
        let missing = || problem(&self.kind, format!("a source of the kind {:?} needs {name:?}", self.kind.get_ref()));
        value.map(Spanned::into_inner).ok_or_else(missing)
    }
}

fn source(raw: Spanned<raw::Source>, folder: &Path) -> Resolved<Source> {
    let raw = raw.into_inner();
    let mut given = Vec::new();
    macro_rules! note {
        ($($field:ident),*) => { $(if let Some(value) = &raw.$field { given.push((stringify!($field), value.span())); })* };
    }
    note!(path, include, exclude, exclude_caches, exclude_if_present, exclude_larger_than, one_file_system);
    note!(version_query, schema_version, version_order, check);
    note!(dsn, databases, globals, bin, argv, restore, timeout);
    let fields = Fields { kind: raw.kind, given };
    let place = |path: String| folder.join(path);
    let timeout = duration(raw.timeout.as_ref(), LONG_TIMEOUT)?;
    let schema_version = raw.schema_version.map(|version| version.into_inner().into_text());
    let version_order = raw.version_order.map(order_of).transpose()?;
    let version_query = raw.version_query.map(Spanned::into_inner);
    let kind = fields.kind.get_ref().clone();
    let spec = match kind.as_str() {
        "tree" => {
            let known = ["exclude_caches", "exclude_if_present", "exclude_larger_than"];
            fields.only(&[&["path", "include", "exclude", "one_file_system"], &known[..]].concat())?;
            let mut patterns = raw.exclude.map(Spanned::into_inner).unwrap_or_default();
            // As `.gitignore` has it: what comes later takes back.
            patterns
                .extend(raw.include.map(Spanned::into_inner).unwrap_or_default().iter().map(|glob| format!("!{glob}")));
            SourceSpec::Tree(TreeSpec {
                path: place(fields.needed(raw.path, "path")?),
                exclusions: Exclusions {
                    patterns,
                    one_file_system: raw.one_file_system.is_some_and(Spanned::into_inner),
                    caches: raw.exclude_caches.is_some_and(Spanned::into_inner),
                    if_present: raw.exclude_if_present.map(marks).transpose()?.unwrap_or_default(),
                    larger_than: raw.exclude_larger_than.map(bytes).transpose()?,
                },
            })
        }
        "sqlite" => {
            fields.only(&["path", "version_query", "schema_version", "version_order", "check"])?;
            let check = match &raw.check {
                None => Check::default(),
                Some(check) => match check.get_ref().as_str() {
                    "quick" => Check::Quick,
                    "full" => Check::Full,
                    "none" => Check::None,
                    _ => return Err(problem(check, "check is \"quick\", \"full\" or \"none\"")),
                },
            };
            let path = place(fields.needed(raw.path, "path")?);
            SourceSpec::Sqlite(SqliteSpec { path, version_query, schema_version, check })
        }
        "postgres" => {
            let known = ["dsn", "databases", "globals", "bin", "timeout"];
            fields.only(&[&known[..], &["version_query", "schema_version", "version_order"]].concat())?;
            SourceSpec::Postgres(PostgresSpec {
                dsn: fields.needed(raw.dsn, "dsn")?,
                databases: raw.databases.map(Spanned::into_inner).unwrap_or_default(),
                renamed: Vec::new(),
                load_as: None,
                globals: raw.globals.is_some_and(Spanned::into_inner),
                version_query,
                schema_version,
                bin: raw.bin.map(|bin| place(bin.into_inner())),
                timeout,
            })
        }
        "image" | "config" | "secret" => {
            fields.only(&["path"])?;
            let path = place(fields.needed(raw.path, "path")?);
            match kind.as_str() {
                "image" => SourceSpec::Image { path },
                "config" => SourceSpec::Config { path },
                _ => SourceSpec::Secret { path },
            }
        }
        "command" => {
            fields.only(&["argv", "restore", "timeout"])?;
            for argv in [&raw.argv, &raw.restore].into_iter().flatten() {
                not_empty(argv)?;
            }
            let argv = fields.needed(raw.argv, "argv")?;
            SourceSpec::Command { argv, restore: raw.restore.map(Spanned::into_inner), timeout }
        }
        "search" => {
            return Err(problem(&fields.kind, "this version of copal takes no sources of the kind \"search\""));
        }
        other => {
            return Err(problem(
                &fields.kind,
                format!("there is no kind {other:?}: it is tree, sqlite, postgres, image, command, config or secret"),
            ));
        }
    };
    let label = match raw.label {
        Some(label) => {
            checked_name(&label, "source")?;
            label.into_inner()
        }
        None => {
            let last = spec.path().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or(&kind);
            if is_name(last) { last.to_owned() } else { kind.clone() }
        }
    };
    Ok(Source { label, spec, version_order })
}

/// Names, or names and what the file begins with.
fn marks(written: Spanned<Vec<String>>) -> Resolved<Vec<String>> {
    match written.get_ref().iter().find(|word| !Exclusions::is_mark(word)) {
        Some(word) => Err(problem(&written, format!("{word:?} is no name of a file: write NAME, or NAME:BEGIN"))),
        None => Ok(written.into_inner()),
    }
}

fn bytes(written: Spanned<raw::ByteSize>) -> Resolved<u64> {
    match written.get_ref() {
        raw::ByteSize::Number(bytes) => Ok(*bytes),
        raw::ByteSize::Text(text) => match text.parse::<bytesize::ByteSize>() {
            Ok(bytes) => Ok(bytes.as_u64()),
            Err(_) => Err(problem(&written, format!("{text:?} is no size: write it as 100MiB, 2GB, or in bytes"))),
        },
    }
}

fn order_of(written: Spanned<raw::VersionOrder>) -> Resolved<VersionOrder> {
    let span = written.span();
    let wrong = |message: String| Problem { span: span.clone(), message };
    match written.into_inner() {
        raw::VersionOrder::Asked(asked) if asked.command.first().is_none_or(String::is_empty) => {
            Err(wrong("the command of version_order names no program".into()))
        }
        raw::VersionOrder::Asked(asked) => Ok(VersionOrder::Command(asked.command)),
        raw::VersionOrder::List(versions) => {
            let versions: Vec<String> = versions.into_iter().map(raw::Scalar::into_text).collect();
            let mut met = BTreeSet::new();
            match versions.iter().find(|version| !met.insert(version.as_str())) {
                Some(twice) => Err(wrong(format!("version_order has {twice:?} twice"))),
                None if versions.is_empty() => Err(wrong("version_order has no versions: leave it out".into())),
                None => Ok(VersionOrder::List(versions)),
            }
        }
    }
}

fn not_empty(argv: &Spanned<Vec<String>>) -> Resolved<()> {
    match argv.get_ref().first() {
        Some(program) if !program.is_empty() => Ok(()),
        _ => Err(problem(argv, "argv names no program")),
    }
}

fn hook(raw: Spanned<raw::Hook>, folder: &Path) -> Resolved<Hook> {
    let span = raw.span();
    let raw = raw.into_inner();
    let place = |path: &Spanned<String>| folder.join(path.get_ref());
    let when = When::ALL.into_iter().find(|when| when.name() == raw.when.get_ref());
    let when = when.ok_or_else(|| {
        let all: Vec<&str> = When::ALL.iter().map(|when| when.name()).collect();
        problem(&raw.when, format!("there is no {:?}: when is one of {}", raw.when.get_ref(), all.join(", ")))
    })?;
    let action = match (raw.argv, raw.freeze, raw.signal, raw.pid_file) {
        (Some(argv), None, None, None) => {
            not_empty(&argv)?;
            Action::Command(argv.into_inner())
        }
        (None, Some(freeze), None, None) if when == When::Pre => Action::Freeze(place(&freeze)),
        (None, Some(freeze), None, None) => {
            return Err(problem(&freeze, "a freeze is a hook of \"pre\"; the thaw comes by itself"));
        }
        (None, None, Some(signal), Some(pid_file)) => {
            let known = HookSignal::from_name(signal.get_ref());
            let signal = known.ok_or_else(|| problem(&signal, "the signal is STOP, CONT, HUP, USR1 or USR2"))?;
            Action::Signal { signal, pid_file: place(&pid_file) }
        }
        (None, None, Some(signal), None) => return Err(problem(&signal, "a signal needs a pid_file")),
        _ => {
            return Err(Problem {
                span,
                message: "a hook has an argv, or a freeze, or a signal and a pid_file".into(),
            });
        }
    };
    let on_error = match &raw.on_error {
        None => OnError::Fail,
        Some(word) => match word.get_ref().as_str() {
            "fail" => OnError::Fail,
            "continue" => OnError::Continue,
            _ => return Err(problem(word, "on_error is \"fail\" or \"continue\"")),
        },
    };
    Ok(Hook { when, action, timeout: duration(raw.timeout.as_ref(), HOOK_TIMEOUT)?, on_error })
}

fn duration(written: Option<&Spanned<String>>, default: Duration) -> Resolved<Duration> {
    let Some(written) = written else { return Ok(default) };
    timespan::parse(written.get_ref(), timespan::SHORTEST..=TIME_MAX).map_err(|message| problem(written, message))
}
