//! Encodings: raw, zstd, and deltas against a base.
//!
//! Whatever is encoded is decoded again and compared before it counts as stored: a compressor's fault must
//! not become ours.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use crate::delta::{DeltaDecoder, DeltaEncoder};
use crate::location::Encoding;
use crate::{Error, Result};

/// A compressed form is kept when it saves at least one part in this many.
const SAVING_DIVISOR: usize = 32;
/// At this level zstd's table for chunks of 64 KiB is doubled, which gains what level 3 gains at four fifths
/// of its time.
const LARGE_TABLE_LEVEL: i32 = 2;
/// Binary logarithm of that table's entries.
const LARGE_TABLE_LOG: u32 = 16;
/// The sample of the incompressibility test, taken from the middle and both ends.
const SAMPLE_BYTES: usize = 4096;
/// Bits for each byte of the sample, times 100, above which compression is not tried.
const ENTROPY_CENTIBITS_MAX: u64 = 780;

/// Encodes chunks, with contexts and buffers that are used again and again.
pub struct Encoder {
    compressor: Compressor<'static>,
    deltas: DeltaEncoder,
    decoder: Decoder,
    check: Vec<u8>,
    /// A compressor with a fault: one bit of what it gives is wrong.
    #[cfg(test)]
    faulty: bool,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder(…)")
    }
}

impl Encoder {
    /// For a zstd level of whole chunks.
    pub fn new(level: i32) -> Result<Self> {
        let mut compressor = Compressor::new(level).map_err(codec_error)?;
        if level == LARGE_TABLE_LEVEL {
            compressor.set_parameter(CParameter::HashLog(LARGE_TABLE_LOG)).map_err(codec_error)?;
        }
        Ok(Self {
            compressor,
            deltas: DeltaEncoder::new()?,
            decoder: Decoder::new()?,
            check: Vec::new(),
            #[cfg(test)]
            faulty: false,
        })
    }

    /// Encodes into `out` (cleared first): as delta where a base is given and it pays, else zstd, else raw.
    pub fn encode(&mut self, plain: &[u8], base: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Encoding> {
        if let Some(base) = base
            && self.deltas.encode(plain, base, out)
            && self.verifies(Encoding::Delta, plain, Some(base), out)?
        {
            return Ok(Encoding::Delta);
        }
        out.clear();
        if !looks_incompressible(plain) {
            out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
            self.compressor.compress_to_buffer(plain, out).map_err(codec_error)?;
            let pays = out.len() + plain.len() / SAVING_DIVISOR < plain.len();
            if pays && self.verifies(Encoding::Zstd, plain, None, out)? {
                return Ok(Encoding::Zstd);
            }
            out.clear();
        }
        out.extend_from_slice(plain);
        Ok(Encoding::Raw)
    }

    fn verifies(&mut self, encoding: Encoding, plain: &[u8], base: Option<&[u8]>, out: &mut [u8]) -> Result<bool> {
        #[cfg(test)]
        if self.faulty {
            let last = out.len() - 1;
            out[last] ^= 1;
        }
        let plain_bytes = u32::try_from(plain.len()).map_err(|_| codec_error("a chunk beyond its limit"))?;
        Ok(self.decoder.decode(encoding, out, base, plain_bytes, &mut self.check).is_ok() && self.check == plain)
    }
}

/// Decodes payloads, never past the stated length.
pub struct Decoder {
    decompressor: Decompressor<'static>,
    deltas: DeltaDecoder,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder(…)")
    }
}

impl Decoder {
    /// Without any state but its buffers.
    pub fn new() -> Result<Self> {
        Ok(Self { decompressor: Decompressor::new().map_err(codec_error)?, deltas: DeltaDecoder::new()? })
    }

    /// Decodes into `out`, which then has exactly `plain_bytes`; after an error its content means nothing.
    pub fn decode(
        &mut self,
        encoding: Encoding,
        payload: &[u8],
        base: Option<&[u8]>,
        plain_bytes: u32,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        // What is left of an earlier record is overwritten: zeroing it first would cost a tenth of decoding.
        out.resize(plain_bytes as usize, 0);
        self.decode_into(encoding, payload, base, out)
    }

    /// Decodes into a slice, which has exactly the stated length. The decompressor cannot write past it.
    pub fn decode_into(
        &mut self,
        encoding: Encoding,
        payload: &[u8],
        base: Option<&[u8]>,
        out: &mut [u8],
    ) -> Result<()> {
        let wanted = out.len();
        let written = match (encoding, base) {
            (Encoding::Raw, _) if payload.len() == wanted => {
                out.copy_from_slice(payload);
                wanted
            }
            (Encoding::Raw, _) => return Err(codec_error("a record of another length than stated")),
            (Encoding::Zstd, _) => self.decompressor.decompress_to_buffer(payload, &mut *out).map_err(codec_error)?,
            (Encoding::Delta, Some(base)) => {
                self.deltas.decode(payload, base, out)?;
                wanted
            }
            (Encoding::Delta, None) => return Err(codec_error("a delta without its base")),
        };
        if written == wanted { Ok(()) } else { Err(codec_error("a record of another length than stated")) }
    }
}

/// Shannon's entropy of a sample of bytes: a cheap sign of what is compressed, encrypted or random already.
fn looks_incompressible(plain: &[u8]) -> bool {
    if plain.len() < SAMPLE_BYTES {
        return false;
    }
    let mut counts = [0u32; 256];
    let third = SAMPLE_BYTES / 3;
    let middle = plain.len() / 2;
    for run in [&plain[..third], &plain[middle..middle + third], &plain[plain.len() - third..]] {
        for &byte in run {
            counts[usize::from(byte)] += 1;
        }
    }
    let total = f64::from(3 * third as u32);
    let bits: f64 = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = f64::from(count) / total;
            -share * share.log2()
        })
        .sum();
    // A sample of random bytes falls short of 8 bits by about 255 / (2 n ln 2).
    bits * 100.0 > ENTROPY_CENTIBITS_MAX as f64
}

fn codec_error(detail: impl ToString) -> Error {
    Error::damaged("a record", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a fixed generator (xorshift64*), which no compressor shortens.
    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
        };
        (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect()
    }

    fn text(seed: u64, bytes: usize) -> Vec<u8> {
        noise(seed, bytes).into_iter().map(|byte| b'a' + byte % 16).collect()
    }

    fn check(plain: &[u8], base: Option<&[u8]>, expected: Encoding) -> usize {
        let mut encoder = Encoder::new(1).unwrap();
        let (mut out, mut back) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            assert_eq!(encoder.encode(plain, base, &mut out).unwrap(), expected);
            let mut decoder = Decoder::new().unwrap();
            decoder.decode(expected, &out, base, plain.len() as u32, &mut back).unwrap();
            assert_eq!(back, plain);
            for wrong in [0, plain.len() as u32 + 1, plain.len() as u32 - 1] {
                // A delta whose last block is equal can be read at another length; the chunk's id tells.
                let outcome = decoder.decode(expected, &out, base, wrong, &mut back);
                assert!(outcome.is_err() || expected == Encoding::Delta && back != plain);
                assert!(back.len() <= wrong as usize);
            }
        }
        out.len()
    }

    #[test]
    fn the_encoding_follows_the_content() {
        assert_eq!(check(&noise(1, 65_536), None, Encoding::Raw), 65_536);
        assert!(check(&text(2, 65_536), None, Encoding::Zstd) < 40_000);
        assert!(check(&[0; 1_000_000], None, Encoding::Zstd) < 200);
        check(b"x", None, Encoding::Raw);
    }

    #[test]
    fn what_a_faulty_compressor_gives_is_not_stored() {
        let mut encoder = Encoder::new(1).unwrap();
        encoder.faulty = true;
        let base = text(2, 65_536);
        let mut plain = base.clone();
        plain[100..200].copy_from_slice(&noise(4, 100));
        let mut out = Vec::new();
        for base in [None, Some(base.as_slice())] {
            assert_eq!(encoder.encode(&plain, base, &mut out).unwrap(), Encoding::Raw);
            assert_eq!(out, plain);
        }
    }

    #[test]
    fn a_small_change_is_a_small_delta_and_a_large_one_is_none() {
        for bytes in [4096, 65_536, 131_072, 1 << 20, 8 << 20] {
            let base = noise(3, bytes);
            let mut plain = base.clone();
            plain[bytes / 2..bytes / 2 + 100].copy_from_slice(&noise(4, 100));
            assert!(check(&plain, Some(&base), Encoding::Delta) < 100 + 200 + bytes / 2000, "of {bytes} bytes");
            // Content that moves is followed as far as the level's window reaches.
            if bytes <= 256 << 10 {
                plain.rotate_right(1);
                assert!(
                    check(&plain, Some(&base), Encoding::Delta) < 100 + 200 + bytes / 2000,
                    "of {bytes} bytes, shifted"
                );
            }
        }
        check(&noise(5, 65_536), Some(&noise(6, 65_536)), Encoding::Raw);
        check(&text(5, 65_536), Some(&noise(6, 65_536)), Encoding::Zstd);
    }

    #[test]
    fn a_wrong_base_or_a_flipped_bit_is_an_error_or_caught_by_the_id() {
        let base = noise(7, 65_536);
        let mut plain = base.clone();
        plain[100] ^= 1;
        let mut encoder = Encoder::new(1).unwrap();
        let mut out = Vec::new();
        encoder.encode(&plain, Some(&base), &mut out).unwrap();
        let mut back = Vec::new();
        let outcome = Decoder::new().unwrap().decode(Encoding::Delta, &out, Some(&noise(8, 65_536)), 65_536, &mut back);
        assert!(outcome.is_err() || back != plain);
    }
}
