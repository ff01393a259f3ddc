//! `copal watchdog`: lets an application go on when the process that captures it is killed or late. Started
//! by `create`, hidden.

use clap::Args;

use crate::exit_code::ExitCode;

/// Watches over a capture; started by the program itself
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal watchdog    reads its orders from standard input")]
pub(crate) struct Arguments {}

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    copal_application::watchdog()?;
    Ok(ExitCode::Done)
}
