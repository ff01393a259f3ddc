//! One deploy from request to report: decide, check, act.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use copal_manifest::snapshot::{Phase, Snapshot};
use copal_store::session::Session;

use super::check::{Fetched, locate_all, room};
use super::compare::{How, compare, plan_fresh};
use super::databases::Databases;
use super::desired::Desired;
use super::evidence::{MemoryWitness, Witness, source_witnesses};
use super::fit::{Top, capabilities, place_of_kind, refuse_device, refuse_mounts};
use super::job::Job;
use super::kept::reason_against;
use super::memory::Memory;
use super::obstacles;
use super::outline::{Stayed, outline};
use super::pending::Ledger;
use super::place::{Place, Standing, WriteRoot};
use super::plan::Plan;
use super::recovery::{outlook, recover_target};
use super::run::{CrashPoints, Run};
use super::stays::{self, Stays};
use super::{DeployMode, DeployReport, DeployRequest, unavailable};
use crate::catalogue::Catalogue;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::own;

pub(super) fn execute(
    context: &Context,
    request: &DeployRequest,
    staged: Option<&Path>,
    points: &dyn CrashPoints,
) -> Result<DeployReport> {
    let begun = context.clock.monotonic_nanoseconds();
    let mut run = Run::new(context, points);
    run.skip_devices = request.skip_devices;
    let run = run;
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
    let is_compared = matches!(place.standing, Standing::Folder | Standing::EmptyFolder) && !single;
    if !is_compared {
        refuse_mounts(&place.path, Top::Replaced)?;
    }
    // Only now is it known that this is a target that may be written to.
    let (ledger, hidden) = settle_before(&run, &place, request.dry_run)?;
    let (ledger, hidden) = (ledger.as_ref(), hidden.as_slice());
    let place = Place::resolve(&place.path)?;
    let stays = if request.delete_excluded { Stays::default() } else { Stays::of(desired.parts(), snapshot)? };
    let stays = if request.keep_others { stays.and(own_below(context, &place)) } else { stays };
    let how = How { stays: Arc::new(stays), named: request.dry_run, keep_others: request.keep_others };
    // The rehearsal of an application's deploy tells paths alone, and writes nothing beside them.
    let may_probe = !(request.dry_run && request.stops_holders);
    let capabilities = capabilities(&place, single, staged, may_probe)?;
    let job = Job { run: &run, desired: &desired, place: &place, single, capabilities, ledger, hidden, staged, how };
    let mut decided = job.decide(context, request, &catalogue, &session)?;
    let databases = job.databases(Some(&decided.plan))?;
    if !(request.dry_run && request.stops_holders) {
        job.refuse_holders_of(&databases, (decided.way == Way::InPlace).then_some(&decided.plan))?;
    }
    // Everything can be done: only now a standing database is touched, and what comes out of its log is
    // compared as well.
    let mut damaged = Vec::new();
    if !request.dry_run && staged.is_none() && databases.have_logs() {
        damaged = databases.settle_all()?;
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
        skipped: Vec::new(),
        stays: plan.stays.iter().map(Stayed::of).collect(),
        outline: if request.dry_run { Some(outline(&job, &plan)?) } else { None },
    };
    if job.is_fresh() {
        report.files_changed = plan.files_total;
    }
    if !request.dry_run {
        databases.remove_logs(&damaged)?;
        run.expect_work(plan.files_changed(), needed);
        run.monitor().phase("writing");
        let way = job.act(&plan, way, request.mode, snapshot)?;
        report.mode = way.mode();
        report.bytes_written = run.bytes_written.load(std::sync::atomic::Ordering::Relaxed);
        if staged.is_none() && desired.is_whole() {
            job.remember(&plan, way, snapshot, request.path.as_deref());
        }
    }
    if request.dry_run {
        report.warnings.extend(databases.uncounted());
    }
    if snapshot.phase == Phase::PartiallyFailed {
        report.warnings.push(format!(
            "{} is not whole: something could not be read when it was taken, and stays as it is where that is known; \
             `copal show` names it",
            snapshot.name
        ));
    }
    report.bytes_kept = (plan.bytes_kept + plan.bytes_to_write).saturating_sub(report.bytes_written);
    report.warnings.extend(run.take_warnings());
    report.skipped = run.take_skipped();
    session.end()?;
    report.duration_ms = context.clock.monotonic_nanoseconds().saturating_sub(begun) / 1_000_000;
    Ok(report)
}

/// Ends what earlier deploys to the target have left; a dry run says what would be ended. Returns where this
/// one is noted, and names in the target that are no part of it.
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

/// A tree of fewer entries counts as one of so many when the part that changes is weighed: a database of one
/// file is patched.
const FEW_ENTRIES: u64 = 256;

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

    fn databases(&self, plan: Option<&Plan>) -> Result<Databases> {
        let kept_others = plan.filter(|_| self.how.keep_others);
        Databases::of(self.desired, self.place, self.single, kept_others)
    }

    /// Refuses where another process has a database open that is about to be replaced: what a plan changes in
    /// place, or else all that stands at the target. What is staged replaces nothing yet.
    pub(crate) fn refuse_holders(&self, in_place: Option<&Plan>) -> Result<()> {
        if self.replaces_nothing() { Ok(()) } else { self.refuse_holders_of(&self.databases(in_place)?, in_place) }
    }

    fn replaces_nothing(&self) -> bool {
        self.staged.is_some() || self.place.standing == Standing::Absent
    }

    /// The same where the databases are known.
    fn refuse_holders_of(&self, databases: &Databases, in_place: Option<&Plan>) -> Result<()> {
        if self.replaces_nothing() {
            return Ok(());
        }
        in_place.map_or_else(|| databases.refuse_holders_of_all(), |plan| databases.refuse_holders(plan))
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
        stays::refuse(self.place, &plan.conflicts, request.keep_others)?;
        let way = self.choose(request.mode, &plan)?;
        self.refuse_impossible(request, way)?;
        let way = self.around_obstacles(request.mode, way, &plan)?;
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
            witnesses.push(Witness::Memory(Box::new(MemoryWitness::new(remembered, memory))));
        }
        if !request.force_read {
            for part in self.desired.parts() {
                let mut at = place.as_os_str().as_bytes().to_vec();
                if !part.at.is_root() {
                    at.push(b'/');
                    at.extend(part.at.to_slashes());
                }
                let snapshots = catalogue.snapshots.iter().map(|listed| &*listed.snapshot);
                witnesses.extend(
                    source_witnesses(session, snapshots, &part.at, &at)
                        .into_iter()
                        .map(|witness| Witness::Source(Box::new(witness))),
                );
            }
        }
        compare(self.run, self.desired, place, self.hidden, &mut witnesses, &self.how)
    }

    /// The fastest way that fits, or the one that was asked for.
    fn choose(&self, mode: DeployMode, plan: &Plan) -> Result<Way> {
        let exchangeable = self.capabilities.exchange && !self.capabilities.mount_point;
        let absent = self.place.standing == Standing::Absent;
        if self.leaves_something(plan) && self.staged.is_none() {
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

    /// Whether something of the standing tree stays in it.
    fn leaves_something(&self, plan: &Plan) -> bool {
        let leaves_others = self.how.keep_others || !self.desired.is_whole();
        let has_others = self.place.standing == Standing::Folder && !self.single && leaves_others;
        !plan.stays.is_empty() || has_others
    }

    fn why_not_exchanged(&self) -> &'static str {
        if self.capabilities.mount_point {
            "it is a mount point, or has one in it, or the folder above it may not be written: it cannot be exchanged"
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

    /// What is staged must not share whole files with what stands there: that goes on changing, or has to
    /// stay as it was.
    pub(super) fn builds_alone(&self) -> bool {
        self.staged.is_some() && !self.capabilities.reflink
    }

    /// Another way when this one meets what cannot be changed, where both can be taken; else an error, before
    /// anything is touched.
    fn around_obstacles(&self, mode: DeployMode, way: Way, plan: &Plan) -> Result<Way> {
        let stands = !matches!(self.place.standing, Standing::Absent);
        let in_place = || {
            let root = WriteRoot::open(&self.place.path, self.single)?;
            obstacles::in_place(self.run, &root, plan)
        };
        let may_choose = mode == DeployMode::Auto && self.staged.is_none();
        let (found, other) = match way {
            Way::InPlace if plan.is_empty() => return Ok(way),
            Way::InPlace => {
                let exchangeable = self.capabilities.exchange && !self.capabilities.mount_point;
                let goes_whole = exchangeable && !self.leaves_something(plan);
                (in_place()?, (may_choose && goes_whole).then_some(Way::Beside(DeployMode::Swap)))
            }
            Way::Beside(_) | Way::Clone if stands => {
                let compared = !self.is_fresh() && !self.builds_alone() && way != Way::Clone;
                (obstacles::to_exchange(self.place)?, (may_choose && compared).then_some(Way::InPlace))
            }
            Way::Beside(_) | Way::Clone => return Ok(way),
        };
        let Some(found) = found else { return Ok(way) };
        match other {
            Some(Way::InPlace) if in_place()?.is_none() => Ok(Way::InPlace),
            Some(other) if other != Way::InPlace && obstacles::to_exchange(self.place)?.is_none() => Ok(other),
            _ => Err(obstacles::unfit(self.place, found)),
        }
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
