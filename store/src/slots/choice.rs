//! On which key slots a credential is tried, in which order, and on which it is not.
//!
//! Whoever can write to the storage can put files into `keys/` that look like slots. No one of them opens
//! anything, but each costs a stretching of the password. So those that this machine has opened before come
//! first, then the cheap ones; and there is an end to it.

use crate::backend::{Backend, ObjectKind, ObjectName, ObjectStat};
use crate::envelope::Envelope;
use crate::grants::KeyObject;
use crate::ids::ObjectId;
use crate::slots::{Credential, SLOT_BYTES_MAX, STRETCH_MEMORY_KIB_MAX, STRETCH_PASSES_MAX, Stretching, stretching_in};
use crate::{Error, Result};

/// Most KiB that are filled, pass for pass, for slots that this machine does not know: what one slot of the
/// highest cost takes, or some 340 of the usual one.
const WORK_MAX: u64 = STRETCH_MEMORY_KIB_MAX as u64 * STRETCH_PASSES_MAX as u64;

/// A file in `keys/` that looks like a slot. Its bytes are not kept: there may be any number of such files.
pub(crate) struct SlotFile {
    pub(crate) name: ObjectName,
    id: ObjectId,
    /// KiB that are filled, pass for pass, before it is known whether the credential fits.
    work: u64,
}

impl SlotFile {
    /// `None`: it does not look like a slot.
    pub(crate) fn new(name: &ObjectName, bytes: &[u8], credential: &Credential) -> Option<Self> {
        let (id, stretching) = stretching_in(name, bytes)?;
        let work = match (stretching, credential) {
            (Stretching::Argon2id(cost), Credential::Password(_)) => {
                u64::from(cost.memory_kib) * u64::from(cost.passes)
            }
            _ => 0,
        };
        Some(Self { name: name.clone(), id, work })
    }
}

/// What is tried.
pub(crate) struct Choice {
    /// In this order.
    pub(crate) tried: Vec<SlotFile>,
    /// How many look like slots and are not tried.
    pub(crate) passed_over: usize,
}

impl Choice {
    /// Of what stands in `keys/`. Beside it an error of what looks like no slot, if there is such a thing.
    pub(crate) fn look(
        backend: &dyn Backend,
        credential: &Credential,
        known: &[ObjectId],
    ) -> Result<(Self, Option<Error>)> {
        let (mut slots, mut unusable) = (Vec::new(), None);
        for ObjectStat { name, .. } in backend.list(ObjectKind::KeySlot)? {
            if !matches!(KeyObject::parse(&name), None | Some(KeyObject::Slot(_))) {
                continue;
            }
            match backend.read(&name, SLOT_BYTES_MAX) {
                Ok(bytes) => match SlotFile::new(&name, &bytes, credential) {
                    Some(slot) => slots.push(slot),
                    None => unusable = Some(not_a_slot(&name, &bytes)),
                },
                Err(error) => unusable = Some(error),
            }
        }
        Ok((Self::of(slots, known), unusable))
    }

    /// Said when none of those that were tried fits, and others were not.
    pub(crate) fn is_not_all(&self) -> Error {
        let detail = format!(
            "the password opens none of the {} files in `keys/` that it was tried on. {} more look like key slots and were \
             not tried, because it would take too long: somebody has put them there. A machine that has opened the \
             repository before tries its own slot first; there an owner's `copal verify --repair` removes them",
            self.tried.len(),
            self.passed_over
        );
        Error::KeySlot { detail }
    }

    /// `known`: slots that were opened here before, the last one first.
    pub(crate) fn of(mut slots: Vec<SlotFile>, known: &[ObjectId]) -> Self {
        let place = |slot: &SlotFile| known.iter().position(|known| *known == slot.id).unwrap_or(known.len());
        slots.sort_by_cached_key(|slot| (place(slot), slot.work, slot.name.clone()));
        let found = slots.len();
        let mut work: u64 = 0;
        slots.retain(|slot| {
            if place(slot) < known.len() {
                return true;
            }
            work = work.saturating_add(slot.work);
            work <= WORK_MAX
        });
        Self { passed_over: found - slots.len(), tried: slots }
    }
}

/// What is the matter with a file that does not look like a slot: it may be of a newer version.
fn not_a_slot(name: &ObjectName, bytes: &[u8]) -> Error {
    match Envelope::decode(&name.to_string(), ObjectKind::KeySlot, bytes) {
        Err(error) => error,
        Ok(_) => Error::damaged(name, "it is no key slot"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u8, work: u64) -> SlotFile {
        let id = ObjectId([number; 16]);
        let name = ObjectName::new(ObjectKind::KeySlot, id.to_string()).unwrap();
        SlotFile { name, id, work }
    }

    fn check(slots: Vec<SlotFile>, known: &[u8], tried: &[u8], passed_over: usize) {
        let known: Vec<ObjectId> = known.iter().map(|number| ObjectId([*number; 16])).collect();
        let choice = Choice::of(slots, &known);
        let found: Vec<u8> = choice.tried.iter().map(|slot| slot.id.0[0]).collect();
        assert_eq!((found.as_slice(), choice.passed_over), (tried, passed_over));
    }

    #[test]
    fn known_slots_come_first_and_then_cheap_ones() {
        check(vec![slot(1, 50), slot(2, 10), slot(3, 0), slot(4, 99)], &[4, 1], &[4, 1, 3, 2], 0);
        check(vec![slot(3, 7), slot(1, 7), slot(2, 7)], &[], &[1, 2, 3], 0);
    }

    #[test]
    fn there_is_an_end_to_it_but_not_for_known_ones() {
        check(vec![slot(1, WORK_MAX), slot(2, 1)], &[], &[2], 1);
        check(vec![slot(1, WORK_MAX)], &[], &[1], 0);
        check(vec![slot(1, WORK_MAX), slot(2, WORK_MAX), slot(3, WORK_MAX)], &[3, 2], &[3, 2, 1], 0);
        let usual = 64 * 1024 * 3;
        let choice = Choice::of((0..200).map(|number| slot(number, usual)).collect(), &[]);
        assert_eq!((choice.tried.len(), choice.passed_over), (200, 0));
        check(vec![slot(1, u64::MAX), slot(2, u64::MAX)], &[], &[], 2);
    }
}
