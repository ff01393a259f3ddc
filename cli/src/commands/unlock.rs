//! `copal unlock`: keeps the opened key in the kernel's keyring for a while.

use clap::Args;
use jiff::SignedDuration;
use serde_json::json;

use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::keyring;

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

/// Longest time: a month.
const SECONDS_MAX: i64 = 31 * 24 * 3600;

fn seconds(text: &str) -> Result<usize, String> {
    // jiff counts no days in durations.
    let days = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()).map(|days| days.saturating_mul(86_400));
    let seconds = match days {
        Some(seconds) => seconds,
        None => text.parse::<SignedDuration>().map_err(|error| error.to_string())?.as_secs(),
    };
    if (1..=SECONDS_MAX).contains(&seconds) {
        usize::try_from(seconds).map_err(|error| error.to_string())
    } else {
        Err("it must be between a second and 31 days".into())
    }
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    let id = context.repository.config().repository;
    keyring::put(id, context.repository.unlocked(), arguments.time)
        .map_err(|error| ProgramError::NoKeyring(error.to_string()))?;
    if invocation.output.is_json() {
        invocation.output.document(&json!({ "unlocked": id.to_string(), "seconds": arguments.time }))?;
    } else {
        invocation.output.line(format!("the key is kept for {} seconds; `copal lock` forgets it", arguments.time))?;
    }
    Ok(ExitCode::Done)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_bounded() {
        for (text, expected) in [("1h", 3600), ("90s", 90), ("30m", 1800), ("2d", 172_800)] {
            assert_eq!(seconds(text).unwrap(), expected);
        }
        for text in ["0s", "-1h", "60d", "soon", ""] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
