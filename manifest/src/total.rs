//! Sums of numbers that somebody else may have written.

/// The sum; where it is more than there can be, as much as there can be.
pub fn total(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, u64::saturating_add)
}
