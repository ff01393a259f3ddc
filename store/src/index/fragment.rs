//! A fragment: sealed blocks, then a sealed directory of packs, fences and the filter.
//!
//! In a repository that has a roster the directory has the hash of each block, says whose entries they are,
//! and is signed: by the author, or by a maintainer who merged them. Whose entries count for what is told by
//! [`Standing`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, ObjectKind, ObjectName, ObjectStat};
use crate::envelope::{ENVELOPE_BYTES, Sealing};
use crate::ids::{ChunkId, ObjectId, PackId};
use crate::index::block::{BLOCK_ENTRIES_MAX, Block, block_bytes_max, encode_block};
use crate::index::filter;
use crate::keys::{Keys, TAG_BYTES};
use crate::location::{Location, RecordKind};
use crate::roles::Action;
use crate::sealed::{PartsOpener, PartsSealer, signed, verified};
use crate::signing::SignerId;
use crate::{Error, Result, codec};

/// The object of a fragment.
pub(crate) fn fragment_name(id: ObjectId) -> ObjectName {
    ObjectName::new(ObjectKind::Index, id.to_string()).expect("a hexadecimal id is a name")
}

#[derive(Serialize, Deserialize)]
struct Directory {
    packs: Vec<(PackId, u8)>,
    /// First id and stored length of each block.
    blocks: Vec<(ChunkId, u32)>,
    /// Entries of the last block; all others are full.
    last_entries: u32,
    filter_bytes: u64,
}

/// The directory of a signed fragment.
#[derive(Serialize, Deserialize)]
struct SignedDirectory {
    packs: Vec<(PackId, u8)>,
    /// First id, stored length and hash of each block.
    blocks: Vec<(ChunkId, u32, [u8; 32])>,
    last_entries: u32,
    filter_bytes: u64,
    /// Whose entries they are: who stored the chunks, or hashed them again.
    author: SignerId,
}

/// What the entries of a fragment count for, to the holder of some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Standing {
    /// Of the key in use, or of an owner: chunks that stand there are stored.
    Trusted,
    /// Of another key that is or was in the roster: they are read, and nothing of one's own is built on them.
    OfMember(SignerId),
    /// Signed by nobody who counts: the same, all strangers together.
    Stranger,
}

/// What an entry takes in a fragment, with its share of the filter: about so much.
const ENTRY_BYTES: usize = 64;

/// Builds the object of a fragment from entries, which it sorts. `author`: whose entries they are, in a
/// signed repository.
pub(crate) fn build_fragment(
    keys: &Keys,
    id: ObjectId,
    entries: &mut Vec<(ChunkId, Location)>,
    author: Option<SignerId>,
) -> Result<Vec<u8>> {
    entries.sort_unstable_by_key(|(id, location)| (*id, location.pack, location.record_offset));
    entries.dedup_by_key(|entry| entry.0);
    let packs: BTreeSet<(PackId, u8)> =
        entries.iter().map(|(_, location)| (location.pack, location.kind as u8)).collect();
    let packs: Vec<(PackId, u8)> = packs.into_iter().collect();
    let number = |pack: &PackId| packs.partition_point(|(other, _)| other < pack) as u32;
    let mut out = Vec::with_capacity(entries.len() * ENTRY_BYTES + (4 << 10));
    let mut sealer = PartsSealer::new(keys, ObjectKind::Index, id, Sealing::Derived, &mut out)?;
    let mut blocks = Vec::new();
    for block in entries.chunks(BLOCK_ENTRIES_MAX) {
        let plain = encode_block(block, number);
        let stored = sealer.seal_part(b"block", &plain, &mut out)?;
        blocks.push((block[0].0, stored, *blake3::hash(&plain).as_bytes()));
    }
    let filter = filter::build(entries.iter().map(|(id, _)| id));
    let last_entries = (entries.len() - entries.len().saturating_sub(1) / BLOCK_ENTRIES_MAX * BLOCK_ENTRIES_MAX) as u32;
    let filter_bytes = filter.len() as u64;
    let mut plain = match author {
        Some(author) => codec::encode(&SignedDirectory { packs, blocks, last_entries, filter_bytes, author })?,
        None => {
            let blocks = blocks.into_iter().map(|(first, stored, _)| (first, stored)).collect();
            codec::encode(&Directory { packs, blocks, last_entries, filter_bytes })?
        }
    };
    let document_bytes = plain.len() as u32;
    plain.extend_from_slice(&filter);
    plain.extend_from_slice(&document_bytes.to_le_bytes());
    sealer.finish(&signed(keys, &fragment_name(id), plain)?, &mut out)?;
    Ok(out)
}

/// A directory of either form as the signed one; of one that nobody signed hashes and author mean nothing.
fn decode_directory(name: &ObjectName, bytes: &[u8], is_signed: bool) -> Result<SignedDirectory> {
    let object = name.to_string();
    if is_signed {
        return codec::decode(&object, bytes);
    }
    let Directory { packs, blocks, last_entries, filter_bytes } = codec::decode(&object, bytes)?;
    let blocks = blocks.into_iter().map(|(first, stored)| (first, stored, [0; 32])).collect();
    Ok(SignedDirectory { packs, blocks, last_entries, filter_bytes, author: SignerId([0; 32]) })
}

/// Who merged must be allowed to; whose entries they are decides what they count for.
fn standing_of(keys: &Keys, author: Option<SignerId>, signer: Option<SignerId>) -> Standing {
    if !keys.is_signed() {
        return Standing::Trusted;
    }
    let (Some(author), Some(signer)) = (author, signer) else { return Standing::Stranger };
    let is_merged = || keys.role_of(signer).is_some_and(|role| role.may(Action::Maintain));
    if !keys.was_member(author) || (author != signer && !is_merged()) {
        return Standing::Stranger;
    }
    // The snapshots of a key that was removed stay, and so does its word about them, apart from that of all
    // others.
    match keys.builds_on(Some(author)) {
        true => Standing::Trusted,
        false => Standing::OfMember(author),
    }
}

/// An open fragment: its directory is in memory, its blocks are read when asked for.
pub(crate) struct Fragment {
    id: ObjectId,
    name: ObjectName,
    opener: PartsOpener,
    packs: Vec<(PackId, RecordKind)>,
    /// First id, offset and stored length of each block.
    blocks: Vec<(ChunkId, u64, u32)>,
    /// Of the blocks, in a signed fragment.
    hashes: Vec<[u8; 32]>,
    filter: Vec<u8>,
    entries: u64,
    author: Option<SignerId>,
    signer: Option<SignerId>,
    standing: Standing,
    /// Why it says nothing.
    flaw: Option<String>,
}

/// What a directory says.
struct Contents {
    packs: Vec<(PackId, RecordKind)>,
    blocks: Vec<(ChunkId, u64, u32)>,
    hashes: Vec<[u8; 32]>,
    filter: Vec<u8>,
    entries: u64,
    author: SignerId,
}

impl Contents {
    fn none(author: SignerId) -> Self {
        let (packs, blocks, hashes, filter) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { packs, blocks, hashes, filter, entries: 0, author }
    }

    /// `end`: where the last block ends.
    fn parse(name: &ObjectName, mut plain: Vec<u8>, opener: &PartsOpener, end: u64) -> Result<Self> {
        let damaged = |detail: &str| Error::damaged(name, detail);
        let split = plain
            .last_chunk::<4>()
            .map(|bytes| u32::from_le_bytes(*bytes) as usize)
            .filter(|bytes| *bytes <= plain.len() - 4)
            .ok_or_else(|| damaged("its directory does not say its length"))?;
        let document = decode_directory(name, &plain[..split], opener.is_signed())?;
        plain.truncate(plain.len() - 4);
        let filter = plain.split_off(split);
        // A collection sets memory aside for what is counted here.
        let last_is_sound = if document.blocks.is_empty() { 0..=0 } else { 1..=BLOCK_ENTRIES_MAX as u32 };
        if !last_is_sound.contains(&document.last_entries) {
            return Err(damaged("its last block counts what no block can hold"));
        }
        let mut offset = opener.header_bytes();
        let mut blocks: Vec<(ChunkId, u64, u32)> = Vec::with_capacity(document.blocks.len());
        let mut hashes = Vec::with_capacity(document.blocks.len());
        let last = document.blocks.len().saturating_sub(1);
        for (number, (first, stored, hash)) in document.blocks.into_iter().enumerate() {
            if blocks.last().is_some_and(|(before, ..)| *before >= first) {
                return Err(damaged("its blocks are out of order"));
            }
            // A reader sets memory aside for a block.
            let counted = if number == last { document.last_entries } else { BLOCK_ENTRIES_MAX as u32 };
            if stored > block_bytes_max(counted) + TAG_BYTES as u32 {
                return Err(damaged("a block of it is longer than its entries can be"));
            }
            blocks.push((first, offset, stored));
            hashes.push(hash);
            offset += u64::from(stored);
        }
        let packs = document
            .packs
            .into_iter()
            .map(|(pack, kind)| RecordKind::from_byte(kind).map(|kind| (pack, kind)))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| damaged("it names a pack of no known kind"))?;
        if offset != end || document.filter_bytes != filter.len() as u64 {
            return Err(damaged("its directory does not list all that is in it"));
        }
        let entries = last as u64 * BLOCK_ENTRIES_MAX as u64 + u64::from(document.last_entries);
        if filter.len() as u64 != filter::bytes_for(entries) {
            return Err(damaged("its filter is not as long as that of its entries"));
        }
        Ok(Self { packs, blocks, hashes, filter, entries, author: document.author })
    }
}

impl Fragment {
    pub(crate) fn open(backend: &dyn Backend, keys: &Keys, listed: &ObjectStat) -> Result<Self> {
        let name = listed.name.clone();
        let id = ObjectId::from_hex(name.name()).ok_or_else(|| Error::damaged(&name, "its name is no id"))?;
        let mut envelope = [0; ENVELOPE_BYTES];
        backend.read_range(&name, 0, &mut envelope)?;
        let opener = PartsOpener::new(keys, &name, id, &envelope)?;
        let (mut plain, end) = opener.read_directory(backend, &name, listed.bytes)?;
        let mut signer = None;
        if opener.is_signed() {
            let content = verified(keys, &name, plain)?;
            (plain, signer) = (content.payload, content.signer);
        }
        let parsed = Contents::parse(&name, plain, &opener, end);
        // Whoever signed what no program makes has said nothing, and it costs nobody anything.
        let (contents, flaw) = match (parsed, signer) {
            (Err(Error::Damaged { detail, .. }), Some(signer)) => (Contents::none(signer), Some(detail)),
            (parsed, _) => (parsed?, None),
        };
        let Contents { packs, blocks, mut hashes, filter, entries, author } = contents;
        let author = signer.map(|_| author);
        if signer.is_none() {
            hashes.clear();
        }
        let standing = standing_of(keys, author, signer);
        Ok(Self { id, name, opener, packs, blocks, hashes, filter, entries, author, signer, standing, flaw })
    }

    /// Whose entries they are.
    pub(crate) fn author(&self) -> Option<SignerId> {
        self.author
    }

    /// Who signed it.
    pub(crate) fn signer(&self) -> Option<SignerId> {
        self.signer
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether what it lists counts as stored.
    pub(crate) fn is_trusted(&self) -> bool {
        self.standing == Standing::Trusted
    }

    pub(crate) fn id(&self) -> ObjectId {
        self.id
    }

    pub(crate) fn name(&self) -> &ObjectName {
        &self.name
    }

    /// What it takes in memory, about.
    pub(crate) fn memory_bytes(&self) -> u64 {
        (self.filter.len() + self.blocks.len() * 80 + self.packs.len() * 17) as u64
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    pub(crate) fn packs(&self) -> &[(PackId, RecordKind)] {
        &self.packs
    }

    /// First id, offset and stored length of each block.
    pub(crate) fn blocks(&self) -> &[(ChunkId, u64, u32)] {
        &self.blocks
    }

    pub(crate) fn filter(&self) -> &[u8] {
        &self.filter
    }

    /// An error of one of its blocks, with its name.
    pub(crate) fn named(&self, error: Error) -> Error {
        match error {
            Error::Damaged { object, detail } => Error::damaged(&self.name, format!("{object}: {detail}")),
            error => error,
        }
    }

    /// The one block that can hold an id; `None` when the filter or the fences say no.
    pub(crate) fn block_of(&self, id: &ChunkId) -> Option<u32> {
        if !filter::may_contain(&self.filter, id) {
            return None;
        }
        self.blocks.partition_point(|(first, ..)| first <= id).checked_sub(1).map(|number| number as u32)
    }

    /// Number of an entry in the fragment.
    pub(crate) fn ordinal(&self, block: u32, row: usize) -> u64 {
        u64::from(block) * BLOCK_ENTRIES_MAX as u64 + row as u64
    }

    /// A block as it was sealed. One that no program makes says nothing: see module [`super::block`].
    pub(crate) fn read_block(&self, backend: &dyn Backend, number: u32) -> Result<Block> {
        let plain = self.open_block(backend, number)?;
        Ok(self.counted(number, plain).unwrap_or_else(|_| Block::empty()))
    }

    fn open_block(&self, backend: &dyn Backend, number: u32) -> Result<Vec<u8>> {
        let Some(&(_, offset, stored)) = self.blocks.get(number as usize) else {
            return Err(Error::damaged(&self.name, "a block that it does not have"));
        };
        let mut sealed = vec![0; stored as usize];
        backend.read_range(&self.name, offset, &mut sealed)?;
        let plain_bytes = self.opener.open_part(offset, b"block", &mut sealed)?;
        sealed.truncate(plain_bytes);
        if let Some(hash) = self.hashes.get(number as usize)
            && blake3::hash(&sealed).as_bytes() != hash
        {
            return Err(Error::damaged(&self.name, "a block that is not the one that was signed"));
        }
        Ok(sealed)
    }

    /// A block of the number of entries that the directory counts.
    fn counted(&self, number: u32, plain: Vec<u8>) -> Result<Block> {
        let block = Block::new(plain).map_err(|error| self.named(error))?;
        let last = number as usize + 1 == self.blocks.len();
        let counted =
            if last { self.entries - u64::from(number) * BLOCK_ENTRIES_MAX as u64 } else { BLOCK_ENTRIES_MAX as u64 };
        if block.count() as u64 != counted {
            return Err(Error::damaged(&self.name, "a block that holds another number of entries than counted"));
        }
        Ok(block)
    }

    /// Reads every block.
    pub(crate) fn check_blocks(&self, backend: &dyn Backend) -> Result<()> {
        (0..self.blocks.len() as u32).try_for_each(|number| self.read_block(backend, number).map(drop))
    }

    /// Checks that it says what a program says: all that readers pass over is an error here.
    pub(crate) fn check(&self, backend: &dyn Backend) -> Result<()> {
        if let Some(flaw) = &self.flaw {
            return Err(Error::damaged(&self.name, flaw));
        }
        for number in 0..self.blocks.len() as u32 {
            let block = self.counted(number, self.open_block(backend, number)?)?;
            for row in 0..block.count() {
                block.location(row, &self.packs).map_err(|error| self.named(error))?;
            }
        }
        Ok(())
    }

    /// Visits every entry in order, but those that cannot be.
    pub(crate) fn for_each(
        &self,
        backend: &dyn Backend,
        visit: &mut dyn FnMut(u64, ChunkId, Location) -> Result<()>,
    ) -> Result<()> {
        for number in 0..self.blocks.len() as u32 {
            let block = self.read_block(backend, number)?;
            for row in 0..block.count() {
                if let Ok(location) = block.location(row, &self.packs) {
                    visit(self.ordinal(number, row), block.id(row), location)?;
                }
            }
        }
        Ok(())
    }

    /// Visits what opens, block by block: for whoever saves what can be saved.
    pub(crate) fn for_each_readable(
        &self,
        backend: &dyn Backend,
        visit: &mut dyn FnMut(ChunkId, Location),
    ) -> Result<()> {
        for number in 0..self.blocks.len() as u32 {
            let block = match self.read_block(backend, number) {
                Err(Error::Damaged { .. }) => continue,
                block => block?,
            };
            for row in 0..block.count() {
                if let Ok(location) = block.location(row, &self.packs) {
                    visit(block.id(row), location);
                }
            }
        }
        Ok(())
    }
}
