//! Collection: the return of space. Mark from the roots, condemn, sweep what no living session can reach.
//!
//! It never knows what a snapshot means: the caller walks manifests and marks chunk ids. No clock decides
//! anything, nothing is counted, and neither create nor deploy waits. Order, with what each step protects:
//! 1. the maintenance lease: one collection at a time; index fragments are replaced only under it;
//! 2. what was condemned before is swept, where its sessions have ended;
//! 3. mark from all roots; live records of packs worth rewriting are copied, published and indexed;
//! 4. the sentence is published, and after that the living sessions are listed: a session that begins later
//!    knows the sentence and says so, and one that began earlier does not;
//! 5. when every session that lives knows it, roots that appeared since are marked too; packs that they reach
//!    are pardoned; the index forgets the others, and only then are they deleted.

pub(crate) mod condemned;
mod mark;
mod merge;
mod reach;
mod reseal;
mod resign;
mod retired;
mod rewrite;
mod sweep;

use std::collections::{HashMap, HashSet};

use crate::backend::{Hold, ObjectKind, ObjectName};
use crate::collect::condemned::{Mark, Sentence};
use crate::collect::mark::Marks;
pub(crate) use crate::collect::merge::{author_of_copy, publish_fragment};
use crate::collect::reach::{mark_roots, may_go};
pub use crate::collect::reseal::{ResealReport, reseal};
pub(crate) use crate::collect::resign::{take_over, take_over_roots};
pub(crate) use crate::collect::retired::{Retired, retire};
use crate::ids::{ChunkId, PackId};
use crate::index::Index;
use crate::location::RecordKind;
use crate::mutants::Mutant;
use crate::padding::on_grid;
use crate::repository::{Repository, RootName};
use crate::roles::Action;
use crate::session::Session;
use crate::{Error, Result};

/// What a collection did or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Packs deleted.
    pub packs_removed: u64,
    /// Packs whose live records were copied to new packs.
    pub packs_rewritten: u64,
    /// Bytes of packs and parity that were deleted, less those of copies: what others store meanwhile does
    /// not count.
    pub bytes_freed: u64,
    /// Packs condemned that wait for living sessions.
    pub packs_waiting: u64,
    /// Packs that were worth rewriting and do not open: they stay as they are.
    pub packs_damaged: u64,
    /// Packs that were worth rewriting and stay as they are, because there is no room for the copies.
    pub packs_without_room: u64,
    /// Index fragments merged.
    pub fragments_merged: u64,
    /// Snapshots that nobody here can walk, and why: what was there when they were first met stays.
    pub roots_unread: Vec<(RootName, String)>,
    /// Why a part of the index does not open: what only that part knows was not counted as unreached.
    pub index_unread: Option<String>,
    /// Sentences of earlier collections that do not open: what they condemn is as if they had not been
    /// passed.
    pub sentences_unread: u64,
}

/// How to collect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CollectOptions {
    /// Rewrite a pack when less than this share of its bytes is live.
    pub rewrite_below_live_share: f64,
    /// Count only.
    pub dry_run: bool,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { rewrite_below_live_share: 0.75, dry_run: false }
    }
}

/// Marks chunks as live. Shared by threads. A chunk that the index lacks is [`crate::Error::Missing`].
pub trait Marker: Sync {
    /// Marks a chunk of content (and the base of its delta).
    fn mark(&self, id: &ChunkId) -> Result<()>;
    /// Marks a node. `true` when it was not marked as a node before: its children need a visit. A file may
    /// hold the very bytes of a node, so that one chunk is both.
    fn mark_node(&self, id: &ChunkId) -> Result<bool>;
    /// Reads a node for the walk.
    fn read_node(&self, id: &ChunkId) -> Result<Vec<u8>>;
}

/// Walks from roots: the engine's part. It must mark every chunk reachable from the given roots.
pub trait Reachability: Sync {
    /// Marks all that the root reaches.
    fn mark_root(&self, root: &RootName, payload: &[u8], marker: &dyn Marker) -> Result<()>;
    /// The packs that have to stay for roots that nobody here can walk: each may reach all that was there
    /// when it was first met, and nothing that was stored since, unless another program has moved that.
    /// `present`: what is there now. Who remembers nothing keeps everything.
    fn kept_for(&self, unread: &[RootName], present: &HashSet<PackId>) -> Result<HashSet<PackId>> {
        let _ = unread;
        Ok(present.clone())
    }
    /// What a listed root holds. Roots are written once: whoever has opened one before and kept its payload
    /// under the repository's own keys may answer from there.
    fn root_payload(&self, repository: &Repository, root: &RootName) -> Result<Vec<u8>> {
        repository.read_root(root)
    }
}

/// Small packs are rewritten into larger ones when there are this many of them.
const SMALL_PACKS_MAX: usize = 64;
/// A trailer takes some 50 bytes for a record of some KiB or more.
const LIVE_BYTES_PER_TRAILER_BYTE: u64 = 64;
/// A pack is small below this share of the largest.
const SMALL_PACK_DIVISOR: u64 = 16;

/// Collects: mark, rewrite, condemn, sweep what no living session can reach, merge the index.
/// [`crate::Error::Busy`] when another collection runs.
pub fn collect(
    repository: &Repository,
    reachability: &dyn Reachability,
    options: CollectOptions,
) -> Result<CollectReport> {
    repository.keys().role().require(Action::Maintain)?;
    if options.dry_run {
        return forecast(repository, reachability, options);
    }
    let lease = maintenance_lease(repository)?;
    let mut report = collect_forced(repository, &*lease, reachability, options, &HashSet::new())?;
    if report.packs_without_room > 0 && report.bytes_freed > 0 {
        // What was dead made room for what is not.
        let first = report;
        report = collect_forced(repository, &*lease, reachability, options, &HashSet::new())?;
        report.packs_removed += first.packs_removed;
        report.packs_rewritten += first.packs_rewritten;
        report.bytes_freed += first.bytes_freed;
        report.fragments_merged += first.fragments_merged;
    }
    lease.release()?;
    Ok(report)
}

/// What a collection would do. Where nothing can be written there is neither lease nor session: nobody
/// collects there.
fn forecast(
    repository: &Repository,
    reachability: &dyn Reachability,
    options: CollectOptions,
) -> Result<CollectReport> {
    let lease = match maintenance_lease(repository) {
        Err(error) if error.is_write_refused() => None,
        lease => Some(lease?),
    };
    let session = Session::begin_reading(repository)?;
    let plan = plan(repository, &session, reachability, options, &HashSet::new())?;
    session.end()?;
    lease.map_or(Ok(()), |lease| lease.release())?;
    Ok(plan.forecast(&bytes_with_parity(repository)?))
}

/// The same under a lease that is held, with packs that are rewritten whatever lives in them.
fn collect_forced(
    repository: &Repository,
    lease: &dyn Hold,
    reachability: &dyn Reachability,
    options: CollectOptions,
    forced: &HashSet<PackId>,
) -> Result<CollectReport> {
    let mut report = CollectReport::default();
    remove_dead_sessions(repository)?;
    retired::sweep(repository)?;
    sweep::carry_out(repository, reachability, None, &mut report)?;
    // A session of its own keeps nobody's sweep waiting but the next collection's, which the lease excludes.
    let session = Session::begin(repository)?;
    let mut plan = plan(repository, &session, reachability, options, forced)?;
    if !forced.is_empty()
        && let Some((_, error)) = plan.unread.pop()
    {
        // What it reaches would stay as it is sealed, and nobody would know.
        session.end()?;
        return Err(error);
    }
    let (damaged, copied) = match rewrite::copy_live(&session, &plan) {
        // On a full disk what is dead goes first: it needs no copies.
        Err(error) if error.is_disk_full() && !plan.dead.is_empty() => {
            report.packs_without_room = std::mem::take(&mut plan.rewritten).len() as u64;
            (HashSet::new(), 0)
        }
        copied => copied?,
    };
    let marked = std::mem::take(&mut plan.marked);
    session.end()?;
    let doomed = plan.dead.iter().chain(&plan.rewritten).map(|(pack, _)| *pack);
    let packs: Vec<PackId> = doomed.filter(|pack| !damaged.contains(pack)).collect();
    report.packs_rewritten = (plan.rewritten.len() - damaged.len()) as u64;
    report.packs_damaged = damaged.len() as u64;
    report.roots_unread = plan.roots_unread();
    report.index_unread = plan.index_unread.take();
    if !packs.is_empty() {
        let too_early = match repository.is_mutant(Mutant::ListsSessionsFirst) {
            true => Some(living_sessions(repository)?),
            false => None,
        };
        let id = condemned::publish(repository, &Sentence { packs, marked }).map_err(all_that_is_needed)?;
        // Where locks do not carry, another collection may have taken the lease over and planned without this
        // sentence: of two copies of a chunk each would let the other's go. Whoever takes it over after this
        // look has the sentence before it.
        if !lease.is_current()? {
            condemned::remove(repository, id)?;
            return Err(lease_is_held());
        }
        // Where none lives, none is waited for, and a disk that is full need not take the list of them.
        let living: Vec<String> = living_sessions(repository)?.into_iter().map(|session| session.name).collect();
        if !living.is_empty() {
            condemned::publish_sessions(repository, id, &living)?;
        }
        sweep::carry_out(repository, reachability, Some(&sweep::Own { id, too_early }), &mut report)?;
    }
    merge::forget(repository, &plan.gone)?;
    report.fragments_merged = match merge::merge(repository) {
        // The index stays in more pieces; what was to be given back is.
        Err(error) if error.is_disk_full() => 0,
        merged => merged?,
    };
    report.bytes_freed = report.bytes_freed.saturating_sub(copied);
    Ok(report)
}

/// On a disk that is full, says how little a collection needs.
fn all_that_is_needed(error: Error) -> Error {
    let full = error.is_disk_full();
    match error {
        Error::Io { action, object, source } if full => {
            Error::io(action, format!("{object}, all that is needed to begin with the removal"), source)
        }
        error => error,
    }
}

/// Merges index fragments when nobody else maintains the repository; called at the end of a create, so that
/// their number stays small whatever the number of snapshots. The cost of a create's share grows with the
/// logarithm of the whole.
pub fn merge_index(repository: &Repository) -> Result<u64> {
    if !merge::is_due(repository)? {
        return Ok(0);
    }
    if !repository.keys().role().may(Action::Maintain) {
        return Ok(0);
    }
    match maintenance_lease(repository) {
        Err(Error::Busy { .. }) => Ok(0),
        Err(error) => Err(error),
        Ok(lease) => {
            let merged = merge::merge(repository)?;
            lease.release()?;
            Ok(merged)
        }
    }
}

pub(crate) fn maintenance_lease(repository: &Repository) -> Result<Box<dyn Hold>> {
    let name = ObjectName::new(ObjectKind::Lease, "maintenance").expect("a constant name");
    let lease = match repository.backend().hold(&name, b"") {
        Err(Error::Busy { .. }) => return Err(lease_is_held()),
        held => held?,
    };
    // What a key signs that was removed while this process lived would be nobody's word, in the place of what
    // it replaces.
    match repository.refresh_keys() {
        Ok(()) => Ok(lease),
        Err(error) => {
            lease.release()?;
            Err(error)
        }
    }
}

fn lease_is_held() -> Error {
    Error::Busy { what: "the maintenance lease of the repository".into() }
}

/// What to do with which pack, and its bytes.
#[derive(Default)]
struct Plan {
    dead: Vec<(PackId, u64)>,
    rewritten: Vec<(PackId, u64)>,
    live_in_rewritten: mark::LiveChunks,
    live_bytes_rewritten: u64,
    marked: Vec<Mark>,
    unread: Vec<(RootName, Error)>,
    index_unread: Option<String>,
    /// Packs that the index names and that are gone: a sweep died before it was done, or an old fragment came
    /// back.
    gone: HashSet<PackId>,
}

impl Plan {
    fn roots_unread(&self) -> Vec<(RootName, String)> {
        self.unread.iter().map(|(root, error)| (*root, error.to_string())).collect()
    }

    fn forecast(&self, bytes: &HashMap<PackId, u64>) -> CollectReport {
        let bytes = |packs: &[(PackId, u64)]| packs.iter().filter_map(|(pack, _)| bytes.get(pack)).sum::<u64>();
        CollectReport {
            packs_removed: self.dead.len() as u64,
            packs_rewritten: self.rewritten.len() as u64,
            bytes_freed: (bytes(&self.dead) + bytes(&self.rewritten)).saturating_sub(self.live_bytes_rewritten),
            roots_unread: self.roots_unread(),
            index_unread: self.index_unread.clone(),
            ..CollectReport::default()
        }
    }
}

fn plan(
    repository: &Repository,
    session: &Session,
    reachability: &dyn Reachability,
    options: CollectOptions,
    forced: &HashSet<PackId>,
) -> Result<Plan> {
    let index = Index::load(repository.backend(), repository.keys())?;
    let waiting: HashSet<PackId> =
        condemned::load(repository)?.0.into_iter().flat_map(|pending| pending.sentence.packs).collect();
    let present = mark::present(repository)?;
    let fragments = index.fragments();
    let named = fragments.iter().flat_map(|fragment| fragment.packs()).map(|(pack, _)| *pack);
    let unlisted = named.filter(|pack| !present.contains(pack)).collect();
    let mut plan = Plan { gone: merge::gone(repository, unlisted)?, ..Plan::default() };
    let marks = Marks::new(session, &index, present.clone(), waiting.clone());
    let walked = mark_roots(repository, reachability, session.roots(), &marks)?;
    plan.marked = walked.marked.iter().map(Mark::of).collect();
    plan.unread = walked.unread;
    let kept = reach::kept_for(reachability, &plan.unread, &present)?;
    plan.index_unread = index.unreadable().map(|error| error.to_string());
    let closed = packs_closed_to(repository, &index);
    let small = u64::from(repository.config().parameters.pack_bytes_max) / SMALL_PACK_DIVISOR;
    let mut small_packs = Vec::new();
    for listed in repository.backend().list(ObjectKind::Pack)? {
        let Some(pack) = PackId::from_hex(listed.name.name()) else { continue };
        if waiting.contains(&pack) || kept.contains(&pack) {
            continue;
        }
        let live = marks.live_bytes(&pack);
        let is_worth_it = (live_padded(live) as f64) < listed.bytes as f64 * options.rewrite_below_live_share;
        if (live == 0 || is_worth_it || forced.contains(&pack)) && !may_go(repository, &marks, pack)? {
            continue;
        }
        if live == 0 || (repository.is_mutant(Mutant::SweepsALivePack) && plan.dead.is_empty()) {
            plan.dead.push((pack, listed.bytes));
        } else if forced.contains(&pack) {
            plan.rewritten.push((pack, listed.bytes));
            plan.live_bytes_rewritten += live;
        } else if closed.contains(&pack) {
            // A copy would have to open it.
        } else if is_worth_it {
            plan.rewritten.push((pack, listed.bytes));
            plan.live_bytes_rewritten += live;
        } else if listed.bytes < small && plan.index_unread.is_none() {
            small_packs.push((pack, listed.bytes, live));
        }
    }
    if small_packs.len() >= SMALL_PACKS_MAX {
        for (pack, bytes, live) in small_packs {
            plan.rewritten.push((pack, bytes));
            plan.live_bytes_rewritten += live;
        }
    }
    let rewritten = plan.rewritten.iter().map(|(pack, _)| *pack).collect();
    plan.live_in_rewritten = marks.live_in(&rewritten)?;
    Ok(plan)
}

/// Packs that a maintaining key cannot open: it removes them when they are dead, and leaves rewriting to
/// owners.
fn packs_closed_to(repository: &Repository, index: &Index) -> HashSet<PackId> {
    if repository.keys().role().may(Action::OpenData) {
        return HashSet::new();
    }
    let mut closed = HashSet::new();
    for fragment in index.fragments().iter() {
        let data = fragment.packs().iter().filter(|(_, kind)| *kind == RecordKind::Data);
        closed.extend(data.map(|(pack, _)| *pack));
    }
    closed
}

/// The length of a pack that would hold only the live records: padding is no dead weight, since a copy would
/// have as much again.
fn live_padded(live: u64) -> u64 {
    on_grid(live.saturating_add(live / LIVE_BYTES_PER_TRAILER_BYTE))
}

/// The packs that are there, with their bytes and those of their parity.
fn bytes_with_parity(repository: &Repository) -> Result<HashMap<PackId, u64>> {
    let mut bytes = HashMap::new();
    for kind in [ObjectKind::Pack, ObjectKind::Parity] {
        for listed in repository.backend().list(kind)? {
            if let Some(pack) = PackId::from_hex(listed.name.name()) {
                *bytes.entry(pack).or_default() += listed.bytes;
            }
        }
    }
    Ok(bytes)
}

/// Session objects that nobody holds are those of processes that died.
fn remove_dead_sessions(repository: &Repository) -> Result<()> {
    let backend = repository.backend();
    let mut dead = Vec::new();
    for name in backend.names(ObjectKind::Session)? {
        if !backend.is_held(&name)? || repository.is_mutant(Mutant::TakesTheLivingForDead) {
            dead.push(name);
        }
    }
    // All of them in one go: their folder is synced once, however many somebody has put there.
    if dead.is_empty() { Ok(()) } else { backend.delete(&dead) }
}

/// Which of some commands that were at work are so still; without a list, all. By their sessions, whose names
/// are given back; a lock may not carry to this machine.
pub fn at_work(repository: &Repository, among: Option<&[ObjectName]>) -> Result<Vec<ObjectName>> {
    let backend = repository.backend();
    let mut names = backend.names(ObjectKind::Session)?;
    names.retain(|name| among.is_none_or(|among| among.contains(name)));
    let mut living = Vec::new();
    for name in names {
        if backend.is_held(&name)? {
            living.push(name);
        }
    }
    Ok(living)
}

/// A session whose process lives.
#[derive(Clone)]
struct Living {
    name: String,
    /// The sentences that it knows.
    knows: HashSet<condemned::Token>,
}

/// The sessions whose processes live, as far as can be seen from here: a lock may not carry to this machine.
/// Whoever is taken for dead loses the object first, durably, and so learns of it before it acknowledges
/// anything; roots are listed after that.
fn living_sessions(repository: &Repository) -> Result<Vec<Living>> {
    let backend = repository.backend();
    let (mut living, mut dead) = (Vec::new(), Vec::new());
    for listed in backend.list(ObjectKind::Session)? {
        if backend.is_held(&listed.name)? {
            let knows = condemned::known_to(repository, &listed.name);
            living.push(Living { name: listed.name.name().to_owned(), knows });
        } else {
            dead.push(listed.name);
        }
    }
    backend.delete(&dead)?;
    Ok(living)
}
