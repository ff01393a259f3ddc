//! What a deploy of an application has begun, so that whoever comes after a kill can take it back or finish
//! it: with nothing but this document, whatever became of the configuration since.

use std::path::{Path, PathBuf};
use std::time::Duration;

use copal_engine::state::Known;
use copal_source::postgres::PostgresSpec;
use copal_source::target::rename_new;
use serde::{Deserialize, Serialize};

use super::carry::Carried;
use super::within::Times;
use crate::error::{Error, Result};
use crate::record::{ResumeStep, read_vouched, write_json};
use crate::state::AppFolder;

const VERSION: u16 = 5;
/// Journals that were set aside.
const ASIDE_MAX: u32 = 1000;
static NOTHING: Carried = Carried::new();

/// How far a deploy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// New states are being built beside the old ones; the application may run.
    Staging,
    /// The application is being stopped, switched, migrated, started, asked for its health. Taken back when
    /// it is found.
    Trying,
    /// It is healthy: what stood there before may go. Finished when it is found.
    Committed,
}

/// A deploy under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u16,
    pub(super) app: String,
    pub(super) snapshot: String,
    pub(super) stage: Stage,
    pub(super) targets: Vec<Target>,
    /// Of each target, in the same order, what is moved into its new state; nothing before the switch.
    #[serde(default)]
    pub(super) carried: Vec<Carried>,
    pub(super) stop: Vec<ResumeStep>,
    pub(super) start: Vec<ResumeStep>,
}

/// A target of a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// A file or a folder.
    Place {
        /// Where.
        path: PathBuf,
        /// The new state before the switch, the old one after it.
        staged: PathBuf,
        /// What stands beside the target: that itself, or the folder that it is in.
        beside: PathBuf,
        /// What was made beside the target; none: nothing yet, or an empty folder.
        made: Option<Known>,
        /// The new state; none before it is built.
        new: Option<Known>,
        /// What stood at the target before the switch.
        old: Option<Known>,
        /// Files that belong to what stood there, and where they are meanwhile.
        asides: Vec<(PathBuf, PathBuf)>,
        /// Where the old state stays in the end; none: it is removed.
        #[serde(default)]
        kept: Option<PathBuf>,
    },
    /// A folder that cannot be exchanged: a mount point.
    Within {
        /// Where.
        path: PathBuf,
        /// The new state before the switch, in it.
        staged: PathBuf,
        /// Which folder it is: another one may be mounted there by the time that it is taken back. None in
        /// journals of before.
        #[serde(default)]
        identity: Option<Known>,
        /// When it was changed last, by others and by what is built in it.
        times: Times,
        /// Where the old state stays in the end, in it; none: it is removed.
        #[serde(default)]
        kept: Option<PathBuf>,
    },
    /// A block device.
    Device {
        /// Where.
        path: PathBuf,
        /// Where its new state is, and its old one.
        folder: PathBuf,
        /// Which device it is.
        identity: String,
        /// Where its old state stays in the end; none: it is removed.
        #[serde(default)]
        kept: Option<PathBuf>,
    },
    /// Databases of a server.
    Databases {
        /// Where the server is.
        dsn: String,
        /// Folder of its programs.
        bin: Option<PathBuf>,
        /// How long a step may take, in seconds.
        timeout: u64,
        /// The final name, that of the new state, that of the old one meanwhile, and whether there was one.
        names: Vec<(String, String, String, bool)>,
        /// Whether the old states stay in the end, under the names that they have meanwhile.
        #[serde(default)]
        kept: bool,
        /// Final names of those that nobody could connect to before.
        #[serde(default)]
        closed: Vec<String>,
    },
}

impl Target {
    /// What stands beside a place for the time of a deploy.
    pub(super) fn beside(&self) -> Option<&Path> {
        if let Self::Place { beside, .. } = self { Some(beside) } else { None }
    }

    /// The server of databases.
    pub(super) fn server(dsn: &str, bin: Option<&Path>, timeout: u64) -> PostgresSpec {
        PostgresSpec {
            bin: bin.map(Path::to_owned),
            timeout: Duration::from_secs(timeout),
            ..PostgresSpec::of_dsn(dsn)
        }
    }
}

impl Journal {
    pub(super) fn new(app: &str, snapshot: &str, stop: Vec<ResumeStep>, start: Vec<ResumeStep>) -> Self {
        let (app, snapshot) = (app.to_owned(), snapshot.to_owned());
        let (targets, carried) = (Vec::new(), Vec::new());
        Self { version: VERSION, app, snapshot, stage: Stage::Staging, targets, carried, stop, start }
    }

    /// Puts targets before those that they stand in: a tree that changes places takes along what is beside
    /// the targets in it. Before any of them is switched.
    pub(super) fn inner_first(&mut self) {
        let depth = |target: &Target| match target {
            Target::Place { path, .. } | Target::Within { path, .. } => path.components().count(),
            Target::Device { .. } | Target::Databases { .. } => 0,
        };
        self.targets.sort_by_key(|target| std::cmp::Reverse(depth(target)));
    }

    /// Each target with what is carried into it.
    pub(super) fn switches(&self) -> impl DoubleEndedIterator<Item = (&Target, &Carried)> {
        let carried = (0..self.targets.len()).map(|number| self.carried.get(number).unwrap_or(&NOTHING));
        self.targets.iter().zip(carried)
    }

    /// Makes it last before anything is done that it describes.
    pub(super) fn write(&self, folder: &AppFolder) -> Result<()> {
        write_json(folder.state(), &folder.deploy_journal(), self, true)
    }

    /// What there is; an error if it is there and cannot be read.
    pub(super) fn read(folder: &AppFolder) -> Result<Found> {
        let path = folder.deploy_journal();
        let bytes = match read_vouched(folder.state(), &path) {
            Ok(None) => return Ok(Found::Nothing),
            Ok(Some(bytes)) => bytes,
            Err(error) => return Ok(Found::Unvouched(error)),
        };
        let unreadable = |detail: String| Error::usage(format!("the journal {} {detail}", path.display()));
        let journal: Self =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(format!("is damaged: {error}")))?;
        if journal.version > VERSION {
            return Err(unreadable("was written by a newer version".into()));
        }
        Ok(Found::Journal(journal))
    }
}

/// What stands in the place of the journal.
pub(super) enum Found {
    /// There is no deploy under way.
    Nothing,
    /// There is.
    Journal(Journal),
    /// Something that nothing vouches for.
    Unvouched(Error),
}

/// Gives what nothing vouches for another name, so that it stops nothing and is not lost.
pub(super) fn set_aside(folder: &AppFolder) -> Result<PathBuf> {
    let path = folder.deploy_journal();
    for number in 1..ASIDE_MAX {
        let aside = path.with_extension(format!("json.left-{number}"));
        match rename_new(&path, &aside) {
            Ok(()) => return Ok(aside),
            Err(_) if aside.exists() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::usage(format!("{} cannot be set aside: there are too many like it; remove them", path.display())))
}
