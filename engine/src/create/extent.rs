//! Parts of large files: at fixed multiples for page-structured ones, by content for the others.

use std::sync::Arc;

use copal_chunker::{Cut, HARD_CONTEXT_BYTES, WINDOW_BYTES};
use copal_manifest::content::{FileContent, Piece};
use copal_source::read::{DataRange, OpenFile};

use crate::create::worker::Worker;
use crate::error::{Error, Result};
use crate::storing::bases::Bases;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// A part of a data range of a file. Of content cuts, the part ends with the first hard cut at or after its
/// end and begins with the first one at or after its beginning, so that the parts give together the cuts of
/// one run.
pub(super) struct Extent {
    pub(super) file: OpenFile,
    /// Length of the chunks, `None` for content cuts.
    pub(super) fixed_bytes: Option<u32>,
    pub(super) range: DataRange,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) parent: Option<Arc<FileContent>>,
}

/// The chunks of a part.
#[derive(Debug, Default)]
pub(super) struct ExtentDone {
    /// Where the first begins.
    pub(super) begin: u64,
    /// One after the other; none when the part before reaches over this one.
    pub(super) pieces: Vec<Piece>,
    /// The file ended early.
    pub(super) cut_short: bool,
    /// Reading failed.
    pub(super) trouble: Option<copal_source::Error>,
}

/// Bytes read and not yet stored, and where they stand in the file.
struct Stretch<'e> {
    extent: &'e Extent,
    bytes: Vec<u8>,
    at: u64,
    /// Nothing is read behind this.
    limit: u64,
    ended: bool,
}

impl Stretch<'_> {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// Reads on, not past the range; what was read before `keep_from` may be forgotten.
    fn read_on(&mut self, keep_from: u64, done: &mut ExtentDone) -> usize {
        let forget = (keep_from.saturating_sub(self.at) as usize).min(self.bytes.len());
        self.bytes.drain(..forget);
        self.at += forget as u64;
        let before = self.bytes.len();
        let wanted = self.limit.saturating_sub(self.end()).min(READ_BYTES as u64) as usize;
        self.bytes.resize(before + wanted, 0);
        let read = match self.extent.file.read_at(self.at + before as u64, &mut self.bytes[before..]) {
            Ok(read) => read,
            Err(error) => {
                done.trouble = Some(error);
                0
            }
        };
        self.bytes.truncate(before + read);
        done.cut_short |= read < wanted;
        self.ended = read < wanted || self.end() >= self.limit;
        read
    }

    fn slice(&self, from: u64, to: u64) -> &[u8] {
        &self.bytes[(from - self.at) as usize..(to - self.at) as usize]
    }
}

impl Worker<'_> {
    pub(super) fn extent(&mut self, extent: &Extent) -> Result<ExtentDone> {
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        let range_end = extent.range.offset + extent.range.bytes;
        let limit = if extent.fixed_bytes.is_some() { extent.to } else { range_end };
        let mut stretch = Stretch { extent, bytes, at: extent.from, limit, ended: false };
        let done = match extent.fixed_bytes {
            Some(fixed_bytes) => self.fixed_extent(&mut stretch, fixed_bytes.into()),
            None => self.content_extent(&mut stretch),
        };
        self.buffer = stretch.bytes;
        done
    }

    fn read_on(&self, stretch: &mut Stretch<'_>, keep_from: u64, done: &mut ExtentDone) {
        let read = stretch.read_on(keep_from, done);
        self.shared.count_read(read);
    }

    fn take_chunk(
        &mut self,
        stretch: &Stretch<'_>,
        from: u64,
        to: u64,
        bases: &mut Bases,
        done: &mut ExtentDone,
    ) -> Result<()> {
        let bytes = u32::try_from(to - from).map_err(|_| Error::Internal("a chunk over its limit".into()))?;
        let id = self.chunks.chunk(from, stretch.slice(from, to), bases)?;
        done.pieces.push(Piece::Chunk { id, bytes });
        self.shared.meter.bytes_done(bytes.into());
        Ok(())
    }

    fn fixed_extent(&mut self, stretch: &mut Stretch<'_>, fixed_bytes: u64) -> Result<ExtentDone> {
        let extent = stretch.extent;
        let mut bases = Bases::around(extent.parent.as_deref(), self.shared.session, extent.from, extent.to);
        let mut done = ExtentDone { begin: extent.from, ..ExtentDone::default() };
        let mut start = extent.from;
        while start < extent.to {
            let end = ((start / fixed_bytes + 1) * fixed_bytes).min(extent.to);
            while stretch.end() < end && !stretch.ended {
                self.read_on(stretch, start, &mut done);
            }
            let end = end.min(stretch.end());
            if end <= start {
                break;
            }
            self.take_chunk(stretch, start, end, &mut bases, &mut done)?;
            start = end;
        }
        Ok(done)
    }

    fn content_extent(&mut self, stretch: &mut Stretch<'_>) -> Result<ExtentDone> {
        let extent = stretch.extent;
        let mut done = ExtentDone { begin: extent.from, ..ExtentDone::default() };
        let is_first = extent.from == extent.range.offset;
        if !is_first {
            match self.find_beginning(stretch, &mut done) {
                Some(begin) if begin < extent.to => done.begin = begin,
                _ => return Ok(done),
            }
        }
        let begin = done.begin;
        let cutter = self.shared.cutter;
        let mut bases = Bases::around(extent.parent.as_deref(), self.shared.session, begin, extent.to);
        let mut run = if is_first {
            cutter.start()
        } else {
            cutter.start_after(stretch.slice(begin - WINDOW_BYTES as u64, begin))
        };
        let (mut start, mut fed) = (begin, begin);
        let mut cuts: Vec<Cut> = Vec::new();
        loop {
            run.feed(stretch.slice(fed.max(stretch.at), stretch.end()), &mut cuts);
            fed = stretch.end();
            for cut in cuts.drain(..) {
                let end = begin + cut.offset;
                self.take_chunk(stretch, start, end, &mut bases, &mut done)?;
                start = end;
                if cut.hard && end >= extent.to {
                    return Ok(done);
                }
            }
            if stretch.ended {
                break;
            }
            self.read_on(stretch, start, &mut done);
        }
        run.finish(&mut cuts);
        for cut in cuts {
            let end = begin + cut.offset;
            self.take_chunk(stretch, start, end, &mut bases, &mut done)?;
            start = end;
        }
        Ok(done)
    }

    /// The first hard cut at or after the extent's beginning; none when there is none in the extent.
    fn find_beginning(&self, stretch: &mut Stretch<'_>, done: &mut ExtentDone) -> Option<u64> {
        let extent = stretch.extent;
        let context = HARD_CONTEXT_BYTES as u64;
        stretch.at = extent.range.offset.max(extent.from.saturating_sub(context));
        let mut from = extent.from;
        while !stretch.ended && from < extent.to {
            self.read_on(stretch, from.saturating_sub(context), done);
            if stretch.end() < from {
                return None;
            }
            if let Some(found) = self.shared.cutter.first_hard_cut(&stretch.bytes, (from - stretch.at) as usize) {
                return Some(stretch.at + found as u64);
            }
            from = stretch.end() + 1;
        }
        None
    }
}
