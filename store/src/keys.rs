//! Keys: one random master key, and a derived key for each purpose.
//!
//! Derivation is BLAKE3's key-derivation mode (BLAKE3 paper, section 2.3), one context string for each
//! purpose; keys of single objects are BLAKE3 keyed over kind and object id. Known answers are in the tests:
//! a changed derivation is a changed format. Nothing here is ever printed; everything is zeroed when dropped.

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::backend::ObjectKind;
use crate::config::CipherSuite;
use crate::envelope::{ENVELOPE_BYTES, Envelope, FIRST_VERSION, SIGNED_VERSION, Sealing};
use crate::ids::{ChunkId, ObjectId};
use crate::roles::Role;
use crate::sealed_to::{self, PUBLIC_KEY_BYTES};
use crate::trust::Trust;
use crate::{Error, Result};

pub use crate::slots::{
    Credential, KeySlotInfo, SLOTS_MAX, STRETCH_LANES_MAX, STRETCH_MEMORY_KIB_MAX, STRETCH_PASSES_MAX, StretchCost,
    Unlocked, stretch_password,
};

/// Length of an authentication tag in bytes, of both suites.
pub const TAG_BYTES: usize = 16;

/// The keys of an open repository, as far as the slot that opened it has them. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<KeyRing>,
    suite: CipherSuite,
}

/// Context strings, globally unique as BLAKE3 asks.
const CHUNK_ID: &str = "copal v1 chunk id";
const NAME_TAG: &str = "copal v1 snapshot name tag";
const OBJECT: &str = "copal v1 object key";
const CUTTER: &str = "copal v1 cutter secret";
const TREE_BOUNDARY: &str = "copal v1 manifest tree boundary";
const LOCAL_STATE: &str = "copal v1 local state tag";
const GRANT: &str = "copal v2 grant";
const ROSTER: &str = "copal v3 roster";
const WRAPPED_SECRET: &str = "copal v2 wrapped secret of epoch 0";
const SLOT_INFO: &str = "copal v2 slot info";

/// Secrets that say what things are called, and open nothing. They stay for the life of the repository: with
/// others, nothing that is stored would be found again.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub(crate) struct NamingSecrets {
    chunk_id: [u8; 32],
    name_tag: [u8; 32],
    cutter: [u8; 32],
    tree_boundary: [u8; 32],
    local_state: [u8; 32],
}

impl NamingSecrets {
    fn derive(master: &[u8; 32]) -> Self {
        Self {
            chunk_id: blake3::derive_key(CHUNK_ID, master),
            name_tag: blake3::derive_key(NAME_TAG, master),
            cutter: blake3::derive_key(CUTTER, master),
            tree_boundary: blake3::derive_key(TREE_BOUNDARY, master),
            local_state: blake3::derive_key(LOCAL_STATE, master),
        }
    }
}

/// What a slot of a narrower role than "full" holds instead of the master key.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub(crate) struct RoleSecrets {
    pub(crate) naming: NamingSecrets,
    /// Key of the configuration object.
    pub(crate) config: [u8; 32],
    /// Opens objects of epoch 0: only for reading.
    pub(crate) object: Option<[u8; 32]>,
}

/// Secrets of a ring, by what the slot holds.
pub(crate) struct KeyRing {
    role: Role,
    master: Option<Zeroizing<[u8; 32]>>,
    naming: NamingSecrets,
    object: Option<Zeroizing<[u8; 32]>>,
    config: Option<Zeroizing<[u8; 32]>>,
    trust: Trust,
}

impl Keys {
    /// Derives all keys of the first epoch.
    #[must_use]
    pub fn derive(master: &[u8; 32], suite: CipherSuite) -> Self {
        Self::of_master(master, suite, Trust::default())
    }

    pub(crate) fn of_master(master: &[u8; 32], suite: CipherSuite, trust: Trust) -> Self {
        let inner = KeyRing {
            role: Role::Full,
            master: Some(Zeroizing::new(*master)),
            naming: NamingSecrets::derive(master),
            object: Some(Zeroizing::new(blake3::derive_key(OBJECT, master))),
            config: None,
            trust,
        };
        Self { inner: Arc::new(inner), suite }
    }

    pub(crate) fn of_role(role: Role, secrets: &RoleSecrets, suite: CipherSuite, trust: Trust) -> Self {
        let inner = KeyRing {
            role,
            master: None,
            naming: secrets.naming.clone(),
            object: secrets.object.map(Zeroizing::new),
            config: Some(Zeroizing::new(secrets.config)),
            trust,
        };
        Self { inner: Arc::new(inner), suite }
    }

    /// What the holder of these keys may do.
    #[must_use]
    pub fn role(&self) -> Role {
        self.inner.role
    }

    /// The id of a chunk: BLAKE3 keyed, over the plaintext.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.inner.naming.chunk_id, plain).as_bytes())
    }

    /// The secret of the content cutter.
    #[must_use]
    pub fn cutter_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.inner.naming.cutter)
    }

    /// The key for the boundaries of manifest trees.
    #[must_use]
    pub fn tree_boundary_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.inner.naming.tree_boundary)
    }

    /// Tag of a snapshot's full name, for the name of its root object.
    #[must_use]
    pub fn name_tag(&self, full_name: &[u8]) -> [u8; 16] {
        let mut tag = [0; 16];
        tag.copy_from_slice(&blake3::keyed_hash(&self.inner.naming.name_tag, full_name).as_bytes()[..16]);
        tag
    }

    /// Tag of what is kept outside the repository and believed later: nobody without the keys can make one.
    #[must_use]
    pub fn local_state_tag(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.inner.naming.local_state, bytes).as_bytes()
    }

    /// The suite that seals new objects.
    #[must_use]
    pub fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// The master key, for a new slot.
    pub(crate) fn master(&self) -> Result<&[u8; 32]> {
        self.inner.master.as_deref().ok_or_else(|| self.not_permitted("manage keys"))
    }

    /// What a slot of a role is given.
    pub(crate) fn role_secrets(&self, role: Role, config: ObjectId) -> Result<RoleSecrets> {
        self.master()?;
        let object = self.inner.object.as_deref().filter(|_| role == Role::Read).copied();
        let config = *self.first_object_key(ObjectKind::Config, config)?;
        Ok(RoleSecrets { naming: self.inner.naming.clone(), config, object })
    }

    /// The key that a slot shares with the owners of the repository: who lacks it cannot make a grant for
    /// that slot.
    pub(crate) fn grant_key(&self, slot: ObjectId) -> Result<Zeroizing<[u8; 32]>> {
        let key = Zeroizing::new(blake3::derive_key(GRANT, self.master()?));
        Ok(Zeroizing::new(*blake3::keyed_hash(&key, slot.as_bytes()).as_bytes()))
    }

    /// Seals what is listed of a slot: only owners list slots.
    pub(crate) fn slot_info_cipher(&self, slot: ObjectId) -> Result<Cipher> {
        let key = Zeroizing::new(blake3::derive_key(SLOT_INFO, self.master()?));
        Cipher::new(CipherSuite::ChaCha20Poly1305, blake3::keyed_hash(&key, slot.as_bytes()).as_bytes())
    }

    /// Rosters and epochs.
    pub(crate) fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    /// Seals rosters: whoever opens the configuration opens them.
    pub(crate) fn roster_key(&self) -> Result<Zeroizing<[u8; 32]>> {
        let config = self.first_object_key(ObjectKind::Config, ObjectId(self.repository().0))?;
        Ok(Zeroizing::new(blake3::derive_key(ROSTER, &*config)))
    }

    /// The cipher of one object of epoch 0.
    pub(crate) fn object_cipher(&self, suite: CipherSuite, kind: ObjectKind, id: ObjectId) -> Result<Cipher> {
        let key = self.first_object_key(kind, id)?;
        Cipher::new(suite, &key)
    }

    fn first_object_key(&self, kind: ObjectKind, id: ObjectId) -> Result<Zeroizing<[u8; 32]>> {
        match (&self.inner.object, &self.inner.config) {
            (Some(object), _) => Ok(object_key(object, kind, id)),
            (None, Some(config)) if kind == ObjectKind::Config => Ok(config.clone()),
            _ => Err(self.not_permitted("open what is sealed under the first keys of the repository")),
        }
    }

    /// A fresh object's envelope, what stands behind it in the clear, and its cipher. `class` says who shall
    /// open it.
    pub(crate) fn seal_header(&self, kind: ObjectKind, id: ObjectId, class: Sealing) -> Result<Header> {
        self.header_of(kind, id, class, is_signed_kind(kind) && self.is_signed())
    }

    /// The same for what nobody signs.
    pub(crate) fn seal_unsigned_header(&self, kind: ObjectKind, id: ObjectId, class: Sealing) -> Result<Header> {
        self.header_of(kind, id, class, false)
    }

    fn header_of(&self, kind: ObjectKind, id: ObjectId, class: Sealing, is_signed: bool) -> Result<Header> {
        let versioned = |envelope: Envelope| {
            if is_signed { envelope.as_signed().encode() } else { envelope.encode() }
        };
        let Some(epoch) = self.sealing_epoch()? else {
            let envelope = versioned(Envelope::first(kind, self.suite, id));
            return Ok(Header { envelope, behind: None, cipher: self.object_cipher(self.suite, kind, id)? });
        };
        let envelope = versioned(Envelope::of_epoch(kind, self.suite, id, epoch.number, class));
        let (behind, key) = match epoch.public(class) {
            None => (None, epoch.derived_key(kind, id)),
            Some(public) => {
                let (encapsulated, key) = sealed_to::encapsulate(&*self.entropy()?, public, &object_info(&envelope))?;
                (Some(encapsulated), key)
            }
        };
        Ok(Header { envelope, behind, cipher: Cipher::new(self.suite, &key)? })
    }

    /// The header of a stored object; `bytes` begin with it and have at least [`HEADER_BYTES_MAX`] where
    /// there are so many.
    pub(crate) fn open_header(&self, object: &str, kind: ObjectKind, bytes: &[u8]) -> Result<(Header, ObjectId)> {
        let envelope = Envelope::decode(object, kind, bytes)?;
        if !may_be_sealed(kind, envelope.epoch, envelope.sealing) {
            return Err(Error::damaged(object, "its envelope says that it is sealed as objects of its kind never are"));
        }
        let header = |behind, cipher| (Header { envelope: envelope.encode(), behind, cipher }, envelope.id);
        if envelope.version == FIRST_VERSION || (envelope.epoch, envelope.sealing) == (0, Sealing::Derived) {
            return Ok(header(None, self.object_cipher(envelope.suite, kind, envelope.id)?));
        }
        let epoch = self.epoch_keys(object, envelope.epoch)?;
        if envelope.sealing == Sealing::Derived {
            let key = epoch.derived_key(kind, envelope.id);
            return Ok(header(None, Cipher::new(envelope.suite, &key)?));
        }
        let private = epoch.private(envelope.sealing).ok_or_else(|| {
            self.not_permitted(match envelope.sealing {
                Sealing::ForData => "open data",
                _ => "open snapshots",
            })
        })?;
        let behind = bytes.get(ENVELOPE_BYTES..).and_then(|rest| rest.first_chunk().copied());
        let behind = behind.ok_or_else(|| Error::damaged(object, "it is shorter than its header"))?;
        let key = sealed_to::decapsulate(private, &behind, &object_info(&envelope.encode()))
            .map_err(|_| Error::damaged(object, "its key cannot be found"))?;
        Ok(header(Some(behind), Cipher::new(envelope.suite, &key)?))
    }

    /// Wraps secrets of applications in epoch 0.
    pub(crate) fn first_secrets_key(&self) -> Result<Zeroizing<[u8; 32]>> {
        let object = self.inner.object.as_deref().ok_or_else(|| self.not_permitted("open secrets of epoch 0"))?;
        Ok(Zeroizing::new(blake3::derive_key(WRAPPED_SECRET, object)))
    }

    fn not_permitted(&self, what: &str) -> Error {
        Error::NotPermitted { role: self.role(), what: what.into() }
    }
}

/// Kinds whose writers sign them, in a repository that has a roster. What packs hold is known by its hash.
fn is_signed_kind(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::Root | ObjectKind::Label | ObjectKind::Index | ObjectKind::Condemned)
}

/// How objects of a kind are sealed. Without this a changed byte of an envelope would ask for a key that a
/// role has not, and so look like an object of another class, that it is no damage to be unable to open.
fn may_be_sealed(kind: ObjectKind, epoch: u32, sealing: Sealing) -> bool {
    match kind {
        _ if epoch == 0 => sealing == Sealing::Derived,
        ObjectKind::Root | ObjectKind::Label => sealing == Sealing::ForManifests,
        ObjectKind::Pack => sealing != Sealing::Derived,
        _ => sealing == Sealing::Derived,
    }
}

/// Key of one object, under a key for all.
pub(crate) fn object_key(all: &[u8; 32], kind: ObjectKind, id: ObjectId) -> Zeroizing<[u8; 32]> {
    let mut input = [0u8; 17];
    input[0] = kind as u8;
    input[1..].copy_from_slice(id.as_bytes());
    Zeroizing::new(*blake3::keyed_hash(all, &input).as_bytes())
}

/// What binds an encapsulated key to its object.
fn object_info(envelope: &[u8; ENVELOPE_BYTES]) -> Vec<u8> {
    [&b"copal v2 object key"[..], envelope].concat()
}

/// Longest header in bytes: the envelope and an encapsulated key.
pub(crate) const HEADER_BYTES_MAX: usize = ENVELOPE_BYTES + PUBLIC_KEY_BYTES;

/// The clear beginning of an object, and the cipher of what follows.
pub(crate) struct Header {
    pub(crate) envelope: [u8; ENVELOPE_BYTES],
    pub(crate) behind: Option<[u8; PUBLIC_KEY_BYTES]>,
    pub(crate) cipher: Cipher,
}

impl Header {
    /// Whether the writer has signed the object.
    pub(crate) fn is_signed(&self) -> bool {
        self.envelope[7] >= SIGNED_VERSION
    }

    /// Length in bytes.
    pub(crate) fn bytes(&self) -> usize {
        ENVELOPE_BYTES + self.behind.map_or(0, |behind| behind.len())
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.envelope);
        out.extend(self.behind.iter().flatten());
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

/// The nonce of a part: its domain and the offset at which it stands, which only grows under one key. Never
/// random.
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
    /// Tells keys apart in [`crate::fuzzing::seals`].
    #[cfg(feature = "fuzzing")]
    fingerprint: [u8; 32],
}

impl Cipher {
    pub(crate) fn new(suite: CipherSuite, key: &[u8; 32]) -> Result<Self> {
        let algorithm = match suite {
            CipherSuite::Aes256Gcm => &AES_256_GCM,
            CipherSuite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        #[cfg(feature = "fuzzing")]
        let fingerprint = blake3::derive_key("copal test fingerprint of a key", key);
        let key = UnboundKey::new(algorithm, key).map_err(|_| Error::damaged("a key", "it has not 32 bytes"))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            #[cfg(feature = "fuzzing")]
            fingerprint,
        })
    }

    /// Encrypts in place and returns the tag.
    pub(crate) fn seal(&self, nonce: [u8; 12], aad: &[u8], plain: &mut [u8]) -> Result<[u8; TAG_BYTES]> {
        #[cfg(feature = "fuzzing")]
        crate::fuzzing::note_seal(self.fingerprint, nonce, aad, plain);
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), plain)
            .map_err(|_| Error::Limit { what: "a sealed part".into(), limit: u64::from(u32::MAX) })?;
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        Ok(bytes)
    }

    /// Decrypts in place `ciphertext | tag`; returns the length of the plaintext at the front. `None`: it
    /// does not verify.
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
    fn derivations_of_slots_and_secrets_have_known_answers() {
        let keys = keys();
        let slot = ObjectId([3; 16]);
        let sealed = {
            let mut text = *b"sixteen bytes ok";
            let tag = keys.slot_info_cipher(slot).unwrap().seal(nonce(Domain::Wrapped, 0), b"aad", &mut text).unwrap();
            format!("{}{}", hex::encode(text), hex::encode(tag))
        };
        let answers = [
            ("grant", hex::encode(*keys.grant_key(slot).unwrap())),
            ("slot info", sealed),
            ("secrets of epoch 0", hex::encode(*keys.first_secrets_key().unwrap())),
            ("object key", hex::encode(*keys.first_object_key(ObjectKind::Root, slot).unwrap())),
        ];
        let found: String = answers.iter().map(|(name, answer)| format!("{name}: {answer}\n")).collect();
        assert_eq!(found, include_str!("../tests/known_answers_secrets.txt"));
    }

    #[test]
    fn derived_keys_differ_from_each_other() {
        let keys = keys();
        let NamingSecrets { chunk_id, name_tag, cutter, tree_boundary, local_state } = keys.inner.naming.clone();
        let object = **keys.inner.object.as_ref().unwrap();
        let (grant, info) = (blake3::derive_key(GRANT, &[7; 32]), blake3::derive_key(SLOT_INFO, &[7; 32]));
        let all = [[7; 32], chunk_id, name_tag, cutter, tree_boundary, local_state, object, grant, info];
        let different: std::collections::BTreeSet<[u8; 32]> = all.into_iter().collect();
        assert_eq!(different.len(), all.len());
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
