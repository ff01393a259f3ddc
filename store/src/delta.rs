//! Deltas: the blocks in which a chunk differs from its base, compressed against the base's blocks in the
//! same places.
//!
//! Comparing costs a tenth of compressing, and an updated database page or a changed manifest leaf leaves
//! most blocks alone: only what differs is given to zstd, with as much of the base as its prefix. The payload
//! is a bit map (bit `i % 8` of byte `i / 8`: block `i` differs) and one zstd frame.

use zstd::zstd_safe::{CCtx, DCtx, MAGIC_DICTIONARY};

use crate::{Error, Result};

/// Length of a block in bytes.
const BLOCK_BYTES: usize = 1024;
/// Level of the compression; negative levels ruin deltas, higher ones gain little. Its window holds 512 KiB
/// of base and chunk.
const LEVEL: i32 = 1;
/// A delta is kept when it has at most one part in this many of its plaintext; else the chunk is stored whole
/// and is the next base.
const SHARE_DIVISOR: usize = 4;

/// Encodes deltas, with buffers that are used again.
pub(crate) struct DeltaEncoder {
    context: CCtx<'static>,
    changed: Vec<u8>,
    prefix: Vec<u8>,
}

impl DeltaEncoder {
    pub(crate) fn new() -> Result<Self> {
        let context = CCtx::try_create().ok_or_else(|| codec_error("no memory for a compressor"))?;
        Ok(Self { context, changed: Vec::new(), prefix: Vec::new() })
    }

    /// Encodes into `out` (cleared first); `false`: it does not pay.
    pub(crate) fn encode(&mut self, plain: &[u8], base: &[u8], out: &mut Vec<u8>) -> bool {
        let limit = plain.len() / SHARE_DIVISOR;
        self.changed.clear();
        self.prefix.clear();
        out.clear();
        out.resize(map_bytes(plain.len()), 0);
        for (index, block) in plain.chunks(BLOCK_BYTES).enumerate() {
            let old = block_of(base, index);
            if old.get(..block.len()) != Some(block) {
                out[index / 8] |= 1 << (index % 8);
                self.changed.extend_from_slice(block);
                self.prefix.extend_from_slice(old);
            }
        }
        let map = out.len();
        if map >= limit || is_dictionary(&self.prefix) {
            return false;
        }
        // A delta that does not fit is none: the buffer need not hold more.
        out.resize(limit, 0);
        match self.context.compress_using_dict(&mut out[map..], &self.changed, &self.prefix, LEVEL) {
            Ok(written) => {
                out.truncate(map + written);
                true
            }
            Err(_) => false,
        }
    }
}

/// Decodes deltas, with buffers that are used again.
pub(crate) struct DeltaDecoder {
    context: DCtx<'static>,
    changed: Vec<u8>,
    prefix: Vec<u8>,
}

impl DeltaDecoder {
    pub(crate) fn new() -> Result<Self> {
        let context = DCtx::try_create().ok_or_else(|| codec_error("no memory for a decompressor"))?;
        Ok(Self { context, changed: Vec::new(), prefix: Vec::new() })
    }

    /// Decodes a payload into `out`, whose length is the stated one. Nothing is decompressed past it.
    pub(crate) fn decode(&mut self, payload: &[u8], base: &[u8], out: &mut [u8]) -> Result<()> {
        let (map, frame) = payload
            .split_at_checked(map_bytes(out.len()))
            .ok_or_else(|| codec_error("a delta shorter than its map of blocks"))?;
        let differs = |index: usize| map[index / 8] & (1 << (index % 8)) != 0;
        self.prefix.clear();
        let mut changed_bytes = 0;
        for (index, block) in out.chunks(BLOCK_BYTES).enumerate() {
            if differs(index) {
                changed_bytes += block.len();
                self.prefix.extend_from_slice(block_of(base, index));
            }
        }
        if is_dictionary(&self.prefix) {
            return Err(codec_error("a delta whose prefix cannot be one"));
        }
        self.changed.clear();
        self.changed.resize(changed_bytes, 0);
        let written = self
            .context
            .decompress_using_dict(&mut self.changed[..], frame, &self.prefix)
            .map_err(|code| codec_error(zstd::zstd_safe::get_error_name(code)))?;
        if written != changed_bytes {
            return Err(codec_error("a delta of another length than stated"));
        }
        let mut changed = self.changed.as_slice();
        for (index, block) in out.chunks_mut(BLOCK_BYTES).enumerate() {
            let bytes = block.len();
            let from = if differs(index) {
                let (head, tail) = changed.split_at(bytes);
                changed = tail;
                head
            } else {
                block_of(base, index).get(..bytes).ok_or_else(|| codec_error("a delta beyond the end of its base"))?
            };
            block.copy_from_slice(from);
        }
        Ok(())
    }
}

/// Block `index` of the base; empty beyond its end.
fn block_of(base: &[u8], index: usize) -> &[u8] {
    let from = (index * BLOCK_BYTES).min(base.len());
    &base[from..(from + BLOCK_BYTES).min(base.len())]
}

fn map_bytes(plain_bytes: usize) -> usize {
    plain_bytes.div_ceil(BLOCK_BYTES).div_ceil(8)
}

/// zstd would read such a prefix as a trained dictionary, not as content (RFC 8878, section 5).
fn is_dictionary(prefix: &[u8]) -> bool {
    prefix.starts_with(&MAGIC_DICTIONARY.to_le_bytes())
}

fn codec_error(detail: impl ToString) -> Error {
    Error::damaged("a record", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(plain: &[u8], base: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        DeltaEncoder::new().unwrap().encode(plain, base, &mut out).then_some(out)
    }

    fn decode(payload: &[u8], base: &[u8], bytes: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; bytes];
        DeltaDecoder::new()?.decode(payload, base, &mut out).map(|()| out)
    }

    #[test]
    fn lengths_may_differ_in_both_directions() {
        let base: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        for bytes in [39_999, 39_936, 30_001, 4096, 1025] {
            let payload = delta(&base[..bytes], &base).unwrap();
            assert_eq!(decode(&payload, &base, bytes).unwrap(), &base[..bytes]);
        }
        let longer = [base.as_slice(), &[7; 3000]].concat();
        let payload = delta(&longer, &base).unwrap();
        assert!(payload.len() < 100, "{}", payload.len());
        assert_eq!(decode(&payload, &base, longer.len()).unwrap(), longer);
    }

    #[test]
    fn an_equal_block_beyond_the_base_is_damage() {
        let payload = delta(&[5; 8192], &[5; 8192]).unwrap();
        assert!(decode(&payload, &[5; 8000], 8192).is_err());
        let other = delta(&[6; 8192], &[5; 8192]).unwrap();
        assert!(decode(&other[..1], &[5; 8192], 8192).is_err(), "no frame");
        assert!(decode(&[], &[5; 8192], 8192).is_err(), "no map");
    }

    #[test]
    fn a_prefix_that_zstd_would_take_for_a_dictionary_is_none() {
        let mut base = vec![3; 8192];
        base[..4].copy_from_slice(&MAGIC_DICTIONARY.to_le_bytes());
        let mut plain = base.clone();
        plain[100] = 4;
        assert_eq!(delta(&plain, &base), None);
        plain[100] = 3;
        plain[5000] = 4;
        assert!(delta(&plain, &base).is_some(), "the block with the magic number is equal");
    }
}
