//! Copies the live records of packs that are mostly dead into new packs.

use std::collections::HashSet;

use crate::collect::Plan;
use crate::collect::mark::LiveChunks;
use crate::encoding::{Decoder, Encoder};
use crate::ids::{ChunkId, PackId};
use crate::location::Location;
use crate::mutants::Mutant;
use crate::pack::{PackOpener, PackTrailer, TrailerRecord, pack_name};
use crate::repository::Repository;
use crate::session::copy::PackCopier;
use crate::session::{ChunkSource, Session};
use crate::{Error, Result};

/// Copies, then publishes packs, then their index. Nothing old is touched. Returns the packs that do not
/// open: of them no copy is whole, and they stay for a repair, or for a key or a program that opens them.
/// Beside them the bytes of the copies.
///
/// What is copied is decoded and hashed first: the copy is the word of the key in use, whoever stored what it
/// was made from.
pub(super) fn copy_live(session: &Session, plan: &Plan) -> Result<(HashSet<PackId>, u64)> {
    let repository = session.repository();
    let mut damaged = HashSet::new();
    if plan.rewritten.is_empty() || repository.is_mutant(Mutant::RewritesWithoutCopies) {
        return Ok((damaged, 0));
    }
    let mut copier = PackCopier::new(repository);
    let mut rewriter = Rewriter {
        session,
        repository,
        live: &plan.live_in_rewritten,
        encoder: Encoder::new(repository.config().parameters.compression_level)?,
        decoder: Decoder::new()?,
        plain: Vec::new(),
        payload: Vec::new(),
    };
    for (pack, _) in &plan.rewritten {
        match rewriter.copy_pack(*pack, &mut copier) {
            Err(error) if error.concerns_one_object() => drop(damaged.insert(*pack)),
            copied => copied?,
        }
    }
    let bytes = copier.publish()?;
    Ok((damaged, bytes))
}

struct Rewriter<'a> {
    session: &'a Session,
    repository: &'a Repository,
    live: &'a LiveChunks,
    encoder: Encoder,
    decoder: Decoder,
    plain: Vec<u8>,
    payload: Vec<u8>,
}

impl Rewriter<'_> {
    fn copy_pack(&mut self, pack: PackId, copier: &mut PackCopier<'_>) -> Result<()> {
        let trailer = PackOpener::read_trailer(self.repository.keys(), &**self.repository.backend(), pack)?;
        let opener = PackOpener::new(self.repository.keys(), &**self.repository.backend(), pack)?;
        trailer.records.iter().try_for_each(|record| self.copy(pack, &trailer, &opener, record, copier))
    }

    fn copy(
        &mut self,
        pack: PackId,
        trailer: &PackTrailer,
        opener: &PackOpener,
        record: &TrailerRecord,
        copier: &mut PackCopier<'_>,
    ) -> Result<()> {
        let entries: Vec<(ChunkId, Location)> = record.entries(pack, trailer.kind).collect();
        let live: Vec<&(ChunkId, Location)> = entries.iter().filter(|(id, _)| self.live.contains(&pack, id)).collect();
        let (Some((first, location)), false) = (entries.first(), live.is_empty()) else { return Ok(()) };
        let mut sealed = vec![0; record.stored_bytes as usize];
        self.repository.backend().read_range(&pack_name(pack), u64::from(record.offset), &mut sealed)?;
        opener.open_record(location, (entries.len() == 1).then_some(first), &mut sealed)?;
        let base = record.base.as_ref().map(|base| self.session.read_chunk(base)).transpose()?;
        self.decoder.decode(record.encoding, &sealed, base.as_deref(), record.plain_bytes, &mut self.plain)?;
        for (id, location) in &live {
            let chunk = self.session.chunk_in_record(&self.plain, location)?;
            if self.repository.keys().chunk_id(chunk) != *id {
                return Err(Error::damaged(pack_name(pack), format!("chunk {id} in it has another hash")));
            }
        }
        // A delta of the key in use must find its base where that key's word or an owner's says: else it is
        // copied whole.
        let is_self_standing = match record.base {
            None => true,
            Some(base) => self.session.has_trusted_base(&base)?,
        };
        if live.len() == entries.len() && is_self_standing {
            // Sealed again as it was encoded: nothing is compressed twice.
            return copier.put(trailer.kind, record.encoding, &record.members, record.base, &sealed);
        }
        let mut kept = Vec::new();
        let mut members = Vec::with_capacity(live.len());
        for (id, location) in live {
            let begin = location.inner_offset as usize;
            kept.extend_from_slice(&self.plain[begin..begin + location.bytes as usize]);
            members.push((*id, location.bytes));
        }
        let encoding = self.encoder.encode(&kept, None, &mut self.payload)?;
        copier.put(trailer.kind, encoding, &members, None, &self.payload)
    }
}
