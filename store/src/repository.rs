//! A repository, made or opened: its configuration, its key slots, its roots and their labels.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::backend::{Backend, ObjectKind, ObjectName, publish_bytes};
use crate::config::{CONFIG_BYTES_MAX, CipherSuite, Config, Parameters, config_names};
use crate::entropy::Entropy;
use crate::envelope::Envelope;
use crate::grants::KeyObject;
use crate::ids::{ObjectId, RepositoryId, SnapshotId};
use crate::key_slots::first_body;
use crate::keys::{Credential, Keys, StretchCost, Unlocked};
use crate::mutants::Mutant;
use crate::roles::{Action, Role};
use crate::roster::{Anchor, Draft};
use crate::sealed::{Content, PAYLOAD_BYTES_MAX, Unsigned, open_object, reseal_object, seal_object, unseal_object};
use crate::signing::SignerId;
use crate::slots::{Holds, NewSlot, OpenSlot, SLOT_BYTES_MAX, SLOTS_MAX, is_slot, open_slot};
use crate::trust::{Door, Trust};
use crate::{Error, Result};

/// How `init` makes a repository.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Fixed parameters.
    pub parameters: Parameters,
    /// The cipher; [`crate::keys::faster_suite`] measures which one this machine does faster.
    pub suite: CipherSuite,
    /// Cost of the first password slot.
    pub stretch: StretchCost,
    /// Label of the first slot.
    pub slot_label: String,
    /// Now, in seconds since 1970-01-01 UTC.
    pub created_seconds: i64,
}

/// An open repository: cheap to clone, shared by threads.
#[derive(Clone, Debug)]
pub struct Repository {
    backend: Arc<dyn Backend>,
    entropy: Arc<dyn Entropy>,
    config: Config,
    keys: Keys,
    unlocked: Unlocked,
    #[cfg(feature = "mutants")]
    mutant: Option<Mutant>,
}

impl Repository {
    /// Makes a repository; refuses a place that is not empty. The configuration comes last: without it there is none. Its copy
    /// follows it: repair makes the one that is missing.
    pub fn init(
        backend: Arc<dyn Backend>,
        entropy: Arc<dyn Entropy>,
        credential: &Credential,
        options: &InitOptions,
    ) -> Result<Self> {
        options.parameters.validate()?;
        backend.prepare()?;
        let mut master = Zeroizing::new([0; 32]);
        let mut repository = [0; 16];
        entropy.fill(&mut *master)?;
        entropy.fill(&mut repository)?;
        let id = RepositoryId(repository);
        let ring = |slot| {
            let door = Door { backend: Arc::clone(&backend), entropy: Arc::clone(&entropy), slot, seen: None };
            Keys::of_master(&master, options.suite, Trust::behind(id, door))
        };
        let new = NewSlot::draw(&*entropy, credential, &options.slot_label, options.stretch)?;
        let (name, signer) = (KeyObject::Slot(new.id).name(), new.signer.clone());
        let draft = Draft::after(None, first_body(&new, &options.slot_label, options.created_seconds), id)?;
        let bytes = new.seal(&ring(None), Role::Full, draft.anchor())?;
        let opened = open_slot(&name, &bytes, credential)?
            .ok_or_else(|| Error::KeySlot { detail: "what was sealed does not open again".into() })?;
        let config = Config { repository: id, suite: options.suite, parameters: options.parameters.clone() };
        let keys = ring(opened.keys.clone());
        publish_bytes(&*backend, &name, &bytes)?;
        let made = Self::of(Arc::clone(&backend), Arc::clone(&entropy), config, keys, opened.unlocked);
        made.publish_roster(draft, &signer)?;
        // Once: both copies have the same key and nonce.
        let sealed = made.config.seal(&made.keys)?;
        for name in config_names() {
            publish_bytes(&*backend, &name, &sealed)?;
        }
        Ok(made)
    }

    /// Opens a repository with a password or key.
    pub fn open(backend: Arc<dyn Backend>, entropy: Arc<dyn Entropy>, credential: &Credential) -> Result<Self> {
        Self::open_seen(backend, entropy, credential, None)
    }

    /// The same where a place in the chain of its rosters has been seen before: keys that do not continue it are refused, by
    /// [`Error::KeysWentBack`].
    pub fn open_seen(
        backend: Arc<dyn Backend>,
        entropy: Arc<dyn Entropy>,
        credential: &Credential,
        seen: Option<Anchor>,
    ) -> Result<Self> {
        let configs = read_configs(&*backend)?;
        let listed = backend.list(ObjectKind::KeySlot)?;
        let slots = listed.into_iter().map(|object| object.name);
        let slots = slots.filter(|name| matches!(KeyObject::parse(name), None | Some(KeyObject::Slot(_))));
        let mut unusable = None;
        // Only what looks like a slot, and costs a stretching, counts among so many: what stands beside them locks nobody out.
        let is_stretched = matches!(credential, Credential::Password(_));
        let (mut tried, mut stretched) = (0, 0);
        for name in slots {
            if stretched == SLOTS_MAX {
                break;
            }
            let opened = backend.read(&name, SLOT_BYTES_MAX).and_then(|bytes| {
                let counts = is_slot(&name, &bytes);
                tried += usize::from(counts);
                stretched += usize::from(counts && is_stretched);
                open_slot(&name, &bytes, credential)
            });
            let outcome = match opened {
                Ok(None) => continue,
                Ok(Some(opened)) => Self::open_with(&backend, &entropy, &configs, &opened, seen),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(repository) => return Ok(repository),
                // Another slot may still open: one that is damaged, newer or no longer in the roster locks nobody out.
                Err(error) => unusable = Some(error),
            }
        }
        match unusable {
            Some(error) => Err(error),
            None if tried == 0 => Err(Error::Missing { object: "every key slot".into() }),
            None => Err(Error::WrongKey),
        }
    }

    fn open_with(
        backend: &Arc<dyn Backend>,
        entropy: &Arc<dyn Entropy>,
        configs: &[(CipherSuite, Vec<u8>)],
        opened: &OpenSlot,
        seen: Option<Anchor>,
    ) -> Result<Self> {
        let ring = |suite, repository| {
            let slot = opened.keys.clone();
            let door = Door { backend: Arc::clone(backend), entropy: Arc::clone(entropy), slot, seen };
            let trust = Trust::behind(repository, door);
            match &opened.holds {
                Holds::Master(master) => Keys::of_master(master, suite, trust),
                Holds::Narrow(role, secrets) => Keys::of_role(*role, secrets, suite, trust),
            }
        };
        let (keys, config) = open_config(ring, configs)?;
        let is_anchored = opened.keys.as_ref().is_some_and(|slot| slot.anchor.is_some());
        if !is_anchored && keys.has_roster(&**backend)? {
            let detail = "this slot was made before the repository had a signed list of its keys, and is not in it";
            return Err(Error::KeySlot { detail: detail.into() });
        }
        keys.learn()?;
        if seen.is_some() && !keys.is_signed() {
            return Err(Error::KeysWentBack);
        }
        Ok(Self::of(Arc::clone(backend), Arc::clone(entropy), config, keys, opened.unlocked.clone()))
    }

    fn of(
        backend: Arc<dyn Backend>,
        entropy: Arc<dyn Entropy>,
        config: Config,
        keys: Keys,
        unlocked: Unlocked,
    ) -> Self {
        Self {
            backend,
            entropy,
            config,
            keys,
            unlocked,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// Builds a fault into all that is done through this and its clones.
    #[cfg(feature = "mutants")]
    pub fn mutate(&mut self, mutant: Option<Mutant>) {
        self.mutant = mutant;
    }

    /// Whether this fault is built in.
    #[cfg(feature = "mutants")]
    pub(crate) fn is_mutant(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// No fault is built in.
    #[cfg(not(feature = "mutants"))]
    pub(crate) const fn is_mutant(&self, _mutant: Mutant) -> bool {
        false
    }

    /// What identifies the repository without any key.
    pub fn peek_id(backend: &dyn Backend) -> Result<RepositoryId> {
        let configs = read_configs(backend)?;
        let (_, bytes) = configs.first().ok_or_else(|| Error::NotARepository { place: backend.place() })?;
        Ok(RepositoryId(Envelope::decode("config", ObjectKind::Config, bytes)?.id.0))
    }

    /// The slot that opened it, for opening it again without stretching. As secret as the password.
    #[must_use]
    pub fn unlocked(&self) -> &Unlocked {
        &self.unlocked
    }

    /// Looks for keys that were rotated in since it was opened; a service does it before each operation.
    pub fn refresh_keys(&self) -> Result<()> {
        self.keys.learn()
    }

    /// The same objects, read through another door.
    pub(crate) fn with_backend(&self, backend: Arc<dyn Backend>) -> Self {
        Self { backend, ..self.clone() }
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
    /// Its storage.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }
    /// Its source of randomness.
    #[must_use]
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.entropy
    }

    /// Names of all snapshot roots, as listed now. Foreign names are passed over.
    pub fn roots(&self) -> Result<Vec<RootName>> {
        let listed = self.backend.names(ObjectKind::Root)?;
        let mut roots: Vec<RootName> = Vec::with_capacity(listed.len());
        let mut resealed = false;
        for name in &listed {
            let Ok((root, epoch)) = RootName::parse_sealed(name.name()) else { continue };
            resealed |= epoch.is_some();
            roots.push(root);
        }
        if resealed {
            // One that is being sealed again stands there twice.
            let mut seen = BTreeSet::new();
            roots.retain(|root| seen.insert(*root));
        }
        Ok(roots)
    }

    /// Opens one root's payload (the manifest crate knows what it means).
    pub fn read_root(&self, root: &RootName) -> Result<Vec<u8>> {
        self.read_signed_root(root).map(|content| content.payload)
    }

    /// The same, with the key that signed it: `None` where nobody did.
    pub fn read_signed_root(&self, root: &RootName) -> Result<SignedPayload> {
        self.keys.role().require(Action::OpenManifests)?;
        let (mut missing, mut problem) = (None, None);
        let mut names = self.root_objects(root)?;
        // It may move there and back meanwhile.
        names.extend(names.first().cloned());
        for name in names {
            let read = self.backend.read(&name, PAYLOAD_BYTES_MAX);
            match read.and_then(|bytes| open_object(&self.keys, &name, bytes)) {
                Ok(Content { payload, signer }) => return Ok(SignedPayload { payload, signer }),
                Err(error @ Error::Missing { .. }) => missing = missing.or(Some(error)),
                // What an interrupted run sealed again stands there twice.
                Err(error) if error.concerns_one_object() => problem = problem.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(problem.or(missing).unwrap_or(Error::Missing { object: root.object_name() }))
    }

    /// Where a root may stand: under its own name; or, while it is sealed again and where an older program did that, under that of an
    /// epoch.
    fn root_objects(&self, root: &RootName) -> Result<Vec<ObjectName>> {
        let mut names = vec![root.object()?];
        for epoch in self.keys.epoch_numbers()? {
            names.push(root.object_of(epoch)?);
        }
        Ok(names)
    }

    /// Publishes a root; only the commit chain calls it.
    pub(crate) fn write_root(&self, root: &RootName, payload: &[u8]) -> Result<u64> {
        let name = root.object()?;
        let bytes = seal_object(&self.keys, &name, self.new_object_id()?, payload)?;
        publish_bytes(&*self.backend, &name, &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Seals a root again under the newest keys; `false` when it is already. Who signed it signed its content: that stays. It goes to a
    /// name of the epoch, and back to its own: so nobody can put another beside it that would be read in its stead. What stands
    /// under such a name beside its own is left over, or planted, and goes.
    pub(crate) fn reseal_root(&self, root: &RootName, unsigned: Unsigned) -> Result<bool> {
        let current = self.keys.epoch();
        let own = root.object()?;
        for name in self.root_objects(root)? {
            let bytes = match self.backend.read(&name, PAYLOAD_BYTES_MAX) {
                Err(Error::Missing { .. }) => continue,
                read => read?,
            };
            let is_current = Envelope::decode(&name.to_string(), ObjectKind::Root, &bytes)?.epoch == current;
            if !(is_current && name == own) {
                let content = unseal_object(&self.keys, &name, bytes)?;
                let sealed = |name: &ObjectName| {
                    reseal_object(&self.keys, name, self.new_object_id()?, content.clone(), unsigned)
                };
                let way = root.object_of(current)?;
                if name != way {
                    self.backend.delete(std::slice::from_ref(&way))?;
                    publish_bytes(&*self.backend, &way, &sealed(&way)?)?;
                }
                // What was put there since it was found missing is another's.
                self.backend.delete(std::slice::from_ref(&own))?;
                publish_bytes(&*self.backend, &own, &sealed(&own)?)?;
            }
            let others: Vec<ObjectName> =
                self.standing_objects(&[*root])?.into_iter().filter(|name| *name != own).collect();
            if !others.is_empty() {
                self.backend.delete(&others)?;
            }
            return Ok(!(is_current && name == own));
        }
        // Deleted since it was listed.
        Ok(false)
    }

    /// Every object that stands under a name of some roots.
    fn standing_objects(&self, roots: &[RootName]) -> Result<Vec<ObjectName>> {
        let mut names = self.backend.names(ObjectKind::Root)?;
        names.retain(|name| RootName::parse(name.name()).is_ok_and(|root| roots.contains(&root)));
        // Its own name is the shortest, and goes last: what stands beside it would be read in its stead.
        names.sort_unstable_by_key(|name| (std::cmp::Reverse(name.name().len()), name.clone()));
        Ok(names)
    }

    /// Seals a label again under the newest keys; `false` when it is already, or was replaced meanwhile. One that no maintainer signed
    /// stays what it is.
    pub(crate) fn reseal_label(&self, snapshot: SnapshotId, seq: u64) -> Result<bool> {
        let name = label_name(snapshot, seq)?;
        let bytes = match self.backend.read(&name, PAYLOAD_BYTES_MAX) {
            Err(Error::Missing { .. }) => return Ok(false),
            read => read?,
        };
        if Envelope::decode(&name.to_string(), ObjectKind::Label, &bytes)?.epoch == self.keys.epoch() {
            return Ok(false);
        }
        let payload = self.open_label(&name, bytes)?;
        match self.replace_label(snapshot, Some(seq), &payload) {
            Err(Error::Busy { .. }) => Ok(false),
            replaced => replaced.map(|()| true),
        }
    }

    /// Signs labels again whose signer the caller names, with the key in use. Older ones below one that counts, which an interrupted change
    /// has left, go.
    pub(crate) fn resign_labels(&self, whose: &dyn Fn(Option<SignerId>) -> bool) -> Result<u64> {
        let mut signed = 0;
        let all = self.label_objects()?;
        for (snapshot, seq) in self.labels()? {
            let name = label_name(snapshot, seq)?;
            let opened = match self.backend.read(&name, PAYLOAD_BYTES_MAX) {
                Ok(bytes) => open_object(&self.keys, &name, bytes),
                Err(error) => Err(error),
            };
            match opened {
                Ok(content) if whose(content.signer) => match self.replace_label(snapshot, Some(seq), &content.payload)
                {
                    Err(Error::Busy { .. }) => {}
                    replaced => {
                        replaced?;
                        signed += 1;
                    }
                },
                Ok(_) if self.check_label(&name).is_ok() => {
                    let below = all.iter().filter(|(of, other, _)| *of == snapshot && *other < seq);
                    let below: Vec<ObjectName> = below.map(|(_, _, name)| name.clone()).collect();
                    if !below.is_empty() {
                        self.backend.delete(&below)?;
                    }
                }
                Ok(_) => {}
                Err(error) if error.concerns_one_object() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(signed)
    }

    /// Removes roots, then their labels: durable when it returns. Their chunks stay until collection.
    pub fn delete_roots(&self, roots: &[RootName]) -> Result<()> {
        self.keys.role().require(Action::Maintain)?;
        self.withdraw_roots(roots)
    }

    /// The same for a root that its own session takes back.
    pub(crate) fn withdraw_roots(&self, roots: &[RootName]) -> Result<()> {
        self.backend.delete(&self.standing_objects(roots)?)?;
        // One that bears the id of another snapshot does not take that one's labels with it.
        let standing: BTreeSet<SnapshotId> = self.roots()?.into_iter().map(|root| root.snapshot).collect();
        let labels: Vec<ObjectName> = self
            .label_objects()?
            .into_iter()
            .filter(|(snapshot, ..)| {
                roots.iter().any(|root| root.snapshot == *snapshot) && !standing.contains(snapshot)
            })
            .map(|(_, _, name)| name)
            .collect();
        if labels.is_empty() { Ok(()) } else { self.backend.delete(&labels) }
    }

    /// The newest label payload of a snapshot.
    pub fn read_label(&self, snapshot: SnapshotId) -> Result<Option<Vec<u8>>> {
        let mut missed = None;
        loop {
            let Some(seq) = self.label_seqs(snapshot)?.into_iter().max() else { return Ok(None) };
            match self.read_label_at(snapshot, seq) {
                // Replaced since it was listed. One that is listed again and still not there is gone for good.
                Err(Error::Missing { .. }) if missed != Some(seq) => missed = Some(seq),
                read => return read.map(Some),
            }
        }
    }

    /// A label payload by its sequence number; [`Error::Missing`] when a newer one has replaced it.
    pub fn read_label_at(&self, snapshot: SnapshotId, seq: u64) -> Result<Vec<u8>> {
        let name = label_name(snapshot, seq)?;
        self.open_label(&name, self.backend.read(&name, PAYLOAD_BYTES_MAX)?)
    }

    /// A label decides what retention removes: it counts only when a key that may label has signed it.
    fn open_label(&self, name: &ObjectName, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let content = open_object(&self.keys, name, bytes)?;
        if self.keys.is_signed() && !self.keys.vouches(content.signer, Action::Maintain) {
            return Err(Error::damaged(name, "no key that may label has signed it"));
        }
        Ok(content.payload)
    }

    /// Checks a label as its readers do.
    pub(crate) fn check_label(&self, name: &ObjectName) -> Result<()> {
        self.open_label(name, self.backend.read(name, PAYLOAD_BYTES_MAX)?).map(drop)
    }

    /// The newest label payload before a sequence number that counts: what held before somebody put one above it that does not.
    pub fn read_label_below(&self, snapshot: SnapshotId, seq: u64) -> Result<Option<Vec<u8>>> {
        let mut below: Vec<u64> = self.label_seqs(snapshot)?.into_iter().filter(|other| *other < seq).collect();
        below.sort_unstable();
        for seq in below.into_iter().rev() {
            match self.read_label_at(snapshot, seq) {
                Err(error) if error.concerns_one_object() => {}
                read => return read.map(Some),
            }
        }
        Ok(None)
    }

    /// Every snapshot that has a label, with the sequence number of the newest. One listing.
    pub fn labels(&self) -> Result<Vec<(SnapshotId, u64)>> {
        let mut newest: BTreeMap<SnapshotId, u64> = BTreeMap::new();
        for (snapshot, seq, _) in self.label_objects()? {
            let entry = newest.entry(snapshot).or_insert(seq);
            *entry = (*entry).max(seq);
        }
        Ok(newest.into_iter().collect())
    }

    /// Replaces a snapshot's label: the new one is durable before the old ones go.
    pub fn write_label(&self, snapshot: SnapshotId, payload: &[u8]) -> Result<()> {
        let newest = self.label_seqs(snapshot)?.into_iter().max();
        self.replace_label(snapshot, newest, payload)
    }

    /// Replaces the label whose sequence number the caller has seen (`None`: there was none), so that two who change labels
    /// at once never undo each other. [`Error::Busy`] when another one was written meanwhile: read it and try again.
    pub fn replace_label(&self, snapshot: SnapshotId, seen: Option<u64>, payload: &[u8]) -> Result<()> {
        self.keys.role().require(Action::Maintain)?;
        let busy = || Error::Busy { what: format!("the label of the snapshot {snapshot}") };
        let mut old = self.label_seqs(snapshot)?;
        if old.iter().copied().max() != seen {
            return Err(busy());
        }
        if seen == Some(u64::MAX) && self.is_no_label(snapshot, u64::MAX)? {
            // Nothing can be above it, and it counts for nothing.
            self.backend.delete(&[label_name(snapshot, u64::MAX)?])?;
            old.retain(|seq| *seq != u64::MAX);
        }
        let seq = old.iter().max().map_or(Some(1), |seq| seq.checked_add(1));
        let seq = seq.ok_or_else(|| Error::Limit { what: "the sequence of labels".into(), limit: u64::MAX })?;
        let name = label_name(snapshot, seq)?;
        let sealed = seal_object(&self.keys, &name, self.new_object_id()?, payload)?;
        match publish_bytes(&*self.backend, &name, &sealed) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => return Err(busy()),
            published => published?,
        }
        // A slow writer may publish a number that was used and removed before: then a higher one stands.
        if self.label_seqs(snapshot)?.into_iter().any(|other| other > seq) {
            self.backend.delete(&[name])?;
            return Err(busy());
        }
        let old = old.into_iter().map(|seq| label_name(snapshot, seq)).collect::<Result<Vec<_>>>()?;
        if old.is_empty() { Ok(()) } else { self.backend.delete(&old) }
    }

    /// Whether a label says nothing: it does not open, or no key that may label has signed it.
    fn is_no_label(&self, snapshot: SnapshotId, seq: u64) -> Result<bool> {
        match self.read_label_at(snapshot, seq) {
            Ok(_) | Err(Error::Missing { .. } | Error::Unsupported { .. }) => Ok(false),
            Err(error) if error.is_integrity() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes the labels of a snapshot that is gone.
    pub fn delete_labels(&self, snapshot: SnapshotId) -> Result<()> {
        let seqs = self.label_seqs(snapshot)?;
        self.backend.delete(&seqs.into_iter().map(|seq| label_name(snapshot, seq)).collect::<Result<Vec<_>>>()?)
    }

    /// Removes labels that a deletion interrupted between root and labels has left; returns how many.
    pub fn delete_orphaned_labels(&self) -> Result<u64> {
        // A label is written when its root stands: a root that is listed after it and is not there is gone.
        let labels = self.label_objects()?;
        let roots: BTreeSet<SnapshotId> = self.roots()?.into_iter().map(|root| root.snapshot).collect();
        let orphaned: Vec<ObjectName> =
            labels.into_iter().filter(|(of, ..)| !roots.contains(of)).map(|(_, _, name)| name).collect();
        if !orphaned.is_empty() {
            self.backend.delete(&orphaned)?;
        }
        Ok(orphaned.len() as u64)
    }

    fn label_seqs(&self, snapshot: SnapshotId) -> Result<Vec<u64>> {
        let all = self.label_objects()?;
        Ok(all.into_iter().filter(|(of, ..)| *of == snapshot).map(|(_, seq, _)| seq).collect())
    }

    fn label_objects(&self) -> Result<Vec<(SnapshotId, u64, ObjectName)>> {
        let listed = self.backend.names(ObjectKind::Label)?;
        let parse = |name: ObjectName| {
            let (snapshot, seq) = name.name().split_once('-')?;
            let seq = u64::from_str_radix(seq, 16).ok().filter(|_| seq.len() == 16)?;
            Some((SnapshotId::from_hex(snapshot)?, seq, name))
        };
        Ok(listed.into_iter().filter_map(parse).collect())
    }

    /// A fresh random id.
    pub(crate) fn new_object_id(&self) -> Result<ObjectId> {
        let mut id = [0; 16];
        self.entropy.fill(&mut id)?;
        Ok(ObjectId(id))
    }
}

/// The configuration and its copy, those that are sound as far as can be told without a key.
fn read_configs(backend: &dyn Backend) -> Result<Vec<(CipherSuite, Vec<u8>)>> {
    let mut readable = Vec::new();
    let (mut missing, mut newer) = (0, 0);
    let mut problem = None;
    for name in config_names() {
        let bytes = backend.read(&name, CONFIG_BYTES_MAX);
        match bytes.map(|bytes| (Config::peek(&bytes).map(|envelope| envelope.suite), bytes)) {
            Ok((Ok(suite), bytes)) => readable.push((suite, bytes)),
            Ok((Err(error @ Error::Unsupported { .. }), bytes)) => {
                // A feature that nobody here knows, or a flipped bit in the name of one: the key tells.
                if let Ok(envelope) = Envelope::decode("config", ObjectKind::Config, &bytes) {
                    readable.push((envelope.suite, bytes));
                    newer += 1;
                }
                problem = Some(error);
            }
            Err(Error::Missing { .. }) => missing += 1,
            Ok((Err(error), _)) | Err(error) if error.is_integrity() => problem = problem.or(Some(error)),
            Ok((Err(error), _)) | Err(error) => return Err(error),
        }
    }
    match problem {
        Some(error) if readable.len() == newer => Err(error),
        _ if missing == config_names().len() => Err(Error::NotARepository { place: backend.place() }),
        _ => Ok(readable),
    }
}

fn open_config(
    ring: impl Fn(CipherSuite, RepositoryId) -> Keys,
    configs: &[(CipherSuite, Vec<u8>)],
) -> Result<(Keys, Config)> {
    let mut damage = None;
    for (suite, bytes) in configs {
        let id = Envelope::decode("config", ObjectKind::Config, bytes)?.id;
        let keys = ring(*suite, RepositoryId(id.0));
        match Config::open(&keys, bytes) {
            Ok(config) => return Ok((keys, config)),
            Err(error) if error.is_integrity() => damage = damage.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(damage.unwrap_or_else(|| Error::Missing { object: "config".into() }))
}

fn label_name(snapshot: SnapshotId, seq: u64) -> Result<ObjectName> {
    ObjectName::new(ObjectKind::Label, format!("{snapshot}-{seq:016x}"))
        .ok_or_else(|| Error::damaged("a label", "its name is none"))
}

/// A payload, and the key that signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedPayload {
    /// What the object holds.
    pub payload: Vec<u8>,
    /// `None`: nobody signed it.
    pub signer: Option<SignerId>,
}

/// Name of a root object: `<tag of the snapshot's full name>-<snapshot id>`, both in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootName {
    /// [`Keys::name_tag`] of the full name: equal tags are equal names.
    pub tag: [u8; 16],
    /// The snapshot.
    pub snapshot: SnapshotId,
}

impl RootName {
    /// The object's name without its folder.
    #[must_use]
    pub fn object_name(&self) -> String {
        format!("{}-{}", hex::encode(self.tag), self.snapshot)
    }

    /// Parses an object's name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::parse_sealed(name).map(|(root, _)| root)
    }

    /// The same, with the epoch in which it was sealed again, if it was: the third part of such a name.
    fn parse_sealed(name: &str) -> Result<(Self, Option<u32>)> {
        let mut parts = name.split('-');
        let (tag, id, epoch, more) = (parts.next(), parts.next(), parts.next(), parts.next());
        let sound = || {
            let tag: [u8; 16] = ObjectId::from_hex(tag?)?.0;
            let root = Self { tag, snapshot: SnapshotId::from_hex(id?)? };
            let epoch = match epoch {
                None => None,
                Some(digits) => Some(u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 8)?),
            };
            more.is_none().then_some((root, epoch))
        };
        sound().ok_or_else(|| Error::damaged(format!("snapshots/{name}"), "not a root's name"))
    }

    pub(crate) fn object(&self) -> Result<ObjectName> {
        self.named(self.object_name())
    }

    fn object_of(&self, epoch: u32) -> Result<ObjectName> {
        self.named(format!("{}-{epoch:08x}", self.object_name()))
    }

    fn named(&self, name: String) -> Result<ObjectName> {
        ObjectName::new(ObjectKind::Root, name).ok_or_else(|| Error::damaged(self.object_name(), "not a root's name"))
    }
}
