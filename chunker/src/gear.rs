//! The rule of `fastcdc` v2020 (Xia et al., IEEE TPDS 2020) with a full secret gear table: a seed XORed onto
//! the public table is no secret. Cuts depend on all that came before, so one file is cut by one thread.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Cut, Sizes, SizesError};

/// Masks one bit stricter before the mean and one looser after it, as the paper's normalisation level 1.
const NORMALIZATION: fastcdc::v2020::Normalization = fastcdc::v2020::Normalization::Level1;

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct GearRule {
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
    #[zeroize(skip)]
    sizes: Sizes,
    mask_strict: u64,
    mask_loose: u64,
}

impl GearRule {
    pub(crate) fn new(sizes: Sizes, secret: &[u8; 32]) -> Result<Self, SizesError> {
        // Limits that the crate itself only asserts in debug builds.
        let even = [sizes.min, sizes.average, sizes.max].iter().all(|size| size.is_multiple_of(2));
        if !even || sizes.min > 1 << 20 || sizes.average > 4 << 20 || sizes.max < 1024 {
            return Err(SizesError);
        }
        let mut bytes = [0u8; 2048];
        blake3::Hasher::new_derive_key("copal v1 cut rule gear table").update(secret).finalize_xof().fill(&mut bytes);
        let mut gear = Box::new([0u64; 256]);
        for (entry, bytes) in gear.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *entry = u64::from_le_bytes(*bytes);
        }
        bytes.zeroize();
        let gear_shifted = Box::new(gear.map(|entry| entry << 1));
        let (mask_strict, mask_loose) = fastcdc::v2020::select_masks(sizes.average as usize, NORMALIZATION);
        Ok(Self { gear, gear_shifted, sizes, mask_strict, mask_loose })
    }

    /// Length of the next chunk of `source`, which is as long as a chunk may be, or all that is left.
    fn cut(&self, source: &[u8]) -> usize {
        if source.len() <= self.sizes.min as usize {
            return source.len();
        }
        let (_, length) = fastcdc::v2020::cut_gear(
            source,
            self.sizes.min as usize,
            self.sizes.average as usize,
            self.sizes.max as usize,
            self.mask_strict,
            self.mask_loose,
            self.mask_strict << 1,
            self.mask_loose << 1,
            &self.gear[..],
            &self.gear_shifted[..],
        );
        length.clamp(1, source.len())
    }
}

pub(crate) struct GearRun<'c> {
    rule: &'c GearRule,
    /// Bytes since the last cut, of earlier pieces.
    kept: Vec<u8>,
    last_cut: u64,
}

impl<'c> GearRun<'c> {
    pub(crate) fn new(rule: &'c GearRule) -> Self {
        Self { rule, kept: Vec::new(), last_cut: 0 }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8], cuts: &mut Vec<Cut>) {
        let max = self.rule.sizes.max as usize;
        let mut rest = bytes;
        // A chunk is decided only when as much is known as it may have.
        while self.kept.len() + rest.len() >= max {
            let length = if self.kept.is_empty() {
                self.rule.cut(&rest[..max])
            } else {
                let wanted = max.saturating_sub(self.kept.len());
                self.kept.extend_from_slice(&rest[..wanted]);
                rest = &rest[wanted..];
                self.rule.cut(&self.kept[..max])
            };
            if self.kept.is_empty() {
                rest = &rest[length..];
            } else {
                self.kept.drain(..length);
            }
            self.push(length, cuts);
        }
        self.kept.extend_from_slice(rest);
    }

    pub(crate) fn finish(mut self, cuts: &mut Vec<Cut>) {
        let mut kept = std::mem::take(&mut self.kept);
        while !kept.is_empty() {
            let length = self.rule.cut(&kept);
            kept.drain(..length);
            self.push(length, cuts);
        }
    }

    fn push(&mut self, length: usize, cuts: &mut Vec<Cut>) {
        self.last_cut += length as u64;
        cuts.push(Cut { offset: self.last_cut, hard: false });
    }
}
