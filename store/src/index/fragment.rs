//! A fragment: sealed blocks, then a sealed directory of packs, fences and the filter.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, ObjectKind, ObjectName, ObjectStat};
use crate::envelope::{ENVELOPE_BYTES, Sealing};
use crate::ids::{ChunkId, ObjectId, PackId};
use crate::index::block::{BLOCK_ENTRIES_MAX, Block, encode_block};
use crate::index::filter;
use crate::keys::Keys;
use crate::location::{Location, RecordKind};
use crate::sealed::{PartsOpener, PartsSealer};
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

/// What an entry takes in a fragment, with its share of the filter: about so much.
const ENTRY_BYTES: usize = 64;

/// Builds the object of a fragment from entries, which it sorts.
pub(crate) fn build_fragment(keys: &Keys, id: ObjectId, entries: &mut Vec<(ChunkId, Location)>) -> Result<Vec<u8>> {
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
        let stored = sealer.seal_part(b"block", &encode_block(block, number), &mut out)?;
        blocks.push((block[0].0, stored));
    }
    let filter = filter::build(entries.iter().map(|(id, _)| id));
    let last_entries = (entries.len() - entries.len().saturating_sub(1) / BLOCK_ENTRIES_MAX * BLOCK_ENTRIES_MAX) as u32;
    let directory = Directory { packs, blocks, last_entries, filter_bytes: filter.len() as u64 };
    let mut plain = codec::encode(&directory)?;
    let document_bytes = plain.len() as u32;
    plain.extend_from_slice(&filter);
    plain.extend_from_slice(&document_bytes.to_le_bytes());
    sealer.finish(&plain, &mut out)?;
    Ok(out)
}

/// An open fragment: its directory is in memory, its blocks are read when asked for.
pub(crate) struct Fragment {
    id: ObjectId,
    name: ObjectName,
    opener: PartsOpener,
    packs: Vec<(PackId, RecordKind)>,
    /// First id, offset and stored length of each block.
    blocks: Vec<(ChunkId, u64, u32)>,
    filter: Vec<u8>,
    entries: u64,
}

impl Fragment {
    pub(crate) fn open(backend: &dyn Backend, keys: &Keys, listed: &ObjectStat) -> Result<Self> {
        let name = listed.name.clone();
        let id = ObjectId::from_hex(name.name()).ok_or_else(|| Error::damaged(&name, "its name is no id"))?;
        let mut envelope = [0; ENVELOPE_BYTES];
        backend.read_range(&name, 0, &mut envelope)?;
        let opener = PartsOpener::new(keys, &name, id, &envelope)?;
        let (mut plain, end) = opener.read_directory(backend, &name, listed.bytes)?;
        let damaged = |detail: &str| Error::damaged(&name, detail);
        let split = plain
            .last_chunk::<4>()
            .map(|bytes| u32::from_le_bytes(*bytes) as usize)
            .filter(|bytes| *bytes <= plain.len() - 4)
            .ok_or_else(|| damaged("its directory does not say its length"))?;
        let document: Directory = codec::decode(&name.to_string(), &plain[..split])?;
        plain.truncate(plain.len() - 4);
        let filter = plain.split_off(split);
        let mut offset = opener.header_bytes();
        let mut blocks: Vec<(ChunkId, u64, u32)> = Vec::with_capacity(document.blocks.len());
        for (first, stored) in document.blocks {
            if blocks.last().is_some_and(|(before, ..)| *before >= first) {
                return Err(damaged("its blocks are out of order"));
            }
            blocks.push((first, offset, stored));
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
        // A collection sets memory aside for what is counted here.
        let last_is_sound = if blocks.is_empty() { 0..=0 } else { 1..=BLOCK_ENTRIES_MAX as u32 };
        if !last_is_sound.contains(&document.last_entries) {
            return Err(damaged("its last block counts what no block can hold"));
        }
        let full = blocks.len().saturating_sub(1) * BLOCK_ENTRIES_MAX;
        let entries = full as u64 + u64::from(document.last_entries);
        Ok(Self { id, name, opener, packs, blocks, filter, entries })
    }

    pub(crate) fn id(&self) -> ObjectId {
        self.id
    }

    pub(crate) fn name(&self) -> &ObjectName {
        &self.name
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

    pub(crate) fn read_block(&self, backend: &dyn Backend, number: u32) -> Result<Block> {
        let Some(&(_, offset, stored)) = self.blocks.get(number as usize) else {
            return Err(Error::damaged(&self.name, "a block that it does not have"));
        };
        let mut sealed = vec![0; stored as usize];
        backend.read_range(&self.name, offset, &mut sealed)?;
        let plain_bytes = self.opener.open_part(offset, b"block", &mut sealed)?;
        sealed.truncate(plain_bytes);
        let block = Block::new(sealed)?;
        let last = number as usize + 1 == self.blocks.len();
        let counted =
            if last { self.entries - u64::from(number) * BLOCK_ENTRIES_MAX as u64 } else { BLOCK_ENTRIES_MAX as u64 };
        if block.count() as u64 != counted {
            return Err(Error::damaged(&self.name, "a block that holds another number of entries than counted"));
        }
        Ok(block)
    }

    /// Visits every entry in order.
    pub(crate) fn for_each(
        &self,
        backend: &dyn Backend,
        visit: &mut dyn FnMut(u64, ChunkId, Location) -> Result<()>,
    ) -> Result<()> {
        for number in 0..self.blocks.len() as u32 {
            let block = self.read_block(backend, number)?;
            for row in 0..block.count() {
                visit(self.ordinal(number, row), block.id(row), block.location(row, &self.packs)?)?;
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
