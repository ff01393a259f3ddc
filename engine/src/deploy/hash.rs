//! Reads and hashes standing files, piece by piece, by all workers, to find what differs from their wanted
//! content.

use std::sync::{Mutex, PoisonError};

use copal_manifest::content::{Piece, PlacedPiece};
use copal_manifest::entry::{Entry, Node};
use copal_source::read::{OpenFile, TreeReader};
use copal_store::session::Session;
use crossbeam_channel::{Receiver, bounded};

use super::attributes::attributes_differ;
use super::plan::{Range, push_range};
use super::run::Run;
use crate::error::Result;

/// Bytes of a large file that one worker compares at a time.
const RUN_BYTES: u64 = 4 << 20;
/// Small files that one worker compares at a time.
const FILES_AT_ONCE: usize = 64;
/// Tasks waiting for workers.
const QUEUE_TASKS: usize = 64;

/// A standing path that nothing vouches for, and what it shall be.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) entry: Box<Entry>,
    pub(super) found_bytes: u64,
}

impl Question {
    fn wanted_bytes(&self) -> u64 {
        match &self.entry.node {
            Node::File(content) => content.bytes,
            _ => 0,
        }
    }
}

/// How a standing path differs from what it shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Finding {
    /// Chunks to fetch.
    pub(super) ranges: Vec<Range>,
    /// Zeros to make.
    pub(super) holes: Vec<Range>,
    /// Bytes of the ranges.
    pub(super) bytes: u64,
    /// The length (of a symbolic link: the target) differs.
    pub(super) length_differs: bool,
    /// Attributes or other metadata differ.
    pub(super) attributes_differ: bool,
}

impl Finding {
    pub(super) fn is_equal_content(&self) -> bool {
        self.ranges.is_empty() && self.holes.is_empty() && !self.length_differs
    }

    pub(super) fn differs(&mut self, placed: &PlacedPiece) {
        match placed.piece {
            Piece::Chunk { bytes, .. } => {
                push_range(&mut self.ranges, placed.offset, bytes.into());
                self.bytes += u64::from(bytes);
            }
            Piece::Hole { bytes } => push_range(&mut self.holes, placed.offset, bytes),
        }
    }

    /// Puts what several workers found in the order of offsets.
    fn order(&mut self) {
        for ranges in [&mut self.ranges, &mut self.holes] {
            ranges.sort_by_key(|range| range.offset);
            let mut joined = Vec::with_capacity(ranges.len());
            for range in ranges.iter() {
                push_range(&mut joined, range.offset, range.bytes);
            }
            *ranges = joined;
        }
    }
}

enum Task<'q> {
    Whole(usize, &'q [Question]),
    /// A run of a large file; the first one is empty and looks at length and attributes.
    Run {
        number: usize,
        question: &'q Question,
        file: OpenFile,
        pieces: Vec<PlacedPiece>,
    },
}

/// Answers all questions; the findings stand in the same order.
pub(super) fn answer(
    run: &Run<'_>,
    session: &Session,
    reader: &TreeReader,
    questions: &[Question],
) -> Result<Vec<Finding>> {
    let findings: Vec<Mutex<Finding>> = questions.iter().map(|_| Mutex::default()).collect();
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    let (sender, receiver) = bounded(QUEUE_TASKS);
    let planned = std::thread::scope(|scope| {
        for _ in 0..run.context.worker_threads() {
            let (receiver, findings) = (receiver.clone(), &findings);
            scope.spawn(move || work(run, session, reader, &receiver, findings));
        }
        drop(receiver);
        hand_out(run, session, reader, questions, |task| !run.is_failed() && sender.send(task).is_ok())
            .inspect_err(|_| run.fail(crate::Error::Internal("the comparison was abandoned".into())))
            .inspect(|()| drop(sender))
    });
    match (planned, run.outcome()) {
        (Err(error), _) | (Ok(()), Err(error)) => return Err(error),
        (Ok(()), Ok(())) => {}
    }
    let whole = |finding: Mutex<Finding>| {
        let mut finding = finding.into_inner().unwrap_or_else(PoisonError::into_inner);
        finding.order();
        finding
    };
    Ok(findings.into_iter().map(whole).collect())
}

/// Neighbouring small files go together, a large file goes in runs.
fn hand_out<'q>(
    run: &Run<'_>,
    session: &Session,
    reader: &TreeReader,
    questions: &'q [Question],
    mut send: impl FnMut(Task<'q>) -> bool,
) -> Result<()> {
    let mut begin = 0;
    for (number, question) in questions.iter().enumerate() {
        if number - begin >= FILES_AT_ONCE {
            if !send(Task::Whole(begin, &questions[begin..number])) {
                return Ok(());
            }
            begin = number;
        }
        let Node::File(content) = &question.entry.node else { continue };
        if content.bytes <= RUN_BYTES {
            continue;
        }
        if begin < number && !send(Task::Whole(begin, &questions[begin..number])) {
            return Ok(());
        }
        begin = number + 1;
        let file = reader.open_file(&question.entry.path.to_slashes())?;
        // Before it is read, so that what is written later shows in its times, which the memory of the deploy
        // relies on.
        file.write_out()?;
        if !send(Task::Run { number, question, file: file.clone(), pieces: Vec::new() }) {
            return Ok(());
        }
        let (mut pieces, mut bytes) = (Vec::new(), 0_u64);
        for placed in content.pieces(session, 0, content.bytes) {
            let placed = placed?;
            run.context.check_interrupt()?;
            bytes = bytes.saturating_add(placed.piece.bytes());
            pieces.push(placed);
            if bytes >= RUN_BYTES {
                let pieces = std::mem::take(&mut pieces);
                bytes = 0;
                if !send(Task::Run { number, question, file: file.clone(), pieces }) {
                    return Ok(());
                }
            }
        }
        if !pieces.is_empty() && !send(Task::Run { number, question, file, pieces }) {
            return Ok(());
        }
    }
    if begin < questions.len() {
        send(Task::Whole(begin, &questions[begin..]));
    }
    Ok(())
}

fn work(
    run: &Run<'_>,
    session: &Session,
    reader: &TreeReader,
    tasks: &Receiver<Task<'_>>,
    findings: &[Mutex<Finding>],
) {
    let mut eye = Eye { session, reader, buffer: Vec::new() };
    for task in tasks {
        if run.is_failed() {
            continue;
        }
        if let Err(error) = eye.task(task, findings) {
            run.fail(error);
        }
    }
}

struct Eye<'c> {
    session: &'c Session,
    reader: &'c TreeReader,
    buffer: Vec<u8>,
}

impl Eye<'_> {
    fn task(&mut self, task: Task<'_>, findings: &[Mutex<Finding>]) -> Result<()> {
        let put = |number: usize, found: Finding| {
            let mut finding = findings[number].lock().unwrap_or_else(PoisonError::into_inner);
            finding.ranges.extend(found.ranges);
            finding.holes.extend(found.holes);
            finding.bytes += found.bytes;
            finding.length_differs |= found.length_differs;
            finding.attributes_differ |= found.attributes_differ;
        };
        match task {
            Task::Whole(begin, questions) => {
                for (number, question) in questions.iter().enumerate() {
                    put(begin + number, self.whole(question)?);
                }
            }
            Task::Run { number, question, file, pieces } => {
                let mut finding = Finding::default();
                if pieces.is_empty() {
                    finding.attributes_differ = attributes_differ(self.reader, &question.entry)?;
                    finding.length_differs = question.wanted_bytes() != question.found_bytes;
                }
                self.pieces(&file, pieces.into_iter().map(Ok), &mut finding)?;
                put(number, finding);
            }
        }
        Ok(())
    }

    fn whole(&mut self, question: &Question) -> Result<Finding> {
        let path = question.entry.path.to_slashes();
        let mut finding =
            Finding { attributes_differ: attributes_differ(self.reader, &question.entry)?, ..Finding::default() };
        match &question.entry.node {
            Node::File(content) => {
                finding.length_differs = content.bytes != question.found_bytes;
                if content.bytes > 0 {
                    let file = self.reader.open_file(&path)?;
                    file.write_out()?;
                    let session = self.session;
                    let pieces = content.pieces(session, 0, content.bytes);
                    self.pieces(&file, pieces.map(|placed| placed.map_err(Into::into)), &mut finding)?;
                }
            }
            Node::Symlink(target) => {
                finding.length_differs = self.reader.read_link(&path)? != target.as_ref();
            }
            _ => {}
        }
        Ok(finding)
    }

    fn pieces(
        &mut self,
        file: &OpenFile,
        pieces: impl Iterator<Item = Result<PlacedPiece>>,
        finding: &mut Finding,
    ) -> Result<()> {
        for placed in pieces {
            let placed = placed?;
            let equal = match placed.piece {
                Piece::Chunk { id, bytes } => {
                    self.read(file, placed.offset, bytes as usize)?
                        && self.session.repository().keys().chunk_id(&self.buffer) == id
                }
                Piece::Hole { bytes } => self.is_zero(file, placed.offset, bytes)?,
            };
            if !equal {
                finding.differs(&placed);
            }
        }
        Ok(())
    }

    /// Whether so many bytes are there; they stand in the buffer.
    fn read(&mut self, file: &OpenFile, offset: u64, bytes: usize) -> Result<bool> {
        self.buffer.resize(bytes, 0);
        Ok(file.read_at(offset, &mut self.buffer)? == bytes)
    }

    fn is_zero(&mut self, file: &OpenFile, offset: u64, bytes: u64) -> Result<bool> {
        let end = offset + bytes;
        for data in file.data_ranges(offset)? {
            let (mut at, stop) = (data.offset.max(offset), (data.offset + data.bytes).min(end));
            while at < stop {
                let run = usize::try_from((stop - at).min(1 << 20)).unwrap_or(1 << 20);
                // Past the end of a file that is too short there is nothing, and that is zero after its
                // length is set.
                let whole = self.read(file, at, run)?;
                if whole && self.buffer.iter().any(|&b| b != 0) {
                    return Ok(false);
                }
                at += run as u64;
            }
        }
        Ok(true)
    }
}
