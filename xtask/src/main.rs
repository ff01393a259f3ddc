//! The repository's own commands: `cargo xtask setup`, `cargo xtask test`, `cargo xtask check`,
//! `cargo xtask advisories`, `cargo xtask duel`, `cargo xtask kill`, `cargo xtask sim`.
//!
//! The rules of the repository themselves are tests (`xtask/tests/`), so that the test command runs them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advisories;
mod duel;
mod freeze;
mod kill;
mod load;
mod setup;
mod sim;

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
cargo xtask setup    installs what the tests need (Debian packages) where it is missing
cargo xtask test     setup, then every test of the workspace
cargo xtask check    formatting, clippy and the docs with warnings denied, licences, sources and advisories of dependencies
cargo xtask advisories  those of the dependencies alone, from a copy that COPAL_ADVISORIES names
cargo xtask ci       check, then test: what continuous integration runs
cargo xtask duel     Copal beside its peers on the same workloads (--help has more)
cargo xtask load     the daemon under load: requests a second, 64 clients, a kill in the middle (--help has more)
cargo xtask freeze   how long applications are held while they are captured: --gib N, --folder DIR, --kind KIND
cargo xtask kill     the program killed at random times over and over: --minutes N, --seed N
cargo xtask sim      the simulated world, seed after seed: --minutes N, --first SEED; one again: --seed SEED";

fn main() -> ExitCode {
    match run(env::args().nth(1).as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Option<&str>) -> Result<()> {
    match command {
        Some("setup") => setup::setup(),
        Some("test") => test(),
        Some("check") => check(),
        Some("advisories") => advisories::check(),
        Some("duel") => duel::run(env::args_os().skip(2)),
        Some("load") => load::run(env::args_os().skip(2)),
        Some("freeze") => freeze::run(env::args_os().skip(2)),
        Some("kill") => kill::run(env::args_os().skip(2)),
        Some("sim") => sim::run(env::args().skip(2)),
        Some("ci") => check().and_then(|()| test()),
        Some("help" | "--help") => {
            println!("{HELP}");
            Ok(())
        }
        _ => bail!("which command?\n{HELP}"),
    }
}

fn test() -> Result<()> {
    setup::setup()?;
    cargo(&["build", "--locked", "--package", "copal"], &[])?;
    // All of them, whatever fails: a red run should say everything at once.
    cargo(&["test", "--locked", "--workspace", "--no-fail-fast"], &[])
}

fn check() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    cargo(&["doc", "--locked", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    cargo(&["test", "--locked", "--package", "xtask", "--test", "dependencies"], &[])?;
    advisories::check()
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let line = format!("cargo {}", arguments.join(" "));
    println!("== {line}");
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .with_context(|| format!("starting {line}"))?;
    if !status.success() {
        bail!("{line} failed");
    }
    Ok(())
}
