//! Contents that arrive from elsewhere, stored here: cut as this repository cuts, named by its keys, compared
//! with what is there.
//!
//! Contents whose borders this repository would have chosen too (whole small files, multiples of the same
//! page length, cuts by the same secret) keep their chunks. All others are cut again, so that they meet what
//! is here already. Chunks are encoded and sealed by worker threads; the caller's thread reads, cuts and
//! hashes.

use std::sync::{Arc, Mutex};

use copal_chunker::{Cut, Cuts, Cutter};
use copal_manifest::content::{Cutting, FileContent, Piece, PiecesBuilder};
use copal_manifest::tree::NodeSink;
use copal_store::ChunkId;
use copal_store::config::Parameters;
use copal_store::session::{ChunkWriter, Session};
use crossbeam_channel::{Sender, bounded};

use crate::error::{Error, Result};
use crate::storing::bases::{Bases, Likeness, Payoff};
use crate::storing::chunks::{ChunkStore, Frame, reserve};
use crate::storing::cutting::{DECIDING_BYTES, by_its_head, is_small};

/// Bytes of the window in which a base for deltas is looked for.
const BASES_WINDOW_BYTES: u64 = 8 << 20;
/// Jobs that wait for each worker.
const JOBS_PER_WORKER: usize = 8;

/// What a worker stores.
enum Job {
    Whole { id: ChunkId, plain: Vec<u8> },
    Like { id: ChunkId, plain: Vec<u8>, like: ChunkId, payoff: Option<Arc<Payoff>> },
    Frame(Frame),
}

/// Runs `work` with a store of contents; everything is stored when it returns.
pub fn with_ingest<'s, T, E: From<Error>>(
    session: &'s Session,
    cutter: &'s Cutter,
    threads: usize,
    work: impl FnOnce(&mut Ingest<'s>) -> Result<T, E>,
) -> Result<T, E> {
    let (jobs, queue) = bounded::<Job>(threads * JOBS_PER_WORKER);
    let failure: Mutex<Option<copal_store::Error>> = Mutex::new(None);
    let fail = |error| {
        failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
    };
    let outcome = std::thread::scope(|scope| {
        for number in 0..threads {
            let (queue, fail) = (queue.clone(), &fail);
            let worker = move || match ChunkStore::new(session) {
                Err(error) => fail(error),
                Ok(mut chunks) => {
                    for job in queue {
                        if let Err(error) = store(&mut chunks, job) {
                            fail(error);
                            return;
                        }
                    }
                }
            };
            std::thread::Builder::new()
                .name(format!("ingest {number}"))
                .spawn_scoped(scope, worker)
                .map_err(|error| Error::Internal(format!("a worker could not be started: {error}")))?;
        }
        drop(queue);
        let mut ingest = Ingest {
            session,
            cutter,
            jobs,
            writer: session.writer().map_err(Error::from)?,
            frame: Frame::default(),
            bytes_taken: 0,
        };
        let outcome = work(&mut ingest);
        ingest.end_frame()?;
        outcome
    });
    match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(Error::from(error).into()),
        None => outcome,
    }
}

fn store(chunks: &mut ChunkStore<'_>, job: Job) -> copal_store::Result<()> {
    match job {
        Job::Frame(mut frame) => chunks.store_frame(&mut frame),
        Job::Whole { id, plain } => chunks.store(&id, &plain),
        Job::Like { id, plain, like, payoff } => chunks.store_like(&id, &plain, &like, payoff.as_deref()),
    }
}

/// Takes contents.
pub struct Ingest<'s> {
    session: &'s Session,
    cutter: &'s Cutter,
    jobs: Sender<Job>,
    writer: ChunkWriter<'s>,
    frame: Frame,
    bytes_taken: u64,
}

impl<'s> Ingest<'s> {
    /// Plaintext that came by so far, in bytes.
    pub fn bytes_taken(&self) -> u64 {
        self.bytes_taken
    }

    /// Where nodes go.
    pub fn sink(&mut self) -> &mut dyn NodeSink {
        &mut self.writer
    }

    /// Stores a chunk as it is, unless it is there. `known_like` is one that it is a delta of elsewhere; else
    /// the hints say.
    pub fn chunk(
        &mut self,
        plain: Vec<u8>,
        offset: u64,
        known_like: Option<ChunkId>,
        hints: &mut Hints,
    ) -> Result<ChunkId> {
        self.bytes_taken += plain.len() as u64;
        let (id, is_new) = reserve(self.session, &plain)?;
        let like = hints.of(self.session, offset, &id);
        if is_new {
            self.send(match (known_like, like) {
                // Where it comes from, it pays.
                (Some(like), _) => Job::Like { id, plain, like, payoff: None },
                (None, Some(like)) => Job::Like { id, plain, like, payoff: Some(Arc::clone(&hints.payoff)) },
                (None, None) => Job::Whole { id, plain },
            })?;
        }
        Ok(id)
    }

    /// Stores a small file's only chunk, together with its neighbours.
    pub fn small_chunk(&mut self, plain: &[u8]) -> Result<ChunkId> {
        self.bytes_taken += plain.len() as u64;
        let (id, is_new) = reserve(self.session, plain)?;
        if is_new {
            if self.frame.is_full(self.session, plain.len()) {
                self.end_frame()?;
            }
            self.frame.push(id, plain);
        }
        Ok(id)
    }

    fn end_frame(&mut self) -> Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let frame = std::mem::take(&mut self.frame);
        self.send(Job::Frame(frame))
    }

    fn send(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| Error::Internal("all workers have ended".into()))
    }

    fn parameters(&self) -> &'s Parameters {
        &self.session.repository().config().parameters
    }

    /// Length of the pages that page-structured files are cut in, in bytes.
    pub fn page_bytes(&self) -> u32 {
        self.parameters().page_chunk_bytes
    }

    /// Begins a file that is cut here. `before` is what stood at its place in the base.
    pub fn file(&self, before: Option<FileContent>) -> IngestFile<'s> {
        let by_content = before.as_ref().is_some_and(|before| before.cutting == Cutting::Content);
        IngestFile {
            cutter: self.cutter,
            builder: PiecesBuilder::new(),
            head: Some(Vec::new()),
            cutting: by_content.then_some(Cutting::Content),
            run: None,
            pending: Vec::new(),
            start: 0,
            has_holes: false,
            hints: Hints::new(before),
        }
    }
}

/// Chunks of the base that are likely to be like new ones.
pub struct Hints {
    before: Option<FileContent>,
    bases: Bases,
    payoff: Arc<Payoff>,
    until: u64,
}

impl Hints {
    /// From the content that the file had before, if any.
    pub fn new(before: Option<FileContent>) -> Self {
        Self { before, bases: Bases::none(), payoff: Arc::default(), until: 0 }
    }

    /// For the chunk at an offset; offsets ascend.
    fn of(&mut self, session: &Session, offset: u64, id: &ChunkId) -> Option<ChunkId> {
        let before = self.before.as_ref()?;
        if offset >= self.until {
            self.until = offset.saturating_add(BASES_WINDOW_BYTES);
            self.bases = Bases::around(Some(before), session, offset, self.until);
        }
        match self.bases.of(offset, id) {
            Likeness::Like(id) => Some(id),
            Likeness::Same | Likeness::None => None,
        }
    }
}

/// A file whose bytes arrive in order.
pub struct IngestFile<'s> {
    cutter: &'s Cutter,
    builder: PiecesBuilder,
    /// Bytes kept until it is known how to cut.
    head: Option<Vec<u8>>,
    cutting: Option<Cutting>,
    run: Option<Run<'s>>,
    /// Bytes that no cut has ended yet, from `start` on.
    pending: Vec<u8>,
    start: u64,
    has_holes: bool,
    hints: Hints,
}

/// Cuts of one stretch without holes.
struct Run<'s> {
    begin: u64,
    cuts: Cuts<'s>,
}

impl<'s> IngestFile<'s> {
    /// The next bytes.
    pub fn data(&mut self, bytes: &[u8], ingest: &mut Ingest<'s>) -> Result<()> {
        if let Some(head) = &mut self.head {
            head.extend_from_slice(bytes);
            if head.len() >= DECIDING_BYTES {
                self.decide(ingest)?;
            }
            return Ok(());
        }
        self.cut(bytes, ingest)
    }

    /// The next bytes are zeros that are not allocated.
    pub fn hole(&mut self, bytes: u64, ingest: &mut Ingest<'s>) -> Result<()> {
        self.has_holes = true;
        self.decide(ingest)?;
        self.end_run(ingest)?;
        self.builder.push(Piece::Hole { bytes }, ingest.sink())?;
        self.start += bytes;
        Ok(())
    }

    /// Ends the file.
    pub fn finish(mut self, ingest: &mut Ingest<'s>) -> Result<FileContent> {
        if let Some(head) =
            self.head.take_if(|head| !self.has_holes && is_small(head.len() as u64, ingest.parameters()))
        {
            if head.is_empty() {
                return Ok(FileContent::empty());
            }
            let id = ingest.small_chunk(&head)?;
            self.builder.push(Piece::Chunk { id, bytes: head.len() as u32 }, ingest.sink())?;
            return Ok(self.builder.finish(Cutting::Small, ingest.sink())?);
        }
        self.decide(ingest)?;
        self.end_run(ingest)?;
        let cutting = self.cutting.unwrap_or(Cutting::Content);
        Ok(self.builder.finish(cutting, ingest.sink())?)
    }

    fn decide(&mut self, ingest: &mut Ingest<'s>) -> Result<()> {
        let Some(head) = self.head.take() else { return Ok(()) };
        if self.cutting.is_none() {
            self.cutting = Some(by_its_head(&head, ingest.parameters()));
        }
        self.cut(&head, ingest)
    }

    fn cut(&mut self, bytes: &[u8], ingest: &mut Ingest<'s>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(Cutting::Fixed(unit)) = self.cutting {
            self.pending.extend_from_slice(bytes);
            return self.cut_fixed(u64::from(unit), ingest);
        }
        let run = self.run.get_or_insert_with(|| Run { begin: self.start, cuts: self.cutter.start() });
        let begin = run.begin;
        let mut found: Vec<Cut> = Vec::new();
        run.cuts.feed(bytes, &mut found);
        self.pending.extend_from_slice(bytes);
        self.take_cuts(begin, &found, ingest)
    }

    fn cut_fixed(&mut self, unit: u64, ingest: &mut Ingest<'s>) -> Result<()> {
        loop {
            let bytes = (unit - self.start % unit) as usize;
            if self.pending.len() < bytes {
                return Ok(());
            }
            let rest = self.pending.split_off(bytes);
            let plain = std::mem::replace(&mut self.pending, rest);
            self.chunk(plain, ingest)?;
        }
    }

    fn take_cuts(&mut self, begin: u64, cuts: &[Cut], ingest: &mut Ingest<'s>) -> Result<()> {
        let mut taken = 0;
        let first = self.start;
        let pending = std::mem::take(&mut self.pending);
        for cut in cuts {
            let end = (begin + cut.offset - first) as usize;
            self.chunk(pending[taken..end].to_vec(), ingest)?;
            taken = end;
        }
        self.pending = pending[taken..].to_vec();
        Ok(())
    }

    fn end_run(&mut self, ingest: &mut Ingest<'s>) -> Result<()> {
        if let Some(run) = self.run.take() {
            let mut found = Vec::new();
            let begin = run.begin;
            run.cuts.finish(&mut found);
            self.take_cuts(begin, &found, ingest)?;
        }
        match std::mem::take(&mut self.pending) {
            rest if rest.is_empty() => Ok(()),
            rest => self.chunk(rest, ingest),
        }
    }

    fn chunk(&mut self, plain: Vec<u8>, ingest: &mut Ingest<'s>) -> Result<()> {
        let bytes = u32::try_from(plain.len()).map_err(|_| Error::Internal("a chunk over its limit".into()))?;
        let id = ingest.chunk(plain, self.start, None, &mut self.hints)?;
        self.builder.push(Piece::Chunk { id, bytes }, ingest.sink())?;
        self.start += u64::from(bytes);
        Ok(())
    }
}
