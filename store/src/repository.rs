//! A repository, made or opened: its configuration, its key slots, its roots and their labels.

use std::collections::BTreeSet;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::backend::{Backend, ObjectKind, ObjectName, publish_bytes};
use crate::config::{CipherSuite, Config, Parameters, config_names};
use crate::entropy::Entropy;
use crate::envelope::Envelope;
use crate::grants::KeyObject;
use crate::ids::{ObjectId, RepositoryId, SnapshotId};
use crate::key_slots::first_body;
use crate::keys::{Credential, Keys, StretchCost, Unlocked};
use crate::mutants::Mutant;
use crate::roles::{Action, Role};
use crate::roster::{Anchor, Body, Draft};
use crate::sealed::{
    Content, PAYLOAD_BYTES_MAX, Unsealed, Word, open_object, reseal_object, seal_object, unseal_object,
};
use crate::signing::SignerId;
use crate::slots::{Choice, Holds, NewSlot, OpenSlot, SLOT_BYTES_MAX, SlotFile, open_slot};
use crate::stored_config::{Configs, StoredConfig, open_config, read_configs};
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
    /// The object that it was opened with.
    config_object: Arc<[u8]>,
    keys: Keys,
    unlocked: Unlocked,
    #[cfg(feature = "mutants")]
    mutant: Option<Mutant>,
}

impl Repository {
    /// Makes a repository; refuses a place that is not empty. The configuration comes last: without it there
    /// is none. Its copy follows it: repair makes the one that is missing.
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
        let config = Config { repository: id, suite: options.suite, parameters: options.parameters.clone() };
        // Once: both copies have the same key and nonce. The roster signs these very bytes.
        let sealed = config.seal(&ring(None))?;
        let first = first_body(&new, &options.slot_label, options.created_seconds);
        let draft = Draft::after(None, Body { config: sealed.clone(), ..first }, id)?;
        let bytes = new.seal(&ring(None), Role::Full, draft.anchor())?;
        let opened = open_slot(&name, &bytes, credential)?
            .ok_or_else(|| Error::KeySlot { detail: "what was sealed does not open again".into() })?;
        let keys = ring(opened.keys.clone());
        publish_bytes(&*backend, &name, &bytes)?;
        let config = (config, sealed.as_slice());
        let made = Self::of(Arc::clone(&backend), Arc::clone(&entropy), config, keys, opened.unlocked);
        made.publish_roster(draft, &signer, None)?;
        for name in config_names() {
            publish_bytes(&*backend, &name, &sealed)?;
        }
        Ok(made)
    }

    /// Opens a repository with a password or key.
    pub fn open(backend: Arc<dyn Backend>, entropy: Arc<dyn Entropy>, credential: &Credential) -> Result<Self> {
        Self::open_seen(backend, entropy, credential, &Seen::default())
    }

    /// The same where it has been opened before: keys that do not continue the place in the chain of its
    /// rosters that was seen are refused, by [`Error::KeysWentBack`].
    pub fn open_seen(
        backend: Arc<dyn Backend>,
        entropy: Arc<dyn Entropy>,
        credential: &Credential,
        seen: &Seen,
    ) -> Result<Self> {
        let Configs { readable, newer } = read_configs(&*backend)?;
        let opened = Self::open_one(backend, entropy, credential, seen, &readable);
        // What needs a newer program is said of everything, before what else may be the matter.
        if opened.is_err() { newer.map_or(opened, Err) } else { opened }
    }

    fn open_one(
        backend: Arc<dyn Backend>,
        entropy: Arc<dyn Entropy>,
        credential: &Credential,
        seen: &Seen,
        configs: &[StoredConfig],
    ) -> Result<Self> {
        let (choice, mut unusable) = Choice::look(&*backend, credential, &seen.slots)?;
        for SlotFile { name, .. } in &choice.tried {
            let opened = backend.read(name, SLOT_BYTES_MAX).and_then(|bytes| open_slot(name, &bytes, credential));
            let outcome = match opened {
                Ok(None) => continue,
                Ok(Some(opened)) => Self::open_with(&backend, &entropy, configs, &opened, seen.anchor),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(repository) => return Ok(repository),
                // Another slot may still open: one that is damaged, newer or no longer in the roster locks
                // nobody out.
                Err(error) => unusable = Some(error),
            }
        }
        match unusable {
            _ if choice.passed_over > 0 => Err(choice.is_not_all()),
            Some(error) => Err(error),
            None if choice.tried.is_empty() => Err(Error::Missing { object: "every key slot".into() }),
            None => Err(Error::WrongKey),
        }
    }

    fn open_with(
        backend: &Arc<dyn Backend>,
        entropy: &Arc<dyn Entropy>,
        configs: &[StoredConfig],
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
        let (keys, config, object) = open_config(ring, configs)?;
        if seen.is_some() && !keys.is_signed() {
            return Err(Error::KeysWentBack);
        }
        let unlocked = opened.unlocked.clone();
        Ok(Self::of(Arc::clone(backend), Arc::clone(entropy), (config, &object), keys, unlocked))
    }

    fn of(
        backend: Arc<dyn Backend>,
        entropy: Arc<dyn Entropy>,
        (config, config_object): (Config, &[u8]),
        keys: Keys,
        unlocked: Unlocked,
    ) -> Self {
        Self {
            backend,
            entropy,
            config,
            config_object: config_object.into(),
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

    /// What identifies the repository without any key, if nobody has changed it.
    pub fn peek_id(backend: &dyn Backend) -> Result<RepositoryId> {
        Self::peek_ids(backend)?.first().copied().ok_or_else(|| Error::NotARepository { place: backend.place() })
    }

    /// The same of the configuration and of its copy, each once: which of them is true, only a key tells.
    pub fn peek_ids(backend: &dyn Backend) -> Result<Vec<RepositoryId>> {
        let mut ids = Vec::new();
        for StoredConfig { bytes, .. } in read_configs(backend)?.readable {
            let id = RepositoryId(Envelope::decode("config", ObjectKind::Config, &bytes)?.id.0);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// The slot that opened it, for opening it again without stretching. As secret as the password.
    #[must_use]
    pub fn unlocked(&self) -> &Unlocked {
        &self.unlocked
    }

    /// Looks for keys that were rotated in since it was opened; a service does it before each operation.
    pub fn refresh_keys(&self) -> Result<()> {
        self.keys.learn_again()
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
    /// The object that its configuration was read from.
    pub(crate) fn config_object(&self) -> &[u8] {
        &self.config_object
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
        let (mut missing, mut problem, mut of_another) = (None, None, None);
        let mut names = self.root_objects(root)?;
        // It may move there and back meanwhile.
        names.extend(names.first().cloned());
        for name in names {
            let read = self.backend.read(&name, PAYLOAD_BYTES_MAX);
            match read.and_then(|bytes| open_object(&self.keys, &name, bytes)) {
                Ok(Content { payload, signer }) if self.keys.builds_on(signer) => {
                    return Ok(SignedPayload { payload, signer });
                }
                // An owner's may stand beside it: somebody took its name while it was sealed again.
                Ok(Content { payload, signer }) => {
                    of_another = of_another.or(Some(SignedPayload { payload, signer }));
                }
                Err(error @ Error::Missing { .. }) => missing = missing.or(Some(error)),
                // What an interrupted run sealed again stands there twice.
                Err(error) if error.concerns_one_object() => problem = problem.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        let failed = || problem.or(missing).unwrap_or(Error::Missing { object: root.object_name() });
        of_another.ok_or_else(failed)
    }

    /// Roots for which several objects stand: they are being sealed again, or somebody has put another beside
    /// one.
    pub(crate) fn doubled_roots(&self) -> Result<BTreeSet<RootName>> {
        let (mut seen, mut doubled) = (BTreeSet::new(), BTreeSet::new());
        for name in self.backend.names(ObjectKind::Root)? {
            if let Ok(root) = RootName::parse(name.name())
                && !seen.insert(root)
            {
                doubled.insert(root);
            }
        }
        Ok(doubled)
    }

    /// What the objects of a root say that differs from the payload that is read.
    pub(crate) fn payloads_beside(&self, root: &RootName, payload: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut others: Vec<Vec<u8>> = Vec::new();
        for name in self.standing_objects(&[*root])? {
            let read = self.backend.read(&name, PAYLOAD_BYTES_MAX);
            match read.and_then(|bytes| open_object(&self.keys, &name, bytes)) {
                Ok(content) if content.payload == payload || others.contains(&content.payload) => {}
                Ok(content) => others.push(content.payload),
                Err(Error::Missing { .. }) => {}
                Err(error) if error.concerns_one_object() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(others)
    }

    /// Where a root may stand: under its own name; or, while it is sealed again and where an older program
    /// did that, under that of an epoch.
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

    /// Seals a root again under the newest keys; `false` when it is already. Who signed it signed its
    /// content: that stays, unless the caller takes over what this signer has signed. It goes to a name of
    /// the epoch, and back to its own: so nobody can put another beside it that would be read in its stead.
    /// What stands under such a name beside it and says the same is left over, and goes; what says something
    /// else goes only beside what an owner, or the key in use, has signed: otherwise nothing here tells
    /// which one is true, and all of them stay.
    pub(crate) fn reseal_root(&self, root: &RootName, takes_over: &dyn Fn(Option<SignerId>) -> bool) -> Result<bool> {
        let current = self.keys.epoch();
        let own = root.object()?;
        let (mut standing, mut problem) = (Vec::new(), None);
        for name in self.root_objects(root)? {
            let bytes = match self.backend.read(&name, PAYLOAD_BYTES_MAX) {
                Err(Error::Missing { .. }) => continue,
                read => read?,
            };
            match StandingRoot::open(&self.keys, name, bytes) {
                Ok(one) => standing.push(one),
                Err(error) if error.concerns_one_object() => problem = problem.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        let trusted = standing.iter().position(|one| self.keys.builds_on(one.signer));
        // Of several, the first: the one that is read.
        let Some(best) = (!standing.is_empty()).then(|| standing.swap_remove(trusted.unwrap_or(0))) else {
            // Without an error it was deleted since it was listed.
            return problem.map_or(Ok(false), Err);
        };
        let differs = |one: &StandingRoot| one.content != best.content;
        // What a key signed that counts as much as the best one's is nobody's to remove.
        let is_lesser = |one: &StandingRoot| trusted.is_some() && !self.keys.builds_on(one.signer);
        if standing.iter().any(|one| differs(one) && !is_lesser(one)) {
            return Err(Error::damaged(&own, "several objects stand for it, and they differ; none was changed"));
        }
        if let Some(error) = problem.filter(|_| trusted.is_none() && best.name != own) {
            return Err(error);
        }
        let word = if takes_over(best.signer) { Word::IsTakenOver } else { Word::Stays };
        let is_done = best.epoch == current && best.name == own && word == Word::Stays;
        if !is_done {
            let sealed =
                |name: &ObjectName| reseal_object(&self.keys, name, self.new_object_id()?, best.content.clone(), word);
            let way = root.object_of(current)?;
            if best.name != way {
                self.replace_taken(&way, &sealed(&way)?)?;
            }
            self.replace_taken(&own, &sealed(&own)?)?;
        }
        let others: Vec<ObjectName> =
            self.standing_objects(&[*root])?.into_iter().filter(|name| *name != own).collect();
        if !others.is_empty() {
            self.backend.delete(&others)?;
        }
        Ok(!is_done)
    }

    /// Puts an object in the place of what stands at its name. Whoever takes the name in the instant in which
    /// it is free loses it again: nobody but the holder of the lease has a reason to write there.
    fn replace_taken(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        for _ in 1..REPLACE_ATTEMPTS {
            self.backend.delete(std::slice::from_ref(name))?;
            match publish_bytes(&*self.backend, name, bytes) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                published => return published,
            }
        }
        self.backend.delete(std::slice::from_ref(name))?;
        publish_bytes(&*self.backend, name, bytes)
    }

    /// Every object that stands under a name of some roots.
    fn standing_objects(&self, roots: &[RootName]) -> Result<Vec<ObjectName>> {
        let mut names = self.backend.names(ObjectKind::Root)?;
        names.retain(|name| RootName::parse(name.name()).is_ok_and(|root| roots.contains(&root)));
        // Its own name is the shortest, and goes last: what stands beside it would be read in its stead.
        names.sort_unstable_by_key(|name| (std::cmp::Reverse(name.name().len()), name.clone()));
        Ok(names)
    }

    /// Removes roots, then their labels: durable when it returns. Their chunks stay until collection.
    pub fn delete_roots(&self, roots: &[RootName]) -> Result<()> {
        self.keys.role().require(Action::Maintain)?;
        self.refresh_keys()?;
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

    /// A fresh random id.
    pub(crate) fn new_object_id(&self) -> Result<ObjectId> {
        let mut id = [0; 16];
        self.entropy.fill(&mut id)?;
        Ok(ObjectId(id))
    }
}

/// How often a name that others keep taking is tried.
const REPLACE_ATTEMPTS: usize = 64;

/// One of the objects that stand for a root.
struct StandingRoot {
    name: ObjectName,
    epoch: u32,
    /// With the signature, as it is sealed again.
    content: Unsealed,
    signer: Option<SignerId>,
}

impl StandingRoot {
    fn open(keys: &Keys, name: ObjectName, bytes: Vec<u8>) -> Result<Self> {
        let epoch = Envelope::decode(&name.to_string(), ObjectKind::Root, &bytes)?.epoch;
        let content = unseal_object(keys, &name, bytes)?;
        let signer = content.signer(keys, &name)?;
        Ok(Self { name, epoch, content, signer })
    }
}

/// What is remembered of a repository that was opened before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The newest place in the chain of its rosters.
    pub anchor: Option<Anchor>,
    /// The slots that opened it, the last one first.
    pub slots: Vec<ObjectId>,
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
