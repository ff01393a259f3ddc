//! Signatures: who wrote an object. Ed25519 (RFC 8032), one key pair for each key slot, derived from what its
//! credential gives.
//!
//! What is signed is never the sealed object but its content, under a statement that says what the content is
//! for: so a signature stays when an object is sealed again, and is worth nothing at another name or in
//! another repository. Which keys count is the roster's affair; nothing here knows a role.

use std::fmt;
use std::sync::Arc;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ids::RepositoryId;
use crate::{Error, Result};

/// Length of a verifying key in bytes.
pub(crate) const SIGNER_BYTES: usize = 32;
/// Length of a signature in bytes.
pub(crate) const SIGNATURE_BYTES: usize = 64;
/// What a signed content has behind it: signer and signature.
pub(crate) const SIGNED_BYTES: usize = SIGNER_BYTES + SIGNATURE_BYTES;

const SIGNING_KEY: &str = "copal v3 slot signing key";
const CONTENT: &str = "copal v3 signed content";

/// The verifying key of a slot: its identity in all that it signs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SignerId(pub [u8; SIGNER_BYTES]);

impl fmt::Display for SignerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SignerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerId({self})")
    }
}

/// The signing key of an opened slot.
#[derive(Clone)]
pub(crate) struct Signer {
    pair: Arc<Ed25519KeyPair>,
    id: SignerId,
}

impl Signer {
    /// The key pair of a slot, from what its credential was stretched to.
    pub(crate) fn of_stretched(stretched: &[u8; 32]) -> Result<Self> {
        let seed = Zeroizing::new(blake3::derive_key(SIGNING_KEY, stretched));
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed)
            .map_err(|_| Error::KeySlot { detail: "its signing key cannot be used".into() })?;
        let mut id = [0; SIGNER_BYTES];
        id.copy_from_slice(pair.public_key().as_ref());
        Ok(Self { pair: Arc::new(pair), id: SignerId(id) })
    }

    /// Who signs.
    pub(crate) fn id(&self) -> SignerId {
        self.id
    }

    /// Appends signer and signature to a content.
    pub(crate) fn sign(&self, statement: &Statement<'_>, mut content: Vec<u8>) -> Vec<u8> {
        let signature = self.pair.sign(&statement.over(&content));
        content.extend_from_slice(&self.id.0);
        content.extend_from_slice(signature.as_ref());
        content
    }
}

/// What a signed content is for.
#[derive(Clone, Copy)]
pub(crate) struct Statement<'a> {
    pub(crate) repository: RepositoryId,
    /// Name of the object with its folder; of a root without the epoch in which it was sealed again.
    pub(crate) object: &'a str,
}

impl Statement<'_> {
    fn over(&self, content: &[u8]) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_derive_key(CONTENT);
        hash.update(&self.repository.0);
        hash.update(&(self.object.len() as u64).to_le_bytes());
        hash.update(self.object.as_bytes());
        hash.update(content);
        *hash.finalize().as_bytes()
    }

    /// Takes signer and signature off a signed content; who signed it. The signature is checked, whether the
    /// signer counts is not.
    pub(crate) fn verify(&self, mut signed: Vec<u8>) -> Result<(Vec<u8>, SignerId)> {
        let damaged = |detail| Error::damaged(self.object, detail);
        let at = signed.len().checked_sub(SIGNED_BYTES).ok_or_else(|| damaged("it is shorter than its signature"))?;
        let (signer, signature) = signed[at..].split_at(SIGNER_BYTES);
        let key = UnparsedPublicKey::new(&ED25519, signer);
        key.verify(&self.over(&signed[..at]), signature).map_err(|_| damaged("its signature does not verify"))?;
        let mut id = [0; SIGNER_BYTES];
        id.copy_from_slice(signer);
        signed.truncate(at);
        Ok((signed, SignerId(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPOSITORY: RepositoryId = RepositoryId([7; 16]);

    fn statement(object: &str) -> Statement<'_> {
        Statement { repository: REPOSITORY, object }
    }

    #[test]
    fn a_signature_holds_for_its_content_name_and_repository_only() {
        let signer = Signer::of_stretched(&[1; 32]).unwrap();
        let signed = signer.sign(&statement("labels/a"), b"content".to_vec());
        let (content, by) = statement("labels/a").verify(signed.clone()).unwrap();
        assert_eq!((content.as_slice(), by), (&b"content"[..], signer.id()));
        assert!(statement("labels/b").verify(signed.clone()).is_err());
        let elsewhere = Statement { repository: RepositoryId([8; 16]), object: "labels/a" };
        assert!(elsewhere.verify(signed.clone()).is_err());
        for position in 0..signed.len() {
            let mut flipped = signed.clone();
            flipped[position] ^= 1;
            assert!(statement("labels/a").verify(flipped).is_err(), "a flipped bit at {position}");
            assert!(statement("labels/a").verify(signed[..position].to_vec()).is_err());
        }
    }

    #[test]
    fn keys_and_signatures_have_known_answers() {
        let signer = Signer::of_stretched(&[9; 32]).unwrap();
        let signed = signer.sign(&statement("labels/a"), b"copal".to_vec());
        let found = format!("signer: {}\nsigned: {}\n", signer.id(), hex::encode(signed));
        assert_eq!(found, include_str!("../tests/known_answers_signing.txt"));
    }
}
