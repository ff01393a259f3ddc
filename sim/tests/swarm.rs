//! Goal: nothing is lost when processes meet, fail and die. Method: worlds by seed, see `copal_sim::world`. A
//! fixed budget of seeds here; `cargo xtask sim --minutes N` goes on from where it ended, `--seed S` repeats
//! one.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use copal_sim::world::{Plan, Seen, run};

/// Seeds of the usual test run.
const SEEDS: std::ops::Range<u64> = 1..121;

/// Failing seeds that are enough to see a pattern.
const FAILURES_MAX: usize = 10;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn add(sum: &mut Seen, seen: Seen) {
    sum.acknowledged += seen.acknowledged;
    sum.restored += seen.restored;
    sum.deltas += seen.deltas;
    sum.swept += seen.swept;
    sum.faults += seen.faults;
    sum.deaths += seen.deaths;
    sum.turns += seen.turns;
}

#[test]
fn worlds_lose_nothing() {
    if let Some(seed) = number("COPAL_SIM_SEED") {
        println!("seed {seed}: {:?}", run(Plan::of_seed(seed)));
        return;
    }
    let mut sum = Seen::default();
    let mut seeds = 0;
    let mut failed = Vec::new();
    let begun = Instant::now();
    let (first, minutes) = (number("COPAL_SIM_FIRST").unwrap_or(SEEDS.start), number("COPAL_SIM_MINUTES"));
    for seed in first.. {
        let done = match minutes {
            Some(minutes) => begun.elapsed() >= Duration::from_secs(minutes * 60),
            None => seed >= SEEDS.end,
        };
        if done {
            break;
        }
        match std::panic::catch_unwind(|| run(Plan::of_seed(seed))) {
            Ok(seen) => add(&mut sum, seen),
            Err(panic) => failed.push((seed, panic.downcast_ref::<String>().cloned().unwrap_or_default())),
        }
        seeds += 1;
        if failed.len() == FAILURES_MAX {
            break;
        }
    }
    println!("{seeds} seeds from {first}: {sum:?}");
    assert!(failed.is_empty(), "{} of {seeds} seeds fail: {failed:#?}", failed.len());
    // The worlds are busy enough to mean something.
    assert!(
        sum.acknowledged > seeds * 6 && sum.restored > seeds * 30 && sum.swept > seeds && sum.deltas > seeds,
        "{seeds} seeds: {sum:?}"
    );
    assert!(sum.faults > seeds && sum.deaths > seeds, "{seeds} seeds: {sum:?}");
}

#[test]
fn a_seed_gives_the_same_world_again() {
    for seed in [3, 6, 10, 11] {
        assert_eq!(run(Plan::of_seed(seed)), run(Plan::of_seed(seed)), "seed {seed}");
    }
}
