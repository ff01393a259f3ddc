//! Compares the index with the packs: what an entry says of a chunk must be what its pack's own list says.
//! Readers go by the index, packs are checked by their lists: only where the two agree does the check of a
//! pack say anything about what a reader gets.

use std::collections::HashSet;

use crate::Result;
use crate::check::Damage;
use crate::ids::{ChunkId, PackId};
use crate::index::is_fragment_missing;
use crate::location::Location;
use crate::pack::PackOpener;
use crate::repository::Repository;
use crate::session::Session;

/// Entries of which so much is kept at once: 32 MiB. The index is read once for each such part.
const ENTRIES_PER_PASS: usize = 2 << 20;

/// Checks every entry of the index that names one of these packs. A pack whose list does not open is passed
/// over: [`super::check_pack`] names it, with all that the index knows in it.
pub fn check_places(session: &Session, packs: &[PackId]) -> Result<Vec<Damage>> {
    let mut damaged = Vec::new();
    let mut packs = packs.iter().peekable();
    while packs.peek().is_some() {
        let mut lists = Lists::default();
        while lists.places.len() < ENTRIES_PER_PASS
            && let Some(pack) = packs.next()
        {
            lists.add(session.repository(), *pack)?;
        }
        lists.places.sort_unstable();
        damaged.extend(lists.compare(session)?);
    }
    Ok(damaged)
}

/// What the lists of some packs say.
#[derive(Default)]
struct Lists {
    packs: HashSet<PackId>,
    /// A hash of each chunk with its place.
    places: Vec<u128>,
}

impl Lists {
    fn add(&mut self, repository: &Repository, pack: PackId) -> Result<()> {
        match PackOpener::read_trailer(repository.keys(), &**repository.backend(), pack) {
            Ok(trailer) => {
                self.packs.insert(pack);
                self.places.extend(trailer.entries(pack).map(|(id, location)| hash(&id, &location)));
                Ok(())
            }
            Err(error) if error.is_integrity() || error.is_unsupported() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn compare(&self, session: &Session) -> Result<Vec<Damage>> {
        loop {
            let mut wrong = Vec::new();
            let visited = session.index()?.for_each_readable(|id, location| {
                let is_right = || self.places.binary_search(&hash(&id, &location)).is_ok();
                if self.packs.contains(&location.pack) && !is_right() {
                    wrong.push((id, location));
                }
            });
            match visited {
                Err(error) if is_fragment_missing(&error) => session.index()?.reload()?,
                Err(error) => return Err(error),
                Ok(()) => return Ok(wrong.into_iter().map(|(id, location)| damage(id, &location)).collect()),
            }
        }
    }
}

fn damage(id: ChunkId, location: &Location) -> Damage {
    let Location { pack, record_offset, record_stored_bytes, .. } = location;
    let detail = format!(
        "the index says that it is in the {record_stored_bytes} bytes at {record_offset} of the pack {pack}, and the pack's own list does not"
    );
    Damage::new("chunk", id.to_string(), detail, vec![id])
}

fn hash(id: &ChunkId, location: &Location) -> u128 {
    let Location { pack, kind, record_offset, record_stored_bytes, record_plain_bytes, .. } = location;
    let Location { inner_offset, bytes, encoding, base, .. } = location;
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.as_bytes()).update(&pack.0).update(&[*kind as u8, *encoding as u8]);
    for number in [record_offset, record_stored_bytes, record_plain_bytes, inner_offset, bytes] {
        hasher.update(&number.to_le_bytes());
    }
    if let Some(base) = base {
        hasher.update(base.as_bytes());
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(first)
}
