//! Whether a file is what the parent snapshot has: by its metadata, with a guard for files changed in the
//! instant of the last capture.
//!
//! What vouches was seen after the file's pages had been written out ([`copal_source::settle`]): from then on
//! each write moves its times. Why that holds for files that were not opened since:
//! `docs/decisions/unchanged-files.md`.

use copal_manifest::content::{FileContent, Pieces};
use copal_manifest::entry::{Entry, Metadata, Node, Timestamp};
use copal_manifest::snapshot::SourceRecord;
use copal_manifest::tree::{NodeShape, Reference, references};
use copal_source::scan::{FileKind, FileStat, FileTime};
use copal_store::session::{ChunkSource, Session};

/// The kernel stamps files with the time of its last tick, up to 10 ms old (`CONFIG_HZ=100`); twice that is
/// left out.
const TICK_NANOSECONDS: i64 = 20_000_000;
/// Filesystems that keep whole seconds round to two at worst (FAT).
const COARSE_SECONDS: i64 = 2;

pub(crate) fn timestamp(time: FileTime) -> Timestamp {
    Timestamp { seconds: time.seconds, nanoseconds: time.nanoseconds }
}

/// Files whose change time is before this cannot change again without it being seen; others are read again by
/// the next capture.
pub fn trusted_before(begun: Timestamp) -> Timestamp {
    let nanoseconds = i64::from(begun.nanoseconds) - TICK_NANOSECONDS;
    if nanoseconds >= 0 {
        Timestamp { seconds: begun.seconds, nanoseconds: nanoseconds as u32 }
    } else {
        Timestamp { seconds: begun.seconds - 1, nanoseconds: (nanoseconds + 1_000_000_000) as u32 }
    }
}

/// Whether a source recorded at some time still has this entry as it was.
pub fn is_unchanged_since(record: &SourceRecord, parent: &Entry, stat: &FileStat) -> bool {
    record.device == stat.device && is_unchanged(parent, stat, record.trusted_before)
}

/// Whether metadata says that nothing changed since the parent was taken.
pub(super) fn is_unchanged(parent: &Entry, stat: &FileStat, trusted_before: Timestamp) -> bool {
    let Metadata { mode, uid, gid, modified, changed, inode, .. } = &parent.metadata;
    let same_stat = (*mode, *uid, *gid, *inode) == (stat.mode, stat.uid, stat.gid, stat.inode)
        && (*modified, *changed) == (timestamp(stat.modified), timestamp(stat.changed));
    // What is no file on disk (pages that a transaction pins) has no inode, and no time that tells of a
    // change: the parent's entry of it looks the same whatever was committed since.
    let is_on_disk = stat.inode != 0;
    is_on_disk && same_stat && is_past(*modified, *changed, trusted_before) && is_same_kind(&parent.node, stat)
}

/// Whether a file that changes again has another change time for sure.
pub fn is_past(modified: Timestamp, changed: Timestamp, trusted_before: Timestamp) -> bool {
    let coarse = changed.nanoseconds == 0 && modified.nanoseconds == 0;
    if coarse {
        changed.seconds.saturating_add(COARSE_SECONDS) < trusted_before.seconds
    } else {
        changed < trusted_before
    }
}

fn is_same_kind(node: &Node, stat: &FileStat) -> bool {
    match (node, stat.kind) {
        (Node::File(content), FileKind::File) => content.bytes == stat.bytes,
        (Node::Directory, FileKind::Directory)
        | (Node::Symlink(_), FileKind::Symlink)
        | (Node::Fifo, FileKind::Fifo)
        | (Node::Socket, FileKind::Socket) => true,
        (Node::CharDevice { major, minor }, FileKind::CharDevice)
        | (Node::BlockDevice { major, minor }, FileKind::BlockDevice) => (*major, *minor) == stat.special,
        _ => false,
    }
}

/// Whether two looks at a file say that nobody wrote to it between them.
pub(super) fn is_same_content(before: &FileStat, after: &FileStat) -> bool {
    (before.bytes, before.modified, before.changed, before.inode)
        == (after.bytes, after.modified, after.changed, after.inode)
}

/// Whether everything that a content refers to is in the repository and not about to leave it.
pub fn is_present(session: &Session, content: &FileContent) -> copal_store::Result<bool> {
    let tree = match &content.pieces {
        Pieces::Inline(pieces) => {
            for piece in pieces {
                if let copal_manifest::content::Piece::Chunk { id, .. } = piece
                    && !session.contains(id)?
                {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        Pieces::Tree(tree) => *tree,
    };
    let mut pending = vec![(tree.id, NodeShape::Pieces(tree.height))];
    while let Some((id, shape)) = pending.pop() {
        if !session.contains(&id)? {
            return Ok(false);
        }
        let mut present = Ok(true);
        references(&session.read_chunk(&id)?, shape, &mut |reference| match reference {
            Reference::Node { id, shape } => pending.push((id, shape)),
            Reference::Chunk(id, _) => {
                if matches!(present, Ok(true)) {
                    present = session.contains(&id);
                }
            }
        })?;
        if !present? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_and_stat(changed: (i64, u32)) -> (Entry, FileStat) {
        let time = FileTime { seconds: 50, nanoseconds: 3 };
        let changed = FileTime { seconds: changed.0, nanoseconds: changed.1 };
        let stat = FileStat {
            kind: FileKind::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
            bytes: 0,
            allocated_bytes: 0,
            modified: time,
            changed,
            inode: 7,
            links: 1,
            device: 1,
            special: (0, 0),
        };
        let metadata = Metadata {
            mode: 0o644,
            uid: 1,
            gid: 2,
            modified: timestamp(time),
            changed: timestamp(changed),
            inode: 7,
            xattrs: Vec::new(),
        };
        let path = copal_manifest::entry::EntryPath::from_slashes(b"f").unwrap();
        (Entry { path, metadata, node: Node::File(FileContent::empty()) }, stat)
    }

    #[test]
    fn a_file_of_the_last_instant_is_not_trusted() {
        let begun = Timestamp { seconds: 100, nanoseconds: 10_000_000 };
        let limit = trusted_before(begun);
        assert_eq!(limit, Timestamp { seconds: 99, nanoseconds: 990_000_000 });
        for (changed, expected) in
            [((99, 989_999_999), true), ((99, 990_000_000), false), ((100, 1), false), ((98, 5), true)]
        {
            let (entry, stat) = entry_and_stat(changed);
            assert_eq!(is_unchanged(&entry, &stat, limit), expected, "{changed:?}");
        }
    }

    #[test]
    fn whole_seconds_are_trusted_later() {
        let limit = Timestamp { seconds: 100, nanoseconds: 0 };
        for (seconds, expected) in [(97, true), (98, false)] {
            let (mut entry, mut stat) = entry_and_stat((seconds, 0));
            entry.metadata.modified.nanoseconds = 0;
            stat.modified.nanoseconds = 0;
            assert_eq!(is_unchanged(&entry, &stat, limit), expected, "{seconds}");
        }
    }

    #[test]
    fn what_is_no_file_on_disk_is_never_unchanged() {
        let limit = Timestamp { seconds: 1000, nanoseconds: 0 };
        let (mut entry, mut stat) = entry_and_stat((90, 1));
        (entry.metadata.inode, stat.inode) = (0, 0);
        assert!(!is_unchanged(&entry, &stat, limit));
    }

    #[test]
    fn any_difference_of_metadata_is_a_change() {
        let limit = Timestamp { seconds: 1000, nanoseconds: 0 };
        let (entry, stat) = entry_and_stat((90, 1));
        assert!(is_unchanged(&entry, &stat, limit));
        let differences: [fn(&mut FileStat); 7] = [
            |s| s.bytes = 1,
            |s| s.modified.nanoseconds += 1,
            |s| s.changed.nanoseconds += 1,
            |s| s.inode += 1,
            |s| s.inode = 0,
            |s| s.mode = 0o600,
            |s| s.kind = FileKind::Fifo,
        ];
        for differ in differences {
            let mut other = stat;
            differ(&mut other);
            assert!(!is_unchanged(&entry, &other, limit), "{other:?}");
        }
    }
}
