//! Large files as the coordinator sees them: how they are cut up into extents, and how the pieces come
//! together again.

use std::sync::Arc;

use copal_chunker::{Cutter, SEGMENT_BYTES};
use copal_manifest::content::{Cutting, FileContent, Piece, PiecesBuilder, PlacedPiece};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node};
use copal_manifest::tree::NodeSink;
use copal_source::read::{DataRange, OpenFile, TreeReader};
use copal_source::scan::FileStat;
use copal_source::settle::Settled;
use copal_store::session::{ChunkSource, Session};

use crate::create::clones::{Beside, KeptClones};
use crate::create::evidence::is_same_content;
use crate::create::extent::{Extent, ExtentDone};
use crate::create::small::{Trouble, metadata_of};
use crate::create::worker::Shared;
use crate::error::Result;
use crate::storing::cutting::{DECIDING_BYTES, by_its_head, fixed};

/// Length of an extent of a page-structured file, in bytes.
const FIXED_EXTENT_BYTES: u64 = 4 << 20;
/// Shorter holes are read as zeros: they are not worth an end of a chunk.
pub(super) const HOLE_BYTES_MIN: u64 = 32 << 10;
/// How many chunks are compared with the parent to tell whether offsets still match.
const SAMPLES: u64 = 16;
/// Pages of a sample that are compared.
const SAMPLE_PAGE_BYTES: usize = 4096;

/// A large file, open.
pub(super) struct LargeFile {
    pub(super) path: EntryPath,
    file: OpenFile,
    settled: Settled,
    metadata: Metadata,
    cutting: Cutting,
    ranges: Vec<DataRange>,
    parent: Option<Arc<FileContent>>,
    /// What is read; everything else is as the parent has it. None: all of it.
    windows: Option<Vec<DataRange>>,
}

/// A part of a large file.
pub(super) enum Part {
    /// To be read.
    Read(Extent),
    /// As the parent has it, from where the part before ended, within a data range.
    Reuse {
        /// Where the data range begins.
        begin: u64,
        /// Where the part ends.
        to: u64,
    },
}

impl LargeFile {
    /// Opens; `clones` may tell what of it need not be read.
    pub(super) fn open(
        shared: &Shared<'_>,
        reader: &TreeReader,
        path: EntryPath,
        stat: &FileStat,
        parent: Option<Arc<FileContent>>,
        clones: Option<&KeptClones>,
    ) -> Result<Self, Trouble> {
        let file = shared.open(reader, &path, stat)?;
        let settled = file.settle()?;
        let stat = settled.stat;
        let metadata = metadata_of(&settled.evidence(), file.attributes()?);
        let sparse = stat.allocated_bytes.saturating_add(HOLE_BYTES_MIN) <= stat.bytes;
        let ranges = match sparse {
            true => without_short_holes(file.data_ranges(0)?),
            false if stat.bytes == 0 => Vec::new(),
            false => vec![DataRange { offset: 0, bytes: stat.bytes }],
        };
        let (parent_content, slashes) = (parent.as_deref(), path.to_slashes());
        let changed = clones.zip(parent_content).and_then(|(kept, parent)| kept.changed(&slashes, parent, &file));
        let cutting = choose_cutting(shared, &file, parent_content, changed.as_deref())?;
        let windows = changed.zip(parent_content).and_then(|(changed, parent)| {
            let beside = Beside {
                session: shared.session,
                cutter: shared.cutter,
                file: &file,
                ranges: &ranges,
                cutting,
                parent,
                changed: &changed,
                count_read: &|read| shared.count_read(read),
            };
            beside.windows()
        });
        Ok(Self { path, file, settled, metadata, cutting, ranges, parent, windows })
    }

    pub(super) fn stat(&self) -> FileStat {
        self.settled.stat
    }

    /// What it consists of, in order.
    pub(super) fn parts<'l>(&'l self, cutter: &Cutter) -> impl Iterator<Item = Part> + use<'l> {
        let has_hard_cuts = cutter.has_hard_cuts();
        self.ranges.iter().flat_map(move |range| -> Box<dyn Iterator<Item = Part> + 'l> {
            let (begin, end) = (range.offset, range.offset + range.bytes);
            let Some(windows) = &self.windows else {
                return Box::new(self.extents(*range, begin, end, has_hard_cuts));
            };
            let first = windows.partition_point(|window| window.offset + window.bytes <= begin);
            let within = windows[first..].iter().take_while(move |window| window.offset < end);
            let parts = within.flat_map(move |window| {
                let (from, to) = (window.offset.max(begin), (window.offset + window.bytes).min(end));
                let before = (from > begin).then_some(Part::Reuse { begin, to: from });
                before.into_iter().chain(self.extents(*range, from, to, has_hard_cuts))
            });
            Box::new(parts.chain([Part::Reuse { begin, to: end }]))
        })
    }

    /// The jobs that read a part of a data range.
    fn extents(&self, range: DataRange, first: u64, end: u64, has_hard_cuts: bool) -> impl Iterator<Item = Part> {
        let fixed_bytes = match self.cutting {
            Cutting::Fixed(bytes) => Some(bytes),
            Cutting::Small | Cutting::Content => None,
        };
        let mut from = first;
        std::iter::from_fn(move || {
            let to = match fixed_bytes {
                Some(_) => (from / FIXED_EXTENT_BYTES + 1) * FIXED_EXTENT_BYTES,
                None if has_hard_cuts => from + SEGMENT_BYTES,
                None => end,
            };
            let to = to.min(end);
            let (file, parent) = (self.file.clone(), self.parent.clone());
            let extent = (from < end).then_some(Extent { file, fixed_bytes, range, from, to, parent });
            from = to;
            extent.map(Part::Read)
        })
    }
}

/// Ranges between which too little is missing become one.
fn without_short_holes(ranges: Vec<DataRange>) -> Vec<DataRange> {
    let mut joined: Vec<DataRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.offset - (last.offset + last.bytes) < HOLE_BYTES_MIN => {
                last.bytes = range.offset + range.bytes - last.offset;
            }
            None if range.offset < HOLE_BYTES_MIN => {
                joined.push(DataRange { offset: 0, bytes: range.offset + range.bytes });
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Fixed cuts for page-structured files, as long as their pages stay where they are in the parent; content
/// cuts for all others, and for files that fell back to them once.
fn choose_cutting(
    shared: &Shared<'_>,
    file: &OpenFile,
    parent: Option<&FileContent>,
    changed: Option<&[DataRange]>,
) -> Result<Cutting, Trouble> {
    let Shared { parameters, session, .. } = *shared;
    let mut head = vec![0; DECIDING_BYTES];
    let read = file.read_at(0, &mut head)?;
    if !shared.page_structured && by_its_head(&head[..read], parameters) == Cutting::Content {
        return Ok(Cutting::Content);
    }
    let fixed = fixed(parameters);
    let stays = |content: &FileContent| {
        let changed = changed?.iter().map(|range| range.bytes).sum::<u64>();
        (changed <= content.bytes / 2).then_some(())
    };
    Ok(match parent {
        Some(content) if content.cutting == Cutting::Content => Cutting::Content,
        Some(content) if content.cutting == fixed && stays(content).is_some() => fixed,
        Some(content) if content.cutting == fixed && !offsets_match(file, content, session)? => Cutting::Content,
        _ => fixed,
    })
}

/// Whether samples of the file have at least one page in sixteen in common with what the parent has at the
/// same offsets.
fn offsets_match(file: &OpenFile, parent: &FileContent, session: &Session) -> Result<bool, Trouble> {
    let (mut same, mut compared) = (0u64, 0u64);
    let mut plain = Vec::new();
    for sample in 0..SAMPLES {
        let place = parent.bytes / SAMPLES * sample;
        // A parent that cannot be read says nothing.
        let Some(Ok(placed)) = parent.pieces(session, place, place + 1).next() else { continue };
        let Piece::Chunk { id, bytes } = placed.piece else { continue };
        let Ok(before) = session.read_chunk(&id) else { continue };
        plain.resize(bytes as usize, 0);
        let read = file.read_at(placed.offset, &mut plain)?;
        for (now, then) in plain[..read].chunks(SAMPLE_PAGE_BYTES).zip(before.chunks(SAMPLE_PAGE_BYTES)) {
            compared += 1;
            same += u64::from(now == then);
        }
    }
    Ok(compared == 0 || same * 16 >= compared)
}

/// A large file whose pieces are arriving.
pub(super) struct Assembly {
    pub(super) large: LargeFile,
    builder: PiecesBuilder,
    position: u64,
    /// The parts do not fit each other: the file changed between them.
    torn: bool,
    trouble: Option<copal_source::Error>,
}

/// What came together.
pub(super) enum Assembled {
    /// As it stood from the first byte to the last.
    Still(Entry),
    /// It changed meanwhile; what was read is a file, if one that never was.
    Changed(Entry),
    /// It changed so that no whole came together.
    Torn,
}

impl Assembly {
    pub(super) fn new(large: LargeFile) -> Self {
        Self { large, builder: PiecesBuilder::new(), position: 0, torn: false, trouble: None }
    }

    /// Takes the next part.
    pub(super) fn add(&mut self, done: ExtentDone, sink: &mut dyn NodeSink) -> Result<()> {
        self.torn |= done.cut_short;
        self.trouble = self.trouble.take().or(done.trouble);
        if self.torn || done.pieces.is_empty() {
            return Ok(());
        }
        let begins_range = self.large.ranges.binary_search_by_key(&done.begin, |range| range.offset).is_ok();
        if done.begin > self.position && begins_range {
            self.hole_to(done.begin, sink)?;
        }
        if done.begin != self.position {
            self.torn = true;
            return Ok(());
        }
        for piece in done.pieces {
            self.position += piece.bytes();
            self.builder.push(piece, sink)?;
        }
        Ok(())
    }

    /// Takes what the parent has from here up to a place; returns its bytes.
    pub(super) fn reuse(
        &mut self,
        begin: u64,
        to: u64,
        source: &dyn ChunkSource,
        sink: &mut dyn NodeSink,
    ) -> Result<u64> {
        let Some(parent) = self.large.parent.clone().filter(|_| !self.torn) else { return Ok(0) };
        if self.position < begin {
            self.hole_to(begin, sink)?;
        }
        let from = self.position;
        for placed in parent.pieces(source, from, to) {
            match placed {
                Ok(PlacedPiece { offset, piece: piece @ Piece::Chunk { .. } })
                    if offset == self.position && offset + piece.bytes() <= to =>
                {
                    self.position += piece.bytes();
                    self.builder.push(piece, sink)?;
                }
                _ => break,
            }
        }
        // What does not fit after all is read.
        self.torn |= self.position < to;
        Ok(self.position - from)
    }

    fn hole_to(&mut self, end: u64, sink: &mut dyn NodeSink) -> Result<()> {
        let bytes = end - self.position;
        self.builder.push(Piece::Hole { bytes }, sink)?;
        self.position = end;
        Ok(())
    }

    /// After the last part.
    pub(super) fn finish(mut self, sink: &mut dyn NodeSink) -> Result<Assembled, Trouble> {
        if let Some(trouble) = self.trouble {
            return Err(trouble.into());
        }
        let data_end = self.large.ranges.last().map_or(0, |range| range.offset + range.bytes);
        if self.torn || self.position != data_end {
            return Ok(Assembled::Torn);
        }
        let Settled { stat, moving, .. } = self.large.settled;
        if stat.bytes > self.position {
            self.hole_to(stat.bytes, sink)?;
        }
        let content = self.builder.finish(self.large.cutting, sink)?;
        let still = !moving && is_same_content(&stat, &self.large.file.stat()?);
        let entry = Entry { path: self.large.path, metadata: self.large.metadata, node: Node::File(content) };
        Ok(if still { Assembled::Still(entry) } else { Assembled::Changed(entry) })
    }
}
