//! What the workers of a capture share, and what each has for itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use copal_chunker::Cutter;
use copal_manifest::entry::{EntryPath, Timestamp};
use copal_source::read::{OpenFile, TreeReader};
use copal_source::scan::FileStat;
use copal_store::ChunkId;
use copal_store::config::Parameters;
use copal_store::session::Session;

use crate::context::Context;
use crate::error::Result;
use crate::storing::chunks::{ChunkStore, Frame, reserve};
use crate::storing::meter::Meter;

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
    pub(super) chunks: ChunkStore<'s>,
    pub(super) buffer: Vec<u8>,
    frame: Frame,
}

impl<'s> Worker<'s> {
    pub(super) fn new(shared: &'s Shared<'s>) -> copal_store::Result<Self> {
        let chunks = ChunkStore::new(shared.session)?;
        Ok(Self { shared, chunks, buffer: Vec::new(), frame: Frame::default() })
    }

    /// Takes a chunk into the frame, unless the repository has it.
    pub(super) fn frame_chunk(&mut self, plain: &[u8]) -> Result<ChunkId> {
        let (id, is_new) = reserve(self.shared.session, plain)?;
        if is_new {
            if self.frame.is_full(self.shared.session, plain.len()) {
                self.chunks.store_frame(&mut self.frame)?;
            }
            self.frame.push(id, plain);
        }
        Ok(id)
    }

    /// Stores what is in the frame.
    pub(super) fn store_frame(&mut self) -> Result<()> {
        Ok(self.chunks.store_frame(&mut self.frame)?)
    }
}
