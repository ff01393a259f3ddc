//! Carries a decided deploy out: builds the new state beside the target and exchanges it, or stages a
//! journal, commits and applies it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use copal_manifest::snapshot::Snapshot;
use copal_source::target::{FolderLock, Removal, exchange, rename_new};

use super::DeployMode;
use super::build::{Donor, Sharing, Syncing, build};
use super::execute::Way;
use super::job::Job;
use super::journal::{Commit, Journal};
use super::kept::kept_tree;
use super::obstacles;
use super::pending::{Ledger, Registered};
use super::place::{Beside, Place, Standing, WriteRoot, failed};
use super::plan::Plan;
use super::recovery::carry_out;
use super::run::Made;
use super::stage::stage;
use crate::error::{Error, Result};
use crate::state::open_parent;

/// Most entries that are synced one by one: beyond, one call for the whole filesystem costs less.
const SINGLE_SYNCS_MAX: u64 = 128;

/// Files of at least so many bytes on average are synced one by one, however many: each waits for its own
/// bytes alone, while others are still being decoded.
const SINGLE_SYNC_BYTES_MIN: u64 = 1 << 20;

impl Job<'_> {
    /// Returns the way that was taken.
    pub(super) fn act(&self, plan: &Plan, way: Way, mode: DeployMode, snapshot: &Snapshot) -> Result<Way> {
        let single = plan.entries_total <= SINGLE_SYNCS_MAX
            || plan.bytes_total / plan.entries_total.max(1) >= SINGLE_SYNC_BYTES_MIN;
        let syncing = if single { Syncing::Each } else { Syncing::Filesystem };
        match way {
            Way::InPlace if plan.is_empty() => Ok(way),
            Way::InPlace => self.in_place(plan).map(|()| way),
            Way::Beside(_) if self.is_fresh() || self.builds_alone() => self.beside(None, syncing).map(|()| way),
            Way::Beside(_) => {
                let root = WriteRoot::open(&self.place.path, self.single)?;
                let reader = copal_source::read::TreeReader::open(&self.place.path)?;
                let sharing =
                    if self.capabilities.reflink { Sharing::Reflink } else { Sharing::HardLink(root.clone()) };
                match self.beside(Some(&Donor { plan, reader, sharing }), syncing) {
                    Err(error) if mode == DeployMode::Auto && is_across_layers(&error) => {
                        if let Some(found) = obstacles::in_place(self.run, &root, plan)? {
                            return Err(obstacles::unfit(self.place, found));
                        }
                        self.in_place(plan).map(|()| Way::InPlace)
                    }
                    outcome => outcome.map(|()| way),
                }
            }
            Way::Clone => {
                let kept = kept_tree(self, snapshot)?;
                let reader = copal_source::read::TreeReader::open(&kept.path)?;
                self.beside(Some(&Donor { plan: &kept.plan, reader, sharing: Sharing::Reflink }), syncing)?;
                Ok(way)
            }
        }
    }

    /// Wraps an error that came after something had begun, once what had begun is taken away.
    fn taken_back(&self, beside: &Path, registered: Registered, error: Error) -> Error {
        if self.run.steps.is_dead() {
            return error;
        }
        if let Err(error) = remove_made(beside, &registered).and_then(|()| registered.done()) {
            self.run.monitor().notice(&format!("{} could not be removed: {error}", beside.display()));
        }
        match error {
            Error::Interrupted => Error::Interrupted,
            cause => Error::DeployFailed { target: self.place.path.clone(), cause: Box::new(self.run.told(cause)) },
        }
    }

    fn ledger(&self) -> Result<&Ledger> {
        self.ledger.ok_or_else(|| Error::Internal("a dry run would write".into()))
    }

    fn register(&self, kind: Beside, beside: &Path, target: &Path) -> Result<Registered> {
        let entropy = self.run.context.repository.entropy().as_ref();
        let replaced = match open_parent(target)? {
            Some((above, name)) if kind == Beside::Staging => above.identity(&name).ok(),
            _ => None,
        };
        Registered::new(self.ledger()?, kind, beside, target, replaced, entropy)
    }

    /// Builds a tree beside the target and gives it the target's name.
    pub(super) fn beside(&self, donor: Option<&Donor<'_>>, syncing: Syncing) -> Result<()> {
        let (place, run) = (self.place, self.run);
        fs::create_dir_all(&place.parent).map_err(|error| failed("creating", &place.parent, error))?;
        if let Some(staged) = self.staged {
            run.makes(Made { path: staged.to_owned(), belongs: place.path.clone(), is_tree: true });
            return self.build_new(staged, donor, syncing, None).map(drop).map_err(|error| run.told(error));
        }
        // Links that lead to folders which have just been made are resolved by now.
        let place = &Place::resolve(&place.path)?;
        let staging = place.beside(Beside::Staging, run.context.repository.entropy().as_ref())?;
        run.makes(Made { path: staging.clone(), belongs: place.path.clone(), is_tree: !self.single });
        let mut registered = self.register(Beside::Staging, &staging, &place.path)?;
        let built = self.build_new(&staging, donor, syncing, Some(&mut registered)).and_then(|built| {
            self.run.context.check_interrupt()?;
            self.run.steps.reach("the switch")?;
            self.refuse_holders(None)?;
            self.switch(&built.new)?;
            Ok(built)
        });
        let _built = match built {
            Ok(built) => built,
            Err(error) => return Err(self.taken_back(&staging, registered, error)),
        };
        // The target is new: from here on nothing is a failure of the deploy.
        run.steps.reach("removing the old tree")?;
        match remove_made(&staging, &registered) {
            Ok(()) => registered.done(),
            Err(error) => {
                run.monitor().notice(&format!("the replaced tree could not be removed yet: {error}"));
                Ok(())
            }
        }
    }

    /// Of one file the new state stands in a folder of its own, so that whatever is left there is known by
    /// that folder.
    fn build_new(
        &self,
        staging: &Path,
        donor: Option<&Donor<'_>>,
        syncing: Syncing,
        registered: Option<&mut Registered>,
    ) -> Result<Built> {
        let run = self.run;
        run.steps.reach("making the new tree")?;
        let gone = || Error::Internal(format!("the folder of {} is gone", staging.display()));
        let (above, name) = open_parent(staging)?.ok_or_else(gone)?;
        let Some(registered) = registered else {
            let root = match self.single {
                true => WriteRoot { tree: above, file: Some(name) },
                false => WriteRoot { tree: above.folder(&name)?, file: None },
            };
            build(run, self.desired, &root, donor, syncing)?;
            return Ok(Built { new: staging.to_owned(), _lock: None });
        };
        let folder = above.new_folder(&name)?;
        registered.made(folder.identity(b"")?)?;
        let lock = folder.try_lock()?;
        let file = self.single.then(|| SINGLE.as_bytes().to_vec());
        build(run, self.desired, &WriteRoot { tree: folder, file }, donor, syncing)?;
        let new = if self.single { staging.join(SINGLE) } else { staging.to_owned() };
        Ok(Built { new, _lock: lock })
    }

    fn switch(&self, new: &Path) -> Result<()> {
        let identity = |path: &Path| fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let built = identity(new);
        let switched = if self.place.standing == Standing::Absent {
            rename_new(new, &self.place.path)
        } else {
            exchange(new, &self.place.path)
        };
        let switched = match switched {
            Err(copal_source::Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::CrossesDevices
                    && self.place.standing == Standing::EmptyFolder =>
            {
                // Of a lower layer of an overlay. Nothing is lost with it, and its name is free.
                fs::remove_dir(&self.place.path).map_err(|error| failed("replacing", &self.place.path, error))?;
                rename_new(new, &self.place.path)
            }
            other => other,
        };
        match switched {
            Err(error) if identity(&self.place.path) == built => {
                // The names are exchanged, and only their durability failed: the target is new and whole.
                self.run.say(format!("the switch may not survive a loss of power: {error}"));
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    /// Stages everything in a journal, commits it, carries it out.
    fn in_place(&self, plan: &Plan) -> Result<()> {
        let (place, run) = (self.place, self.run);
        let mut path = place.beside(Beside::Journal, run.context.repository.entropy().as_ref())?;
        if self.capabilities.mount_point
            && let Some(name) = path.file_name()
        {
            // Beside it would be another filesystem.
            path = place.path.join(name);
        }
        run.makes(Made { path: path.clone(), belongs: place.path.clone(), is_tree: false });
        let mut registered = self.register(Beside::Journal, &path, &place.path)?;
        let decided = match self.stage_and_commit(plan, &path, &mut registered) {
            Ok(decided) => decided,
            Err(error) => return Err(self.taken_back(&path, registered, error)),
        };
        run.monitor().phase("applying");
        let Decided { root, journal, commit, steps, _lock } = decided;
        let carried = carry_out(&root, &journal, &commit, steps, &run.steps).inspect_err(|_| {
            run.monitor().notice("the deploy is decided and will be finished by the next command");
        })?;
        run.warn(carried);
        registered.done()
    }

    fn stage_and_commit(&self, plan: &Plan, path: &Path, registered: &mut Registered) -> Result<Decided> {
        let (place, run) = (self.place, self.run);
        run.steps.reach("making the journal")?;
        let gone = || Error::Internal(format!("the folder of {} is gone", path.display()));
        let (above, name) = open_parent(path)?.ok_or_else(gone)?;
        let folder = above.new_folder(&name)?;
        registered.made(folder.identity(b"")?)?;
        let _lock = folder.try_lock()?;
        if let Err(error) = folder.check_own() {
            // Nothing here is anybody's alone, so no later command can believe it.
            run.monitor()
                .notice(&format!("{error}; should this deploy be interrupted, deploy again: nothing finishes it"));
        }
        let journal = Journal { folder, above, name, inside: path.parent() == Some(&place.path) };
        let root = WriteRoot::open(&place.path, self.single)?;
        let ready = stage(run, self.desired, plan, &root, journal.clone(), &self.ledger()?.secret)?;
        run.context.check_interrupt()?;
        run.steps.reach("the commit")?;
        self.refuse_holders(Some(plan))?;
        let (commit, steps) = ready.commit()?;
        Ok(Decided { root, journal, commit, steps, _lock })
    }
}

/// The one file that is built, in a folder of its own.
const SINGLE: &str = "new";

/// A new state that stands beside the target.
struct Built {
    new: PathBuf,
    _lock: Option<FolderLock>,
}

/// A deploy in place that will be finished.
struct Decided {
    root: WriteRoot,
    journal: Journal,
    commit: Commit,
    steps: File,
    _lock: Option<FolderLock>,
}

/// Removes what a deploy made beside its target, or what stood there before the switch. Something else with
/// the name stays.
fn remove_made(beside: &Path, registered: &Registered) -> Result<()> {
    let Some((above, name)) = open_parent(beside)? else { return Ok(()) };
    let known = registered.known();
    if known.is_empty() {
        above.remove_empty_own(&name)?;
        return Ok(());
    }
    match above.remove_known(&name, &known)? {
        Removal::Gone => Ok(()),
        Removal::Other => {
            let detail = "stands where this deploy had built, and is not what it made or replaced: it was left alone";
            Err(copal_source::Error::Refused { path: beside.to_owned(), detail: detail.into() }.into())
        }
    }
}

/// Whether a folder of a lower layer of an overlay was to be exchanged, which only its files can be.
fn is_across_layers(error: &Error) -> bool {
    match error {
        Error::DeployFailed { cause, .. } => is_across_layers(cause),
        Error::Source(copal_source::Error::Io { source, .. }) => source.kind() == std::io::ErrorKind::CrossesDevices,
        _ => false,
    }
}
