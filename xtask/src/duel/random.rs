//! A seeded generator: the same seed gives the same workload on every machine.

/// SplitMix64: small, fast, and its streams for neighbouring seeds have nothing in common.
pub(super) struct Random(u64);

/// Words of the generated text; as many as a plain vocabulary has, so that it compresses as text does.
const VOCABULARY_WORDS: u64 = 6_000;

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Below `limit`, which is not zero.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Evenly between the two on a logarithmic scale: many small, few large.
    pub(super) fn size_between(&mut self, least: u64, most: u64) -> u64 {
        let share = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (least as f64 * (most as f64 / least as f64).powf(share)) as u64
    }

    pub(super) fn noise(&mut self, bytes: usize) -> Vec<u8> {
        let mut noise = Vec::with_capacity(bytes + 8);
        while noise.len() < bytes {
            noise.extend_from_slice(&self.next().to_le_bytes());
        }
        noise.truncate(bytes);
        noise
    }

    /// Lines of words; frequent words are frequent.
    pub(super) fn text(&mut self, bytes: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes + 16);
        let mut line = 0;
        while text.len() < bytes {
            let pick = self.next();
            // The product of two shares favours low ranks, about as Zipf's law does.
            let rank = ((pick & 0xffff_ffff) * (pick >> 32)) >> 32;
            word((rank * VOCABULARY_WORDS) >> 32, &mut text);
            line += 1;
            text.push(if line % 11 == 0 { b'\n' } else { b' ' });
        }
        text.truncate(bytes);
        text
    }
}

/// The word of a rank: one to four syllables, the rarer the longer.
fn word(rank: u64, out: &mut Vec<u8>) {
    const SYLLABLES: [&[u8]; 20] = [
        b"ra", b"ten", b"lo", b"mis", b"ka", b"du", b"ver", b"si", b"po", b"nal", b"et", b"ir", b"com", b"be", b"st",
        b"us", b"el", b"an", b"or", b"qui",
    ];
    let mut left = rank + 1;
    while left > 0 {
        out.extend_from_slice(SYLLABLES[(left % 20) as usize]);
        left /= 20;
    }
}
