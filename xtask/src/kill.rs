//! `cargo xtask kill --minutes N`: the program killed, and without power, for as long as somebody has
//! patience.
//!
//! The tests are those of `cli/tests/kills.rs`, then those of `cli/tests/power.rs` and of `serve_power.rs`,
//! each file's side by side for the whole time, each from a seed that it prints. `--seed` repeats one; what
//! the machine does meanwhile differs all the same.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};

/// Every test at once: a machine with more to do interrupts at more places.
const THREADS: &str = "--test-threads=8";

struct Arguments {
    minutes: u64,
    seed: Option<u64>,
}

pub(crate) fn run(words: impl Iterator<Item = OsString>) -> Result<()> {
    let Arguments { minutes, seed } = parse(words)?;
    crate::setup::setup()?;
    let seconds = (minutes * 60).to_string();
    let seed = seed.map(|seed| seed.to_string());
    let mut environment = vec![("COPAL_KILL_SECONDS", seconds.as_str())];
    environment.extend(seed.as_deref().map(|seed| ("COPAL_KILL_SEED", seed)));
    let mut arguments = vec!["test", "--locked", "--package", "copal"];
    arguments.extend(["kills", "power", "serve_power"].iter().flat_map(|file| ["--test", file]));
    arguments.extend(["--", "--nocapture", THREADS]);
    crate::cargo(&arguments, &environment)
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Arguments> {
    let mut arguments = Arguments { minutes: 5, seed: None };
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64> {
            let value = words.next().and_then(|value| value.into_string().ok()).context("a number is missing")?;
            value.parse().with_context(|| format!("{value} is no number"))
        };
        match word.to_str() {
            Some("--minutes") => arguments.minutes = number()?,
            Some("--seed") => arguments.seed = Some(number()?),
            _ => bail!("usage: cargo xtask kill [--minutes N] [--seed N]"),
        }
    }
    Ok(arguments)
}
