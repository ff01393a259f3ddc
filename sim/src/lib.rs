//! The test world: a memory disk, decorators that count and that fail, seeded randomness, and the suite that every backend must
//! pass. Its doubles are stricter than the real thing. Nothing here is ever shipped, and nothing here knows formats.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod conformance;
pub mod fault;
pub mod memory;
pub mod mounts;
pub mod recording;
pub mod seeded;

pub use fault::{FaultBackend, FaultMode};
pub use memory::MemoryBackend;
pub use recording::{Operation, RecordingBackend, Tally};
pub use seeded::{SeededEntropy, noise, text};
