//! Fetches chunks and writes them to files: sorted by their place in the packs, by all workers.
//!
//! One thread plans: it announces files as slots and their pieces in path order. Every batch of pieces is
//! located, cut into runs of neighbouring pieces of one file, sorted by pack and offset, and handed to the
//! workers in units of about a frame. A record is decoded once for all pieces of a unit that stand in it.
//! Memory: one batch being planned, the bounded queue of units ([`QUEUE_UNITS`] of about [`UNIT_BYTES`] worth
//! of *records of pieces*, not of data), and two buffers for each worker.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use copal_source::read::TreeReader;
use copal_source::target::{TargetFile, TargetMetadata, TargetTree, Unset, WriteBuffer};
use copal_store::ChunkId;
use copal_store::location::Location;
use copal_store::session::{ChunkSource, Session};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::blocks::Patch;
use super::run::Run;
use crate::error::{Error, Result};

/// Pieces that are sorted together: some 10 MiB of memory.
const BATCH_PIECES: usize = 32 << 10;
/// Bytes that are sorted together, so that the workers start early and few large files are open at once.
const BATCH_BYTES: u64 = 256 << 20;
/// Longest run of one file that is written by one call.
const RUN_BYTES: u64 = 4 << 20;
/// Work that is handed to a worker at once: about one frame.
const UNIT_BYTES: u64 = 1 << 20;
/// Runs that are handed to a worker at once at most: files of a hundred bytes are many to a frame, which is
/// then decoded more than once.
const UNIT_SPANS_MAX: usize = 1024;
/// Files without pieces that are handed to a worker at once.
const UNIT_SLOTS: usize = 64;
/// A file in whose writing workers wait for the device.
const LARGE_FILE_BYTES: u64 = 32 << 20;
/// Units waiting for workers.
const QUEUE_UNITS: usize = 64;

/// How the file of a slot comes to be.
#[derive(Debug)]
pub(super) enum Origin {
    /// New and empty.
    New {
        /// Its length.
        bytes: u64,
        /// Not preallocated: it has holes, or it is too short for that to pay.
        sparse: bool,
    },
    /// Shares the extents of a file, then gets a length and holes.
    CloneOf {
        /// Opened as late as the new file: descriptors are few.
        reader: TreeReader,
        path: Vec<u8>,
        bytes: u64,
        holes: Vec<(u64, u64)>,
    },
    /// Another name of a file of another tree.
    LinkOf { tree: TargetTree, path: Vec<u8> },
    /// No file: what differs from a standing one is put into a journal.
    PatchOf(Box<Patch>),
}

/// A file to be written. It is made when the first of its bytes arrive, and closed after the last.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) tree: TargetTree,
    pub(super) path: Vec<u8>,
    pub(super) origin: Origin,
    /// Put on at the end.
    pub(super) metadata: Option<TargetMetadata>,
    /// Synced at the end, one by one: only where files are few.
    pub(super) sync: bool,
    /// The whole path of where it belongs, when it is staged under a number.
    belongs: Option<PathBuf>,
    file: Mutex<Option<TargetFile>>,
    /// Pieces not yet written, and one for the planner as long as it may add more.
    pending: AtomicU64,
}

impl Slot {
    pub(super) fn new(
        tree: &TargetTree,
        path: Vec<u8>,
        origin: Origin,
        metadata: Option<TargetMetadata>,
        sync: bool,
    ) -> Arc<Self> {
        Self::staged(tree, path, origin, metadata, sync, None)
    }

    /// The same of a file that is staged, and belongs to another path.
    pub(super) fn staged(
        tree: &TargetTree,
        path: Vec<u8>,
        origin: Origin,
        metadata: Option<TargetMetadata>,
        sync: bool,
        belongs: Option<PathBuf>,
    ) -> Arc<Self> {
        Arc::new(Self {
            tree: tree.clone(),
            path,
            origin,
            metadata,
            sync,
            belongs,
            file: Mutex::default(),
            pending: AtomicU64::new(1),
        })
    }

    /// What is said of it is said of where it belongs.
    fn told(&self, error: Error) -> Error {
        match &self.belongs {
            Some(belongs) => {
                let made = self.tree.whole(&self.path);
                error.of_path(&|path| (path == made).then(|| belongs.clone()))
            }
            None => error,
        }
    }

    fn warn(&self, run: &Run<'_>, unset: Vec<Unset>) {
        let of = |unset: Unset| Unset { path: self.belongs.clone().unwrap_or(unset.path), what: unset.what };
        run.warn(unset.into_iter().map(of).collect());
    }

    fn file(&self) -> Result<TargetFile> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            return Ok(file.clone());
        }
        let made = match &self.origin {
            Origin::New { bytes, sparse } => self.tree.create_file(&self.path, *bytes, *sparse)?,
            Origin::CloneOf { reader, path, bytes, holes } => {
                let made = self.tree.clone_from(&self.path, &reader.open_file(path)?)?;
                made.set_bytes(*bytes)?;
                for &(offset, bytes) in holes {
                    made.punch_hole(offset, bytes)?;
                }
                made
            }
            Origin::LinkOf { .. } | Origin::PatchOf(_) => {
                return Err(Error::Internal("a link or a patch is no file of its own".into()));
            }
        };
        *file = Some(made.clone());
        Ok(made)
    }

    fn finish(&self, run: &Run<'_>) -> Result<()> {
        match &self.origin {
            Origin::LinkOf { tree, path } => self.tree.hard_link_from(&self.path, tree, path)?,
            Origin::PatchOf(patch) => patch.finish()?,
            Origin::New { .. } | Origin::CloneOf { .. } => {
                let file = self.file()?;
                if let Some(metadata) = &self.metadata {
                    self.warn(run, file.set_metadata(metadata)?);
                }
                if self.sync {
                    file.sync()?;
                }
                *self.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
        run.file_done();
        Ok(())
    }

    /// Gives `count` tokens back; whoever gives back the last one finishes the file.
    fn release(&self, count: u64, run: &Run<'_>) -> Result<()> {
        let last = self.pending.fetch_sub(count, Ordering::AcqRel) == count;
        if last { self.finish(run).map_err(|error| self.told(error)) } else { Ok(()) }
    }
}

/// Neighbouring pieces of one file.
struct Span {
    slot: Arc<Slot>,
    offset: u64,
    bytes: u64,
    pieces: Vec<(ChunkId, Location)>,
}

#[derive(Default)]
struct Unit {
    spans: Vec<Span>,
    closed: Vec<Arc<Slot>>,
}

/// Takes slots and pieces from the planning thread.
pub(super) struct Fetcher<'f> {
    session: &'f Session,
    run: &'f Run<'f>,
    sender: Sender<Unit>,
    /// Holds back half of the workers until a large file is met: its writers wait for the device, and
    /// decoding goes on.
    gate: Option<Sender<()>>,
    spans: Vec<Span>,
    pieces: usize,
    bytes: u64,
    closed: Vec<Arc<Slot>>,
}

/// Runs `plan` on this thread and the writing on workers; returns when every announced file is finished, or
/// at the first error.
pub(super) fn with_fetcher<T>(
    session: &Session,
    run: &Run<'_>,
    plan: impl FnOnce(&mut Fetcher<'_>) -> Result<T>,
) -> Result<T> {
    let (sender, receiver) = bounded::<Unit>(QUEUE_UNITS);
    let (gate, opened) = bounded::<()>(0);
    let planned = std::thread::scope(|scope| {
        for _ in 0..run.context.worker_threads() {
            let units = receiver.clone();
            scope.spawn(move || work(session, run, &units));
            let (units, opened) = (receiver.clone(), opened.clone());
            scope.spawn(move || {
                // Nothing is ever sent: the gate opens by being dropped, at the latest when the plan ends.
                let _ = opened.recv();
                work(session, run, &units);
            });
        }
        drop(receiver);
        let mut fetcher = Fetcher {
            session,
            run,
            sender,
            gate: Some(gate),
            spans: Vec::new(),
            pieces: 0,
            bytes: 0,
            closed: Vec::new(),
        };
        let planned = plan(&mut fetcher).and_then(|value| fetcher.flush().map(|()| value));
        if planned.is_err() {
            // Workers drop what is queued: the tree under construction is thrown away.
            run.fail(Error::Internal("the plan was abandoned".into()));
        }
        planned
    });
    match planned {
        Ok(value) => run.outcome().map(|()| value),
        Err(error) => Err(error),
    }
}

impl Fetcher<'_> {
    /// Writes a chunk to a file. Offsets of one file ascend.
    pub(super) fn piece(&mut self, slot: &Arc<Slot>, offset: u64, id: ChunkId, bytes: u32) -> Result<()> {
        // Where the index says another length than the manifest it is read elsewhere, as all that is not what
        // was promised.
        let location = Location { bytes, ..locate(self.session, &id)? };
        if matches!(slot.origin, Origin::New { bytes, sparse: false } if bytes >= LARGE_FILE_BYTES) {
            self.gate = None;
        }
        slot.pending.fetch_add(1, Ordering::AcqRel);
        let bytes = u64::from(bytes);
        match self.spans.last_mut() {
            Some(span)
                if Arc::ptr_eq(&span.slot, slot)
                    && span.offset + span.bytes == offset
                    && span.bytes + bytes <= RUN_BYTES =>
            {
                span.bytes += bytes;
                span.pieces.push((id, location));
            }
            _ => self.spans.push(Span { slot: slot.clone(), offset, bytes, pieces: vec![(id, location)] }),
        }
        self.pieces += 1;
        self.bytes += bytes;
        if self.pieces >= BATCH_PIECES || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// No more pieces of this file will come.
    pub(super) fn close(&mut self, slot: Arc<Slot>) -> Result<()> {
        if slot.pending.load(Ordering::Acquire) > 1 && slot.pending.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        // No piece is outstanding: the file is made and finished by a worker all the same. Its count may be 0
        // or 1 here.
        slot.pending.store(1, Ordering::Release);
        self.closed.push(slot);
        if self.closed.len() >= UNIT_SLOTS {
            let closed = std::mem::take(&mut self.closed);
            self.send(Unit { spans: Vec::new(), closed })?;
        }
        Ok(())
    }

    /// Sends what was collected to the workers.
    pub(super) fn flush(&mut self) -> Result<()> {
        let mut spans = std::mem::take(&mut self.spans);
        (self.pieces, self.bytes) = (0, 0);
        spans.sort_by_key(place_of);
        let mut unit = Unit { closed: std::mem::take(&mut self.closed), ..Unit::default() };
        let mut unit_bytes = 0;
        let mut record = None;
        for span in spans {
            let begins_in = span.pieces.first().map(|(_, location)| (location.pack, location.record_offset));
            if unit_bytes >= UNIT_BYTES && begins_in != record || unit.spans.len() >= UNIT_SPANS_MAX {
                self.send(std::mem::take(&mut unit))?;
                unit_bytes = 0;
            }
            record = span.pieces.last().map(|(_, location)| (location.pack, location.record_offset));
            unit_bytes += span.bytes;
            unit.spans.push(span);
        }
        self.send(unit)
    }

    fn send(&mut self, unit: Unit) -> Result<()> {
        if self.run.is_failed() || self.sender.send(unit).is_err() {
            return Err(self.run.outcome().err().unwrap_or(Error::Internal("the writing ended early".into())));
        }
        Ok(())
    }
}

fn place_of(span: &Span) -> (copal_store::PackId, u32, u32) {
    let (_, first) = &span.pieces[0];
    (first.pack, first.record_offset, first.inner_offset)
}

/// Where a chunk stands; that it stands nowhere is a finding about the repository.
pub(super) fn locate(session: &Session, id: &ChunkId) -> Result<Location> {
    let missing = || copal_store::Error::Missing { object: format!("chunk {id}") };
    Ok(session.locate(id)?.ok_or_else(missing)?)
}

fn work(session: &Session, run: &Run<'_>, units: &Receiver<Unit>) {
    let reader = ChunkReader { session, record: Vec::new(), record_at: None };
    let mut worker = Worker { reader, run, buffer: WriteBuffer::default(), standing: Vec::new() };
    for unit in units {
        if run.is_failed() {
            continue;
        }
        if let Err(error) = worker.unit(unit) {
            run.fail(error);
        }
    }
}

struct Worker<'f> {
    reader: ChunkReader<'f>,
    run: &'f Run<'f>,
    buffer: WriteBuffer,
    /// What stands where a patch goes.
    standing: Vec<u8>,
}

impl Worker<'_> {
    fn unit(&mut self, unit: Unit) -> Result<()> {
        for span in unit.spans {
            self.span(&span)?;
        }
        for slot in unit.closed {
            slot.release(1, self.run)?;
        }
        Ok(())
    }

    fn span(&mut self, span: &Span) -> Result<()> {
        let bytes = self.buffer.bytes(span.bytes as usize);
        let mut rest = &mut *bytes;
        for (id, location) in &span.pieces {
            let (chunk, tail) = rest.split_at_mut(location.bytes as usize);
            self.reader.read(id, location, chunk)?;
            rest = tail;
        }
        match &span.slot.origin {
            Origin::PatchOf(patch) => patch.put(span.offset, bytes, &mut self.standing)?,
            _ => {
                let written = span.slot.file().and_then(|file| Ok(file.write_at(span.offset, bytes)?));
                written.map_err(|error| span.slot.told(error))?;
            }
        }
        self.run.wrote(span.bytes);
        span.slot.release(span.pieces.len() as u64, self.run)
    }
}

/// Reads chunks; a frame is decoded once for all its chunks that follow each other.
struct ChunkReader<'f> {
    session: &'f Session,
    record: Vec<u8>,
    record_at: Option<(copal_store::PackId, u32)>,
}

impl ChunkReader<'_> {
    /// Reads a chunk into a slice of its length.
    fn read(&mut self, id: &ChunkId, location: &Location, chunk: &mut [u8]) -> Result<()> {
        let read = if location.bytes == location.record_plain_bytes {
            self.session.read_record_into(id, location, chunk)
        } else {
            self.read_member(id, location, chunk)
        };
        match read {
            // The last look before the bytes reach an application: an authentic record is not yet the right
            // chunk.
            Ok(()) if self.session.repository().keys().chunk_id(chunk) == *id => return Ok(()),
            Err(error) if !error.concerns_one_object() => return Err(error.into()),
            // Collected since it was located, because it stands elsewhere too; or not what was promised
            // there.
            Ok(()) | Err(_) => {}
        }
        let found = self.session.read_chunk(id)?;
        if found.len() != chunk.len() {
            return Err(damaged(id, "it has another length than its manifest says").into());
        }
        chunk.copy_from_slice(&found);
        Ok(())
    }

    fn read_member(&mut self, id: &ChunkId, location: &Location, chunk: &mut [u8]) -> copal_store::Result<()> {
        let here = (location.pack, location.record_offset);
        if self.record_at != Some(here) {
            self.record_at = None;
            self.session.read_record(id, location, &mut self.record)?;
            self.record_at = Some(here);
        }
        chunk.copy_from_slice(self.session.chunk_in_record(&self.record, location)?);
        Ok(())
    }
}

fn damaged(id: &ChunkId, detail: &str) -> copal_store::Error {
    copal_store::Error::damaged(format!("chunk {id}"), detail)
}
