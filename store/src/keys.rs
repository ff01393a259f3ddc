//! Keys: one random master key, and a derived key for each purpose.
//!
//! Derivation is BLAKE3's key-derivation mode (BLAKE3 paper, section 2.3), one context string for each purpose;
//! keys of single objects are BLAKE3 keyed over kind and object id. Known answers are in the tests: a changed derivation is a
//! changed format. Nothing here is ever printed; everything is zeroed when dropped.

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::backend::ObjectKind;
use crate::config::CipherSuite;
use crate::ids::{ChunkId, ObjectId};
use crate::{Error, Result};

pub use crate::slots::{
    Credential, KeySlotInfo, SLOTS_MAX, STRETCH_LANES_MAX, STRETCH_MEMORY_KIB_MAX, STRETCH_PASSES_MAX, StretchCost,
};

/// Length of an authentication tag in bytes, of both suites.
pub const TAG_BYTES: usize = 16;

/// The keys of an open repository. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<KeyRing>,
    suite: CipherSuite,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct KeyRing {
    master: [u8; 32],
    chunk_id: [u8; 32],
    name_tag: [u8; 32],
    object: [u8; 32],
}

/// Context strings, globally unique as BLAKE3 asks.
const CHUNK_ID: &str = "copal v1 chunk id";
const NAME_TAG: &str = "copal v1 snapshot name tag";
const OBJECT: &str = "copal v1 object key";
const CUTTER: &str = "copal v1 cutter secret";
const TREE_BOUNDARY: &str = "copal v1 manifest tree boundary";
const LOCAL_STATE: &str = "copal v1 local state tag";

impl Keys {
    /// Derives all keys.
    #[must_use]
    pub fn derive(master: &[u8; 32], suite: CipherSuite) -> Self {
        let inner = KeyRing {
            master: *master,
            chunk_id: blake3::derive_key(CHUNK_ID, master),
            name_tag: blake3::derive_key(NAME_TAG, master),
            object: blake3::derive_key(OBJECT, master),
        };
        Self { inner: Arc::new(inner), suite }
    }

    /// The id of a chunk: BLAKE3 keyed, over the plaintext.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.inner.chunk_id, plain).as_bytes())
    }

    /// The secret of the content cutter.
    #[must_use]
    pub fn cutter_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(CUTTER, &self.inner.master))
    }

    /// The key for the boundaries of manifest trees.
    #[must_use]
    pub fn tree_boundary_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(TREE_BOUNDARY, &self.inner.master))
    }

    /// Tag of a snapshot's full name, for the name of its root object.
    #[must_use]
    pub fn name_tag(&self, full_name: &[u8]) -> [u8; 16] {
        let mut tag = [0; 16];
        tag.copy_from_slice(&blake3::keyed_hash(&self.inner.name_tag, full_name).as_bytes()[..16]);
        tag
    }

    /// Tag of what is kept outside the repository and believed later: nobody without the keys can make one.
    #[must_use]
    pub fn local_state_tag(&self, bytes: &[u8]) -> [u8; 32] {
        let key = Zeroizing::new(blake3::derive_key(LOCAL_STATE, &self.inner.master));
        *blake3::keyed_hash(&key, bytes).as_bytes()
    }

    /// The suite that seals new objects.
    #[must_use]
    pub fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// The master key, for a new slot.
    pub(crate) fn master(&self) -> &[u8; 32] {
        &self.inner.master
    }

    /// The cipher of one object.
    pub(crate) fn object_cipher(&self, suite: CipherSuite, kind: ObjectKind, id: ObjectId) -> Result<Cipher> {
        let mut input = [0u8; 17];
        input[0] = kind as u8;
        input[1..].copy_from_slice(id.as_bytes());
        let key = Zeroizing::new(*blake3::keyed_hash(&self.inner.object, &input).as_bytes());
        Cipher::new(suite, &key)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// Which part of an object a nonce is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Domain {
    /// A record of a pack, a block of an index fragment, the payload of a whole object.
    Part = 0,
    /// The directory of a pack or fragment.
    Directory = 1,
    /// The footer that finds the directory.
    Footer = 2,
    /// The master key in a slot, and the sealed part of the configuration.
    Wrapped = 3,
}

/// The nonce of a part: its domain and the offset at which it stands, which only grows under one key. Never random.
#[must_use]
pub(crate) fn nonce(domain: Domain, offset: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0] = domain as u8;
    bytes[4..].copy_from_slice(&offset.to_le_bytes());
    bytes
}

/// One key of one suite.
pub(crate) struct Cipher {
    key: LessSafeKey,
}

impl Cipher {
    pub(crate) fn new(suite: CipherSuite, key: &[u8; 32]) -> Result<Self> {
        let algorithm = match suite {
            CipherSuite::Aes256Gcm => &AES_256_GCM,
            CipherSuite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| Error::damaged("a key", "it has not 32 bytes"))?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// Encrypts in place and returns the tag.
    pub(crate) fn seal(&self, nonce: [u8; 12], aad: &[u8], plain: &mut [u8]) -> Result<[u8; TAG_BYTES]> {
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), plain)
            .map_err(|_| Error::Limit { what: "a sealed part".into(), limit: u64::from(u32::MAX) })?;
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        Ok(bytes)
    }

    /// Decrypts in place `ciphertext | tag`; returns the length of the plaintext at the front. `None`: it does not verify.
    pub(crate) fn open(&self, nonce: [u8; 12], aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
        let plain_bytes = sealed.len().checked_sub(TAG_BYTES)?;
        let (text, tag) = sealed.split_at_mut(plain_bytes);
        let tag = Tag::try_from(&*tag).ok()?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text, 0..).ok()?;
        Some(plain_bytes)
    }
}

/// Seals a buffer in place under a key that protects nothing, for measuring a suite.
pub fn seal_sample(suite: CipherSuite, buffer: &mut [u8]) -> Result<()> {
    Cipher::new(suite, &[0; 32])?.seal(nonce(Domain::Part, 0), b"", buffer).map(drop)
}

/// The suite that seals a buffer faster; `measure` runs a closure and tells how long it took, in any unit.
pub fn faster_suite(measure: &mut dyn FnMut(&mut dyn FnMut()) -> u64) -> Result<CipherSuite> {
    const SAMPLE_BYTES: usize = 1 << 20;
    let mut buffer = vec![0u8; SAMPLE_BYTES];
    let mut best = (u64::MAX, CipherSuite::ChaCha20Poly1305);
    for suite in [CipherSuite::Aes256Gcm, CipherSuite::ChaCha20Poly1305] {
        for _ in 0..3 {
            let mut outcome = Ok(());
            let time = measure(&mut || outcome = seal_sample(suite, &mut buffer));
            outcome?;
            if time < best.0 {
                best = (time, suite);
            }
        }
    }
    Ok(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::derive(&[7; 32], CipherSuite::Aes256Gcm)
    }

    #[test]
    fn derivations_have_known_answers() {
        let keys = keys();
        let answers = [
            ("chunk id", hex::encode(keys.chunk_id(b"copal").0)),
            ("cutter", hex::encode(*keys.cutter_secret())),
            ("boundary", hex::encode(*keys.tree_boundary_key())),
            ("name tag", hex::encode(keys.name_tag(b"app/name"))),
            ("local state", hex::encode(keys.local_state_tag(b"copal"))),
            ("object", {
                let cipher = keys.object_cipher(CipherSuite::Aes256Gcm, ObjectKind::Pack, ObjectId([1; 16])).unwrap();
                let mut text = *b"sixteen bytes ok";
                let tag = cipher.seal(nonce(Domain::Part, 32), b"aad", &mut text).unwrap();
                format!("{}{}", hex::encode(text), hex::encode(tag))
            }),
        ];
        let expected = include_str!("../tests/known_answers.txt");
        let found: String = answers.iter().map(|(name, answer)| format!("{name}: {answer}\n")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn derived_keys_differ_from_each_other() {
        let keys = keys();
        let all = [keys.inner.master, keys.inner.chunk_id, keys.inner.name_tag, keys.inner.object];
        let all: std::collections::BTreeSet<[u8; 32]> =
            all.into_iter().chain([*keys.cutter_secret(), *keys.tree_boundary_key()]).collect();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn nonces_have_known_answers_and_never_meet() {
        assert_eq!(nonce(Domain::Part, 0x0102), [0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(nonce(Domain::Footer, 1), [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        let mut seen = std::collections::HashSet::new();
        for domain in [Domain::Part, Domain::Directory, Domain::Footer, Domain::Wrapped] {
            for offset in (0..1000).chain((0..60).map(|bit| 1 << (bit + 4))) {
                seen.insert(nonce(domain, offset));
            }
        }
        assert_eq!(seen.len(), 4 * (1000 + 54));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let credential = Credential::Password(Zeroizing::new(b"hunter2".to_vec()));
        assert_eq!(format!("{:?} {credential:?}", keys()), "Keys(…) Password(…)");
    }
}
