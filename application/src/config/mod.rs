//! The configuration: applications, their services, sources and hooks, as `copal.toml` says. A mistake is
//! refused with its line.
//!
//! Parsing is pure: it opens nothing and looks nothing up.

pub mod keys;
mod problem;
mod raw;
mod resolve;
mod retention;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use copal_engine::create::Exclusions;
use copal_engine::removal::KeepRules;
use copal_manifest::snapshot::{Consistency, SourceKind};
use copal_source::hook::Hook;
use copal_source::postgres::PostgresSpec;
use copal_source::sqlite::SqliteSpec;

/// All that one configuration file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// By name.
    pub applications: BTreeMap<String, Application>,
    /// By name; `default` and `direct` are always there.
    pub classes: BTreeMap<String, SnapshotClass>,
    /// When the daemon collects by itself, as cron writes it; the daemon checks it.
    pub gc_schedule: Option<String>,
}

/// An application: services that are captured and put back as one unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Application {
    /// Its name: the `APP` of `APP/NAME`.
    pub name: String,
    /// Groups applications for those who ask for it; empty for none.
    pub namespace: String,
    /// The application of routes and commands that name none.
    pub default: bool,
    /// Version of its configuration, for the record; empty for none.
    pub config_version: String,
    /// The oldest snapshots go when there are more; `None`: nothing ever goes by itself.
    pub max_snapshots: Option<u32>,
    /// When the daemon takes snapshots of it by itself, as cron writes it; the daemon checks it.
    pub schedule: Option<String>,
    /// When the daemon verifies its snapshots, in the same way.
    pub verify_schedule: Option<String>,
    /// What goes by itself after each create, after each deploy, and when the daemon collects; `None`:
    /// nothing.
    pub retention: Option<Retention>,
    /// How it is captured.
    pub class: SnapshotClass,
    /// What it takes for a snapshot to count.
    pub policy: ConsistencyPolicy,
    /// The application is resumed at this deadline, whatever became of the capture.
    pub freeze_max: Duration,
    /// In dependency order: what a service depends on stands before it.
    pub services: Vec<Service>,
}

/// What of an application's snapshots stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Of those that were asked for; no rule keeps all.
    pub rules: KeepRules,
    /// Of those that were taken before deploys; no rule keeps all.
    pub safety: KeepRules,
    /// What has one of these stays whatever the rules say.
    pub keep_tags: Vec<(String, String)>,
}

/// What may be missing from a snapshot, and what never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsistencyPolicy {
    /// [`Consistency::Application`]: a capture that cannot hold the application still is aborted.
    /// [`Consistency::Crash`]: it goes on without, and the snapshot says so.
    pub wanted: Consistency,
    /// Whether a source that cannot be captured may be left out (the snapshot is then `PartiallyFailed`).
    pub partial: bool,
}

/// How captures are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotClass {
    /// Its name.
    pub name: String,
    /// Whether what is pinned outlives this process, so that an upload can be resumed.
    pub pinning: Pinning,
    /// What is said of it, uninterpreted.
    pub capabilities: BTreeMap<String, String>,
}

/// What happens to a state that only a living process can hold: a database's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pinning {
    /// It is copied to a spool in the state folder first; a killed upload goes on from there.
    #[default]
    Spool,
    /// It is read straight into the repository: nothing is written twice, and a killed upload is a failed
    /// snapshot.
    Direct,
}

/// A part of an application.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Services that it needs.
    pub depends_on: Vec<String>,
    /// What is captured of it.
    pub sources: Vec<Source>,
    /// What is run around it.
    pub hooks: Vec<Hook>,
}

/// A source of an application.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Unique in the application.
    pub label: String,
    /// What it is.
    pub spec: SourceSpec,
    /// Which of two versions of its schema is older, where they are no numbers.
    pub version_order: Option<VersionOrder>,
}

/// What tells the order of versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionOrder {
    /// All versions, the oldest first.
    List(Vec<String>),
    /// A program that writes them so, one a line.
    Command(Vec<String>),
}

/// The kinds of sources.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceSpec {
    /// A folder's contents, or one file.
    Tree(TreeSpec),
    /// A SQLite database.
    Sqlite(SqliteSpec),
    /// Databases of a PostgreSQL server.
    Postgres(PostgresSpec),
    /// A disk image or a block device.
    Image {
        /// The file or device.
        path: PathBuf,
    },
    /// What a command writes.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// Given what was captured on its standard input by a deploy; none: it can only be put into a file.
        restore: Option<Vec<String>>,
        /// How long either may take.
        timeout: Duration,
    },
    /// A small value.
    Config {
        /// The file that holds it.
        path: PathBuf,
    },
    /// A small value that is sealed once more.
    Secret {
        /// The file that holds it.
        path: PathBuf,
    },
}

/// A tree as a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeSpec {
    /// A folder or a file.
    pub path: PathBuf,
    /// What to leave out.
    pub exclusions: Exclusions,
}

impl SourceSpec {
    /// What the manifest calls it.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Tree(_) => SourceKind::Tree,
            Self::Sqlite(_) => SourceKind::Sqlite,
            Self::Postgres(_) => SourceKind::Postgres,
            Self::Image { .. } => SourceKind::Image,
            Self::Command { .. } => SourceKind::Command,
            Self::Config { .. } => SourceKind::Config,
            Self::Secret { .. } => SourceKind::Secret,
        }
    }

    /// Where it is on this machine, for kinds that have a place.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Tree(tree) => Some(&tree.path),
            Self::Sqlite(sqlite) => Some(&sqlite.path),
            Self::Image { path } | Self::Config { path } | Self::Secret { path } => Some(path),
            Self::Postgres(_) | Self::Command { .. } => None,
        }
    }
}

impl Application {
    /// All sources, with the services that they belong to, in dependency order.
    pub fn sources(&self) -> impl Iterator<Item = (&Service, &Source)> {
        self.services.iter().flat_map(|service| service.sources.iter().map(move |source| (service, source)))
    }
}

/// A mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}:{line}: {message}", place = path.display())]
pub struct Mistake {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads a configuration. `path` is where the text comes from: relative paths in it are beneath its folder.
pub fn parse(path: &Path, text: &str) -> Result<Configuration, Box<Mistake>> {
    let at = |span: Option<std::ops::Range<usize>>, message: String| {
        let before = text.get(..span.map_or(0, |span| span.start)).unwrap_or(text);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        Box::new(Mistake { path: path.to_owned(), line, message })
    };
    keys::check(text).map_err(|problem| at(Some(problem.span), problem.message))?;
    let raw: raw::Document =
        toml::from_str(text).map_err(|error| at(error.span(), error.message().trim_end().to_owned()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    resolve::resolve(raw, folder).map_err(|problem| at(Some(problem.span), problem.message))
}

impl Configuration {
    /// The application of a name; of no name, the default one or the only one.
    #[must_use]
    pub fn application(&self, name: Option<&str>) -> Option<&Application> {
        match name {
            Some(name) => self.applications.get(name),
            None if self.applications.len() == 1 => self.applications.values().next(),
            None => self.applications.values().find(|application| application.default),
        }
    }
}
