//! Key slots: what a role needs, wrapped under what a person knows or has.
//!
//! A slot object of version 2: envelope | document {stretching, salt, commitment, public key, sealed secret, sealed info}. The
//! key-encryption key is Argon2id (RFC 9106) of a password, or a derivation of a key file's 32 bytes. The commitment, derived from it,
//! is compared before anything is opened, because neither AEAD here commits to its key. The key pair, derived from it too, takes
//! the keys of later epochs: a rotation seals them to every slot without knowing a password. A slot of version 1 (module `first`) has
//! none, and wraps the master key.

mod first;

use std::fmt;
use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::backend::{ObjectKind, ObjectName};
use crate::config::CipherSuite;
use crate::describe::Fields;
use crate::entropy::Entropy;
use crate::envelope::{ENVELOPE_BYTES, Envelope, FIRST_VERSION, Sealing};
use crate::grants::SlotKeys;
use crate::ids::ObjectId;
use crate::keys::{Cipher, Domain, Keys, RoleSecrets, nonce};
use crate::roles::Role;
use crate::sealed_to::{PUBLIC_KEY_BYTES, key_pair};
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

/// A slot that was opened before, so that it opens again without stretching. As good as the password, for this slot only.
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
    /// What people call it.
    pub label: String,
    /// `true`: a key file; `false`: a password.
    pub key_file: bool,
    /// What its holder may do.
    pub role: Role,
    /// Whether a rotation can give it new keys: slots of the first version cannot take any.
    pub can_rotate: bool,
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
/// Slots of one repository; each wrong password costs a stretching for each.
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
    public_key: [u8; PUBLIC_KEY_BYTES],
    sealed_secret: Vec<u8>,
    sealed_info: Vec<u8>,
}

/// What the credential opens.
#[derive(Serialize, Deserialize)]
struct SlotSecret {
    role: Role,
    master: Option<[u8; 32]>,
    narrow: Option<RoleSecrets>,
    grant: [u8; 32],
}

impl Drop for SlotSecret {
    fn drop(&mut self) {
        self.master.zeroize();
        self.grant.zeroize();
    }
}

/// What owners list. It binds the public key and the role: nobody else can put another key into a slot.
#[derive(Serialize, Deserialize)]
struct SlotInfo {
    label: String,
    created_seconds: i64,
    role: Role,
    public_key: [u8; PUBLIC_KEY_BYTES],
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

/// A new slot.
pub(crate) struct NewSlot<'a> {
    pub(crate) credential: &'a Credential,
    pub(crate) label: &'a str,
    pub(crate) role: Role,
    pub(crate) cost: StretchCost,
    pub(crate) created_seconds: i64,
    /// The object of the configuration, which every role opens.
    pub(crate) config: ObjectId,
}

/// Makes a slot for a credential. Only an owner can.
pub(crate) fn seal_slot(keys: &Keys, entropy: &dyn Entropy, new: &NewSlot<'_>) -> Result<(ObjectId, Vec<u8>)> {
    let (id, salt) = draw(entropy, new.label)?;
    let envelope = slot_envelope(id);
    let stretching = stretching_of(new.credential, new.cost)?;
    let stretched = stretch(&stretching, &salt, id, new.credential)?
        .ok_or_else(|| Error::KeySlot { detail: "its stretching does not fit the credential".into() })?;
    let (_, public_key) = slot_key_pair(&stretched);
    let full = new.role == Role::Full;
    let secret = SlotSecret {
        role: new.role,
        master: if full { Some(*keys.master()?) } else { None },
        narrow: if full { None } else { Some(keys.role_secrets(new.role, new.config)?) },
        grant: *keys.grant_key(id)?,
    };
    let mut sealed_secret = codec::encode_secret(&secret)?;
    let tag = wrapping_cipher(&stretched)?.seal(nonce(Domain::Wrapped, 0), &envelope, &mut sealed_secret)?;
    let sealed_secret = [&sealed_secret[..], &tag[..]].concat();
    let (label, created_seconds) = (new.label.to_owned(), new.created_seconds);
    let mut sealed_info = codec::encode(&SlotInfo { label, created_seconds, role: new.role, public_key })?;
    let tag = keys.slot_info_cipher(id)?.seal(nonce(Domain::Part, 0), &envelope, &mut sealed_info)?;
    sealed_info.extend_from_slice(&tag);
    let commitment = commitment_of(&stretched);
    let document = SlotDocument { stretching, salt, commitment, public_key, sealed_secret, sealed_info };
    Ok((id, [&envelope[..], &codec::encode(&document)?].concat()))
}

pub(crate) use first::seal_first_slot;

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

fn slot_envelope(id: ObjectId) -> [u8; ENVELOPE_BYTES] {
    let suite = CipherSuite::ChaCha20Poly1305;
    Envelope::of_epoch(ObjectKind::KeySlot, suite, id, 0, Sealing::Derived).encode()
}

/// Tries a credential on a slot; `None` when it does not fit.
pub(crate) fn open_slot(name: &ObjectName, bytes: &[u8], credential: &Credential) -> Result<Option<OpenSlot>> {
    // A slot that was renamed locks nobody out; verification names it.
    let envelope = decode_any_envelope(name, bytes)?;
    if envelope.version == FIRST_VERSION {
        return first::open(name, bytes, envelope, credential);
    }
    let document: SlotDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    let Some(stretched) = stretch(&document.stretching, &document.salt, envelope.id, credential)? else {
        return Ok(None);
    };
    if commitment_of(&stretched) != document.commitment {
        return Ok(None);
    }
    let damaged = || Error::damaged(name, "what it holds does not verify");
    let mut secret = Zeroizing::new(document.sealed_secret);
    let cipher = wrapping_cipher(&stretched)?;
    let plain_bytes = cipher.open(nonce(Domain::Wrapped, 0), &envelope.encode(), &mut secret).ok_or_else(damaged)?;
    let secret: SlotSecret = codec::decode(&name.to_string(), &secret[..plain_bytes])?;
    let (private, public) = slot_key_pair(&stretched);
    let holds = match (secret.role, secret.master, &secret.narrow) {
        (Role::Full, Some(master), None) => Holds::Master(Zeroizing::new(master)),
        (role, None, Some(narrow)) if role != Role::Full => Holds::Narrow(role, narrow.clone()),
        _ => return Err(damaged()),
    };
    if public != document.public_key {
        return Err(damaged());
    }
    let keys = SlotKeys { slot: envelope.id, private, grant: Zeroizing::new(secret.grant) };
    Ok(Some(OpenSlot { unlocked: Unlocked { slot: envelope.id, stretched }, holds, keys: Some(Arc::new(keys)) }))
}

/// What an owner sees of a slot, and the public key that takes its grants (none in the first version).
pub(crate) fn slot_info(
    keys: &Keys,
    name: &ObjectName,
    bytes: &[u8],
    current: Option<ObjectId>,
) -> Result<(KeySlotInfo, Option<[u8; PUBLIC_KEY_BYTES]>)> {
    let envelope = decode_envelope(name, bytes)?;
    let id = envelope.id;
    if envelope.version == FIRST_VERSION {
        return Ok((first::info(keys, name, bytes, envelope, current)?, None));
    }
    let document: SlotDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    let info = open_info(keys, name, &envelope, &document)?;
    let listed = KeySlotInfo {
        id,
        label: info.label,
        key_file: matches!(document.stretching, Stretching::KeyFile),
        role: info.role,
        can_rotate: true,
        created_seconds: info.created_seconds,
        current: current == Some(id),
    };
    Ok((listed, Some(info.public_key)))
}

fn open_info(keys: &Keys, name: &ObjectName, envelope: &Envelope, document: &SlotDocument) -> Result<SlotInfo> {
    let mut sealed = document.sealed_info.clone();
    let plain_bytes = keys
        .slot_info_cipher(envelope.id)?
        .open(nonce(Domain::Part, 0), &envelope.encode(), &mut sealed)
        .ok_or_else(|| Error::damaged(name, "its label does not verify"))?;
    let info: SlotInfo = codec::decode(&name.to_string(), &sealed[..plain_bytes])?;
    if info.public_key == document.public_key {
        Ok(info)
    } else {
        Err(Error::damaged(name, "its public key is another than its owner gave it"))
    }
}

/// Adds a slot's fields; returns the plaintext of its label.
pub(crate) fn describe_slot(keys: &Keys, name: &ObjectName, bytes: &[u8], fields: &mut Fields) -> Result<Vec<u8>> {
    let envelope = decode_envelope(name, bytes)?;
    if envelope.version == FIRST_VERSION {
        return first::describe(keys, name, bytes, envelope, fields);
    }
    let document: SlotDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    let info = open_info(keys, name, &envelope, &document)?;
    add_stretching(fields, &document.stretching);
    fields.add("salt", hex::encode(document.salt));
    fields.add("commitment", hex::encode(document.commitment));
    fields.add("public key", hex::encode(document.public_key));
    fields.add("sealed secret", hex::encode(&document.sealed_secret));
    fields.add("label", &info.label);
    fields.add("created_seconds", info.created_seconds);
    fields.add("role", info.role);
    codec::encode(&info)
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

    fn check_bytes(keys: &Keys, id: ObjectId, bytes: &[u8], credential: &Credential, other: &Credential) -> OpenSlot {
        let name = ObjectName::new(ObjectKind::KeySlot, id.to_string()).unwrap();
        let opened = open_slot(&name, bytes, credential).unwrap().unwrap();
        assert!(open_slot(&name, bytes, other).unwrap().is_none());
        let again = Credential::Stretched(opened.unlocked.clone());
        assert!(open_slot(&name, bytes, &again).unwrap().is_some(), "an unlocked slot opens without stretching");
        let (info, _) = slot_info(keys, &name, bytes, Some(id)).unwrap();
        assert_eq!((info.label.as_str(), info.created_seconds, info.current), ("laptop", 17, true));
        assert!(!bytes.windows(6).any(|window| window == b"laptop"), "labels are sealed");
        for position in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[position] ^= 1;
            let opened = open_slot(&name, &flipped, credential);
            let listed = slot_info(keys, &name, &flipped, None);
            assert!(!matches!(opened, Ok(Some(_))) || listed.is_err(), "a flipped bit at {position} is accepted");
        }
        for length in 0..bytes.len() {
            assert!(open_slot(&name, &bytes[..length], credential).is_err());
        }
        opened
    }

    fn check(credential: &Credential, other: &Credential) {
        let keys = Keys::derive(&[9; 32], CipherSuite::Aes256Gcm);
        let (id, bytes) = seal_first_slot(&keys, &OsEntropy, credential, "laptop", CHEAP, 17).unwrap();
        let opened = check_bytes(&keys, id, &bytes, credential, other);
        assert!(matches!(opened.holds, Holds::Master(master) if *master == [9; 32]));
        for role in Role::ALL {
            let config = ObjectId([4; 16]);
            let new = NewSlot { credential, label: "laptop", role, cost: CHEAP, created_seconds: 17, config };
            let (id, bytes) = seal_slot(&keys, &OsEntropy, &new).unwrap();
            let opened = check_bytes(&keys, id, &bytes, credential, other);
            assert!(opened.keys.is_some());
            match opened.holds {
                Holds::Master(master) => assert!(role == Role::Full && *master == [9; 32]),
                Holds::Narrow(narrow, secrets) => {
                    assert_eq!(narrow, role);
                    assert_eq!(secrets.object.is_some(), role == Role::Read);
                }
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
