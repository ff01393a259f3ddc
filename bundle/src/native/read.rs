//! Reads native bundles, which come from anywhere: every length is checked before it is believed, every chunk
//! is compared with its hash.
//!
//! Opening goes through the whole file once: segments, blocks, records, each chunk decoded. A bundle that was
//! opened is whole, so that an import begins only with what can be imported. Memory: some 40 bytes for each
//! chunk, and caches of fixed size.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use copal_engine::context::Progress;
use copal_store::encoding::Decoder;
use copal_store::location::{CHUNK_BYTES_MAX, Encoding, FRAME_BYTES_MAX};
use copal_store::stream::{SEGMENT_PLAIN_BYTES, StreamKeys, StreamOpener};
use rayon::prelude::*;

use crate::Watch;
use crate::error::Result;
use crate::native::format::{
    BLOCK_BYTES_MAX, BLOCK_HEAD_BYTES, BUNDLE_VERSION, BaseSnapshot, BlockKind, Contents, Item, Member, OBJECT,
    RecordHeader, SNAPSHOTS_MAX, damaged,
};
use crate::native::write::BundleFile;
use crate::receive::ChunkContents;

/// Longest payload of a record in bytes: of the longest chunk that does not compress, with its header.
const RECORD_BYTES_MAX: u64 = 2 * CHUNK_BYTES_MAX as u64 + (64 << 20);
/// Records that are checked side by side.
const RECORDS_PER_BATCH: usize = 64;
/// Decoded records that are kept.
const CACHE_BYTES: usize = 64 << 20;
/// Opened segments that are kept.
const SEGMENTS_KEPT: usize = 64;

/// A bundle, opened and verified.
pub(crate) struct BundleReader<'k> {
    plain: Plain<'k>,
    contents: Contents,
    /// Where blocks of items begin, and the index ends.
    items_begin: u64,
    records: Vec<RecordPlace>,
    /// By ordinal: number of the record, place in its plaintext, length, hash.
    chunks: Vec<Option<ChunkPlace>>,
    cache: Mutex<RecordCache>,
    /// Plaintext of all chunks in bytes.
    pub(crate) chunk_bytes: u64,
}

#[derive(Clone, Copy)]
struct RecordPlace {
    payload_at: u64,
    payload_bytes: u32,
    plain_bytes: u32,
    encoding: Encoding,
    base: Option<u32>,
}

#[derive(Clone, Copy)]
struct ChunkPlace {
    record: u32,
    inner: u32,
    bytes: u32,
    check: [u8; 16],
}

#[derive(Default)]
struct RecordCache {
    records: HashMap<u32, (Arc<Vec<u8>>, u64)>,
    bytes: usize,
    tick: u64,
}

/// The plaintext of the stream, anywhere.
struct Plain<'k> {
    opener: StreamOpener<'k, BundleFile>,
    segments: Mutex<Segments>,
}

/// Opened segments with the time of their last use, and the time.
#[derive(Default)]
struct Segments {
    kept: HashMap<u64, (Arc<Vec<u8>>, u64)>,
    tick: u64,
}

impl<'k> Plain<'k> {
    fn keys(&self) -> &'k StreamKeys {
        self.opener.keys()
    }

    fn segment(&self, number: u64) -> Result<Arc<Vec<u8>>> {
        {
            let mut kept = lock(&self.segments);
            kept.tick += 1;
            let tick = kept.tick;
            if let Some((segment, used)) = kept.kept.get_mut(&number) {
                *used = tick;
                return Ok(Arc::clone(segment));
            }
        }
        let mut plain = Vec::new();
        self.opener.segment(number, &mut plain)?;
        let segment = Arc::new(plain);
        let mut kept = lock(&self.segments);
        if kept.kept.len() >= SEGMENTS_KEPT
            && let Some(oldest) = kept.kept.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number)
        {
            kept.kept.remove(&oldest);
        }
        let tick = kept.tick;
        kept.kept.insert(number, (Arc::clone(&segment), tick));
        Ok(segment)
    }

    /// Exactly so many bytes; the caller has bounded their number.
    fn read(&self, mut at: u64, bytes: usize) -> Result<Vec<u8>> {
        if at.checked_add(bytes as u64).is_none_or(|end| end > self.opener.plain_bytes()) {
            return Err(damaged("a block that reaches over the end").into());
        }
        let mut out = Vec::with_capacity(bytes);
        while out.len() < bytes {
            let segment = self.segment(at / SEGMENT_PLAIN_BYTES as u64)?;
            let from = segment.get((at % SEGMENT_PLAIN_BYTES as u64) as usize..).unwrap_or_default();
            let length = from.len().min(bytes - out.len());
            if length == 0 {
                return Err(damaged("a segment that is too short").into());
            }
            out.extend_from_slice(&from[..length]);
            at += length as u64;
        }
        Ok(out)
    }
}

/// A block's head.
struct Head {
    kind: BlockKind,
    encoding: Encoding,
    stored: u32,
    plain: u32,
    /// Where its bytes begin.
    begin: u64,
}

impl Head {
    fn end(&self) -> u64 {
        self.begin + u64::from(self.stored)
    }
}

impl<'k> BundleReader<'k> {
    /// Opens and verifies a bundle.
    pub(crate) fn open(watch: Watch<'_>, opener: StreamOpener<'k, BundleFile>) -> Result<Self> {
        let plain = Plain { opener, segments: Mutex::default() };
        let head = head_at(&plain, 0)?;
        if head.kind != BlockKind::Contents {
            return Err(damaged("it does not begin with its contents").into());
        }
        let contents: Contents = checked_contents(&document(&plain, &head)?)?;
        let mut reader = Self {
            items_begin: head.end(),
            plain,
            contents,
            records: Vec::new(),
            chunks: Vec::new(),
            cache: Mutex::default(),
            chunk_bytes: 0,
        };
        let records_begin = reader.check_items()?;
        reader.check_records(watch, records_begin)?;
        reader.check_references()?;
        Ok(reader)
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    pub(crate) fn chunks(&self) -> u64 {
        self.chunks.len() as u64
    }

    pub(crate) fn records(&self) -> u64 {
        self.records.len() as u64
    }

    /// Hands on the items of all snapshots, in order; returns where the records begin.
    pub(crate) fn items(&self, take: &mut dyn FnMut(Item) -> Result<()>) -> Result<u64> {
        let mut at = self.items_begin;
        loop {
            let head = head_at(&self.plain, at)?;
            at = head.end();
            match head.kind {
                BlockKind::EndOfIndex if head.stored == 0 => return Ok(at),
                BlockKind::Items => {
                    copal_store::codec::decode_each(OBJECT, &document(&self.plain, &head)?, &mut *take)?;
                }
                _ => return Err(damaged("a block in its index that does not belong there").into()),
            }
        }
    }

    /// The items of one snapshot: those of earlier ones are passed over.
    pub(crate) fn items_of(&self, number: usize, take: &mut dyn FnMut(Item) -> Result<()>) -> Result<()> {
        let mut snapshot = 0;
        self.items(&mut |item| {
            let ends = item == Item::EndSnapshot;
            let outcome = if snapshot == number { take(item) } else { Ok(()) };
            snapshot += usize::from(ends);
            outcome
        })
        .map(drop)
    }

    fn check_items(&self) -> Result<u64> {
        let mut ends = 0;
        let end = self.items(&mut |item| {
            ends += usize::from(item == Item::EndSnapshot);
            Ok(())
        })?;
        if ends == self.contents.snapshots.len() {
            Ok(end)
        } else {
            Err(damaged("its index is not that of its snapshots").into())
        }
    }

    /// Reads every record, decodes it, hashes its chunks.
    fn check_records(&mut self, watch: Watch<'_>, begin: u64) -> Result<()> {
        let mut at = begin;
        let mut batch: Vec<(u32, RecordHeader, Vec<u8>)> = Vec::new();
        loop {
            watch.check_interrupt()?;
            let head = head_at(&self.plain, at)?;
            at = head.end();
            match head.kind {
                BlockKind::Record => batch.push(self.record(&head)?),
                BlockKind::End if head.stored == 0 => break,
                _ => return Err(damaged("a block that is no record").into()),
            }
            if batch.len() >= RECORDS_PER_BATCH {
                self.check_batch(&mut batch)?;
            }
            let bytes_total = self.plain.opener.plain_bytes();
            watch.monitor.progress(Progress { bytes_done: at, bytes_total, total_known: true, ..Progress::default() });
        }
        self.check_batch(&mut batch)?;
        let zeros = self.plain.opener.plain_bytes() - at;
        let mut checked = 0;
        while checked < zeros {
            let length = (zeros - checked).min(SEGMENT_PLAIN_BYTES as u64) as usize;
            if self.plain.read(at + checked, length)?.iter().any(|byte| *byte != 0) {
                return Err(damaged("its padding is not empty").into());
            }
            checked += length as u64;
        }
        Ok(())
    }

    /// Takes down a record; returns it for checking.
    fn record(&mut self, head: &Head) -> Result<(u32, RecordHeader, Vec<u8>)> {
        let bytes = self.plain.read(head.begin, head.stored as usize)?;
        let header_bytes = bytes.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        let header =
            bytes.get(4..4usize.saturating_add(header_bytes)).ok_or_else(|| damaged("a record without a header"))?;
        let header: RecordHeader = copal_store::codec::decode(OBJECT, header)?;
        let payload = bytes[4 + header_bytes..].to_vec();
        let encoding = Encoding::from_byte(header.encoding).ok_or_else(|| damaged("an unknown encoding"))?;
        let plain_bytes: u64 = header.members.iter().map(|member| u64::from(member.bytes)).sum();
        let limit = if header.members.len() == 1 { CHUNK_BYTES_MAX } else { FRAME_BYTES_MAX };
        let sound = !header.members.is_empty()
            && header.members.iter().all(|member| member.bytes > 0)
            && plain_bytes <= u64::from(limit)
            && (encoding == Encoding::Delta) == header.base.is_some()
            && (header.base.is_none() || header.members.len() == 1);
        if !sound {
            return Err(damaged("a record that cannot be").into());
        }
        let number = u32::try_from(self.records.len()).map_err(|_| damaged("too many records"))?;
        let mut inner = 0;
        for Member { ordinal, bytes, check } in &header.members {
            let place = ChunkPlace { record: number, inner, bytes: *bytes, check: *check };
            self.place(*ordinal, place)?;
            inner += bytes;
        }
        if let Some(base) = header.base {
            let place = self.chunks.get(base as usize).copied().flatten();
            let whole = place.is_some_and(|place| {
                place.record != number
                    && self.records.get(place.record as usize).is_some_and(|record| record.base.is_none())
            });
            if !whole {
                return Err(damaged("a delta against nothing that came before it").into());
            }
        }
        let payload_at = head.begin + (4 + header_bytes) as u64;
        let (payload_bytes, plain_bytes) = (payload.len() as u32, plain_bytes as u32);
        self.records.push(RecordPlace { payload_at, payload_bytes, plain_bytes, encoding, base: header.base });
        self.chunk_bytes += u64::from(plain_bytes);
        Ok((number, header, payload))
    }

    /// Chunks come nearly in order of their ordinals: a hole between them is bounded by what stands in the
    /// index.
    fn place(&mut self, ordinal: u32, place: ChunkPlace) -> Result<()> {
        let number = ordinal as usize;
        if number >= self.chunks.len() {
            // Each chunk has a record in the file, so the table grows with the file and never with a claim.
            if number - self.chunks.len() > ORDINALS_AHEAD_MAX {
                return Err(damaged("chunks out of their order").into());
            }
            self.chunks.resize(number + 1, None);
        }
        match self.chunks[number].replace(place) {
            None => Ok(()),
            Some(_) => Err(damaged("a chunk that stands there twice").into()),
        }
    }

    fn check_batch(&self, batch: &mut Vec<(u32, RecordHeader, Vec<u8>)>) -> Result<()> {
        let outcome: Result<()> = batch.par_iter().try_for_each(|(number, header, payload)| {
            let record = self.records[*number as usize];
            let plain = self.decode(&record, payload)?;
            let mut inner = 0;
            for member in &header.members {
                let chunk = &plain[inner..inner + member.bytes as usize];
                if self.plain.keys().check(chunk) != member.check {
                    return Err(damaged(format!("chunk {} has another hash than it should", member.ordinal)).into());
                }
                inner += member.bytes as usize;
            }
            Ok(())
        });
        batch.clear();
        outcome
    }

    /// Every chunk that an item names is there, as long as it says; and none is there that no item names.
    fn check_references(&self) -> Result<()> {
        if self.chunks.iter().any(Option::is_none) {
            return Err(damaged("a chunk is missing").into());
        }
        let mut named = vec![false; self.chunks.len()];
        self.items(&mut |item| {
            let Item::Runs(runs) = item else { return Ok(()) };
            for run in runs {
                if let crate::native::format::Run::Chunk { ordinal, bytes } = run {
                    let place = self.chunks.get(ordinal as usize).copied().flatten();
                    if place.is_none_or(|place| place.bytes != bytes) {
                        return Err(damaged(format!("chunk {ordinal} is missing, or of another length")).into());
                    }
                    named[ordinal as usize] = true;
                }
            }
            Ok(())
        })?;
        if named.iter().all(|named| *named) { Ok(()) } else { Err(damaged("a chunk that nothing needs").into()) }
    }

    fn decode(&self, record: &RecordPlace, payload: &[u8]) -> Result<Vec<u8>> {
        let base = match record.base {
            Some(base) => Some(self.chunk(base)?),
            None => None,
        };
        let base = base.as_deref().map(Vec::as_slice);
        let mut plain = Vec::new();
        Decoder::new()?
            .decode(record.encoding, payload, base, record.plain_bytes, &mut plain)
            .map_err(|_| damaged("a record that does not decode"))?;
        Ok(plain)
    }

    fn decoded(&self, number: u32) -> Result<Arc<Vec<u8>>> {
        {
            let mut cache = lock(&self.cache);
            cache.tick += 1;
            let tick = cache.tick;
            if let Some((record, used)) = cache.records.get_mut(&number) {
                *used = tick;
                return Ok(Arc::clone(record));
            }
        }
        let record = self.records.get(number as usize).copied().ok_or_else(|| damaged("a record that is missing"))?;
        let payload = self.plain.read(record.payload_at, record.payload_bytes as usize)?;
        let plain = Arc::new(self.decode(&record, &payload)?);
        let mut cache = lock(&self.cache);
        cache.bytes += plain.len();
        let tick = cache.tick;
        cache.records.insert(number, (Arc::clone(&plain), tick));
        if cache.bytes > CACHE_BYTES {
            let mut uses: Vec<u64> = cache.records.values().map(|(_, used)| *used).collect();
            let middle = uses.len() / 2;
            let median = *uses.select_nth_unstable(middle).1;
            cache.records.retain(|_, (_, used)| *used > median);
            cache.bytes = cache.records.values().map(|(record, _)| record.len()).sum();
        }
        Ok(plain)
    }
}

/// How far an ordinal may be ahead of those known: a delta's base and the members of a frame come earlier
/// than their turn.
const ORDINALS_AHEAD_MAX: usize = 16 << 20;

impl ChunkContents for BundleReader<'_> {
    fn chunk(&self, ordinal: u32) -> Result<Arc<Vec<u8>>> {
        let place = self.chunks.get(ordinal as usize).copied().flatten();
        let place = place.ok_or_else(|| damaged(format!("chunk {ordinal} is missing")))?;
        let record = self.decoded(place.record)?;
        if place.inner == 0 && record.len() == place.bytes as usize {
            return Ok(record);
        }
        let chunk = record.get(place.inner as usize..(place.inner + place.bytes) as usize);
        let chunk = chunk.ok_or_else(|| damaged("a chunk that reaches beyond its record"))?.to_vec();
        if self.plain.keys().check(&chunk) == place.check {
            Ok(Arc::new(chunk))
        } else {
            Err(damaged(format!("chunk {ordinal} has another hash than it should")).into())
        }
    }

    fn base_of(&self, ordinal: u32) -> Option<u32> {
        let place = self.chunks.get(ordinal as usize).copied().flatten()?;
        self.records.get(place.record as usize)?.base
    }
}

fn head_at(plain: &Plain<'_>, at: u64) -> Result<Head> {
    let bytes = plain.read(at, BLOCK_HEAD_BYTES)?;
    let number = |from: usize| u32::from_le_bytes([bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]]);
    let (stored, plain_bytes) = (number(2), number(6));
    let (kind, encoding) = (BlockKind::from_byte(bytes[0]), Encoding::from_byte(bytes[1]));
    match (kind, encoding) {
        (Some(kind), Some(encoding)) if encoding != Encoding::Delta && u64::from(stored) <= RECORD_BYTES_MAX => {
            Ok(Head { kind, encoding, stored, plain: plain_bytes, begin: at + BLOCK_HEAD_BYTES as u64 })
        }
        _ => Err(damaged("a block that is none").into()),
    }
}

fn document(plain: &Plain<'_>, head: &Head) -> Result<Vec<u8>> {
    if head.stored as usize > BLOCK_BYTES_MAX || head.plain as usize > BLOCK_BYTES_MAX {
        return Err(damaged("a block of its index that is too long").into());
    }
    let stored = plain.read(head.begin, head.stored as usize)?;
    let mut out = Vec::new();
    Decoder::new()?
        .decode(head.encoding, &stored, None, head.plain, &mut out)
        .map_err(|_| damaged("a block of its index that does not decode"))?;
    Ok(out)
}

fn checked_contents(bytes: &[u8]) -> Result<Contents> {
    // The version is the first number of the document.
    if let Some(&version) = bytes.first()
        && u16::from(version) > BUNDLE_VERSION
    {
        let (found, supported) = (u32::from(version), u32::from(BUNDLE_VERSION));
        return Err(copal_store::Error::Unsupported { what: OBJECT.into(), found, supported }.into());
    }
    let contents: Contents = copal_store::codec::decode(OBJECT, bytes)?;
    let bases_are_before = contents.snapshots.iter().enumerate().all(|(number, snapshot)| match snapshot.base {
        BaseSnapshot::None => true,
        BaseSnapshot::Since => contents.since.is_some(),
        BaseSnapshot::Bundled(base) => (base as usize) < number,
    });
    if contents.version == 0 || contents.snapshots.len() > SNAPSHOTS_MAX || !bases_are_before {
        return Err(damaged("contents that cannot be").into());
    }
    Ok(contents)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
