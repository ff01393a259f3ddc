//! Mutations by seed, for replay on the stable toolchain; a fuzzing engine brings its own.

use copal_sim::Choices;

/// Longest mutated input in bytes.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Numbers at which arithmetic and limits break.
const INTERESTING: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, u64::MAX / 2, u64::MAX];

/// Some changes of one of the seeds, or of two spliced.
#[must_use]
pub fn mutated(seeds: &[Vec<u8>], choices: &mut Choices) -> Vec<u8> {
    let pick = |choices: &mut Choices| seeds[choices.below(seeds.len() as u64) as usize].clone();
    let mut bytes = pick(choices);
    if choices.one_in(6) {
        let other = pick(choices);
        let (here, there) = (choices.below(bytes.len() as u64 + 1), choices.below(other.len() as u64 + 1));
        bytes.truncate(here as usize);
        bytes.extend_from_slice(&other[there as usize..]);
    }
    for _ in 0..1 + choices.below(4) {
        change(&mut bytes, choices);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, choices: &mut Choices) {
    let at = choices.below(bytes.len() as u64 + 1) as usize;
    match choices.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << choices.below(8),
        1 if at < bytes.len() => bytes[at] = choices.number() as u8,
        2 => {
            let number = INTERESTING[choices.below(INTERESTING.len() as u64) as usize].to_le_bytes();
            let width = 1 << choices.below(4);
            for (byte, value) in bytes[at..].iter_mut().zip(&number[..width]) {
                *byte = *value;
            }
        }
        3 => bytes.truncate(at),
        4 => {
            let count = choices.below(32) as usize;
            let value = choices.number() as u8;
            bytes.splice(at..at, std::iter::repeat_n(value, count));
        }
        5 => {
            let end = (at + choices.below(64) as usize).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let end = (at + choices.below(64) as usize).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
    }
}
