//! The key slots of an open repository: listed, added, removed. Each change makes a new roster, which an
//! owner signs.
//!
//! Slots, grants and rosters change under the lease `keys`. A slot's grants are there before the slot, and
//! both before the roster that names it: the roster is the commit. What an interrupted change leaves behind
//! is in no roster, and counts for nothing.

use std::io::ErrorKind;

use crate::backend::{Hold, ObjectKind, ObjectName, publish_bytes};
use crate::collect::{take_over, take_over_roots};
use crate::epochs::{EpochKeys, epoch_of};
use crate::grants::{self, KeyObject, RosterName};
use crate::ids::ObjectId;
use crate::keys::{Credential, KeySlotInfo, SLOTS_MAX, StretchCost};
use crate::repository::Repository;
use crate::roles::{Action, Role};
use crate::roster::{self, Anchor, Body, Draft, Member, ROSTER_BYTES_MAX, Roster};
use crate::sealed_to::PUBLIC_KEY_BYTES;
use crate::signing::Signer;
use crate::slots::{NewSlot, SLOT_BYTES_MAX, unsigned_slot_info};
use crate::trust::StrangeKeyObject;
use crate::{Error, Result};

/// What becomes of the snapshots of a key that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Snapshots {
    StayItsOwn,
    AreTakenOver,
}

/// How often the list of keys is read again when it changed while it was looked at.
const LOOKS_MAX: usize = 8;

impl Repository {
    /// The key slots, by time of making. Only owners list them.
    pub fn key_slots(&self) -> Result<Vec<KeySlotInfo>> {
        self.keys().role().require(Action::ManageKeys)?;
        self.refresh_keys()?;
        let current = self.unlocked().slot;
        let mut slots: Vec<KeySlotInfo> = match self.keys().roster() {
            Some(roster) => roster.body.current().map(|member| listed(member, current)).collect(),
            None => self.unsigned_slots()?,
        };
        slots.sort_by_key(|slot| (slot.created_seconds, slot.id));
        Ok(slots)
    }

    /// What stands in `keys/` and counts for nothing: planted, damaged, or left by a command that was
    /// interrupted. And what should stand there and is gone.
    pub fn strange_key_objects(&self) -> Result<Vec<StrangeKeyObject>> {
        for _ in 0..LOOKS_MAX {
            self.refresh_keys()?;
            let before = self.keys().anchor();
            let strange = self.keys().strange_key_objects(&**self.backend())?;
            self.refresh_keys()?;
            if self.keys().anchor() == before {
                return Ok(strange);
            }
        }
        Err(Error::Busy { what: "the list of keys, which other processes keep changing,".into() })
    }

    /// Writes again what of `keys/` can be made again: a roster from its copy, or the copy from it; and,
    /// where an owner does it, grants that are gone or whose envelopes do not verify. What is in a grant only
    /// its receiver can check. Returns what was written.
    pub fn restore_key_objects(&self) -> Result<Vec<String>> {
        self.refresh_keys()?;
        if self.keys().hurt_rosters(&**self.backend())?.is_empty() && self.hurt_grants()?.is_empty() {
            return Ok(Vec::new());
        }
        let lease = self.keys_lease()?;
        self.refresh_keys()?;
        let mut restored = Vec::new();
        for (name, bytes) in self.keys().hurt_rosters(&**self.backend())? {
            self.backend().delete(std::slice::from_ref(&name))?;
            publish_bytes(&**self.backend(), &name, &bytes)?;
            restored.push(name.to_string());
        }
        for (member, epoch) in self.hurt_grants()? {
            self.write_grant(member.slot, &member.sealing, &epoch.for_role(member.role))?;
            restored.push(KeyObject::Grant(member.slot, epoch.number).name().to_string());
        }
        lease.release()?;
        Ok(restored)
    }

    /// Grants that an owner can make again, with what they are made of.
    fn hurt_grants(&self) -> Result<Vec<(Member, EpochKeys)>> {
        let mut hurt = Vec::new();
        let Some(roster) = self.keys().roster() else { return Ok(hurt) };
        if !self.keys().role().may(Action::ManageKeys) {
            return Ok(hurt);
        }
        for member in roster.body.current() {
            for epoch in self.known_epochs() {
                match epoch_of(&**self.backend(), &KeyObject::Grant(member.slot, epoch.number).name()) {
                    Ok(number) if number == epoch.number => {}
                    Ok(_) => hurt.push((member.clone(), epoch)),
                    Err(error) if error.is_integrity() => hurt.push((member.clone(), epoch)),
                    // What a newer program wrote is not replaced.
                    Err(error) if error.concerns_one_object() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(hurt)
    }

    /// Removes what stands in `keys/` and counts for nothing; returns the names. What is no object of this
    /// program stays, and what a newer one may have written. Only owners do it.
    pub fn remove_strange_key_objects(&self) -> Result<Vec<String>> {
        self.keys().role().require(Action::ManageKeys)?;
        let lease = self.keys_lease()?;
        let strange = self.strange_key_objects()?;
        // The roster in force is written again from its copy, by those who mend it.
        let in_force = self.keys().anchor().map(|anchor| anchor.sequence);
        let may_go = |(object, name): &(KeyObject, ObjectName)| {
            let is_in_force = matches!(object, KeyObject::Roster(roster) if Some(roster.sequence) == in_force);
            !is_in_force && strange.iter().any(|one| one.is_known && one.object == name.to_string())
        };
        let names: Vec<ObjectName> = self.key_objects()?.into_iter().filter(may_go).map(|(_, name)| name).collect();
        if !names.is_empty() {
            self.backend().delete(&names)?;
        }
        lease.release()?;
        Ok(names.iter().map(ToString::to_string).collect())
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

    /// Adds a slot of a role. Narrow roles exist from the first rotation on, because the first keys open
    /// everything; and they open nothing that is older.
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
        let roster = self.roster_or_old("add a key")?;
        self.end_introduction(&roster)?;
        self.check_role(role)?;
        if roster.body.current().count() >= SLOTS_MAX {
            return Err(Error::Limit { what: "the number of key slots".into(), limit: SLOTS_MAX as u64 });
        }
        let new = NewSlot::draw(&**self.entropy(), credential, label, stretch)?;
        let id = new.id;
        let mut body = roster.body.clone();
        body.members.push(member_of(&new, role, label, created_seconds));
        let draft = self.next_draft(Some(&roster), body)?;
        self.introduce(new, role, &self.known_epochs(), draft, &self.keys().signing_key()?, &*lease)?;
        lease.release()?;
        Ok(id)
    }

    /// Removes a slot; the last owner's cannot be removed. What its holder copied of the keys stays known to
    /// him: see [`Self::rotate_keys`]. What a key signed that decides over others, labels and the index, is
    /// signed again by the key in use, because from now on the removed one's signatures count for nothing.
    /// Its snapshots stay its own. [`Error::Busy`] while a collection runs.
    pub fn remove_key_slot(&self, slot: ObjectId, removed_seconds: i64) -> Result<()> {
        self.remove_slot(slot, removed_seconds, Snapshots::StayItsOwn).map(drop)
    }

    /// Removes the slot that the key in use takes the place of, because its holder has changed it: what it
    /// signed is signed again by the key in use, its snapshots too. Returns the number of those.
    pub fn replace_key_slot(&self, slot: ObjectId, removed_seconds: i64) -> Result<u64> {
        self.remove_slot(slot, removed_seconds, Snapshots::AreTakenOver)
    }

    /// Signs again, with the key in use, snapshots that a command has stored since its key was replaced;
    /// returns their number. What it said in the index stays nobody's word.
    pub fn sign_again_of_replaced(&self, slot: ObjectId) -> Result<u64> {
        self.keys().role().require(Action::ManageKeys)?;
        self.refresh_keys()?;
        let Some(roster) = self.keys().roster() else { return Ok(0) };
        let of_slot = |member: &&Member| member.slot == slot && member.removed_seconds.is_some();
        let Some(signer) = roster.body.members.iter().find(of_slot).map(|member| member.signer) else { return Ok(0) };
        take_over_roots(self, &|by| by == Some(signer))
    }

    fn remove_slot(&self, slot: ObjectId, removed_seconds: i64, snapshots: Snapshots) -> Result<u64> {
        let mut signed = 0;
        self.keys().role().require(Action::ManageKeys)?;
        let lease = self.keys_lease()?;
        self.refresh_keys()?;
        match self.keys().roster() {
            Some(roster) => {
                self.end_introduction(&roster)?;
                signed = self.remove_member(&roster, slot, removed_seconds, snapshots, &*lease)?;
            }
            None => self.check_unsigned_removal(slot)?,
        }
        self.delete_slot(slot)?;
        lease.release()?;
        Ok(signed)
    }

    fn remove_member(
        &self,
        roster: &Roster,
        slot: ObjectId,
        removed_seconds: i64,
        snapshots: Snapshots,
        keys_lease: &dyn Hold,
    ) -> Result<u64> {
        let is_it = |member: &&Member| member.slot == slot;
        let Some(member) = roster.body.current().find(is_it) else {
            return self.check_stray(slot).map(|()| 0);
        };
        let owners = roster.body.current().filter(|member| member.role == Role::Full).count();
        if member.role == Role::Full && owners == 1 {
            return Err(last_owner());
        }
        if Some(member.signer) == self.keys().signer() {
            let detail = "it is the one in use: open the repository with another owner's key to remove it";
            return Err(Error::KeySlot { detail: detail.into() });
        }
        let lease = match member.role.may(Action::Maintain) {
            // Held until the roster counts: what it signs in between would be nobody's word.
            true => Some(take_over(self, &|signer| signer == Some(member.signer))?),
            false => None,
        };
        let signed = match snapshots {
            Snapshots::StayItsOwn => 0,
            Snapshots::AreTakenOver => take_over_roots(self, &|signer| signer == Some(member.signer))?,
        };
        let mut body = roster.body.clone();
        for member in body.members.iter_mut().filter(|member| member.slot == slot) {
            member.removed_seconds = member.removed_seconds.or(Some(removed_seconds));
        }
        let draft = self.next_draft(Some(roster), body)?;
        self.publish_roster(draft, &self.keys().signing_key()?, Some(keys_lease))?;
        lease.map_or(Ok(()), |lease| lease.release())?;
        Ok(signed)
    }

    /// A slot that is in no roster is only an object, or grants that an interrupted command left: it may go,
    /// and it must be there.
    fn check_stray(&self, slot: ObjectId) -> Result<()> {
        match self.key_objects()?.iter().any(|(object, _)| object.slot() == Some(slot)) {
            true => Ok(()),
            false => Err(Error::KeySlot { detail: format!("there is no slot {slot}") }),
        }
    }

    /// Removes grants of slots that are not there and in no roster: an interrupted command left them, and
    /// they open nothing.
    fn clear_grants_of_nobody(&self, roster: &Roster) -> Result<()> {
        let named = self.key_objects()?;
        let stands = |slot: ObjectId| {
            named.iter().any(|(object, _)| *object == KeyObject::Slot(slot)) || roster.body.has_slot(slot)
        };
        let of_nobody = named.iter().filter(|(object, _)| match object {
            KeyObject::Grant(slot, _) => !stands(*slot),
            _ => false,
        });
        let of_nobody: Vec<ObjectName> = of_nobody.map(|(_, name)| name.clone()).collect();
        if of_nobody.is_empty() { Ok(()) } else { self.backend().delete(&of_nobody) }
    }

    fn key_objects(&self) -> Result<Vec<(KeyObject, ObjectName)>> {
        grants::key_objects(&**self.backend())
    }

    fn check_unsigned_removal(&self, slot: ObjectId) -> Result<()> {
        let slots = self.unsigned_slots()?;
        let Some(removed) = slots.iter().find(|info| info.id == slot) else { return self.check_stray(slot) };
        let owners = slots.iter().filter(|info| info.role == Role::Full).count();
        if removed.role == Role::Full && owners == 1 { Err(last_owner()) } else { Ok(()) }
    }

    fn delete_slot(&self, slot: ObjectId) -> Result<()> {
        self.backend().delete(&[KeyObject::Slot(slot).name()])?;
        // Without the slot they open nothing: what a crash leaves of them is harmless.
        let is_its = |object: KeyObject| matches!(object, KeyObject::Grant(of, _) if of == slot);
        let listed = self.key_objects()?.into_iter();
        let grants: Vec<ObjectName> = listed.filter(|(object, _)| is_its(*object)).map(|(_, name)| name).collect();
        self.backend().delete(&grants)
    }

    /// Grants first, then the slot, then the roster that makes both count.
    pub(crate) fn introduce(
        &self,
        new: NewSlot,
        role: Role,
        epochs: &[EpochKeys],
        draft: Draft,
        signer: &Signer,
        lease: &dyn Hold,
    ) -> Result<()> {
        let (id, sealing) = (new.id, new.sealing);
        for epoch in epochs {
            self.write_grant(id, &sealing, &epoch.for_role(role))?;
        }
        let bytes = new.seal(self.keys(), role, draft.anchor())?;
        publish_bytes(&**self.backend(), &KeyObject::Slot(id).name(), &bytes)?;
        self.publish_roster(draft, signer, Some(lease))
    }

    /// The roster after `before`, or the first. It signs the configuration: the one that was signed before,
    /// or, where none was yet, the one that this process has opened the repository with.
    pub(crate) fn next_draft(&self, before: Option<&Roster>, mut body: Body) -> Result<Draft> {
        if body.config.is_empty() {
            body.config = self.config_object().to_vec();
        }
        Draft::after(before, body, self.keys().repository())
    }

    /// Publishes a roster and its copy; from then on it counts, and the older ones go. [`Error::Busy`] when
    /// another process has changed the keys since the draft was made: where locks do not carry, the lease
    /// alone keeps nobody out. `lease`: of the keys; nobody but `init` has none.
    pub(crate) fn publish_roster(&self, draft: Draft, signer: &Signer, lease: Option<&dyn Hold>) -> Result<()> {
        let previous = draft.previous();
        let (roster, document) = draft.signed(self.keys().repository(), signer)?;
        let sequence = roster.anchor().sequence;
        let sealed = roster::seal(&*self.keys().roster_key()?, self.new_object_id()?, &document)?;
        if sealed.len() as u64 > ROSTER_BYTES_MAX {
            // Nobody could read it, and so nobody could open the repository.
            return Err(Error::Limit {
                what: "the list of keys, with all its changes,".into(),
                limit: ROSTER_BYTES_MAX,
            });
        }
        let [own, copy] = RosterName::both(sequence).map(RosterName::object);
        self.publish_next(&own, &sealed, &|| self.check_unchanged(previous, lease))?;
        // With the first of the two the roster is in force: what stands at the name of the other is not its
        // copy.
        self.publish_next(&copy, &sealed, &|| Ok(()))?;
        let older: Vec<ObjectName> = grants::rosters(&**self.backend())?
            .into_iter()
            .filter(|name| name.sequence < sequence)
            .map(RosterName::object)
            .collect();
        self.backend().delete(&older)?;
        self.clear_grants_of_nobody(&roster)?;
        self.keys().adopt_roster(roster)
    }

    /// Publishes an object of a roster. What stands at its name does not continue the chain, as the check
    /// says each time: it was planted, and goes.
    fn publish_next(&self, name: &ObjectName, sealed: &[u8], check: &dyn Fn() -> Result<()>) -> Result<()> {
        for _ in 0..LOOKS_MAX {
            check()?;
            match publish_bytes(&**self.backend(), name, sealed) {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
                published => return published,
            }
            check()?;
            self.backend().delete(std::slice::from_ref(name))?;
        }
        Err(keys_changed())
    }

    /// Whether a roster that continues `previous` may be published: nobody has published another one.
    fn check_unchanged(&self, previous: Option<Anchor>, lease: Option<&dyn Hold>) -> Result<()> {
        if !lease.map_or(Ok(true), Hold::is_current)? {
            return Err(keys_changed());
        }
        let is_unchanged = match previous {
            None => self.keys().any_roster(&**self.backend())?.is_none(),
            Some(_) => {
                self.refresh_keys()?;
                self.keys().anchor() == previous
            }
        };
        if is_unchanged { Ok(()) } else { Err(keys_changed()) }
    }

    pub(crate) fn write_grant(&self, slot: ObjectId, public: &[u8; PUBLIC_KEY_BYTES], epoch: &EpochKeys) -> Result<()> {
        let grant = self.keys().grant_key(slot)?;
        grants::write(&**self.backend(), &**self.entropy(), slot, public, &grant, epoch)
    }

    /// The roster; keys of a repository without one cannot be changed.
    pub(crate) fn roster_or_old(&self, what: &str) -> Result<std::sync::Arc<Roster>> {
        self.keys().roster().ok_or_else(|| Error::KeySlot {
            detail: format!(
                "to {what} the repository needs format 3, which has a signed list of its keys: `copal key rotate` \
                 makes one"
            ),
        })
    }

    pub(crate) fn known_epochs(&self) -> Vec<EpochKeys> {
        self.keys().known_epochs().iter().map(|epoch| (**epoch).clone()).collect()
    }

    pub(crate) fn unsigned_slots(&self) -> Result<Vec<KeySlotInfo>> {
        let mut slots = Vec::new();
        let is_slot = |object: &(KeyObject, ObjectName)| matches!(object.0, KeyObject::Slot(_));
        for (_, name) in self.key_objects()?.into_iter().filter(is_slot) {
            let bytes = self.backend().read(&name, SLOT_BYTES_MAX)?;
            match unsigned_slot_info(self.keys(), &name, &bytes, Some(self.unlocked().slot)) {
                // One that does not open is named by verification, and hides no other.
                Err(Error::Damaged { .. }) => {}
                info => slots.push(info?),
            }
        }
        Ok(slots)
    }

    /// Takes the leases that a change of keys needs from whoever holds them, for one who holds them and does
    /// not let go; returns their names. A command that is at work under one of them ends without effect when
    /// it comes to look: a change of keys before it publishes its roster, a collection before it sweeps.
    pub fn take_leases_over(&self) -> Result<Vec<String>> {
        self.keys().role().require(Action::ManageKeys)?;
        let mut taken = Vec::new();
        for name in ["keys", "maintenance"] {
            let name = ObjectName::new(ObjectKind::Lease, name).expect("a constant name");
            match self.backend().hold(&name, b"") {
                Ok(free) => free.release()?,
                Err(Error::Busy { .. }) => {
                    self.backend().delete(std::slice::from_ref(&name))?;
                    taken.push(name.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    pub(crate) fn keys_lease(&self) -> Result<Box<dyn Hold>> {
        let name = ObjectName::new(ObjectKind::Lease, "keys").expect("a constant name");
        match self.backend().hold(&name, b"") {
            Err(Error::Busy { .. }) => Err(Error::Busy { what: "the lease of the repository's keys".into() }),
            held => held,
        }
    }
}

fn keys_changed() -> Error {
    Error::Busy { what: "the list of keys, which was changed meanwhile,".into() }
}

fn last_owner() -> Error {
    let detail = "it is the last one that may do everything; without it nobody could open the repository wholly";
    Error::KeySlot { detail: detail.into() }
}

/// A slot as the roster will have it.
pub(crate) fn member_of(new: &NewSlot, role: Role, label: &str, created_seconds: i64) -> Member {
    Member {
        signer: new.signer.id(),
        sealing: new.sealing,
        slot: new.id,
        role,
        key_file: new.key_file,
        label: label.to_owned(),
        created_seconds,
        removed_seconds: None,
    }
}

/// The roster of a new repository: one owner.
pub(crate) fn first_body(new: &NewSlot, label: &str, created_seconds: i64) -> Body {
    Body { members: vec![member_of(new, Role::Full, label, created_seconds)], ..Body::default() }
}

fn listed(member: &Member, current: ObjectId) -> KeySlotInfo {
    KeySlotInfo {
        id: member.slot,
        signer: Some(member.signer),
        label: member.label.clone(),
        key_file: member.key_file,
        role: member.role,
        created_seconds: member.created_seconds,
        current: member.slot == current,
    }
}
