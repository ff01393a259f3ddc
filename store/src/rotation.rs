//! Rotation of the keys, and the step from formats 1 and 2 to a repository whose keys are signed for.

use crate::backend::{Hold, ObjectKind, ObjectName};
use crate::collect::{take_over, take_over_roots};
use crate::envelope::Envelope;
use crate::epochs::{EPOCHS_MAX, EpochKeys, epoch_of};
use crate::grants::{self, KeyObject};
use crate::ids::ObjectId;
use crate::key_slots::member_of;
use crate::keys::{Credential, KeySlotInfo, StretchCost};
use crate::repository::Repository;
use crate::roles::{Action, Role};
use crate::roster::{BegunEpoch, Body, Roster};
use crate::slots::{NewSlot, SLOT_BYTES_MAX, is_slot, unsigned_slot_info};
use crate::{Error, Result};

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The epoch that began.
    pub epoch: u32,
    /// The slot in use, and the one that replaces it because it was of an older format: the repository has
    /// format 3 from now on, and has to be opened again.
    pub replaced: Option<(ObjectId, ObjectId)>,
    /// Slots that were given the keys of the epoch.
    pub slots: usize,
}

/// An epoch, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochInfo {
    /// Its number; 0: the keys of the master key.
    pub number: u32,
    /// Seconds since 1970-01-01 UTC at which it began; `None` for epoch 0.
    pub created_seconds: Option<i64>,
}

impl Repository {
    /// The epochs that have begun.
    pub fn key_epochs(&self) -> Result<Vec<EpochInfo>> {
        self.refresh_keys()?;
        let mut epochs = vec![EpochInfo { number: 0, created_seconds: None }];
        let begun = match self.keys().roster() {
            Some(roster) => roster.body.epochs.clone(),
            None => self.unsigned_epochs(),
        };
        epochs.extend(
            begun
                .into_iter()
                .map(|epoch| EpochInfo { number: epoch.number, created_seconds: Some(epoch.created_seconds) }),
        );
        Ok(epochs)
    }

    /// Begins an epoch: new keys for all that is sealed by operations that begin from now on. Every slot of
    /// the roster is given them, and nobody else: neither who had a slot that was removed, nor a slot that
    /// stands in `keys/` and in no roster. A repository of an older format gets its roster so: the slot in
    /// use is replaced, with its credential; others make the rotation fail, and stand in the message.
    pub fn rotate_keys(&self, credential: &Credential, stretch: StretchCost, created_seconds: i64) -> Result<Rotation> {
        self.keys().role().require(Action::ManageKeys)?;
        let lease = self.keys_lease()?;
        self.refresh_keys()?;
        let rotation = match self.keys().roster() {
            Some(roster) => {
                self.end_introduction(&roster)?;
                self.rotate_signed(&roster, created_seconds, &*lease)?
            }
            None => self.give_roster(credential, stretch, created_seconds, &*lease)?,
        };
        lease.release()?;
        Ok(rotation)
    }

    /// Does again what the step to format 3 does after its first roster, where it was interrupted there: the
    /// next roster says that it is done, and from then on what nobody signed counts for nothing.
    pub(crate) fn end_introduction(&self, roster: &Roster) -> Result<()> {
        if !roster.is_being_introduced() {
            return Ok(());
        }
        self.remove_older_keys(roster)?;
        let lease = take_over(self, &|signer| signer.is_none())?;
        take_over_roots(self, &|signer| signer.is_none())?;
        lease.release()
    }

    fn rotate_signed(&self, roster: &Roster, created_seconds: i64, lease: &dyn Hold) -> Result<Rotation> {
        let epoch = EpochKeys::generate(next_number(roster.epoch())?, &**self.entropy())?;
        let mut slots = 0;
        for member in roster.body.current() {
            self.write_grant(member.slot, &member.sealing, &epoch.for_role(member.role))?;
            slots += 1;
        }
        let mut body = roster.body.clone();
        body.epochs.push(begun(&epoch, created_seconds));
        let draft = self.next_draft(Some(roster), body)?;
        self.publish_roster(draft, &self.keys().signing_key()?, Some(lease))?;
        let number = epoch.number;
        self.keys().adopt_epoch(epoch);
        Ok(Rotation { epoch: number, replaced: None, slots })
    }

    /// The first roster of a repository of format 1 or 2. Whoever had the master key can make slots of those
    /// formats, so none but the one in use is taken over; and what is there now is signed by it, because it
    /// could be made by anybody later.
    fn give_roster(
        &self,
        credential: &Credential,
        stretch: StretchCost,
        created_seconds: i64,
        lease: &dyn Hold,
    ) -> Result<Rotation> {
        let slots = self.unsigned_slots()?;
        let old = only_current(&slots)?;
        let known = self.unsigned_epochs();
        let epoch = EpochKeys::generate(next_number(self.keys().epoch())?, &**self.entropy())?;
        let new = NewSlot::draw(&**self.entropy(), credential, &old.label, stretch)?;
        let (id, signer) = (new.id, new.signer.clone());
        let members = vec![member_of(&new, Role::Full, &old.label, old.created_seconds)];
        let mut epochs = known;
        epochs.push(begun(&epoch, created_seconds));
        let draft = self.next_draft(None, Body { members, epochs, ..Body::default() })?;
        let mut given = self.known_epochs();
        given.push(epoch.clone());
        self.introduce(new, Role::Full, &given, draft, &signer, lease)?;
        let signed = Self::open(self.backend().clone(), self.entropy().clone(), credential)?;
        let roster = signed.roster_or_old("end the rotation")?;
        signed.end_introduction(&roster)?;
        // The second roster says that this is done: from then on what nobody signed was put there by
        // somebody.
        let draft = signed.next_draft(Some(&roster), roster.body.clone())?;
        signed.publish_roster(draft, &signer, Some(lease))?;
        Ok(Rotation { epoch: epoch.number, replaced: Some((old.id, id)), slots: 1 })
    }

    /// With the first roster in force nothing but what it names counts: what older programs made is removed
    /// in any order.
    fn remove_older_keys(&self, roster: &Roster) -> Result<()> {
        let is_old = |object: KeyObject| match object.slot() {
            Some(slot) => !roster.body.has_slot(slot),
            None => matches!(object, KeyObject::Epoch(_)),
        };
        let listed = grants::key_objects(&**self.backend())?.into_iter();
        let names: Vec<ObjectName> = listed.filter(|(object, _)| is_old(*object)).map(|(_, name)| name).collect();
        if names.is_empty() { Ok(()) } else { self.backend().delete(&names) }
    }

    fn unsigned_epochs(&self) -> Vec<BegunEpoch> {
        let backend = &**self.backend();
        // A mark that does not open says less, and stops nobody.
        let time = |epoch: &EpochKeys| grants::read_marker(backend, epoch).unwrap_or(0);
        self.keys().known_epochs().iter().map(|epoch| begun(epoch, time(epoch))).collect()
    }

    /// Narrow roles need that nothing of what they must open is sealed under the first keys, which they are
    /// not given.
    pub(crate) fn check_role(&self, role: Role) -> Result<()> {
        let kinds: &[ObjectKind] = match role {
            Role::Full => return Ok(()),
            Role::Read => &[],
            Role::Create => &[ObjectKind::Index, ObjectKind::Condemned],
            Role::Maintain => {
                &[ObjectKind::Index, ObjectKind::Condemned, ObjectKind::Root, ObjectKind::Label, ObjectKind::Pack]
            }
        };
        if self.keys().epoch() == 0 {
            let detail = format!("a key with the role {role} needs keys of its own: `copal key rotate` makes them");
            return Err(Error::KeySlot { detail });
        }
        for kind in kinds {
            if let Some(old) = self.older_than(*kind, 1)?.first() {
                let detail = format!(
                    "a key with the role {role} could not open {old}, which is sealed under the first keys: \
                     `copal key rotate --reseal` seals it again"
                );
                return Err(Error::KeySlot { detail });
            }
        }
        Ok(())
    }

    /// Objects of a kind that are sealed in an earlier epoch. Reads the header of each. One that does not
    /// open is older than nothing: its trouble is its own.
    pub(crate) fn older_than(&self, kind: ObjectKind, epoch: u32) -> Result<Vec<ObjectName>> {
        let mut old = Vec::new();
        for listed in self.backend().list(kind)? {
            match epoch_of(&**self.backend(), &listed.name) {
                Ok(found) if found < epoch => old.push(listed.name),
                Ok(_) => {}
                Err(error) if error.concerns_one_object() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(old)
    }
}

fn begun(epoch: &EpochKeys, created_seconds: i64) -> BegunEpoch {
    BegunEpoch { number: epoch.number, commitment: epoch.commitment(), created_seconds }
}

fn next_number(before: u32) -> Result<u32> {
    match before.checked_add(1) {
        Some(number) if number <= EPOCHS_MAX => Ok(number),
        _ => Err(Error::Limit { what: "the number of key epochs".into(), limit: EPOCHS_MAX.into() }),
    }
}

/// The slot in use, when there is no other.
fn only_current(slots: &[KeySlotInfo]) -> Result<&KeySlotInfo> {
    let others = slots.iter().filter(|slot| !slot.current);
    let names: Vec<String> =
        others.map(|slot| if slot.label.is_empty() { slot.id.to_string() } else { slot.label.clone() }).collect();
    if !names.is_empty() {
        let detail = format!(
            "the slots {} are of an older format and cannot be carried over to format 3: remove them \
             (`copal key remove`), rotate, and add them again",
            names.join(", ")
        );
        return Err(Error::KeySlot { detail });
    }
    slots.first().ok_or_else(|| Error::KeySlot { detail: "the key slot in use is gone".into() })
}

/// Checks an object in `keys/`, as far as the keys in hand open it: of another slot's grant, the envelope.
pub(crate) fn check_key_object(repository: &Repository, name: &ObjectName) -> Result<()> {
    let (backend, keys) = (&**repository.backend(), repository.keys());
    match KeyObject::parse(name) {
        Some(KeyObject::Epoch(number)) => match keys.known_epochs().iter().find(|epoch| epoch.number == number) {
            Some(epoch) => grants::read_marker(backend, epoch).map(drop),
            None => Ok(()),
        },
        Some(KeyObject::Grant(slot, number)) => {
            epoch_of(backend, name)?;
            if slot == repository.unlocked().slot { keys.check_grant(number) } else { Ok(()) }
        }
        // Whether the chain holds is looked at with all that is strange in `keys/`.
        Some(KeyObject::Roster(_)) => Ok(()),
        Some(KeyObject::Slot(_)) | None => {
            let bytes = backend.read(name, SLOT_BYTES_MAX)?;
            if !keys.is_signed() && keys.role().may(Action::ManageKeys) {
                return unsigned_slot_info(keys, name, &bytes, None).map(drop);
            }
            let envelope = Envelope::decode(&name.to_string(), ObjectKind::KeySlot, &bytes)?;
            match is_slot(name, &bytes) && envelope.id.to_string() == name.name() {
                true => Ok(()),
                false => Err(Error::damaged(name, "it is no key slot")),
            }
        }
    }
}
