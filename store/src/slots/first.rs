//! Slots of version 1: they wrap the master key, and take no grants. Only read: the first rotation replaces
//! them.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::backend::{ObjectKind, ObjectName};
use crate::config::CipherSuite;
use crate::describe::Fields;
use crate::envelope::{ENVELOPE_BYTES, Envelope};
use crate::ids::ObjectId;
use crate::keys::{Domain, Keys, nonce};
use crate::roles::Role;
use crate::slots::{
    Credential, Holds, KeySlotInfo, OpenSlot, Stretching, Unlocked, add_stretching, fitting, open_info, unsigned,
    wrapping_cipher,
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

pub(super) fn open(
    name: &ObjectName,
    bytes: &[u8],
    envelope: Envelope,
    credential: &Credential,
) -> Result<Option<OpenSlot>> {
    let document: FirstDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    let FirstDocument { stretching, salt, commitment, .. } = &document;
    let Some(stretched) = fitting(stretching, salt, commitment, envelope.id, credential)? else { return Ok(None) };
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
    Ok(unsigned(envelope.id, &document.stretching, Role::Full, info.label, info.created_seconds, current))
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
    let document: FirstDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    let cipher = keys.object_cipher(CipherSuite::ChaCha20Poly1305, ObjectKind::KeySlot, envelope.id)?;
    let info = open_info(&cipher, name, &envelope, &document.sealed_info)?;
    Ok((document, info))
}

pub(super) fn stretching(object: &str, document: &[u8]) -> Option<Stretching> {
    codec::decode::<FirstDocument>(object, document).ok().map(|document| document.stretching)
}
