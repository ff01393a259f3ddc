//! Key epochs: each rotation begins one, with a secret and two key pairs of its own for all that is sealed from then on.
//!
//! Epoch 0 is what the master key gives. A ring knows those epochs that were granted to its slot; it looks for new grants when it
//! meets an object of an epoch that it does not know. It never decides when an epoch begins.

use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::backend::{Backend, ObjectKind};
use crate::entropy::Entropy;
use crate::envelope::Sealing;
use crate::grants::{self, SlotKeys};
use crate::ids::ObjectId;
use crate::keys::object_key;
use crate::roles::{Action, Role};
use crate::sealed_to::{PUBLIC_KEY_BYTES, key_pair};
use crate::{Error, Result};

/// Most epochs of one repository: each costs an object for each slot.
pub(crate) const EPOCHS_MAX: u32 = 1 << 16;

/// The keys of one epoch, as far as a role has them.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub(crate) struct EpochKeys {
    pub(crate) number: u32,
    /// Seals what every role opens: index fragments and condemned objects.
    structure: [u8; 32],
    /// Seals roots, labels and packs of manifest nodes.
    manifests_public: [u8; PUBLIC_KEY_BYTES],
    manifests_private: Option<[u8; 32]>,
    /// Seals packs of file contents.
    data_public: [u8; PUBLIC_KEY_BYTES],
    data_private: Option<[u8; 32]>,
}

const STRUCTURE_OBJECT: &str = "copal v2 structure object key";

impl EpochKeys {
    /// New keys.
    pub(crate) fn generate(number: u32, entropy: &dyn Entropy) -> Result<Self> {
        let mut drawn = Zeroizing::new([[0u8; 32]; 3]);
        for secret in drawn.iter_mut() {
            entropy.fill(secret)?;
        }
        let (manifests_private, manifests_public) = key_pair(&drawn[1]);
        let (data_private, data_public) = key_pair(&drawn[2]);
        Ok(Self {
            number,
            structure: drawn[0],
            manifests_public,
            manifests_private: Some(*manifests_private),
            data_public,
            data_private: Some(*data_private),
        })
    }

    /// What a role is given of it.
    pub(crate) fn for_role(&self, role: Role) -> Self {
        let mut given = self.clone();
        if !role.may(Action::OpenManifests) {
            given.manifests_private = None;
        }
        if !role.may(Action::OpenData) {
            given.data_private = None;
        }
        given
    }

    /// The key of an object that every role opens.
    pub(crate) fn derived_key(&self, kind: ObjectKind, id: ObjectId) -> Zeroizing<[u8; 32]> {
        let all = Zeroizing::new(blake3::derive_key(STRUCTURE_OBJECT, &self.structure));
        object_key(&all, kind, id)
    }

    pub(crate) fn public(&self, class: Sealing) -> Option<&[u8; PUBLIC_KEY_BYTES]> {
        match class {
            Sealing::Derived => None,
            Sealing::ForManifests => Some(&self.manifests_public),
            Sealing::ForData => Some(&self.data_public),
        }
    }

    pub(crate) fn private(&self, class: Sealing) -> Option<&[u8; 32]> {
        match class {
            Sealing::Derived => None,
            Sealing::ForManifests => self.manifests_private.as_ref(),
            Sealing::ForData => self.data_private.as_ref(),
        }
    }
}

/// The epochs that a ring knows, and where it finds others.
#[derive(Default)]
pub(crate) struct Epochs {
    known: RwLock<Vec<Arc<EpochKeys>>>,
    door: Option<Door>,
}

/// Where grants come from, and who they are for.
pub(crate) struct Door {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// `None`: a slot of the first version, which is given no epochs.
    /// Apart, so that a ring without them has no room for what stood on the stack.
    pub(crate) slot: Option<Arc<SlotKeys>>,
}

impl Epochs {
    pub(crate) fn behind(door: Door) -> Self {
        Self { known: RwLock::default(), door: Some(door) }
    }

    /// The newest: it seals what is new.
    pub(crate) fn current(&self) -> Option<Arc<EpochKeys>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<EpochKeys>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An epoch; one that is not known may have begun since this ring was made.
    pub(crate) fn get(&self, number: u32) -> Result<Option<Arc<EpochKeys>>> {
        let find = || self.all().into_iter().find(|epoch| epoch.number == number);
        match find() {
            Some(epoch) => Ok(Some(epoch)),
            None => {
                self.learn()?;
                Ok(find())
            }
        }
    }

    /// Takes in what was granted to the slot and is not known yet.
    pub(crate) fn learn(&self) -> Result<()> {
        let Some(Door { backend, slot: Some(slot), .. }) = &self.door else { return Ok(()) };
        for number in grants::begun(&**backend)? {
            if !self.all().iter().any(|epoch| epoch.number == number) {
                self.adopt(grants::read(&**backend, slot, number)?);
            }
        }
        Ok(())
    }

    pub(crate) fn adopt(&self, epoch: EpochKeys) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| other.number != epoch.number);
        known.push(Arc::new(epoch));
        known.sort_by_key(|epoch| epoch.number);
    }

    pub(crate) fn entropy(&self) -> Result<Arc<dyn Entropy>> {
        match &self.door {
            Some(door) => Ok(Arc::clone(&door.entropy)),
            None => Err(Error::KeySlot { detail: "keys of an epoch without a source of randomness".into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Counting(std::sync::Mutex<u8>);

    impl Entropy for Counting {
        fn fill(&self, buffer: &mut [u8]) -> Result<()> {
            let mut calls = self.0.lock().unwrap();
            *calls += 1;
            buffer.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8 + *calls);
            Ok(())
        }
    }

    #[test]
    fn derivations_have_known_answers() {
        let epoch = EpochKeys::generate(1, &Counting::default()).unwrap();
        let private = |class| hex::encode(epoch.private(class).unwrap());
        let answers = [
            ("structure object", hex::encode(*epoch.derived_key(ObjectKind::Index, ObjectId([3; 16])))),
            ("manifests", private(Sealing::ForManifests)),
            ("data", private(Sealing::ForData)),
        ];
        let found: String = answers.iter().map(|(name, answer)| format!("{name}: {answer}\n")).collect();
        assert_eq!(found, include_str!("../tests/known_answers_epochs.txt"));
    }
}
