//! What the keys of an open repository know of rosters and epochs, and how they learn more.
//!
//! A repository with a roster is *signed*: its newest roster says which keys count and which epochs have
//! begun, and a grant counts only when it holds the very keys that the roster names. One without (formats 1
//! and 2) is believed as its programs believed it: epochs have begun whose marker, or whose grant to the slot
//! in use, is there. What does not verify is kept as the problem of what needs it, and stops nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::backend::{Backend, ObjectKind, ObjectName};
use crate::describe::Fields;
use crate::entropy::Entropy;
use crate::epochs::EpochKeys;
use crate::error::Unreadable;
use crate::grants::{self, KeyObject, RosterName, SlotKeys};
use crate::ids::{ObjectId, RepositoryId};
use crate::keys::Keys;
use crate::roles::{Action, Role};
use crate::roster::{self, Anchor, BegunEpoch, Member, ROSTER_BYTES_MAX, Roster};
use crate::signing::{Signer, SignerId};
pub use crate::standing::{Author, Standing, StrangeKeyObject};
use crate::{Error, Result};

/// Where rosters and grants come from, and who they are for.
pub(crate) struct Door {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// `None`: a slot of the first version, which is given no epochs.
    /// Apart, so that a ring without them has no room for what stood on the stack.
    pub(crate) slot: Option<Arc<SlotKeys>>,
    /// The newest roster that was seen before.
    pub(crate) seen: Option<Anchor>,
}

/// Rosters and epochs, as far as they are known.
#[derive(Default)]
pub(crate) struct Trust {
    repository: RepositoryId,
    door: Option<Door>,
    roster: RwLock<Option<Arc<Roster>>>,
    epochs: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    epochs: Vec<Arc<EpochKeys>>,
    /// Grants that do not open, and what is the matter with them.
    problems: BTreeMap<u32, Unreadable>,
}

impl Trust {
    pub(crate) fn behind(repository: RepositoryId, door: Door) -> Self {
        Self { repository, door: Some(door), ..Self::default() }
    }

    fn slot(&self) -> Option<(&Door, &Arc<SlotKeys>)> {
        let door = self.door.as_ref()?;
        Some((door, door.slot.as_ref()?))
    }

    fn known(&self) -> Vec<Arc<EpochKeys>> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).epochs.clone()
    }

    fn find(&self, number: u32) -> Option<Arc<EpochKeys>> {
        self.known().into_iter().find(|epoch| epoch.number == number)
    }

    fn problem(&self, number: u32) -> Option<Error> {
        let known = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        known.problems.get(&number).map(Error::from)
    }
}

impl Keys {
    /// The repository.
    pub(crate) fn repository(&self) -> RepositoryId {
        self.trust().repository
    }

    /// The newest roster that is known; `None`: a repository without signatures.
    pub(crate) fn roster(&self) -> Option<Arc<Roster>> {
        self.trust().roster.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configuration object as the owners have signed it; `None`: they have not yet.
    pub(crate) fn signed_config(&self) -> Option<Vec<u8>> {
        self.roster().map(|roster| roster.body.config.clone()).filter(|config| !config.is_empty())
    }

    /// Whether what is written is signed.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.roster().is_some()
    }

    /// The newest place in the chain of rosters that is known: what a machine remembers, to notice when keys
    /// go back.
    #[must_use]
    pub fn anchor(&self) -> Option<Anchor> {
        self.roster().map(|roster| roster.anchor())
    }

    /// Whether the chain of rosters goes through a place that was seen before.
    #[must_use]
    pub fn continues(&self, seen: Anchor) -> bool {
        self.roster().is_some_and(|roster| roster.continues(seen, self.repository()))
    }

    /// What signs for the slot in use.
    pub(crate) fn signing_key(&self) -> Result<Signer> {
        let slot = self.trust().slot().and_then(|(_, slot)| slot.signer.clone());
        slot.ok_or_else(|| Error::KeySlot { detail: "the slot in use has no key that signs".into() })
    }

    /// The identity of the slot in use, where the repository is signed.
    #[must_use]
    pub fn signer(&self) -> Option<SignerId> {
        let (_, slot) = self.trust().slot()?;
        slot.signer.as_ref().map(Signer::id)
    }

    /// Whose entries the index gets from the holder of these keys; `None`: nobody signs.
    pub(crate) fn author_of_own(&self) -> Option<SignerId> {
        self.signer().filter(|_| self.is_signed())
    }

    /// Who a signer is.
    #[must_use]
    pub fn author(&self, signer: SignerId) -> Author {
        let roster = self.roster();
        let member = roster.as_ref().and_then(|roster| roster.body.members.iter().rfind(|one| one.signer == signer));
        let role = member.filter(|member| member.removed_seconds.is_none()).map(|member| member.role);
        Author { signer, label: member.map(|member| member.label.clone()), role }
    }

    /// Whether owners ever put a key into the roster.
    pub(crate) fn was_member(&self, signer: SignerId) -> bool {
        self.roster().is_some_and(|roster| roster.body.members.iter().any(|member| member.signer == signer))
    }

    /// The role that a signer has now.
    pub(crate) fn role_of(&self, signer: SignerId) -> Option<Role> {
        let roster = self.roster()?;
        roster.body.current().find(|member| member.signer == signer).map(|member| member.role)
    }

    /// Whether what decides over others was written by a key that may: in a signed repository its signer's
    /// role tells. Without signatures only the keys of the first epoch tell, which nobody but owners has.
    pub(crate) fn vouches(&self, signer: Option<SignerId>, action: Action) -> bool {
        if !self.is_signed() {
            return self.epoch() == 0;
        }
        signer.and_then(|signer| self.role_of(signer)).is_some_and(|role| role.may(action))
    }

    /// Whether what a key stored may be built on without looking at it again: one's own and what owners
    /// stored.
    #[must_use]
    pub fn builds_on(&self, signer: Option<SignerId>) -> bool {
        let Some(signer) = signer else { return !self.is_signed() };
        self.signer() == Some(signer) || self.role_of(signer) == Some(Role::Full)
    }

    /// How far what a key signed counts today.
    #[must_use]
    pub fn standing(&self, signer: Option<SignerId>) -> Standing {
        let Some(roster) = self.roster() else { return Standing::Owner };
        let Some(signer) = signer else { return Standing::Unsigned };
        match self.role_of(signer) {
            Some(Role::Full) => return Standing::Owner,
            Some(role) if role.may(Action::Store) => return Standing::Creator,
            Some(_) => return Standing::NoCreator,
            None => {}
        }
        match roster.body.members.iter().rfind(|member| member.signer == signer) {
            Some(member) => Standing::Removed { was_owner: member.role == Role::Full },
            None => Standing::Unknown,
        }
    }

    /// The epoch whose keys seal new objects; 0: those of the master key.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        match self.roster() {
            Some(roster) => roster.epoch(),
            None => self.trust().known().last().map_or(0, |epoch| epoch.number),
        }
    }

    /// The keys of that epoch. Where the slot's grant of it does not open, nothing is sealed under an older
    /// one.
    pub(crate) fn sealing_epoch(&self) -> Result<Option<Arc<EpochKeys>>> {
        match self.epoch() {
            0 => Ok(None),
            number => self.epoch_keys("what is new", number).map(Some),
        }
    }

    /// The keys of an epoch that an object names. One that is not known may have begun since this ring was
    /// made.
    pub(crate) fn epoch_keys(&self, object: &str, number: u32) -> Result<Arc<EpochKeys>> {
        if let Some(epoch) = self.trust().find(number) {
            return Ok(epoch);
        }
        self.learn_again()?;
        if let Some(epoch) = self.trust().find(number) {
            return Ok(epoch);
        }
        if let Some(problem) = self.trust().problem(number) {
            return Err(problem);
        }
        if !self.epoch_numbers()?.contains(&number) {
            return Err(Error::damaged(object, format!("it names the key epoch {number}, which never began")));
        }
        let why = if self.trust().slot().is_some() {
            "were not given to the key in use"
        } else {
            "began while this command ran; run it again"
        };
        Err(Error::NotPermitted {
            role: self.role(),
            what: format!("open {object}: its keys, of epoch {number}, {why}"),
        })
    }

    /// Numbers of all epochs that have begun, in order.
    pub(crate) fn epoch_numbers(&self) -> Result<Vec<u32>> {
        if let Some(roster) = self.roster() {
            return Ok(roster.body.epochs.iter().map(|epoch| epoch.number).collect());
        }
        match &self.trust().door {
            Some(door) => grants::begun(&*door.backend, door.slot.as_ref().map(|slot| slot.slot)),
            None => Ok(self.trust().known().iter().map(|epoch| epoch.number).collect()),
        }
    }

    /// The epochs whose keys are known.
    pub(crate) fn known_epochs(&self) -> Vec<Arc<EpochKeys>> {
        self.trust().known()
    }

    /// Takes in the newest roster, and what was granted to the slot and is not known yet.
    pub(crate) fn learn(&self) -> Result<()> {
        let Some((door, slot)) = self.trust().slot() else { return self.check_first_slot() };
        if slot.anchor.is_none() {
            self.check_unsigned(&*door.backend)?;
        }
        if let Some(anchor) = slot.anchor {
            let newest = self.newest_roster(&*door.backend, anchor, door.seen)?;
            if !newest.body.has_slot(slot.slot) {
                let detail = format!(
                    "{}, the slot of this password or key, was removed, or never put into the list of keys by an owner",
                    KeyObject::Slot(slot.slot).name()
                );
                return Err(Error::KeySlot { detail });
            }
            self.adopt_roster(newest)?;
        }
        for number in self.epoch_numbers()? {
            if self.trust().find(number).is_some() {
                continue;
            }
            let problem = match grants::read(&*door.backend, slot, number).and_then(|epoch| self.bound(epoch)) {
                Ok(epoch) => {
                    self.adopt_epoch(epoch);
                    continue;
                }
                // Every slot of a roster was given every epoch; without a roster a slot may be younger than
                // an epoch.
                Err(Error::Missing { object }) if self.is_signed() => Error::damaged(object, "it is gone"),
                Err(Error::Missing { .. }) => continue,
                Err(error) => error,
            };
            self.note_problem(number, Unreadable::of(problem)?);
        }
        Ok(())
    }

    /// The same in the midst of a command: a slot that counted when it began was overtaken by the step to
    /// signed keys.
    pub(crate) fn learn_again(&self) -> Result<()> {
        let had_none = self.roster().is_none();
        self.learn().map_err(|error| match error {
            Error::KeySlot { .. } if had_none => Error::KeySlot {
                detail: "the repository was given a signed list of its keys while this command ran: run it again"
                    .into(),
            },
            error => error,
        })
    }

    /// A slot of the first format is given nothing; and it counts no more once there is a roster.
    fn check_first_slot(&self) -> Result<()> {
        match &self.trust().door {
            Some(door) if self.roster_key().is_ok() => self.check_unsigned(&*door.backend),
            _ => Ok(()),
        }
    }

    fn check_unsigned(&self, backend: &dyn Backend) -> Result<()> {
        let Some(roster) = self.any_roster(backend)? else { return Ok(()) };
        let detail = format!(
            "the slot of this password or key was made before the repository had a signed list of its keys, {roster}, and \
             is not in it"
        );
        Err(Error::KeySlot { detail })
    }

    /// A roster that was just read or signed. It never goes back to an earlier one.
    pub(crate) fn adopt_roster(&self, newest: Roster) -> Result<()> {
        let mut roster = self.trust().roster.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = roster.as_ref()
            && !newest.continues(known.anchor(), self.repository())
        {
            return Err(Error::KeysWentBack);
        }
        *roster = Some(Arc::new(newest));
        Ok(())
    }

    fn note_problem(&self, number: u32, problem: Unreadable) {
        let mut known = self.trust().epochs.write().unwrap_or_else(PoisonError::into_inner);
        known.problems.insert(number, problem);
    }

    pub(crate) fn adopt_epoch(&self, epoch: EpochKeys) {
        let mut known = self.trust().epochs.write().unwrap_or_else(PoisonError::into_inner);
        known.problems.remove(&epoch.number);
        known.epochs.retain(|other| other.number != epoch.number);
        known.epochs.push(Arc::new(epoch));
        known.epochs.sort_by_key(|epoch| epoch.number);
    }

    /// A grant holds the keys that the roster names, or others that somebody made.
    fn bound(&self, epoch: EpochKeys) -> Result<EpochKeys> {
        let Some(roster) = self.roster() else { return Ok(epoch) };
        let begun = roster.body.epochs.iter().find(|begun| begun.number == epoch.number);
        if begun.is_some_and(|begun| begun.commitment == epoch.commitment()) {
            return Ok(epoch);
        }
        let object = self.trust().slot().map(|(_, slot)| KeyObject::Grant(slot.slot, epoch.number).name().to_string());
        Err(Error::damaged(object.unwrap_or_default(), "its keys are not those that the owners' roster names"))
    }

    /// Whether somebody with a key has made a roster: then slots without an anchor count no more.
    pub(crate) fn any_roster(&self, backend: &dyn Backend) -> Result<Option<ObjectName>> {
        let key = self.roster_key()?;
        for name in grants::rosters(backend)? {
            match backend.read(&name.object(), ROSTER_BYTES_MAX) {
                Ok(bytes) if roster::open(&name.object().to_string(), &key, &bytes).is_ok() => {
                    return Ok(Some(name.object()));
                }
                Ok(_) => {}
                Err(error) if error.is_integrity() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Checks the grant of an epoch to the slot in use.
    pub(crate) fn check_grant(&self, number: u32) -> Result<()> {
        let Some((door, slot)) = self.trust().slot() else { return Ok(()) };
        grants::read(&*door.backend, slot, number).and_then(|epoch| self.bound(epoch)).map(drop)
    }

    /// The newest roster that continues the chain from where it was seen last. Others are passed over: they
    /// count for nothing.
    fn newest_roster(&self, backend: &dyn Backend, anchor: Anchor, seen: Option<Anchor>) -> Result<Roster> {
        let known = self.roster().map(|roster| roster.anchor());
        let seen = known.into_iter().chain(seen).max_by_key(|seen| seen.sequence);
        let mut problem = None;
        for _ in 0..ROSTER_ATTEMPTS {
            let mut vanished = false;
            let mut sound: Vec<Roster> = Vec::new();
            for name in grants::rosters(backend)? {
                match self.read_roster(backend, name, anchor) {
                    Ok(roster) => sound.push(roster),
                    // A newer one replaced it since it was listed.
                    Err(Error::Missing { .. }) => vanished = true,
                    // One of a newer program, or a byte that says so: it stops nobody while another one
                    // continues the chain.
                    Err(error @ Error::Unsupported { .. }) => problem = Some(error),
                    Err(error) if error.concerns_one_object() => problem = problem.or(Some(error)),
                    Err(error) => return Err(error),
                }
            }
            if vanished {
                continue;
            }
            let missing = || Error::Missing { object: "keys/roster, which says which keys count,".into() };
            return self.only_branch(sound, seen)?.ok_or_else(|| problem.unwrap_or_else(missing));
        }
        Err(crate::index::too_busy())
    }

    /// The newest of rosters that are sound, each by itself: it must continue the one that was seen, and
    /// where none was, all others. Else a former owner has made a branch of his own, and nothing here tells
    /// which is the true one.
    fn only_branch(&self, mut sound: Vec<Roster>, seen: Option<Anchor>) -> Result<Option<Roster>> {
        if let Some(seen) = seen {
            let any = !sound.is_empty();
            sound.retain(|roster| roster.continues(seen, self.repository()));
            if any && sound.is_empty() {
                return Err(Error::KeysWentBack);
            }
        }
        let Some(newest) = sound.iter().max_by_key(|roster| roster.anchor().sequence) else { return Ok(None) };
        match sound.iter().find(|other| !newest.continues(other.anchor(), self.repository())) {
            None => Ok(Some(newest.clone())),
            Some(other) => Err(Error::damaged(
                "keys/",
                format!(
                    "its rosters {:08x} and {:08x} both continue the one that this key was made with, and neither the \
                     other: a former owner has made one of them. A machine that has opened the repository before \
                     knows which",
                    other.anchor().sequence,
                    newest.anchor().sequence
                ),
            )),
        }
    }

    fn read_roster(&self, backend: &dyn Backend, name: grants::RosterName, anchor: Anchor) -> Result<Roster> {
        let object = name.object();
        let bytes = backend.read(&object, ROSTER_BYTES_MAX)?;
        let document = roster::open(&object.to_string(), &*self.roster_key()?, &bytes)?;
        // Before its signatures are checked: anybody can copy one to many names.
        if roster::sequence(&object.to_string(), &document).is_ok_and(|sequence| sequence != name.sequence) {
            return Err(Error::damaged(&object, "it is another roster than its name says"));
        }
        Roster::decode(&object.to_string(), &document, self.repository(), anchor)
    }

    /// Adds a roster's fields; returns its document.
    pub(crate) fn describe_roster(&self, name: &ObjectName, bytes: &[u8], fields: &mut Fields) -> Result<Vec<u8>> {
        let object = name.to_string();
        let document = roster::open(&object, &*self.roster_key()?, bytes)?;
        let beginning = Anchor { sequence: 0, digest: [0; 32] };
        Roster::decode(&object, &document, self.repository(), beginning)?.describe(fields);
        Ok(document)
    }

    /// What stands in `keys/` and counts for nothing: planted, damaged, or left by a command that was
    /// interrupted. And what should stand there and is gone.
    pub(crate) fn strange_key_objects(&self, backend: &dyn Backend) -> Result<Vec<StrangeKeyObject>> {
        let Some(roster) = self.roster() else { return Ok(Vec::new()) };
        let mut strange = Vec::new();
        let listed = backend.list(ObjectKind::KeySlot)?;
        for (wanted, without) in wanted_in_keys(&roster) {
            let name = wanted.name();
            if !listed.iter().any(|listed| listed.name == name) {
                strange.push(StrangeKeyObject {
                    object: name.to_string(),
                    detail: format!("it is gone: {without}"),
                    is_known: false,
                    is_leftover: false,
                });
            }
        }
        for listed in listed {
            let (mut is_known, kind) = (true, KeyObject::parse(&listed.name));
            let is_leftover = match kind {
                Some(KeyObject::Slot(_) | KeyObject::Grant(..)) => true,
                Some(KeyObject::Roster(name)) => name.sequence < roster.anchor().sequence,
                Some(KeyObject::Epoch(_)) | None => false,
            };
            let detail = match kind {
                None => Some("it is no object of this program".to_owned()),
                Some(KeyObject::Epoch(_)) => Some("marks of epochs count no more: the roster names them".to_owned()),
                Some(KeyObject::Roster(name)) => match self.read_roster(backend, name, roster.anchor()) {
                    Ok(_) | Err(Error::Missing { .. }) => None,
                    Err(error) if error.concerns_one_object() => {
                        is_known = error.is_integrity();
                        Some(error.to_string())
                    }
                    Err(error) => return Err(error),
                },
                Some(KeyObject::Slot(slot)) => is_stranger(&roster, slot, None),
                Some(KeyObject::Grant(slot, epoch)) => is_stranger(&roster, slot, Some(epoch)),
            };
            let object = listed.name.to_string();
            strange.extend(detail.map(|detail| StrangeKeyObject { object, detail, is_known, is_leftover }));
        }
        Ok(strange)
    }

    /// Of the roster in force, the objects of the two that do not open or are gone, each with the bytes of
    /// the other.
    pub(crate) fn hurt_rosters(&self, backend: &dyn Backend) -> Result<Vec<(ObjectName, Vec<u8>)>> {
        let Some(roster) = self.roster() else { return Ok(Vec::new()) };
        let (mut sound, mut hurt) = (None, Vec::new());
        for name in RosterName::both(roster.anchor().sequence) {
            match self.read_roster(backend, name, roster.anchor()) {
                Ok(_) => sound = Some(backend.read(&name.object(), ROSTER_BYTES_MAX)?),
                Err(error) if error.concerns_one_object() => hurt.push(name.object()),
                Err(error) => return Err(error),
            }
        }
        // Both were lost since this ring read them: nothing is made up.
        let Some(sound) = sound else { return Ok(Vec::new()) };
        Ok(hurt.into_iter().map(|name| (name, sound.clone())).collect())
    }

    pub(crate) fn entropy(&self) -> Result<Arc<dyn Entropy>> {
        match &self.trust().door {
            Some(door) => Ok(Arc::clone(&door.entropy)),
            None => Err(Error::KeySlot { detail: "keys of an epoch without a source of randomness".into() }),
        }
    }
}

/// How often a list of rosters is read again when one of them vanished.
const ROSTER_ATTEMPTS: usize = 8;

/// What a roster says must stand in `keys/`, and what is not to be had without it. Of itself the first of two
/// objects: the second may be one that an interrupted command did not come to.
fn wanted_in_keys(roster: &Roster) -> Vec<(KeyObject, String)> {
    let own = RosterName { sequence: roster.anchor().sequence, is_copy: false };
    let mut wanted = vec![(KeyObject::Roster(own), "only its copy says which keys count".to_owned())];
    for member in roster.body.current() {
        let Member { slot, label, .. } = member;
        wanted.push((KeyObject::Slot(*slot), format!("the key {label:?} opens nothing")));
        for BegunEpoch { number, .. } in &roster.body.epochs {
            let without = format!("the key {label:?} opens nothing that is sealed in the key epoch {number}");
            wanted.push((KeyObject::Grant(*slot, *number), without));
        }
    }
    wanted
}

fn is_stranger(roster: &Roster, slot: ObjectId, epoch: Option<u32>) -> Option<String> {
    let begun = epoch.is_none_or(|number| roster.body.epochs.iter().any(|epoch| epoch.number == number));
    match (roster.body.has_slot(slot), begun) {
        (true, true) => None,
        (true, false) => Some("it is of a key epoch that never began".to_owned()),
        (false, _) => Some("no owner has put its key slot into the roster".to_owned()),
    }
}
