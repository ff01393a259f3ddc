//! The catalogue: which snapshots are there. Roots are the truth; redb is a cache of them.
//!
//! Invariants: a root that cannot be opened is named and hides no other; the cache is believed only where the
//! repository's keys say so, and can be lost at any time. The catalogue never looks into a manifest.

mod cache;
mod filter;
mod find;
mod gone;
mod holder;
mod home;
mod memory;
mod relabel;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::{Label, Snapshot};
use copal_store::keys::Keys;
use copal_store::repository::{Repository, RootName, SignedPayload};
use copal_store::roles::Action;
use copal_store::session::Session;
use copal_store::signing::SignerId;
use copal_store::{Error as StoreError, SnapshotId};

pub use filter::{Filter, is_same_path, plain_path, recorded_path};
pub use find::{FUTURE_SECONDS, is_by_age, is_of_the_future};
pub use gone::Gone;
pub(crate) use gone::{forget_deleted, tell_what_is_gone};
pub use holder::described;
pub use holder::{has_name, name_taken, publish_named};
pub use home::other_home;
pub use memory::Memory;
pub use relabel::{check_tags, relabel};

use crate::catalogue::cache::{CacheRead, CacheState, Cached, Entries};
use crate::context::{Context, Monitor};
use crate::error::{Error, Result};

/// A snapshot as listed: its root, with the newest label applied to `tags` and `pinned`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Name of the root object.
    pub root: RootName,
    /// SHA-256 of the root's payload as committed, in hexadecimal.
    pub digest: String,
    /// The key that signed the root; `None`: nobody did, before format 3.
    pub signer: Option<SignerId>,
    /// The snapshot; tags and pin as labelled last.
    pub snapshot: Arc<Snapshot>,
}

/// A root that could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its name.
    pub root: RootName,
    /// What does not open: its object, or that of a key to it.
    pub object: String,
    /// What a caller can do about it.
    pub reason: UnreadableReason,
    /// Why.
    pub detail: String,
}

/// Why a root does not open: a newer program's root is sound, only not ours to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadableReason {
    /// It does not verify, or its bytes cannot be read.
    Damaged,
    /// It was written by a newer version.
    Newer {
        /// Its version.
        found: u32,
        /// The highest version known here.
        supported: u32,
    },
}

/// All snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// By creation time, oldest first.
    pub snapshots: Vec<Listed>,
    /// Damaged or newer roots: named, never hiding the others.
    pub unreadable: Vec<Unreadable>,
    asked: Asked,
}

/// What the catalogue is asked with: no part of what is listed.
#[derive(Clone, Default)]
struct Asked {
    /// Make the tags of names: what a root that does not open was called can still be checked against a
    /// guess.
    keys: Option<Keys>,
    /// When it was read: a snapshot that is dated later is not the latest.
    now: Option<Timestamp>,
    /// Hears of such a one.
    monitor: Option<Arc<dyn Monitor>>,
}

impl PartialEq for Asked {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Asked {}

impl std::fmt::Debug for Asked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Asked").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Catalogue {
    /// Reads the catalogue: one listing of roots, one of labels, and only objects that the cache lacks.
    pub fn load(context: &Context) -> Result<Self> {
        gather(context, &context.repository.roots()?, true)
    }

    /// The same from the roots that a session listed.
    pub fn load_in(context: &Context, session: &Session) -> Result<Self> {
        gather(context, session.roots(), true)
    }

    /// The same with every root and label read from the repository: for verification, which must see what is
    /// there now.
    pub(crate) fn load_unremembered(context: &Context, session: &Session) -> Result<Self> {
        gather(context, session.roots(), false)
    }

    /// By name, `APP/NAME`, id or unambiguous id prefix (4 or more hex digits, with or without dashes),
    /// `latest`, `latest:APP`, `latest:PATH`.
    pub fn find(&self, reference: &str) -> Result<&Listed> {
        find::find(self, reference, &Filter::default())
    }

    /// The same; by its age one of those that a filter chooses.
    pub fn find_among(&self, reference: &str, filter: &Filter) -> Result<&Listed> {
        find::find(self, reference, filter)
    }

    /// The newest of some that a key which may create now has signed. `reference` is what errors call it.
    pub fn latest(&self, reference: &str, wanted: &dyn Fn(&Listed) -> bool) -> Result<&Listed> {
        find::latest(self, reference, wanted)
    }

    /// By its whole name in one application, or its whole id there; `None`: there is none.
    pub fn find_in(&self, app: &str, reference: &str) -> Result<Option<&Listed>> {
        find::find_in(self, app, reference)
    }

    /// A snapshot that does not open, by its whole name or whole id.
    #[must_use]
    pub fn find_unreadable(&self, reference: &str) -> Option<&Unreadable> {
        find::find_unreadable(self, reference)
    }
}

impl Catalogue {
    /// Ids are drawn: where two snapshots have the same one, somebody has made up one of them. What an owner
    /// or the key in use has signed is not it.
    fn set_impostors_apart(&mut self, keys: &Keys) {
        let mut signed: BTreeMap<SnapshotId, usize> = BTreeMap::new();
        let mut all: BTreeMap<SnapshotId, usize> = BTreeMap::new();
        for listed in &self.snapshots {
            *all.entry(listed.snapshot.id).or_default() += 1;
            *signed.entry(listed.snapshot.id).or_default() += usize::from(keys.builds_on(listed.signer));
        }
        if all.len() == self.snapshots.len() {
            return;
        }
        let is_impostor = |listed: &Listed| {
            let id = &listed.snapshot.id;
            all[id] > 1 && signed[id] > 0 && !keys.builds_on(listed.signer)
        };
        let (impostors, snapshots) = std::mem::take(&mut self.snapshots).into_iter().partition(is_impostor);
        self.snapshots = snapshots;
        let impostors: Vec<Listed> = impostors;
        self.unreadable.extend(impostors.into_iter().map(|listed| {
            let detail = "it has the id of another snapshot, which an owner made";
            Unreadable::new(listed.root, &StoreError::damaged(object_of(&listed.root), detail))
        }));
    }
}

impl Unreadable {
    /// The error of an operation that needs this root.
    #[must_use]
    pub fn error(&self) -> Error {
        Error::Store(match self.reason {
            UnreadableReason::Damaged => StoreError::damaged(&self.object, &self.detail),
            UnreadableReason::Newer { found, supported } => {
                StoreError::Unsupported { what: self.object.clone(), found, supported }
            }
        })
    }

    fn new(root: RootName, error: &StoreError) -> Self {
        let (object, reason) = match error {
            StoreError::Unsupported { what, found, supported } => {
                (what.clone(), UnreadableReason::Newer { found: *found, supported: *supported })
            }
            _ => (object_of(&root), UnreadableReason::Damaged),
        };
        Self { root, object, reason, detail: error.to_string() }
    }
}

/// Payloads of roots by the names of their objects, as far as the cache knows them after a look at what is
/// there.
pub(crate) fn known_roots(context: &Context) -> Result<BTreeMap<String, Vec<u8>>> {
    if context.cache_folder.is_none() {
        return Ok(BTreeMap::new());
    }
    let has_snapshots = !Catalogue::load(context)?.snapshots.is_empty();
    let entries = cache::read(context, has_snapshots).entries;
    let roots = entries
        .into_iter()
        .filter_map(|(object, cached)| object.strip_prefix("snapshots/").map(|name| (name.to_owned(), cached.payload)));
    Ok(roots.collect())
}

/// SHA-256 of a root's payload, in hexadecimal: what people write down to recognise a snapshot.
pub fn payload_digest(payload: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, payload))
}

/// Memory for the snapshots of one key that is no owner's, in bytes: what it stores beyond is named and not
/// kept, which costs that key alone.
const BYTES_OF_ONE_KEY_MAX: u64 = 128 << 20;

/// What is kept of each key that is no owner's.
#[derive(Default)]
struct Taken(HashMap<Option<SignerId>, u64>);

impl Taken {
    /// Whether there is room for one more.
    fn takes(&mut self, keys: &Keys, signer: Option<SignerId>, snapshot: &Snapshot) -> bool {
        if keys.builds_on(signer) {
            return true;
        }
        let bytes = self.0.entry(signer).or_default();
        *bytes = bytes.saturating_add(snapshot.weight());
        *bytes <= BYTES_OF_ONE_KEY_MAX
    }
}

/// One reading of the catalogue.
struct Gathering<'a> {
    context: &'a Context,
    /// How often the keys were changed, before anything was read.
    changes: u32,
    taken: Taken,
    /// What the cache knew and nobody has asked for yet.
    known: Entries,
    /// What had to be read.
    added: Entries,
    /// Roots whose label could not be read this time.
    unsure: Vec<RootName>,
}

fn gather(context: &Context, roots: &[RootName], remember: bool) -> Result<Catalogue> {
    let labels: BTreeMap<SnapshotId, u64> = context.repository.labels()?.into_iter().collect();
    // Who may not open roots gets none from what another key's holder left in the cache.
    let remember = remember && context.repository.keys().role().may(Action::OpenManifests);
    let asked = Asked {
        keys: Some(context.repository.keys().clone()),
        now: Some(context.clock.now()),
        monitor: Some(Arc::clone(&context.monitor)),
    };
    let mut catalogue = Catalogue { asked, ..Catalogue::default() };
    let memory = context.memory.as_ref().filter(|_| remember);
    let recalled = memory.and_then(|memory| memory.recall(context.repository.keys(), roots, &labels));
    let (state, missing) = match recalled {
        Some((snapshots, missing)) => {
            catalogue.snapshots = snapshots;
            (None, missing)
        }
        None => {
            let cached = if remember { cache::read(context, !roots.is_empty()) } else { CacheRead::none() };
            (Some(cached), roots.to_vec())
        }
    };
    let (state, known) = state.map_or((CacheState::Unusable, Entries::new()), |cached| (cached.state, cached.entries));
    let changes = changes_of(context.repository.keys());
    let mut taken = Taken::default();
    for listed in &catalogue.snapshots {
        taken.takes(context.repository.keys(), listed.signer, &listed.snapshot);
    }
    let mut gathering = Gathering { context, changes, taken, known, added: Entries::new(), unsure: Vec::new() };
    for root in &missing {
        context.check_interrupt()?;
        match gathering.listed(root, &labels) {
            Ok(None) => {}
            Ok(Some(listed)) => catalogue.snapshots.push(listed),
            Err(Error::Store(error)) if hides_no_other(&context.repository, &error) => {
                catalogue.unreadable.push(Unreadable::new(*root, &error));
            }
            Err(error) => return Err(error),
        }
    }
    catalogue.set_impostors_apart(context.repository.keys());
    catalogue.snapshots.sort_by_key(|listed| (listed.snapshot.created, listed.snapshot.id));
    catalogue.unreadable.sort_by_key(|unreadable| unreadable.root.snapshot);
    let Gathering { added, known, unsure, .. } = gathering;
    cache::keep(context, state, &added, &gone::keep_what_is_to_be_told(known));
    if let Some(memory) = memory {
        memory.learn(changes, &catalogue.snapshots, &labels, &unsure);
    }
    Ok(catalogue)
}

impl Gathering<'_> {
    fn keys(&self) -> &Keys {
        self.context.repository.keys()
    }

    /// `None`: it was deleted since it was listed.
    fn listed(&mut self, root: &RootName, labels: &BTreeMap<SnapshotId, u64>) -> Result<Option<Listed>> {
        let object = object_of(root);
        let known = self.known.remove(&object).filter(|known| is_settled(self.keys(), known.signer, known.seen));
        let (known, read) = match known {
            Some(cached) => (cached, None),
            None => {
                let Some(read) = read_root(&self.context.repository, root)? else { return Ok(None) };
                let SignedPayload { payload, signer } = read;
                let digest = payload_digest(&payload);
                (Cached { digest, payload, signer, seen: self.changes }, Some(object.clone()))
            }
        };
        let mut snapshot = open_root(&object, root, &known.payload)?;
        let (digest, signer) = (known.digest.clone(), known.signer);
        let full = Snapshot::full_name(&snapshot.app, &snapshot.name);
        if self.context.repository.keys().name_tag(full.as_bytes()) != root.tag {
            return Err(StoreError::damaged(object, "its snapshot has another name than it").into());
        }
        if !self.taken.takes(self.context.repository.keys(), signer, &snapshot) {
            let detail = "the snapshots of the key that signed it take more memory than those of one key may";
            return Err(StoreError::damaged(object, detail).into());
        }
        if let Some(object) = read {
            self.added.insert(object, known);
        }
        if let Some(&seq) = labels.get(&root.snapshot) {
            let sure = self.apply_label(&mut snapshot, seq)?;
            if !sure {
                self.unsure.push(*root);
            }
        }
        Ok(Some(Listed { root: *root, digest, signer, snapshot: Arc::new(snapshot) }))
    }

    /// A label that cannot be read may have been a pin: the snapshot counts as pinned until somebody says
    /// otherwise. Whether it was read.
    fn apply_label(&mut self, snapshot: &mut Snapshot, seq: u64) -> Result<bool> {
        match self.label(snapshot.id, seq) {
            Ok(None) => {}
            Ok(Some(label)) => {
                snapshot.tags = label.tags;
                snapshot.pinned = label.pinned;
            }
            Err(error) if hides_no_other(&self.context.repository, &error) => {
                let object = format!("the label of the snapshot {} before", snapshot.name);
                if let Some(payload) = self.context.repository.read_label_below(snapshot.id, seq)?
                    && let Ok(label) = Label::decode(&object, &payload)
                {
                    snapshot.tags = label.tags;
                }
                snapshot.pinned = true;
                self.context.monitor.notice(&format!(
                    "the label of the snapshot {} cannot be read ({error}); until it is set again the snapshot counts as pinned",
                    snapshot.name
                ));
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// `None`: all labels went since they were listed.
    fn label(&mut self, snapshot: SnapshotId, seq: u64) -> copal_store::Result<Option<Label>> {
        let object = format!("labels/{snapshot}-{seq:016x}");
        if let Some(cached) = self.known.remove(&object) {
            return Label::decode(&object, &cached.payload).map(Some);
        }
        let repository = &self.context.repository;
        match repository.read_label_at(snapshot, seq) {
            // A newer one has replaced it.
            Err(StoreError::Missing { .. }) => {
                repository.read_label(snapshot)?.map(|payload| Label::decode(&object, &payload)).transpose()
            }
            Err(error) => Err(error),
            Ok(payload) => {
                let label = Label::decode(&object, &payload)?;
                self.added.insert(object, Cached { digest: payload_digest(&payload), payload, signer: None, seen: 0 });
                Ok(Some(label))
            }
        }
    }
}

/// How often the keys of the repository were changed, as far as is known here.
fn changes_of(keys: &Keys) -> u32 {
    keys.anchor().map_or(0, |anchor| anchor.sequence)
}

/// Whether what was read of a root holds still. Its content does for ever; but a root whose signer counts no
/// more may have been signed again when that was changed.
fn is_settled(keys: &Keys, signer: Option<SignerId>, seen: u32) -> bool {
    seen == changes_of(keys) || keys.standing(signer).may_create()
}

/// `None`: it was deleted since it was listed.
fn read_root(repository: &Repository, root: &RootName) -> Result<Option<SignedPayload>> {
    match repository.read_signed_root(root) {
        Err(StoreError::Missing { .. }) if !repository.roots()?.contains(root) => Ok(None),
        read => Ok(Some(read?)),
    }
}

fn open_root(object: &str, root: &RootName, payload: &[u8]) -> Result<Snapshot> {
    let snapshot = Snapshot::decode(object, payload)?;
    if snapshot.id != root.snapshot {
        return Err(StoreError::damaged(object, "it describes another snapshot").into());
    }
    Ok(snapshot)
}

/// Whether others may still be sound. A disk that cannot read one file's blocks says EIO.
fn hides_no_other(repository: &Repository, error: &StoreError) -> bool {
    match error {
        error if error.is_denied() => true,
        StoreError::Io { source, .. } => source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()),
        // Of a key that may open none, each would say so.
        StoreError::NotPermitted { .. } => repository.keys().role().may(Action::OpenManifests),
        error => error.concerns_one_object(),
    }
}

fn object_of(root: &RootName) -> String {
    format!("snapshots/{}", root.object_name())
}
