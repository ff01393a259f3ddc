//! The grid of object lengths, so that a length says little about what is inside.
//!
//! Below 256 KiB lengths are powers of two from 4 KiB; above, multiples of 1/32 of the next lower power of
//! two (at most 3.2% more; a coarser relative of PADMÉ, Nikitin et al., PETS 2019).

/// Shortest object on the grid in bytes.
pub const GRID_BYTES_MIN: u64 = 4 << 10;
/// From here on lengths are multiples of a 32nd of the lower power of two.
const FINE_FROM_BYTES: u64 = 256 << 10;

/// The least length on the grid that is at least `bytes`.
#[must_use]
pub fn on_grid(bytes: u64) -> u64 {
    if bytes <= FINE_FROM_BYTES {
        return bytes.max(GRID_BYTES_MIN).next_power_of_two();
    }
    let step = 1u64 << (bytes.ilog2() - 5);
    bytes.div_ceil(step).saturating_mul(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_coarse_small_and_idempotent() {
        assert_eq!([on_grid(0), on_grid(4096), on_grid(4097), on_grid(200_000)], [4096, 4096, 8192, 262_144]);
        for bytes in (1..10_000_000u64).step_by(997) {
            let padded = on_grid(bytes);
            assert!(padded >= bytes && on_grid(padded) == padded);
            assert!(bytes < FINE_FROM_BYTES || (padded - bytes) * 31 <= bytes, "{bytes} became {padded}");
        }
        let lengths: std::collections::BTreeSet<u64> = (0..64u64 << 20).step_by(1009).map(on_grid).collect();
        assert!(lengths.len() < 300, "{} lengths are told apart", lengths.len());
    }
}
