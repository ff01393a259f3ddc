//! Jobs, promises of their results, and the workers that keep them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use copal_chunker::Cutter;
use copal_manifest::entry::{EntryPath, Timestamp};
use copal_source::read::{OpenFile, TreeReader};
use copal_source::scan::FileStat;
use copal_store::ChunkId;
use copal_store::config::Parameters;
use copal_store::location::RecordKind;
use copal_store::session::{ChunkWriter, DeltaBase, Reservation, Session};
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use crate::context::Context;
use crate::create::bases::{Bases, Likeness};
use crate::create::extent::{Extent, ExtentDone};
use crate::create::meter::Meter;
use crate::create::small::{Outcome, SmallFile};
use crate::error::{Error, Result};

/// Where a result arrives.
pub(super) struct Promise<T> {
    receiver: Receiver<Result<T>>,
    kept: Option<Result<T>>,
}

/// Where a result is sent; a worker that dies breaks the promise.
pub(super) struct Keeper<T>(Sender<Result<T>>);

pub(super) fn promise<T>() -> (Keeper<T>, Promise<T>) {
    let (sender, receiver) = bounded(1);
    (Keeper(sender), Promise { receiver, kept: None })
}

impl<T> Keeper<T> {
    fn keep(self, result: Result<T>) {
        // Nobody waits any more when the capture was given up.
        let _ = self.0.send(result);
    }
}

impl<T> Promise<T> {
    /// Whether waiting would not wait.
    pub(super) fn is_kept(&mut self) -> bool {
        if self.kept.is_none() {
            self.kept = match self.receiver.try_recv() {
                Ok(result) => Some(result),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Err(broken())),
            };
        }
        self.kept.is_some()
    }

    pub(super) fn wait(mut self) -> Result<T> {
        self.kept.take().unwrap_or_else(|| self.receiver.recv().unwrap_or_else(|_| Err(broken())))
    }
}

fn broken() -> Error {
    Error::Internal("a worker ended before its job was done".into())
}

/// What a worker can be asked for.
pub(super) enum Job {
    /// Small files, and everything that has no content.
    Batch(Vec<SmallFile>, Keeper<Vec<Outcome>>),
    /// A part of a large file.
    Extent(Extent, Keeper<ExtentDone>),
}

/// What all workers of a capture share.
pub(super) struct Shared<'s> {
    pub(super) context: &'s Context,
    pub(super) session: &'s Session,
    pub(super) cutter: &'s Cutter,
    pub(super) parameters: &'s Parameters,
    pub(super) meter: Meter<'s>,
    /// The source's own path, for messages.
    pub(super) root: &'s [u8],
    /// What changed later is not trusted.
    pub(super) begun: Timestamp,
    /// Plaintext bytes read from the source.
    pub(super) bytes_read: AtomicU64,
    /// Set when the capture has failed: what is still queued is not begun.
    pub(super) abandoned: AtomicBool,
    /// Whether every file is cut at fixed places, whatever it begins with.
    pub(super) page_structured: bool,
    /// Whether files are clones: their metadata are those that the scan found.
    pub(super) cloned: bool,
}

impl Shared<'_> {
    /// Opens a file that the scan found.
    pub(super) fn open(
        &self,
        reader: &TreeReader,
        path: &EntryPath,
        stat: &FileStat,
    ) -> copal_source::Result<OpenFile> {
        let file = reader.open_file(&path.to_slashes())?;
        Ok(if self.cloned { file.standing_for(*stat) } else { file })
    }

    /// A path for messages; of a source that is one file, the source's own.
    pub(super) fn named(&self, path: &EntryPath) -> String {
        if path.is_root() { String::from_utf8_lossy(self.root).into_owned() } else { path.to_string() }
    }

    pub(super) fn count_read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Buffers and contexts of one worker, used again and again.
pub(super) struct Worker<'s> {
    pub(super) shared: &'s Shared<'s>,
    pub(super) writer: ChunkWriter<'s>,
    pub(super) buffer: Vec<u8>,
    /// The base of the delta that is tried.
    base: Vec<u8>,
    pub(super) frame: Frame,
}

/// Small chunks that will be stored together.
#[derive(Default)]
pub(super) struct Frame {
    pub(super) members: Vec<(ChunkId, u32)>,
    pub(super) plain: Vec<u8>,
}

impl<'s> Worker<'s> {
    /// Works until no more jobs come.
    pub(super) fn run(shared: &'s Shared<'s>, jobs: &Receiver<Job>) {
        let mut worker = match shared.session.writer() {
            Ok(writer) => Self { shared, writer, buffer: Vec::new(), base: Vec::new(), frame: Frame::default() },
            Err(error) => {
                // One of the promises brings the cause; the others are broken, and that is said after it.
                if let Ok(job) = jobs.recv() {
                    refuse(job, error.into());
                }
                return;
            }
        };
        for job in jobs {
            let stop = match shared.context.check_interrupt() {
                Err(error) => Some(error),
                Ok(()) if shared.abandoned.load(Ordering::Relaxed) => Some(broken()),
                Ok(()) => None,
            };
            match (stop, job) {
                (Some(error), job) => refuse(job, error),
                (None, Job::Batch(files, keeper)) => keeper.keep(worker.batch(files)),
                (None, Job::Extent(extent, keeper)) => keeper.keep(worker.extent(&extent)),
            }
        }
    }

    /// Stores a chunk that the repository lacks, as a delta where the parent has a like one.
    pub(super) fn store_chunk(&mut self, offset: u64, plain: &[u8], bases: &mut Bases) -> Result<ChunkId> {
        let session = self.shared.session;
        let id = session.repository().keys().chunk_id(plain);
        let likeness = bases.of(offset, &id);
        if session.reserve(&id)? == Reservation::Known {
            return Ok(id);
        }
        let base = match likeness {
            Likeness::Like(like) if bases.worth_trying() => self.read_base(&like),
            _ => None,
        };
        let base = base.map(|id| DeltaBase { id, plain: &self.base });
        let deltas_before = base.is_some().then(|| self.writer.deltas_stored());
        self.writer.store(RecordKind::Data, &id, plain, base)?;
        if let Some(before) = deltas_before {
            bases.tried(self.writer.deltas_stored() > before);
        }
        Ok(id)
    }

    /// A base that cannot be had is none: the chunk is stored whole.
    fn read_base(&mut self, like: &ChunkId) -> Option<ChunkId> {
        let session = self.shared.session;
        let base = session.delta_base(like).ok()??;
        session.read_delta_base(&base, &mut self.base).ok()?;
        Some(base)
    }

    /// Takes a chunk into the frame, unless the repository has it.
    pub(super) fn frame_chunk(&mut self, plain: &[u8]) -> Result<ChunkId> {
        let session = self.shared.session;
        let id = session.repository().keys().chunk_id(plain);
        if session.reserve(&id)? == Reservation::Mine {
            if self.frame.plain.len() + plain.len() > self.shared.parameters.frame_bytes as usize {
                self.store_frame()?;
            }
            self.frame.members.push((id, plain.len() as u32));
            self.frame.plain.extend_from_slice(plain);
        }
        Ok(id)
    }

    /// Stores what is in the frame.
    pub(super) fn store_frame(&mut self) -> Result<()> {
        let Frame { members, plain } = &mut self.frame;
        match members.as_slice() {
            [] => {}
            [(id, _)] => self.writer.store(RecordKind::Data, id, plain, None)?,
            several => self.writer.store_frame(several, plain)?,
        }
        members.clear();
        plain.clear();
        Ok(())
    }
}

fn refuse(job: Job, error: Error) {
    match job {
        Job::Batch(_, keeper) => keeper.keep(Err(error)),
        Job::Extent(_, keeper) => keeper.keep(Err(error)),
    }
}
