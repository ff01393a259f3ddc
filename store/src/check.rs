//! Verification of objects, by decoding every byte; and the index made again from what is sound.

mod objects;
mod places;
mod rebuild;
mod salvage;

use crate::backend::ObjectKind;
use crate::check::rebuild::Deltas;
use crate::collect::{condemned, maintenance_lease};
use crate::encoding::Decoder;
use crate::ids::{ChunkId, PackId};
use crate::index::is_fragment_missing;
use crate::location::Location;
use crate::pack::{PackOpener, PackTrailer, pack_name};
use crate::parity::{self, Verdict};
use crate::repository::Repository;
use crate::session::Session;
use crate::{Error, Result};

pub use objects::{check_index, check_small_objects, restore_config};
pub use places::check_places;
pub use rebuild::rebuild_index;

/// Why something is not verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// It does not verify, or is gone.
    #[default]
    Damaged,
    /// It was written by a newer version: nobody here can say.
    Newer,
}

/// Something that does not verify, or that cannot be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which of the two.
    pub trouble: Trouble,
    /// `pack`, `parity`, `index`, `chunk`, `config`, `key`, `label`, `condemned`.
    pub kind: &'static str,
    /// Object name or chunk id.
    pub id: String,
    /// What does not hold.
    pub detail: String,
    /// Chunks lost by it, where known.
    pub chunks: Vec<ChunkId>,
}

impl Damage {
    fn new(kind: &'static str, id: impl Into<String>, detail: impl Into<String>, chunks: Vec<ChunkId>) -> Self {
        Self { trouble: Trouble::Damaged, kind, id: id.into(), detail: detail.into(), chunks }
    }

    /// Of an error; other errors than of damage, of what may not be read and of newer versions are given
    /// back.
    pub fn of(kind: &'static str, id: &str, error: Error, chunks: Vec<ChunkId>) -> Result<Self> {
        let trouble = match &error {
            error if error.is_integrity() || error.is_denied() => Trouble::Damaged,
            error if error.is_unsupported() => Trouble::Newer,
            _ => return Err(error),
        };
        Ok(Self { trouble, ..Self::new(kind, id, error.to_string(), chunks) })
    }
}

/// Figures of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Packs read.
    pub packs: u64,
    /// Chunks decoded and hashed.
    pub chunks: u64,
    /// Stored bytes read.
    pub bytes: u64,
    /// What does not verify.
    pub damaged: Vec<Damage>,
}

/// All packs, by name.
pub fn packs(repository: &Repository) -> Result<Vec<PackId>> {
    let listed = repository.backend().list(ObjectKind::Pack)?;
    let mut packs: Vec<PackId> = listed.iter().filter_map(|object| PackId::from_hex(object.name.name())).collect();
    packs.sort_unstable();
    Ok(packs)
}

/// Checks one pack: envelope, footer, trailer, every record decoded, every chunk hashed again. That the index
/// finds what snapshots need is for the walk over their manifests to see: a pack of an interrupted create
/// stands in no index, and nothing is wrong with that. What no index names nobody reads: it is damaged only
/// in the way of garbage, which collection removes, and is passed over. Errors of the storage that are no
/// damage are errors.
pub fn check_pack(session: &Session, pack: PackId) -> Result<CheckReport> {
    let outcome = check_standing(session, pack);
    let hurt = match &outcome {
        Ok(report) => !report.damaged.is_empty(),
        Err(error) => error.is_integrity(),
    };
    // A collection may sweep, while we read, what was condemned before this session began.
    if hurt && session.is_condemned(&pack) && is_gone(session, pack)? {
        return Ok(CheckReport::default());
    }
    let mut report = outcome?;
    let repository = session.repository();
    let damage = |kind, detail: &str| Damage::new(kind, pack.to_string(), detail, Vec::new());
    let is_newer = report.damaged.iter().any(|damage| damage.trouble == Trouble::Newer);
    if is_newer {
        return Ok(report);
    }
    if !report.damaged.is_empty() && parity::heal(repository, pack)?.is_some() {
        // Readers get what it was: nothing is lost.
        let number = report.damaged.len();
        report.damaged =
            vec![damage("pack", &format!("{number} of its records do not verify; its parity brings them back"))];
    } else if report.damaged.is_empty() && names_pack(session, pack)? {
        match parity::judge(repository, pack) {
            Ok(None | Some(Verdict::Sound)) => {}
            Ok(Some(Verdict::PackHurt)) if !is_brought_back(repository, pack)? => {
                report.damaged.push(damage("parity", "it is not of the pack, which verifies"));
            }
            Ok(Some(Verdict::PackHurt)) => {
                report
                    .damaged
                    .push(damage("pack", "its records verify, and other bytes of it are not as they were written"));
            }
            Ok(Some(Verdict::ParityHurt(detail))) => report.damaged.push(damage("parity", &detail)),
            Err(error) => report.damaged.push(Damage::of("parity", &pack.to_string(), error, Vec::new())?),
        }
    }
    Ok(report)
}

/// Whether the parity of a pack brings back one whose records all verify: else it is not its parity.
fn is_brought_back(repository: &Repository, pack: PackId) -> Result<bool> {
    let Some(healed) = parity::heal(repository, pack)? else { return Ok(false) };
    let healed = repository.with_backend(healed);
    let opened = || {
        let trailer = PackOpener::read_trailer(healed.keys(), &**healed.backend(), pack)?;
        let mut checker = RecordChecker::new(&healed, pack)?;
        for record in &trailer.records {
            checker.open(&record.entries(pack, trailer.kind).collect::<Vec<_>>())?;
        }
        Ok(())
    };
    match opened() {
        Ok(()) => Ok(true),
        Err(error) if Error::is_integrity(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Parity of packs that are not there: left by a command that was killed, or put there by somebody.
pub fn parity_of_no_pack(repository: &Repository) -> Result<u64> {
    Ok(parity::orphans(repository)?.len() as u64)
}

/// Removes it; returns how many objects went. [`crate::Error::Busy`] when a collection runs.
pub fn remove_parity_of_no_pack(repository: &Repository) -> Result<u64> {
    let lease = maintenance_lease(repository)?;
    let removed = parity::remove_orphans(repository)?;
    lease.release()?;
    Ok(removed)
}

/// Whether the index has anything to do with a pack.
fn names_pack(session: &Session, pack: PackId) -> Result<bool> {
    let fragments = session.index()?.fragments();
    Ok(fragments.iter().any(|fragment| fragment.packs().iter().any(|(named, _)| *named == pack)))
}

/// Makes the parity again of packs that verify and whose parity is gone or damaged; returns how many.
/// [`crate::Error::Busy`] when a collection runs.
pub fn renew_parity(repository: &Repository) -> Result<u64> {
    let lease = maintenance_lease(repository)?;
    let session = Session::begin(repository)?;
    let mut renewed = 0;
    for pack in packs(repository)? {
        let damaged = check_pack(&session, pack)?.damaged;
        if matches!(damaged.as_slice(), [only] if only.kind == "parity" && only.trouble == Trouble::Damaged) {
            parity::renew(repository, pack)?;
            renewed += 1;
        }
    }
    session.end()?;
    lease.release()?;
    Ok(renewed)
}

fn is_gone(session: &Session, pack: PackId) -> Result<bool> {
    match session.repository().backend().stat(&pack_name(pack)) {
        Ok(_) => Ok(false),
        Err(Error::Missing { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

fn check_standing(session: &Session, pack: PackId) -> Result<CheckReport> {
    let repository = session.repository();
    let mut report = CheckReport { packs: 1, ..CheckReport::default() };
    let name = pack_name(pack);
    let trailer = match PackOpener::read_trailer(repository.keys(), &**repository.backend(), pack) {
        Ok(trailer) => trailer,
        Err(error) => {
            let damage = Damage::of("pack", name.name(), error, Vec::new())?;
            let chunks = chunks_indexed_in(session, pack)?;
            if !chunks.is_empty() || damage.trouble == Trouble::Newer {
                report.damaged.push(Damage { chunks, ..damage });
            }
            return Ok(report);
        }
    };
    report.bytes = repository.backend().stat(&name)?.bytes;
    let mut checker = RecordChecker::new(repository, pack)?;
    for number in 0..trailer.records.len() {
        match checker.check(session, &trailer, number)? {
            Ok(chunks) => report.chunks += chunks,
            Err(damage) if is_indexed(session, &trailer, number, pack)? => report.damaged.push(damage),
            Err(_) => {}
        }
    }
    Ok(report)
}

/// Whether the index names a record: of some chunk, this is one of the places.
fn is_indexed(session: &Session, trailer: &PackTrailer, number: usize, pack: PackId) -> Result<bool> {
    for (id, location) in trailer.records[number].entries(pack, trailer.kind) {
        let mut here =
            |other: &Location| Ok((other.pack, other.record_offset) == (location.pack, location.record_offset));
        if session.index()?.find(&id, &mut here)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Decodes records of one pack.
struct RecordChecker<'r> {
    repository: &'r Repository,
    opener: PackOpener,
    pack: PackId,
    decoder: Decoder,
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

impl<'r> RecordChecker<'r> {
    fn new(repository: &'r Repository, pack: PackId) -> Result<Self> {
        Ok(Self {
            repository,
            opener: PackOpener::new(repository.keys(), &**repository.backend(), pack)?,
            pack,
            decoder: Decoder::new()?,
            sealed: Vec::new(),
            plain: Vec::new(),
        })
    }

    /// The number of chunks that are sound, or the damage.
    fn check(&mut self, session: &Session, trailer: &PackTrailer, number: usize) -> Result<Result<u64, Damage>> {
        let entries: Vec<(ChunkId, Location)> = trailer.records[number].entries(self.pack, trailer.kind).collect();
        let (first, location) = &entries[0];
        let mut decodable = true;
        let outcome = match location.base {
            None => self.decode(&entries),
            Some(base) => match self.read_delta(session, first, location, &base)? {
                Some(outcome) => outcome,
                // Collected with all that reached the delta. Where something still does, its manifest's walk
                // misses the chunk.
                None => {
                    decodable = false;
                    self.open(&entries)
                }
            },
        };
        let ids = || entries.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let damage = |id: &ChunkId, detail: String, chunks| {
            Ok(Err(Damage::new("chunk", id.to_string(), format!("in pack {}: {detail}", self.pack), chunks)))
        };
        match outcome {
            Ok(()) if !decodable => return Ok(Ok(0)),
            Ok(()) => {}
            Err(error) if error.is_integrity() => return damage(first, error.to_string(), ids()),
            Err(error) => return Err(error),
        }
        for (id, location) in &entries {
            let plain = session.chunk_in_record(&self.plain, location)?;
            if self.repository.keys().chunk_id(plain) != *id {
                return damage(id, "its bytes have another hash".into(), vec![*id]);
            }
        }
        Ok(Ok(entries.len() as u64))
    }

    /// Decodes a delta; `None` where its base was collected, perhaps while we read, or is damaged itself.
    fn read_delta(
        &mut self,
        session: &Session,
        id: &ChunkId,
        location: &Location,
        base: &ChunkId,
    ) -> Result<Option<Result<()>>> {
        match session.locate_base(base) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            // Where an index does not open, nobody knows where the base is.
            Err(error) if error.concerns_one_object() => return Ok(None),
            Err(error) => return Err(error),
        }
        match session.read_record(id, location, &mut self.plain) {
            // What is wrong with the base is named where the base is.
            Err(error)
                if error.concerns_one_object()
                    && session.read_base(base).is_err_and(|error| error.concerns_one_object()) =>
            {
                Ok(None)
            }
            outcome => Ok(Some(outcome)),
        }
    }

    /// Decodes a record that is no delta.
    fn decode(&mut self, entries: &[(ChunkId, Location)]) -> Result<()> {
        self.open(entries)?;
        let (_, location) = &entries[0];
        self.decoder.decode(location.encoding, &self.sealed, None, location.record_plain_bytes, &mut self.plain)
    }

    /// Reads and authenticates a record.
    fn open(&mut self, entries: &[(ChunkId, Location)]) -> Result<()> {
        let (id, location) = &entries[0];
        self.sealed.resize(location.record_stored_bytes as usize, 0);
        let name = pack_name(self.pack);
        self.repository.backend().read_range(&name, u64::from(location.record_offset), &mut self.sealed)?;
        let is_single = location.bytes == location.record_plain_bytes;
        self.opener.open_record(location, is_single.then_some(id), &mut self.sealed)
    }
}

fn chunks_indexed_in(session: &Session, pack: PackId) -> Result<Vec<ChunkId>> {
    loop {
        let mut chunks = Vec::new();
        let visited = session.index()?.for_each_readable(|id, location| {
            if location.pack == pack {
                chunks.push(id);
            }
        });
        match visited {
            Err(error) if is_fragment_missing(&error) => session.index()?.reload()?,
            visited => return visited.map(|()| chunks),
        }
    }
}

/// Lifts sentences of collection that do not open: nobody could carry them out, and no create may begin
/// beside them. Returns the names of what was removed. [`crate::Error::Busy`] when a collection runs.
pub fn lift_unreadable_sentences(repository: &Repository) -> Result<Vec<String>> {
    let lease = maintenance_lease(repository)?;
    let lifted = condemned::lift_unreadable(repository)?;
    lease.release()?;
    Ok(lifted.iter().map(ToString::to_string).collect())
}

impl RecordChecker<'_> {
    /// Opens a delta and decodes it; its payload stays in `sealed`.
    fn is_sound_delta(&mut self, entry: &(ChunkId, Location), deltas: &mut Deltas<'_>) -> Result<bool> {
        match self.open(std::slice::from_ref(entry)) {
            Err(error) if error.is_integrity() => Ok(false),
            Err(error) => Err(error),
            Ok(()) => deltas.is_sound(&entry.0, &entry.1, &self.sealed, &mut self.decoder),
        }
    }

    fn is_sound(&mut self, entries: &[(ChunkId, Location)]) -> Result<bool> {
        match self.decode(entries) {
            Err(error) if error.is_integrity() => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok(entries.iter().all(|(id, location)| {
                let begin = location.inner_offset as usize;
                let chunk = self.plain.get(begin..begin + location.bytes as usize);
                chunk.is_some_and(|chunk| self.repository.keys().chunk_id(chunk) == *id)
            })),
        }
    }
}
