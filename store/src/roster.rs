//! The roster: which keys a repository has, in which roles, and which key epochs have begun. Format:
//! `docs/format/roster.md`.
//!
//! Trust goes forward by signatures (as in TUF, the roots of which sign their successors): each roster is
//! signed by an owner of the one before, and carries the chain of all those hand-overs. A slot holds the
//! place in the chain at which it was made, sealed under its credential, and a machine remembers the newest
//! place that it has seen: from such an [`Anchor`] on every hand-over is checked. What outlives a rotation,
//! as the master key does, makes no roster. A roster that does not continue the chain is passed over and
//! named; it locks nobody out.
//!
//! The roster also holds the configuration: its key is everybody's, so nothing but an owner's signature tells
//! whose parameters these are.

use serde::{Deserialize, Serialize};

use crate::config::{CONFIG_BYTES_MAX, CipherSuite};
use crate::describe::Fields;
use crate::envelope::{ENVELOPE_BYTES, Envelope};
use crate::ids::{ObjectId, RepositoryId};
use crate::keys::{Cipher, Domain, nonce};
use crate::roles::Role;
use crate::sealed_to::PUBLIC_KEY_BYTES;
use crate::signing::{SignerId, Statement};
use crate::{Error, Result, codec};

/// Longest roster in bytes, sealed.
pub(crate) const ROSTER_BYTES_MAX: u64 = 4 << 20;
/// Most members, those included that were removed: each is some 150 bytes.
pub(crate) const MEMBERS_MAX: usize = 4096;
/// Most rosters of one repository: each change of keys makes one, and leaves some 300 bytes in the chain.
pub(crate) const HANDOVERS_MAX: usize = 8192;
/// Version of the document.
const VERSION: u16 = 2;
/// The version before, without the configuration.
const VERSION_WITHOUT_CONFIG: u16 = 1;

const DIGEST: &str = "copal v3 roster digest";
const BODY: &str = "copal v3 roster body";
const BODY_WITH_CONFIG: &str = "copal v3 roster body with configuration";
const STATEMENT: &str = "a roster";

/// A place in the chain of rosters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Number of the roster, from 1.
    pub sequence: u32,
    /// What it is known by.
    pub digest: [u8; 32],
}

/// A key slot as the roster has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) signer: SignerId,
    /// Takes the grants of epochs.
    pub(crate) sealing: [u8; PUBLIC_KEY_BYTES],
    pub(crate) slot: ObjectId,
    pub(crate) role: Role,
    pub(crate) key_file: bool,
    pub(crate) label: String,
    pub(crate) created_seconds: i64,
    pub(crate) removed_seconds: Option<i64>,
}

/// A key epoch that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BegunEpoch {
    pub(crate) number: u32,
    /// Binds its keys: a grant of others is refused.
    pub(crate) commitment: [u8; 32],
    pub(crate) created_seconds: i64,
}

/// What a roster says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) members: Vec<Member>,
    pub(crate) epochs: Vec<BegunEpoch>,
    /// The configuration object as the owners have signed it; empty where they have not yet.
    #[serde(skip)]
    pub(crate) config: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Handover {
    sequence: u32,
    previous: [u8; 32],
    /// Keys that may sign the next one, sorted.
    owners: Vec<SignerId>,
    body: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SignedHandover {
    handover: Handover,
    signer: SignerId,
    signature: ([u8; 32], [u8; 32]),
}

#[derive(Serialize, Deserialize)]
struct DocumentWithoutConfig {
    version: u16,
    body: Body,
    chain: Vec<SignedHandover>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u16,
    body: Body,
    config: Vec<u8>,
    chain: Vec<SignedHandover>,
}

/// A roster whose chain holds.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    pub(crate) body: Body,
    chain: Vec<SignedHandover>,
    anchor: Anchor,
}

impl Body {
    /// Members that were not removed.
    pub(crate) fn current(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.removed_seconds.is_none())
    }

    /// Whether a slot is that of a current member.
    pub(crate) fn has_slot(&self, slot: ObjectId) -> bool {
        self.current().any(|member| member.slot == slot)
    }

    fn owners(&self) -> Vec<SignerId> {
        let owners = self.current().filter(|member| member.role == Role::Full);
        let mut owners: Vec<SignerId> = owners.map(|member| member.signer).collect();
        owners.sort_unstable();
        owners
    }

    fn hash(&self) -> Result<[u8; 32]> {
        let mut bytes = codec::encode(self)?;
        if self.config.is_empty() {
            return Ok(blake3::derive_key(BODY, &bytes));
        }
        bytes.extend_from_slice(&codec::encode(&self.config)?);
        Ok(blake3::derive_key(BODY_WITH_CONFIG, &bytes))
    }
}

impl Handover {
    fn digest(&self, repository: RepositoryId) -> Result<[u8; 32]> {
        let bytes = [&repository.0[..], &codec::encode(self)?].concat();
        Ok(blake3::derive_key(DIGEST, &bytes))
    }
}

/// A roster that nobody has signed yet; what its slots are anchored at is known already.
pub(crate) struct Draft {
    body: Body,
    chain: Vec<SignedHandover>,
    handover: Handover,
    anchor: Anchor,
}

impl Draft {
    /// The one after `before`, or the first.
    pub(crate) fn after(before: Option<&Roster>, body: Body, repository: RepositoryId) -> Result<Self> {
        let chain = before.map(|before| before.chain.clone()).unwrap_or_default();
        if chain.len() >= HANDOVERS_MAX {
            return Err(Error::Limit { what: "the number of changes of keys".into(), limit: HANDOVERS_MAX as u64 });
        }
        if body.members.len() > MEMBERS_MAX {
            return Err(Error::Limit { what: "the number of keys ever added".into(), limit: MEMBERS_MAX as u64 });
        }
        let sequence = chain.len() as u32 + 1;
        let previous = before.map_or([0; 32], |before| before.anchor.digest);
        let handover = Handover { sequence, previous, owners: body.owners(), body: body.hash()? };
        let anchor = Anchor { sequence, digest: handover.digest(repository)? };
        Ok(Self { body, chain, handover, anchor })
    }

    pub(crate) fn anchor(&self) -> Anchor {
        self.anchor
    }

    /// The place in the chain that it continues; `None`: it is the first.
    pub(crate) fn previous(&self) -> Option<Anchor> {
        let sequence = self.handover.sequence - 1;
        (sequence > 0).then_some(Anchor { sequence, digest: self.handover.previous })
    }

    /// Signs it: `sign` appends signer and signature to a content under a statement.
    pub(crate) fn signed(
        mut self,
        repository: RepositoryId,
        signer: &crate::signing::Signer,
    ) -> Result<(Roster, Vec<u8>)> {
        let statement = Statement { repository, object: STATEMENT };
        let signed = signer.sign(&statement, self.anchor.digest.to_vec());
        let (mut first, mut second) = ([0; 32], [0; 32]);
        first.copy_from_slice(&signed[64..96]);
        second.copy_from_slice(&signed[96..]);
        self.chain.push(SignedHandover { handover: self.handover, signer: signer.id(), signature: (first, second) });
        let roster = Roster { body: self.body, chain: self.chain, anchor: self.anchor };
        let bytes = encode_document(&roster.body, &roster.chain)?;
        Ok((roster, bytes))
    }
}

impl Roster {
    /// Where it stands in the chain.
    pub(crate) fn anchor(&self) -> Anchor {
        self.anchor
    }

    /// Adds its fields.
    pub(crate) fn describe(&self, fields: &mut Fields) {
        for member in &self.body.members {
            let removed = member.removed_seconds.map(|at| format!(", removed at {at}")).unwrap_or_default();
            let kind = if member.key_file { "key file" } else { "password" };
            let Member { slot, role, label, created_seconds, .. } = member;
            fields.add("member", format!("{label:?}, {role}, {kind}, made at {created_seconds}{removed}"));
            fields.add("  slot", slot);
            fields.add("  signer", member.signer);
            fields.add("  sealing key", hex::encode(member.sealing));
        }
        for epoch in &self.body.epochs {
            let commitment = hex::encode(epoch.commitment);
            fields.add("epoch", format!("{}, begun at {}, {commitment}", epoch.number, epoch.created_seconds));
        }
        if !self.body.config.is_empty() {
            fields.add("configuration", hex::encode(&self.body.config));
        }
        for signed in &self.chain {
            let SignedHandover { handover, signer, signature } = signed;
            fields.add("hand-over", handover.sequence);
            fields.add("  previous", hex::encode(handover.previous));
            for owner in &handover.owners {
                fields.add("  owner", owner);
            }
            fields.add("  body", hex::encode(handover.body));
            fields.add("  signer", signer);
            fields.add("  signature", hex::encode([signature.0, signature.1].concat()));
        }
        fields.add("digest", hex::encode(self.anchor.digest));
    }

    /// The newest epoch that has begun; 0: none.
    pub(crate) fn epoch(&self) -> u32 {
        self.body.epochs.last().map_or(0, |epoch| epoch.number)
    }

    /// Whether it is the first of a repository of an older format, whose objects are about to be signed: the
    /// next one ends that.
    pub(crate) fn is_being_introduced(&self) -> bool {
        self.anchor.sequence == 1 && !self.body.epochs.is_empty()
    }

    /// Whether a place is one of its chain.
    pub(crate) fn continues(&self, from: Anchor, repository: RepositoryId) -> bool {
        let at = self.chain.get((from.sequence as usize).wrapping_sub(1));
        at.is_some_and(|at| at.handover.digest(repository).is_ok_and(|digest| digest == from.digest))
    }

    /// Decodes a roster and checks its chain from `from` on: what stood before is bound by its digest.
    pub(crate) fn decode(object: &str, bytes: &[u8], repository: RepositoryId, from: Anchor) -> Result<Self> {
        let damaged = |detail: &str| Error::damaged(object, detail);
        let (body, chain) = decode_document(object, bytes)?;
        if chain.is_empty() || chain.len() > HANDOVERS_MAX || body.members.len() > MEMBERS_MAX {
            return Err(damaged("it has more or fewer hand-overs than a roster can have"));
        }
        let mut previous = [0; 32];
        for (number, signed) in chain.iter().enumerate() {
            let handover = &signed.handover;
            if handover.sequence as usize != number + 1 || handover.previous != previous {
                return Err(damaged("its chain of hand-overs is broken"));
            }
            previous = handover.digest(repository)?;
            let owners = number.checked_sub(1).map_or(&handover.owners, |before| &chain[before].handover.owners);
            if handover.sequence > from.sequence {
                check_signature(object, signed, &previous, repository)?;
                if !owners.contains(&signed.signer) {
                    return Err(damaged("it is not signed by an owner of the roster before"));
                }
            }
            if handover.sequence == from.sequence && previous != from.digest {
                return Err(damaged(
                    "it does not continue the roster that this key was made with, or this machine saw",
                ));
            }
        }
        let last = &chain[chain.len() - 1].handover;
        if last.sequence < from.sequence {
            return Err(damaged("it is older than the one that this key was made with, or this machine saw"));
        }
        if last.body != body.hash()? || last.owners != body.owners() {
            return Err(damaged("what it says is not what was signed"));
        }
        if !body.epochs.is_sorted_by(|one, next| one.number < next.number) {
            return Err(damaged("its key epochs are out of order"));
        }
        let anchor = Anchor { sequence: last.sequence, digest: previous };
        Ok(Self { body, chain, anchor })
    }
}

fn check_signature(object: &str, signed: &SignedHandover, digest: &[u8; 32], repository: RepositoryId) -> Result<()> {
    let content = [&digest[..], &signed.signer.0, &signed.signature.0, &signed.signature.1].concat();
    let statement = Statement { repository, object: STATEMENT };
    statement.verify(content).map(drop).map_err(|_| Error::damaged(object, "a signature in its chain does not verify"))
}

/// Seals a roster's document. The copy has the same bytes: one nonce, one plaintext.
pub(crate) fn seal(key: &[u8; 32], id: ObjectId, document: &[u8]) -> Result<Vec<u8>> {
    let envelope = Envelope::signed_slot(id).encode();
    let mut text = document.to_vec();
    let tag = cipher(key, id)?.seal(nonce(Domain::Part, 0), &envelope, &mut text)?;
    Ok([&envelope[..], &text, &tag].concat())
}

/// One without a configuration has the version before.
fn encode_document(body: &Body, chain: &[SignedHandover]) -> Result<Vec<u8>> {
    let (body, chain, config) = (body.clone(), chain.to_vec(), body.config.clone());
    match config.is_empty() {
        true => codec::encode(&DocumentWithoutConfig { version: VERSION_WITHOUT_CONFIG, body, chain }),
        false => codec::encode(&Document { version: VERSION, body, config, chain }),
    }
}

fn decode_document(object: &str, bytes: &[u8]) -> Result<(Body, Vec<SignedHandover>)> {
    // The version stands first, so that a newer document is told from a damaged one.
    match bytes.first().copied().map(u16::from) {
        Some(VERSION_WITHOUT_CONFIG) => {
            let DocumentWithoutConfig { body, chain, .. } = codec::decode(object, bytes)?;
            Ok((body, chain))
        }
        Some(VERSION) => {
            let Document { body, config, chain, .. } = codec::decode(object, bytes)?;
            if config.is_empty() || config.len() as u64 > CONFIG_BYTES_MAX {
                return Err(Error::damaged(object, "it has no configuration, or a longer one than there can be"));
            }
            Ok((Body { config, ..body }, chain))
        }
        Some(version) if version > VERSION => {
            Err(Error::Unsupported { what: object.into(), found: version.into(), supported: VERSION.into() })
        }
        _ => Err(Error::damaged(object, "it has no version")),
    }
}

/// The number that a document says it has, unchecked.
pub(crate) fn sequence(object: &str, document: &[u8]) -> Result<u32> {
    let (_, chain) = decode_document(object, document)?;
    Ok(chain.last().map_or(0, |last| last.handover.sequence))
}

/// Opens a sealed roster; its document.
pub(crate) fn open(object: &str, key: &[u8; 32], bytes: &[u8]) -> Result<Vec<u8>> {
    let envelope = Envelope::decode(object, crate::backend::ObjectKind::KeySlot, bytes)?;
    let mut text = bytes[ENVELOPE_BYTES..].to_vec();
    let opened = cipher(key, envelope.id)?.open(nonce(Domain::Part, 0), &envelope.encode(), &mut text);
    let plain_bytes = opened.ok_or_else(|| Error::damaged(object, "it does not verify"))?;
    text.truncate(plain_bytes);
    Ok(text)
}

fn cipher(key: &[u8; 32], id: ObjectId) -> Result<Cipher> {
    Cipher::new(CipherSuite::ChaCha20Poly1305, blake3::keyed_hash(key, id.as_bytes()).as_bytes())
}

#[cfg(test)]
mod tests {
    //! Goal: only a chain that owners signed is followed. Method: rosters that are forged in each way that a
    //! former owner could.

    use super::*;
    use crate::signing::Signer;

    const REPOSITORY: RepositoryId = RepositoryId([3; 16]);

    fn signer(byte: u8) -> Signer {
        Signer::of_stretched(&[byte; 32]).unwrap()
    }

    fn member(byte: u8, role: Role) -> Member {
        Member {
            signer: signer(byte).id(),
            sealing: [byte; 32],
            slot: ObjectId([byte; 16]),
            role,
            key_file: true,
            label: format!("key {byte}"),
            created_seconds: 0,
            removed_seconds: None,
        }
    }

    fn body(members: &[(u8, Role)]) -> Body {
        let members = members.iter().map(|(byte, role)| member(*byte, *role)).collect();
        Body { members, ..Body::default() }
    }

    fn next(before: Option<&Roster>, members: &[(u8, Role)], by: u8) -> (Roster, Vec<u8>) {
        Draft::after(before, body(members), REPOSITORY).unwrap().signed(REPOSITORY, &signer(by)).unwrap()
    }

    fn decode(bytes: &[u8], from: &Roster) -> Result<Roster> {
        Roster::decode("keys/roster", bytes, REPOSITORY, from.anchor())
    }

    #[test]
    fn a_chain_that_owners_signed_is_followed() {
        let (first, _) = next(None, &[(1, Role::Full)], 1);
        let (second, _) = next(Some(&first), &[(1, Role::Full), (2, Role::Full), (3, Role::Create)], 1);
        let (third, bytes) = next(Some(&second), &[(2, Role::Full), (3, Role::Create)], 2);
        for from in [&first, &second, &third] {
            let found = decode(&bytes, from).unwrap();
            assert_eq!((found.anchor().sequence, found.anchor()), (3, third.anchor()));
            assert!(found.continues(from.anchor(), REPOSITORY));
        }
        assert!(Roster::decode("r", &bytes, RepositoryId([4; 16]), first.anchor()).is_err());
    }

    #[test]
    fn nobody_else_makes_a_roster() {
        let (first, first_bytes) = next(None, &[(1, Role::Full), (2, Role::Full), (3, Role::Create)], 1);
        let (second, _) = next(Some(&first), &[(1, Role::Full), (3, Role::Create)], 1);
        // Who was removed, who creates, who was never there.
        for forger in [2, 3, 4] {
            let (_, bytes) = next(Some(&second), &[(forger, Role::Full)], forger);
            assert!(decode(&bytes, &second).is_err(), "{forger}");
            assert!(decode(&bytes, &first).is_err(), "{forger}");
        }
        // A former owner's branch, seen by who has seen the true one; an older roster; another beginning.
        let (branch, _) = next(Some(&first), &[(2, Role::Full)], 2);
        let (_, longer) = next(Some(&branch), &[(2, Role::Full)], 2);
        assert!(decode(&longer, &second).is_err());
        assert!(decode(&first_bytes, &second).is_err());
        let (other, _) = next(None, &[(2, Role::Full)], 2);
        let (_, bytes) = next(Some(&other), &[(2, Role::Full)], 2);
        assert!(decode(&bytes, &first).is_err());
    }

    #[test]
    fn a_configuration_is_signed_with_the_roster() {
        let signed = |config: &[u8]| {
            let body = Body { config: config.to_vec(), ..body(&[(1, Role::Full)]) };
            Draft::after(None, body, REPOSITORY).unwrap().signed(REPOSITORY, &signer(1)).unwrap()
        };
        let from = Anchor { sequence: 0, digest: [0; 32] };
        let ((with, bytes), (without, bytes_without)) = (signed(b"one"), signed(b""));
        assert_eq!(Roster::decode("r", &bytes, REPOSITORY, from).unwrap().body.config, b"one");
        assert_eq!(Roster::decode("r", &bytes_without, REPOSITORY, from).unwrap().body.config, b"");
        // The same chain with another configuration, with none, with one that nobody signed.
        for (roster, config) in [(&with, &b"two"[..]), (&with, b""), (&without, b"one")] {
            let body = Body { config: config.to_vec(), ..roster.body.clone() };
            let forged = encode_document(&body, &roster.chain).unwrap();
            assert!(Roster::decode("r", &forged, REPOSITORY, from).is_err());
        }
    }

    #[test]
    fn a_roster_opens_as_it_was_sealed_or_not_at_all() {
        let config = Body { config: vec![7; 40], ..body(&[(1, Role::Full)]) };
        let (_, document) = Draft::after(None, config, REPOSITORY).unwrap().signed(REPOSITORY, &signer(1)).unwrap();
        // From the very beginning, so that every signature is looked at.
        let from = Anchor { sequence: 0, digest: [0; 32] };
        let decode = |bytes: &[u8]| Roster::decode("keys/roster", bytes, REPOSITORY, from);
        let sealed = seal(&[9; 32], ObjectId([8; 16]), &document).unwrap();
        assert_eq!(open("r", &[9; 32], &sealed).unwrap(), document);
        assert!(open("r", &[7; 32], &sealed).is_err());
        for position in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[position] ^= 1;
            let opened = open("r", &[9; 32], &flipped).and_then(|document| decode(&document));
            assert!(opened.is_err(), "a flipped bit at {position}");
            assert!(open("r", &[9; 32], &sealed[..position]).is_err());
        }
        for position in 0..document.len() {
            let mut flipped = document.clone();
            flipped[position] ^= 1;
            assert!(decode(&flipped).is_err(), "a flipped bit at {position} of the document");
        }
    }
}
