//! Stages the ranges of a standing file that get other bytes: of each range only the blocks that differ.
//!
//! A chunk of a database differs in a page or two. What is put into the journal has to be synced there,
//! copied, and synced again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use copal_source::read::{OpenFile, TreeReader};
use copal_source::target::{TargetFile, TargetMetadata};

use super::journal::{STEP_RANGES_MAX, Step, StepWriter};
use super::plan::Range;
use crate::error::Result;

/// What is compared at once: what a filesystem writes at once.
const BLOCK_BYTES: usize = 4096;
/// Blocks that are equal and lie between two that differ are staged too, up to so many: each run costs a call
/// and a record.
const EQUAL_BLOCKS_MAX: usize = 2;

/// The journal's file of ranges: whoever stages some gets a place at its end.
#[derive(Debug)]
pub(super) struct StagedRanges {
    file: TargetFile,
    end: AtomicU64,
}

impl StagedRanges {
    pub(super) fn new(file: TargetFile) -> Self {
        Self { file, end: AtomicU64::new(0) }
    }

    /// Returns where the bytes stand.
    fn put(&self, bytes: &[u8]) -> Result<u64> {
        let at = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_at(at, bytes)?;
        Ok(at)
    }

    pub(super) fn sync(&self) -> Result<()> {
        Ok(self.file.sync()?)
    }
}

/// A file that is patched. Its steps are written when the last of its bytes is staged.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) reader: TreeReader,
    /// In the open folder of the target.
    pub(super) path: Vec<u8>,
    pub(super) bytes: u64,
    pub(super) holes: Vec<Range>,
    /// The number of its kind and its metadata.
    pub(super) metadata: (u8, TargetMetadata),
    pub(super) ranges: Arc<StagedRanges>,
    pub(super) steps: Arc<Mutex<StepWriter>>,
    pub(super) found: Mutex<Found>,
}

/// What is staged of a file so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    standing: Option<OpenFile>,
    /// Offset, bytes, offset in the journal's file.
    ranges: Vec<(u64, u64, u64)>,
}

impl Patch {
    /// Stages what of `wanted` does not stand at `offset`; `standing` is a buffer.
    pub(super) fn put(&self, offset: u64, wanted: &[u8], standing: &mut Vec<u8>) -> Result<()> {
        let file = self.standing()?;
        standing.resize(wanted.len(), 0);
        let read = file.read_at(offset, standing)?;
        let mut staged = Vec::new();
        for (begin, end) in differing_runs(offset, wanted, &standing[..read]) {
            let at = self.ranges.put(&wanted[begin..end])?;
            staged.push((offset + begin as u64, (end - begin) as u64, at));
        }
        self.found.lock().unwrap_or_else(PoisonError::into_inner).ranges.extend(staged);
        Ok(())
    }

    fn standing(&self) -> Result<OpenFile> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &found.standing {
            return Ok(file.clone());
        }
        let file = self.reader.open_file(&self.path)?;
        found.standing = Some(file.clone());
        Ok(file)
    }

    /// All is staged: writes its steps, one after the other.
    pub(super) fn finish(&self) -> Result<()> {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ranges = found.ranges;
        ranges.sort_unstable();
        let holes: Vec<(u64, u64)> = self.holes.iter().map(|hole| (hole.offset, hole.bytes)).collect();
        let patch = |ranges: &[(u64, u64, u64)], holes: &[(u64, u64)]| Step::Patch {
            path: self.path.clone(),
            bytes: self.bytes,
            ranges: ranges.to_vec(),
            holes: holes.to_vec(),
        };
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        // Also without either: it sets the length.
        if ranges.is_empty() && holes.is_empty() {
            steps.push(&patch(&[], &[]))?;
        }
        for some in ranges.chunks(STEP_RANGES_MAX) {
            steps.push(&patch(some, &[]))?;
        }
        for some in holes.chunks(STEP_RANGES_MAX) {
            steps.push(&patch(&[], some))?;
        }
        let (kind, metadata) = &self.metadata;
        steps.push(&Step::Metadata { path: self.path.clone(), kind: *kind, metadata: metadata.clone().into() })
    }
}

/// Where `wanted`, which belongs at `offset`, is not what stands there, in whole blocks of the file; what
/// stands there may be shorter.
fn differing_runs(offset: u64, wanted: &[u8], standing: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut begin = 0;
    while begin < wanted.len() {
        let to_border = BLOCK_BYTES - ((offset + begin as u64) % BLOCK_BYTES as u64) as usize;
        let end = wanted.len().min(begin + to_border);
        if standing.get(begin..end) != Some(&wanted[begin..end]) {
            match runs.last_mut() {
                Some((_, last)) if begin - *last <= EQUAL_BLOCKS_MAX * BLOCK_BYTES => *last = end,
                _ => runs.push((begin, end)),
            }
        }
        begin = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_differ_are_staged() {
        let standing = vec![7u8; 64 << 10];
        let mut wanted = standing.clone();
        assert_eq!(differing_runs(0, &wanted, &standing), []);
        wanted[5000] = 1;
        wanted[40_960] = 2;
        wanted[45_056] = 3;
        assert_eq!(differing_runs(0, &wanted, &standing), [(4096, 8192), (40_960, 49_152)]);
        // Blocks are the file's, wherever the range begins.
        assert_eq!(differing_runs(4000, &wanted, &standing)[0], (4192, 8288));
        // Two that differ with two equal ones between are one run.
        wanted[20_000] = 4;
        assert_eq!(differing_runs(0, &wanted, &standing)[0], (4096, 20_480));
        // What is not there differs.
        assert_eq!(differing_runs(0, &wanted[..100], &standing[..50]), [(0, 100)]);
        assert_eq!(differing_runs(0, &wanted[..8192], &[]), [(0, 8192)]);
        assert_eq!(differing_runs(0, &[], &[]), []);
    }
}
