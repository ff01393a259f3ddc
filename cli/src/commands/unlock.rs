//! `copal unlock`: keeps the opened key in the kernel's keyring for a while.

use std::time::Duration;

use clap::Args;
use copal_engine::timespan;
use serde_json::json;

use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::keyring;
use crate::shown::count;

/// Keeps the opened key in the kernel for a while: later commands ask for no password
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal unlock                           for one hour
  copal unlock --for 8h
  copal lock                             forgets it at once

Only this user finds the key, on this machine, until its time is over. A password or key
file that is named by a flag is used all the same.")]
pub(crate) struct Arguments {
    /// How long, for example 30m, 1h, 2d
    #[arg(long = "for", default_value = "1h", value_name = "TIME", value_parser = seconds)]
    time: usize,
}

/// Longest time.
const TIME_MAX: Duration = Duration::from_secs(31 * 86_400);

fn seconds(text: &str) -> Result<usize, String> {
    let time = timespan::parse(text, Duration::from_secs(1)..=TIME_MAX)?;
    usize::try_from(time.as_secs()).map_err(|error| error.to_string())
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    let id = context.repository.config().repository;
    keyring::put(id, context.repository.unlocked(), arguments.time)
        .map_err(|error| ProgramError::NoKeyring(error.to_string()))?;
    if invocation.output.is_json() {
        invocation.output.document(&json!({ "unlocked": id.to_string(), "seconds": arguments.time }))?;
    } else {
        invocation.output.line(format!(
            "the key is kept for {}; `copal lock` forgets it",
            count(arguments.time as u64, "second", "seconds")
        ))?;
    }
    Ok(ExitCode::Done)
}
