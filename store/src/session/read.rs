//! Reads chunks: finds, opens, decodes, verifies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::backend::Backend;
use crate::encoding::Decoder;
use crate::ids::{ChunkId, PackId};
use crate::location::Location;
use crate::pack::{PackOpener, pack_name};
use crate::parity::{HealedPack, heal};
use crate::session::{ChunkSource, Session, lock};
use crate::{Error, Result};

/// Decoded records that are kept: bases of deltas and frames of small chunks.
const RECORD_CACHE_BYTES: usize = 24 << 20;
/// Packs whose keys are kept: some 100 bytes each.
const OPENERS_MAX: usize = 8192;
/// Decoders that wait for the next reader.
const DECODERS_MAX: usize = 32;

#[derive(Default)]
pub(super) struct ReadCaches {
    healed: Mutex<Option<(PackId, Option<Arc<HealedPack>>)>>,
    records: Mutex<RecordCache>,
    decoders: Mutex<Vec<(Decoder, Vec<u8>)>>,
    openers: Mutex<HashMap<PackId, Arc<PackOpener>>>,
}

/// Decoded records by pack and offset, with the time of their last use.
type Records = HashMap<(PackId, u32), (Arc<Vec<u8>>, u64)>;

#[derive(Default)]
struct RecordCache {
    records: Records,
    bytes: usize,
    tick: u64,
}

impl RecordCache {
    fn get(&mut self, key: (PackId, u32)) -> Option<Arc<Vec<u8>>> {
        self.tick += 1;
        let (record, used) = self.records.get_mut(&key)?;
        *used = self.tick;
        Some(Arc::clone(record))
    }

    fn put(&mut self, key: (PackId, u32), record: Arc<Vec<u8>>) {
        self.bytes += record.len();
        self.tick += 1;
        if let Some((old, _)) = self.records.insert(key, (record, self.tick)) {
            self.bytes -= old.len();
        }
        if self.bytes > RECORD_CACHE_BYTES {
            let mut uses: Vec<u64> = self.records.values().map(|(_, used)| *used).collect();
            let middle = uses.len() / 2;
            let median = *uses.select_nth_unstable(middle).1;
            self.records.retain(|_, (_, used)| *used > median);
            self.bytes = self.records.values().map(|(record, _)| record.len()).sum();
        }
    }
}

impl Session {
    /// Decodes a whole record (one chunk or a frame) at a location into `buffer`, whose content is replaced;
    /// for readers that sort by place. `id` is the chunk that was located there. Deltas read their base
    /// through a small shared cache. The plaintext is authenticated; hashing it against its id is the
    /// caller's affair. [`Error::Missing`] when the pack was swept since the chunk was located in it:
    /// [`ChunkSource::read_chunk`] finds where else it stands.
    pub fn read_record(&self, id: &ChunkId, location: &Location, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.resize(location.record_plain_bytes as usize, 0);
        self.read_record_into(id, location, buffer)
    }

    /// [`Self::read_record`] into a slice of the record's length: what is written out next is not copied once
    /// more.
    pub fn read_record_into(&self, id: &ChunkId, location: &Location, out: &mut [u8]) -> Result<()> {
        if out.len() != location.record_plain_bytes as usize {
            return Err(Error::damaged(pack_name(location.pack), "a record of another length than the index says"));
        }
        let base = match location.base {
            Some(base) => Some(self.read_base(&base)?),
            None => None,
        };
        let pooled = lock(&self.caches.decoders).pop();
        let (mut decoder, mut sealed) = match pooled {
            Some(pair) => pair,
            None => (Decoder::new()?, Vec::new()),
        };
        let outcome = self.decode(id, location, base.as_deref().map(Vec::as_slice), &mut decoder, &mut sealed, out);
        let mut decoders = lock(&self.caches.decoders);
        if decoders.len() < DECODERS_MAX {
            decoders.push((decoder, sealed));
        }
        outcome
    }

    /// The payload of a record as it is encoded, opened and not decoded, for those who carry it elsewhere.
    pub fn read_payload(&self, id: &ChunkId, location: &Location, payload: &mut Vec<u8>) -> Result<()> {
        self.open_record(id, location, payload)
    }

    fn decode(
        &self,
        id: &ChunkId,
        location: &Location,
        base: Option<&[u8]>,
        decoder: &mut Decoder,
        sealed: &mut Vec<u8>,
        out: &mut [u8],
    ) -> Result<()> {
        let name = pack_name(location.pack);
        self.open_record(id, location, sealed)?;
        decoder.decode_into(location.encoding, sealed, base, out).map_err(|error| {
            Error::damaged(&name, format!("the record at {} does not decode: {error}", location.record_offset))
        })
    }

    fn open_record(&self, id: &ChunkId, location: &Location, sealed: &mut Vec<u8>) -> Result<()> {
        let name = pack_name(location.pack);
        let single = (location.bytes == location.record_plain_bytes).then_some(id);
        let backend = &**self.repository.backend();
        let mut open = |opener: &PackOpener, backend: &dyn Backend| {
            sealed.resize(location.record_stored_bytes as usize, 0);
            backend.read_range(&name, u64::from(location.record_offset), sealed)?;
            opener.open_record(location, single, sealed)
        };
        let keys = self.repository.keys();
        let mut outcome = self.opener(location.pack).and_then(|opener| open(&opener, backend));
        if keys.epoch() == 0 && matches!(outcome, Err(Error::Damaged { .. })) {
            // It may be of an epoch that began after this session: then its header says so.
            outcome = PackOpener::read(keys, backend, location.pack).and_then(|opener| open(&opener, backend));
        }
        if matches!(outcome, Err(Error::Damaged { .. }))
            && let Some(healed) = self.healed(location.pack)?
        {
            outcome = PackOpener::read(keys, &*healed, location.pack).and_then(|opener| open(&opener, &*healed));
        }
        outcome
    }

    /// A pack as its parity says it was; the last one is kept, since what is damaged in one place is read in
    /// many.
    fn healed(&self, pack: PackId) -> Result<Option<Arc<HealedPack>>> {
        let mut kept = lock(&self.caches.healed);
        if let Some((of, healed)) = &*kept
            && *of == pack
        {
            return Ok(healed.clone());
        }
        let healed = heal(&self.repository, pack)?;
        *kept = Some((pack, healed.clone()));
        Ok(healed)
    }

    /// Opens a pack. Where packs have headers that must be read, and keys that must be found, those last used
    /// are kept.
    fn opener(&self, pack: PackId) -> Result<Arc<PackOpener>> {
        let open = || PackOpener::new(self.repository.keys(), &**self.repository.backend(), pack).map(Arc::new);
        if self.repository.keys().epoch() == 0 {
            return open();
        }
        let known = lock(&self.caches.openers).get(&pack).cloned();
        if let Some(opener) = known {
            return Ok(opener);
        }
        let opener = open()?;
        let mut openers = lock(&self.caches.openers);
        if openers.len() >= OPENERS_MAX {
            openers.clear();
        }
        openers.insert(pack, Arc::clone(&opener));
        Ok(opener)
    }

    /// The plaintext of what shall be a delta's base, as a reader of the delta will get it: authentic, not
    /// hashed. `buffer`'s content is replaced.
    pub fn read_delta_base(&self, base: &ChunkId, buffer: &mut Vec<u8>) -> Result<()> {
        let location = self.locate_base(base)?.ok_or_else(|| missing(base))?;
        if location.bytes == location.record_plain_bytes {
            return self.read_record(base, &location, buffer);
        }
        let plain = self.read_base(base)?;
        buffer.clear();
        buffer.extend_from_slice(&plain);
        Ok(())
    }

    /// The plaintext of a delta's base.
    pub(crate) fn read_base(&self, id: &ChunkId) -> Result<Arc<Vec<u8>>> {
        let location = self.locate_base(id)?.ok_or_else(|| missing(id))?;
        let key = (location.pack, location.record_offset);
        let cached = lock(&self.caches.records).get(key);
        let record = match cached {
            Some(record) => record,
            None => {
                let mut buffer = Vec::new();
                self.read_record(id, &location, &mut buffer)?;
                let record = Arc::new(buffer);
                lock(&self.caches.records).put(key, Arc::clone(&record));
                record
            }
        };
        if location.bytes == location.record_plain_bytes {
            return Ok(record);
        }
        Ok(Arc::new(member(&record, &location)?.to_vec()))
    }

    /// The chunk's bytes in its decoded record.
    pub fn chunk_in_record<'r>(&self, record: &'r [u8], location: &Location) -> Result<&'r [u8]> {
        member(record, location)
    }
}

impl ChunkSource for Session {
    fn read_chunk(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.check_stop()?;
        match self.read_located(id) {
            // What it was located in was condemned and is swept by now, which happens only when it stands
            // elsewhere too.
            Err(Error::Missing { .. }) => {
                self.refresh()?;
                self.read_located(id)
            }
            Err(error) if error.concerns_one_object() => self.read_elsewhere(id)?.ok_or(error),
            outcome => outcome,
        }
    }
}

impl Session {
    fn read_located(&self, id: &ChunkId) -> Result<Vec<u8>> {
        let location = self.locate(id)?.ok_or_else(|| missing(id))?;
        let mut plain = Vec::new();
        if location.bytes == location.record_plain_bytes {
            self.read_record(id, &location, &mut plain)?;
        } else {
            // Neighbours in a frame are read one after the other: it is decoded once.
            let key = (location.pack, location.record_offset);
            let cached = lock(&self.caches.records).get(key);
            let record = match cached {
                Some(record) => record,
                None => {
                    self.read_record(id, &location, &mut plain)?;
                    let record = Arc::new(std::mem::take(&mut plain));
                    lock(&self.caches.records).put(key, Arc::clone(&record));
                    record
                }
            };
            plain = member(&record, &location)?.to_vec();
        }
        if self.repository.keys().chunk_id(&plain) == *id {
            Ok(plain)
        } else {
            Err(Error::damaged(
                format!("chunk {id}"),
                format!("its bytes in {} have another hash", pack_name(location.pack)),
            ))
        }
    }
}

impl Session {
    /// Reads a chunk at whatever place of it is sound, each tried and hashed: where one is damaged, or was
    /// made up by somebody who has a key, another key's copy may stand beside it. `None`: no place is.
    fn read_elsewhere(&self, id: &ChunkId) -> Result<Option<Vec<u8>>> {
        for location in self.places(id)? {
            let base = match location.base {
                None => None,
                Some(base) => match self.read_whole_elsewhere(&base)? {
                    None => continue,
                    plain => plain,
                },
            };
            if let Some(plain) = self.read_at(id, &location, base.as_deref())? {
                return Ok(Some(plain));
            }
        }
        Ok(None)
    }

    /// The same for a delta's base, which is never a delta itself.
    fn read_whole_elsewhere(&self, id: &ChunkId) -> Result<Option<Vec<u8>>> {
        for location in self.places(id)?.into_iter().filter(|location| location.base.is_none()) {
            if let Some(plain) = self.read_at(id, &location, None)? {
                return Ok(Some(plain));
            }
        }
        Ok(None)
    }

    /// Every place that any fragment names.
    fn places(&self, id: &ChunkId) -> Result<Vec<Location>> {
        self.with_index(|index, present| {
            let all = index.find_readable(id)?.into_iter();
            Ok(all.filter(|location| present.contains(&location.pack)).collect())
        })
    }

    /// A chunk at a place, hashed; `None` where something else stands there.
    fn read_at(&self, id: &ChunkId, location: &Location, base: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let mut plain = vec![0; location.record_plain_bytes as usize];
        let (mut decoder, mut sealed) = (Decoder::new()?, Vec::new());
        let outcome = self.decode(id, location, base, &mut decoder, &mut sealed, &mut plain);
        let chunk = match outcome {
            Ok(()) => member(&plain, location).map(<[u8]>::to_vec),
            Err(error) => Err(error),
        };
        match chunk {
            Ok(chunk) => Ok((self.repository.keys().chunk_id(&chunk) == *id).then_some(chunk)),
            Err(error) if error.concerns_one_object() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn member<'r>(record: &'r [u8], location: &Location) -> Result<&'r [u8]> {
    let begin = location.inner_offset as usize;
    record
        .get(begin..begin + location.bytes as usize)
        .ok_or_else(|| Error::damaged(pack_name(location.pack), "a chunk that reaches beyond its frame"))
}

fn missing(id: &ChunkId) -> Error {
    Error::Missing { object: format!("chunk {id}") }
}
