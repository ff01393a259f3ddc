//! The rule of the AES window: a position is judged by the full AES-128 of the 16 bytes before it.
//!
//! The first word of the ciphertext makes a *normal* candidate (two thresholds: strict before the aimed-at
//! mean, loose after it, the normalised chunking of FastCDC, Xia et al., ATC 2016); the second word makes
//! a *hard* one. A hard candidate cuts whatever the distance, unless another stands less than
//! [`HARD_DISTANCE_BYTES`] before it: periodic data would be cut to dust. Whether a position is a hard cut
//! thus follows from a fixed number of bytes before it, and from nothing else. A cipher is used, not a
//! rolling hash, because the tables of rolling hashes are recovered from observed boundaries.

use aes::Aes128;
use aes::cipher::{
    Array, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit, ParBlocks,
    consts::U16,
};
use zeroize::Zeroizing;

use crate::{Cut, Sizes};

/// Bytes that judge a position.
pub(crate) const WINDOW_BYTES: usize = 16;
/// Hard candidates closer than this to another are none.
pub(crate) const HARD_DISTANCE_BYTES: usize = 4096;
/// One position in this many is a hard candidate (a power of two): short runs for other threads to find, few
/// needless cuts.
const HARD_PERIOD: u32 = 1 << 19;
const HARD_MASK: u32 = HARD_PERIOD - 1;
/// A group of blocks is filled so many groups before it is encrypted: the processor does both at once, and
/// does not wait for the small stores of the filling when it loads wide.
const LEAD_GROUPS: usize = 2;
const RING_GROUPS: usize = 4;

type Block = Array<u8, U16>;

#[derive(Clone)]
pub(crate) struct AesRule {
    // Zeroed on drop by the cipher's `zeroize` feature.
    cipher: Aes128,
    sizes: Sizes,
    strict: u32,
    loose: u32,
}

/// What a position is.
#[derive(Clone, Copy)]
struct Judgement {
    normal: u32,
    hard: bool,
}

impl AesRule {
    pub(crate) fn new(sizes: Sizes, secret: &[u8; 32]) -> Self {
        let key = Zeroizing::new(blake3::derive_key("copal v1 cut rule AES window", secret));
        let mut cipher_key = Array::default();
        cipher_key.copy_from_slice(&key[..16]);
        // From the least length on, half the mean is reached strictly, and the rest loosely.
        let mean = sizes.average;
        let threshold = |period: u32| u32::MAX / period.max(1);
        Self { cipher: Aes128::new(&cipher_key), sizes, strict: threshold(mean), loose: threshold(mean / 4) }
    }

    /// Judges the positions that end the windows of `bytes`: position 0 is after the first 16 bytes. Only
    /// candidates are told; `each` ends it by `false`.
    fn judge(&self, bytes: &[u8], mut each: impl FnMut(usize, Judgement) -> bool) {
        self.cipher.encrypt_with_backend(Judge { bytes, loose: self.loose, each: &mut each });
    }

    pub(crate) fn first_hard_cut(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let context = from.saturating_sub(HARD_DISTANCE_BYTES + WINDOW_BYTES);
        let mut last_hard = None;
        let mut found = None;
        self.judge(&bytes[context.min(bytes.len())..], |number, judgement| {
            let position = context + WINDOW_BYTES + number;
            if judgement.hard {
                let alone = last_hard.is_none_or(|last: usize| position - last >= HARD_DISTANCE_BYTES);
                last_hard = Some(position);
                if alone && position >= from {
                    found = Some(position);
                }
            }
            found.is_none()
        });
        found
    }
}

/// The work on one piece of bytes. A closure of the cipher is compiled for the instructions that the cipher
/// found, so filling, encrypting and judging are all as wide as the processor allows. `each` is no type
/// parameter: of one instance all is inlined.
struct Judge<'b> {
    bytes: &'b [u8],
    loose: u32,
    each: &'b mut dyn FnMut(usize, Judgement) -> bool,
}

impl BlockSizeUser for Judge<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Judge<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(mut self, backend: &B) {
        let mut ring: [Aligned<ParBlocks<B>>; RING_GROUPS] = Default::default();
        let group_positions = ring[0].0.len();
        let positions = (self.bytes.len() + 1).saturating_sub(WINDOW_BYTES);
        let groups = positions.div_ceil(group_positions);
        for step in 0..groups + LEAD_GROUPS {
            if step < groups {
                let begin = step * group_positions;
                let group = &mut ring[step % RING_GROUPS].0;
                match self.bytes.get(begin..begin + group_positions + WINDOW_BYTES - 1) {
                    Some(bytes) => fill(group, bytes),
                    None => fill(group, &self.bytes[begin..]),
                }
            }
            if step >= LEAD_GROUPS {
                let begin = (step - LEAD_GROUPS) * group_positions;
                let group = &mut ring[(step - LEAD_GROUPS) % RING_GROUPS].0;
                backend.encrypt_par_blocks_inplace(group);
                if has_candidate(group, self.loose) {
                    let known = group_positions.min(positions - begin);
                    if !self.tell(begin, &group[..known]) {
                        return;
                    }
                }
            }
        }
    }
}

/// On cache lines: a wide store or load that touches two costs double.
#[derive(Default)]
#[repr(align(64))]
struct Aligned<T>(T);

impl Judge<'_> {
    #[cold]
    fn tell(&mut self, begin: usize, blocks: &[Block]) -> bool {
        blocks.iter().enumerate().all(|(number, block)| {
            let [normal, hard] = words(block);
            let hard = hard & HARD_MASK == 0;
            (normal > self.loose && !hard) || (self.each)(begin + number, Judgement { normal, hard })
        })
    }
}

#[inline(always)]
fn fill(blocks: &mut [Block], bytes: &[u8]) {
    for (block, window) in blocks.iter_mut().zip(bytes.windows(WINDOW_BYTES)) {
        block.copy_from_slice(window);
    }
}

/// Whether any block is a candidate. The least of each word over lanes of eight blocks: a form that compiles
/// to wide instructions.
#[inline(always)]
fn has_candidate(blocks: &[Block], loose: u32) -> bool {
    const LANES: usize = 32;
    const MASKS: [u32; LANES] = {
        let mut masks = [u32::MAX; LANES];
        let mut word = 1;
        while word < LANES {
            masks[word] = HARD_MASK;
            word += 4;
        }
        masks
    };
    let mut least = [u32::MAX; LANES];
    let (runs, rest) = Array::slice_as_flattened(blocks).as_chunks::<{ 4 * LANES }>();
    for run in runs {
        for lane in 0..LANES {
            let word = u32::from_le_bytes([run[4 * lane], run[4 * lane + 1], run[4 * lane + 2], run[4 * lane + 3]]);
            least[lane] = least[lane].min(word & MASKS[lane]);
        }
    }
    let is_candidate = |normal: u32, hard: u32| normal <= loose || hard & HARD_MASK == 0;
    let rest = &blocks[blocks.len() - rest.len() / WINDOW_BYTES..];
    least.as_chunks::<4>().0.iter().any(|[normal, hard, ..]| is_candidate(*normal, *hard))
        || rest.iter().map(words).any(|[normal, hard]| is_candidate(normal, hard))
}

/// The words that judge for normal and for hard candidates.
#[inline(always)]
fn words(block: &Block) -> [u32; 2] {
    [0, 4].map(|at| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]))
}

pub(crate) struct AesRun<'c> {
    rule: &'c AesRule,
    /// The last bytes before the next one, at most a window less one.
    tail: Vec<u8>,
    /// Bytes fed.
    fed: u64,
    last_cut: u64,
    last_hard: Option<u64>,
}

impl<'c> AesRun<'c> {
    pub(crate) fn new(rule: &'c AesRule, before: &[u8]) -> Self {
        let tail = before[before.len().saturating_sub(WINDOW_BYTES - 1)..].to_vec();
        // A run that does not begin with the file begins at a hard cut, which counts as a candidate for what
        // follows.
        let last_hard = (!before.is_empty()).then_some(0);
        Self { rule, tail, fed: 0, last_cut: 0, last_hard }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8], cuts: &mut Vec<Cut>) {
        // Windows that reach back before these bytes, then those within.
        let head = bytes.len().min(WINDOW_BYTES - 1);
        let mut seam = std::mem::take(&mut self.tail);
        let before = seam.len();
        seam.extend_from_slice(&bytes[..head]);
        let fed = self.fed;
        self.scan(&seam, fed as i64 - before as i64, cuts);
        if bytes.len() >= WINDOW_BYTES {
            self.scan(bytes, fed as i64, cuts);
            seam.clear();
            seam.extend_from_slice(&bytes[bytes.len() - (WINDOW_BYTES - 1)..]);
        } else {
            let excess = seam.len().saturating_sub(WINDOW_BYTES - 1);
            seam.drain(..excess);
        }
        self.tail = seam;
        self.fed += bytes.len() as u64;
        self.cut_at_most(self.fed, cuts);
    }

    pub(crate) fn finish(mut self, cuts: &mut Vec<Cut>) {
        self.cut_at_most(self.fed, cuts);
        if self.fed > self.last_cut {
            self.last_cut = self.fed;
            cuts.push(Cut { offset: self.fed, hard: false });
        }
    }

    /// Applies the judgements of the windows of `bytes`, the first of which stands at `offset` of the run.
    fn scan(&mut self, bytes: &[u8], offset: i64, cuts: &mut Vec<Cut>) {
        let rule = self.rule;
        rule.judge(bytes, |number, judgement| {
            let position = offset + (WINDOW_BYTES + number) as i64;
            if position > 0 {
                self.apply(position as u64, judgement, cuts);
            }
            true
        });
    }

    fn apply(&mut self, position: u64, judgement: Judgement, cuts: &mut Vec<Cut>) {
        self.cut_at_most(position - 1, cuts);
        let mut hard = false;
        if judgement.hard {
            hard = self.last_hard.is_none_or(|last| position - last >= HARD_DISTANCE_BYTES as u64);
            self.last_hard = Some(position);
        }
        let distance = position - self.last_cut;
        let threshold = if distance < u64::from(self.rule.sizes.average) { self.rule.strict } else { self.rule.loose };
        let normal = distance >= u64::from(self.rule.sizes.min) && judgement.normal <= threshold;
        if hard || normal || distance == u64::from(self.rule.sizes.max) {
            self.last_cut = position;
            cuts.push(Cut { offset: position, hard });
        }
    }

    /// Cuts where the largest length is reached at or before `position`.
    fn cut_at_most(&mut self, position: u64, cuts: &mut Vec<Cut>) {
        let max = u64::from(self.rule.sizes.max);
        while position - self.last_cut >= max {
            // The position itself may yet turn out a hard cut, at which a run can be resumed: it is left to
            // the caller.
            self.last_cut += max;
            cuts.push(Cut { offset: self.last_cut, hard: false });
        }
    }
}
