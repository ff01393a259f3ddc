//! Condemned objects: what collection tells writers. A chunk in a condemned pack is absent for deduplication.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::backend::{ObjectKind, ObjectName, publish_bytes};
use crate::describe::Fields;
use crate::error::Unreadable;
use crate::ids::{ObjectId, PackId};
use crate::repository::{Repository, RootName};
use crate::roles::Action;
use crate::sealed::{PAYLOAD_BYTES_MAX, open_object, seal_object};
use crate::signing::SignerId;
use crate::{Error, Result, codec};

/// Names of sessions stand in a second object beside the first.
const SESSIONS_SUFFIX: &str = "-sessions";

/// A root whose reach was marked: of its whole name, because another root may have the same snapshot id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Mark([u8; 16]);

impl Mark {
    pub(super) fn of(root: &RootName) -> Self {
        let hash = blake3::derive_key(MARK, &[root.tag, root.snapshot.0].concat());
        let mut mark = [0; 16];
        mark.copy_from_slice(&hash[..16]);
        Self(mark)
    }
}

const MARK: &str = "copal v3 mark of a root";

/// Packs that wait to be deleted, and the roots whose reach was marked when they were chosen. Sentences of
/// older programs have the ids of snapshots in their place, which are no marks of any root: then all of them
/// are marked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sentence {
    pub(super) packs: Vec<PackId>,
    pub(super) marked: Vec<Mark>,
}

/// One condemned object with its sessions.
///
/// What nobody vouches for proves nothing: it is read as a sentence that knew no snapshot, and whose sessions
/// nobody listed. So it costs a collection the marking of all snapshots, and never a pack that one of them
/// reaches.
pub(super) struct Pending {
    pub(super) id: ObjectId,
    pub(super) sentence: Sentence,
    /// Sessions that lived when the sentence was published; `None`: the collection died before it listed
    /// them.
    pub(super) sessions: Option<Vec<String>>,
    /// Whether a key that may collect has passed it.
    pub(super) is_vouched: bool,
}

/// All that is condemned, as one session sees it.
#[derive(Debug, Default)]
pub(crate) struct Condemned {
    packs: HashSet<PackId>,
    marked: Vec<HashSet<Mark>>,
    unreadable: Option<Unreadable>,
}

impl Condemned {
    pub(crate) fn load(repository: &Repository) -> Result<Self> {
        let condemned = Self::load_readable(repository)?;
        condemned.check_readable()?;
        Ok(condemned)
    }

    /// For a session, which may only read: a sentence that does not open is kept as a refusal to write.
    pub(crate) fn load_readable(repository: &Repository) -> Result<Self> {
        let mut condemned = Self::default();
        for name in sentence_names(repository)? {
            match read_word::<Sentence>(repository, &name) {
                Ok(None) => {}
                // Whoever passed it: what it names counts as absent, which loses nothing.
                Ok(Some((sentence, signer))) => {
                    condemned.packs.extend(sentence.packs);
                    let vouched = repository.keys().vouches(signer, Action::Maintain);
                    condemned.marked.push(if vouched { sentence.marked.into_iter().collect() } else { HashSet::new() });
                }
                Err(error) => condemned.unreadable = Some(Unreadable::of(error)?),
            }
        }
        Ok(condemned)
    }

    /// Nobody may count chunks as stored while it is unknown which packs are about to go.
    pub(crate) fn check_readable(&self) -> Result<()> {
        match &self.unreadable {
            None => Ok(()),
            Some(unreadable) => Err(unreadable.into()),
        }
    }

    /// Whether nothing is condemned.
    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    pub(crate) fn contains(&self, pack: &PackId) -> bool {
        self.packs.contains(pack)
    }

    /// Whether every sentence was passed knowing this root: then none of its chunks is in a condemned pack.
    pub(crate) fn all_marked(&self, root: &RootName) -> bool {
        self.marked.iter().all(|marked| marked.contains(&Mark::of(root)))
    }
}

/// Reads every condemned object. One that vanishes meanwhile was carried out.
pub(super) fn load(repository: &Repository) -> Result<Vec<Pending>> {
    let mut pending = Vec::new();
    for name in sentence_names(repository)? {
        let Some(id) = ObjectId::from_hex(name.name()) else { continue };
        let Some((mut sentence, signer)) = read_word::<Sentence>(repository, &name)? else { continue };
        let sessions = read_word::<Vec<String>>(repository, &sessions_name(id)?)?;
        let vouches = |signer| repository.keys().vouches(signer, Action::Maintain);
        let mut sessions = sessions.filter(|(_, signer)| vouches(*signer)).map(|(sessions, _)| sessions);
        let is_vouched = vouches(signer) || !repository.keys().is_signed();
        if !vouches(signer) {
            sentence.marked.clear();
            sessions = None;
        }
        pending.push(Pending { id, sentence, sessions, is_vouched });
    }
    Ok(pending)
}

/// Checks a sentence, or its list of sessions: that it says something, and that somebody has passed it whose
/// word counts.
pub(crate) fn check(repository: &Repository, name: &ObjectName) -> Result<()> {
    let signer = match name.name().ends_with(SESSIONS_SUFFIX) {
        true => read::<Vec<String>>(repository, name)?.map(|(_, signer)| signer),
        false => read::<Sentence>(repository, name)?.map(|(_, signer)| signer),
    };
    let is_vouched = |signer| !repository.keys().is_signed() || repository.keys().vouches(signer, Action::Maintain);
    match signer {
        Some(signer) if !is_vouched(signer) => Err(Error::damaged(name, "no key that may collect has signed it")),
        _ => Ok(()),
    }
}

/// Lifts sentences that do not verify, under the maintenance lease: their packs are what they were before,
/// and collection comes to them again. Of a sentence whose sessions do not verify, whoever lives now is a
/// witness. Those of a newer version, and those that a damaged key would open, stay. Returns what was
/// removed.
pub(crate) fn lift_unreadable(repository: &Repository) -> Result<Vec<ObjectName>> {
    let mut removed = Vec::new();
    let damaged = |outcome: Result<()>| match outcome {
        Err(error) if error.concerns_one_object() => Ok(error.is_integrity() && !error.is_of_keys()),
        outcome => outcome.map(|()| false),
    };
    for name in sentence_names(repository)? {
        let Some(id) = ObjectId::from_hex(name.name()) else { continue };
        let sessions = sessions_name(id)?;
        if damaged(read::<Vec<String>>(repository, &sessions).map(drop))? {
            repository.backend().delete(std::slice::from_ref(&sessions))?;
            removed.push(sessions);
        }
        if damaged(read::<Sentence>(repository, &name).map(drop))? {
            remove(repository, id)?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// The same for whoever goes by it: `None` also for what says nothing and was made so by a key that may not
/// collect. It opens, so it is no damage; and its word would decide nothing.
fn read_word<T: Serialize + serde::de::DeserializeOwned>(
    repository: &Repository,
    name: &ObjectName,
) -> Result<Option<(T, Option<SignerId>)>> {
    match read(repository, name) {
        Err(error @ Error::Damaged { .. }) => {
            let opened = repository.backend().read(name, PAYLOAD_BYTES_MAX);
            match opened.and_then(|bytes| open_object(repository.keys(), name, bytes)) {
                Ok(content) if is_nobodys(repository, content.signer) => Ok(None),
                _ => Err(error),
            }
        }
        word => word,
    }
}

/// Whether nobody who may collect has signed something, in a repository that has signatures.
fn is_nobodys(repository: &Repository, signer: Option<SignerId>) -> bool {
    repository.keys().is_signed() && !repository.keys().vouches(signer, Action::Maintain)
}

fn sentence_names(repository: &Repository) -> Result<Vec<ObjectName>> {
    let listed = repository.backend().list(ObjectKind::Condemned)?;
    let names = listed.into_iter().map(|listed| listed.name);
    Ok(names.filter(|name| ObjectId::from_hex(name.name()).is_some()).collect())
}

/// What an object says, and who signed it; `None`: it is gone.
fn read<T: Serialize + serde::de::DeserializeOwned>(
    repository: &Repository,
    name: &ObjectName,
) -> Result<Option<(T, Option<SignerId>)>> {
    match repository.backend().read(name, PAYLOAD_BYTES_MAX) {
        Err(Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
        Ok(bytes) => {
            let content = open_object(repository.keys(), name, bytes)?;
            Ok(Some((codec::decode(&name.to_string(), &content.payload)?, content.signer)))
        }
    }
}

/// Publishes a sentence. From its return on, every session that begins knows it.
pub(super) fn publish(repository: &Repository, sentence: &Sentence) -> Result<ObjectId> {
    let id = repository.new_object_id()?;
    write(repository, &sentence_name(id)?, sentence)?;
    Ok(id)
}

/// Publishes which sessions lived after the sentence was published. A list that nobody vouches for gives way
/// to it.
pub(super) fn publish_sessions(repository: &Repository, id: ObjectId, sessions: &Vec<String>) -> Result<()> {
    let name = sessions_name(id)?;
    repository.backend().delete(std::slice::from_ref(&name))?;
    write(repository, &name, sessions)
}

fn write<T: Serialize>(repository: &Repository, name: &ObjectName, value: &T) -> Result<()> {
    let bytes = seal_object(repository.keys(), name, repository.new_object_id()?, &codec::encode(value)?)?;
    publish_bytes(&**repository.backend(), name, &bytes)
}

/// Removes a sentence that was carried out, its sessions first: alone they mean nothing.
pub(super) fn remove(repository: &Repository, id: ObjectId) -> Result<()> {
    repository.backend().delete(&[sessions_name(id)?])?;
    repository.backend().delete(&[sentence_name(id)?])
}

/// Adds the fields of a sentence, or of its list of sessions.
pub(crate) fn describe(name: &ObjectName, payload: &[u8], fields: &mut Fields) -> Result<()> {
    if name.name().ends_with(SESSIONS_SUFFIX) {
        let sessions: Vec<String> = codec::decode(&name.to_string(), payload)?;
        for session in sessions {
            fields.add("session", session);
        }
        return Ok(());
    }
    let sentence: Sentence = codec::decode(&name.to_string(), payload)?;
    for pack in sentence.packs {
        fields.add("pack", pack);
    }
    for Mark(mark) in sentence.marked {
        fields.add("marked", hex::encode(mark));
    }
    Ok(())
}

fn sentence_name(id: ObjectId) -> Result<ObjectName> {
    ObjectName::new(ObjectKind::Condemned, id.to_string()).ok_or_else(|| Error::damaged(id, "not a name"))
}

fn sessions_name(id: ObjectId) -> Result<ObjectName> {
    let name = format!("{id}{SESSIONS_SUFFIX}");
    ObjectName::new(ObjectKind::Condemned, name).ok_or_else(|| Error::damaged(id, "not a name"))
}
