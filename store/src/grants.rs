//! Grants: the keys of an epoch, sealed to one slot. And the names of what else stands in `keys/`.
//!
//! A rotation writes a grant for every slot, then the roster that names the epoch: without it the epoch has
//! not begun. Names: `keys/<slot>-<epoch>`, `keys/roster-<sequence>` and its copy, numbers in 8 hexadecimal
//! digits. In repositories of format 2 a marker, `keys/epoch-<epoch>`, says that an epoch has begun.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use crate::backend::{Backend, ObjectKind, ObjectName, publish_bytes};
use crate::config::CipherSuite;
use crate::entropy::Entropy;
use crate::envelope::{ENVELOPE_BYTES, Envelope, Sealing};
use crate::epochs::EpochKeys;
use crate::ids::ObjectId;
use crate::keys::{Cipher, Domain, nonce};
use crate::roster::Anchor;
use crate::sealed_to::{PUBLIC_KEY_BYTES, open_message, seal_message};
use crate::signing::Signer;
use crate::slots::SLOT_BYTES_MAX;
use crate::{Error, Result, codec};

/// What a slot opens its grants with.
pub(crate) struct SlotKeys {
    pub(crate) slot: ObjectId,
    pub(crate) private: Zeroizing<[u8; 32]>,
    pub(crate) grant: Zeroizing<[u8; 32]>,
    /// `None`, as its anchor: a slot of format 2.
    pub(crate) signer: Option<Signer>,
    pub(crate) anchor: Option<Anchor>,
}

/// What an object in `keys/` is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyObject {
    Slot(ObjectId),
    Grant(ObjectId, u32),
    Epoch(u32),
    Roster(RosterName),
}

/// A roster's object, or the copy beside it: without one of them nothing could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RosterName {
    pub(crate) sequence: u32,
    pub(crate) is_copy: bool,
}

impl RosterName {
    /// Both objects of a roster.
    pub(crate) fn both(sequence: u32) -> [Self; 2] {
        [false, true].map(|is_copy| Self { sequence, is_copy })
    }

    pub(crate) fn object(self) -> ObjectName {
        KeyObject::Roster(self).name()
    }
}

impl KeyObject {
    /// `None`: a foreign file.
    pub(crate) fn parse(name: &ObjectName) -> Option<Self> {
        match name.name().split_once('-') {
            None => ObjectId::from_hex(name.name()).map(Self::Slot),
            Some(("epoch", number)) => number_of(number).map(Self::Epoch),
            Some(("roster", rest)) => {
                let number = rest.strip_suffix("-copy");
                let sequence = number_of(number.unwrap_or(rest))?;
                Some(Self::Roster(RosterName { sequence, is_copy: number.is_some() }))
            }
            Some((slot, number)) => Some(Self::Grant(ObjectId::from_hex(slot)?, number_of(number)?)),
        }
    }

    /// The slot that it is, or is for.
    pub(crate) fn slot(self) -> Option<ObjectId> {
        match self {
            Self::Slot(slot) | Self::Grant(slot, _) => Some(slot),
            Self::Epoch(_) | Self::Roster(_) => None,
        }
    }

    pub(crate) fn name(self) -> ObjectName {
        let name = match self {
            Self::Slot(slot) => slot.to_string(),
            Self::Grant(slot, epoch) => format!("{slot}-{epoch:08x}"),
            Self::Epoch(epoch) => format!("epoch-{epoch:08x}"),
            Self::Roster(RosterName { sequence, is_copy }) => {
                format!("roster-{sequence:08x}{}", if is_copy { "-copy" } else { "" })
            }
        };
        ObjectName::new(ObjectKind::KeySlot, name).expect("hexadecimal digits and dashes are a name")
    }
}

fn number_of(text: &str) -> Option<u32> {
    let number = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8)?;
    (number > 0 && text.bytes().all(|byte| !byte.is_ascii_uppercase())).then_some(number)
}

/// What stands in `keys/`, without foreign files.
pub(crate) fn key_objects(backend: &dyn Backend) -> Result<Vec<(KeyObject, ObjectName)>> {
    let listed = backend.list(ObjectKind::KeySlot)?.into_iter();
    Ok(listed.filter_map(|listed| Some((KeyObject::parse(&listed.name)?, listed.name))).collect())
}

/// The epochs of a repository without a roster that have begun, in order: those that have a marker, or a
/// grant to this slot.
pub(crate) fn begun(backend: &dyn Backend, slot: Option<ObjectId>) -> Result<Vec<u32>> {
    let numbers = key_objects(backend)?.into_iter().filter_map(|(object, _)| match object {
        KeyObject::Epoch(number) => Some(number),
        KeyObject::Grant(of, number) if Some(of) == slot => Some(number),
        _ => None,
    });
    let numbers: BTreeSet<u32> = numbers.collect();
    Ok(numbers.into_iter().collect())
}

/// The rosters that are there, whatever they are worth.
pub(crate) fn rosters(backend: &dyn Backend) -> Result<Vec<RosterName>> {
    let names = key_objects(backend)?.into_iter().filter_map(|(object, _)| match object {
        KeyObject::Roster(name) => Some(name),
        _ => None,
    });
    Ok(names.collect())
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

fn envelope(id: ObjectId, epoch: u32) -> [u8; ENVELOPE_BYTES] {
    Envelope::of_epoch(ObjectKind::KeySlot, CipherSuite::ChaCha20Poly1305, id, epoch, Sealing::Derived).encode()
}

fn info(name: &ObjectName, envelope: &[u8; ENVELOPE_BYTES]) -> Vec<u8> {
    [b"copal v2 grant".as_slice(), envelope, name.to_string().as_bytes()].concat()
}
