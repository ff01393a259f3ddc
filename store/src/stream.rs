//! A sealed stream under a passphrase of its own: what a bundle is made of. It knows nothing of what is in
//! it.
//!
//! Header (112 bytes, clear): envelope of the kind [`BUNDLE_KIND`] | Argon2id costs (3 × u32) | salt (32) |
//! commitment (32) | zeros (4). Then segments of 64 KiB of plaintext, each between its nonce and its tag; the
//! last one may be shorter. The associated data is the hash of the header, the segment's number and whether
//! it is the last: none can be moved, dropped or cut off. Zeros at the end bring the whole onto the grid of
//! lengths. As neither cipher commits to its key, the commitment is compared before anything is opened.
//!
//! An interrupted stream is gone on with under its key, and what is sealed at a place then may differ from
//! what was sealed there before: on a disk that was cut off, or in a copy that somebody took. So a nonce is a
//! keyed hash of the plaintext and its place: two plaintexts never share one. In version 1, which is only
//! read, it was the place alone.

use std::io::Write;

use zeroize::Zeroizing;

use crate::config::CipherSuite;
use crate::entropy::Entropy;
use crate::envelope::{ENVELOPE_BYTES, FIRST_VERSION, MAGIC};
use crate::keys::{Cipher, Domain, StretchCost, TAG_BYTES, nonce, stretch_password};
use crate::padding::on_grid;
use crate::{Error, Result};

/// The kind byte of a bundle's envelope.
pub const BUNDLE_KIND: u8 = 0x20;
/// Plaintext of one segment in bytes.
pub const SEGMENT_PLAIN_BYTES: usize = 64 << 10;
/// Length of the header in bytes.
pub const STREAM_HEADER_BYTES: usize = ENVELOPE_BYTES + 12 + 32 + 32 + 4;

/// The version that is written.
const STREAM_VERSION: u8 = 2;
/// 96 bits: of 2^28 segments of 64 KiB (16 TiB) two share a nonce with a chance of 2^-41.
const NONCE_BYTES: usize = 12;
const OBJECT: &str = "the bundle";
const COMMITMENT: &str = "copal v1 bundle commitment";
const SEGMENTS_V1: &str = "copal v1 bundle segments";
const SEGMENTS: &str = "copal v2 bundle segments";
const NONCES: &str = "copal v2 bundle nonces";
const CHECKS: &str = "copal v1 bundle checks";

/// The header and the keys of one stream.
pub struct StreamKeys {
    header: [u8; STREAM_HEADER_BYTES],
    bound: [u8; 32],
    cipher: Cipher,
    nonces: Zeroizing<[u8; 32]>,
    checks: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for StreamKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamKeys(…)")
    }
}

impl StreamKeys {
    /// Keys of a new stream.
    pub fn generate(entropy: &dyn Entropy, suite: CipherSuite, password: &[u8], cost: StretchCost) -> Result<Self> {
        let mut header = [0; STREAM_HEADER_BYTES];
        header[..6].copy_from_slice(&MAGIC);
        (header[6], header[7], header[8]) = (BUNDLE_KIND, STREAM_VERSION, suite as u8);
        entropy.fill(&mut header[16..ENVELOPE_BYTES])?;
        for (place, number) in [cost.memory_kib, cost.passes, cost.lanes].into_iter().enumerate() {
            header[ENVELOPE_BYTES + place * 4..][..4].copy_from_slice(&number.to_le_bytes());
        }
        entropy.fill(&mut header[44..76])?;
        let stretched = stretched(&header, password, cost)?;
        header[76..108].copy_from_slice(&blake3::derive_key(COMMITMENT, &*stretched));
        Self::new(header, suite, &stretched)
    }

    /// Opens a header. [`Error::WrongKey`]: another passphrase.
    pub fn open(header: &[u8], password: &[u8]) -> Result<Self> {
        let header: [u8; STREAM_HEADER_BYTES] =
            header.first_chunk().copied().ok_or_else(|| Error::damaged(OBJECT, "it is shorter than its header"))?;
        let (suite, cost) = checked(&header)?;
        let stretched = stretched(&header, password, cost)?;
        if header[76..108] != blake3::derive_key(COMMITMENT, &*stretched) {
            return Err(Error::WrongKey);
        }
        Self::new(header, suite, &stretched)
    }

    fn new(header: [u8; STREAM_HEADER_BYTES], suite: CipherSuite, stretched: &[u8; 32]) -> Result<Self> {
        let derived = |context| Zeroizing::new(blake3::derive_key(context, stretched));
        let key = derived(if header[7] == FIRST_VERSION { SEGMENTS_V1 } else { SEGMENTS });
        let cipher = Cipher::new(suite, &key)?;
        let (nonces, checks) = (derived(NONCES), derived(CHECKS));
        Ok(Self { bound: *blake3::hash(&header).as_bytes(), header, cipher, nonces, checks })
    }

    /// The clear beginning.
    #[must_use]
    pub fn header(&self) -> &[u8; STREAM_HEADER_BYTES] {
        &self.header
    }

    /// A keyed hash of something that is in the stream: compared when it is read again.
    #[must_use]
    pub fn check(&self, plain: &[u8]) -> [u8; 16] {
        let mut check = [0; 16];
        check.copy_from_slice(&blake3::keyed_hash(&self.checks, plain).as_bytes()[..16]);
        check
    }

    /// Whether an interrupted stream may be gone on with: not in version 1, where what was sealed at a place
    /// and what would be now share a nonce.
    #[must_use]
    pub fn can_go_on(&self) -> bool {
        self.header[7] == STREAM_VERSION
    }

    /// A whole segment as stored, in bytes.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        SEGMENT_PLAIN_BYTES as u64 + self.layout().added_bytes()
    }

    fn layout(&self) -> Layout {
        if self.can_go_on() { Layout::NonceStored } else { Layout::NonceOfPlace }
    }

    fn seal(&self, number: u64, last: bool, plain: &[u8]) -> Result<Vec<u8>> {
        if !self.can_go_on() {
            return Err(Error::damaged(OBJECT, "it is of a version that nothing is sealed in any more"));
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.nonces);
        hasher.update(&number.to_le_bytes()).update(&[u8::from(last)]).update(plain);
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&hasher.finalize().as_bytes()[..NONCE_BYTES]);
        let mut segment = Vec::with_capacity(NONCE_BYTES + plain.len() + TAG_BYTES);
        segment.extend_from_slice(&nonce);
        segment.extend_from_slice(plain);
        let tag = self.cipher.seal(nonce, &self.bound_to(number, last), &mut segment[NONCE_BYTES..])?;
        segment.extend_from_slice(&tag);
        Ok(segment)
    }

    /// Opens a stored segment in place; `None`: it does not verify.
    fn open_segment(&self, number: u64, last: bool, segment: &mut Vec<u8>) -> Option<()> {
        let opened = match self.layout() {
            Layout::NonceOfPlace => {
                let nonce = nonce(if last { Domain::Footer } else { Domain::Part }, number);
                self.cipher.open(nonce, &self.bound, segment)?
            }
            Layout::NonceStored => {
                let nonce = *segment.first_chunk::<NONCE_BYTES>()?;
                segment.drain(..NONCE_BYTES);
                self.cipher.open(nonce, &self.bound_to(number, last), segment)?
            }
        };
        segment.truncate(opened);
        Some(())
    }

    fn bound_to(&self, number: u64, last: bool) -> Vec<u8> {
        [&self.bound[..], &number.to_le_bytes(), &[u8::from(last)]].concat()
    }
}

/// What stands around a segment's ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Version 1.
    NonceOfPlace,
    NonceStored,
}

impl Layout {
    fn added_bytes(self) -> u64 {
        match self {
            Self::NonceOfPlace => TAG_BYTES as u64,
            Self::NonceStored => (NONCE_BYTES + TAG_BYTES) as u64,
        }
    }

    /// Plaintext and whole length of a stream that has at least so much plaintext.
    fn padded_lengths(self, plain: u64) -> (u64, u64) {
        let segments = plain.div_ceil(SEGMENT_PLAIN_BYTES as u64).max(1);
        let mut bytes = on_grid(STREAM_HEADER_BYTES as u64 + plain + segments * self.added_bytes());
        loop {
            match self.plain_bytes(bytes) {
                Some(fits) if fits >= plain => return (fits, bytes),
                _ => bytes = on_grid(bytes + 1),
            }
        }
    }

    /// The plaintext of a stream of some length; `None`: no stream has this length.
    fn plain_bytes(self, bytes: u64) -> Option<u64> {
        let body = bytes.checked_sub(STREAM_HEADER_BYTES as u64)?;
        let whole = SEGMENT_PLAIN_BYTES as u64 + self.added_bytes();
        let segments = body.div_ceil(whole);
        let last = body.checked_sub(segments.checked_sub(1)? * whole)?;
        (last > self.added_bytes()).then(|| body - segments * self.added_bytes())
    }
}

/// Whether bytes begin as a bundle does.
#[must_use]
pub fn is_stream(beginning: &[u8]) -> bool {
    beginning.starts_with(&MAGIC) && beginning.get(6) == Some(&BUNDLE_KIND)
}

fn checked(header: &[u8; STREAM_HEADER_BYTES]) -> Result<(CipherSuite, StretchCost)> {
    let damaged = |detail: &str| Error::damaged(OBJECT, detail);
    if header[..6] != MAGIC {
        return Err(damaged("it does not begin as a bundle of Copal"));
    }
    if header[7] > STREAM_VERSION {
        let (found, supported) = (u32::from(header[7]), u32::from(STREAM_VERSION));
        return Err(Error::Unsupported { what: OBJECT.into(), found, supported });
    }
    if header[6] != BUNDLE_KIND || header[7] == 0 || header[9..16] != [0; 7] || header[108..] != [0; 4] {
        return Err(damaged("its header is not that of a bundle"));
    }
    let suite = match header[8] {
        1 => CipherSuite::Aes256Gcm,
        2 => CipherSuite::ChaCha20Poly1305,
        _ => return Err(damaged("its header names no known cipher")),
    };
    let number = |place: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[ENVELOPE_BYTES + place * 4..][..4]);
        u32::from_le_bytes(bytes)
    };
    Ok((suite, StretchCost { memory_kib: number(0), passes: number(1), lanes: number(2) }))
}

fn stretched(header: &[u8; STREAM_HEADER_BYTES], password: &[u8], cost: StretchCost) -> Result<Zeroizing<[u8; 32]>> {
    let mut out = Zeroizing::new([0; 32]);
    // The id too: bundles never share a key, whatever the salt.
    let salt = [&header[44..76], &header[16..ENVELOPE_BYTES]].concat();
    stretch_password(password, &salt, cost, &mut out)?;
    Ok(out)
}

/// Seals a stream, front to back.
pub struct StreamSealer<'k> {
    keys: &'k StreamKeys,
    segment: Vec<u8>,
    number: u64,
}

impl std::fmt::Debug for StreamSealer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamSealer(segment {})", self.number)
    }
}

impl<'k> StreamSealer<'k> {
    /// Writes the header.
    pub fn new(keys: &'k StreamKeys, out: &mut dyn Write) -> std::io::Result<Self> {
        out.write_all(&keys.header)?;
        Ok(Self { keys, segment: Vec::with_capacity(SEGMENT_PLAIN_BYTES), number: 0 })
    }

    /// Goes on behind whole segments that were written before.
    #[must_use]
    pub fn resume(keys: &'k StreamKeys, segments: u64) -> Self {
        Self { keys, segment: Vec::with_capacity(SEGMENT_PLAIN_BYTES), number: segments }
    }

    /// Plaintext so far in bytes.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.number * SEGMENT_PLAIN_BYTES as u64 + self.segment.len() as u64
    }

    /// Appends bytes. A segment is written when the next one begins: the last must be known as such.
    pub fn append(&mut self, mut bytes: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
        while !bytes.is_empty() {
            if self.segment.len() == SEGMENT_PLAIN_BYTES {
                let sealed = self.keys.seal(self.number, false, &self.segment).map_err(std::io::Error::other)?;
                out.write_all(&sealed)?;
                self.segment.clear();
                self.number += 1;
            }
            let room = SEGMENT_PLAIN_BYTES - self.segment.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.segment.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Fills up with zeros to the grid and writes the last segment; returns the length of the whole.
    pub fn finish(mut self, out: &mut dyn Write) -> std::io::Result<u64> {
        let (plain, bytes) = self.keys.layout().padded_lengths(self.plain_bytes());
        let zeros = vec![0; SEGMENT_PLAIN_BYTES];
        while self.plain_bytes() < plain {
            let missing = (plain - self.plain_bytes()).min(SEGMENT_PLAIN_BYTES as u64) as usize;
            self.append(&zeros[..missing], out)?;
        }
        let sealed = self.keys.seal(self.number, true, &self.segment).map_err(std::io::Error::other)?;
        out.write_all(&sealed)?;
        Ok(bytes)
    }
}

/// Bytes at a place: a file.
pub trait ReadAt: Send + Sync {
    /// Reads exactly `buffer.len()` bytes.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

/// Opens segments of a stream anywhere.
pub struct StreamOpener<'k, R> {
    keys: &'k StreamKeys,
    source: R,
    bytes: u64,
    plain_bytes: u64,
}

impl<R> std::fmt::Debug for StreamOpener<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamOpener({} bytes)", self.bytes)
    }
}

impl<'k, R: ReadAt> StreamOpener<'k, R> {
    /// Of a whole stream of so many bytes.
    pub fn new(keys: &'k StreamKeys, source: R, bytes: u64) -> Result<Self> {
        let plain = keys.layout().plain_bytes(bytes).filter(|_| on_grid(bytes) == bytes);
        let plain_bytes = plain.ok_or_else(|| Error::damaged(OBJECT, "it is cut off, or has more than it should"))?;
        Ok(Self { keys, source, bytes, plain_bytes })
    }

    /// Of the whole segments of one that was not ended: all that can be read of an interrupted export.
    pub fn of_unfinished(keys: &'k StreamKeys, source: R, bytes: u64) -> Self {
        let segments = bytes.saturating_sub(STREAM_HEADER_BYTES as u64) / keys.segment_bytes();
        // One byte more than they have: none of them is the last.
        Self { keys, source, bytes: u64::MAX, plain_bytes: segments * SEGMENT_PLAIN_BYTES as u64 }
    }

    /// Plaintext with padding, in bytes.
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// The keys.
    pub fn keys(&self) -> &'k StreamKeys {
        self.keys
    }

    /// Opens the segment of a number into `plain`, which is cleared first.
    pub fn segment(&self, number: u64, plain: &mut Vec<u8>) -> Result<()> {
        let whole = self.keys.segment_bytes();
        let begin = STREAM_HEADER_BYTES as u64 + number * whole;
        let length = self.bytes.saturating_sub(begin).min(whole);
        let last = begin + length == self.bytes;
        plain.clear();
        plain.resize(length as usize, 0);
        self.source.read_exact_at(begin, plain).map_err(|error| Error::io("reading", OBJECT, error))?;
        let opened = self.keys.open_segment(number, last, plain);
        opened.ok_or_else(|| Error::damaged(OBJECT, format!("its bytes from {begin} do not verify")))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a stream is read as it was written or not at all. Method: lengths around every edge, every kind
    //! of tampering.

    use super::*;
    use crate::entropy::OsEntropy;

    const CHEAP: StretchCost = StretchCost { memory_kib: 8, passes: 1, lanes: 1 };

    impl ReadAt for Vec<u8> {
        fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            let from = self.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(from.ok_or(std::io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    fn written(keys: &StreamKeys, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut sealer = StreamSealer::new(keys, &mut out).unwrap();
        for part in plain.chunks(1000) {
            sealer.append(part, &mut out).unwrap();
        }
        let bytes = sealer.finish(&mut out).unwrap();
        assert_eq!((bytes, on_grid(bytes)), (out.len() as u64, bytes));
        out
    }

    fn read(file: Vec<u8>, password: &[u8]) -> Result<Vec<u8>> {
        let keys = StreamKeys::open(&file, password)?;
        let bytes = file.len() as u64;
        let opener = StreamOpener::new(&keys, file, bytes)?;
        let (mut all, mut segment) = (Vec::new(), Vec::new());
        let mut number = 0;
        while (all.len() as u64) < opener.plain_bytes() {
            opener.segment(number, &mut segment)?;
            all.extend_from_slice(&segment);
            number += 1;
        }
        Ok(all)
    }

    #[test]
    fn streams_of_every_length_come_back_padded() {
        let keys = StreamKeys::generate(&OsEntropy, CipherSuite::Aes256Gcm, b"pass", CHEAP).unwrap();
        for length in [0, 1, 4000, 65_535, 65_536, 65_537, 131_072, 262_000, 262_144, 300_000, 1_000_000] {
            let plain: Vec<u8> = (0..length).map(|byte: u32| byte as u8).collect();
            let back = read(written(&keys, &plain), b"pass").unwrap();
            assert_eq!(&back[..plain.len()], plain, "{length}");
            assert!(back[plain.len()..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn tampering_is_noticed() {
        let keys = StreamKeys::generate(&OsEntropy, CipherSuite::ChaCha20Poly1305, b"pass", CHEAP).unwrap();
        let file = written(&keys, &vec![7; 300_000]);
        assert!(matches!(read(file.clone(), b"other"), Err(Error::WrongKey)));
        for position in (0..200).chain((200..file.len()).step_by(4999)) {
            // The costs would be stretched for long: those of a hostile header are bounded elsewhere.
            if (32..44).contains(&position) {
                continue;
            }
            let mut flipped = file.clone();
            flipped[position] ^= 1;
            assert!(read(flipped, b"pass").is_err(), "a flipped bit at {position}");
        }
        for length in [0, 50, 112, 113, 4096, 65_664, 262_144] {
            assert!(read(file[..length].to_vec(), b"pass").is_err(), "cut off at {length}");
        }
        let mut swapped = file.clone();
        let segment = keys.segment_bytes() as usize;
        let (first, second) = swapped[STREAM_HEADER_BYTES..].split_at_mut(segment);
        first.swap_with_slice(&mut second[..segment]);
        assert!(read(swapped, b"pass").is_err());
        let newer = {
            let mut newer = file;
            newer[7] = STREAM_VERSION + 1;
            newer
        };
        assert!(matches!(read(newer, b"pass"), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn a_resumed_stream_is_the_same() {
        let keys = StreamKeys::generate(&OsEntropy, CipherSuite::Aes256Gcm, b"pass", CHEAP).unwrap();
        let plain: Vec<u8> = (0..400_000u32).map(|byte| (byte / 7) as u8).collect();
        let whole = written(&keys, &plain);
        let kept = STREAM_HEADER_BYTES + 3 * keys.segment_bytes() as usize;
        let mut out = whole[..kept].to_vec();
        let unfinished = StreamOpener::of_unfinished(&keys, out.clone(), kept as u64 + 100);
        assert_eq!(unfinished.plain_bytes(), 3 * SEGMENT_PLAIN_BYTES as u64);
        let mut segment = Vec::new();
        unfinished.segment(2, &mut segment).unwrap();
        let mut sealer = StreamSealer::resume(&keys, 3);
        sealer.append(&plain[3 * SEGMENT_PLAIN_BYTES..], &mut out).unwrap();
        sealer.finish(&mut out).unwrap();
        assert_eq!(out, whole);
    }
}
