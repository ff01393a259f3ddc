//! Faults that can be built into the store on purpose, to see whether the checks of the simulated world see
//! them: a check that passes over a mutant proves nothing. `sim/tests/canaries.rs` demands that each is
//! found.
//!
//! No program has any: without the feature `mutants`, which only the test world asks for, nobody can build
//! one in, and every question for one is the constant `false`.

use crate::ids::ChunkId;
use crate::location::{Encoding, Location, RecordKind};

/// What [`Mutant::WritesWrongPlaces`] writes.
pub(crate) fn misplace(entries: &mut [(ChunkId, Location)]) {
    let packs: Vec<_> = entries.iter().map(|(_, location)| location.pack).collect();
    let of_content = entries.iter_mut().filter(|(_, location)| location.kind == RecordKind::Data);
    for (number, (_, location)) in of_content.enumerate() {
        match number % 4 {
            0 => location.record_offset += 1,
            1 => location.record_stored_bytes -= 1,
            2 if packs.iter().any(|pack| *pack != location.pack) => {
                location.pack = *packs.iter().find(|pack| **pack != location.pack).unwrap_or(&location.pack);
            }
            _ if location.encoding == Encoding::Raw => location.encoding = Encoding::Zstd,
            _ if location.encoding == Encoding::Zstd => location.encoding = Encoding::Raw,
            _ => location.record_offset += 1,
        }
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Marking a delta does not mark its base.
    ForgetsBases,
    /// A pack in which something lives is condemned with the dead ones.
    SweepsALivePack,
    /// Packs to be rewritten are condemned, and their live records are not copied.
    RewritesWithoutCopies,
    /// The sweep does not wait for the sessions that lived when the sentence was published.
    WaitsForNobody,
    /// The living sessions are listed before the sentence is published and not after.
    ListsSessionsFirst,
    /// The sweep does not look at snapshots that appeared after the sentence.
    PardonsNothing,
    /// Objects of living sessions are removed as if they were those of dead processes.
    TakesTheLivingForDead,
    /// A session lists roots and sentences before it is registered.
    BeginsUnregistered,
    /// A chunk in a condemned pack counts as stored.
    ReusesCondemnedChunks,
    /// Merged fragments go before the one that replaces them is there.
    RemovesFragmentsFirst,
    /// A name is looked for before a root is published and not after.
    LooksForTheNameOnce,
    /// A session whose object was removed publishes its root all the same.
    PublishesUnseen,
    /// The index says of chunks of content that they are elsewhere: at another offset, of another length, in
    /// another pack, encoded otherwise.
    WritesWrongPlaces,
    /// Packs are listed once after the index was read, also when that index names one that is gone.
    ListsPacksOnce,
}

impl Mutant {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::ForgetsBases,
        Self::SweepsALivePack,
        Self::RewritesWithoutCopies,
        Self::WaitsForNobody,
        Self::ListsSessionsFirst,
        Self::PardonsNothing,
        Self::TakesTheLivingForDead,
        Self::BeginsUnregistered,
        Self::ReusesCondemnedChunks,
        Self::RemovesFragmentsFirst,
        Self::LooksForTheNameOnce,
        Self::PublishesUnseen,
        Self::WritesWrongPlaces,
        Self::ListsPacksOnce,
    ];
}
