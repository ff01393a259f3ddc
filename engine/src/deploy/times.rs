//! Times that a filesystem cannot hold. The kernel takes the nearest that it can, so what stands is right
//! although it differs. Pure.

use copal_manifest::entry::Timestamp;
use copal_source::scan::FileStat;

/// Earliest seconds of filesystems: 32 bits with a sign (ext4, XFS), none before 1970 (CIFS, NFS 3), FAT.
const EARLIEST: [i64; 3] = [i32::MIN as i64, 0, 315_532_800];

/// Latest seconds of filesystems: 32 bits (ext3, XFS without bigtime; NFS 3), FAT, ext4, XFS.
const LATEST: [i64; 5] = [i32::MAX as i64, u32::MAX as i64, 4_354_819_198, 15_032_385_535, 16_299_260_424];

/// Whether what stands has the time that is wanted, or what its filesystem makes of it.
pub(crate) fn stands_for(wanted: Timestamp, stat: &FileStat) -> bool {
    let found = Timestamp { seconds: stat.modified.seconds, nanoseconds: stat.modified.nanoseconds };
    if found == wanted {
        return true;
    }
    if found.nanoseconds != 0 {
        return false;
    }
    // Whole seconds only: then the kernel's own times have no fraction either.
    let is_coarse = stat.changed.nanoseconds == 0 && found.seconds == wanted.seconds;
    let is_later = wanted.seconds > found.seconds || found.seconds == wanted.seconds;
    is_coarse
        || is_later && LATEST.contains(&found.seconds)
        || wanted.seconds < found.seconds && EARLIEST.contains(&found.seconds)
}

#[cfg(test)]
mod tests {
    //! Goal: only what a filesystem made of a time stands for it. Method: examples.

    use copal_source::scan::FileTime;

    use super::*;
    use crate::deploy::memory::tests::stat;

    #[track_caller]
    fn check(wanted: (i64, u32), found: (i64, u32), changed_nanoseconds: u32, stands: bool) {
        let changed = FileTime { seconds: 7, nanoseconds: changed_nanoseconds };
        let stat = FileStat { changed, ..stat(1, found.0, found.1) };
        assert_eq!(stands_for(Timestamp { seconds: wanted.0, nanoseconds: wanted.1 }, &stat), stands);
    }

    #[test]
    fn only_what_a_filesystem_made_of_a_time_stands_for_it() {
        check((5, 5), (5, 5), 1, true);
        check((5, 5), (5, 0), 1, false);
        check((5, 5), (5, 0), 0, true);
        check((5, 5), (6, 0), 0, false);
        check((i64::from(i32::MIN) - 1, 9), (i32::MIN.into(), 0), 1, true);
        check((i64::from(i32::MIN) + 1, 9), (i32::MIN.into(), 0), 1, false);
        check((1 << 40, 0), (15_032_385_535, 0), 1, true);
        check((1 << 40, 0), (i32::MAX.into(), 0), 1, true);
        check((1 << 40, 0), (i32::MAX.into(), 1), 1, false);
        check((1_000_000, 0), (i32::MAX.into(), 0), 1, false);
    }
}
