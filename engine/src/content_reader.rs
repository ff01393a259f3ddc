//! A file of a snapshot as a stream of bytes.

use std::io::{self, Read};

use copal_manifest::content::{FileContent, Piece};
use copal_store::session::ChunkSource;

use crate::error::Result;

/// Zeros for holes are written in runs of this many bytes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Reads a file's content piece by piece: one chunk in memory.
pub struct ContentReader<'a> {
    source: &'a dyn ChunkSource,
    pieces: Box<dyn Iterator<Item = copal_store::Result<copal_manifest::content::PlacedPiece>> + 'a>,
    chunk: Vec<u8>,
    taken: usize,
    zeros: u64,
}

impl<'a> ContentReader<'a> {
    /// From the beginning of the file.
    pub fn new(source: &'a dyn ChunkSource, content: &'a FileContent) -> Self {
        Self { source, pieces: content.pieces(source, 0, content.bytes), chunk: Vec::new(), taken: 0, zeros: 0 }
    }

    /// Makes [`Self::available`] non-empty; `false` at the end.
    pub(crate) fn fill(&mut self) -> Result<bool> {
        while self.available().is_empty() {
            match self.pieces.next().transpose()? {
                None => return Ok(false),
                Some(placed) => match placed.piece {
                    Piece::Hole { bytes } => self.zeros = bytes,
                    Piece::Chunk { id, bytes } => {
                        self.chunk = self.source.read_chunk(&id)?;
                        self.taken = 0;
                        if self.chunk.len() as u64 != u64::from(bytes) {
                            return Err(copal_store::Error::damaged(id, "its length is not the manifest's").into());
                        }
                    }
                },
            }
        }
        Ok(true)
    }

    /// What can be taken; empty before the first [`Self::fill`], and at the end.
    pub(crate) fn available(&self) -> &[u8] {
        if self.zeros > 0 {
            let run = usize::try_from(self.zeros).unwrap_or(usize::MAX).min(ZEROS.len());
            &ZEROS[..run]
        } else {
            &self.chunk[self.taken..]
        }
    }

    /// Takes so many of what is available.
    pub(crate) fn consume(&mut self, bytes: usize) {
        if self.zeros > 0 {
            self.zeros -= bytes as u64;
        } else {
            self.taken += bytes;
        }
    }
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.fill().map_err(io::Error::other)? {
            return Ok(0);
        }
        let run = self.available();
        let taken = run.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&run[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}
