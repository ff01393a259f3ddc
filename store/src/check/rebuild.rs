//! The index made again from what is sound.

use std::collections::HashSet;

use crate::Result;
use crate::backend::{ObjectKind, ObjectStat};
use crate::check::RecordChecker;
use crate::check::salvage::{Judge, salvage};
use crate::collect::{author_of_copy, maintenance_lease, publish_fragment, retire};
use crate::encoding::Decoder;
use crate::ids::{ChunkId, PackId};
use crate::index::Fragment;
use crate::location::Location;
use crate::pack::PackOpener;
use crate::parity;
use crate::repository::Repository;
use crate::session::copy::PackCopier;
use crate::session::{ChunkSource, Session};

/// Makes the index again from the packs' trailers: every record is decoded, and what is damaged or missing is
/// left out, so that the next create that meets such a chunk stores it again. Of a pack whose trailer does
/// not open, what the old index still finds and what is sound is copied to a new pack; of one that its parity
/// brings back, everything. Returns the number of sound chunks. [`crate::Error::Busy`] when a collection
/// runs. The new fragments are durable before the old ones go, and nothing is in them that was not hashed
/// before: a create that runs beside builds on them. First what is no delta, then the deltas whose bases are
/// among that. Fragments and packs of a newer version stay, and what the index said of them.
pub fn rebuild_index(repository: &Repository) -> Result<u64> {
    let lease = maintenance_lease(repository)?;
    let old = readable_fragments(repository)?;
    let mut scan = Scan::default();
    let mut copier = PackCopier::new(repository);
    for pack in parity::packs_or_their_parity(repository)? {
        scan.take_pack(repository, pack, &mut copier)?;
    }
    copier.publish()?;
    scan.whole.extend(salvage(repository, &old, &scan.without_trailer, &mut WholeOnly)?);
    let mut sound = std::mem::take(&mut scan.sound);
    scan.whole.extend(sound.iter().map(|(id, _)| *id));
    publish_fragment(repository, &mut sound, repository.keys().author_of_own())?;

    let session = Session::begin(repository)?;
    let mut deltas = Deltas { session: &session, whole: &scan.whole, base: None, sound: HashSet::new() };
    let mut entries = Vec::new();
    let mut copier = PackCopier::new(repository);
    for (pack, records) in &scan.deltas {
        let mut checker = RecordChecker::new(repository, *pack)?;
        for record in records.iter() {
            if checker.is_sound_delta(record, &mut deltas)? {
                entries.push(*record);
            }
        }
    }
    for pack in &scan.healed {
        if let Some(healed) = parity::heal(repository, *pack)? {
            copy_healed_deltas(&repository.with_backend(healed), *pack, &mut deltas, &mut copier)?;
        }
    }
    copier.publish()?;
    salvage(repository, &old, &scan.without_trailer, &mut deltas)?;
    let count = (scan.whole.len() + deltas.sound.len()) as u64;
    session.end()?;
    publish_fragment(repository, &mut entries, repository.keys().author_of_own())?;
    keep_what_is_closed(repository, &old, &scan)?;
    let old: Vec<_> = old.into_iter().map(|listed| listed.name).collect();
    retire(repository, &old)?;
    lease.release()?;
    Ok(count)
}

/// The fragments that are replaced. One of a newer version, or that this user may not read, stays as it is:
/// it may know what nothing here can put into its place. Beside one that another key would open nothing is
/// replaced.
fn readable_fragments(repository: &Repository) -> Result<Vec<ObjectStat>> {
    let mut readable = Vec::new();
    for listed in repository.backend().list(ObjectKind::Index)? {
        match Fragment::open(&**repository.backend(), repository.keys(), &listed) {
            Err(error) if error.is_unsupported() || error.is_denied() => {}
            Err(error) if !error.is_integrity() || error.is_of_keys() => return Err(error),
            _ => readable.push(listed),
        }
    }
    Ok(readable)
}

/// Publishes again what fragments say of packs that nobody here can look into, and of deltas whose bases
/// stand there, as the word of whose it was.
fn keep_what_is_closed(repository: &Repository, fragments: &[ObjectStat], scan: &Scan) -> Result<()> {
    if scan.closed.is_empty() {
        return Ok(());
    }
    let backend = &**repository.backend();
    let is_closed = |location: &Location| scan.closed.contains(&location.pack);
    let (mut opened, mut closed) = (Vec::new(), HashSet::new());
    for listed in fragments {
        let fragment = match Fragment::open(backend, repository.keys(), listed) {
            Err(error) if error.is_integrity() => continue,
            fragment => fragment?,
        };
        fragment.for_each_readable(backend, &mut |id, location| {
            if is_closed(&location) && !scan.whole.contains(&id) {
                closed.insert(id);
            }
        })?;
        opened.push(fragment);
    }
    for fragment in opened {
        let mut kept = Vec::new();
        fragment.for_each_readable(backend, &mut |id, location| {
            if is_closed(&location) || location.base.is_some_and(|base| closed.contains(&base)) {
                kept.push((id, location));
            }
        })?;
        publish_fragment(repository, &mut kept, author_of_copy(repository, &fragment))?;
    }
    Ok(())
}

/// What the packs hold.
#[derive(Default)]
struct Scan {
    /// Places of sound chunks that are no deltas.
    sound: Vec<(ChunkId, Location)>,
    /// Deltas, not looked at yet.
    deltas: Vec<(PackId, Vec<(ChunkId, Location)>)>,
    /// Chunks that stand whole somewhere.
    whole: HashSet<ChunkId>,
    /// Packs that their parity brings back.
    healed: Vec<PackId>,
    without_trailer: HashSet<PackId>,
    /// Packs of a newer version, or that this user may not read.
    closed: HashSet<PackId>,
}

impl Scan {
    fn take_pack(&mut self, repository: &Repository, pack: PackId, copier: &mut PackCopier<'_>) -> Result<()> {
        if let Some(healed) = parity::heal(repository, pack)?
            && let Some(chunks) = copy_healed(&repository.with_backend(healed), pack, copier)?
        {
            self.whole.extend(chunks);
            self.healed.push(pack);
            return Ok(());
        }
        let trailer = match PackOpener::read_trailer(repository.keys(), &**repository.backend(), pack) {
            Ok(trailer) => trailer,
            // With another key it opens: the index must not forget what is in it.
            Err(error) if error.is_of_keys() => return Err(error),
            Err(error) if error.is_unsupported() || error.is_denied() => {
                self.closed.insert(pack);
                return Ok(());
            }
            Err(error) if error.is_integrity() => {
                self.without_trailer.insert(pack);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut checker = RecordChecker::new(repository, pack)?;
        let mut deltas = Vec::new();
        for record in &trailer.records {
            let entries: Vec<(ChunkId, Location)> = record.entries(pack, trailer.kind).collect();
            if record.base.is_some() {
                deltas.extend(entries);
            } else if checker.is_sound(&entries)? {
                self.sound.extend(entries);
            }
        }
        if !deltas.is_empty() {
            self.deltas.push((pack, deltas));
        }
        Ok(())
    }
}

/// Judges deltas, by decoding them against bases that were hashed.
pub(super) struct Deltas<'s> {
    session: &'s Session,
    whole: &'s HashSet<ChunkId>,
    /// The one that was read last.
    base: Option<(ChunkId, Vec<u8>)>,
    sound: HashSet<ChunkId>,
}

impl Deltas<'_> {
    /// Whether an opened payload is the chunk of that id. One that stands whole needs no delta.
    pub(super) fn is_sound(
        &mut self,
        id: &ChunkId,
        location: &Location,
        payload: &[u8],
        decoder: &mut Decoder,
    ) -> Result<bool> {
        let Some(base) = location.base.filter(|base| self.whole.contains(base)) else { return Ok(false) };
        if self.whole.contains(id) || location.bytes != location.record_plain_bytes {
            return Ok(false);
        }
        if self.base.as_ref().is_none_or(|(known, _)| *known != base) {
            self.base = match self.session.read_chunk(&base) {
                Err(error) if error.is_integrity() => return Ok(false),
                plain => Some((base, plain?)),
            };
        }
        let plain_of_base = self.base.as_ref().map(|(_, plain)| plain.as_slice());
        let mut plain = Vec::new();
        match decoder.decode(location.encoding, payload, plain_of_base, location.record_plain_bytes, &mut plain) {
            Err(error) if error.is_integrity() => Ok(false),
            Err(error) => Err(error),
            Ok(()) => {
                let is_sound = self.session.repository().keys().chunk_id(&plain) == *id;
                if is_sound {
                    self.sound.insert(*id);
                }
                Ok(is_sound)
            }
        }
    }
}

/// Copies the records of a pack that is read as its parity says it was; returns the chunks, all that are no
/// deltas. `None` where not even its trailer opens: then it is another's parity.
fn copy_healed(healed: &Repository, pack: PackId, copier: &mut PackCopier<'_>) -> Result<Option<Vec<ChunkId>>> {
    let trailer = match PackOpener::read_trailer(healed.keys(), &**healed.backend(), pack) {
        Err(error) if error.is_integrity() => return Ok(None),
        trailer => trailer?,
    };
    let mut checker = RecordChecker::new(healed, pack)?;
    let mut chunks = Vec::new();
    for record in trailer.records.iter().filter(|record| record.base.is_none()) {
        let entries: Vec<(ChunkId, Location)> = record.entries(pack, trailer.kind).collect();
        if !checker.is_sound(&entries)? {
            continue;
        }
        checker.open(&entries)?;
        copier.put(trailer.kind, record.encoding, &record.members, None, &checker.sealed)?;
        chunks.extend(entries.iter().map(|(id, _)| *id));
    }
    Ok(Some(chunks))
}

/// The same for its deltas.
fn copy_healed_deltas(
    healed: &Repository,
    pack: PackId,
    deltas: &mut Deltas<'_>,
    copier: &mut PackCopier<'_>,
) -> Result<()> {
    let trailer = PackOpener::read_trailer(healed.keys(), &**healed.backend(), pack)?;
    let mut checker = RecordChecker::new(healed, pack)?;
    for record in trailer.records.iter().filter(|record| record.base.is_some()) {
        for entry in record.entries(pack, trailer.kind) {
            if checker.is_sound_delta(&entry, deltas)? {
                copier.put(trailer.kind, record.encoding, &record.members, record.base, &checker.sealed)?;
            }
        }
    }
    Ok(())
}

/// Judges no deltas.
struct WholeOnly;

impl Judge for WholeOnly {
    fn takes_deltas(&self) -> bool {
        false
    }

    fn is_sound(&mut self, _: &ChunkId, _: &Location, _: &[u8], _: &mut Decoder) -> Result<bool> {
        Ok(false)
    }
}

impl Judge for Deltas<'_> {
    fn takes_deltas(&self) -> bool {
        true
    }

    fn is_sound(&mut self, id: &ChunkId, location: &Location, payload: &[u8], decoder: &mut Decoder) -> Result<bool> {
        Deltas::is_sound(self, id, location, payload, decoder)
    }
}
