//! Cuts bytes into chunks by content, under a secret: bytes in, boundaries out. It never sees files, storage
//! or clocks.
//!
//! Cuts depend on content and secret only: not on how the input is split, nor on the processor. With
//! [`Rule::AesWindow`] they also do not depend on what stands before a *hard* cut, so that segments of one
//! file are cut by several threads and the result is that of one. Boundaries are a secret because known
//! boundaries tell which files a repository holds (eprint 2025/532, 2025/558).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod aes_window;
mod gear;
mod page;

pub use page::{HEAD_BYTES, looks_page_structured};

use aes_window::{AesRule, AesRun};
use gear::{GearRule, GearRun};

/// Smallest limit on chunk lengths in bytes.
pub const CHUNK_BYTES_MIN: u32 = 64;
/// Largest limit on chunk lengths in bytes.
pub const CHUNK_BYTES_MAX: u32 = 8 << 20;
/// Files larger than this are cut in segments of this length, in bytes.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// Bytes that must stand before a position for [`Cutter::first_hard_cut`] to judge it.
pub const HARD_CONTEXT_BYTES: usize = aes_window::HARD_DISTANCE_BYTES + aes_window::WINDOW_BYTES;
/// Bytes before a hard cut that [`Cutter::start_after`] is given.
pub const WINDOW_BYTES: usize = aes_window::WINDOW_BYTES;

/// Parameters of content cuts, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Smallest chunk, but for the last of a run and those that end at a hard cut.
    pub min: u32,
    /// Aimed-at mean; a power of two.
    pub average: u32,
    /// Largest chunk.
    pub max: u32,
}

/// Which content rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// AES over a 16-byte window: cuts depend on nothing before the last hard cut.
    AesWindow,
    /// `fastcdc` v2020 with a full secret table: cuts depend on all that came before.
    FastCdc2020,
}

/// Sizes that no cutter can work with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "chunk sizes must be 64 B <= min <= average <= max <= 8 MiB, the average a power of two of at least 256 B, for fastcdc min <= 1 MiB and average <= 4 MiB, all even"
)]
pub struct SizesError;

/// A content cutter under a secret. Shared by threads; its secrets are zeroed when dropped.
#[derive(Clone)]
pub struct Cutter {
    rule: RuleState,
}

#[derive(Clone)]
enum RuleState {
    Aes(Box<AesRule>),
    Gear(GearRule),
}

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cutter(…)")
    }
}

/// A boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes from the start of the run.
    pub offset: u64,
    /// A hard cut: cutting may be resumed here without what came before.
    pub hard: bool,
}

impl Cutter {
    /// Refuses sizes outside the limits.
    pub fn new(rule: Rule, sizes: Sizes, secret: &[u8; 32]) -> Result<Self, SizesError> {
        let sound = CHUNK_BYTES_MIN <= sizes.min
            && sizes.min <= sizes.average
            && sizes.average <= sizes.max
            && sizes.max <= CHUNK_BYTES_MAX
            && sizes.average >= 256
            && sizes.average.is_power_of_two();
        if !sound {
            return Err(SizesError);
        }
        let rule = match rule {
            Rule::AesWindow => RuleState::Aes(Box::new(AesRule::new(sizes, secret))),
            Rule::FastCdc2020 => RuleState::Gear(GearRule::new(sizes, secret)?),
        };
        Ok(Self { rule })
    }

    /// Whether the rule has hard cuts, so that segments can be cut apart from each other.
    #[must_use]
    pub fn has_hard_cuts(&self) -> bool {
        matches!(self.rule, RuleState::Aes(_))
    }

    /// The first hard cut at a position of `bytes` at or after `from`. [`HARD_CONTEXT_BYTES`] must stand
    /// before `from`, or the whole beginning of the file. Always `None` for a rule without hard cuts.
    #[must_use]
    pub fn first_hard_cut(&self, bytes: &[u8], from: usize) -> Option<usize> {
        match &self.rule {
            RuleState::Aes(rule) => rule.first_hard_cut(bytes, from),
            RuleState::Gear(_) => None,
        }
    }

    /// The cuts of a run that begins where a file does.
    #[must_use]
    pub fn start(&self) -> Cuts<'_> {
        self.start_after(&[])
    }

    /// The cuts of a run that begins at a hard cut; `before` are the last [`WINDOW_BYTES`] bytes that stand
    /// before it.
    #[must_use]
    pub fn start_after(&self, before: &[u8]) -> Cuts<'_> {
        let run = match &self.rule {
            RuleState::Aes(rule) => Run::Aes(AesRun::new(rule, before)),
            RuleState::Gear(rule) => Run::Gear(GearRun::new(rule)),
        };
        Cuts { run }
    }
}

/// The state of cutting one run of bytes. Bytes may come in pieces of any length: the cuts are the same.
pub struct Cuts<'c> {
    run: Run<'c>,
}

enum Run<'c> {
    Aes(AesRun<'c>),
    Gear(GearRun<'c>),
}

impl std::fmt::Debug for Cuts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cuts(…)")
    }
}

impl Cuts<'_> {
    /// Feeds the next bytes of the run and appends the cuts that are now certain.
    pub fn feed(&mut self, bytes: &[u8], cuts: &mut Vec<Cut>) {
        match &mut self.run {
            Run::Aes(run) => run.feed(bytes, cuts),
            Run::Gear(run) => run.feed(bytes, cuts),
        }
    }

    /// The end of the run: appends the last cut unless it coincides with the one before or the run is empty.
    pub fn finish(self, cuts: &mut Vec<Cut>) {
        match self.run {
            Run::Aes(run) => run.finish(cuts),
            Run::Gear(run) => run.finish(cuts),
        }
    }
}
