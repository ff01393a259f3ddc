//! Where the bytes of a file stand on its filesystem, to tell without reading what two files that share
//! extents have in common.
//!
//! Equal places mean equal bytes only where a shared extent is never written in place and a place has one
//! meaning: XFS and btrfs. Others are never compared, whatever they answer: an SMB share says that every byte
//! stands at its own offset. Of these two, what is compressed, inline, not yet written or of unknown place
//! counts as different: it has to be read.

use fiemap::{Fiemap, FiemapExtentFlags, FiemapFlags};

use crate::Result;
use crate::read::{DataRange, OpenFile};

/// `f_type` of filesystems whose answers can be trusted.
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683e;
/// Files in more parts than this are read: to list them takes longer.
const EXTENTS_MAX: usize = 1 << 20;

/// A part of a file that lies in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    offset: u64,
    bytes: u64,
    /// Where its first byte stands; none: nothing is known, so it is like nothing else.
    place: Option<u64>,
}

impl Extent {
    fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// What of `now` is not known to be as `then` has it at the same offsets, ascending. None: nothing can be
/// told. Both must be files that nobody writes to; `then` must be such since it was made.
pub fn changed_ranges(now: &OpenFile, then: &OpenFile) -> Result<Option<Vec<DataRange>>> {
    let Some(before) = extents(then)? else { return Ok(None) };
    let Some(found) = extents(now)? else { return Ok(None) };
    // A filesystem that moves extents about (balance, defragmentation) might have given the place of one to
    // the other meanwhile.
    if extents(then)?.as_ref() != Some(&before) {
        return Ok(None);
    }
    Ok(Some(compare(&found, now.own_stat()?.bytes, &before, then.own_stat()?.bytes)))
}

/// The extents of a file, ascending; what lies between them is a hole.
fn extents(file: &OpenFile) -> Result<Option<Vec<Extent>>> {
    let Some(opened) = file.opened() else { return Ok(None) };
    let found = rustix::fs::fstatfs(&opened.fd).map_err(opened.failed("looking at the filesystem of"))?;
    // The type of the field differs between targets.
    let kind = u64::from(found.f_type as u32);
    if kind != XFS && kind != BTRFS {
        return Ok(None);
    }
    let doubtful = FiemapExtentFlags::UNKNOWN
        | FiemapExtentFlags::DELALLOC
        | FiemapExtentFlags::ENCODED
        | FiemapExtentFlags::DATA_ENCRYPTED
        | FiemapExtentFlags::NOT_ALIGNED
        | FiemapExtentFlags::DATA_INLINE
        | FiemapExtentFlags::DATA_TAIL
        | FiemapExtentFlags::UNWRITTEN
        | FiemapExtentFlags::MERGED;
    let understood = doubtful | FiemapExtentFlags::LAST | FiemapExtentFlags::SHARED;
    let mut extents: Vec<Extent> = Vec::new();
    for extent in Fiemap::with_flags(&opened.fd, FiemapFlags::SYNC) {
        // A filesystem that cannot tell says so: then nothing is known.
        let Ok(extent) = extent else { return Ok(None) };
        let (offset, bytes) = (extent.fe_logical, extent.fe_length);
        let flags = extent.fe_flags;
        let in_order = extents.last().is_none_or(|last| last.end() <= offset);
        let ends = offset.checked_add(bytes).is_some() && extent.fe_physical.checked_add(bytes).is_some();
        if !in_order || !ends || bytes == 0 || extents.len() == EXTENTS_MAX {
            return Ok(None);
        }
        let known = !flags.intersects(doubtful) && understood.contains(flags) && extent.fe_physical != 0;
        extents.push(Extent { offset, bytes, place: known.then_some(extent.fe_physical) });
    }
    Ok(Some(extents))
}

/// A stretch from an offset on in which nothing about a file changes: hole, or extent.
struct Walk<'e> {
    extents: std::slice::Iter<'e, Extent>,
    front: Option<Extent>,
}

/// What stands at an offset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    Hole,
    At(u64),
    Unknown,
}

impl<'e> Walk<'e> {
    fn new(extents: &'e [Extent]) -> Self {
        let mut extents = extents.iter();
        Self { front: extents.next().copied(), extents }
    }

    /// What stands at an offset, and up to where; offsets are asked for in order.
    fn at(&mut self, offset: u64) -> (Stands, u64) {
        while let Some(front) = self.front {
            if front.end() > offset {
                if front.offset > offset {
                    return (Stands::Hole, front.offset);
                }
                let place = front.place.map_or(Stands::Unknown, |place| Stands::At(place + (offset - front.offset)));
                return (place, front.end());
            }
            self.front = self.extents.next().copied();
        }
        (Stands::Hole, u64::MAX)
    }
}

fn compare(now: &[Extent], bytes: u64, then: &[Extent], bytes_then: u64) -> Vec<DataRange> {
    let common = bytes.min(bytes_then);
    let (mut now, mut then) = (Walk::new(now), Walk::new(then));
    let mut changed: Vec<DataRange> = Vec::new();
    let mut add = |from: u64, to: u64| match changed.last_mut() {
        Some(last) if last.offset + last.bytes == from => last.bytes += to - from,
        _ if from < to => changed.push(DataRange { offset: from, bytes: to - from }),
        _ => {}
    };
    let mut at = 0;
    while at < common {
        let ((stands, until), (stood, stood_until)) = (now.at(at), then.at(at));
        let end = until.min(stood_until).min(common);
        if stands != stood || stands == Stands::Unknown {
            add(at, end);
        }
        at = end;
    }
    add(common, bytes);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, bytes: u64, place: u64) -> Extent {
        Extent { offset, bytes, place: (place != 0).then_some(place) }
    }

    #[track_caller]
    fn check(now: &[Extent], bytes: u64, then: &[Extent], bytes_then: u64, expected: &[(u64, u64)]) {
        let found = compare(now, bytes, then, bytes_then);
        let found: Vec<(u64, u64)> = found.iter().map(|range| (range.offset, range.offset + range.bytes)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn equal_places_are_equal_bytes_however_they_are_divided() {
        let whole = [extent(0, 100, 1000)];
        check(&whole, 100, &whole, 100, &[]);
        check(&[extent(0, 40, 1000), extent(40, 60, 1040)], 100, &whole, 100, &[]);
        check(&[extent(0, 40, 1000), extent(40, 60, 1041)], 100, &whole, 100, &[(40, 100)]);
        check(&[extent(0, 40, 1000), extent(40, 10, 7000), extent(50, 50, 1050)], 100, &whole, 100, &[(40, 50)]);
    }

    #[test]
    fn holes_are_like_holes_and_unlike_all_else() {
        let (a, b) = ([extent(10, 10, 500)], [extent(10, 20, 500)]);
        check(&a, 50, &a, 50, &[]);
        check(&a, 50, &b, 50, &[(20, 30)]);
        check(&b, 50, &a, 50, &[(20, 30)]);
        check(&[], 50, &[], 50, &[]);
    }

    #[test]
    fn what_is_not_known_is_read() {
        let unknown = [extent(0, 100, 0)];
        check(&unknown, 100, &unknown, 100, &[(0, 100)]);
        check(&[extent(0, 100, 9)], 100, &unknown, 100, &[(0, 100)]);
    }

    #[test]
    fn what_was_appended_is_changed_and_what_was_cut_off_is_nothing() {
        let whole = [extent(0, 4096, 9)];
        check(&whole, 4000, &whole, 3000, &[(3000, 4000)]);
        check(&whole, 3000, &whole, 4000, &[]);
        check(&[], 9, &[], 0, &[(0, 9)]);
    }
}
