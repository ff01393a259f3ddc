//! A repository, made or opened: its configuration, its key slots, its roots and their labels.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::backend::{Backend, ObjectKind, ObjectName, publish_bytes};
use crate::config::{CONFIG_BYTES_MAX, CipherSuite, Config, Parameters, config_names};
use crate::entropy::Entropy;
use crate::envelope::Envelope;
use crate::ids::{ObjectId, RepositoryId, SnapshotId};
use crate::keys::{Credential, KeySlotInfo, Keys, StretchCost};
use crate::sealed::{PAYLOAD_BYTES_MAX, open_object, seal_object};
use crate::slots::{SLOT_BYTES_MAX, SLOTS_MAX, open_slot, seal_slot, slot_info};
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
    current_slot: ObjectId,
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
        let keys = Keys::derive(&master, options.suite);
        let config = Config {
            repository: RepositoryId(repository),
            suite: options.suite,
            parameters: options.parameters.clone(),
        };
        let (slot, bytes) =
            seal_slot(&keys, &*entropy, credential, &options.slot_label, options.stretch, options.created_seconds)?;
        publish_bytes(&*backend, &slot_name(slot), &bytes)?;
        for name in config_names() {
            publish_bytes(&*backend, &name, &config.seal(&keys)?)?;
        }
        Ok(Self { backend, entropy, config, keys, current_slot: slot })
    }

    /// Opens a repository with a password or key.
    pub fn open(backend: Arc<dyn Backend>, entropy: Arc<dyn Entropy>, credential: &Credential) -> Result<Self> {
        let configs = read_configs(&*backend)?;
        let slots = backend.list(ObjectKind::KeySlot)?;
        let mut unusable = None;
        for slot in slots.iter().take(SLOTS_MAX) {
            let opened =
                backend.read(&slot.name, SLOT_BYTES_MAX).and_then(|bytes| open_slot(&slot.name, &bytes, credential));
            match opened {
                Ok(None) => {}
                // Another slot may still open: one that is damaged or newer locks nobody out.
                Err(error) => unusable = Some(error),
                Ok(Some(master)) => {
                    let (keys, config) = open_config(&master, &configs)?;
                    let current_slot = ObjectId::from_hex(slot.name.name())
                        .ok_or_else(|| Error::damaged(&slot.name, "its name is no id"))?;
                    return Ok(Self { backend, entropy, config, keys, current_slot });
                }
            }
        }
        match unusable {
            Some(error) => Err(error),
            None if slots.is_empty() => Err(Error::Missing { object: "every key slot".into() }),
            None => Err(Error::WrongKey),
        }
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

    /// The key slots, by time of making.
    pub fn key_slots(&self) -> Result<Vec<KeySlotInfo>> {
        let mut slots = Vec::new();
        for slot in self.backend.list(ObjectKind::KeySlot)? {
            let bytes = self.backend.read(&slot.name, SLOT_BYTES_MAX)?;
            slots.push(slot_info(&self.keys, &slot.name, &bytes, Some(self.current_slot))?);
        }
        slots.sort_by_key(|slot| (slot.created_seconds, slot.id));
        Ok(slots)
    }

    /// Adds a slot.
    pub fn add_key_slot(
        &self,
        credential: &Credential,
        label: &str,
        stretch: StretchCost,
        created_seconds: i64,
    ) -> Result<ObjectId> {
        if self.backend.list(ObjectKind::KeySlot)?.len() >= SLOTS_MAX {
            return Err(Error::Limit { what: "the number of key slots".into(), limit: SLOTS_MAX as u64 });
        }
        let (id, bytes) = seal_slot(&self.keys, &*self.entropy, credential, label, stretch, created_seconds)?;
        publish_bytes(&*self.backend, &slot_name(id), &bytes)?;
        Ok(id)
    }

    /// Removes a slot; the last one cannot be removed.
    pub fn remove_key_slot(&self, slot: ObjectId) -> Result<()> {
        let slots = self.backend.list(ObjectKind::KeySlot)?;
        let name = slot_name(slot);
        if !slots.iter().any(|listed| listed.name == name) {
            return Err(Error::KeySlot { detail: format!("there is no slot {slot}") });
        }
        if slots.len() == 1 {
            return Err(Error::KeySlot {
                detail: "it is the last one; without it nobody could open the repository".into(),
            });
        }
        self.backend.delete(&[name])
    }

    /// Names of all snapshot roots, as listed now. Foreign names are passed over.
    pub fn roots(&self) -> Result<Vec<RootName>> {
        let listed = self.backend.list(ObjectKind::Root)?;
        Ok(listed.iter().filter_map(|object| RootName::parse(object.name.name()).ok()).collect())
    }

    /// Opens one root's payload (the manifest crate knows what it means).
    pub fn read_root(&self, root: &RootName) -> Result<Vec<u8>> {
        let name = root.object()?;
        open_object(&self.keys, &name, self.backend.read(&name, PAYLOAD_BYTES_MAX)?)
    }

    /// Publishes a root; only the commit chain calls it.
    pub(crate) fn write_root(&self, root: &RootName, payload: &[u8]) -> Result<u64> {
        let name = root.object()?;
        let bytes = seal_object(&self.keys, &name, self.new_object_id()?, payload)?;
        publish_bytes(&*self.backend, &name, &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Removes roots, then their labels: durable when it returns. Their chunks stay until collection.
    pub fn delete_roots(&self, roots: &[RootName]) -> Result<()> {
        let names = roots.iter().map(RootName::object).collect::<Result<Vec<_>>>()?;
        self.backend.delete(&names)?;
        let labels: Vec<ObjectName> = self
            .label_objects()?
            .into_iter()
            .filter(|(snapshot, ..)| roots.iter().any(|root| root.snapshot == *snapshot))
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
        open_object(&self.keys, &name, self.backend.read(&name, PAYLOAD_BYTES_MAX)?)
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
        let busy = || Error::Busy { what: format!("the label of the snapshot {snapshot}") };
        let old = self.label_seqs(snapshot)?;
        if old.iter().copied().max() != seen {
            return Err(busy());
        }
        let seq = seen.map_or(Some(1), |seq| seq.checked_add(1));
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
        let listed = self.backend.list(ObjectKind::Label)?;
        let parse = |name: ObjectName| {
            let (snapshot, seq) = name.name().split_once('-')?;
            let seq = u64::from_str_radix(seq, 16).ok().filter(|_| seq.len() == 16)?;
            Some((SnapshotId::from_hex(snapshot)?, seq, name))
        };
        Ok(listed.into_iter().filter_map(|object| parse(object.name)).collect())
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

fn open_config(master: &[u8; 32], configs: &[(CipherSuite, Vec<u8>)]) -> Result<(Keys, Config)> {
    let mut damage = None;
    for (suite, bytes) in configs {
        let keys = Keys::derive(master, *suite);
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

fn slot_name(id: ObjectId) -> ObjectName {
    ObjectName::new(ObjectKind::KeySlot, id.to_string()).expect("a hexadecimal id is a name")
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
        let sound = name.split_once('-').and_then(|(tag, id)| {
            let tag: [u8; 16] = ObjectId::from_hex(tag)?.0;
            Some(Self { tag, snapshot: SnapshotId::from_hex(id)? })
        });
        sound.ok_or_else(|| Error::damaged(format!("snapshots/{name}"), "not a root's name"))
    }

    pub(crate) fn object(&self) -> Result<ObjectName> {
        ObjectName::new(ObjectKind::Root, self.object_name())
            .ok_or_else(|| Error::damaged(self.object_name(), "not a root's name"))
    }
}
