//! The sources of an application through a capture: prepared, held, stored.
//!
//! Preparation may take its time, while the application runs: connections are opened, and what of a tree can
//! be stored beforehand is stored. Only the second step needs the application held still, and is short.
//! Storing may take hours, after the application goes on.

use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use copal_engine::context::Context;
use copal_engine::create::{Creation, Exclusions, Input, InputContent, Taken, recorded_path as recorded_path_of};
use copal_engine::state::place_led_to;
use copal_manifest::snapshot::{SourceKind, SourceRecord};
use copal_source::kept::{KeptFile, KeptValue, Stands, is_block_device};
use copal_source::postgres::{PostgresPin, PreparedPostgres};
use copal_source::process::{How, Program, run};
use copal_source::read::PinnedBytes;
use copal_source::sqlite::{PreparedSqlite, SqlitePin};
use copal_source::target::TargetTree;
use copal_store::secret::INSTANCE_KEY;

use crate::capture::clone::{ClonePlace, Cloned, clone_changed, estimate};
use crate::capture::paths::recorded_path;
use crate::config::{Source, SourceSpec, TreeSpec};
use crate::error::{Error, Result, failed};

/// With fewer changed files than this, and no more bytes, a tree is not stored before the freeze: there is
/// little to gain.
const FILES_UNDER_FREEZE_MAX: u64 = 5000;
const BYTES_UNDER_FREEZE_MAX: u64 = 8 << 20;

/// A source that is ready to be held.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// A tree; `before` is what was stored of it a moment ago.
    Tree {
        tree: TreeSpec,
        kind: SourceKind,
        before: Option<SourceRecord>,
        clone: Option<ClonePlace>,
    },
    Sqlite(PreparedSqlite),
    Postgres(PreparedPostgres),
    Device(PathBuf),
    Command {
        argv: Vec<String>,
        timeout: Duration,
    },
    Value {
        path: PathBuf,
        secret: bool,
    },
}

/// A source that is held.
#[derive(Debug)]
pub(crate) enum Held {
    /// It is stored already.
    Stored(Taken),
    /// It is read as it stands.
    Live {
        tree: TreeSpec,
        kind: SourceKind,
    },
    /// What changed is in a clone.
    Cloned {
        cloned: Cloned,
        kind: SourceKind,
        before: Option<SourceRecord>,
    },
    Sqlite(Arc<SqlitePin>),
    Postgres(PostgresPin),
    Device(PathBuf),
    /// A file of the spool.
    Spooled {
        path: PathBuf,
        stands: Stands,
    },
    Value {
        bytes: Vec<u8>,
        stands: Stands,
        secret: bool,
    },
}

/// How captures stand to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stillness {
    /// It holds still, as its hooks see to.
    Frozen,
    /// Nothing holds it still.
    Running,
}

/// Makes ready.
pub(crate) fn prepare(
    context: &Context,
    creation: &Creation,
    source: &Source,
    stillness: Stillness,
    clones: Option<&Path>,
    patience: Duration,
) -> Result<Prepared> {
    let absolute =
        |path: &Path| std::path::absolute(path).map_err(|error| Error::usage(format!("{}: {error}", path.display())));
    if let Some(path) = source.spec.path() {
        // What no deploy would go through is not captured either.
        place_led_to(path)?;
    }
    match &source.spec {
        SourceSpec::Sqlite(spec) => {
            // One more than workers, for the check.
            let prepared = PreparedSqlite::open(spec, context.worker_threads() + 1, patience)?;
            Ok(Prepared::Sqlite(prepared))
        }
        SourceSpec::Postgres(spec) => Ok(Prepared::Postgres(PreparedPostgres::open(spec)?)),
        SourceSpec::Image { path } if is_block_device(path)? => Ok(Prepared::Device(absolute(path)?)),
        SourceSpec::Command { argv, timeout, .. } => Ok(Prepared::Command { argv: argv.clone(), timeout: *timeout }),
        SourceSpec::Config { path } => Ok(Prepared::Value { path: absolute(path)?, secret: false }),
        SourceSpec::Secret { path } => Ok(Prepared::Value { path: absolute(path)?, secret: true }),
        SourceSpec::Image { path } => {
            let tree = TreeSpec { path: absolute(path)?, ..TreeSpec::default() };
            prepare_tree(context, creation, source, tree, stillness, clones)
        }
        SourceSpec::Tree(tree) => {
            let tree = TreeSpec { path: absolute(&tree.path)?, ..tree.clone() };
            prepare_tree(context, creation, source, tree, stillness, clones)
        }
    }
}

fn prepare_tree(
    context: &Context,
    creation: &Creation,
    source: &Source,
    tree: TreeSpec,
    stillness: Stillness,
    clones: Option<&Path>,
) -> Result<Prepared> {
    let kind = source.spec.kind();
    fs::metadata(&tree.path).map_err(|source| copal_source::Error::Io {
        action: "looking at",
        path: tree.path.clone(),
        source,
    })?;
    if stillness == Stillness::Running {
        return Ok(Prepared::Tree { tree, kind, before: None, clone: None });
    }
    let find = |(clones, state)| ClonePlace::find(state, &tree.path, clones, &source.label);
    let found = clones.zip(context.state_folder.as_deref()).map(find).transpose()?;
    let clone = found.flatten();
    let parent = creation.parent_record(&source.label, recorded_path_of(&tree.path)?.as_os_str().as_bytes());
    let (files, bytes) = estimate(context, creation, &tree, parent.as_ref())?;
    let few = files <= FILES_UNDER_FREEZE_MAX && (clone.is_some() || bytes <= BYTES_UNDER_FREEZE_MAX);
    let before = if few {
        parent.filter(|_| creation.believes_parent())
    } else {
        // What changes meanwhile is seen and taken under the freeze.
        let record = creation.take(context, &input_of_tree(source, &tree, kind, None)?)?.record;
        // The comparison under the freeze reads it, and a session reads only what it has published.
        creation.checkpoint()?;
        Some(record)
    };
    if clone.is_some() {
        write_out(&tree.path);
    }
    Ok(Prepared::Tree { tree, kind, before, clone })
}

/// Cloning a file writes out what of it is dirty: that had better be done before the application stands
/// still. A failure shows there.
fn write_out(path: &Path) {
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let _ = folder.map(|folder| TargetTree::open(folder)?.sync_filesystem());
}

pub(crate) fn input_of_tree(
    source: &Source,
    tree: &TreeSpec,
    kind: SourceKind,
    before: Option<SourceRecord>,
) -> Result<Input> {
    Ok(Input {
        label: source.label.clone(),
        kind: (kind != SourceKind::Tree).then_some(kind),
        path: recorded_path_of(&tree.path)?.into_os_string().into_vec(),
        content: InputContent::Path(tree.path.clone()),
        exclusions: tree.exclusions.clone(),
        only: None,
        page_structured: kind == SourceKind::Image,
        before,
        through_sqlite: false,
        clones: None,
    })
}

impl Prepared {
    /// Holds the state of this moment; says how.
    pub(crate) fn hold(
        self,
        context: &Context,
        creation: &Creation,
        source: &Source,
        stillness: Stillness,
        spool: &Path,
    ) -> Result<(Held, &'static str)> {
        match self {
            Self::Sqlite(prepared) => Ok((Held::Sqlite(Arc::new(prepared.pin()?)), "transaction")),
            Self::Postgres(prepared) => Ok((Held::Postgres(prepared.pin()?), "exported snapshot")),
            Self::Command { argv, timeout } => {
                let path = spool_path(spool, &source.label)?;
                let output = fs::File::create_new(&path).map_err(|error| failed("creating", &path, error))?;
                let ended = run(Program { argv: &argv, environment: &[], input: None, output: Some(output), timeout });
                if ended.how != How::Exited(0) {
                    let program = argv.first().cloned().unwrap_or_default();
                    return Err(copal_source::Error::Program { program, detail: ended.sentence() }.into());
                }
                let stands = Stands { mode: 0o600, ..Stands::of(&path)? };
                Ok((Held::Spooled { path, stands }, "output"))
            }
            Self::Value { path, secret } => {
                let (bytes, stands) = KeptValue::read(&path)?;
                Ok((Held::Value { bytes, stands, secret }, "read"))
            }
            Self::Device(path) if stillness == Stillness::Running => Ok((Held::Device(path), "read")),
            Self::Device(path) => {
                let input = pinned_input(source, Arc::new(KeptFile::device(&path)?))?;
                Ok((Held::Stored(creation.take(context, &input)?), "frozen read"))
            }
            Self::Tree { tree, kind, .. } if stillness == Stillness::Running => Ok((Held::Live { tree, kind }, "read")),
            Self::Tree { tree, kind, before, clone: Some(place) } => {
                let cloned = clone_changed(context, creation, &tree, before.as_ref(), place)?;
                Ok((Held::Cloned { cloned, kind, before }, "clone"))
            }
            Self::Tree { tree, kind, before, clone: None } => {
                let taken = creation.take(context, &input_of_tree(source, &tree, kind, before)?)?;
                Ok((Held::Stored(taken), "frozen read"))
            }
        }
    }
}

pub(crate) fn pinned_input(source: &Source, bytes: Arc<dyn PinnedBytes>) -> Result<Input> {
    let kind = source.spec.kind();
    Ok(Input {
        label: source.label.clone(),
        kind: Some(kind),
        path: recorded_path(source)?,
        content: InputContent::Pinned(bytes),
        exclusions: Exclusions::default(),
        only: None,
        page_structured: matches!(kind, SourceKind::Sqlite | SourceKind::Image),
        before: None,
        through_sqlite: false,
        clones: None,
    })
}

/// Where a source is spooled: its label is no file's name.
pub(crate) fn spool_path(spool: &Path, label: &str) -> Result<PathBuf> {
    fs::create_dir_all(spool).map_err(|error| failed("creating", spool, error))?;
    Ok(spool.join(&blake3::hash(label.as_bytes()).to_hex().as_str()[..16]))
}

pub(crate) fn check_database(pin: &SqlitePin, context: &Context) -> Result<()> {
    let interrupt = Arc::clone(&context.interrupt);
    let checked = pin.check(move || interrupt.load(Ordering::Relaxed));
    context.check_interrupt()?;
    Ok(checked?)
}

impl Held {
    /// Copies what only this process holds to the spool, and checks it meanwhile: a copy is not checked any
    /// more.
    pub(crate) fn spool(&mut self, context: &Context, source: &Source, spool: &Path) -> Result<()> {
        let interrupt = Arc::clone(&context.interrupt);
        let threads = context.worker_threads();
        match self {
            Self::Sqlite(pin) => {
                let path = spool_path(spool, &source.label)?;
                let stat = pin.stat();
                let stands = Stands { mode: stat.mode, uid: stat.uid, gid: stat.gid, modified: stat.modified };
                let stop = || interrupt.load(Ordering::Relaxed);
                let pin = &**pin;
                let (copied, checked) = std::thread::scope(|scope| {
                    let check = scope.spawn(|| check_database(pin, context));
                    let copied = copal_source::kept::copy(pin, &path, threads, &stop);
                    (copied, check.join().unwrap_or_else(|_| Err(Error::internal("a check died"))))
                });
                context.check_interrupt()?;
                checked?;
                copied?;
                *self = Self::Spooled { path, stands };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Checks what is held, where that is more than reading it.
    pub(crate) fn check(&self, context: &Context) -> Result<()> {
        match self {
            Self::Sqlite(pin) => check_database(pin, context),
            _ => Ok(()),
        }
    }

    /// What the pipeline stores; none: it is stored.
    pub(crate) fn input(&self, context: &Context, source: &Source, spool: &Path) -> Result<Option<Input>> {
        match self {
            Self::Stored(_) => Ok(None),
            Self::Live { tree, kind } => {
                Ok(Some(Input { through_sqlite: true, ..input_of_tree(source, tree, *kind, None)? }))
            }
            Self::Cloned { cloned, kind, before } => {
                let tree = cloned.tree();
                let content = cloned.content();
                let clones = cloned.kept_before();
                Ok(Some(Input { content, clones, ..input_of_tree(source, tree, *kind, before.clone())? }))
            }
            Self::Sqlite(pin) => pinned_input(source, Arc::clone(pin) as Arc<dyn PinnedBytes>).map(Some),
            Self::Device(path) => pinned_input(source, Arc::new(KeptFile::device(path)?)).map(Some),
            Self::Spooled { path, stands } => pinned_input(source, Arc::new(KeptFile::open(path, *stands)?)).map(Some),
            Self::Value { bytes, stands, secret } => {
                let kept = match secret {
                    true => context.repository.wrap_secret(INSTANCE_KEY, bytes)?,
                    false => bytes.clone(),
                };
                pinned_input(source, Arc::new(KeptValue::new(kept, *stands))).map(Some)
            }
            Self::Postgres(pin) => {
                let folder = spool_path(spool, &source.label)?;
                if !folder.exists() {
                    pin.dump(&folder, context.worker_threads())?;
                }
                Ok(Some(input_of_folder(source, folder)))
            }
        }
    }

    pub(crate) fn schema_version(&mut self) -> Result<Option<String>> {
        match self {
            Self::Sqlite(pin) => Ok(Some(pin.schema_version().to_owned())),
            Self::Postgres(pin) => {
                pin.describe()?;
                Ok(pin.schema_version().map(ToOwned::to_owned))
            }
            _ => Ok(None),
        }
    }

    /// Bytes, where they are known.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Stored(taken) => taken.record.bytes,
            Self::Sqlite(pin) => pin.stat().bytes,
            Self::Cloned { cloned, .. } => cloned.bytes(),
            Self::Spooled { path, .. } => fs::metadata(path).map_or(0, |found| found.len()),
            Self::Value { bytes, .. } => bytes.len() as u64,
            _ => 0,
        }
    }
}

/// A folder of dumps.
pub(crate) fn input_of_folder(source: &Source, folder: PathBuf) -> Input {
    Input {
        label: source.label.clone(),
        kind: Some(source.spec.kind()),
        path: Vec::new(),
        content: InputContent::Path(folder),
        exclusions: Exclusions::default(),
        only: None,
        page_structured: false,
        before: None,
        through_sqlite: false,
        clones: None,
    }
}
