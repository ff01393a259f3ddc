//! What vouches for the content of a standing file without reading it.
//!
//! A witness is a manifest whose entry at the same place was, at some time, what stood there, together with
//! the inode and change time of that moment. Both unchanged means: the file, its attributes and its content
//! are that entry. Two kinds: a snapshot that was taken from this very place, and the memory of an earlier
//! deploy to it.

use copal_manifest::entry::{Entry, EntryPath, Timestamp};
use copal_manifest::snapshot::{Snapshot, SourceKind, SourceRecord};
use copal_manifest::tree::{EntryIter, TreeReader};
use copal_source::scan::{FileKind, FileStat};
use copal_store::session::{ChunkSource, Session};

use super::desired::{Desired, Item, Items, rebase};
use super::memory::{Memory, MemoryReader};
use super::times::stands_for;
use crate::create::{is_unchanged_since, timestamp};
use crate::error::Result;

/// Newest snapshots of the same place that are asked.
const SOURCE_WITNESSES_MAX: usize = 2;

/// Asked in path order.
pub(super) enum Witness<'d, 's> {
    /// Snapshots of the place of one part.
    Source(Box<SourceWitness<'s>>),
    /// An earlier deploy.
    Memory(Box<MemoryWitness<'d, 's>>),
}

impl Witness<'_, '_> {
    /// The entry that stands there unchanged, its path not rewritten.
    pub(super) fn vouch(&mut self, path: &EntryPath, stat: &FileStat) -> Result<Option<Entry>> {
        match self {
            Self::Source(witness) => witness.vouch(path, stat),
            Self::Memory(witness) => witness.vouch(path, stat),
        }
    }
}

/// A snapshot that was taken from the place of a part.
pub(crate) struct SourceWitness<'s> {
    source: &'s SourceRecord,
    /// Where the part's root is in that source.
    base: EntryPath,
    at: EntryPath,
    entries: EntryIter<'s>,
    next: Option<Entry>,
    begun: bool,
}

/// The newest snapshots whose source is the place of a part, newest first; `at` is where the part goes below
/// the target.
pub(crate) fn source_witnesses<'s>(
    session: &'s Session,
    snapshots: impl DoubleEndedIterator<Item = &'s Snapshot>,
    at: &EntryPath,
    place: &[u8],
) -> Vec<SourceWitness<'s>> {
    let mut found = Vec::new();
    for source in snapshots.rev().flat_map(|snapshot| &snapshot.sources) {
        let Some(base) = place_within(source, place) else { continue };
        let chunks: &dyn ChunkSource = session;
        let entries = TreeReader::new(chunks, source.tree).entries_from(&base);
        found.push(SourceWitness { source, base, at: at.clone(), entries, next: None, begun: false });
        if found.len() == SOURCE_WITNESSES_MAX {
            break;
        }
    }
    found
}

fn place_within(source: &SourceRecord, place: &[u8]) -> Option<EntryPath> {
    // Of other kinds the entries are no files that stood there.
    if !matches!(source.kind, SourceKind::Tree | SourceKind::File) {
        return None;
    }
    let end = source.path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let below = place.strip_prefix(&source.path[..end])?;
    match below.split_first() {
        None => Some(EntryPath::root()),
        Some((b'/', below)) if source.kind == SourceKind::Tree => EntryPath::from_slashes(below),
        Some(_) => None,
    }
}

impl SourceWitness<'_> {
    /// See [`Witness::vouch`].
    pub(crate) fn vouch(&mut self, path: &EntryPath, stat: &FileStat) -> Result<Option<Entry>> {
        let Some(path) = rebase(path, &self.at, &self.base) else { return Ok(None) };
        if !self.begun || self.next.as_ref().is_some_and(|entry| entry.path < path) {
            self.begun = true;
            self.next = None;
            for entry in self.entries.by_ref() {
                let entry = entry?;
                if entry.path >= path {
                    self.next = Some(entry);
                    break;
                }
            }
        }
        let Some(entry) = self.next.as_ref().filter(|entry| entry.path == path) else { return Ok(None) };
        Ok(is_unchanged_since(self.source, entry, stat).then(|| entry.clone()))
    }
}

/// The memory of a deploy to this target.
pub(super) struct MemoryWitness<'d, 's> {
    items: Items<'d, 's>,
    inodes: MemoryReader<'d>,
    device: u64,
    next: Option<(Item, Option<(u64, Timestamp)>)>,
    begun: bool,
}

impl<'d, 's> MemoryWitness<'d, 's> {
    /// `desired` is what the remembered deploy made.
    pub(super) fn new(desired: &'d Desired<'s>, memory: &'d Memory) -> Self {
        Self { items: desired.items(), inodes: memory.reader(), device: memory.device, next: None, begun: false }
    }

    fn vouch(&mut self, path: &EntryPath, stat: &FileStat) -> Result<Option<Entry>> {
        if !self.begun || self.next.as_ref().is_some_and(|(item, _)| item.entry.path < *path) {
            self.begun = true;
            self.next = None;
            for item in self.items.by_ref() {
                let (item, seen) = (item?, self.inodes.next());
                if item.entry.path >= *path {
                    self.next = Some((item, seen.flatten()));
                    break;
                }
            }
        }
        let Some((item, Some((inode, changed)))) = &self.next else { return Ok(None) };
        let untouched = item.entry.path == *path
            && !item.synthetic
            && (*inode, *changed) == (stat.inode, timestamp(stat.changed))
            && self.device == stat.device
            && is_still(&item.entry, stat);
        Ok(untouched.then(|| item.entry.clone()))
    }
}

/// Length and time as well, though inode and change time would do on a sound filesystem.
fn is_still(entry: &Entry, stat: &FileStat) -> bool {
    use copal_manifest::entry::Node;
    stands_for(entry.metadata.modified, stat)
        && match &entry.node {
            Node::File(content) => stat.kind == FileKind::File && content.bytes == stat.bytes,
            // Its content stands in another entry, which is asked for itself.
            Node::HardLink(_) => false,
            Node::Directory => stat.kind == FileKind::Directory,
            Node::Symlink(target) => stat.kind == FileKind::Symlink && target.len() as u64 == stat.bytes,
            Node::Fifo => stat.kind == FileKind::Fifo,
            Node::Socket => stat.kind == FileKind::Socket,
            Node::CharDevice { .. } => stat.kind == FileKind::CharDevice,
            Node::BlockDevice { .. } => stat.kind == FileKind::BlockDevice,
        }
}
