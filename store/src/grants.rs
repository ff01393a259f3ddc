//! Grants: the keys of an epoch, sealed to one slot. And markers: the objects that say which epochs have begun.
//!
//! A rotation writes a grant for every slot, then the marker: without it the epoch has not begun. Names: `keys/<slot>-<epoch>` and
//! `keys/epoch-<epoch>`, the number in 8 hexadecimal digits.

use zeroize::Zeroizing;

use crate::backend::{Backend, ObjectKind, ObjectName, publish_bytes};
use crate::config::CipherSuite;
use crate::entropy::Entropy;
use crate::envelope::{ENVELOPE_BYTES, Envelope, Sealing};
use crate::epochs::EpochKeys;
use crate::ids::ObjectId;
use crate::keys::{Cipher, Domain, nonce};
use crate::sealed_to::{PUBLIC_KEY_BYTES, open_message, seal_message};
use crate::slots::SLOT_BYTES_MAX;
use crate::{Error, Result, codec};

/// What a slot opens its grants with.
pub(crate) struct SlotKeys {
    pub(crate) slot: ObjectId,
    pub(crate) private: Zeroizing<[u8; 32]>,
    pub(crate) grant: Zeroizing<[u8; 32]>,
}

/// What an object in `keys/` is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyObject {
    Slot(ObjectId),
    Grant(ObjectId, u32),
    Epoch(u32),
}

impl KeyObject {
    /// `None`: a foreign file.
    pub(crate) fn parse(name: &ObjectName) -> Option<Self> {
        match name.name().split_once('-') {
            None => ObjectId::from_hex(name.name()).map(Self::Slot),
            Some(("epoch", number)) => number_of(number).map(Self::Epoch),
            Some((slot, number)) => Some(Self::Grant(ObjectId::from_hex(slot)?, number_of(number)?)),
        }
    }

    pub(crate) fn name(self) -> ObjectName {
        let name = match self {
            Self::Slot(slot) => slot.to_string(),
            Self::Grant(slot, epoch) => format!("{slot}-{epoch:08x}"),
            Self::Epoch(epoch) => format!("epoch-{epoch:08x}"),
        };
        ObjectName::new(ObjectKind::KeySlot, name).expect("hexadecimal digits and dashes are a name")
    }
}

fn number_of(text: &str) -> Option<u32> {
    let number = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8)?;
    (number > 0 && text.bytes().all(|byte| !byte.is_ascii_uppercase())).then_some(number)
}

/// The epochs that have begun, in order.
pub(crate) fn begun(backend: &dyn Backend) -> Result<Vec<u32>> {
    let listed = backend.list(ObjectKind::KeySlot)?;
    let mut numbers: Vec<u32> = listed
        .iter()
        .filter_map(|object| match KeyObject::parse(&object.name) {
            Some(KeyObject::Epoch(number)) => Some(number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Writes a grant. One that stands already is of an interrupted rotation: it is replaced.
pub(crate) fn write(
    backend: &dyn Backend,
    entropy: &dyn Entropy,
    slot: ObjectId,
    public: &[u8; PUBLIC_KEY_BYTES],
    grant: &[u8; 32],
    epoch: &EpochKeys,
) -> Result<()> {
    let name = KeyObject::Grant(slot, epoch.number).name();
    let envelope = envelope(slot, epoch.number);
    let message = codec::encode_secret(epoch)?;
    let sealed = seal_message(entropy, public, grant, &info(&name, &envelope), &message)?;
    backend.delete(std::slice::from_ref(&name))?;
    publish_bytes(backend, &name, &[&envelope[..], &sealed].concat())
}

/// Opens the grant of an epoch to a slot.
pub(crate) fn read(backend: &dyn Backend, slot: &SlotKeys, number: u32) -> Result<EpochKeys> {
    let name = KeyObject::Grant(slot.slot, number).name();
    let bytes = backend.read(&name, SLOT_BYTES_MAX)?;
    open(&name, &bytes, slot, number)
}

fn open(name: &ObjectName, bytes: &[u8], slot: &SlotKeys, number: u32) -> Result<EpochKeys> {
    let object = name.to_string();
    let envelope = Envelope::decode(&object, ObjectKind::KeySlot, bytes)?;
    if (envelope.id, envelope.epoch) != (slot.slot, number) {
        return Err(Error::damaged(object, "it is of another slot or epoch"));
    }
    let info = info(name, &envelope.encode());
    let message = open_message(&slot.private, &slot.grant, &info, &bytes[ENVELOPE_BYTES..])
        .ok_or_else(|| Error::damaged(&object, "it does not verify"))?;
    let epoch: EpochKeys = codec::decode(&object, &message)?;
    if epoch.number == number { Ok(epoch) } else { Err(Error::damaged(object, "it has keys of another epoch")) }
}

/// Begins an epoch: from here on it seals what is new.
pub(crate) fn mark_begun(backend: &dyn Backend, epoch: &EpochKeys, created_seconds: i64) -> Result<()> {
    let name = KeyObject::Epoch(epoch.number).name();
    let id = marker_id(epoch.number);
    let envelope = envelope(id, epoch.number);
    let mut text = created_seconds.to_le_bytes().to_vec();
    let cipher = Cipher::new(CipherSuite::ChaCha20Poly1305, &epoch.derived_key(ObjectKind::KeySlot, id))?;
    let tag = cipher.seal(nonce(Domain::Part, 0), &envelope, &mut text)?;
    publish_bytes(backend, &name, &[&envelope[..], &text, &tag].concat())
}

/// When an epoch began, in seconds since 1970-01-01 UTC.
pub(crate) fn read_marker(backend: &dyn Backend, epoch: &EpochKeys) -> Result<i64> {
    let name = KeyObject::Epoch(epoch.number).name();
    let bytes = backend.read(&name, SLOT_BYTES_MAX)?;
    let envelope = Envelope::decode(&name.to_string(), ObjectKind::KeySlot, &bytes)?;
    let cipher = Cipher::new(CipherSuite::ChaCha20Poly1305, &epoch.derived_key(ObjectKind::KeySlot, envelope.id))?;
    let mut text = bytes[ENVELOPE_BYTES..].to_vec();
    let opened = cipher.open(nonce(Domain::Part, 0), &envelope.encode(), &mut text);
    let seconds = opened.and_then(|_| text.first_chunk().copied()).map(i64::from_le_bytes);
    seconds.ok_or_else(|| Error::damaged(&name, "it does not verify"))
}

fn marker_id(number: u32) -> ObjectId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    ObjectId(id)
}

fn envelope(id: ObjectId, epoch: u32) -> [u8; ENVELOPE_BYTES] {
    Envelope::of_epoch(ObjectKind::KeySlot, CipherSuite::ChaCha20Poly1305, id, epoch, Sealing::Derived).encode()
}

fn info(name: &ObjectName, envelope: &[u8; ENVELOPE_BYTES]) -> Vec<u8> {
    [b"copal v2 grant".as_slice(), envelope, name.to_string().as_bytes()].concat()
}
