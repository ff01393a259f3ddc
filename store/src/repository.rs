//! A repository, made or opened. (Skeleton of the agreed interface.)

use std::sync::Arc;

use crate::backend::Backend;
use crate::config::{CipherSuite, Config, Parameters};
use crate::entropy::Entropy;
use crate::ids::{ObjectId, SnapshotId};
use crate::keys::{Credential, KeySlotInfo, Keys, StretchCost};
use crate::{Error, Result};

/// How `init` makes a repository.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Fixed parameters.
    pub parameters: Parameters,
    /// `None`: the faster one on this machine, measured.
    pub suite: Option<CipherSuite>,
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
    #[allow(dead_code)]
    backend: Arc<dyn Backend>,
    #[allow(dead_code)]
    entropy: Arc<dyn Entropy>,
    config: Config,
    keys: Keys,
}

impl Repository {
    /// Makes a repository; refuses a place that is not empty.
    pub fn init(
        _backend: Arc<dyn Backend>,
        _entropy: Arc<dyn Entropy>,
        _credential: &Credential,
        _options: &InitOptions,
    ) -> Result<Self> {
        todo!()
    }
    /// Opens a repository with a password or key.
    pub fn open(
        _backend: Arc<dyn Backend>,
        _entropy: Arc<dyn Entropy>,
        _credential: &Credential,
    ) -> Result<Self> {
        todo!()
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
    /// The key slots.
    pub fn key_slots(&self) -> Result<Vec<KeySlotInfo>> {
        todo!()
    }
    /// Adds a slot.
    pub fn add_key_slot(
        &self,
        _credential: &Credential,
        _label: &str,
        _stretch: StretchCost,
        _created_seconds: i64,
    ) -> Result<ObjectId> {
        todo!()
    }
    /// Removes a slot; the last one cannot be removed.
    pub fn remove_key_slot(&self, _slot: ObjectId) -> Result<()> {
        todo!()
    }

    /// Names of all snapshot roots, as listed now.
    pub fn roots(&self) -> Result<Vec<RootName>> {
        todo!()
    }
    /// Opens one root's payload (the manifest crate knows what it means).
    pub fn read_root(&self, _root: &RootName) -> Result<Vec<u8>> {
        todo!()
    }
    /// Removes roots: durable when it returns. Their chunks stay until collection.
    pub fn delete_roots(&self, _roots: &[RootName]) -> Result<()> {
        todo!()
    }
    /// The newest label payload of a snapshot.
    pub fn read_label(&self, _snapshot: SnapshotId) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    /// Newest label of every snapshot that has one: (snapshot, object name). One listing.
    pub fn labels(&self) -> Result<Vec<(SnapshotId, u64)>> {
        todo!()
    }
    /// Replaces a snapshot's label.
    pub fn write_label(&self, _snapshot: SnapshotId, _payload: &[u8]) -> Result<()> {
        todo!()
    }
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
            let tag: [u8; 16] = crate::ids::ObjectId::from_hex(tag)?.0;
            Some(Self {
                tag,
                snapshot: SnapshotId::from_hex(id)?,
            })
        });
        sound.ok_or_else(|| Error::damaged(format!("snapshots/{name}"), "not a root's name"))
    }
}
