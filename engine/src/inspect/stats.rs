//! What a repository costs, and what deduplication, deltas and compression save.

use std::collections::HashMap;

use copal_manifest::total::total;
use copal_manifest::tree::{Reference, references};
use copal_store::backend::ObjectKind;
use copal_store::location::{Encoding, Location};
use copal_store::session::ChunkSource;
use copal_store::{ChunkId, Error as StoreError};

use crate::catalogue::{Catalogue, Listed};
use crate::context::Context;
use crate::error::Result;
use crate::walk::PendingNode;

/// Sizes of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSize {
    /// The snapshot.
    pub listed: Listed,
    /// Logical bytes.
    pub bytes: u64,
    /// Stored bytes of chunks that no other snapshot uses.
    pub unique_stored: u64,
}

/// Sizes of a repository, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Stats {
    /// Sum over snapshots.
    pub logical: u64,
    /// Plaintext of distinct chunks of file contents.
    pub distinct: u64,
    /// Stored, all objects.
    pub stored: u64,
    /// `logical - distinct`.
    pub saved_by_deduplication: u64,
    /// Plaintext minus stored, of chunks stored as deltas.
    pub saved_by_deltas: u64,
    /// Plaintext minus stored, of the others.
    pub saved_by_compression: u64,
    /// Distinct chunks of file contents.
    pub chunks: u64,
    /// Of these, deltas.
    pub deltas: u64,
    /// Packs.
    pub packs: u64,
    /// Each snapshot, oldest first.
    pub snapshots: Vec<SnapshotSize>,
}

/// Which snapshot alone reaches something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    One(u32),
    Several,
}

/// What the walk learns of an id when another snapshot reaches it.
#[derive(PartialEq, Eq)]
enum Visit {
    First,
    /// It was reached by one other snapshot before: all below becomes shared, once.
    NowShared,
    Known,
}

/// Sizes. Memory: some 50 bytes for each distinct chunk.
pub fn stats(context: &Context) -> Result<Stats> {
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_in(context, &session)?;
    let mut owners: HashMap<ChunkId, Owner> = HashMap::new();
    for (number, listed) in (0u32..).zip(&catalogue.snapshots) {
        let mut pending = Vec::new();
        for source in &listed.snapshot.sources {
            let top = PendingNode::top(source.tree);
            if visit(&mut owners, top.id, number) != Visit::Known {
                pending.push(top);
            }
        }
        while let Some(node) = pending.pop() {
            context.check_interrupt()?;
            references(&session.read_chunk(&node.id)?, node.shape, &mut |reference| match reference {
                Reference::Node { id, shape } => {
                    if visit(&mut owners, id, number) != Visit::Known {
                        pending.push(PendingNode { id, shape });
                    }
                }
                Reference::Chunk(id, _) => drop(visit(&mut owners, id, number)),
            })?;
        }
    }
    let mut stats = Stats::default();
    let mut unique = vec![0u64; catalogue.snapshots.len()];
    for (id, owner) in &owners {
        let location = session.locate(id)?.ok_or_else(|| StoreError::Missing { object: format!("chunk {id}") })?;
        stats.add(&location);
        if let Owner::One(number) = owner {
            let unique = &mut unique[*number as usize];
            *unique = unique.saturating_add(stored_share(&location));
        }
    }
    stats.logical = total(catalogue.snapshots.iter().map(|listed| listed.snapshot.bytes()));
    stats.saved_by_deduplication = stats.logical.saturating_sub(stats.distinct);
    for kind in [
        ObjectKind::Config,
        ObjectKind::KeySlot,
        ObjectKind::Pack,
        ObjectKind::Parity,
        ObjectKind::Index,
        ObjectKind::Root,
        ObjectKind::Label,
    ] {
        let listed = context.repository.backend().list(kind)?;
        stats.stored += listed.iter().map(|object| object.bytes).sum::<u64>();
        if kind == ObjectKind::Pack {
            stats.packs = listed.len() as u64;
        }
    }
    stats.snapshots = catalogue
        .snapshots
        .into_iter()
        .zip(unique)
        .map(|(listed, unique_stored)| SnapshotSize { bytes: listed.snapshot.bytes(), listed, unique_stored })
        .collect();
    session.end()?;
    Ok(stats)
}

impl Stats {
    fn add(&mut self, location: &Location) {
        if location.kind != copal_store::location::RecordKind::Data {
            return;
        }
        let (plain, stored) = (u64::from(location.bytes), stored_share(location));
        self.chunks += 1;
        self.distinct = self.distinct.saturating_add(plain);
        if location.encoding == Encoding::Delta {
            self.deltas += 1;
            self.saved_by_deltas = self.saved_by_deltas.saturating_add(plain.saturating_sub(stored));
        } else {
            self.saved_by_compression = self.saved_by_compression.saturating_add(plain.saturating_sub(stored));
        }
    }
}

/// A chunk's part of its record, by length.
fn stored_share(location: &Location) -> u64 {
    let whole = u64::from(location.record_plain_bytes).max(1);
    u64::from(location.record_stored_bytes) * u64::from(location.bytes) / whole
}

fn visit(owners: &mut HashMap<ChunkId, Owner>, id: ChunkId, number: u32) -> Visit {
    match owners.get_mut(&id) {
        None => {
            owners.insert(id, Owner::One(number));
            Visit::First
        }
        Some(Owner::Several) => Visit::Known,
        Some(Owner::One(same)) if *same == number => Visit::Known,
        Some(owner) => {
            *owner = Owner::Several;
            Visit::NowShared
        }
    }
}
