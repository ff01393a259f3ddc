//! Cuts bytes into chunks: bytes in, boundaries out. It never sees files, storage or clocks. (Skeleton of the agreed interface.)

/// Parameters of content cuts, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Smallest chunk.
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

/// Distance from which cutters look for a common starting point: files larger than this are cut in segments.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// A content cutter under a secret. Shared by threads.
#[derive(Clone)]
pub struct Cutter {
    _private: (),
}

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cutter(…)")
    }
}

impl Cutter {
    /// Refuses sizes outside the limits.
    pub fn new(_rule: Rule, _sizes: Sizes, _secret: &[u8; 32]) -> Result<Self, SizesError> {
        todo!()
    }
    /// Whether the rule has hard cuts, so that segments can be cut apart from each other.
    #[must_use]
    pub fn has_hard_cuts(&self) -> bool {
        todo!()
    }
    /// The first hard cut in `bytes` at or after `from` (a position; the window needs the 16 bytes before it,
    /// so `from` >= 16, or the true start of the file at 0 which is always one).
    #[must_use]
    pub fn first_hard_cut(&self, _bytes: &[u8], _from: usize) -> Option<usize> {
        todo!()
    }
    /// A stream of cuts that begins at a file start or a hard cut.
    #[must_use]
    pub fn start(&self) -> Cuts {
        todo!()
    }
}

/// The state of cutting one run of bytes. Bytes may come in pieces of any length: the cuts are the same.
#[derive(Debug)]
pub struct Cuts {
    _private: (),
}

/// A boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes from the start of the run.
    pub offset: u64,
    /// A hard cut: cutting may be resumed here without what came before.
    pub hard: bool,
}

impl Cuts {
    /// Feeds the next bytes of the run and appends the cuts that are now certain.
    pub fn feed(&mut self, _bytes: &[u8], _cuts: &mut Vec<Cut>) {
        todo!()
    }
    /// The end of the run: appends the last cut unless it coincides with the one before or the run is empty.
    pub fn finish(self, _cuts: &mut Vec<Cut>) {
        todo!()
    }
}

/// Sizes that no cutter can work with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("chunk sizes must be 64 B <= min <= average <= max <= 8 MiB, the average a power of two")]
pub struct SizesError;
