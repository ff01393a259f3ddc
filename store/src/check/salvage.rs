//! Copies what is sound out of packs whose trailers do not open: the old index still knows where their
//! records are. Whoever has a key can write an index that says otherwise, so all that is said of a record is
//! tried, and what is copied is what was hashed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::Result;
use crate::backend::ObjectStat;
use crate::encoding::{Decoder, Encoder};
use crate::ids::{ChunkId, PackId};
use crate::index::Fragment;
use crate::location::{Encoding, FRAME_BYTES_MAX, Location, RecordKind};
use crate::pack::{FRAME_MEMBERS_MAX, PackOpener, pack_name};
use crate::repository::Repository;
use crate::session::copy::PackCopier;

/// What the index says of the records of packs, by pack and offset.
type Records = BTreeMap<(PackId, u32), Vec<Candidate>>;

/// How a record is said to be. What fragments say alike is one candidate.
struct Candidate {
    /// The place of its first chunk; what opens the record is the same in all of them.
    location: Location,
    /// The only chunk, which the record is bound to; of a frame `None`.
    single: Option<ChunkId>,
    /// Whether somebody who is built on says so.
    is_trusted: bool,
    /// Its chunks, with offset in the plaintext and length in bytes.
    members: BTreeSet<(u32, ChunkId, u32)>,
}

impl Candidate {
    fn new(id: ChunkId, location: Location) -> Self {
        let single = (location.bytes == location.record_plain_bytes).then_some(id);
        Self { location, single, is_trusted: false, members: BTreeSet::new() }
    }

    /// Whether both say the same of the record.
    fn is_like(&self, other: &Self) -> bool {
        let shape = |of: &Self| {
            let Location { kind, record_stored_bytes, record_plain_bytes, encoding, base, .. } = of.location;
            (kind, record_stored_bytes, record_plain_bytes, encoding, base, of.single)
        };
        shape(self) == shape(other)
    }
}

/// Which records are copied, and whether a delta is the chunk that it is said to be.
pub(super) trait Judge {
    /// Whether it is the turn of deltas, or of all others.
    fn takes_deltas(&self) -> bool;
    /// Whether an opened payload decodes to the chunk of that id.
    fn is_sound(&mut self, id: &ChunkId, location: &Location, payload: &[u8], decoder: &mut Decoder) -> Result<bool>;
}

/// Publishes new packs and their index; returns the chunks that are in them.
pub(super) fn salvage(
    repository: &Repository,
    index: &[ObjectStat],
    packs: &HashSet<PackId>,
    judge: &mut dyn Judge,
) -> Result<HashSet<ChunkId>> {
    let mut salvaged = HashSet::new();
    if packs.is_empty() {
        return Ok(salvaged);
    }
    let mut copier = PackCopier::new(repository);
    let mut salvager = Salvager {
        repository,
        encoder: Encoder::new(repository.config().parameters.compression_level)?,
        decoder: Decoder::new()?,
    };
    for ((pack, _), mut candidates) in records_in(repository, index, packs)? {
        candidates.sort_by_key(|candidate| !candidate.is_trusted);
        for candidate in &candidates {
            match salvager.copy(pack, candidate, &salvaged, &mut copier, judge) {
                Ok(copied) => salvaged.extend(copied),
                Err(error) if error.is_integrity() => {}
                Err(error) => return Err(error),
            }
        }
    }
    copier.publish()?;
    Ok(salvaged)
}

/// What of the index opens, block by block.
fn records_in(repository: &Repository, index: &[ObjectStat], packs: &HashSet<PackId>) -> Result<Records> {
    let backend = &**repository.backend();
    let mut records = Records::new();
    let sound = |outcome: Result<()>| outcome.or_else(|error| if error.is_integrity() { Ok(()) } else { Err(error) });
    for listed in index {
        let opened = Fragment::open(backend, repository.keys(), listed);
        sound(opened.and_then(|fragment| {
            fragment.for_each_readable(backend, &mut |id, location| {
                if packs.contains(&location.pack) {
                    let candidates = records.entry((location.pack, location.record_offset)).or_default();
                    let said = Candidate::new(id, location);
                    let at = candidates.iter().position(|known| known.is_like(&said)).unwrap_or(candidates.len());
                    if at == candidates.len() {
                        candidates.push(said);
                    }
                    candidates[at].is_trusted |= fragment.is_trusted();
                    candidates[at].members.insert((location.inner_offset, id, location.bytes));
                }
            })
        }))?;
    }
    Ok(records)
}

struct Salvager<'r> {
    repository: &'r Repository,
    encoder: Encoder,
    decoder: Decoder,
}

impl Salvager<'_> {
    /// Copies the chunks of a record that are as they are said to be, but for those that were copied before.
    fn copy(
        &mut self,
        pack: PackId,
        candidate: &Candidate,
        salvaged: &HashSet<ChunkId>,
        copier: &mut PackCopier<'_>,
        judge: &mut dyn Judge,
    ) -> Result<Vec<ChunkId>> {
        let Candidate { location, single, members, .. } = candidate;
        let is_wanted = |id: &ChunkId| !salvaged.contains(id);
        if location.base.is_some() != judge.takes_deltas() || !members.iter().any(|(_, id, _)| is_wanted(id)) {
            return Ok(Vec::new());
        }
        let mut sealed = vec![0; location.record_stored_bytes as usize];
        self.repository.backend().read_range(&pack_name(pack), u64::from(location.record_offset), &mut sealed)?;
        let opener = PackOpener::new(self.repository.keys(), &**self.repository.backend(), pack)?;
        opener.open_record(location, single.as_ref(), &mut sealed)?;
        if location.base.is_some() {
            // A delta is a record of its own.
            let Some(id) = single.filter(|_| location.encoding == Encoding::Delta) else { return Ok(Vec::new()) };
            if !judge.is_sound(&id, location, &sealed, &mut self.decoder)? {
                return Ok(Vec::new());
            }
            copier.put(location.kind, location.encoding, &[(id, location.bytes)], location.base, &sealed)?;
            return Ok(vec![id]);
        }
        let mut plain = Vec::new();
        self.decoder.decode(location.encoding, &sealed, None, location.record_plain_bytes, &mut plain)?;
        let (mut copied, mut frame) = (HashSet::new(), Frame::default());
        for (offset, id, bytes) in members.iter().filter(|(_, id, _)| is_wanted(id)) {
            let begin = *offset as usize;
            let Some(chunk) = plain.get(begin..begin.saturating_add(*bytes as usize)) else { continue };
            if self.repository.keys().chunk_id(chunk) != *id || copied.contains(id) {
                continue;
            }
            // Of chunks that overlap, as only somebody makes them up, there may be more than one frame holds.
            if !frame.has_room_for(chunk) {
                self.put(location.kind, std::mem::take(&mut frame), copier)?;
            }
            frame.plain.extend_from_slice(chunk);
            frame.members.push((*id, *bytes));
            copied.insert(*id);
        }
        self.put(location.kind, frame, copier)?;
        Ok(copied.into_iter().collect())
    }

    fn put(&mut self, kind: RecordKind, frame: Frame, copier: &mut PackCopier<'_>) -> Result<()> {
        if frame.members.is_empty() {
            return Ok(());
        }
        let mut payload = Vec::new();
        let encoding = self.encoder.encode(&frame.plain, None, &mut payload)?;
        copier.put(kind, encoding, &frame.members, None, &payload)
    }
}

/// Chunks for one record.
#[derive(Default)]
struct Frame {
    plain: Vec<u8>,
    members: Vec<(ChunkId, u32)>,
}

impl Frame {
    fn has_room_for(&self, chunk: &[u8]) -> bool {
        let fits = self.plain.len() + chunk.len() <= FRAME_BYTES_MAX as usize;
        self.members.is_empty() || (fits && self.members.len() < FRAME_MEMBERS_MAX)
    }
}
