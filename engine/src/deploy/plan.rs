//! What has to be done to a target: the result of the comparison, as plain values.
//!
//! Memory: a record of some 150 bytes for each path that differs, the entries of the first
//! [`ENTRIES_HELD_MAX`] of them, and a record of some 250 bytes for each folder. Entries past that are read
//! again from the snapshot.

use copal_manifest::entry::{Entry, EntryPath, Metadata};

use super::stays::{Conflict, Stay};

/// Entries that the plan holds; about 400 bytes each.
pub(super) const ENTRIES_HELD_MAX: usize = 100_000;

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl Range {
    /// A whole file of so many bytes.
    pub(super) fn whole(bytes: u64) -> Self {
        Self { offset: 0, bytes }
    }

    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// What happens to one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing of the snapshot is there: it goes, with all below it.
    Remove,
    /// It is made; `over`: something of another kind or another content stands there and goes.
    Create { over: Over },
    /// A regular file of which only some ranges differ.
    Patch { ranges: Vec<Range>, holes: Vec<Range> },
    /// Only owner, mode, times or attributes differ.
    Metadata,
}

/// What stands where something is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing.
    Nothing,
    /// A folder, which is removed first.
    Folder,
    /// Anything else, which a rename replaces.
    Other,
}

/// A path that differs.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) path: EntryPath,
    pub(super) action: Action,
    /// Bytes of chunks to fetch.
    pub(super) bytes: u64,
    /// The wanted entry; `None` for a removal, or past the limit.
    pub(super) entry: Option<Box<Entry>>,
}

/// A folder of the snapshot.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) path: EntryPath,
    pub(super) metadata: Metadata,
    /// Its metadata has to be set: it is new, its metadata differ, or names in it change.
    pub(super) touched: bool,
    /// It is new, or its metadata differ.
    pub(super) differs: bool,
    /// No snapshot says what its metadata are.
    pub(super) synthetic: bool,
}

/// All that a deploy of a snapshot to a target has to do.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// In path order.
    pub(super) changes: Vec<Change>,
    /// In path order, folders above those below.
    pub(super) folders: Vec<Folder>,
    pub(super) entries_total: u64,
    pub(super) files_total: u64,
    pub(super) bytes_total: u64,
    /// Content to write.
    pub(super) bytes_to_write: u64,
    /// Content that stands there.
    pub(super) bytes_kept: u64,
    /// Entries whose standing content nothing vouched for.
    pub(super) entries_read: u64,
    /// What stays where it is.
    pub(super) stays: Vec<Stay>,
    /// Where that is in the way.
    pub(super) conflicts: Vec<Conflict>,
    /// Files of the target beside which something stands that is called as their log: they may be missing.
    pub(super) beside_logs: Vec<EntryPath>,
    /// What goes with the folder that it is in: named only for who asks what would be done.
    pub(super) removed_below: Vec<EntryPath>,
}

impl Plan {
    /// Non-folder entries that are made, rewritten, patched, given other metadata, or removed.
    pub(super) fn files_changed(&self) -> u64 {
        self.changes.iter().filter(|change| !change.is_folder()).count() as u64
    }

    /// Whether nothing has to be done.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.folders.iter().all(|folder| !folder.touched)
    }

    pub(super) fn push(&mut self, mut change: Change) {
        if self.changes.len() >= ENTRIES_HELD_MAX {
            change.entry = None;
        }
        self.bytes_to_write = self.bytes_to_write.saturating_add(change.bytes);
        self.changes.push(change);
    }

    /// The change of a path, in a walk in path order; `cursor` remembers the place.
    pub(super) fn change_at(&self, cursor: &mut usize, path: &EntryPath) -> Option<&Change> {
        while self.changes.get(*cursor).is_some_and(|change| change.path < *path) {
            *cursor += 1;
        }
        self.changes.get(*cursor).filter(|change| change.path == *path)
    }
}

impl Change {
    fn is_folder(&self) -> bool {
        use copal_manifest::entry::Node;
        self.entry.as_ref().is_some_and(|entry| entry.node == Node::Directory)
    }
}

/// Joins ranges that touch.
pub(super) fn push_range(ranges: &mut Vec<Range>, offset: u64, bytes: u64) {
    match ranges.last_mut() {
        Some(last) if last.offset + last.bytes == offset => last.bytes += bytes,
        _ => ranges.push(Range { offset, bytes }),
    }
}
