//! Key slots of an open repository, and the rotation of its keys.
//!
//! Slots, grants and markers change under the lease `keys`. A slot's grants are there before the slot, and the grants of an epoch before
//! its marker: whoever opens a slot finds every epoch that has begun.

use crate::backend::{Backend, Hold, ObjectKind, ObjectName, publish_bytes};
use crate::envelope::{ENVELOPE_BYTES, Envelope};
use crate::epochs::{EPOCHS_MAX, EpochKeys};
use crate::grants::{self, KeyObject};
use crate::ids::ObjectId;
use crate::keys::{Credential, KeySlotInfo, StretchCost};
use crate::repository::Repository;
use crate::roles::{Action, Role};
use crate::sealed_to::PUBLIC_KEY_BYTES;
use crate::slots::{NewSlot, SLOT_BYTES_MAX, SLOTS_MAX, seal_slot, slot_info};
use crate::{Error, Result};

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The epoch that began.
    pub epoch: u32,
    /// The slot in use, and the one that replaces it because it could not take new keys.
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

/// A slot's object, with what an owner knows of it.
type Listed = (KeySlotInfo, Option<[u8; PUBLIC_KEY_BYTES]>);

impl Repository {
    /// The key slots, by time of making. Only owners list them.
    pub fn key_slots(&self) -> Result<Vec<KeySlotInfo>> {
        Ok(self.listed_slots()?.into_iter().map(|(info, _)| info).collect())
    }

    /// The epochs that have begun.
    pub fn key_epochs(&self) -> Result<Vec<EpochInfo>> {
        self.refresh_keys()?;
        let mut epochs = vec![EpochInfo { number: 0, created_seconds: None }];
        for epoch in self.keys().epochs().all() {
            let created_seconds = Some(grants::read_marker(&**self.backend(), &epoch)?);
            epochs.push(EpochInfo { number: epoch.number, created_seconds });
        }
        Ok(epochs)
    }

    /// Adds a slot that may do everything.
    pub fn add_key_slot(
        &self,
        credential: &Credential,
        label: &str,
        stretch: StretchCost,
        created_seconds: i64,
    ) -> Result<ObjectId> {
        self.add_role_slot(credential, label, Role::Full, stretch, created_seconds)
    }

    /// Adds a slot of a role. Narrow roles exist from the first rotation on, because the first keys open everything; and they open
    /// nothing that is older.
    pub fn add_role_slot(
        &self,
        credential: &Credential,
        label: &str,
        role: Role,
        stretch: StretchCost,
        created_seconds: i64,
    ) -> Result<ObjectId> {
        self.keys().role().require(Action::ManageKeys)?;
        let lease = self.keys_lease()?;
        self.refresh_keys()?;
        self.check_role(role)?;
        if self.slot_names()?.len() >= SLOTS_MAX {
            return Err(Error::Limit { what: "the number of key slots".into(), limit: SLOTS_MAX as u64 });
        }
        let id = self.publish_slot(credential, label, role, stretch, created_seconds, &self.all_epochs())?;
        lease.release()?;
        Ok(id)
    }

    /// Removes a slot; the last owner's cannot be removed. What its holder copied of the keys stays known to him: see
    /// [`Self::rotate_keys`].
    pub fn remove_key_slot(&self, slot: ObjectId) -> Result<()> {
        self.keys().role().require(Action::ManageKeys)?;
        let lease = self.keys_lease()?;
        let slots = self.listed_slots()?;
        let Some((removed, _)) = slots.iter().find(|(info, _)| info.id == slot) else {
            return Err(Error::KeySlot { detail: format!("there is no slot {slot}") });
        };
        let owners = slots.iter().filter(|(info, _)| info.role == Role::Full).count();
        if removed.role == Role::Full && owners == 1 {
            let detail =
                "it is the last one that may do everything; without it nobody could open the repository wholly";
            return Err(Error::KeySlot { detail: detail.into() });
        }
        self.backend().delete(&[KeyObject::Slot(slot).name()])?;
        // Without the slot they open nothing: what a crash leaves of them is harmless.
        let is_its = |name: &ObjectName| matches!(KeyObject::parse(name), Some(KeyObject::Grant(of, _)) if of == slot);
        let listed = self.backend().list(ObjectKind::KeySlot)?;
        let grants: Vec<ObjectName> = listed.into_iter().map(|object| object.name).filter(is_its).collect();
        self.backend().delete(&grants)?;
        lease.release()
    }

    /// Begins an epoch: new keys for all that is sealed by operations that begin from now on. Every slot is given them, and whoever had
    /// a slot that was removed before has them not. A slot of the first version takes none: the one in use is replaced, with its
    /// credential; others make the rotation fail, and stand in the message.
    pub fn rotate_keys(&self, credential: &Credential, stretch: StretchCost, created_seconds: i64) -> Result<Rotation> {
        self.keys().role().require(Action::ManageKeys)?;
        let lease = self.keys_lease()?;
        self.refresh_keys()?;
        let slots = self.listed_slots()?;
        self.check_all_can_rotate(&slots)?;
        let number = self.keys().epoch() + 1;
        if number > EPOCHS_MAX {
            return Err(Error::Limit { what: "the number of key epochs".into(), limit: EPOCHS_MAX.into() });
        }
        let epoch = EpochKeys::generate(number, &**self.entropy())?;
        let mut rotation = Rotation { epoch: number, replaced: None, slots: 0 };
        if let Some((old, _)) = slots.iter().find(|(info, _)| !info.can_rotate) {
            let mut given = self.all_epochs();
            given.push(epoch.clone());
            let id = self.publish_slot(credential, &old.label, Role::Full, stretch, created_seconds, &given)?;
            rotation.replaced = Some((old.id, id));
            rotation.slots += 1;
        }
        for (info, public) in &slots {
            let Some(public) = public else { continue };
            self.write_grant(info.id, public, &epoch.for_role(info.role))?;
            rotation.slots += 1;
        }
        grants::mark_begun(&**self.backend(), &epoch, created_seconds)?;
        self.keys().epochs().adopt(epoch);
        if let Some((old, _)) = rotation.replaced {
            self.backend().delete(&[KeyObject::Slot(old).name()])?;
        }
        lease.release()?;
        Ok(rotation)
    }

    fn check_all_can_rotate(&self, slots: &[Listed]) -> Result<()> {
        let current = self.unlocked().slot;
        let old = slots.iter().filter(|(info, _)| !info.can_rotate && info.id != current);
        let names: Vec<String> =
            old.map(|(info, _)| if info.label.is_empty() { info.id.to_string() } else { info.label.clone() }).collect();
        if names.is_empty() {
            return Ok(());
        }
        let detail = format!(
            "the slots {} are of the first version and cannot be given new keys: let their owners change them \
             (`copal key change`), or remove them",
            names.join(", ")
        );
        Err(Error::KeySlot { detail })
    }

    /// Narrow roles need that nothing of what they must open is sealed under the first keys, which they are not given.
    fn check_role(&self, role: Role) -> Result<()> {
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

    /// Objects of a kind that are sealed in an earlier epoch. Reads the header of each.
    pub(crate) fn older_than(&self, kind: ObjectKind, epoch: u32) -> Result<Vec<ObjectName>> {
        let mut old = Vec::new();
        for listed in self.backend().list(kind)? {
            match epoch_of(&**self.backend(), &listed.name) {
                Ok(found) if found < epoch => old.push(listed.name),
                Ok(_) | Err(Error::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(old)
    }

    fn all_epochs(&self) -> Vec<EpochKeys> {
        self.keys().epochs().all().iter().map(|epoch| (**epoch).clone()).collect()
    }

    fn publish_slot(
        &self,
        credential: &Credential,
        label: &str,
        role: Role,
        cost: StretchCost,
        created_seconds: i64,
        epochs: &[EpochKeys],
    ) -> Result<ObjectId> {
        let config = ObjectId(self.config().repository.0);
        let new = NewSlot { credential, label, role, cost, created_seconds, config };
        let (id, bytes) = seal_slot(self.keys(), &**self.entropy(), &new)?;
        let name = KeyObject::Slot(id).name();
        let (_, public) = slot_info(self.keys(), &name, &bytes, None)?;
        let public = public.ok_or_else(|| Error::damaged(&name, "it has no public key"))?;
        for epoch in epochs {
            self.write_grant(id, &public, &epoch.for_role(role))?;
        }
        publish_bytes(&**self.backend(), &name, &bytes)?;
        Ok(id)
    }

    fn write_grant(&self, slot: ObjectId, public: &[u8; PUBLIC_KEY_BYTES], epoch: &EpochKeys) -> Result<()> {
        let grant = self.keys().grant_key(slot)?;
        grants::write(&**self.backend(), &**self.entropy(), slot, public, &grant, epoch)
    }

    fn slot_names(&self) -> Result<Vec<ObjectName>> {
        let listed = self.backend().list(ObjectKind::KeySlot)?;
        let is_slot = |name: &ObjectName| matches!(KeyObject::parse(name), Some(KeyObject::Slot(_)));
        Ok(listed.into_iter().map(|object| object.name).filter(is_slot).collect())
    }

    fn listed_slots(&self) -> Result<Vec<Listed>> {
        self.keys().role().require(Action::ManageKeys)?;
        let mut slots = Vec::new();
        for name in self.slot_names()? {
            let bytes = self.backend().read(&name, SLOT_BYTES_MAX)?;
            slots.push(slot_info(self.keys(), &name, &bytes, Some(self.unlocked().slot))?);
        }
        slots.sort_by_key(|(slot, _)| (slot.created_seconds, slot.id));
        Ok(slots)
    }

    fn keys_lease(&self) -> Result<Box<dyn Hold>> {
        let name = ObjectName::new(ObjectKind::Lease, "keys").expect("a constant name");
        match self.backend().hold(&name, b"") {
            Err(Error::Busy { .. }) => Err(Error::Busy { what: "the lease of the repository's keys".into() }),
            held => held,
        }
    }
}

/// Checks an object in `keys/`, as far as the keys in hand open it: of another slot's grant, the envelope.
pub(crate) fn check_key_object(repository: &Repository, name: &ObjectName) -> Result<()> {
    let (backend, keys) = (&**repository.backend(), repository.keys());
    match KeyObject::parse(name) {
        Some(KeyObject::Epoch(number)) => match keys.epochs().get(number)? {
            Some(epoch) => grants::read_marker(backend, &epoch).map(drop),
            None => Ok(()),
        },
        Some(KeyObject::Grant(..)) => epoch_of(backend, name).map(drop),
        Some(KeyObject::Slot(_)) | None if keys.role().may(Action::ManageKeys) => {
            slot_info(keys, name, &backend.read(name, SLOT_BYTES_MAX)?, None).map(drop)
        }
        Some(KeyObject::Slot(_)) | None => epoch_of(backend, name).map(drop),
    }
}

/// The epoch whose keys seal an object.
pub(crate) fn epoch_of(backend: &dyn Backend, name: &ObjectName) -> Result<u32> {
    let mut envelope = [0; ENVELOPE_BYTES];
    backend.read_range(name, 0, &mut envelope)?;
    Ok(Envelope::decode(&name.to_string(), name.kind(), &envelope)?.epoch)
}
