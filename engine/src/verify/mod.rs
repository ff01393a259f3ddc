//! Verifies: hashes every byte again, walks every manifest, names what is hurt; mends what can be mended.

mod attribution;
mod structure;

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use copal_store::backend::ObjectKind;
use copal_store::check::{CheckReport, Damage, check_pack, packs};
use copal_store::session::Session;
use copal_store::{ChunkId, PackId};

use crate::catalogue::{Catalogue, Listed, UnreadableReason};
use crate::context::{Context, Progress};
use crate::error::{Error, Result};

/// What to verify.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VerifyRequest {
    /// Snapshots; empty: everything in the repository.
    pub references: Vec<String>,
    /// Structure only: roots, manifests, and that every chunk has a place in a pack that is there.
    pub quick: bool,
    /// Mend what can be mended.
    pub repair: bool,
}

/// Something that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedItem {
    /// `pack`, `index`, `snapshot`, `chunk`, `node`, `key`, `config`.
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
    /// What is damaged; empty: all is well.
    pub damaged: Vec<DamagedItem>,
    /// What was mended, one sentence each.
    pub repaired: Vec<String>,
}

/// Verifies. With `repair`, damaged records leave the index, so that the next create of the same data stores them again;
/// what no source brings back is lost, and stays named.
pub fn verify(context: &Context, request: &VerifyRequest) -> Result<VerifyReport> {
    let report = check(context, request)?;
    if !request.repair || report.damaged.is_empty() {
        return Ok(report);
    }
    let damaged_packs =
        report.damaged.iter().any(|item| matches!(item.kind.as_str(), "pack" | "chunk" | "node" | "index"));
    let mut repaired = Vec::new();
    if damaged_packs {
        context.monitor.phase("repairing");
        let chunks = copal_store::check::rebuild_index(&context.repository)?;
        repaired.push(format!(
            "the index was made again from the packs: {chunks} sound chunks; what is damaged is stored again by the next \
             create that meets it"
        ));
    }
    let after = check(context, &VerifyRequest { repair: false, ..request.clone() })?;
    Ok(VerifyReport { repaired, ..after })
}

fn check(context: &Context, request: &VerifyRequest) -> Result<VerifyReport> {
    let session = Session::begin(&context.repository)?;
    let catalogue = Catalogue::load_unremembered(context, &session)?;
    let chosen: Vec<&Listed> = if request.references.is_empty() {
        catalogue.snapshots.iter().collect()
    } else {
        request.references.iter().map(|reference| catalogue.find(reference)).collect::<Result<_>>()?
    };
    let mut found = Findings::default();
    if request.references.is_empty() {
        for unreadable in &catalogue.unreadable {
            if let UnreadableReason::Newer { .. } = unreadable.reason {
                context.monitor.notice(&format!(
                    "the snapshot {} is not verified: {}",
                    unreadable.root.snapshot, unreadable.detail
                ));
                continue;
            }
            found.push("snapshot", unreadable.root.object_name(), unreadable.detail.clone());
            found.snapshots_of_last(&[format!("{}", unreadable.root.snapshot)]);
        }
    }
    context.monitor.phase("checking the manifests");
    let structure = structure::check(context, &session, &chosen, &mut found)?;
    let mut report = VerifyReport { snapshots: chosen.len() as u64, ..VerifyReport::default() };
    if !request.quick {
        context.monitor.phase("verifying");
        let all = request.references.is_empty();
        let wanted = if all { packs(&context.repository)? } else { structure.packs.into_iter().collect() };
        let checked = check_packs(context, &session, &wanted)?;
        (report.packs, report.chunks, report.bytes) = (checked.packs, checked.chunks, checked.bytes);
        for damage in checked.damaged {
            found.push_damage(damage);
        }
    }
    attribution::name_what_is_hurt(context, &session, &chosen, &mut found)?;
    session.end()?;
    report.damaged = found.into_items();
    Ok(report)
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

/// What was found, and the chunks that each finding costs.
#[derive(Default)]
struct Findings {
    items: Vec<DamagedItem>,
    /// Chunk → items that cost it.
    lost: BTreeMap<ChunkId, Vec<usize>>,
    known: HashSet<(String, String)>,
}

impl Findings {
    /// `false` when the same thing was named before.
    fn push(&mut self, kind: &str, id: String, detail: String) -> bool {
        if !self.known.insert((kind.to_owned(), id.clone())) {
            return false;
        }
        self.items.push(DamagedItem {
            kind: kind.to_owned(),
            id,
            detail,
            snapshots: Vec::new(),
            paths: Vec::new(),
            paths_total: 0,
        });
        true
    }

    fn push_lost(&mut self, kind: &str, chunk: ChunkId, detail: String) {
        if self.push(kind, chunk.to_string(), detail) {
            self.lost.entry(chunk).or_default().push(self.items.len() - 1);
        }
    }

    fn push_damage(&mut self, damage: Damage) {
        if self.push(damage.kind, damage.id, damage.detail) {
            for chunk in damage.chunks {
                self.lost.entry(chunk).or_default().push(self.items.len() - 1);
            }
        }
    }

    fn snapshots_of_last(&mut self, names: &[String]) {
        if let Some(item) = self.items.last_mut() {
            item.snapshots.extend_from_slice(names);
        }
    }

    fn hurt(&mut self, chunk: &ChunkId, snapshot: &str, path: impl FnOnce() -> String) {
        let Some(items) = self.lost.get(chunk) else { return };
        let path = path();
        for &number in items {
            let item = &mut self.items[number];
            if item.snapshots.last().is_none_or(|last| last != snapshot) {
                item.snapshots.push(snapshot.to_owned());
            }
            if item.paths.last() == Some(&path) {
                continue;
            }
            item.paths_total += 1;
            if item.paths.len() < PATHS_MAX && !item.paths.contains(&path) {
                item.paths.push(path.clone());
            }
        }
    }

    fn into_items(self) -> Vec<DamagedItem> {
        self.items
    }
}
