//! A block of a fragment: ids, row ends, rows. It is searched as it stands, without being decoded.
//!
//! Layout: count (u32) | ids (32 bytes each, ascending) | ends of rows (u32 each) | rows. All little endian.
//! A row: flags | pack number (u32) | record offset (u32) | stored length (u32) | plain length (u32) | for a
//! frame's member its offset and length (u32 each) | for a delta its base's id.
//!
//! A row that cannot be was made so by whoever sealed it: damage does not open. It says nothing.

use crate::ids::{ChunkId, PackId};
use crate::location::{CHUNK_BYTES_MAX, Encoding, Location, RECORD_STORED_BYTES_MAX, RecordKind};
use crate::{Error, Result};

/// Most entries of a block.
pub(crate) const BLOCK_ENTRIES_MAX: usize = 1024;
/// Set where the chunk is not its whole record.
const MEMBER_FLAG: u8 = 0x80;
/// An id, where its row ends, and the longest row.
const ENTRY_BYTES_MAX: u32 = 32 + 4 + 57;

/// The length of the longest block of so many entries.
pub(crate) fn block_bytes_max(entries: u32) -> u32 {
    4 + entries * ENTRY_BYTES_MAX
}

/// One opened block.
pub(crate) struct Block {
    bytes: Vec<u8>,
    count: usize,
}

/// Encodes entries, sorted by id, with the numbers of their packs.
pub(crate) fn encode_block(entries: &[(ChunkId, Location)], pack_number: impl Fn(&PackId) -> u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + entries.len() * 60);
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for (id, _) in entries {
        bytes.extend_from_slice(id.as_bytes());
    }
    let mut rows = Vec::with_capacity(entries.len() * 20);
    for (_, location) in entries {
        let member = location.bytes != location.record_plain_bytes;
        rows.push(location.encoding as u8 | if member { MEMBER_FLAG } else { 0 });
        for number in [
            pack_number(&location.pack),
            location.record_offset,
            location.record_stored_bytes,
            location.record_plain_bytes,
        ] {
            rows.extend_from_slice(&number.to_le_bytes());
        }
        if member {
            rows.extend_from_slice(&location.inner_offset.to_le_bytes());
            rows.extend_from_slice(&location.bytes.to_le_bytes());
        }
        if let Some(base) = &location.base {
            rows.extend_from_slice(base.as_bytes());
        }
        bytes.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    }
    bytes.extend_from_slice(&rows);
    bytes
}

impl Block {
    /// Checks that what is counted is there; rows are checked when they are read.
    pub(crate) fn new(bytes: Vec<u8>) -> Result<Self> {
        let count = bytes.first_chunk::<4>().map(|count| u32::from_le_bytes(*count) as usize).unwrap_or(0);
        if count == 0 || count > BLOCK_ENTRIES_MAX || bytes.len() < 4 + count * 36 {
            return Err(Error::damaged("a block of the index", "it does not hold what it counts"));
        }
        Ok(Self { bytes, count })
    }

    /// One that says nothing.
    pub(crate) fn empty() -> Self {
        Self { bytes: vec![0; 4], count: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn id(&self, row: usize) -> ChunkId {
        let mut id = [0; 32];
        id.copy_from_slice(&self.bytes[4 + row * 32..][..32]);
        ChunkId(id)
    }

    /// The row of an id and its location; `None` also where the row cannot be.
    pub(crate) fn find(&self, id: &ChunkId, packs: &[(PackId, RecordKind)]) -> Result<Option<(usize, Location)>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.bytes[4 + middle * 32..][..32].cmp(id.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(self.parse(middle, packs).map(|location| (middle, location))),
            }
        }
        Ok(None)
    }

    pub(crate) fn location(&self, row: usize, packs: &[(PackId, RecordKind)]) -> Result<Location> {
        self.parse(row, packs).ok_or_else(|| Error::damaged("a block of the index", "a row that cannot be"))
    }

    fn parse(&self, row: usize, packs: &[(PackId, RecordKind)]) -> Option<Location> {
        let ends = 4 + self.count * 32;
        let rows = ends + self.count * 4;
        let end = |row: usize| {
            let at = ends + row * 4;
            Some(u32::from_le_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?) as usize)
        };
        let begin = if row == 0 { 0 } else { end(row - 1)? };
        let mut bytes = self.bytes.get(rows + begin..rows + end(row)?)?;
        let (&flags, rest) = bytes.split_first()?;
        bytes = rest;
        let mut number = || {
            let (head, rest) = bytes.split_first_chunk::<4>()?;
            bytes = rest;
            Some(u32::from_le_bytes(*head))
        };
        let (pack, kind) = *packs.get(number()? as usize)?;
        let (record_offset, record_stored_bytes, record_plain_bytes) = (number()?, number()?, number()?);
        let (inner_offset, length) =
            if flags & MEMBER_FLAG == 0 { (0, record_plain_bytes) } else { (number()?, number()?) };
        let encoding = Encoding::from_byte(flags & !MEMBER_FLAG)?;
        let base = if encoding == Encoding::Delta {
            let (base, rest) = bytes.split_first_chunk::<32>()?;
            bytes = rest;
            Some(ChunkId(*base))
        } else {
            None
        };
        // A reader sets memory aside for what is stated here.
        let within = inner_offset.checked_add(length)? <= record_plain_bytes
            && record_plain_bytes <= CHUNK_BYTES_MAX
            && record_stored_bytes <= RECORD_STORED_BYTES_MAX;
        (bytes.is_empty() && within).then_some(Location {
            pack,
            kind,
            record_offset,
            record_stored_bytes,
            record_plain_bytes,
            inner_offset,
            bytes: length,
            encoding,
            base,
        })
    }
}
