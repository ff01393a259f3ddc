//! One deploy from request to report: decide, check, act.

use std::fs::{self, DirBuilder};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use copal_manifest::snapshot::Snapshot;
use copal_source::mounts::mount_points_from;
use copal_source::sqlite::sidecars;
use copal_source::target::{Capabilities, TargetTree, exchange, rename_new};
use copal_store::session::Session;

use super::build::{Donor, Sharing, Syncing, build, new_root};
use super::check::{Fetched, locate_all, room};
use super::compare::{compare, plan_fresh};
use super::databases;
use super::desired::Desired;
use super::evidence::{MemoryWitness, Witness, source_witnesses};
use super::journal::{Verdict, judge};
use super::kept::{kept_tree, reason_against};
use super::memory::Memory;
use super::pending::{Registered, carry_out, recover_beside};
use super::place::{Alive, Beside, Place, Standing, WriteRoot, failed, remove_whole};
use super::plan::Plan;
use super::run::{CrashPoints, Run};
use super::stage::stage;
use super::{DeployMode, DeployReport, DeployRequest, unavailable};
use crate::catalogue::Catalogue;
use crate::context::Context;
use crate::error::{Error, Result};

/// What the execution needs to know of one deploy.
pub(super) struct Job<'j> {
    pub(super) run: &'j Run<'j>,
    pub(super) desired: &'j Desired<'j>,
    pub(super) place: &'j Place,
    pub(super) single: bool,
    pub(super) capabilities: Capabilities,
    /// Build here, beside the target, and leave the switch to the caller.
    pub(super) staged: Option<&'j Path>,
}

pub(super) fn execute(
    context: &Context,
    request: &DeployRequest,
    staged: Option<&Path>,
    points: &dyn CrashPoints,
) -> Result<DeployReport> {
    let begun = context.clock.monotonic_nanoseconds();
    let run = Run::new(context, points);
    let place = Place::resolve(&request.target)?;
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_in(context, &session)?;
    let snapshot = &catalogue.find(&request.reference)?.snapshot;
    let desired = Desired::new(&session, snapshot, request.path.as_deref())?;
    for sentence in recover_beside(&place, &run.steps)? {
        run.monitor().notice(&sentence);
    }
    let place = Place::resolve(&request.target)?;
    if matches!(place.standing, Standing::Folder | Standing::File | Standing::Other)
        && !request.replace
        && !request.dry_run
    {
        return Err(Error::TargetNotEmpty(place.path));
    }
    let single = desired.is_single()?;
    refuse_device(&place)?;
    let capabilities = capabilities(&place, single, staged)?;
    let job = Job { run: &run, desired: &desired, place: &place, single, capabilities, staged };
    // Before the comparison: what comes out of a log is compared as well.
    let writes = !request.dry_run && staged.is_none();
    let damaged = if writes { databases::settle_all(&desired, &place)? } else { Vec::new() };
    run.monitor().phase("comparing");
    let plan = job.plan(context, request, &catalogue, &session)?;
    let way = job.choose(request.mode, &plan)?;
    job.refuse_impossible(request, way)?;
    let needed = job.check(&plan, way)?;
    let mut report = DeployReport {
        snapshot: snapshot.id,
        target: request.target.clone(),
        mode: way.mode(),
        files_total: plan.files_total,
        files_changed: plan.files_changed(),
        bytes_total: plan.bytes_total,
        bytes_written: needed,
        bytes_kept: 0,
        duration_ms: 0,
        warnings: Vec::new(),
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
        if staged.is_none() {
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

/// Nothing may take the name of a device away.
fn refuse_device(place: &Place) -> Result<()> {
    if place.standing != Standing::Other || !copal_source::kept::is_block_device(&place.path)? {
        return Ok(());
    }
    let detail =
        "it is a block device: let it be the path of a source of the kind \"image\" of an application, and deploy that";
    Err(Error::UnfitTarget { target: place.path.clone(), detail: detail.into() })
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

/// What the filesystem of the target can do. It is probed beside the target, so that a plan, or a deploy that fails, leaves
/// the target as it was to the time of its folder. At a mount point nothing beside it counts, and nothing needs a probe.
fn capabilities(place: &Place, single: bool, staged: Option<&Path>) -> Result<Capabilities> {
    // Who builds in a mount point knows how it is switched.
    let within = staged.and_then(Path::parent).filter(|parent| *parent == place.path);
    if let Some(within) = within {
        let tree = TargetTree::open(within)?;
        let reflink = tree.shares_extents()?;
        return Ok(Capabilities { reflink, mount_point: false, exchange: true, ..tree.look()? });
    }
    if matches!(place.standing, Standing::Folder | Standing::EmptyFolder) && !single {
        let inside = TargetTree::open(&place.path)?.look()?;
        // A subvolume is no mount point, and can be exchanged as little.
        let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev());
        let same = device(&place.path).is_ok_and(|inside| device(&place.parent).is_ok_and(|beside| beside == inside));
        // A tree that is exchanged is removed afterwards: with what is mounted in it.
        let has_mounts = !mount_points_from(&place.path)?.is_empty();
        if inside.mount_point || !same || has_mounts {
            return Ok(Capabilities { mount_point: true, ..inside });
        }
    }
    let mut folder = place.parent.as_path();
    while !folder.exists() {
        folder = folder.parent().unwrap_or(Path::new("/"));
    }
    Ok(Capabilities { mount_point: false, ..TargetTree::open(folder)?.capabilities()? })
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
        compare(self.run, self.desired, place, &mut witnesses)
    }

    /// The fastest way that fits, or the one that was asked for.
    fn choose(&self, mode: DeployMode, plan: &Plan) -> Result<Way> {
        let exchangeable = self.capabilities.exchange && !self.capabilities.mount_point;
        let absent = self.place.standing == Standing::Absent;
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
                let little = plan.bytes_to_write.saturating_mul(4) <= plan.bytes_total
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
        let removed = remove_whole(beside).and_then(|()| registered.done());
        if let Err(error) = removed {
            self.run.monitor().notice(&format!("{} could not be removed: {error}", beside.display()));
        }
        match error {
            Error::Interrupted => Error::Interrupted,
            cause => Error::DeployFailed { target: self.place.path.clone(), cause: Box::new(cause) },
        }
    }

    fn register(&self, kind: Beside, beside: &Path) -> Result<Registered> {
        let context = self.run.context;
        let entropy = context.repository.entropy().as_ref();
        Registered::new(context.state_folder.as_deref(), kind, beside, &self.place.path, entropy)
    }

    /// Builds a tree beside the target and gives it the target's name.
    pub(super) fn beside(&self, donor: Option<&Donor<'_>>, syncing: Syncing) -> Result<()> {
        let (place, run) = (self.place, self.run);
        fs::create_dir_all(&place.parent).map_err(|error| failed("creating", &place.parent, error))?;
        if let Some(staged) = self.staged {
            return self.build_new(staged, donor, syncing).map(drop);
        }
        let staging = place.beside(Beside::Staging, run.context.repository.entropy().as_ref())?;
        let registered = self.register(Beside::Staging, &staging)?;
        let built = self.build_new(&staging, donor, syncing).and_then(|alive| {
            self.run.context.check_interrupt()?;
            self.run.steps.reach("the switch")?;
            Ok(alive)
        });
        let _alive = match built {
            Ok(alive) => alive,
            Err(error) => return Err(self.taken_back(&staging, registered, error)),
        };
        if let Err(error) = self.switch(&staging) {
            return Err(self.taken_back(&staging, registered, error));
        }
        // The target is new: from here on nothing is a failure of the deploy.
        run.steps.reach("removing the old tree")?;
        match remove_whole(&staging) {
            Ok(()) => registered.done(),
            Err(error) => {
                run.monitor().notice(&format!("the replaced tree could not be removed yet: {error}"));
                Ok(())
            }
        }
    }

    fn build_new(&self, staging: &Path, donor: Option<&Donor<'_>>, syncing: Syncing) -> Result<Option<Alive>> {
        let run = self.run;
        run.steps.reach("making the new tree")?;
        let root = new_root(staging, self.single)?;
        let alive = if self.single { None } else { Alive::take(staging)? };
        build(run, self.desired, &root, donor, syncing)?;
        Ok(alive)
    }

    fn switch(&self, staging: &Path) -> Result<()> {
        let identity = |path: &Path| fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let new = identity(staging);
        let switched = if self.place.standing == Standing::Absent {
            rename_new(staging, &self.place.path)
        } else {
            exchange(staging, &self.place.path)
        };
        match switched {
            Err(error) if identity(&self.place.path) == new => {
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
        let mut journal = place.beside(Beside::Journal, run.context.repository.entropy().as_ref())?;
        if self.capabilities.mount_point
            && let Some(name) = journal.file_name()
        {
            // Beside it would be another filesystem.
            journal = place.path.join(name);
        }
        let registered = self.register(Beside::Journal, &journal)?;
        let staged = self.stage_and_commit(plan, &journal);
        let _alive = match staged {
            Ok(alive) => alive,
            Err(error) => return Err(self.taken_back(&journal, registered, error)),
        };
        run.monitor().phase("applying");
        match judge(&journal) {
            Verdict::Committed(commit) => {
                let carried = carry_out(&journal, &commit, &run.steps).inspect_err(|_| {
                    run.monitor().notice("the deploy is decided and will be finished by the next command");
                })?;
                run.warn(carried);
                registered.done()
            }
            Verdict::Undecided | Verdict::Unreadable(_) => {
                Err(Error::Internal("the journal that was just committed cannot be read".into()))
            }
        }
    }

    fn stage_and_commit(&self, plan: &Plan, journal: &Path) -> Result<Option<Alive>> {
        let (place, run) = (self.place, self.run);
        run.steps.reach("making the journal")?;
        let made = DirBuilder::new().mode(0o700).create(journal);
        made.map_err(|error| failed("creating", journal, error))?;
        let alive = Alive::take(journal)?;
        let root_path = if self.single { &place.parent } else { &place.path };
        let root = WriteRoot::open(&place.path, self.single)?;
        let ready = stage(run, self.desired, plan, &root, root_path, journal)?;
        run.context.check_interrupt()?;
        run.steps.reach("the commit")?;
        ready.commit()?;
        Ok(alive)
    }

    /// Remembers what stands there now, where that saves the next deploy more than it costs.
    fn remember(&self, plan: &Plan, way: Way, snapshot: &Snapshot, part: Option<&[u8]>) {
        let context = self.run.context;
        let Some(state) = context.state_folder.as_deref() else { return };
        let unknown = plan.entries_read + plan.changes.len() as u64;
        if way == Way::InPlace && unknown.saturating_mul(16) < plan.entries_total {
            return;
        }
        if let Err(error) = Memory::keep(context, state, &self.place.path, snapshot.id, part, self.desired) {
            self.run.monitor().notice(&format!("the next deploy will read the target again: {error}"));
        }
    }
}
