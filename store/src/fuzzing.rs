//! Doors for fuzzing only (feature `fuzzing`): the sealing of hostile plaintext under right keys, and
//! decoders that stand alone. What a reader may believe of data that verifies is less than what its writer
//! may put there.

use std::sync::{Mutex, PoisonError};

use crate::backend::{ObjectKind, ObjectName};
use crate::config::{Config, Parameters};
use crate::envelope::Sealing;
use crate::ids::{ChunkId, ObjectId, PackId};
use crate::index::{Block, build_fragment, fragment_name};
use crate::keys::Keys;
use crate::location::{Encoding, Location, RecordKind};
use crate::pack::PackSealer;
use crate::repository::Repository;
use crate::sealed::{PartsSealer, seal_object, seal_unsigned, signed};
use crate::signing::SignerId;
use crate::{Error, Result};

/// Seals a configuration of this repository: its key is everybody's.
pub fn seal_config(repository: &Repository, parameters: &Parameters, features: &[&str]) -> Result<Vec<u8>> {
    let config = Config { parameters: parameters.clone(), ..repository.config().clone() };
    config.seal_needing(repository.keys(), features)
}

/// Seals a payload as the object of a name, as if it had been written by this program.
pub fn seal_whole(repository: &Repository, name: &ObjectName, payload: &[u8]) -> Result<Vec<u8>> {
    seal_object(repository.keys(), name, repository.new_object_id()?, payload)
}

/// The same without a signature, as a program of format 2 would have written it, or somebody who wants to be
/// taken for it.
pub fn seal_whole_unsigned(repository: &Repository, name: &ObjectName, payload: &[u8]) -> Result<Vec<u8>> {
    seal_unsigned(repository.keys(), name, repository.new_object_id()?, payload)
}

/// A fragment that lists chunks at places of one's choice, in the name of an author; signed by the key in
/// use, whoever that is.
pub fn seal_fragment(
    repository: &Repository,
    id: ObjectId,
    entries: &[(ChunkId, Location)],
    author: SignerId,
) -> Result<(ObjectName, Vec<u8>)> {
    let object = build_fragment(repository.keys(), id, &mut entries.to_vec(), Some(author))?;
    Ok((fragment_name(id), object))
}

/// Seals parts and a directory as a pack or a fragment; returns the object.
pub fn seal_parts(keys: &Keys, name: &ObjectName, parts: &[(&[u8], &[u8])], directory: &[u8]) -> Result<Vec<u8>> {
    let id = ObjectId::from_hex(name.name()).unwrap_or(ObjectId([0; 16]));
    let mut out = Vec::new();
    let mut sealer = PartsSealer::new(keys, name.kind(), id, Sealing::Derived, &mut out)?;
    for (bound, plain) in parts {
        sealer.seal_part(bound, plain, &mut out)?;
    }
    sealer.finish(directory, &mut out)?;
    Ok(out)
}

/// A record of a pack, as its writer says it is.
pub struct ForgedRecord<'a> {
    /// How it is said to be encoded.
    pub encoding: Encoding,
    /// The chunks that are said to be in it, with their lengths.
    pub members: &'a [(ChunkId, u32)],
    /// The base that it is said to have.
    pub base: Option<ChunkId>,
    /// What is in it.
    pub payload: &'a [u8],
}

/// Bytes of a pack, and the places that its list gives.
pub type ForgedPack = (Vec<u8>, Vec<(ChunkId, Location)>);

/// A pack of any records, with a list of them that opens; and the places that follow from that list.
pub fn seal_pack(
    repository: &Repository,
    pack: PackId,
    kind: RecordKind,
    records: &[ForgedRecord<'_>],
) -> Result<ForgedPack> {
    let mut out = Vec::new();
    let mut sealer = PackSealer::new(repository.keys(), pack, kind, &mut out)?;
    for ForgedRecord { encoding, members, base, payload } in records {
        sealer.seal_record(*encoding, members, *base, payload, &mut out)?;
    }
    let (trailer, _) = sealer.finish(&mut out)?;
    let entries = trailer.entries(pack).collect();
    Ok((out, entries))
}

/// A pack of data with parts that open and any text for the list of them.
pub fn seal_pack_parts(repository: &Repository, pack: PackId, part: &[u8], directory: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let id = ObjectId(pack.0);
    let mut sealer = PartsSealer::new(repository.keys(), ObjectKind::Pack, id, Sealing::ForData, &mut out)?;
    sealer.seal_part(b"", part, &mut out)?;
    sealer.finish(directory, &mut out)?;
    Ok(out)
}

/// The same with a directory that the key in use signs.
pub fn seal_signed_parts(
    repository: &Repository,
    name: &ObjectName,
    parts: &[(&[u8], &[u8])],
    directory: &[u8],
) -> Result<Vec<u8>> {
    let keys = repository.keys();
    seal_parts(keys, name, parts, &signed(keys, name, directory.to_vec())?)
}

/// Names of the index fragments that are read with so much memory for each key that is no owner's, and what
/// is said of those that are not.
pub fn index_within(repository: &Repository, bytes_of_one_key_max: u64) -> Result<(Vec<String>, Option<Error>)> {
    crate::index::names_within(&**repository.backend(), repository.keys(), bytes_of_one_key_max)
}

/// What the parts of a fragment's blocks are bound to.
pub const BLOCK: &[u8] = b"block";

/// Opens a block of the index and reads every row of it.
pub fn read_block(bytes: &[u8]) -> Result<usize> {
    let block = Block::new(bytes.to_vec())?;
    let packs = [(PackId([1; 16]), RecordKind::Data), (PackId([2; 16]), RecordKind::Node)];
    let mut sound = 0;
    for row in 0..block.count() {
        sound += usize::from(block.location(row, &packs).is_ok());
        let _ = block.find(&block.id(row), &packs);
    }
    let _ = block.find(&ChunkId([7; 32]), &packs);
    Ok(sound)
}

/// Names of the types of which a document was read by bincode and by the second reader, with the same
/// outcome: each decode of this process compares.
#[must_use]
pub fn compared_documents() -> Vec<&'static str> {
    crate::codec::independent::compared()
}

/// A seal: a fingerprint of its key, its nonce, and a hash of what is sealed and bound.
pub type Seal = ([u8; 32], [u8; 12], [u8; 32]);

static SEALS: Mutex<Option<Vec<Seal>>> = Mutex::new(None);

/// From now on every seal of this process is noted.
pub fn note_seals() {
    SEALS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
}

/// The seals noted so far.
#[must_use]
pub fn seals() -> Vec<Seal> {
    SEALS.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
}

pub(crate) fn note_seal(fingerprint: [u8; 32], nonce: [u8; 12], bound: &[u8], plain: &[u8]) {
    if let Some(seals) = &mut *SEALS.lock().unwrap_or_else(PoisonError::into_inner) {
        let bound = blake3::hash(bound);
        let sealed = blake3::Hasher::new().update(bound.as_bytes()).update(plain).finalize();
        seals.push((fingerprint, nonce, *sealed.as_bytes()));
    }
}
