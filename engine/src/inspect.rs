//! Looks into snapshots: ls, dump, diff, find, stats. (Skeleton of the agreed interface.)

use std::io::Write;
use std::path::Path;

use copal_manifest::entry::Entry;

use crate::catalogue::Listed;
use crate::context::Context;
use crate::error::Result;

/// A path in a snapshot as people write it: `[label/]path`. Calls `visit` for the entry and, for a folder, what is in it
/// (`recursive`: all below it), in order, each with its display path.
pub fn ls(
    _context: &Context,
    _reference: &str,
    _path: &[u8],
    _recursive: bool,
    _visit: &mut dyn FnMut(&[u8], &Entry) -> Result<()>,
) -> Result<()> {
    todo!()
}

/// Writes one file's content.
pub fn dump(
    _context: &Context,
    _reference: &str,
    _path: &[u8],
    _out: &mut dyn Write,
) -> Result<u64> {
    todo!()
}

/// Receives the members of a folder, for an archive writer of the program.
pub trait MemberSink {
    /// One member; `content` is given for regular files and reads exactly `entry`'s bytes.
    fn member(
        &mut self,
        display_path: &[u8],
        entry: &Entry,
        content: Option<&mut dyn std::io::Read>,
    ) -> Result<()>;
}

/// Sends a path and all below it to a sink, in order.
pub fn walk(
    _context: &Context,
    _reference: &str,
    _path: &[u8],
    _sink: &mut dyn MemberSink,
) -> Result<()> {
    todo!()
}

/// A difference as reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffItem {
    /// Display path.
    pub path: Vec<u8>,
    /// Bytes in A; `None` where absent.
    pub size_old: Option<u64>,
    /// Bytes in B; `None` where absent.
    pub size_new: Option<u64>,
}

/// Differences, each list in path order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DiffReport {
    /// Only in B.
    pub added: Vec<DiffItem>,
    /// Only in A.
    pub removed: Vec<DiffItem>,
    /// In both, differing in content or metadata.
    pub changed: Vec<DiffItem>,
}

/// Snapshot against snapshot.
pub fn diff(_context: &Context, _a: &str, _b: &str) -> Result<DiffReport> {
    todo!()
}

/// Snapshot against a folder (or file) on disk, contents compared.
pub fn diff_with_disk(_context: &Context, _a: &str, _folder: &Path) -> Result<DiffReport> {
    todo!()
}

/// A version of a path found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The snapshot.
    pub listed: Listed,
    /// Display path.
    pub path: Vec<u8>,
    /// The entry.
    pub entry: Entry,
    /// 1, 2, … numbering distinct contents of this path over time.
    pub version: u64,
}

/// Paths that match a glob (or a plain substring of the last name), over all snapshots, by path and time.
pub fn find(_context: &Context, _pattern: &str) -> Result<Vec<Found>> {
    todo!()
}

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
    /// Plaintext of distinct chunks.
    pub distinct: u64,
    /// Stored, all objects.
    pub stored: u64,
    /// `logical - distinct`.
    pub saved_by_deduplication: u64,
    /// Plaintext minus stored, of chunks stored as deltas.
    pub saved_by_deltas: u64,
    /// Plaintext minus stored, of the others.
    pub saved_by_compression: u64,
    /// Distinct chunks.
    pub chunks: u64,
    /// Of these, deltas.
    pub deltas: u64,
    /// Packs.
    pub packs: u64,
    /// Each snapshot.
    pub snapshots: Vec<SnapshotSize>,
}

/// Sizes.
pub fn stats(_context: &Context) -> Result<Stats> {
    todo!()
}
