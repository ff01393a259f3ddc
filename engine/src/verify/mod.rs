//! Verifies: hashes every byte again, walks every manifest, reports damage and affected snapshots; mends what
//! can be mended.

mod again;
mod attribution;
mod findings;
mod folders;
mod structure;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use copal_manifest::snapshot::{Label, Snapshot};
use copal_store::PackId;
use copal_store::backend::ObjectKind;
use copal_store::check::{self, CheckReport, Damage, Trouble, check_pack, packs};
use copal_store::repository::RootName;
use copal_store::roles::Action;
use copal_store::session::{ChunkSource, Session};

pub use crate::catalogue::Gone;
use crate::catalogue::{Catalogue, Listed, UnreadableReason, tell_what_is_gone};
use crate::context::{Context, Progress};
use crate::error::{Error, Result};
use crate::verify::attribution::LostPiece;
use crate::verify::findings::Findings;

/// What to verify.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VerifyRequest {
    /// Snapshots; empty: everything in the repository.
    pub references: Vec<String>,
    /// Structure only: roots, manifests, and that every chunk has a place in a pack that is there.
    pub quick: bool,
    /// Repair what can be repaired.
    pub repair: bool,
    /// With `repair`: live files and folders from which lost chunks are taken again.
    pub from: Vec<PathBuf>,
}

/// Something that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedItem {
    /// `pack`, `parity`, `index`, `snapshot`, `chunk`, `node`, `key`, `config`, `label`, `condemned`.
    pub kind: String,
    /// Object name or chunk id.
    pub id: String,
    /// What does not hold.
    pub detail: String,
    /// Names of the snapshots that are hurt.
    pub snapshots: Vec<String>,
    /// Paths that are hurt (at most [`PATHS_MAX`]; the count is in `paths_total`).
    pub paths: Vec<String>,
    /// How many paths are hurt.
    pub paths_total: u64,
}

/// Paths named for one damaged item.
pub const PATHS_MAX: usize = 1000;

/// Outcome.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Snapshots checked.
    pub snapshots: u64,
    /// Packs checked.
    pub packs: u64,
    /// Chunks decoded and hashed.
    pub chunks: u64,
    /// Stored bytes read.
    pub bytes: u64,
    /// What is damaged.
    pub damaged: Vec<DamagedItem>,
    /// What a newer version wrote: nobody here can say whether it is sound.
    pub not_verified: Vec<DamagedItem>,
    /// Snapshots that this machine has seen and that are there no more, without having been deleted here. A
    /// deletion elsewhere leaves no record, so it is no damage; it is told once.
    pub gone: Vec<Gone>,
    /// What was mended, one sentence each.
    pub repaired: Vec<String>,
}

impl VerifyReport {
    /// Whether all was verified, and is sound.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.damaged.is_empty() && self.not_verified.is_empty()
    }
}

/// Verifies. With `repair`, what can be made again is made again: the index from the packs, the configuration
/// from its copy, lost chunks from the sources given. Records that do not verify leave the index, so that
/// nothing reads them any more, collection removes them, and the next create of the same data stores them
/// again. What nothing brings back is lost, and stays named; no root is ever removed.
pub fn verify(context: &Context, request: &VerifyRequest) -> Result<VerifyReport> {
    if !request.from.is_empty() && !request.repair {
        return Err(Error::Usage("chunks are taken again from a source only by a repair".into()));
    }
    let mut repaired = Vec::new();
    if request.repair {
        // First, because nothing is written beside a sentence that does not open.
        for name in check::lift_unreadable_sentences(&context.repository)? {
            repaired.push(format!("{name}, a sentence of collection that did not open, was lifted"));
        }
        if context.repository.keys().role().may(Action::ManageKeys) {
            for name in context.repository.remove_strange_key_objects()? {
                repaired.push(format!("{name}, which counted for nothing, was removed"));
            }
        }
        for name in check::restore_config(&context.repository)? {
            repaired.push(format!("{name} was written again"));
        }
        for name in context.repository.restore_key_objects()? {
            repaired.push(format!("{name} was written again"));
        }
    }
    for strange in context.repository.strange_key_objects()?.iter().filter(|strange| strange.is_leftover) {
        context.monitor.notice(&format!("{} counts for nothing: {}", strange.object, strange.detail));
    }
    let mut checked = check(context, request)?;
    if request.repair {
        if checked.hurts_packs_or_index() {
            context.monitor.phase("repairing");
            match check::rebuild_index(&context.repository) {
                // It was named as not verified; nothing is written beside it that it may contradict.
                Err(error) if error.is_unsupported() => {
                    context.monitor.notice(&format!("the index was not made again, because {error}"));
                }
                chunks => repaired.push(format!(
                    "the index was made again from the packs: {} sound chunks; records that do not verify are in it no \
                     more",
                    chunks?
                )),
            }
            checked = check(context, request)?;
        }
        if checked.report.damaged.iter().any(|item| item.kind == "parity") {
            let packs = check::renew_parity(&context.repository)?;
            repaired.push(format!("the parity of {packs} packs was made again"));
            checked = check(context, request)?;
        }
        if !request.from.is_empty() && checked.hurts_packs_or_index() {
            context.monitor.phase("taking chunks again");
            let pieces = again::take_pieces_again(context, &request.from, &checked.pieces)?;
            let mut chunks = pieces;
            if pieces > 0 {
                checked = check(context, request)?;
            }
            if checked.hurts_packs_or_index() {
                chunks += again::take_everything_again(context, &request.from)?;
                checked = check(context, request)?;
            }
            repaired.push(format!("{chunks} chunks were stored again from the sources given"));
        }
        // Where something of a pack is lost, it may be what brings back a copy that somebody finds.
        if !checked.hurts_packs_or_index() && check::parity_of_no_pack(&context.repository)? > 0 {
            let removed = check::remove_parity_of_no_pack(&context.repository)?;
            repaired.push(format!("{removed} objects of parity were removed: their packs are not there"));
        }
    }
    checked.report.repaired = repaired;
    let orphans = check::parity_of_no_pack(&context.repository)?;
    if orphans > 0 {
        context.monitor.notice(&format!("{orphans} objects of parity are of packs that are not there"));
    }
    if request.references.is_empty() {
        checked.report.gone = tell_what_is_gone(context)?;
    }
    Ok(checked.report)
}

/// Most looks of one verification: snapshots are deleted during each of them.
const LOOKS_MAX: u32 = 8;

/// One look at everything.
struct Checked {
    report: VerifyReport,
    pieces: Vec<LostPiece>,
    /// What was looked at.
    roots: Vec<RootName>,
}

impl Checked {
    /// Whether a snapshot that was looked at is there no more.
    fn outlived_a_snapshot(&self, context: &Context) -> Result<bool> {
        let standing = context.repository.roots()?;
        Ok(self.roots.iter().any(|root| !standing.contains(root)))
    }

    fn hurts_packs_or_index(&self) -> bool {
        let kinds = ["pack", "chunk", "node", "index"];
        // What only a fragment of a newer version may know, the packs may know as well.
        let is_missed = |item: &DamagedItem| item.kind == "index" && !item.snapshots.is_empty();
        self.report.damaged.iter().any(|item| kinds.contains(&item.kind.as_str()))
            || self.report.not_verified.iter().any(is_missed)
    }
}

/// Looks again when a snapshot was deleted meanwhile: a collection that was decided before the look began
/// does not wait for it, so what only that snapshot needed may be gone, and that is no damage.
fn check(context: &Context, request: &VerifyRequest) -> Result<Checked> {
    for _ in 1..LOOKS_MAX {
        let checked = look(context, request)?;
        if checked.report.damaged.is_empty() || !checked.outlived_a_snapshot(context)? {
            return Ok(checked);
        }
    }
    look(context, request)
}

fn look(context: &Context, request: &VerifyRequest) -> Result<Checked> {
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_unremembered(context, &session)?;
    let all = request.references.is_empty();
    let chosen: Vec<&Listed> = if all {
        catalogue.snapshots.iter().collect()
    } else {
        request.references.iter().map(|reference| catalogue.find(reference)).collect::<Result<_>>()?
    };
    let mut found = Findings::default();
    if all {
        name_unreadable_roots(&catalogue, &mut found);
        name_small_objects(context, &catalogue, &mut found)?;
    }
    context.monitor.phase("checking the manifests");
    let structure = structure::check(context, &session, &chosen, &mut found)?;
    let mut report = VerifyReport { snapshots: chosen.len() as u64, ..VerifyReport::default() };
    if !request.quick {
        context.monitor.phase("verifying");
        let wanted = if all { packs(&context.repository)? } else { structure.packs.into_iter().collect() };
        let checked = check_packs(context, &session, &wanted)?;
        (report.packs, report.chunks, report.bytes) = (checked.packs, checked.chunks, checked.bytes);
        for damage in checked.damaged.into_iter().chain(check::check_places(&session, &wanted)?) {
            found.push_damage(without_what_stands_elsewhere(&session, damage));
        }
        for damage in check::check_index(&context.repository)? {
            found.push_damage(damage);
        }
    }
    let pieces = attribution::name_what_is_hurt(context, &session, &chosen, &mut found)?;
    session.end()?;
    // What was not read any more because of an interrupt must not pass for damage.
    context.check_interrupt()?;
    (report.damaged, report.not_verified) = found.into_items();
    let roots = chosen.iter().map(|listed| listed.root).collect();
    Ok(Checked { report, pieces, roots })
}

fn name_unreadable_roots(catalogue: &Catalogue, found: &mut Findings) {
    for unreadable in &catalogue.unreadable {
        if let UnreadableReason::Newer { .. } = unreadable.reason {
            let item = found.newer("snapshot", &unreadable.root.object_name(), &unreadable.detail);
            found.hurt_by_item(item, &unreadable.root.snapshot.to_string());
            continue;
        }
        let item = found.item("snapshot", &unreadable.root.object_name(), &unreadable.detail);
        found.hurt_by_item(item, &unreadable.root.snapshot.to_string());
    }
}

fn name_small_objects(context: &Context, catalogue: &Catalogue, found: &mut Findings) -> Result<()> {
    let labels = labels_that_say_nothing(context)?;
    for damage in check::check_small_objects(&context.repository)?.into_iter().chain(labels) {
        let item = match damage.trouble {
            Trouble::Damaged => found.item(damage.kind, &damage.id, &damage.detail),
            Trouble::Newer => found.newer(damage.kind, &damage.id, &damage.detail),
        };
        if damage.kind == "label" {
            let of = |listed: &&Listed| damage.id.starts_with(&listed.snapshot.id.to_string());
            if let Some(listed) = catalogue.snapshots.iter().find(of) {
                found.hurt_by_item(item, &Snapshot::full_name(&listed.snapshot.app, &listed.snapshot.name));
            }
        }
    }
    Ok(())
}

/// Of a record that does not hold, the chunks that a reader gets all the same, from another place, are not
/// lost: whoever has a key can make up such records.
fn without_what_stands_elsewhere(session: &Session, mut damage: Damage) -> Damage {
    damage.chunks.retain(|chunk| session.read_chunk(chunk).is_err());
    damage
}

/// Labels that open and are none: a reader takes such a snapshot for pinned.
fn labels_that_say_nothing(context: &Context) -> Result<Vec<Damage>> {
    let mut damaged = Vec::new();
    for (snapshot, seq) in context.repository.labels()? {
        let name = format!("{snapshot}-{seq:016x}");
        // What does not open was named with all other objects.
        let Ok(payload) = context.repository.read_label_at(snapshot, seq) else { continue };
        if let Err(error) = Label::decode(&format!("labels/{name}"), &payload) {
            damaged.push(Damage::of("label", &name, error, Vec::new())?);
        }
    }
    Ok(damaged)
}

/// Packs are checked side by side, each by one thread.
fn check_packs(context: &Context, session: &Session, wanted: &[PackId]) -> Result<CheckReport> {
    let sizes = context.repository.backend().list(ObjectKind::Pack)?.iter().map(|object| object.bytes).sum();
    let (next, bytes_done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let sum = Mutex::new(CheckReport::default());
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        while let Some(&pack) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = context.check_interrupt().and_then(|()| Ok(check_pack(session, pack)?));
            match outcome {
                Ok(one) => {
                    let done = bytes_done.fetch_add(one.bytes, Ordering::Relaxed) + one.bytes;
                    context.monitor.progress(Progress {
                        bytes_done: done,
                        bytes_total: sizes,
                        total_known: true,
                        ..Progress::default()
                    });
                    let mut sum = lock(&sum);
                    sum.packs += one.packs;
                    sum.chunks += one.chunks;
                    sum.bytes += one.bytes;
                    sum.damaged.extend(one.damaged);
                }
                Err(error) => {
                    next.store(wanted.len(), Ordering::Relaxed);
                    lock(&failure).get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..context.worker_threads() {
            scope.spawn(work);
        }
    });
    match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
