//! The test world: a memory disk, decorators that count and that fail, seeded randomness, and the suite that
//! every backend must pass. Its doubles are stricter than the real thing. Nothing here is ever shipped, and
//! nothing here knows formats.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod beside;
pub mod conformance;
pub mod disk;
pub mod fault;
pub mod meeting;
pub mod memory;
pub mod mounts;
pub mod process;
pub mod recording;
pub mod schedule;
pub mod seeded;
pub mod stale;
pub mod tree;
pub mod world;

pub use beside::beside;
pub use disk::Disk;
pub use fault::{FaultBackend, FaultMode};
pub use memory::MemoryBackend;
pub use process::{Moment, Process, SkippedSync, Trouble, Troubles};
pub use recording::{Operation, RecordingBackend, Tally};
pub use schedule::{Schedule, Turn};
pub use seeded::{Choices, SeededEntropy, noise, text};
pub use stale::StaleBackend;
