//! One deploy from request to report: decide, check, act.

use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copal_manifest::snapshot::Snapshot;
use copal_source::sqlite::sidecars;
use copal_source::target::{Capabilities, FolderLock, Removal, exchange, rename_new};
use copal_store::session::Session;

use super::build::{Donor, Sharing, Syncing, build};
use super::check::{Fetched, locate_all, room};
use super::compare::{How, compare, plan_fresh};
use super::databases;
use super::desired::Desired;
use super::evidence::{MemoryWitness, Witness, source_witnesses};
use super::fit::{capabilities, place_of_kind, refuse_device, refuse_mounts};
use super::journal::{Commit, Journal};
use super::kept::{kept_tree, reason_against};
use super::memory::Memory;
use super::outline::{Stayed, outline};
use super::pending::{Ledger, Registered};
use super::place::{Beside, Place, Standing, WriteRoot, failed, remove_whole};
use super::plan::Plan;
use super::recovery::{carry_out, outlook, recover_target};
use super::run::{CrashPoints, Run};
use super::stage::stage;
use super::stays::{self, Stays};
use super::{DeployMode, DeployReport, DeployRequest, unavailable};
use crate::catalogue::Catalogue;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::own;
use crate::state::open_parent;

/// What the execution needs to know of one deploy.
pub(super) struct Job<'j> {
    pub(super) run: &'j Run<'j>,
    pub(super) desired: &'j Desired<'j>,
    pub(super) place: &'j Place,
    pub(super) single: bool,
    pub(super) capabilities: Capabilities,
    /// Where it is noted; none of a dry run.
    pub(super) ledger: Option<&'j Ledger>,
    /// Names in the target that are no part of it.
    pub(super) hidden: &'j [Vec<u8>],
    /// Build here, beside the target, and leave the switch to the caller.
    pub(super) staged: Option<&'j Path>,
    pub(super) how: How,
}

pub(super) fn execute(
    context: &Context,
    request: &DeployRequest,
    staged: Option<&Path>,
    points: &dyn CrashPoints,
) -> Result<DeployReport> {
    let begun = context.clock.monotonic_nanoseconds();
    let run = Run::new(context, points);
    let mut place = Place::resolve(&request.target)?;
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_in(context, &session)?;
    let listed = catalogue.find(&request.reference)?;
    session.prefer(listed.signer);
    let snapshot = &listed.snapshot;
    let desired = Desired::new(&session, snapshot, request.path.as_deref())?.choosing(&request.selection)?;
    let named = place.path.clone();
    let single = desired.is_single()?;
    desired.refuse_empty(single)?;
    if staged.is_none() && !request.replace_kind {
        place = place_of_kind(place, single, &desired, request)?;
    }
    let moved = place.path != named;
    if matches!(place.standing, Standing::Folder | Standing::File | Standing::Other)
        && !request.replace
        && !request.dry_run
    {
        return Err(Error::TargetNotEmpty(place.path));
    }
    refuse_device(&place)?;
    refuse_mounts(&place, single)?;
    // Only now is it known that this is a target that may be written to.
    let (ledger, hidden) = settle_before(&run, &place, request.dry_run)?;
    let (ledger, hidden) = (ledger.as_ref(), hidden.as_slice());
    let place = Place::resolve(&place.path)?;
    let stays = if request.delete_excluded { Stays::default() } else { Stays::of(&desired, snapshot)? };
    let stays = if request.keep_others { stays.and(own_below(context, &place)) } else { stays };
    let how = How { stays: Arc::new(stays), named: request.dry_run, keep_others: request.keep_others };
    let capabilities = capabilities(&place, single, staged)?;
    let job = Job { run: &run, desired: &desired, place: &place, single, capabilities, ledger, hidden, staged, how };
    let mut decided = job.decide(context, request, &catalogue, &session)?;
    // Everything can be done: only now a standing database is touched, and what comes out of its log is compared as well.
    let mut damaged = Vec::new();
    if !request.dry_run && staged.is_none() && databases::have_logs(&desired, &place) {
        damaged = databases::settle_all(&desired, &place)?;
        decided = job.decide(context, request, &catalogue, &session)?;
    }
    let Decision { plan, way, needed } = decided;
    let mut report = DeployReport {
        snapshot: snapshot.id,
        target: if moved { place.path.clone() } else { request.target.clone() },
        mode: way.mode(),
        files_total: plan.files_total,
        files_changed: plan.files_changed(),
        bytes_total: plan.bytes_total,
        bytes_written: needed,
        bytes_kept: 0,
        duration_ms: 0,
        warnings: Vec::new(),
        stays: plan.stays.iter().map(Stayed::of).collect(),
        outline: if request.dry_run { Some(outline(&job, &plan)?) } else { None },
    };
    if job.is_fresh() {
        report.files_changed = plan.files_total;
    }
    if !request.dry_run {
        damaged.iter().flat_map(|path| sidecars(path)).try_for_each(|left| remove_whole(&left))?;
        run.expect_work(plan.files_changed(), needed);
        run.monitor().phase("writing");
        job.act(&plan, way, snapshot)?;
        report.bytes_written = run.bytes_written.load(std::sync::atomic::Ordering::Relaxed);
        if staged.is_none() && desired.is_whole() {
            job.remember(&plan, way, snapshot, request.path.as_deref());
        }
    }
    if request.dry_run {
        report.warnings.extend(databases::uncounted(&desired, &place));
    }
    report.bytes_kept = (plan.bytes_kept + plan.bytes_to_write).saturating_sub(report.bytes_written);
    report.warnings.extend(run.take_warnings());
    session.end()?;
    report.duration_ms = context.clock.monotonic_nanoseconds().saturating_sub(begun) / 1_000_000;
    Ok(report)
}

/// Ends what earlier deploys to the target have left; a dry run says what would be ended. Returns where this one is noted, and names in
/// the target that are no part of it.
fn settle_before(run: &Run<'_>, place: &Place, dry_run: bool) -> Result<(Option<Ledger>, Vec<Vec<u8>>)> {
    let say = |sentences: Vec<String>| sentences.iter().for_each(|sentence| run.monitor().notice(sentence));
    if dry_run {
        let found = outlook(place, run.context.state_folder.as_deref())?;
        say(found.sentences);
        return Ok((None, found.hidden));
    }
    let ledger = Ledger::open(run.context)?;
    say(recover_target(place, &ledger, &run.steps)?);
    Ok((Some(ledger), Vec::new()))
}

/// What Copal lives by in a target from which nothing is removed: it is not written over either.
fn own_below(context: &Context, place: &Place) -> impl Iterator<Item = Vec<u8>> {
    own::places_within(context, &place.path).into_iter().map(|(_, below)| below.into_os_string().into_vec())
}

/// What a deploy will do.
struct Decision {
    plan: Plan,
    way: Way,
    /// Bytes to be fetched.
    needed: u64,
}

/// A tree of fewer entries counts as one of so many when the part that changes is weighed: a database of one file is patched.
const FEW_ENTRIES: u64 = 256;

/// Most entries that are synced one by one: beyond, one call for the whole filesystem costs less.
const SINGLE_SYNCS_MAX: u64 = 128;

/// Files of at least so many bytes on average are synced one by one, however many: each waits for its own bytes alone, while others
/// are still being decoded.
const SINGLE_SYNC_BYTES_MIN: u64 = 1 << 20;

/// How the target comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Built beside, then renamed or exchanged; files of the old tree are shared where they can be.
    Beside(DeployMode),
    /// The same with a kept tree as the donor.
    Clone,
    /// Patched.
    InPlace,
}

impl Way {
    fn mode(self) -> DeployMode {
        match self {
            Self::Beside(mode) => mode,
            Self::Clone => DeployMode::Clone,
            Self::InPlace => DeployMode::InPlace,
        }
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

/// Removes what a deploy made beside its target, or what stood there before the switch. Something else with the name stays.
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

impl Job<'_> {
    /// Nothing stands that could be compared.
    pub(super) fn is_fresh(&self) -> bool {
        match self.place.standing {
            Standing::Absent => true,
            Standing::EmptyFolder => !self.capabilities.mount_point && self.capabilities.exchange,
            Standing::Folder => self.single,
            Standing::File => !self.single,
            Standing::Other => true,
        }
    }

    /// Compares, chooses and checks, without writing anything.
    fn decide(
        &self,
        context: &Context,
        request: &DeployRequest,
        catalogue: &Catalogue,
        session: &Session,
    ) -> Result<Decision> {
        self.run.monitor().phase("comparing");
        let plan = self.plan(context, request, catalogue, session)?;
        stays::refuse(self.place, &plan.conflicts)?;
        let way = self.choose(request.mode, &plan)?;
        self.refuse_impossible(request, way)?;
        let needed = self.check(&plan, way)?;
        Ok(Decision { plan, way, needed })
    }

    fn plan(
        &self,
        context: &Context,
        request: &DeployRequest,
        catalogue: &Catalogue,
        session: &Session,
    ) -> Result<Plan> {
        // What goes on changing is no matter of comparison either.
        if self.is_fresh() || self.builds_alone() {
            return plan_fresh(self.desired);
        }
        let place = self.place.path.as_path();
        let memory = context.state_folder.as_deref().filter(|_| !request.force_read);
        let memory = memory.and_then(|state| Memory::load(state, place));
        let memory = memory.filter(|memory| memory.repository == context.repository.config().repository);
        let remembered = memory.as_ref().and_then(|memory| {
            let listed = catalogue.snapshots.iter().find(|listed| listed.snapshot.id == memory.snapshot)?;
            Desired::new(session, &listed.snapshot, memory.part.as_deref()).ok()
        });
        let mut witnesses = Vec::new();
        if let (Some(memory), Some(remembered)) = (&memory, &remembered) {
            witnesses.push(Witness::Memory(MemoryWitness::new(remembered, memory)));
        }
        if !request.force_read {
            for part in self.desired.parts() {
                let mut at = place.as_os_str().as_bytes().to_vec();
                if !part.at.is_root() {
                    at.push(b'/');
                    at.extend(part.at.to_slashes());
                }
                let snapshots = catalogue.snapshots.iter().map(|listed| &*listed.snapshot);
                witnesses.extend(source_witnesses(session, snapshots, &part.at, &at).into_iter().map(Witness::Source));
            }
        }
        compare(self.run, self.desired, place, self.hidden, &mut witnesses, &self.how)
    }

    /// The fastest way that fits, or the one that was asked for.
    fn choose(&self, mode: DeployMode, plan: &Plan) -> Result<Way> {
        let exchangeable = self.capabilities.exchange && !self.capabilities.mount_point;
        let absent = self.place.standing == Standing::Absent;
        let leaves_others = self.how.keep_others || !self.desired.is_whole();
        let has_others = self.place.standing == Standing::Folder && !self.single && leaves_others;
        if (!plan.stays.is_empty() || has_others) && self.staged.is_none() {
            // A tree that is exchanged goes with all that is in it.
            return Ok(Way::InPlace);
        }
        match mode {
            DeployMode::Clone => Ok(Way::Clone),
            DeployMode::Swap if exchangeable || absent => Ok(Way::Beside(DeployMode::Swap)),
            DeployMode::Swap => Err(unavailable(self.place, mode, self.why_not_exchanged())),
            DeployMode::InPlace if absent || self.place.standing == Standing::EmptyFolder && self.is_fresh() => {
                Ok(Way::Beside(DeployMode::InPlace))
            }
            DeployMode::InPlace if self.is_fresh() => {
                Err(unavailable(self.place, mode, "a folder cannot become a file, or a file a folder, in place"))
            }
            DeployMode::InPlace => Ok(Way::InPlace),
            DeployMode::Auto if absent => Ok(Way::Beside(DeployMode::Swap)),
            DeployMode::Auto if !exchangeable && self.is_fresh() => {
                Err(unavailable(self.place, DeployMode::Swap, self.why_not_exchanged()))
            }
            DeployMode::Auto if self.is_fresh() => Ok(Way::Beside(DeployMode::Swap)),
            DeployMode::Auto => {
                // A journal that nobody could finish is worse than a tree beside.
                let lasts = self.ledger.is_none_or(|ledger| ledger.state_folder().is_some());
                let little = (lasts || !exchangeable)
                    && plan.bytes_to_write.saturating_mul(4) <= plan.bytes_total
                    && (plan.changes.len() as u64).saturating_mul(4) <= plan.entries_total.max(FEW_ENTRIES);
                Ok(if little || !exchangeable { Way::InPlace } else { Way::Beside(DeployMode::Swap) })
            }
        }
    }

    fn why_not_exchanged(&self) -> &'static str {
        if self.capabilities.mount_point {
            "it is a mount point, or has one in it, and cannot be exchanged"
        } else {
            "its filesystem cannot exchange two names"
        }
    }

    fn refuse_impossible(&self, request: &DeployRequest, way: Way) -> Result<()> {
        if way != Way::Clone {
            return Ok(());
        }
        let exchangeable = self.capabilities.exchange && !self.capabilities.mount_point;
        if !exchangeable && self.place.standing != Standing::Absent {
            return Err(unavailable(self.place, DeployMode::Clone, self.why_not_exchanged()));
        }
        match reason_against(self, request) {
            Some(detail) => Err(unavailable(self.place, DeployMode::Clone, &detail)),
            None => Ok(()),
        }
    }

    /// Everything that can be known to fail fails here, before a byte is written.
    fn check(&self, plan: &Plan, way: Way) -> Result<u64> {
        let fetched = match way {
            _ if self.is_fresh() || self.builds_alone() => Fetched::Everything,
            Way::Clone => Fetched::Everything,
            Way::Beside(_) if !self.capabilities.reflink => Fetched::ChangedFiles,
            Way::Beside(_) | Way::InPlace => Fetched::Changes,
        };
        let needed = locate_all(self.run, self.desired, plan, fetched)?;
        if way != Way::Clone {
            room(self.place, self.capabilities.free_bytes, needed)?;
        }
        Ok(if way == Way::Clone { 0 } else { needed })
    }

    /// What is staged must not share whole files with what stands there: that goes on changing, or has to stay as it was.
    fn builds_alone(&self) -> bool {
        self.staged.is_some() && !self.capabilities.reflink
    }

    fn act(&self, plan: &Plan, way: Way, snapshot: &Snapshot) -> Result<()> {
        let single = plan.entries_total <= SINGLE_SYNCS_MAX
            || plan.bytes_total / plan.entries_total.max(1) >= SINGLE_SYNC_BYTES_MIN;
        let syncing = if single { Syncing::Each } else { Syncing::Filesystem };
        match way {
            Way::InPlace if plan.is_empty() => Ok(()),
            Way::InPlace => self.in_place(plan),
            Way::Beside(_) if self.is_fresh() || self.builds_alone() => self.beside(None, syncing),
            Way::Beside(_) => {
                let root = WriteRoot::open(&self.place.path, self.single)?;
                let reader = copal_source::read::TreeReader::open(&self.place.path)?;
                let sharing = if self.capabilities.reflink { Sharing::Reflink } else { Sharing::HardLink(root) };
                self.beside(Some(&Donor { plan, reader, sharing }), syncing)
            }
            Way::Clone => {
                let kept = kept_tree(self, snapshot)?;
                let reader = copal_source::read::TreeReader::open(&kept.path)?;
                self.beside(Some(&Donor { plan: &kept.plan, reader, sharing: Sharing::Reflink }), syncing)
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
            cause => Error::DeployFailed { target: self.place.path.clone(), cause: Box::new(cause) },
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
            return self.build_new(staged, donor, syncing, None).map(drop);
        }
        // Links that lead to folders which have just been made are resolved by now.
        let place = &Place::resolve(&place.path)?;
        let staging = place.beside(Beside::Staging, run.context.repository.entropy().as_ref())?;
        let mut registered = self.register(Beside::Staging, &staging, &place.path)?;
        let built = self.build_new(&staging, donor, syncing, Some(&mut registered)).and_then(|built| {
            self.run.context.check_interrupt()?;
            self.run.steps.reach("the switch")?;
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

    /// Of one file the new state stands in a folder of its own, so that whatever is left there is known by that folder.
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
        match switched {
            Err(error) if identity(&self.place.path) == built => {
                // The names are exchanged, and only their durability failed: the target is new and whole.
                self.run.warn(vec![format!("the switch may not survive a loss of power: {error}")]);
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
        let (commit, steps) = ready.commit()?;
        Ok(Decided { root, journal, commit, steps, _lock })
    }

    /// Remembers what stands there now, where that saves the next deploy more than it costs.
    fn remember(&self, plan: &Plan, way: Way, snapshot: &Snapshot, part: Option<&[u8]>) {
        let context = self.run.context;
        let Some(state) = context.state_folder.as_deref() else { return };
        let unknown = plan.entries_read + plan.changes.len() as u64;
        if way == Way::InPlace && unknown.saturating_mul(16) < plan.entries_total {
            return;
        }
        if let Err(error) =
            Memory::keep(context, state, &self.place.path, snapshot.id, part, self.desired, &self.how.stays)
        {
            self.run.monitor().notice(&format!("the next deploy will read the target again: {error}"));
        }
    }
}
