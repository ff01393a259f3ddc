//! A Bloom filter over chunk ids (Bloom 1970; double hashing after Kirsch and Mitzenmacher 2006). Ids are
//! keyed hashes, so their own bytes serve as the hashes. Ten bits an id and seven probes: under 1% of absent
//! ids pass.

use crate::ids::ChunkId;

const BITS_PER_ID: usize = 10;
const PROBES: u64 = 7;

/// The length of a filter for so many ids.
pub(super) fn bytes_for(ids: u64) -> u64 {
    ids.saturating_mul(BITS_PER_ID as u64).div_ceil(8).max(8)
}

/// A filter for so many ids.
pub(super) fn build<'a>(ids: impl ExactSizeIterator<Item = &'a ChunkId>) -> Vec<u8> {
    let mut bits = vec![0u8; bytes_for(ids.len() as u64) as usize];
    for id in ids {
        for bit in probes(id, bits.len()) {
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    bits
}

/// Whether an id may be among those the filter was built from.
pub(super) fn may_contain(bits: &[u8], id: &ChunkId) -> bool {
    !bits.is_empty() && probes(id, bits.len()).all(|bit| bits[bit / 8] & (1 << (bit % 8)) != 0)
}

fn probes(id: &ChunkId, bytes: usize) -> impl Iterator<Item = usize> {
    let word = |at: usize| u64::from_le_bytes(id.0[at..at + 8].try_into().unwrap_or_default());
    let (first, second) = (word(8), word(16) | 1);
    let bits = bytes as u64 * 8;
    (0..PROBES).map(move |probe| (first.wrapping_add(probe.wrapping_mul(second)) % bits) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(from: u32, count: u32) -> Vec<ChunkId> {
        (from..from + count).map(|number| ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())).collect()
    }

    #[test]
    fn what_is_in_passes_and_little_else_does() {
        let inside = ids(0, 10_000);
        let bits = build(inside.iter());
        assert!(inside.iter().all(|id| may_contain(&bits, id)));
        let wrong = ids(10_000, 10_000).iter().filter(|id| may_contain(&bits, id)).count();
        assert!(wrong < 150, "{wrong} of 10,000 absent ids passed");
    }
}
