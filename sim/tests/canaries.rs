//! Goal: the swarm notices what it is there to notice. Method: each fault that can be built into the store
//! (`copal_store::mutants`) is built in, and the same worlds that find nothing in the true store must find
//! it, within a fixed number of seeds. Skipped syncs have their canaries in `sweep.rs`.
#![allow(clippy::unwrap_used)]

use std::panic::catch_unwind;

use copal_sim::world::{Plan, run};
use copal_store::mutants::Mutant;

/// Faults of a moment that hardly any seed hits: the scripts of `meetings.rs` come to it for certain.
const RARE: &[Mutant] = &[Mutant::ListsSessionsFirst, Mutant::BeginsUnregistered, Mutant::ListsPacksOnce];

/// Worlds from seed 1 on; `COPAL_CANARY_SEEDS` tries more, to see how rare a mutant is.
fn budget(usual: u64) -> u64 {
    std::env::var("COPAL_CANARY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(usual)
}

fn is_noticed(mutant: Mutant, seeds: u64) {
    for seed in 1..=budget(seeds) {
        let plan = Plan { mutant: Some(mutant), ..Plan::of_seed(seed) };
        if let Err(panic) = catch_unwind(|| run(plan)) {
            println!("{mutant:?}: seed {seed}: {}", panic.downcast_ref::<String>().cloned().unwrap_or_default());
            return;
        }
    }
    panic!("nobody notices {mutant:?}");
}

macro_rules! canaries {
    ($($name:ident: $mutant:ident within $seeds:literal seeds;)*) => {
        $(
            #[test]
            fn $name() {
                is_noticed(Mutant::$mutant, $seeds);
            }
        )*

        #[test]
        fn every_mutant_has_its_canary() {
            for mutant in Mutant::ALL {
                let canaries = [$(Mutant::$mutant),*].iter().chain(RARE).filter(|other| *other == mutant).count();
                assert_eq!(canaries, 1, "{mutant:?}");
            }
        }
    };
}

canaries! {
    canary_a_base_that_marking_forgets_is_noticed: ForgetsBases within 60 seeds;
    canary_a_live_pack_that_is_condemned_is_noticed: SweepsALivePack within 60 seeds;
    canary_a_rewrite_that_copies_nothing_is_noticed: RewritesWithoutCopies within 60 seeds;
    canary_a_sweep_that_waits_for_nobody_is_noticed: WaitsForNobody within 60 seeds;
    canary_a_sweep_that_pardons_nothing_is_noticed: PardonsNothing within 60 seeds;
    canary_living_sessions_that_are_taken_for_dead_are_noticed: TakesTheLivingForDead within 60 seeds;
    canary_a_condemned_chunk_that_is_reused_is_noticed: ReusesCondemnedChunks within 60 seeds;
    canary_a_fragment_that_goes_before_its_heir_comes_is_noticed: RemovesFragmentsFirst within 60 seeds;
    canary_a_session_that_nobody_sees_and_that_publishes_is_noticed: PublishesUnseen within 400 seeds;
    canary_an_index_that_says_wrong_places_is_noticed: WritesWrongPlaces within 60 seeds;
    canary_a_name_that_is_looked_for_once_is_noticed: LooksForTheNameOnce within 60 seeds;
}
