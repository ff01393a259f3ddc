//! Randomness that a seed decides, so that a failing run can be run again. Never for keys that protect
//! anything.

use std::sync::{Mutex, PoisonError};

use copal_store::Result;
use copal_store::entropy::Entropy;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every state gives another output, so drawn ids do not
/// collide.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Entropy from a seed.
#[derive(Debug)]
pub struct SeededEntropy {
    state: Mutex<u64>,
}

impl SeededEntropy {
    /// The same seed gives the same bytes in the same order of calls.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: Mutex::new(seed) }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for part in buffer.chunks_mut(8) {
            let word = split_mix(&mut state).to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
        Ok(())
    }
}

/// Bytes that no compressor shortens.
#[must_use]
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0xd605_1f5c_3f0a_8e1d);
    let words = std::iter::repeat_with(|| split_mix(&mut state).to_le_bytes()).take(bytes.div_ceil(8));
    words.flatten().take(bytes).collect()
}

/// Bytes that compress to about half.
#[must_use]
pub fn text(seed: u64, bytes: usize) -> Vec<u8> {
    noise(seed, bytes).into_iter().map(|byte| b'a' + byte % 16).collect()
}

/// A stream of choices that a seed decides.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    state: u64,
}

impl Choices {
    /// The same seed gives the same choices.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds begin far apart.
        Self { state: seed.wrapping_mul(0xd605_1f5c_3f0a_8e1d) }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        split_mix(&mut self.state)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// `true` once in so many calls.
    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}
