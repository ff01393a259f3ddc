//! Key slots: what a role needs, wrapped under what a person knows or has.
//!
//! A slot object of version 3: envelope | document {stretching, salt, commitment, sealed secret}. The
//! key-encryption key is Argon2id (RFC 9106) of a password, or a derivation of a key file's 32 bytes. The
//! commitment, derived from it, is compared before anything is opened, because neither AEAD here commits to
//! its key. Two key pairs are derived from it too: one takes the keys of later epochs, sealed by a rotation
//! without knowing a password, the other signs. Their public halves stand in the roster, and a slot that is
//! not there opens nothing. Slots of versions 1 and 2 (modules `first` and `second`) are only read.

mod choice;
mod first;
mod second;

pub(crate) use choice::{Choice, SlotFile};

use std::fmt;
use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::backend::{ObjectKind, ObjectName};
use crate::config::CipherSuite;
use crate::describe::Fields;
use crate::entropy::Entropy;
use crate::envelope::{ENVELOPE_BYTES, EPOCH_VERSION, Envelope, FIRST_VERSION};
use crate::grants::SlotKeys;
use crate::ids::ObjectId;
use crate::keys::{Cipher, Domain, Keys, RoleSecrets, nonce};
use crate::roles::Role;
use crate::roster::Anchor;
use crate::sealed_to::{PUBLIC_KEY_BYTES, key_pair};
use crate::signing::{Signer, SignerId};
use crate::{Error, Result, codec};

/// What opens a key slot.
#[derive(Clone)]
pub enum Credential {
    /// Stretched by Argon2id.
    Password(Zeroizing<Vec<u8>>),
    /// 32 random bytes, not stretched.
    KeyFile(Zeroizing<[u8; 32]>),
    /// What one slot's password was stretched to, or its key file derived to: see [`Unlocked`].
    Stretched(Unlocked),
}

/// A slot that was opened before, so that it opens again without stretching. As good as the password, for
/// this slot only.
#[derive(Clone)]
pub struct Unlocked {
    /// The slot.
    pub slot: ObjectId,
    /// Its secret.
    pub stretched: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unlocked({}, …)", self.slot)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::KeyFile(_) => f.write_str("KeyFile(…)"),
            Self::Stretched(unlocked) => write!(f, "Stretched({unlocked:?})"),
        }
    }
}

/// One key slot, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySlotInfo {
    /// Name of the slot's object.
    pub id: ObjectId,
    /// What its signatures are known by; `None` in repositories without signatures.
    pub signer: Option<SignerId>,
    /// What people call it.
    pub label: String,
    /// `true`: a key file; `false`: a password.
    pub key_file: bool,
    /// What its holder may do.
    pub role: Role,
    /// Seconds since 1970-01-01 UTC at which it was made.
    pub created_seconds: i64,
    /// Whether this slot opened the repository just now.
    pub current: bool,
}

/// Cost of Argon2id. The default is RFC 9106's second recommended profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StretchCost {
    /// Memory in KiB, at most [`STRETCH_MEMORY_KIB_MAX`].
    pub memory_kib: u32,
    /// Passes, at most [`STRETCH_PASSES_MAX`].
    pub passes: u32,
    /// Lanes, at most [`STRETCH_LANES_MAX`].
    pub lanes: u32,
}

/// A hostile slot may not take more memory than this: 1 GiB.
pub const STRETCH_MEMORY_KIB_MAX: u32 = 1 << 20;
/// Nor more passes.
pub const STRETCH_PASSES_MAX: u32 = 64;
/// Nor more lanes.
pub const STRETCH_LANES_MAX: u32 = 64;
/// Longest slot object in bytes.
pub(crate) const SLOT_BYTES_MAX: u64 = 16 << 10;
/// Longest label in bytes.
const LABEL_BYTES_MAX: usize = 255;
/// Slots of one repository.
pub const SLOTS_MAX: usize = 64;

impl Default for StretchCost {
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

#[derive(Serialize, Deserialize)]
enum Stretching {
    Argon2id(StretchCost),
    KeyFile,
}

#[derive(Serialize, Deserialize)]
struct SlotDocument {
    stretching: Stretching,
    salt: [u8; 32],
    commitment: [u8; 32],
    sealed_secret: Vec<u8>,
}

/// What the credential opens.
#[derive(Serialize, Deserialize)]
struct SlotSecret {
    role: Role,
    master: Option<[u8; 32]>,
    narrow: Option<RoleSecrets>,
    grant: [u8; 32],
    /// The roster that the slot was made with: what does not continue it was not made by the owners.
    anchor: Anchor,
}

impl Drop for SlotSecret {
    fn drop(&mut self) {
        self.master.zeroize();
        self.grant.zeroize();
    }
}

const KEY_FILE: &str = "copal v1 key file";
const COMMITMENT: &str = "copal v1 slot commitment";
const WRAPPING: &str = "copal v1 slot wrapping key";
const KEY_PAIR: &str = "copal v2 slot key pair";

/// A slot, opened.
pub(crate) struct OpenSlot {
    pub(crate) unlocked: Unlocked,
    pub(crate) holds: Holds,
    /// `None`: a slot of the first version.
    pub(crate) keys: Option<Arc<SlotKeys>>,
}

/// What a slot held.
pub(crate) enum Holds {
    Master(Zeroizing<[u8; 32]>),
    Narrow(Role, RoleSecrets),
}

impl Holds {
    /// `None`: more or less than the role has.
    fn of(role: Role, master: Option<[u8; 32]>, narrow: Option<&RoleSecrets>) -> Option<Self> {
        match (role, master, narrow) {
            (Role::Full, Some(master), None) => Some(Self::Master(Zeroizing::new(master))),
            (role, None, Some(narrow)) if role != Role::Full => Some(Self::Narrow(role, narrow.clone())),
            _ => None,
        }
    }
}

/// The secret of a credential for one slot; `None` when the kinds do not fit.
fn stretch(
    stretching: &Stretching,
    salt: &[u8; 32],
    slot: ObjectId,
    credential: &Credential,
) -> Result<Option<Zeroizing<[u8; 32]>>> {
    let mut stretched = Zeroizing::new([0u8; 32]);
    match (stretching, credential) {
        (Stretching::Argon2id(cost), Credential::Password(password)) => {
            stretch_password(password, salt, *cost, &mut stretched)?;
        }
        (Stretching::KeyFile, Credential::KeyFile(key)) => {
            let material = Zeroizing::new([&key[..], &salt[..]].concat());
            *stretched = blake3::derive_key(KEY_FILE, &material);
        }
        (_, Credential::Stretched(unlocked)) if unlocked.slot == slot => stretched = unlocked.stretched.clone(),
        _ => return Ok(None),
    }
    Ok(Some(stretched))
}

/// The secret of a credential that fits a slot: the commitment tells, before anything is opened with it.
/// `None`: it does not fit.
fn fitting(
    stretching: &Stretching,
    salt: &[u8; 32],
    commitment: &[u8; 32],
    slot: ObjectId,
    credential: &Credential,
) -> Result<Option<Zeroizing<[u8; 32]>>> {
    let stretched = stretch(stretching, salt, slot, credential)?;
    Ok(stretched.filter(|stretched| commitment_of(stretched) == *commitment))
}

/// Argon2id within the limits, for slots and for whatever else a password protects.
pub fn stretch_password(password: &[u8], salt: &[u8], cost: StretchCost, out: &mut [u8; 32]) -> Result<()> {
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters(cost)?);
    argon
        .hash_password_into(password, salt, out)
        .map_err(|error| Error::KeySlot { detail: format!("the password cannot be stretched: {error}") })
}

fn stretching_of(credential: &Credential, cost: StretchCost) -> Result<Stretching> {
    match credential {
        Credential::Password(_) => Ok(Stretching::Argon2id(cost)),
        Credential::KeyFile(_) => Ok(Stretching::KeyFile),
        Credential::Stretched(_) => {
            Err(Error::KeySlot { detail: "a new slot needs a password or a key file, not an unlocked key".into() })
        }
    }
}

fn commitment_of(stretched: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(COMMITMENT, stretched)
}

/// Slots are sealed before a suite is known, so theirs is fixed.
fn wrapping_cipher(stretched: &[u8; 32]) -> Result<Cipher> {
    let wrapping = Zeroizing::new(blake3::derive_key(WRAPPING, stretched));
    Cipher::new(CipherSuite::ChaCha20Poly1305, &wrapping)
}

fn slot_key_pair(stretched: &[u8; 32]) -> (Zeroizing<[u8; 32]>, [u8; PUBLIC_KEY_BYTES]) {
    key_pair(&Zeroizing::new(blake3::derive_key(KEY_PAIR, stretched)))
}

fn parameters(cost: StretchCost) -> Result<Params> {
    let within = (8..=STRETCH_MEMORY_KIB_MAX).contains(&cost.memory_kib)
        && (1..=STRETCH_PASSES_MAX).contains(&cost.passes)
        && (1..=STRETCH_LANES_MAX).contains(&cost.lanes);
    if !within {
        return Err(Error::KeySlot { detail: "its stretching costs are outside the limits".into() });
    }
    Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
        .map_err(|error| Error::KeySlot { detail: format!("its stretching costs cannot be used: {error}") })
}

/// A slot whose secrets are known and that is not sealed yet: the roster that it will be anchored at names
/// its public keys.
pub(crate) struct NewSlot {
    pub(crate) id: ObjectId,
    pub(crate) key_file: bool,
    pub(crate) sealing: [u8; PUBLIC_KEY_BYTES],
    pub(crate) signer: Signer,
    stretching: Stretching,
    salt: [u8; 32],
    stretched: Zeroizing<[u8; 32]>,
}

impl NewSlot {
    /// Draws a slot for a credential.
    pub(crate) fn draw(entropy: &dyn Entropy, credential: &Credential, label: &str, cost: StretchCost) -> Result<Self> {
        let (id, salt) = draw(entropy, label)?;
        let stretching = stretching_of(credential, cost)?;
        let stretched = stretch(&stretching, &salt, id, credential)?
            .ok_or_else(|| Error::KeySlot { detail: "its stretching does not fit the credential".into() })?;
        let (_, sealing) = slot_key_pair(&stretched);
        let signer = Signer::of_stretched(&stretched)?;
        let key_file = matches!(stretching, Stretching::KeyFile);
        Ok(Self { id, key_file, sealing, signer, stretching, salt, stretched })
    }

    /// Seals what a role is given. Only an owner can.
    pub(crate) fn seal(self, keys: &Keys, role: Role, anchor: Anchor) -> Result<Vec<u8>> {
        let envelope = Envelope::signed_slot(self.id).encode();
        let full = role == Role::Full;
        let config = ObjectId(keys.repository().0);
        let secret = SlotSecret {
            role,
            master: if full { Some(*keys.master()?) } else { None },
            narrow: if full { None } else { Some(keys.role_secrets(role, config)?) },
            grant: *keys.grant_key(self.id)?,
            anchor,
        };
        let mut sealed_secret = codec::encode_secret(&secret)?;
        let tag = wrapping_cipher(&self.stretched)?.seal(nonce(Domain::Wrapped, 0), &envelope, &mut sealed_secret)?;
        let sealed_secret = [&sealed_secret[..], &tag[..]].concat();
        let commitment = commitment_of(&self.stretched);
        let document = SlotDocument { stretching: self.stretching, salt: self.salt, commitment, sealed_secret };
        Ok([&envelope[..], &codec::encode(&document)?].concat())
    }
}

/// A slot's id and salt.
fn draw(entropy: &dyn Entropy, label: &str) -> Result<(ObjectId, [u8; 32])> {
    if label.len() > LABEL_BYTES_MAX {
        return Err(Error::Limit { what: "a key slot's label".into(), limit: LABEL_BYTES_MAX as u64 });
    }
    let (mut id, mut salt) = ([0; 16], [0; 32]);
    entropy.fill(&mut id)?;
    entropy.fill(&mut salt)?;
    Ok((ObjectId(id), salt))
}

/// Tries a credential on a slot; `None` when it does not fit.
pub(crate) fn open_slot(name: &ObjectName, bytes: &[u8], credential: &Credential) -> Result<Option<OpenSlot>> {
    // A slot that was renamed locks nobody out; verification names it.
    let envelope = decode_any_envelope(name, bytes)?;
    match envelope.version {
        FIRST_VERSION => return first::open(name, bytes, envelope, credential),
        EPOCH_VERSION => return second::open(name, bytes, envelope, credential),
        _ => {}
    }
    let document: SlotDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    let SlotDocument { stretching, salt, commitment, .. } = &document;
    let Some(stretched) = fitting(stretching, salt, commitment, envelope.id, credential)? else { return Ok(None) };
    let damaged = || Error::damaged(name, "what it holds does not verify");
    let mut secret = Zeroizing::new(document.sealed_secret);
    let cipher = wrapping_cipher(&stretched)?;
    let plain_bytes = cipher.open(nonce(Domain::Wrapped, 0), &envelope.encode(), &mut secret).ok_or_else(damaged)?;
    let secret: SlotSecret = codec::decode(&name.to_string(), &secret[..plain_bytes])?;
    let holds = Holds::of(secret.role, secret.master, secret.narrow.as_ref()).ok_or_else(damaged)?;
    let (private, _) = slot_key_pair(&stretched);
    let keys = SlotKeys {
        slot: envelope.id,
        private,
        grant: Zeroizing::new(secret.grant),
        signer: Some(Signer::of_stretched(&stretched)?),
        anchor: Some(secret.anchor),
    };
    Ok(Some(OpenSlot { unlocked: Unlocked { slot: envelope.id, stretched }, holds, keys: Some(Arc::new(keys)) }))
}

/// Whether an object looks like a slot.
pub(crate) fn is_slot(name: &ObjectName, bytes: &[u8]) -> bool {
    stretching_in(name, bytes).is_some()
}

/// How an object that looks like a slot stretches its credential; `None`: it is none. And the id that it has.
fn stretching_in(name: &ObjectName, bytes: &[u8]) -> Option<(ObjectId, Stretching)> {
    let envelope = decode_any_envelope(name, bytes).ok()?;
    let (object, document) = (name.to_string(), &bytes[ENVELOPE_BYTES..]);
    let stretching = match envelope.version {
        FIRST_VERSION => first::stretching(&object, document)?,
        EPOCH_VERSION => second::stretching(&object, document)?,
        _ => codec::decode::<SlotDocument>(&object, document).ok()?.stretching,
    };
    Some((envelope.id, stretching))
}

/// What an owner sees of a slot of a repository without a roster.
pub(crate) fn unsigned_slot_info(
    keys: &Keys,
    name: &ObjectName,
    bytes: &[u8],
    current: Option<ObjectId>,
) -> Result<KeySlotInfo> {
    let envelope = decode_envelope(name, bytes)?;
    match envelope.version {
        FIRST_VERSION => first::info(keys, name, bytes, envelope, current),
        EPOCH_VERSION => second::info(keys, name, bytes, envelope, current),
        _ => Err(Error::damaged(name, "it needs a roster, and the repository has none")),
    }
}

/// Adds a slot's fields; returns the plaintext of its label, or of its document.
pub(crate) fn describe_slot(keys: &Keys, name: &ObjectName, bytes: &[u8], fields: &mut Fields) -> Result<Vec<u8>> {
    let envelope = decode_envelope(name, bytes)?;
    match envelope.version {
        FIRST_VERSION => return first::describe(keys, name, bytes, envelope, fields),
        EPOCH_VERSION => return second::describe(keys, name, bytes, envelope, fields),
        _ => {}
    }
    let document: SlotDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    add_stretching(fields, &document.stretching);
    fields.add("salt", hex::encode(document.salt));
    fields.add("commitment", hex::encode(document.commitment));
    fields.add("sealed secret", hex::encode(&document.sealed_secret));
    codec::encode(&document)
}

/// A slot of a repository without a roster, as listed.
fn unsigned(
    id: ObjectId,
    stretching: &Stretching,
    role: Role,
    label: String,
    created_seconds: i64,
    current: Option<ObjectId>,
) -> KeySlotInfo {
    let key_file = matches!(stretching, Stretching::KeyFile);
    KeySlotInfo { id, signer: None, label, key_file, role, created_seconds, current: current == Some(id) }
}

/// What owners sealed of a slot for being listed, in the formats before rosters.
fn open_info<T: Serialize + DeserializeOwned>(
    cipher: &Cipher,
    name: &ObjectName,
    envelope: &Envelope,
    sealed: &[u8],
) -> Result<T> {
    let mut text = sealed.to_vec();
    let plain_bytes = cipher
        .open(nonce(Domain::Part, 0), &envelope.encode(), &mut text)
        .ok_or_else(|| Error::damaged(name, "its label does not verify"))?;
    codec::decode(&name.to_string(), &text[..plain_bytes])
}

fn add_stretching(fields: &mut Fields, stretching: &Stretching) {
    match stretching {
        Stretching::Argon2id(StretchCost { memory_kib, passes, lanes }) => {
            fields.add("stretching", format!("Argon2id, {memory_kib} KiB, {passes} passes, {lanes} lanes"));
        }
        Stretching::KeyFile => fields.add("stretching", "none: a key file"),
    }
}

fn decode_envelope(name: &ObjectName, bytes: &[u8]) -> Result<Envelope> {
    let envelope = decode_any_envelope(name, bytes)?;
    if envelope.id.to_string() == name.name() {
        Ok(envelope)
    } else {
        Err(Error::damaged(name, "it has the id of another object"))
    }
}

fn decode_any_envelope(name: &ObjectName, bytes: &[u8]) -> Result<Envelope> {
    let envelope = Envelope::decode(&name.to_string(), ObjectKind::KeySlot, bytes)?;
    if envelope.epoch == 0 { Ok(envelope) } else { Err(Error::damaged(name, "a slot belongs to no epoch")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::OsEntropy;

    const CHEAP: StretchCost = StretchCost { memory_kib: 8, passes: 1, lanes: 1 };

    fn password(text: &str) -> Credential {
        Credential::Password(Zeroizing::new(text.as_bytes().to_vec()))
    }

    fn check(credential: &Credential, other: &Credential) {
        let keys = Keys::derive(&[9; 32], CipherSuite::Aes256Gcm);
        let anchor = Anchor { sequence: 4, digest: [5; 32] };
        for role in Role::ALL {
            let new = NewSlot::draw(&OsEntropy, credential, "laptop", CHEAP).unwrap();
            let (id, sealing, signer) = (new.id, new.sealing, new.signer.id());
            let bytes = new.seal(&keys, role, anchor).unwrap();
            let name = ObjectName::new(ObjectKind::KeySlot, id.to_string()).unwrap();
            assert!(is_slot(&name, &bytes));
            let opened = open_slot(&name, &bytes, credential).unwrap().unwrap();
            assert!(open_slot(&name, &bytes, other).unwrap().is_none());
            let again = Credential::Stretched(opened.unlocked.clone());
            assert!(open_slot(&name, &bytes, &again).unwrap().is_some(), "it opens without stretching");
            let slot_keys = opened.keys.unwrap();
            assert_eq!(slot_key_pair(&opened.unlocked.stretched).1, sealing);
            assert_eq!((slot_keys.signer.as_ref().unwrap().id(), slot_keys.anchor), (signer, Some(anchor)));
            match opened.holds {
                Holds::Master(master) => assert!(role == Role::Full && *master == [9; 32]),
                Holds::Narrow(narrow, secrets) => {
                    assert_eq!(narrow, role);
                    assert_eq!(secrets.object.is_some(), role == Role::Read);
                }
            }
            for position in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[position] ^= 1;
                let opened = open_slot(&name, &flipped, credential);
                assert!(!matches!(opened, Ok(Some(_))), "a flipped bit at {position} is accepted");
                assert!(open_slot(&name, &bytes[..position], credential).is_err());
            }
        }
    }

    #[test]
    fn slots_open_with_their_credential_only() {
        let key_file = |byte| Credential::KeyFile(Zeroizing::new([byte; 32]));
        check(&password("right"), &password("wrong"));
        check(&key_file(1), &key_file(2));
        check(&password("right"), &key_file(1));
    }

    #[test]
    fn a_hostile_slot_cannot_demand_the_machine() {
        for cost in [
            StretchCost { memory_kib: u32::MAX, ..CHEAP },
            StretchCost { passes: u32::MAX, ..CHEAP },
            StretchCost { lanes: 65, ..CHEAP },
            StretchCost { memory_kib: 0, ..CHEAP },
        ] {
            assert!(matches!(parameters(cost), Err(Error::KeySlot { .. })));
        }
    }

    #[test]
    fn derivations_have_known_answers() {
        let stretched = |stretching, credential: &Credential| {
            stretch(&stretching, &[5; 32], ObjectId([3; 16]), credential).unwrap().unwrap()
        };
        let from_password = stretched(Stretching::Argon2id(CHEAP), &password("correct horse"));
        let from_file = stretched(Stretching::KeyFile, &Credential::KeyFile(Zeroizing::new([9; 32])));
        let wrapped = {
            let mut text = *b"sixteen bytes ok";
            let tag = wrapping_cipher(&from_file).unwrap().seal(nonce(Domain::Wrapped, 0), b"aad", &mut text).unwrap();
            format!("{}{}", hex::encode(text), hex::encode(tag))
        };
        let (private, public) = slot_key_pair(&from_file);
        let answers = [
            ("password", hex::encode(*from_password)),
            ("key file", hex::encode(*from_file)),
            ("commitment", hex::encode(commitment_of(&from_file))),
            ("wrapping", wrapped),
            ("private key", hex::encode(*private)),
            ("public key", hex::encode(public)),
        ];
        let found: String = answers.iter().map(|(name, answer)| format!("{name}: {answer}\n")).collect();
        assert_eq!(found, include_str!("../tests/known_answers_slots.txt"));
    }

    #[test]
    fn the_default_is_the_profile_of_rfc_9106() {
        let cost = StretchCost::default();
        assert_eq!((cost.memory_kib, cost.passes, cost.lanes), (64 * 1024, 3, 4));
    }
}
