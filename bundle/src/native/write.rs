//! Writes the blocks of a native bundle, and goes on where an interrupted export stopped.

use std::fs::File;
use std::io::{self, Write};

use copal_engine::Error as EngineError;
use copal_store::encoding::Encoder;
use copal_store::location::Encoding;
use copal_store::stream::{ReadAt, SEGMENT_PLAIN_BYTES, StreamKeys, StreamOpener, StreamSealer};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::native::format::{
    BLOCK_BYTES, BLOCK_BYTES_MAX, BLOCK_HEAD_BYTES, BlockKind, Item, OBJECT, RecordHeader, damaged,
};

/// A file that bundles are read from.
#[derive(Debug)]
pub(crate) struct BundleFile(pub(crate) File);

impl ReadAt for BundleFile {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buffer, offset)
    }
}

/// What an interrupted export has written.
pub(crate) struct Begun<'k> {
    opener: StreamOpener<'k, BundleFile>,
    segment: (u64, Vec<u8>),
}

impl<'k> Begun<'k> {
    pub(crate) fn new(opener: StreamOpener<'k, BundleFile>) -> Self {
        Self { opener, segment: (u64::MAX, Vec::new()) }
    }

    fn bytes(&self) -> u64 {
        self.opener.plain_bytes()
    }

    fn read(&mut self, mut at: u64, mut out: &mut [u8]) -> Result<()> {
        while !out.is_empty() {
            let (number, inner) = (at / SEGMENT_PLAIN_BYTES as u64, (at % SEGMENT_PLAIN_BYTES as u64) as usize);
            if self.segment.0 != number {
                self.opener.segment(number, &mut self.segment.1)?;
                self.segment.0 = number;
            }
            let from = self.segment.1.get(inner..).unwrap_or_default();
            let length = from.len().min(out.len());
            if length == 0 {
                return Err(damaged("a segment that is too short").into());
            }
            let (now, later) = out.split_at_mut(length);
            now.copy_from_slice(&from[..length]);
            (out, at) = (later, at + length as u64);
        }
        Ok(())
    }
}

/// Writes blocks.
pub(crate) struct BundleWriter<'k, 'o> {
    sealer: StreamSealer<'k>,
    out: &'o mut dyn Write,
    begun: Option<Begun<'k>>,
    position: u64,
    encoder: Encoder,
    items: Vec<Item>,
    items_bytes: usize,
}

/// What is being written differs from what was: the export begins anew.
pub(crate) fn is_another(error: &Error) -> bool {
    matches!(error, Error::Engine(EngineError::Internal(what)) if what == ANOTHER)
}

const ANOTHER: &str = "the interrupted export was of something else";

impl<'k, 'o> BundleWriter<'k, 'o> {
    /// From the beginning.
    pub(crate) fn new(keys: &'k StreamKeys, out: &'o mut dyn Write) -> Result<Self> {
        let sealer = StreamSealer::new(keys, out).map_err(written)?;
        Self::with(sealer, out, None)
    }

    /// Behind the whole segments that were written; `out` stands there.
    pub(crate) fn resume(keys: &'k StreamKeys, begun: Begun<'k>, out: &'o mut dyn Write) -> Result<Self> {
        let sealer = StreamSealer::resume(keys, begun.bytes() / SEGMENT_PLAIN_BYTES as u64);
        Self::with(sealer, out, Some(begun))
    }

    fn with(sealer: StreamSealer<'k>, out: &'o mut dyn Write, begun: Option<Begun<'k>>) -> Result<Self> {
        let encoder = Encoder::new(3)?;
        Ok(Self { sealer, out, begun, position: 0, encoder, items: Vec::new(), items_bytes: 0 })
    }

    /// Appends bytes; those that were written by the run before are compared with them.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut fresh = bytes;
        if let Some(begun) = &mut self.begun
            && self.position < begun.bytes()
        {
            let known = (begun.bytes() - self.position).min(bytes.len() as u64) as usize;
            let mut before = vec![0; known];
            begun.read(self.position, &mut before)?;
            if before != bytes[..known] {
                return Err(Error::internal(ANOTHER));
            }
            fresh = &bytes[known..];
        }
        self.position += bytes.len() as u64;
        self.sealer.append(fresh, self.out).map_err(written)
    }

    fn block(&mut self, kind: BlockKind, encoding: Encoding, plain_bytes: usize, payload: &[&[u8]]) -> Result<()> {
        let stored: usize = payload.iter().map(|part| part.len()).sum();
        let mut head = [0; BLOCK_HEAD_BYTES];
        (head[0], head[1]) = (kind as u8, encoding as u8);
        head[2..6].copy_from_slice(&(stored as u32).to_le_bytes());
        head[6..].copy_from_slice(&(plain_bytes as u32).to_le_bytes());
        self.append(&head)?;
        payload.iter().try_for_each(|part| self.append(part))
    }

    /// A document of the index, compressed.
    pub(crate) fn document<T: Serialize>(&mut self, kind: BlockKind, document: &T) -> Result<()> {
        let plain = copal_store::codec::encode(document)?;
        if plain.len() > BLOCK_BYTES_MAX {
            return Err(copal_store::Error::Limit {
                what: "a block of the bundle".into(),
                limit: BLOCK_BYTES_MAX as u64,
            }
            .into());
        }
        let mut stored = Vec::new();
        let encoding = self.encoder.encode(&plain, None, &mut stored)?;
        self.block(kind, encoding, plain.len(), &[&stored])
    }

    /// The next item of the index.
    pub(crate) fn item(&mut self, item: Item) -> Result<()> {
        // An estimate: blocks need not be equally long.
        self.items_bytes += match &item {
            Item::Runs(runs) => runs.len() * 24,
            _ => 256,
        };
        self.items.push(item);
        if self.items_bytes >= BLOCK_BYTES { self.end_items() } else { Ok(()) }
    }

    fn end_items(&mut self) -> Result<()> {
        self.items_bytes = 0;
        let items = std::mem::take(&mut self.items);
        if items.is_empty() { Ok(()) } else { self.document(BlockKind::Items, &items) }
    }

    /// Ends the index.
    pub(crate) fn end_index(&mut self) -> Result<()> {
        self.end_items()?;
        self.block(BlockKind::EndOfIndex, Encoding::Raw, 0, &[])
    }

    /// A record, or an error when the run before wrote another one here.
    pub(crate) fn record(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<()> {
        let header = copal_store::codec::encode(header)?;
        let length = (header.len() as u32).to_le_bytes();
        let plain = 4 + header.len() + payload.len();
        self.block(BlockKind::Record, Encoding::Raw, plain, &[&length, &header, payload])
    }

    /// A record that the run before wrote wholly: it is passed over.
    pub(crate) fn skip_record(&mut self) -> Result<Option<RecordHeader>> {
        let Some(begun) = &mut self.begun else { return Ok(None) };
        let at = self.position;
        if at + (BLOCK_HEAD_BYTES + 4) as u64 > begun.bytes() {
            return Ok(None);
        }
        let mut head = [0; BLOCK_HEAD_BYTES + 4];
        begun.read(at, &mut head)?;
        let number =
            |from: usize| u64::from(u32::from_le_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]]));
        let (stored, header_bytes) = (number(2), number(BLOCK_HEAD_BYTES));
        let end = at + BLOCK_HEAD_BYTES as u64 + stored;
        if head[0] != BlockKind::Record as u8 || end > begun.bytes() || header_bytes + 4 > stored {
            return Ok(None);
        }
        let mut header = vec![0; header_bytes as usize];
        begun.read(at + head.len() as u64, &mut header)?;
        self.position = end;
        Ok(Some(copal_store::codec::decode(OBJECT, &header)?))
    }

    /// Ends the bundle; returns its length in bytes.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.block(BlockKind::End, Encoding::Raw, 0, &[])?;
        if let Some(begun) = &self.begun
            && self.position < begun.bytes()
        {
            return Err(Error::internal(ANOTHER));
        }
        let bytes = self.sealer.finish(self.out).map_err(written)?;
        self.out.flush().map_err(written)?;
        Ok(bytes)
    }
}

/// The bundle's file, as an error names it.
pub(crate) fn written(source: io::Error) -> Error {
    copal_source::Error::Io { action: "writing", path: OBJECT.into(), source }.into()
}
