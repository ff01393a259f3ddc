//! The one door to randomness, so that tests can be deterministic.

use std::fmt;

/// A source of cryptographically secure random bytes.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills the buffer; there is no partial success.
    fn fill(&self, buffer: &mut [u8]) -> crate::Result<()>;
}

/// The operating system's generator.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) -> crate::Result<()> {
        getrandom::fill(buffer)
            .map_err(|error| crate::Error::io("reading", "the system's random generator", error.into()))
    }
}
