//! Key epochs: each rotation begins one, with a secret and two key pairs of its own for all that is sealed
//! from then on.
//!
//! Epoch 0 is what the master key gives. Which epochs have begun, and who is given them, is never decided
//! here.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::Result;
use crate::backend::{Backend, ObjectKind, ObjectName};
use crate::entropy::Entropy;
use crate::envelope::{ENVELOPE_BYTES, Envelope, Sealing};
use crate::ids::ObjectId;
use crate::keys::object_key;
use crate::roles::{Action, Role};
use crate::sealed_to::{PUBLIC_KEY_BYTES, key_pair};

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
const COMMITMENT: &str = "copal v3 epoch commitment";

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

    /// What the roster binds an epoch by: the same for every role, and secret as the structure secret is.
    pub(crate) fn commitment(&self) -> [u8; 32] {
        let bound = Zeroizing::new([&self.structure[..], &self.manifests_public, &self.data_public].concat());
        blake3::derive_key(COMMITMENT, &bound)
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

/// The epoch whose keys seal an object, as its envelope says.
pub(crate) fn epoch_of(backend: &dyn Backend, name: &ObjectName) -> Result<u32> {
    let mut envelope = [0; ENVELOPE_BYTES];
    backend.read_range(name, 0, &mut envelope)?;
    Ok(Envelope::decode(&name.to_string(), name.kind(), &envelope)?.epoch)
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
            ("commitment", hex::encode(epoch.commitment())),
        ];
        let found: String = answers.iter().map(|(name, answer)| format!("{name}: {answer}\n")).collect();
        assert_eq!(found, include_str!("../tests/known_answers_epochs.txt"));
    }
}
