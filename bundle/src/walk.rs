//! Turns snapshots into items: what has to travel so that a receiver, who may have an earlier snapshot, can
//! build them again.
//!
//! Relative to a base only differences are visited. A chunk that the base has somewhere is named by its place
//! there, so that nothing of the sender's ids leaves the repository. Cost: O(entries) without a base; with
//! one, O(changes) and, where contents are new, one walk over the base's manifest.

use std::collections::{HashMap, HashSet};

use copal_engine::context::Context;
use copal_engine::secret::unwrapped;
use copal_manifest::content::{FileContent, Piece, PlacedPiece};
use copal_manifest::entry::{Entry, EntryPath, Node};
use copal_manifest::snapshot::{Snapshot, SourceKind, SourceRecord};
use copal_manifest::tree::{Change, TreeReader, diff};
use copal_store::ChunkId;
use copal_store::session::Session;

use crate::error::{Error, Result};
use crate::native::format::{EntryDocument, Item, RUNS_PER_ITEM, Run};

/// The chunks that travel, in the order in which they are first met.
#[derive(Default)]
pub(crate) struct Travelling {
    ordinals: HashMap<ChunkId, u32>,
    order: Vec<(ChunkId, u32)>,
}

impl Travelling {
    /// The chunks with their lengths, by ordinal.
    pub(crate) fn order(&self) -> &[(ChunkId, u32)] {
        &self.order
    }

    pub(crate) fn ordinal_of(&self, id: &ChunkId) -> Option<u32> {
        self.ordinals.get(id).copied()
    }

    fn take(&mut self, id: ChunkId, bytes: u32) -> Result<u32> {
        let next = u32::try_from(self.order.len()).map_err(|_| Error::usage("too many chunks for one bundle"))?;
        let ordinal = *self.ordinals.entry(id).or_insert(next);
        if ordinal == next {
            self.order.push((id, bytes));
        }
        Ok(ordinal)
    }
}

/// Takes items one by one.
pub(crate) type Take<'t> = &'t mut dyn FnMut(Item, &Travelling) -> Result<()>;

/// Where the base has a chunk: source, path, offset.
type Places = HashMap<ChunkId, (u32, EntryPath, u64)>;

/// Walks one snapshot, relative to a base where there is one.
pub(crate) fn walk(
    context: &Context,
    session: &Session,
    snapshot: &Snapshot,
    base: Option<&Snapshot>,
    travelling: &mut Travelling,
    take: Take<'_>,
) -> Result<()> {
    let places = match base {
        None => Places::new(),
        Some(base) => {
            let wanted = new_chunks(context, session, snapshot, base)?;
            places_in(context, session, base, &wanted)?
        }
    };
    let mut walk = Walk { context, session, places, travelling, take };
    for (number, source) in snapshot.sources.iter().enumerate() {
        (walk.take)(Item::Source(number as u32), walk.travelling)?;
        match base.and_then(|base| same_label(base, source)) {
            None => walk.whole(source)?,
            Some((place, base)) => walk.differences(source, base, place)?,
        }
    }
    (walk.take)(Item::EndSnapshot, walk.travelling)
}

/// The base's source of the same label and kind, and its place.
pub(crate) fn same_label<'b>(base: &'b Snapshot, source: &SourceRecord) -> Option<(u32, &'b SourceRecord)> {
    let found = base.sources.iter().enumerate().find(|(_, other)| other.label == source.label);
    found.filter(|(_, other)| other.kind == source.kind).map(|(place, other)| (place as u32, other))
}

struct Walk<'w, 't> {
    context: &'w Context,
    session: &'w Session,
    places: Places,
    travelling: &'w mut Travelling,
    take: Take<'t>,
}

impl Walk<'_, '_> {
    fn whole(&mut self, source: &SourceRecord) -> Result<()> {
        for entry in TreeReader::new(self.session, source.tree).entries() {
            self.context.check_interrupt()?;
            self.put(&entry?, None, source.kind, 0)?;
        }
        Ok(())
    }

    fn differences(&mut self, source: &SourceRecord, base: &SourceRecord, place: u32) -> Result<()> {
        for change in diff(self.session, base.tree, self.session, source.tree) {
            self.context.check_interrupt()?;
            match change? {
                Change::Added(entry) => self.put(&entry, None, source.kind, place)?,
                Change::Removed(entry) => {
                    (self.take)(Item::Remove(entry.path.key().to_vec()), self.travelling)?;
                }
                Change::Changed { before, after } => match &before.node {
                    Node::File(content) => self.put(&after, Some(content), source.kind, place)?,
                    _ => self.put(&after, None, source.kind, place)?,
                },
            }
        }
        Ok(())
    }

    fn put(&mut self, entry: &Entry, before: Option<&FileContent>, kind: SourceKind, place: u32) -> Result<()> {
        (self.take)(Item::Put(EntryDocument::new(entry)), self.travelling)?;
        let Node::File(content) = &entry.node else { return Ok(()) };
        let mut runs = Runs { list: Vec::new(), take: &mut *self.take, position: 0, place };
        if kind == SourceKind::Secret
            && let Some(secret) = unwrapped(self.session, content)?
        {
            return (runs.take)(Item::Runs(vec![Run::Secret(secret)]), self.travelling);
        }
        let pieces: Box<dyn Iterator<Item = copal_store::Result<PlacedPiece>>> = match before {
            Some(before) => content.changed_pieces(before, self.session),
            None => content.pieces(self.session, 0, content.bytes),
        };
        for placed in pieces {
            let PlacedPiece { offset, piece } = placed?;
            runs.kept_to(offset, self.travelling)?;
            let run = match piece {
                Piece::Hole { bytes } => Run::Hole { bytes },
                Piece::Chunk { id, bytes } => match self.places.get(&id) {
                    Some((source, path, offset)) => {
                        let path = (*path != entry.path || *source != place).then(|| path.key().to_vec());
                        Run::Base { source: *source, path, offset: *offset, bytes: bytes.into() }
                    }
                    None => Run::Chunk { ordinal: self.travelling.take(id, bytes)?, bytes },
                },
            };
            runs.push(run, self.travelling)?;
        }
        runs.kept_to(content.bytes, self.travelling)?;
        runs.end(self.travelling)
    }
}

/// The runs of one file, handed on in parts.
struct Runs<'r, 't> {
    list: Vec<Run>,
    take: &'r mut (dyn FnMut(Item, &Travelling) -> Result<()> + 't),
    position: u64,
    place: u32,
}

impl Runs<'_, '_> {
    /// What the base has at the same offsets, up to `offset`.
    fn kept_to(&mut self, offset: u64, travelling: &Travelling) -> Result<()> {
        if offset <= self.position {
            return Ok(());
        }
        let bytes = offset - self.position;
        self.push(Run::Base { source: self.place, path: None, offset: self.position, bytes }, travelling)
    }

    fn push(&mut self, run: Run, travelling: &Travelling) -> Result<()> {
        self.position += run.bytes();
        match (self.list.last_mut(), &run) {
            // Neighbours there that are neighbours here are one run.
            (
                Some(Run::Base { source, path, offset, bytes }),
                Run::Base { source: next_source, path: next_path, offset: next_offset, bytes: more },
            ) if (&*source, &*path, *offset + *bytes) == (next_source, next_path, *next_offset) => {
                *bytes += more;
                return Ok(());
            }
            _ => self.list.push(run),
        }
        if self.list.len() < RUNS_PER_ITEM {
            return Ok(());
        }
        (self.take)(Item::Runs(std::mem::take(&mut self.list)), travelling)
    }

    fn end(self, travelling: &Travelling) -> Result<()> {
        if self.list.is_empty() { Ok(()) } else { (self.take)(Item::Runs(self.list), travelling) }
    }
}

/// Chunks of the snapshot's changed entries, which the base may have elsewhere.
fn new_chunks(context: &Context, session: &Session, snapshot: &Snapshot, base: &Snapshot) -> Result<HashSet<ChunkId>> {
    let mut wanted = HashSet::new();
    let mut want = |content: &FileContent, before: Option<&FileContent>| -> Result<()> {
        let pieces = match before {
            Some(before) => content.changed_pieces(before, session),
            None => content.pieces(session, 0, content.bytes),
        };
        for placed in pieces {
            if let Piece::Chunk { id, .. } = placed?.piece {
                wanted.insert(id);
            }
        }
        Ok(())
    };
    for source in &snapshot.sources {
        let Some((_, before)) = same_label(base, source) else {
            for entry in TreeReader::new(session, source.tree).entries() {
                context.check_interrupt()?;
                if let Node::File(content) = entry?.node {
                    want(&content, None)?;
                }
            }
            continue;
        };
        for change in diff(session, before.tree, session, source.tree) {
            context.check_interrupt()?;
            match change? {
                Change::Added(Entry { node: Node::File(content), .. }) => want(&content, None)?,
                Change::Changed { before, after: Entry { node: Node::File(content), .. } } => match before.node {
                    Node::File(before) => want(&content, Some(&before))?,
                    _ => want(&content, None)?,
                },
                _ => {}
            }
        }
    }
    Ok(wanted)
}

/// Where the base has them.
fn places_in(context: &Context, session: &Session, base: &Snapshot, wanted: &HashSet<ChunkId>) -> Result<Places> {
    let mut places = Places::new();
    if wanted.is_empty() {
        return Ok(places);
    }
    for (number, source) in base.sources.iter().enumerate() {
        for entry in TreeReader::new(session, source.tree).entries() {
            context.check_interrupt()?;
            let entry = entry?;
            // A wrapped secret has other bytes where it arrives.
            let Node::File(content) = entry.node else { continue };
            if source.kind == SourceKind::Secret {
                continue;
            }
            for placed in content.pieces(session, 0, content.bytes) {
                let PlacedPiece { offset, piece } = placed?;
                if let Piece::Chunk { id, .. } = piece
                    && wanted.contains(&id)
                {
                    places.entry(id).or_insert_with(|| (number as u32, entry.path.clone(), offset));
                }
            }
            if places.len() == wanted.len() {
                return Ok(places);
            }
        }
    }
    Ok(places)
}
