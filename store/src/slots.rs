//! Key slots: the master key, wrapped under what a person knows or has.
//!
//! A slot object: envelope | document {stretching, salt, commitment, wrapped master key, sealed label}. The key-encryption key is
//! Argon2id (RFC 9106) of a password, or a derivation of a key file's 32 bytes. The commitment, derived from it, is compared
//! before anything is opened, because neither AEAD here commits to its key.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::backend::{ObjectKind, ObjectName};
use crate::config::CipherSuite;
use crate::describe::Fields;
use crate::entropy::Entropy;
use crate::envelope::{ENVELOPE_BYTES, Envelope};
use crate::ids::ObjectId;
use crate::keys::{Cipher, Domain, Keys, nonce};
use crate::{Error, Result, codec};

/// What opens a key slot.
#[derive(Clone)]
pub enum Credential {
    /// Stretched by Argon2id.
    Password(Zeroizing<Vec<u8>>),
    /// 32 random bytes, not stretched.
    KeyFile(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::KeyFile(_) => f.write_str("KeyFile(…)"),
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
    wrapped_master: Vec<u8>,
    sealed_info: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct SlotInfo {
    label: String,
    created_seconds: i64,
}

const KEY_FILE: &str = "copal v1 key file";
const COMMITMENT: &str = "copal v1 slot commitment";
const WRAPPING: &str = "copal v1 slot wrapping key";

/// The wrapping cipher and the commitment of a credential.
fn unlock(stretching: &Stretching, salt: &[u8; 32], credential: &Credential) -> Result<Option<(Cipher, [u8; 32])>> {
    let mut stretched = Zeroizing::new([0u8; 32]);
    match (stretching, credential) {
        (Stretching::Argon2id(cost), Credential::Password(password)) => {
            let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters(*cost)?);
            argon
                .hash_password_into(password, salt, &mut *stretched)
                .map_err(|error| Error::KeySlot { detail: format!("the password cannot be stretched: {error}") })?;
        }
        (Stretching::KeyFile, Credential::KeyFile(key)) => {
            let material = Zeroizing::new([&key[..], &salt[..]].concat());
            *stretched = blake3::derive_key(KEY_FILE, &material);
        }
        _ => return Ok(None),
    }
    let commitment = blake3::derive_key(COMMITMENT, &*stretched);
    let wrapping = Zeroizing::new(blake3::derive_key(WRAPPING, &*stretched));
    // Slots are sealed before a suite is known, so theirs is fixed.
    Ok(Some((Cipher::new(CipherSuite::ChaCha20Poly1305, &wrapping)?, commitment)))
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

/// Makes a slot for a credential.
pub(crate) fn seal_slot(
    keys: &Keys,
    entropy: &dyn Entropy,
    credential: &Credential,
    label: &str,
    cost: StretchCost,
    created_seconds: i64,
) -> Result<(ObjectId, Vec<u8>)> {
    if label.len() > LABEL_BYTES_MAX {
        return Err(Error::Limit { what: "a key slot's label".into(), limit: LABEL_BYTES_MAX as u64 });
    }
    let (mut id, mut salt) = ([0; 16], [0; 32]);
    entropy.fill(&mut id)?;
    entropy.fill(&mut salt)?;
    let id = ObjectId(id);
    let envelope = Envelope { kind: ObjectKind::KeySlot, suite: CipherSuite::ChaCha20Poly1305, id }.encode();
    let stretching = match credential {
        Credential::Password(_) => Stretching::Argon2id(cost),
        Credential::KeyFile(_) => Stretching::KeyFile,
    };
    let (cipher, commitment) = unlock(&stretching, &salt, credential)?
        .ok_or_else(|| Error::KeySlot { detail: "its stretching does not fit the credential".into() })?;
    let mut master = Zeroizing::new(keys.master().to_vec());
    let tag = cipher.seal(nonce(Domain::Wrapped, 0), &envelope, &mut master)?;
    let wrapped_master = [&master[..], &tag[..]].concat();
    let info = SlotInfo { label: label.to_owned(), created_seconds };
    let mut sealed_info = codec::encode(&info)?;
    let tag = keys.object_cipher(CipherSuite::ChaCha20Poly1305, ObjectKind::KeySlot, id)?.seal(
        nonce(Domain::Part, 0),
        &envelope,
        &mut sealed_info,
    )?;
    sealed_info.extend_from_slice(&tag);
    let document = SlotDocument { stretching, salt, commitment, wrapped_master, sealed_info };
    Ok((id, [&envelope[..], &codec::encode(&document)?].concat()))
}

/// Tries a credential on a slot: the master key, or `None` when it does not fit.
pub(crate) fn open_slot(
    name: &ObjectName,
    bytes: &[u8],
    credential: &Credential,
) -> Result<Option<Zeroizing<[u8; 32]>>> {
    let (envelope, document) = decode(name, bytes)?;
    let Some((cipher, commitment)) = unlock(&document.stretching, &document.salt, credential)? else { return Ok(None) };
    if commitment != document.commitment {
        return Ok(None);
    }
    let damaged = || Error::damaged(name, "the wrapped key does not verify");
    let mut master = Zeroizing::new(document.wrapped_master);
    let plain_bytes = cipher.open(nonce(Domain::Wrapped, 0), &envelope, &mut master).ok_or_else(damaged)?;
    let master: [u8; 32] = master[..plain_bytes].try_into().map_err(|_| damaged())?;
    Ok(Some(Zeroizing::new(master)))
}

/// What people see of a slot.
pub(crate) fn slot_info(
    keys: &Keys,
    name: &ObjectName,
    bytes: &[u8],
    current: Option<ObjectId>,
) -> Result<KeySlotInfo> {
    let (envelope, mut document) = decode(name, bytes)?;
    let id = Envelope::decode(&name.to_string(), ObjectKind::KeySlot, bytes)?.id;
    let cipher = keys.object_cipher(CipherSuite::ChaCha20Poly1305, ObjectKind::KeySlot, id)?;
    let plain_bytes = cipher
        .open(nonce(Domain::Part, 0), &envelope, &mut document.sealed_info)
        .ok_or_else(|| Error::damaged(name, "its label does not verify"))?;
    let info: SlotInfo = codec::decode(&name.to_string(), &document.sealed_info[..plain_bytes])?;
    let key_file = matches!(document.stretching, Stretching::KeyFile);
    Ok(KeySlotInfo {
        id,
        label: info.label,
        key_file,
        created_seconds: info.created_seconds,
        current: current == Some(id),
    })
}

/// Adds a slot's fields; returns the plaintext of its label.
pub(crate) fn describe_slot(keys: &Keys, name: &ObjectName, bytes: &[u8], fields: &mut Fields) -> Result<Vec<u8>> {
    let (_, document) = decode(name, bytes)?;
    let info = slot_info(keys, name, bytes, None)?;
    match document.stretching {
        Stretching::Argon2id(StretchCost { memory_kib, passes, lanes }) => {
            fields.add("stretching", format!("Argon2id, {memory_kib} KiB, {passes} passes, {lanes} lanes"));
        }
        Stretching::KeyFile => fields.add("stretching", "none: a key file"),
    }
    fields.add("salt", hex::encode(document.salt));
    fields.add("commitment", hex::encode(document.commitment));
    fields.add("wrapped master key", hex::encode(document.wrapped_master));
    fields.add("label", &info.label);
    fields.add("created_seconds", info.created_seconds);
    codec::encode(&SlotInfo { label: info.label, created_seconds: info.created_seconds })
}

fn decode(name: &ObjectName, bytes: &[u8]) -> Result<([u8; ENVELOPE_BYTES], SlotDocument)> {
    let envelope = Envelope::decode(&name.to_string(), ObjectKind::KeySlot, bytes)?;
    if envelope.id.to_string() != name.name() {
        return Err(Error::damaged(name, "it has the id of another object"));
    }
    let document: SlotDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    Ok((envelope.encode(), document))
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
        let (id, bytes) = seal_slot(&keys, &OsEntropy, credential, "laptop", CHEAP, 17).unwrap();
        let name = ObjectName::new(ObjectKind::KeySlot, id.to_string()).unwrap();
        assert_eq!(open_slot(&name, &bytes, credential).unwrap().as_deref(), Some(&[9; 32]));
        assert!(open_slot(&name, &bytes, other).unwrap().is_none());
        let info = slot_info(&keys, &name, &bytes, Some(id)).unwrap();
        assert_eq!((info.label.as_str(), info.created_seconds, info.current), ("laptop", 17, true));
        assert!(!bytes.windows(6).any(|window| window == b"laptop"), "labels are sealed");
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1;
            let opened = open_slot(&name, &flipped, credential);
            let listed = slot_info(&keys, &name, &flipped, None);
            assert!(!matches!(opened, Ok(Some(_))) || listed.is_err(), "a flipped bit at {position} is accepted");
        }
        for length in 0..bytes.len() {
            assert!(open_slot(&name, &bytes[..length], credential).is_err());
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
    fn the_default_is_the_profile_of_rfc_9106() {
        let cost = StretchCost::default();
        assert_eq!((cost.memory_kib, cost.passes, cost.lanes), (64 * 1024, 3, 4));
    }
}
