//! Packs: sealed records back to back, and a sealed trailer that lists them.
//!
//! A record is one chunk, or a frame of many small ones. No length stands in the clear: the index and the
//! trailer say where a record begins and ends. The associated data of a record binds its kind, its encoding,
//! its plaintext's length and, for a single chunk, its id; members of a frame are checked by hashing them.

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, ObjectKind, ObjectName};
use crate::envelope::{ENVELOPE_BYTES, Sealing};
use crate::ids::{ChunkId, ObjectId, PackId};
use crate::keys::{Keys, TAG_BYTES};
use crate::location::{CHUNK_BYTES_MAX, Encoding, FRAME_BYTES_MAX, Location, RECORD_STORED_BYTES_MAX, RecordKind};
use crate::sealed::{FOOTER_BYTES, HEADER_BYTES_MAX, PartsOpener, PartsSealer};
use crate::{Error, Result, codec};

/// Largest pack in bytes: offsets are 32 bits.
pub const PACK_BYTES_MAX: u64 = 1 << 30;
/// Most chunks of one frame.
pub const FRAME_MEMBERS_MAX: usize = 1 << 16;

/// The object of a pack.
#[must_use]
pub fn pack_name(pack: PackId) -> ObjectName {
    // Hexadecimal is within the alphabet of names.
    ObjectName::new(ObjectKind::Pack, pack.to_string()).expect("a hexadecimal id is a name")
}

/// What stands around the records: kind, count, length, tags, footer.
const TRAILER_FRAME_BYTES: u64 = 128;

/// One record as the trailer lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrailerRecord {
    pub(crate) offset: u32,
    pub(crate) stored_bytes: u32,
    pub(crate) plain_bytes: u32,
    pub(crate) encoding: Encoding,
    pub(crate) base: Option<ChunkId>,
    pub(crate) members: Vec<(ChunkId, u32)>,
}

/// What a pack holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackTrailer {
    pub(crate) kind: RecordKind,
    pub(crate) records: Vec<TrailerRecord>,
}

impl PackTrailer {
    /// Every chunk with its place.
    pub(crate) fn entries(&self, pack: PackId) -> impl Iterator<Item = (ChunkId, Location)> + '_ {
        self.records.iter().flat_map(move |record| record.entries(pack, self.kind))
    }
}

impl TrailerRecord {
    /// What it takes in the trailer.
    fn trailer_bytes(&self) -> u64 {
        // Of bincode's variable integers.
        let number = |value: u64| {
            if value < 251 {
                1
            } else if value < 1 << 16 {
                3
            } else {
                5
            }
        };
        let members = self.members.iter().map(|(_, bytes)| ChunkId::LEN as u64 + number((*bytes).into()));
        let base = if self.base.is_some() { ChunkId::LEN as u64 } else { 0 };
        2 + base + number(self.stored_bytes.into()) + number(self.members.len() as u64) + members.sum::<u64>()
    }

    pub(crate) fn entries(&self, pack: PackId, kind: RecordKind) -> impl Iterator<Item = (ChunkId, Location)> + '_ {
        let mut inner_offset = 0;
        self.members.iter().map(move |&(id, bytes)| {
            let location = Location {
                pack,
                kind,
                record_offset: self.offset,
                record_stored_bytes: self.stored_bytes,
                record_plain_bytes: self.plain_bytes,
                inner_offset,
                bytes,
                encoding: self.encoding,
                base: self.base,
            };
            inner_offset += bytes;
            (id, location)
        })
    }
}

#[derive(Serialize, Deserialize)]
struct TrailerDocument {
    kind: u8,
    records: Vec<RecordDocument>,
}

#[derive(Serialize, Deserialize)]
struct RecordDocument {
    stored_bytes: u32,
    encoding: u8,
    base: Option<ChunkId>,
    members: Vec<(ChunkId, u32)>,
}

/// Seals records into one pack, front to back. The caller writes `out` away as it grows.
pub(crate) struct PackSealer {
    parts: PartsSealer,
    pack: PackId,
    trailer: PackTrailer,
    trailer_bytes: u64,
    chunks: usize,
}

impl PackSealer {
    /// Appends the envelope to `out`.
    pub(crate) fn new(keys: &Keys, pack: PackId, kind: RecordKind, out: &mut Vec<u8>) -> Result<Self> {
        let parts = PartsSealer::new(keys, ObjectKind::Pack, ObjectId(pack.0), class_of(kind), out)?;
        Ok(Self { parts, pack, trailer: PackTrailer { kind, records: Vec::new() }, trailer_bytes: 0, chunks: 0 })
    }

    pub(crate) fn pack(&self) -> PackId {
        self.pack
    }

    /// Bytes it would have with trailer and footer, before padding: at most so many.
    pub(crate) fn bytes_with_trailer(&self) -> u64 {
        self.parts.bytes() + self.trailer_bytes + TRAILER_FRAME_BYTES
    }

    /// Chunks in it.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.trailer.records.is_empty()
    }

    /// Seals an encoded payload; returns the place of the record (of its first member).
    pub(crate) fn seal_record(
        &mut self,
        encoding: Encoding,
        members: &[(ChunkId, u32)],
        base: Option<ChunkId>,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<&TrailerRecord> {
        let plain_bytes = members.iter().map(|(_, bytes)| u64::from(*bytes)).sum::<u64>();
        let limit = if members.len() == 1 { CHUNK_BYTES_MAX } else { FRAME_BYTES_MAX };
        let end = self.parts.bytes() + (payload.len() + TAG_BYTES) as u64;
        if plain_bytes > u64::from(limit)
            || members.is_empty()
            || members.len() > FRAME_MEMBERS_MAX
            || end > PACK_BYTES_MAX
        {
            return Err(Error::Limit { what: "a record of a pack".into(), limit: u64::from(limit) });
        }
        let (offset, plain_bytes) = (self.parts.bytes() as u32, plain_bytes as u32);
        let bound = bound(self.trailer.kind, encoding, plain_bytes, single(members));
        let stored_bytes = self.parts.seal_part(&bound, payload, out)?;
        let members = members.to_vec();
        let record = TrailerRecord { offset, stored_bytes, plain_bytes, encoding, base, members };
        self.trailer_bytes += record.trailer_bytes();
        self.chunks += record.members.len();
        self.trailer.records.push(record);
        Ok(&self.trailer.records[self.trailer.records.len() - 1])
    }

    /// Appends trailer and footer; returns the trailer and the pack's length in bytes.
    pub(crate) fn finish(self, out: &mut Vec<u8>) -> Result<(PackTrailer, u64)> {
        let records = self.trailer.records.iter().map(|record| RecordDocument {
            stored_bytes: record.stored_bytes,
            encoding: record.encoding as u8,
            base: record.base,
            members: record.members.clone(),
        });
        let document = TrailerDocument { kind: self.trailer.kind as u8, records: records.collect() };
        let bytes = self.parts.finish(&codec::encode(&document)?, out)?;
        Ok((self.trailer, bytes))
    }
}

/// Opens the records of one pack.
pub(crate) struct PackOpener {
    parts: PartsOpener,
    pack: PackId,
}

impl PackOpener {
    /// Reads nothing as long as there is only epoch 0, whose packs are written with the repository's suite;
    /// else the header.
    pub(crate) fn new(keys: &Keys, backend: &dyn Backend, pack: PackId) -> Result<Self> {
        if keys.epoch() > 0 {
            return Self::read(keys, backend, pack);
        }
        Ok(Self { parts: PartsOpener::assume(keys, &pack_name(pack), ObjectId(pack.0))?, pack })
    }

    /// Reads the header, which says how the pack is sealed.
    pub(crate) fn read(keys: &Keys, backend: &dyn Backend, pack: PackId) -> Result<Self> {
        let name = pack_name(pack);
        let mut header = [0; HEADER_BYTES_MAX];
        backend.read_range(&name, 0, &mut header)?;
        Ok(Self { parts: PartsOpener::new(keys, &name, ObjectId(pack.0), &header)?, pack })
    }

    /// Opens a record in place: `sealed` becomes the encoded payload. `single` is the id of a record's only
    /// chunk.
    pub(crate) fn open_record(
        &self,
        location: &Location,
        single: Option<&ChunkId>,
        sealed: &mut Vec<u8>,
    ) -> Result<()> {
        let bound = bound(location.kind, location.encoding, location.record_plain_bytes, single);
        let plain_bytes = self.parts.open_part(u64::from(location.record_offset), &bound, sealed)?;
        sealed.truncate(plain_bytes);
        Ok(())
    }

    /// Reads header, footer and trailer, each checked.
    pub(crate) fn read_trailer(keys: &Keys, backend: &dyn Backend, pack: PackId) -> Result<PackTrailer> {
        let name = pack_name(pack);
        let bytes = backend.stat(&name)?.bytes;
        if bytes < (ENVELOPE_BYTES + FOOTER_BYTES) as u64 || bytes > 2 * PACK_BYTES_MAX {
            return Err(Error::damaged(name, "its length is not that of a pack"));
        }
        let opener = Self::read(keys, backend, pack)?;
        let (directory, at) = opener.parts.read_directory(backend, &name, bytes)?;
        opener.decode_trailer(&directory, at)
    }

    fn decode_trailer(&self, directory: &[u8], end: u64) -> Result<PackTrailer> {
        let name = pack_name(self.pack).to_string();
        let damaged = |detail: &str| Error::damaged(&name, detail);
        let document: TrailerDocument = codec::decode(&name, directory)?;
        let kind = RecordKind::from_byte(document.kind).ok_or_else(|| damaged("its trailer names no known kind"))?;
        let mut offset = self.parts.header_bytes();
        let mut records = Vec::with_capacity(document.records.len());
        for record in document.records {
            let encoding = Encoding::from_byte(record.encoding).ok_or_else(|| damaged("an unknown encoding"))?;
            let plain: u64 = record.members.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
            let limit = if record.members.len() == 1 { CHUNK_BYTES_MAX } else { FRAME_BYTES_MAX };
            let sound = !record.members.is_empty()
                && plain <= u64::from(limit)
                && record.members.len() <= FRAME_MEMBERS_MAX
                && (record.stored_bytes as usize) >= TAG_BYTES
                && record.stored_bytes <= RECORD_STORED_BYTES_MAX
                && (encoding == Encoding::Delta) == record.base.is_some();
            if !sound || offset > PACK_BYTES_MAX {
                return Err(damaged("its trailer lists a record that cannot be"));
            }
            records.push(TrailerRecord {
                offset: offset as u32,
                stored_bytes: record.stored_bytes,
                plain_bytes: plain as u32,
                encoding,
                base: record.base,
                members: record.members,
            });
            offset += u64::from(record.stored_bytes);
        }
        if offset != end {
            return Err(damaged("its trailer does not list all that is in it"));
        }
        Ok(PackTrailer { kind, records })
    }
}

/// Who shall open the records of a kind.
fn class_of(kind: RecordKind) -> Sealing {
    match kind {
        RecordKind::Data => Sealing::ForData,
        RecordKind::Node => Sealing::ForManifests,
    }
}

fn single(members: &[(ChunkId, u32)]) -> Option<&ChunkId> {
    if let [(id, _)] = members { Some(id) } else { None }
}

fn bound(kind: RecordKind, encoding: Encoding, plain_bytes: u32, single: Option<&ChunkId>) -> [u8; 38] {
    let mut bound = [0; 38];
    bound[0] = kind as u8;
    bound[1] = encoding as u8;
    bound[2..6].copy_from_slice(&plain_bytes.to_le_bytes());
    if let Some(id) = single {
        bound[6..].copy_from_slice(id.as_bytes());
    }
    bound
}
