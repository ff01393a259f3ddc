//! Copies what is sound out of packs whose trailers do not open: the old index still knows where their
//! records are.

use std::collections::{BTreeMap, HashSet};

use crate::Result;
use crate::backend::ObjectStat;
use crate::encoding::{Decoder, Encoder};
use crate::ids::{ChunkId, PackId};
use crate::index::Fragment;
use crate::location::Location;
use crate::pack::{PackOpener, pack_name};
use crate::repository::Repository;
use crate::session::copy::PackCopier;

/// The chunks of one record that the index names, by their offset in it.
type Records = BTreeMap<(PackId, u32), BTreeMap<u32, (ChunkId, Location)>>;

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
    for ((pack, _), members) in records_in(repository, index, packs)? {
        match salvager.copy(pack, &members, &mut copier, judge) {
            Ok(copied) => salvaged.extend(copied),
            Err(error) if error.is_integrity() => {}
            Err(error) => return Err(error),
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
                    let record = records.entry((location.pack, location.record_offset)).or_default();
                    record.insert(location.inner_offset, (id, location));
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
    fn copy(
        &mut self,
        pack: PackId,
        members: &BTreeMap<u32, (ChunkId, Location)>,
        copier: &mut PackCopier<'_>,
        judge: &mut dyn Judge,
    ) -> Result<Vec<ChunkId>> {
        let Some((id, location)) = members.values().next() else { return Ok(Vec::new()) };
        if location.base.is_some() != judge.takes_deltas() {
            return Ok(Vec::new());
        }
        let is_single = location.bytes == location.record_plain_bytes;
        let mut sealed = vec![0; location.record_stored_bytes as usize];
        self.repository.backend().read_range(&pack_name(pack), u64::from(location.record_offset), &mut sealed)?;
        let opener = PackOpener::new(self.repository.keys(), &**self.repository.backend(), pack)?;
        opener.open_record(location, is_single.then_some(id), &mut sealed)?;
        if location.base.is_some() {
            if !judge.is_sound(id, location, &sealed, &mut self.decoder)? {
                return Ok(Vec::new());
            }
            copier.put(location.kind, location.encoding, &[(*id, location.bytes)], location.base, &sealed)?;
            return Ok(vec![*id]);
        }
        let mut plain = Vec::new();
        self.decoder.decode(location.encoding, &sealed, None, location.record_plain_bytes, &mut plain)?;
        let (mut kept, mut copied) = (Vec::new(), Vec::new());
        for (id, location) in members.values() {
            let begin = location.inner_offset as usize;
            if let Some(chunk) = plain.get(begin..begin + location.bytes as usize)
                && self.repository.keys().chunk_id(chunk) == *id
            {
                kept.extend_from_slice(chunk);
                copied.push((*id, location.bytes));
            }
        }
        if !copied.is_empty() {
            let mut payload = Vec::new();
            let encoding = self.encoder.encode(&kept, None, &mut payload)?;
            copier.put(location.kind, encoding, &copied, None, &payload)?;
        }
        Ok(copied.into_iter().map(|(id, _)| id).collect())
    }
}
