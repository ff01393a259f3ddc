//! Goal: no input breaks a target. Method: each target over its corpus, over its seeds, and over a fixed
//! budget of mutations of them, the same in each run. `COPAL_FUZZ_SEEDS_TO=FOLDER` writes the seeds out for a
//! fuzzing engine. `COPAL_FUZZ_SECONDS=N` goes on for N seconds a target with other mutations.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use copal_fuzz::mutation::mutated;
use copal_fuzz::{TARGETS, Target};
use copal_sim::Choices;

/// What one input of some KiB may take, on a busy machine.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn feed(target: &Target, input: &[u8], what: &str) {
    let begun = Instant::now();
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let path = std::env::temp_dir().join(format!("copal-fuzz-{}", target.name));
        fs::write(&path, input).unwrap();
        panic!("{}: {what} breaks it; the input of {} bytes is in {}", target.name, input.len(), path.display());
    }
    assert!(begun.elapsed() < INPUT_TIME_MAX, "{}: {what} takes {:?}", target.name, begun.elapsed());
}

fn replay(target: &Target) {
    let mut seeds = (target.seeds)();
    seeds.extend(corpus(target));
    if let Some(folder) = std::env::var_os("COPAL_FUZZ_SEEDS_TO") {
        let folder = Path::new(&folder).join(target.name);
        fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:02}")), seed).unwrap();
        }
        return;
    }
    for (number, seed) in seeds.iter().enumerate() {
        feed(target, seed, &format!("seed {number}"));
    }
    let seconds = std::env::var("COPAL_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let (first, count) = if seconds.is_some() { (1 << 32, u64::MAX) } else { (0, target.budget) };
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut fed = 0;
    for number in (0..count).map(|number| first + number) {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let input = mutated(&seeds, &mut Choices::new(number));
        feed(target, &input, &format!("mutation {number}"));
        fed += 1;
    }
    println!("{}: {} seeds, {fed} mutations", target.name, seeds.len());
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(TARGETS.iter().find(|target| target.name == stringify!($name)).unwrap());
            }
        )*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), run);
        }
    };
}

targets! {
    envelope index_block record config key_slot pack index root label condemned parity session tree_node snapshot entry_path deploy_journal
    bundle hub_tar cutter tampering operations
}
