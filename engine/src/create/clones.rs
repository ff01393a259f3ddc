//! Clones of large files that an earlier capture has kept, and what of a file need not be read because its
//! clone has it.
//!
//! A clone belongs to a content, not to a snapshot: it is used for a file whose parent has the very list of
//! pieces that was made from the clone. Whichever snapshot is the parent, whatever was deleted, copied or
//! restored since: other pieces are another content. Nothing here is trusted further than that: any doubt,
//! and the file is read.

use std::collections::HashMap;

use copal_chunker::{Cutter, HARD_CONTEXT_BYTES};
use copal_manifest::content::{Cutting, FileContent, Piece, Pieces, PlacedPiece};
use copal_source::extents::changed_ranges;
use copal_source::read::{DataRange, OpenFile, TreeReader};
use copal_source::scan::{FileStat, FileTime};
use copal_store::session::Session;

/// Shorter files are read: that takes no time worth a clone.
pub const CLONE_BYTES_MIN: u64 = 4 << 20;
/// Of content cuts, changes closer than this are read as one: the next hard cut is not likely to be nearer.
const CONTENT_GAP_BYTES: u64 = 1 << 20;
/// How far before a change a hard cut is sought; some thirty times their mean distance.
const LOOK_BACK_BYTES: u64 = 16 << 20;

/// What a list of pieces is, in short. Ids are keyed hashes of plaintext: equal identities are equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContentIdentity([u8; 32]);

impl ContentIdentity {
    pub(crate) fn of(content: &FileContent) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("copal v1 identity of a content that a clone holds");
        hasher.update(&content.bytes.to_le_bytes());
        let cutting: u64 = match content.cutting {
            Cutting::Small => 0,
            Cutting::Content => 1,
            Cutting::Fixed(bytes) => 1 << 32 | u64::from(bytes),
        };
        hasher.update(&cutting.to_le_bytes());
        match &content.pieces {
            Pieces::Tree(tree) => {
                hasher.update(&[1, tree.height]).update(tree.id.as_bytes());
            }
            Pieces::Inline(pieces) => {
                hasher.update(&[0]);
                for piece in pieces {
                    match piece {
                        Piece::Hole { bytes } => hasher.update(&[0]).update(&bytes.to_le_bytes()),
                        Piece::Chunk { id, bytes } => {
                            hasher.update(&[1]).update(&bytes.to_le_bytes()).update(id.as_bytes())
                        }
                    };
                }
            }
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// How a file looks that nobody has touched since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Untouched {
    inode: u64,
    bytes: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Untouched {
    /// As a file shows it.
    pub fn of(stat: &FileStat) -> Self {
        let time = |time: FileTime| (time.seconds, time.nanoseconds);
        let (modified, changed) = (time(stat.modified), time(stat.changed));
        Self { inode: stat.inode, bytes: stat.bytes, modified, changed }
    }
}

/// A clone that was kept.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct KeptClone {
    /// Path of the file in its source, with slashes.
    pub path: Vec<u8>,
    /// Name of the clone in the folder of clones.
    pub name: String,
    /// What the file showed when it was cloned.
    pub untouched: Untouched,
    /// What the clone holds.
    pub content: ContentIdentity,
}

/// The clones of one source.
#[derive(Debug)]
pub struct KeptClones {
    folder: TreeReader,
    by_path: HashMap<Vec<u8>, KeptClone>,
}

impl KeptClones {
    /// Clones that lie in an open folder.
    pub fn new(folder: TreeReader, clones: Vec<KeptClone>) -> Self {
        Self { folder, by_path: clones.into_iter().map(|clone| (clone.path.clone(), clone)).collect() }
    }

    /// What of a file is not known to be as its parent has it. None: nothing is known.
    pub(super) fn changed(&self, path: &[u8], parent: &FileContent, file: &OpenFile) -> Option<Vec<DataRange>> {
        let kept = self.by_path.get(path).filter(|kept| kept.content == ContentIdentity::of(parent))?;
        let clone = self.folder.open_file(kept.name.as_bytes()).ok()?;
        let is_untouched = || clone.own_stat().is_ok_and(|stat| Untouched::of(&stat) == kept.untouched);
        if !is_untouched() || kept.untouched.bytes != parent.bytes {
            return None;
        }
        let changed = changed_ranges(file, &clone).ok()??;
        is_untouched().then_some(changed)
    }
}

/// A file beside its parent: what is needed to decide what is read.
pub(super) struct Beside<'a> {
    pub(super) session: &'a Session,
    pub(super) cutter: &'a Cutter,
    pub(super) file: &'a OpenFile,
    pub(super) ranges: &'a [DataRange],
    pub(super) cutting: Cutting,
    pub(super) parent: &'a FileContent,
    pub(super) changed: &'a [DataRange],
    pub(super) count_read: &'a dyn Fn(usize),
}

impl Beside<'_> {
    /// The ranges to read, ascending; everything else is as the parent has it, piece by piece. None: all is
    /// to be read.
    pub(super) fn windows(&self) -> Option<Vec<DataRange>> {
        match self.cutting {
            _ if self.cutting != self.parent.cutting => None,
            Cutting::Small => None,
            Cutting::Fixed(bytes) => self.fixed_windows(bytes.into()),
            Cutting::Content => self.content_windows(),
        }
    }

    fn pieces(&self) -> impl Iterator<Item = copal_store::Result<PlacedPiece>> {
        self.parent.pieces(self.session, 0, self.parent.bytes)
    }

    /// A chunk of the parent is taken where it is the very one that cutting would give, and none of its bytes
    /// has changed.
    fn fixed_windows(&self, unit: u64) -> Option<Vec<DataRange>> {
        let mut pieces = self.pieces().peekable();
        let mut changed = Changes::new(self.changed);
        let mut windows = Vec::new();
        for range in self.ranges {
            let (mut from, end) = (range.offset, range.offset + range.bytes);
            while from < end {
                let to = ((from / unit + 1) * unit).min(end);
                while let Some(Ok(piece)) = pieces.peek()
                    && piece.offset + piece.piece.bytes() <= from
                {
                    pieces.next();
                }
                let same = match pieces.peek() {
                    Some(Ok(PlacedPiece { offset, piece: Piece::Chunk { bytes, .. } })) => {
                        (*offset, *offset + u64::from(*bytes)) == (from, to)
                    }
                    Some(Err(_)) => return None,
                    _ => false,
                };
                if !same || changed.touch(from, to) {
                    add_joined(&mut windows, from, to, 0);
                }
                from = to;
            }
        }
        Some(windows)
    }

    /// Cutting begins anew at a hard cut whatever stands before it, and every hard cut is one of the parent's
    /// where the bytes that make it have not changed. So what is read goes from the last hard cut before a
    /// change to the first one behind it.
    fn content_windows(&self) -> Option<Vec<DataRange>> {
        if !self.cutter.has_hard_cuts() {
            return None;
        }
        let parent_ranges = self.parent_ranges()?;
        let mut windows: Vec<DataRange> = Vec::new();
        for range in self.ranges {
            let end = range.offset + range.bytes;
            for change in self.changes_of_cuts(*range, &parent_ranges) {
                let to = (change.offset + change.bytes).saturating_add(HARD_CONTEXT_BYTES as u64).min(end);
                match windows.last_mut() {
                    Some(last) if change.offset < last.offset + last.bytes => {
                        last.bytes = last.bytes.max(to - last.offset);
                    }
                    _ => add_window(&mut windows, self.hard_cut_before(change.offset, range.offset)?, to),
                }
            }
        }
        Some(windows)
    }

    /// The data ranges of the parent: what stands between its holes.
    fn parent_ranges(&self) -> Option<Vec<DataRange>> {
        let mut ranges = Vec::new();
        for placed in self.pieces() {
            let PlacedPiece { offset, piece } = placed.ok()?;
            if let Piece::Chunk { .. } = piece {
                add_joined(&mut ranges, offset, offset + piece.bytes(), 0);
            }
        }
        Some(ranges)
    }

    /// What makes cuts of a data range other than the parent's: other bytes, holes that were there, another
    /// beginning or end.
    fn changes_of_cuts(&self, range: DataRange, parent_ranges: &[DataRange]) -> Vec<DataRange> {
        let (begin, end) = (range.offset, range.offset + range.bytes);
        let end_of = |range: &DataRange| range.offset + range.bytes;
        let mut changes: Vec<(u64, u64)> = Vec::new();
        let first = self.changed.partition_point(|changed| end_of(changed) <= begin);
        let within = self.changed[first..].iter().take_while(|changed| changed.offset < end);
        changes.extend(within.map(|changed| (changed.offset.max(begin), end_of(changed).min(end))));
        let first = parent_ranges.partition_point(|parent| end_of(parent) <= begin);
        let mut covered = begin;
        for parent in parent_ranges[first..].iter().take_while(|parent| parent.offset < end) {
            if parent.offset > covered {
                changes.push((covered, parent.offset));
            }
            if parent.offset < begin {
                changes.push((begin, begin + 1));
            }
            covered = end_of(parent);
        }
        if covered != end {
            // It ends elsewhere now: the last cut of a range is its end.
            changes.push((covered.min(end) - u64::from(covered.min(end) > begin), end));
        }
        changes.sort_unstable();
        let mut joined = Vec::new();
        changes.into_iter().for_each(|(from, to)| add_joined(&mut joined, from, to, CONTENT_GAP_BYTES));
        joined
    }

    /// The last one at or before a place, as far as is worth looking; else where the data range begins.
    fn hard_cut_before(&self, place: u64, begin: u64) -> Option<u64> {
        let from = place.saturating_sub(LOOK_BACK_BYTES).max(begin);
        let pieces = self.parent.pieces(self.session, from, place + 1);
        let begins = pieces.map(|placed| placed.map(|placed| placed.offset)).collect::<copal_store::Result<Vec<_>>>();
        let begins = begins.ok()?;
        let sought = begins.iter().rev().filter(|at| (begin..=place).contains(at));
        Some(sought.copied().find(|at| self.is_hard_cut(*at, begin)).unwrap_or(begin))
    }

    /// By the bytes before it.
    fn is_hard_cut(&self, at: u64, begin: u64) -> bool {
        let before = (at - begin).min(HARD_CONTEXT_BYTES as u64) as usize;
        let mut bytes = vec![0; before];
        at == begin
            || self.file.read_at(at - before as u64, &mut bytes).is_ok_and(|read| {
                (self.count_read)(read);
                read == before && self.cutter.first_hard_cut(&bytes, before) == Some(before)
            })
    }
}

/// Appends a window; what it reaches back into becomes a part of it.
fn add_window(windows: &mut Vec<DataRange>, mut from: u64, to: u64) {
    while let Some(last) = windows.last()
        && from < last.offset + last.bytes
    {
        from = from.min(last.offset);
        windows.pop();
    }
    windows.push(DataRange { offset: from, bytes: to - from });
}

/// Appends a range, or makes the last one longer when it is not farther away than that.
fn add_joined(ranges: &mut Vec<DataRange>, from: u64, to: u64, gap: u64) {
    match ranges.last_mut() {
        Some(last) if from <= last.offset + last.bytes + gap => last.bytes = last.bytes.max(to - last.offset),
        _ => ranges.push(DataRange { offset: from, bytes: to - from }),
    }
}

/// Changed ranges that are asked for in order.
struct Changes<'a> {
    ranges: std::iter::Peekable<std::slice::Iter<'a, DataRange>>,
}

impl<'a> Changes<'a> {
    fn new(ranges: &'a [DataRange]) -> Self {
        Self { ranges: ranges.iter().peekable() }
    }

    /// Whether one of them touches a range that does not begin before the last one asked for.
    fn touch(&mut self, from: u64, to: u64) -> bool {
        while self.ranges.next_if(|range| range.offset + range.bytes <= from).is_some() {}
        self.ranges.peek().is_some_and(|range| range.offset < to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(of: &[(u64, u64)]) -> Vec<DataRange> {
        of.iter().map(|(from, to)| DataRange { offset: *from, bytes: to - from }).collect()
    }

    #[test]
    fn windows_that_reach_back_take_those_before_in() {
        let mut windows = Vec::new();
        for (from, to, expected) in [
            (10, 20, &[(10, 20)][..]),
            (30, 40, &[(10, 20), (30, 40)]),
            (40, 50, &[(10, 20), (30, 40), (40, 50)]),
            (35, 60, &[(10, 20), (30, 60)]),
            (0, 70, &[(0, 70)]),
        ] {
            add_window(&mut windows, from, to);
            assert_eq!(windows, ranges(expected));
        }
    }

    #[test]
    fn changes_are_met_once_and_in_order() {
        let changed = ranges(&[(10, 20), (25, 26)]);
        let mut changes = Changes::new(&changed);
        for (from, to, expected) in
            [(0, 10, false), (5, 11, true), (19, 22, true), (20, 25, false), (20, 26, true), (26, 99, false)]
        {
            assert_eq!(changes.touch(from, to), expected, "{from}..{to}");
        }
    }

    #[test]
    fn near_ranges_are_joined() {
        let mut joined = Vec::new();
        for (from, to) in [(0, 5), (7, 9), (12, 13), (13, 20)] {
            add_joined(&mut joined, from, to, 2);
        }
        assert_eq!(joined, ranges(&[(0, 9), (12, 20)]));
    }
}
