//! Slots of version 1: they wrap the master key, and take no grants. `init` makes one; the first rotation replaces it.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::backend::{ObjectKind, ObjectName};
use crate::config::CipherSuite;
use crate::describe::Fields;
use crate::entropy::Entropy;
use crate::envelope::{ENVELOPE_BYTES, Envelope};
use crate::ids::ObjectId;
use crate::keys::{Domain, Keys, nonce};
use crate::roles::Role;
use crate::slots::{
    Credential, Holds, KeySlotInfo, OpenSlot, StretchCost, Stretching, Unlocked, add_stretching, commitment_of, draw,
    stretch, stretching_of, wrapping_cipher,
};
use crate::{Error, Result, codec};

#[derive(Serialize, Deserialize)]
struct FirstDocument {
    stretching: Stretching,
    salt: [u8; 32],
    commitment: [u8; 32],
    wrapped_master: Vec<u8>,
    sealed_info: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct FirstInfo {
    label: String,
    created_seconds: i64,
}

/// Makes a slot for a credential.
pub(crate) fn seal_first_slot(
    keys: &Keys,
    entropy: &dyn Entropy,
    credential: &Credential,
    label: &str,
    cost: StretchCost,
    created_seconds: i64,
) -> Result<(ObjectId, Vec<u8>)> {
    let (id, salt) = draw(entropy, label)?;
    let envelope = Envelope::first(ObjectKind::KeySlot, CipherSuite::ChaCha20Poly1305, id).encode();
    let stretching = stretching_of(credential, cost)?;
    let stretched = stretch(&stretching, &salt, id, credential)?
        .ok_or_else(|| Error::KeySlot { detail: "its stretching does not fit the credential".into() })?;
    let mut master = Zeroizing::new(keys.master()?.to_vec());
    let tag = wrapping_cipher(&stretched)?.seal(nonce(Domain::Wrapped, 0), &envelope, &mut master)?;
    let wrapped_master = [&master[..], &tag[..]].concat();
    let mut sealed_info = codec::encode(&FirstInfo { label: label.to_owned(), created_seconds })?;
    let tag = keys.object_cipher(CipherSuite::ChaCha20Poly1305, ObjectKind::KeySlot, id)?.seal(
        nonce(Domain::Part, 0),
        &envelope,
        &mut sealed_info,
    )?;
    sealed_info.extend_from_slice(&tag);
    let commitment = commitment_of(&stretched);
    let document = FirstDocument { stretching, salt, commitment, wrapped_master, sealed_info };
    Ok((id, [&envelope[..], &codec::encode(&document)?].concat()))
}

pub(super) fn open(
    name: &ObjectName,
    bytes: &[u8],
    envelope: Envelope,
    credential: &Credential,
) -> Result<Option<OpenSlot>> {
    let document: FirstDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    let Some(stretched) = stretch(&document.stretching, &document.salt, envelope.id, credential)? else {
        return Ok(None);
    };
    if commitment_of(&stretched) != document.commitment {
        return Ok(None);
    }
    let damaged = || Error::damaged(name, "the wrapped key does not verify");
    let mut master = Zeroizing::new(document.wrapped_master);
    let cipher = wrapping_cipher(&stretched)?;
    let plain_bytes = cipher.open(nonce(Domain::Wrapped, 0), &envelope.encode(), &mut master).ok_or_else(damaged)?;
    let master: [u8; 32] = master[..plain_bytes].try_into().map_err(|_| damaged())?;
    let unlocked = Unlocked { slot: envelope.id, stretched };
    Ok(Some(OpenSlot { unlocked, holds: Holds::Master(Zeroizing::new(master)), keys: None }))
}

pub(super) fn info(
    keys: &Keys,
    name: &ObjectName,
    bytes: &[u8],
    envelope: Envelope,
    current: Option<ObjectId>,
) -> Result<KeySlotInfo> {
    let (document, info) = decode(keys, name, bytes, envelope)?;
    Ok(KeySlotInfo {
        id: envelope.id,
        label: info.label,
        key_file: matches!(document.stretching, Stretching::KeyFile),
        role: Role::Full,
        can_rotate: false,
        created_seconds: info.created_seconds,
        current: current == Some(envelope.id),
    })
}

pub(super) fn describe(
    keys: &Keys,
    name: &ObjectName,
    bytes: &[u8],
    envelope: Envelope,
    fields: &mut Fields,
) -> Result<Vec<u8>> {
    let (document, info) = decode(keys, name, bytes, envelope)?;
    add_stretching(fields, &document.stretching);
    fields.add("salt", hex::encode(document.salt));
    fields.add("commitment", hex::encode(document.commitment));
    fields.add("wrapped master key", hex::encode(document.wrapped_master));
    fields.add("label", &info.label);
    fields.add("created_seconds", info.created_seconds);
    codec::encode(&info)
}

fn decode(keys: &Keys, name: &ObjectName, bytes: &[u8], envelope: Envelope) -> Result<(FirstDocument, FirstInfo)> {
    let mut document: FirstDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    let cipher = keys.object_cipher(CipherSuite::ChaCha20Poly1305, ObjectKind::KeySlot, envelope.id)?;
    let plain_bytes = cipher
        .open(nonce(Domain::Part, 0), &envelope.encode(), &mut document.sealed_info)
        .ok_or_else(|| Error::damaged(name, "its label does not verify"))?;
    let info = codec::decode(&name.to_string(), &document.sealed_info[..plain_bytes])?;
    Ok((document, info))
}
