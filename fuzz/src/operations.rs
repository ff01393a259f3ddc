//! Sequences of operations with faults, against the model: the bytes are the plan of a small world.

use copal_sim::Troubles;
use copal_sim::world::{Plan, run};

/// Seed (8 bytes), then one byte for each misfortune.
pub fn operations(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<8>() else { return };
    let byte = |at: usize| u64::from(rest.get(at).copied().unwrap_or(0));
    // Rare enough that something still succeeds.
    let chances = |at: usize| if byte(at) == 0 { 0 } else { 20 + byte(at) * 8 };
    run(Plan {
        seed: u64::from_le_bytes(*head),
        rounds: 1 + byte(0) % 2,
        operations: 1 + byte(1) % 6,
        troubles: Troubles {
            eio: chances(2),
            no_space: chances(3),
            lost_response: chances(4),
            short: chances(5),
            bit_flip: chances(6),
            slow: chances(7),
        },
        kills: byte(8) % 2 == 1,
        power: byte(9) % 2 == 1,
        stale: byte(10) % 2 == 1,
        vanishing: false,
        mutant: None,
    });
}

/// Each misfortune by itself, and all together.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![1; 19]];
    for misfortune in 2..11 {
        let mut seed = vec![0; 19];
        (seed[0], seed[8], seed[9], seed[8 + misfortune]) = (misfortune as u8, 1, 5, 9);
        seeds.push(seed);
    }
    seeds
}
