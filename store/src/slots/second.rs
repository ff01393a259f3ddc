//! Slots of version 2: a role's secrets and a public key for grants, under a label that owners sealed. Only
//! read: the rotation that gives a repository its roster replaces them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::backend::ObjectName;
use crate::describe::Fields;
use crate::envelope::{ENVELOPE_BYTES, Envelope};
use crate::grants::SlotKeys;
use crate::ids::ObjectId;
use crate::keys::{Domain, Keys, RoleSecrets, nonce};
use crate::roles::Role;
use crate::sealed_to::PUBLIC_KEY_BYTES;
use crate::slots::{
    Credential, Holds, KeySlotInfo, OpenSlot, Stretching, Unlocked, add_stretching, fitting, open_info, slot_key_pair,
    unsigned, wrapping_cipher,
};
use crate::{Error, Result, codec};

#[derive(Serialize, Deserialize)]
struct SecondDocument {
    stretching: Stretching,
    salt: [u8; 32],
    commitment: [u8; 32],
    public_key: [u8; PUBLIC_KEY_BYTES],
    sealed_secret: Vec<u8>,
    sealed_info: Vec<u8>,
}

/// What the credential opens.
#[derive(Serialize, Deserialize)]
struct SecondSecret {
    role: Role,
    master: Option<[u8; 32]>,
    narrow: Option<RoleSecrets>,
    grant: [u8; 32],
}

impl Drop for SecondSecret {
    fn drop(&mut self) {
        self.master.zeroize();
        self.grant.zeroize();
    }
}

/// What owners list. It binds the public key and the role.
#[derive(Serialize, Deserialize)]
struct SecondInfo {
    label: String,
    created_seconds: i64,
    role: Role,
    public_key: [u8; PUBLIC_KEY_BYTES],
}

pub(super) fn open(
    name: &ObjectName,
    bytes: &[u8],
    envelope: Envelope,
    credential: &Credential,
) -> Result<Option<OpenSlot>> {
    let document: SecondDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    let SecondDocument { stretching, salt, commitment, .. } = &document;
    let Some(stretched) = fitting(stretching, salt, commitment, envelope.id, credential)? else { return Ok(None) };
    let damaged = || Error::damaged(name, "what it holds does not verify");
    let mut secret = Zeroizing::new(document.sealed_secret);
    let cipher = wrapping_cipher(&stretched)?;
    let plain_bytes = cipher.open(nonce(Domain::Wrapped, 0), &envelope.encode(), &mut secret).ok_or_else(damaged)?;
    let secret: SecondSecret = codec::decode(&name.to_string(), &secret[..plain_bytes])?;
    let (private, public) = slot_key_pair(&stretched);
    if public != document.public_key {
        return Err(damaged());
    }
    let holds = Holds::of(secret.role, secret.master, secret.narrow.as_ref()).ok_or_else(damaged)?;
    let grant = Zeroizing::new(secret.grant);
    let keys = SlotKeys { slot: envelope.id, private, grant, signer: None, anchor: None };
    Ok(Some(OpenSlot { unlocked: Unlocked { slot: envelope.id, stretched }, holds, keys: Some(Arc::new(keys)) }))
}

pub(super) fn info(
    keys: &Keys,
    name: &ObjectName,
    bytes: &[u8],
    envelope: Envelope,
    current: Option<ObjectId>,
) -> Result<KeySlotInfo> {
    let (document, info) = decode(keys, name, bytes, envelope)?;
    Ok(unsigned(envelope.id, &document.stretching, info.role, info.label, info.created_seconds, current))
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
    fields.add("public key", hex::encode(document.public_key));
    fields.add("sealed secret", hex::encode(&document.sealed_secret));
    fields.add("label", &info.label);
    fields.add("created_seconds", info.created_seconds);
    fields.add("role", info.role);
    codec::encode(&info)
}

fn decode(keys: &Keys, name: &ObjectName, bytes: &[u8], envelope: Envelope) -> Result<(SecondDocument, SecondInfo)> {
    let document: SecondDocument = codec::decode(&name.to_string(), &bytes[ENVELOPE_BYTES..])?;
    let cipher = keys.slot_info_cipher(envelope.id)?;
    let info: SecondInfo = open_info(&cipher, name, &envelope, &document.sealed_info)?;
    if info.public_key == document.public_key {
        Ok((document, info))
    } else {
        Err(Error::damaged(name, "its public key is another than its owner gave it"))
    }
}

pub(super) fn stretching(object: &str, document: &[u8]) -> Option<Stretching> {
    codec::decode::<SecondDocument>(object, document).ok().map(|document| document.stretching)
}
