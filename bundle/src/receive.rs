//! Builds snapshots from items: the receiving side of bundles and copies.

use std::collections::HashMap;
use std::iter::Peekable;
use std::sync::Arc;

use copal_engine::create::evidence::is_present;
use copal_engine::storing::stream::{Hints, Ingest, IngestFile};
use copal_manifest::content::{Cutting, FileContent, Piece, Pieces, PiecesBuilder, PlacedPiece};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node};
use copal_manifest::snapshot::{Snapshot, SourceKind};
use copal_manifest::tree::{EntryIter, NodeSink, TreeBuilder, TreeReader, TreeRoot};
use copal_store::ChunkId;
use copal_store::secret::INSTANCE_KEY;
use copal_store::session::{ChunkSource, Session};

use crate::error::Result;
use crate::native::format::{CuttingDocument, EntryDocument, INLINE_BYTES_MAX, Item, NodeDocument, Run, damaged, path};
use crate::walk::same_label;

/// Where the chunks of items come from.
pub(crate) trait ChunkContents {
    /// The plaintext of a chunk, verified.
    fn chunk(&self, ordinal: u32) -> Result<Arc<Vec<u8>>>;
    /// The chunk that this one is a delta of there.
    fn base_of(&self, ordinal: u32) -> Option<u32>;
}

/// One source, built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Built {
    pub(crate) tree: TreeRoot,
    pub(crate) files: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Takes the items of one snapshot.
pub(crate) struct Receiver<'r, 's> {
    session: &'s Session,
    contents: &'r dyn ChunkContents,
    base: Option<&'r Snapshot>,
    /// The snapshot as it stands at the other side.
    snapshot: &'r Snapshot,
    same_cuts: bool,
    boundary_key: [u8; 32],
    known: &'r mut HashMap<u32, ChunkId>,
    built: Vec<Built>,
    source: Option<SourceBuild<'s>>,
    file: Option<FileState<'s>>,
    /// The file of the base that was read last.
    last_read: Option<((u32, EntryPath), FileContent)>,
    ended: bool,
}

/// A file whose runs arrive.
struct FileState<'s> {
    path: EntryPath,
    metadata: Metadata,
    left: u64,
    offset: u64,
    how: How<'s>,
}

enum How<'s> {
    /// Its chunks are kept.
    Kept { builder: PiecesBuilder, cutting: Cutting, hints: Box<Hints> },
    /// It is cut again.
    Cut(Box<IngestFile<'s>>),
    /// A secret, wrapped again.
    Secret(FileContent),
}

impl<'r, 's> Receiver<'r, 's> {
    pub(crate) fn new(
        session: &'s Session,
        contents: &'r dyn ChunkContents,
        base: Option<&'r Snapshot>,
        snapshot: &'r Snapshot,
        same_cuts: bool,
        known: &'r mut HashMap<u32, ChunkId>,
    ) -> Self {
        Self {
            session,
            contents,
            base,
            snapshot,
            same_cuts,
            boundary_key: *session.repository().keys().tree_boundary_key(),
            known,
            built: Vec::new(),
            source: None,
            file: None,
            last_read: None,
            ended: false,
        }
    }

    /// The sources, when the last item was taken.
    pub(crate) fn finish(self) -> Result<Vec<Built>> {
        if self.ended && self.built.len() == self.snapshot.sources.len() {
            Ok(self.built)
        } else {
            Err(damaged("the items of a snapshot do not end").into())
        }
    }

    /// Takes the next item.
    pub(crate) fn take(&mut self, item: Item, ingest: &mut Ingest<'s>) -> Result<()> {
        if self.ended || (self.file.is_some() && !matches!(item, Item::Runs(_))) {
            return Err(damaged("an item where none can be").into());
        }
        match item {
            Item::Source(number) => self.begin_source(number, ingest),
            Item::Put(document) => self.put(&document, ingest),
            Item::Runs(runs) => runs.into_iter().try_for_each(|run| self.run(run, ingest)),
            Item::Remove(key) => {
                let key = path(&key)?;
                let session = self.session;
                self.source_mut()?.skip_to(&key, session, ingest)
            }
            Item::EndSnapshot => {
                self.end_source(ingest)?;
                self.ended = true;
                Ok(())
            }
        }
    }

    fn source_mut(&mut self) -> Result<&mut SourceBuild<'s>> {
        self.source.as_mut().ok_or_else(|| damaged("an entry outside any source").into())
    }

    fn begin_source(&mut self, number: u32, ingest: &mut Ingest<'s>) -> Result<()> {
        self.end_source(ingest)?;
        let record = self.snapshot.sources.get(number as usize).filter(|_| number as usize == self.built.len());
        let record = record.ok_or_else(|| damaged("its sources are not those of its snapshot"))?;
        let base = self.base.and_then(|base| same_label(base, record));
        self.source = Some(SourceBuild {
            builder: TreeBuilder::new(&self.boundary_key),
            kind: record.kind,
            base: base.map(|(_, base)| TreeReader::new(self.session, base.tree).entries().peekable()),
            files: 0,
            entries: 0,
            bytes: 0,
        });
        Ok(())
    }

    fn end_source(&mut self, ingest: &mut Ingest<'s>) -> Result<()> {
        if let Some(mut source) = self.source.take() {
            source.copy_before(None, self.session, ingest)?;
            let tree = source.builder.finish(ingest.sink())?;
            let (files, entries, bytes) = (source.files, source.entries, source.bytes);
            self.built.push(Built { tree, files, entries, bytes });
        }
        Ok(())
    }

    fn put(&mut self, document: &EntryDocument, ingest: &mut Ingest<'s>) -> Result<()> {
        let (path, metadata) = (document.path()?, document.metadata());
        let node = document.node()?;
        let session = self.session;
        let source = self.source_mut()?;
        let before = source.skip_and_take(&path, session, ingest)?;
        let NodeDocument::File { bytes, cutting } = document.node else {
            let node = node.ok_or_else(|| damaged("an entry that is nothing"))?;
            return source.push(&Entry { path, metadata, node }, ingest.sink());
        };
        let is_secret = source.kind == SourceKind::Secret;
        let kept = match cutting {
            CuttingDocument::Small => Some(Cutting::Small),
            CuttingDocument::Content if self.same_cuts => Some(Cutting::Content),
            CuttingDocument::Fixed(unit) if unit == ingest.page_bytes() => Some(Cutting::Fixed(unit)),
            _ => None,
        };
        let how = match kept {
            Some(cutting) => How::Kept { builder: PiecesBuilder::new(), cutting, hints: Box::new(Hints::new(before)) },
            None => How::Cut(Box::new(ingest.file(before))),
        };
        self.file = Some(FileState { path, metadata, left: bytes, offset: 0, how });
        if bytes == 0 && !is_secret { self.end_file(ingest) } else { Ok(()) }
    }

    fn run(&mut self, run: Run, ingest: &mut Ingest<'s>) -> Result<()> {
        let mut file = self.file.take().ok_or_else(|| damaged("runs of no file"))?;
        let bytes = run.bytes();
        if let Run::Secret(secret) = &run {
            if secret.len() > INLINE_BYTES_MAX || file.offset > 0 {
                return Err(damaged("a secret that cannot be").into());
            }
            file.how = How::Secret(self.secret(secret, ingest)?);
            file.left = 0;
            self.file = Some(file);
            return self.end_file(ingest);
        }
        if bytes == 0 || bytes > file.left {
            return Err(damaged("runs that are longer than their file").into());
        }
        match run {
            Run::Hole { bytes } => match &mut file.how {
                How::Kept { builder, .. } => builder.push(Piece::Hole { bytes }, ingest.sink())?,
                How::Cut(cut) => cut.hole(bytes, ingest)?,
                How::Secret(_) => return Err(damaged("a hole in a secret").into()),
            },
            Run::Chunk { ordinal, bytes } => self.chunk(&mut file, ordinal, bytes, ingest)?,
            Run::Base { source, path: key, offset, bytes } => {
                let from = match key {
                    Some(key) => path(&key)?,
                    None => file.path.clone(),
                };
                self.take_from_base(&mut file, source, from, offset, bytes, ingest)?;
            }
            Run::Secret(_) => {}
        }
        file.left -= bytes;
        file.offset += bytes;
        let ended = file.left == 0;
        self.file = Some(file);
        if ended { self.end_file(ingest) } else { Ok(()) }
    }

    fn chunk(&mut self, file: &mut FileState<'s>, ordinal: u32, bytes: u32, ingest: &mut Ingest<'s>) -> Result<()> {
        if let (How::Kept { builder, .. }, Some(id)) = (&mut file.how, self.known.get(&ordinal)) {
            return Ok(builder.push(Piece::Chunk { id: *id, bytes }, ingest.sink())?);
        }
        let plain = self.contents.chunk(ordinal)?;
        if plain.len() != bytes as usize {
            return Err(damaged("a chunk of another length than its run").into());
        }
        match &mut file.how {
            How::Kept { builder, cutting, hints } => {
                let id = if *cutting == Cutting::Small {
                    ingest.small_chunk(&plain)?
                } else {
                    let like = self.contents.base_of(ordinal).and_then(|base| self.known.get(&base).copied());
                    ingest.chunk(plain.to_vec(), file.offset, like, hints)?
                };
                self.known.insert(ordinal, id);
                Ok(builder.push(Piece::Chunk { id, bytes }, ingest.sink())?)
            }
            How::Cut(cut) => Ok(cut.data(&plain, ingest)?),
            How::Secret(_) => Err(damaged("a chunk in a secret").into()),
        }
    }

    /// Bytes of a file of the base.
    fn take_from_base(
        &mut self,
        file: &mut FileState<'s>,
        source: u32,
        from: EntryPath,
        offset: u64,
        bytes: u64,
        ingest: &mut Ingest<'s>,
    ) -> Result<()> {
        let session = self.session;
        let content = self.base_content(source, from)?;
        let end = offset.checked_add(bytes).filter(|end| *end <= content.bytes);
        let end = end.ok_or_else(|| damaged("a run behind the end of the base's file"))?;
        let mut position = file.offset;
        for placed in content.pieces(session, offset, end) {
            let PlacedPiece { offset: at, piece } = placed?;
            let (begin, stop) = (at.max(offset), (at + piece.bytes()).min(end));
            let (length, whole) = (stop - begin, stop - begin == piece.bytes());
            match (piece, &mut file.how) {
                (Piece::Hole { .. }, How::Kept { builder, .. }) => {
                    builder.push(Piece::Hole { bytes: length }, ingest.sink())?;
                }
                (Piece::Hole { .. }, How::Cut(cut)) => cut.hole(length, ingest)?,
                (Piece::Chunk { id, .. }, How::Kept { builder, .. }) if whole && session.contains(&id)? => {
                    builder.push(piece, ingest.sink())?;
                }
                (Piece::Chunk { id, .. }, how) => {
                    let plain = session.read_chunk(&id)?;
                    let part = plain
                        .get((begin - at) as usize..(stop - at) as usize)
                        .ok_or_else(|| damaged("a chunk of the base that is shorter than it should be"))?;
                    match how {
                        How::Cut(cut) => cut.data(part, ingest)?,
                        How::Kept { builder, hints, .. } => {
                            let id = ingest.chunk(part.to_vec(), position, None, hints)?;
                            builder.push(Piece::Chunk { id, bytes: part.len() as u32 }, ingest.sink())?;
                        }
                        How::Secret(_) => return Err(damaged("a run in a secret").into()),
                    }
                }
                (Piece::Hole { .. }, How::Secret(_)) => return Err(damaged("a run in a secret").into()),
            }
            position += length;
        }
        Ok(())
    }

    fn base_content(&mut self, source: u32, from: EntryPath) -> Result<FileContent> {
        let key = (source, from);
        if let Some((last, content)) = &self.last_read
            && *last == key
        {
            return Ok(content.clone());
        }
        let base = self.base.ok_or_else(|| damaged("a run of a base that there is not"))?;
        let record = base.sources.get(source as usize);
        let record = record.ok_or_else(|| damaged("a run of a source that the base lacks"))?;
        let entry = TreeReader::new(self.session, record.tree).get(&key.1)?;
        let Some(Entry { node: Node::File(content), .. }) = entry else {
            return Err(damaged(format!("the base has no file {}", key.1)).into());
        };
        self.last_read = Some((key, content.clone()));
        Ok(content)
    }

    fn secret(&self, secret: &[u8], ingest: &mut Ingest<'s>) -> Result<FileContent> {
        let wrapped = self.session.repository().wrap_secret(INSTANCE_KEY, secret)?;
        let id = ingest.small_chunk(&wrapped)?;
        let bytes = wrapped.len() as u32;
        let pieces = Pieces::Inline(vec![Piece::Chunk { id, bytes }]);
        Ok(FileContent { bytes: bytes.into(), cutting: Cutting::Small, pieces })
    }

    fn end_file(&mut self, ingest: &mut Ingest<'s>) -> Result<()> {
        let Some(FileState { path, metadata, how, .. }) = self.file.take() else { return Ok(()) };
        let content = match how {
            How::Kept { builder, cutting, .. } => builder.finish(cutting, ingest.sink())?,
            How::Cut(cut) => cut.finish(ingest)?,
            How::Secret(content) => content,
        };
        let entry = Entry { path, metadata, node: Node::File(content) };
        self.source_mut()?.push(&entry, ingest.sink())
    }
}

/// A tree of entries that is being built beside that of the base.
struct SourceBuild<'s> {
    builder: TreeBuilder,
    kind: SourceKind,
    base: Option<Peekable<EntryIter<'s>>>,
    files: u64,
    entries: u64,
    bytes: u64,
}

impl<'s> SourceBuild<'s> {
    /// Takes over what the base has before a path (all that is left without one). Each chunk is looked up:
    /// the base may have been deleted, collected and put back.
    fn copy_before(&mut self, limit: Option<&EntryPath>, session: &'s Session, ingest: &mut Ingest<'s>) -> Result<()> {
        loop {
            let Some(base) = &mut self.base else { return Ok(()) };
            let entry = match base.peek() {
                None => return Ok(()),
                Some(Ok(entry)) if limit.is_some_and(|limit| entry.path >= *limit) => return Ok(()),
                Some(_) => base.next(),
            };
            let Some(entry) = entry else { return Ok(()) };
            let mut entry = entry?;
            if let Node::File(content) = &entry.node
                && !is_present(session, content)?
            {
                entry.node = Node::File(stored_again(session, content, ingest)?);
            }
            self.push(&entry, ingest.sink())?;
        }
    }

    fn skip_to(&mut self, path: &EntryPath, session: &'s Session, ingest: &mut Ingest<'s>) -> Result<()> {
        self.skip_and_take(path, session, ingest).map(drop)
    }

    /// Takes over what the base has before a path and passes over the path itself; returns the content of a
    /// file there.
    fn skip_and_take(
        &mut self,
        path: &EntryPath,
        session: &'s Session,
        ingest: &mut Ingest<'s>,
    ) -> Result<Option<FileContent>> {
        self.copy_before(Some(path), session, ingest)?;
        let Some(base) = &mut self.base else { return Ok(None) };
        match base.next_if(|entry| matches!(entry, Ok(entry) if entry.path == *path)) {
            Some(Ok(Entry { node: Node::File(content), .. })) => Ok(Some(content)),
            _ => Ok(None),
        }
    }

    fn push(&mut self, entry: &Entry, sink: &mut dyn NodeSink) -> Result<()> {
        self.builder.push(entry, sink)?;
        self.entries += 1;
        self.files += u64::from(entry.node != Node::Directory);
        if let Node::File(content) = &entry.node {
            self.bytes = self.bytes.saturating_add(content.bytes);
        }
        Ok(())
    }
}

/// Chunks that a collection is about to take away are stored again, as they are.
fn stored_again<'s>(session: &'s Session, content: &FileContent, ingest: &mut Ingest<'s>) -> Result<FileContent> {
    let mut builder = PiecesBuilder::new();
    let mut hints = Hints::new(None);
    for placed in content.pieces(session, 0, content.bytes) {
        let PlacedPiece { offset, piece } = placed?;
        if let Piece::Chunk { id, .. } = piece
            && !session.contains(&id)?
        {
            ingest.chunk(session.read_chunk(&id)?, offset, None, &mut hints)?;
        }
        builder.push(piece, ingest.sink())?;
    }
    Ok(builder.finish(content.cutting, ingest.sink())?)
}
