//! Differences between two snapshots, or between a snapshot and what is on disk.

use std::cmp::Ordering;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use copal_manifest::content::{Piece, PlacedPiece};
use copal_manifest::entry::{Entry, EntryPath, Node};
use copal_manifest::snapshot::SourceRecord;
use copal_manifest::tree::{Change, TreeReader, diff as tree_diff};
use copal_source::read::{OpenFile, TreeReader as DiskReader};
use copal_source::scan::{FileKind, FileStat, ScanEntry, ScanOptions, scan};
use copal_store::session::Session;
use rayon::prelude::*;

use crate::catalogue::Catalogue;
use crate::context::Context;
use crate::deploy::evidence::{SourceWitness, source_witnesses};
use crate::deploy::times::stands_for;
use crate::error::{Error, Result};
use crate::inspect::list::{named_by, regular_content};
use crate::inspect::place::display;

/// Pieces of a file that are compared side by side.
const WINDOW_PIECES: usize = 1024;

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

/// Differences, each list in path order; the first of them, where only so many were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DiffReport {
    /// Only in B.
    pub added: Vec<DiffItem>,
    /// Only in A.
    pub removed: Vec<DiffItem>,
    /// In both, differing in content or metadata.
    pub changed: Vec<DiffItem>,
    /// How many there are of each: added, removed, changed.
    pub totals: [u64; 3],
}

/// A report under way: of each list no more is held than was asked for.
struct Collected {
    report: DiffReport,
    most: usize,
}

impl Collected {
    fn of(most: usize) -> Self {
        Self { report: DiffReport::default(), most }
    }
    fn push_added(&mut self, path: Vec<u8>, size: u64) {
        self.report.totals[0] += 1;
        push(&mut self.report.added, self.most, DiffItem { path, size_old: None, size_new: Some(size) });
    }
    fn push_removed(&mut self, path: Vec<u8>, size: u64) {
        self.report.totals[1] += 1;
        push(&mut self.report.removed, self.most, DiffItem { path, size_old: Some(size), size_new: None });
    }
    fn push_changed(&mut self, path: Vec<u8>, old: u64, new: u64) {
        self.report.totals[2] += 1;
        push(&mut self.report.changed, self.most, DiffItem { path, size_old: Some(old), size_new: Some(new) });
    }
}

fn push(list: &mut Vec<DiffItem>, most: usize, item: DiffItem) {
    if list.len() < most {
        list.push(item);
    }
}

/// Snapshot against snapshot: equal subtrees are skipped unread. Sources are matched by label.
pub fn diff(context: &Context, a: &str, b: &str) -> Result<DiffReport> {
    diff_within(context, a, b, usize::MAX)
}

/// The same with at most so many lines of each list; all of them are counted.
pub fn diff_within(context: &Context, a: &str, b: &str, most: usize) -> Result<DiffReport> {
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_in(context, &session)?;
    let (a, b) = (&catalogue.find(a)?.snapshot, &catalogue.find(b)?.snapshot);
    let mut report = Collected::of(most);
    for old in &a.sources {
        match b.sources.iter().find(|new| new.label == old.label) {
            Some(new) => diff_sources(&session, old, new, &mut report)?,
            None => every_entry(&session, old, |path, size| report.push_removed(path, size))?,
        }
    }
    for new in b.sources.iter().filter(|new| a.sources.iter().all(|old| old.label != new.label)) {
        every_entry(&session, new, |path, size| report.push_added(path, size))?;
    }
    session.end()?;
    Ok(report.report)
}

fn diff_sources(session: &Session, old: &SourceRecord, new: &SourceRecord, report: &mut Collected) -> Result<()> {
    for change in tree_diff(session, old.tree, session, new.tree) {
        match change? {
            Change::Added(entry) => report.push_added(display(new, &entry.path), size_of(&entry)),
            Change::Removed(entry) => report.push_removed(display(old, &entry.path), size_of(&entry)),
            Change::Changed { before, after } => {
                report.push_changed(display(new, &after.path), size_of(&before), size_of(&after));
            }
        }
    }
    Ok(())
}

fn every_entry(session: &Session, source: &SourceRecord, mut each: impl FnMut(Vec<u8>, u64)) -> Result<()> {
    for entry in TreeReader::new(session, source.tree).entries() {
        let entry = entry?;
        each(display(source, &entry.path), size_of(&entry));
    }
    Ok(())
}

/// Logical bytes of a regular file; nothing else has any.
pub(super) fn size_of(entry: &Entry) -> u64 {
    match &entry.node {
        Node::File(content) => content.bytes,
        _ => 0,
    }
}

/// What is believed of files on disk without being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nothing: every byte is read, so an equal size and time hides nothing.
    Nothing,
    /// That a file with the inode and change time that one of the last snapshots of its place saw is that
    /// snapshot's.
    ChangeTimes,
}

/// Snapshot against a folder (or file) on disk. Contents are hashed, so an equal size and time hides nothing.
/// With labels, each source is compared with `folder/label`.
pub fn diff_with_disk(context: &Context, a: &str, folder: &Path) -> Result<DiffReport> {
    let place = |source: &SourceRecord| {
        Some(if source.label.is_empty() { folder.to_owned() } else { folder.join(&source.label) })
    };
    diff_with_places(context, a, &place, Trust::Nothing)
}

/// Snapshot against the places on disk where its sources stand; of a source that stands nowhere (`None`)
/// everything counts as removed.
pub fn diff_with_places(
    context: &Context,
    a: &str,
    place_of: &dyn Fn(&SourceRecord) -> Option<PathBuf>,
    trust: Trust,
) -> Result<DiffReport> {
    diff_with_places_within(context, a, &|_| true, place_of, trust, usize::MAX)
}

/// The same of the sources that are `compared`, with at most so many lines of each list; all of them are
/// counted.
pub fn diff_with_places_within(
    context: &Context,
    a: &str,
    compared: &dyn Fn(&SourceRecord) -> bool,
    place_of: &dyn Fn(&SourceRecord) -> Option<PathBuf>,
    trust: Trust,
    most: usize,
) -> Result<DiffReport> {
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_in(context, &session)?;
    let listed = catalogue.find(a)?;
    session.prefer(listed.signer);
    let snapshot = &listed.snapshot;
    let mut report = Collected::of(most);
    for source in snapshot.sources.iter().filter(|source| compared(source)) {
        let Some(place) = place_of(source) else {
            every_entry(&session, source, |path, size| report.push_removed(path, size))?;
            continue;
        };
        let snapshots = catalogue.snapshots.iter().filter(|_| trust == Trust::ChangeTimes);
        let snapshots = snapshots.map(|listed| &*listed.snapshot);
        let mut witnesses = source_witnesses(&session, snapshots, &EntryPath::root(), place.as_os_str().as_bytes());
        DiskComparison { context, session: &session, source, disk: DiskReader::open(&place)? }.run(
            &place,
            &mut witnesses,
            &mut report,
        )?;
    }
    session.end()?;
    Ok(report.report)
}

struct DiskComparison<'a> {
    context: &'a Context,
    session: &'a Session,
    source: &'a SourceRecord,
    disk: DiskReader,
}

impl DiskComparison<'_> {
    /// A merge of two streams in path order.
    fn run(&self, place: &Path, witnesses: &mut [SourceWitness<'_>], report: &mut Collected) -> Result<()> {
        let mut stored = TreeReader::new(self.session, self.source.tree).entries();
        let mut found = scan(place, &ScanOptions::default())?;
        let (mut left, mut right) = (stored.next().transpose()?, next_found(&mut found)?);
        loop {
            self.context.check_interrupt()?;
            let order = match (&left, &right) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(entry), Some((path, _))) => entry.path.cmp(path),
            };
            if let (Some(entry), Ordering::Less) = (&left, order) {
                report.push_removed(display(self.source, &entry.path), size_of(entry));
            }
            if let (Some((path, item)), Ordering::Greater) = (&right, order) {
                report.push_added(display(self.source, path), item.stat.bytes_of_content());
            }
            if let (Some(entry), Some((path, item)), Ordering::Equal) = (&left, &right, order)
                && !self.stands_equal(entry, item, vouched(witnesses, path, &item.stat)?)?
            {
                let old = regular_content(&self.reader(), entry)?.map_or(0, |content| content.bytes);
                report.push_changed(display(self.source, path), old, item.stat.bytes_of_content());
            }
            if order.is_le() {
                left = stored.next().transpose()?;
            }
            if order.is_ge() {
                right = next_found(&mut found)?;
            }
        }
    }

    fn reader(&self) -> TreeReader<'_> {
        TreeReader::new(self.session, self.source.tree)
    }

    /// What is removed while it is compared differs: an application may be at work there.
    fn stands_equal(&self, entry: &Entry, item: &ScanEntry, known: Option<Entry>) -> Result<bool> {
        if let Some(known) = known {
            let of =
                |entry: &Entry| (entry.metadata.mode, entry.metadata.uid, entry.metadata.gid, entry.metadata.modified);
            return Ok(known.node == entry.node
                && of(&known) == of(entry)
                && known.metadata.xattrs == entry.metadata.xattrs);
        }
        match self.is_equal(entry, item) {
            Err(Error::Source(error)) if error.is_not_found() => Ok(false),
            outcome => outcome,
        }
    }

    fn is_equal(&self, entry: &Entry, item: &ScanEntry) -> Result<bool> {
        let (meta, stat) = (&entry.metadata, &item.stat);
        let is_hard_link = matches!(entry.node, Node::HardLink(_));
        let same_owner = (meta.mode, meta.uid, meta.gid) == (stat.mode, stat.uid, stat.gid);
        let same_time = stands_for(meta.modified, stat);
        if !is_hard_link && (!same_owner || !same_time) {
            return Ok(false);
        }
        let named = match (&entry.node, stat.kind) {
            (Node::HardLink(_), FileKind::File) => entry.node.clone(),
            _ => named_by(&self.reader(), entry)?,
        };
        let same_node = match (&named, stat.kind) {
            (Node::Directory, FileKind::Directory)
            | (Node::Fifo, FileKind::Fifo)
            | (Node::Socket, FileKind::Socket) => true,
            (Node::Symlink(target), FileKind::Symlink) => self.disk.read_link(&item.path)? == target.to_vec(),
            (Node::CharDevice { major, minor }, FileKind::CharDevice)
            | (Node::BlockDevice { major, minor }, FileKind::BlockDevice) => (*major, *minor) == stat.special,
            (Node::File(_) | Node::HardLink(_), FileKind::File) => return self.same_content(entry, item),
            _ => false,
        };
        Ok(same_node && self.same_attributes(entry, item)?)
    }

    fn same_attributes(&self, entry: &Entry, item: &ScanEntry) -> Result<bool> {
        let found = self.disk.attributes(&item.path)?;
        let stored = &entry.metadata.xattrs;
        Ok(found.len() == stored.len()
            && found.iter().zip(stored).all(|(a, b)| a.name == b.name.to_vec() && a.value == b.value.to_vec()))
    }

    fn same_content(&self, entry: &Entry, item: &ScanEntry) -> Result<bool> {
        if matches!(entry.node, Node::File(_)) && !self.same_attributes(entry, item)? {
            return Ok(false);
        }
        let reader = self.reader();
        let Some(content) = regular_content(&reader, entry)? else { return Ok(false) };
        if content.bytes != item.stat.bytes {
            return Ok(false);
        }
        let file = self.disk.open_file(&item.path)?;
        let mut pieces = content.pieces(self.session, 0, content.bytes);
        loop {
            let window = pieces.by_ref().take(WINDOW_PIECES).collect::<Result<Vec<PlacedPiece>, _>>()?;
            if window.is_empty() {
                return Ok(true);
            }
            self.context.check_interrupt()?;
            let compared =
                window.par_iter().map_init(Vec::new, |buffer, placed| self.same_piece(&file, placed, buffer));
            if !compared.try_reduce(|| true, |one, other| Ok(one && other))? {
                return Ok(false);
            }
        }
    }

    fn same_piece(&self, file: &OpenFile, placed: &PlacedPiece, buffer: &mut Vec<u8>) -> Result<bool> {
        match placed.piece {
            Piece::Chunk { id, bytes } => {
                buffer.resize(bytes as usize, 0);
                let read = file.read_at(placed.offset, buffer)?;
                Ok(read == buffer.len() && self.context.repository.keys().chunk_id(buffer) == id)
            }
            Piece::Hole { bytes } => is_zero(file, placed.offset, bytes, buffer),
        }
    }
}

fn vouched(witnesses: &mut [SourceWitness<'_>], path: &EntryPath, stat: &FileStat) -> Result<Option<Entry>> {
    for witness in witnesses {
        if let Some(entry) = witness.vouch(path, stat)? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn next_found(found: &mut copal_source::scan::Scan) -> Result<Option<(EntryPath, ScanEntry)>> {
    let Some(item) = found.next().transpose()? else { return Ok(None) };
    let path = EntryPath::from_slashes(&item.path)
        .ok_or_else(|| Error::Internal("the scan delivered a path that is none".into()))?;
    Ok(Some((path, item)))
}

fn is_zero(file: &OpenFile, offset: u64, bytes: u64, buffer: &mut Vec<u8>) -> Result<bool> {
    let mut done = 0;
    while done < bytes {
        let run = (bytes - done).min(1 << 20);
        buffer.resize(usize::try_from(run).unwrap_or(0), 0);
        let read = file.read_at(offset + done, buffer)?;
        if read != buffer.len() || buffer.iter().any(|&b| b != 0) {
            return Ok(false);
        }
        done += run;
    }
    Ok(true)
}

/// Size as reported: only regular files have content.
trait ContentSize {
    fn bytes_of_content(&self) -> u64;
}

impl ContentSize for FileStat {
    fn bytes_of_content(&self) -> u64 {
        if self.kind == FileKind::File { self.bytes } else { 0 }
    }
}
