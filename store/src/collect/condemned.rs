//! Condemned objects: what collection tells writers. A chunk in a condemned pack is absent for deduplication.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::backend::{ObjectKind, ObjectName, publish_bytes};
use crate::collect::retired::RETIRED_SUFFIX;
use crate::describe::Fields;
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

/// A sentence as it stands: the first half of the hash of its bytes. A session says in its object which ones
/// it has read; the name would not do, because another sentence may come to have it.
pub(crate) type Token = [u8; TOKEN_BYTES];

const TOKEN_BYTES: usize = 16;

/// Sentences that a session names at most: for any beyond, a collection waits as if it did not know them.
const TOKENS_MAX: usize = 4096;

/// Longest object of a session in bytes.
const SESSION_BYTES_MAX: u64 = (TOKENS_MAX * TOKEN_BYTES) as u64;

fn token_of(bytes: &[u8]) -> Token {
    let mut token = [0; TOKEN_BYTES];
    token.copy_from_slice(&blake3::hash(bytes).as_bytes()[..TOKEN_BYTES]);
    token
}

/// The sentences that a session says it knows. One of an older program says nothing, nor does one that cannot
/// be read.
pub(super) fn known_to(repository: &Repository, session: &ObjectName) -> HashSet<Token> {
    let said = repository.backend().read(session, SESSION_BYTES_MAX).unwrap_or_default();
    said.chunks_exact(TOKEN_BYTES).filter_map(|token| token.try_into().ok()).collect()
}

/// One condemned object.
///
/// What nobody vouches for proves nothing: it is read as a sentence that knew no snapshot. So it costs a
/// collection the marking of all snapshots, and never a pack that one of them reaches.
pub(super) struct Pending {
    pub(super) id: ObjectId,
    pub(super) sentence: Sentence,
    pub(super) token: Token,
    /// Whether a key that may collect has passed it.
    pub(super) is_vouched: bool,
}

/// All that is condemned, as one session sees it.
///
/// A sentence that does not open is the affair of whoever carries it out: nobody does that beside a session
/// which does not say that it knows it, so what it condemns may be built on.
#[derive(Debug, Default)]
pub(crate) struct Condemned {
    packs: HashSet<PackId>,
    /// The sentences that were read, by name.
    known: BTreeMap<String, Token>,
}

impl Condemned {
    pub(crate) fn load(repository: &Repository) -> Result<Self> {
        let mut condemned = Self::default();
        condemned.learn(repository)?;
        Ok(condemned)
    }

    /// Reads the sentences that are not known yet.
    pub(crate) fn learn(&mut self, repository: &Repository) -> Result<()> {
        for name in sentence_names(repository)? {
            if self.known.contains_key(name.name()) {
                continue;
            }
            // Whoever passed it: what it names counts as absent, which loses nothing.
            if let Ok(Some(read)) = read_word::<Sentence>(repository, &name) {
                self.packs.extend(read.word.packs);
                self.known.insert(name.name().to_owned(), read.token);
            }
        }
        Ok(())
    }

    /// What a session says of the sentences that it knows.
    pub(crate) fn tokens(&self) -> Vec<u8> {
        self.known.values().take(TOKENS_MAX).flatten().copied().collect()
    }

    /// Whether nothing is condemned.
    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    pub(crate) fn contains(&self, pack: &PackId) -> bool {
        self.packs.contains(pack)
    }
}

/// Every condemned object that opens, and the number of those that do not. One that vanishes meanwhile was
/// carried out.
///
/// One that does not open may be a true one that another program, or the same one on another day, can read.
/// It is proved against all snapshots before that carries it out, so that nothing here has to wait for it.
pub(super) fn load(repository: &Repository) -> Result<(Vec<Pending>, u64)> {
    let (mut pending, mut unread) = (Vec::new(), 0);
    for name in sentence_names(repository)? {
        let Some(id) = ObjectId::from_hex(name.name()) else { continue };
        match read_word::<Sentence>(repository, &name) {
            Ok(None) => {}
            Ok(Some(Read { word: mut sentence, signer, token })) => {
                let is_vouched = repository.keys().vouches(signer, Action::Maintain);
                if !is_vouched {
                    sentence.marked.clear();
                }
                let is_vouched = is_vouched || !repository.keys().is_signed();
                pending.push(Pending { id, sentence, token, is_vouched });
            }
            Err(error) if error.concerns_one_object() || matches!(error, Error::Io { .. }) => unread += 1,
            Err(error) => return Err(error),
        }
    }
    Ok((pending, unread))
}

/// Checks a sentence, its list of sessions, or a record of retired fragments: that it says something, and
/// that somebody has passed it whose word counts.
pub(crate) fn check(repository: &Repository, name: &ObjectName) -> Result<()> {
    let signer = match name.name() {
        sessions if sessions.ends_with(SESSIONS_SUFFIX) => {
            read::<Vec<String>>(repository, name)?.map(|read| read.signer)
        }
        retired if retired.ends_with(RETIRED_SUFFIX) => {
            read::<Vec<ObjectId>>(repository, name)?.map(|read| read.signer)
        }
        _ => read::<Sentence>(repository, name)?.map(|read| read.signer),
    };
    let is_vouched = |signer| !repository.keys().is_signed() || repository.keys().vouches(signer, Action::Maintain);
    match signer {
        Some(signer) if !is_vouched(signer) => Err(Error::damaged(name, "no key that may collect has signed it")),
        _ => Ok(()),
    }
}

/// Lifts sentences that do not verify, under the maintenance lease: their packs are what they were before,
/// and collection comes to them again. Those of a newer version, and those that a damaged key would open,
/// stay. Returns what was removed.
pub(crate) fn lift_unreadable(repository: &Repository) -> Result<Vec<ObjectName>> {
    let mut removed = Vec::new();
    for name in repository.backend().names(ObjectKind::Condemned)? {
        let is_record = name.name().ends_with(RETIRED_SUFFIX);
        if is_record && check(repository, &name).is_err_and(|error| error.is_integrity() && !error.is_of_keys()) {
            repository.backend().delete(std::slice::from_ref(&name))?;
            removed.push(name);
        }
    }
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
) -> Result<Option<Read<T>>> {
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

/// What an object says, and who signed it.
struct Read<T> {
    word: T,
    signer: Option<SignerId>,
    token: Token,
}

/// `None`: it is gone.
fn read<T: Serialize + serde::de::DeserializeOwned>(
    repository: &Repository,
    name: &ObjectName,
) -> Result<Option<Read<T>>> {
    match repository.backend().read(name, PAYLOAD_BYTES_MAX) {
        Err(Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
        Ok(bytes) => {
            let token = token_of(&bytes);
            let content = open_object(repository.keys(), name, bytes)?;
            let word = codec::decode(&name.to_string(), &content.payload)?;
            Ok(Some(Read { word, signer: content.signer, token }))
        }
    }
}

/// Publishes a sentence. From its return on, every session that begins knows it.
pub(super) fn publish(repository: &Repository, sentence: &Sentence) -> Result<ObjectId> {
    let id = repository.new_object_id()?;
    write(repository, &sentence_name(id)?, sentence)?;
    Ok(id)
}

/// Publishes which sessions lived after the sentence was published, for older programs: they wait for these.
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
    if name.name().ends_with(RETIRED_SUFFIX) {
        let fragments: Vec<ObjectId> = codec::decode(&name.to_string(), payload)?;
        for fragment in fragments {
            fields.add("fragment", fragment);
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
